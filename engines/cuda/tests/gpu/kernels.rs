//! Every kernel against its reference, to the bit.

use std::sync::Arc;

use sightline_core::{DType, Filter, Picture, PixelFormat, Plane, Shape, TensorView, TensorViewMut};
use sightline_engine_api::{DeviceOps, DevicePicture, DevicePlane, DeviceTensor, MaskRoom, Stream};
use sightline_engine_cuda::{CudaDevice, Ink, MaskFinder, reference};

use crate::common::{COLOURS, Numbers, Owned, blobs, spec};

const ON: Stream = Stream::TRACK;

/// A tensor of its own buffer, not at its start.
pub(crate) fn tensor(device: &CudaDevice, dtype: DType, dims: &[usize]) -> DeviceTensor {
    let shape = Shape::new(dims).unwrap();
    let buffer = device.alloc(shape.elements() * dtype.size_bytes() + 512).unwrap();
    DeviceTensor { buffer, offset_bytes: 256, dtype, shape }
}

pub(crate) fn uploaded(device: &CudaDevice, dims: &[usize], values: &[f32]) -> DeviceTensor {
    let to = tensor(device, DType::F32, dims);
    device.upload(ON, TensorView::f32(dims, values).unwrap(), &to).unwrap();
    to
}

pub(crate) fn downloaded(device: &CudaDevice, stream: Stream, from: &DeviceTensor) -> Vec<f32> {
    let mut values = vec![0.0; from.shape.elements()];
    let view = TensorViewMut::f32(from.shape.dims(), &mut values).unwrap();
    device.download(stream, &mut [(from.clone(), view)]).unwrap();
    values
}

/// Bits, so that -0.0 and NaN count.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

pub(crate) fn tensors(device: &Arc<CudaDevice>) {
    let mut numbers = Numbers::new(1);
    for dims in [&[1][..], &[3, 5], &[2, 256, 9, 7]] {
        let count = dims.iter().product();
        let mut values: Vec<f32> = numbers.floats(count).iter().map(|value| value * 50.0).collect();
        // Ties to even, either way, and what is no number.
        let special = [f32::NAN, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, f32::INFINITY, -0.0, f32::MAX];
        values.iter_mut().zip(special).for_each(|(to, special)| *to = special);
        let (from, to) = (uploaded(device, dims, &values), tensor(device, DType::F32, dims));
        assert_eq!(downloaded(device, ON, &to), vec![0.0; count], "memory is zeroed");

        device.clamp(ON, &from, 20.0, &to).unwrap();
        let mut expected = values.clone();
        reference::clamp(&mut expected, 20.0);
        assert_eq!(downloaded(device, ON, &to), expected);

        device.copy(ON, &from, &to).unwrap();
        device.round_to_bf16(ON, &to).unwrap();
        let mut expected = values.clone();
        reference::round_to_bf16(&mut expected);
        assert_eq!(bits(&downloaded(device, ON, &to)), bits(&expected));
        assert_eq!(bits(&downloaded(device, ON, &from)), bits(&values), "the source is left alone");

        let channels = dims[0];
        let added = numbers.floats(channels);
        device.add_channels(ON, &from, &uploaded(device, &[channels], &added), &to).unwrap();
        let mut expected = values.clone();
        reference::add_channels(&mut expected, &added);
        assert_eq!(bits(&downloaded(device, ON, &to)), bits(&expected));

        device.fill(ON, -0.5, &to).unwrap();
        assert_eq!(downloaded(device, ON, &to), vec![-0.5; count]);
    }
}

pub(crate) fn pictures(device: &Arc<CudaDevice>) {
    for (index, format) in PixelFormat::ALL.into_iter().enumerate() {
        for (color, filter, from, to) in [
            (COLOURS[index % 4], Filter::Bilinear, (130, 94), (64, 64)),
            (COLOURS[(index + 1) % 4], Filter::Bicubic, (151, 83), (64, 48)),
            (COLOURS[(index + 2) % 4], Filter::Bicubic, (50, 30), (70, 70)),
            (COLOURS[(index + 3) % 4], Filter::Bilinear, (1, 1), (5, 3)),
        ] {
            let mut picture = Owned::noise(format, from, 3, 11);
            picture.color = color;
            let spec = spec(to.0, to.1, filter);
            let out = tensor(device, DType::F32, &[1, 3, to.1, to.0]);
            device.preprocess(ON, &picture.picture().into(), &spec, &out).unwrap();
            let expected = reference::preprocess(&picture.picture(), &spec);
            let got = downloaded(device, ON, &out);
            assert_eq!(bits(&got), bits(&expected), "{format:?} {color:?} {filter:?} {from:?} to {to:?}");
        }
    }
}

pub(crate) fn halves(device: &Arc<CudaDevice>) {
    let picture = Owned::waves(PixelFormat::Nv12, (96, 64), 12);
    let spec = spec(48, 40, Filter::Bicubic);
    let out = tensor(device, DType::F16, &[1, 3, 40, 48]);
    device.preprocess(ON, &picture.picture().into(), &spec, &out).unwrap();
    // The same bytes, seen as floats.
    let seen = DeviceTensor { dtype: DType::F32, shape: Shape::new(&[3 * 40 * 24]).unwrap(), ..out };
    let got: Vec<u8> = downloaded(device, ON, &seen).iter().flat_map(|value| value.to_ne_bytes()).collect();
    let expected = reference::preprocess(&picture.picture(), &spec);
    let expected: Vec<u8> =
        expected.iter().flat_map(|value| half::f16::from_f32(*value).to_ne_bytes()).collect();
    assert_eq!(got, expected);
}

pub(crate) fn parts_and_padded_rows(device: &Arc<CudaDevice>) {
    let whole = Owned::noise(PixelFormat::I420, (64, 48), 7, 13);
    let part = whole.picture().crop(10, 6, 33, 21).unwrap();
    let spec = spec(20, 20, Filter::Bilinear);
    let out = tensor(device, DType::F32, &[1, 3, 20, 20]);
    device.preprocess(ON, &part.into(), &spec, &out).unwrap();
    let expected = reference::preprocess(&part, &spec);
    assert_eq!(downloaded(device, ON, &out), expected, "from system memory");

    // The whole picture on the device, planes anywhere, rows padded; and the part of it by offset.
    let mut bytes = vec![0_u8; 4];
    let mut planes = Vec::new();
    for (index, (data, stride)) in whole.planes.iter().enumerate() {
        let (x, y) = if index == 0 { (10, 6) } else { (5, 3) };
        planes.push((bytes.len() + y * stride + x, *stride));
        bytes.extend(data);
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let words: Vec<i64> = bytes.as_chunks::<8>().0.iter().map(|word| i64::from_ne_bytes(*word)).collect();
    let raw = tensor(device, DType::I64, &[words.len()]);
    device.upload(ON, TensorView::i64(&[words.len()], &words).unwrap(), &raw).unwrap();
    let planes: Vec<_> = planes
        .iter()
        .map(|(offset, stride_bytes)| DevicePlane::Rows {
            offset_bytes: offset + raw.offset_bytes,
            stride_bytes: *stride_bytes,
        })
        .collect();
    let on_device = DevicePicture::new(raw.buffer.clone(), PixelFormat::I420, (33, 21), &planes).unwrap();
    device.fill(ON, 0.0, &out).unwrap();
    device.preprocess_picture(ON, &on_device, &spec, &out).unwrap();
    assert_eq!(downloaded(device, ON, &out), expected, "on the device");
}

pub(crate) fn masks(device: &Arc<CudaDevice>) {
    let mut numbers = Numbers::new(5);
    // Sizes in turn, large ones of several chunks: what one leaves in the tables would be the next one's.
    let mut finder = MaskFinder::new(device.clone(), 4, 640, 360, 100_000).unwrap();
    for (low, size) in [
        ((64, 64), (640, 360)),
        ((48, 48), (200, 150)),
        ((32, 40), (61, 33)),
        ((16, 16), (16, 16)),
        ((5, 7), (1, 65)),
        ((3, 3), (7, 1)),
        ((33, 20), (360, 640)),
    ] {
        let each: Vec<Vec<f32>> = vec![
            blobs(&mut numbers, low.0, low.1),
            numbers.floats(low.0 * low.1),
            vec![-1.0; low.0 * low.1],
            vec![1.0; low.0 * low.1],
        ];
        for objects in [1, 4] {
            let logits = uploaded(device, &[objects, 1, low.1, low.0], &each[..objects].concat());
            finder.find(ON, &logits, size.0, size.1).unwrap();
            let found = finder.collect(ON).unwrap();
            assert_eq!(found.len(), objects);
            for (index, (found, logits)) in found.iter().zip(&each).enumerate() {
                let bits = reference::mask_bits(logits, low.0, low.1, size.0, size.1);
                let expected = reference::measure(&bits, size.0, size.1);
                assert_eq!(*found, expected, "mask {index} of {low:?} to {size:?}");
            }
        }
    }
}

pub(crate) fn masks_of_more_changes_than_are_kept(device: &Arc<CudaDevice>) {
    let mut finder = MaskFinder::new(device.clone(), 2, 64, 64, 10).unwrap();
    let each = [Numbers::new(6).floats(32 * 32), vec![1.0; 32 * 32]];
    finder.find(ON, &uploaded(device, &[2, 1, 32, 32], &each.concat()), 64, 64).unwrap();
    for (found, logits) in finder.collect(ON).unwrap().iter().zip(&each) {
        let bits = reference::mask_bits(logits, 32, 32, 64, 64);
        assert_eq!(*found, reference::measure(&bits, 64, 64));
    }
}

/// One scratch for all: sizes in turn, several runs before what they left is waited for, once.
pub(crate) fn masks_left_on_the_device(device: &Arc<CudaDevice>) {
    let mut numbers = Numbers::new(8);
    let mut masks = Arc::clone(device).masks(4, 200 * 150).unwrap().expect("it makes masks");
    for (low, size) in
        [((48, 48), (200, 150)), ((64, 64), (61, 33)), ((20, 33), (1, 65)), ((16, 16), (150, 200))]
    {
        let room = MaskRoom::new(size.0, size.1).unwrap();
        let mut faulty = blobs(&mut numbers, low.0, low.1);
        faulty[7] = f32::NAN;
        let stripes = |at: usize| if (at / low.0).is_multiple_of(2) { 1.0 } else { -1.0 };
        let each: Vec<Vec<f32>> = vec![
            blobs(&mut numbers, low.0, low.1),
            (0..low.0 * low.1).map(stripes).collect(),
            vec![-1.0; low.0 * low.1],
            vec![1.0; low.0 * low.1],
            faulty,
            blobs(&mut numbers, low.0, low.1),
        ];
        let to = tensor(device, DType::I64, &[6 * room.words() / 2]);
        let part = |first: usize, objects: usize| DeviceTensor {
            offset_bytes: to.offset_bytes + first * room.words() * 4,
            shape: Shape::new(&[objects * room.words() / 2]).unwrap(),
            ..to.clone()
        };
        for (first, objects) in [(0, 4), (4, 1), (5, 1)] {
            let logits = each[first..first + objects].concat();
            let logits = uploaded(device, &[objects, 1, low.1, low.0], &logits);
            masks.find_to(ON, &logits, room, &part(first, objects)).unwrap();
        }
        let mut words = vec![0; to.shape.elements()];
        let view = TensorViewMut::I64(to.shape, &mut words);
        device.download(ON, &mut [(to.clone(), view)]).unwrap();
        for (index, (words, logits)) in words.chunks_exact(room.words() / 2).zip(&each).enumerate() {
            let bits = reference::mask_bits(logits, low.0, low.1, size.0, size.1);
            let expected = reference::measure(&bits, size.0, size.1);
            let head = room.head(words);
            let what = format!("mask {index} of {low:?} to {size:?}: {head:?}");
            assert_eq!((head.finite, head.positive), (index != 4, index != 2), "{what}");
            assert_eq!(head.changes as usize + 1, expected.rle.counts().len(), "{what}");
            let runs = room.runs(words).unwrap();
            assert_eq!(runs.is_none(), head.changes > room.most_changes(), "{what}");
            if let Some(rle) = runs {
                assert_eq!((head.area_px, head.bounds_px), (expected.area_px, expected.bounds_px), "{what}");
                assert_eq!(rle, expected.rle, "{what}");
            }
        }
        let crowded = room.runs(&words[room.words() / 2..]).unwrap().is_none();
        assert_eq!(crowded, size.1 > 60, "stripes have more changes than there is room for");
    }
    let room = MaskRoom::new(200, 151).unwrap();
    let (one, to) =
        (tensor(device, DType::F32, &[1, 1, 4, 4]), tensor(device, DType::I64, &[room.words() / 2]));
    assert!(masks.find_to(ON, &one, room, &to).is_err(), "too many pixels");
    let room = MaskRoom::new(20, 15).unwrap();
    assert!(masks.find_to(ON, &one, room, &to).is_err(), "another place");
    let five = tensor(device, DType::F32, &[5, 1, 4, 4]);
    let to = tensor(device, DType::I64, &[5 * room.words() / 2]);
    assert!(masks.find_to(ON, &five, room, &to).is_err(), "too many objects");
}

pub(crate) fn overlay(device: &Arc<CudaDevice>) {
    let mut numbers = Numbers::new(7);
    for format in PixelFormat::ALL {
        for size in [(40, 30), (33, 21)] {
            let objects = 3;
            let logits: Vec<Vec<f32>> = (0..objects).map(|_| numbers.floats(12 * 12)).collect();
            let mut finder = MaskFinder::new(device.clone(), objects, size.0, size.1, 4096).unwrap();
            let low = uploaded(device, &[objects, 1, 12, 12], &logits.concat());
            finder.find(ON, &low, size.0, size.1).unwrap();
            // More than one launch takes, and masks over each other.
            let inks: Vec<Ink> = (0..19)
                .map(|index| Ink {
                    mask: index * 2 % objects,
                    bytes: [numbers.next() as u8, 90, index as u8 * 11],
                    weight: 20 + 10 * index as u16,
                })
                .collect();
            let mut expected = Owned::noise(format, size, 2, 14);
            let picture = device.upload_picture(ON, &expected.picture()).unwrap();
            finder.fill(ON, &picture, &inks).unwrap();
            let extent = (size.0 as usize, size.1 as usize);
            let mut planes: Vec<(&mut [u8], usize)> =
                expected.planes.iter_mut().map(|(data, stride)| (&mut data[..], *stride)).collect();
            for ink in &inks {
                let bits = reference::mask_bits(&logits[ink.mask], 12, 12, size.0, size.1);
                reference::fill(format, extent, &mut planes, &bits, ink.bytes, ink.weight);
            }
            // Looked at through a model's eyes: at its own size a picture is only converted.
            let spec = spec(extent.0, extent.1, Filter::Bilinear);
            let out = tensor(device, DType::F32, &[1, 3, extent.1, extent.0]);
            device.preprocess_picture(ON, &picture, &spec, &out).unwrap();
            let planes: Vec<_> =
                expected.planes.iter().map(|(data, stride)| Plane { data, stride_bytes: *stride }).collect();
            let drawn = Picture::new(format, size.0, size.1, &planes).unwrap();
            assert_eq!(
                downloaded(device, ON, &out),
                reference::preprocess(&drawn, &spec),
                "{format:?} {size:?}"
            );
        }
    }
}

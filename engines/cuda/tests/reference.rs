//! The kernels' references against `sightline_vision`, which the corridor runs on a processor.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{COLOURS, Numbers, Owned, blobs, spec};
use sightline_core::{Filter, Mask, PixelFormat, Rle};
use sightline_engine_cuda::reference;
use sightline_vision::{MaskUpscaler, Preprocessor, draw};

/// How far apart two preprocessed pictures are, in levels of 255: the most, on average, and the share of values that are
/// further apart than one.
fn apart(a: &[f32], b: &[f32], std: [f32; 3]) -> [f32; 3] {
    let (plane, count) = (a.len() / 3, a.len() as f32);
    let levels = a.iter().zip(b).enumerate().map(|(at, (a, b))| (a - b).abs() * std[at / plane] * 255.0);
    let [most, sum, far] = levels.fold([0.0, 0.0, 0.0], |[most, sum, far], off| {
        [off.max(most), sum + off, far + f32::from(u8::from(off > 1.01))]
    });
    [most, sum / count, far / count]
}

#[test]
fn pictures_are_the_preprocessors_to_a_level() {
    let mut worst = [[0.0_f32; 3]; 2];
    for format in PixelFormat::ALL {
        for (color, filter, from, to) in [
            (COLOURS[0], Filter::Bilinear, (129, 95), (64, 64)),
            (COLOURS[1], Filter::Bicubic, (160, 90), (64, 48)),
            (COLOURS[2], Filter::Bicubic, (64, 48), (96, 96)),
            (COLOURS[3], Filter::Bilinear, (64, 48), (64, 48)),
        ] {
            for mut picture in [Owned::waves(format, from, 7), Owned::noise(format, from, 5, 8)] {
                picture.color = color;
                let spec = spec(to.0, to.1, filter);
                let ours = reference::preprocess(&picture.picture(), &spec);
                let mut theirs = vec![0.0; ours.len()];
                Preprocessor::new(&spec).run(&picture.picture(), &mut theirs).unwrap();
                let off = apart(&ours, &theirs, spec.std);
                let is_yuv = matches!(format, PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Yuy2);
                // Packed: two passes, each rounded, each with weights of 15 bits there. YUV: its conversion there has
                // the precision of the processor's vectors, off by one level, which a filter that overshoots spreads.
                let allowed = if is_yuv { [3.01, 0.4, 0.03] } else { [2.01, 0.05, 0.001] };
                let ok = off.iter().zip(allowed).all(|(off, allowed)| *off <= allowed);
                assert!(ok, "{format:?} {color:?} {filter:?} {from:?} to {to:?}: {off:?}");
                if from == (to.0 as u32, to.1 as u32) {
                    assert!(
                        off[0] < if is_yuv { 1.01 } else { 1e-3 },
                        "{format:?}: {off:?} without resampling"
                    );
                }
                let worst = &mut worst[usize::from(is_yuv)];
                worst.iter_mut().zip(off).for_each(|(worst, off)| *worst = worst.max(off));
            }
        }
    }
    println!("most, mean, share above one level: packed {:?}, yuv {:?}", worst[0], worst[1]);
}

#[test]
fn masks_are_the_upscalers() {
    let mut numbers = Numbers::new(3);
    for (low, size) in [((64, 64), (320, 200)), ((32, 48), (37, 29)), ((16, 16), (16, 16)), ((5, 7), (1, 65))]
    {
        for kind in ["blobs", "noise", "nothing", "everything"] {
            let logits = match kind {
                "blobs" => blobs(&mut numbers, low.0, low.1),
                "noise" => numbers.floats(low.0 * low.1),
                "nothing" => vec![-1.0; low.0 * low.1],
                _ => vec![1.0; low.0 * low.1],
            };
            let bits = reference::mask_bits(&logits, low.0, low.1, size.0, size.1);
            let found = reference::measure(&bits, size.0, size.1);
            let expected = MaskUpscaler::new(low.0, low.1).run(&logits, size.0, size.1).unwrap();
            assert_eq!(found.rle, expected, "{kind} {low:?} to {size:?}");
            let mask = expected.decode();
            assert_eq!(found.area_px as usize, mask.area_px(), "{kind}");
            assert_eq!(found.bounds_px, mask.bounds_px(), "{kind} {low:?} to {size:?}");
            let last = size.0 as usize * size.1 as usize % 32;
            assert!(last == 0 || bits.last().unwrap() >> last == 0, "nothing behind the picture");
        }
    }
}

#[test]
fn overlays_are_the_painters() {
    let mut numbers = Numbers::new(4);
    for format in PixelFormat::ALL {
        for size in [(40, 30), (33, 21), (1, 1)] {
            let mut mask = Mask::new(size.0, size.1);
            mask.data_mut().iter_mut().for_each(|byte| *byte = u8::from(numbers.next().is_multiple_of(3)));
            let mut painted = Owned::noise(format, size, 2, 9);
            let mut ours = painted.clone();
            let color = draw::Color::new(250, 80, 30);
            let planes = painted.planes.iter_mut();
            let planes = planes.map(|(data, stride)| draw::PlaneMut { data, stride_bytes: *stride });
            let mut picture = draw::PictureMut::new(format, size.0, size.1, planes).unwrap();
            draw::fill(&mut picture, &Rle::encode(&mask), color, 0.4);
            let bytes = match format {
                PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Yuy2 => {
                    color.to_yuv(Default::default(), Default::default())
                }
                PixelFormat::Bgr | PixelFormat::Bgrx | PixelFormat::Bgra => [color.b, color.g, color.r],
                _ => [color.r, color.g, color.b],
            };
            let mut bits = vec![0_u32; (size.0 * size.1).div_ceil(32) as usize];
            for (x, y) in (0..size.0).flat_map(|x| (0..size.1).map(move |y| (x, y))) {
                let at = (x * size.1 + y) as usize;
                bits[at / 32] |= u32::from(mask.data()[(y * size.0 + x) as usize]) << (at % 32);
            }
            let mut planes: Vec<(&mut [u8], usize)> =
                ours.planes.iter_mut().map(|(data, stride)| (&mut data[..], *stride)).collect();
            let extent = (size.0 as usize, size.1 as usize);
            reference::fill(format, extent, &mut planes, &bits, bytes, (0.4_f32 * 256.0).round() as u16);
            assert_eq!(ours.planes, painted.planes, "{format:?} {size:?}");
        }
    }
}

#[test]
fn small_operations() {
    let mut values = [-3.0, -1.0, 0.25, 7.0, f32::INFINITY, f32::NAN];
    reference::clamp(&mut values, 2.0);
    assert_eq!(values, [-2.0, -1.0, 0.25, 2.0, 2.0, -2.0]);
    let mut values = [1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -0.1];
    reference::round_to_bf16(&mut values);
    assert_eq!(values, [1.0, 1.0, 1.015_625, -0.100_097_656], "ties go to even");
    let mut values = [1.0, 2.0, 3.0, 4.0];
    reference::add_channels(&mut values, &[10.0, 20.0]);
    assert_eq!(values, [11.0, 12.0, 23.0, 24.0]);
}

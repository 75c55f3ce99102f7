//! Pictures in memory that somebody else writes and takes back, as a decoder's pool does.

use std::{
    ptr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use cudarc::driver::sys;
use sightline_core::{DType, Filter, PixelFormat, TensorView};
use sightline_engine_api::{
    Device, DeviceBuffer, DeviceOps, DevicePicture, DevicePlane, DeviceTensor, Kind, Stream,
};
use sightline_engine_cuda::{CudaDevice, Ink, Lent, MaskFinder, reference};

use crate::{
    common::{COLOURS, Owned, spec},
    kernels::{downloaded, tensor},
};

/// A stream that passes for the producer's.
const PRODUCER: Stream = Stream(77);

/// Keeps the memory, and says when it was given back.
struct Keeper {
    _of: Option<Arc<dyn DeviceBuffer>>,
    back: Arc<AtomicUsize>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.back.fetch_add(1, Ordering::SeqCst);
    }
}

/// A picture that a stream has still to write.
fn lent(device: &CudaDevice, picture: &Owned, on: Stream, back: &Arc<AtomicUsize>) -> DevicePicture {
    let (mut bytes, mut planes) = (Vec::new(), Vec::new());
    for (data, stride) in &picture.planes {
        planes.push(DevicePlane::Rows { offset_bytes: bytes.len(), stride_bytes: *stride });
        bytes.extend(data);
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let words: Vec<i64> = bytes.as_chunks::<8>().0.iter().map(|word| i64::from_ne_bytes(*word)).collect();
    let buffer = device.alloc(bytes.len()).unwrap();
    let shape = sightline_core::Shape::new(&[words.len()]).unwrap();
    let raw = DeviceTensor { buffer: buffer.clone(), offset_bytes: 0, dtype: DType::I64, shape };
    device.upload(on, TensorView::i64(&[words.len()], &words).unwrap(), &raw).unwrap();
    let (place, writer) = ((buffer.address(), buffer.len_bytes()), device.stream_handle(on).unwrap());
    let keeper = Keeper { _of: Some(buffer), back: back.clone() };
    // SAFETY: all of a buffer that the keeper has, and a stream of its device.
    let lent = unsafe { Lent::new(0, place, Vec::new(), Some(writer), keeper) };
    let lent = DevicePicture::new(lent, picture.format, picture.size, &planes).unwrap();
    lent.with_color(picture.color.0, picture.color.1)
}

pub(crate) fn read_behind_its_writer(device: &Arc<CudaDevice>) {
    let spec = spec(20, 16, Filter::Bilinear);
    for (index, format) in PixelFormat::ALL.into_iter().enumerate() {
        let mut picture = Owned::noise(format, (46, 34), 5, 21 + index as u64);
        picture.color = COLOURS[index % 4];
        let out = tensor(device, DType::F32, &[1, 3, 16, 20]);
        let lent = lent(device, &picture, PRODUCER, &Arc::default());
        device.preprocess(Stream::COPY, &lent.clone().into(), &spec, &out).unwrap();
        let expected = reference::preprocess(&picture.picture(), &spec);
        assert_eq!(downloaded(device, Stream::COPY, &out), expected, "{format:?}");
        // And a part of it.
        let part = lent.crop(10, 6, 33, 21).unwrap();
        device.preprocess(Stream::COPY, &part.into(), &spec, &out).unwrap();
        let expected = reference::preprocess(&picture.picture().crop(10, 6, 33, 21).unwrap(), &spec);
        assert_eq!(downloaded(device, Stream::COPY, &out), expected, "a part of {format:?}");
    }
}

pub(crate) fn held_until_read(device: &Arc<CudaDevice>) {
    let (spec, back) = (spec(20, 16, Filter::Bilinear), Arc::new(AtomicUsize::new(0)));
    let picture = Owned::noise(PixelFormat::Nv12, (46, 34), 0, 31);
    let out = tensor(device, DType::F32, &[1, 3, 16, 20]);
    for round in 0..20 {
        let lent = lent(device, &picture, Stream::COPY, &back);
        device.preprocess(Stream::COPY, &lent.into(), &spec, &out).unwrap();
        assert_eq!(back.load(Ordering::SeqCst), round, "nobody has waited for the work yet");
        downloaded(device, Stream::COPY, &out);
        assert_eq!(back.load(Ordering::SeqCst), round + 1, "the work is done");
    }
    // Where nobody downloads, no more are held than the next picture finds at work.
    for _ in 0..20 {
        let lent = lent(device, &picture, Stream::COPY, &back);
        device.preprocess(Stream::COPY, &lent.into(), &spec, &out).unwrap();
        device.synchronize(Stream::COPY).unwrap();
    }
    assert_eq!(back.load(Ordering::SeqCst), 20 + 19);
    // And whoever looks whether work is over lets the last one go.
    let mark = device.mark().unwrap();
    device.record(Stream::COPY, &*mark).unwrap();
    device.is_past(&*mark).unwrap();
    assert_eq!(back.load(Ordering::SeqCst), 40);
}

pub(crate) fn tiled(device: &Arc<CudaDevice>) {
    let spec = spec(20, 16, Filter::Bilinear);
    let picture = Owned::noise(PixelFormat::Nv12, (46, 34), 7, 41);
    let on = device.enter(Stream::COPY).unwrap() as usize as sys::CUstream;
    let mut arrays = Vec::new();
    for (index, (data, stride)) in picture.planes.iter().enumerate() {
        let (row, rows) = picture.format.plane_extent(index, 46, 34);
        let (width, channels) = if index == 0 { (row, 1) } else { (row / 2, 2) };
        let descriptor = sys::CUDA_ARRAY_DESCRIPTOR {
            Width: width,
            Height: rows,
            Format: sys::CUarray_format::CU_AD_FORMAT_UNSIGNED_INT8,
            NumChannels: channels,
        };
        let mut array = ptr::null_mut();
        // SAFETY: both are there for the call; the context was made current.
        unsafe { sys::cuArrayCreate_v2(&mut array, &descriptor) }.result().unwrap();
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
            srcHost: data.as_ptr().cast(),
            srcDevice: 0,
            srcArray: ptr::null_mut(),
            srcPitch: *stride,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_ARRAY,
            dstHost: ptr::null_mut(),
            dstDevice: 0,
            dstArray: array,
            dstPitch: 0,
            WidthInBytes: row,
            Height: rows,
        };
        // SAFETY: the plane has these rows, the array is of their size; both outlive the wait below.
        unsafe { sys::cuMemcpy2DAsync_v2(&copy, on) }.result().unwrap();
        arrays.push(array);
    }
    device.synchronize(Stream::COPY).unwrap();
    let handles: Vec<u64> = arrays.iter().map(|array| array.expose_provenance() as u64).collect();
    let planes: Vec<_> = handles.iter().map(|handle| DevicePlane::Tiled { handle: *handle }).collect();
    let back = Arc::new(AtomicUsize::new(0));
    let keeper = Keeper { _of: None, back: back.clone() };
    // SAFETY: no bytes, and arrays that are destroyed below, when nothing reads them.
    let buffer = unsafe { Lent::new(0, (0, 0), handles, None, keeper) };
    let lent = DevicePicture::new(buffer, picture.format, picture.size, &planes).unwrap();
    let lent = lent.with_color(picture.color.0, picture.color.1);
    let out = tensor(device, DType::F32, &[1, 3, 16, 20]);
    for part in [[0, 0, 46, 34], [10, 6, 33, 21]] {
        let [x, y, width, height] = part;
        let (ours, theirs) = (lent.crop(x, y, width, height).unwrap(), picture.picture());
        device.preprocess(Stream::COPY, &ours.into(), &spec, &out).unwrap();
        let expected = reference::preprocess(&theirs.crop(x, y, width, height).unwrap(), &spec);
        assert_eq!(downloaded(device, Stream::COPY, &out), expected, "{part:?}");
    }
    drop(lent);
    assert_eq!(back.load(Ordering::SeqCst), 1);
    for array in arrays {
        // SAFETY: made above, and nothing uses it any more.
        unsafe { sys::cuArrayDestroy(array) }.result().unwrap();
    }
}

/// Names an address, and nobody vouches for it.
#[derive(Debug)]
struct Anybody(Device);

impl DeviceBuffer for Anybody {
    fn device(&self) -> Device {
        self.0
    }
    fn address(&self) -> u64 {
        4096
    }
    fn len_bytes(&self) -> usize {
        1 << 20
    }
}

pub(crate) fn refusals(device: &Arc<CudaDevice>) {
    let spec = spec(20, 16, Filter::Bilinear);
    let picture = Owned::noise(PixelFormat::Rgb, (8, 8), 0, 1);
    let back = Arc::new(AtomicUsize::new(0));
    let lent = lent(device, &picture, PRODUCER, &back);
    let out = tensor(device, DType::F32, &[1, 3, 16, 20]);
    let rows = DevicePlane::Rows { offset_bytes: 0, stride_bytes: 24 };
    let tiled = DevicePlane::Tiled { handle: 4096 };
    let elsewhere = Device::Cuda { ordinal: 9 };
    for (buffer, plane, says) in [
        (Arc::new(Anybody(elsewhere)) as Arc<dyn DeviceBuffer>, rows, "expected one on cuda:0, got cuda:9"),
        (Arc::new(Anybody(device.place())), rows, "expected memory that cuda:0 has made or was lent, got"),
        (lent.buffer().clone(), tiled, "expected memory that cuda:0 has made or was lent, got"),
    ] {
        let foreign = DevicePicture::new(buffer, PixelFormat::Rgb, (8, 8), &[plane]).unwrap();
        let error = device.preprocess(Stream::COPY, &foreign.into(), &spec, &out).unwrap_err();
        assert_eq!(error.kind(), Kind::Interface);
        assert!(error.to_string().starts_with(&format!("picture: {says}")), "{error}");
    }
    // What is lent is read, not drawn upon.
    let mut finder = MaskFinder::new(device.clone(), 1, 8, 8, 64).unwrap();
    finder.find(Stream::COPY, &tensor(device, DType::F32, &[1, 1, 4, 4]), 8, 8).unwrap();
    let ink = Ink { mask: 0, bytes: [255; 3], weight: 256 };
    let error = finder.fill(Stream::COPY, &lent, &[ink]).unwrap_err();
    assert!(error.to_string().starts_with("overlay: expected memory of this crate's making"), "{error}");
    // What fails after part of it was given is let go as well.
    let narrow = tensor(device, DType::F32, &[1, 3, 16, 19]);
    assert!(device.preprocess(Stream::COPY, &lent.into(), &spec, &narrow).is_err());
    downloaded(device, Stream::COPY, &narrow);
    assert_eq!(back.load(Ordering::SeqCst), 1);
}

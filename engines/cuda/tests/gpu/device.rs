//! Memory, streams, marks and graphs.

use std::sync::Arc;

use sightline_core::{DType, Filter, Shape, TensorView, TensorViewMut};
use sightline_engine_api::{Device, DeviceBuffer, DeviceMark, DeviceOps, DeviceTensor, Kind as Api, Stream};
use sightline_engine_cuda::{CudaDevice, Kind, MaskFinder, reference};

use crate::{
    common::spec,
    kernels::{downloaded, tensor, uploaded},
};

/// Large enough that a GPU takes longer for it than a host for the next call.
const MANY: usize = 1 << 20;

pub(crate) fn uploads_are_read_at_once(device: &Arc<CudaDevice>) {
    let to = tensor(device, DType::F32, &[20, 1000]);
    let mut values = vec![0.0; 1000];
    for row in 0..20 {
        values.fill(row as f32);
        let at = to.offset_bytes + row * 4000;
        let part = DeviceTensor { offset_bytes: at, shape: Shape::new(&[1000]).unwrap(), ..to.clone() };
        device.upload(Stream::COPY, TensorView::f32(&[1000], &values).unwrap(), &part).unwrap();
    }
    let expected: Vec<f32> = (0..20_000).map(|at| (at / 1000) as f32).collect();
    assert_eq!(downloaded(device, Stream::COPY, &to), expected);
}

/// What one stream makes, another takes, only behind it.
pub(crate) fn order(device: &Arc<CudaDevice>) {
    let (a, b) = (tensor(device, DType::F32, &[MANY]), tensor(device, DType::F32, &[MANY]));
    for round in 1..5 {
        device.fill(Stream::COPY, round as f32, &a).unwrap();
        device.order(Stream::COPY, Stream::ENCODE).unwrap();
        device.copy(Stream::ENCODE, &a, &b).unwrap();
        device.order(Stream::ENCODE, Stream::TRACK).unwrap();
        device.order(Stream::ENCODE, Stream::COPY).unwrap();
        assert_eq!(downloaded(device, Stream::TRACK, &b)[MANY - 1], round as f32);
    }
    if device.info().name == "Imaginary" {
        // The check can fail: without an order the copy comes first there.
        device.fill(Stream::COPY, 9.0, &a).unwrap();
        device.copy(Stream::ENCODE, &a, &b).unwrap();
        assert_ne!(downloaded(device, Stream::ENCODE, &b)[0], 9.0);
        device.synchronize(Stream::COPY).unwrap();
    }
}

pub(crate) fn marks(device: &Arc<CudaDevice>) {
    let (a, b) = (tensor(device, DType::F32, &[MANY]), tensor(device, DType::F32, &[MANY]));
    let mark = device.mark().unwrap();
    // Not recorded yet: no wait.
    device.wait(Stream::TRACK, &*mark).unwrap();
    assert!(device.is_past(&*mark).unwrap());
    for round in 1..5 {
        device.fill(Stream::COPY, round as f32, &a).unwrap();
        device.record(Stream::COPY, &*mark).unwrap();
        if device.info().name == "Imaginary" {
            // It does a step a look, and the order before the fill is one, too.
            assert!(round > 1 || device.is_past(&*mark).unwrap());
            assert!(round == 1 || !device.is_past(&*mark).unwrap());
        }
        device.wait(Stream::TRACK, &*mark).unwrap();
        device.copy(Stream::TRACK, &a, &b).unwrap();
        assert_eq!(downloaded(device, Stream::TRACK, &b)[0], round as f32);
        assert!(device.is_past(&*mark).unwrap(), "what was waited for has been before it");
        device.order(Stream::TRACK, Stream::COPY).unwrap();
    }
    #[derive(Debug)]
    struct Foreign(u64);
    impl DeviceMark for Foreign {
        fn handle(&self) -> u64 {
            self.0
        }
    }
    let gone = Foreign(mark.handle());
    device.record(Stream::COPY, &gone).expect("its handle is a living mark's");
    drop(mark);
    for foreign in [gone, Foreign(0), Foreign(0x1234)] {
        let error = device.record(Stream::COPY, &foreign).expect_err("not ours");
        assert_eq!(error.kind(), Api::Interface, "{error}");
        assert_eq!(device.wait(Stream::COPY, &foreign).expect_err("not ours").kind(), Api::Interface);
        assert_eq!(device.is_past(&foreign).expect_err("not ours").kind(), Api::Interface);
    }
}

pub(crate) fn graphs(device: &Arc<CudaDevice>) {
    let from = uploaded(device, &[64], &[5.0; 64]);
    let to = tensor(device, DType::F32, &[64]);
    device.synchronize(Stream::TRACK).unwrap();
    let work = || {
        device.clamp(Stream::TRACK, &from, 3.0, &to)?;
        device.add_channels(Stream::TRACK, &to, &to, &to)
    };
    let mut graph = device.capture(Stream::TRACK, vec![from.clone(), to.clone()], work).unwrap();
    assert_eq!(downloaded(device, Stream::TRACK, &to), [0.0; 64], "captured, not run");
    for value in [5.0, 1.5] {
        device.fill(Stream::TRACK, value, &from).unwrap();
        graph.launch().unwrap();
        assert_eq!(downloaded(device, Stream::TRACK, &to), [2.0 * value.min(3.0); 64]);
    }
    // Waiting for another stream's mark is no work of this one; the stream is whole again afterwards.
    let refused = device.capture(Stream::TRACK, vec![], || {
        Err(sightline_engine_api::EngineError::new(Api::Run, "work", "success", "none"))
    });
    assert_eq!(refused.expect_err("its own error").to_string(), "work: expected success, got none");
    assert!(device.capture(Stream::TRACK, vec![], || Ok(())).is_err() || device.info().name != "Imaginary");
    device.fill(Stream::TRACK, 7.0, &to).unwrap();
    assert_eq!(downloaded(device, Stream::TRACK, &to), [7.0; 64]);
}

pub(crate) fn ends(device: &Arc<CudaDevice>) {
    let to = tensor(device, DType::F32, &[MANY]);
    for value in 0..20 {
        device.fill(Stream::ENCODE, value as f32, &to).unwrap();
    }
    let end = device.end_of(Stream::ENCODE).unwrap();
    // Asking is enough for it to come about.
    while !end.is_done() {
        std::thread::yield_now();
    }
    end.wait().unwrap();
    device.end_of(Stream(77)).unwrap().wait().unwrap();
    assert_ne!(device.stream_handle(Stream::ENCODE).unwrap(), device.stream_handle(Stream::TRACK).unwrap());
}

pub(crate) fn memory_outlives_its_work(device: &Arc<CudaDevice>) {
    let kept = tensor(device, DType::F32, &[MANY]);
    {
        let lost = tensor(device, DType::F32, &[MANY]);
        device.fill(Stream::TRACK, 3.0, &lost).unwrap();
        device.copy(Stream::TRACK, &lost, &kept).unwrap();
    }
    assert_eq!(downloaded(device, Stream::TRACK, &kept)[MANY - 1], 3.0);
}

pub(crate) fn arena(_: &Arc<CudaDevice>) {
    let device = CudaDevice::open(0, Some(4096)).unwrap();
    let arena = device.arena().unwrap();
    let first = device.alloc(1000).unwrap();
    let second = device.alloc(1).unwrap();
    assert_eq!(arena.used_bytes(), (1280, 4096));
    assert_eq!((first.address() % 256, second.address() - first.address()), (0, 1024));
    let error = device.alloc(3000).expect_err("too much");
    assert_eq!(error.kind(), Api::Unavailable);
    assert_eq!(error.to_string(), "device arena: expected 3000 bytes, got 2816 of 4096 left");
    let whole = |buffer: Arc<dyn DeviceBuffer>| DeviceTensor {
        shape: Shape::new(&[buffer.len_bytes() / 4]).unwrap(),
        buffer,
        offset_bytes: 0,
        dtype: DType::F32,
    };
    device.fill(Stream::TRACK, 8.0, &whole(first.clone())).unwrap();
    device.synchronize(Stream::TRACK).unwrap();
    drop(first);
    assert_eq!(arena.used_bytes().0, 1280, "not before all of it is back");
    drop(second);
    let again = device.alloc(4096).unwrap();
    assert_eq!(downloaded(&device, Stream::TRACK, &whole(again.clone())), [0.0; 1024], "zeroed anew");
    drop(again);
    arena.seal();
    let error = device.alloc(1).expect_err("sealed");
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (Api::Unavailable, "sealed device arena: expected no allocation, got 1 bytes asked for")
    );
}

/// Of several copies the last one fails: the bytes of those before it are not freed under them.
pub(crate) fn a_copy_that_fails(device: &Arc<CudaDevice>) {
    // As the imaginary driver has it; a real one has no reason to refuse.
    const REFUSED: usize = 1013;
    let many = tensor(device, DType::F32, &[MANY]);
    let refused = tensor(device, DType::F32, &[REFUSED]);
    let (mut values, mut none) = (vec![0.0; MANY], [0.0; REFUSED]);
    for round in 1..4 {
        device.fill(Stream::TRACK, round as f32, &many).unwrap();
        let parts = &mut [
            (many.clone(), TensorViewMut::f32(&[MANY], &mut values).unwrap()),
            (refused.clone(), TensorViewMut::f32(&[REFUSED], &mut none).unwrap()),
        ];
        let imaginary = device.info().name == "Imaginary";
        assert_eq!(device.download(Stream::TRACK, parts).is_err(), imaginary);
        assert_eq!(downloaded(device, Stream::TRACK, &many)[MANY - 1], round as f32);
    }
}

pub(crate) fn refusals(device: &Arc<CudaDevice>) {
    let on = Stream::TRACK;
    let four = tensor(device, DType::F32, &[4]);
    let elsewhere = DeviceTensor { offset_bytes: four.buffer.len_bytes(), ..four.clone() };
    let crooked = DeviceTensor { offset_bytes: 2, ..four.clone() };
    let huge = DeviceTensor { offset_bytes: usize::MAX - 3, ..four.clone() };
    #[derive(Debug)]
    struct Host;
    impl DeviceBuffer for Host {
        fn device(&self) -> Device {
            Device::Cpu
        }
        fn address(&self) -> u64 {
            256
        }
        fn len_bytes(&self) -> usize {
            4096
        }
    }
    let foreign = DeviceTensor { buffer: Arc::new(Host), ..four.clone() };
    /// Names memory that is there, but is not its own.
    #[derive(Debug)]
    struct Anybodys(Device, u64);
    impl DeviceBuffer for Anybodys {
        fn device(&self) -> Device {
            self.0
        }
        fn address(&self) -> u64 {
            self.1
        }
        fn len_bytes(&self) -> usize {
            4096
        }
    }
    let anybodys = Arc::new(Anybodys(device.place(), four.buffer.address()));
    assert!(!device.owns(&*anybodys) && !device.owns(&Host) && device.owns(&*four.buffer));
    let anybodys = DeviceTensor { buffer: anybodys, ..four.clone() };
    let error = device.copy(on, &anybodys, &four).expect_err("not its own");
    let said = format!("copy: expected memory that {} has made, got Anybodys(", device.place());
    assert!(error.to_string().starts_with(&said), "{error}");
    let half = DeviceTensor { dtype: DType::F16, ..four.clone() };
    for (case, tensor) in [
        ("outside", &elsewhere),
        ("crooked", &crooked),
        ("overflow", &huge),
        ("host", &foreign),
        ("another maker's", &anybodys),
        ("half", &half),
    ] {
        let error = device.fill(on, 1.0, tensor).expect_err(case);
        assert_eq!(error.kind(), Api::Interface, "{case}: {error}");
    }
    let five = tensor(device, DType::F32, &[5]);
    assert!(device.clamp(on, &four, 1.0, &five).is_err());
    assert!(device.copy(on, &four, &five).is_err());
    assert!(device.add_channels(on, &four, &tensor(device, DType::F32, &[3]), &four).is_err());
    assert!(device.upload(on, TensorView::f32(&[5], &[0.0; 5]).unwrap(), &four).is_err());
    assert!(device.upload(on, TensorView::i64(&[4], &[0; 4]).unwrap(), &four).is_err());
    let mut values = [0.0; 4];
    let view = TensorViewMut::f32(&[2, 2], &mut values).unwrap();
    let error = device.download(on, &mut [(four.clone(), view)]).expect_err("another shape");
    assert_eq!(error.to_string(), "download: expected [4], got [2,2]");

    let picture = crate::common::Owned::noise(sightline_core::PixelFormat::Nv12, (8, 8), 0, 1);
    let spec = spec(4, 4, Filter::Bilinear);
    assert!(device.preprocess(on, &picture.picture().into(), &spec, &four).is_err());

    let mut finder = MaskFinder::new(device.clone(), 1, 8, 8, 8).unwrap();
    assert_eq!(finder.collect(on).expect_err("nothing was found").kind(), Kind::Argument);
    assert!(finder.find(on, &tensor(device, DType::F32, &[2, 1, 2, 2]), 8, 8).is_err());
    assert!(finder.find(on, &tensor(device, DType::F32, &[1, 1, 2, 2]), 9, 8).is_err());
    assert_eq!(CudaDevice::open(99, None).expect_err("there is no such number").kind(), Kind::NoDevice);
}

/// Feeds share one stream for their pictures, of one size or of several.
pub(crate) fn pictures_of_several_feeds(device: &Arc<CudaDevice>) {
    const ROUNDS: usize = 30;
    let spec = spec(16, 16, Filter::Bilinear);
    let start = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for feed in 0..4 {
            let (spec, start) = (&spec, &start);
            scope.spawn(move || {
                let size = (24 + 2 * (feed / 2) as u32, 20);
                let format = sightline_core::PixelFormat::Rgb;
                let own: Vec<_> = (0..ROUNDS)
                    .map(|round| {
                        let picture = crate::common::Owned::noise(format, size, 0, feed * 100 + round as u64);
                        (picture, tensor(device, DType::F32, &[1, 3, 16, 16]))
                    })
                    .collect();
                start.wait();
                for (picture, out) in &own {
                    device.preprocess(Stream::COPY, &picture.picture().into(), spec, out).unwrap();
                }
                for (round, (picture, out)) in own.iter().enumerate() {
                    let expected = reference::preprocess(&picture.picture(), spec);
                    assert_eq!(downloaded(device, Stream::COPY, out), expected, "feed {feed}, {round}");
                }
            });
        }
    });
}

/// Feeds share one device.
pub(crate) fn threads(device: &Arc<CudaDevice>) {
    std::thread::scope(|scope| {
        for feed in 0..4 {
            scope.spawn(move || {
                let (stream, own) = (Stream(10 + feed), tensor(device, DType::F32, &[4096]));
                for round in 0..20 {
                    let value = (feed * 100 + round) as f32;
                    let values = [value; 4096];
                    device.upload(stream, TensorView::f32(&[4096], &values).unwrap(), &own).unwrap();
                    device.clamp(stream, &own, 1e9, &own).unwrap();
                    assert_eq!(downloaded(device, stream, &own), values);
                }
            });
        }
    });
}

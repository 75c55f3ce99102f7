use sightline_core::PixelFormat;
use sightline_engine_api::{Device, DevicePicture, DevicePlane};

use super::{SharedContext, lend_memory};

fn system_buffer(bytes: usize) -> gst::Buffer {
    gst::init().unwrap();
    gst::Buffer::with_size(bytes).unwrap()
}

const GPU: Device = Device::Cuda { ordinal: 0 };

fn lent(buffer: gst::Buffer, device: Device) -> Result<DevicePicture, String> {
    let rows = DevicePlane::Rows { offset_bytes: 0, stride_bytes: 12 };
    lend_memory(buffer, device, PixelFormat::Rgb, (4, 4), &[rows])
}

#[test]
fn what_is_no_cuda_memory_is_named() {
    gst::init().unwrap();
    for (buffer, got) in [(system_buffer(16), "SystemMemory"), (gst::Buffer::new(), "0 blocks")] {
        let error = lent(buffer, GPU).unwrap_err();
        assert_eq!(error, format!("buffer: expected one block of gst.cuda.memory, got {got}"));
    }
    assert_eq!(lent(system_buffer(16), Device::Cpu).unwrap_err(), "expected a GPU, got cpu");
}

#[test]
fn without_a_driver_no_context_is_shared() {
    gst::init().unwrap();
    if crate::probe().is_ok() {
        return eprintln!("SKIPPED: this machine has a driver");
    }
    let error = SharedContext::new(0).unwrap_err();
    assert!(error.starts_with("NVIDIA driver: expected"), "{error}");
    let other = gst::Context::new("gst.gl.GLDisplay", true);
    let error = SharedContext::adopt(0, &other).unwrap_err();
    assert_eq!(error, "gst.cuda.context: expected a context of this type, got gst.gl.GLDisplay");
    let empty = gst::Context::new("gst.cuda.context", true);
    let error = SharedContext::adopt(0, &empty).unwrap_err();
    assert_eq!(error, "gst.cuda.context: expected a GstCudaContext in it, got none");
}

#[cfg(feature = "nvmm")]
mod nvmm {
    use sightline_core::PixelFormat;
    use sightline_engine_api::{Device, DevicePlane};

    use super::{
        super::{SurfaceFrame, surface::lend_with},
        GPU, system_buffer,
    };
    use crate::nvmm::{
        Kind, Nvmm, SurfacePlane,
        raw::Surface,
        tests::{Mock, Pool},
    };

    /// A pool's surface as a buffer's bytes.
    struct Bytes(Pool);

    // SAFETY: its pointers are to memory of its own.
    unsafe impl Send for Bytes {}

    impl AsRef<[u8]> for Bytes {
        fn as_ref(&self) -> &[u8] {
            let surface: *const Surface = &raw const *self.0.surface;
            // SAFETY: a live structure; its padding is not looked at by those who are handed these bytes.
            unsafe { std::slice::from_raw_parts(surface.cast(), size_of::<Surface>()) }
        }
    }

    fn buffer(memory: &gst::Memory) -> gst::Buffer {
        let mut buffer = gst::Buffer::new();
        buffer.get_mut().unwrap().append_memory(memory.clone());
        buffer
    }

    #[test]
    fn a_surface_is_registered_once_and_let_go_with_its_memory() {
        gst::init().unwrap();
        let Some(mock) = Mock::new() else { return };
        let nvmm = Nvmm::open_at(&mock.names()).unwrap();
        let memory = gst::Memory::from_slice(Bytes(Pool::nv12(4, 0)));
        for _ in 0..3 {
            // A pool wraps the same memory again and again.
            let buffer = buffer(&memory);
            let frame = SurfaceFrame::with(&nvmm, &buffer).unwrap();
            let mut luma = [0; 24];
            frame.download(0, 6, &mut luma).unwrap();
            assert_eq!((luma[0], luma[5], luma[6]), (0, 5, 16));
        }
        let calls = mock.calls();
        assert_eq!(calls.matches("cuGraphicsEGLRegisterImage").count(), 1, "{calls}");
        assert_eq!(calls.matches("cuMemcpy2D").count(), 3, "{calls}");
        assert!(!calls.contains("Unregister"), "{calls}");
        drop(memory);
        assert_eq!(mock.calls(), "cuGraphicsUnregisterResource NvBufSurfaceUnMapEglImage");
    }

    #[test]
    fn another_picture_in_the_same_place_is_registered_anew() {
        gst::init().unwrap();
        let Some(mock) = Mock::new() else { return };
        let nvmm = Nvmm::open_at(&mock.names()).unwrap();
        let mut pool = Pool::nv12(4, 0);
        let descriptor = pool.descriptor();
        let memory = gst::Memory::from_slice(Bytes(pool));
        let buffer = buffer(&memory);
        drop(SurfaceFrame::with(&nvmm, &buffer).unwrap());
        // SAFETY: the pool lives in the memory, and nothing else looks at it now.
        unsafe { descriptor.write(8) };
        drop(SurfaceFrame::with(&nvmm, &buffer).unwrap());
        let calls = mock.calls();
        assert_eq!(calls.matches("cuGraphicsEGLRegisterImage").count(), 2, "{calls}");
        assert_eq!(calls.matches("cuGraphicsUnregisterResource").count(), 1, "{calls}");
    }

    #[test]
    fn two_streams_share_a_registration() {
        gst::init().unwrap();
        let Some(mock) = Mock::new() else { return };
        let nvmm = Nvmm::open_at(&mock.names()).unwrap();
        let memory = gst::Memory::from_slice(Bytes(Pool::nv12(4, 1)));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let buffer = buffer(&memory);
                        let frame = SurfaceFrame::with(&nvmm, &buffer).unwrap();
                        frame.download(1, 6, &mut [0; 12]).unwrap();
                    }
                });
            }
        });
        drop(memory);
        let calls = mock.calls();
        assert_eq!(calls.matches("cuGraphicsEGLRegisterImage").count(), 1);
        assert!(calls.ends_with("cuGraphicsUnregisterResource NvBufSurfaceUnMapEglImage"), "{calls}");
    }

    #[test]
    fn a_surface_is_lent_where_it_lies() {
        gst::init().unwrap();
        for (case, memory_type, layout) in [("in CUDA memory", 2, 0), ("pitched", 4, 0), ("tiled", 4, 1)] {
            let Some(mock) = Mock::new() else { return };
            let nvmm = Nvmm::open_at(&mock.names()).unwrap();
            let memory = gst::Memory::from_slice(Bytes(Pool::nv12(memory_type, layout)));
            let buffer = buffer(&memory);
            let lent = lend_with(&nvmm, buffer.clone(), GPU, PixelFormat::Nv12, (6, 4)).unwrap();
            assert_eq!((lent.device(), lent.buffer().writer()), (GPU, None), "{case}");
            let frame = SurfaceFrame::with(&nvmm, &buffer).unwrap();
            for ((plane, _), surface) in lent.planes().zip(frame.picture().planes()) {
                match (plane, *surface) {
                    (
                        DevicePlane::Rows { offset_bytes, stride_bytes },
                        SurfacePlane::Pitched { address, stride_bytes: of },
                    ) => {
                        assert_eq!(
                            (lent.buffer().address() + offset_bytes as u64, stride_bytes),
                            (address, of)
                        );
                    }
                    (DevicePlane::Tiled { handle }, SurfacePlane::Array { handle: of }) => {
                        assert_eq!(handle, of)
                    }
                    other => panic!("{case}: {other:?}"),
                }
            }
            assert!(!mock.calls().contains("cuMemcpy2D"), "{case}: nothing is copied");
            drop(frame);
            assert!(!buffer.is_writable(), "{case}: the buffer is held");
            drop(lent);
            assert!(buffer.is_writable(), "{case}: the buffer is given back");
        }
    }

    #[test]
    fn a_surface_that_is_not_what_was_said_is_not_lent() {
        gst::init().unwrap();
        let Some(mock) = Mock::new() else { return };
        let nvmm = Nvmm::open_at(&mock.names()).unwrap();
        let memory = gst::Memory::from_slice(Bytes(Pool::nv12(4, 0)));
        for (device, format, size, says) in [
            (Device::Cuda { ordinal: 3 }, PixelFormat::Nv12, (6, 4), "expected one on cuda:3, got cuda:0"),
            (GPU, PixelFormat::Rgba, (6, 4), "expected Rgba of 6x4, as its caps say, got Nv12 of 6x4"),
            (GPU, PixelFormat::Nv12, (8, 4), "expected Nv12 of 8x4, as its caps say, got Nv12 of 6x4"),
        ] {
            let error = lend_with(&nvmm, buffer(&memory), device, format, size).unwrap_err();
            assert_eq!(error.kind(), Kind::Surface);
            assert_eq!(error.to_string(), format!("nvmm surface: {says}"));
        }
        mock.fail(c"cuGraphicsEGLRegisterImage");
        let other = gst::Memory::from_slice(Bytes(Pool::nv12(4, 0)));
        let error = lend_with(&nvmm, buffer(&other), GPU, PixelFormat::Nv12, (6, 4)).unwrap_err();
        assert_eq!(error.kind(), Kind::Driver);
        mock.fail(c"");
        assert!(lend_with(&nvmm, buffer(&other), GPU, PixelFormat::Nv12, (6, 4)).is_ok(), "the next one");
    }

    #[test]
    fn a_buffer_too_small_to_be_a_surface_is_refused() {
        let Some(mock) = Mock::new() else { return };
        let nvmm = Nvmm::open_at(&mock.names()).unwrap();
        let error = SurfaceFrame::with(&nvmm, &system_buffer(16)).unwrap_err();
        assert_eq!(error.kind(), Kind::Surface);
        assert!(error.to_string().ends_with("an NvBufSurface, got 16 bytes"), "{error}");
    }

    #[test]
    fn without_the_libraries_it_says_so() {
        if super::super::nvmm_found().is_ok() {
            return eprintln!("SKIPPED: this machine has NVIDIA's surface library");
        }
        let error = SurfaceFrame::of(&system_buffer(64)).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.to_string().starts_with("libnvbufsurface.so: expected to find it, got"), "{error}");
    }
}

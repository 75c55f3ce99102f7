use super::CudaMap;

fn system_buffer(bytes: usize) -> gst::Buffer {
    gst::init().unwrap();
    gst::Buffer::with_size(bytes).unwrap()
}

#[test]
fn what_is_no_cuda_memory_is_named() {
    let error = CudaMap::of(&system_buffer(16)).unwrap_err();
    assert_eq!(error, "buffer: expected one block of gst.cuda.memory, got SystemMemory");
    gst::init().unwrap();
    let error = CudaMap::of(&gst::Buffer::new()).unwrap_err();
    assert_eq!(error, "buffer: expected one block of gst.cuda.memory, got 0 blocks");
}

#[cfg(feature = "nvmm")]
mod nvmm {
    use super::{super::SurfaceFrame, system_buffer};
    use crate::nvmm::{
        Kind, Nvmm,
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

//! The kernels compile for the GPUs we name, by NVIDIA's own compiler, without a GPU.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{path::Path, time::Instant};

use sightline_engine_cuda::{Image, Kind, Nvrtc, Version, compile};

/// What `make nvrtc` fetches.
fn fetched() -> Option<Nvrtc> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/nvrtc/libnvrtc.so.13");
    if !path.is_file() {
        eprintln!("SKIPPED: no NVRTC in .cache/nvrtc (`make nvrtc` fetches it): kernels were not compiled");
        return None;
    }
    Some(Nvrtc::open(&path).expect("the library that was fetched opens"))
}

#[test]
fn kernels_compile_for_every_gpu_we_name() {
    let Some(nvrtc) = fetched() else { return };
    assert_eq!(nvrtc.version(), Version(13_000));
    for architecture in [87, 90, 110] {
        let started = Instant::now();
        let image =
            compile(&nvrtc, architecture).unwrap_or_else(|error| panic!("sm_{architecture}: {error}"));
        let Image::Cubin(code) = image else { panic!("sm_{architecture}: assembly") };
        assert_eq!(code[..4], *b"\x7fELF");
        eprintln!("sm_{architecture}: {} bytes in {:?}", code.len(), started.elapsed());
    }
    // One that no NVRTC knows gets assembly for the driver to compile.
    let Image::Ptx(text) = compile(&nvrtc, 999).expect("PTX") else { panic!("machine code for no machine") };
    assert!(String::from_utf8_lossy(&text).contains(".visible .entry mask_bits"));
    assert_eq!(text.last(), Some(&0));
}

#[test]
fn source_that_does_not_compile_is_told_with_its_line() {
    let Some(nvrtc) = fetched() else { return };
    let error = nvrtc.compile("__global__ void broken() {\n  nonsense;\n}", &[], 90).expect_err("nonsense");
    assert_eq!(error.kind(), Kind::Kernel);
    assert!(error.to_string().contains("sightline.cu(2)"), "{error}");
}

#[test]
fn a_library_that_is_none_is_refused() {
    let error = Nvrtc::open(Path::new("/nonexistent/libnvrtc.so.13")).expect_err("not there");
    assert_eq!(error.kind(), Kind::NoCompiler);
    assert!(error.to_string().contains("/nonexistent/libnvrtc.so.13"), "{error}");
}

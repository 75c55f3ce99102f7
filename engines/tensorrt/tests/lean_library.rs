//! NVIDIA's own libraries, where they were fetched (`make tensorrt-libs`): they say their version, and without a driver they say so.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use sightline_engine_api::Kind;
use sightline_engine_tensorrt::{Runtime, TensorRt, plan::Flavor};
use support::{HostDevice, access, majors};

const CHILD: &str = "SIGHTLINE_TENSORRT_CHILD";

fn library(major: u32) -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/tensorrt/lib");
    let folder = env::var_os("SIGHTLINE_TENSORRT_LIBS").map_or(cache, PathBuf::from);
    folder.join(format!("libnvinfer_lean.so.{major}"))
}

/// What the child does: NVIDIA's library may crash it.
fn create(path: &Path) {
    let library = TensorRt::open(path).unwrap();
    println!("version {} {}", library.version(), library.flavor());
    match Runtime::new(&library, access(&Arc::new(HostDevice::default()))) {
        Ok(_) => println!("a runtime"),
        Err(error) => {
            assert_eq!(error.kind(), Kind::Unavailable);
            println!("{error}");
        }
    }
}

#[test]
fn without_a_driver_the_real_library_is_an_error_and_no_crash() {
    if let Some(path) = env::var_os(CHILD) {
        return create(Path::new(&path));
    }
    for (major, _) in majors() {
        let path = library(major);
        if !path.is_file() {
            eprintln!("SKIPPED: no {} (`make tensorrt-libs` fetches it)", path.display());
            continue;
        }
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "without_a_driver_the_real_library_is_an_error_and_no_crash", "--nocapture"])
            .env(CHILD, &path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{major}: {}: {text}", child.status);
        assert!(
            text.contains(&format!("version {major}.")) && text.contains(&Flavor::Lean.to_string()),
            "{text}"
        );
        if Path::new("/proc/driver/nvidia").exists() {
            eprintln!(
                "SKIPPED: this machine has an NVIDIA driver, and the error of one without cannot be seen"
            );
        } else {
            assert!(text.contains("expected a runtime, got "), "{major}: {text}");
            assert!(text.contains("CUDA initialization failure with error"), "{major}: {text}");
        }
    }
}

//! A test's body in a process of its own in which NVIDIA's libraries are stand-ins (nvidia.c). What is found is decided when a
//! plugin is loaded, once in a process.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

/// Set where the stand-ins are.
const MOCKED: &str = "SIGHTLINE_TEST_MOCKED";

pub(crate) fn skipped(why: impl std::fmt::Display) {
    eprintln!("SKIPPED: {why}");
}

/// Runs `body` where `libraries` are the stand-ins and GStreamer has `plugins` only; `test` is the calling test's name.
pub(crate) fn mocked(test: &str, libraries: &[&str], plugins: &[&str], body: impl FnOnce()) {
    gst::init().unwrap();
    if std::env::var_os(MOCKED).is_some() {
        return body();
    }
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../engines/cuda/tests/mock/nvidia.c"));
    let mock = folder.path().join("mock.so");
    match Command::new("cc").args(["-shared", "-fPIC", "-pthread", "-o"]).arg(&mock).arg(source).status() {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => return skipped(format_args!("cc: {error}")),
    }
    for name in libraries {
        fs::copy(&mock, folder.path().join(name)).unwrap();
    }
    // GStreamer remembers what a plugin had, so the registry must be new; few plugins make it quick.
    let path = folder.path().join("plugins");
    fs::create_dir(&path).unwrap();
    for name in plugins {
        if let Some(file) = gst::Registry::get().find_plugin(name).and_then(|plugin| plugin.filename()) {
            symlink(&file, path.join(file.file_name().unwrap())).unwrap();
        }
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(MOCKED, "1")
        .env("LD_LIBRARY_PATH", folder.path())
        .env("GST_PLUGIN_SYSTEM_PATH_1_0", &path)
        .env("GST_REGISTRY_1_0", folder.path().join("registry.bin"))
        .env_remove("GST_PLUGIN_PATH")
        .env_remove("GST_PLUGIN_PATH_1_0")
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{test}: {}\n{said}", output.status);
    said.lines().filter(|line| line.starts_with("SKIPPED")).for_each(|line| eprintln!("{line}"));
}

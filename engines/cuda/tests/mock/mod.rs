//! A test's body in a process of its own in which NVIDIA's libraries are stand-ins: those of nvidia.c, which write down what is
//! called, or the driver of an imaginary GPU (../imaginary/driver.cpp), which runs our kernels. What is found is decided when
//! a plugin is loaded, once in a process.
#![allow(dead_code)]

use std::{fs, os::unix::fs::symlink, path::Path, process::Command, sync::OnceLock};

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
    again(test, folder.path(), plugins);
}

/// Runs `body` where the driver is the imaginary one; its file `fetched` grows by a byte with every plane that somebody else
/// copies to the host.
pub(crate) fn imagined(test: &str, plugins: &[&str], body: impl FnOnce()) {
    gst::init().unwrap();
    if std::env::var_os(MOCKED).is_some() {
        return body();
    }
    static BUILT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libcuda.so");
    let bytes = BUILT.get_or_init(|| {
        let here = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../engines/cuda"));
        let built = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()))
            .args([
                "-std=c++17",
                "-O1",
                "-ffp-contract=off",
                "-shared",
                "-fPIC",
                "-Wl,-soname,libcuda.so",
                "-I",
            ])
            .args([here.join("kernels"), here.join("tests/imaginary/driver.cpp")])
            .arg("-o")
            .arg(&library)
            .status();
        match built {
            Ok(status) => assert!(status.success(), "{status}"),
            Err(error) => {
                skipped(format_args!("c++: {error}"));
                return None;
            }
        }
        Some(fs::read(&library).unwrap())
    });
    let Some(bytes) = bytes else { return };
    fs::write(&library, bytes).unwrap();
    // One library under all its names.
    for name in ["libcuda.so.1", "libnvcuvid.so.1"] {
        symlink(folder.path().join("libcuda.so"), folder.path().join(name)).unwrap();
    }
    again(test, folder.path(), plugins);
}

/// The calling test anew, with the libraries in `folder`.
fn again(test: &str, folder: &Path, plugins: &[&str]) {
    // GStreamer remembers what a plugin had, so the registry must be new; few plugins make it quick.
    let path = folder.join("plugins");
    fs::create_dir(&path).unwrap();
    for name in plugins {
        if let Some(file) = gst::Registry::get().find_plugin(name).and_then(|plugin| plugin.filename()) {
            symlink(&file, path.join(file.file_name().unwrap())).unwrap();
        }
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(MOCKED, "1")
        .env("LD_LIBRARY_PATH", folder)
        .env("SIGHTLINE_NVRTC", folder.join("libcuda.so"))
        .env("XDG_CACHE_HOME", folder)
        .env("SIGHTLINE_IMAGINARY_FETCHED", folder.join("fetched"))
        .env("GST_PLUGIN_SYSTEM_PATH_1_0", &path)
        .env("GST_REGISTRY_1_0", folder.join("registry.bin"))
        .env_remove("GST_PLUGIN_PATH")
        .env_remove("GST_PLUGIN_PATH_1_0")
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{test}: {}\n{said}", output.status);
    said.lines().filter(|line| line.starts_with("SKIPPED")).for_each(|line| eprintln!("{line}"));
}

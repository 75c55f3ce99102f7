//! Which headers `build.rs` compiles the shim against.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{fs, path::PathBuf};

#[path = "../build/headers.rs"]
mod headers;

fn folder(root: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let folder = root.path().join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("NvInferVersion.h"), text).unwrap();
    folder
}

fn plain(major: u32, minor: u32) -> String {
    format!("#define NV_TENSORRT_MAJOR {major} //!< major.\n#define NV_TENSORRT_MINOR {minor}\n")
}

/// As TensorRT 10.9 and later, and TensorRT-RTX, write it.
fn by_another_name(major: u32, minor: u32) -> String {
    format!(
        "#define TRT_MAJOR_X {major}\n#define TRT_MINOR_X {minor}\n#define NV_TENSORRT_MAJOR TRT_MAJOR_X //!< \n\
         #define NV_TENSORRT_MINOR TRT_MINOR_X\n"
    )
}

#[test]
fn versions_are_read_however_they_are_written() {
    let root = tempfile::tempdir().unwrap();
    for (name, text, expected) in [
        ("plain", plain(10, 3), (10, 3)),
        ("other", by_another_name(11, 4), (11, 4)),
        ("rtx", by_another_name(1, 7), (1, 7)),
    ] {
        assert_eq!(headers::version(&folder(&root, name, &text)).unwrap(), Some(expected), "{name}");
    }
    assert_eq!(headers::version(root.path()).unwrap(), None);
    for (name, text) in [("empty", ""), ("circle", "#define NV_TENSORRT_MAJOR NV_TENSORRT_MAJOR\n")] {
        assert!(headers::version(&folder(&root, name, text)).is_err(), "{name}");
    }
}

#[test]
fn named_folders_come_first_and_must_be_what_they_are_said_to_be() {
    let root = tempfile::tempdir().unwrap();
    let ten = folder(&root, "ten", &plain(10, 3));
    let eleven = folder(&root, "eleven", &by_another_name(11, 0));
    let old = folder(&root, "old", &plain(10, 2));
    let rtx = folder(&root, "rtx", &plain(1, 7));
    let system = [root.path().to_owned(), ten.clone()];
    let both = headers::choose(
        &[("TENSORRT_INCLUDE_DIR_10", Some(ten.clone())), ("TENSORRT_INCLUDE_DIR_11", Some(eleven.clone()))],
        &system,
    );
    assert_eq!(both.unwrap(), [(10, ten.clone()), (11, eleven.clone())]);
    let either = headers::choose(&[("TENSORRT_INCLUDE_DIR", Some(eleven.clone()))], &system);
    assert_eq!(either.unwrap(), [(11, eleven.clone())], "what is named is all there is");
    assert_eq!(headers::choose(&[("TENSORRT_INCLUDE_DIR", None)], &system).unwrap(), [(10, ten)]);
    for (variable, named, part) in [
        ("TENSORRT_INCLUDE_DIR_10", &eleven, "expected headers of TensorRT 10.3 or later, got 11.0"),
        ("TENSORRT_INCLUDE_DIR_10", &old, "expected headers of TensorRT 10.3 or later, got 10.2"),
        ("TENSORRT_INCLUDE_DIR", &rtx, "expected headers of TensorRT 10.3 or later, or 11, got 1.7"),
        ("TENSORRT_INCLUDE_DIR", &root.path().to_owned(), "expected a folder with NvInferVersion.h"),
    ] {
        let error = headers::choose(&[(variable, Some(named.clone()))], &system).unwrap_err();
        assert!(error.contains(part) && error.contains(variable), "{error}");
    }
    let none = headers::choose(&[], &[root.path().to_owned(), old]).unwrap_err();
    for part in ["libnvinfer-headers-dev", "TENSORRT_INCLUDE_DIR", "(10.2)"] {
        assert!(none.contains(part), "{part} in {none}");
    }
    assert!(!headers::SYSTEM.is_empty());
}

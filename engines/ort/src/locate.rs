use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use sightline_engine_api::{EngineError, Kind};

use crate::OrtProvider;

/// What the loader calls the library, before any version.
const SONAME: &str = "libonnxruntime.so";

/// Where a distribution or an administrator puts shared libraries.
const SYSTEM: [&str; 7] = [
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/lib64",
    "/opt/onnxruntime/lib",
];

/// What the search depends on, so that it can be tested.
struct Surroundings {
    variables: Vec<(&'static str, Option<OsString>)>,
    executable: Option<PathBuf>,
    data_home: Option<PathBuf>,
    system: Vec<PathBuf>,
}

impl Surroundings {
    fn real() -> Self {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        Self {
            variables: ["SIGHTLINE_ONNXRUNTIME", "ORT_DYLIB_PATH"]
                .into_iter()
                .map(|name| (name, set(name)))
                .collect(),
            executable: env::current_exe().ok(),
            data_home: set("XDG_DATA_HOME")
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .or_else(|| set("HOME").map(|home| Path::new(&home).join(".local/share"))),
            system: SYSTEM.iter().map(PathBuf::from).collect(),
        }
    }
}

/// Finds the ONNX Runtime library. Looked at, in this order: the file (or its folder) that `SIGHTLINE_ONNXRUNTIME`
/// names, then `ORT_DYLIB_PATH`; beside the running executable and in `../lib` from there;
/// `$XDG_DATA_HOME/sightline/lib` (`~/.local/share/sightline/lib`) and `cuda` in it; the system's library folders.
/// Nothing depends on the working directory.
///
/// # Errors
/// `Kind::Unavailable` when a variable names something that is not there, or when no place has the library: the
/// error lists each place and what to type.
pub fn locate() -> Result<PathBuf, EngineError> {
    locate_for(OrtProvider::Cpu)
}

/// As [`locate`], for what is to run the graphs: for a GPU, `cuda` comes before the data folder's `lib` it lies in.
/// `cuda` is where the library that was built for one is kept, its providers beside it.
///
/// # Errors
/// As [`locate`].
pub fn locate_for(provider: OrtProvider) -> Result<PathBuf, EngineError> {
    search(&Surroundings::real(), provider != OrtProvider::Cpu)
}

fn search(around: &Surroundings, gpu: bool) -> Result<PathBuf, EngineError> {
    let mut tried = Vec::new();
    for (name, value) in &around.variables {
        let Some(value) = value else {
            tried.push(format!("${name} (not set)"));
            continue;
        };
        // Somebody asked for this very file: another one in its place would be a surprise.
        let path = Path::new(value);
        if path.is_file() {
            return Ok(path.to_owned());
        }
        return newest(path).ok_or_else(|| {
            EngineError::new(
                Kind::Unavailable,
                format_args!("${name}"),
                format_args!("the path of {SONAME}"),
                format_args!("{:?}, which is not there", path.display().to_string()),
            )
        });
    }
    let beside = around.executable.as_deref().and_then(Path::parent);
    let folders = beside
        .map(|folder| vec![folder.to_owned(), folder.join("../lib")])
        .into_iter()
        .flatten()
        .chain(around.data_home.iter().flat_map(|home| {
            let lib = home.join("sightline/lib");
            let cuda = lib.join("cuda");
            if gpu { [cuda, lib] } else { [lib, cuda] }
        }))
        .chain(around.system.iter().cloned());
    for folder in folders {
        if let Some(found) = newest(&folder) {
            return Ok(found);
        }
        tried.push(folder.display().to_string());
    }
    Err(EngineError::new(
        Kind::Unavailable,
        "ONNX Runtime",
        format_args!(
            "{SONAME} version 1.17 or later (type `make setup`, or `pip download --no-deps onnxruntime`, unzip the \
             wheel and point SIGHTLINE_ONNXRUNTIME at onnxruntime/capi/{SONAME}.*)"
        ),
        format_args!("none in {}", tried.join(", ")),
    ))
}

/// The library in a folder; the highest version if there are several.
fn newest(folder: &Path) -> Option<PathBuf> {
    let mut found: Vec<(Vec<u32>, PathBuf)> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let rest = name.to_str()?.strip_prefix(SONAME)?;
            let version =
                if rest.is_empty() { Vec::new() } else { version_numbers(rest.strip_prefix('.')?)? };
            entry.path().is_file().then(|| (version, entry.path()))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path)
}

fn version_numbers(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> Surroundings {
        Surroundings {
            variables: vec![("SIGHTLINE_ONNXRUNTIME", None), ("ORT_DYLIB_PATH", None)],
            executable: None,
            data_home: None,
            system: vec![],
        }
    }

    fn put(folder: &Path, name: &str) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn places_are_tried_in_the_documented_order() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let system = put(&at("usr/lib"), "libonnxruntime.so.1.20.0");
        let mut around = Surroundings {
            executable: Some(at("app/bin/sightline")),
            data_home: Some(at("data")),
            system: vec![at("missing"), at("usr/lib")],
            ..nowhere()
        };
        assert_eq!(search(&around, false).unwrap(), system);
        let data = put(&at("data/sightline/lib"), "libonnxruntime.so.1.31.1");
        assert_eq!(search(&around, false).unwrap(), data);
        let cuda = put(&at("data/sightline/lib/cuda"), "libonnxruntime.so.1.30.0");
        assert_eq!(search(&around, false).unwrap(), data);
        assert_eq!(search(&around, true).unwrap(), cuda, "for a GPU, that which was built for one");
        fs::remove_file(&data).unwrap();
        assert_eq!(search(&around, false).unwrap(), cuda, "it has the processor's provider too");
        put(&at("data/sightline/lib"), "libonnxruntime.so.1.31.1");
        fs::create_dir_all(at("app/bin")).unwrap();
        put(&at("app/lib"), "libonnxruntime.so");
        assert_eq!(search(&around, false).unwrap(), at("app/bin/../lib/libonnxruntime.so"));
        let beside = put(&at("app/bin"), "libonnxruntime.so.1");
        assert_eq!(search(&around, false).unwrap(), beside);
        around.variables[1].1 = Some(at("usr/lib").into());
        assert_eq!(search(&around, false).unwrap(), system, "a variable may name the folder");
        around.variables[0].1 = Some(data.clone().into());
        assert_eq!(search(&around, false).unwrap(), data);
    }

    #[test]
    fn a_variable_that_names_nothing_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "libonnxruntime.so");
        let mut around = Surroundings { system: vec![root.path().to_owned()], ..nowhere() };
        around.variables[0].1 = Some("/nonexistent/libonnxruntime.so".into());
        let error = search(&around, false).expect_err("not there");
        assert_eq!(error.kind(), Kind::Unavailable);
        let text = error.to_string();
        assert!(text.contains("$SIGHTLINE_ONNXRUNTIME") && text.contains("/nonexistent/"), "{text}");
    }

    #[test]
    fn the_error_lists_the_places_and_the_command() {
        let around = Surroundings {
            executable: Some("/app/bin/sightline".into()),
            data_home: Some("/data".into()),
            system: vec!["/nonexistent/lib".into()],
            ..nowhere()
        };
        let text = search(&around, false).expect_err("nowhere").to_string();
        for part in [
            "make setup",
            "pip download",
            "1.17",
            "$ORT_DYLIB_PATH (not set)",
            "/app/bin/../lib",
            "/data/sightline/lib",
            "/nonexistent/lib",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn the_highest_version_of_a_folder_is_taken() {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "libonnxruntime.so",
            "libonnxruntime.so.1.9.0",
            "libonnxruntime.so.1.20.1",
            "libonnxruntime.so.1.31.1.part",
            "libonnxruntime_providers_shared.so",
        ] {
            put(root.path(), name);
        }
        assert_eq!(newest(root.path()).unwrap(), root.path().join("libonnxruntime.so.1.20.1"));
    }
}

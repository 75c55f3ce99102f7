use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use sightline_engine_api::{EngineError, Kind};

use crate::{
    Found,
    plan::{Flavor, Version},
    raw::{Library, Table, tables},
};

/// Names that NVIDIA's packages give the library; the last two are only opened to say what is wrong with them.
const NAMES: [&str; 4] = ["libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so", "libnvinfer.so.8"];

/// Folders that the loader does not look into by itself.
const FOLDERS: [&str; 4] =
    ["/usr/local/tensorrt/lib", "/usr/local/TensorRT/lib", "/opt/tensorrt/lib", "/usr/local/lib"];

/// What the search depends on, so that it can be tested.
struct Surroundings {
    named: Option<OsString>,
    names: Vec<String>,
    folders: Vec<PathBuf>,
}

impl Surroundings {
    fn real() -> Self {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        let executable = env::current_exe().ok();
        let beside = executable.as_deref().and_then(Path::parent);
        let data = set("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".local/share")));
        let ours = beside.map(|folder| [folder.to_owned(), folder.join("../lib")]).into_iter().flatten();
        Self {
            named: set("SIGHTLINE_TENSORRT"),
            names: NAMES.map(str::to_owned).to_vec(),
            folders: ours
                .chain(data.map(|data| data.join("sightline/lib")))
                .chain(FOLDERS.iter().map(PathBuf::from))
                .collect(),
        }
    }
}

/// TensorRT's library, open, of a version this build has a shim for. Nothing has been made with it yet.
pub struct TensorRt {
    pub(crate) library: Library,
    pub(crate) table: &'static Table,
}

impl TensorRt {
    /// Finds and opens the library: the file (or its folder) that `SIGHTLINE_TENSORRT` names; else `libnvinfer.so.11`
    /// and `.so.10`, each where the loader looks, then beside the executable, in `../lib` from there, in
    /// `$XDG_DATA_HOME/sightline/lib` and where NVIDIA's archives are unpacked.
    ///
    /// # Errors
    /// `Kind::Unavailable`, with the loader's reason for each place; or with the version of the library that was
    /// found, when it is neither 10.3 or later nor 11, or this build has no shim for it.
    pub fn locate() -> Result<Self, EngineError> {
        search(&Surroundings::real())
    }

    /// Opens this very library.
    ///
    /// # Errors
    /// As [`TensorRt::locate`].
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let library = Library::open(path).map_err(|reason| {
            EngineError::new(
                Kind::Unavailable,
                format_args!("TensorRT {:?}", path.display().to_string()),
                "a library of TensorRT",
                reason,
            )
        })?;
        let table = fitting(path, library.version(), library.flavor())?;
        Ok(Self { library, table })
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.library.version()
    }

    /// Which of NVIDIA's libraries it is.
    pub fn flavor(&self) -> Flavor {
        self.library.flavor()
    }

    pub(crate) fn found(&self) -> Found {
        Found { path: self.library.path().to_owned(), version: self.version(), flavor: self.flavor() }
    }
}

impl fmt::Debug for TensorRt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.found().fmt(f)
    }
}

/// The shim for a library, if it is one of those we know.
fn fitting(path: &Path, version: Version, flavor: Flavor) -> Result<&'static Table, EngineError> {
    let refuse = |expected: String| {
        let subject = format!("TensorRT {:?}", path.display().to_string());
        let rtx = if flavor == Flavor::Rtx { "-RTX" } else { "" };
        let got = format!("TensorRT{rtx} {version}");
        Err(EngineError::new(Kind::Unavailable, subject, expected, got))
    };
    if !matches!((version.major, version.minor), (10, 3..) | (11, _)) {
        return refuse("version 10.3 or later, or 11".to_owned());
    }
    let known = tables();
    match known.iter().find(|(major, _)| *major == version.major) {
        Some((_, table)) => Ok(table),
        None => {
            let major = version.major;
            let built: Vec<_> = known.iter().map(|(major, _)| major.to_string()).collect();
            refuse(format!(
                "TensorRT {}, whose headers this build was made with (TENSORRT_INCLUDE_DIR_{major} adds {major})",
                built.join(" or ")
            ))
        }
    }
}

fn search(around: &Surroundings) -> Result<TensorRt, EngineError> {
    if let Some(named) = &around.named {
        // Somebody asked for this very file: another one in its place would be a surprise.
        let path = Path::new(named);
        let inside = around.names.iter().map(|name| path.join(name)).find(|path| path.is_file());
        return TensorRt::open(inside.as_deref().unwrap_or(path))
            .map_err(|error| error.within("$SIGHTLINE_TENSORRT"));
    }
    let mut tried = Vec::new();
    // What there is of another version says more than a list of places where there is none.
    let mut unfit = None;
    for name in &around.names {
        let inside = around.folders.iter().map(|folder| folder.join(name)).filter(|path| path.is_file());
        for path in std::iter::once(PathBuf::from(name)).chain(inside) {
            match Library::open(&path) {
                Err(reason) => tried.push(reason),
                Ok(library) => match fitting(&path, library.version(), library.flavor()) {
                    Ok(table) => return Ok(TensorRt { library, table }),
                    Err(error) => unfit = unfit.or(Some(error)),
                },
            }
        }
    }
    let folders: Vec<_> = around.folders.iter().map(|folder| folder.display().to_string()).collect();
    Err(unfit.unwrap_or_else(|| {
        EngineError::new(
            Kind::Unavailable,
            "TensorRT",
            format_args!(
                "libnvinfer.so.10 (10.3 or later) or libnvinfer.so.11 (on JetPack: `sudo apt install tensorrt`; or \
                 point SIGHTLINE_TENSORRT at it)"
            ),
            format_args!("none: {}; nor in {}", tried.join("; "), folders.join(", ")),
        )
    }))
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    /// A library that has the version functions of TensorRT, and no more.
    fn library(folder: &Path, name: &str, code: &str) -> PathBuf {
        let source = folder.join(format!("{name}.c"));
        let path = folder.join(name);
        fs::write(&source, code).unwrap();
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&path).arg(&source).status();
        assert!(compiled.expect("a C compiler").success(), "{name} compiles");
        path
    }

    fn versioned(major: u32, minor: u32, more: &str) -> String {
        format!(
            "int getInferLibMajorVersion(void) {{ return {major}; }}\n\
             int getInferLibMinorVersion(void) {{ return {minor}; }}\n\
             int getInferLibPatchVersion(void) {{ return 0; }}\n\
             int getInferLibBuildVersion(void) {{ return 7; }}\n{more}"
        )
    }

    fn around(folder: &Path, names: &[&str]) -> Surroundings {
        Surroundings {
            named: None,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            folders: vec![folder.to_owned()],
        }
    }

    #[test]
    fn without_a_library_every_place_has_its_reason() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("libnvinfer_not.so.10"), "no library").unwrap();
        let error = search(&around(root.path(), &["libnvinfer_none.so.11", "libnvinfer_not.so.10"]))
            .expect_err("nothing there");
        assert_eq!(error.kind(), Kind::Unavailable);
        let text = error.to_string();
        for part in [
            "libnvinfer_none.so.11: cannot open shared object file",
            "libnvinfer_not.so.10: file too short",
            "SIGHTLINE_TENSORRT",
            "apt install tensorrt",
            &root.path().display().to_string(),
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_library_of_another_version_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let builder = "void createInferBuilder_INTERNAL(void) {}";
        for (name, code, got) in [
            ("v8.so", "int getInferLibVersion(void) { return 8601; }".to_owned(), "got TensorRT 8.6.1.0"),
            ("v9.so", versioned(9, 3, ""), "got TensorRT 9.3.0.7"),
            ("v12.so", versioned(12, 0, builder), "got TensorRT 12.0.0.7"),
            ("v10_0.so", versioned(10, 0, builder), "got TensorRT 10.0.0.7"),
            ("v10_2.so", versioned(10, 2, ""), "got TensorRT 10.2.0.7"),
            ("rtx.so", versioned(1, 7, builder), "got TensorRT-RTX 1.7.0.7"),
            (
                "zlib.so",
                "int deflate(void) { return 0; }".to_owned(),
                "got no symbol getInferLibVersion in it",
            ),
        ] {
            let path = library(root.path(), name, &code);
            let error = TensorRt::open(&path).expect_err(name);
            assert_eq!(error.kind(), Kind::Unavailable, "{name}");
            let text = error.to_string();
            assert!(text.ends_with(got) && text.contains(name), "{name}: {text}");
            assert!(name == "zlib.so" || text.contains("expected version 10.3 or later, or 11"), "{text}");
        }
        // Found where it is looked for, the version is told rather than a list of places.
        let text =
            search(&around(root.path(), &["libnvinfer_none.so.11", "v9.so"])).expect_err("9").to_string();
        assert!(text.ends_with("got TensorRT 9.3.0.7"), "{text}");
    }

    #[test]
    fn the_variable_names_a_file_or_a_folder_and_nothing_else_is_tried() {
        let root = tempfile::tempdir().unwrap();
        let path = library(root.path(), "named.so", &versioned(9, 9, ""));
        for named in [path, root.path().to_owned()] {
            let around = Surroundings { named: Some(named.into()), ..around(root.path(), &["named.so"]) };
            let text = search(&around).expect_err("9").to_string();
            assert!(text.starts_with("$SIGHTLINE_TENSORRT: ") && text.contains("9.9.0.7"), "{text}");
        }
        let around =
            Surroundings { named: Some("/nonexistent".into()), ..around(root.path(), &["named.so"]) };
        assert!(search(&around).expect_err("not there").to_string().contains("cannot open"));
    }

    #[test]
    fn every_major_that_was_built_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let built: Vec<u32> = tables().iter().map(|(major, _)| *major).collect();
        for (major, minor) in [(10, 3), (10, 16), (11, 0), (11, 4)] {
            let name = format!("good-{major}-{minor}.so");
            let path = library(root.path(), &name, &versioned(major, minor, ""));
            match TensorRt::open(&path) {
                Ok(found) => {
                    assert!(built.contains(&major), "{name}");
                    assert_eq!((found.version().minor, found.flavor()), (minor, Flavor::Lean));
                }
                Err(error) => {
                    assert!(!built.contains(&major), "{name}: {error}");
                    let how = format!("TENSORRT_INCLUDE_DIR_{major}");
                    assert!(error.to_string().contains(&how), "{error}");
                }
            }
        }
    }
}

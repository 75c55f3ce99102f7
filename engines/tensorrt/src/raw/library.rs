use std::{
    ffi::c_int,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
};

use super::CreateFn;
use crate::plan::{Flavor, Version};

type VersionFn = unsafe extern "C" fn() -> c_int;

/// TensorRT's library, open for as long as the process lives: it leaves threads and handlers behind that a second
/// thought about it would pull the code from under.
pub(crate) struct Library {
    path: PathBuf,
    version: Version,
    flavor: Flavor,
    create: Option<CreateFn>,
    _library: ManuallyDrop<libloading::Library>,
}

impl Library {
    /// Opens a library and asks its version, nothing else.
    ///
    /// The error is the loader's own text, or the name of the symbol that is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        // SAFETY: loading runs the library's initialisers. The caller names a TensorRT; it is trusted as any library
        // that is linked would be.
        let library = unsafe { libloading::Library::new(path) }.map_err(|error| reason(&error))?;
        let library = ManuallyDrop::new(library);
        let number = |names: &[&str]| {
            let found = names.iter().find_map(|name| {
                // SAFETY: TensorRT declares each of these as `int32_t name()`.
                unsafe { library.get::<VersionFn>(name.as_bytes()) }.ok()
            })?;
            // SAFETY: it takes nothing and only returns a constant; the library stays open.
            u32::try_from(unsafe { found() }).ok()
        };
        let part = |name: &str| number(&[name]).ok_or_else(|| format!("no symbol {name} in it"));
        let version = match number(&["getInferLibMajorVersion"]) {
            Some(major) => Version {
                major,
                minor: part("getInferLibMinorVersion")?,
                patch: part("getInferLibPatchVersion")?,
                build: part("getInferLibBuildVersion")?,
            },
            // Before 9, one number: 8601 is 8.6.1.
            None => {
                let one = part("getInferLibVersion")?;
                Version { major: one / 1000, minor: one / 100 % 10, patch: one % 100, build: 0 }
            }
        };
        let has = |name: &str| {
            // SAFETY: only looked up, never called.
            unsafe { library.get::<VersionFn>(name.as_bytes()) }.is_ok()
        };
        let flavor = match (version.major, has("createInferBuilder_INTERNAL")) {
            // TensorRT-RTX counts from 1 again.
            (1, _) => Flavor::Rtx,
            (_, true) => Flavor::Full,
            (_, false) => Flavor::Lean,
        };
        // SAFETY: TensorRT declares it as `void* createInferRuntime_INTERNAL(void* logger, int32_t version)`.
        let create =
            unsafe { library.get::<CreateFn>(b"createInferRuntime_INTERNAL") }.ok().map(|symbol| *symbol);
        Ok(Self { path: path.to_owned(), version, flavor, create, _library: library })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn flavor(&self) -> Flavor {
        self.flavor
    }

    /// Makes a runtime; `None` when the library has no such function.
    pub(crate) fn create(&self) -> Option<CreateFn> {
        self.create
    }
}

/// The loader's own words, which the binding keeps behind its own.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

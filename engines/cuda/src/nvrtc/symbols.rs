//! NVRTC's C functions as its header `nvrtc.h` declares them, looked up in a library that was opened.

use std::{
    ffi::{c_char, c_int, c_void},
    path::Path,
};

use libloading::Library;

/// `nvrtcProgram`.
pub(super) type Program = *mut c_void;
/// `nvrtcResult`; 0 is success.
pub(super) type Status = c_int;

type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> Status;
type Size = unsafe extern "C" fn(Program, *mut usize) -> Status;
type Fetch = unsafe extern "C" fn(Program, *mut c_char) -> Status;

/// The functions that are used; the library stays open as long as they do.
pub(super) struct Symbols {
    pub(super) version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
    pub(super) architecture_count: unsafe extern "C" fn(*mut c_int) -> Status,
    pub(super) architectures: unsafe extern "C" fn(*mut c_int) -> Status,
    pub(super) create: Create,
    pub(super) destroy: unsafe extern "C" fn(*mut Program) -> Status,
    pub(super) compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    pub(super) log_size: Size,
    pub(super) log: Fetch,
    pub(super) cubin_size: Size,
    pub(super) cubin: Fetch,
    pub(super) ptx_size: Size,
    pub(super) ptx: Fetch,
    _library: Library,
    _builtins: Vec<Library>,
}

/// Libraries beside `path` that NVRTC opens by their name alone; opened before it, they are found wherever they lie.
fn builtins(path: &Path) -> Vec<Library> {
    let beside =
        path.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    beside
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so."))
        // SAFETY: as for NVRTC itself, whose part it is.
        .filter_map(|entry| unsafe { Library::new(entry.path()) }.ok())
        .collect()
}

impl Symbols {
    /// Opens a library and finds every function.
    pub(super) fn open(path: &Path) -> Result<Self, libloading::Error> {
        let builtins = builtins(path);
        // SAFETY: whoever named this file as NVRTC vouches for its initialisers.
        let library = unsafe { Library::new(path) }?;
        // SAFETY: each type is that of `nvrtc.h`, unchanged in all versions that have these names; the pointers are
        // used only through `self`, which keeps the library open.
        unsafe {
            Ok(Self {
                version: *library.get(b"nvrtcVersion")?,
                architecture_count: *library.get(b"nvrtcGetNumSupportedArchs")?,
                architectures: *library.get(b"nvrtcGetSupportedArchs")?,
                create: *library.get(b"nvrtcCreateProgram")?,
                destroy: *library.get(b"nvrtcDestroyProgram")?,
                compile: *library.get(b"nvrtcCompileProgram")?,
                log_size: *library.get(b"nvrtcGetProgramLogSize")?,
                log: *library.get(b"nvrtcGetProgramLog")?,
                cubin_size: *library.get(b"nvrtcGetCUBINSize")?,
                cubin: *library.get(b"nvrtcGetCUBIN")?,
                ptx_size: *library.get(b"nvrtcGetPTXSize")?,
                ptx: *library.get(b"nvrtcGetPTX")?,
                _library: library,
                _builtins: builtins,
            })
        }
    }
}

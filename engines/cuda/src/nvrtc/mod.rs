//! NVRTC, NVIDIA's compiler for CUDA C source, opened at run time. It needs no GPU and no driver.
//!
//! Three layers: [`symbols`] is the C interface, `check` and `fetch` turn statuses into results, [`Nvrtc`] is safe.

mod symbols;

use std::{
    env,
    ffi::{CString, c_char},
    fmt,
    path::{Path, PathBuf},
    ptr,
};

use crate::{CudaError, Kind, Version, probe::told};
use symbols::{Program, Status, Symbols};

/// File names in the order in which they are tried; the loader looks them up where no folder is given.
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

/// An NVRTC library.
pub struct Nvrtc {
    symbols: Symbols,
    version: Version,
    path: PathBuf,
}

impl fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nvrtc").field("path", &self.path).field("version", &self.version).finish()
    }
}

/// What a compilation gave; a device's driver loads both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// Machine code of one architecture.
    Cubin(Vec<u8>),
    /// Assembly that the driver compiles, for an architecture newer than NVRTC; ends in a 0.
    Ptx(Vec<u8>),
}

impl Image {
    /// The bytes, as the driver takes them.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Cubin(bytes) | Self::Ptx(bytes) => bytes,
        }
    }
}

impl Nvrtc {
    /// Opens one library.
    ///
    /// # Errors
    /// `Kind::NoCompiler` when the file does not open, lacks a function or does not tell its version.
    pub fn open(path: &Path) -> Result<Self, CudaError> {
        let refuse = |got: &dyn fmt::Display| {
            CudaError::new(
                Kind::NoCompiler,
                "NVRTC",
                "a library that opens",
                format_args!("{got} ({})", path.display()),
            )
        };
        let symbols = Symbols::open(path).map_err(|error| refuse(&told(&error)))?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers live for the call.
        check("nvrtcVersion", unsafe { (symbols.version)(&raw mut major, &raw mut minor) })?;
        Ok(Self { symbols, version: Version(1000 * major + 10 * minor), path: path.to_owned() })
    }

    /// Finds a library whose code a driver takes. Looked at, in this order: the file that `SIGHTLINE_NVRTC` names,
    /// beside the running executable and in `../lib` from there, `$XDG_DATA_HOME/sightline/lib`, what the loader
    /// knows, `/usr/local/cuda/lib64`.
    ///
    /// # Errors
    /// `Kind::NoCompiler`, with what was tried.
    pub fn locate(driver: Version) -> Result<Self, CudaError> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = set("SIGHTLINE_NVRTC") {
            return Self::open(&path).and_then(|found| found.for_driver(driver));
        }
        let beside = env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
        let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
        let folders = beside
            .into_iter()
            .flat_map(|folder| [folder.clone(), folder.join("../lib")])
            .chain(data.map(|data| data.join("sightline/lib")));
        let files =
            folders.flat_map(|folder| NAMES.map(|name| folder.join(name))).filter(|path| path.is_file());
        let known = NAMES.into_iter().map(PathBuf::from);
        let toolkit = [PathBuf::from("/usr/local/cuda/lib64/libnvrtc.so")];
        let mut tried = Vec::new();
        for path in files.chain(known).chain(toolkit) {
            match Self::open(&path).and_then(|found| found.for_driver(driver)) {
                Ok(found) => return Ok(found),
                Err(error) => tried.push(error.got().to_owned()),
            }
        }
        Err(CudaError::new(
            Kind::NoCompiler,
            "NVRTC",
            format_args!(
                "libnvrtc.so of CUDA {}.x (part of the CUDA toolkit, or `pip install nvidia-cuda-nvrtc` with \
                 SIGHTLINE_NVRTC naming the file)",
                driver.major()
            ),
            tried.join("; "),
        ))
    }

    fn for_driver(self, driver: Version) -> Result<Self, CudaError> {
        if self.version.major() <= driver.major() {
            return Ok(self);
        }
        Err(CudaError::new(
            Kind::NoCompiler,
            "NVRTC",
            format_args!("one of CUDA {}.x, as the driver", driver.major()),
            format_args!("{} of CUDA {}", self.path.display(), self.version),
        ))
    }

    /// The CUDA version it is of.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The file it was opened as.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compiles for `sm_<architecture>`, or to PTX of the newest it knows if that is older.
    ///
    /// # Errors
    /// `Kind::Kernel` with the compiler's log; `Kind::NoCompiler` when the library fails otherwise.
    pub fn compile(&self, source: &str, options: &[&str], architecture: u32) -> Result<Image, CudaError> {
        let known = self.architectures()?;
        let newest = known.iter().copied().filter(|known| *known <= architecture).max().unwrap_or(0);
        let exact = newest == architecture;
        let mut flags = vec![format!("--gpu-architecture={}_{newest}", if exact { "sm" } else { "compute" })];
        flags.extend(options.iter().map(|option| (*option).to_owned()));
        let flags: Vec<CString> = flags.into_iter().map(text).collect::<Result<_, _>>()?;
        let flags: Vec<*const c_char> = flags.iter().map(|flag| flag.as_ptr()).collect();
        let program = Handle::new(&self.symbols, source)?;
        // SAFETY: `program` is alive, `flags` are as many strings as told and outlive the call.
        let status = unsafe { (self.symbols.compile)(program.0, flags.len() as i32, flags.as_ptr()) };
        if status != 0 {
            let log = program.fetch("nvrtcGetProgramLog", self.symbols.log_size, self.symbols.log)?;
            let log = String::from_utf8_lossy(&log);
            let log = log.trim_end_matches('\0').trim().to_owned();
            let subject = format!("CUDA kernels for sm_{architecture}");
            return Err(CudaError::new(Kind::Kernel, subject, "source that compiles", log));
        }
        Ok(if exact {
            Image::Cubin(program.fetch("nvrtcGetCUBIN", self.symbols.cubin_size, self.symbols.cubin)?)
        } else {
            Image::Ptx(program.fetch("nvrtcGetPTX", self.symbols.ptx_size, self.symbols.ptx)?)
        })
    }

    /// The architectures it makes code for: 90 is `sm_90`.
    fn architectures(&self) -> Result<Vec<u32>, CudaError> {
        let mut count = 0;
        // SAFETY: the pointer lives for the call.
        check("nvrtcGetNumSupportedArchs", unsafe { (self.symbols.architecture_count)(&raw mut count) })?;
        let mut known = vec![0; count.max(0) as usize];
        // SAFETY: there is room for as many as the library has just said.
        check("nvrtcGetSupportedArchs", unsafe { (self.symbols.architectures)(known.as_mut_ptr()) })?;
        Ok(known.into_iter().map(|number| number.max(0) as u32).collect())
    }
}

fn text(text: String) -> Result<CString, CudaError> {
    CString::new(text).map_err(|error| CudaError::new(Kind::Kernel, "CUDA source", "text without a 0", error))
}

fn check(call: &str, status: Status) -> Result<(), CudaError> {
    match status {
        0 => Ok(()),
        other => Err(CudaError::new(Kind::NoCompiler, call, "success", format_args!("nvrtcResult {other}"))),
    }
}

/// A program, destroyed when it goes.
struct Handle<'a>(Program, &'a Symbols);

impl<'a> Handle<'a> {
    fn new(symbols: &'a Symbols, source: &str) -> Result<Self, CudaError> {
        let source = text(source.to_owned())?;
        let mut program = ptr::null_mut();
        // SAFETY: the source and the place for the handle live for the call; no headers are given, and NVRTC copies
        // the source.
        let status = unsafe {
            (symbols.create)(
                &raw mut program,
                source.as_ptr(),
                c"sightline.cu".as_ptr(),
                0,
                ptr::null(),
                ptr::null(),
            )
        };
        check("nvrtcCreateProgram", status)?;
        Ok(Self(program, symbols))
    }

    fn fetch(
        &self,
        call: &str,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        copy: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Result<Vec<u8>, CudaError> {
        let mut len = 0;
        // SAFETY: the program is alive, the pointer lives for the call.
        check(call, unsafe { size(self.0, &raw mut len) })?;
        let mut bytes = vec![0_u8; len];
        // SAFETY: the program is alive, and there is room for as many bytes as the library has just said.
        check(call, unsafe { copy(self.0, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: made by the same library, destroyed once. It fails only for a handle that is none.
        let _ = unsafe { (self.1.destroy)(&raw mut self.0) };
    }
}

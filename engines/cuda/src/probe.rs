use std::fmt;

use cudarc::driver::{result, sys};

use crate::{CudaError, Kind, error::During};

/// The CUDA version whose driver interface is spoken: that of JetPack 6. A driver that is older may lack functions of it, one
/// that is newer has them all.
pub const NEEDED: Version = Version(12_060);

/// A CUDA version as the driver tells it: 1000 times the major one and 10 times the minor one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub i32);

impl Version {
    /// The major version.
    pub fn major(self) -> i32 {
        self.0 / 1000
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The driver's number for it.
    pub ordinal: u32,
    /// Its name.
    pub name: String,
    /// Compute capability: `(9, 0)` is what compilers call `sm_90`.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Memory, in use or not.
    pub memory_bytes: u64,
    /// Whether it shares the processor's memory, as Jetson's do.
    pub integrated: bool,
}

impl DeviceInfo {
    /// The architecture as compilers name it: `sm_90`.
    pub fn architecture(&self) -> String {
        format!("sm_{}{}", self.capability.0, self.capability.1)
    }
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = self.memory_bytes as f64 / f64::from(1 << 30);
        write!(f, "{} ({}, {gib:.1} GiB)", self.name, self.architecture())
    }
}

/// What a machine has for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The newest CUDA its driver speaks.
    pub driver: Version,
    /// Its GPUs, at least one.
    pub devices: Vec<DeviceInfo>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver for CUDA {}", self.driver)?;
        self.devices.iter().try_for_each(|device| write!(f, ", {device}"))
    }
}

/// Looks for a driver and its GPUs. Never panics, and makes no context.
///
/// # Errors
/// `Kind::NoDriver`, `Kind::DriverTooOld`, `Kind::NoDevice`, in the order in which they are looked at; `Kind::Driver`
/// when a driver does not answer.
pub fn probe() -> Result<Probe, CudaError> {
    let driver = driver()?;
    // Its first call that touches hardware.
    result::init().map_err(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE | sys::CUresult::CUDA_ERROR_STUB_LIBRARY => {
            let got = format_args!("{:?} from the driver", error.0).to_string();
            CudaError::new(Kind::NoDevice, "NVIDIA GPU", "at least one", got)
        }
        _ => CudaError::driver("cuInit", error),
    })?;
    let count = result::device::get_count().during("cuDeviceGetCount")?;
    if count <= 0 {
        return Err(CudaError::new(Kind::NoDevice, "NVIDIA GPU", "at least one", "none"));
    }
    Ok(Probe { driver, devices: (0..count).map(device).collect::<Result<_, _>>()? })
}

/// The driver's version; every other call of this crate is made after this one has succeeded. `cudarc` panics where there is
/// no library or not the function, so both are looked for before.
pub(crate) fn driver() -> Result<Version, CudaError> {
    let expected = format!("libcuda.so of a driver for CUDA {NEEDED} or later");
    let refuse = |got| Err(CudaError::new(Kind::NoDriver, "NVIDIA driver", &expected, got));
    let names: Vec<String> =
        ["cuda", "nvcuda"].into_iter().flat_map(cudarc::get_lib_name_candidates).collect();
    let mut reason = None;
    // SAFETY: opening a driver runs its initialisers, which the driver vouches for.
    let library = names.iter().find_map(|name| match unsafe { libloading::Library::new(name) } {
        Ok(library) => Some(library),
        Err(error) => {
            reason.get_or_insert_with(|| told(&error));
            None
        }
    });
    let Some(library) = library else {
        return refuse(format!("none ({}; {} names tried)", reason.unwrap_or_default(), names.len()));
    };
    // SAFETY: only whether it is there is asked; nothing is called through this type.
    if let Err(error) = unsafe { library.get::<unsafe extern "C" fn()>(b"cuDriverGetVersion") } {
        return refuse(format!("a library that is none ({})", told(&error)));
    }
    let mut version = 0;
    // SAFETY: the library is there, and writes one int through a pointer that lives for the call.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().during("cuDriverGetVersion")?;
    let version = Version(version);
    if version < NEEDED {
        return Err(CudaError::new(
            Kind::DriverTooOld,
            "NVIDIA driver",
            format_args!("CUDA {NEEDED} or later"),
            format_args!("CUDA {version}"),
        ));
    }
    Ok(version)
}

/// The loader's own words, which are the error's source.
pub(crate) fn told(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn device(ordinal: i32) -> Result<DeviceInfo, CudaError> {
    use sys::CUdevice_attribute as Attribute;
    let device = result::device::get(ordinal).during("cuDeviceGet")?;
    let attribute = |which| {
        // SAFETY: `device` came from the driver a line ago.
        let value = unsafe { result::device::get_attribute(device, which) };
        value.during("cuDeviceGetAttribute").map(|value| value.max(0) as u32)
    };
    Ok(DeviceInfo {
        ordinal: ordinal as u32,
        name: result::device::get_name(device).during("cuDeviceGetName")?,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        // SAFETY: as above.
        memory_bytes: unsafe { result::device::total_mem(device) }.during("cuDeviceTotalMem")? as u64,
        integrated: attribute(Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0,
    })
}

use std::{fmt, path::Path, sync::Arc};

use sightline_engine_api::{DeviceOps, EngineError, GraphIo, Kind, Stream};

use crate::{
    Plan, TensorRt,
    checked::RuntimePtr,
    plan::{Flavor, Gpu, Machine, Version, open},
};

/// Makes the device current on the calling thread and gives the driver's own handle (`CUstream`, which is
/// `cudaStream_t`) of a stream. TensorRT works on whatever device is current where it is called.
pub type EnterStream = Arc<dyn Fn(Stream) -> Result<u64, EngineError> + Send + Sync>;

/// The device, lent to TensorRT. Having one is the proof that a driver and a device are there: without them
/// TensorRT answers with pointers to nothing.
#[derive(Clone)]
pub struct DeviceAccess {
    /// Its memory and orders of work.
    pub ops: Arc<dyn DeviceOps>,
    /// How to get at its streams.
    pub enter: EnterStream,
}

impl DeviceAccess {
    pub(crate) fn enter(&self, stream: Stream) -> Result<u64, EngineError> {
        (self.enter)(stream)
    }
}

impl fmt::Debug for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceAccess").field(&self.ops.device()).finish()
    }
}

/// TensorRT at work on one device. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) pointer: Arc<RuntimePtr>,
    pub(crate) access: DeviceAccess,
    version: Version,
    flavor: Flavor,
}

impl Runtime {
    /// Starts TensorRT on a device.
    ///
    /// # Errors
    /// `Kind::Unavailable` when TensorRT makes no runtime, or one that is none, or says that something is wrong: with
    /// what it logged.
    pub fn new(library: &TensorRt, access: DeviceAccess) -> Result<Self, EngineError> {
        access.enter(Stream::TRACK)?;
        let pointer = RuntimePtr::new(&library.library, library.table).map_err(|reason| {
            let subject = format!("TensorRT {} on {}", library.version(), access.ops.device());
            EngineError::new(Kind::Unavailable, subject, "a runtime", reason)
        })?;
        tracing::info!(version = %library.version(), device = %access.ops.device(), "tensorrt started");
        Ok(Self { pointer: Arc::new(pointer), access, version: library.version(), flavor: library.flavor() })
    }

    /// What plans are checked against here.
    pub fn machine(&self, gpu: Gpu) -> Machine {
        Machine { tensorrt: self.version, flavor: self.flavor, gpu }
    }

    /// The library's version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Loads the plan of the graph `name` from a file, after its sidecar has been checked against this machine. With
    /// `declared`, the plan must have exactly those ports, in whose order tensors are then given; what is open there
    /// may be fixed in the plan (a bucket).
    ///
    /// A version-compatible plan brings code of its own, which TensorRT then runs: load plans from places you trust.
    ///
    /// # Errors
    /// `Kind::Model` as [`open`] has it and when TensorRT cannot read the plan, `Kind::Interface` when its ports are
    /// not those declared or not device tensors.
    pub fn load(
        &self,
        name: &str,
        path: &Path,
        gpu: &Gpu,
        declared: Option<&GraphIo>,
    ) -> Result<Plan, EngineError> {
        let (sidecar, bytes) = open(path, &self.machine(gpu.clone()))?;
        if sidecar.key.is_version_compatible() {
            self.pointer.allow_host_code();
        }
        self.deserialise(name, &bytes, declared).map_err(|error| error.within(path.display()))
    }

    /// Loads a plan whose sidecar has been seen to. The bytes are not needed afterwards.
    ///
    /// # Errors
    /// As [`Runtime::load`].
    pub fn deserialise(
        &self,
        name: &str,
        bytes: &[u8],
        declared: Option<&GraphIo>,
    ) -> Result<Plan, EngineError> {
        Plan::new(self, name, bytes, declared)
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("version", &self.version)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

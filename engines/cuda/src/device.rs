use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use cudarc::driver::{CudaContext, CudaStream};
use sightline_engine_api::{Device, Stream};

use crate::{
    Arena, CudaError, DeviceInfo, Kind, Version, error::During, guests::Guests, kernels::Kernels,
    mark::Marks, picture::Pictures, probe, staging::Staging,
};

/// A GPU, ready: its primary context, streams by number, pinned staging, and our kernels. Shared by all who use it, from
/// any thread; [`DeviceOps`](sightline_engine_api::DeviceOps) is what most need of it.
pub struct CudaDevice {
    // Fields go in this order: what needs the context before the context.
    pub(crate) guests: Guests,
    pub(crate) pictures: Mutex<Pictures>,
    pub(crate) kernels: Kernels,
    pub(crate) marks: Arc<Marks>,
    pub(crate) staging: Staging,
    pub(crate) arena: Option<Arena>,
    streams: RwLock<BTreeMap<Stream, Arc<CudaStream>>>,
    pub(crate) context: Arc<CudaContext>,
    info: DeviceInfo,
    driver: Version,
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaDevice")
            .field("info", &self.info)
            .field("driver", &self.driver)
            .finish_non_exhaustive()
    }
}

/// A poisoned lock is taken all the same: what it guards is replaced whole, never half written.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CudaDevice {
    /// Opens a GPU. With `arena_bytes`, all its memory for tensors is allocated now and given out by offset; without,
    /// each buffer is allocated for itself.
    ///
    /// # Errors
    /// As [`probe`](crate::probe()); `Kind::NoDevice` for a number it does not name; `Kind::NoCompiler` and
    /// `Kind::Kernel` when our kernels are neither cached nor can be compiled; `Kind::Memory` for too large an arena.
    pub fn open(ordinal: u32, arena_bytes: Option<usize>) -> Result<Arc<Self>, CudaError> {
        let found = probe()?;
        let count = found.devices.len();
        let info = found.devices.into_iter().find(|device| device.ordinal == ordinal).ok_or_else(|| {
            let expected = format!("a number below {count}");
            CudaError::new(Kind::NoDevice, "NVIDIA GPU", expected, ordinal)
        })?;
        let context = CudaContext::new(ordinal as usize).during("cuDevicePrimaryCtxRetain")?;
        let kernels = Kernels::load(&context, &info, found.driver)?;
        tracing::info!(device = %info, driver = %found.driver, "opened a GPU");
        Ok(Arc::new(Self {
            guests: Guests::default(),
            pictures: Mutex::default(),
            kernels,
            marks: Arc::default(),
            staging: Staging::default(),
            arena: arena_bytes.map(|bytes| Arena::new(&context, bytes)).transpose()?,
            streams: RwLock::default(),
            context,
            info,
            driver: found.driver,
        }))
    }

    /// What it is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// The newest CUDA its driver speaks.
    pub fn driver(&self) -> Version {
        self.driver
    }

    /// Its place in messages and tensors.
    pub fn place(&self) -> Device {
        Device::Cuda { ordinal: self.info.ordinal }
    }

    /// The arena, if it was opened with one.
    pub fn arena(&self) -> Option<&Arena> {
        self.arena.as_ref()
    }

    /// Memory that is free now, and all there is, in bytes.
    ///
    /// # Errors
    /// `Kind::Driver`.
    pub fn memory_bytes(&self) -> Result<(usize, usize), CudaError> {
        self.context.mem_get_info().during("cuMemGetInfo")
    }

    /// The driver's handle of a stream (`CUstream`), for engines that are told where to run. It lives as long as
    /// the device.
    ///
    /// # Errors
    /// `Kind::Driver` when a stream cannot be made.
    pub fn stream_handle(&self, stream: Stream) -> Result<u64, CudaError> {
        Ok(self.stream(stream)?.cu_stream() as usize as u64)
    }

    /// Makes this the device that is current on the calling thread and gives a stream's handle: for libraries that work on
    /// whatever device is current.
    ///
    /// # Errors
    /// `Kind::Driver`.
    pub fn enter(&self, stream: Stream) -> Result<u64, CudaError> {
        self.context.bind_to_thread().during("cuCtxSetCurrent")?;
        self.stream_handle(stream)
    }

    /// Waits for all work given to a stream so far.
    ///
    /// # Errors
    /// What went wrong in it.
    pub fn synchronize(&self, stream: Stream) -> Result<(), CudaError> {
        self.stream(stream)?.synchronize().during("cuStreamSynchronize")
    }

    /// The stream of a number, made when it is first asked for.
    pub(crate) fn stream(&self, stream: Stream) -> Result<Arc<CudaStream>, CudaError> {
        if let Some(found) = self.streams.read().unwrap_or_else(PoisonError::into_inner).get(&stream) {
            return Ok(found.clone());
        }
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = streams.get(&stream) {
            return Ok(found.clone());
        }
        let made = self.context.new_stream().during("cuStreamCreate")?;
        streams.insert(stream, made.clone());
        Ok(made)
    }
}

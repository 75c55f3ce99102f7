use std::{any::Any, fmt, sync::Arc};

use sightline_engine_api::{Device, DeviceBuffer};

/// Memory of a GPU that somebody else has made and lends: a decoder, a camera. Pictures in it are read where they lie.
pub struct Lent {
    device: Device,
    address: u64,
    bytes: usize,
    arrays: Vec<u64>,
    writer: Option<u64>,
    _keeper: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes lent at {:#x}, {} arrays", self.bytes, self.address, self.arrays.len())
    }
}

impl Lent {
    /// `bytes` of GPU `ordinal` from `address` on, and `arrays` (`CUarray`) for tiled planes; either may be none. It is given
    /// back by dropping the `keeper`.
    ///
    /// # Safety
    /// Until then all of it can be read by work in that GPU's primary context, and `writer` is 0 or a stream (`CUstream`) of
    /// that context. What is written meanwhile is written by work that `writer` was given before.
    pub unsafe fn new(
        ordinal: u32,
        (address, bytes): (u64, usize),
        arrays: Vec<u64>,
        writer: Option<u64>,
        keeper: impl Any + Send + Sync,
    ) -> Arc<Self> {
        let device = Device::Cuda { ordinal };
        Arc::new(Self { device, address, bytes, arrays, writer, _keeper: Box::new(keeper) })
    }

    /// The buffer, if it is one of these.
    pub(crate) fn of(buffer: &dyn DeviceBuffer) -> Option<&Self> {
        (buffer as &dyn Any).downcast_ref()
    }

    pub(crate) fn has(&self, array: u64) -> bool {
        self.arrays.contains(&array)
    }
}

impl DeviceBuffer for Lent {
    fn device(&self) -> Device {
        self.device
    }
    fn address(&self) -> u64 {
        self.address
    }
    fn len_bytes(&self) -> usize {
        self.bytes
    }
    fn writer(&self) -> Option<u64> {
        self.writer
    }
}

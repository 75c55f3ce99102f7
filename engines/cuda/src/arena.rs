use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use cudarc::driver::CudaContext;
use sightline_engine_api::DeviceBuffer;

use crate::{
    CudaError, Kind,
    device::lock,
    memory::{ALIGN_BYTES, Block},
};

/// Device memory sized at start and given out from the front. What is given back is free again only when all of it
/// has been: a stream of a year fragments nothing.
#[derive(Debug)]
pub struct Arena {
    block: Arc<Block>,
    next: Mutex<usize>,
    sealed: AtomicBool,
}

impl Arena {
    pub(crate) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, CudaError> {
        let block = Block::new(context, bytes)?;
        Ok(Self { block, next: Mutex::new(0), sealed: AtomicBool::new(false) })
    }

    /// Zeroed memory whose address is a multiple of 256.
    ///
    /// # Errors
    /// `Kind::Memory` after [`Arena::seal`], or when there is not as much left.
    pub fn alloc(&self, bytes: usize) -> Result<Arc<dyn DeviceBuffer>, CudaError> {
        if self.sealed.load(Ordering::Acquire) {
            let got = format_args!("{bytes} bytes asked for").to_string();
            return Err(CudaError::new(Kind::Memory, "sealed device arena", "no allocation", got));
        }
        let mut next = lock(&self.next);
        if Arc::strong_count(&self.block) == 1 {
            *next = 0;
        }
        let taken = bytes.max(1).checked_next_multiple_of(ALIGN_BYTES);
        let end = taken.and_then(|taken| next.checked_add(taken));
        let Some(end) = end.filter(|end| *end <= self.block.bytes()) else {
            let left = self.block.bytes() - *next;
            let expected = format!("{bytes} bytes");
            let got = format!("{left} of {} left", self.block.bytes());
            return Err(CudaError::new(Kind::Memory, "device arena", expected, got));
        };
        let region = self.block.region(*next, bytes)?;
        *next = end;
        Ok(Arc::new(region))
    }

    /// From now on nothing is given out any more: what comes later would be an allocation for a frame.
    pub fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// Bytes given out, and all there are.
    pub fn used_bytes(&self) -> (usize, usize) {
        (*lock(&self.next), self.block.bytes())
    }
}

//! The GPUs that are open: one of each number, shared by all models on it, closed with the last.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use sightline_engine_api::EngineError;
use sightline_engine_cuda::CudaDevice;

static OPEN: Mutex<BTreeMap<u32, Weak<CudaDevice>>> = Mutex::new(BTreeMap::new());

/// The GPU of a number, opened if it is not.
pub(crate) fn device(ordinal: u32) -> Result<Arc<CudaDevice>, EngineError> {
    // An opening that panicked has added nothing.
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = open.get(&ordinal).and_then(Weak::upgrade) {
        return Ok(device);
    }
    let device = CudaDevice::open(ordinal, None)?;
    open.insert(ordinal, Arc::downgrade(&device));
    Ok(device)
}

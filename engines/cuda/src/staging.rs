use std::sync::{Arc, Mutex};

use cudarc::driver::CudaContext;

use crate::{CudaError, device::lock, memory::Pinned};

/// As many copies of a size may be under way before another one waits for the oldest.
const IN_FLIGHT: usize = 8;
/// The least that is allocated.
const LEAST_BYTES: usize = 64 * 1024;

/// Pinned memory between the host's and the device's, used again once its last copy is over.
#[derive(Default)]
pub(crate) struct Staging {
    /// Longest unused first.
    idle: Mutex<Vec<Pinned>>,
}

impl Staging {
    /// At least `bytes` that no copy uses. Allocates while the program warms up.
    pub(crate) fn take(&self, context: &Arc<CudaContext>, bytes: usize) -> Result<Pinned, CudaError> {
        let mut idle = lock(&self.idle);
        let (mut oldest, mut under_way) = (None, 0);
        for at in 0..idle.len() {
            // Not one much too large either, or a picture's would go to a point.
            if !(bytes..=bytes.max(LEAST_BYTES) * 4).contains(&idle[at].len()) {
                continue;
            }
            if idle[at].is_idle()? {
                return Ok(idle.remove(at));
            }
            oldest.get_or_insert(at);
            under_way += 1;
        }
        if let Some(at) = oldest.filter(|_| under_way >= IN_FLIGHT) {
            return Ok(idle.remove(at));
        }
        drop(idle);
        Pinned::new(context, bytes.next_power_of_two().max(LEAST_BYTES))
    }

    /// For the next one.
    pub(crate) fn put(&self, pinned: Pinned) {
        lock(&self.idle).push(pinned);
    }
}

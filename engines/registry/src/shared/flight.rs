use std::{collections::VecDeque, sync::Arc};

use sightline_engine_api::{DeviceMark, DeviceOps, EngineError, Stream};

/// Runs given to a device before one of them is over: one that it works on, and one that is there when that ends, so
/// that it never waits for the host. More would only lie in its queue, where no deadline can overtake them and nobody
/// can join them.
const DEPTH: usize = 2;

/// The runs that a device has been given and not ended yet, as far as was looked.
#[derive(Debug)]
pub(super) struct Flight {
    ops: Arc<dyn DeviceOps>,
    under_way: VecDeque<Arc<dyn DeviceMark>>,
    spare: Vec<Arc<dyn DeviceMark>>,
}

impl Flight {
    pub(super) fn new(ops: Arc<dyn DeviceOps>) -> Result<Self, EngineError> {
        let spare = (0..DEPTH).map(|_| ops.mark()).collect::<Result<_, _>>()?;
        Ok(Self { ops, under_way: VecDeque::with_capacity(DEPTH), spare })
    }

    /// Whether another run may be given. Looks, and waits for nothing.
    pub(super) fn has_room(&mut self) -> bool {
        let Some(oldest) = self.under_way.front().filter(|_| self.spare.is_empty()) else { return true };
        // What went wrong is told by whoever gives or takes something next.
        let over = self.ops.is_past(&**oldest).unwrap_or(true);
        if over {
            self.spare.extend(self.under_way.pop_front());
        }
        over
    }

    /// A run has been given.
    pub(super) fn begun(&mut self, stream: Stream) {
        let Some(mark) = self.spare.pop() else { return };
        match self.ops.record(stream, &*mark) {
            Ok(()) => self.under_way.push_back(mark),
            Err(_) => self.spare.push(mark),
        }
    }
}

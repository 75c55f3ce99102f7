use std::{collections::VecDeque, sync::Arc};

use sightline_engine_api::{DeviceMark, DeviceOps, EngineError, Stream};

use super::turn::Who;

/// Runs given to a device before one of them is over: one that it works on, and one that is there when that ends, so
/// that it never waits for the host. More would only lie in its queue, where no deadline can overtake them and nobody
/// can join them.
const DEPTH: usize = 2;

/// The runs that a device has been given and not ended yet, as far as was looked.
#[derive(Debug)]
pub(super) struct Flight {
    ops: Arc<dyn DeviceOps>,
    /// Oldest first, and whose they are.
    under_way: VecDeque<(Arc<dyn DeviceMark>, Who)>,
    spare: Vec<Arc<dyn DeviceMark>>,
}

impl Flight {
    pub(super) fn new(ops: Arc<dyn DeviceOps>) -> Result<Self, EngineError> {
        let spare = (0..DEPTH).map(|_| ops.mark()).collect::<Result<_, _>>()?;
        Ok(Self { ops, under_way: VecDeque::with_capacity(DEPTH), spare })
    }

    /// Whether another run may be given. Looks, and waits for nothing.
    pub(super) fn has_room(&mut self) -> bool {
        let Some((oldest, _)) = self.first_to_end() else { return true };
        // What went wrong is told by whoever gives or takes something next.
        let over = self.ops.is_past(&**oldest).unwrap_or(true);
        if over {
            self.spare.extend(self.under_way.pop_front().map(|(mark, _)| mark));
        }
        over
    }

    /// Whether there is no room, as far as was looked, before a run of theirs is over.
    pub(super) fn is_full_with(&self, who: Who) -> bool {
        self.first_to_end().is_some_and(|(_, whose)| *whose == who)
    }

    /// What has to end before there is room; `None` where there is some.
    fn first_to_end(&self) -> Option<&(Arc<dyn DeviceMark>, Who)> {
        self.under_way.front().filter(|_| self.spare.is_empty())
    }

    /// A run of theirs has been given.
    pub(super) fn begun(&mut self, stream: Stream, who: Who) {
        let Some(mark) = self.spare.pop() else { return };
        match self.ops.record(stream, &*mark) {
            Ok(()) => self.under_way.push_back((mark, who)),
            Err(_) => self.spare.push(mark),
        }
    }
}

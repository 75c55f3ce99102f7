use std::{
    fmt,
    sync::{Arc, Mutex},
};

use cudarc::driver::{CudaEvent, CudaStream};
use sightline_engine_api::DeviceBuffer;

use crate::{CudaError, device::lock, error::During, mark::is_complete};

/// Memory of others (a decoder's, a camera's) that work given here still uses. It is let go when that work is done, and
/// no sooner: its pool would write the next picture into it. That is looked at whenever a mark is, with every download and
/// with the next buffer.
#[derive(Default)]
pub(crate) struct Guests(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// Each with the end of its work; as many as there are frames in flight.
    buffers: Vec<(CudaEvent, Arc<dyn DeviceBuffer>)>,
    spare: Vec<CudaEvent>,
}

impl fmt::Debug for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} buffers", lock(&self.0).buffers.len())
    }
}

impl Guests {
    /// Holds a buffer until all work given to the stream so far is done.
    pub(crate) fn hold(&self, stream: &CudaStream, buffer: &Arc<dyn DeviceBuffer>) -> Result<(), CudaError> {
        self.let_go();
        let spare = lock(&self.0).spare.pop();
        let event = match spare {
            Some(event) => Ok(event),
            None => stream.context().new_event(None),
        };
        let marked = event.and_then(|event| event.record(stream).map(|()| event));
        match marked {
            Ok(event) => {
                lock(&self.0).buffers.push((event, buffer.clone()));
                Ok(())
            }
            // Nothing is left but to wait here.
            Err(error) => {
                stream.synchronize().during("cuStreamSynchronize")?;
                Err(error).during("cuEventRecord")
            }
        }
    }

    /// Lets go of those whose work is done; waits for nothing.
    pub(crate) fn let_go(&self) {
        let mut held = lock(&self.0);
        if held.buffers.is_empty() {
            return;
        }
        let Held { buffers, spare } = &mut *held;
        // What went wrong in the work is told to who asks for its results; the memory is of no more use to it.
        let left: Vec<_> = buffers.extract_if(.., |(event, _)| is_complete(event).unwrap_or(true)).collect();
        let buffers: Vec<_> = left
            .into_iter()
            .map(|(event, buffer)| {
                spare.push(event);
                buffer
            })
            .collect();
        // A buffer's end may be its pool's business, which is not to be done under a lock of ours.
        drop(held);
        drop(buffers);
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        for (event, buffer) in lock(&self.0).buffers.drain(..) {
            // A device that cannot say when it is through is through.
            let _ = event.synchronize();
            drop(buffer);
        }
    }
}

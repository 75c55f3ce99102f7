use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use cudarc::driver::{CudaEvent, DriverError, result, sys};
use sightline_engine_api::{DeviceMark, Event, Pending, Stream};

use crate::{CudaDevice, CudaError, Kind, device::lock, error::During};

/// Handles of the marks there are, so that one of another device is refused and not followed.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<BTreeSet<u64>>);

#[derive(Debug)]
struct Mark {
    event: CudaEvent,
    marks: Arc<Marks>,
}

impl DeviceMark for Mark {
    fn handle(&self) -> u64 {
        self.event.cu_event() as usize as u64
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        lock(&self.marks.0).remove(&self.handle());
    }
}

/// The end of what a stream had been given.
#[derive(Debug)]
struct End(CudaEvent);

impl Pending for End {
    fn wait(self: Box<Self>) -> Result<(), sightline_engine_api::EngineError> {
        Ok(self.0.synchronize().during("cuEventSynchronize")?)
    }
    fn is_done(&self) -> bool {
        // What went wrong is told by `wait`, which returns at once then.
        !matches!(is_complete(&self.0), Ok(false))
    }
}

/// Whether an event is over, without waiting.
pub(crate) fn is_complete(event: &CudaEvent) -> Result<bool, DriverError> {
    event.context().bind_to_thread()?;
    relaxed(|| event.try_is_complete())
}

/// Asks as one may while another thread captures: ONNX Runtime captures its graphs in the global mode, which any question about
/// an event, of whatever thread, would end.
fn relaxed<T>(ask: impl FnOnce() -> Result<T, DriverError>) -> Result<T, DriverError> {
    let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
    // SAFETY: it sets the thread's mode and writes the former one to `mode`, which outlives the call.
    unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }.result()?;
    let asked = ask();
    // SAFETY: as above.
    unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }.result()?;
    asked
}

impl CudaDevice {
    pub(crate) fn make_mark(&self) -> Result<Arc<dyn DeviceMark>, CudaError> {
        let event = self.context.new_event(None).during("cuEventCreate")?;
        let mark = Mark { event, marks: self.marks.clone() };
        lock(&self.marks.0).insert(mark.handle());
        Ok(Arc::new(mark))
    }

    pub(crate) fn record_mark(&self, stream: Stream, mark: &dyn DeviceMark) -> Result<(), CudaError> {
        let (stream, event) = (self.stream(stream)?, self.known(mark)?);
        self.context.bind_to_thread().during("cuCtxSetCurrent")?;
        // SAFETY: `known` found it among the living marks of this device, and `mark` is borrowed for the call.
        unsafe { result::event::record(event, stream.cu_stream()) }.during("cuEventRecord")
    }

    pub(crate) fn wait_mark(&self, stream: Stream, mark: &dyn DeviceMark) -> Result<(), CudaError> {
        let (stream, event) = (self.stream(stream)?, self.known(mark)?);
        self.context.bind_to_thread().during("cuCtxSetCurrent")?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: as in `record_mark`.
        unsafe { result::stream::wait_event(stream.cu_stream(), event, flags) }.during("cuStreamWaitEvent")
    }

    pub(crate) fn is_mark_past(&self, mark: &dyn DeviceMark) -> Result<bool, CudaError> {
        let event = self.known(mark)?;
        self.context.bind_to_thread().during("cuCtxSetCurrent")?;
        // SAFETY: as in `record_mark`.
        let asked = relaxed(|| match unsafe { result::event::query(event) } {
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            asked => asked.map(|()| true),
        });
        asked.during("cuEventQuery")
    }

    pub(crate) fn order_streams(&self, before: Stream, after: Stream) -> Result<(), CudaError> {
        let (before, after) = (self.stream(before)?, self.stream(after)?);
        after.join(&before).during("cuStreamWaitEvent")
    }

    /// The end of all work given to a stream so far, for an engine's `enqueue` to return.
    ///
    /// # Errors
    /// `Kind::Driver`.
    pub fn end_of(&self, stream: Stream) -> Result<Event, CudaError> {
        let event = self.stream(stream)?.record_event(None).during("cuEventRecord")?;
        Ok(Event::pending(Box::new(End(event))))
    }

    fn known(&self, mark: &dyn DeviceMark) -> Result<sys::CUevent, CudaError> {
        let handle = mark.handle();
        if lock(&self.marks.0).contains(&handle) {
            return Ok(handle as usize as sys::CUevent);
        }
        let expected = format!("one that {} has made", self.place());
        Err(CudaError::new(Kind::Argument, "mark", expected, format_args!("{handle:#x}")))
    }
}

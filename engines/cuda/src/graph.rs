use std::fmt;

use cudarc::driver::{CudaGraph, sys};
use sightline_engine_api::{DeviceTensor, EngineError, Stream};

use crate::{CudaDevice, CudaError, Kind, error::During};

/// Work that was captured once and is launched as a whole, at the cost of one launch.
pub struct Graph {
    graph: CudaGraph,
    /// Whose addresses are in the graph.
    _keep: Vec<DeviceTensor>,
}

// SAFETY: the driver takes calls on a graph from any thread, one at a time; `launch` takes `&mut self`.
unsafe impl Send for Graph {}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").finish_non_exhaustive()
    }
}

impl Graph {
    /// Gives it to its stream once more; with the same tensors, whatever they now hold.
    ///
    /// # Errors
    /// `Kind::Driver`.
    pub fn launch(&mut self) -> Result<(), CudaError> {
        self.graph.launch().during("cuGraphLaunch")
    }
}

impl CudaDevice {
    /// Captures what `work` gives to `stream`, without running it. `work` may neither allocate nor wait, so it must have
    /// run once before; `keep` are the tensors it uses.
    ///
    /// # Errors
    /// What `work` reports; `Kind::Run` when something in it cannot be captured.
    pub fn capture(
        &self,
        stream: Stream,
        keep: Vec<DeviceTensor>,
        work: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<Graph, EngineError> {
        let stream = self.stream(stream)?;
        // Of this thread only: other feeds allocate meanwhile as they like.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).during("cuStreamBeginCapture")?;
        let done = work();
        let captured = stream.end_capture(sys::CUgraphInstantiate_flags(0)).during("cuStreamEndCapture");
        done?;
        let graph = captured?
            .ok_or_else(|| CudaError::new(Kind::Driver, "CUDA graph", "work on the stream", "none"))?;
        graph.upload().during("cuGraphUpload")?;
        Ok(Graph { graph, _keep: keep })
    }
}

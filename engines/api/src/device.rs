use std::{any::Any, fmt, sync::Arc};

use sightline_core::{DType, Shape, TensorView, TensorViewMut};

use crate::EngineError;

/// Where a tensor lives and a graph runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Device {
    /// System memory, the processor.
    #[default]
    Cpu,
    /// Memory and multiprocessors of one NVIDIA GPU.
    Cuda {
        /// The driver's number for it.
        ordinal: u32,
    },
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda { ordinal } => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// A block of device memory, allocated once. The backend that made it frees it when the last handle goes and no work
/// uses it any more.
///
/// Anybody may implement this and name an address, so nobody uses one before
/// [`DeviceOps::owns`](crate::DeviceOps::owns) has said that the device made the buffer.
pub trait DeviceBuffer: Any + Send + Sync + fmt::Debug {
    /// Where it lies.
    fn device(&self) -> Device;
    /// Its address on that device.
    fn address(&self) -> u64;
    /// Its size.
    fn len_bytes(&self) -> usize;
    /// Where it is lent by somebody whose work may still be writing it: the backend's own handle for their order of
    /// execution (a `CUstream`). What reads the buffer is ordered behind all work given there so far.
    fn writer(&self) -> Option<u64> {
        None
    }
}

/// A dense row-major tensor inside a device buffer. Several may share a buffer: a memory bank is one buffer, and
/// each of its slots is a tensor at its own offset that a graph writes directly.
#[derive(Debug, Clone)]
pub struct DeviceTensor {
    /// The memory it lies in; a run in flight holds a clone, so it cannot be freed under it.
    pub buffer: Arc<dyn DeviceBuffer>,
    /// Where it starts.
    pub offset_bytes: usize,
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub shape: Shape,
}

impl DeviceTensor {
    /// `len` of its values from the `start`th on, in one row: the same memory.
    #[must_use]
    pub fn part(&self, start: usize, len: usize) -> Self {
        Self {
            buffer: Arc::clone(&self.buffer),
            offset_bytes: self.offset_bytes + start * self.dtype.size_bytes(),
            dtype: self.dtype,
            shape: self.shape.flat(len),
        }
    }
}

/// A tensor given to a graph.
#[derive(Debug, Clone)]
pub enum TensorRef<'a> {
    /// Host memory, borrowed for the call.
    Host(TensorView<'a>),
    /// Device memory.
    Device(DeviceTensor),
}

/// A place for a graph's result: host memory is filled before the call returns, device memory by the time the
/// call's event is done.
#[derive(Debug)]
pub enum TensorMut<'a> {
    /// Host memory, borrowed for the call.
    Host(TensorViewMut<'a>),
    /// Device memory.
    Device(DeviceTensor),
}

impl TensorRef<'_> {
    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Host(view) => view.dtype(),
            Self::Device(tensor) => tensor.dtype,
        }
    }
    /// Sizes.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Host(view) => view.shape(),
            Self::Device(tensor) => tensor.shape,
        }
    }
}

impl TensorMut<'_> {
    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Host(view) => view.dtype(),
            Self::Device(tensor) => tensor.dtype,
        }
    }
    /// Sizes.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Host(view) => view.shape(),
            Self::Device(tensor) => tensor.shape,
        }
    }
}

impl<'a> From<TensorView<'a>> for TensorRef<'a> {
    fn from(view: TensorView<'a>) -> Self {
        Self::Host(view)
    }
}

impl<'a> From<TensorViewMut<'a>> for TensorMut<'a> {
    fn from(view: TensorViewMut<'a>) -> Self {
        Self::Host(view)
    }
}

/// An order of execution on a device: a number in its table of streams. On the CPU there is one, and it is the calling
/// thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Stream(pub u64);

/// Work under way on a device, as its backend knows it.
pub trait Pending: Send + fmt::Debug {
    /// Waits for the work and says how it ended.
    ///
    /// # Errors
    /// Whatever the device reports.
    fn wait(self: Box<Self>) -> Result<(), EngineError>;
    /// Whether `wait` would return at once.
    fn is_done(&self) -> bool;
}

/// The end of a run, maybe still to come. On the CPU it has always come. Dropping it waits for nothing, and the run
/// goes on.
#[derive(Debug, Default)]
pub struct Event(Option<Box<dyn Pending>>);

impl Event {
    /// A run that is over.
    pub fn done() -> Self {
        Self(None)
    }
    /// A run under way.
    pub fn pending(work: Box<dyn Pending>) -> Self {
        Self(Some(work))
    }
    /// Whether the run is over.
    pub fn is_done(&self) -> bool {
        self.0.as_ref().is_none_or(|work| work.is_done())
    }
    /// Waits for the run's end.
    ///
    /// # Errors
    /// Whatever the device reports.
    pub fn wait(self) -> Result<(), EngineError> {
        self.0.map_or(Ok(()), Pending::wait)
    }
}

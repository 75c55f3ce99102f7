//! ONNX Runtime on memory it does not own: tensors bound by address, inputs and outputs alike.
//!
//! It is here for its one unsafe call. What the `ort` crate itself has for borrowed device memory can be given to a
//! run as an input, but neither as an output nor kept from one run to the next.

use std::{
    any::Any,
    ptr,
    ptr::NonNull,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use ort::{
    AsPointer as _, ep,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue},
    sys,
    value::DynValue,
};
use sightline_core::DType;
use sightline_engine_api::{Device, DeviceBuffer, DeviceTensor, Stream};

use crate::{CudaDevice, CudaError, memory::is_ours};

/// A device's stream, for sessions that give their work to it.
#[derive(Debug, Clone)]
pub struct Orders {
    device: Arc<CudaDevice>,
    stream: Stream,
    /// Lives as long as the device.
    handle: u64,
}

impl Orders {
    /// The stream of a number.
    ///
    /// # Errors
    /// `Kind::Driver` when it cannot be made.
    pub fn new(device: Arc<CudaDevice>, stream: Stream) -> Result<Self, CudaError> {
        let handle = device.stream_handle(stream)?;
        Ok(Self { device, stream, handle })
    }

    /// The device.
    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// The stream's number.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// A provider whose work goes to the stream. The session it is given to is to be dropped before this is.
    pub fn on_cuda(&self, provider: ep::CUDA) -> ep::CUDA {
        // SAFETY: the handle is that of a stream which its device keeps for as long as it lives itself, and this holds
        // the device; whoever makes the session keeps this beside it.
        unsafe { provider.with_compute_stream(self.handle as *mut ()) }
    }

    /// As [`Orders::on_cuda`].
    pub fn on_tensorrt(&self, provider: ep::TensorRT) -> ep::TensorRT {
        // SAFETY: as above.
        unsafe { provider.with_compute_stream(self.handle as *mut ()) }
    }
}

/// What became of CUDA graphs in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// The session does not capture.
    Off,
    /// The session captures, but not this binding.
    Never,
    /// Captured by the first run and replayed by every later one, under this number, the session's own for this binding.
    Captured(u32),
}

/// Host memory for tensors that are bound by address, as device memory is: for the tests of that, where there is no device. It is
/// set and looked at between runs.
#[doc(hidden)]
#[derive(Debug)]
pub struct HostMemory(Box<[AtomicU32]>);

impl HostMemory {
    /// Holds these values.
    pub fn new(values: &[f32]) -> Arc<Self> {
        Arc::new(Self(values.iter().map(|value| AtomicU32::new(value.to_bits())).collect()))
    }

    /// What it holds now.
    pub fn values(&self) -> Vec<f32> {
        self.0.iter().map(|cell| f32::from_bits(cell.load(Ordering::Relaxed))).collect()
    }

    /// Sets a value; one it does not have is nobody's.
    pub fn set(&self, index: usize, value: f32) {
        if let Some(cell) = self.0.get(index) {
            cell.store(value.to_bits(), Ordering::Relaxed);
        }
    }
}

impl DeviceBuffer for HostMemory {
    fn device(&self) -> Device {
        Device::Cpu
    }
    fn address(&self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }
    fn len_bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// All tensors of a run, each at its address; made once and run as often as wanted.
pub struct Bound {
    inputs: Vec<SessionInputValue<'static>>,
    options: RunOptions<HasSelectedOutputs>,
    memory: Vec<Weak<dyn DeviceBuffer>>,
    /// The same, during a run.
    held: Vec<Arc<dyn DeviceBuffer>>,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl Bound {
    /// Binds `inputs` in the session's order and `outputs` by name. Their memory is not kept: a session outlives the streams
    /// that it works for. A run holds it, and a device frees nothing before its work is done.
    ///
    /// # Errors
    /// ONNX Runtime's, and a tensor that reaches past its buffer or lies in memory that is not of this crate's making.
    pub fn new(
        session: &Session,
        inputs: &[DeviceTensor],
        outputs: &[(&str, DeviceTensor)],
        replay: Replay,
    ) -> ort::Result<Self> {
        let mut options = RunOptions::new()?;
        // The caller orders the device's work by events; on the CPU the call is the work.
        options.disable_device_sync()?;
        match replay {
            Replay::Off => {}
            Replay::Never => options.set("gpu_graph_id", "-1")?,
            Replay::Captured(number) => options.set("gpu_graph_id", number.to_string())?,
        }
        let given = inputs.iter().map(|tensor| Ok(value(session, tensor)?.into()));
        let given = given.collect::<ort::Result<Vec<_>>>()?;
        let mut taken = OutputSelector::default();
        for (name, tensor) in outputs {
            taken = taken.preallocate(*name, value(session, tensor)?);
        }
        let tensors = inputs.iter().chain(outputs.iter().map(|(_, tensor)| tensor));
        let memory: Vec<_> = tensors.map(|tensor| Arc::downgrade(&tensor.buffer)).collect();
        let held = Vec::with_capacity(memory.len());
        Ok(Self { inputs: given, options: options.with_outputs(taken), memory, held })
    }

    /// Whether these are the buffers it was bound to, inputs' and then outputs'. Others may come to lie where those were.
    pub fn is_of<'t>(&self, buffers: impl Iterator<Item = &'t Arc<dyn DeviceBuffer>>) -> bool {
        let mut buffers = buffers.map(|buffer| Arc::as_ptr(buffer).cast::<()>());
        self.memory.iter().all(|memory| buffers.next() == Some(memory.as_ptr().cast()))
            && buffers.next().is_none()
    }

    /// Whether some of its memory is gone, so that it never runs again.
    pub fn is_dead(&self) -> bool {
        self.memory.iter().any(|memory| memory.strong_count() == 0)
    }

    /// Runs the session it was bound for; on a device the work may still be under way when this returns.
    ///
    /// # Errors
    /// ONNX Runtime's, and when memory it was bound to is gone.
    pub fn run(&mut self, session: &mut Session) -> ort::Result<()> {
        self.held.extend(self.memory.iter().filter_map(Weak::upgrade));
        let ran = if self.held.len() == self.memory.len() {
            session.run_with_options(self.inputs.as_slice(), &self.options).map(drop)
        } else {
            Err(ort::Error::new("a binding to memory that is gone"))
        };
        self.held.clear();
        ran
    }
}

/// A value that lies over a tensor's memory and does not keep it.
fn value(session: &Session, tensor: &DeviceTensor) -> ort::Result<DynValue> {
    let buffer = &*tensor.buffer;
    if !is_ours(buffer) && !(buffer as &dyn Any).is::<HostMemory>() {
        return Err(ort::Error::new(format!("memory of another maker: {buffer:?}")));
    }
    let (device, ordinal) = match tensor.buffer.device() {
        Device::Cpu => (AllocationDevice::CPU, 0),
        Device::Cuda { ordinal } => (AllocationDevice::CUDA, ordinal as i32),
    };
    let info = MemoryInfo::new(device, ordinal, AllocatorType::Device, MemoryType::Default)?;
    use sys::ONNXTensorElementDataType as Element;
    let element = match tensor.dtype {
        DType::F32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DType::F16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DType::Bf16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DType::I64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
    };
    let dims: Vec<i64> = tensor.shape.dims().iter().map(|size| *size as i64).collect();
    let bytes = tensor.dtype.size_bytes() * tensor.shape.elements();
    if tensor.offset_bytes.checked_add(bytes).is_none_or(|end| end > tensor.buffer.len_bytes()) {
        let (from, all) = (tensor.offset_bytes, tensor.buffer.len_bytes());
        return Err(ort::Error::new(format!("a tensor of {bytes} bytes at {from} in a buffer of {all}")));
    }
    let address = ptr::with_exposed_provenance_mut(buffer.address() as usize + tensor.offset_bytes);
    let mut made = ptr::null_mut();
    // SAFETY: `info` and `dims` outlive the call, which copies them. The range was checked against the buffer,
    // which is of a type of this crate's: all of it is memory of its device as long as the buffer lives, and the host's is
    // made of cells that may be written at any time. A run of the value holds the buffer (`Bound::run`). The status is consumed by `result_from_status`.
    unsafe {
        let create = ort::api().CreateTensorWithDataAsOrtValue;
        let status = create(info.ptr(), address, bytes, dims.as_ptr(), dims.len(), element, &mut made);
        ort::Error::result_from_status(status)?;
    }
    let made = NonNull::new(made).ok_or_else(|| ort::Error::new("expected a value, got null"))?;
    // SAFETY: `made` is a tensor nobody else owns. It is not freed by an allocator, as it does not own its memory; the
    // session's is named only because one has to be.
    Ok(unsafe { DynValue::from_ptr(made, Some(session.allocator())) })
}

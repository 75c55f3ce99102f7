//! A run's place in TensorRT. The third layer: what the checked calls demand of memory and streams is seen to here.
#![allow(unsafe_code)]

use std::{fmt, sync::Arc};

use sightline_core::Shape;
use sightline_engine_api::{
    Device, DeviceBuffer, DeviceTensor, EngineError, Kind, Stream, TensorMut, TensorRef, check_bindings,
};

use crate::{Plan, checked::ContextPtr, loaded::PlanPort, runtime::DeviceAccess};

/// What TensorRT wants addresses to be a multiple of.
const ALIGNMENT: u64 = 256;

/// An execution context of a plan, with memory of its own to work in. It has one run in flight at a time, or several
/// on one stream, which are done one after the other.
pub struct Context {
    // Before the plan and the memory: freed first.
    pointer: ContextPtr,
    plan: Arc<Plan>,
    _scratch: Arc<dyn DeviceBuffer>,
    profile: Option<usize>,
    /// As TensorRT has them, or empty.
    inputs: Vec<Shape>,
    /// As TensorRT derived them from the inputs'.
    outputs: Vec<Shape>,
    stream: Option<Stream>,
}

impl Context {
    /// Makes a context that works in `scratch`, which no other context uses while runs of this one are in flight.
    ///
    /// # Errors
    /// `Kind::Interface` when the memory is on another device or too small, `Kind::Unavailable` when TensorRT makes
    /// none.
    pub fn new(plan: &Arc<Plan>, scratch: Arc<dyn DeviceBuffer>) -> Result<Self, EngineError> {
        let access = &plan.runtime.access;
        let place = (scratch.device(), scratch.len_bytes(), scratch.address());
        if !access.ops.owns(&*scratch) || place.1 < plan.scratch_bytes() || !place.2.is_multiple_of(ALIGNMENT)
        {
            return Err(EngineError::new(
                Kind::Interface,
                format_args!("{} scratch memory", plan.name()),
                format_args!("{} bytes on {}", plan.scratch_bytes(), access.ops.device()),
                format_args!("{} bytes at {:#x} on {}", place.1, place.2, place.0),
            ));
        }
        access.enter(Stream::TRACK)?;
        let mut pointer = ContextPtr::new(&plan.engine)
            .map_err(|got| EngineError::new(Kind::Unavailable, plan.name(), "an execution context", got))?;
        // SAFETY: the buffer is this device's own, large enough, and kept until after the context; the caller shares it
        // with no context that runs at the same time.
        unsafe { pointer.scratch(scratch.address(), scratch.len_bytes()) }
        Ok(Self {
            pointer,
            inputs: Vec::with_capacity(plan.inputs.len()),
            outputs: Vec::with_capacity(plan.outputs.len()),
            plan: Arc::clone(plan),
            _scratch: scratch,
            profile: None,
            stream: None,
        })
    }

    /// Starts a run on `stream`. Tensors are given in the order of [`Plan::io`] and belong to the run until the stream has
    /// done it.
    ///
    /// # Errors
    /// `Kind::Interface` for a tensor that does not fit its port, a host tensor, one that is on another device, leaves its buffer or has an address that is
    /// no multiple of 256, and for shapes that no profile covers or that TensorRT refuses; `Kind::Run` when TensorRT
    /// cannot start the run. The next run may succeed.
    pub fn enqueue(
        &mut self,
        stream: Stream,
        inputs: &[TensorRef<'_>],
        outputs: &[TensorMut<'_>],
    ) -> Result<(), EngineError> {
        let plan = Arc::clone(&self.plan);
        check_bindings(plan.name(), plan.io(), inputs, outputs)?;
        let Some(profile) = plan.profile_for(|index| inputs[index].shape()) else {
            return Err(EngineError::new(
                Kind::Interface,
                format_args!("{} inputs", plan.name()),
                plan.coverage(),
                shapes(inputs),
            ));
        };
        let access = &plan.runtime.access;
        let handle = access.enter(stream)?;
        // One stream at a time: its runs share the scratch memory.
        if let Some(before) = self.stream.replace(stream).filter(|before| *before != stream) {
            access.ops.order(before, stream)?;
        }
        self.shape(&plan, profile, handle, inputs)?;
        for (port, tensor) in plan.inputs.iter().zip(inputs) {
            let TensorRef::Device(tensor) = tensor else { return Err(on_host(&plan, "input", port)) };
            let address = address(access, &plan, "input", port, tensor)?;
            // SAFETY: the tensor lies within its buffer on this device, its shape is the one that was set; it is the
            // caller's promise to leave it alone until the run is done.
            unsafe { self.pointer.address(&port.name, address) }.map_err(|got| refused(&plan, port, got))?;
        }
        for ((port, tensor), shape) in plan.outputs.iter().zip(outputs).zip(&self.outputs) {
            let TensorMut::Device(tensor) = tensor else { return Err(on_host(&plan, "output", port)) };
            if tensor.shape != *shape {
                let subject = format!("{} output {:?}", plan.name(), port.port.name);
                return Err(EngineError::new(Kind::Interface, subject, shape, tensor.shape));
            }
            let address = address(access, &plan, "output", port, tensor)?;
            // SAFETY: as above; its shape is the one TensorRT will write.
            unsafe { self.pointer.address(&port.name, address) }.map_err(|got| refused(&plan, port, got))?;
        }
        // SAFETY: the stream is this device's, which `enter` has made current; addresses and scratch memory are set.
        unsafe { self.pointer.enqueue(handle) }
            .map_err(|got| EngineError::new(Kind::Run, plan.name(), "a run without an error", got))
    }

    /// Tells TensorRT the inputs' shapes, if they are not those of the last run.
    fn shape(
        &mut self,
        plan: &Plan,
        profile: usize,
        stream: u64,
        given: &[TensorRef<'_>],
    ) -> Result<(), EngineError> {
        let same = self.inputs.len() == given.len()
            && self.inputs.iter().zip(given).all(|(shape, tensor)| *shape == tensor.shape());
        if same && self.profile == Some(profile) {
            return Ok(());
        }
        // Empty until all of it has succeeded: a failure half way is not taken for a shape that is set.
        self.inputs.clear();
        self.outputs.clear();
        if self.profile != Some(profile) {
            self.profile = None;
            // SAFETY: the stream is this device's, which is current.
            unsafe { self.pointer.profile(profile as i32, stream) }.map_err(|got| {
                EngineError::new(Kind::Run, plan.name(), format_args!("profile {profile}"), got)
            })?;
            self.profile = Some(profile);
        }
        for (port, tensor) in plan.inputs.iter().zip(given) {
            let set = self.pointer.input_shape(&port.name, tensor.shape());
            set.map_err(|got| {
                let subject = format!("{} input {:?} {}", plan.name(), port.port.name, tensor.shape());
                EngineError::new(Kind::Interface, subject, "a shape that TensorRT takes", got)
            })?;
        }
        let derive = |got| {
            let subject = format!("{} outputs of {}", plan.name(), shapes(given));
            EngineError::new(Kind::Interface, subject, "shapes", got)
        };
        self.pointer.infer_shapes().map_err(derive)?;
        for port in &plan.outputs {
            let shape = self.pointer.port_shape(&port.name).map_err(derive)?;
            self.outputs.push(shape);
        }
        self.inputs.extend(given.iter().map(TensorRef::shape));
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let access = &self.plan.runtime.access;
        if let Some(stream) = self.stream {
            // Its runs must be over before it is freed. What the device says has nowhere to go.
            let _ = access.ops.download(stream, &mut []);
        }
        let _ = access.enter(Stream::TRACK);
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("plan", &self.plan.name()).finish_non_exhaustive()
    }
}

/// Where a tensor begins.
fn address(
    access: &DeviceAccess,
    plan: &Plan,
    side: &str,
    port: &PlanPort,
    tensor: &DeviceTensor,
) -> Result<u64, EngineError> {
    let buffer = &tensor.buffer;
    let (device, ours): (Device, Device) = (buffer.device(), access.ops.device());
    let known = device == ours && access.ops.owns(&**buffer);
    let bytes = tensor.shape.elements().checked_mul(tensor.dtype.size_bytes());
    let end = bytes.and_then(|bytes| tensor.offset_bytes.checked_add(bytes));
    let address = buffer.address().wrapping_add(tensor.offset_bytes as u64);
    if known && end.is_some_and(|end| end <= buffer.len_bytes()) && address.is_multiple_of(ALIGNMENT) {
        return Ok(address);
    }
    Err(EngineError::new(
        Kind::Interface,
        format_args!("{} {side} {:?}", plan.name(), port.port.name),
        format_args!("a tensor of {ours}'s own within its buffer, at a multiple of {ALIGNMENT}"),
        format_args!(
            "{} at byte {} of {} on {device}, address {address:#x}",
            tensor.shape,
            tensor.offset_bytes,
            buffer.len_bytes()
        ),
    ))
}

fn on_host(plan: &Plan, side: &str, port: &PlanPort) -> EngineError {
    let subject = format!("{} {side} {:?}", plan.name(), port.port.name);
    EngineError::new(Kind::Interface, subject, "a device tensor", "a host tensor")
}

fn refused(plan: &Plan, port: &PlanPort, got: String) -> EngineError {
    let subject = format!("{} address of {:?}", plan.name(), port.port.name);
    EngineError::new(Kind::Run, subject, "to be taken", got)
}

fn shapes(given: &[TensorRef<'_>]) -> String {
    let shapes: Vec<_> = given.iter().map(|tensor| tensor.shape().to_string()).collect();
    shapes.join(", ")
}

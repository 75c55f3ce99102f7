//! Checked results: every call of the shim, made with the pointers it was meant for, its answer turned into a
//! `Result`. Each pointer is owned by one value here, which frees it and keeps alive what it stands on.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_void},
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use sightline_core::{DType, Shape};

use crate::{
    log::{Sink, joined, on_log},
    raw::{Library, MAX_RANK, ShimDims, Table},
};

/// Without a driver TensorRT returns a null pointer plus the offset of a base class (0x228) for a runtime, and the
/// next call through it crashes. No object lies in the first 64 KiB of anybody's memory.
const LEAST_ADDRESS: usize = 64 << 10;

/// A pointer that may be an object's.
fn real(pointer: *mut c_void) -> Option<NonNull<c_void>> {
    NonNull::new(pointer).filter(|pointer| pointer.as_ptr() as usize >= LEAST_ADDRESS)
}

/// Makes an object: one that is not there, and one that TensorRT logged an error about while making it, are failures.
/// The latter is left alone, not freed: TensorRT said that something is wrong with it.
fn made(sink: &Sink, make: impl FnOnce() -> *mut c_void) -> Result<NonNull<c_void>, String> {
    let mark = sink.mark();
    let pointer = make();
    let errors = joined(&sink.since(mark));
    match (real(pointer), errors) {
        (Some(pointer), None) => Ok(pointer),
        (_, Some(errors)) => Err(errors),
        (None, None) => Err("none, and no reason in its log".to_owned()),
    }
}

/// TensorRT's logger and where it writes.
struct Logger {
    table: &'static Table,
    pointer: NonNull<c_void>,
    /// Boxed: the shim holds its address.
    sink: Box<Sink>,
}

impl Logger {
    fn new(table: &'static Table) -> Result<Self, String> {
        let sink = Box::<Sink>::default();
        let user = (&raw const *sink).cast_mut().cast();
        // SAFETY: `on_log` takes the sink as its user; the box is freed after the logger, in `drop`.
        let pointer = real(unsafe { (table.logger_new)(on_log, user) }).ok_or("no memory for a logger")?;
        Ok(Self { table, pointer, sink })
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        // SAFETY: made by `logger_new`, freed once; the runtime that used it is gone, as it is freed before its fields.
        unsafe { (self.table.logger_delete)(self.pointer.as_ptr()) }
    }
}

/// A runtime.
pub(crate) struct RuntimePtr {
    pointer: NonNull<c_void>,
    table: &'static Table,
    /// One object is made at a time: an error in the log then belongs to it, or to a run that failed meanwhile, for
    /// which one load fails needlessly.
    making: Mutex<()>,
    logger: Logger,
}

// SAFETY: the runtime is only used to make engines, under `making`, and freed once, by whoever drops it last; neither
// is tied to a thread. Its sink may be used from any thread.
unsafe impl Send for RuntimePtr {}
// SAFETY: as above.
unsafe impl Sync for RuntimePtr {}

impl RuntimePtr {
    /// The caller has found a driver and a device, and made the device current on this thread.
    pub(crate) fn new(library: &Library, table: &'static Table) -> Result<Self, String> {
        let create = library.create().ok_or("no symbol createInferRuntime_INTERNAL in it")?;
        let logger = Logger::new(table)?;
        let pointer = made(&logger.sink, || {
            // SAFETY: `create` is this library's, which stays open; the table is of the library's major, which
            // `TensorRt` saw to; the logger lives as long as the runtime.
            unsafe { (table.runtime_new)(create, logger.pointer.as_ptr()) }
        })?;
        Ok(Self { pointer, table, making: Mutex::new(()), logger })
    }

    /// Allows plans that carry code of their own, as version-compatible ones do.
    pub(crate) fn allow_host_code(&self) {
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: a live runtime, used by one thread at a time.
        unsafe { (self.table.runtime_allow_host_code)(self.pointer.as_ptr()) }
    }

    fn make(&self, make: impl FnOnce() -> *mut c_void) -> Result<NonNull<c_void>, String> {
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        made(&self.logger.sink, make)
    }
}

impl Drop for RuntimePtr {
    fn drop(&mut self) {
        // SAFETY: made by `runtime_new`, freed once; engines hold an `Arc` of this and are gone.
        unsafe { (self.table.runtime_delete)(self.pointer.as_ptr()) }
    }
}

/// An engine: a plan, deserialised.
pub(crate) struct EnginePtr {
    pointer: NonNull<c_void>,
    runtime: Arc<RuntimePtr>,
}

// SAFETY: asking an engine about itself changes nothing in it; contexts are made under the runtime's `making`; it is
// freed once, by whoever drops it last. None of it is tied to a thread.
unsafe impl Send for EnginePtr {}
// SAFETY: as above.
unsafe impl Sync for EnginePtr {}

/// What a port is to its engine.
pub(crate) struct RawPort {
    pub(crate) name: CString,
    pub(crate) is_input: bool,
    pub(crate) on_device: bool,
    /// `None`: a type we have no use for.
    pub(crate) dtype: Option<DType>,
    /// -1 is open.
    pub(crate) dims: Vec<i64>,
}

impl EnginePtr {
    pub(crate) fn new(runtime: &Arc<RuntimePtr>, plan: &[u8]) -> Result<Self, String> {
        let pointer = runtime.make(|| {
            // SAFETY: a live runtime; the plan is readable for its length and copied by TensorRT.
            unsafe { (runtime.table.engine_new)(runtime.pointer.as_ptr(), plan.as_ptr().cast(), plan.len()) }
        })?;
        Ok(Self { pointer, runtime: Arc::clone(runtime) })
    }

    fn table(&self) -> &'static Table {
        self.runtime.table
    }

    pub(crate) fn ports(&self) -> Result<Vec<RawPort>, String> {
        let (table, engine) = (self.table(), self.pointer.as_ptr());
        // SAFETY: a live engine.
        let count = unsafe { (table.engine_ports)(engine) };
        (0..count)
            .map(|index| {
                // SAFETY: a live engine, an index below its count.
                let name = unsafe { (table.engine_port_name)(engine, index) };
                if name.is_null() {
                    return Err(format!("port {index} has no name"));
                }
                // SAFETY: a string that ends in zero and lives as long as the engine; copied at once.
                let name = unsafe { CStr::from_ptr(name) }.to_owned();
                let mut dims = ShimDims::default();
                // SAFETY: a live engine, a name of its own that ends in zero, room for the sizes.
                let (mode, on_device, dtype) = unsafe {
                    (table.engine_port_shape)(engine, name.as_ptr(), &raw mut dims);
                    (
                        (table.engine_port_mode)(engine, name.as_ptr()),
                        (table.engine_port_on_device)(engine, name.as_ptr()) != 0,
                        (table.engine_port_dtype)(engine, name.as_ptr()),
                    )
                };
                let is_input = match mode {
                    1 => true,
                    2 => false,
                    _ => return Err(format!("port {name:?} is neither input nor output")),
                };
                let dtype = match dtype {
                    0 => Some(DType::F32),
                    1 => Some(DType::F16),
                    2 => Some(DType::Bf16),
                    3 => Some(DType::I64),
                    _ => None,
                };
                Ok(RawPort { is_input, on_device, dtype, dims: sizes(&name, &dims)?, name })
            })
            .collect()
    }

    pub(crate) fn profiles(&self) -> i32 {
        // SAFETY: a live engine.
        unsafe { (self.table().engine_profiles)(self.pointer.as_ptr()) }
    }

    /// The least and the most that a profile covers of an input.
    pub(crate) fn profile_range(&self, name: &CStr, profile: i32) -> Result<[Vec<i64>; 2], String> {
        let ask = |most: i32| {
            let mut dims = ShimDims::default();
            // SAFETY: a live engine, a name that ends in zero, room for the sizes.
            unsafe {
                let engine = self.pointer.as_ptr();
                (self.table().engine_profile_shape)(engine, name.as_ptr(), profile, most, &raw mut dims);
            }
            sizes(name, &dims)
        };
        Ok([ask(0)?, ask(1)?])
    }

    pub(crate) fn scratch_bytes(&self) -> Result<usize, String> {
        // SAFETY: a live engine.
        let bytes = unsafe { (self.table().engine_scratch_bytes)(self.pointer.as_ptr()) };
        usize::try_from(bytes).map_err(|_| format!("scratch memory of {bytes} bytes"))
    }
}

impl Drop for EnginePtr {
    fn drop(&mut self) {
        // SAFETY: made by `engine_new`, freed once; contexts hold an `Arc` of this and are gone.
        unsafe { (self.table().engine_delete)(self.pointer.as_ptr()) }
    }
}

/// An execution context.
pub(crate) struct ContextPtr {
    pointer: NonNull<c_void>,
    engine: Arc<EnginePtr>,
}

// SAFETY: a context may be used from any thread, by one at a time: everything that uses it takes `&mut self`.
unsafe impl Send for ContextPtr {}

impl ContextPtr {
    pub(crate) fn new(engine: &Arc<EnginePtr>) -> Result<Self, String> {
        let pointer = engine.runtime.make(|| {
            // SAFETY: a live engine.
            unsafe { (engine.table().context_new)(engine.pointer.as_ptr()) }
        })?;
        Ok(Self { pointer, engine: Arc::clone(engine) })
    }

    /// Makes a call that answers 0 when it failed.
    fn call(&mut self, call: impl FnOnce(&Table, *mut c_void) -> i32) -> Result<(), String> {
        let sink = &self.engine.runtime.logger.sink;
        let mark = sink.mark();
        if call(self.engine.table(), self.pointer.as_ptr()) != 0 {
            return Ok(());
        }
        Err(joined(&sink.since(mark)).unwrap_or_else(|| "refused, and no reason in its log".to_owned()))
    }

    /// Gives it memory to work in.
    ///
    /// # Safety
    /// `bytes` bytes at `address` on the device are nobody else's while runs of this context are in flight, and are
    /// freed after it.
    pub(crate) unsafe fn scratch(&mut self, address: u64, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        // SAFETY: a live context; the caller answers for the memory.
        unsafe { (self.engine.table().context_scratch)(self.pointer.as_ptr(), address as *mut c_void, bytes) }
    }

    /// # Safety
    /// `stream` is a stream of the device that is current on this thread.
    pub(crate) unsafe fn profile(&mut self, profile: i32, stream: u64) -> Result<(), String> {
        // SAFETY: a live context; the caller answers for the stream.
        self.call(|table, context| unsafe {
            (table.context_profile)(context, profile, stream as *mut c_void)
        })
    }

    pub(crate) fn input_shape(&mut self, name: &CStr, shape: Shape) -> Result<(), String> {
        let mut dims = ShimDims { rank: shape.dims().len() as i32, sizes: [0; MAX_RANK] };
        for (to, from) in dims.sizes.iter_mut().zip(shape.dims()) {
            *to = i64::try_from(*from).unwrap_or(i64::MAX);
        }
        // SAFETY: a live context, a name that ends in zero, sizes that live for the call.
        self.call(|table, context| unsafe {
            (table.context_input_shape)(context, name.as_ptr(), &raw const dims)
        })
    }

    /// Derives the shapes of the outputs; says no while an input's shape is missing.
    pub(crate) fn infer_shapes(&mut self) -> Result<(), String> {
        // SAFETY: a live context.
        self.call(|table, context| unsafe { i32::from((table.context_infer_shapes)(context) == 0) })
    }

    pub(crate) fn port_shape(&mut self, name: &CStr) -> Result<Shape, String> {
        let mut dims = ShimDims::default();
        // SAFETY: a live context, a name that ends in zero, room for the sizes.
        unsafe {
            let context = self.pointer.as_ptr();
            (self.engine.table().context_port_shape)(context, name.as_ptr(), &raw mut dims);
        }
        let found = sizes(name, &dims)?;
        let known: Option<Vec<usize>> = found.iter().map(|size| usize::try_from(*size).ok()).collect();
        let shape = known.map(|known| Shape::new(&known));
        match shape {
            Some(Ok(shape)) => Ok(shape),
            _ => Err(format!("shape {found:?} of {name:?}")),
        }
    }

    /// # Safety
    /// From the next run until its end, as many bytes as the port's shape needs are at `address` on the device, an
    /// output's nobody else's.
    pub(crate) unsafe fn address(&mut self, name: &CStr, address: u64) -> Result<(), String> {
        // SAFETY: a live context, a name that ends in zero; the caller answers for the memory.
        self.call(|table, context| unsafe {
            (table.context_address)(context, name.as_ptr(), address as *mut c_void)
        })
    }

    /// # Safety
    /// `stream` is a stream of the device that is current on this thread; what [`ContextPtr::scratch`] and
    /// [`ContextPtr::address`] demand holds until it has done this run.
    pub(crate) unsafe fn enqueue(&mut self, stream: u64) -> Result<(), String> {
        // SAFETY: a live context; the caller answers for stream and memory.
        self.call(|table, context| unsafe { (table.context_enqueue)(context, stream as *mut c_void) })
    }
}

impl Drop for ContextPtr {
    fn drop(&mut self) {
        // SAFETY: made by `context_new`, freed once; `Context` has waited for its runs.
        unsafe { (self.engine.table().context_delete)(self.pointer.as_ptr()) }
    }
}

fn sizes(name: &CStr, dims: &ShimDims) -> Result<Vec<i64>, String> {
    usize::try_from(dims.rank)
        .ok()
        .and_then(|rank| dims.sizes.get(..rank))
        .map(<[i64]>::to_vec)
        .ok_or_else(|| format!("{name:?} has no shape (rank {})", dims.rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_near_zero_is_none() {
        for (address, is_real) in [(0, false), (0x228, false), (0xffff, false), (0x1_0000, true)] {
            assert_eq!(real(address as *mut c_void).is_some(), is_real, "{address:#x}");
        }
    }

    #[test]
    fn what_was_made_under_an_error_is_not_used() {
        let sink = Sink::default();
        let log = |text: &CStr| {
            // SAFETY: the sink is alive and the text ends in zero.
            unsafe { on_log((&raw const sink).cast_mut().cast(), 1, text.as_ptr()) }
        };
        let good = 0x7000_0000 as *mut c_void;
        assert!(made(&sink, || good).is_ok());
        assert_eq!(made(&sink, || 0x228 as *mut c_void).unwrap_err(), "none, and no reason in its log");
        for pointer in [good, 0x228 as *mut c_void] {
            let error = made(&sink, || {
                log(c"CUDA initialization failure with error: 35");
                pointer
            });
            assert_eq!(error.unwrap_err(), "CUDA initialization failure with error: 35");
        }
        assert!(made(&sink, || good).is_ok(), "an error of before is not held against the next");
    }
}

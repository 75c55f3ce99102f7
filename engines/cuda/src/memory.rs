use std::{any::Any, fmt, ptr::NonNull, sync::Arc};

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result};
use sightline_engine_api::{Device, DeviceBuffer};

use crate::{CudaError, Kind, error::During, mark::is_complete};

/// What addresses of regions are multiples of; more than any kernel or engine asks for.
pub(crate) const ALIGN_BYTES: usize = 256;

/// One allocation of the driver's. Freed, once the device is idle, when the last region in it goes.
pub(crate) struct Block {
    address: u64,
    bytes: usize,
    context: Arc<CudaContext>,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x}", self.bytes, self.address)
    }
}

impl Block {
    pub(crate) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Arc<Self>, CudaError> {
        context.bind_to_thread().during("cuCtxSetCurrent")?;
        // SAFETY: a plain allocation; it is freed once, in `drop`.
        let address = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|error| {
            let failed = CudaError::driver("cuMemAlloc", error);
            match (failed.kind(), result::mem_get_info()) {
                (Kind::Memory, Ok((free, _))) => {
                    let expected = format!("{bytes} bytes");
                    CudaError::new(Kind::Memory, "device memory", expected, format_args!("{free} bytes free"))
                }
                _ => failed,
            }
        })?;
        Ok(Arc::new(Self { address, bytes, context: context.clone() }))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A part of it, zeroed. The caller sees to it that parts do not overlap.
    pub(crate) fn region(self: &Arc<Self>, offset: usize, bytes: usize) -> Result<Region, CudaError> {
        let address = self.address + offset as u64;
        self.context.bind_to_thread().during("cuCtxSetCurrent")?;
        let stream = self.context.default_stream();
        // SAFETY: `offset + bytes` lies within the block (both callers have checked it), and nobody uses these bytes
        // yet. The default stream is waited for, since ours do not wait for it.
        unsafe { result::memset_d8_async(address, 0, bytes, stream.cu_stream()) }
            .during("cuMemsetD8Async")?;
        stream.synchronize().during("cuStreamSynchronize")?;
        Ok(Region { address, bytes, block: self.clone() })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // Work given before may still use it; and a failure of that work is told to the next call.
        self.context.record_err(self.context.synchronize());
        // SAFETY: allocated in `new`, freed once, and no work is under way.
        self.context.record_err(unsafe { result::free_sync(self.address) });
    }
}

/// A part of a block, as the tracker and the engines see it.
#[derive(Debug)]
pub(crate) struct Region {
    address: u64,
    bytes: usize,
    block: Arc<Block>,
}

/// Whether a buffer is one of ours: only this crate makes regions, and theirs are where they say.
pub(crate) fn is_ours(buffer: &dyn DeviceBuffer) -> bool {
    (buffer as &dyn Any).is::<Region>()
}

impl DeviceBuffer for Region {
    fn device(&self) -> Device {
        Device::Cuda { ordinal: self.block.context.ordinal() as u32 }
    }
    fn address(&self) -> u64 {
        self.address
    }
    fn len_bytes(&self) -> usize {
        self.bytes
    }
}

/// Page-locked host memory, which the device copies from and to by itself, and the last copy's end.
pub(crate) struct Pinned {
    start: NonNull<u8>,
    bytes: usize,
    end: CudaEvent,
}

// SAFETY: it owns its bytes; the driver's calls on them may come from any thread.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Cached by the processor (flags 0), not write-combined: it is read from as well.
    pub(crate) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, CudaError> {
        context.bind_to_thread().during("cuCtxSetCurrent")?;
        let end = context.new_event(None).during("cuEventCreate")?;
        // SAFETY: a plain allocation; it is freed once, in `drop`.
        let start = unsafe { result::malloc_host(bytes.max(1), 0) }.during("cuMemHostAlloc")?;
        let start = NonNull::new(start.cast()).ok_or_else(|| {
            CudaError::new(Kind::Memory, "pinned memory", format_args!("{bytes} bytes"), "none")
        })?;
        // SAFETY: it was allocated with as many bytes, and is initialised from here on.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Self { start, bytes, end })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Whether no copy uses it.
    pub(crate) fn is_idle(&self) -> Result<bool, CudaError> {
        is_complete(&self.end).during("cuEventQuery")
    }

    /// The bytes, once no copy uses them.
    pub(crate) fn bytes(&mut self) -> Result<&mut [u8], CudaError> {
        self.end.synchronize().during("cuEventSynchronize")?;
        // SAFETY: `start` has `bytes` initialised bytes that only `self` refers to, and every copy behind the event
        // is over; copies are begun through `&mut self` only, and each sets the event.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) })
    }

    /// Begins copies to the device: `(offset here, address there, bytes)`.
    pub(crate) fn send(
        &mut self,
        stream: &CudaStream,
        copies: &[(usize, u64, usize)],
    ) -> Result<(), CudaError> {
        self.begin(stream, copies, |here, there, bytes| {
            // SAFETY: `begin` gives bytes that are ours, and that the host does not touch before its event is done. The
            // address was checked against its buffer by the caller, who also keeps that buffer; freeing waits for the
            // device.
            let from = unsafe { std::slice::from_raw_parts(here, bytes) };
            // SAFETY: as above.
            unsafe { result::memcpy_htod_async(there, from, stream.cu_stream()) }.during("cuMemcpyHtoDAsync")
        })
    }

    /// Begins copies from the device, as [`Pinned::send`].
    pub(crate) fn receive(
        &mut self,
        stream: &CudaStream,
        copies: &[(usize, u64, usize)],
    ) -> Result<(), CudaError> {
        self.begin(stream, copies, |here, there, bytes| {
            // SAFETY: as in `send`.
            let to = unsafe { std::slice::from_raw_parts_mut(here, bytes) };
            // SAFETY: as in `send`.
            unsafe { result::memcpy_dtoh_async(to, there, stream.cu_stream()) }.during("cuMemcpyDtoHAsync")
        })
    }

    /// Begins copies one by one, and sets the event behind those that were begun.
    fn begin(
        &mut self,
        stream: &CudaStream,
        copies: &[(usize, u64, usize)],
        copy: impl Fn(*mut u8, u64, usize) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        self.check(copies)?;
        stream.context().bind_to_thread().during("cuCtxSetCurrent")?;
        let begun = copies.iter().try_for_each(|(offset, address, bytes)| {
            // SAFETY: `check` found the offset within our bytes.
            copy(unsafe { self.start.as_ptr().add(*offset) }, *address, *bytes)
        });
        // Where one failed, those before it are under way all the same: their bytes are not to be touched or freed.
        let ended = self.end.record(stream).during("cuEventRecord");
        if ended.is_err() {
            stream.context().record_err(stream.synchronize());
        }
        begun.and(ended)
    }

    fn check(&self, copies: &[(usize, u64, usize)]) -> Result<(), CudaError> {
        let fits = |(offset, _, bytes): &(usize, u64, usize)| {
            offset.checked_add(*bytes).is_some_and(|end| end <= self.bytes)
        };
        if copies.iter().all(fits) {
            return Ok(());
        }
        let expected = format!("copies within {} bytes", self.bytes);
        Err(CudaError::new(Kind::Argument, "pinned memory", expected, format_args!("{copies:?}")))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let context = self.end.context();
        context.record_err(self.end.synchronize());
        // SAFETY: allocated in `new`, freed once, and no copy uses it.
        context.record_err(unsafe { result::free_host(self.start.as_ptr().cast()) });
    }
}

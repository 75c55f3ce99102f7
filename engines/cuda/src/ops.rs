use std::sync::Arc;

use sightline_core::{ImageSpec, Shape, TensorView, TensorViewMut};
use sightline_engine_api::{
    Device, DeviceBuffer, DeviceMark, DeviceMasks, DeviceOps, DeviceTensor, EngineError, MaskRoom,
    PictureRef, Stream,
};

use crate::{
    CudaDevice, CudaError, Kind, MaskFinder,
    error::During,
    memory::{Block, is_ours},
};

impl DeviceOps for CudaDevice {
    fn device(&self) -> Device {
        self.place()
    }

    fn alloc(&self, bytes: usize) -> Result<Arc<dyn DeviceBuffer>, EngineError> {
        Ok(match &self.arena {
            Some(arena) => arena.alloc(bytes)?,
            None => Arc::new(Block::new(&self.context, bytes)?.region(0, bytes)?),
        })
    }

    fn owns(&self, buffer: &dyn DeviceBuffer) -> bool {
        is_ours(buffer) && buffer.device() == self.place()
    }

    fn mark(&self) -> Result<Arc<dyn DeviceMark>, EngineError> {
        Ok(self.make_mark()?)
    }

    fn record(&self, stream: Stream, mark: &dyn DeviceMark) -> Result<(), EngineError> {
        Ok(self.record_mark(stream, mark)?)
    }

    fn wait(&self, stream: Stream, mark: &dyn DeviceMark) -> Result<(), EngineError> {
        Ok(self.wait_mark(stream, mark)?)
    }

    fn is_past(&self, mark: &dyn DeviceMark) -> Result<bool, EngineError> {
        self.guests.let_go();
        Ok(self.is_mark_past(mark)?)
    }

    fn order(&self, before: Stream, after: Stream) -> Result<(), EngineError> {
        Ok(self.order_streams(before, after)?)
    }

    fn upload(&self, stream: Stream, from: TensorView<'_>, to: &DeviceTensor) -> Result<(), EngineError> {
        same_shape("upload", from.shape(), to.shape)?;
        let address = self.address("upload", to, from.dtype())?;
        let bytes = bytes_of(&from);
        let mut pinned = self.staging.take(&self.context, bytes.len())?;
        pinned.bytes()?[..bytes.len()].copy_from_slice(bytes);
        pinned.send(&*self.stream(stream)?, &[(0, address, bytes.len())])?;
        self.staging.put(pinned);
        Ok(())
    }

    fn copy(&self, stream: Stream, from: &DeviceTensor, to: &DeviceTensor) -> Result<(), EngineError> {
        let bytes = |tensor: &DeviceTensor| tensor.shape.elements() * tensor.dtype.size_bytes();
        if bytes(from) != bytes(to) {
            let expected = format!("{} bytes", bytes(from));
            return Err(CudaError::new(Kind::Argument, "copy", expected, bytes(to)).into());
        }
        let (source, target) = (self.address("copy", from, from.dtype)?, self.address("copy", to, to.dtype)?);
        let on = self.stream(stream)?;
        self.context.bind_to_thread().during("cuCtxSetCurrent")?;
        // SAFETY: both places lie within their buffers, which are freed only once the device is idle.
        let copied =
            unsafe { cudarc::driver::result::memcpy_dtod_async(target, source, bytes(from), on.cu_stream()) };
        Ok(copied.during("cuMemcpyDtoDAsync")?)
    }

    fn fill(&self, stream: Stream, value: f32, to: &DeviceTensor) -> Result<(), EngineError> {
        Ok(self.fill_tensor(stream, value, to)?)
    }

    fn clamp(
        &self,
        stream: Stream,
        from: &DeviceTensor,
        limit: f32,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        Ok(self.clamp_tensor(stream, from, limit, to)?)
    }

    fn round_to_bf16(&self, stream: Stream, tensor: &DeviceTensor) -> Result<(), EngineError> {
        Ok(self.round_tensor_to_bf16(stream, tensor)?)
    }

    fn add_channels(
        &self,
        stream: Stream,
        from: &DeviceTensor,
        values: &DeviceTensor,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        Ok(self.add_channels_to(stream, from, values, to)?)
    }

    fn preprocess(
        &self,
        stream: Stream,
        picture: &PictureRef<'_>,
        spec: &ImageSpec,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        match picture {
            PictureRef::Host(picture) => self.upload_and_preprocess(stream, picture, spec, to)?,
            PictureRef::Device(picture) => self.preprocess_picture(stream, picture, spec, to)?,
        }
        Ok(())
    }

    fn masks(
        self: Arc<Self>,
        objects: usize,
        most_pixels: usize,
    ) -> Result<Option<Box<dyn DeviceMasks>>, EngineError> {
        Ok(Some(Box::new(MaskFinder::scratch(self, objects, most_pixels, MaskRoom::MOST_CHANGES)?)))
    }

    fn download(
        &self,
        stream: Stream,
        parts: &mut [(DeviceTensor, TensorViewMut<'_>)],
    ) -> Result<(), EngineError> {
        let mut from = Vec::with_capacity(parts.len());
        for (tensor, view) in parts.iter() {
            same_shape("download", tensor.shape, view.shape())?;
            let bytes = tensor.shape.elements() * tensor.dtype.size_bytes();
            from.push((self.address("download", tensor, view.dtype())?, bytes));
        }
        let mut to: Vec<&mut [u8]> = parts.iter_mut().map(|(_, view)| bytes_of_mut(view)).collect();
        Ok(self.download_bytes(stream, &from, &mut to)?)
    }
}

impl CudaDevice {
    /// Device to host through pinned memory, with one wait. Each of `from` is an address and its bytes, checked by the
    /// caller, and as long as the slice of `to` in its place.
    pub(crate) fn download_bytes(
        &self,
        stream: Stream,
        from: &[(u64, usize)],
        to: &mut [&mut [u8]],
    ) -> Result<(), CudaError> {
        let on = self.stream(stream)?;
        let total = from.iter().map(|(_, bytes)| bytes).sum();
        let mut pinned = self.staging.take(&self.context, total)?;
        let mut end = 0;
        let copies: Vec<_> = from
            .iter()
            .map(|(address, bytes)| {
                end += bytes;
                (end - bytes, *address, *bytes)
            })
            .collect();
        pinned.bytes()?;
        pinned.receive(&on, &copies)?;
        on.synchronize().during("cuStreamSynchronize")?;
        let host = pinned.bytes()?;
        for ((start, _, bytes), to) in copies.into_iter().zip(to) {
            to.copy_from_slice(&host[start..start + bytes]);
        }
        self.staging.put(pinned);
        self.guests.let_go();
        Ok(())
    }
}

fn same_shape(what: &str, expected: Shape, got: Shape) -> Result<(), CudaError> {
    if expected == got {
        return Ok(());
    }
    Err(CudaError::new(Kind::Argument, what, expected, got))
}

fn bytes_of<'a>(view: &TensorView<'a>) -> &'a [u8] {
    // SAFETY: numbers have no padding and any byte of them may be read; the borrow is the view's own.
    unsafe {
        match view {
            TensorView::F32(_, data) => std::slice::from_raw_parts(data.as_ptr().cast(), size_of_val(*data)),
            TensorView::I64(_, data) => std::slice::from_raw_parts(data.as_ptr().cast(), size_of_val(*data)),
        }
    }
}

fn bytes_of_mut<'a>(view: &'a mut TensorViewMut<'_>) -> &'a mut [u8] {
    // SAFETY: as in `bytes_of`, and any bytes make a number.
    unsafe {
        match view {
            TensorViewMut::F32(_, data) => {
                std::slice::from_raw_parts_mut(data.as_mut_ptr().cast(), size_of_val(*data))
            }
            TensorViewMut::I64(_, data) => {
                std::slice::from_raw_parts_mut(data.as_mut_ptr().cast(), size_of_val(*data))
            }
        }
    }
}

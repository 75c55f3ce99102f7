//! Where values lie: in host memory, or on the device whose engines read and write them.
//!
//! On a device every call here is work given to a stream, in the order it is to be done in; nothing waits but
//! [`Ground::download`].

use std::sync::Arc;

use sightline_core::{DType, ImageSpec, Shape, TensorView, TensorViewMut};
use sightline_engine_api::{
    Device, DeviceMark, DeviceMasks, DeviceOps, DeviceTensor, EngineError, MaskRoom, PictureRef, Stream,
    TensorMut, TensorRef,
};

/// Values to a boundary that every device reads from at full speed, and some insist on: 256 bytes.
pub(crate) const ALIGN: usize = 64;

/// The host, or a device.
#[derive(Debug, Clone)]
pub(crate) struct Ground(Option<Arc<dyn DeviceOps>>);

impl Ground {
    pub(crate) fn new(device: Option<Arc<dyn DeviceOps>>) -> Self {
        Self(device)
    }

    pub(crate) fn is_device(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn device(&self) -> Option<Device> {
        self.0.as_ref().map(|ops| ops.device())
    }

    /// The stream for the graphs of `stream`, where there are any.
    pub(crate) fn stream(&self, stream: Stream) -> Option<Stream> {
        self.is_device().then_some(stream)
    }

    /// A buffer of its own on the device; `None` on the host.
    pub(crate) fn tensor(&self, dtype: DType, elements: usize) -> Result<Option<DeviceTensor>, EngineError> {
        let Some(ops) = &self.0 else { return Ok(None) };
        let buffer = ops.alloc(elements.max(1) * dtype.size_bytes())?;
        Ok(Some(DeviceTensor { buffer, offset_bytes: 0, dtype, shape: Shape::new(&[elements])? }))
    }

    /// Zeros, where the engines are.
    pub(crate) fn slab(&self, elements: usize) -> Result<Slab, EngineError> {
        let device = self.tensor(DType::F32, elements)?;
        // Zeroed memory is only taken from the system when it is written to.
        let host = if device.is_some() { Vec::new() } else { vec![0.0; elements] };
        Ok(Slab { host, device })
    }

    /// Zeros where the engines are, and where that is a device, as many on the host.
    pub(crate) fn mirrored(&self, elements: usize) -> Result<Slab, EngineError> {
        Ok(Slab { host: vec![0.0; elements], device: self.tensor(DType::F32, elements)? })
    }

    /// Makes values known where the engines are. `to` is there for good: work given before has its own.
    pub(crate) fn give<'a>(
        &self,
        values: TensorView<'a>,
        to: &Option<DeviceTensor>,
    ) -> Result<TensorRef<'a>, EngineError> {
        let (Some(ops), Some(to)) = (&self.0, to) else { return Ok(values.into()) };
        let to = shaped(to, values.shape());
        ops.upload(Stream::TRACK, values, &to)?;
        Ok(TensorRef::Device(to))
    }

    /// A tensor of these values for good; `None` on the host, or if there are none.
    pub(crate) fn constant(&self, values: TensorView<'_>) -> Result<Option<DeviceTensor>, EngineError> {
        let elements = values.shape().elements();
        if elements == 0 {
            return Ok(None);
        }
        let tensor = self.tensor(values.dtype(), elements)?;
        self.give(values, &tensor)?;
        Ok(tensor)
    }

    pub(crate) fn copy(&self, from: &DeviceTensor, to: &DeviceTensor) -> Result<(), EngineError> {
        self.0.as_ref().map_or(Ok(()), |ops| ops.copy(Stream::TRACK, from, to))
    }

    pub(crate) fn fill(&self, value: f32, to: &DeviceTensor) -> Result<(), EngineError> {
        self.0.as_ref().map_or(Ok(()), |ops| ops.fill(Stream::TRACK, value, to))
    }

    pub(crate) fn clamp(
        &self,
        from: &DeviceTensor,
        limit: f32,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        self.0.as_ref().map_or(Ok(()), |ops| ops.clamp(Stream::TRACK, from, limit, to))
    }

    pub(crate) fn round_to_bf16(&self, tensor: &DeviceTensor) -> Result<(), EngineError> {
        self.0.as_ref().map_or(Ok(()), |ops| ops.round_to_bf16(Stream::TRACK, tensor))
    }

    pub(crate) fn add_channels(
        &self,
        from: &DeviceTensor,
        values: &DeviceTensor,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        self.0.as_ref().map_or(Ok(()), |ops| ops.add_channels(Stream::TRACK, from, values, to))
    }

    /// What makes masks, of up to `objects` at once; `None` on the host, or where the device makes none.
    pub(crate) fn masks(
        &self,
        objects: usize,
        most_pixels: usize,
    ) -> Result<Option<Box<dyn DeviceMasks>>, EngineError> {
        self.0.as_ref().map_or(Ok(None), |ops| Arc::clone(ops).masks(objects, most_pixels))
    }

    pub(crate) fn find_masks(
        &self,
        masks: &mut dyn DeviceMasks,
        logits: &DeviceTensor,
        room: MaskRoom,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        masks.find_to(Stream::TRACK, logits, room, to)
    }

    /// All of it, with one wait.
    pub(crate) fn download(
        &self,
        parts: &mut [(DeviceTensor, TensorViewMut<'_>)],
    ) -> Result<(), EngineError> {
        self.0.as_ref().map_or(Ok(()), |ops| ops.download(Stream::TRACK, parts))
    }
}

/// Values that graphs read and write, where the engines are. Where that is a device there may be as many on the host,
/// which are what was last uploaded or downloaded.
#[derive(Debug, Clone)]
pub(crate) struct Slab {
    host: Vec<f32>,
    device: Option<DeviceTensor>,
}

impl Slab {
    pub(crate) fn len(&self) -> usize {
        self.device.as_ref().map_or(self.host.len(), |tensor| tensor.shape.elements())
    }

    pub(crate) fn is_device(&self) -> bool {
        self.device.is_some()
    }

    /// The values on the host.
    pub(crate) fn host(&self) -> &[f32] {
        &self.host
    }

    pub(crate) fn host_mut(&mut self) -> &mut [f32] {
        &mut self.host
    }

    /// A part of the values on the device.
    pub(crate) fn device(&self, start: usize, len: usize) -> Option<DeviceTensor> {
        self.device.as_ref().map(|tensor| tensor.part(start, len))
    }

    /// A part for a graph to read.
    pub(crate) fn given(&self, start: usize, len: usize) -> Result<TensorRef<'_>, EngineError> {
        match self.device(start, len) {
            Some(tensor) => Ok(TensorRef::Device(tensor)),
            None => Ok(TensorView::f32(&[len], &self.host[start..start + len])?.into()),
        }
    }

    /// A part for a graph to write.
    pub(crate) fn place(&mut self, start: usize, len: usize) -> Result<TensorMut<'_>, EngineError> {
        match self.device(start, len) {
            Some(tensor) => Ok(TensorMut::Device(tensor)),
            None => Ok(TensorViewMut::f32(&[len], &mut self.host[start..start + len])?.into()),
        }
    }

    /// Makes what the host says known where the engines are.
    pub(crate) fn tell(&self, ground: &Ground, start: usize, len: usize) -> Result<(), EngineError> {
        let Some(tensor) = self.device(start, len) else { return Ok(()) };
        ground.give(TensorView::f32(&[len], &self.host[start..start + len])?, &Some(tensor))?;
        Ok(())
    }

    /// The place of a part on the device, and where it goes on the host.
    pub(crate) fn downloaded(
        &mut self,
        len: usize,
    ) -> Result<Option<(DeviceTensor, TensorViewMut<'_>)>, EngineError> {
        let Some(tensor) = self.device(0, len) else { return Ok(None) };
        Ok(Some((tensor, TensorViewMut::f32(&[len], &mut self.host[..len])?)))
    }

    /// Sets a part to zero.
    pub(crate) fn clear(&mut self, ground: &Ground, start: usize, len: usize) -> Result<(), EngineError> {
        match self.device(start, len) {
            Some(tensor) => ground.fill(0.0, &tensor),
            None => {
                self.host[start..start + len].fill(0.0);
                Ok(())
            }
        }
    }

    /// Becomes a copy of another of its size.
    pub(crate) fn copy_from(&mut self, ground: &Ground, other: &Self) -> Result<(), EngineError> {
        match (&self.device, &other.device) {
            (Some(to), Some(from)) => ground.copy(from, to),
            _ => {
                self.host.copy_from_slice(&other.host);
                Ok(())
            }
        }
    }
}

/// The same memory, or the first of it, in another shape.
pub(crate) fn shaped(tensor: &DeviceTensor, shape: Shape) -> DeviceTensor {
    DeviceTensor { shape, ..tensor.clone() }
}

/// The tensor that these make where they lie one behind the other.
pub(crate) fn side_by_side(parts: &[DeviceTensor]) -> Option<DeviceTensor> {
    let first = parts.first()?;
    let bytes = first.shape.elements() * first.dtype.size_bytes();
    let follows = |(index, other): (usize, &DeviceTensor)| {
        other.buffer.address() == first.buffer.address()
            && other.offset_bytes == first.offset_bytes + index * bytes
    };
    let len = parts.len() * first.shape.elements();
    parts.iter().enumerate().all(follows).then(|| shaped(first, first.shape.flat(len)))
}

/// A picture on its way to the image encoder.
pub(crate) struct Intake {
    /// `[3,H,W]`
    image: Slab,
    /// Behind the encoder's run that read it last.
    encoded: Option<Arc<dyn DeviceMark>>,
    ground: Ground,
}

impl Intake {
    pub(crate) fn new(ground: &Ground, spec: &ImageSpec) -> Result<Self, EngineError> {
        let image = ground.slab(3 * spec.height_px * spec.width_px)?;
        let encoded = ground.0.as_ref().map(|ops| ops.mark()).transpose()?;
        Ok(Self { image, encoded, ground: ground.clone() })
    }

    /// Where the picture's tensor is made, if that is a device.
    pub(crate) fn device(&self) -> Option<Device> {
        self.ground.device()
    }

    /// Where the host writes the picture's tensor; `None` where a device does.
    pub(crate) fn on_host(&mut self) -> Option<&mut [f32]> {
        (!self.image.is_device()).then(|| self.image.host_mut())
    }

    /// On a device: preprocesses a picture there.
    pub(crate) fn see(&self, picture: &PictureRef<'_>, spec: &ImageSpec) -> Result<(), EngineError> {
        self.fill(|ops, to| {
            let image = Shape::new(&[1, 3, spec.height_px, spec.width_px])?;
            ops.preprocess(Stream::COPY, picture, spec, &shaped(to, image))
        })
    }

    /// On a device: takes a picture's tensor there.
    pub(crate) fn take(&self, image: &[f32]) -> Result<(), EngineError> {
        self.fill(|ops, to| ops.upload(Stream::COPY, TensorView::f32(&[image.len()], image)?, to))
    }

    fn fill(
        &self,
        fill: impl FnOnce(&dyn DeviceOps, &DeviceTensor) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let (Some(ops), Some(encoded)) = (&self.ground.0, &self.encoded) else { return Ok(()) };
        let Some(to) = &self.image.device else { return Ok(()) };
        ops.wait(Stream::COPY, &**encoded)?;
        fill(&**ops, to)
    }

    /// The tensor, for the image encoder: on a device its run waits for the picture.
    pub(crate) fn given(&self) -> Result<TensorRef<'_>, EngineError> {
        if let Some(ops) = &self.ground.0 {
            ops.order(Stream::COPY, Stream::ENCODE)?;
        }
        self.image.given(0, self.image.len())
    }

    /// The image encoder has been told to encode it.
    pub(crate) fn encoded(&self) -> Result<(), EngineError> {
        let (Some(ops), Some(encoded)) = (&self.ground.0, &self.encoded) else { return Ok(()) };
        ops.record(Stream::ENCODE, &**encoded)
    }

    /// The device and the mark behind the encoder's last run; `None` on the host, where it is over.
    pub(crate) fn end(&self) -> Option<(Arc<dyn DeviceOps>, Arc<dyn DeviceMark>)> {
        self.ground.0.clone().zip(self.encoded.clone())
    }

    /// What is tracked from now on waits for the encoder's last run.
    pub(crate) fn track_after(&self) -> Result<(), EngineError> {
        let (Some(ops), Some(encoded)) = (&self.ground.0, &self.encoded) else { return Ok(()) };
        ops.wait(Stream::TRACK, &**encoded)
    }
}

//! What a device does besides running graphs: memory, the order of its work, and the few small kernels between graphs.

use std::{fmt, sync::Arc};

use sightline_core::{ImageSpec, TensorView, TensorViewMut};

use crate::{
    Device, DeviceBuffer, DeviceMasks, DeviceTensor, EngineError, Event, Pending, PictureRef, Stream,
};

impl Stream {
    /// Pictures on their way to the device, and their preprocessing.
    pub const COPY: Self = Self(1);
    /// The image encoder.
    pub const ENCODE: Self = Self(2);
    /// Everything that follows objects.
    pub const TRACK: Self = Self(3);
}

/// A point in a stream's order of work, made once and recorded over and over (a CUDA event). The backend that made
/// it frees it when the last handle goes.
pub trait DeviceMark: Send + Sync + fmt::Debug {
    /// The backend's own handle.
    fn handle(&self) -> u64;
}

/// A device's memory and orders of work. One is shared by all who use the device, from any thread.
///
/// Work given to one [`Stream`] is done in the order it was given in; work on different streams in any order, but for
/// what [`DeviceOps::order`], [`DeviceOps::record`] and [`DeviceOps::wait`] demand. A stream is a number: the device
/// makes it when it is first used. No call but [`DeviceOps::download`] waits for the device; what goes wrong on it
/// meanwhile is told by the next call that can. Dropping the last handle to a buffer never pulls memory from under work
/// that was given before.
///
/// Tensors lie on this device, and are `f32` where nothing else is said; what does not fit is `Kind::Interface`, what
/// the device refuses or reports is `Kind::Run`.
pub trait DeviceOps: Send + Sync + fmt::Debug {
    /// Which device.
    fn device(&self) -> Device;

    /// Zeroed memory whose address is a multiple of 256. Called while a model is loaded and a tracker made, never for
    /// a frame.
    ///
    /// # Errors
    /// `Kind::Unavailable` when there is not as much, naming what is left.
    fn alloc(&self, bytes: usize) -> Result<Arc<dyn DeviceBuffer>, EngineError>;

    /// Whether this device made the buffer, by its type: then its address is what it says, for as long as it lives.
    fn owns(&self, buffer: &dyn DeviceBuffer) -> bool;

    /// A mark, not recorded yet: waiting for it is no wait. Called as [`DeviceOps::alloc`] is.
    ///
    /// # Errors
    /// As the device reports.
    fn mark(&self) -> Result<Arc<dyn DeviceMark>, EngineError>;

    /// Sets the mark behind all work given to `stream` so far; where it was before is forgotten.
    ///
    /// # Errors
    /// As the device reports.
    fn record(&self, stream: Stream, mark: &dyn DeviceMark) -> Result<(), EngineError>;

    /// Work given to `stream` from now on begins when the work before the mark, as it is recorded now, is done.
    ///
    /// # Errors
    /// As the device reports.
    fn wait(&self, stream: Stream, mark: &dyn DeviceMark) -> Result<(), EngineError>;

    /// Whether all work before the mark, as it is recorded now, is done; a mark that was never recorded is past. Looks
    /// and waits for nothing: what went wrong in that work is told by the next call that can.
    ///
    /// # Errors
    /// As the device reports.
    fn is_past(&self, mark: &dyn DeviceMark) -> Result<bool, EngineError>;

    /// Work given to `after` from now on begins when all work given to `before` so far is done.
    ///
    /// # Errors
    /// As the device reports.
    fn order(&self, before: Stream, after: Stream) -> Result<(), EngineError>;

    /// Host to device, `f32` or `i64`, of one shape. The host memory has been read when the call returns.
    ///
    /// # Errors
    /// See the trait.
    fn upload(&self, stream: Stream, from: TensorView<'_>, to: &DeviceTensor) -> Result<(), EngineError>;

    /// Device to device, of as many bytes; the two do not overlap.
    ///
    /// # Errors
    /// See the trait.
    fn copy(&self, stream: Stream, from: &DeviceTensor, to: &DeviceTensor) -> Result<(), EngineError>;

    /// Sets every value.
    ///
    /// # Errors
    /// See the trait.
    fn fill(&self, stream: Stream, value: f32, to: &DeviceTensor) -> Result<(), EngineError>;

    /// `to = min(max(from, -limit), limit)`, of as many values.
    ///
    /// # Errors
    /// See the trait.
    fn clamp(
        &self,
        stream: Stream,
        from: &DeviceTensor,
        limit: f32,
        to: &DeviceTensor,
    ) -> Result<(), EngineError>;

    /// Rounds every value to the nearest bfloat16, ties to even, in place; it stays an `f32`.
    ///
    /// # Errors
    /// See the trait.
    fn round_to_bf16(&self, stream: Stream, tensor: &DeviceTensor) -> Result<(), EngineError>;

    /// `to[c][i] = from[c][i] + values[c]`: `from` and `to` are of one size, which `values`, one a channel, divides.
    ///
    /// # Errors
    /// See the trait.
    fn add_channels(
        &self,
        stream: Stream,
        from: &DeviceTensor,
        values: &DeviceTensor,
        to: &DeviceTensor,
    ) -> Result<(), EngineError>;

    /// A picture to `[1,3,H,W]`, R G B planes, stretched to the model's size, `(v / 255 - mean) / std` as
    /// [`ImageSpec`] says; within a stated tolerance what `sightline_vision::Preprocessor` gives, and the same from
    /// either memory. A picture in host memory has been read when the call returns; one on the device is read behind
    /// whoever [writes](DeviceBuffer::writer) it, and its buffer held until then.
    ///
    /// # Errors
    /// See the trait.
    fn preprocess(
        &self,
        stream: Stream,
        picture: &PictureRef<'_>,
        spec: &ImageSpec,
        to: &DeviceTensor,
    ) -> Result<(), EngineError>;

    /// Makes masks of logits, of up to `objects` at once and for pictures of up to `most_pixels`. Called as
    /// [`DeviceOps::alloc`] is. `None`, unless a device says otherwise: it makes none, and logits are downloaded.
    ///
    /// # Errors
    /// As [`DeviceOps::alloc`].
    fn masks(
        self: Arc<Self>,
        objects: usize,
        most_pixels: usize,
    ) -> Result<Option<Box<dyn DeviceMasks>>, EngineError> {
        let _ = (objects, most_pixels);
        Ok(None)
    }

    /// Device to host, of one shape each, and waits once for all of it and for what `stream` was given before. The only
    /// wait there is: a frame has at most one.
    ///
    /// # Errors
    /// See the trait; also what went wrong in any work it waited for.
    fn download(
        &self,
        stream: Stream,
        parts: &mut [(DeviceTensor, TensorViewMut<'_>)],
    ) -> Result<(), EngineError>;
}

impl Event {
    /// A run among others on a stream: over when all is that the stream has been given by the time somebody waits.
    pub fn on_stream(ops: Arc<dyn DeviceOps>, stream: Stream) -> Self {
        Self::pending(Box::new(OnStream { ops, stream }))
    }
}

#[derive(Debug)]
struct OnStream {
    ops: Arc<dyn DeviceOps>,
    stream: Stream,
}

impl Pending for OnStream {
    fn wait(self: Box<Self>) -> Result<(), EngineError> {
        self.ops.download(self.stream, &mut [])
    }

    /// Nobody knows without waiting.
    fn is_done(&self) -> bool {
        false
    }
}

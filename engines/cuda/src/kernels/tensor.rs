use sightline_core::DType;
use sightline_engine_api::{DeviceTensor, Stream};

use super::{Kernel, arguments};
use crate::{CudaDevice, CudaError, Kind, memory::is_ours};

/// Threads a block.
const BLOCK: u32 = 256;

impl CudaDevice {
    /// The address of a tensor that lies on this device, within its buffer.
    pub(crate) fn address(&self, what: &str, tensor: &DeviceTensor, dtype: DType) -> Result<u64, CudaError> {
        if tensor.dtype != dtype {
            return Err(CudaError::new(Kind::Argument, what, dtype, tensor.dtype));
        }
        let (place, found) = (self.place(), tensor.buffer.device());
        if place != found {
            return Err(CudaError::new(Kind::Argument, what, format_args!("a tensor on {place}"), found));
        }
        if !is_ours(&*tensor.buffer) {
            let expected = format!("memory that {place} has made");
            return Err(CudaError::new(Kind::Argument, what, expected, format_args!("{:?}", tensor.buffer)));
        }
        let bytes = tensor.shape.elements() * dtype.size_bytes();
        let end = tensor.offset_bytes.checked_add(bytes);
        if end.is_none_or(|end| end > tensor.buffer.len_bytes())
            || !tensor.offset_bytes.is_multiple_of(dtype.size_bytes())
        {
            let expected = format!("a place within the buffer's {} bytes", tensor.buffer.len_bytes());
            let got = format!("{dtype} {} at {}", tensor.shape, tensor.offset_bytes);
            return Err(CudaError::new(Kind::Argument, what, expected, got));
        }
        Ok(tensor.buffer.address() + tensor.offset_bytes as u64)
    }

    fn same_size(what: &str, a: &DeviceTensor, b: &DeviceTensor) -> Result<u64, CudaError> {
        let (expected, got) = (a.shape.elements(), b.shape.elements());
        if expected == got {
            return Ok(expected as u64);
        }
        Err(CudaError::new(Kind::Argument, what, format_args!("{expected} values"), got))
    }

    pub(crate) fn fill_tensor(&self, stream: Stream, value: f32, to: &DeviceTensor) -> Result<(), CudaError> {
        let (address, count) = (self.address("fill", to, DType::F32)?, to.shape.elements() as u64);
        // SAFETY: (float, u64, float*), and `address` has `count` floats.
        unsafe { self.each(Kernel::TensorFill, stream, count, arguments![value, count, address]) }
    }

    pub(crate) fn clamp_tensor(
        &self,
        stream: Stream,
        from: &DeviceTensor,
        limit: f32,
        to: &DeviceTensor,
    ) -> Result<(), CudaError> {
        let count = Self::same_size("clamp", from, to)?;
        let (from, to) = (self.address("clamp", from, DType::F32)?, self.address("clamp", to, DType::F32)?);
        // SAFETY: (float*, float, u64, float*), and both addresses have `count` floats.
        unsafe { self.each(Kernel::TensorClamp, stream, count, arguments![from, limit, count, to]) }
    }

    pub(crate) fn round_tensor_to_bf16(
        &self,
        stream: Stream,
        tensor: &DeviceTensor,
    ) -> Result<(), CudaError> {
        let count = tensor.shape.elements() as u64;
        let address = self.address("round_to_bf16", tensor, DType::F32)?;
        // SAFETY: (u64, u32*), and `address` has `count` floats.
        unsafe { self.each(Kernel::TensorRoundToBf16, stream, count, arguments![count, address]) }
    }

    pub(crate) fn add_channels_to(
        &self,
        stream: Stream,
        from: &DeviceTensor,
        values: &DeviceTensor,
        to: &DeviceTensor,
    ) -> Result<(), CudaError> {
        let what = "add_channels";
        let count = Self::same_size(what, from, to)?;
        let channels = values.shape.elements() as u64;
        if channels == 0 || !count.is_multiple_of(channels) {
            let expected = format!("as many values as divide {count}");
            return Err(CudaError::new(Kind::Argument, what, expected, channels));
        }
        let per_channel = count / channels;
        let [from, values, to] = [from, values, to].map(|tensor| self.address(what, tensor, DType::F32));
        let (from, values, to) = (from?, values?, to?);
        let arguments = arguments![from, values, per_channel, count, to];
        // SAFETY: (float*, float*, u64, u64, float*); `from` and `to` have `count` floats, `values` one a channel.
        unsafe { self.each(Kernel::TensorAddChannels, stream, count, arguments) }
    }

    /// A thread a value.
    ///
    /// # Safety
    /// As [`Kernels::launch`](super::Kernels::launch).
    unsafe fn each(
        &self,
        kernel: Kernel,
        stream: Stream,
        count: u64,
        arguments: &mut [*mut std::ffi::c_void],
    ) -> Result<(), CudaError> {
        let blocks = u32::try_from(count.div_ceil(u64::from(BLOCK)))
            .map_err(|_| CudaError::new(Kind::Argument, "tensor", "fewer values", count))?;
        // SAFETY: the caller's promise.
        unsafe { self.kernels.launch(kernel, &*self.stream(stream)?, [blocks, 1], BLOCK, arguments) }
    }
}

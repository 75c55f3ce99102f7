//! Pictures on the device, and their way into a model.

mod colour;
mod plan;

use std::{collections::BTreeMap, sync::Arc};

use cudarc::driver::{CudaEvent, result, sys};
use sightline_core::{ColorMatrix, ColorRange, DType, ImageSpec, Picture, PixelFormat, Shape};
use sightline_engine_api::{DeviceBuffer, DevicePicture, DevicePlane, DeviceTensor, Stream};

use crate::{
    CudaDevice, CudaError, Kind,
    device::lock,
    error::During,
    kernels::{Kernel, arguments},
    lent::Lent,
    memory::{Block, Pinned, Region, is_ours},
};
pub(crate) use colour::{PictureParameter, fixed_point};
use plan::Plan;

/// Threads a block, along a row.
const BLOCK: u32 = 128;
/// What the launch's second dimension can count.
const MOST_ROWS: usize = 65_535;
/// Sizes of pictures whose tables are kept.
const PLANS: usize = 16;

/// The picture as kernels take it. Tiled planes have no rows.
pub(crate) fn parameter(picture: &DevicePicture) -> Result<PictureParameter, CudaError> {
    let mut planes = [(0, 0); 3];
    for (to, (plane, (left, top))) in planes.iter_mut().zip(picture.planes()) {
        let DevicePlane::Rows { offset_bytes, stride_bytes } = plane else {
            return Err(CudaError::new(Kind::Argument, "picture", "planes in rows", "a tiled one"));
        };
        let offset = offset_bytes + top * stride_bytes + left;
        *to = (picture.buffer().address() + offset as u64, stride_bytes as i32);
    }
    let (width, height) = picture.size_px();
    let colour = fixed_point(picture.matrix(), picture.range());
    Ok(PictureParameter::new(planes, picture.format(), (width as i32, height as i32), colour))
}

pub(crate) fn check_place(picture: &DevicePicture, device: &CudaDevice) -> Result<(), CudaError> {
    let (expected, got) = (device.place(), picture.device());
    if expected != got {
        return Err(CudaError::new(Kind::Argument, "picture", format_args!("one on {expected}"), got));
    }
    let (buffer, lent) = (picture.buffer(), Lent::of(&**picture.buffer()));
    let known = |array| lent.is_some_and(|lent| lent.has(array));
    let tiled = |(plane, _)| matches!(plane, DevicePlane::Tiled { handle } if !known(handle));
    if lent.is_none() && !is_ours(&**buffer) || picture.planes().any(tiled) {
        let expected = format!("memory that {expected} has made or was lent");
        return Err(CudaError::new(Kind::Argument, "picture", expected, format_args!("{buffer:?}")));
    }
    Ok(())
}

/// Rows without padding, plane after plane: where each plane starts and the bytes of its row, and how many bytes it is.
fn packed(format: PixelFormat, (width_px, height_px): (u32, u32)) -> ([(usize, usize); 3], usize) {
    let (mut planes, mut end) = ([(0, 0); 3], 0);
    for (index, plane) in planes.iter_mut().enumerate().take(format.planes()) {
        let (row, rows) = format.plane_extent(index, width_px, height_px);
        *plane = (end, row);
        end += row * rows;
    }
    (planes, end)
}

/// A picture in memory of ours that is laid out as [`packed`] says.
fn on_device(
    raw: Arc<Region>,
    format: PixelFormat,
    size_px: (u32, u32),
    planes: [(usize, usize); 3],
    (matrix, range): (ColorMatrix, ColorRange),
) -> Result<DevicePicture, CudaError> {
    let planes = planes.map(|(offset_bytes, stride_bytes)| DevicePlane::Rows { offset_bytes, stride_bytes });
    let picture = DevicePicture::new(raw, format, size_px, &planes)
        .map_err(|error| CudaError::new(Kind::Argument, "picture", "one that fits its memory", error))?;
    Ok(picture.with_color(matrix, range))
}

/// What the device keeps for pictures: memory a stream, tables a size. It grows with the first picture of a size.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    /// Work of one stream is done in order, so it may share.
    scratch: BTreeMap<Stream, Scratch>,
    /// Last used last.
    plans: Vec<Plan>,
    /// Behind what a producer was given; waited for as soon as it is set.
    written: Option<CudaEvent>,
}

#[derive(Debug, Default)]
struct Scratch {
    /// The picture as it came.
    raw: Option<Arc<Region>>,
    /// `[picture height, model width]`, 4 bytes a pixel.
    narrowed: Option<Arc<Region>>,
}

impl CudaDevice {
    /// A picture from system memory to the device; the picture has been read when the call returns. The memory is the
    /// stream's own: the next picture given to the same stream replaces this one, after all work given before it. Who
    /// shares a stream calls [`DeviceOps::preprocess`](sightline_engine_api::DeviceOps::preprocess) instead.
    ///
    /// # Errors
    /// `Kind::Argument` for a side above 65535, `Kind::Memory`, `Kind::Driver`.
    pub fn upload_picture(&self, stream: Stream, picture: &Picture<'_>) -> Result<DevicePicture, CudaError> {
        let pinned = self.stage(picture)?;
        self.send_picture(&mut lock(&self.pictures), stream, picture, pinned)
    }

    /// A picture on the device to `[1,3,height,width]`, f32 or f16, R G B planes, `(v / 255 - mean) / std`, stretched to
    /// the model's size. What [`reference::preprocess`](crate::reference::preprocess) gives, to the bit.
    ///
    /// # Errors
    /// `Kind::Argument` for a tensor of another shape or type; `Kind::Memory`, `Kind::Driver`.
    pub fn preprocess_picture(
        &self,
        stream: Stream,
        picture: &DevicePicture,
        spec: &ImageSpec,
        to: &DeviceTensor,
    ) -> Result<(), CudaError> {
        check_place(picture, self)?;
        let done = self.read_in_place(&mut lock(&self.pictures), stream, picture, spec, to);
        // Part of it may have been given.
        let held = self.guests.hold(&*self.stream(stream)?, picture.buffer());
        done.and(held)
    }

    fn read_in_place(
        &self,
        pictures: &mut Pictures,
        stream: Stream,
        picture: &DevicePicture,
        spec: &ImageSpec,
        to: &DeviceTensor,
    ) -> Result<(), CudaError> {
        if let Some(writer) = picture.buffer().writer() {
            self.after(pictures, writer, stream)?;
        }
        if picture.planes().all(|(plane, _)| matches!(plane, DevicePlane::Rows { .. })) {
            return self.resample(pictures, stream, picture, spec, to);
        }
        let rows = self.in_rows(pictures, stream, picture)?;
        self.resample(pictures, stream, &rows, spec, to)
    }

    /// Orders a stream behind all that was given to one that is not in our table.
    fn after(&self, pictures: &mut Pictures, writer: u64, stream: Stream) -> Result<(), CudaError> {
        let on = self.stream(stream)?;
        self.context.bind_to_thread().during("cuCtxSetCurrent")?;
        if pictures.written.is_none() {
            pictures.written = Some(self.context.new_event(None).during("cuEventCreate")?);
        }
        let Some(event) = pictures.written.as_ref().map(CudaEvent::cu_event) else { return Ok(()) };
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: only a `Lent` has a writer here, and its maker promises that this is a stream of this device's primary
        // context, which is ours, for as long as the buffer lives, which the caller holds; the event is ours.
        unsafe { result::event::record(event, writer as usize as sys::CUstream) }.during("cuEventRecord")?;
        // SAFETY: both are ours. The wait is for the event as it was just recorded, whatever becomes of it later.
        unsafe { result::stream::wait_event(on.cu_stream(), event, flags) }.during("cuStreamWaitEvent")
    }

    /// A copy of a picture with tiled planes, in the stream's own memory, rows packed.
    fn in_rows(
        &self,
        pictures: &mut Pictures,
        stream: Stream,
        picture: &DevicePicture,
    ) -> Result<DevicePicture, CudaError> {
        let (planes, bytes) = packed(picture.format(), picture.size_px());
        let raw = self.grown(&mut pictures.scratch.entry(stream).or_default().raw, bytes)?;
        let on = self.stream(stream)?;
        self.context.bind_to_thread().during("cuCtxSetCurrent")?;
        for (index, (plane, (left, top))) in picture.planes().enumerate() {
            let (width, height) = picture.size_px();
            let (row, rows) = picture.format().plane_extent(index, width, height);
            let mut copy = sys::CUDA_MEMCPY2D {
                srcXInBytes: left,
                srcY: top,
                srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
                srcHost: std::ptr::null(),
                srcDevice: 0,
                srcArray: std::ptr::null_mut(),
                srcPitch: 0,
                dstXInBytes: 0,
                dstY: 0,
                dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
                dstHost: std::ptr::null_mut(),
                dstDevice: raw.address() + planes[index].0 as u64,
                dstArray: std::ptr::null_mut(),
                dstPitch: row,
                WidthInBytes: row,
                Height: rows,
            };
            match plane {
                DevicePlane::Rows { offset_bytes, stride_bytes } => {
                    copy.srcDevice = picture.buffer().address() + offset_bytes as u64;
                    copy.srcPitch = stride_bytes;
                }
                DevicePlane::Tiled { handle } => {
                    copy.srcMemoryType = sys::CUmemorytype::CU_MEMORYTYPE_ARRAY;
                    copy.srcArray = std::ptr::with_exposed_provenance_mut(handle as usize);
                }
            }
            // SAFETY: rows were checked against their buffer; an array is one of those that the buffer's maker promises
            // (`check_place`), and the driver refuses what reaches past it; both live as long as the buffer, which `guests`
            // holds. `raw` has room for what `packed` says, and freeing it waits for the device.
            unsafe { sys::cuMemcpy2DAsync_v2(&copy, on.cu_stream()) }.result().during("cuMemcpy2DAsync")?;
        }
        on_device(raw, picture.format(), picture.size_px(), planes, (picture.matrix(), picture.range()))
    }

    /// Both. Nobody's picture comes between the two.
    pub(crate) fn upload_and_preprocess(
        &self,
        stream: Stream,
        picture: &Picture<'_>,
        spec: &ImageSpec,
        to: &DeviceTensor,
    ) -> Result<(), CudaError> {
        let pinned = self.stage(picture)?;
        let mut pictures = lock(&self.pictures);
        let picture = self.send_picture(&mut pictures, stream, picture, pinned)?;
        self.resample(&mut pictures, stream, &picture, spec, to)
    }

    /// Reads a picture into pinned memory, rows without padding.
    fn stage(&self, picture: &Picture<'_>) -> Result<Pinned, CudaError> {
        let (planes, bytes) = packed(picture.format(), (picture.width_px(), picture.height_px()));
        let mut pinned = self.staging.take(&self.context, bytes)?;
        let host = pinned.bytes()?;
        for (index, (start, row)) in planes.into_iter().enumerate().take(picture.format().planes()) {
            let (_, rows) = picture.format().plane_extent(index, picture.width_px(), picture.height_px());
            let (plane, to) = (picture.planes()[index], &mut host[start..start + row * rows]);
            if plane.stride_bytes == row {
                to.copy_from_slice(&plane.data[..row * rows]);
            } else {
                let lines = to.chunks_exact_mut(row).zip(plane.data.chunks(plane.stride_bytes));
                lines.for_each(|(to, from)| to.copy_from_slice(&from[..row]));
            }
        }
        Ok(pinned)
    }

    fn send_picture(
        &self,
        pictures: &mut Pictures,
        stream: Stream,
        picture: &Picture<'_>,
        mut pinned: Pinned,
    ) -> Result<DevicePicture, CudaError> {
        let size_px = (picture.width_px(), picture.height_px());
        let (planes, bytes) = packed(picture.format(), size_px);
        let raw = self.grown(&mut pictures.scratch.entry(stream).or_default().raw, bytes)?;
        let colour = (picture.matrix(), picture.range());
        let there = on_device(raw.clone(), picture.format(), size_px, planes, colour)?;
        pinned.send(&*self.stream(stream)?, &[(0, raw.address(), bytes)])?;
        self.staging.put(pinned);
        Ok(there)
    }

    fn resample(
        &self,
        pictures: &mut Pictures,
        stream: Stream,
        picture: &DevicePicture,
        spec: &ImageSpec,
        to: &DeviceTensor,
    ) -> Result<(), CudaError> {
        check_place(picture, self)?;
        let (width, height) = (spec.width_px, spec.height_px);
        let fits = Shape::new(&[1, 3, height, width]).is_ok_and(|shape| shape == to.shape);
        let half = to.dtype == DType::F16;
        if !fits || width == 0 || !(1..=MOST_ROWS).contains(&height) {
            let expected = format!("[1,3,{height},{width}], at least 1x1");
            return Err(CudaError::new(Kind::Argument, "preprocessed picture", expected, to.shape));
        }
        let dtype = if half { DType::F16 } else { DType::F32 };
        let to = self.address("preprocessed picture", to, dtype)?;
        let on = self.stream(stream)?;
        let (picture_width, picture_height) = picture.size_px();
        let bytes = picture_height as usize * width * 4;
        let narrowed = self.grown(&mut pictures.scratch.entry(stream).or_default().narrowed, bytes)?;
        let from = (picture_width as usize, picture_height as usize);
        let plan = match pictures.plans.iter().position(|plan| plan.is_for(spec, from)) {
            Some(at) => {
                let plan = pictures.plans.remove(at);
                pictures.plans.push(plan);
                pictures.plans.last()
            }
            None => {
                if pictures.plans.len() == PLANS {
                    pictures.plans.remove(0);
                }
                pictures.plans.push(Plan::new(self, spec, from)?);
                pictures.plans.last()
            }
        };
        let Some(plan) = plan else { return Ok(()) };
        let parameter = parameter(picture)?;
        let narrowed = narrowed.address();
        let (columns, rows) = (plan.columns(), plan.rows());
        let (width, height) = (width as i32, height as i32);
        let across = (width as u32).div_ceil(BLOCK);
        let arguments =
            arguments![parameter, columns.starts, columns.counts, columns.weights, width, narrowed];
        // SAFETY: (Picture, int*, int*, float*, int, u32*). The planes were checked against their buffer, the tables are
        // those of this picture's width and the model's, `narrowed` has 4 bytes for each of picture height x width.
        // All of it is freed only once the device is idle.
        unsafe {
            self.kernels.launch(Kernel::PictureNarrow, &on, [across, picture_height], BLOCK, arguments)?;
        }
        let (kernel, levels) = if half {
            (Kernel::PictureShortenF16, plan.half_levels())
        } else {
            (Kernel::PictureShortenF32, plan.levels())
        };
        let arguments =
            arguments![narrowed, rows.starts, rows.counts, rows.weights, width, height, levels, to];
        // SAFETY: (u32*, int*, int*, float*, int, int, levels*, values*). The rows' tables are those of the picture's
        // height and the model's, `levels` has 768 of the type of `to`, which has 3 x height x width.
        unsafe { self.kernels.launch(kernel, &on, [across, height as u32], BLOCK, arguments) }
    }

    /// The region, or a larger one in its place.
    fn grown(&self, region: &mut Option<Arc<Region>>, bytes: usize) -> Result<Arc<Region>, CudaError> {
        if let Some(region) = region.as_ref().filter(|region| region.len_bytes() >= bytes) {
            return Ok(region.clone());
        }
        // First let go, then allocate: the two need not be there at once.
        *region = None;
        let made = Arc::new(Block::new(&self.context, bytes)?.region(0, bytes)?);
        *region = Some(made.clone());
        Ok(made)
    }
}

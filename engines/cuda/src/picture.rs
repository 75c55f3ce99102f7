//! Pictures on the device, and their way into a model.

mod colour;
mod plan;

use std::{collections::BTreeMap, sync::Arc};

use sightline_core::{ColorMatrix, ColorRange, DType, ImageSpec, Picture, PixelFormat, Shape};
use sightline_engine_api::{DeviceBuffer, DeviceTensor, Stream};

use crate::{
    CudaDevice, CudaError, Kind,
    device::lock,
    kernels::{Kernel, arguments},
    memory::{Block, Pinned, Region},
};
pub(crate) use colour::{PictureParameter, fixed_point};
use plan::Plan;

/// Threads a block, along a row.
const BLOCK: u32 = 128;
/// What the launch's second dimension can count.
const MOST_ROWS: usize = 65_535;
/// Sizes of pictures whose tables are kept.
const PLANS: usize = 16;

/// A picture whose bytes lie on the device. The planes may lie anywhere in the buffer, padded rows and all.
#[derive(Debug, Clone)]
pub struct DevicePicture {
    buffer: Arc<dyn DeviceBuffer>,
    format: PixelFormat,
    width_px: u32,
    height_px: u32,
    matrix: ColorMatrix,
    range: ColorRange,
    /// Offset of each plane and the distance between its rows, both in bytes.
    planes: [(usize, usize); 3],
}

impl DevicePicture {
    /// Checks that the buffer holds what the format and size say; `planes` are offset and stride of each.
    ///
    /// # Errors
    /// `Kind::Argument` when a side is 0 or above 65535, a plane is missing, a stride too short or a plane hangs over.
    pub fn new(
        buffer: Arc<dyn DeviceBuffer>,
        format: PixelFormat,
        width_px: u32,
        height_px: u32,
        planes: &[(usize, usize)],
    ) -> Result<Self, CudaError> {
        let subject = format!("{format:?} picture {width_px}x{height_px} on {}", buffer.device());
        let refuse =
            |expected: &str, got: String| Err(CudaError::new(Kind::Argument, &subject, expected, got));
        let sides = 1..=MOST_ROWS as u32;
        if !sides.contains(&width_px) || !sides.contains(&height_px) {
            return refuse("sides of 1 to 65535", "another size".into());
        }
        if planes.len() < format.planes() {
            return refuse("more planes", planes.len().to_string());
        }
        let mut kept = [(0, 0); 3];
        for (index, (offset, stride)) in planes.iter().copied().enumerate().take(format.planes()) {
            let (row, rows) = format.plane_extent(index, width_px, height_px);
            let end =
                stride.checked_mul(rows - 1).and_then(|rows| rows.checked_add(row)?.checked_add(offset));
            if stride < row || stride > i32::MAX as usize || end.is_none_or(|end| end > buffer.len_bytes()) {
                let got =
                    format!("plane {index} at {offset}, stride {stride}, of {} bytes", buffer.len_bytes());
                return refuse("planes within its buffer", got);
            }
            kept[index] = (offset, stride);
        }
        let (matrix, range) = Default::default();
        Ok(Self { buffer, format, width_px, height_px, matrix, range, planes: kept })
    }

    /// The same picture with its colour encoding stated (YUV formats only look at it).
    #[must_use]
    pub fn with_color(mut self, matrix: ColorMatrix, range: ColorRange) -> Self {
        (self.matrix, self.range) = (matrix, range);
        self
    }

    /// Pixel layout.
    pub fn format(&self) -> PixelFormat {
        self.format
    }
    /// Width and height in pixels.
    pub fn size_px(&self) -> (u32, u32) {
        (self.width_px, self.height_px)
    }

    pub(crate) fn parameter(&self) -> PictureParameter {
        let planes =
            self.planes.map(|(offset, stride)| (self.buffer.address() + offset as u64, stride as i32));
        PictureParameter::new(
            planes,
            self.format,
            (self.width_px as i32, self.height_px as i32),
            fixed_point(self.matrix, self.range),
        )
    }

    pub(crate) fn check_place(&self, device: &CudaDevice) -> Result<(), CudaError> {
        let (expected, got) = (device.place(), self.buffer.device());
        if expected == got {
            return Ok(());
        }
        Err(CudaError::new(Kind::Argument, "picture", format_args!("one on {expected}"), got))
    }
}

/// Rows without padding, plane after plane: where each plane starts and the bytes of its row, and how many bytes it is.
fn packed(picture: &Picture<'_>) -> ([(usize, usize); 3], usize) {
    let (mut planes, mut end) = ([(0, 0); 3], 0);
    for (index, plane) in planes.iter_mut().enumerate().take(picture.format().planes()) {
        let (row, rows) = picture.format().plane_extent(index, picture.width_px(), picture.height_px());
        *plane = (end, row);
        end += row * rows;
    }
    (planes, end)
}

/// What the device keeps for pictures: memory a stream, tables a size. It grows with the first picture of a size.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    /// Work of one stream is done in order, so it may share.
    scratch: BTreeMap<Stream, Scratch>,
    /// Last used last.
    plans: Vec<Plan>,
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
        self.resample(&mut lock(&self.pictures), stream, picture, spec, to)
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
        let (planes, bytes) = packed(picture);
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
        let (planes, bytes) = packed(picture);
        let raw = self.grown(&mut pictures.scratch.entry(stream).or_default().raw, bytes)?;
        let planes = &planes[..picture.format().planes()];
        let (width, height) = (picture.width_px(), picture.height_px());
        let on_device = DevicePicture::new(raw.clone(), picture.format(), width, height, planes)?;
        pinned.send(&*self.stream(stream)?, &[(0, raw.address(), bytes)])?;
        self.staging.put(pinned);
        Ok(on_device.with_color(picture.matrix(), picture.range()))
    }

    fn resample(
        &self,
        pictures: &mut Pictures,
        stream: Stream,
        picture: &DevicePicture,
        spec: &ImageSpec,
        to: &DeviceTensor,
    ) -> Result<(), CudaError> {
        picture.check_place(self)?;
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
        let parameter = picture.parameter();
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

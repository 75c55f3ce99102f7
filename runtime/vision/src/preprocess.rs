use std::fmt;

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x4;
use fast_image_resize::{FilterType, ImageView, ResizeAlg, ResizeOptions, Resizer};
use sightline_core::{
    ColorMatrix, ColorRange, Filter, ImageSpec, Kind, Picture, PixelFormat, Plane, ValueError,
};
use yuv::{YuvBiPlanarImage, YuvConversionMode, YuvError, YuvPlanarImage, YuvRange, YuvStandardMatrix};

/// Turns a camera's picture into the tensor a model takes. Owns its scratch: keep one per stream.
///
/// Work is done as Pillow does it, on 8 bit RGB: colour conversion at the picture's size (13 bit fixed point,
/// chroma repeated, not interpolated; luma below
/// black may count as black), a horizontal pass rounded to 8 bits, a vertical pass rounded to 8 bits,
/// then `(v / 255 - mean) / std` in f32. Against Pillow's `resize` the result is off by one level of 255 at most,
/// save for a handful of pixels in a million of white noise which are off by two (fixed point weights have
/// 15 bits in `fast_image_resize` and 22 in Pillow).
///
/// The published SAM 2 predictors resize JPEGs with Pillow (bicubic) and videos with decord (swscale, bilinear); with
/// `Filter::Bicubic` a video's pictures are closer to what both approximate, and to either, than those two are to each
/// other. The figures are in this room's README.
///
/// The pixel buffers are allocated by the first picture of a size. `fast_image_resize` computes its weights
/// anew on every call, in small allocations of its own.
#[derive(Debug)]
pub struct Preprocessor {
    spec: ImageSpec,
    resizer: Resizer,
    options: ResizeOptions,
    scratch: Scratch,
    /// A picture whose rows could not be taken where they are, 4 bytes a pixel, no padding.
    repacked: Vec<u8>,
    /// `[picture height, model width]`, 4 bytes a pixel.
    narrowed: Vec<u8>,
    /// `[model height, model width]`, 4 bytes a pixel.
    resized: Vec<u8>,
}

#[derive(Debug, Default)]
struct Scratch {
    /// The whole picture, 4 bytes a pixel, no padding.
    rgbx: Vec<u8>,
    luma: Vec<u8>,
    chroma: Vec<u8>,
}

/// Packed pixels: where they are and where in a pixel R, G and B are.
#[derive(Clone, Copy)]
struct Packed<'a> {
    data: &'a [u8],
    stride_bytes: usize,
    width: usize,
    height: usize,
    order: [usize; 3],
}

impl Preprocessor {
    /// Prepares for a model's input.
    pub fn new(spec: &ImageSpec) -> Self {
        let filter = match spec.filter {
            Filter::Bicubic => FilterType::CatmullRom,
            Filter::Bilinear => FilterType::Bilinear,
        };
        Self {
            spec: spec.clone(),
            resizer: Resizer::new(),
            options: ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false),
            scratch: Scratch::default(),
            repacked: Vec::new(),
            narrowed: Vec::new(),
            resized: Vec::new(),
        }
    }

    /// Writes `[3, height, width]` f32, R G B planes, `(v / 255 - mean) / std`.
    ///
    /// The picture is stretched to the model's size. One that has this size already is not resampled.
    ///
    /// # Errors
    /// `Kind::Size` when `out` does not hold exactly `3 * height * width` values.
    pub fn run(&mut self, picture: &Picture<'_>, out: &mut [f32]) -> Result<(), ValueError> {
        let (model_width, model_height) = (self.spec.width_px, self.spec.height_px);
        let expected = 3 * model_width * model_height;
        if out.len() != expected {
            return Err(ValueError::new(
                Kind::Size,
                "preprocessed picture",
                format_args!("{expected} values for [3,{model_height},{model_width}]"),
                out.len(),
            ));
        }
        if expected == 0 {
            return Ok(());
        }
        let (width, height) = (picture.width_px() as usize, picture.height_px() as usize);
        let same_size = (width, height) == (model_width, model_height);
        let plane = picture.planes()[0];
        let direct =
            |order| Packed { data: plane.data, stride_bytes: plane.stride_bytes, width, height, order };
        let packed = match picture.format() {
            PixelFormat::Rgb if same_size => {
                write_planes::<3>(&self.spec, direct([0, 1, 2]), out);
                return Ok(());
            }
            PixelFormat::Bgr if same_size => {
                write_planes::<3>(&self.spec, direct([2, 1, 0]), out);
                return Ok(());
            }
            PixelFormat::Rgb | PixelFormat::Bgr => expand(picture, &mut self.scratch.rgbx),
            PixelFormat::Rgbx | PixelFormat::Rgba => direct([0, 1, 2]),
            PixelFormat::Bgrx | PixelFormat::Bgra => direct([2, 1, 0]),
            PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Yuy2 => {
                rgbx_from_yuv(picture, &mut self.scratch)
                    .map_err(|error| refused("colour conversion", picture, &error))?;
                tight(&self.scratch.rgbx, width, height)
            }
        };
        if same_size {
            write_planes::<4>(&self.spec, packed, out);
            return Ok(());
        }

        // fast_image_resize 6 would go down the columns first; Pillow goes along the rows first, and where
        // the filter overshoots the two differ by 20 levels. Two calls, one a direction, keep Pillow's order.
        let packed = if packed.stride_bytes % 4 == 0 && packed.data.len() >= packed.stride_bytes * height {
            packed
        } else {
            let rgbx = grown(&mut self.repacked, width * height * 4);
            for (to, from) in rgbx.chunks_exact_mut(width * 4).zip(packed.data.chunks(packed.stride_bytes)) {
                to.copy_from_slice(&from[..width * 4]);
            }
            Packed { order: packed.order, ..tight(rgbx, width, height) }
        };
        let narrowed = if width == model_width {
            packed
        } else {
            let to = grown(&mut self.narrowed, model_width * height * 4);
            pass(&mut self.resizer, &self.options, packed, to, model_width, height)
                .map_err(|error| refused("horizontal pass", picture, &*error))?;
            Packed { order: packed.order, ..tight(to, model_width, height) }
        };
        let resized = if height == model_height {
            narrowed
        } else {
            let to = grown(&mut self.resized, model_width * model_height * 4);
            pass(&mut self.resizer, &self.options, narrowed, to, model_width, model_height)
                .map_err(|error| refused("vertical pass", picture, &*error))?;
            Packed { order: packed.order, ..tight(to, model_width, model_height) }
        };
        write_planes::<4>(&self.spec, resized, out);
        Ok(())
    }
}

fn refused(what: &str, picture: &Picture<'_>, error: &dyn fmt::Display) -> ValueError {
    ValueError::new(
        Kind::Size,
        what,
        "a picture its library takes",
        format_args!("{:?} {}x{}: {error}", picture.format(), picture.width_px(), picture.height_px()),
    )
}

/// The first `len` bytes of a buffer that grows but never shrinks.
fn grown(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}

fn tight(data: &[u8], width: usize, height: usize) -> Packed<'_> {
    Packed { data, stride_bytes: width * 4, width, height, order: [0, 1, 2] }
}

/// 24 bit pixels to 32 bit ones: resampling four bytes at a time is faster by more than this costs.
fn expand<'a>(picture: &Picture<'_>, rgbx: &'a mut Vec<u8>) -> Packed<'a> {
    let (width, height) = (picture.width_px() as usize, picture.height_px() as usize);
    let plane = picture.planes()[0];
    let rgbx = grown(rgbx, width * height * 4);
    for (to, from) in rgbx.chunks_exact_mut(width * 4).zip(plane.data.chunks(plane.stride_bytes)) {
        for (to, from) in to.as_chunks_mut::<4>().0.iter_mut().zip(from[..width * 3].as_chunks::<3>().0) {
            *to = [from[0], from[1], from[2], 0];
        }
    }
    let order = if picture.format() == PixelFormat::Bgr { [2, 1, 0] } else { [0, 1, 2] };
    Packed { order, ..tight(rgbx, width, height) }
}

fn rgbx_from_yuv(picture: &Picture<'_>, scratch: &mut Scratch) -> Result<(), YuvError> {
    let (width, height) = (picture.width_px() as usize, picture.height_px() as usize);
    let Scratch { rgbx, luma, chroma } = scratch;
    let rgbx = grown(rgbx, width * height * 4);
    let planes = picture.planes();
    if picture.format() == PixelFormat::Yuy2 {
        // The crate's own YUY2 conversion has 6 bits of precision; split the planes and
        // take the 13 bit one.
        let row = width.div_ceil(2) * 2;
        let (luma, chroma) = (grown(luma, row * height), grown(chroma, row * height));
        let rows = luma.chunks_exact_mut(row).zip(chroma.chunks_exact_mut(row));
        for ((luma, chroma), from) in rows.zip(planes[0].data.chunks(planes[0].stride_bytes)) {
            let to = luma.as_chunks_mut::<2>().0.iter_mut().zip(chroma.as_chunks_mut::<2>().0);
            for ((luma, chroma), from) in to.zip(from.as_chunks::<4>().0) {
                *luma = [from[0], from[2]];
                *chroma = [from[1], from[3]];
            }
        }
        let [luma, chroma] = [&*luma, &*chroma].map(|data| Plane { data, stride_bytes: row });
        return convert(picture, &[luma, chroma], height, rgbx);
    }
    // The crate reads planes in whole strides: it drops a last row that lacks its padding, and at an odd height
    // takes the last row of the plane for that of the picture. So it gets exactly the rows up to the last chroma
    // row, and the one or two rows of that one from a copy without padding.
    let bulk = (height - 1) / 2 * 2;
    let rows = |plane: usize, rows: usize| if plane == 0 { rows } else { rows.div_ceil(2) };
    if bulk > 0 {
        let mut whole = [Plane::default(); 3];
        for (index, (to, plane)) in whole.iter_mut().zip(planes).enumerate() {
            *to = Plane { data: &plane.data[..rows(index, bulk) * plane.stride_bytes], ..*plane };
        }
        convert(picture, &whole, bulk, &mut rgbx[..bulk * width * 4])?;
    }
    luma.clear();
    let mut starts = [0; 4];
    for (index, plane) in planes.iter().enumerate() {
        let (row, _) = picture.format().plane_extent(index, picture.width_px(), picture.height_px());
        for y in rows(index, bulk)..rows(index, height) {
            luma.extend_from_slice(&plane.data[y * plane.stride_bytes..][..row]);
        }
        starts[index + 1] = luma.len();
    }
    let mut last = [Plane::default(); 3];
    for (index, to) in last.iter_mut().enumerate().take(planes.len()) {
        let (stride_bytes, _) = picture.format().plane_extent(index, picture.width_px(), picture.height_px());
        *to = Plane { data: &luma[starts[index]..starts[index + 1]], stride_bytes };
    }
    convert(picture, &last, height - bulk, &mut rgbx[bulk * width * 4..])
}

/// Converts `rows` rows whose planes hold exactly that: Y U V, Y UV at half height, or (of YUY2) Y UV at full
/// height.
fn convert(
    picture: &Picture<'_>,
    planes: &[Plane<'_>],
    rows: usize,
    rgbx: &mut [u8],
) -> Result<(), YuvError> {
    let (width, height) = (picture.width_px(), rows as u32);
    let range = match picture.range() {
        ColorRange::Limited => YuvRange::Limited,
        ColorRange::Full => YuvRange::Full,
    };
    let matrix = match picture.matrix() {
        ColorMatrix::Bt601 => YuvStandardMatrix::Bt601,
        ColorMatrix::Bt709 => YuvStandardMatrix::Bt709,
        ColorMatrix::Bt2020 => YuvStandardMatrix::Bt2020,
    };
    let mode = YuvConversionMode::Balanced;
    let (y, second) = (planes[0], planes[1]);
    if picture.format() == PixelFormat::I420 {
        let image = YuvPlanarImage {
            y_plane: y.data,
            y_stride: y.stride_bytes as u32,
            u_plane: second.data,
            u_stride: second.stride_bytes as u32,
            v_plane: planes[2].data,
            v_stride: planes[2].stride_bytes as u32,
            width,
            height,
        };
        return yuv::yuv420_to_rgba(&image, rgbx, width * 4, range, matrix);
    }
    let image = YuvBiPlanarImage {
        y_plane: y.data,
        y_stride: y.stride_bytes as u32,
        uv_plane: second.data,
        uv_stride: second.stride_bytes as u32,
        width,
        height,
    };
    if picture.format() == PixelFormat::Yuy2 {
        yuv::yuv_nv16_to_rgba(&image, rgbx, width * 4, range, matrix, mode)
    } else {
        yuv::yuv_nv12_to_rgba(&image, rgbx, width * 4, range, matrix, mode)
    }
}

/// Resamples along one direction.
fn pass(
    resizer: &mut Resizer,
    options: &ResizeOptions,
    from: Packed<'_>,
    to: &mut [u8],
    width: usize,
    height: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let padded = TypedImageRef::<U8x4>::from_buffer(
        (from.stride_bytes / 4) as u32,
        from.height as u32,
        &from.data[..from.stride_bytes * from.height],
    )?;
    let from = TypedCroppedImage::from_ref(&padded, 0, 0, from.width as u32, from.height as u32)?;
    debug_assert!(width as u32 == from.width() || height as u32 == from.height());
    let mut to = TypedImage::<U8x4>::from_buffer(width as u32, height as u32, to)?;
    Ok(resizer.resize_typed(&from, &mut to, options)?)
}

/// Packed pixels to three planes. A product and a sum take a quarter of the time of two quotients.
fn write_planes<const N: usize>(spec: &ImageSpec, from: Packed<'_>, out: &mut [f32]) {
    let (pixels_per_plane, normalisation) = (from.width * from.height, spec.normalisation());
    for (y, row) in from.data.chunks(from.stride_bytes).take(from.height).enumerate() {
        let pixels = row[..from.width * N].as_chunks::<N>().0;
        for (channel, byte) in from.order.into_iter().enumerate() {
            let (factor, offset) = normalisation[channel];
            let to = &mut out[channel * pixels_per_plane + y * from.width..][..from.width];
            for (value, pixel) in to.iter_mut().zip(pixels) {
                *value = level(pixel, byte) as f32 * factor + offset;
            }
        }
    }
}

/// The byte at an offset of a pixel. Four bytes are taken as one word, which vectors can shift.
fn level<const N: usize>(pixel: &[u8; N], offset: usize) -> i32 {
    match pixel.first_chunk::<4>() {
        Some(word) => (u32::from_le_bytes(*word) >> (8 * offset) & 255) as i32,
        None => i32::from(pixel[offset]),
    }
}

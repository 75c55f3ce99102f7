use sightline_core::{ColorMatrix, ColorRange, PixelFormat};

/// How YUV becomes RGB in 13 bit fixed point: `black`, then what luma, V in red, U and V in green, U in blue count.
pub(crate) type FixedPoint = [i32; 6];

/// ITU-T H.273, non-constant luminance.
pub(crate) fn fixed_point(matrix: ColorMatrix, range: ColorRange) -> FixedPoint {
    let (red, blue) = match matrix {
        ColorMatrix::Bt601 => (0.299, 0.114),
        ColorMatrix::Bt709 => (0.2126, 0.0722),
        ColorMatrix::Bt2020 => (0.2627, 0.0593),
    };
    let (black, luma_span, chroma_span) = match range {
        ColorRange::Limited => (16, 219.0, 224.0),
        ColorRange::Full => (0, 255.0, 255.0),
    };
    let green: f64 = 1.0 - red - blue;
    let chroma = 255.0 / chroma_span;
    let fixed = |value: f64| (value * 8192.0).round() as i32;
    [
        black,
        fixed(255.0 / luma_span),
        fixed(2.0 * (1.0 - red) * chroma),
        fixed(2.0 * (1.0 - blue) * blue / green * chroma),
        fixed(2.0 * (1.0 - red) * red / green * chroma),
        fixed(2.0 * (1.0 - blue) * chroma),
    ]
}

/// `Picture` of `common.cuh`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct PictureParameter {
    plane: [u64; 3],
    stride_bytes: [i32; 3],
    format: i32,
    width: i32,
    height: i32,
    colour: FixedPoint,
}

// The kernels' own size, as the compiler of either side lays it out.
const _: () = assert!(size_of::<PictureParameter>() == 72);

impl PictureParameter {
    /// `planes` are addresses and strides.
    pub(crate) fn new(
        planes: [(u64, i32); 3],
        format: PixelFormat,
        (width, height): (i32, i32),
        colour: FixedPoint,
    ) -> Self {
        // The order of `Format` in common.cuh.
        let format = match format {
            PixelFormat::Nv12 => 0,
            PixelFormat::I420 => 1,
            PixelFormat::Yuy2 => 2,
            PixelFormat::Rgb => 3,
            PixelFormat::Bgr => 4,
            PixelFormat::Rgbx => 5,
            PixelFormat::Bgrx => 6,
            PixelFormat::Rgba => 7,
            PixelFormat::Bgra => 8,
        };
        let (plane, stride_bytes) = (planes.map(|plane| plane.0), planes.map(|plane| plane.1));
        Self { plane, stride_bytes, format, width, height, colour }
    }
}

use crate::{Kind, ValueError};

/// Pixel layouts that cameras and decoders deliver, named as GStreamer names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// 4:2:0, plane Y then interleaved UV.
    Nv12,
    /// 4:2:0, planes Y, U, V.
    I420,
    /// 4:2:2 packed, Y0 U Y1 V.
    Yuy2,
    /// Packed 24 bit.
    Rgb,
    /// Packed 24 bit.
    Bgr,
    /// Packed 32 bit, last byte ignored.
    Rgbx,
    /// Packed 32 bit, last byte ignored.
    Bgrx,
    /// Packed 32 bit; alpha is not looked at.
    Rgba,
    /// Packed 32 bit; alpha is not looked at.
    Bgra,
}

impl PixelFormat {
    /// Every format, in the order we would rather be given them (fewest bytes first).
    pub const ALL: [Self; 9] = [
        Self::Nv12,
        Self::I420,
        Self::Yuy2,
        Self::Rgb,
        Self::Bgr,
        Self::Rgbx,
        Self::Bgrx,
        Self::Rgba,
        Self::Bgra,
    ];

    /// Number of planes.
    pub fn planes(self) -> usize {
        match self {
            Self::Nv12 => 2,
            Self::I420 => 3,
            _ => 1,
        }
    }

    /// Bytes of picture in a row of a plane (without padding) and number of rows.
    pub fn plane_extent(self, plane: usize, width_px: u32, height_px: u32) -> (usize, usize) {
        let (w, h) = (width_px as usize, height_px as usize);
        let (half_w, half_h) = (w.div_ceil(2), h.div_ceil(2));
        match (self, plane) {
            (Self::Nv12 | Self::I420, 0) => (w, h),
            (Self::Nv12, _) => (half_w * 2, half_h),
            (Self::I420, _) => (half_w, half_h),
            (Self::Yuy2, _) => (half_w * 4, h),
            (Self::Rgb | Self::Bgr, _) => (w * 3, h),
            (Self::Rgbx | Self::Bgrx | Self::Rgba | Self::Bgra, _) => (w * 4, h),
        }
    }
}

/// Which matrix turned RGB into YUV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ColorMatrix {
    /// Standard definition, and most webcams.
    #[default]
    Bt601,
    /// High definition.
    Bt709,
    /// Ultra-high definition.
    Bt2020,
}

/// Which bytes mean black and white.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ColorRange {
    /// 16..=235 for luma, as video has it.
    #[default]
    Limited,
    /// 0..=255, as JPEG has it.
    Full,
}

/// One plane of a picture, borrowed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plane<'a> {
    /// The bytes, first row first.
    pub data: &'a [u8],
    /// Distance between the starts of two rows, at least the row's own bytes.
    pub stride_bytes: usize,
}

/// A picture in system memory, borrowed from whoever owns its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    format: PixelFormat,
    width_px: u32,
    height_px: u32,
    matrix: ColorMatrix,
    range: ColorRange,
    planes: [Plane<'a>; 3],
}

impl<'a> Picture<'a> {
    /// Checks that every plane holds what the format and size say.
    ///
    /// # Errors
    /// `Kind::Size` when a side is 0, a plane is missing, a stride is too short or a plane too small.
    pub fn new(
        format: PixelFormat,
        width_px: u32,
        height_px: u32,
        planes: &[Plane<'a>],
    ) -> Result<Self, ValueError> {
        if width_px == 0 || height_px == 0 {
            return Err(ValueError::new(
                Kind::Size,
                "picture",
                "at least 1x1 pixels",
                format_args!("{width_px}x{height_px}"),
            ));
        }
        if planes.len() < format.planes() {
            return Err(ValueError::new(
                Kind::Size,
                format_args!("{format:?} picture"),
                format_args!("{} planes", format.planes()),
                planes.len(),
            ));
        }
        let mut kept = [Plane::default(); 3];
        for (index, plane) in planes.iter().take(format.planes()).enumerate() {
            let (row, rows) = format.plane_extent(index, width_px, height_px);
            let least = plane.stride_bytes * (rows - 1) + row;
            if plane.stride_bytes < row || plane.data.len() < least {
                return Err(ValueError::new(
                    Kind::Size,
                    format_args!("plane {index} of {format:?} {width_px}x{height_px}"),
                    format_args!("rows of at least {row} bytes, {rows} of them"),
                    format_args!("{} bytes with stride {}", plane.data.len(), plane.stride_bytes),
                ));
            }
            kept[index] = *plane;
        }
        Ok(Self {
            format,
            width_px,
            height_px,
            matrix: ColorMatrix::default(),
            range: ColorRange::default(),
            planes: kept,
        })
    }

    /// The same picture with its colour encoding stated (YUV formats only look at it).
    #[must_use]
    pub fn with_color(mut self, matrix: ColorMatrix, range: ColorRange) -> Self {
        (self.matrix, self.range) = (matrix, range);
        self
    }

    /// A part of the picture, its bytes where they are. The corner must be even in both directions, so that it
    /// falls on a chroma sample of every format.
    ///
    /// # Errors
    /// `Kind::Geometry` when the corner is odd, a side is 0, or the part hangs over the edge.
    pub fn crop(&self, x_px: u32, y_px: u32, width_px: u32, height_px: u32) -> Result<Self, ValueError> {
        let within = |at: u32, length: u32, side: u32| {
            length > 0 && at.is_multiple_of(2) && at.checked_add(length).is_some_and(|end| end <= side)
        };
        if !within(x_px, width_px, self.width_px) || !within(y_px, height_px, self.height_px) {
            return Err(ValueError::new(
                Kind::Geometry,
                "part of a picture",
                format_args!("an even corner and sides within {}x{}", self.width_px, self.height_px),
                format_args!("{width_px}x{height_px} at ({x_px}, {y_px})"),
            ));
        }
        let mut part = Self { width_px, height_px, ..*self };
        for (index, plane) in part.planes.iter_mut().enumerate().take(self.format.planes()) {
            // Bytes and rows before the corner, as those of a picture that ends there.
            let (left, _) = self.format.plane_extent(index, x_px, 1);
            let (_, top) = self.format.plane_extent(index, 1, y_px);
            plane.data = &plane.data[top * plane.stride_bytes + left..];
        }
        Ok(part)
    }

    /// Pixel layout.
    pub fn format(&self) -> PixelFormat {
        self.format
    }
    /// Width in pixels.
    pub fn width_px(&self) -> u32 {
        self.width_px
    }
    /// Height in pixels.
    pub fn height_px(&self) -> u32 {
        self.height_px
    }
    /// YUV matrix.
    pub fn matrix(&self) -> ColorMatrix {
        self.matrix
    }
    /// YUV range.
    pub fn range(&self) -> ColorRange {
        self.range
    }
    /// The planes the format has.
    pub fn planes(&self) -> &[Plane<'a>] {
        &self.planes[..self.format.planes()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_plane_is_refused_by_name() {
        let data = [0_u8; 99];
        let plane = Plane { data: &data, stride_bytes: 10 };
        let error = Picture::new(PixelFormat::I420, 10, 10, &[plane, plane, plane]).expect_err("99 < 100");
        assert_eq!(error.kind(), Kind::Size);
        assert!(error.to_string().contains("plane 0 of I420 10x10"), "{error}");
    }

    #[test]
    fn a_part_starts_at_its_own_pixel() {
        for format in PixelFormat::ALL {
            let planes: Vec<(Vec<u8>, usize)> = (0..format.planes())
                .map(|plane| {
                    let (row, rows) = format.plane_extent(plane, 16, 12);
                    ((0..row * rows).map(|at| (at % 251) as u8).collect(), row)
                })
                .collect();
            let planes: Vec<_> =
                planes.iter().map(|(data, row)| Plane { data, stride_bytes: *row }).collect();
            let picture = Picture::new(format, 16, 12, &planes).unwrap();
            let part = picture.crop(4, 2, 8, 6).unwrap();
            for (index, (part, whole)) in part.planes().iter().zip(picture.planes()).enumerate() {
                let (row, rows) = format.plane_extent(index, 16, 12);
                let (x, y) = (row * 4 / 16, rows * 2 / 12);
                assert_eq!(part.data[0], whole.data[y * row + x], "{format:?} plane {index}");
            }
            assert!(Picture::new(format, 8, 6, part.planes()).is_ok(), "{format:?}");
            for (x, y, w, h) in [(1, 0, 4, 4), (0, 0, 17, 4), (14, 0, 4, 4), (0, 0, 0, 4)] {
                assert_eq!(picture.crop(x, y, w, h).expect_err("refused").kind(), Kind::Geometry);
            }
        }
    }

    #[test]
    fn the_last_row_needs_no_padding() {
        let data = [0_u8; 16 * 3 + 12];
        let plane = Plane { data: &data, stride_bytes: 16 };
        assert!(Picture::new(PixelFormat::Rgb, 4, 4, &[plane]).is_ok());
    }
}

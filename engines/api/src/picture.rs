//! Pictures for a model, wherever they lie.

use std::sync::Arc;

use sightline_core::{ColorMatrix, ColorRange, Picture, PixelFormat};

use crate::{Device, DeviceBuffer, EngineError, Kind};

/// Sides that every device can count.
const MOST_PX: u32 = 65_535;

/// Where one plane of a picture lies on its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DevicePlane {
    /// Rows one after the other.
    Rows {
        /// The first row, from the buffer's start.
        offset_bytes: usize,
        /// From one row to the next.
        stride_bytes: usize,
    },
    /// In an order that only the device itself knows (a `CUarray`).
    Tiled {
        /// The backend's own handle; it belongs to the buffer, and is good as long.
        handle: u64,
    },
}

/// A picture whose bytes lie on a device: ours, or a producer's that lends them. The buffer keeps them, and whoever
/// gives them to a device's work need not: [`DeviceOps`](crate::DeviceOps) holds the buffer until that work is done.
#[derive(Debug, Clone)]
pub struct DevicePicture {
    buffer: Arc<dyn DeviceBuffer>,
    format: PixelFormat,
    size_px: (u32, u32),
    corner_px: (u32, u32),
    matrix: ColorMatrix,
    range: ColorRange,
    planes: [DevicePlane; 3],
}

impl DevicePicture {
    /// Checks that the buffer holds what the format and size say. Tiled planes are as large as their maker says.
    ///
    /// # Errors
    /// `Kind::Interface` when a side is 0 or above 65535, a plane is missing, a stride too short or a plane hangs over.
    pub fn new(
        buffer: Arc<dyn DeviceBuffer>,
        format: PixelFormat,
        (width_px, height_px): (u32, u32),
        planes: &[DevicePlane],
    ) -> Result<Self, EngineError> {
        let refuse = |expected: &str, got: String| {
            let subject = format!("{format:?} picture {width_px}x{height_px} on {}", buffer.device());
            Err(EngineError::new(Kind::Interface, subject, expected, got))
        };
        if !(1..=MOST_PX).contains(&width_px) || !(1..=MOST_PX).contains(&height_px) {
            return refuse("sides of 1 to 65535", "another size".into());
        }
        if planes.len() < format.planes() {
            return refuse("more planes", planes.len().to_string());
        }
        let mut kept = [DevicePlane::Tiled { handle: 0 }; 3];
        for (index, plane) in planes.iter().copied().enumerate().take(format.planes()) {
            kept[index] = plane;
            let DevicePlane::Rows { offset_bytes: offset, stride_bytes: stride } = plane else { continue };
            let (row, rows) = format.plane_extent(index, width_px, height_px);
            let end =
                stride.checked_mul(rows - 1).and_then(|rows| rows.checked_add(row)?.checked_add(offset));
            if stride < row || stride > i32::MAX as usize || end.is_none_or(|end| end > buffer.len_bytes()) {
                let got =
                    format!("plane {index} at {offset}, stride {stride}, of {} bytes", buffer.len_bytes());
                return refuse("planes within its buffer", got);
            }
        }
        let (matrix, range) = Default::default();
        let size_px = (width_px, height_px);
        Ok(Self { buffer, format, size_px, corner_px: (0, 0), matrix, range, planes: kept })
    }

    /// The same picture with its colour encoding stated (YUV formats only look at it).
    #[must_use]
    pub fn with_color(mut self, matrix: ColorMatrix, range: ColorRange) -> Self {
        (self.matrix, self.range) = (matrix, range);
        self
    }

    /// As [`Picture::crop`], and with its rules.
    ///
    /// # Errors
    /// `Kind::Interface` when the corner is odd, a side is 0, or the part hangs over the edge.
    pub fn crop(&self, x_px: u32, y_px: u32, width_px: u32, height_px: u32) -> Result<Self, EngineError> {
        let within = |at: u32, length: u32, side: u32| {
            length > 0 && at.is_multiple_of(2) && at.checked_add(length).is_some_and(|end| end <= side)
        };
        let (width, height) = self.size_px;
        if !within(x_px, width_px, width) || !within(y_px, height_px, height) {
            let expected = format!("an even corner and sides within {width}x{height}");
            let got = format!("{width_px}x{height_px} at ({x_px}, {y_px})");
            return Err(EngineError::new(Kind::Interface, "part of a picture", expected, got));
        }
        let corner_px = (self.corner_px.0 + x_px, self.corner_px.1 + y_px);
        Ok(Self { size_px: (width_px, height_px), corner_px, ..self.clone() })
    }

    /// The memory it lies in.
    pub fn buffer(&self) -> &Arc<dyn DeviceBuffer> {
        &self.buffer
    }
    /// Where it lies.
    pub fn device(&self) -> Device {
        self.buffer.device()
    }
    /// Pixel layout.
    pub fn format(&self) -> PixelFormat {
        self.format
    }
    /// Width and height in pixels.
    pub fn size_px(&self) -> (u32, u32) {
        self.size_px
    }
    /// YUV matrix.
    pub fn matrix(&self) -> ColorMatrix {
        self.matrix
    }
    /// YUV range.
    pub fn range(&self) -> ColorRange {
        self.range
    }

    /// Its planes, as many as the format has: with each, the bytes of a row and the rows that come before this picture
    /// where it is part of a larger one.
    pub fn planes(&self) -> impl Iterator<Item = (DevicePlane, (usize, usize))> {
        let (x, y) = self.corner_px;
        self.planes[..self.format.planes()].iter().enumerate().map(move |(index, plane)| {
            // As those of a picture that ends there.
            let (left, _) = self.format.plane_extent(index, x, 1);
            let (_, top) = self.format.plane_extent(index, 1, y);
            (*plane, (left, top))
        })
    }
}

/// A picture given to a device's work.
#[derive(Debug, Clone)]
pub enum PictureRef<'a> {
    /// In host memory, borrowed for the call.
    Host(Picture<'a>),
    /// On the device.
    Device(DevicePicture),
}

impl<'a> From<Picture<'a>> for PictureRef<'a> {
    fn from(picture: Picture<'a>) -> Self {
        Self::Host(picture)
    }
}

impl From<DevicePicture> for PictureRef<'_> {
    fn from(picture: DevicePicture) -> Self {
        Self::Device(picture)
    }
}

/// A frame's picture as whoever has it can give it. Asked on the thread that looks at it, never on a streaming thread.
pub trait PictureSource {
    /// Width and height in pixels.
    fn size_px(&self) -> (u32, u32);

    /// The picture where that device can read it itself; `None` when it lies elsewhere, or cannot be had there.
    fn on_device(&self, device: Device) -> Option<DevicePicture>;

    /// The picture in host memory. Where it is not there already it is fetched, when it is first asked for.
    ///
    /// # Errors
    /// `Kind::Interface` for a picture that cannot be read, `Kind::Run` when fetching it fails.
    fn on_host(&self) -> Result<Picture<'_>, EngineError>;
}

impl PictureSource for Picture<'_> {
    fn size_px(&self) -> (u32, u32) {
        (self.width_px(), self.height_px())
    }

    fn on_device(&self, _device: Device) -> Option<DevicePicture> {
        None
    }

    fn on_host(&self) -> Result<Picture<'_>, EngineError> {
        Ok(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Bytes(usize);

    impl DeviceBuffer for Bytes {
        fn device(&self) -> Device {
            Device::Cuda { ordinal: 1 }
        }
        fn address(&self) -> u64 {
            4096
        }
        fn len_bytes(&self) -> usize {
            self.0
        }
    }

    fn rows(offset_bytes: usize, stride_bytes: usize) -> DevicePlane {
        DevicePlane::Rows { offset_bytes, stride_bytes }
    }

    fn nv12(bytes: usize, size: (u32, u32), planes: &[DevicePlane]) -> Result<DevicePicture, EngineError> {
        DevicePicture::new(Arc::new(Bytes(bytes)), PixelFormat::Nv12, size, planes)
    }

    #[test]
    fn what_its_buffer_does_not_hold_is_refused() {
        let fits = [rows(0, 64), rows(64 * 32, 64)];
        // The last row needs no padding.
        assert!(nv12(64 * 47 + 48, (48, 32), &fits).is_ok());
        for (case, bytes, size, planes) in [
            ("a byte short", 64 * 47 + 47, (48, 32), &fits[..]),
            ("a plane missing", 1 << 20, (48, 32), &fits[..1]),
            ("no side", 1 << 20, (0, 32), &fits[..]),
            ("a stride too short", 1 << 20, (48, 32), &[rows(0, 47), rows(64 * 32, 64)]),
            ("an offset behind all", 1 << 20, (48, 32), &[rows(0, 64), rows(usize::MAX, 64)]),
        ] {
            let error = nv12(bytes, size, planes).expect_err(case);
            assert_eq!(error.kind(), Kind::Interface, "{case}");
            assert!(error.to_string().contains("on cuda:1: expected"), "{case}: {error}");
        }
    }

    #[test]
    fn a_part_of_a_part_knows_its_corner() {
        let whole = nv12(1 << 20, (48, 32), &[rows(0, 64), DevicePlane::Tiled { handle: 7 }]).expect("fits");
        let part = whole.crop(4, 2, 20, 20).and_then(|part| part.crop(2, 6, 9, 5)).expect("within");
        assert_eq!(part.size_px(), (9, 5));
        let planes: Vec<_> = part.planes().collect();
        assert_eq!(planes, [(rows(0, 64), (6, 8)), (DevicePlane::Tiled { handle: 7 }, (6, 4))]);
        for (x, y, w, h) in [(1, 0, 4, 4), (0, 0, 49, 4), (46, 0, 4, 4), (0, 0, 0, 4)] {
            assert!(whole.crop(x, y, w, h).is_err(), "{w}x{h} at ({x}, {y})");
        }
    }
}

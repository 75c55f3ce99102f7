use crate::{ColorMatrix, ColorRange, Picture, PixelFormat, Plane, ValueError};

/// A picture that owns its bytes, rows packed. Its buffer is used again for the next one.
#[derive(Debug, Clone)]
pub struct OwnedPicture {
    bytes: Vec<u8>,
    offsets: [usize; 3],
    strides: [usize; 3],
    format: PixelFormat,
    matrix: ColorMatrix,
    range: ColorRange,
    width_px: u32,
    height_px: u32,
}

impl Default for OwnedPicture {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            offsets: [0; 3],
            strides: [0; 3],
            format: PixelFormat::Nv12,
            matrix: ColorMatrix::default(),
            range: ColorRange::default(),
            width_px: 0,
            height_px: 0,
        }
    }
}

impl OwnedPicture {
    /// Becomes a copy of a picture.
    pub fn copy_from(&mut self, picture: &Picture<'_>) {
        (self.format, self.matrix, self.range) = (picture.format(), picture.matrix(), picture.range());
        (self.width_px, self.height_px) = (picture.width_px(), picture.height_px());
        self.bytes.clear();
        let extents =
            (0..self.format.planes()).map(|p| self.format.plane_extent(p, self.width_px, self.height_px));
        self.bytes.reserve_exact(extents.map(|(row, rows)| row * rows).sum());
        for (index, plane) in picture.planes().iter().enumerate() {
            let (row, rows) = self.format.plane_extent(index, self.width_px, self.height_px);
            (self.offsets[index], self.strides[index]) = (self.bytes.len(), row);
            if plane.stride_bytes == row {
                self.bytes.extend_from_slice(&plane.data[..row * rows]);
            } else {
                let lines = plane.data.chunks(plane.stride_bytes).take(rows);
                lines.for_each(|line| self.bytes.extend_from_slice(&line[..row]));
            }
        }
    }

    /// Becomes a picture of the given kind and size whose planes `read` fills: their number, the bytes of a row and where
    /// the rows go, without padding. Nothing is allocated when it held as much before.
    ///
    /// # Errors
    /// What `read` returns; the picture's bytes are undefined then.
    pub fn read_from<E>(
        &mut self,
        format: PixelFormat,
        (width_px, height_px): (u32, u32),
        (matrix, range): (ColorMatrix, ColorRange),
        mut read: impl FnMut(usize, usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        (self.format, self.matrix, self.range) = (format, matrix, range);
        (self.width_px, self.height_px) = (width_px, height_px);
        let extent = |plane| format.plane_extent(plane, width_px, height_px);
        let size = (0..format.planes()).map(extent).map(|(row, rows)| row * rows).sum();
        self.bytes.resize(size, 0);
        let mut rest = self.bytes.as_mut_slice();
        let mut offset = 0;
        for plane in 0..format.planes() {
            let (row, rows) = extent(plane);
            (self.offsets[plane], self.strides[plane]) = (offset, row);
            offset += row * rows;
            let (mine, others) = rest.split_at_mut(row * rows);
            rest = others;
            read(plane, row, mine)?;
        }
        Ok(())
    }

    /// The picture.
    ///
    /// # Errors
    /// `Kind::Size` before the first copy.
    pub fn picture(&self) -> Result<Picture<'_>, ValueError> {
        let planes: [Plane<'_>; 3] = std::array::from_fn(|index| Plane {
            data: self.bytes.get(self.offsets[index]..).unwrap_or_default(),
            stride_bytes: self.strides[index],
        });
        let picture = Picture::new(self.format, self.width_px, self.height_px, &planes)?;
        Ok(picture.with_color(self.matrix, self.range))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Width and height in pixels.
    pub fn size_px(&self) -> (u32, u32) {
        (self.width_px, self.height_px)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_read_one_after_the_other() {
        let mut owned = OwnedPicture::default();
        for format in PixelFormat::ALL {
            let colors = (ColorMatrix::Bt2020, ColorRange::Full);
            owned
                .read_from(format, (13, 9), colors, |plane, row, into| {
                    assert_eq!((row, into.len() / row), format.plane_extent(plane, 13, 9));
                    into.fill(plane as u8 + 1);
                    Ok::<_, ()>(())
                })
                .unwrap();
            let picture = owned.picture().unwrap();
            assert_eq!((picture.format(), picture.matrix()), (format, ColorMatrix::Bt2020));
            for (plane, view) in picture.planes().iter().enumerate() {
                let (row, rows) = format.plane_extent(plane, 13, 9);
                assert!(view.data[..row * rows].iter().all(|byte| *byte == plane as u8 + 1), "{format:?}");
            }
        }
        assert_eq!(
            owned.read_from(PixelFormat::Rgb, (2, 2), Default::default(), |_, _, _| Err("no")),
            Err("no")
        );
    }

    #[test]
    fn copies_are_what_they_copy() {
        let mut owned = OwnedPicture::default();
        assert!(owned.picture().is_err());
        for format in PixelFormat::ALL {
            for padding in [0, 5] {
                let planes: Vec<(Vec<u8>, usize)> = (0..format.planes())
                    .map(|plane| {
                        let (row, rows) = format.plane_extent(plane, 14, 10);
                        let stride = row + padding;
                        ((0..stride * rows).map(|at| (at % 253) as u8).collect(), stride)
                    })
                    .collect();
                let planes: Vec<_> =
                    planes.iter().map(|(data, stride)| Plane { data, stride_bytes: *stride }).collect();
                let picture = Picture::new(format, 14, 10, &planes).unwrap();
                let picture = picture.with_color(ColorMatrix::Bt709, ColorRange::Full);
                owned.copy_from(&picture);
                let copy = owned.picture().unwrap();
                assert_eq!(
                    (copy.format(), copy.matrix(), copy.range()),
                    (format, picture.matrix(), picture.range())
                );
                for (index, (copied, plane)) in copy.planes().iter().zip(picture.planes()).enumerate() {
                    let (row, rows) = format.plane_extent(index, 14, 10);
                    for y in 0..rows {
                        let line = |plane: &Plane<'_>| plane.data[y * plane.stride_bytes..][..row].to_vec();
                        assert_eq!(line(copied), line(plane), "{format:?}, plane {index}, row {y}");
                    }
                }
            }
        }
    }
}

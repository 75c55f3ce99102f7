//! Still pictures from and to files: JPEG as libjpeg-turbo decodes it, PNG with its palette indices.

use std::{
    fs::File,
    io::{BufReader, BufWriter},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use sightline_core::{Mask, Picture, PixelFormat, Plane};

/// A picture in memory, packed RGB, rows without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RgbPicture {
    pub(crate) width_px: u32,
    pub(crate) height_px: u32,
    pub(crate) data: Vec<u8>,
}

impl RgbPicture {
    /// The pixels with rows of a multiple of four bytes, as GStreamer has them.
    pub(crate) fn padded(&self) -> Vec<u8> {
        let row = self.width_px as usize * 3;
        let mut padded = Vec::with_capacity(row.next_multiple_of(4) * self.height_px as usize);
        for pixels in self.data.chunks_exact(row) {
            padded.extend_from_slice(pixels);
            padded.resize(padded.len().next_multiple_of(4), 0);
        }
        padded
    }

    /// The picture as the other rooms take it.
    pub(crate) fn view(&self) -> Result<Picture<'_>> {
        let plane = Plane { data: &self.data, stride_bytes: self.width_px as usize * 3 };
        Ok(Picture::new(PixelFormat::Rgb, self.width_px, self.height_px, &[plane])?)
    }
}

/// Reads a .jpg, .jpeg or .png as RGB.
pub(crate) fn read_rgb(path: &Path) -> Result<RgbPicture> {
    let result = if has_extension(path, &["png"]) { read_png_rgb(path) } else { read_jpeg(path) };
    result.with_context(|| format!("cannot read picture {path:?}"))
}

/// The pictures of a folder, sorted by name.
pub(crate) fn list(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read folder {folder:?}"))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read folder {folder:?}"))?.path();
        if has_extension(&path, extensions) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        bail!("folder {folder:?}: expected pictures (*.{}), got none", extensions.join(", *."));
    }
    paths.sort();
    Ok(paths)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension()
        .and_then(|found| found.to_str())
        .is_some_and(|found| extensions.iter().any(|wanted| found.eq_ignore_ascii_case(wanted)))
}

/// Accurate integer DCT and smooth chroma upsampling, the library's defaults and those of PIL and OpenCV.
fn read_jpeg(path: &Path) -> Result<RgbPicture> {
    let bytes = std::fs::read(path)?;
    // libjpeg reports a broken file by unwinding; it is no bug of ours and must not print a backtrace.
    let decoded = without_panic_message(|| -> std::io::Result<RgbPicture> {
        let mut image = mozjpeg::Decompress::new_mem(&bytes)?.rgb()?;
        let (width_px, height_px) = (image.width() as u32, image.height() as u32);
        let data: Vec<u8> = image.read_scanlines()?;
        image.finish()?;
        Ok(RgbPicture { width_px, height_px, data })
    });
    match decoded {
        Some(result) => Ok(result?),
        None => bail!("expected a JPEG, got {} bytes that do not decode as one", bytes.len()),
    }
}

/// mozjpeg unwinds with `resume_unwind`, which runs no panic hook, so nothing is printed.
fn without_panic_message<T>(f: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(f)).ok()
}

fn read_png_rgb(path: &Path) -> Result<RgbPicture> {
    let mut decoder = png::Decoder::new(BufReader::new(File::open(path)?));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let mut data = vec![0; reader.output_buffer_size().ok_or_else(|| anyhow!("too large a PNG"))?];
    let info = reader.next_frame(&mut data)?;
    data.truncate(info.buffer_size());
    let data = match info.color_type {
        png::ColorType::Rgb => data,
        png::ColorType::Rgba => data.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        png::ColorType::Grayscale => data.iter().flat_map(|v| [*v; 3]).collect(),
        png::ColorType::GrayscaleAlpha => data.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
        png::ColorType::Indexed => bail!("expected the palette to be expanded"),
    };
    Ok(RgbPicture { width_px: info.width, height_px: info.height, data })
}

/// An annotation: one byte a pixel, either palette indices or grey values.
#[derive(Debug)]
pub(crate) struct LabelPicture {
    pub(crate) width_px: u32,
    pub(crate) height_px: u32,
    pub(crate) data: Vec<u8>,
    pub(crate) palette: bool,
}

impl LabelPicture {
    /// Reads a PNG without expanding its palette; colour pictures become grey.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::read_png(path).with_context(|| format!("cannot read mask {path:?}"))
    }

    fn read_png(path: &Path) -> Result<Self> {
        let mut decoder = png::Decoder::new(BufReader::new(File::open(path)?));
        decoder.set_transformations(png::Transformations::STRIP_16);
        let mut reader = decoder.read_info()?;
        let mut raw = vec![0; reader.output_buffer_size().ok_or_else(|| anyhow!("too large a PNG"))?];
        let info = reader.next_frame(&mut raw)?;
        raw.truncate(info.buffer_size());
        let luma =
            |p: &[u8]| ((299 * u32::from(p[0]) + 587 * u32::from(p[1]) + 114 * u32::from(p[2])) / 1000) as u8;
        let palette = info.color_type == png::ColorType::Indexed;
        let data = match info.color_type {
            png::ColorType::Indexed => unpack(&raw, &info, 1),
            // A one-bit grey picture is black and white: spread the values over the byte.
            png::ColorType::Grayscale => {
                let scale = match info.bit_depth {
                    png::BitDepth::One => 255,
                    png::BitDepth::Two => 85,
                    png::BitDepth::Four => 17,
                    _ => 1,
                };
                unpack(&raw, &info, scale)
            }
            png::ColorType::GrayscaleAlpha => raw.chunks_exact(2).map(|p| p[0]).collect(),
            png::ColorType::Rgb => raw.chunks_exact(3).map(luma).collect(),
            png::ColorType::Rgba => raw.chunks_exact(4).map(luma).collect(),
        };
        Ok(Self { width_px: info.width, height_px: info.height, data, palette })
    }

    /// The pixels that carry a value for which `set` holds.
    pub(crate) fn mask(&self, set: impl Fn(u8) -> bool) -> Result<Mask> {
        let data = self.data.iter().map(|value| u8::from(set(*value))).collect();
        Ok(Mask::from_bytes(self.width_px, self.height_px, data)?)
    }

    /// One object: whatever is not 0, as `sightlinetrack` reads masks.
    pub(crate) fn single_mask(&self) -> Result<Mask> {
        self.mask(|value| value != 0)
    }
}

/// Packed samples of 1, 2, 4 or 8 bits to one byte each.
fn unpack(raw: &[u8], info: &png::OutputInfo, scale: u8) -> Vec<u8> {
    let bits = info.bit_depth as usize;
    if bits >= 8 {
        return raw.to_vec();
    }
    let (width, top) = (info.width as usize, (1_u8 << bits) - 1);
    let mut data = Vec::with_capacity(width * info.height as usize);
    for row in raw.chunks_exact(info.line_size) {
        data.extend((0..width).map(|x| {
            let shift = 8 - bits - (x * bits) % 8;
            ((row[x * bits / 8] >> shift) & top) * scale
        }));
    }
    data
}

/// Reads a mask file for one object and refuses an empty one.
pub(crate) fn read_mask(path: &Path) -> Result<Mask> {
    let mask = LabelPicture::read(path)?.single_mask()?;
    if mask.area_px() == 0 {
        bail!("mask {path:?}: expected at least one pixel that is not 0, got none");
    }
    Ok(mask)
}

/// Writes an RGB PNG.
pub(crate) fn write_png(path: &Path, picture: &RgbPicture) -> Result<()> {
    let write = || -> Result<()> {
        let file = BufWriter::new(File::create(path)?);
        let mut encoder = png::Encoder::new(file, picture.width_px, picture.height_px);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&picture.data)?;
        Ok(writer.finish()?)
    };
    write().with_context(|| format!("cannot write picture {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, size: [u32; 2], color: png::ColorType, depth: png::BitDepth, data: &[u8]) {
        let mut encoder = png::Encoder::new(File::create(path).unwrap(), size[0], size[1]);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == png::ColorType::Indexed {
            encoder.set_palette(vec![0, 0, 0, 200, 0, 0, 0, 200, 0, 9, 9, 9]);
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
    }

    #[test]
    fn masks_of_every_png_kind_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.png");
        use png::{BitDepth as D, ColorType as C};
        for (case, color, depth, data, expected) in [
            ("grey", C::Grayscale, D::Eight, &[0, 255, 100, 0, 128, 1][..], [0, 1, 1, 0, 1, 1]),
            ("one bit", C::Grayscale, D::One, &[0b0100_0000, 0b0110_0000], [0, 1, 0, 0, 1, 1]),
            ("palette", C::Indexed, D::Eight, &[0, 1, 2, 3, 0, 0], [0, 1, 1, 1, 0, 0]),
            ("two-bit palette", C::Indexed, D::Two, &[0b0001_1000, 0b1100_0000], [0, 1, 1, 1, 0, 0]),
            (
                "sixteen bit",
                C::Grayscale,
                D::Sixteen,
                &[0, 0, 255, 255, 0, 0, 0, 0, 200, 0, 0, 0],
                [0, 1, 0, 0, 1, 0],
            ),
        ] {
            write(&path, [3, 2], color, depth, data);
            let mask = LabelPicture::read(&path).unwrap().single_mask().unwrap();
            assert_eq!(mask.data(), expected, "{case}");
        }
    }

    #[test]
    fn pictures_survive_png_and_broken_ones_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let png = folder.path().join("p.png");
        let picture = RgbPicture { width_px: 2, height_px: 1, data: vec![1, 2, 3, 4, 5, 6] };
        write_png(&png, &picture).unwrap();
        assert_eq!(read_rgb(&png).unwrap(), picture);
        for name in ["text.jpg", "empty.jpg", "text.png", "empty.png"] {
            let path = folder.path().join(name);
            std::fs::write(&path, if name.starts_with("text") { "no picture" } else { "" }).unwrap();
            let error = format!("{:#}", read_rgb(&path).expect_err(name));
            assert!(error.contains(name), "{error}");
        }
    }
}

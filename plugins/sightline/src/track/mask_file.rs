//! Mask prompts from files: 8 bit PNG, whatever is not 0 is the object.

use std::{fs::File, io::BufReader, path::Path};

use sightline_core::{Kind, Mask, ValueError};

/// Far above any camera, far below what would exhaust memory.
const MAX_PIXELS: u64 = 64 << 20;

/// Reads a mask: grey and palette images by value (DAVIS annotations are palette images, every object counts),
/// colour images wherever any of R, G, B is set; alpha is not looked at.
///
/// # Errors
/// `Kind::Encoding` naming the file, `Kind::Size` above 64 Mpx.
pub(crate) fn read(path: &Path) -> Result<Mask, ValueError> {
    let refuse = |error: &dyn std::fmt::Display| {
        ValueError::new(Kind::Encoding, format_args!("mask {}", path.display()), "an 8 bit PNG", error)
    };
    let file = File::open(path).map_err(|error| refuse(&error))?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    // Sub-byte greys are unpacked, palettes stay indices.
    decoder.set_transformations(png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(|error| refuse(&error))?;
    let (width_px, height_px) = reader.info().size();
    if u64::from(width_px) * u64::from(height_px) > MAX_PIXELS {
        return Err(ValueError::new(
            Kind::Size,
            format_args!("mask {}", path.display()),
            "at most 64 Mpx",
            format_args!("{width_px}x{height_px}"),
        ));
    }
    let size = reader.output_buffer_size().ok_or_else(|| refuse(&"a size that overflows"))?;
    let mut bytes = vec![0; size];
    let frame = reader.next_frame(&mut bytes).map_err(|error| refuse(&error))?;
    let (channels, colours) = match frame.color_type {
        png::ColorType::Grayscale | png::ColorType::Indexed => (1, 1),
        png::ColorType::GrayscaleAlpha => (2, 1),
        png::ColorType::Rgb => (3, 3),
        png::ColorType::Rgba => (4, 3),
    };
    let bits = frame.bit_depth as usize;
    let width = width_px as usize;
    let mut mask = Vec::with_capacity(width * height_px as usize);
    for row in bytes.chunks_exact(frame.line_size).take(height_px as usize) {
        for x in 0..width {
            let set = if bits < 8 {
                let bit = x * bits;
                (row[bit / 8] >> (8 - bits - bit % 8)) & ((1 << bits) - 1) != 0
            } else {
                row[x * channels..][..colours].iter().any(|byte| *byte != 0)
            };
            mask.push(u8::from(set));
        }
    }
    Mask::from_bytes(width_px, height_px, mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_from_every_sort_of_png() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = [0_u8, 1, 1, 0, 0, 1];
        let spread = |on: &[u8], off: &[u8]| -> Vec<u8> {
            wanted.iter().flat_map(|set| if *set == 1 { on } else { off }).copied().collect()
        };
        for (name, color, depth, data) in [
            ("grey", png::ColorType::Grayscale, png::BitDepth::Eight, spread(&[255], &[0])),
            ("palette", png::ColorType::Indexed, png::BitDepth::Eight, spread(&[2], &[0])),
            ("one bit", png::ColorType::Grayscale, png::BitDepth::One, vec![0b0110_0000, 0b0010_0000]),
            ("rgb", png::ColorType::Rgb, png::BitDepth::Eight, spread(&[0, 0, 9], &[0, 0, 0])),
            ("rgba", png::ColorType::Rgba, png::BitDepth::Eight, spread(&[0, 1, 0, 0], &[0, 0, 0, 255])),
        ] {
            // 3 x 2; the one-bit rows are 011 and 001.
            let path = folder.path().join(format!("{name}.png"));
            let mut encoder = png::Encoder::new(File::create(&path).unwrap(), 3, 2);
            encoder.set_color(color);
            encoder.set_depth(depth);
            if color == png::ColorType::Indexed {
                encoder.set_palette(vec![0; 9]);
            }
            encoder.write_header().unwrap().write_image_data(&data).unwrap();
            assert_eq!(read(&path).unwrap().data(), wanted, "{name}");
        }
    }

    #[test]
    fn what_is_no_mask_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.png");
        std::fs::write(&path, "not a picture").unwrap();
        for path in [path, folder.path().join("missing.png")] {
            let error = read(&path).expect_err("no mask").to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}

//! A data set as DAVIS is laid out, of tiny drawn pictures that the fake model can follow.

use std::path::Path;

use super::{write_grey, write_png};

pub(crate) const SIZE: (u32, u32) = (128, 96);

/// Where the square stands on a frame: 24 pixels a side, moving right.
pub(crate) fn square(frame: u32) -> impl Fn(u32, u32) -> bool {
    let left = 16 + 8 * frame;
    move |x, y| (left..left + 24).contains(&x) && (32..56).contains(&y)
}

fn write_jpeg(path: &Path, pixel: impl Fn(u32, u32) -> [u8; 3]) {
    let data: Vec<u8> =
        (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y))).flat_map(|(x, y)| pixel(x, y)).collect();
    let mut jpeg = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    jpeg.set_size(SIZE.0 as usize, SIZE.1 as usize);
    jpeg.set_quality(95.0);
    let mut jpeg = jpeg.start_compress(Vec::new()).unwrap();
    jpeg.write_scanlines(&data).unwrap();
    std::fs::write(path, jpeg.finish().unwrap()).unwrap();
}

pub(crate) fn colour(frame: u32, x: u32, y: u32) -> [u8; 3] {
    match (square(frame)(x, y), x < 16 && y < 16) {
        (true, _) => [230, 40, 40],
        (_, true) => [40, 40, 230],
        _ => [20, 90, 20],
    }
}

/// One sequence with a binary annotation, one with a palette and two objects.
pub(crate) fn davis(root: &Path) {
    for name in ["binary", "palette"] {
        let pictures = root.join("JPEGImages/480p").join(name);
        let annotations = root.join("Annotations/480p").join(name);
        std::fs::create_dir_all(&pictures).unwrap();
        std::fs::create_dir_all(&annotations).unwrap();
        for frame in 0..6 {
            write_jpeg(&pictures.join(format!("{frame:05}.jpg")), |x, y| colour(frame, x, y));
            let path = annotations.join(format!("{frame:05}.png"));
            let is_square = square(frame);
            if name == "binary" {
                write_grey(&path, SIZE, |x, y| if is_square(x, y) { 255 } else { 0 });
                continue;
            }
            let value = |x: u32, y: u32| if is_square(x, y) { 1 } else { u8::from(x < 16 && y < 16) * 2 };
            let data: Vec<u8> = (0..SIZE.1)
                .flat_map(|y| (0..SIZE.0).map(move |x| (x, y)))
                .map(|(x, y)| value(x, y))
                .collect();
            write_png(&path, SIZE, png::ColorType::Indexed, Some(vec![0, 0, 0, 128, 0, 0, 0, 128, 0]), &data);
        }
    }
}

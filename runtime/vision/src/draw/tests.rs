use sightline_core::{ColorMatrix, ColorRange, Mask, PixelFormat};

use super::*;

const RED: Color = Color::new(255, 0, 0);

struct Canvas {
    format: PixelFormat,
    size: (u32, u32),
    planes: Vec<(Vec<u8>, usize)>,
}

impl Canvas {
    /// All bytes 100, three bytes of padding a row.
    fn new(format: PixelFormat, width: u32, height: u32) -> Self {
        let planes = (0..format.planes()).map(|plane| {
            let (row, rows) = format.plane_extent(plane, width, height);
            (vec![100; (row + 3) * (rows - 1) + row], row + 3)
        });
        Self { format, size: (width, height), planes: planes.collect() }
    }

    fn draw(&mut self, f: impl FnOnce(&mut PictureMut<'_>)) {
        let planes = self.planes.iter_mut().map(|(data, stride)| PlaneMut { data, stride_bytes: *stride });
        let mut picture = PictureMut::new(self.format, self.size.0, self.size.1, planes)
            .unwrap()
            .with_color(ColorMatrix::Bt709, ColorRange::Full);
        f(&mut picture);
    }

    /// The first three bytes of a packed pixel, or luma thrice.
    fn at(&self, x: u32, y: u32) -> [u8; 3] {
        let (data, stride) = &self.planes[0];
        let row = &data[y as usize * stride..];
        match self.format {
            PixelFormat::Nv12 | PixelFormat::I420 => [row[x as usize]; 3],
            PixelFormat::Yuy2 => [row[2 * x as usize]; 3],
            PixelFormat::Rgb | PixelFormat::Bgr => [0, 1, 2].map(|c| row[3 * x as usize + c]),
            _ => [0, 1, 2].map(|c| row[4 * x as usize + c]),
        }
    }

    fn touched(&self) -> Vec<(u32, u32)> {
        let all = (0..self.size.1).flat_map(|y| (0..self.size.0).map(move |x| (x, y)));
        all.filter(|(x, y)| self.at(*x, *y) != [100; 3]).collect()
    }
}

fn rectangle_mask(width: u32, height: u32, [x0, y0, x1, y1]: [u32; 4]) -> Rle {
    let mut mask = Mask::new(width, height);
    for (x, y) in (y0..y1).flat_map(|y| (x0..x1).map(move |x| (x, y))) {
        mask.data_mut()[(y * width + x) as usize] = 1;
    }
    Rle::encode(&mask)
}

fn pixels([x0, y0, x1, y1]: [u32; 4]) -> Vec<(u32, u32)> {
    (y0..y1).flat_map(|y| (x0..x1).map(move |x| (x, y))).collect()
}

#[test]
fn fill_tints_the_mask_and_nothing_else_in_every_format() {
    for format in PixelFormat::ALL {
        for (width, height, part) in [
            (9, 7, [2, 1, 7, 5]),
            (1, 1, [0, 0, 1, 1]),
            (131, 5, [60, 0, 131, 5]),
            (128, 4, [0, 3, 128, 4]),
            (65, 3, [64, 2, 65, 3]),
        ] {
            let mut canvas = Canvas::new(format, width, height);
            let mask = rectangle_mask(width, height, part);
            canvas.draw(|picture| fill(picture, &mask, RED, 1.0));
            assert_eq!(canvas.touched(), pixels(part), "{format:?} {width}x{height}");
            let expected = match format {
                PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Yuy2 => [54; 3],
                PixelFormat::Bgr | PixelFormat::Bgrx | PixelFormat::Bgra => [0, 0, 255],
                _ => [255, 0, 0],
            };
            assert_eq!(canvas.at(part[0], part[1]), expected, "{format:?}");
        }
    }
}

#[test]
fn chroma_is_tinted_once_and_padding_never() {
    let part = [1, 1, 4, 3];
    let mask = rectangle_mask(6, 4, part);
    let half = |to: u16| ((100 * 128 + to * 128 + 128) >> 8) as u8;
    let [_, u, v] = RED.to_yuv(ColorMatrix::Bt709, ColorRange::Full).map(u16::from);
    for format in [PixelFormat::Nv12, PixelFormat::I420, PixelFormat::Yuy2] {
        let mut canvas = Canvas::new(format, 6, 4);
        canvas.draw(|picture| fill(picture, &mask, RED, 0.5));
        let (u, v) = (half(u), half(v));
        match format {
            PixelFormat::Nv12 => {
                let row = [u, v, u, v, 100, 100];
                assert_eq!(canvas.planes[1].0, [&row[..], &[100; 3], &row].concat());
            }
            PixelFormat::I420 => {
                for (plane, to) in [(1, u), (2, v)] {
                    assert_eq!(canvas.planes[plane].0, [to, to, 100, 100, 100, 100, to, to, 100]);
                }
            }
            _ => {
                let (data, stride) = &canvas.planes[0];
                assert_eq!(data[..*stride], [100; 15]);
                let tinted = &data[*stride..2 * stride];
                let luma = half(u16::from(RED.to_yuv(ColorMatrix::Bt709, ColorRange::Full)[0]));
                assert_eq!(tinted[..8], [100, u, luma, v, luma, u, luma, v]);
                assert_eq!(tinted[8..], [100; 7]);
            }
        }
    }
}

#[test]
fn alpha_of_packed_pixels_is_left_alone() {
    let mut canvas = Canvas::new(PixelFormat::Bgra, 4, 2);
    canvas.draw(|picture| fill(picture, &rectangle_mask(4, 2, [0, 0, 4, 2]), RED, 1.0));
    assert_eq!(canvas.planes[0].0[..8], [0, 0, 255, 100, 0, 0, 255, 100]);
}

#[test]
fn a_mask_of_another_size_is_scaled() {
    for (name, mask, size, expected) in [
        ("up", rectangle_mask(4, 4, [1, 1, 3, 3]), (16, 8), [4, 2, 12, 6]),
        ("down", rectangle_mask(160, 80, [40, 20, 120, 60]), (16, 8), [4, 2, 12, 6]),
        ("whole", rectangle_mask(3, 5, [0, 0, 3, 5]), (77, 41), [0, 0, 77, 41]),
        ("empty", Rle::empty(3, 5), (77, 41), [0, 0, 0, 0]),
    ] {
        let mut canvas = Canvas::new(PixelFormat::Rgb, size.0, size.1);
        canvas.draw(|picture| fill(picture, &mask, RED, 1.0));
        assert_eq!(canvas.touched(), pixels(expected), "{name}");
        canvas.draw(|picture| contour(picture, &mask, RED, 2));
    }
}

#[test]
fn contour_is_the_inner_border() {
    let outer = [60, 2, 75, 12];
    for (thickness, inner) in [(0, [61, 3, 74, 11]), (1, [61, 3, 74, 11]), (3, [63, 5, 72, 9]), (9, [0; 4])] {
        let mut canvas = Canvas::new(PixelFormat::Rgbx, 90, 20);
        canvas.draw(|picture| contour(picture, &rectangle_mask(90, 20, outer), RED, thickness));
        let inside = pixels(inner);
        let expected: Vec<_> = pixels(outer).into_iter().filter(|at| !inside.contains(at)).collect();
        assert_eq!(canvas.touched(), expected, "{thickness}");
    }
}

#[test]
fn a_painter_carries_nothing_over() {
    let mut painter = Painter::new();
    let masks = [
        rectangle_mask(90, 20, [3, 0, 80, 20]),
        rectangle_mask(30, 40, [3, 9, 8, 20]),
        rectangle_mask(90, 20, [40, 5, 41, 6]),
        Rle::empty(90, 20),
    ];
    for mask in &masks {
        let mut kept = Canvas::new(PixelFormat::Nv12, 90, 20);
        kept.draw(|picture| painter.contour(picture, mask, RED, 2));
        kept.draw(|picture| painter.fill(picture, mask, RED, 0.3));
        let mut fresh = Canvas::new(PixelFormat::Nv12, 90, 20);
        fresh.draw(|picture| contour(picture, mask, RED, 2));
        fresh.draw(|picture| fill(picture, mask, RED, 0.3));
        assert_eq!(kept.planes, fresh.planes);
    }
}

#[test]
fn rectangles_are_framed_inside_and_clipped() {
    let whole = NormBox { x0: 0.0, y0: 0.0, x1: 1.0, y1: 1.0 };
    let small = NormBox { x0: 0.25, y0: 0.25, x1: 0.5, y1: 0.75 };
    for (name, bounds, thickness, outer, inner) in [
        ("whole", whole, 2, [0, 0, 40, 20], [2, 2, 38, 18]),
        ("small", small, 1, [10, 5, 20, 15], [11, 6, 19, 14]),
        ("thicker than the box", small, 99, [10, 5, 20, 15], [0; 4]),
    ] {
        for format in [PixelFormat::Rgb, PixelFormat::Nv12, PixelFormat::Yuy2] {
            let mut canvas = Canvas::new(format, 40, 20);
            canvas.draw(|picture| rectangle(picture, bounds, RED, thickness));
            let inside = pixels(inner);
            let expected: Vec<_> = pixels(outer).into_iter().filter(|at| !inside.contains(at)).collect();
            assert_eq!(canvas.touched(), expected, "{name} {format:?}");
        }
    }
}

#[test]
fn labels_stay_inside_and_are_legible() {
    assert_eq!(label_size_px("ab", 480), (15, 11));
    assert_eq!(label_size_px("ab", 720), (30, 22));
    for format in PixelFormat::ALL {
        let mut canvas = Canvas::new(format, 64, 33);
        canvas.draw(|picture| label(picture, 1000, 1000, "I", RED));
        let touched = canvas.touched();
        assert_eq!(touched, pixels([55, 22, 64, 33]), "{format:?}");
        // The middle stroke of the I, and the ground beside it.
        assert_ne!(canvas.at(59, 27), canvas.at(58, 27), "{format:?}");
        canvas.draw(|picture| label(picture, 0, 0, "longer than the picture is wide: äöü~", RED));
        canvas.draw(|picture| label(picture, 3, 3, "", RED));
    }
    let mut tiny = Canvas::new(PixelFormat::I420, 1, 1);
    tiny.draw(|picture| label(picture, 0, 0, "x", RED));
}

#[test]
fn palette_colours_are_far_apart() {
    for a in 0..12 {
        for b in 0..a {
            let (a, b) = (palette(a), palette(b));
            let distance = |x: u8, y: u8| i32::from(x.abs_diff(y)).pow(2);
            assert!(distance(a.r, b.r) + distance(a.g, b.g) + distance(a.b, b.b) > 60 * 60, "{a:?} {b:?}");
        }
    }
    assert_ne!(palette(0), palette(12));
    assert_ne!(palette(12), palette(24));
}

#[test]
fn colours_are_encoded_as_h273_says() {
    let cases = [
        (RED, ColorMatrix::Bt601, ColorRange::Limited, [81, 90, 240]),
        (RED, ColorMatrix::Bt709, ColorRange::Limited, [63, 102, 240]),
        (Color::WHITE, ColorMatrix::Bt2020, ColorRange::Limited, [235, 128, 128]),
        (Color::WHITE, ColorMatrix::Bt601, ColorRange::Full, [255, 128, 128]),
        (Color::BLACK, ColorMatrix::Bt601, ColorRange::Full, [0, 128, 128]),
    ];
    for (color, matrix, range, expected) in cases {
        assert_eq!(color.to_yuv(matrix, range), expected, "{color:?} {matrix:?} {range:?}");
    }
}

#[test]
fn a_short_plane_is_refused() {
    let mut data = [0; 47];
    let plane = PlaneMut { data: &mut data, stride_bytes: 12 };
    let error = PictureMut::new(PixelFormat::Rgb, 4, 4, [plane]).expect_err("47 < 48");
    assert_eq!(error.kind(), sightline_core::Kind::Size);
}

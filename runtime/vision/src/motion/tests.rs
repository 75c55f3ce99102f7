use sightline_core::{PixelFormat, Plane};

use super::*;

const SIZE: [usize; 2] = [640, 360];

/// Smooth noise that is defined everywhere, so that any shift of it can be drawn.
fn texture(x: f32, y: f32, seed: u32) -> f32 {
    let value = |x: i32, y: i32| {
        let mut hash = (x as u32).wrapping_mul(0x9e37_79b1) ^ (y as u32).wrapping_mul(0x85eb_ca77) ^ seed;
        hash = (hash ^ (hash >> 15)).wrapping_mul(0x2c1b_3c6d);
        ((hash ^ (hash >> 13)) & 255) as f32
    };
    let at = |side: f32| {
        let (x, y) = (x / side, y / side);
        let (left, top) = (x.floor(), y.floor());
        let (right, lower) = (x - left, y - top);
        let row = |y: i32| value(left as i32, y) * (1.0 - right) + value(left as i32 + 1, y) * right;
        row(top as i32) * (1.0 - lower) + row(top as i32 + 1) * lower
    };
    0.6 * at(23.0) + 0.4 * at(9.0)
}

/// A ground moved by `camera`, zoomed by `zoom` about the middle, and a thing of 120x80 pixels at `thing`.
pub(crate) fn draw(camera: [f32; 2], zoom: f32, thing: [f32; 2]) -> Vec<u8> {
    let mut data = Vec::with_capacity(SIZE[0] * SIZE[1]);
    for y in 0..SIZE[1] {
        for x in 0..SIZE[0] {
            let (x, y) = (x as f32, y as f32);
            let (u, v) = (x - thing[0], y - thing[1]);
            let value = if (0.0..120.0).contains(&u) && (0.0..80.0).contains(&v) {
                texture(u, v, 7)
            } else {
                let ground = |v: f32, side: usize, shift: f32| {
                    (v - side as f32 / 2.0) / zoom + side as f32 / 2.0 - shift
                };
                texture(ground(x, SIZE[0], camera[0]), ground(y, SIZE[1], camera[1]), 1)
            };
            data.push(value as u8);
        }
    }
    data
}

/// Grey as NV12.
pub(crate) fn picture<'a>(luma: &'a [u8], chroma: &'a [u8]) -> Picture<'a> {
    let planes = [luma, chroma].map(|data| Plane { data, stride_bytes: SIZE[0] });
    Picture::new(PixelFormat::Nv12, SIZE[0] as u32, SIZE[1] as u32, &planes).unwrap()
}

/// The thing's region on a grid of 80x45.
fn region(thing: [f32; 2]) -> Region {
    let inside = |x: usize, y: usize| {
        let (u, v) = (x as f32 * 8.0 + 4.0 - thing[0], y as f32 * 8.0 + 4.0 - thing[1]);
        (0.0..120.0).contains(&u) && (0.0..80.0).contains(&v)
    };
    let logits: Vec<f32> = (0..80 * 45).map(|at| if inside(at % 80, at / 80) { 1.0 } else { -1.0 }).collect();
    Region::from_logits(&logits, 80, NormBox::WHOLE).unwrap()
}

#[test]
fn a_thing_keeps_its_own_way_whatever_the_camera_does() {
    let chroma = vec![128; SIZE[0] * SIZE[1] / 2];
    let first = [220.0, 130.0];
    for (name, camera, zoom, way) in [
        ("still", [0.0, 0.0], 1.0, [0.0, 0.0]),
        ("the thing moves", [0.0, 0.0], 1.0, [24.0, -10.0]),
        ("only the camera moves", [-18.0, 6.0], 1.0, [-18.0, 6.0]),
        ("both move", [30.0, 0.0], 1.0, [-14.0, 8.0]),
        ("the camera zooms", [4.0, 0.0], 1.04, [4.0, 14.0]),
    ] {
        let (before, after) =
            (draw([0.0, 0.0], 1.0, first), draw(camera, zoom, [first[0] + way[0], first[1] + way[1]]));
        let mut motion = Motion::new();
        motion.measure(&picture(&before, &chroma), &picture(&after, &chroma)).unwrap();
        let OwnMotion { way: [x, y], moving, stands_out } = motion.of(&region(first)).expect(name);
        let middle = [first[0] + 60.0 - 320.0, first[1] + 40.0 - 180.0];
        let own: [f32; 2] =
            std::array::from_fn(|axis| way[axis] - camera[axis] * zoom - middle[axis] * (zoom - 1.0));
        let off = (x * 640.0 - own[0]).hypot(y * 360.0 - own[1]);
        assert!(off < 1.2, "{name}: wanted {own:?} px, got {:?}", [x * 640.0, y * 360.0]);
        let boxes = motion.boxes(4);
        if own[0].hypot(own[1]) < 2.0 {
            assert_eq!(([x, y], stands_out), ([0.0; 2], 0.0), "{name}");
            assert!(moving < 0.5, "{name}: {moving}");
            assert!(boxes.is_empty(), "{name}: {boxes:?}");
        } else {
            assert!(moving > 0.8 && stands_out > 0.7, "{name}: {moving}, {stands_out}");
            let [x0, y0, x1, y1] = boxes[0].to_pixels(640, 360);
            let off = [x0 - first[0], y0 - first[1], x1 - first[0] - 120.0, y1 - first[1] - 80.0];
            assert!(off.iter().all(|v| v.abs() <= 28.0), "{name}: {boxes:?}");
        }
    }
}

#[test]
fn what_has_no_texture_has_no_motion() {
    let (luma, chroma) = (vec![90; SIZE[0] * SIZE[1]], vec![128; SIZE[0] * SIZE[1] / 2]);
    let mut motion = Motion::new();
    motion.measure(&picture(&luma, &chroma), &picture(&luma, &chroma)).unwrap();
    assert_eq!(motion.of(&region([220.0, 130.0])), None);
    assert!(motion.boxes(4).is_empty());
    let small = Plane { data: &luma, stride_bytes: 300 };
    let small = Picture::new(PixelFormat::Rgb, 100, 80, &[small]).unwrap();
    assert_eq!(motion.measure(&picture(&luma, &chroma), &small).unwrap_err().kind(), Kind::Size);
}

//! Masks carried from the frame they were made for to later ones by what is seen there.

use std::sync::Arc;

use sightline_core::{Kind, NormBox, Picture, Rle, ValueError};

use super::{
    fit::{Move, Pair},
    warp,
};
use crate::motion::flow::{Pyramid, follow};

/// Pixels of the longer side of the grey copies. 240 costs half a point of J, 480 gains nothing.
const LONG_SIDE_PX: usize = 320;
/// A side below this has too few levels to be followed on.
const MIN_SIDE_PX: u32 = 64;
/// Points followed an object.
const POINTS: usize = 64;
/// Distance of the points that the camera is followed by, in pixels of the grey copy.
const CAMERA_STEP_PX: usize = 40;
/// An object seen at fewer points than this, or a smaller share of those tried, is not seen.
const MIN_POINTS: usize = 4;
const MIN_SEEN: f32 = 0.1;
/// What is off by so many pixels of the grey copy counts a quarter.
const ERROR_PX: f32 = 1.5;
/// A point so many pixels of the grey copy from where its object is went elsewhere.
const ASTRAY_PX: f32 = 18.0;
/// A thing grows or shrinks no more than this from one frame to the next, and all the way.
const HOP_SCALE: f32 = 1.15;
const SCALE: f32 = 2.0;

/// A mask that was carried.
#[derive(Debug, Clone, PartialEq)]
pub struct Carried {
    /// Where the object is now.
    pub mask: Rle,
    /// Its tight box; `None` when it left the picture.
    pub bounds: Option<NormBox>,
    /// Share in `[0, 1]` of its points that were found again from the last frame to this one.
    pub seen: f32,
}

/// One object's mask on its way from the frame it was made for.
#[derive(Debug, Clone)]
pub struct Ride {
    mask: Arc<Rle>,
    from: u64,
    at: u64,
    points: Vec<Point>,
    /// From the mask's frame to the one it is at.
    here: Move,
    seen: f32,
}

/// In pixels of the picture.
#[derive(Debug, Clone, Copy)]
struct Point {
    start: [f32; 2],
    now: [f32; 2],
}

impl Ride {
    /// Of a mask that is right for frame `from`.
    pub fn new(mask: Arc<Rle>, from: u64) -> Self {
        let points = points(&mask);
        Self { mask, from, at: from, points, here: Move::STILL, seen: 1.0 }
    }

    /// The frame the mask was made for.
    pub fn from(&self) -> u64 {
        self.from
    }

    fn start_again(&mut self) {
        self.points.iter_mut().for_each(|point| point.now = point.start);
        (self.at, self.here, self.seen) = (self.from, Move::STILL, 1.0);
    }
}

/// Small grey pyramids of the newest frames, and masks carried along them.
///
/// Points of an object are followed from frame to frame by sparse pyramidal Lucas-Kanade with a check of the way back, and
/// one move (shift and scale) is fitted to where they began and where they are, as the median flow tracker does (Kalal,
/// Mikolajczyk, Matas: Forward-Backward Error, ICPR 2010); the mask is moved so, and bent by what its points do beside
/// that. Deterministic; memory is taken with the first picture of a size, 4/3 bytes for each pixel of a grey copy (77 kB of
/// a 16:9 one) and frame.
#[derive(Debug)]
pub struct Coaster {
    /// In a ring; what has no index was never filled or is of another size.
    ring: Vec<(Option<u64>, Pyramid)>,
    next: usize,
    size_px: (u32, u32),
    /// Scratch.
    sums: Vec<u32>,
}

impl Coaster {
    /// Keeps so many frames, one at least.
    pub fn new(frames: usize) -> Self {
        let ring = (0..frames.max(1)).map(|_| (None, Pyramid::default())).collect();
        Self { ring, next: 0, size_px: (0, 0), sums: Vec::new() }
    }

    /// Keeps a frame and gives way to it the oldest. A picture of another size, or a frame that does not come after the
    /// newest, makes it forget the others.
    ///
    /// # Errors
    /// `Kind::Size` when a side of the picture is below 64 pixels.
    pub fn see(&mut self, index: u64, picture: &Picture<'_>) -> Result<(), ValueError> {
        let size = (picture.width_px(), picture.height_px());
        if size.0.min(size.1) < MIN_SIDE_PX {
            let got = format_args!("{}x{}", size.0, size.1);
            return Err(ValueError::new(Kind::Size, "picture", "sides of at least 64 pixels", got));
        }
        let scale = (LONG_SIDE_PX as f32 / size.0.max(size.1) as f32).min(1.0);
        let [width, height] = [size.0, size.1].map(|side| ((side as f32 * scale).round() as usize).max(8));
        if size != self.size_px {
            self.ring.iter_mut().for_each(|(_, pyramid)| pyramid.size_for(width, height));
        }
        if size != self.size_px || self.newest().is_some_and(|newest| newest >= index) {
            self.ring.iter_mut().for_each(|(kept, _)| *kept = None);
            self.size_px = size;
        }
        let next = self.next;
        if let Some((kept, pyramid)) = self.ring.get_mut(next) {
            pyramid.fill(picture, width, height, &mut self.sums);
            *kept = Some(index);
        }
        self.next = (next + 1) % self.ring.len();
        Ok(())
    }

    /// The newest frame that was seen.
    pub fn newest(&self) -> Option<u64> {
        self.ring.iter().filter_map(|(kept, _)| *kept).max()
    }

    fn pyramid(&self, index: u64) -> Option<&Pyramid> {
        self.ring.iter().find(|(kept, _)| *kept == Some(index)).map(|(_, pyramid)| pyramid)
    }

    /// Brings a mask to frame `to` over all seen frames between; a step back starts again at its own. `None` when it is
    /// of another picture size, `to` or the frame it is at is not kept, or nothing could be followed.
    pub fn carry(&self, ride: &mut Ride, to: u64) -> Option<Carried> {
        if (ride.mask.width_px(), ride.mask.height_px()) != self.size_px || to < ride.from {
            return None;
        }
        if to < ride.at {
            ride.start_again();
        }
        self.pyramid(to)?;
        while ride.at < to {
            let before = self.pyramid(ride.at)?;
            let (index, after) = self
                .ring
                .iter()
                .filter_map(|(kept, pyramid)| Some(((*kept)?, pyramid)))
                .filter(|(kept, _)| *kept > ride.at)
                .min_by_key(|(kept, _)| *kept)?;
            self.hop(ride, before, after)?;
            ride.at = index;
        }
        let bends: Vec<warp::Bend> = ride
            .points
            .iter()
            .map(|point| {
                let there = ride.here.apply(point.start);
                (there, [0, 1].map(|axis| point.now[axis] - there[axis]))
            })
            .collect();
        let mask = warp::bent(&ride.mask, &ride.here, &bends);
        let bounds = mask.bounds();
        Some(Carried { mask, bounds, seen: ride.seen })
    }

    /// One frame on.
    fn hop(&self, ride: &mut Ride, before: &Pyramid, after: &Pyramid) -> Option<()> {
        let (width, height) = after.size();
        let scale = [width as f32 / self.size_px.0 as f32, height as f32 / self.size_px.1 as f32];
        let follow = |at: [f32; 2]| {
            let way = follow(before, after, [0, 1].map(|axis| at[axis] * scale[axis] - 0.5))?;
            Some([0, 1].map(|axis| at[axis] + way[axis] / scale[axis]))
        };
        let found: Vec<Option<[f32; 2]>> = ride.points.iter().map(|point| follow(point.now)).collect();
        let hops: Vec<Pair> = pairs(&ride.points, &found, |point| point.now);
        let seen = hops.len() as f32 / ride.points.len().max(1) as f32;
        let error_px = ERROR_PX / scale[0];
        if hops.len() < MIN_POINTS || seen < MIN_SEEN {
            // Nothing to hold on to in it, or it is hidden: it goes with what is around it.
            let step = CAMERA_STEP_PX as f32;
            let places = (0..height / CAMERA_STEP_PX).flat_map(|row| {
                (0..width / CAMERA_STEP_PX)
                    .map(move |column| [column, row].map(|at| (at as f32 + 0.5) * step))
            });
            let places = places.map(|at| [0, 1].map(|axis| at[axis] / scale[axis]));
            let ways: Vec<Pair> = places.filter_map(|at| Some((at, follow(at)?))).collect();
            if ways.len() < MIN_POINTS {
                return None;
            }
            let hop = Move::fit(&ways, error_px, HOP_SCALE)?;
            ride.points.iter_mut().for_each(|point| point.now = hop.apply(point.now));
            (ride.here, ride.seen) = (hop.after(&ride.here), 0.0);
            return Some(());
        }
        let hop = Move::fit(&hops, error_px, HOP_SCALE)?;
        let here = Move::fit(&pairs(&ride.points, &found, |point| point.start), error_px, SCALE)?;
        let astray_px = ASTRAY_PX / scale[0];
        for (point, found) in ride.points.iter_mut().zip(found) {
            let [x, y] = here.apply(point.start);
            let near = |at: &[f32; 2]| (at[0] - x).hypot(at[1] - y) <= astray_px;
            point.now = found.unwrap_or_else(|| hop.apply(point.now));
            if !near(&point.now) {
                point.now = [x, y];
            }
        }
        (ride.here, ride.seen) = (here, seen);
        Some(())
    }
}

/// Where the points that were found came from, and where they are.
fn pairs(points: &[Point], found: &[Option<[f32; 2]>], from: fn(&Point) -> [f32; 2]) -> Vec<Pair> {
    points.iter().zip(found).filter_map(|(point, found)| Some((from(point), (*found)?))).collect()
}

/// About `POINTS` points spread over a mask, in pixels of the picture; every pixel of one with fewer.
fn points(mask: &Rle) -> Vec<Point> {
    let step = ((mask.area_px() as f32 / POINTS as f32).sqrt().round() as u32).max(1);
    let grid = |step_x: u32, step_y: u32| {
        let mut points = Vec::with_capacity(2 * POINTS);
        mask.for_each_run(|x, y0, y1| {
            if x % step_x == step_x / 2 {
                let first = (y0 + step_y / 2).next_multiple_of(step_y) - step_y / 2;
                let rows = (first..y1).step_by(step_y as usize);
                points.extend(
                    rows.map(|y| [x as f32 + 0.5, y as f32 + 0.5]).map(|at| Point { start: at, now: at }),
                );
            }
        });
        points
    };
    let mut spread = grid(step, step);
    if spread.len() < MIN_POINTS {
        // Thinner than the grid.
        spread = grid(1, 1);
    }
    let stride = spread.len().div_ceil(2 * POINTS).max(1);
    spread.into_iter().step_by(stride).collect()
}

#[cfg(test)]
mod tests {
    use sightline_core::Mask;

    use super::*;
    use crate::motion::tests::{draw, picture};

    const FIRST: [f32; 2] = [220.0, 130.0];

    /// The drawn thing's mask; it is 120x80 in a picture of 640x360.
    fn mask(at: [f32; 2]) -> Rle {
        let mut mask = Mask::new(640, 360);
        for index in 0..640 * 360 {
            let (u, v) = ((index % 640) as f32 - at[0], (index / 640) as f32 - at[1]);
            mask.data_mut()[index] = u8::from((0.0..120.0).contains(&u) && (0.0..80.0).contains(&v));
        }
        Rle::encode(&mask)
    }

    fn iou(a: &Rle, b: &Rle) -> f64 {
        crate::davis::region_similarity(&a.decode(), &b.decode()).unwrap()
    }

    /// Shows `frames` frames of a thing and a ground that go `thing` and `camera` each frame.
    fn shown(coaster: &mut Coaster, frames: u64, thing: [f32; 2], camera: [f32; 2]) {
        let chroma = vec![128; 640 * 180];
        for index in 0..frames {
            let go = |way: [f32; 2]| way.map(|v| v * index as f32);
            let [x, y] = go(thing);
            let luma = draw(go(camera), 1.0, [FIRST[0] + x, FIRST[1] + y]);
            coaster.see(index, &picture(&luma, &chroma)).unwrap();
        }
    }

    #[test]
    fn a_mask_goes_where_its_thing_goes() {
        for (name, thing, camera) in [
            ("still", [0.0, 0.0], [0.0, 0.0]),
            ("the thing moves", [14.0, -6.0], [0.0, 0.0]),
            ("the camera moves", [-9.0, 2.0], [-9.0, 2.0]),
            ("both move", [10.0, 4.0], [-12.0, 0.0]),
        ] {
            let mut coaster = Coaster::new(6);
            shown(&mut coaster, 5, thing, camera);
            let mut ride = Ride::new(Arc::new(mask(FIRST)), 0);
            for to in [1, 2, 4] {
                let carried = coaster.carry(&mut ride, to).expect(name);
                let truth = mask([0, 1].map(|axis| FIRST[axis] + thing[axis] * to as f32));
                let got = iou(&carried.mask, &truth);
                assert!(got > 0.93, "{name}, frame {to}: {got}");
                assert!(carried.seen > 0.7, "{name}, frame {to}: {}", carried.seen);
                assert_eq!(carried.bounds, carried.mask.bounds(), "{name}");
            }
            let back = coaster.carry(&mut ride, 2);
            assert_eq!(
                back,
                coaster.carry(&mut Ride::new(Arc::new(mask(FIRST)), 0), 2),
                "{name}: a step back"
            );
        }
    }

    #[test]
    fn what_has_no_texture_goes_with_the_camera() {
        let chroma = vec![128; 640 * 180];
        let mut coaster = Coaster::new(4);
        for index in 0..2_u8 {
            let way = 8.0 * f32::from(index);
            let mut luma = draw([way, 0.0], 1.0, [FIRST[0] + way, FIRST[1]]);
            for y in 100..250 {
                luma[y * 640 + 190..][..210].fill(90);
            }
            coaster.see(u64::from(index), &picture(&luma, &chroma)).unwrap();
        }
        let carried = coaster.carry(&mut Ride::new(Arc::new(mask(FIRST)), 0), 1).unwrap();
        assert_eq!(carried.seen, 0.0);
        let got = iou(&carried.mask, &mask([FIRST[0] + 8.0, FIRST[1]]));
        assert!(got > 0.95, "{got}");
    }

    #[test]
    fn what_cannot_be_carried_is_not() {
        let mut coaster = Coaster::new(3);
        shown(&mut coaster, 5, [2.0, 0.0], [0.0; 2]);
        let ride = |from| Ride::new(Arc::new(mask(FIRST)), from);
        for (name, mut ride, to) in [
            ("a frame that gave way", ride(1), 4),
            ("to one not seen yet", ride(3), 5),
            ("to one before its own", ride(3), 2),
            ("of another size", Ride::new(Arc::new(Rle::empty(64, 64)), 3), 4),
        ] {
            assert_eq!(coaster.carry(&mut ride, to), None, "{name}");
        }
        assert!(coaster.carry(&mut ride(2), 4).is_some());
        let nothing = coaster.carry(&mut Ride::new(Arc::new(Rle::empty(640, 360)), 3), 4).unwrap();
        assert_eq!((nothing.mask.area_px(), nothing.bounds), (0, None));

        shown(&mut coaster, 1, [0.0; 2], [0.0; 2]);
        assert_eq!(coaster.newest(), Some(0), "an older frame begins anew");
        assert_eq!(coaster.carry(&mut ride(3), 4), None);
        let small = vec![0; 60 * 64 * 3];
        let plane = sightline_core::Plane { data: &small, stride_bytes: 180 };
        let small = Picture::new(sightline_core::PixelFormat::Rgb, 60, 64, &[plane]).unwrap();
        assert_eq!(coaster.see(1, &small).unwrap_err().kind(), Kind::Size);
    }

    #[test]
    fn the_whole_ring_is_there_with_the_first_picture_of_a_size() {
        let mut coaster = Coaster::new(5);
        for (format, size, grey) in [
            ("16:9", [640, 360], (320, 180)),
            ("4:3", [640, 480], (320, 240)),
            ("small", [64, 128], (64, 128)),
        ] {
            let bytes = vec![0; size[0] * size[1] * 3];
            let planes = [sightline_core::Plane { data: &bytes, stride_bytes: size[0] * 3 }];
            let [width, height] = size.map(|side| side as u32);
            let picture = Picture::new(sightline_core::PixelFormat::Rgb, width, height, &planes).unwrap();
            coaster.see(0, &picture).unwrap();
            assert!(coaster.ring.iter().all(|(_, pyramid)| pyramid.size() == grey), "{format}");
        }
    }

    #[test]
    fn a_thing_thinner_than_the_grid_has_points() {
        let mut pole = Mask::new(640, 360);
        for y in 20..340 {
            pole.data_mut()[y * 640 + 101..][..3].fill(1);
        }
        let count = points(&Rle::encode(&pole)).len();
        assert!((MIN_POINTS..=2 * POINTS).contains(&count), "{count}");
        assert!(points(&Rle::empty(640, 360)).is_empty());
    }
}

use sightline_core::{Kind, NormBox, ObjectId, ValueError};

use super::ProblemKind;

/// How far, in sides of the picture sent, a box may hang over an edge and still be clipped rather than refused.
pub const OVERHANG: f64 = 0.05;

/// What was shown to the model: which part of the picture, at which size, with which numbers drawn on it.
///
/// All pictures of one request share this geometry, save for close-ups of tracked objects that stand before them.
/// Boxes are in the last picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    picture_px: [u32; 2],
    crop_px: [u32; 4],
    sent_px: [u32; 2],
    images: u32,
    marks: Vec<ObjectId>,
    crops: Vec<ObjectId>,
}

impl Sent {
    /// One picture of `picture_px` (width, height), cropped to `crop_px` (x0, y0, x1, y1, the latter two exclusive),
    /// scaled to `sent_px`.
    ///
    /// # Errors
    /// `Kind::Geometry` when a size is zero or the crop is not inside the picture.
    pub fn new(picture_px: [u32; 2], crop_px: [u32; 4], sent_px: [u32; 2]) -> Result<Self, ValueError> {
        let [x0, y0, x1, y1] = crop_px;
        let [width, height] = picture_px;
        if x0 >= x1 || y0 >= y1 || x1 > width || y1 > height {
            return Err(ValueError::new(
                Kind::Geometry,
                "crop",
                format_args!("x0 < x1 and y0 < y1 inside {width}x{height}"),
                format_args!("({x0}, {y0}, {x1}, {y1})"),
            ));
        }
        if sent_px.contains(&0) {
            let [width, height] = sent_px;
            let got = format_args!("{width}x{height}");
            return Err(ValueError::new(Kind::Geometry, "size sent", "at least 1x1", got));
        }
        Ok(Self { picture_px, crop_px, sent_px, images: 1, marks: Vec::new(), crops: Vec::new() })
    }

    /// The whole picture, scaled to `sent_px`.
    ///
    /// # Errors
    /// As [`Sent::new`].
    pub fn whole(picture_px: [u32; 2], sent_px: [u32; 2]) -> Result<Self, ValueError> {
        Self::new(picture_px, [0, 0, picture_px[0], picture_px[1]], sent_px)
    }

    /// The size to send a part of `size_px` at so that no side exceeds `longest_px`: same shape, never enlarged.
    pub fn fit(size_px: [u32; 2], longest_px: u32) -> [u32; 2] {
        let longest = size_px[0].max(size_px[1]).max(1);
        let limit = longest_px.clamp(1, longest);
        size_px.map(|side| {
            let scaled = (u64::from(side) * u64::from(limit) + u64::from(longest) / 2) / u64::from(longest);
            (scaled as u32).max(1)
        })
    }

    /// The same with `images` pictures in the request, close-ups included; the others oldest first.
    #[must_use]
    pub fn with_images(mut self, images: u32) -> Self {
        self.images = images;
        self
    }

    /// The same with the numbers drawn on the pictures: each stands for a tracked object.
    #[must_use]
    pub fn with_marks(mut self, marks: Vec<ObjectId>) -> Self {
        self.marks = marks;
        self
    }

    /// The same where the first pictures are close-ups, of any size: the object on each.
    #[must_use]
    pub fn with_crops(mut self, crops: Vec<ObjectId>) -> Self {
        self.crops = crops;
        self
    }

    /// Width and height of what was sent.
    pub fn sent_px(&self) -> [u32; 2] {
        self.sent_px
    }

    /// Pictures in the request.
    pub fn images(&self) -> u32 {
        self.images
    }

    /// The numbers drawn.
    pub fn marks(&self) -> &[ObjectId] {
        &self.marks
    }

    /// The objects on the close-ups, one a picture.
    pub fn crops(&self) -> &[ObjectId] {
        &self.crops
    }

    /// Whether objects were called by number at all.
    pub fn has_numbers(&self) -> bool {
        !self.marks.is_empty() || !self.crops.is_empty()
    }

    /// The object that bore a number, on the scene or as a close-up.
    pub fn mark(&self, number: u64) -> Option<ObjectId> {
        self.marks.iter().chain(&self.crops).copied().find(|id| u64::from(id.0) == number)
    }

    /// `box_in_picture` from a box in shares of what was sent (x0, y0, x1, y1 in `[0, 1]`), and whether it was clipped.
    pub(crate) fn box_from_shares(&self, shares: [f64; 4]) -> Result<(NormBox, bool), ProblemKind> {
        if shares.iter().any(|v| !v.is_finite()) {
            return Err(ProblemKind::NotFinite);
        }
        let [x0, y0, x1, y1] = shares;
        if x0 >= x1 || y0 >= y1 {
            return Err(ProblemKind::Unordered);
        }
        if shares.iter().any(|v| !(-OVERHANG..=1.0 + OVERHANG).contains(v)) {
            return Err(ProblemKind::Outside);
        }
        let clipped = shares.map(|v| v.clamp(0.0, 1.0));
        let across = |share: f64| place(share, self.crop_px[0], self.crop_px[2], self.picture_px[0]);
        let down = |share: f64| place(share, self.crop_px[1], self.crop_px[3], self.picture_px[1]);
        let found = NormBox {
            x0: across(clipped[0]),
            y0: down(clipped[1]),
            x1: across(clipped[2]),
            y1: down(clipped[3]),
        };
        // What was clipped, or is too thin for f32, may have nothing left.
        if found.x0 >= found.x1 || found.y0 >= found.y1 {
            return Err(ProblemKind::Outside);
        }
        Ok((found, clipped != shares))
    }

    /// The same from pixels of what was sent.
    pub(crate) fn box_from_pixels(&self, box_px: [f64; 4]) -> Result<(NormBox, bool), ProblemKind> {
        let [w, h] = self.sent_px.map(f64::from);
        let [x0, y0, x1, y1] = box_px;
        self.box_from_shares([x0 / w, y0 / h, x1 / w, y1 / h])
    }

    /// The whole crop in the picture, which holds every box read.
    pub fn crop_in_picture(&self) -> NormBox {
        let [x0, y0, x1, y1] = self.crop_px;
        let [w, h] = self.picture_px;
        NormBox {
            x0: place(0.0, x0, x1, w),
            y0: place(0.0, y0, y1, h),
            x1: place(1.0, x0, x1, w),
            y1: place(1.0, y0, y1, h),
        }
    }
}

fn place(share: f64, from_px: u32, to_px: u32, side_px: u32) -> f32 {
    let (from, to) = (f64::from(from_px), f64::from(to_px));
    ((from + share * (to - from)) / f64::from(side_px)).clamp(0.0, 1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_go_through_the_crop_and_the_scale() {
        // 200x100 out of a 1000x500 picture, at (300, 200), sent at half size.
        let sent = Sent::new([1000, 500], [300, 200, 500, 300], [100, 50]).unwrap();
        let (found, clipped) = sent.box_from_pixels([0.0, 0.0, 100.0, 50.0]).unwrap();
        assert_eq!(found, NormBox { x0: 0.3, y0: 0.4, x1: 0.5, y1: 0.6 });
        assert!(!clipped);
        let (found, _) = sent.box_from_pixels([50.0, 10.0, 60.0, 20.0]).unwrap();
        assert_eq!(found.to_pixels(1000, 500).map(f32::round), [400.0, 220.0, 420.0, 240.0]);
    }

    #[test]
    fn overhang_is_clipped_and_nonsense_refused() {
        let sent = Sent::whole([640, 480], [640, 480]).unwrap();
        let (found, clipped) = sent.box_from_pixels([-10.0, 0.0, 645.0, 480.0]).unwrap();
        assert_eq!((found, clipped), (NormBox::WHOLE, true));
        for (name, shares, kind) in [
            ("far outside", [0.0, 0.0, 1.2, 1.0], ProblemKind::Outside),
            ("only the overhang", [1.01, 0.0, 1.04, 1.0], ProblemKind::Outside),
            ("turned", [0.5, 0.0, 0.2, 1.0], ProblemKind::Unordered),
            ("no height", [0.0, 0.3, 0.2, 0.3], ProblemKind::Unordered),
            ("not a number", [0.0, f64::NAN, 0.2, 0.3], ProblemKind::NotFinite),
            ("infinite", [0.0, 0.0, f64::INFINITY, 0.3], ProblemKind::NotFinite),
            ("too thin for f32", [0.5, 0.0, 0.5 + 1e-12, 1.0], ProblemKind::Outside),
        ] {
            assert_eq!(sent.box_from_shares(shares), Err(kind), "{name}");
        }
    }

    #[test]
    fn a_fit_keeps_the_shape_and_never_enlarges() {
        for (size, longest, fit) in [
            ([1920, 1080], 960, [960, 540]),
            ([480, 640], 320, [240, 320]),
            ([100, 50], 1024, [100, 50]),
            ([5000, 1], 100, [100, 1]),
            ([3, 2], 0, [1, 1]),
        ] {
            assert_eq!(Sent::fit(size, longest), fit, "{size:?} to {longest}");
        }
    }

    #[test]
    fn impossible_geometry_is_refused() {
        assert!(Sent::new([100, 100], [0, 0, 101, 100], [10, 10]).is_err());
        assert!(Sent::new([100, 100], [50, 0, 50, 100], [10, 10]).is_err());
        assert!(Sent::whole([100, 100], [0, 10]).is_err());
        assert!(Sent::whole([0, 100], [10, 10]).is_err());
    }
}

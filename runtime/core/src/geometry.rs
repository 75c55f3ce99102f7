use crate::{Kind, ValueError};

/// A point in normalised picture coordinates: `x`,`y` in `[0, 1]`, origin at the top left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormPoint {
    /// Horizontal position, 0 at the left edge, 1 at the right.
    pub x: f32,
    /// Vertical position, 0 at the top edge, 1 at the bottom.
    pub y: f32,
}

impl NormPoint {
    /// Takes a point in pixels of a `width_px` x `height_px` picture.
    ///
    /// # Errors
    /// `Kind::Geometry` when the point is not finite or lies outside the picture.
    pub fn from_pixels(x_px: f32, y_px: f32, width_px: u32, height_px: u32) -> Result<Self, ValueError> {
        let inside = |v: f32, side: u32| v.is_finite() && (0.0..=side as f32).contains(&v);
        if !inside(x_px, width_px) || !inside(y_px, height_px) {
            return Err(ValueError::new(
                Kind::Geometry,
                "point",
                format_args!("x in 0..={width_px} and y in 0..={height_px}"),
                format_args!("({x_px}, {y_px})"),
            ));
        }
        Ok(Self { x: x_px / width_px as f32, y: y_px / height_px as f32 })
    }
}

/// An axis-aligned box in normalised picture coordinates, `x0 < x1`, `y0 < y1`, all in `[0, 1]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormBox {
    /// Left edge.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Bottom edge.
    pub y1: f32,
}

impl NormBox {
    /// The whole picture.
    pub const WHOLE: Self = Self { x0: 0.0, y0: 0.0, x1: 1.0, y1: 1.0 };

    /// Width, in pictures.
    pub fn width(self) -> f32 {
        self.x1 - self.x0
    }

    /// Height, in pictures.
    pub fn height(self) -> f32 {
        self.y1 - self.y0
    }

    /// The least box that holds both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            x0: self.x0.min(other.x0),
            y0: self.y0.min(other.y0),
            x1: self.x1.max(other.x1),
            y1: self.y1.max(other.y1),
        }
    }

    /// Whether `other` lies within, edges included.
    pub fn holds(self, other: Self) -> bool {
        self.x0 <= other.x0 && self.y0 <= other.y0 && self.x1 >= other.x1 && self.y1 >= other.y1
    }

    /// Takes a box in pixels of a `width_px` x `height_px` picture, clipping what hangs over the edge.
    ///
    /// # Errors
    /// `Kind::Geometry` when a corner is not finite, the corners are out of order, or the box lies outside
    /// the picture altogether.
    pub fn from_pixels(box_px: [f32; 4], width_px: u32, height_px: u32) -> Result<Self, ValueError> {
        let refuse = |expected: String| {
            let [x0, y0, x1, y1] = box_px;
            Err(ValueError::new(Kind::Geometry, "box", expected, format_args!("({x0}, {y0}, {x1}, {y1})")))
        };
        if box_px.iter().any(|v| !v.is_finite()) {
            return refuse("four finite numbers x0,y0,x1,y1".into());
        }
        let [x0, y0, x1, y1] = box_px;
        if x0 >= x1 || y0 >= y1 {
            return refuse("x0 < x1 and y0 < y1".into());
        }
        let (w, h) = (width_px as f32, height_px as f32);
        if x1 <= 0.0 || y1 <= 0.0 || x0 >= w || y0 >= h {
            return refuse(format!("a box that meets the {width_px}x{height_px} picture"));
        }
        Ok(Self {
            x0: x0.clamp(0.0, w) / w,
            y0: y0.clamp(0.0, h) / h,
            x1: x1.clamp(0.0, w) / w,
            y1: y1.clamp(0.0, h) / h,
        })
    }

    /// The same box in pixels of a `width_px` x `height_px` picture: `[x0, y0, x1, y1]`.
    pub fn to_pixels(self, width_px: u32, height_px: u32) -> [f32; 4] {
        let (w, h) = (width_px as f32, height_px as f32);
        [self.x0 * w, self.y0 * h, self.x1 * w, self.y1 * h]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_clipped_or_refused_with_a_reason() {
        let clipped = NormBox::from_pixels([-10.0, 0.0, 50.0, 100.0], 100, 100).unwrap();
        assert_eq!(clipped, NormBox { x0: 0.0, y0: 0.0, x1: 0.5, y1: 1.0 });
        for (name, bad) in [
            ("unordered", [50.0, 0.0, 10.0, 10.0]),
            ("outside", [200.0, 0.0, 300.0, 10.0]),
            ("not finite", [f32::NAN, 0.0, 1.0, 1.0]),
        ] {
            let error = NormBox::from_pixels(bad, 100, 100).expect_err(name);
            assert_eq!(error.kind(), Kind::Geometry, "{name}");
            assert!(error.to_string().starts_with("box: expected"), "{name}: {error}");
        }
    }

    #[test]
    fn points_outside_the_picture_are_refused() {
        assert!(NormPoint::from_pixels(100.0, 50.0, 100, 100).is_ok());
        assert!(NormPoint::from_pixels(100.5, 50.0, 100, 100).is_err());
        assert!(NormPoint::from_pixels(f32::INFINITY, 50.0, 100, 100).is_err());
    }
}

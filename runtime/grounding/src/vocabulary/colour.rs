/// A colour's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Colour {
    Red,
    Orange,
    Yellow,
    Green,
    Cyan,
    Blue,
    Purple,
    Pink,
    Brown,
    Black,
    White,
    Grey,
}

/// How bright.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Tone {
    Dark,
    Bright,
}

/// Below this a colour does not count as the one named.
pub(super) const FITS: f32 = 0.3;

/// Hue in degrees, saturation and value in `[0, 1]`.
fn hsv(rgb: [u8; 3]) -> [f32; 3] {
    let [r, g, b] = rgb.map(|v| f32::from(v) / 255.0);
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let span = most - least;
    if span <= 0.0 {
        return [0.0, 0.0, most];
    }
    let sixth = if most == r {
        (g - b) / span
    } else if most == g {
        2.0 + (b - r) / span
    } else {
        4.0 + (r - g) / span
    };
    [(sixth * 60.0).rem_euclid(360.0), span / most, most]
}

impl Colour {
    /// How well a mean colour bears the name, in `[0, 1]`.
    ///
    /// Means over an object are duller than what people name, so a third of full saturation is enough for certainty.
    pub fn fit(self, rgb: [u8; 3]) -> f32 {
        let [hue, saturation, value] = hsv(rgb);
        let up = |v: f32, from: f32, to: f32| ((v - from) / (to - from)).clamp(0.0, 1.0);
        let down = |v: f32, from: f32, to: f32| 1.0 - up(v, from, to);
        // 1 within the middle half of the width, 0 beyond the whole.
        let around = |centre: f32, reach: f32| {
            let off = (hue - centre + 180.0).rem_euclid(360.0) - 180.0;
            down(off.abs(), reach / 2.0, reach)
        };
        let vivid = up(saturation, 0.12, 0.35) * up(value, 0.12, 0.3);
        let grey = down(saturation, 0.12, 0.3);
        match self {
            Self::Red => around(0.0, 24.0) * vivid * up(saturation, 0.35, 0.55),
            Self::Orange => around(28.0, 20.0) * vivid * up(value, 0.5, 0.7) * up(saturation, 0.35, 0.55),
            Self::Brown => around(25.0, 26.0) * vivid * down(value, 0.55, 0.75),
            Self::Yellow => around(54.0, 20.0) * vivid * up(value, 0.35, 0.55),
            Self::Green => around(120.0, 60.0) * vivid,
            Self::Cyan => around(182.0, 26.0) * vivid,
            Self::Blue => around(225.0, 44.0) * vivid,
            Self::Purple => around(280.0, 34.0) * vivid,
            Self::Pink => {
                let magenta = around(325.0, 30.0) * vivid;
                let pale_red = around(355.0, 25.0)
                    * up(value, 0.6, 0.8)
                    * up(saturation, 0.12, 0.25)
                    * down(saturation, 0.45, 0.65);
                magenta.max(pale_red)
            }
            Self::Black => down(value, 0.16, 0.32),
            Self::White => grey * up(value, 0.68, 0.85),
            Self::Grey => grey * up(value, 0.16, 0.32) * down(value, 0.72, 0.88),
        }
    }
}

impl Tone {
    pub(super) fn fits(self, rgb: [u8; 3]) -> bool {
        let [_, _, value] = hsv(rgb);
        match self {
            Self::Dark => value < 0.4,
            Self::Bright => value > 0.6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_have_the_names_people_give_them() {
        use Colour::{Black, Blue, Brown, Cyan, Green, Grey, Orange, Pink, Purple, Red, White, Yellow};
        let all = [Red, Orange, Yellow, Green, Cyan, Blue, Purple, Pink, Brown, Black, White, Grey];
        for (rgb, name) in [
            ([220, 30, 30], Red),
            ([140, 40, 45], Red),
            ([240, 140, 20], Orange),
            ([235, 215, 40], Yellow),
            ([40, 160, 60], Green),
            ([90, 130, 70], Green),
            ([30, 200, 210], Cyan),
            ([30, 60, 200], Blue),
            ([70, 90, 140], Blue),
            ([130, 40, 180], Purple),
            ([240, 150, 170], Pink),
            ([230, 40, 150], Pink),
            ([110, 70, 40], Brown),
            ([20, 20, 25], Black),
            ([235, 235, 230], White),
            ([128, 128, 130], Grey),
        ] {
            let best = all.into_iter().max_by(|a, b| a.fit(rgb).total_cmp(&b.fit(rgb))).unwrap();
            assert_eq!(best, name, "{rgb:?}");
            assert!(name.fit(rgb) >= FITS, "{rgb:?}: {}", name.fit(rgb));
        }
        assert!(Red.fit([128, 120, 120]) < FITS, "a dull grey is not red");
        assert!(Tone::Dark.fits([20, 20, 90]) && Tone::Bright.fits([250, 250, 20]));
    }
}

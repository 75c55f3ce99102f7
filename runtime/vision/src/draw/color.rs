use sightline_core::{ColorMatrix, ColorRange};

/// A colour, 8 bits a channel, sRGB as cameras deliver it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Color {
    /// Red.
    pub r: u8,
    /// Green.
    pub g: u8,
    /// Blue.
    pub b: u8,
}

impl Color {
    /// Black.
    pub const BLACK: Self = Self::new(0, 0, 0);
    /// White.
    pub const WHITE: Self = Self::new(255, 255, 255);

    /// From its three channels.
    pub const fn new(r: u8, g: u8, b: u8) -> Self {
        Self { r, g, b }
    }

    /// Black or white, whichever is easier to read on this colour.
    pub fn contrasting(self) -> Self {
        let luma = 299 * u32::from(self.r) + 587 * u32::from(self.g) + 114 * u32::from(self.b);
        if luma > 140_000 { Self::BLACK } else { Self::WHITE }
    }

    /// Y, U, V as a picture with this colour encoding stores them (ITU-T H.273).
    pub fn to_yuv(self, matrix: ColorMatrix, range: ColorRange) -> [u8; 3] {
        let ([kr, kb], [black, luma_span, chroma_span]) = encoding(matrix, range);
        let [r, g, b] = [self.r, self.g, self.b].map(|channel| f64::from(channel) / 255.0);
        let y = kr * r + (1.0 - kr - kb) * g + kb * b;
        let u = (b - y) / (2.0 * (1.0 - kb));
        let v = (r - y) / (2.0 * (1.0 - kr));
        [black + luma_span * y, 128.0 + chroma_span * u, 128.0 + chroma_span * v]
            .map(|value| value.round().clamp(0.0, 255.0) as u8)
    }
}

const PALETTE: [Color; 12] = [
    Color::new(255, 75, 60),
    Color::new(40, 150, 255),
    Color::new(60, 205, 80),
    Color::new(255, 205, 40),
    Color::new(190, 80, 240),
    Color::new(0, 215, 215),
    Color::new(255, 140, 20),
    Color::new(255, 100, 190),
    Color::new(160, 235, 50),
    Color::new(110, 95, 220),
    Color::new(0, 150, 120),
    Color::new(185, 110, 60),
];

/// The colour of an object: twelve that are easy to tell apart, then paler and darker ones of the same hues.
pub fn palette(id: u32) -> Color {
    let Color { r, g, b } = PALETTE[(id % 12) as usize];
    let shade = |channel: u8| match (id / 12) % 3 {
        0 => channel,
        1 => channel / 2 + 127,
        _ => channel / 2,
    };
    Color::new(shade(r), shade(g), shade(b))
}

/// Red's and blue's share of luma; the luma of black, and the spans of luma and chroma (ITU-T H.273).
pub(crate) fn encoding(matrix: ColorMatrix, range: ColorRange) -> ([f64; 2], [f64; 3]) {
    let shares = match matrix {
        ColorMatrix::Bt601 => [0.299, 0.114],
        ColorMatrix::Bt709 => [0.2126, 0.0722],
        ColorMatrix::Bt2020 => [0.2627, 0.0593],
    };
    let spans = match range {
        ColorRange::Limited => [16.0, 219.0, 224.0],
        ColorRange::Full => [0.0, 255.0, 255.0],
    };
    (shares, spans)
}

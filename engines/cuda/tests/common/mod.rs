//! Pictures and logits of no meaning.
#![allow(dead_code)]

use sightline_core::{ColorMatrix, ColorRange, Filter, ImageSpec, Picture, PixelFormat, Plane};

/// The same numbers every time.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }
    /// `[-1, 1)`.
    pub(crate) fn float(&mut self) -> f32 {
        self.next() as f32 / 2_147_483_648.0 - 1.0
    }
    pub(crate) fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }
}

/// Smooth blobs, positive inside; `[height,width]`.
pub(crate) fn blobs(numbers: &mut Numbers, width: usize, height: usize) -> Vec<f32> {
    let centres: Vec<[f32; 3]> = (0..3)
        .map(|_| {
            let [x, y, r] = [(); 3].map(|()| numbers.float());
            [(x + 1.0) / 2.0 * width as f32, (y + 1.0) / 2.0 * height as f32, (r + 1.5) * 0.12 * width as f32]
        })
        .collect();
    (0..width * height)
        .map(|at| {
            let (x, y) = ((at % width) as f32, (at / width) as f32);
            let near = centres.iter().map(|[cx, cy, r]| r - ((x - cx).powi(2) + (y - cy).powi(2)).sqrt());
            near.fold(f32::MIN, f32::max) + 0.1 * numbers.float()
        })
        .collect()
}

/// A picture that owns its bytes.
#[derive(Clone)]
pub(crate) struct Owned {
    pub(crate) format: PixelFormat,
    pub(crate) size: (u32, u32),
    pub(crate) planes: Vec<(Vec<u8>, usize)>,
    pub(crate) color: (ColorMatrix, ColorRange),
}

impl Owned {
    /// Noise within `16..=235`, so that no converter has to clip; `padding` bytes behind each row.
    pub(crate) fn noise(format: PixelFormat, size: (u32, u32), padding: usize, seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let planes = (0..format.planes()).map(|plane| {
            let (row, rows) = format.plane_extent(plane, size.0, size.1);
            // No two planes alike, or one's stride would do for the other.
            let padding = padding + plane;
            ((0..(row + padding) * rows).map(|_| (16 + numbers.next() % 220) as u8).collect(), row + padding)
        });
        Self { format, size, planes: planes.collect(), color: Default::default() }
    }

    /// Waves, as a camera's picture has them more than noise.
    pub(crate) fn waves(format: PixelFormat, size: (u32, u32), seed: u64) -> Self {
        let mut picture = Self::noise(format, size, 3, seed);
        for (plane, (data, stride)) in picture.planes.iter_mut().enumerate() {
            for (at, byte) in data.iter_mut().enumerate() {
                let (x, y) = ((at % *stride) as f32, (at / *stride) as f32);
                let wave = (x * 0.11 + plane as f32).sin() + (y * 0.07 + x * 0.02).cos();
                *byte = (126.0 + 45.0 * wave + f32::from(*byte % 16)) as u8;
            }
        }
        picture
    }

    pub(crate) fn picture(&self) -> Picture<'_> {
        let planes: Vec<_> =
            self.planes.iter().map(|(data, stride)| Plane { data, stride_bytes: *stride }).collect();
        let picture = Picture::new(self.format, self.size.0, self.size.1, &planes).unwrap();
        picture.with_color(self.color.0, self.color.1)
    }
}

pub(crate) fn spec(width_px: usize, height_px: usize, filter: Filter) -> ImageSpec {
    ImageSpec { height_px, width_px, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], filter }
}

pub(crate) const COLOURS: [(ColorMatrix, ColorRange); 4] = [
    (ColorMatrix::Bt601, ColorRange::Limited),
    (ColorMatrix::Bt601, ColorRange::Full),
    (ColorMatrix::Bt709, ColorRange::Limited),
    (ColorMatrix::Bt2020, ColorRange::Full),
];

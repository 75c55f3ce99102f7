//! Every pixel format, with strides and odd sizes, against a naive f64 conversion.
#![allow(clippy::unwrap_used)]

mod common;

use common::noise;
use proptest::prelude::*;
use sightline_core::{ColorMatrix, ColorRange, Filter, ImageSpec, Picture, PixelFormat, Plane};
use sightline_vision::Preprocessor;

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// A value is at most 2.7, its last bit 2.4e-7.
const LAST_BITS: f32 = 5e-7;

struct Owned {
    format: PixelFormat,
    size: (u32, u32),
    planes: Vec<(Vec<u8>, usize)>,
}

impl Owned {
    /// Noise in every plane, padding included; the last row has none.
    fn new(format: PixelFormat, width: u32, height: u32, padding: usize) -> Self {
        let planes = (0..format.planes()).map(|plane| {
            let (row, rows) = format.plane_extent(plane, width, height);
            let stride = row + padding;
            let len = stride * (rows - 1) + row;
            // `yuv` clips luma below black, so that none is made here: 16..=255, chroma alike.
            let level = |at| (noise(at as u32, plane as u32, 0, 1)).max(16);
            ((0..len).map(level).collect(), stride)
        });
        Self { format, size: (width, height), planes: planes.collect() }
    }

    fn picture<'a>(&'a self, planes: &'a mut Vec<Plane<'a>>) -> Picture<'a> {
        planes.extend(self.planes.iter().map(|(data, stride)| Plane { data, stride_bytes: *stride }));
        Picture::new(self.format, self.size.0, self.size.1, planes).unwrap()
    }

    /// R G B in levels, not rounded.
    fn rgb(&self, x: usize, y: usize, matrix: ColorMatrix, range: ColorRange) -> [f64; 3] {
        let at =
            |plane: usize, x: usize, y: usize| f64::from(self.planes[plane].0[y * self.planes[plane].1 + x]);
        let yuv = |[y, u, v]: [f64; 3]| {
            let (kr, kb) = match matrix {
                ColorMatrix::Bt601 => (0.299, 0.114),
                ColorMatrix::Bt709 => (0.2126, 0.0722),
                ColorMatrix::Bt2020 => (0.2627, 0.0593),
            };
            let (y, u, v) = match range {
                ColorRange::Limited => ((y - 16.0) / 219.0, (u - 128.0) / 224.0, (v - 128.0) / 224.0),
                ColorRange::Full => (y / 255.0, (u - 128.0) / 255.0, (v - 128.0) / 255.0),
            };
            let (r, b) = (y + 2.0 * (1.0 - kr) * v, y + 2.0 * (1.0 - kb) * u);
            let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
            [r, g, b].map(|channel| (channel * 255.0).clamp(0.0, 255.0))
        };
        match self.format {
            PixelFormat::Nv12 => yuv([at(0, x, y), at(1, x / 2 * 2, y / 2), at(1, x / 2 * 2 + 1, y / 2)]),
            PixelFormat::I420 => yuv([at(0, x, y), at(1, x / 2, y / 2), at(2, x / 2, y / 2)]),
            PixelFormat::Yuy2 => yuv([at(0, x * 2, y), at(0, x / 2 * 4 + 1, y), at(0, x / 2 * 4 + 3, y)]),
            PixelFormat::Rgb => [0, 1, 2].map(|c| at(0, x * 3 + c, y)),
            PixelFormat::Bgr => [2, 1, 0].map(|c| at(0, x * 3 + c, y)),
            PixelFormat::Rgbx | PixelFormat::Rgba => [0, 1, 2].map(|c| at(0, x * 4 + c, y)),
            PixelFormat::Bgrx | PixelFormat::Bgra => [2, 1, 0].map(|c| at(0, x * 4 + c, y)),
        }
    }
}

fn spec(width_px: u32, height_px: u32, filter: Filter) -> ImageSpec {
    ImageSpec { height_px: height_px as usize, width_px: width_px as usize, mean: MEAN, std: STD, filter }
}

#[test]
fn at_the_models_size_nothing_is_resampled() {
    let (matrices, ranges) = (
        [ColorMatrix::Bt601, ColorMatrix::Bt709, ColorMatrix::Bt2020],
        [ColorRange::Limited, ColorRange::Full],
    );
    for format in PixelFormat::ALL {
        for (width, height, padding) in
            [(1, 1, 0), (1, 2, 3), (2, 1, 0), (3, 3, 1), (64, 48, 0), (63, 47, 0), (127, 33, 5), (130, 2, 2)]
        {
            let owned = Owned::new(format, width, height, padding);
            for (matrix, range) in matrices.iter().flat_map(|m| ranges.iter().map(move |r| (*m, *r))) {
                let mut planes = Vec::new();
                let picture = owned.picture(&mut planes).with_color(matrix, range);
                let pixels = (width * height) as usize;
                let mut out = vec![f32::NAN; 3 * pixels];
                Preprocessor::new(&spec(width, height, Filter::Bicubic)).run(&picture, &mut out).unwrap();
                let mut worst = 0.0_f64;
                for (index, channel) in (0..pixels).flat_map(|index| (0..3).map(move |c| (index, c))) {
                    let at = (index % width as usize, index / width as usize);
                    let expected = owned.rgb(at.0, at.1, matrix, range)[channel];
                    let got = out[channel * pixels + index];
                    if format.planes() == 1 && format != PixelFormat::Yuy2 {
                        let published = (expected as f32 / 255.0 - MEAN[channel]) / STD[channel];
                        assert!((got - published).abs() <= LAST_BITS, "{format:?} {width}x{height}");
                    }
                    let level = f64::from(got * STD[channel] + MEAN[channel]) * 255.0;
                    worst = worst.max((level - expected).abs());
                }
                assert!(
                    worst < 1.6,
                    "{format:?} {width}x{height}+{padding} {matrix:?} {range:?}: off by {worst}"
                );
            }
        }
    }
}

#[test]
fn the_formats_agree_after_resampling_whatever_the_stride() {
    for (width, height) in [(37, 23), (1, 1), (64, 3), (5, 200)] {
        for filter in [Filter::Bicubic, Filter::Bilinear] {
            let run = |format, padding: usize, bytes: &dyn Fn(u32, u32) -> Vec<u8>| {
                let mut data = Vec::new();
                for y in 0..height {
                    data.extend((0..width).flat_map(|x| bytes(x, y)));
                    data.extend(std::iter::repeat_n(9, padding));
                }
                let row = data.len() / height as usize;
                data.truncate(data.len() - padding);
                let picture =
                    Picture::new(format, width, height, &[Plane { data: &data, stride_bytes: row }]).unwrap();
                let mut out = vec![0.0; 3 * 24 * 16];
                Preprocessor::new(&spec(24, 16, filter)).run(&picture, &mut out).unwrap();
                out
            };
            let [r, g, b] = [0, 1, 2].map(|channel| move |x, y| noise(x, y, channel, 1));
            let expected = run(PixelFormat::Rgbx, 0, &|x, y| vec![r(x, y), g(x, y), b(x, y), 7]);
            for padding in [0, 4, 5] {
                let name = format!("{width}x{height}+{padding}");
                let same = |format, bytes: &dyn Fn(u32, u32) -> Vec<u8>| {
                    assert!(run(format, padding, bytes) == expected, "{format:?} {name}");
                };
                same(PixelFormat::Rgb, &|x, y| vec![r(x, y), g(x, y), b(x, y)]);
                same(PixelFormat::Bgr, &|x, y| vec![b(x, y), g(x, y), r(x, y)]);
                same(PixelFormat::Rgba, &|x, y| vec![r(x, y), g(x, y), b(x, y), 255]);
                same(PixelFormat::Bgrx, &|x, y| vec![b(x, y), g(x, y), r(x, y), 0]);
                same(PixelFormat::Bgra, &|x, y| vec![b(x, y), g(x, y), r(x, y), 3]);
            }
        }
    }
}

#[test]
fn an_output_of_the_wrong_size_is_refused() {
    let owned = Owned::new(PixelFormat::Rgb, 4, 4, 0);
    let mut planes = Vec::new();
    let picture = owned.picture(&mut planes);
    let error = Preprocessor::new(&spec(8, 8, Filter::Bilinear)).run(&picture, &mut [0.0; 3]).expect_err("3");
    assert_eq!(error.kind(), sightline_core::Kind::Size);
    assert_eq!(error.to_string(), "preprocessed picture: expected 192 values for [3,8,8], got 3");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One preprocessor fed pictures of changing sizes and formats gives what a fresh one gives.
    #[test]
    fn scratch_carries_nothing_over(
        pictures in prop::collection::vec((0..9_usize, 1..90_u32, 1..90_u32, 0..6_usize), 1..5)
    ) {
        let spec = spec(32, 24, Filter::Bicubic);
        let mut kept = Preprocessor::new(&spec);
        for (format, width, height, padding) in pictures {
            let owned = Owned::new(PixelFormat::ALL[format], width, height, padding);
            let mut planes = Vec::new();
            let picture = owned.picture(&mut planes);
            let (mut a, mut b) = (vec![0.0; 3 * 32 * 24], vec![0.0; 3 * 32 * 24]);
            kept.run(&picture, &mut a).unwrap();
            Preprocessor::new(&spec).run(&picture, &mut b).unwrap();
            prop_assert!(a == b);
            prop_assert!(a.iter().all(|v| v.is_finite()));
        }
    }
}

//! Against Pillow, PyTorch and the DAVIS evaluation code; see `golden/make.py`.
#![allow(clippy::unwrap_used, clippy::type_complexity)]

mod common;
#[path = "golden/values.rs"]
mod values;

use common::{bits, noise, noise_map, noise_mask};
use sightline_core::{Filter, ImageSpec, Mask, Picture, PixelFormat, Plane, Rle};
use sightline_vision::{MaskUpscaler, Preprocessor, davis, downscale, resize_mask};

/// A spec whose output is `v / 255`.
fn plain(width_px: usize, height_px: usize, filter: Filter) -> ImageSpec {
    ImageSpec { height_px, width_px, mean: [0.0; 3], std: [1.0; 3], filter }
}

#[test]
fn rgb_is_resampled_as_pillow_does() {
    for (width, height, out_width, out_height, bicubic, tolerance, expected) in values::PILLOW {
        let filter = if *bicubic { Filter::Bicubic } else { Filter::Bilinear };
        let name = format!("{width}x{height} to {out_width}x{out_height} {filter:?}");
        let spec = plain(*out_width as usize, *out_height as usize, filter);
        let stride = *width as usize * 4 + 8;
        let mut data = vec![0; stride * *height as usize];
        for y in 0..*height {
            for x in 0..*width {
                for c in 0..3 {
                    data[y as usize * stride + (x * 4 + c) as usize] = noise(x, y, c, 1);
                }
            }
        }
        let planes = [Plane { data: &data, stride_bytes: stride }];
        let picture = Picture::new(PixelFormat::Rgbx, *width, *height, &planes).unwrap();
        let pixels = (out_width * out_height) as usize;
        let mut out = vec![0.0; 3 * pixels];
        Preprocessor::new(&spec).run(&picture, &mut out).unwrap();
        for (index, expected) in expected.chunks(3).enumerate() {
            for (channel, expected) in expected.iter().enumerate() {
                let got = (out[channel * pixels + index * 7919 % pixels] * 255.0).round() as u8;
                assert!(
                    got.abs_diff(*expected) <= *tolerance,
                    "{name}: pixel {index}: {got}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn maps_are_downscaled_as_torch_does() {
    for (width, height, out_width, out_height, expected) in values::DOWNSCALED {
        let map: Vec<f32> = noise_map(*width as u32, *height as u32, 0, 1)
            .into_iter()
            .map(|v| f32::from(v) / 255.0 * 20.0 - 10.0)
            .collect();
        let got = downscale(&map, *width, *height, *out_width, *out_height);
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(*expected) {
            assert!((got - expected).abs() < 3e-5, "{width}x{height}: {got}, not {expected}");
        }
    }
}

#[test]
fn mask_prompts_are_resized_as_torch_does() {
    for (width, height, block, out_width, out_height, expected) in values::RESIZED {
        let mask = noise_mask(*width, *height, *block, 0, 127);
        let got = resize_mask(&mask, *out_width, *out_height);
        let got: Vec<u8> = got.into_iter().map(|v| v as u8).collect();
        assert!(
            got == bits(expected, out_width * out_height),
            "{width}x{height} to {out_width}x{out_height}"
        );
    }
}

#[test]
fn logits_are_upscaled_as_torch_does() {
    for (width, height, out_width, out_height, expected) in values::UPSCALED {
        let map = noise_map(*width as u32, *height as u32, 0, 1);
        let logits: Vec<f32> = map.into_iter().map(|v| f32::from(v) - 127.0).collect();
        let got = MaskUpscaler::new(*width, *height).run(&logits, *out_width, *out_height).unwrap();
        let expected = bits(expected, (out_width * out_height) as usize);
        let expected = Mask::from_bytes(*out_width, *out_height, expected).unwrap();
        assert_eq!(got, Rle::encode(&expected), "{width}x{height} to {out_width}x{out_height}");
    }
}

#[test]
fn davis_measures_of_noise() {
    for (width, height, block, above, mixed_above, j, f) in values::DAVIS {
        let first = noise_mask(*width, *height, *block, 0, *above);
        let mixed = noise_mask(*width, *height, (*block / 3).max(1), 1, *mixed_above);
        let second = first.data().iter().zip(mixed.data()).map(|(a, b)| a ^ b).collect();
        let second = Mask::from_bytes(*width, *height, second).unwrap();
        let name = format!("{width}x{height} block {block}");
        assert!((davis::region_similarity(&first, &second).unwrap() - j).abs() < 1e-12, "{name}: J");
        let got = davis::boundary_f(&first, &second).unwrap();
        assert!((got - f).abs() < 1e-12, "{name}: F {got}, not {f}");
    }
}

/// From the official code, run on rectangles `[x0, y0, x1, y1)` of a 160x96 picture: truth, prediction, J, F.
const RECTANGLES: [(&str, [u32; 4], [u32; 4], f64, f64); 6] = [
    ("same", [20, 20, 80, 60], [20, 20, 80, 60], 1.0, 1.0),
    ("shifted", [20, 20, 80, 60], [24, 22, 84, 66], 0.7307692307692307, 0.31845597104945716),
    ("apart", [20, 20, 80, 60], [100, 50, 150, 90], 0.0, 0.0),
    ("whole picture has no boundary", [0, 0, 160, 96], [0, 0, 80, 96], 0.5, 0.0),
    ("empty truth", [0, 0, 0, 0], [10, 10, 20, 20], 0.0, 0.0),
    ("both empty", [0, 0, 0, 0], [0, 0, 0, 0], 1.0, 1.0),
];

#[test]
fn davis_measures_of_rectangles() {
    let draw = |[x0, y0, x1, y1]: [u32; 4]| {
        let mut mask = Mask::new(160, 96);
        for y in y0..y1 {
            for x in x0..x1 {
                mask.data_mut()[(y * 160 + x) as usize] = 1;
            }
        }
        mask
    };
    for (name, truth, pred, j, f) in RECTANGLES {
        let (truth, pred) = (draw(truth), draw(pred));
        assert!((davis::region_similarity(&pred, &truth).unwrap() - j).abs() < 1e-12, "{name}: J");
        let got = davis::boundary_f(&pred, &truth).unwrap();
        assert!((got - f).abs() < 1e-12, "{name}: F {got}, not {f}");
    }
    assert!(davis::boundary_f(&Mask::new(4, 4), &Mask::new(4, 5)).is_err());
    assert!(davis::region_similarity(&Mask::new(4, 4), &Mask::new(5, 4)).is_err());
}

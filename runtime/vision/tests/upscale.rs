//! The upscaler against naive models.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use sightline_core::{Kind, Mask, Rle};
use sightline_vision::MaskUpscaler;

/// Value at a pixel, in the float type given: `align_corners=False`, no antialiasing.
macro_rules! naive {
    ($name:ident, $float:ty) => {
        fn $name(logits: &[f32], low: (usize, usize), size: (u32, u32)) -> Vec<$float> {
            let tap = |at: u32, low: usize, high: u32| {
                let source = (low as $float / high as $float * (at as $float + 0.5) - 0.5).max(0.0);
                let index = (source as usize).min(low - 1);
                (index, (index + 1).min(low - 1), (source - index as $float).clamp(0.0, 1.0))
            };
            let mut out = Vec::new();
            for y in 0..size.1 {
                for x in 0..size.0 {
                    let (x0, x1, wx) = tap(x, low.0, size.0);
                    let (y0, y1, wy) = tap(y, low.1, size.1);
                    let at = |x: usize, y: usize| logits[y * low.0 + x] as $float;
                    let upper = (1.0 - wx) * at(x0, y0) + wx * at(x1, y0);
                    let lower = (1.0 - wx) * at(x0, y1) + wx * at(x1, y1);
                    out.push((1.0 - wy) * upper + wy * lower);
                }
            }
            out
        }
    };
}
naive!(naive_f32, f32);
naive!(naive_f64, f64);

prop_compose! {
    fn case()(low_width in 1..20_usize, low_height in 1..20_usize)(
        logits in prop::collection::vec(
            prop_oneof![3 => -20.0..20.0_f32, 2 => Just(-10.0_f32), 1 => Just(0.0), 1 => Just(10.0)],
            low_width * low_height,
        ),
        low in Just((low_width, low_height)),
        size in (1..70_u32, 1..70_u32),
    ) -> (Vec<f32>, (usize, usize), (u32, u32)) {
        (logits, low, size)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn equals_the_encoded_naive_mask((logits, low, size) in case()) {
        let got = MaskUpscaler::new(low.0, low.1).run(&logits, size.0, size.1).unwrap();
        let bytes = naive_f32(&logits, low, size).into_iter().map(|v| u8::from(v > 0.0)).collect();
        prop_assert_eq!(&got, &Rle::encode(&Mask::from_bytes(size.0, size.1, bytes).unwrap()));
        // In exact arithmetic only pixels on the very edge may differ.
        let mask = got.decode();
        for (value, set) in naive_f64(&logits, low, size).into_iter().zip(mask.data()) {
            prop_assert!(value.abs() < 1e-4 || (value > 0.0) == (*set == 1));
        }
    }

    #[test]
    fn scratch_carries_nothing_over(
        (first, low, size) in case(), (width, height) in (1..70_u32, 1..70_u32)
    ) {
        let mut kept = MaskUpscaler::new(low.0, low.1);
        kept.run(&first, size.0, size.1).unwrap();
        let second: Vec<f32> = first.iter().rev().map(|v| v - 5.0).collect();
        let expected = MaskUpscaler::new(low.0, low.1).run(&second, width, height).unwrap();
        prop_assert_eq!(kept.run(&second, width, height).unwrap(), expected);
    }
}

#[test]
fn named_cases() {
    let run = |value: f32| MaskUpscaler::new(4, 4).run(&[value; 16], 10, 6).unwrap();
    assert_eq!(run(-1.0), Rle::empty(10, 6));
    assert_eq!(run(0.0), Rle::empty(10, 6), "zero is not the object");
    assert_eq!(run(1.0).counts(), [0, 60]);
    for (name, got) in [
        ("logits", MaskUpscaler::new(4, 4).run(&[1.0; 15], 10, 6)),
        ("no logits", MaskUpscaler::new(0, 4).run(&[], 10, 6)),
        ("no width", MaskUpscaler::new(4, 4).run(&[1.0; 16], 0, 6)),
        ("too many pixels", MaskUpscaler::new(4, 4).run(&[1.0; 16], 1 << 16, 1 << 16)),
    ] {
        assert_eq!(got.expect_err(name).kind(), Kind::Size, "{name}");
    }
}

use sightline_core::Mask;

/// The weights of one output position: those of the inputs from `start` on.
struct Taps {
    start: usize,
    weights: Vec<f32>,
}

/// As `HelperInterpBase::_compute_indices_weights_aa` of PyTorch's `UpSampleKernel.cpp`, bilinear.
fn antialiased_taps(input: usize, output: usize) -> Vec<Taps> {
    let scale = input as f32 / output as f32;
    let support = scale.max(1.0);
    let inverse = 1.0 / support;
    (0..output)
        .map(|index| {
            let center = scale * (index as f32 + 0.5);
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let mut weights: Vec<f32> = (start..end)
                .map(|at| (1.0 - ((at as f32 - center + 0.5) * inverse).abs()).max(0.0))
                .collect();
            let total: f32 = weights.iter().sum();
            if total != 0.0 {
                weights.iter_mut().for_each(|weight| *weight /= total);
            }
            Taps { start, weights }
        })
        .collect()
}

/// Scales a row-major `[height, width]` f32 map to `[out_height, out_width]`, antialiased bilinear.
///
/// As PyTorch's `F.interpolate(mode="bilinear", antialias=True, align_corners=False)`; SAM2 makes the low-res
/// logits of a mask prompt with it. Any unit; values stay within the range of the input's. Allocates.
///
/// # Panics
/// When `map` does not hold `width * height` values or a side is 0.
pub fn downscale(map: &[f32], width: usize, height: usize, out_width: usize, out_height: usize) -> Vec<f32> {
    assert_eq!(map.len(), width * height, "map: expected {width}x{height} values");
    assert!(width.min(height).min(out_width).min(out_height) > 0, "map: expected no side to be 0");
    let columns = antialiased_taps(width, out_width);
    let rows = antialiased_taps(height, out_height);
    let mut narrowed = Vec::with_capacity(out_width * height);
    for row in map.chunks_exact(width) {
        narrowed.extend(columns.iter().map(|taps| {
            let inputs = &row[taps.start..];
            taps.weights.iter().zip(inputs).map(|(weight, value)| weight * value).sum::<f32>()
        }));
    }
    let mut out = vec![0.0_f32; out_width * out_height];
    for (to, taps) in out.chunks_exact_mut(out_width).zip(&rows) {
        let inputs = narrowed[taps.start * out_width..].chunks_exact(out_width);
        for (weight, from) in taps.weights.iter().zip(inputs) {
            for (to, value) in to.iter_mut().zip(from) {
                *to += weight * value;
            }
        }
    }
    out
}

/// Scales a mask prompt to a model's input: row-major `[height, width]` f32, 0 or 1.
///
/// Antialiased bilinear as [`downscale`] (up as well as down), 1 where the result is at least 0.5; what
/// `SAM2VideoPredictor.add_new_mask` does. Allocates.
///
/// # Panics
/// When a side of the mask or of the output is 0.
pub fn resize_mask(mask: &Mask, width: usize, height: usize) -> Vec<f32> {
    let map: Vec<f32> = mask.data().iter().map(|byte| f32::from(u8::from(*byte != 0))).collect();
    let (mask_width, mask_height) = (mask.width_px() as usize, mask.height_px() as usize);
    if (mask_width, mask_height) == (width, height) {
        return map;
    }
    let mut resized = downscale(&map, mask_width, mask_height, width, height);
    resized.iter_mut().for_each(|value| *value = if *value >= 0.5 { 1.0 } else { 0.0 });
    resized
}

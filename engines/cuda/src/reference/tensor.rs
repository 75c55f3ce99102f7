/// `min(max(v, -limit), limit)`; a NaN becomes `-limit`.
pub fn clamp(values: &mut [f32], limit: f32) {
    for value in values {
        let least = if *value > -limit { *value } else { -limit };
        *value = if least < limit { least } else { limit };
    }
}

/// To the nearest bfloat16, ties to even; a NaN stays one.
pub fn round_to_bf16(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = half::bf16::from_f32(*value).to_f32());
}

/// `values[c]` to every value of channel `c`; `tensor` is `[channels, ...]`.
///
/// # Panics
/// When there are no channels.
pub fn add_channels(tensor: &mut [f32], values: &[f32]) {
    let per_channel = tensor.len() / values.len();
    for (channel, value) in tensor.chunks_mut(per_channel.max(1)).zip(values) {
        channel.iter_mut().for_each(|to| *to += value);
    }
}

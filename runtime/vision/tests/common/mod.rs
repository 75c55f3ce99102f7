//! Pictures made by a hash, the same in `golden/make.py`.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use sightline_core::Mask;

/// One byte of white noise, constant over squares of `block` pixels.
pub fn noise(x: u32, y: u32, channel: u32, block: u32) -> u8 {
    let mut h = (x / block)
        .wrapping_mul(0x9E37_79B1)
        .wrapping_add((y / block).wrapping_mul(0x85EB_CA77))
        .wrapping_add(channel.wrapping_mul(0xC2B2_AE3D));
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h ^= h >> 12;
    (h >> 24) as u8
}

/// `[height, width]` of it.
pub fn noise_map(width: u32, height: u32, channel: u32, block: u32) -> Vec<u8> {
    (0..height).flat_map(|y| (0..width).map(move |x| noise(x, y, channel, block))).collect()
}

/// Set where the noise is above a level.
pub fn noise_mask(width: u32, height: u32, block: u32, seed: u32, above: u8) -> Mask {
    let bytes = noise_map(width, height, seed, block).into_iter().map(|v| u8::from(v > above)).collect();
    Mask::from_bytes(width, height, bytes).unwrap()
}

/// Unpacks a golden bit string.
pub fn bits(hex: &str, len: usize) -> Vec<u8> {
    let nibbles = hex.chars().map(|digit| digit.to_digit(16).unwrap());
    nibbles.flat_map(|nibble| (0..4).rev().map(move |bit| (nibble >> bit & 1) as u8)).take(len).collect()
}

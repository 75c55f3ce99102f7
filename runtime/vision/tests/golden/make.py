"""Writes values.rs: what Pillow, PyTorch and the DAVIS formulas give for pictures made by a hash.

Made with pillow 13.0.0, torch 2.13.0, numpy 2.4.6, opencv 5.0.0:
    python3 runtime/vision/tests/golden/make.py > runtime/vision/tests/golden/values.rs
"""
import cv2
import numpy as np
import torch
from PIL import Image


def noise(width, height, channels, block=1, seed=0):
    """[height, width, channels] u8, the same in tests/common/mod.rs."""
    y, x, c = np.meshgrid(*(np.arange(n, dtype=np.uint32) for n in (height, width, channels)), indexing="ij")
    with np.errstate(over="ignore"):
        h = (x // block * np.uint32(0x9E3779B1) + y // block * np.uint32(0x85EBCA77)
             + (c + np.uint32(seed)) * np.uint32(0xC2B2AE3D))
        h = (h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
        h ^= h >> np.uint32(12)
    return (h >> np.uint32(24)).astype(np.uint8)


def mask(width, height, block, seed, above):
    return noise(width, height, 1, block, seed)[..., 0] > above


def bits(array):
    return '"' + np.packbits(array.astype(np.uint8).ravel()).tobytes().hex() + '"'


def seg2bmap(seg):
    e, s, se = np.zeros_like(seg), np.zeros_like(seg), np.zeros_like(seg)
    e[:, :-1], s[:-1, :], se[:-1, :-1] = seg[:, 1:], seg[1:, :], seg[1:, 1:]
    b = seg ^ e | seg ^ s | seg ^ se
    b[-1, :] = seg[-1, :] ^ e[-1, :]
    b[:, -1] = seg[:, -1] ^ s[:, -1]
    b[-1, -1] = 0
    return b


def measures(pred, truth):
    union = (pred | truth).sum()
    j = 1.0 if union == 0 else (pred & truth).sum() / union
    r = int(np.ceil(0.008 * np.linalg.norm(pred.shape)))
    span = np.arange(-r, r + 1)
    disk = (span[:, None] ** 2 + span[None, :] ** 2 <= r * r).astype(np.uint8)
    p, t = seg2bmap(pred), seg2bmap(truth)
    p_near = p & cv2.dilate(t.astype(np.uint8), disk).astype(bool)
    t_near = t & cv2.dilate(p.astype(np.uint8), disk).astype(bool)
    if p.sum() == 0 or t.sum() == 0:
        return j, float(p.sum() == t.sum())
    precision, recall = p_near.sum() / p.sum(), t_near.sum() / t.sum()
    return j, 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


print("// Written by make.py; do not edit.")
print("\n/// Picture, model, bicubic, tolerance in levels, R G B of the output pixels `i * 7919 % pixels`.")
print("#[rustfmt::skip]\npub(crate) const PILLOW: &[(u32, u32, u32, u32, bool, u8, &[u8])] = &[")
for (w, h, dw, dh) in [(37, 23, 16, 12), (5, 3, 8, 8), (1, 1, 4, 4), (64, 48, 32, 48), (48, 64, 48, 20),
                       (1280, 720, 512, 512), (640, 481, 1024, 1024)]:
    for name, how in (("true", Image.BICUBIC), ("false", Image.BILINEAR)):
        out = np.array(Image.fromarray(noise(w, h, 3)).resize((dw, dh), how)).reshape(-1, 3)
        picked = out[np.arange(min(64, dw * dh)) * 7919 % (dw * dh)].ravel()
        print(f"    ({w}, {h}, {dw}, {dh}, {name}, 1, &{picked.tolist()}),")
print("];\n\n/// Map, output, values of `F.interpolate(antialias=True)` for `noise / 255 * 20 - 10`.")
print("#[rustfmt::skip]\npub(crate) const DOWNSCALED: &[(usize, usize, usize, usize, &[f32])] = &[")
for (w, h, dw, dh) in [(16, 12, 4, 3), (37, 23, 10, 7), (5, 4, 8, 7), (256, 256, 3, 3)]:
    m = torch.from_numpy(noise(w, h, 1)[..., 0].astype(np.float32)) / 255 * 20 - 10
    out = torch.nn.functional.interpolate(m[None, None], (dh, dw), mode="bilinear", antialias=True)
    print(f"    ({w}, {h}, {dw}, {dh}, &{[round(v, 5) for v in out.flatten().tolist()]}),")
print("];\n\n/// Mask, block, model, bits of `F.interpolate(antialias=True) >= 0.5`, first in the highest bit.")
print("#[rustfmt::skip]\npub(crate) const RESIZED: &[(u32, u32, u32, usize, usize, &str)] = &[")
for (w, h, block, dw, dh) in [(37, 23, 3, 64, 48), (100, 60, 5, 32, 32), (854, 480, 50, 64, 64), (7, 5, 1, 7, 5)]:
    m = torch.from_numpy(mask(w, h, block, 0, 127).astype(np.float32))
    out = torch.nn.functional.interpolate(m[None, None], (dh, dw), mode="bilinear", antialias=True)
    print(f"    ({w}, {h}, {block}, {dw}, {dh}, {bits(out.numpy() >= 0.5)}),")
print("];\n\n/// Logits, picture, bits of `F.interpolate(mode=\"bilinear\") > 0` for `noise - 127`.")
print("#[rustfmt::skip]\npub(crate) const UPSCALED: &[(usize, usize, u32, u32, &str)] = &[")
for (w, h, dw, dh) in [(8, 6, 50, 40), (16, 16, 41, 23), (1, 1, 3, 2), (12, 9, 7, 5), (3, 1, 32, 9)]:
    m = torch.from_numpy(noise(w, h, 1)[..., 0].astype(np.float32)) - 127
    out = torch.nn.functional.interpolate(m[None, None], (dh, dw), mode="bilinear", align_corners=False)
    print(f"    ({w}, {h}, {dw}, {dh}, {bits(out.numpy() > 0)}),")
print("];\n\n/// Size, block, two thresholds of masks with seeds 0 and 1 (the second mixed into the first), J, F.")
print("#[rustfmt::skip]\npub(crate) const DAVIS: &[(u32, u32, u32, u8, u8, f64, f64)] = &[")
for (w, h, block, a, b) in [(64, 48, 1, 200, 128), (64, 48, 5, 128, 200), (160, 96, 7, 100, 160), (854, 480, 40, 128, 180),
                            (854, 480, 9, 128, 250), (854, 480, 1, 250, 254), (1, 9, 1, 128, 200), (9, 1, 1, 128, 200),
                            (33, 65, 4, 254, 100), (200, 100, 10, 0, 253), (1920, 1080, 64, 128, 200)]:
    first = mask(w, h, block, 0, a)
    second = first ^ mask(w, h, max(block // 3, 1), 1, b)
    j, f = measures(first, second)
    print(f"    ({w}, {h}, {block}, {a}, {b}, {float(j)!r}, {float(f)!r}),")
print("];")

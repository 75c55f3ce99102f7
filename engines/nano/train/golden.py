"""python -m train.golden MODEL --out ../golden: frames drawn from nothing but numbers, prompts, and the logits of the
onnxruntime loop on them. The Rust tracker must reproduce logits.npz (arrays logits_<frame>_<object>, [h,w] f32). Frames
have the model's own size, so that no resampling enters; `sightline models verify nano` has the set built in."""
import argparse
import json
import os

import cv2
import numpy as np
from PIL import Image

from .run_onnx import Model, Tracker

H, W, FRAMES = 192, 320, 12


def frames():
    """Yields (rgb [H,W,3] u8, mask of the disc, mask of the wagon)."""
    rng = np.random.default_rng(11)
    back = cv2.resize(rng.uniform(60, 190, (6, 14, 3)), (W + 60, H + 20), interpolation=cv2.INTER_CUBIC)
    back = np.round(back / 6) * 6         # few colours: small PNGs
    tex = cv2.resize(rng.uniform(0, 90, (9, 9, 3)) + (150, 40, 0), (W, H), interpolation=cv2.INTER_NEAREST)
    for t in range(FRAMES):
        im = back[t:t + H, 5 * t:5 * t + W].copy()
        disc, wagon = np.zeros((H, W), np.uint8), np.zeros((H, W), np.uint8)
        cv2.circle(disc, (90 + 10 * t, 75 + int(18 * np.sin(t / 2))), 25, 1, -1)
        x = 220 - 9 * t
        cv2.rectangle(wagon, (x, 117), (x + 69, 147), 1, -1)
        cv2.circle(wagon, (x + 15, 150), 12, 1, -1)
        cv2.circle(wagon, (x + 54, 150), 12, 1, -1)
        im[disc > 0] = np.roll(tex, (4 * t, 10 * t), (0, 1))[disc > 0]
        im[wagon > 0] = (200, 60, 40)
        im[147:, :][wagon[147:] > 0] = (25, 25, 30)
        yield np.clip(im, 0, 255).astype(np.uint8), disc > 0, wagon > 0


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    os.makedirs(os.path.join(a.out, "frames"), exist_ok=True)
    tk, out, prompts = Tracker(Model(a.model)), {}, []
    for t, (im, disc, wagon) in enumerate(frames()):
        Image.fromarray(im).save(os.path.join(a.out, "frames", f"{t:05d}.png"), optimize=True)
        tk.frame(im)
        if t == 0:
            ys, xs = np.nonzero(disc)
            box = [int(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]
            prompts = [dict(frame=0, object=1, box=box), dict(frame=0, object=2, mask="wagon.png"), dict(frame=0, object=3, points=[[90, 75]], labels=[1])]
            Image.fromarray(wagon.astype(np.uint8) * 255).save(os.path.join(a.out, "wagon.png"))
            got = {1: tk.prompt_points(1, [box[:2], box[2:]], [2, 3]), 2: tk.prompt_mask(2, wagon), 3: tk.prompt_points(3, [[90, 75]], [1])}
        else:
            got = {o: tk.step(o) for o in (1, 2, 3)}
        for o, gt in ((1, disc), (2, wagon), (3, disc)):
            out[f"logits_{t}_{o}"] = np.ascontiguousarray(got[o], np.float32)
            m = tk.full(got[o])
            print(t, o, f"J {(m & gt).sum() / max(1, (m | gt).sum()):.3f}")
    json.dump(prompts, open(os.path.join(a.out, "prompts.json"), "w"), indent=1)
    np.savez_compressed(os.path.join(a.out, "logits.npz"), **out)


if __name__ == "__main__":
    main()

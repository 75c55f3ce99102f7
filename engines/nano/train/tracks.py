"""python -m train.tracks POOL [MODEL]: real objects from hand-drawn boxes (`seeds.txt`), as cut-outs and as tracks.

GrabCut turns each box into a mask; those marked good were kept after looking at them. Without MODEL, writes
POOL/cutouts.npy: the seeds and what `train.cutouts` found (`KEEP`: also chosen by eye). With MODEL (an early export of
this very tracker), follows each seed up to 18 frames both ways and writes POOL/tracks.npz: clip, first frame, m<i> packed masks.
"""
import os
import sys

import cv2
import numpy as np

KEEP = [*range(0, 33), 34, *range(36, 39), *range(40, 70), 87, 88, 89, *range(101, 107, 3), *range(143, 194), *range(196, 202),
        *range(203, 207), 216, 217, 218, *range(235, 243), *range(276, 302, 2)]
CUT = {7: 30, 9: 12}        # tracks that go wrong later: frames kept
FAR = 18


def seeds(pool):
    """Yields (clip name, frame, frame's image, mask [288,512] u8) of the good lines: `+ clip frame x0 y0 x1 y1`, px of 512x288."""
    cv2.setRNGSeed(0)
    for line in open(os.path.join(os.path.dirname(__file__), "seeds.txt")):
        if not line.startswith("+"):
            continue
        _, name, i, *b = line.split()
        f = np.array(np.load(os.path.join(pool, "clips", name + ".npy"), mmap_mode="r")[int(i)])
        x0, y0, x1, y1 = map(int, b)
        x1, y1 = min(x1, 511), min(y1, 287)
        p = int(.5 * max(x1 - x0, y1 - y0))
        a0, b0, a1, b1 = max(0, x0 - p), max(0, y0 - p), min(512, x1 + p), min(288, y1 + p)
        m = np.zeros((b1 - b0, a1 - a0), np.uint8)
        m[y0 - b0:y1 - b0, x0 - a0:x1 - a0] = cv2.GC_PR_FGD
        cv2.grabCut(np.ascontiguousarray(f[b0:b1, a0:a1, ::-1]), m, None, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
        r = cv2.medianBlur(((m == 1) | (m == 3)).astype(np.uint8), 5)
        n, lab, st, _ = cv2.connectedComponentsWithStats(r)
        if n > 1:
            r = np.isin(lab, [j for j in range(1, n) if st[j, 4] > .12 * st[1:, 4].max()]).astype(np.uint8)
        full = np.zeros((288, 512), np.uint8)
        full[b0:b1, a0:a1] = r
        yield name, int(i), f, full


def cutouts(pool, size=128):
    out = [np.array(s) for s in np.load(os.path.join(pool, "cutouts_all.npy"), mmap_mode="r")[KEEP]]
    for _, _, f, r in seeds(pool):
        ys, xs = np.nonzero(r)
        z = size / (2 * (max(np.ptp(ys), np.ptp(xs)) * .53 + 2))
        to = np.array([[z, 0, size / 2 - (xs.min() + xs.max()) / 2 * z], [0, z, size / 2 - (ys.min() + ys.max()) / 2 * z]])
        al = cv2.GaussianBlur(cv2.erode(r, np.ones((3, 3))) * 255 if r.sum() > 2000 else r * 255, (3, 3), 0)
        k = np.dstack([cv2.warpAffine(f, to, (size, size), borderMode=cv2.BORDER_REPLICATE), cv2.warpAffine(al, to, (size, size))])
        out += [np.stack([k] * len(out[0]))] * 3
    np.save(os.path.join(pool, "cutouts.npy"), np.stack(out))


def tracks(pool, folder):
    from .run_onnx import Model, Tracker
    model, clip, first, arrays = Model(folder, 1), [], [], {}
    for k, (name, i, f, seed) in enumerate(seeds(pool)):
        c, got = np.load(os.path.join(pool, "clips", name + ".npy"), mmap_mode="r"), {i: seed > 0}
        for d in (1, -1):
            tk, before = Tracker(model), seed.sum()
            tk.frame(f)
            tk.prompt_mask(1, seed > 0)
            for j in range(i + d, i + d * (FAR + 1), d):
                if not 0 <= j < len(c):
                    break
                tk.frame(np.array(c[j]))
                r = tk.full(tk.step(1))
                a = r.sum()
                # a sudden change of size, or an unsure presence: drift, not motion
                if tk.score < 1 or not .8 < a / max(before, 1) < 1.25 or not .5 < a / seed.sum() < 2:
                    break
                got[j], before = r, a
        js = sorted(got)[:CUT.get(k)]
        if len(js) > 2:
            arrays[f"m{len(clip)}"] = np.stack([np.packbits(got[j].reshape(-1)) for j in js])
            clip.append(name)
            first.append(js[0])
    np.savez(os.path.join(pool, "tracks.npz"), clip=np.array(clip), first=np.array(first), **arrays)


if __name__ == "__main__":
    cutouts(sys.argv[1]) if len(sys.argv) < 3 else tracks(*sys.argv[1:3])

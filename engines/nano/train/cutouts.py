"""python -m train.cutouts POOL: real moving things cut from clips whose camera (nearly) stands still.

The median of a time window is the background; what differs from it strongly, is compact, and persists over the
next frames is an object. Writes POOL/cutouts.npy [N,V,128,128,4] u8, V consecutive looks of one object.
"""
import glob
import os
import sys

import cv2
import numpy as np

V, S = 6, 128


def masks_of(c, lo, hi, thr):
    """Foreground masks [n,288,512] u8 of frames lo..hi against their median; None when the camera moves."""
    f = np.asarray(c[lo:hi])
    bg = np.median(f[:: max(1, len(f) // 60)], 0).astype(np.uint8)
    out = []
    for x in f:
        d = cv2.absdiff(cv2.GaussianBlur(x, (5, 5), 0), cv2.GaussianBlur(bg, (5, 5), 0)).max(-1)
        m = (d > thr).astype(np.uint8)
        m = cv2.morphologyEx(m, cv2.MORPH_OPEN, np.ones((3, 3)))
        m = cv2.morphologyEx(m, cv2.MORPH_CLOSE, np.ones((9, 9)))
        out.append(m)
    out = np.stack(out)
    return None if (out.mean((1, 2)) > .3).mean() > .4 else out


def fill(m):
    cs, _ = cv2.findContours(m, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(m), cs, -1, 1, -1)


def refine(img, m):
    """GrabCut inside a band round the mask: snaps to edges and drops shadows."""
    k = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    sure, maybe = cv2.erode(m, k, iterations=2), cv2.dilate(m, k)
    g = np.full(m.shape, cv2.GC_BGD, np.uint8)
    g[maybe > 0] = cv2.GC_PR_BGD
    g[m > 0] = cv2.GC_PR_FGD
    g[sure > 0] = cv2.GC_FGD
    if not (g == cv2.GC_FGD).any():
        return m
    ys, xs = np.nonzero(maybe)
    y0, y1, x0, x1 = max(0, ys.min() - 25), ys.max() + 25, max(0, xs.min() - 25), xs.max() + 25
    gg = np.ascontiguousarray(g[y0:y1, x0:x1])
    cv2.grabCut(np.ascontiguousarray(img[y0:y1, x0:x1, ::-1]), gg, None, np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)
    r = np.zeros_like(m)
    r[y0:y1, x0:x1] = (gg == 1) | (gg == 3)
    r = cv2.morphologyEx(r, cv2.MORPH_OPEN, np.ones((3, 3)))
    n, lab, st, _ = cv2.connectedComponentsWithStats(r)
    if n < 2:
        return m
    return fill((lab == 1 + st[1:, 4].argmax()).astype(np.uint8))


def main():
    pool = sys.argv[1]
    cv2.setNumThreads(1)
    cv2.setRNGSeed(1)
    out, src = [], []
    for path in sorted(glob.glob(os.path.join(pool, "clips", "*.npy"))):
        c, name, got = np.load(path, mmap_mode="r"), os.path.basename(path)[:-4], 0
        win = 250 if len(c) > 320 else len(c)
        for lo in range(0, len(c) - win + 1, max(1, win // 2)):
            ms = masks_of(c, lo, lo + win, 34)
            if ms is None:
                continue
            t = 0
            while t + V * 2 < win:
                n, lab, st, _ = cv2.connectedComponentsWithStats(ms[t])
                for k in range(1, n):
                    x, y, w, h, a = st[k]
                    if a < 500 or a > 30000 or a < .25 * w * h:
                        continue
                    m, seq = fill((lab == k).astype(np.uint8)), []
                    for d in range(V):
                        if d:
                            m2 = ms[t + 2 * d]
                            n2, l2, s2, _ = cv2.connectedComponentsWithStats(m2)
                            ov = [(np.logical_and(l2 == j, m).sum() / s2[j, 4], j) for j in range(1, n2) if .6 < s2[j, 4] / m.sum() < 1.6]
                            if not ov or max(ov)[0] < .35:
                                break
                            m = fill((l2 == max(ov)[1]).astype(np.uint8))
                        ys, xs = np.nonzero(m)
                        r = refine(np.asarray(c[lo + t + 2 * d]), m)
                        if r.sum() < .6 * m.sum() or r[:2].sum() + r[-2:].sum() + r[:, :2].sum() + r[:, -2:].sum() > 30:
                            break
                        seq.append((np.asarray(c[lo + t + 2 * d]), r))
                    if len(seq) < V:
                        continue
                    half = max(max(np.ptp(np.nonzero(r)[0]), np.ptp(np.nonzero(r)[1])) for _, r in seq) * .53 + 2
                    looks = []
                    for im, r in seq:
                        ys, xs = np.nonzero(r)
                        cy, cx = (ys.min() + ys.max()) / 2, (xs.min() + xs.max()) / 2
                        M = np.array([[S / (2 * half), 0, S / 2 - cx * S / (2 * half)], [0, S / (2 * half), S / 2 - cy * S / (2 * half)]])
                        # keep real context colours under the soft edge
                        al = cv2.GaussianBlur(cv2.erode(r, np.ones((3, 3))) * 255, (3, 3), 0)
                        looks.append(np.dstack([cv2.warpAffine(im, M, (S, S), borderMode=cv2.BORDER_REPLICATE), cv2.warpAffine(al, M, (S, S))]))
                    out.append(np.stack(looks))
                    got += 1
                t += 4 if len(c) < 320 else 7
        print(name, got, flush=True)
        src += [name] * got
    np.save(os.path.join(pool, "cutouts_all.npy"), np.stack(out))
    open(os.path.join(pool, "cutouts_src.txt"), "w").write("\n".join(src))


if __name__ == "__main__":
    main()

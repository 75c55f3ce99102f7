"""python -m train.sprites POOL [N]: render turning 3-D toys to POOL/sprites3d.npy [N,V,96,96,5] u8 (RGBA, part label 1..3).

A toy is a union of textured ellipsoids, boxes and capsules: beasts and people with swinging legs, vehicles with
wheels, and heaps. Front, side and rear look different but are one object.
"""
import os
import sys

import cv2
import numba
import numpy as np

from .data import World

R, V = 96, 24


@numba.njit(fastmath=True)
def render(out, kind, centre, half, rot, tex, tex_of, label, cam, light, ambient):
    """Orthographic ray casting. out [R,R,5]; kind [P] 0 ellipsoid 1 box; rot [P,3,3] (world from part); tex [K,64,64,3]."""
    P = kind.shape[0]
    n = out.shape[0]
    for iy in range(n):
        for ix in range(n):
            u, v = (ix + .5) / n * 2.2 - 1.1, (iy + .5) / n * 2.2 - 1.1
            best, bp = 1e9, -1
            bn, bl = np.zeros(3), np.zeros(3)
            for p in range(P):
                o, d, nl, pl = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
                for k in range(3):      # ray in part coordinates, scaled to a unit primitive
                    so, sd = 0., 0.
                    for j in range(3):
                        wo = u * cam[0, j] + v * cam[1, j] - 4 * cam[2, j] - centre[p, j]
                        so += rot[p, j, k] * wo
                        sd += rot[p, j, k] * cam[2, j]
                    o[k], d[k] = so / half[p, k], sd / half[p, k]
                if kind[p] == 0:
                    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
                    b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
                    c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1
                    q = b * b - a * c
                    if q < 0:
                        continue
                    t = (-b - np.sqrt(q)) / a
                    for k in range(3):
                        pl[k] = o[k] + t * d[k]
                        nl[k] = pl[k] / half[p, k]
                else:
                    t0, t1, ax = -1e9, 1e9, 0
                    for k in range(3):
                        dk = d[k] if abs(d[k]) > 1e-9 else 1e-9
                        ta, tb = (-1 - o[k]) / dk, (1 - o[k]) / dk
                        if ta > tb:
                            ta, tb = tb, ta
                        if ta > t0:
                            t0, ax = ta, k
                        t1 = min(t1, tb)
                    if t0 > t1:
                        continue
                    t = t0
                    for k in range(3):
                        pl[k] = o[k] + t * d[k]
                    nl[ax] = 1. if pl[ax] > 0 else -1.
                if t < best:
                    best, bp = t, p
                    for k in range(3):
                        bn[k], bl[k] = nl[k], pl[k]
            if bp < 0:
                continue
            wn, ln = np.zeros(3), 1e-9
            for j in range(3):
                for k in range(3):
                    wn[j] += rot[bp, j, k] * bn[k]
                ln += wn[j] * wn[j]
            sh = max(0., -(wn[0] * light[0] + wn[1] * light[1] + wn[2] * light[2]) / np.sqrt(ln))
            sh = ambient + (1 - ambient) * sh
            # triplanar: the face the normal points to picks the texture plane
            a0, a1, a2 = abs(bn[0]), abs(bn[1]), abs(bn[2])
            k = 0 if a0 > a1 and a0 > a2 else (1 if a1 > a2 else 2)
            s, t2 = bl[(k + 1) % 3], bl[(k + 2) % 3]
            w = tex_of[bp, k * 2 + (1 if bn[k] > 0 else 0)]
            ty, tx = int(min(63., max(0., (s * .5 + .5) * 63))), int(min(63., max(0., (t2 * .5 + .5) * 63)))
            for ch in range(3):
                out[iy, ix, ch] = min(255., tex[w, ty, tx, ch] * sh * 1.25)
            out[iy, ix, 3] = 255
            out[iy, ix, 4] = label[bp]


def rotation(axis, a):
    c, s = np.cos(a), np.sin(a)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    m = np.eye(3)
    m[i, i], m[i, j], m[j, i], m[j, j] = c, -s, s, c
    return m


def toy(rng):
    """Parts: (kind, centre, half sizes, base rotation, swing amplitude, swing phase, texture group). y points down."""
    k = rng.random()
    P = []
    u = rng.uniform
    add = lambda kind, c, h, r=None, sw=0., ph=0., g=0: P.append((kind, np.array(c, float), np.array(h, float), np.eye(3) if r is None else r, sw, ph, g))
    if k < .4:          # beast: length along x
        L, H, W = u(.35, .6), u(.14, .28), u(.12, .25)
        leg = u(.2, .45)
        add(0, (0, -.1, 0), (L, H, W), rotation(2, u(-.15, .15)))
        add(0, (L * u(.8, 1.1), -.1 - H * u(.3, 1.8), 0), (u(.1, .2), u(.1, .2), u(.08, .16)), g=int(rng.integers(2)))
        if u(0, 1) < .6:
            add(0, (-L, -.12, 0), (u(.08, .25), .035, .035), rotation(2, u(-1, 1)), .3, 0, 0)
        sw, g = u(.1, .7), int(rng.integers(2)) * 2
        for i, (sx, sz) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
            add(int(u(0, 1) < .3), (sx * L * .7, -.1 + H * .6 + leg * .5, sz * W * .6), (u(.03, .08), leg * .6, .05), None, sw, 1.57 * i, g)
    elif k < .62:       # person: height along y
        w = u(.12, .22)
        add(int(u(0, 1) < .4), (0, -.2, 0), (w, .28, w * .7), rotation(2, u(-.3, .3)), g=0)
        add(0, (u(-.05, .05), -.62, 0), (.11, .14, .12), g=1)
        add(0, (0, -.66, -.03), (.12, .12, .12), g=3)
        sw = u(.1, 1.)
        for s in (1, -1):
            add(0, (s * .09, .35, 0), (.08, .36, .09), None, sw, s * 1.57, 2)
            add(0, (s * (w + .05), -.2, 0), (.055, .27, .06), rotation(2, s * u(-1, .2)), sw, -s * 1.57, int(rng.integers(2)))
        if u(0, 1) < .4:    # rides something
            add(int(rng.integers(2)), (0, .72, 0), (u(.3, .7), u(.03, .14), u(.06, .2)), g=3)
    elif k < .8:        # vehicle
        L, H, W = u(.5, .8), u(.12, .25), u(.2, .35)
        add(1, (0, .1, 0), (L, H, W))
        add(1, (L * u(-.4, .2), .1 - H - .1, 0), (L * u(.3, .7), u(.08, .18), W * .9), g=int(rng.integers(2)))
        for sx in (1, -1):
            for sz in (1, -1):
                add(0, (sx * L * .62, .1 + H, sz * W), (.14, .14, .05), g=2)
    else:
        for i in range(int(rng.integers(2, 7))):
            add(int(rng.integers(2)), rng.normal(size=3) * .3, u(.08, .45, 3), rotation(0, u(0, 3)) @ rotation(1, u(0, 3)), u(0, .4), u(0, 6), int(rng.integers(4)))
    return P


def main():
    pool, n = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 400
    cv2.setNumThreads(1)
    w, rng = World(pool), np.random.default_rng(7)
    path = os.path.join(pool, "sprites3d.npy")
    out = np.lib.format.open_memmap(path + ".tmp", "w+", np.uint8, (n, V, R, R, 5))
    for i in range(n):
        P = toy(rng)
        ng = 4 * 6
        tex = np.stack([cv2.resize(w.texture(rng), (64, 64), interpolation=cv2.INTER_AREA) for _ in range(5)]).astype(np.float64)
        same = rng.random()
        faces = np.zeros((4, 6), np.int64)
        for g in range(4):
            faces[g] = (0 if same < .25 else g) if rng.random() < .6 else rng.integers(0, 5, 6)
        tex_of = np.stack([faces[p[6]] for p in P])
        kind = np.array([p[0] for p in P])
        half = np.stack([p[2] for p in P])
        label = np.array([1 + (p[6] + (j % 2 if len(P) < 5 else 0)) % 3 for j, p in enumerate(P)])
        tilt, spin, speed = rng.uniform(-.1, .7), rng.uniform(0, 6.28), rng.choice([.25, .5, 1.]) * rng.choice([-1, 1])
        light = rng.normal(size=3) * .6 + (0, 1, 0)
        light /= np.linalg.norm(light)
        amb = rng.uniform(.35, .9)
        free = rng.random() < .25      # tumbles about any axis
        big = np.zeros((V, 2 * R, 2 * R, 5))
        for v in range(V):
            a = spin + speed * v * 6.28 / V
            cam = (rotation(0, a * .7) if free else np.eye(3)) @ rotation(1, a) @ rotation(0, tilt)
            rot = np.stack([p[3] @ rotation(2, p[4] * np.sin(v * 1.05 + p[5])) for p in P])
            # swing about the upper end
            cen = np.stack([p[1] + (np.array([0, -p[2][1], 0]) - r @ np.array([0, -p[2][1], 0]) if p[4] else 0) for p, r in zip(P, rot)])
            render(big[v], kind, cen, half, rot, tex, tex_of, label, np.ascontiguousarray(cam.T), light, amb)
        # one crop for all views, so that the size stays consistent
        al = big[..., 3].max(0)
        ys, xs = np.nonzero(al)
        cy, cx = (ys.min() + ys.max() + 1) // 2, (xs.min() + xs.max() + 1) // 2
        r = int(max(ys.max() - ys.min(), xs.max() - xs.min()) * .53) + 2
        for v in range(V):
            p = np.zeros((2 * r, 2 * r, 5), np.float32)
            y0, x0, y1, x1 = max(cy - r, 0), max(cx - r, 0), min(cy + r, 2 * R), min(cx + r, 2 * R)
            p[y0 - cy + r:y1 - cy + r, x0 - cx + r:x1 - cx + r] = big[v, y0:y1, x0:x1]
            m = (p[..., 3:4] > 0).astype(np.float32)
            # colour bleeds outward, so that soft edges do not turn black
            blur = cv2.blur(p[..., :3] * m, (9, 9)) / (cv2.blur(m, (9, 9))[..., None] + 1e-3)
            p[..., :3] = np.where(m > 0, p[..., :3], blur)
            out[i, v, ..., :4] = np.clip(cv2.resize(np.ascontiguousarray(p[..., :4]), (R, R), interpolation=cv2.INTER_AREA), 0, 255)
            out[i, v, ..., 4] = cv2.resize(p[..., 4], (R, R), interpolation=cv2.INTER_NEAREST)
        if i % 50 == 0:
            print(i, flush=True)
    out.flush()
    os.replace(path + ".tmp", path)


if __name__ == "__main__":
    main()

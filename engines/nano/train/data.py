"""Training clips, rendered on the fly: real moving backgrounds, synthetic and cut-out objects.

`World.clip(rng, T, H, W)` gives one clip with two target objects (O = 2):
  image  [T,H,W,3] u8 RGB          mask   [O,T,H/4,W/4] u8 (0..255 coverage)
  label  [T,H/8,W/8] u8 (0 = unknown region, dense correspondence labels)
  box    [O,4] f32 px x0,y0,x1,y1  point  [O,2] f32 px x,y (frame 0)
  fp,fn  [O,T,H/4,W/4] u8 0/1      regions to add to / take from a fed-back mask
  seed1  [] bool                   frame 0 is far in the past: frame 1 is given, not predicted
"""
import glob
import os

import cv2
import numba
import numpy as np

S = 128          # sprite side, px
N_LABEL = 24     # dense labels: 0 unknown / real background, 1..15 objects, 16..23 still background


class Walk:
    """A smooth random trajectory of (x, y, log scale, angle, log aspect), evaluable at any time."""

    def __init__(self, rng, start, speed):
        speed = np.asarray(speed, np.float32)
        self.p = np.asarray(start, np.float32)
        self.v = rng.normal(size=5).astype(np.float32) * speed
        self.a = rng.normal(size=5).astype(np.float32) * speed * rng.uniform(0, 4)
        self.w = rng.uniform(0.1, 0.9, 5)
        self.f = rng.uniform(0, 6.28, 5)

    def at(self, t):
        return self.p + self.v * t + self.a * (np.sin(self.w * t + self.f) - np.sin(self.f))


def affine(x, y, scale, angle, aspect, shear=0.0):
    """3x3 map from object coordinates (unit square centred on 0) to pixels."""
    c, s = np.cos(angle), np.sin(angle)
    r = np.exp(aspect / 2)
    m = np.array([[c, -s], [s, c]]) @ np.array([[scale * r, shear * scale], [0, scale / r]])
    return np.array([[m[0, 0], m[0, 1], x], [m[1, 0], m[1, 1], y], [0, 0, 1]])


@numba.njit(cache=True, fastmath=True)
def blend(img, vis, tex, gain, oi, x0, y0):
    """Lays tex [h,w,4] u8 over img [H,W,3] f32 at (x0,y0); vis [n,H,W] f32 keeps each object's visible share."""
    for y in range(tex.shape[0]):
        for x in range(tex.shape[1]):
            a = tex[y, x, 3] * np.float32(1 / 255)
            if a > 0:
                Y, X = y + y0, x + x0
                for c in range(3):
                    img[Y, X, c] += a * (tex[y, x, c] * gain[c] - img[Y, X, c])
                for k in range(vis.shape[0]):
                    vis[k, Y, X] *= 1 - a
                vis[oi, Y, X] += a


class World:
    def __init__(self, pool):
        """`pool`: folder with clips/*.npy [F,288,512,3] u8, and optionally sprites3d.npz, cutouts.npz, tracks.npz."""
        names = sorted(glob.glob(os.path.join(pool, "clips", "*.npy")))
        self.clips = [np.load(f, mmap_mode="r") for f in names]
        self.scene = None
        w = np.array([min(len(c), 300) for c in self.clips], np.float64)
        self.weight = w / w.sum()
        load = lambda n: np.load(os.path.join(pool, n), mmap_mode="r") if os.path.exists(os.path.join(pool, n)) else None
        self.sprites3d = load("sprites3d.npy")   # [N,V,96,96,5] u8 RGBA + part label
        self.cutouts = load("cutouts.npy")       # [N,V,128,128,4] u8 RGBA, V consecutive looks of one real object
        # real objects in their real surroundings: (clip, first frame, packed masks [n,288*512/8])
        self.tracks = []
        if os.path.exists(os.path.join(pool, "tracks.npz")):
            z = np.load(os.path.join(pool, "tracks.npz"))
            where = {os.path.basename(f)[:-4]: i for i, f in enumerate(names)}
            self.tracks = [(where[n], int(f), z[f"m{i}"]) for i, (n, f) in enumerate(zip(z["clip"], z["first"]))]

    # ---- textures and shapes -------------------------------------------------
    def crop(self, rng, size=S):
        """A random patch of a random real frame, [size,size,3] u8."""
        c = self.clips[rng.choice(len(self.clips), p=self.weight)]
        f = c[rng.integers(len(c))]
        h = int(np.exp(rng.uniform(np.log(30), np.log(220))))
        w = int(np.clip(h * np.exp(rng.normal() * .3), 24, 400))
        y, x = rng.integers(0, 288 - h), rng.integers(0, 512 - w)
        return cv2.resize(np.ascontiguousarray(f[y:y + h, x:x + w]), (size, size), interpolation=cv2.INTER_LINEAR)

    def texture(self, rng):
        if self.scene is not None and rng.random() < .3:     # looks like the background of its own clip
            s = int(rng.integers(24, 110))
            y, x = rng.integers(0, self.scene.shape[0] - s + 1), rng.integers(0, self.scene.shape[1] - s + 1)
            t = cv2.resize(np.ascontiguousarray(self.scene[y:y + s, x:x + s]), (S, S)).astype(np.float32)
            return np.clip(t * rng.uniform(.85, 1.15) + rng.normal(size=3) * 6, 0, 255).astype(np.uint8)
        k = rng.random()
        if k < .6:
            t = self.crop(rng)
            if rng.random() < .35:   # recolour, keep the structure
                t = np.clip((t.astype(np.float32) - t.mean((0, 1))) * rng.uniform(.3, 1.2) + rng.uniform(20, 235, 3), 0, 255)
            elif rng.random() < .2:
                t = t[..., rng.permutation(3)]
            return np.ascontiguousarray(t).astype(np.uint8)
        base = rng.uniform(10, 245, 3)
        if k < .8:
            g = rng.normal(size=(3, 3, 3)) * rng.uniform(0, 25)
            t = base + cv2.resize(g, (S, S), interpolation=cv2.INTER_CUBIC)
        else:
            n = int(rng.integers(4, 40))
            t = base + cv2.resize(rng.normal(size=(n, n, 3 if rng.random() < .5 else 1)), (S, S)).reshape(S, S, -1) * rng.uniform(8, 50)
        if rng.random() < .25:       # stripes or checks
            p, a = rng.uniform(5, 30), rng.uniform(0, 3.14)
            yy, xx = np.mgrid[:S, :S]
            s = np.sign(np.sin((xx * np.cos(a) + yy * np.sin(a)) * 6.28 / p))
            t = t + s[..., None] * rng.normal(size=3) * 30
        return np.clip(t + rng.normal(size=(S, S, 1)) * rng.uniform(0, 6), 0, 255).astype(np.uint8)

    def shape(self, rng):
        """A soft-edged silhouette [S,S] u8 filling most of the square."""
        m = np.zeros((S, S), np.uint8)
        k = rng.integers(5)
        if k == 0:      # blob
            n = int(rng.integers(5, 12))
            a = np.linspace(0, 6.28, n, endpoint=False)
            r = 58 * np.clip(1 - np.abs(rng.normal(size=n)) * rng.uniform(.1, .5), .2, 1)
            aa = np.linspace(0, 6.28, 60)
            rr = np.interp(aa, np.append(a, 6.29), np.append(r, r[0]))
            rr = np.convolve(np.concatenate([rr[-3:], rr, rr[:3]]), np.ones(7) / 7, "valid")
            cv2.fillPoly(m, [np.stack([64 + rr * np.cos(aa), 64 + rr * np.sin(aa)], 1).astype(np.int32)], 255)
        elif k == 1:    # superellipse
            yy, xx = np.abs(np.mgrid[:S, :S] - 64) / 60.
            e = rng.uniform(.8, 5)
            m[(xx ** e + yy ** e) < 1] = 255
        elif k == 2:    # polygon
            n = int(rng.integers(3, 9))
            a = np.sort(rng.uniform(0, 6.28, n))
            r = rng.uniform(25, 62, n)
            cv2.fillPoly(m, [np.stack([64 + r * np.cos(a), 64 + r * np.sin(a)], 1).astype(np.int32)], 255)
        elif k == 3:    # capsule
            w = int(rng.integers(8, 50))
            cv2.line(m, (64, 6 + w // 2), (64, 122 - w // 2), 255, w)
        else:           # polyline with thickness
            n = int(rng.integers(3, 6))
            cv2.polylines(m, [rng.integers(15, 113, (n, 2)).astype(np.int32)], bool(rng.random() < .4), 255, int(rng.integers(5, 26)))
        if rng.random() < .1:
            cv2.circle(m, tuple(int(v) for v in rng.integers(44, 84, 2)), int(rng.integers(8, 20)), 0, -1)
        return cv2.GaussianBlur(m, (5, 5), 0)

    def sprite(self, rng, tex=None, labels=(1, 1)):
        """[1,S,S,4] u8 RGBA, [1,S,S] u8 label."""
        lab = np.full((S, S), labels[0], np.uint8)
        a, yx = rng.uniform(0, 6.28), np.mgrid[:S, :S] - 64
        lab[(yx[1] * np.cos(a) + yx[0] * np.sin(a)) > 0] = labels[1]
        t = self.texture(rng) if tex is None else tex
        return np.dstack([t, self.shape(rng)])[None], lab[None]

    def make_object(self, rng, next_label):
        """A list of parts; a part is (views [V,s,s,4], labels [V,s,s], local affine, swing amplitude, swing rate, anchor)."""
        k = rng.random()
        lab = lambda: 1 + (next_label() % 15)
        flip = np.diag([1. if rng.random() < .5 else -1., 1., 1.])
        if self.sprites3d is not None and k < .3:
            s = np.array(self.sprites3d[rng.integers(len(self.sprites3d))])
            base = [0] + [lab() for _ in range(3)]
            l = np.array(base, np.uint8)[np.minimum(s[..., 4], 3)]
            return dict(parts=[(np.ascontiguousarray(s[..., :4]), l, flip, 0, 0, (0, 0))], rate=rng.choice([0, .25, .5, 1.]) * rng.choice([-1, 1]))
        if self.cutouts is not None and k < .56:
            s = np.array(self.cutouts[rng.integers(len(self.cutouts))])
            l = np.full(s.shape[:3], lab(), np.uint8)
            l[:, s.shape[1] // 2:] = lab()
            return dict(parts=[(s, l, flip, 0, 0, (0, 0))], rate=rng.choice([0, .5, 1.]) * rng.choice([-1, 1]))
        n = int(rng.choice([1, 2, 3, 4, 6], p=[.3, .2, .2, .2, .1]))
        one = rng.random() < .3
        tex = self.texture(rng) if one else None
        parts = []
        for i in range(n):
            if i == 0:
                loc = affine(0, 0, rng.uniform(.6, 1.), 0, rng.normal() * .4)
            else:       # limbs hang on the body
                a = rng.uniform(0, 6.28)
                loc = affine(.35 * np.cos(a), .35 * np.sin(a), rng.uniform(.25, .7), rng.uniform(0, 6.28), rng.normal() * .6)
            parts.append((*self.sprite(rng, tex, (lab(), lab())), loc, rng.uniform(0, .6) if i and rng.random() < .6 else 0, rng.uniform(.2, 1.), (0, .4)))
        if rng.random() < .5:
            parts = parts[1:] + parts[:1]
        return dict(parts=parts, rate=0)

    def redress(self, rng, parts):
        """The parts with some of them in other colours: the jacket changes, the trousers stay."""
        out = []
        for p in parts:
            if len(parts) > 1 and rng.random() < .5:
                out.append(p)
                continue
            views, labels = p[0].copy(), p[1]
            s = views.shape[1]
            if rng.random() < .5 and labels.max() > labels.min():
                where = labels == rng.choice(np.unique(labels))
            else:
                cut = int(rng.uniform(.25, .75) * s)
                where = np.zeros(labels.shape, bool)
                where[:, :cut] = True
                if rng.random() < .5:
                    where = ~where
            rgb = views[..., :3][where].astype(np.float32)
            if len(rgb):
                mean = rgb.mean(0)
                views[..., :3][where] = np.clip((rgb - mean) * rng.uniform(.6, 1.1) + rng.uniform(15, 235, 3), 0, 255)
            out.append((views,) + tuple(p[1:]))
        return out

    # ---- one clip -------------------------------------------------------------
    def clip(self, rng, T, H, W):
        while True:
            r = self._clip(rng, T, H, W)
            if r is not None:
                return r

    def _times(self, rng, T):
        s = float(rng.choice([1, 1, 2, 3]))
        t = np.arange(T) * s
        seed1 = rng.random() < .45
        if seed1:       # the conditioning frame is long ago
            t = np.concatenate([[0], rng.uniform(4, 30) + np.arange(T - 1) * s])
        return t, seed1

    def _background(self, rng, t, H, W, track=None):
        """Frames [T,H,W,3] u8, labels [T,H/8,W/8], the camera's pixel maps per frame (3x3), and the real object's
        masks [T,H,W] u8 if a track is given."""
        c = self.clips[track[0] if track else rng.choice(len(self.clips), p=self.weight)]
        still = rng.random() < (.1 if track else .3)
        step = 0 if still else (float(rng.choice([.5, 1, 1, 2])) * (1 if rng.random() < .5 else -1))
        idx = np.round(t * step).astype(int)
        first, n = (track[1], len(track[2])) if track else (0, len(c))
        idx = idx * min(1., (n - 1) / max(1, np.ptp(idx)))
        idx = np.round(idx - idx.min() + rng.uniform(0, n - 1 - np.ptp(idx))).astype(int) + first
        zoom = rng.uniform(.45, 1.) * 512 / W
        v = .004 if rng.random() < .5 else .03 if rng.random() < .8 else .08
        v = min(v, .012) if track else v
        # Walk in source pixels; a large pan reveals new background
        walk = Walk(rng, [256 + rng.normal() * 60, 144 + rng.normal() * 35, np.log(zoom), rng.normal() * .05, rng.normal() * .2],
                    [v * 512, v * 200, v * .4, v * .3, 0])
        lab = None
        if still:
            pts = rng.uniform(0, 1, (8, 2)) * (32, 18)
            yy, xx = np.mgrid[:18, :32]
            lab = (16 + np.argmin((xx[..., None] - pts[:, 0]) ** 2 + (yy[..., None] - pts[:, 1]) ** 2, -1)).astype(np.uint8)
        flip = rng.random() < .5
        frames, labels, cams, masks = [], [], [], []
        if track:       # look at the object
            ys, xs = np.nonzero(np.unpackbits(track[2][idx[0] - first]).reshape(288, 512))
            walk.p[:2] = .6 * np.array([xs.mean(), ys.mean()]) + .4 * walk.p[:2]
        follows = track is not None and rng.random() < .6
        margin, lag = np.exp(rng.uniform(np.log(1.25), np.log(2.6))), None
        for k, i in zip(t, idx):
            p = walk.at(k)
            if follows:     # as the runtime's view does: centred on the last mask, a margin around it
                ys, xs = np.nonzero(np.unpackbits(track[2][i - first]).reshape(288, 512))
                if len(ys):
                    box = np.array([(xs.min() + xs.max()) / 2, (ys.min() + ys.max()) / 2, np.log(margin * max(np.ptp(xs) / W, np.ptp(ys) / H) + .05)])
                    lag = box if lag is None else lag + (box - lag) * rng.uniform(.4, 1)
                if lag is not None:
                    p[:3] = lag + rng.normal(size=3) * (4, 3, .03)
            p[0], p[1] = np.clip(p[0], 60, 452), np.clip(p[1], 40, 248)
            m = affine(p[0], p[1], np.exp(np.clip(p[2], -1.2, .9)), p[3], p[4]) @ np.array([[1, 0, -W / 2], [0, 1, -H / 2], [0, 0, 1.]])
            if flip:
                m = m @ np.array([[-1, 0, W - 1], [0, 1, 0], [0, 0, 1.]])
            src, ms = np.ascontiguousarray(c[i]), m
            if np.exp(p[2]) > 1.7:      # avoid aliasing
                src = cv2.resize(src, (256, 144), interpolation=cv2.INTER_AREA)
                ms = np.diag([.5, .5, 1]) @ m
            frames.append(cv2.warpAffine(src, ms[:2], (W, H), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101))
            if track:
                mk = np.unpackbits(track[2][i - first]).reshape(288, 512) * 255
                if src.shape[0] == 144:
                    mk = cv2.resize(mk, (256, 144), interpolation=cv2.INTER_AREA)
                masks.append(cv2.warpAffine(mk, ms[:2], (W, H), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
            if still:
                ml = np.diag([1 / 16, 1 / 16, 1]) @ m @ np.array([[8, 0, 4], [0, 8, 4], [0, 0, 1.]])
                labels.append(cv2.warpAffine(lab, ml[:2], (W // 8, H // 8), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101))
            else:
                labels.append(np.zeros((H // 8, W // 8), np.uint8))
            cams.append(np.linalg.inv(m))
        return frames, labels, cams, masks

    def _clip(self, rng, T, H, W):
        t, seed1 = self._times(rng, T)
        track = self.tracks[rng.integers(len(self.tracks))] if self.tracks and rng.random() < (.2 if T > 1 else .35) else None
        frames, labels, cams, masks = self._background(rng, t, H, W, track)
        self.scene = frames[0] if rng.random() < .6 else None
        counter = [int(rng.integers(15))]

        def next_label():
            counter[0] += 1
            return counter[0]
        n = int(rng.choice([1, 2, 3], p=[.5, .3, .2]) if track else rng.choice([2, 3, 4], p=[.4, .4, .2]))
        viewed = track is None and rng.random() < .5      # the view is on the first object: large, near the centre
        objs = []
        D = np.sqrt(H * W)
        for i in range(n):
            like = i > 0 and rng.random() < .45
            if like:         # a look-alike: the same object once more, as often as not partly in other colours
                again = self.redress(rng, objs[0]["parts"]) if rng.random() < .6 else objs[0]["parts"]
                o = dict(objs[0], parts=[(p[0], np.full_like(p[1], 1 + next_label() % 15)) + p[2:] for p in again])
            else:
                o = self.make_object(rng, next_label)
                if rng.random() < .12:           # a target made of two things moving together
                    b = self.make_object(rng, next_label)
                    if b["rate"] == o["rate"] or len(b["parts"]) == 1:
                        sh = affine(rng.normal() * .25, rng.normal() * .25, rng.uniform(.5, .9), 0, 0)
                        o["parts"] = o["parts"] + [(p[0], p[1], sh @ p[2]) + p[3:] for p in b["parts"]]
            size = D * np.exp(rng.uniform(np.log(.13), np.log(.95)))
            v = .004 if rng.random() < .3 else .02 if rng.random() < .75 else .05
            o["walk"] = Walk(rng, [rng.uniform(.1, .9) * W, rng.uniform(.12, .88) * H, np.log(size), rng.normal() * .3, rng.normal() * .25],
                             [v * W, v * H * .6, v * .8, v * 1.2, v * .5])
            if viewed and i == 0:
                o["walk"] = Walk(rng, [rng.uniform(.35, .65) * W, rng.uniform(.35, .65) * H, np.log(D * rng.uniform(.45, .9)), rng.normal() * .3, rng.normal() * .25],
                                 [.004 * W, .004 * H, .01, v * 1.2, v * .5])
            if like and rng.random() < .6:        # of about its size, and their ways cross in the clip
                meet, a = t[int(rng.integers(1, T))] if T > 1 else 0, rng.uniform(0, 6.28)
                pace = np.array([np.cos(a) * W, np.sin(a) * H * .5]) * rng.uniform(.05, .16) / max(1., float(np.median(np.diff(t))) if T > 1 else 1.)
                w, first = o["walk"], objs[0]["walk"]
                w.v[:2], w.a[:2] = pace, 0
                w.p[:2] = first.at(meet)[:2] + rng.normal(size=2) * (.05 * W, .04 * H) - pace * meet
                w.p[2] = first.p[2] + rng.normal() * .15
            if T > 2 and i == 0 and rng.random() < .3:      # walks out of the picture, and as often as not back in
                side = np.array([(-1, 0), (1, 0), (0, 1), (0, -1)][rng.choice(4, p=[.38, .38, .16, .08])])
                w, out = o["walk"], float(t[int(rng.integers(2, T))])
                far = np.where(side > 0, (W, H) - w.p[:2], w.p[:2]) @ np.abs(side) + np.exp(w.p[2]) * rng.uniform(.35, .8)
                w.v[:2], w.a[:2] = 0, 0
                if rng.random() < .5:
                    w.v[:2] = side * far / out
                else:
                    w.a[:2], w.w[:2], w.f[:2] = side * far, np.pi / 2 / out, 0
                o["follow"] = False
            else:
                o["follow"] = objs[0]["follow"] if like else not (viewed and i == 0) and rng.random() < .5       # moves with the camera's scene
            o["phase"] = rng.uniform(0, 6.28)
            o["view0"] = int(rng.integers(64))
            o["elastic"] = rng.normal(size=8) * .05 if rng.random() < .3 else None
            o["gone"] = None
            o["gain"] = rng.normal(size=(2, 3)) * ((.05,), (.14,))
            objs.append(o)
        if T > 1 and rng.random() < .3:           # one object leaves the frame, maybe comes back
            a = int(rng.integers(1, T))
            b = T if rng.random() < .5 else int(rng.integers(a, T)) + 1
            objs[0 if rng.random() < .5 else int(rng.integers(n))]["gone"] = (a, b)
        shadow = rng.random() < .15
        vis = np.zeros((T, n + (track is not None), H, W), np.float32)
        if track:
            own = 1 + next_label() % 15
            for ti in range(T):
                vis[ti, n] = masks[ti] / np.float32(255)
                labels[ti][masks[ti][4::8, 4::8] > 127] = own
        for ti in range(T):
            img = frames[ti].astype(np.float32)
            lab_big = None
            for oi, o in enumerate(objs):
                if o["gone"] and o["gone"][0] <= ti < o["gone"][1]:
                    continue
                self._draw(o, oi, t[ti], ti, img, vis[ti], labels[ti], cams, H, W, D, shadow)
            frames[ti] = img
        area = (vis[0] > .5).sum((1, 2))
        ok = [i for i in range(vis.shape[1]) if .004 * H * W < area[i] < .45 * H * W]
        if not ok:
            return None
        tg = [n if n in ok else 0 if 0 in ok and rng.random() < .6 else ok[int(rng.integers(len(ok)))]]
        rest = [i for i in ok if i != tg[0]]
        tg.append(rest[int(rng.integers(len(rest)))] if rest else tg[0])
        return self._finish(rng, frames, vis[:, tg], vis, tg, labels, seed1, T, H, W)

    def _draw(self, o, oi, t, ti, img, vis, label, cams, H, W, D, shadow):
        p = o["walk"].at(t)
        p[2] = np.clip(p[2], np.log(.05 * D), np.log(1.3 * D))
        base = affine(p[0], p[1], np.exp(p[2]), p[3], np.clip(p[4], -1, 1))
        if o["follow"]:
            base = cams[ti] @ np.linalg.inv(cams[0]) @ base
        gain = 1 + o["gain"][0] * np.sin(.3 * t) + o["gain"][1]
        for (views, labs, loc, amp, rate, anchor) in o["parts"]:
            V, s = views.shape[0], views.shape[1]
            k = int(o["view0"] + o["rate"] * t) % (2 * V)
            k = k if k < V else 2 * V - 1 - k
            sp, sl = views[k], labs[k]
            m = base @ loc
            if amp:
                a = amp * np.sin(rate * t + o["phase"])
                c, sn = np.cos(a), np.sin(a)
                m = m @ np.array([[1, 0, anchor[0]], [0, 1, anchor[1]], [0, 0, 1]]) @ np.array([[c, -sn, 0], [sn, c, 0], [0, 0, 1]]) @ np.array([[1, 0, -anchor[0]], [0, 1, -anchor[1]], [0, 0, 1]])
            quad = m[:2] @ np.array([[-.5, .5, .5, -.5], [-.5, -.5, .5, .5], [1, 1, 1, 1]])
            x0, y0 = np.floor(quad.min(1)).astype(int)
            x1, y1 = np.ceil(quad.max(1)).astype(int) + 1
            x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, W), min(y1, H)
            if x1 - x0 < 2 or y1 - y0 < 2:
                continue
            if o["elastic"] is not None:
                e = o["elastic"]
                yy, xx = np.meshgrid(np.linspace(-1, 1, s, dtype=np.float32), np.linspace(-1, 1, s, dtype=np.float32), indexing="ij")
                ph = .5 * t + o["phase"]
                dx = e[0] * np.sin(3 * yy + ph + e[6] * 30) + e[1] * np.sin(5 * xx + 1.3 * ph)
                dy = e[2] * np.sin(3 * xx + .8 * ph) + e[3] * np.sin(5 * yy + ph + e[7] * 30)
                sp = cv2.remap(sp, ((xx + 1 + dx) * (s - 1) / 2).astype(np.float32), ((yy + 1 + dy) * (s - 1) / 2).astype(np.float32), cv2.INTER_LINEAR)
            to_px = m @ np.array([[1 / s, 0, -.5], [0, 1 / s, -.5], [0, 0, 1]])   # sprite px -> image px
            if np.abs(np.linalg.det(to_px[:2, :2])) < .16:                           # shrink first, against aliasing
                sl = np.ascontiguousarray(sl[::2, ::2])
                sp = cv2.resize(sp, (s // 2, s // 2), interpolation=cv2.INTER_AREA)
                to_px = to_px @ np.diag([2., 2., 1.])
            to_px = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]]) @ to_px
            w = cv2.warpAffine(sp, to_px[:2], (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
            if shadow:
                roi, a = img[y0:y1, x0:x1], w[..., 3].astype(np.float32) * np.float32(1 / 255)
                k = max(3, int(.1 * (x1 - x0)) | 1)
                sh = cv2.blur(a, (k, k)) * .4
                d = max(1, k // 2)
                roi[d:] *= 1 - sh[:-d, :, None]
            blend(img, vis, w, gain.astype(np.float32), oi, x0, y0)
            # dense labels at token centres
            ly, lx = y0 // 8, x0 // 8
            m8 = np.diag([.125, .125, 1]) @ np.array([[1, 0, x0 - 8. * lx - 3.5], [0, 1, y0 - 8. * ly - 3.5], [0, 0, 1]]) @ to_px
            dst = label[ly:(y1 + 7) // 8, lx:(x1 + 7) // 8]
            l = cv2.warpAffine(sl, m8[:2], (dst.shape[1], dst.shape[0]), flags=cv2.INTER_NEAREST)
            on = cv2.warpAffine(sp[..., 3], m8[:2], (dst.shape[1], dst.shape[0]), flags=cv2.INTER_NEAREST) > 127
            on &= l > 0
            dst[on] = l[on]

    def _finish(self, rng, frames, vis, vis_all, tg, labels, seed1, T, H, W):
        # photometric: one look for the clip, a little change each frame
        gain, off = np.exp(rng.normal(size=3) * .12), rng.normal(size=3) * 10
        sigma = rng.uniform(.3, 1.3) if rng.random() < .35 else 0
        noise = rng.uniform(1, 9) if rng.random() < .5 else 0
        jpeg = int(rng.integers(25, 85)) if rng.random() < .35 else 0
        motion = int(rng.integers(2, 6)) if rng.random() < .12 else 0
        drift = rng.normal(size=3) * .015
        nz = rng.standard_normal((H + 32, W + 32, 1 if rng.random() < .5 else 3)).astype(np.float32) * noise if noise else None
        out = np.empty((T, H, W, 3), np.uint8)
        for i in range(T):
            x = frames[i] * (gain + drift * i).astype(np.float32) + off.astype(np.float32)
            if sigma:
                x = cv2.GaussianBlur(x, (0, 0), sigma)
            if motion:
                x = cv2.blur(x, (motion, 1) if rng.random() < .7 else (1, motion))
            if noise:
                a, b = rng.integers(0, 32, 2)
                x = x + nz[a:a + H, b:b + W]
            x = np.clip(x, 0, 255).astype(np.uint8)
            if jpeg:
                x = cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, jpeg])[1], 1)
            out[i] = x
        h4, w4 = H // 4, W // 4
        m = vis.reshape(T, 2, h4, 4, w4, 4).mean((3, 5))
        other = vis_all.sum(1).reshape(T, h4, 4, w4, 4).mean((2, 4))
        mask = (m * 255).astype(np.uint8).transpose(1, 0, 2, 3)
        fp, fn = np.zeros_like(mask), np.zeros_like(mask)
        box, point = np.zeros((2, 4), np.float32), np.zeros((2, 2), np.float32)
        for o in range(2):
            for i in range(T):
                ys, xs = np.nonzero(mask[o, i] > 127)
                if not len(ys):
                    continue
                r = np.sqrt(len(ys))
                for dst, on in ((fp, True), (fn, False)):
                    for _ in range(int(rng.integers(1, 3))):
                        j = rng.integers(len(ys))
                        d = rng.normal(size=2) * (r * .8 if on else r * .4)
                        ax = tuple(int(v) for v in np.maximum(1, rng.uniform(.15, .7, 2) * r))
                        cv2.ellipse(dst[o, i], (int(xs[j] + d[0]), int(ys[j] + d[1])), ax, float(rng.uniform(0, 180)), 0, 360, 1, -1)
                if rng.random() < .45:            # drift onto another object
                    fp[o, i] |= ((other[i] - m[i, o]) > .5).astype(np.uint8)
            big = (vis[0, o] > .5).astype(np.uint8)
            ys, xs = np.nonzero(big)
            b = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)
            if rng.random() < .6:
                s = np.array([b[2] - b[0], b[3] - b[1]] * 2)
                b = b + rng.normal(size=4) * s * .06
            box[o] = np.clip([min(b[0], b[2] - 3), min(b[1], b[3] - 3), b[2], b[3]], 0, [W, H, W, H])
            if rng.random() < .6:
                d = cv2.distanceTransform(cv2.copyMakeBorder(big, 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L2, 3)[1:-1, 1:-1]
                y, x = np.unravel_index(d.argmax(), d.shape)
            else:
                j = rng.integers(len(ys))
                y, x = ys[j], xs[j]
            point[o] = x, y
        return dict(image=out, mask=mask, label=np.stack(labels), box=box, point=point, fp=fp, fn=fn, seed1=np.array(seed1))


if __name__ == "__main__":      # python -m train.data POOL OUT.png: time it and look at it
    import sys
    import time
    cv2.setNumThreads(1)
    w = World(sys.argv[1])
    rng = np.random.default_rng(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    T, H, W = 6, 128, 224
    rows, t0 = [], time.time()
    for _ in range(10):
        c = w.clip(rng, T, H, W)
        row = []
        for i in range(T):
            x = c["image"][i].copy()
            for o, col in ((0, 2), (1, 1)):
                mm = cv2.resize(c["mask"][o, i], (W, H))[..., None] / 255.
                edge = cv2.morphologyEx((mm > .5).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3)))
                x[edge > 0] = (255, 0, 0) if o == 0 else (0, 255, 0)
            row.append(x)
        row.append(cv2.resize(c["label"][1] * 10, (W, H), interpolation=cv2.INTER_NEAREST)[..., None].repeat(3, 2))
        rows.append(np.hstack(row))
    print((time.time() - t0) / 10 * 1e3, "ms a clip")
    cv2.imwrite(sys.argv[2], np.vstack(rows)[..., ::-1])

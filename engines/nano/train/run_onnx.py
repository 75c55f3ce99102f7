"""The reference tracker: GRAPHS.md's host logic in numpy and onnxruntime; what the Rust tracker is compared with.

python -m train.run_onnx MODEL --davis DIR [--seqs a,b] [--prompts mask,box,point] [--frames 40]   J per sequence
python -m train.run_onnx MODEL --speed                                                        ms a graph
"""
import argparse
import glob
import os
import time
import tomllib

import numpy as np
import onnxruntime as ort
from PIL import Image

DEV = ["blackswan", "bmx-trees", "cows", "horsejump-high", "scooter-black", "rollerblade"]
TEST = ["car-shadow", "dog", "paragliding-launch", "dog-agility", "motorbike", "tennis"]


def resize_matrix(n_in, n_out, antialias=True):
    """[n_out,n_in] f32 triangle-filter weights; with antialias the support grows with the shrink factor, as in PIL."""
    s = n_in / n_out
    sup = max(s, 1.) if antialias else 1.
    c = (np.arange(n_out) + .5) * s
    d = np.abs((np.arange(n_in) + .5)[None] - c[:, None]) / sup
    if not antialias:       # interpolation clamps at the border
        lo = np.clip(c - .5, 0, n_in - 1)
        d = np.abs(np.arange(n_in)[None] - lo[:, None])
    w = np.clip(1 - d, 0, None)
    return (w / w.sum(1, keepdims=True)).astype(np.float32)


def resize(x, h, w, antialias=True):
    """x [H,W] or [H,W,C] f32 -> [h,w(,C)]."""
    y = np.tensordot(resize_matrix(x.shape[0], h, antialias), x, (1, 0))
    return np.moveaxis(np.tensordot(resize_matrix(x.shape[1], w, antialias), y, (1, 1)), 0, 1)


class Model:
    def __init__(self, folder, threads=2):
        self.cfg = tomllib.load(open(os.path.join(folder, "model.toml"), "rb"))
        o = ort.SessionOptions()
        o.intra_op_num_threads = threads
        o.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.s = {n: ort.InferenceSession(os.path.join(folder, g["file"]), o, providers=["CPUExecutionProvider"]) for n, g in self.cfg["graphs"].items()}
        self.need = {n: [i["name"] for i in g["inputs"]] for n, g in self.cfg["graphs"].items()}
        self.outs = {n: [i["name"] for i in g["outputs"]] for n, g in self.cfg["graphs"].items()}
        self.ms = {n: [] for n in self.s}

    def run(self, graph, **have):
        t = time.perf_counter()
        r = self.s[graph].run(self.outs[graph], {k: have[k] for k in self.need[graph]})
        self.ms[graph].append((time.perf_counter() - t) * 1e3)
        return dict(zip(self.outs[graph], r))


class Track:
    """One object: its slots and its last mask."""

    def __init__(self):
        self.cond, self.recent, self.prev = {}, {}, None      # frame -> mem [1,T,C]


class Tracker:
    def __init__(self, model):
        self.m, c = model, model.cfg
        self.H, self.W = c["image"]["height"], c["image"]["width"]
        self.h, self.w = c["masks"]["height"], c["masks"]["width"]
        self.mem = c["memory"]
        self.tracks, self.t = {}, -1

    def frame(self, rgb):
        """rgb [H0,W0,3] u8: the next frame. Encodes it; call `step` for every object afterwards."""
        c = self.m.cfg["image"]
        self.t += 1
        self.size = rgb.shape[:2]
        x = resize(rgb.astype(np.float32), self.H, self.W) / 255
        x = (x - np.float32(c["mean"])) / np.float32(c["std"])
        self.feats = self.m.run("image_encoder", image=np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32))

    def slots(self, tr):
        """mem [1,NM,T,C], tpos_idx [NM], mem_mask [NM]."""
        n, r, st = self.mem["max_cond"], self.mem["recent"], self.mem["stride"]
        mem = np.zeros((1, n + r, self.mem["tokens"], self.mem["channels"]), np.float32)
        tpos, mask = np.zeros(n + r, np.int64), np.zeros(n + r, np.float32)
        keys = sorted(tr.cond)
        keys = keys if len(keys) <= n else [keys[0]] + keys[len(keys) - n + 1:]
        for i, k in enumerate(keys):
            mem[0, i], tpos[i], mask[i] = tr.cond[k][0], r, 1
        for k in range(1, r + 1):
            f = self.t - 1 if k == 1 else ((self.t - 2) // st) * st - (k - 2) * st
            i = n + k - 1
            tpos[i] = k - 1
            if f in tr.recent:
                mem[0, i], mask[i] = tr.recent[f][0], 1
        return dict(mem=mem, tpos_idx=tpos, mem_mask=mask)

    def remember(self, tr, low, score, prompted):
        out = self.m.run("memory_encoder", low_res_mask=low, object_score=score, binarize=np.float32([prompted]), **self.feats)["mem"]
        if prompted:
            tr.cond[self.t] = out
            tr.recent.pop(self.t, None)
        elif score[0, 0] > self.mem.get("min_object_score", -1e9):
            tr.recent[self.t] = out
            for k in [k for k in tr.recent if k < self.t - self.mem["recent"] * self.mem["stride"] - self.mem["stride"]]:
                del tr.recent[k]
        tr.prev = np.clip(low, -32, 32)

    def prompt_mask(self, obj, mask):
        """mask [H0,W0] bool -> low-res logits [h,w]."""
        m = (resize(mask.astype(np.float32), self.H, self.W) >= .5).astype(np.float32)
        low = resize(m * 20 - 10, self.h, self.w)[None, None].astype(np.float32)
        tr = self.tracks.setdefault(obj, Track())
        self.remember(tr, low, np.float32([[10]]), 1)
        return low[0, 0]

    def prompt_points(self, obj, points, labels, correct=False):
        """points [N,2] px of the frame; labels 1 / 0, or 2, 3 for a box's corners. `correct`: after `step`, on its mask."""
        s = np.float32([self.W / self.size[1], self.H / self.size[0]])
        tr = self.tracks.setdefault(obj, Track())
        has = correct and tr.prev is not None
        mask_in = tr.prev if has else np.zeros((1, 1, self.h, self.w), np.float32)
        o = self.m.run("decoder_prompt", point_coords=(np.float32(points) * s)[None], point_labels=np.float32(labels)[None],
                       mask_input=mask_in, has_mask_input=np.float32([has]), multimask=np.int64([0]), **self.feats)
        self.remember(tr, o["low_res_mask"], o["object_score"], 1)
        return o["low_res_mask"][0, 0]

    def step(self, obj):
        tr = self.tracks[obj]
        pix = self.m.run("memory_attention", prev_low_res_mask=tr.prev, **self.slots(tr), **self.feats)
        o = self.m.run("decoder_track", prev_low_res_mask=tr.prev, **pix, **self.feats)
        self.remember(tr, o["low_res_mask"], o["object_score"], 0)
        self.score = float(o["object_score"][0, 0])
        return o["low_res_mask"][0, 0]

    def full(self, low):
        """low-res logits -> bool mask of the frame's size."""
        return resize(low, *self.size, antialias=False) > 0


def jaccard(a, b):
    u = (a | b).sum()
    return 1. if u == 0 else (a & b).sum() / u


def deepest(mask):
    import cv2
    d = cv2.distanceTransform(cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(d.argmax(), d.shape)
    return x, y


def davis(model, root, seqs, kinds, limit=0, log=print):
    """Mean J of every sequence and prompt kind, first and last frame left out. Returns {kind: {seq: (J, J of frame 0)}}."""
    res = {k: {} for k in kinds}
    for s in seqs:
        ims = sorted(glob.glob(os.path.join(root, "JPEGImages/480p", s, "*.jpg")))
        n = min(len(ims), limit) if limit else len(ims)
        gts = [np.asarray(Image.open(i.replace("JPEGImages", "Annotations")[:-3] + "png").convert("L")) > 127 for i in ims[:n]]
        tk, js = Tracker(model), {k: [] for k in kinds}
        for t in range(n):
            tk.frame(np.asarray(Image.open(ims[t]).convert("RGB")))
            for k in kinds:
                if t == 0:
                    ys, xs = np.nonzero(gts[0])
                    if k == "mask":
                        low = tk.prompt_mask(k, gts[0])
                    elif k == "box":
                        low = tk.prompt_points(k, [[xs.min(), ys.min()], [xs.max() + 1, ys.max() + 1]], [2, 3])
                    else:
                        low = tk.prompt_points(k, [deepest(gts[0])], [1])
                else:
                    low = tk.step(k)
                js[k].append(jaccard(tk.full(low), gts[t]))
        last = n - 1 if n == len(ims) else n
        for k in kinds:
            res[k][s] = (float(np.mean(js[k][1:last])) * 100, js[k][0] * 100)
        log(f"{s:20s} " + "  ".join(f"{k} {res[k][s][0]:5.1f} (frame 0 {res[k][s][1]:5.1f})" for k in kinds), flush=True)
    for name, grp in (("dev", DEV), ("test", TEST), ("all", DEV + TEST)):
        g = [x for x in grp if x in seqs]
        if g:
            log(f"{name:5s} {len(g):2d}             " + "  ".join(f"{k} {np.mean([res[k][x][0] for x in g]):5.1f} (frame 0 {np.mean([res[k][x][1] for x in g]):5.1f})" for k in kinds), flush=True)
    return res


def speed(model, n=60):
    tk, rng = Tracker(model), np.random.default_rng(0)
    im = rng.integers(0, 255, (480, 854, 3), dtype=np.uint8)
    for t in range(n):
        tk.frame(im)
        if t == 0:
            tk.prompt_points(1, [[200, 100], [400, 300]], [2, 3])
        else:
            tk.step(1)
            tk.mem["min_object_score"] = -1e9
    tot = 0
    for g, v in model.ms.items():
        m = float(np.median(v[5:] if len(v) > 5 else v))
        tot += 0 if g == "decoder_prompt" else m
        print(f"{g:18s} p50 {m:6.2f} ms")
    print(f"step, one object   p50 {tot:6.2f} ms")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("--davis")
    ap.add_argument("--seqs", default="all", help="dev | test | all | names")
    ap.add_argument("--prompts", default="mask,box,point")
    ap.add_argument("--frames", type=int, default=0, help="only the first so many frames")
    ap.add_argument("--speed", action="store_true")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--stride", type=int, help="override memory.stride")
    ap.add_argument("--min-object-score", type=float)
    a = ap.parse_args()
    m = Model(a.model, a.threads)
    if a.stride:
        m.cfg["memory"]["stride"] = a.stride
    if a.min_object_score is not None:
        m.cfg["memory"]["min_object_score"] = a.min_object_score
    if a.speed:
        speed(m)
    if a.davis:
        seqs = {"dev": DEV, "test": TEST, "all": DEV + TEST}.get(a.seqs) or a.seqs.split(",")
        davis(m, a.davis, seqs, a.prompts.split(","), a.frames)


if __name__ == "__main__":
    main()

"""python -m train.export CHECKPOINT... --out ../model --size 192x320: the ONNX graphs and model.toml of GRAPHS.md.

Several checkpoints are averaged. Every graph is checked against PyTorch in onnxruntime.
"""
import argparse
import copy
import hashlib
import os

import numpy as np
import onnxruntime as ort
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .model import C4, C8, KEY, PIX, SLOT, VAL, ConvBN, Nano, WSConv

OPSET, MAX_COND = 17, 2


def fold(net):
    """Batch norms into their convolutions, standardised weights into plain ones."""
    for m in net.modules():
        if isinstance(m, ConvBN):
            m[0], m[1] = fuse_conv_bn_eval(m[0].eval(), m[1].eval()), nn.Identity()
    for m in list(net.modules()):
        for n, c in list(m.named_children()):
            if isinstance(c, WSConv):
                p = nn.Conv2d(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding)
                p.weight.data, p.bias.data = c.std_weight().detach().clone(), c.bias.detach().clone()
                setattr(m, n, p)
    return net


class Encoder(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.enc, self.f, self.m = net.enc, net.dec.f, net.mem.f

    def forward(self, image):
        f4, f8, key = self.enc(image)
        return f4, f8, key, self.f(f8), self.m(f8)


class Attention(nn.Module):
    def __init__(self, net, recent):
        super().__init__()
        self.att, self.recent = net.att, recent
        self.att.block = 120

    def forward(self, feat_key, mem, tpos_idx, mem_mask, prev_low_res_mask):
        h, w = feat_key.shape[2:]
        cond = (tpos_idx == self.recent).float()
        prev8 = F.avg_pool2d(torch.sigmoid(prev_low_res_mask), 2).flatten(2)
        return self.att(feat_key.flatten(2).expand(mem.shape[0], -1, -1), mem[..., :KEY], mem[..., KEY:KEY + 1 + VAL][:, None], cond, mem_mask, prev8, h, w)[0]


class Track(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.dec = net.dec

    def forward(self, pix_feat, feat_track, feat_s4, prev_low_res_mask):
        return self.dec(pix_feat, feat_track, feat_s4.expand(pix_feat.shape[0], -1, -1, -1), prev_low_res_mask)


class Prompt(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.p = net.prompt

    def forward(self, feat_s8, feat_s4, feat_key, point_coords, point_labels, mask_input, has_mask_input):
        return self.p(self.p.f(feat_s8), feat_s4, feat_key.flatten(2), point_coords, point_labels, mask_input, has_mask_input)[:3]


class Memory(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.mem = net.mem

    def forward(self, feat_key, feat_mem, low_res_mask, binarize):
        b = binarize.reshape(-1, 1, 1, 1)
        p = b * (low_res_mask > 0).float() + (1 - b) * torch.sigmoid(low_res_mask)
        v = torch.cat([feat_key.flatten(2).expand(p.shape[0], -1, -1), self.mem(feat_mem, p)], 1).transpose(1, 2)
        return F.pad(v, (0, SLOT - KEY - 1 - VAL))


def load(paths):
    sds = []
    for p in paths:
        s = torch.load(p, weights_only=False, map_location="cpu")
        sds.append(s["ema"] if "ema" in s else s)
    net = Nano()
    net.load_state_dict({k: (sum(s[k] for s in sds) / len(sds) if sds[0][k].is_floating_point() else sds[0][k]) for k in sds[0]})
    return net.eval()


def shape_toml(s):
    return "[" + ", ".join(str(v) for v in s) + "]"


def export(paths, out, H, W, recent, stride, min_score, batch=False):
    os.makedirs(out, exist_ok=True)
    net = fold(load(paths))
    h4, w4, h8, w8 = H // 4, W // 4, H // 8, W // 8
    N, NM = h8 * w8, MAX_COND + recent
    r = lambda *s: torch.randn(*s)
    torch.manual_seed(0)
    slots = (lambda v: torch.tensor(v)[None]) if batch else torch.tensor
    with torch.no_grad():
        feats = dict(zip(("feat_s4", "feat_s8", "feat_key", "feat_track", "feat_mem"), Encoder(net)(r(1, 3, H, W))))
    lm = ("low_res_mask", "iou", "object_score")
    mask = dict(prev_low_res_mask=r(1, 1, h4, w4) * 4)
    pick = lambda *n: {k: feats[k] for k in n}
    graphs = dict(
        image_encoder=(Encoder(net), dict(image=r(1, 3, H, W)), tuple(feats)),
        memory_attention=(Attention(net, recent), dict(**pick("feat_key"), mem=r(1, NM, N, SLOT), tpos_idx=slots(([recent] + [0] * MAX_COND + [1] * (recent - 1))[:NM]),
                          mem_mask=slots([1.] + [0.] * (MAX_COND - 1) + [1.] * recent), **mask), ("pix_feat",)),
        decoder_track=(Track(net), dict(pix_feat=r(1, PIX, h8, w8), **pick("feat_track", "feat_s4"), **mask), lm),
        decoder_prompt=(Prompt(net), dict(**pick("feat_s8", "feat_s4", "feat_key"), point_coords=torch.tensor([[[40., 30.], [90., 100.]]]), point_labels=torch.tensor([[2., 3.]]),
                        mask_input=torch.zeros(1, 1, h4, w4), has_mask_input=torch.zeros(1)), lm),
        memory_encoder=(Memory(net), dict(**pick("feat_key", "feat_mem"), low_res_mask=r(1, 1, h4, w4) * 4, binarize=torch.ones(1)), ("mem",)),
    )
    toml = [f'''schema = 1
name = "nano"
family = "nano"
exporter = "sightline-nano 0.1.0"
opset = {OPSET}
licence = "MIT OR Apache-2.0"

[image]
height = {H}
width = {W}
mean = [0.45, 0.45, 0.45]
std = [0.225, 0.225, 0.225]
filter = "bilinear"

[features]
top = "feat_s8"

[masks]
height = {h4}
width = {w4}

[memory]
tokens = {N}
channels = {SLOT}
recent = {recent}
stride = {stride}
max_cond = {MAX_COND}
dtype = "f32"
''' + (f"min_object_score = {min_score}\n" if min_score is not None else "") + '''
[prompts]
points = true
box = true
mask = true
mask_decoder = false
pad_point = false
multimask_max_points = 0

[view]
margin = 1.6
min_side = 0.3

[constants]
''']
    worst, size = 0, 0
    for name, (mod, inp, outs) in graphs.items():
        f = os.path.join(out, name + ".onnx")
        dyn = {"point_coords": {1: "points"}, "point_labels": {1: "points"}} if name == "decoder_prompt" else None
        if name == "memory_attention":      # as many slots as are used
            dyn = {"mem": {1: "slots"}, "tpos_idx": {int(batch): "slots"}, "mem_mask": {int(batch): "slots"}}
        if batch and name in ("memory_attention", "decoder_track", "memory_encoder"):
            dyn = {n: {0: "objects", **(dyn or {}).get(n, {})} for n in (*inp, *outs) if not n.startswith("feat_")}
        torch.onnx.export(mod.eval(), tuple(inp.values()), f, input_names=list(inp), output_names=list(outs), opset_version=OPSET, dynamo=False, dynamic_axes=dyn)
        s = ort.InferenceSession(f, providers=["CPUExecutionProvider"])
        got = s.run(list(outs), {k: v.numpy() for k, v in inp.items()})
        with torch.no_grad():
            want = mod(*inp.values())
        want = want if isinstance(want, tuple) else (want,)
        err = max(float(np.abs(a - b.numpy()).max()) for a, b in zip(got, want))
        worst, size = max(worst, err), size + os.path.getsize(f)
        print(f"{name}: {os.path.getsize(f) / 1e6:.2f} MB, largest difference to torch {err:.1e}")
        true = {**{k: list(v.shape) for k, v in inp.items()}, **{k: list(v.shape) for k, v in zip(outs, want)}}
        for k, axes in (dyn or {}).items():
            for axis in axes:
                true[k][axis] = -1
        ent = lambda i: f'{{ name = "{i.name}", dtype = "{dict([("tensor(float)", "f32"), ("tensor(int64)", "i64")])[i.type]}", shape = {shape_toml(true[i.name])} }}'
        assert {i.name for i in s.get_inputs()} == set(inp), (name, [i.name for i in s.get_inputs()])
        toml.append(f'''[graphs.{name}]
file = "{name}.onnx"
sha256 = "{hashlib.sha256(open(f, "rb").read()).hexdigest()}"
inputs = [{", ".join(ent(i) for i in s.get_inputs())}]
outputs = [{", ".join(ent(i) for i in s.get_outputs())}]
''')
    assert worst < 1e-4, worst
    open(os.path.join(out, "model.toml"), "w").write("\n".join(toml))
    print(f"{size / 1e6:.2f} MB, {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("checkpoints", nargs="+")
    ap.add_argument("--out", required=True)
    ap.add_argument("--size", default="192x320", help="HxW of the model's input")
    ap.add_argument("--recent", type=int, default=2)
    ap.add_argument("--stride", type=int, default=5)
    ap.add_argument("--min-object-score", type=float, default=3., help="logit; a tracked frame less sure of its object leaves no memory")
    ap.add_argument("--batch", action="store_true", help="several objects at once; gains nothing on a CPU")
    a = ap.parse_args()
    torch.set_num_threads(1)
    export(a.checkpoints, a.out, *map(int, a.size.split("x")), a.recent, a.stride, a.min_object_score, a.batch)


if __name__ == "__main__":
    main()

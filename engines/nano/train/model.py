"""The nano tracker: four small networks with the split of GRAPHS.md.

Sizes, for an HxW input: h4 = H/4, h8 = H/8, N = h8*w8 tokens.
  ImageEncoder    image [B,3,H,W]             -> feat_s4 [B,24,h4,w4], feat_s8 [B,64,h8,w8], feat_key [B,32,h8,w8]
  MemoryAttention slots, feats, previous mask -> pix_feat [B,40,h8,w8]
  TrackDecoder    pix_feat, feats, prev mask  -> mask logits [B,1,h4,w4], iou, object score
  PromptDecoder   feats, points/box/mask      -> the same
  MemoryEncoder   feats, mask logits          -> slot [B,N,48]: key 32, mask 1, value 14, spare 1
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

KEY, VAL, SLOT = 32, 14, 48
C4, C8, C16 = 24, 64, 96
READ = 2 * (VAL + 2)          # two reads: mask, unexplained share, value
PIX = READ + 8


class ConvBN(nn.Sequential):
    def __init__(self, i, o, s=1, k=3, relu=True):
        super().__init__(nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o), *([nn.ReLU(True)] if relu else []))


class Block(nn.Module):
    """Plain residual block with batch norm (folded away at export)."""

    def __init__(self, c):
        super().__init__()
        self.a, self.b = ConvBN(c, c), ConvBN(c, c, relu=False)

    def forward(self, x):
        return F.relu(x + self.b(self.a(x)))


class WSConv(nn.Conv2d):
    """Weight-standardised convolution. The decoders have no activation norm at all, so there are no statistics to
    get wrong between prompting and tracking, or between training and running."""

    def __init__(self, i, o, k=3, s=1, gain=1.7):
        super().__init__(i, o, k, s, k // 2)
        self.gain = nn.Parameter(torch.full((o, 1, 1, 1), float(gain)))
        self.scale = (i * k * k) ** -0.5

    def std_weight(self):
        w = self.weight
        v, m = torch.var_mean(w, dim=(1, 2, 3), keepdim=True)
        return (w - m) * torch.rsqrt(v + 1e-6) * (self.gain * self.scale)

    def forward(self, x):
        return F.conv2d(x, self.std_weight(), self.bias, self.stride, self.padding)


class WSBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a, self.b = WSConv(c, c), WSConv(c, c, gain=.5)

    def forward(self, x):
        return x + self.b(F.relu(self.a(F.relu(x))))


def up2(x):
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class ImageEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 5, 2, 2)
        self.s4 = nn.Sequential(ConvBN(16, 40, 2), Block(40))
        self.s8 = nn.Sequential(ConvBN(40, 80, 2), Block(80), Block(80))
        self.s16 = nn.Sequential(ConvBN(80, 128, 2), Block(128), Block(128))
        self.lat16 = nn.Conv2d(128, C8, 1)
        self.lat8 = nn.Conv2d(80, C8, 1)
        self.lat4 = nn.Conv2d(40, C4, 1)
        self.fuse = ConvBN(C8, C8)
        self.down4 = nn.Conv2d(40, 32, 2, 2)     # fine detail straight into the key
        self.key = nn.Conv2d(C8 + 32, KEY, 3, padding=1)

    def forward(self, image):
        x4 = self.s4(F.relu(self.stem(image)))
        x8 = self.s8(x4)
        x16 = self.s16(x8)
        f8 = self.fuse(self.lat8(x8) + up2(self.lat16(x16)))
        key = self.key(torch.cat([f8, F.relu(self.down4(x4))], 1))
        return F.relu(self.lat4(x4)), f8, key


def grid(h, w, device=None):
    """Token coordinates [2,h*w] (x, y) in tokens, centred so that the products stay small."""
    y = torch.arange(h, dtype=torch.float32, device=device) - (h - 1) / 2
    x = torch.arange(w, dtype=torch.float32, device=device) - (w - 1) / 2
    return torch.stack([x.repeat(h), y.repeat_interleave(w)])


class MemoryAttention(nn.Module):
    """Two softmax reads over L2 key distance with a Gaussian position prior: of the conditioning frames, and of the
    recent ones. Both share one exponential: what differs sits on the memory side. Each softmax has a constant null
    entry, so that content the memory cannot explain reads as such instead of as its least bad match."""

    def __init__(self):
        super().__init__()
        self.temp = nn.Parameter(torch.tensor([-1.6, -1.6]))      # log; conditioning, recent
        self.pos = nn.Parameter(torch.tensor([-4.5, -3.5]))       # log of 1/token^2
        self.null = nn.Parameter(torch.tensor([-6., -6.]))

    block = 0          # export: queries a block, so that the affinities of a block stay in cache

    def vectors(self, qk, mk, cond, used, h, w):
        """Augmented queries [B,N,37] and memory keys [B,37,NM*N] whose product is the logits.
        qk [B,32,N], mk [B,NM,N,32], cond/used [NM] or [B,NM] 0/1 floats."""
        B, NM, N = mk.shape[:3]
        g = grid(h, w, qk.device)
        g2 = (g * g).sum(0)
        cond, used = cond.reshape(-1, NM, 1), used.reshape(-1, NM, 1)
        t = cond * self.temp[0].exp() + (1 - cond) * self.temp[1].exp()        # [.,NM,1]
        p = cond * self.pos[0].exp() + (1 - cond) * self.pos[1].exp()
        # -t|q-k|^2 - p|x-x'|^2 = q.(2tk) - t|q|^2 - t|k|^2 + ...: one matmul of augmented vectors
        one = torch.ones_like(g2)
        q = torch.cat([qk, (qk * qk).sum(1, keepdim=True), torch.stack([g[0], g[1], g2, one])[None].expand(B, -1, -1)], 1)
        bias = -t * (mk * mk).sum(-1) - p * g2 + (used - 1) * 60.
        m = torch.cat([mk * (2 * t)[..., None],
                       torch.stack([(-t).expand(B, NM, N), (2 * p * g[0]).expand(B, NM, N), (2 * p * g[1]).expand(B, NM, N),
                                    (-p).expand(B, NM, N), bias.expand(B, NM, N)], -1)], -1)
        return q.transpose(1, 2), m.reshape(B, NM * N, KEY + 5).transpose(1, 2)

    def values(self, val, cond, used):
        """val [B,O,NM,N,C], mask first -> [B,NM*N,2*O*C+2]: for each read every object's value, and ones."""
        B, O, NM, N, C = val.shape
        wc, wr = (cond * used).reshape(-1, 1, NM, 1, 1), self.recent_weight(cond, used).reshape(-1, 1, NM, 1, 1)
        one = torch.ones_like(val[..., :1])[:, :1]                                          # [B,1,NM,N,1]
        flat = lambda x: x.permute(0, 2, 3, 1, 4).reshape(B, NM * N, -1)
        return torch.cat([flat(val * wc), flat(val * wr), flat(one * wc), flat(one * wr)], -1)

    def split(self, out, O, C):
        """[B,N,2*O*C+2] -> for each read (sums [B,O,N,C], mass [B,1,N,1], null)."""
        B, N = out.shape[:2]
        part = lambda i: out[..., i * O * C:(i + 1) * O * C].reshape(B, N, O, C).permute(0, 2, 1, 3)
        return [(part(i), out[..., 2 * O * C + i:2 * O * C + i + 1][:, None], self.null[i].exp()) for i in (0, 1)]

    def read(self, e, val, cond, used):
        """Both reads of `val` with the affinities e [B,N,NM*N]."""
        return self.split(torch.matmul(e, self.values(val, cond, used)), val.shape[1], val.shape[-1])

    @staticmethod
    def recent_weight(cond, used):
        """Recent slots; with none (first tracked frame, or all gated away) the conditioning ones stand in."""
        rec = (1 - cond) * used
        has = rec.amax(-1, keepdim=True)
        return rec + (1 - has) * cond * used

    def prototypes(self, qk, mk, m, cond, used):
        """Similarity of each token to the mean object / background key of both groups: [B,O,4,N]."""
        out = []
        for wgt in (cond * used, self.recent_weight(cond, used)):
            wgt = wgt.reshape(-1, 1, wgt.shape[-1], 1)
            for mm in (m, 1 - m):
                mm = mm * wgt                                                             # [B,O,NM,N]
                B, O = mm.shape[:2]
                flat = mm.reshape(B, O, -1)
                p = torch.matmul(flat, mk.reshape(B, -1, KEY)) / (flat.sum(-1, keepdim=True) + 1e-3)   # [B,O,32]
                d = (p * p).sum(-1, keepdim=True) - 2 * torch.matmul(p, qk) + (qk * qk).sum(1, keepdim=True)
                out.append(torch.exp(-d * (1 / KEY)))
        return torch.stack(out, 2)

    def forward(self, qk, mk, val, cond, used, prev8, h, w):
        """qk [B,32,N]; mk [B,NM,N,32]; val [B,O,NM,N,15]; prev8 [B,O,N] -> pix_feat [B*O,40,h,w] (and the affinity)."""
        B, O = val.shape[:2]
        N = h * w
        q, m = self.vectors(qk, mk, cond, used, h, w)
        e, parts = None, []
        if self.block:
            v = self.values(val, cond, used)
            q, m = q * 1., m * 1.            # transposed once, not in every block's product
            reads = self.split(torch.cat([torch.matmul(torch.matmul(b, m).exp(), v) for b in q.split(self.block, 1)], 1), O, val.shape[-1])
        else:
            e = torch.matmul(q, m).exp()
            reads = self.read(e, val, cond, used)
        for s, mass, null in reads:
            z = 1 / (mass + null)
            parts += [s * z, (null * z).expand(B, O, N, 1)]
        x = torch.cat(parts, -1).transpose(2, 3)                                          # [B,O,32,N]
        proto = self.prototypes(qk, mk, val[..., 0], cond, used)
        # where the object was, softly, relative to its last centre: lets the decoder distrust far-off matches
        g = grid(h, w, qk.device)
        pm = prev8 + 1e-4
        pm = pm / pm.sum(-1, keepdim=True)
        c = torch.matmul(pm, g.t())                                                      # [B,O,2]
        d = g[None, None] - c[..., None]                                                # [B,O,2,N]
        var = (pm[..., None, :] * d * d).sum(-1).sum(-1)[..., None, None] + 1.
        r2 = (d * d).sum(2, keepdim=True) / var
        pos = torch.cat([torch.exp(-.25 * r2), torch.exp(-.05 * r2), prev8[:, :, None], prev8.mean(-1)[..., None, None].expand(B, O, 1, N)], 2)
        return torch.cat([x, proto, pos], 2).reshape(B * O, PIX, h, w), e


class UNet(nn.Module):
    """stride 8 -> 16 -> 8 with a global context vector; no normalisation."""

    def __init__(self, c=C8, c16=C16, blocks16=2):
        super().__init__()
        self.a = WSBlock(c)
        self.down = WSConv(c, c16, s=2)
        self.b = nn.Sequential(*[WSBlock(c16) for _ in range(blocks16)])
        self.ctx = nn.Linear(2 * c16, c16)
        self.up = WSConv(c16, c, k=1)
        self.c = WSBlock(c)

    def forward(self, x):
        x = self.a(x)
        y = self.b(self.down(F.relu(x)))
        g = torch.cat([y.mean((2, 3)), y.amax((2, 3))], 1)
        y = y + self.ctx(g)[:, :, None, None]
        return self.c(x + up2(self.up(F.relu(y)))), g


class Heads(nn.Module):
    """IoU and presence from the global vector, the mask logits and the reads."""

    def __init__(self, c, extra):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(c + 2 + extra, 48), nn.ReLU(), nn.Linear(48, 2))

    def forward(self, g, logits, extra):
        p = torch.cat([g, logits.amax((2, 3)) * .2, torch.sigmoid(logits).mean((2, 3)) * 4, *extra], 1)
        y = self.net(p)
        return torch.sigmoid(y[:, :1]), y[:, 1:]


class Refine(nn.Module):
    """Stride-8 features and low-level stride-4 features to stride-4 logits."""

    def __init__(self, extra):
        super().__init__()
        self.x = WSConv(C8, 24, k=1)
        self.inp = WSConv(24 + C4 + extra, 32)
        self.mid = WSConv(32, 24)
        self.out = nn.Conv2d(24, 1, 3, padding=1)
        nn.init.constant_(self.out.bias, -1.)

    def forward(self, x, f4, extra):
        y = torch.cat([up2(self.x(F.relu(x))), f4, extra], 1)
        return self.out(F.relu(self.mid(F.relu(self.inp(y)))))


class TrackDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Conv2d(C8, C8, 3, padding=1)
        self.r = WSConv(PIX + 4, C8)
        self.prev = WSConv(1, 4, k=4, s=2)
        self.prev.padding = (1, 1)
        self.net = UNet()
        self.refine = Refine(2)
        self.heads = Heads(2 * C16, 3)

    def feats(self, f8):
        """The image's share of the first convolution, the same for all objects of a frame."""
        return self.f(f8)

    def forward(self, pix, fx, f4, prev):
        """pix [B,40,h8,w8], fx [B,64,h8,w8], f4 [B,24,h4,w4], prev logits [B,1,h4,w4]."""
        pm = torch.sigmoid(prev)
        x = fx + self.r(torch.cat([pix, self.prev(pm)], 1))
        x, g = self.net(x)
        read = up2(.5 * (pix[:, :1] + pix[:, VAL + 2:VAL + 3]))
        logits = self.refine(x, f4, torch.cat([pm, read], 1))
        n = [pix[:, :1].amax((2, 3)), pix[:, VAL + 2:VAL + 3].amax((2, 3)), pm.mean((2, 3)) * 4]
        return (logits, *self.heads(g, logits, n))


class PromptDecoder(nn.Module):
    """Points, box and/or a rough mask on one frame. Three rounds: the estimate's mean label over look-alike tokens
    (a soft GrabCut: what lies outside the box is certain background) goes back into the same network."""
    MAPS = 15

    def __init__(self, rounds=3):
        super().__init__()
        self.rounds = rounds
        self.temp = nn.Parameter(torch.tensor(-1.6))
        self.pos = nn.Parameter(torch.tensor(-3.5))
        self.f = nn.Conv2d(C8, C8, 3, padding=1)
        self.r = WSConv(self.MAPS + 6 + 3, C8)
        self.net = UNet()
        self.s8 = nn.Conv2d(C8, 1, 1)
        self.refine = Refine(6)
        self.heads = Heads(2 * C16, 2)

    def maps(self, coords, labels, mask_input, has_mask, h, w, step):
        """Prompt maps [B,15,h,w] at one cell per `step` px. coords [B,N,2] px, labels [B,N]."""
        B = coords.shape[0]
        ys = (torch.arange(h, dtype=torch.float32, device=coords.device) + .5) * step
        xs = (torch.arange(w, dtype=torch.float32, device=coords.device) + .5) * step
        gx, gy = xs[None, None, None].expand(1, 1, h, w), ys[None, None, :, None].expand(1, 1, h, w)
        is_ = lambda v: (labels - v).abs().lt(.5).float()                              # [B,N]
        d2 = ((gx - coords[..., 0, None, None]) ** 2 + (gy - coords[..., 1, None, None]) ** 2) / 64.    # [B,N,h,w], tokens^2
        g = lambda sel, s: (torch.exp(-d2 / (2 * s * s)) * sel[..., None, None]).amax(1, keepdim=True)
        pos, neg = is_(1), is_(0)
        near, far = .7, 4.
        pick = lambda v, k: (coords[..., k] * is_(v)).sum(1)[:, None, None, None]
        has_box = is_(2).amax(1)[:, None, None, None]
        x0, y0, x1, y1 = pick(2, 0), pick(2, 1), pick(3, 0), pick(3, 1)
        bw, bh = (x1 - x0).clamp(min=1.), (y1 - y0).clamp(min=1.)
        lr = lambda a, s: torch.clamp(a / s, -1, 1) * has_box
        sides = [lr(gx - x0, bw), lr(x1 - gx, bw), lr(gy - y0, bh), lr(y1 - gy, bh)]
        soft = lambda a: torch.clamp(a / step + .5, 0, 1)
        inside = soft(gx - x0) * soft(x1 - gx) * soft(gy - y0) * soft(y1 - gy) * has_box
        outside = has_box - inside
        hm = has_mask.reshape(-1, 1, 1, 1)
        pm = torch.sigmoid(mask_input) * hm
        scale = (torch.log(bw * bh) * .25 - 2) * has_box
        const = lambda v: v.expand(B, 1, h, w)
        return torch.cat([g(pos, near), g(pos, far), g(neg, near), g(neg, far), inside, outside, *sides, pm,
                          const(hm.expand(B, 1, 1, 1)), const(scale), const(has_box), const(pos.amax(1)[:, None, None, None])], 1)

    def forward(self, fx, f4, key, coords, labels, mask_input, has_mask, rounds=None):
        """key [B,32,N]; mask_input logits [B,1,h4,w4], has_mask [B] -> logits, iou, score, [stride-8 logits a round]."""
        h4, w4 = f4.shape[2:]
        h, w = h4 // 2, w4 // 2
        B = key.shape[0]
        m8 = F.avg_pool2d(mask_input, 2)
        maps = self.maps(coords, labels, m8, has_mask, h, w, 8.)
        g = grid(h, w, key.device)
        t, p = self.temp.exp(), self.pos.exp()
        k2, g2 = (key * key).sum(1), (g * g).sum(0)
        s = torch.matmul(torch.cat([2 * t * key, (2 * p * g)[None].expand(B, -1, -1)], 1).transpose(1, 2),
                         torch.cat([key, g[None].expand(B, -1, -1)], 1))
        b = t * k2 + p * g2
        e = torch.exp((s - b[:, :, None] - b[:, None, :]).clamp(max=0.))
        hm, hb = has_mask.reshape(-1, 1, 1, 1), maps[:, 13:14]
        # first guess: the mask, else the inside of the box, else around the positive points
        est = hm * maps[:, 10:11] + (1 - hm) * (hb * maps[:, 4:5] * .6 + (1 - hb) * maps[:, 1:2] * .6)
        fixed = torch.cat([torch.ones_like(est), maps[:, 4:6], maps[:, :1], maps[:, 2:3]], 1)
        mid = []
        for _ in range(rounds or self.rounds):
            v = torch.cat([fixed, est], 1).flatten(2)                                   # [B,6,N]
            r = torch.matmul(e, v.transpose(1, 2)).transpose(1, 2)
            r = r[:, 1:] / (r[:, :1] + 1e-6)
            ef = est.flatten(2)
            sim = []
            for wgt in (ef, 1 - ef, fixed[:, 2:3].flatten(2)):
                pr = torch.matmul(wgt, key.transpose(1, 2)) / (wgt.sum(-1, keepdim=True) + 1e-3)
                d = (pr * pr).sum(-1, keepdim=True) - 2 * torch.matmul(pr, key) + k2[:, None]
                sim.append(torch.exp(-d * (1 / KEY)))
            r = torch.cat([r, *sim], 1).reshape(B, 8, h, w)
            x = fx + self.r(torch.cat([maps, r, est], 1))
            x, gl = self.net(x)
            z = self.s8(F.relu(x))
            mid.append(z)
            est = torch.sigmoid(z)
        m4 = self.maps(coords, labels, mask_input, has_mask, h4, w4, 4.)
        extra = torch.cat([up2(est), m4[:, 4:6], m4[:, :1], m4[:, 2:3], m4[:, 10:11]], 1)
        logits = self.refine(x, f4, extra)
        hd = self.heads(gl, logits, [est.amax((2, 3)), est.mean((2, 3)) * 4])
        return (logits, *hd, mid)


class MemoryEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Conv2d(C8, 16, 1)
        self.m = nn.Conv2d(1, 16, 4, 2, 1)
        self.out = nn.Conv2d(16, VAL, 3, padding=1)

    def forward(self, fm, prob):
        """fm = f(f8) [B,16,h8,w8], mask probability [B,1,h4,w4] -> [B,15,N]: mask, value."""
        v = self.out(F.relu(fm + self.m(prob)))
        return torch.cat([F.avg_pool2d(prob, 2), v], 1).flatten(2)


class Nano(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.att, self.dec, self.prompt, self.mem = ImageEncoder(), MemoryAttention(), TrackDecoder(), PromptDecoder(), MemoryEncoder()
        for m in self.modules():
            if isinstance(m, nn.Conv2d) and not isinstance(m, WSConv):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                if m.bias is not None and m not in (self.dec.refine.out, self.prompt.refine.out):
                    nn.init.zeros_(m.bias)
        nn.init.normal_(self.enc.key.weight, std=.03)
        for o in (self.dec.refine.out, self.prompt.refine.out, self.prompt.s8):
            nn.init.normal_(o.weight, std=.02)


def normalise(image_u8):
    """[...,H,W,3] u8 RGB -> [...,3,H,W] f32 as model.toml's mean and std say."""
    x = image_u8.float().movedim(-1, -3)
    return (x / 255. - 0.45) / 0.225

"""python -m train.train --pool POOL --out DIR --budget-min 95: train, resumably.

The learning rate and the curriculum are functions of accumulated training time over the budget, so a killed run
goes on where it was, and the budget may be changed between runs.
"""
import argparse
import copy
import json
import os
import time

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from .data import N_LABEL, World
from .model import KEY, Nano, normalise

#        from share of budget: T, H, W, batch
PHASES = [(0.00, 4, 128, 224, 4), (0.60, 5, 160, 288, 3), (0.80, 7, 160, 288, 2)]
FURTHER = [(0.00, 5, 160, 288, 3), (0.40, 7, 160, 288, 3), (0.75, 8, 192, 320, 2)]      # with --init


class Clips(torch.utils.data.IterableDataset):
    def __init__(self, pool, T, H, W, B, seed):
        self.a = (pool, T, H, W, B, seed)

    def __iter__(self):
        pool, T, H, W, B, seed = self.a
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([seed, info.id if info else 0])
        world = World(pool)
        while True:
            cs = [world.clip(rng, T, H, W) for _ in range(B)]
            yield {k: torch.from_numpy(np.stack([c[k] for c in cs])) for k in cs[0]}


def bce_dice(logits, gt):
    """logits, gt [B,1,h,w] -> mean BCE + dice. Hard pixels count: BCE is also averaged over the object's surroundings."""
    bce = F.binary_cross_entropy_with_logits(logits, gt, reduction="none")
    p = torch.sigmoid(logits)
    s = gt.sum((1, 2, 3))
    inter = (p * gt).sum((1, 2, 3))
    dice = 1 - (2 * inter + 4) / (p.sum((1, 2, 3)) + s + 4)
    # per-image weight: small objects weigh up to as much as large ones
    w = (s / gt[0].numel()).clamp(.02, .25).rsqrt()[:, None, None, None] * .35
    return (bce * w).mean() * 2 + dice.mean()


def iou_of(logits, gt):
    a, b = logits > 0, gt > .5
    i, u = (a & b).sum((1, 2, 3)).float(), (a | b).sum((1, 2, 3)).float()
    return torch.where(u > 0, i / u.clamp(min=1), torch.ones_like(u))


def heads_loss(iou, score, logits, gt):
    present = (gt > .5).flatten(1).sum(1) >= 3
    t = iou_of(logits.detach(), gt)
    l = F.binary_cross_entropy_with_logits(score[:, 0], present.float())
    return .2 * l + .2 * ((iou[:, 0] - t) ** 2 * present).mean()


def corrupt(prob, fp, fn, rng, p):
    """Adds and removes regions of a mask probability [BO,1,h4,w4], each with chance p an object."""
    a = torch.from_numpy((rng.random((2, prob.shape[0])) < p).astype(np.float32))[..., None, None, None]
    prob = torch.maximum(prob, fp * a[0])
    return prob * (1 - fn * a[1])


def prompt_inputs(b, gt0, rng, H, W):
    """Random prompts for O objects a clip: box, points, box+points, or a correction of a rough mask."""
    box, pt = b["box"].flatten(0, 1), b["point"].flatten(0, 1)
    BO = box.shape[0]
    coords, labels = torch.zeros(BO, 6, 2), -torch.ones(BO, 6)
    mask_in, has = torch.zeros_like(gt0), torch.zeros(BO)
    fp, fn = b["fp"][:, :, 0].flatten(0, 1).float()[:, None], b["fn"][:, :, 0].flatten(0, 1).float()[:, None]
    kind = rng.choice(4, BO, p=[.5, .3, .1, .1])
    for i in range(BO):
        n = 0
        if kind[i] in (0, 2):
            coords[i, 0], coords[i, 1] = box[i, :2], box[i, 2:]
            labels[i, 0], labels[i, 1] = 2, 3
            n = 2
        if kind[i] in (1, 2):
            coords[i, n], labels[i, n] = pt[i], 1
            n += 1
        if kind[i] == 3:
            m = torch.maximum(gt0[i], fp[i]) * (1 - fn[i])
            mask_in[i] = (m * 2 - 1) * float(rng.uniform(2, 10))
            has[i] = 1
        extra = int(rng.integers(0, 4)) if kind[i] == 3 or rng.random() < .3 else 0
        if kind[i] == 3:
            extra = max(extra, 1)
        for _ in range(extra):      # clicks: on missing parts positive, on leaks negative
            g = gt0[i, 0]
            if kind[i] == 3:
                err = (mask_in[i, 0] > 0) != (g > .5)
            else:
                err = torch.ones_like(g) > 0 if rng.random() < .5 else F.max_pool2d(gt0[i:i + 1], 15, 1, 7)[0, 0] > .5
            yx = torch.nonzero(err)
            if not len(yx):
                break
            y, x = yx[int(rng.integers(len(yx)))].tolist()
            coords[i, n], labels[i, n] = torch.tensor([x * 4 + 1.5, y * 4 + 1.5]), float(g[y, x] > .5)
            n += 1
    return coords, labels, mask_in, has


def forward(net, b, rng, share):
    """One batch of clips; the loss and a few figures. O objects share a clip's image features and affinities."""
    img = normalise(b["image"])
    B, T, _, H, W = img.shape
    O = b["mask"].shape[1]
    BO, h4, w4, h8, w8 = B * O, H // 4, W // 4, H // 8, W // 8
    N = h8 * w8
    f4, f8, key = net.enc(img.flatten(0, 1).contiguous(memory_format=torch.channels_last))
    fx = net.dec.feats(f8)
    fm = net.mem.f(f8)
    at = lambda x, t: x.unflatten(0, (B, T))[:, t]
    rep = lambda x: x.repeat_interleave(O, 0)
    gt = b["mask"].float().div(255).flatten(0, 1)[:, :, None]            # [BO,T,1,h4,w4]
    fp = b["fp"].float().flatten(0, 1)[:, :, None]
    fn = b["fn"].float().flatten(0, 1)[:, :, None]
    keys = [at(key, t).flatten(2) for t in range(T)]                     # [B,32,N]
    onehot = F.one_hot(b["label"].long().flatten(2), N_LABEL).float()    # [B,T,N,L]
    stats, losses = {}, {}

    # prompts on frame 0
    coords, labels, mask_in, has = prompt_inputs(b, gt[:, 0], rng, H, W)
    f40 = rep(at(f4, 0))
    pl, pi, ps, mid = net.prompt(rep(net.prompt.f(at(f8, 0))), f40, rep(keys[0]), coords, labels, mask_in, has, 2 if share < .5 else 3)
    g8 = F.avg_pool2d(gt[:, 0], 2)
    losses["prompt"] = bce_dice(pl, gt[:, 0]) + .25 * sum(bce_dice(z, g8) for z in mid) + heads_loss(pi, ps, pl, gt[:, 0])
    with torch.no_grad():
        pj = iou_of(pl, gt[:, 0])
        for n, sel in (("box", (labels == 2).any(1) & (labels < 0).sum(1).eq(4)), ("pt", (labels == 1).any(1) & ~(labels == 2).any(1) & (has == 0))):
            stats["j_" + n] = pj[sel].mean().item() if sel.any() else float("nan")

    # the conditioning mask: the truth, sometimes a corrupted one, sometimes the prompt decoder's
    m0 = gt[:, 0]
    u = torch.from_numpy(rng.random(BO).astype(np.float32))[:, None, None, None]
    good = (pj > .5).float()[:, None, None, None]
    m0 = torch.where((u < .25) & (good > 0), (pl.detach() > 0).float(), m0)
    m0 = corrupt(m0, fp[:, 0], fn[:, 0], rng, .06)

    slots = {}                 # t -> (key [B,N,32], val [BO,15,N])
    def write(t, prob):
        slots[t] = (keys[t].transpose(1, 2), net.mem(rep(at(fm, t)), prob))
    write(0, m0)
    prev = (m0 * 2 - 1) * 8
    seed1 = b["seed1"].float().repeat_interleave(O)[:, None, None, None]
    p_c = .35 if share < .15 else .5
    ltrack, lheads, llab, js = 0, 0, 0, []
    dummy = any(b["seed1"].tolist())
    for t in range(1, T):
        rec = [k for k in range(max(1, t - 1), t)]
        if t > 2:
            rec.append(int(rng.integers(1, t - 1)))
        if rng.random() < .1:
            rec = []
        ids = [0] + rec
        mk = torch.stack([slots[k][0] for k in ids], 1)
        val = torch.stack([slots[k][1].unflatten(0, (B, O)) for k in ids], 2).transpose(3, 4)   # [B,O,NM,N,15]
        cond = torch.tensor([1.] + [0.] * len(rec))
        used = torch.ones_like(cond)
        prev8 = F.avg_pool2d(torch.sigmoid(prev), 2).flatten(1).unflatten(0, (B, O))
        pix, e = net.att(keys[t], mk, val, cond, used, prev8, h8, w8)
        logits, iou, score = net.dec(pix, rep(at(fx, t)), rep(at(f4, t)), prev)
        # a far conditioning frame: frame 1 is not judged, its (corrupted) truth becomes the recent memory
        g = gt[:, t]
        judged = torch.ones(BO) if t > 1 else 1 - seed1.flatten()
        if judged.any():
            j = judged > 0
            ltrack = ltrack + bce_dice(logits[j], g[j]) * float(j.float().mean())
            lheads = lheads + heads_loss(iou[j], score[j], logits[j], g[j]) * float(j.float().mean())
        # dense correspondence: propagate region labels with both reads
        lv = torch.stack([onehot[:, k] for k in ids], 1)[:, None]                             # [B,1,NM,N,L]
        tgt = b["label"][:, t].flatten(1).long()
        for s, mass, null in net.att.read(e, lv, cond, used):
            p = ((s[:, 0] + null / N_LABEL) / (mass[:, 0] + null)).clamp(1e-6, 1)
            nll = -torch.log(p.gather(2, tgt[..., None])[..., 0])
            fgw = torch.where(tgt > 0, 1., .3)
            llab = llab + (nll.clamp(max=6) * fgw).sum() / fgw.sum()
        if t > 1 or not dummy:
            with torch.no_grad():
                pres = (g > .5).flatten(1).sum(1) >= 8
                js.append(iou_of(logits, g)[pres & (judged > 0)])
        # own prediction back, detached, sometimes corrupted
        prob = torch.sigmoid(logits.detach())
        if t == 1:
            prob = seed1 * g + (1 - seed1) * prob
        pres = (torch.sigmoid(score.detach()) > .5).float()[..., None, None]
        prev_prob = corrupt(prob, fp[:, t], fn[:, t], rng, p_c * .4)
        mem_prob = corrupt(prob, fp[:, t], fn[:, t], rng, p_c * .5)
        prev = torch.logit(prev_prob.clamp(3e-4, 1 - 3e-4))
        write(t, mem_prob)
    losses["track"] = ltrack / (T - 1)
    losses["heads"] = lheads / (T - 1)
    losses["label"] = llab / (T - 1)
    stats["j"] = torch.cat(js).mean().item() if js else float("nan")
    total = 2 * losses["track"] + losses["heads"] + .15 * losses["label"] + .7 * losses["prompt"]
    stats.update({k: float(v.detach()) for k, v in losses.items()})
    return total, stats


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--pool", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--budget-min", type=float, default=95)
    ap.add_argument("--lr", type=float, default=1.6e-3)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--init", help="go on from the weights of this checkpoint, clock at 0, batch-norm statistics frozen")
    ap.add_argument("--max-steps", type=int, default=10 ** 9)
    ap.add_argument("--save-s", type=float, default=120)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(a.seed)
    net = Nano().to(memory_format=torch.channels_last)
    ema = copy.deepcopy(net).eval()
    decay = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    opt = torch.optim.AdamW([dict(params=decay, weight_decay=.02), dict(params=rest, weight_decay=0.)], lr=a.lr, betas=(.9, .99))
    path, step, spent = os.path.join(a.out, "last.pt"), 0, 0.
    if os.path.exists(path):
        s = torch.load(path, weights_only=False)
        net.load_state_dict(s["net"], strict=False)
        ema.load_state_dict(s["ema"], strict=False)
        try:
            opt.load_state_dict(s["opt"])
        except ValueError as e:
            print("optimizer state not taken:", e)
        step, spent = s["step"], s["spent"]
        print(f"resumed at step {step}, {spent / 60:.1f} min", flush=True)
    elif a.init:
        s = torch.load(a.init, weights_only=False)
        print(net.load_state_dict(s["ema"], strict=False), flush=True)
        ema.load_state_dict(net.state_dict())

    def save(p):
        torch.save(dict(net=net.state_dict(), ema=ema.state_dict(), opt=opt.state_dict(), step=step, spent=spent, args=vars(a), phases=PHASES), p + ".tmp")
        os.replace(p + ".tmp", p)

    budget, it, cur, acc, last_save, shown = a.budget_min * 60, None, None, {}, spent, time.time()
    warm0 = step if a.init and not os.path.exists(path) else -25
    net.train()
    while spent < budget and step < a.max_steps:
        t0 = time.time()
        share = spent / budget
        ph = [p for p in (FURTHER if a.init else PHASES) if share >= p[0]][-1]
        if ph != cur:
            cur, it = ph, None
            it = iter(torch.utils.data.DataLoader(Clips(a.pool, *ph[1:], seed=a.seed * 1000003 + step), batch_size=None, num_workers=1, prefetch_factor=3))
            print("phase", ph, flush=True)
        rng = np.random.default_rng([a.seed, step])
        lr = a.lr * (.5 * (1 + np.cos(np.pi * min(share, 1)))) * min(1, (step + 1) / 100, (step - warm0 + 1) / 25) + 1e-6
        for g in opt.param_groups:
            g["lr"] = lr
        if share > .7 or a.init:          # batch-norm statistics settle: the last stretch trains as it will run
            net.enc.eval()
        b = next(it)
        t1 = time.time()
        loss, st = forward(net, b, rng, max(share, .6) if a.init else share)
        if torch.isfinite(loss):
            opt.zero_grad(set_to_none=True)
            loss.backward()
            st["grad"] = float(torch.nn.utils.clip_grad_norm_(net.parameters(), 2.))
            opt.step()
        else:
            print("non-finite loss skipped at", step, flush=True)
        d = min(.998, (step + 1) / (step + 20))
        with torch.no_grad():
            for p, q in zip(ema.parameters(), net.parameters()):
                p.lerp_(q, 1 - d)
            for p, q in zip(ema.buffers(), net.buffers()):
                p.copy_(q)
        step += 1
        dt = time.time() - t0
        spent += min(dt, 20)
        st["wait"] = t1 - t0
        st["s"] = dt
        for k, v in st.items():
            acc.setdefault(k, []).append(v)
        if step % 25 == 0:
            print(f"{time.strftime('%H:%M:%S')} step {step} {spent / 60:.1f}m lr {lr:.5f} " + " ".join(f"{k} {np.nanmean(v):.3f}" for k, v in acc.items())
                  + f" temp {net.att.temp.tolist()[0]:.2f},{net.att.temp.tolist()[1]:.2f} pos {net.att.pos.tolist()[0]:.2f},{net.att.pos.tolist()[1]:.2f}", flush=True)
            acc = {}
        if spent - last_save > a.save_s:
            last_save = spent
            save(path)
            n = int(spent // 600)
            if spent > 600 * n and spent - 600 * n < a.save_s * 1.5:
                torch.save(ema.state_dict(), os.path.join(a.out, f"ema_{n * 10:03d}.pt"))
    save(path)
    torch.save(ema.state_dict(), os.path.join(a.out, "ema_final.pt"))
    print("done", flush=True)


if __name__ == "__main__":
    main()

"""python -m train.prompts --pool POOL --init RUN/last.pt --out DIR --minutes 14: train the prompt decoder alone.

The encoder is frozen: only still frames are needed and nothing is tracked, so that many more prompts a second are
seen than in `train.train`. Run it last.
"""
import argparse
import os
import time

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from .model import Nano, normalise
from .train import Clips, bce_dice, heads_loss, iou_of, prompt_inputs


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--pool", required=True)
    ap.add_argument("--init", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--minutes", type=float, default=14)
    ap.add_argument("--lr", type=float, default=1e-3)
    ap.add_argument("--seed", type=int, default=100)
    ap.add_argument("--size", default="160x288")
    ap.add_argument("--batch", type=int, default=6)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(a.seed)
    s = torch.load(a.init, weights_only=False)
    net = Nano().to(memory_format=torch.channels_last)
    net.load_state_dict(s["ema"])
    net.eval()
    ps = list(net.prompt.parameters())
    ema = [p.detach().clone() for p in ps]
    opt = torch.optim.AdamW(ps, lr=a.lr, weight_decay=.02, betas=(.9, .99))
    H, W = map(int, a.size.split("x"))
    it = iter(torch.utils.data.DataLoader(Clips(a.pool, 1, H, W, a.batch, a.seed), batch_size=None, num_workers=1, prefetch_factor=3))
    path, step, spent, last, acc = os.path.join(a.out, "last.pt"), 0, 0., 0., {}
    if os.path.exists(path):
        r = torch.load(path, weights_only=False)
        net.prompt.load_state_dict(r["prompt"])
        ema, step, spent = r["avg"], r["step"], r["spent"]
        opt.load_state_dict(r["opt"])

    def save():
        full = {k: v.clone() for k, v in s["ema"].items()}
        for (n, _), v in zip(net.prompt.named_parameters(), ema):
            full["prompt." + n] = v
        torch.save(dict(ema=full, prompt=net.prompt.state_dict(), avg=ema, opt=opt.state_dict(), step=step, spent=spent, args=vars(a)), path + ".tmp")
        os.replace(path + ".tmp", path)

    while spent < a.minutes * 60:
        t0 = time.time()
        for g in opt.param_groups:
            g["lr"] = a.lr * .5 * (1 + np.cos(np.pi * spent / (a.minutes * 60))) * min(1, (step + 1) / 20)
        rng = np.random.default_rng([a.seed, step])
        b = next(it)
        with torch.no_grad():
            f4, f8, key = net.enc(normalise(b["image"][:, 0]).contiguous(memory_format=torch.channels_last))
            rep = lambda x: x.repeat_interleave(2, 0)
            gt = b["mask"].float().div(255).flatten(0, 1)
            coords, labels, mask_in, has = prompt_inputs(b, gt, rng, H, W)
        z, iou, score, mid = net.prompt(rep(net.prompt.f(f8)), rep(f4), rep(key.flatten(2)), coords, labels, mask_in, has)
        g8 = F.avg_pool2d(gt, 2)
        loss = bce_dice(z, gt) + .25 * sum(bce_dice(m, g8) for m in mid) + heads_loss(iou, score, z, gt)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(ps, 2.)
        opt.step()
        with torch.no_grad():
            d = min(.99, (step + 1) / (step + 10))
            for e, p in zip(ema, ps):
                e.lerp_(p, 1 - d)
            j = iou_of(z, gt)
            box, pt = (labels == 2).any(1), (labels == 1).any(1) & ~(labels == 2).any(1) & (has == 0)
            for n, v in (("loss", loss.item()), ("j_box", j[box].mean().item()), ("j_pt", j[pt].mean().item())):
                acc.setdefault(n, []).append(v)
        step += 1
        spent += min(20, time.time() - t0)
        if step % 25 == 0:
            print(f"{time.strftime('%H:%M:%S')} step {step} {spent / 60:.1f}m " + " ".join(f"{k} {np.nanmean(v):.3f}" for k, v in acc.items()), flush=True)
            acc = {}
        if spent - last > 90:
            last = spent
            save()
    save()
    print("done", flush=True)


if __name__ == "__main__":
    main()

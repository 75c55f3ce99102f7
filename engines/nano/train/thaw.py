"""python -m train.thaw MODEL_DIR OUT.pt: a checkpoint from exported graphs, to go on training what was shipped.

The graphs hold folded convolutions: batch norms come back as the identity with the folded bias (train with the
encoder's statistics frozen), standardised weights as a weight of unit variance and its gain.
"""
import sys

import onnx
import torch
from onnx import numpy_helper

from .model import ConvBN, Nano, WSConv

GRAPHS = ("image_encoder", "memory_attention", "decoder_track", "decoder_prompt", "memory_encoder")
#        the exporter's wrappers name the same parts differently
RENAME = {"image_encoder": {"f.": "dec.f.", "m.": "mem.f."}, "decoder_prompt": {"p.": "prompt."}}


def main():
    folder, out = sys.argv[1:3]
    flat, folded = {}, []
    for g in GRAPHS:
        for t in onnx.load(f"{folder}/{g}.onnx").graph.initializer:
            name = t.name
            if g == "memory_attention" and name.startswith("onnx::Exp_"):        # the reads' six scalars lose their names, not their order
                folded.append((int(name.rsplit("_", 1)[1]), numpy_helper.to_array(t).item()))
            for a, b in RENAME.get(g, {}).items():
                if name.startswith(a):
                    name = b + name[len(a):]
            flat[name] = torch.from_numpy(numpy_helper.to_array(t).copy())
    logs = [v for _, v in sorted(folded)]
    for n in ("temp", "pos", "null"):
        flat["att." + n], logs = torch.tensor(logs[:2]), logs[2:]
    net = Nano()
    state, seen = net.state_dict(), set()
    take = lambda n: (seen.add(n), flat[n])[1]
    for n, m in net.named_modules():
        if isinstance(m, ConvBN):
            state[n + ".0.weight"] = take(n + ".0.weight")
            state[n + ".1.bias"] = take(n + ".0.bias")
            state[n + ".1.running_mean"].zero_()
            state[n + ".1.running_var"].fill_(1 - m[1].eps)
            state[n + ".1.weight"].fill_(1)
            seen |= {f"{n}.1.{k}" for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
        elif isinstance(m, WSConv):
            w = take(n + ".weight")
            sd = w.var(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12).sqrt()
            state[n + ".weight"], state[n + ".gain"], state[n + ".bias"] = w / sd, sd / m.scale, take(n + ".bias")
            seen.add(n + ".gain")
    for n in state:
        if n not in seen and n in flat:
            state[n] = take(n)
    lost = [n for n in state if n not in seen]
    if lost:
        print("not in the graphs, left as initialised:", lost)
    net.load_state_dict(state)
    torch.save(dict(ema=net.state_dict()), out)


if __name__ == "__main__":
    main()

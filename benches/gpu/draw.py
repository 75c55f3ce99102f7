#!/usr/bin/env python3
"""Draws a model's weights from a seed and exports its graphs, so that nothing of that size has to travel.

    python3 benches/gpu/draw.py --model tiny@1024 --precision fp16 --out DIR

Writes DIR/checkpoint.pt, which the PyTorch side loads, and DIR/NAME-PRECISION with the graphs. The same seed gives the
same weights everywhere. They are not compared with the published code here: the exporter's tests do that; here the graphs
on the GPU are held against the same graphs on the processor.
"""

import argparse
import os
import sys
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
EXPORT = next(path for path in (HERE / "export", HERE.parents[1] / "engines" / "export") if path.is_dir())
sys.path.insert(0, str(EXPORT))

import torch  # noqa: E402

from sightline_export import families, verify, weights  # noqa: E402
from sightline_export.__main__ import export  # noqa: E402

SEED = 9


def main() -> None:
    """Everything that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, metavar="NAME@PX")
    parser.add_argument("--precision", nargs="+", default=["fp32"])
    parser.add_argument("--closed", action="store_true", help="fixed sizes, for CUDA graphs")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    name, _, size = args.model.partition("@")
    config = None if name == "edgetam" else name
    family = families.find("edgetam" if config is None else "sam2.1")
    args.out.mkdir(parents=True, exist_ok=True)
    source = args.out / "checkpoint.pt"
    if not source.is_file():
        model = family.build(family.read_config(family.config_path(config), int(size)))
        family.restore(model, weights.draw(family.official(model), SEED))
        draft = source.with_suffix(f".{os.getpid()}")
        torch.save({"model": family.official(model)}, draft)
        draft.rename(source)
    for precision in args.precision:
        folder = args.out / f"{precision}{'-closed' if args.closed else ''}"
        if (folder / "model.toml").is_file():
            continue
        with mock.patch.object(verify, "check", lambda *_, **__: {}):
            export(family.name, config, str(source), int(size), 1, folder, name=f"{name}-{size}-{folder.name}",
                   say=lambda _: None, precision_name=precision, closed=args.closed, with_parity_set=False)
        print(folder, flush=True)


if __name__ == "__main__":
    main()

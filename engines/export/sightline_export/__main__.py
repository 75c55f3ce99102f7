"""Command line: `python -m sightline_export --family sam2.1 --config tiny ... --out DIR`."""

import argparse
import json
import re
import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf

from . import EXPORTER, OPSET, ExportError, checkpoint, families, manifest, onnx_file, verify, weights


class Arguments(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str):
        raise ExportError(message)


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line, checked as far as it can be without a model."""
    parser = Arguments(prog="sightline_export", description=__doc__)
    parser.add_argument("--family", required=True, help="|".join(families.FAMILIES))
    parser.add_argument("--config", required=True, help="tiny|small|base+|large or a yaml file")
    parser.add_argument("--checkpoint", required=True, help="FILE.pt or random:SEED")
    parser.add_argument("--image-size", required=True, type=int, metavar="N")
    parser.add_argument("--max-cond", type=int, default=1, metavar="1..8")
    parser.add_argument("--name", help="name in model.toml (default: FAMILY-CONFIG)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    args = parser.parse_args(argv)
    if not 1 <= args.max_cond <= 8:
        raise ExportError(f"max cond: expected 1..8, got {args.max_cond}")
    if args.checkpoint.startswith("random:") and not re.fullmatch(r"random:\d{1,9}", args.checkpoint):
        raise ExportError(f"checkpoint: expected random:SEED with a number, got {args.checkpoint!r}")
    return args


def export(family_name: str, config: str, source: str, image_size: int, max_cond: int, out: Path,
           name: str | None = None, say=print) -> torch.nn.Module:
    """Writes the folder and returns the published predictor that was exported."""
    family = families.find(family_name)
    settings = family.read_config(family.config_path(config), image_size)
    model = family.build(settings)
    out.mkdir(parents=True, exist_ok=True)
    if source.startswith("random:"):
        weights.random(model, int(source.split(":")[1]))
        torch.save({"model": model.state_dict()}, out / "checkpoint.pt")
    else:
        checkpoint.apply(model, checkpoint.load(Path(source)), Path(source).name)
    (out / "config.yaml").write_text("# @package _global_\n" + OmegaConf.to_yaml(settings))

    tables, differences = {}, {}
    for graph in family.graphs(model, max_cond):
        path = out / f"{graph.name}.onnx"
        tables[graph.name] = onnx_file.entry(onnx_file.write(graph, path), path)
        differences[graph.name] = verify.check(graph, path)
        worst = ", ".join(f"{key} {value:.1e}" for key, value in differences[graph.name].items())
        say(f"{graph.name:17} {path.stat().st_size / 1e6:8.2f} MB   max abs diff: {worst}")
    head = {"schema": 1, "name": name or f"{family.name}-{Path(config).stem}", "family": family.name,
            "exporter": EXPORTER, "opset": OPSET, "licence": family.licence}
    manifest.write(out / "model.toml", head, family.manifest(model, max_cond), tables)
    record = {"tolerance": verify.TOLERANCE, "max_abs_diff": differences}
    (out / "verify.json").write_text(json.dumps(record, indent=1) + "\n")
    return model


def main() -> int:
    """Exit 0, or 2 with one line of reason."""
    torch.set_num_threads(1)
    try:
        args = parse(sys.argv[1:])
        export(args.family, args.config, args.checkpoint, args.image_size, args.max_cond, args.out,
               args.name)
    except (ExportError, OSError) as error:
        print(f"sightline_export: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

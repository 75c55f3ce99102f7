"""Command line: `python -m sightline_export --family sam2.1 --config tiny ... --out DIR`."""

import argparse
import json
import re
import sys
from pathlib import Path

import torch

from . import (EXPORTER, OPSET, ExportError, checkpoint, families, manifest, narrow, onnx_file, parity_set,
               precision, verify, weights)


SHOWN_FRAMES = 8


class Arguments(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str):
        raise ExportError(message)


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line, checked as far as it can be without a model."""
    parser = Arguments(prog="sightline_export", description=__doc__)
    parser.add_argument("--family", required=True, help="|".join(families.FAMILIES))
    parser.add_argument("--config", help="tiny|small|base+|large or a config file (edgetam: none needed)")
    parser.add_argument("--checkpoint", required=True, help="FILE.pt, FILE.safetensors or random:SEED")
    parser.add_argument("--image-size", required=True, type=int, metavar="N")
    parser.add_argument("--max-cond", type=int, default=1, metavar="1..8")
    parser.add_argument("--closed", action="store_true",
                        help="fixed sizes: one object and all memory slots in every run")
    parser.add_argument("--precision", choices=["fp32", *narrow.WIDTHS], default="fp32")
    parser.add_argument("--int8-encoder", type=Path, nargs="+", default=[], metavar="CLIP",
                        help="quantize the image encoder, calibrated on these videos or folders of pictures")
    parser.add_argument("--name", help="name in model.toml (default: FAMILY-CONFIG)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    args = parser.parse_args(argv)
    if not 1 <= args.max_cond <= 8:
        raise ExportError(f"max cond: expected 1..8, got {args.max_cond}")
    if args.checkpoint.startswith("random:") and not re.fullmatch(r"random:\d{1,9}", args.checkpoint):
        raise ExportError(f"checkpoint: expected random:SEED with a number, got {args.checkpoint!r}")
    return args


def export(family_name: str, config: str | None, source: str, image_size: int, max_cond: int, out: Path,
           name: str | None = None, say=print, precision_name: str = "fp32",
           int8_clips: list[Path] | None = None, with_parity_set: bool = True,
           closed: bool = False) -> torch.nn.Module:
    """Writes the folder and returns the published predictor that was exported."""
    family = families.find(family_name)
    settings = family.read_config(family.config_path(config), image_size)
    images = precision.calibration(int8_clips, image_size) if int8_clips else []
    model = family.build(settings)
    out.mkdir(parents=True, exist_ok=True)
    if source.startswith("random:"):
        weights.random(family, model, int(source.split(":")[1]))
        torch.save({"model": family.official(model)}, out / "checkpoint.pt")
    else:
        state = checkpoint.load(Path(source))
        family.restore(model, checkpoint.fit(family.official(model), state, Path(source).name, family.name))
    file_name, text = family.dump_config(settings)
    (out / file_name).write_text(text)

    tables, differences, kinds = {}, {}, {}
    for graph in family.graphs(model, max_cond, closed):
        path = out / f"{graph.name}.onnx"
        written = onnx_file.write(graph, path)
        kinds[graph.name] = "fp32"
        exact = verify.check(graph, path)
        if images and graph.name == "image_encoder":
            kinds[graph.name], written = "int8", precision.to_int8(path, images)
            # On noise it would be judged outside the range it was calibrated for.
            graph.samples = [{"image": torch.from_numpy(image)} for image in images[:SHOWN_FRAMES]]
        elif precision_name != "fp32":
            kinds[graph.name], written = precision_name, narrow.to_narrow(path, path, precision_name)
        reduced = kinds[graph.name] != "fp32"
        tables[graph.name] = onnx_file.entry(written, path)
        differences[graph.name] = verify.check(graph, path, tolerance=None) if reduced else exact
        worst = ", ".join(f"{key} {value:.1e}" for key, value in differences[graph.name].items())
        note = f"   {kinds[graph.name]}, reported only" if reduced else ""
        say(f"{graph.name:17} {path.stat().st_size / 1e6:8.2f} MB   max abs diff: {worst}{note}")
    head = {"schema": 1, "name": name or _name(family, config), "family": family.name,
            "exporter": EXPORTER, "opset": narrow.OPSETS.get(precision_name, OPSET), "licence": family.licence}
    manifest.write(out / "model.toml", head, family.manifest(model, max_cond), tables)
    if with_parity_set:
        parity_set.write(out / "parity", family, model)
    record = {"tolerance": verify.TOLERANCE, "precision": kinds, "calibration_frames": len(images),
              "max_abs_diff": differences}
    (out / "verify.json").write_text(json.dumps(record, indent=1) + "\n")
    return model


def _name(family: families.Family, config: str | None) -> str:
    return family.name if config is None else f"{family.name}-{Path(config).stem}"


def main() -> int:
    """Exit 0, or 2 with one line of reason."""
    torch.set_num_threads(1)
    try:
        args = parse(sys.argv[1:])
        export(args.family, args.config, args.checkpoint, args.image_size, args.max_cond, args.out,
               args.name, precision_name=args.precision, int8_clips=args.int8_encoder,
               closed=args.closed)
    except (ExportError, OSError) as error:
        print(f"sightline_export: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

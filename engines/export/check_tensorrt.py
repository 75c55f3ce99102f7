#!/usr/bin/env python3
"""Do NVIDIA's own parser and builder take the graphs? Needs no GPU.

Every graph of the models (drawn weights, each size, each precision, or the folders that are given) is parsed by
TensorRT-RTX's ONNX parser as a strongly typed network, and a plan of it is built ahead of time for every bucket of
objects and memory slots. The plans are thrown away: nothing here can run them. `make check-tensorrt` fetches the two
wheels (requirements-tensorrt.txt). Exit code 1 if a graph is refused.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tensorrt_rtx_bindings as trt

POINTS = (1, 3, 32)
MODELS = {"sam2.1-tiny": ("sam2.1", "tiny"), "edgetam": ("edgetam", None)}
GRAPHS = ("image_encoder", "memory_attention", "decoder_prompt", "decoder_track", "memory_encoder", "mask_downsample")


class Log(trt.ILogger):
    """Keeps what went wrong; TensorRT takes one logger for the whole process."""

    def __init__(self):
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity, message):
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.errors.append(" ".join(message.split()))


@dataclass
class Result:
    """One graph of one model in one bucket."""

    model: str
    graph: str
    bucket: str
    layers: int
    parse_s: float
    build_s: float
    plan_mb: float
    error: str


def spans(steps: list[int]) -> list[tuple[int, int, int]]:
    """Least, best and most of each step, as `sightline engines build` has them."""
    return [(before + 1, step, step) for before, step in zip([0, *steps], steps)]


def sizes(shape, names, objects, pictures, slots) -> tuple[list[int], ...]:
    """The three shapes of an input; `names` are those of its open sizes."""
    known = {"objects": objects, "pictures": pictures, "slots": slots, "points": POINTS}
    return tuple([known[name][at] if size < 0 else size for size, name in zip(shape, names)] for at in range(3))


def check(log: Log, model: Path, name: str, objects: list[int], slots: list[int]) -> list[Result]:
    """Parses a graph once and builds it for every bucket of what it leaves open."""
    log.errors.clear()
    builder = trt.Builder(log)
    # Strongly typed is what there is: TensorRT-RTX, as TensorRT 11, knows nothing else.
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    started = time.perf_counter()
    if not parser.parse_from_file(str(model / f"{name}.onnx")):
        reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        return [Result(model.name, name, "-", 0, time.perf_counter() - started, 0.0, 0.0, f"parser: {reasons}")]
    parse_s = time.perf_counter() - started
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    open_sizes = {given.name: [given.get_dimension_name(axis) for axis in range(len(given.shape))]
                  for given in inputs if -1 in given.shape}
    named = {size for names in open_sizes.values() for size in names if size}
    results = []
    counts = [(some, pictures) for some in (spans(objects) if "objects" in named else [None])
              for pictures in ([(1, 1, 1), some] if "pictures" in named and some[2] > 1 else [(1, 1, 1)])]
    for some, pictures in counts:
        for used in spans(slots) if "slots" in named else [None]:
            config, profile = builder.create_builder_config(), builder.create_optimization_profile()
            for given in inputs:
                if given.name in open_sizes:
                    profile.set_shape(given.name, *sizes(given.shape, open_sizes[given.name], some, pictures, used))
            if open_sizes:
                config.add_optimization_profile(profile)
            log.errors.clear()
            started = time.perf_counter()
            plan = builder.build_serialized_network(network, config)
            shown = ((some, "objects"), (pictures if "pictures" in named else None, "pictures"), (used, "slots"))
            parts = [f"{span[0]}-{span[2]} {what}" for span, what in shown if span]
            results.append(Result(model.name, name, ", ".join(parts) or "-", network.num_layers, parse_s,
                                  time.perf_counter() - started, 0.0 if plan is None else plan.nbytes / 1e6,
                                  "" if plan is not None else f"builder: {'; '.join(log.errors)}"))
    return results


def draw(name: str, size: int, precisions: list[str], folder: Path) -> list[Path]:
    """A model's graphs with drawn weights, in each precision a folder. Weights do not matter to a builder."""
    import torch
    from sightline_export import families, narrow, onnx_file, weights

    torch.set_num_threads(1)
    family = families.find(MODELS[name][0])
    model = family.build(family.read_config(family.config_path(MODELS[name][1]), size))
    with torch.no_grad():
        family.restore(model, weights.draw(family.official(model), 1))
        exact = folder / f"{name}-{size}-fp32"
        exact.mkdir()
        for graph in family.graphs(model, 1):
            onnx_file.write(graph, exact / f"{graph.name}.onnx")
    made = []
    for precision in precisions:
        made.append(folder / f"{name}-{size}-{precision}")
        made[-1].mkdir(exist_ok=True)
        for graph in GRAPHS if precision != "fp32" else ():
            narrow.to_narrow(exact / f"{graph}.onnx", made[-1] / f"{graph}.onnx", precision)
    return made


def text(results: list[Result], markdown: bool) -> str:
    """A row for each graph: its buckets together."""
    rows = [("model", "graph", "layers", "parse s", "buckets", "build s", "plan MB", "taken")]
    for model, graph in dict.fromkeys((result.model, result.graph) for result in results):
        own = [result for result in results if (result.model, result.graph) == (model, graph)]
        refused = [result.bucket for result in own if result.error]
        rows.append((model, graph, str(own[0].layers), f"{own[0].parse_s:.2f}", str(len(own)),
                     f"{sum(result.build_s for result in own):.1f}", f"{max(result.plan_mb for result in own):.1f}",
                     "yes" if not refused else f"NO: {'; '.join(refused)}"))
    if markdown:
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, metavar="FOLDER", help="graphs to check in place of the drawn")
    parser.add_argument("--draw", default=",".join(MODELS), help="models to draw")
    parser.add_argument("--sizes", default="512,1024", help="sides of their pictures")
    parser.add_argument("--precisions", default="fp32,fp16,bf16")
    parser.add_argument("--objects", default="1,4,16", help="steps of the number of objects")
    parser.add_argument("--slots", default="3,7", help="steps of the number of memory slots")
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    objects, slots = ([int(step) for step in given.split(",")] for given in (args.objects, args.slots))
    log, results, count = Log(), [], 0

    def look(folders: list[Path]) -> None:
        nonlocal count
        for folder in folders:
            count += 1
            for name in GRAPHS:
                if (folder / f"{name}.onnx").is_file():
                    print(f"{folder.name} {name}", file=sys.stderr, flush=True)
                    results.extend(check(log, folder, name, objects, slots))

    look(args.models)
    for name in args.draw.split(",") if not args.models else ():
        for size in args.sizes.split(","):
            with tempfile.TemporaryDirectory() as scratch:
                look(draw(name, int(size), args.precisions.split(","), Path(scratch)))
    refused = [result for result in results if result.error]
    print(f"TensorRT-RTX {trt.__version__}, {time.strftime('%Y-%m-%d')}: {len(results)} plans of {count} models, "
          f"{len(refused)} refused\n")
    print(text(results, args.markdown))
    for result in refused:
        print(f"\n{result.model} {result.graph} {result.bucket}: {result.error}")
    return 1 if refused or not results else 0


if __name__ == "__main__":
    sys.exit(main())

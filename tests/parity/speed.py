"""Times a model's graphs in ONNX Runtime beside the published PyTorch code: same machine, threads, weights, inputs.

Both sides take turns, so that a busy neighbour slows both; a ratio is of two runs next to each other. Ours
take several objects as the tracker gives them, in batches of 4, 2 and 1; the published predictors take one by one.
"""

import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from sightline_export import samples

GRAPHS = ("image_encoder", "memory_attention", "decoder_track", "memory_encoder", "decoder_prompt")
OF_OBJECTS = ("memory_attention", "decoder_track", "memory_encoder")
BATCHES = (4, 2, 1)
HEADER = ["model", "image_size", "threads", "what", "objects", "repeat", "onnxruntime_ms", "pytorch_ms"]


def session(path: Path, threads: int) -> ort.InferenceSession:
    """As `engines/ort` makes it: every optimisation, no spinning, no parallel operators."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def milliseconds(run) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def batches(objects: int, largest: int) -> list[int]:
    """Sizes in which the tracker runs so many objects: 7 are 4, 2 and 1."""
    sizes = []
    for size in (size for size in BATCHES if size <= largest):
        sizes += [size] * (objects // size)
        objects %= size
    return sizes


def ours(graph, path: Path, threads: int) -> dict:
    """What runs a graph, by the number of objects."""
    run = session(path, threads)
    taken = {value.name for value in run.get_inputs()}
    open_size = graph.name in OF_OBJECTS and not isinstance(run.get_outputs()[0].shape[0], int)
    parts = {}
    for count in BATCHES if open_size else (1,):
        inputs = samples.stack([graph.inputs] * count) if open_size else graph.inputs
        given = {key: value.numpy() for key, value in inputs.items() if key in taken}
        parts[count] = lambda given=given: run.run(None, given)
    return parts


def measure(name: str, family, model, folder: Path, max_cond: int, threads: int, repeats: int,
            objects: list[int]) -> list[list]:
    """Rows of `HEADER`: every graph alone, then a whole tracked frame for several numbers of objects.

    Every memory slot is in use on both sides. A frame is the image encoder once, then memory
    attention, decoder and memory encoder for the objects; no prompt, no decoding, no drawing.
    """
    torch.set_num_threads(threads)
    graphs = {graph.name: graph for graph in family.graphs(model, max_cond, closed=True) if graph.name in GRAPHS}
    mine = {name: ours(graph, folder / f"{name}.onnx", threads) for name, graph in graphs.items()}
    published = {name: lambda graph=graph: graph.reference(graph.inputs) for name, graph in graphs.items()}

    def our_frame(count: int):
        sizes = batches(count, max(mine["memory_attention"]))

        def run():
            mine["image_encoder"][1]()
            for size in sizes:
                for part in OF_OBJECTS:
                    mine[part][size]()
        return run

    def published_frame(count: int):
        def run():
            published["image_encoder"]()
            for _ in range(count):
                for part in OF_OBJECTS:
                    published[part]()
        return run

    cases = [(graph, 1 if graph in OF_OBJECTS else 0, mine[graph][1], published[graph]) for graph in GRAPHS]
    cases += [("frame", count, our_frame(count), published_frame(count)) for count in objects]
    rows = []
    with torch.inference_mode():
        for what, count, our, their in cases:
            # A frame's parts are warm by then, but for batches.
            for _ in range(0 if what == "frame" else 2):
                our()
                their()
            if what == "frame" and count > 1:
                our()
            for repeat in range(repeats):
                pair = milliseconds(our), milliseconds(their)
                rows.append([name, model.image_size, threads, what, count, repeat, *(round(ms, 3) for ms in pair)])
    torch.set_num_threads(1)
    return rows


def table(rows: list[list]) -> list[str]:
    """Markdown: medians, and PyTorch's time over ours as min/median/max."""
    lines = ["| model | px | what | objects | ONNX Runtime, ms | PyTorch eager, ms | ratio min / median / max |",
             "|---|---|---|---|---|---|---|"]
    groups: dict[tuple, list[tuple[float, float]]] = {}
    for name, size, _, what, count, _, mine, theirs in rows:
        groups.setdefault((name, size, what, count), []).append((float(mine), float(theirs)))
    for (name, size, what, count), pairs in groups.items():
        mine, theirs = np.array(pairs).T
        ratio = theirs / mine
        lines.append(f"| {name} | {size} | {what} | {count or ''} | {np.median(mine):.1f} | {np.median(theirs):.1f} | "
                     f"{ratio.min():.2f} / {np.median(ratio):.2f} / {ratio.max():.2f} |")
    return lines


def added(rows: list[list]) -> list[str]:
    """Markdown: what one more object costs in a frame, from the fewest objects to the most."""
    frames: dict[tuple, dict[int, list]] = {}
    for name, size, _, what, count, _, mine, theirs in rows:
        if what == "frame":
            frames.setdefault((name, size), {}).setdefault(count, []).append((float(mine), float(theirs)))
    lines = ["| model | px | objects | an added object, ONNX Runtime, ms | PyTorch eager, ms | ratio |",
             "|---|---|---|---|---|---|"]
    for (name, size), counts in frames.items():
        least, most = min(counts), max(counts)
        if least == most:
            continue
        few, many = (np.median(np.array(counts[count]), axis=0) for count in (least, most))
        mine, theirs = (many - few) / (most - least)
        lines.append(f"| {name} | {size} | {least} to {most} | {mine:.1f} | {theirs:.1f} | {theirs / mine:.2f} |")
    return lines if len(lines) > 2 else []

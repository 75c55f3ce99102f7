"""Times a model's graphs in ONNX Runtime beside the published PyTorch code: same machine, threads, weights, inputs.

Both sides take turns, so that a busy neighbour slows both; a ratio is of two runs next to each other.
"""

import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

GRAPHS = ("image_encoder", "memory_attention", "decoder_track", "memory_encoder", "decoder_prompt")
A_FRAME_OF_ONE = ("memory_attention", "decoder_track", "memory_encoder")
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


def measure(name: str, family, model, folder: Path, max_cond: int, threads: int, repeats: int,
            objects: list[int]) -> list[list]:
    """Rows of `HEADER`: every graph alone, then a whole tracked frame for several numbers of objects.

    Every memory slot is in use on both sides. A frame is the image encoder once, then memory
    attention, decoder and memory encoder for each object; no prompt, no decoding, no drawing.
    """
    torch.set_num_threads(threads)
    ours, published = {}, {}
    for graph in family.graphs(model, max_cond):
        if graph.name not in GRAPHS:
            continue
        run = session(folder / f"{graph.name}.onnx", threads)
        taken = {value.name for value in run.get_inputs()}
        given = {key: value.numpy() for key, value in graph.inputs.items() if key in taken}
        ours[graph.name] = lambda run=run, given=given: run.run(None, given)
        published[graph.name] = lambda graph=graph: graph.reference(graph.inputs)

    def frame(parts: dict, count: int):
        def run():
            parts["image_encoder"]()
            for _ in range(count):
                for part in A_FRAME_OF_ONE:
                    parts[part]()
        return run

    cases = [(graph, 0, ours[graph], published[graph]) for graph in GRAPHS]
    cases += [("frame", count, frame(ours, count), frame(published, count)) for count in objects]
    rows = []
    with torch.inference_mode():
        for what, count, mine, theirs in cases:
            # A frame's parts are warm by then.
            for _ in range(0 if what == "frame" else 2):
                mine()
                theirs()
            for repeat in range(repeats):
                pair = milliseconds(mine), milliseconds(theirs)
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

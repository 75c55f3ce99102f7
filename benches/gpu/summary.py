#!/usr/bin/env python3
"""From the raw files of a results folder to its summary: `python3 benches/gpu/summary.py DIR` writes DIR/summary.md.

What was not measured is a line with its reason, never a gap and never a number.
"""

import json
import sys
from pathlib import Path

# What was promised, and when it holds.
TORCH, FRAME_MS, KERNEL, LATE_MS = 1.0, 33.0, 2.0, 300.0
# Of the largest value that the processor gave; halves have 11 bits.
PARITY = {"fp32": 1e-3, "fp16": 3e-2}


def load(folder: Path) -> list[dict]:
    """Every step, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted((folder / "raw").glob("*.json"))]


def table(head: list[str], rows: list[list]) -> list[str]:
    """Markdown."""
    line = lambda cells: "| " + " | ".join(str(cell) for cell in cells) + " |"  # noqa: E731
    return ["", line(head), "|" + "---|" * len(head), *map(line, rows), ""]


def spread(of: dict | None) -> list[str]:
    """p50, p95, p99."""
    return [f"{of[key]:.2f}" for key in ("p50", "p95", "p99")] if of else ["-"] * 3


def missing(step: dict, width: int) -> list[str]:
    """The cells of what was not measured."""
    return [f"not measured: {step['not_measured']}", *[""] * (width - 1)]


def kernels(steps: list[dict]) -> list[str]:
    """Parity and time beside a copy."""
    step = next((step for step in steps if step["step"] == "kernels"), None)
    out = ["## Kernels", ""]
    if step is None or step["not_measured"]:
        return [*out, f"Not measured: {step['not_measured'] if step else 'not run'}.", ""]
    result = step["result"]
    out.append(f"{result['device']}; a copy of 512 MiB on it: {result['copy_gb_per_s']:.0f} GB/s, read and written. "
               "`differ`: values that are not the reference's, to the bit.")
    rows = [[line["kernel"], line["bytes"], f"{line['us']:.2f}", f"{line['copy_us']:.2f}",
             f"{line['us'] / line['copy_us']:.2f}", line["differ"]] for line in result["kernels"]]
    return [*out, *table(["kernel", "bytes", "us", "a copy of as many, us", "times", "differ"], rows)]


def parity(steps: list[dict]) -> list[str]:
    """Graphs against ONNX Runtime on the processor."""
    rows = []
    for step in (step for step in steps if step["about"].get("what") == "graphs"):
        name = [step["about"]["model"], step["about"]["precision"]]
        if step["not_measured"]:
            rows.append([*name, *missing(step, 6)])
            continue
        for graph in step["result"]["graphs"]:
            worst = max(out["max_abs"] / max(out["largest"], 1e-9) for out in graph["outputs"])
            sound = all(out["finite"] for out in graph["outputs"]) and worst <= PARITY[step["about"]["precision"]]
            device = graph["device_max_abs"]
            time = lambda of: f"{of['p50']:.3f}" if of else "-"  # noqa: E731
            rows.append([*name, graph["graph"], f"{worst:.1e}", "yes" if sound else "NO",
                         "-" if device is None else f"{device:.1e}", time(graph["host_ms"]), time(graph["device_ms"])])
    head = ["model", "precision", "graph", "worst difference, of the largest value", "within " + "/".join(
        f"{value:g} ({name})" for name, value in PARITY.items()), "device against host tensors", "host, ms", "device, ms"]
    return ["## Graphs against ONNX Runtime on the processor", *table(head, rows)]


def latency(steps: list[dict]) -> list[str]:
    """Frame to mask, ours and PyTorch's."""
    rows = []
    for step in steps:
        about, result = step["about"], step["result"]
        if about.get("what") not in ("latency", "torch"):
            continue
        ours = about["what"] == "latency"
        closed = f", closed, CUDA graphs {'on' if about['cuda_graphs'] else 'off'}" if about.get("closed") else ""
        apart = ", each feed's runs by themselves" if about.get("together") == 1 else ""
        who = f"Sightline{closed}{apart}" if ours else f"PyTorch {about['mode']}"
        cells = [about["model"], who, about["precision"], about["objects"], about.get("feeds", 1)]
        if step["not_measured"]:
            rows.append([*cells, *missing(step, 5)])
            continue
        times = result["frame_to_mask_ms"] if ours else result["frame_ms"]
        rate = result["frames_per_s"] if ours else 1e3 / times["p50"]
        rows.append([*cells, *spread(times), f"{rate:.1f}", result.get("provider", result.get("torch", ""))])
    head = ["model", "who", "precision", "objects", "feeds", "p50 ms", "p95", "p99", "frames/s", "by"]
    note = ("Sightline: from a picture in system memory to masks at its size. PyTorch: from a normalised tensor on the "
            "device to masks there, at the model's size, autocast.")
    return ["## Frame to mask", "", note, *table(head, sorted(rows, key=lambda row: [str(cell) for cell in row[:5]]))]


def stages(steps: list[dict]) -> list[str]:
    """Where a frame's time goes; on a device, work that is waited for in a later stage counts there."""
    rows = []
    for step in steps:
        if step["about"].get("what") == "latency" and not step["not_measured"]:
            of = step["result"]["stages_ms"]
            rows.append([step["step"], *(f"{of[name]['p50']:.3f}" if name in of else "-" for name in STAGES)])
    return ["## Stages, p50 ms", *table(["run", *STAGES], rows)] if rows else []


STAGES = ["preprocess", "image_encoder", "memory_attention", "decoder", "memory_encoder", "postprocess"]


def late(steps: list[dict]) -> list[str]:
    """A late answer."""
    rows = []
    for step in (step for step in steps if step["about"].get("what") == "late"):
        about, result = step["about"], step["result"]
        if step["not_measured"]:
            rows.append([about["model"], about["precision"], *missing(step, 5)])
        else:
            rows.append([about["model"], about["precision"], f"{result['behind_ms']:.0f}",
                         *spread(result["live_again_ms"]), f"{result['looked_at']:.1f}"])
    head = ["model", "precision", "behind, ms", "live again p50 ms", "p95", "p99", "frames looked at"]
    return ["## A late answer live again", *table(head, rows)]


def find(steps: list[dict], **about) -> dict | None:
    """The result of the step that was about this, if it was measured."""
    found = (step for step in steps if not step["not_measured"] and
             all(step["about"].get(key) == value for key, value in about.items()))
    return next((step["result"] for step in found), None)


def lines(steps: list[dict]) -> list[str]:
    """What was promised: holds, does not hold, or not measured."""
    kernels = next((step["result"] for step in steps if step["step"] == "kernels" and not step["not_measured"]), None)
    first = {"what": "latency", "model": "tiny@1024", "precision": "fp16", "feeds": 1}
    ours, many = find(steps, **first, objects=1), find(steps, **first, objects=16)
    theirs = find(steps, what="torch", model="tiny@1024", mode="compile", objects=1)
    again = find(steps, what="late", model="tiny@1024")
    ratio = theirs["frame_ms"]["p50"] / ours["frame_to_mask_ms"]["p50"] if ours and theirs else None
    worst = max((line["us"] / line["copy_us"] for line in kernels["kernels"]), default=None) if kernels else None
    p99 = many["frame_to_mask_ms"]["p99"] if many else None
    live = again["live_again_ms"]["p99"] if again and again["live_again_ms"] else None
    rows = [(f"SAM 2.1 tiny at 1024, one object: at least {TORCH:g} times `torch.compile`", ratio, "{:.2f} times", TORCH, 1),
            (f"16 objects: frame to mask p99 below {FRAME_MS:g} ms", p99, "{:.1f} ms", FRAME_MS, -1),
            (f"kernels within {KERNEL:g} times a copy of as many bytes", worst, "{:.2f} times", KERNEL, -1),
            (f"1 s of late answer live again below {LATE_MS:g} ms", live, "{:.0f} ms", LATE_MS, -1)]
    def verdict(value, limit, sign):
        return "not measured" if value is None else "holds" if sign * (value - limit) >= 0 else "DOES NOT HOLD"

    cells = [[text, "not measured" if value is None else form.format(value), verdict(value, limit, sign)]
             for text, value, form, limit, sign in rows]
    return ["## What was promised", *table(["line", "measured", "verdict"], cells)]


def render(folder: Path) -> str:
    """The whole summary."""
    steps = load(folder)
    about = next((step["result"] for step in steps if step["step"] == "about"), {})
    text = lambda name: (folder / name).read_text().strip() if (folder / name).is_file() else "unknown"  # noqa: E731
    lost = [step for step in steps if step["not_measured"] and step["about"].get("what") == "draw"]
    out = ["# GPU bench", "", f"Commit {text('commit.txt')}, a {about.get('build', 'unknown')} build.", "", "```",
           text("machine.txt"), f"cuda: {about.get('cuda', 'unknown')}",
           f"onnxruntime: {about.get('onnxruntime', 'unknown')} ({', '.join(about.get('providers', []))})", "```", "",
           "Weights are drawn from a seed: speed and parity, no accuracy.", ""]
    if not about.get("gpu"):
        out += ["**No GPU here: what follows shows that the bench works, and nothing of how fast anything is.**", ""]
    out += [*(f"- {step['step']}: not made: {step['not_measured']}" for step in lost), *([""] if lost else [])]
    parts = (lines, latency, stages, late, kernels, parity)
    return "\n".join([*out, *(line for part in parts for line in part(steps))]).rstrip() + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: summary.py DIR")
    target = Path(sys.argv[1])
    (target / "summary.md").write_text(render(target))

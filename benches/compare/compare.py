#!/usr/bin/env python3
"""The published PyTorch predictors beside Sightline: same weights, clip, machine, threads, and the same run.

    python benches/compare/compare.py --sightline target/release/sightline --input clip.mp4 --box x0,y0,x1,y1 --out DIR

A checkpoint is drawn and exported. Then, in turns, so that a busy neighbour slows both: the real binary on every frame
of the clip (`sightline run`), the published predictor frame by frame over the same frames, and the binary on a live feed
(`sightline bench latency`). Theirs starts from tensors in memory and ends with masks at the model's own size; ours has
decoding in another thread, preprocessing, and masks at the picture's size in it. The first frames of a run do not
count: memories fill up. Needs the environment of `engines/export/setup_venv.sh`. Weights are drawn: speed only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "engines" / "export"))

from sightline_export import families, predictor, weights  # noqa: E402
from sightline_export.__main__ import export  # noqa: E402

SEED, MAX_COND = 9, 1
# Six recent memories and the prompted one are there from then on.
WARMUP = 8
PACKAGES = ("torch", "sam2", "transformers", "onnxruntime")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sightline", type=Path, required=True, metavar="BIN")
    parser.add_argument("--input", type=Path, required=True, metavar="CLIP")
    parser.add_argument("--box", default="460,400,725,565", metavar="X0,Y0,X1,Y1", help="in pixels of the clip")
    parser.add_argument("--fps", type=float, default=30, help="the clip's pictures a second")
    parser.add_argument("--models", nargs="+", default=["edgetam@512", "tiny@512"], metavar="SIZE@PX")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=24, help=f"of a run, the first {WARMUP} of which do not count")
    parser.add_argument("--live-seconds", type=float, default=5, help="0: no live feed")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    if args.frames <= WARMUP:
        parser.error(f"--frames: expected more than {WARMUP}, got {args.frames}")
    for path in (args.sightline, args.input):
        if not path.is_file():
            parser.error(f"no such file: {path}")
    return args


def call(command: list) -> None:
    """Runs a program; what it said is shown only when it failed."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"compare: {Path(str(command[0])).name} exited {done.returncode}:\n{done.stdout.strip()}")


def pictures(clip: Path, count: int, scratch: Path) -> list[Image.Image]:
    """The first pictures of a clip."""
    call(["gst-launch-1.0", "-q", "filesrc", f"location={clip}", "!", "decodebin", "!", "videoconvert", "!",
          "identity", f"eos-after={count + 1}", "!", "pngenc", "compression-level=1", "!",
          "multifilesink", f"location={scratch}/%05d.png"])
    found = [Image.open(path).convert("RGB") for path in sorted(scratch.glob("*.png"))[:count]]
    if len(found) < count:
        sys.exit(f"compare: expected a clip of {count} pictures, got {len(found)}")
    return found


def theirs(driver, images, box: list[float]) -> float:
    """Milliseconds a frame of the published predictor."""
    driver.reset(images)
    frames = len(images)
    driver.seed({"frame": 0, "object": 1, "box": box}, {})
    with torch.inference_mode():
        driver.advance(0, WARMUP - 1)
        start = time.perf_counter()
        driver.advance(WARMUP, frames - 1)
        return 1e3 * (time.perf_counter() - start) / (frames - WARMUP)


def every_frame(args, folder: Path, scratch: Path) -> float:
    """Milliseconds a frame of the binary, from a buffer's arrival to its masks; the stream waits for each."""
    out = scratch / "ours.jsonl"
    call([args.sightline, "run", "--model", folder, "--input", args.input, "--mode", "every-frame", "--box", args.box,
          "--threads", args.threads, "--jsonl", out, "--max-seconds", args.frames / args.fps])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    spent = [line["latency_ms"] for line in lines if "latency_ms" in line and WARMUP <= line["frame"] < args.frames]
    if len(spent) < args.frames - WARMUP - 1:
        sys.exit(f"compare: expected {args.frames - WARMUP} frames of the binary, got {len(spent)}")
    return sum(spent) / len(spent)


def live(args, folder: Path, scratch: Path) -> dict | None:
    """What the binary keeps up with."""
    if not args.live_seconds:
        return None
    out = scratch / "live.json"
    call([args.sightline, "bench", "latency", "--model", folder, "--input", args.input, "--box", args.box,
          "--threads", args.threads, "--seconds", args.live_seconds, "--warmup", 3, "--json", out])
    report = json.loads(out.read_text())
    return {"processed_per_second": report["processed"] / report["seconds"], "camera_fps": report["fps"],
            "frame_to_mask_ms": report["frame_to_mask_ms"], "mask_age_ms": report["mask_age_ms"],
            "overhead": report["overhead"]}


def measure(args, text: str, stills: list[Image.Image], scratch: Path) -> list[dict]:
    """The rounds of one of `--models`."""
    name, _, size = text.partition("@")
    size, folder, checkpoint = int(size), scratch / "model", scratch / "checkpoint.pt"
    family = families.find("edgetam" if name == "edgetam" else "sam2.1")
    config = None if name == "edgetam" else name
    model = family.build(family.read_config(family.config_path(config), size))
    family.restore(model, weights.draw(family.official(model), SEED))
    torch.save({"model": family.official(model)}, checkpoint)
    export(family.name, config, str(checkpoint), size, MAX_COND, folder, say=lambda _: None, with_parity_set=False)
    images = predictor.normalise([np.asarray(still.resize((size, size), Image.Resampling.BICUBIC))
                                  for still in stills])
    corners = [float(part) for part in args.box.split(",")]
    box = [at * size / stills[0].size[axis % 2] for axis, at in enumerate(corners)]
    driver = family.driver(model, images)
    torch.set_num_threads(args.threads)
    rounds = []
    for number in range(args.rounds):
        ours, published = every_frame(args, folder, scratch), theirs(driver, images, box)
        row = {"model": name, "image_size": size, "round": number, "ours_ms": round(ours, 3),
               "pytorch_ms": round(published, 3), "ratio": round(published / ours, 4), "live": live(args, folder, scratch)}
        rounds.append(row)
        print(f"{text} round {number}: ours {ours:.1f} ms a frame, PyTorch {published:.1f}, {published / ours:.2f} times",
              flush=True)
    return rounds


def main() -> None:
    """Writes DIR/compare.json after every model."""
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    report = {"bench": "compare", "input": args.input.name, "box": args.box, "fps": args.fps, "threads": args.threads,
              "objects": 1, "frames": args.frames, "warmup_frames": WARMUP, "seed": SEED,
              "packages": {name: metadata.version(name) for name in PACKAGES}, "rounds": []}
    with tempfile.TemporaryDirectory() as folder:
        stills = pictures(args.input, args.frames, Path(folder))
    for text in args.models:
        with tempfile.TemporaryDirectory() as folder:
            report["rounds"] += measure(args, text, stills, Path(folder))
        (args.out / "compare.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

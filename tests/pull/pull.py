"""From checkpoint to live masks: `python tests/pull/pull.py --sightline BIN --plugin DIR --out DIR`.

For every model and layout a checkpoint is drawn that has the published names and shapes, served on this machine, and
taken by the real `sightline models pull` with the real exporter. What was installed is then listed, verified, run on a
clip by the command line and by `gst-launch-1.0`, and removed. Needs the environment of
`engines/export/setup_venv.sh` and GStreamer with x264. Writes after every row; exit 1 if a step fails.
"""

import argparse
import csv
import datetime
import functools
import http.server
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = ROOT / "configs" / "models"
MODELS = ["sam2-tiny", "sam2.1-tiny", "sam2.1-small", "sam2.1-base+", "sam2.1-large", "edgetam"]
PACKAGES = ("torch", "onnxruntime", "sam2", "transformers", "timm")
SEED, TRAINED_AT_PX = 5, 1024
# At full size the gains of the small goldens make a network in which noise grows from frame to frame.
CALM = ((r"cross_attn_image\.[qkv]_proj\.weight", 0.7),)
# An object that is absent for certain would agree with anything.
SCORE_BIAS, PRESENT = re.compile(r"pred_obj_score_head\.layers\.2\.bias$"), 100.0
FRAMES, BOX = 12, "250,120,390,260"
CLIP = (f"videotestsrc pattern=ball num-buffers={FRAMES} ! video/x-raw,width=640,height=360,framerate=12/1 "
        "! x264enc speed-preset=ultrafast ! mp4mux ! filesink location={}")
TRACK = ("filesrc location={} ! decodebin ! videoconvert ! sightlinetrack model={} mode=every-frame threads={} "
         "prompts=box={} ! fakesink")
HEADER = ["model", "layout", "image_size", "checkpoint_mb", "tensors", "pull_s", "served_mb", "parity_max_logit_diff",
          "parity_min_iou", "list", "verify", "step_ms", "run_frames", "run_masks", "plugin_frames", "plugin_masks",
          "removed"]


class Failed(Exception):
    """A step whose reason is its text."""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sightline", type=Path, required=True, metavar="BIN")
    parser.add_argument("--plugin", type=Path, required=True, metavar="DIR", help="holds libgstsightline.so")
    parser.add_argument("--exporter", type=Path, default=ROOT / "engines" / "export", metavar="DIR")
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help="names of the catalogue")
    parser.add_argument("--layouts", nargs="+", default=["pt", "safetensors"], metavar="pt|safetensors")
    parser.add_argument("--image-size", type=int, default=256, metavar="PX")
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    parser.add_argument("--append", action="store_true", help="add rows to what --out holds")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    return parser.parse_args()


def draw(entry: dict) -> dict[str, torch.Tensor]:
    """A checkpoint of a catalogue's entry in the official layout, with the names and shapes of the published package."""
    from sightline_export import families, weights

    family = families.find(entry["family"])
    with torch.no_grad():
        model = family.build(family.read_config(family.config_path(entry.get("config")), TRAINED_AT_PX))
        state = weights.draw(family.official(model), SEED, CALM)
        for name in filter(SCORE_BIAS.search, state):
            state[name] = state[name] + PRESENT
    return state


def save(state: dict[str, torch.Tensor], layout: str, path: Path) -> int:
    """Writes a checkpoint as its publisher would; gives the number of its tensors."""
    from sightline_export import layouts

    if layout == "pt":
        torch.save({"model": state}, path)
        return len(state)
    other = {name: tensor.clone().contiguous() for name, tensor in layouts.to_transformers(state).items()}
    save_file(other, path, {"format": "pt"})
    return len(other)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and counts what it sent."""

    sent = 0

    def copyfile(self, source, outputfile):
        """Counts on the way."""
        Handler.sent += os.fstat(source.fileno()).st_size
        super().copyfile(source, outputfile)

    def log_message(self, *_):
        """Says nothing."""


class House:
    """A folder for everything, gone at the end, and the server of one of its folders."""

    def __init__(self, args: argparse.Namespace, root: Path):
        self.args, self.root = args, root
        self.clip = root / "clip.mp4"
        self.offered = root / "offered"
        self.offered.mkdir()
        handler = functools.partial(Handler, directory=self.offered)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.environment = os.environ | {
            "SIGHTLINE_MODELS": str(root / "models"), "SIGHTLINE_EXPORTER": str(args.exporter.resolve()),
            "SIGHTLINE_PYTHON": sys.executable, "SIGHTLINE_CATALOGUE": str(CATALOGUE),
            "GST_PLUGIN_PATH": str(args.plugin.resolve()),
            "GST_REGISTRY": str(root / "registry.bin"), "NO_PROXY": "*"}
        self.run("gst-launch-1.0", "-q", *CLIP.format(self.clip).split())

    def run(self, *command: str) -> str:
        """A command's standard output; what failed is quoted."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            last = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-4:])
            raise Failed(f"{' '.join(command[:4])}: exited {done.returncode}: {last}")
        return done.stdout

    def sightline(self, *arguments: str) -> str:
        """`sightline` with these arguments."""
        return self.run(str(self.args.sightline.resolve()), *arguments)

    def installed(self, name: str) -> dict | None:
        """The row of `models list` for an installed model."""
        rows = json.loads(self.sightline("models", "list", "--json"))
        return next((row for row in rows if row["name"] == name and row.get("installed")), None)

    def pulled(self, name: str, path: Path) -> dict:
        """Pulls from the server."""
        address = f"http://127.0.0.1:{self.server.server_port}/{path.name}"
        before, began = Handler.sent, time.monotonic()
        said = self.sightline("models", "pull", name, "--from", address, "--image-size", str(self.args.image_size),
                              "--threads", str(self.args.threads))
        row = {"pull_s": round(time.monotonic() - began, 1), "served_mb": round((Handler.sent - before) / 1e6, 1)}
        found = re.search(r"parity   pass.*?difference ([\d.e+-]+).*?IoU ([\d.]+)", said)
        if not found or row["served_mb"] <= 0:
            raise Failed(f"pull: expected a download and a parity set that passes, got {said!r}")
        return row | {"parity_max_logit_diff": found[1], "parity_min_iou": found[2]}

    def used(self, name: str) -> dict:
        """Lists, verifies, runs and launches what is installed."""
        row, threads = self.installed(name), str(self.args.threads)
        if row is None or row.get("error"):
            raise Failed(f"models list: expected {name} to be installed, got {row}")
        verified = self.sightline("models", "verify", name, "--threads", threads)
        if "parity   pass" not in verified:
            raise Failed(f"models verify: expected a pass, got {verified!r}")
        lines = self.root / "out.jsonl"
        self.sightline("run", "--model", name, "--input", str(self.clip), "--box", BOX, "--jsonl", str(lines),
                       "--threads", threads)
        outcomes = [json.loads(line)["outcome"] for line in lines.read_text().splitlines()]
        said = self.run("gst-launch-1.0", "-m", *TRACK.format(self.clip, name, threads, BOX).split())
        messages = re.findall(r"sightline-frame, .*?outcome=\(\w+\)\"?([\w-]+)", said)
        for what, got in (("run", outcomes), ("gst-launch-1.0", messages)):
            if len(got) != FRAMES or "masks" not in got or "skipped" in got:
                raise Failed(f"{what}: expected {FRAMES} outcomes with masks among them, got {got}")
        return {"list": "yes", "verify": "pass", "step_ms": round(row["speed"]["step_p50_ms"], 1),
                "run_frames": len(outcomes), "run_masks": outcomes.count("masks"),
                "plugin_frames": len(messages), "plugin_masks": messages.count("masks")}

    def removed(self, name: str) -> dict:
        """Removes it; nothing of it may stay."""
        self.sightline("models", "remove", name)
        if self.installed(name) or (self.root / "models" / name).exists():
            raise Failed(f"models remove: expected nothing of {name} to stay, got a folder")
        return {"removed": "yes"}


def entry_of(name: str) -> dict:
    """The catalogue's entry."""
    return tomllib.loads((CATALOGUE / f"{name}.toml").read_text())


def machine() -> str:
    """What a figure is worth nothing without."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout.strip()
    facts = {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(),
             **{name: metadata.version(name) for name in PACKAGES}, "load": " ".join(map(str, os.getloadavg())),
             "commit": f"{commit or 'unknown'}{' and changes' if changed else ''}"}
    return "".join(f"{name:15} {value}\n" for name, value in facts.items())


def write(folder: Path, rows: list[dict]) -> None:
    """The table, as CSV and for people."""
    with (folder / "pull.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(rows)
    lines = [f"# Published models, from a server on this machine to live masks, {datetime.date.today()}", "",
             "Drawn checkpoints with the published names and shapes: what is shown is that every step works, not what",
             "the masks are worth. `tests/pull/pull.py`; machine and command beside this file.", "",
             "| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    lines += ["| " + " | ".join(str(row.get(name, "")) for name in HEADER) + " |" for row in rows]
    (folder / "summary.md").write_text("\n".join(lines) + "\n")


def main() -> int:
    """Rows until the first failure."""
    args = parse()
    sys.path.insert(0, str(args.exporter.resolve()))
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    if args.append and (args.out / "pull.csv").is_file():
        rows = list(csv.DictReader((args.out / "pull.csv").open()))
    (args.out / "machine.txt").write_text(machine())
    with tempfile.TemporaryDirectory() as folder:
        house = House(args, Path(folder))
        for name in args.models:
            entry = entry_of(name)
            state = draw(entry)
            for offer in entry["checkpoints"]:
                if (layout := offer["layout"]) not in args.layouts:
                    continue
                path = house.offered / f"{name}.{layout}"
                tensors = save(state, layout, path)
                row = {"model": name, "layout": layout, "image_size": args.image_size, "tensors": tensors,
                       "checkpoint_mb": round(path.stat().st_size / 1e6, 1)}
                try:
                    row |= house.pulled(name, path)
                    row |= house.used(name)
                    row |= house.removed(name)
                except Failed as error:
                    print(f"pull: {name} {layout}: {error}", file=sys.stderr)
                    return 1
                path.unlink()
                rows.append(row)
                write(args.out, rows)
                print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

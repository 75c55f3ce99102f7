"""The parity table and the speed table: `python tests/parity/table.py --sightline BIN --data DIR`.

For every model a checkpoint is drawn, exported, and run by the real `sightline trace` and by the
published predictor on the same real frames (`real_clip.py`); then each graph and whole frames are
timed in ONNX Runtime beside PyTorch (`speed.py`). Needs the environment of
`engines/export/setup_venv.sh`. Writes after every row; exit 1 if a difference is above the
tolerance without the published logits moving as far by themselves.
"""

import argparse
import csv
import datetime
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "engines" / "export"))

from sightline_export import ExportError, families, predictor, weights  # noqa: E402
from sightline_export.__main__ import export  # noqa: E402

import real_clip  # noqa: E402
import speed  # noqa: E402

SEED, MAX_COND, TOLERANCE = 9, 2, 1e-3
# Noise on the normalised image, the size of what another runtime's arithmetic adds; and the
# difference from which on it is worth asking what that noise does.
NOISE, NOTABLE = 1e-6, 1e-4
PACKAGES = ("torch", "onnxruntime", "sam2", "transformers", "timm", "numpy")
# A score this high is present for certain; and how far above 0 the least one is moved, in spreads of all.
PRESENT, MARGIN = 1000.0, 0.05
# At full size the gains of the small goldens make a network in which noise grows from frame to frame.
CALM = ((r"cross_attn_image\.[qkv]_proj\.weight", 0.7),)
SCORE_BIAS = re.compile(r"pred_obj_score_head\.(layers\.2|proj_out)\.bias$")
HEADER = ["model", "family", "image_size", "scenario", "reference", "frames", "absent", "logit_std",
          "max_logit_diff", "max_score_diff", "iou_min", "iou_mean", "worst", "moved_by_noise", "moved_by_prompt"]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sightline", type=Path, required=True, metavar="BIN")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", metavar="DIR")
    parser.add_argument("--models", nargs="+", default=["tiny", "small", "base+", "large", "edgetam"],
                        metavar="SIZE[@PX]", help="tiny|small|base+|large (SAM 2.1), 2.0-SIZE, or edgetam")
    parser.add_argument("--image-size", type=int, default=256, metavar="PX")
    parser.add_argument("--sequence", default="dog", help="a DAVIS sequence")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5, help="of every timing")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--only", choices=["parity", "speed"])
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.add_argument("--append", action="store_true", help="keep the rows of other models that are in --out")
    args = parser.parse_args()
    if not args.sightline.is_file():
        parser.error(f"--sightline: no such file: {args.sightline}")
    if not args.data.is_dir():
        parser.error(f"--data: no such folder: {args.data}")
    return args


def find(name: str) -> tuple[families.Family, str | None]:
    """Family and config of a row."""
    if name == "edgetam":
        return families.find("edgetam"), None
    older = name.startswith("2.0-")
    return families.find("sam2.0" if older else "sam2.1"), name.removeprefix("2.0-")


def trace(binary: Path, folder: Path, case: Path, prompts: list[dict], threads: int) -> dict:
    """`BIN trace` on the frames of a case; scores as numbers."""
    path, out = case / "prompts.json", case / "out.npz"
    real_clip.write_prompts(path, prompts)
    command = [str(binary), "trace", "--model", str(folder), "--frames", str(case / "frames"),
               "--prompts", str(path), "--out", str(out), "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"table: sightline trace exited {done.returncode}:\n{done.stdout.strip()}")
    return {name: array.reshape(()) if name.startswith("score_") else array
            for name, array in np.load(out).items() if not name.startswith("iou_")}


def compare(got: dict, want: dict) -> dict:
    """Max abs differences and the intersection over union of the masks."""
    if got.keys() != want.keys():
        sys.exit(f"table: expected the arrays {sorted(want)[:3]}..., got {sorted(got)[:3]}...")
    far = {name: float(np.abs(np.float64(got[name]) - want[name]).max()) for name in want}
    logits = {name: value for name, value in far.items() if name.startswith("logits_")}
    overlaps = []
    for name in logits:
        a, b = got[name] > 0, want[name] > 0
        overlaps.append((a & b).sum() / (a | b).sum() if (a | b).any() else 1.0)
    return {"max_logit_diff": max(logits.values()), "iou_min": float(min(overlaps)),
            "max_score_diff": max(value for name, value in far.items() if name.startswith("score_")),
            "iou_mean": float(np.mean(overlaps)), "worst": max(logits, key=logits.get)}


def apart(made: dict, first: dict) -> float:
    """Max abs difference of the last frame's published logits between two scenarios: what memory carries."""
    last = f"logits_{real_clip.FRAMES - 1}_1"
    return float(np.abs(made[last] - first[last]).max())


def spread(made: dict) -> float:
    """Standard deviation of the logits of frames with the object on them."""
    there = [value for name, value in made.items()
             if name.startswith("logits_") and made[name.replace("logits", "score", 1)] > 0]
    return float(np.std(there)) if there else 0.0


def with_score(folder: Path, delta: float) -> Path:
    """A copy of a model whose object score is higher by `delta`; export again would take minutes."""
    other = folder.with_name("shifted")
    shutil.copytree(folder, other, dirs_exist_ok=True)
    manifest = (other / "model.toml").read_text()
    for path in (other / "decoder_track.onnx", other / "decoder_prompt.onnx"):
        before, model = path.read_bytes(), onnx.load(str(path))
        found = [value for value in model.graph.initializer if SCORE_BIAS.search(value.name)]
        if len(found) != 1:
            sys.exit(f"table: {path.name}: expected one object score bias, got {[value.name for value in found]}")
        moved = onnx.numpy_helper.to_array(found[0]) + np.float32(delta)
        found[0].CopyFrom(onnx.numpy_helper.from_array(moved, found[0].name))
        onnx.save(model, str(path))
        old, new = (hashlib.sha256(content).hexdigest() for content in (before, path.read_bytes()))
        manifest = manifest.replace(old, new)
    (other / "model.toml").write_text(manifest)
    return other


class Parity:
    """One model's rows: every scenario by the binary and by the published predictor."""

    def __init__(self, args, label: str, family, model, clip):
        self.args, self.label, self.family, self.model, self.clip = args, label, family, model, clip
        self.images = predictor.normalise(clip.frames)
        self.driver = family.driver(model, self.images)
        self.driver.keep_features()
        self.masks = {real_clip.MASK: clip.mask()}

    def published(self, prompts: list[dict]) -> dict:
        """What the published predictor makes of prompts."""
        self.driver.reset()
        return predictor.run(self.driver, prompts, self.masks, real_clip.FRAMES)

    def settle(self) -> None:
        """Scales and shifts the object score of a drawn checkpoint so that prompts find their object.

        It then is there on every frame of every scenario but `absent`: one absent frame draws others after
        it, and a scenario that is nothing but -1024 agrees for nothing.
        """
        layer, found, tracked = self.family.score_layer(self.model), [], []
        layer.bias += PRESENT
        for name, prompts in self.clip.scenarios().items():
            if name == "absent":
                continue
            asked = {f"score_{prompt['frame']}_1" for prompt in prompts}
            made = self.published(prompts)
            scores = {name: value - PRESENT for name, value in made.items()
                      if name.startswith("score_") and abs(value) != 10}
            found += [value for name, value in scores.items() if name in asked]
            tracked += [value for name, value in scores.items() if name not in asked]
        layer.bias -= PRESENT
        if np.mean(found) < np.median(tracked):
            layer.weight *= -1
            layer.bias *= -1
            found, tracked = [-value for value in found], [-value for value in tracked]
        layer.bias -= min(found + tracked) - MARGIN * float(np.ptp(found + tracked))

    def moved(self, prompts: list[dict], made: dict) -> float:
        """How far its logits move under `NOISE`: what no tracker can beat."""
        noise = torch.Generator().manual_seed(0)
        driver = self.family.driver(self.model, self.images + NOISE * torch.randn(self.images.shape, generator=noise))
        other = predictor.run(driver, prompts, self.masks, real_clip.FRAMES)
        return max(float(np.abs(other[name] - made[name]).max()) for name in made if name.startswith("logits_"))

    def rows(self, folder: Path, case: Path):
        """Yields a dictionary of `HEADER` a scenario and reference, for an exported `folder`."""
        first = None
        for scenario, prompts in self.clip.scenarios().items():
            made, model_folder = self.published(prompts), folder
            if scenario == "absent":
                delta = -float(np.median([value for name, value in made.items() if name.startswith("score_")]))
                self.family.score_layer(self.model).bias += delta
                made, model_folder = self.published(prompts), with_score(folder, delta)
                self.family.score_layer(self.model).bias -= delta
            got = trace(self.args.sightline, model_folder, case, prompts, self.args.threads)
            first = made if first is None else first
            yield {**self._row(scenario, "published", prompts, got, made), "moved_by_prompt": apart(made, first)}
            if self.family.name == "edgetam" and scenario in ("mask", "correction"):
                self.driver.as_is = True
                yield self._row(scenario, "transformers as is", prompts, got, self.published(prompts))
                self.driver.as_is = False

    def _row(self, scenario: str, reference: str, prompts: list[dict], got: dict, made: dict) -> dict:
        found = compare(got, made)
        notable = found["max_logit_diff"] > NOTABLE and reference == "published"
        return {"model": self.label, "family": self.family.name, "image_size": self.model.image_size,
                "scenario": scenario, "reference": reference, "frames": real_clip.FRAMES,
                "absent": real_clip.absent_frames(made), "logit_std": spread(made), **found,
                "moved_by_noise": self.moved(prompts, made) if notable else ""}


def failed(row: dict) -> bool:
    """Above the tolerance, and the published predictor holds still under noise."""
    return (row["reference"] == "published" and row["max_logit_diff"] > TOLERANCE
            and not (row["moved_by_noise"] and row["moved_by_noise"] > TOLERANCE))


def parity_table(rows: list[dict]) -> list[str]:
    """Markdown, one line a model and reference."""
    names = list(dict.fromkeys(row["scenario"] for row in rows))
    lines = ["| model | px | reference | " + " | ".join(names) + " |", "|---|---|---|" + "---|" * len(names)]
    for key in dict.fromkeys((row["model"], row["image_size"], row["reference"]) for row in rows):
        cells = {row["scenario"]: f"{row['max_logit_diff']:.1e} of {row['logit_std']:.0f} ({row['iou_min']:.4f})"
                 for row in rows
                 if (row["model"], row["image_size"], row["reference"]) == key}
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | " + " | ".join(cells.get(name, "") for name in names) + " |")
    return lines


class Results:
    """The folder of a run, rewritten after every model."""

    def __init__(self, args, folder: Path):
        self.args, self.folder, self.parity, self.speed = args, folder, [], []
        folder.mkdir(parents=True, exist_ok=True)
        self.start, self.commands = os.getloadavg(), []
        if args.append:
            self._read()
        words = [*sys.argv[1:]]
        for flag, shown in (("--sightline", "target/release/sightline"), ("--data", "../shared/data"),
                            ("--out", f"benches/results/{folder.name}")):
            if flag in words:
                words[words.index(flag) + 1] = shown
        self.commands.append(f"python tests/parity/table.py {' '.join(words)}")

    def _read(self) -> None:
        texts = ("model", "family", "scenario", "reference", "worst")
        files = [self.folder / name for name in ("parity.csv", "speed.csv", "command.txt")]
        if files[0].is_file():
            with open(files[0], newline="") as file:
                self.parity = [{name: value if name in texts or value == "" else json.loads(value)
                                for name, value in row.items()} for row in csv.DictReader(file)]
        if files[1].is_file():
            with open(files[1], newline="") as file:
                self.speed = [[row[0], int(row[1]), int(row[2]), row[3], int(row[4]), *row[5:]]
                              for row in list(csv.reader(file))[1:]]
        if files[2].is_file():
            self.commands = files[2].read_text().splitlines()

    def replace(self, name: str, size: int) -> None:
        """Drops what is about to be measured again."""
        if self.args.only != "speed":
            self.parity = [row for row in self.parity if (row["model"], row["image_size"]) != (name, size)]
        if self.args.only != "parity":
            self.speed = [row for row in self.speed if (row[0], row[1]) != (name, size)]

    def write(self) -> None:
        """Everything there is so far."""
        if self.parity:
            with open(self.folder / "parity.csv", "w", newline="") as file:
                out = csv.DictWriter(file, HEADER)
                out.writeheader()
                out.writerows(self.parity)
        if self.speed:
            with open(self.folder / "speed.csv", "w", newline="") as file:
                csv.writer(file).writerows([speed.HEADER, *self.speed])
        (self.folder / "command.txt").write_text("\n".join(self.commands) + "\n")
        (self.folder / "machine.txt").write_text(self._machine())
        (self.folder / "summary.md").write_text("\n".join(self._summary()) + "\n")

    def _machine(self) -> str:
        cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                    if line.startswith("model name")), platform.processor())
        load = lambda now: " ".join(f"{value:.2f}" for value in now)  # noqa: E731
        facts = {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(),
                 **{name: metadata.version(name) for name in PACKAGES}, "threads": self.args.threads,
                 "load at start": load(self.start), "load at end": load(os.getloadavg())}
        git = lambda *words: subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True,  # noqa: E731
                                            text=True).stdout.strip()
        facts["commit"] = git("rev-parse", "HEAD") + (" and changes" if git("status", "--porcelain") else "")
        return "".join(f"{name:14}  {value}\n" for name, value in facts.items())

    def _summary(self) -> list[str]:
        lines = ["# Parity and speed beside the published code", ""]
        if self.parity:
            lines += [
                f"Max abs difference of the low-resolution mask logits over {real_clip.FRAMES} frames of DAVIS "
                f"`{self.args.sequence}` (every second one, stretched to the model's square), "
                f"`sightline trace` beside the published predictor, same drawn checkpoint (seed {SEED}), of the "
                "logits' standard deviation; in brackets the least intersection over union of any frame's mask. "
                "Drawn weights say nothing of mask quality.", "", *parity_table(self.parity), ""]
            restless = [row for row in self.parity if row["moved_by_noise"] != ""]
            lines += [f"- {row['model']} {row['image_size']} {row['scenario']}: {row['max_logit_diff']:.1e} at "
                      f"{row['worst']}; noise of {NOISE:g} on the image moves the published logits "
                      f"{row['moved_by_noise']:.1e}" for row in restless]
            lines += [""] if restless else []
        if self.speed:
            busy = max(self.start[0], os.getloadavg()[0]) > os.cpu_count() / 2
            note = " **The machine was busy with others: a look at the ratios, not at the times.**" if busy else ""
            lines += [f"{self.args.threads} thread(s), {self.args.repeats} interleaved repeats, all memory slots in "
                      f"use; ratio is PyTorch's time over ours.{note}", "", *speed.table(self.speed)]
        return lines


def main() -> int:
    """Exit 1 if anything that holds still differs."""
    args = parse()
    torch.set_num_threads(1)
    folder = args.out or ROOT / "benches" / "results" / f"{datetime.date.today()}-parity"
    results, bad = Results(args, folder), 0
    for entry in args.models:
        name, _, px = entry.partition("@")
        size, started = int(px or args.image_size), time.monotonic()
        family, config = find(name)
        results.replace(name, size)
        clip = real_clip.RealClip(args.data, args.sequence, size)
        with tempfile.TemporaryDirectory() as scratch:
            model_folder, case = Path(scratch) / "model", Path(scratch) / "case"
            model = family.build(family.read_config(family.config_path(config), size))
            family.restore(model, weights.draw(family.official(model), SEED, CALM))
            if args.only != "speed":
                parity = Parity(args, name, family, model, clip)
                parity.settle()
            checkpoint = Path(scratch) / "checkpoint.pt"
            torch.save({"model": family.official(model)}, checkpoint)
            export(family.name, config, str(checkpoint), size, MAX_COND, model_folder, say=lambda _: None,
                   with_parity_set=False)
            if args.only != "speed":
                clip.write(case)
                for row in parity.rows(model_folder, case):
                    results.parity.append(row)
                    results.write()
                    bad += failed(row)
                    print(f"{name:8} {size:5} {row['scenario']:11} {row['reference']:18} "
                          f"logits {row['max_logit_diff']:.1e} score {row['max_score_diff']:.1e} "
                          f"iou {row['iou_min']:.4f} absent {row['absent']:2} {row['moved_by_noise']} "
                          f"prompt {row.get('moved_by_prompt', '')}"
                          f" std {row['logit_std']:.1f}{' FAIL' if failed(row) else ''}", flush=True)
            if args.only != "parity":
                results.speed += speed.measure(name, family, model, model_folder, MAX_COND, args.threads,
                                               args.repeats, args.objects)
        results.write()
        print(f"{name} {size}: {time.monotonic() - started:.0f} s", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ExportError as error:
        sys.exit(f"table: {error}")

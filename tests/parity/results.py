"""The folder of a run of `table.py`: raw rows, a summary, the machine and the commands."""

import csv
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import real_clip

ROOT = Path(__file__).resolve().parents[2]
SEED = 9
# Noise on the normalised image, the size of what another runtime's arithmetic adds.
NOISE = 1e-6
PACKAGES = ("torch", "onnxruntime", "sam2", "transformers", "timm", "numpy")
HEADER = ["model", "family", "image_size", "graphs", "scenario", "reference", "frames", "absent", "logit_std",
          "max_logit_diff", "max_score_diff", "iou_min", "iou_mean", "worst", "moved_by_noise", "moved_by_prompt",
          "flipped", "with_our_bits"]


def parity_table(rows: list[dict]) -> list[str]:
    """Markdown, one line a model and reference."""
    names = list(dict.fromkeys(row["scenario"] for row in rows))
    lines = ["| model | px | graphs | reference | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 4)]
    key = lambda row: tuple(str(row[name]) for name in ("model", "image_size", "graphs", "reference"))  # noqa: E731
    for wanted in dict.fromkeys(map(key, rows)):
        cells = {row["scenario"]: f"{row['max_logit_diff']:.1e} of {row['logit_std']:.0f} ({row['iou_min']:.4f})"
                 for row in rows if key(row) == wanted}
        lines.append("| " + " | ".join((*wanted, *(cells.get(name, "") for name in names))) + " |")
    return lines


def flips(row: dict) -> str:
    """What is said of a row in which a prompted mask is not the same in every pixel."""
    if not row["flipped"]:
        return ""
    own = f", with our bits there it is {row['with_our_bits']:.1e} from ours" if row.get("with_our_bits") else ""
    return f"; {row['flipped']} pixel(s) of a prompted mask differ in sign{own}"


class Results:
    """The folder of a run, rewritten after every model."""

    def __init__(self, args, folder: Path):
        self.args, self.folder, self.parity = args, folder, []
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
        texts = ("model", "family", "graphs", "scenario", "reference", "worst")
        files = [self.folder / name for name in ("parity.csv", "command.txt")]
        if files[0].is_file():
            with open(files[0], newline="") as file:
                self.parity = [{name: value if name in texts or value == "" else json.loads(value)
                                for name, value in row.items()} for row in csv.DictReader(file)]
        if files[1].is_file():
            self.commands = files[1].read_text().splitlines()

    def replace(self, name: str, size: int) -> None:
        """Drops what is about to be measured again."""
        self.parity = [row for row in self.parity if (row["model"], row["image_size"]) != (name, size)]

    def write(self) -> None:
        """Everything there is so far."""
        if self.parity:
            with open(self.folder / "parity.csv", "w", newline="") as file:
                out = csv.DictWriter(file, HEADER)
                out.writeheader()
                out.writerows(self.parity)
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
        lines = ["# Parity beside the published code", ""]
        if self.parity:
            lines += [
                f"Max abs difference of the low-resolution mask logits over {real_clip.FRAMES} frames of DAVIS "
                f"`{self.args.sequence}` (every second one, stretched to the model's square), "
                f"`sightline trace` beside the published predictor, same drawn checkpoint (seed {self.args.seed}), of the "
                "logits' standard deviation; in brackets the least intersection over union of any frame's mask. "
                "Drawn weights say nothing of mask quality. Of `3 objects` the second joins at frame "
                f"{real_clip.SECOND}, the third at frame {real_clip.THIRD}; ours run as batches. fp16 and int8 (the "
                f"image encoder, calibrated on `{self.args.calibration}`) are reported as measured.", "",
                *parity_table(self.parity), ""]
            restless = [row for row in self.parity if row["moved_by_noise"] != ""]
            lines += [f"- {row['model']} {row['image_size']} {row['scenario']}: {row['max_logit_diff']:.1e} at "
                      f"{row['worst']}; noise of {NOISE:g} on the image moves the published logits "
                      f"{row['moved_by_noise']:.1e}" + flips(row) for row in restless]
            lines += [""] if restless else []
        return lines

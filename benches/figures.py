#!/usr/bin/env python3
"""Measures what the README's performance section says, and writes that section.

    python3 benches/figures.py --out benches/results/DATE-live      # measure, then all of the below (`make figures`)
    python3 benches/figures.py --render benches/results/DATE-live   # summary, plots and README from what was measured
    python3 benches/figures.py --check                              # exit 1 if README or summary are not what the folder gives

The folder holds machine.txt, commit.txt, command.txt, the raw JSON of every bench, summary.md and plots. Standard library
only; the comparison with PyTorch runs in the exporter's environment where there is one. Run from the repository's root.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
import plots  # noqa: E402
import report  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
HOME_VENV = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "sightline/export-venv"
MARKS = re.compile(r"<!-- performance(?: (\S+))? -->\n(.*?)<!-- /performance -->", re.S)
# More than this share of the machine's time before the start belonged to others: the figures say so.
BUSY = 0.1
# Feeds, objects, pictures a second (none: the clip's own).
LATENCY = [(1, 1, None), (1, 4, None), (4, 1, 10), (4, 4, 10)]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="DIR", help="measure into this folder")
    parser.add_argument("--render", type=Path, metavar="DIR")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", default="streaming,latency,degrade,compare", help="of these; the others' JSON stays")
    parser.add_argument("--sightline", default="target/release/sightline", metavar="BIN")
    parser.add_argument("--davis", default="../shared/data/davis", metavar="DIR")
    parser.add_argument("--clip", default="../shared/data/clips/01_dog.mp4", metavar="FILE")
    parser.add_argument("--box", default="460,400,725,565", help="of the clip's object, for the comparison")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fps", type=float, default=24)
    parser.add_argument("--seconds", type=float, default=20, help="of each latency run, after its warm-up")
    parser.add_argument("--set", action="append", default=[], metavar="PROPERTY=VALUE", help="of sightlinetrack, in every run")
    parser.add_argument("--degrade", action="append", default=[], metavar="NAME:PROPERTY=VALUE[,PROPERTY=VALUE]",
                        help="a streaming run with these properties, for the table of degrade levels")
    parser.add_argument("--python", type=Path, help="of the exporter's environment, for the comparison")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if sum(bool(one) for one in (args.out, args.render, args.check)) != 1:
        parser.error("expected one of --out, --render and --check")
    return args


def output(*command: str) -> str:
    """What a program says; nothing when it is not there."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def scrub(text: str) -> str:
    """Without this machine's folders."""
    return text.replace(f"{ROOT}/", "").replace(str(ROOT.parent), "..").replace(str(Path.home()), "~")


def busy(over: float = 1.0) -> float:
    """Share of all processors' time that is not idle."""
    def ticks():
        values = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(values), values[3] + values[4]
    (total, idle), _ = ticks(), time.sleep(over)
    later, later_idle = ticks()
    return 1 - (later_idle - idle) / max(1, later - total)


def field(path: str, name: str) -> str:
    """A line `name : value` of a file in /proc."""
    lines = Path(path).read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "unknown")


class Run:
    """A folder that is measured into."""

    def __init__(self, args):
        self.args, self.folder, self.commands = args, args.out, []
        self.folder.mkdir(parents=True, exist_ok=True)
        self.only = set(args.only.split(","))
        self.kept = self.folder / "command.txt"
        if self.only != {"streaming", "latency", "degrade", "compare"} and self.kept.is_file():
            self.commands = self.kept.read_text().splitlines()
        self.start = {"busy": busy(), "load": " ".join(f"{load:.2f}" for load in os.getloadavg())}

    def call(self, *command) -> None:
        """Runs a bench and remembers what to type to run it again."""
        words = [str(word) for word in command]
        shown = scrub(shlex.join(words))
        print(f"figures: {shown}", flush=True)
        begun = time.monotonic()
        if subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
            sys.exit(f"figures: expected this to succeed: {shown}")
        print(f"figures: took {time.monotonic() - begun:.0f} s", flush=True)
        if shown not in self.commands:
            self.commands.append(shown)

    def bench(self, what: str, name: str, *words) -> None:
        """`sightline bench`."""
        given = [part for value in self.args.set for part in ("--set", value)]
        self.call(self.args.sightline, "bench", what, "--model", self.args.model, "--threads", self.args.threads,
                  *words, *given, "--json", self.folder / name)

    def streaming(self) -> None:
        self.bench("streaming", "streaming.json", "--data", self.args.davis, "--fps", self.args.fps)

    def latency(self) -> None:
        for feeds, objects, fps in LATENCY:
            paced = ["--fps", fps] if fps else []
            boxed = ["--box", self.args.box] if objects == 1 else ["--objects", objects]
            self.bench("latency", f"latency-{feeds}x{objects}.json", "--input", self.args.clip, "--feeds", feeds,
                       *boxed, *paced, "--seconds", self.args.seconds)

    def degrade(self) -> None:
        for level in self.args.degrade:
            name, _, properties = level.partition(":")
            words = [part for value in properties.split(",") if value for part in ("--set", value)]
            self.bench("streaming", f"degrade-{name}.json", "--data", self.args.davis, "--fps", self.args.fps,
                       "--no-offline", *words)

    def compare(self) -> None:
        candidates = [self.args.python, ROOT / ".cache/export-venv/bin/python", HOME_VENV / "bin/python"]
        python = next((path for path in candidates if path and path.exists()), None)
        if python is None:
            print("figures: no environment of the exporter: not compared with PyTorch", flush=True)
            return
        self.call(python, "benches/compare/compare.py", "--sightline", self.args.sightline, "--input", self.args.clip,
                  "--box", self.args.box, "--threads", self.args.threads, "--out", self.folder)
        self.commands[-1] = self.commands[-1].replace(scrub(str(python)), "python")

    def finish(self) -> None:
        """machine.txt, commit.txt, command.txt."""
        gstreamer = output("gst-launch-1.0", "--version").splitlines()
        library = os.environ.get("SIGHTLINE_ONNXRUNTIME", "")
        version = re.search(r"so\.([\d.]+)$", library)
        rows = {
            "date": datetime.date.today().isoformat(),
            "cpu": field("/proc/cpuinfo", "model name"), "cores": os.cpu_count(),
            "memory": field("/proc/meminfo", "MemTotal"), "kernel": platform.release(),
            "GStreamer": gstreamer[1] if len(gstreamer) > 1 else "unknown",
            "ONNX Runtime": version.group(1) if version else "unknown",
            "load at start": self.start["load"], "load at end": " ".join(f"{load:.2f}" for load in os.getloadavg()),
            "busy with others": f"{100 * self.start['busy']:.0f} % of all cores in the second before the start",
        }
        if self.start["busy"] > BUSY:
            rows["note"] = "the machine was busy with others: ratios mean something, times little"
        (self.folder / "machine.txt").write_text("".join(f"{name:17} {value}\n" for name, value in rows.items()))
        changed = [line for line in output("git", "status", "--porcelain").splitlines()
                   if "benches/results/" not in line and not line.endswith("README.md")]
        commit = output("git", "rev-parse", "HEAD")
        text = "\n".join([commit, *(["with these files changed:", *changed] if changed else [])]) + "\n"
        kept = self.folder / "commit.txt"
        if self.args.only and kept.exists():
            # What was measured before stays that commit's.
            text = f"{kept.read_text()}then, of {self.args.only}:\n{text}"
        kept.write_text(text)
        self.kept.write_text("\n".join(self.commands) + "\n")


def written(folder: Path) -> dict[str, str]:
    """What a folder's raw files give: names to contents; the section of the README under `README`."""
    shown = scrub(str(folder.resolve()))
    figures = report.Figures.read(folder)
    files = {"summary.md": report.summary(figures), **plots.all_of(figures)}
    return files | {"README": report.section(figures, shown)}


def render(folder: Path, readme: Path) -> None:
    """Writes summary, plots and the README's section."""
    files = written(folder)
    section = files.pop("README")
    for name, text in files.items():
        (folder / name).write_text(text)
    before = readme.read_text()
    if not MARKS.search(before):
        sys.exit(f"figures: {readme.name}: expected <!-- performance --> and <!-- /performance -->, got neither")
    readme.write_text(MARKS.sub(lambda _: section, before, count=1))


def check(readme: Path) -> int:
    """Whether the README says what the folder it names gives."""
    found = MARKS.search(readme.read_text())
    if not found:
        print(f"figures: {readme.name}: expected a performance section, got none")
        return 1
    if found.group(1) is None:
        print("figures: nothing measured yet")
        return int(bool(found.group(2).strip()))
    folder = ROOT / found.group(1)
    files = written(folder)
    stale = [] if files.pop("README") == found.group(0) else [readme.name]
    stale += [name for name, text in files.items()
              if not (folder / name).is_file() or (folder / name).read_text() != text]
    for name in stale:
        print(f"figures: {name}: expected what {found.group(1)} gives, got something else; "
              f"python3 benches/figures.py --render {found.group(1)}")
    return int(bool(stale))


def main() -> int:
    """Exit 1 if something is stale."""
    args = parse()
    if args.check:
        return check(args.readme)
    if args.render:
        render(args.render, args.readme)
        return 0
    run = Run(args)
    begun = time.monotonic()
    for part in ("streaming", "latency", "degrade", "compare"):
        if part in run.only:
            getattr(run, part)()
    run.finish()
    render(args.out, args.readme)
    print(f"figures: {scrub(str(args.out.resolve()))} and the README's section, {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

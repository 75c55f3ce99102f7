#!/usr/bin/env python3
"""Measures a machine with an NVIDIA GPU and writes a results folder. Needs Python and PyTorch there, and what `pack.py` packed.

    python3 run.py --out results/DATE-gpu             in a packed folder; in the repository: make gpu-bench
    python3 run.py --device cpu --tiny-matrix ...     the same steps on the processor, small: shows that the bench works

Every step is a program of its own, and one that fails is "not measured" with its reason; the rest goes on. What is in
OUT/raw already is not done again, so that a run that was cut short goes on where it was. The most telling steps come first.
"""

import argparse
import json
import lzma
import os
import platform
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import summary

HERE = Path(__file__).resolve().parent
PACKED = (HERE / "bin").is_dir()
ROOT = HERE if PACKED else HERE.parents[1]
ORT = "libonnxruntime.so.1.31.1"


@dataclass
class Step:
    """A program to run, the name of what it writes, and what is said of it in the summary."""

    name: str
    command: list[str]
    about: dict = field(default_factory=dict)
    limit_s: float = 300


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, default=Path("/tmp/sightline-gpu-bench"), metavar="DIR",
                        help="what is unpacked and exported; kept")
    parser.add_argument("--bin", type=Path, help="gpu-bench (default: the packed one, else target/release)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--models", nargs="+", default=["tiny@1024", "edgetam@1024", "large@1024"], metavar="NAME@PX")
    parser.add_argument("--objects", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--feeds", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="no step is begun after so long")
    parser.add_argument("--tiny-matrix", action="store_true", help="one committed model, few frames: seconds")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be run")
    args = parser.parse_args()
    args.out = args.out.resolve()
    return args


def unpack(work: Path) -> Path:
    """The packed programs and libraries, ready to run; the folder with the libraries."""
    folder = work / "unpacked"
    for source in [*(HERE / "bin").iterdir(), *(HERE / "lib").iterdir()]:
        target = folder / source.name.removesuffix(".xz")
        if target.is_file() and target.stat().st_mtime >= source.stat().st_mtime:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        data = source.read_bytes()
        target.write_bytes(lzma.decompress(data) if source.suffix == ".xz" else data)
        target.chmod(0o755)
        if target.suffix == ".tar":
            with tarfile.open(target) as packages:
                packages.extractall(folder, filter="data")
    return folder


def cuda_folders() -> list[str]:
    """Where this Python's packages keep CUDA's libraries, which PyTorch brings along."""
    found = {str(path.parent) for place in sys.path if place and Path(place).is_dir()
             for path in [*Path(place).glob("nvidia/**/lib*.so*"), *Path(place).glob("torch/lib/lib*.so*")]}
    return sorted(found)


def environment(args, libraries: Path | None) -> dict[str, str]:
    """With the libraries that the steps look for."""
    env = dict(os.environ)
    if libraries:
        env["SIGHTLINE_ONNXRUNTIME"] = str(libraries / ORT)
        env["PYTHONPATH"] = ":".join(path for path in (env.get("PYTHONPATH"), str(libraries / "site")) if path)
    if args.device == "cuda":
        folders = [*([str(libraries)] if libraries else []), *cuda_folders(), env.get("LD_LIBRARY_PATH", "")]
        env["LD_LIBRARY_PATH"] = ":".join(folder for folder in folders if folder)
    env["XDG_CACHE_HOME"] = str(args.work / "cache")
    env["RUST_BACKTRACE"] = "0"
    return env


def steps(args, binary: Path) -> list[Step]:
    """All of them, the most telling first."""
    provider = "onnxruntime-cuda" if args.device == "cuda" else "onnxruntime-cpu"
    rust, python = str(binary), sys.executable
    tiny = args.tiny_matrix
    frames, warmup = (4, 2) if tiny else (args.frames, 24)
    counts = ["--frames", str(frames), "--warmup", str(warmup), *(["--picture", "320x240"] if tiny else [])]
    todo = [Step("about", [rust, "about"], limit_s=60)]
    if args.device == "cuda" or not tiny:
        todo.append(Step("kernels", [rust, "kernels"]))
    else:
        todo.append(Step("kernels", [rust, "kernels", "--launches", "1", "--rounds", "1"]))
    for place, model in enumerate(["golden@128"] if tiny else args.models):
        made = of_model(args, model, rust, python, provider, counts)
        for step in made:
            # First what every model is asked, a model after the other; then the rest in the same way.
            step.about["order"] = (step.about["rank"] > 4, place, step.about.pop("rank"))
        todo += made
    return sorted(todo, key=lambda step: step.about.get("order", ()))


def of_model(args, model: str, rust: str, python: str, provider: str, counts: list[str]) -> list[Step]:
    """The steps of one of `--models`."""
    tiny = args.tiny_matrix
    made = args.work / "models" / model.replace("@", "-")
    precisions = ["fp32"] if tiny else ["fp16", "fp32"]
    place = (lambda kind: ROOT / "tests/golden/sam2-tiny/model") if tiny else (lambda kind: made / kind)
    objects = [1, 2] if tiny else args.objects
    todo = []

    def add(rank: int, what: str, label: str, command: list[str], limit_s: float = 300, **about) -> None:
        about = {"rank": rank, "what": what, "model": model, **about}
        todo.append(Step(f"{model.replace('@', '-')}-{label}", command, about, limit_s))

    def ours(command: str, kind: str, *more: str) -> list[str]:
        return [rust, command, "--model", str(place(kind)), "--provider", provider, *more]

    if not tiny:
        draw = [python, str(HERE / "draw.py"), "--model", model, "--out", str(made)]
        add(1, "draw", "draw", [*draw, "--precision", *precisions], 900)
        add(6, "draw", "draw-closed", [*draw, "--precision", "fp16", "--closed"], 900)
    for precision in precisions:
        first = precision == precisions[0]
        for count in objects:
            add(2 if first else 5, "latency", f"latency-{precision}-{count}",
                ours("latency", precision, "--objects", str(count), *counts),
                precision=precision, objects=count, feeds=1)
        add(4, "graphs", f"graphs-{precision}", ours("graphs", precision, "--runs", "2" if tiny else "20"),
            precision=precision)
    for count in [2] if tiny else [count for count in args.feeds if count > 1]:
        for together in (4, 1):
            label = f"feeds-{count}" if together > 1 else f"feeds-{count}-apart"
            flags = ["--feeds", str(count), "--feeds-together", str(together)]
            add(5, "latency", label, ours("latency", precisions[0], *flags, *counts),
                precision=precisions[0], objects=1, feeds=count, together=together)
    late = ["--answers", "2", "--behind", "8", "--picture", "320x240"] if tiny else []
    add(3, "late", "late", ours("late", precisions[0], *late), precision=precisions[0])
    if not tiny:
        for graphs in (False, True):
            flag = ["--cuda-graphs"] if graphs else []
            add(6, "latency", f"closed-{'graphs' if graphs else 'plain'}",
                ours("latency", "fp16-closed", *flag, *counts), precision="fp16", objects=1, feeds=1, closed=True,
                cuda_graphs=graphs)
    if not args.no_torch:
        checkpoint = made / "checkpoint.pt"
        side = [python, str(HERE / "torch_side.py"), "--model", model, "--checkpoint", str(checkpoint),
                "--device", args.device, "--frames", counts[1], "--warmup", counts[3]]
        for mode, count, rank in [*(("eager", count, 3) for count in objects), ("compile", 1, 3)]:
            if mode == "compile" and (tiny or model.startswith("edgetam")):
                continue
            add(rank, "torch", f"torch-{mode}-{count}", [*side, "--mode", mode, "--objects", str(count)],
                900 if mode == "compile" else 300, mode=mode, objects=count, precision="bf16")
    return todo


def run(step: Step, raw: Path, env: dict[str, str]) -> dict:
    """Its result, or why there is none; kept in `raw`."""
    begun = time.monotonic()
    try:
        done = subprocess.run(step.command, env=env, capture_output=True, text=True, timeout=step.limit_s)
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = None
        if done.returncode:
            reason = (said or [f"exit code {done.returncode}"])[-1].removeprefix("gpu-bench: ")
        (raw / f"{step.name}.log").write_text(done.stderr)
        lines = done.stdout.strip().splitlines()
        result = json.loads(lines[-1]) if reason is None and lines and lines[-1].startswith("{") else {}
    except subprocess.TimeoutExpired:
        reason, result = f"not over within {step.limit_s:.0f} s", {}
    except OSError as error:
        reason, result = str(error), {}
    except ValueError as error:
        reason, result = f"unreadable: {error}", {}
    kept = {"step": step.name, "about": step.about, "took_s": round(time.monotonic() - begun, 2),
            "not_measured": reason, "result": result}
    (raw / f"{step.name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    return kept


def machine(args) -> str:
    """What the figures are worth nothing without."""
    def said(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            return ""

    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    gpu = said("nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader")
    torch = said(sys.executable, "-c", "import torch; print(torch.__version__, torch.version.cuda)")
    lines = [f"processor: {cpu}, {os.cpu_count()} cores", f"gpu: {gpu or 'none'}",
             f"system: {platform.system()} {platform.release()}, Python {platform.python_version()}",
             f"torch: {torch or 'none'}", f"load: {os.getloadavg()[0]:.2f}", f"device asked for: {args.device}"]
    return "\n".join(lines) + "\n"


def commit() -> str:
    """Of the sources, told by the pack or by git."""
    if (HERE / "commit.txt").is_file():
        return (HERE / "commit.txt").read_text()
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"],
                          capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else "unknown\n"


def main() -> int:
    """Exit code 0 when every step that could be run was."""
    args = parse()
    libraries = unpack(args.work) if PACKED and not args.dry_run else None
    binary = args.bin or (libraries / "gpu-bench" if libraries else ROOT / "target/release/gpu-bench")
    todo = steps(args, binary.resolve())
    if args.dry_run:
        print("\n".join(f"{step.name}: {' '.join(step.command)}" for step in todo))
        return 0
    if not binary.is_file():
        print(f"gpu-bench: expected the program at {binary}, got none (make gpu-bench builds it)", file=sys.stderr)
        return 2
    raw = args.out / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    (args.out / "machine.txt").write_text(machine(args))
    (args.out / "commit.txt").write_text(commit())
    (args.out / "command.txt").write_text("python3 benches/gpu/run.py " + " ".join(sys.argv[1:]) + "\n")
    env, begun = environment(args, libraries), time.monotonic()
    for step in todo:
        before = raw / f"{step.name}.json"
        if before.is_file() and not json.loads(before.read_text())["not_measured"]:
            continue
        if time.monotonic() - begun > args.budget_s:
            kept = {"step": step.name, "about": step.about, "took_s": 0, "not_measured": "the time was up", "result": {}}
            before.write_text(json.dumps(kept, indent=1) + "\n")
            continue
        kept = run(step, raw, env)
        print(f"{step.name}: {kept['not_measured'] or 'done'} ({kept['took_s']:.1f} s)", flush=True)
        # After every step: a run that is cut short leaves what it has.
        (args.out / "summary.md").write_text(summary.render(args.out))
    (args.out / "summary.md").write_text(summary.render(args.out))
    print(f"wrote {args.out / 'summary.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

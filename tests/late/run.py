#!/usr/bin/env python3
"""Late answers against answers in time, and against the naive way, on DAVIS at a camera's pace.

A scripted chat-completions server answers "where is ...?" about the first frame with the true box, after 0 to 5 seconds.
`sightline bench streaming` plays each sequence forward and back and scores at every instant the newest mask.
Here the runs are compared instant by instant: from the moment a late answer's object is live again, J of that run beside
J of the run without delay and of the naive run (the late box put on the newest frame) over the same instants.

    python3 tests/late/run.py --out benches/results/DATE-late-answers

Needs the release binary and the scripted server (`make build`; built here if missing), and Pillow and numpy.
"""
import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def first_box(data, sequence):
    """Thousandths [x0, y0, x1, y1] of the first annotation, the right and bottom edge exclusive."""
    path = sorted((data / "Annotations/480p" / sequence).glob("*.png"))[0]
    mask = np.array(Image.open(path)) > 0
    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    corners = [xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height]
    return [round(1000 * float(at), 1) for at in corners]


def answers(data, expressions):
    def answer(sequence, words):
        found = {"label": words, "box": first_box(data, sequence), "mark": None, "images": None}
        return {"text": "", "verdict": None, "objects": [found], "spans": []}

    return {words[0]: answer(sequence, words[0]) for sequence, words in expressions.items()}


class Server:
    """The scripted server with a delay or a fault."""

    def __init__(self, program, answers_file, delay_ms, *faults):
        command = [program, "--answers", answers_file, "--delay-ms", str(delay_ms), "--address", "127.0.0.1:0", *faults]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = self.process.stdout.readline().split()[-1]

    def __enter__(self):
        return self.url

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def evaluate(args, url, late, out):
    command = [
        str(args.sightline), "bench", "streaming", "--data", str(args.data), "--prompt", "text",
        "--expressions", str(HERE / "expressions.json"), "--fps", str(args.fps), "--pingpong", str(args.pingpong),
        "--model", args.model, "--llm", url, "--llm-model", "scripted", "--late", late, "--json", str(out),
    ]
    if args.sequences:
        command += ["--sequences", args.sequences]
    if not (args.reuse and out.exists()):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {s["name"]: s for s in json.loads(out.read_text())["sequences"]}


def compare(run, zero, naive, fps):
    """A row for each sequence, over the instants from live to the end."""
    rows = []
    for name, s in run.items():
        if not s["caught_up"]:
            rows.append({"sequence": name, "live_s": None})
            continue
        late = s["caught_up"][0]
        # The first mask of the newest frame rides on the picture after it; of less than a second nothing is said.
        start = late["live"] + 2
        counts = len(s["j_at"]) - start >= fps
        rest = lambda other: float(np.mean(other["j_at"][start:])) if counts else None
        rows.append({
            "sequence": name, "first_mask_s": s["first_mask_s"], "live_s": late["live"] / fps,
            "took_ms": late["took_ms"], "looked_at": late["looked_at"], "left_out": late["live"] - late["from"] + 1 - late["looked_at"],
            "degraded": late["degraded"], "final_lag_ms": s["final_lag_ms"],
            "j_after": rest(s), "j_after_zero": rest(zero[name]), "j_after_naive": rest(naive[name]) if naive else None,
            "j_all": s["j"], "step_p99_ms": s["step_ms"]["p99"],
            "step_catching_ms": s["step_catching_ms"], "step_others_ms": s["step_others_ms"], "age_p99_ms": s["age_ms"]["p99"],
        })
    return rows


def mean(rows, key):
    values = [row[key] for row in rows if row.get(key) is not None]
    return float(np.mean(values)) if values else float("nan")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "../shared/data/davis")
    parser.add_argument("--sightline", type=pathlib.Path, default=ROOT / "target/release/sightline")
    parser.add_argument("--server", type=pathlib.Path, default=ROOT / "target/release/examples/scripted-server")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--delays", default="0,0.5,1,2,5", help="seconds, the first is what the others are compared with")
    parser.add_argument("--fps", type=float, default=24)
    parser.add_argument("--pingpong", type=int, default=3)
    parser.add_argument("--sequences", default="")
    parser.add_argument("--reuse", action="store_true", help="only what OUT does not hold is run")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for program, build in [
        (args.sightline, ["-p", "sightline"]),
        (args.server, ["-p", "sightline-grounding", "--example", "scripted-server"]),
    ]:
        if not program.exists():
            subprocess.run(["cargo", "build", "--release", *build], cwd=ROOT, check=True)
    expressions = json.loads((HERE / "expressions.json").read_text())
    answers_file = args.out / "answers.json"
    answers_file.write_text(json.dumps(answers(args.data, expressions), indent=1) + "\n")
    delays = [float(delay) for delay in args.delays.split(",")]
    runs, table = {}, []
    for delay in delays:
        for late in ["catch-up"] + (["naive"] if delay >= 0.5 else []):
            with Server(str(args.server), str(answers_file), int(1000 * delay)) as url:
                runs[delay, late] = evaluate(args, url, late, args.out / f"{late}-{delay:g}s.json")
            print(f"delay {delay:g} s, {late}: done", file=sys.stderr)
    for delay in sorted(delays[1:]):
        rows = compare(runs[delay, "catch-up"], runs[delays[0], "catch-up"], runs.get((delay, "naive")), args.fps)
        lost = [row["sequence"] for row in rows if row["live_s"] is None]
        short = [row["sequence"] for row in rows if row["live_s"] is not None and row["j_after"] is None]
        table.append({
            "delay_s": delay, "sequences": len(rows), "never_live": lost, "over_before_they_count": short,
            **{key: mean(rows, key) for key in
               ["first_mask_s", "live_s", "took_ms", "left_out", "final_lag_ms", "j_after", "j_after_zero", "j_after_naive", "j_all"]},
            "took_max_ms": max((row["took_ms"] for row in rows if row.get("took_ms")), default=None),
            "rows": rows,
        })
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "system": platform.platform()}
    try:
        model = [l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")]
        machine["processor"] = model[0]
    except (OSError, IndexError):
        pass
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    command = f"python3 tests/late/run.py --delays {args.delays} --fps {args.fps:g} --pingpong {args.pingpong} --model {args.model}"
    summary = {"command": command, "commit": commit, "machine": machine, "model": args.model,
               "zero_delay": {"j": mean(list(runs[delays[0], "catch-up"].values()), "j")}, "delays": table}
    (args.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (args.out / "command.txt").write_text(command + "\n")
    text = "J after: means over the instants from live to the end, of sequences that then last another second.\n\n"
    text += "delay s | sequences | first mask s | live s | catch-up ms (most) | frames left out | J after: late | in time | naive | lag ms\n"
    text += "---|---|---|---|---|---|---|---|---|---\n"
    for row in table:
        text += (f"{row['delay_s']:g} | {row['sequences'] - len(row['never_live']) - len(row['over_before_they_count'])} | {row['first_mask_s']:.2f} | {row['live_s']:.2f} | {row['took_ms']:.0f} ({row['took_max_ms']:.0f}) | "
                 f"{row['left_out']:.0f} | {row['j_after']:.1f} | {row['j_after_zero']:.1f} | {row['j_after_naive']:.1f} | "
                 f"{row['final_lag_ms']:.0f}\n" if row["took_max_ms"] else f"{row['delay_s']:g} | none was live\n")
    (args.out / "summary.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

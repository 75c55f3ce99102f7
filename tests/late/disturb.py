#!/usr/bin/env python3
"""What a catch-up costs the objects that are live: one is followed from a box while another is asked for in words.

Each run plays a clip at camera pace; a scripted server answers after 2 s; frames between the answer and the moment its
object is live are compared with those before the answer.

    python3 tests/late/disturb.py --clip CLIP --box X0,Y0,X1,Y1 --answer THOUSANDTHS [--runs 6]
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np

from run import ROOT, Server

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--sightline", type=pathlib.Path, default=ROOT / "target/release/sightline")
parser.add_argument("--server", type=pathlib.Path, default=ROOT / "target/release/examples/scripted-server")
parser.add_argument("--clip", required=True)
parser.add_argument("--box", required=True, help="pixels of the first frame: what is live")
parser.add_argument("--answer", required=True, help="thousandths of the first frame: what is found")
parser.add_argument("--delay", type=float, default=2)
parser.add_argument("--runs", type=int, default=6)
parser.add_argument("--seconds", type=float, default=5)
args = parser.parse_args()

before, during, waits_before, waits_during, took = [], [], [], [], []
skipped = 0
for _ in range(args.runs):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        found = {"label": "it", "box": [float(v) for v in args.answer.split(",")], "mark": None, "images": None}
        answers = folder / "answers.json"
        answers.write_text(json.dumps({"*": {"text": "", "verdict": None, "objects": [found], "spans": []}}))
        with Server(str(args.server), str(answers), int(1000 * args.delay)) as url:
            subprocess.run([str(args.sightline), "run", "--input", args.clip, "--mode", "live", "--box", args.box,
                            "--query", "it", "--llm", url, "--llm-model", "m", "--max-seconds", str(args.seconds),
                            "--jsonl", str(folder / "out.jsonl")], check=True, capture_output=True)
        answered, live, last_late = None, None, None
        for line in open(folder / "out.jsonl"):
            record = json.loads(line)
            if record.get("state") == "answered":
                answered, newest = True, record["answer_pts"]
            elif "late_frame" in record:
                last_late = record["pts"]
            elif "frame" in record and "outcome" in record:
                if record["outcome"] == "skipped":
                    skipped += 1
                    continue
                if live is None and answered and len(record["objects"]) > 1:
                    live = record["pts"]
                    took.append(live - newest)
                if live is not None or record["frame"] < 12:
                    continue
                step = sum(time for stage, time in record["stages_ms"].items() if stage != "queue")
                (during if answered else before).append(step)
                (waits_during if answered else waits_before).append(record["latency_ms"])
p = lambda values: " / ".join(f"{np.percentile(values, share):.1f}" for share in (50, 95, 99))
print(f"{args.runs} runs, {skipped} frames skipped; caught up after {np.mean(took):.2f} s on average, {max(took):.2f} s at most")
print(f"step, p50 / p95 / p99 ms: before the answer {p(before)} ({len(before)} frames), during the catch-up {p(during)} ({len(during)} frames)")
print(f"frame to mask, p50 / p95 / p99 ms: before {p(waits_before)}, during {p(waits_during)}")
print(f"p99 of the step during / before: {np.percentile(during, 99) / np.percentile(before, 99):.2f}")

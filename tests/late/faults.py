#!/usr/bin/env python3
"""What a server that hangs, is dead or answers garbage costs the stream: JSON lines and process figures of runs side by side.

    python3 tests/late/faults.py FOLDER      # FOLDER/{none,hang,garbage,dead}.{jsonl,rss}, as faults.sh makes them
"""
import json
import pathlib
import sys

import numpy as np

folder = pathlib.Path(sys.argv[1])
print("server | frames | looked at | skipped | step p50 / p99 ms | latency p99 ms | queries asked, failed | memory MiB after 2 min, end, slope MiB/min | threads, descriptors first and last")
print("---|---|---|---|---|---|---|---|---")
for name in ["none", "hang", "garbage", "dead"]:
    outcomes, steps, latency, queries = {}, [], [], {}
    for line in open(folder / f"{name}.jsonl"):
        record = json.loads(line)
        if "query" in record:
            queries[record["state"]] = queries.get(record["state"], 0) + 1
        elif "frame" in record and "outcome" in record:
            outcomes[record["outcome"]] = outcomes.get(record["outcome"], 0) + 1
            if record["outcome"] != "skipped":
                steps.append(sum(time for stage, time in record["stages_ms"].items() if stage != "queue"))
                latency.append(record["latency_ms"])
    rows = np.array([[float(v) for v in line.split()] for line in open(folder / f"{name}.rss") if len(line.split()) == 4])
    late = rows[rows[:, 0] > rows[0, 0] + 120]
    slope = np.polyfit((late[:, 0] - late[0, 0]) / 60, late[:, 1] / 1024, 1)[0]
    total, skipped = sum(outcomes.values()), outcomes.get("skipped", 0)
    p = lambda values, share: float(np.percentile(values, share))
    print(f"{name} | {total} | {total - skipped} | {skipped} | {p(steps, 50):.1f} / {p(steps, 99):.1f} | {p(latency, 99):.1f} | "
          f"{queries.get('asked', 0)}, {queries.get('failed', 0)} | {late[0, 1] / 1024:.0f}, {late[-1, 1] / 1024:.0f}, {slope:.2f} | "
          f"{rows[1, 2]:.0f}, {rows[1, 3]:.0f} and {rows[-1, 2]:.0f}, {rows[-1, 3]:.0f}")

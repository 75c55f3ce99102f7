#!/usr/bin/env python3
"""Four cameras on one machine: is any starved, and what does a fault of one cost the others?

    python3 tests/camera/feeds.py --bin target/release --out DIR [--seconds 25] [--model nano] [--threads 1]

`sightline serve` with four real RTSP cameras of 10 frames a second and one set of engines. The fourth camera is killed,
frozen and made to flood (120 frames a second, of which its budget lets 10 in); before and after each there is a calm
phase. Written to DIR: the lines' latencies (frames that were looked at, frame to mask), summary.json and summary.md.
"""
import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "soak"))
from world import Camera, Serve, free_port  # noqa: E402

FPS = 10
NAMES = ["north", "east", "south", "west"]


def percentile(values, share):
    values = sorted(values)
    return values[max(1, -(-len(values) * int(share * 1000) // 1000)) - 1] if values else float("nan")


class Feeds:
    def __init__(self, arguments, folder):
        binary = pathlib.Path(arguments.bin)
        self.cameras = {name: Camera(binary / "rtsp-camera", FPS, (640, 360)) for name in NAMES}
        self.lines = {name: folder / f"{name}.jsonl" for name in NAMES}
        listen = f"127.0.0.1:{free_port()}"
        text = f'[model]\nname = "{arguments.model}"\nthreads = {arguments.threads}\n[serve]\nlisten = "{listen}"\nstatus_every_s = 0\n'
        for name in NAMES:
            text += f'[feeds.{name}]\ninput = "{self.cameras[name].address}"\ntransport = "tcp"\nprompts = "box=300,160,340,200"\n'
            text += f'max_fps = {FPS}.0\njsonl = "{self.lines[name]}"\n'
        config = folder / "serve.toml"
        config.write_text(text)
        self.serve = Serve(binary / "sightline", config, listen, folder / "serve.log")

    def frames(self):
        """Of every feed: milliseconds from frame to mask of every frame that was looked at, and lines so far."""
        found = {}
        for name, path in self.lines.items():
            lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
            frames = [line for line in lines if "frame" in line]
            found[name] = (frames, [line["latency_ms"] for line in frames if line["outcome"] != "skipped"])
        return found

    def phase(self, seconds):
        """What came of every feed meanwhile."""
        before = {name: len(latencies) for name, (_, latencies) in self.frames().items()}
        time.sleep(seconds)
        return {name: latencies[before[name]:] for name, (_, latencies) in self.frames().items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=25)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        feeds = Feeds(arguments, pathlib.Path(folder))
        time.sleep(8)
        last = feeds.cameras[NAMES[-1]]

        def flood():
            last.kill()
            last.start(fps=120)

        def calm_again():
            last.kill()
            last.start()

        faults = [("killed", last.kill, last.start), ("frozen", last.freeze, last.thaw), ("flooding", flood, calm_again)]
        phases = [("calm", feeds.phase(arguments.seconds))]
        for name, breaks, mends in faults:
            breaks()
            time.sleep(1)
            phases.append((name, feeds.phase(arguments.seconds)))
            mends()
            time.sleep(5)
            phases.append(("calm", feeds.phase(arguments.seconds)))
        counted = {name: len(frames) for name, (frames, _) in feeds.frames().items()}
        took, code = feeds.serve.stop()
        whole = feeds.frames()
    result = {"seconds": arguments.seconds, "model": arguments.model, "threads": arguments.threads, "phases": [], "faults": {}}
    for name, found in phases:
        rates = [len(latencies) / arguments.seconds for latencies in found.values()]
        others = [latency for other in NAMES[:-1] for latency in found[other]]
        result["phases"].append({
            "phase": name, "frames_a_second": {feed: round(rate, 2) for feed, rate in zip(found, rates)},
            "least_over_most": round(min(rates) / max(rates), 3),
            "others_ms": {share: round(percentile(others, float(share)), 2) for share in ("0.5", "0.95", "0.99")},
        })
    for at, (name, _) in enumerate(phases):
        if name != "calm":
            ends = [percentile([x for f in NAMES[:-1] for x in phases[at + side][1][f]], 0.99) for side in (-1, 1)]
            now = result["phases"][at]["others_ms"]["0.99"]
            result["faults"][name] = {"p99_ms": now, "calm_p99_ms": round(statistics.mean(ends), 2), "ratio": round(now / statistics.mean(ends), 3)}
    result["accounted"] = {feed: sorted(line["frame"] for line in frames) == list(range(len(frames))) for feed, (frames, _) in whole.items()}
    result["lines"], result["stopped_s"], result["exit"] = counted, round(took, 2), code
    (arguments.out / "summary.json").write_text(json.dumps(result, indent=1) + "\n")
    text = ["| phase | looked at, frames a second, each feed | least / most | the other three, ms: p50 | p95 | p99 |", "|---|---|---|---|---|---|"]
    for phase in result["phases"]:
        rates = " / ".join(f"{rate:.1f}" for rate in phase["frames_a_second"].values())
        text.append(f"| {phase['phase']} | {rates} | {phase['least_over_most']:.2f} | " + " | ".join(f"{ms:.1f}" for ms in phase["others_ms"].values()) + " |")
    text.append("")
    text += [f"The fourth camera {name}: p99 of the others {f['p99_ms']:.1f} ms, in the calm before and after {f['calm_p99_ms']:.1f} ms, {f['ratio']:.2f} times." for name, f in result["faults"].items()]
    text.append("Every frame has one outcome: " + ", ".join(f"{feed} {'yes' if good else 'NO'} ({counted[feed]})" for feed, good in result["accounted"].items()) + ".")
    (arguments.out / "summary.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()

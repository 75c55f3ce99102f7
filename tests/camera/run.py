#!/usr/bin/env python3
"""A camera that is killed, replaced and frozen, again and again: how soon there are frames again, and what became of the object.

    python3 tests/camera/run.py --bin target/release --film clip.mp4 --box 460,400,725,565 [--rounds 5] [--json FILE]

`--bin` is a folder with `sightline` and `rtsp-camera` (cargo build --release -p sightline; ... -p sightline-tests --bin
rtsp-camera). Each round, over TCP and over UDP: killed and back as it was; killed and back with a picture of half the
size; frozen and thawed. The time is from the camera's return (it listens; SIGCONT) to the line that says that a frame
came, so it includes the waiting between two tries.
"""

import argparse
import collections
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--film", type=pathlib.Path, help="played in a loop; a bouncing ball without it")
    parser.add_argument("--size", default="1280x720", help="of the camera's picture")
    parser.add_argument("--box", default="600,320,680,400", help="the object on the first frame, in pixels")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--fps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--away", type=float, default=3.0, help="seconds between a loss and the return")
    parser.add_argument("--json", type=pathlib.Path)
    return parser.parse_args()


class Camera:
    def __init__(self, args, port, size):
        width, height = size
        command = [args.bin / "rtsp-camera", "--port", port, "--width", width, "--height", height, "--fps", args.fps]
        if args.film:
            command += ["--file", args.film]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().removeprefix("listening on "))
        self.since = time.monotonic()

    def signal(self, number):
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()


class Lines:
    """Follows a file of JSON lines."""

    def __init__(self, path):
        self.path, self.at, self.rest, self.all = path, 0, "", []

    def read(self):
        if self.path.exists():
            with self.path.open() as file:
                file.seek(self.at)
                text = self.rest + file.read()
                self.at = file.tell()
            *whole, self.rest = text.split("\n")
            self.all += [json.loads(line) for line in whole]
        return self.all

    def wait(self, count, limit):
        """Until so many losses and returns were said."""
        begun = time.monotonic()
        while True:
            said = [line for line in self.read() if "camera" in line]
            if len(said) >= count:
                return said[count - 1], time.monotonic()
            if time.monotonic() - begun > limit:
                sys.exit(f"camera: expected a change within {limit} s, got none after {said}")
            time.sleep(0.005)


def over(scheme, args, folder):
    size = tuple(int(side) for side in args.size.split("x"))
    half = tuple(side // 4 * 2 for side in size)
    camera = Camera(args, 0, size)
    lines = Lines(folder / f"{scheme}.jsonl")
    run = subprocess.Popen(
        [args.bin / "sightline", "run", "--input", f"{scheme}://127.0.0.1:{camera.port}/stream", "--model", args.model,
         "--box", args.box, "--jsonl", lines.path],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    time.sleep(5)
    said, rows = 0, []
    try:
        for _ in range(args.rounds):
            for what in ("killed", "killed, half the size", "frozen"):
                if what == "frozen":
                    camera.signal(signal.SIGSTOP)
                    lost, _ = lines.wait(said + 1, 10)
                    time.sleep(args.away)
                    camera.signal(signal.SIGCONT)
                    camera.since = time.monotonic()
                else:
                    camera.signal(signal.SIGKILL)
                    lost, _ = lines.wait(said + 1, 10)
                    time.sleep(args.away)
                    camera = Camera(args, camera.port, half if "half" in what else size)
                back, at = lines.wait(said + 2, 20)
                said += 2
                rows.append({"transport": scheme, "what": what, "cause": lost["cause"],
                             "return_s": round(at - camera.since, 3), "gap_ms": back["gap_ms"]})
                time.sleep(2)
        run.send_signal(signal.SIGINT)
        summary = run.communicate(timeout=30)[0]
    finally:
        run.kill()
        camera.signal(signal.SIGKILL)
    return rows, summary, objects(lines.read(), rows)


def objects(lines, rows):
    """Ids seen before the first loss, and after each return how often they were seen; frames that have no outcome."""
    spans, frames = [[]], []
    for line in lines:
        if line.get("camera") == "back":
            spans.append([])
        elif "frame" in line:
            frames.append(line["frame"])
            spans[-1].append({entry["id"]: entry["state"] for entry in line["objects"]})
    for row, span in zip(rows, spans[1:]):
        seen = collections.Counter(f"{key} {state}" for states in span for key, state in states.items())
        row["objects"] = dict(seen)
    before = sorted({key for states in spans[0] for key in states})
    return {"ids_before": before, "ids_after": sorted({key for span in spans[1:] for states in span for key in states}),
            "frames": len(frames), "unaccounted": len(frames) - len(set(range(len(frames))) & set(frames))}


def main():
    args = parse()
    result = {"film": args.film and args.film.name, "model": args.model, "fps": args.fps, "rounds": args.rounds, "runs": {}}
    with tempfile.TemporaryDirectory() as folder:
        for scheme in ("rtspt", "rtspu"):
            rows, summary, found = over(scheme, args, pathlib.Path(folder))
            result["runs"][scheme] = {"rows": rows, **found, "summary": summary}
            print(f"{scheme}: {found}")
            for what in dict.fromkeys(row["what"] for row in rows):
                mine = [row for row in rows if row["what"] == what]
                times = [row["return_s"] for row in mine]
                causes = dict(collections.Counter(row["cause"] for row in mine))
                print(f"  {what:24} {len(mine)} times, {causes}; frames again after median {statistics.median(times):.2f} s, "
                      f"at most {max(times):.2f} s; objects after: {[row['objects'] for row in mine]}")
            print("  " + "\n  ".join(summary.splitlines()))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""`sightline serve` for as long as you like while everything around it fails.

    make soak [HOURS=n | MINUTES=n]
    python3 tests/soak/soak.py --bin target/release --examples target/release/examples [--minutes 6] [--out DIR]

Six feeds in one process: two real RTSP cameras (TCP and UDP, one of them followed by `nano`, one by the fake engines) and
four test pictures whose lines go to a pipe that is read, one whose reader is slow or away, a disk that fills up, and one
that asks a scripted language model. Round by round every fault of `faults.py` happens once, in an order drawn anew; the
first round warms up. Sampled all along: /metrics, and memory, threads and descriptors from /proc.

What must hold is listed in `report.py`; exit code 1 when a line does not. Raw samples, faults, the log of the process and
`summary.md` lie in the folder `--out`.
"""
import argparse
import contextlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time

import faults
import report
from world import Answers, Camera, Reader, Serve, free_port, total

SAMPLE_S = 2.0
# Between the healing of a fault and the next one.
CALM_S = 3.0
RECOVERY_S = 20.0


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="a folder with sightline and rtsp-camera")
    parser.add_argument("--examples", type=pathlib.Path, help="a folder with scripted-server (BIN/examples)")
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--model", default="nano", help="of the first camera; the other feeds have the fake engines")
    parser.add_argument("--only", default="", help="faults whose names begin so, separated by commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path)
    return parser.parse_args()


def settings(folder, world):
    """The settings file; strings as JSON are TOML too."""
    feeds = {
        "cam-tcp": {"input": world.tcp.address, "transport": "tcp", "model": world.model, "prompts": "box=120,80,200,160"},
        "cam-udp": {"input": world.udp.address, "transport": "udp", "prompts": "box=120,80,200,160"},
        "ball": {"input": "test", "prompts": "point=320,180", "jsonl": str(world.steady.path)},
        "pipe": {"input": "test", "prompts": "point=320,180", "jsonl": str(world.slow.path)},
        "disk": {"input": "test", "prompts": "point=320,180", "jsonl": str(world.disk / "disk.jsonl")},
        "asks": {"input": "test", "prompts": "point=320,180", "queries": "describe;every=2"},
    }
    text = '[model]\nname = "fake"\nthreads = 1\n'
    text += "[catchup]\nmemory = \"16MiB\"\n"
    text += f'[llm]\nurl = "http://127.0.0.1:{world.answers.port}/v1"\nmodel = "scripted"\nretries = 0\n'
    text += "connect_timeout_s = 1.0\nfirst_token_timeout_s = 2.0\ntotal_timeout_s = 4.0\n"
    text += f'[serve]\nlisten = "{world.listen}"\nstatus_every_s = 0\nsilence_s = 1.0\nretry_cap_s = 1.0\n'
    for name, feed in feeds.items():
        text += f"[feeds.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in feed.items())
    path = folder / "serve.toml"
    path.write_text(text)
    return path, list(feeds)


class World:
    """Everything a fault may reach."""

    def __init__(self, args, folder, stack):
        examples = args.examples or args.bin / "examples"
        self.model, self.listen = args.model, f"127.0.0.1:{free_port()}"
        self.tcp, self.udp = Camera(args.bin / "rtsp-camera", 12), Camera(args.bin / "rtsp-camera", 15)
        for camera in (self.tcp, self.udp):
            stack.callback(camera.kill)
        self.answers = Answers(examples / "scripted-server", folder)
        stack.callback(self.answers.kill)
        self.steady, self.slow = Reader(folder / "ball.pipe", True), Reader(folder / "slow.pipe", False)
        self.disk, self.disk_fills = self.tiny_disk(folder, stack)
        config, self.feeds = settings(folder, self)
        self.serve = Serve(args.bin / "sightline", config, self.listen, args.out / "serve.log")
        stack.callback(self.serve.process.kill)

    @staticmethod
    def tiny_disk(folder, stack):
        """A file system of a megabyte, if we may mount one; else `/dev/full`, which never recovers."""
        disk = folder / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk]
        if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0:
            stack.callback(subprocess.run, ["umount", "-l", disk])
            return disk, True
        (disk / "disk.jsonl").symlink_to("/dev/full")
        return disk, False


class Sampler(threading.Thread):
    """Rows of numbers, every two seconds, for as long as the process lives."""

    def __init__(self, world):
        super().__init__(name="sampler", daemon=True)
        self.world, self.rows, self.begun, self.quiet, self.over = world, [], time.monotonic(), False, False
        self.start()

    def run(self):
        while not self.over:
            self.rows.append(self.sample())
            time.sleep(SAMPLE_S)

    def sample(self):
        metrics, resources = self.world.serve.metrics(), self.world.serve.resources()
        rss, threads, fds = resources or (0, 0, 0)
        row = {"t_s": round(time.monotonic() - self.begun, 2), "quiet": int(self.quiet)}
        row |= {"rss_kib": rss, "threads": threads, "fds": fds}
        for feed in self.world.feeds:
            row[f"{feed}_in"] = total(metrics, "sightline_camera_frames_total", feed=feed)
            row[f"{feed}_accounted"] = total(metrics, "sightline_frames_total", feed=feed)
            row[f"{feed}_skipped"] = total(metrics, "sightline_frames_total", feed=feed, outcome="skipped")
            row[f"{feed}_door_drops"] = total(metrics, "sightline_camera_door_drops_total", feed=feed)
            row[f"{feed}_losses"] = total(metrics, "sightline_camera_losses_total", feed=feed)
            row[f"{feed}_restarts"] = total(metrics, "sightline_feed_restarts_total", feed=feed)
            row[f"{feed}_lines"] = total(metrics, "sightline_output_lines_total", feed=feed)
            row[f"{feed}_lines_dropped"] = total(metrics, "sightline_output_dropped_total", feed=feed)
        # A scrape that failed is no sample.
        row["scraped"] = int(bool(metrics))
        return row


def wait_until(done, seconds):
    """Seconds until it was true; `None` when it never was."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if done():
            return time.monotonic() - begun
        time.sleep(0.05)
    return None


def ready(world):
    def missing():
        metrics = world.serve.metrics()
        return [feed for feed in world.feeds if total(metrics, "sightline_frames_total", feed=feed) <= 5]

    wait_until(lambda: not missing() or not world.serve.alive(), 60)
    if not world.serve.alive() or (late := missing()):
        what = f"none of {late}" if world.serve.alive() else f"exit code {world.serve.process.poll()}"
        raise SystemExit(f"serve: expected frames of every feed within 60 s, got {what}; see {world.serve.log.name}")


def one(fault, world, sampler, number):
    """Breaks it, heals it, waits until it works again."""
    sampler.quiet = False
    before = world.serve.metrics()
    began, others = time.monotonic() - sampler.begun, [feed for feed in world.feeds if feed not in fault.feeds]
    undo = fault.breaks(world)
    time.sleep(fault.seconds)
    during = world.serve.metrics()
    undo()
    healed = time.monotonic()
    works = fault.works(world)
    took = wait_until(lambda: works() or not world.serve.alive(), RECOVERY_S)
    delta = {
        feed: total(during, "sightline_frames_total", feed=feed) - total(before, "sightline_frames_total", feed=feed)
        for feed in others
    }
    found = {
        "round": number, "fault": fault.name, "t_s": round(began, 1), "seconds": fault.seconds,
        "recovered_s": None if took is None else round(took, 2),
        "others_stood_still": [feed for feed, frames in delta.items() if frames <= 0] if fault.others_go_on else [],
    }
    print(f"  {found['t_s']:7.1f} s  {fault.name:22} back after {found['recovered_s']} s", flush=True)
    time.sleep(max(0.0, CALM_S - (time.monotonic() - healed)))
    return found


def quiesce(world, sampler):
    """Both cameras go for good; what they sent must then be accounted for to the frame."""
    for camera in (world.tcp, world.udp):
        camera.kill()
        camera.kill = lambda: None
    time.sleep(4.0)
    return sampler.sample()


def soak(args, folder, stack):
    world = World(args, folder, stack)
    ready(world)
    sampler = Sampler(world)
    rng, events, number = random.Random(args.seed), [], 0
    end = time.monotonic() + 60 * args.minutes
    kinds = [kind for kind in faults.ALL if any(kind.name.startswith(name) for name in args.only.split(","))]
    if not world.disk_fills:
        kinds = [kind for kind in kinds if kind.name != "disk-full"]
    while world.serve.alive() and time.monotonic() < end:
        print(f"round {number}", flush=True)
        for fault in rng.sample(kinds, len(kinds)):
            if not world.serve.alive() or time.monotonic() > end:
                break
            events.append(one(fault, world, sampler, number))
        time.sleep(SAMPLE_S)
        sampler.quiet = world.serve.alive()
        time.sleep(3 * SAMPLE_S)
        number += 1
    alive, ended, sampler.quiet = world.serve.alive(), time.monotonic() - sampler.begun, True
    last = quiesce(world, sampler) if alive else next((row for row in reversed(sampler.rows) if row["scraped"]), sampler.rows[0])
    sampler.over = True
    stopped = world.serve.stop()
    return report.Result(sampler.rows, events, last, alive, ended, stopped, world)


def main():
    args = parse()
    args.out = args.out or pathlib.Path("out/soak")
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SIGHTLINE_LOG", "info")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, contextlib.ExitStack() as stack:
        result = soak(args, pathlib.Path(folder), stack)
    holds = report.write(args, result)
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()

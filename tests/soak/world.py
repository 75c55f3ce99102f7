"""The processes of a soak: the one that is tested, and those that may die under it."""
import ctypes
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request

SAMPLE = re.compile(r'^(\w+)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def die_with_parent():
    """A soak that is killed leaves no process behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def spawn(command, **options):
    return subprocess.Popen([str(part) for part in command], preexec_fn=die_with_parent, **options)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Camera:
    """A real RTSP server. Comes back on the port it had."""

    def __init__(self, program, fps, size=(320, 240)):
        self.program, self.fps, self.size, self.port = program, fps, size, free_port()
        self.process = None
        self.start()

    def start(self, fps=None, size=None):
        width, height = size or self.size
        command = [self.program, "--port", self.port, "--width", width, "--height", height, "--fps", fps or self.fps]
        self.process = spawn(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.process.stdout.readline()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    @property
    def address(self):
        return f"rtsp://127.0.0.1:{self.port}/stream"


class Answers:
    """The scripted chat-completions server."""

    def __init__(self, program, folder):
        self.program, self.port, self.process = program, free_port(), None
        self.file = folder / "answers.json"
        answer = {"text": "a ball", "verdict": None, "objects": [], "spans": []}
        self.file.write_text(json.dumps({"*": answer}))
        self.start()

    def start(self, fault="none"):
        command = [self.program, "--address", f"127.0.0.1:{self.port}", "--answers", self.file, "--fault", fault]
        self.process = spawn(command + ["--quiet", "true"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.process.stdout.readline()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def restart(self, fault="none"):
        self.kill()
        self.start(fault)


class Reader(threading.Thread):
    """Reads a pipe of JSON lines at a pace, and checks that every frame is there once: `wrong` says what was not."""

    def __init__(self, path, check):
        super().__init__(name=f"read {path.name}", daemon=True)
        os.mkfifo(path)
        self.path, self.check, self.pace = path, check, "fast"
        self.lines, self.frames, self.wrong = 0, 0, []
        self.newest, self.missing = None, set()
        self.start()

    def run(self):
        while True:
            if self.pace == "away":
                time.sleep(0.05)
                continue
            with open(self.path, "rb", buffering=0) as pipe:
                rest = b""
                while self.pace != "away":
                    data = pipe.read(200 if self.pace == "slow" else 65536)
                    if not data:
                        break
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self.take(line)
                    if self.pace == "slow":
                        time.sleep(0.5)

    def take(self, line):
        self.lines += 1
        try:
            frame = json.loads(line).get("frame") if line else None
        except ValueError:
            self.say(f"not JSON: {line[:80]!r}")
            return
        if frame is None:
            return
        self.frames += 1
        if not self.check:
            return
        # Outcomes are told when they are known, so a frame that was passed over may come behind a later one.
        if self.newest is None:
            self.newest = frame
        elif frame > self.newest:
            self.missing.update(range(self.newest + 1, frame))
            self.newest = frame
        elif frame in self.missing:
            self.missing.remove(frame)
        else:
            self.say(f"frame {frame} came twice")
        late = [index for index in self.missing if index < self.newest - 200]
        if late:
            self.say(f"frames {sorted(late)[:5]} never came")
            self.missing.difference_update(late)

    def say(self, what):
        if len(self.wrong) < 20:
            self.wrong.append(what)


class Serve:
    """`sightline serve`, what it exports, and what the kernel says of it."""

    def __init__(self, program, config, listen, log):
        self.listen = listen
        self.log = open(log, "wb")
        self.out = open(log.with_name("table.txt"), "wb")
        self.process = spawn([program, "serve", "--config", config], stdout=self.out, stderr=self.log)
        self.pid = self.process.pid

    def alive(self):
        return self.process.poll() is None

    def get(self, path, timeout=2.0):
        with urllib.request.urlopen(f"http://{self.listen}{path}", timeout=timeout) as answer:
            return answer.read().decode()

    def metrics(self):
        """`{name: {labels: value}}` with the labels as a sorted tuple of pairs; empty when it does not answer."""
        try:
            text = self.get("/metrics")
        except OSError:
            return {}
        found = {}
        for line in text.splitlines():
            if (match := SAMPLE.match(line)) and not line.startswith("#"):
                labels = tuple(sorted(LABEL.findall(match[2] or "")))
                found.setdefault(match[1], {})[labels] = float(match[3])
        return found

    def resources(self):
        """Resident KiB, threads, file descriptors; `None` when it is gone."""
        folder = pathlib.Path(f"/proc/{self.pid}")
        try:
            status = (folder / "status").read_text()
            rss = int(re.search(r"VmRSS:\s+(\d+)", status)[1])
            return rss, len(os.listdir(folder / "task")), len(os.listdir(folder / "fd"))
        except (OSError, TypeError):
            return None

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """Seconds it took to stop, and its exit code."""
        begun = time.monotonic()
        self.signal(signal.SIGTERM)
        try:
            code = self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = "killed after 15 s"
        return time.monotonic() - begun, code


def total(metrics, name, **labels):
    """Sum over the series that carry these labels."""
    wanted = set(labels.items())
    return sum(value for series, value in metrics.get(name, {}).items() if wanted <= set(series))

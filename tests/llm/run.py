#!/usr/bin/env python3
"""Our client against a real server program: `transformers serve` with a tiny model of random weights.

    python3 tests/llm/run.py [--keep FOLDER]

Exit status 0 when every check holds. README.md says what each proves. Needs no GPU and, once its packages are there, no
network.
"""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VENV = ROOT / ".cache" / "llm-venv"
LONG = 6000  # tokens: many seconds of work that a cancelled request must not take


def packages() -> None:
    """Goes on in an environment that has the pinned packages, making it first if need be."""
    wanted = [line.split("==") for line in (HERE / "requirements.txt").read_text().split() if "==" in line]
    try:
        from importlib.metadata import version
        if all(version(name) == number for name, number in wanted):
            return
    except ImportError:
        pass
    python = VENV / "bin" / "python"
    if Path(sys.prefix) == VENV:
        sys.exit(f"packages: expected those of {HERE / 'requirements.txt'} in {VENV}, got others; remove it")
    if not python.exists():
        print(f"installing packages into {VENV}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True)
    os.execv(python, [python, __file__, *sys.argv[1:]])


class Server:
    """`transformers serve` on a free port of the loopback."""

    def __init__(self, model: Path, log: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log = log
        command = [Path(sys.executable).parent / "transformers", "serve", model, "--host", "127.0.0.1", "--port", port,
                   "--device", "cpu"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([str(part) for part in command], env=environment, stdout=log.open("w"),
                                        stderr=subprocess.STDOUT)
        self.url = f"http://127.0.0.1:{port}/v1"
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health").read()
                return
            except OSError:
                time.sleep(0.2)
        self.stop()
        sys.exit(f"server: expected it to be ready within 120 s, got\n{log.read_text()[-2000:]}")

    def cpu_s(self) -> float:
        """Processor time it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait()


class Client:
    """`examples/ask`: the crate's public API, nothing else."""

    def __init__(self, binary: Path, url: str, model: str):
        self.start = [binary, "--url", url, "--model", model, "--protocol", "plain", "--first-token-timeout-s", "120"]

    def open(self, *arguments: object) -> subprocess.Popen:
        command = [str(part) for part in [*self.start, *arguments]]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ask(self, *arguments: object) -> tuple[list[str], dict, dict]:
        """The texts as they came, the end, the counts."""
        return self.read(self.open(*arguments))

    @staticmethod
    def read(running: subprocess.Popen) -> tuple[list[str], dict, dict]:
        out, err = running.communicate(timeout=300)
        lines = [json.loads(line) for line in out.splitlines()]
        if not lines or "counts" not in lines[-1]:
            sys.exit(f"client: expected an end and counts, got {out!r} {err!r}")
        texts = [line["text"] for line in lines[:-2]]
        return texts, lines[-2], lines[-1]["counts"]


FAILED = []


def check(name: str, holds: bool, seen: object) -> None:
    print(f"{'ok  ' if holds else 'FAIL'} {name}: {seen}", flush=True)
    if not holds:
        FAILED.append(name)


def picture(path: Path, width: int, height: int) -> Path:
    from PIL import Image

    image = Image.radial_gradient("L").resize((width, height)).convert("RGB")
    image.save(path)
    return path


def patches(width: int, height: int) -> int:
    """Tokens of a picture whose sides are multiples of 28 pixels."""
    return width // 28 * (height // 28)


def checks(server: Server, client: Client, folder: Path) -> None:
    small = picture(folder / "small.png", 280, 196)
    large = picture(folder / "large.jpg", 420, 308)
    words = ["--ask", "What is this?"]

    client.ask("--image", small, *words, "--max-tokens", 2)  # the first request of a model is slow
    texts, end, counts = client.ask("--image", small, *words, "--max-tokens", 40)
    grows = all(later.startswith(earlier) and later != earlier for earlier, later in zip(texts, texts[1:]))
    check("tokens are streamed", len(texts) >= 5 and grows and texts[-1] == end["caption"]["text"],
          f"{len(texts)} pieces, {end['caption']['text'][:24]!r}..")
    first, total = end["answer"]["first_token_ms"], end["answer"]["total_ms"]
    check("the first comes before the last", first < total, f"{first} ms, {total} ms")
    check("the server's keys are known to it", end["answer"]["attempts"] == 1 and counts["retries"] == 0, counts)

    _, short, _ = client.ask("--image", small, *words, "--max-tokens", 7)
    answer = short["answer"]
    check("max_tokens is kept to", answer["completion_tokens"] == 7 and answer["cut_off"] is True, answer)

    _, big, _ = client.ask("--image", large, *words, "--max-tokens", 2)
    more = big["answer"]["prompt_tokens"] - short["answer"]["prompt_tokens"]
    check("a picture is seen at the size it is sent", more == patches(420, 308) - patches(280, 196),
          f"{more} tokens more")
    _, scaled, _ = client.ask("--image", large, *words, "--max-tokens", 2, "--longest-px", 210)
    check("and scaled as told", scaled["answer"]["prompt_tokens"] < short["answer"]["prompt_tokens"],
          scaled["answer"]["prompt_tokens"])

    _, one, _ = client.ask("--image", small, "--watch", "x", "--max-tokens", 2)
    _, three, _ = client.ask(*["--image", small] * 3, "--watch", "x", "--max-tokens", 2)
    told = len(" There are 3 pictures, oldest first, numbered from 0.")  # a token a byte
    more = three["answer"]["prompt_tokens"] - one["answer"]["prompt_tokens"]
    # Each picture stands between two tokens of its own.
    check("three pictures are three", more == 2 * (patches(280, 196) + 2) + told, f"{more} tokens more")

    sent = folder / "sent"
    _, object_, _ = client.ask(*["--image", large] * 3, "--object", "40,40,200,200", "--object", "250,60,400,280",
                               "--ask", "What is object 1 doing?", "--max-tokens", 8, "--save", sent)
    saved = len(list(sent.iterdir()))
    check("objects go along with close-ups", object_["state"] == "answered" and saved == 5, f"{saved} pictures")

    _, json_, counts = client.ask("--image", small, "--find", "the dog", "--protocol", "json", "--max-tokens", 30)
    check("an answer that is no JSON is words and a problem",
          json_["state"] == "answered" and not json_["objects"] and "syntax" in json_["problems"][0], json_["problems"])

    cancellation(server, client, small, end["answer"])

    _, refused, counts = Client(client.start[0], server.url, "another").ask("--image", small, *words)
    check("an unknown model is refused, in the server's words",
          refused.get("kind") == "refused" and "400" in refused["error"] and "pinned" in refused["error"]
          and counts["failed"] == {"refused": 1} and counts["retries"] == 0, refused)

    running = client.open("--image", small, *words, "--max-tokens", LONG, "--retries", 0)
    running.stdout.readline()
    server.stop()
    _, died, _ = client.read(running)
    check("a server that dies is told", died.get("kind") == "disconnected", died)
    _, gone, counts = client.ask("--image", small, *words, "--retries", 1)
    check("and one that is gone, after a retry", gone.get("kind") == "connect" and counts["retries"] == 1, gone)


def cancellation(server: Server, client: Client, image: Path, pace: dict) -> None:
    """One thread of the server generates, one request after the other: a request waits for those before it."""
    words = ["--image", image, "--ask", "What is this?", "--max-tokens"]
    per_token_s = (pace["total_ms"] - pace["first_token_ms"]) / 1000 / (pace["completion_tokens"] - 1)
    # The other way round first: an uncancelled one of a twentieth of the length does hold the next one up.
    held = LONG // 20
    running = client.open(*words, held)
    running.stdout.readline()
    _, behind, _ = client.ask(*words, 2)
    client.read(running)
    control_s = behind["answer"]["total_ms"] / 1000
    check("a request waits for the one before it", control_s > 0.3 * held * per_token_s, f"{control_s:.2f} s")

    _, cancelled, counts = client.ask(*words, LONG, "--cancel-after", 20)
    _, next_, _ = client.ask(*words, 2)
    before, began = server.cpu_s(), time.monotonic()
    time.sleep(1.5)
    busy = (server.cpu_s() - before) / (time.monotonic() - began)
    spared_s, waited_s = LONG * per_token_s, next_["answer"]["total_ms"] / 1000
    check("a cancelled request ends as one", cancelled["state"] == "cancelled" and counts["cancelled"] == 1, counts)
    check("cancelling ends the server's work: the next need not wait", waited_s < 0.1 * spared_s,
          f"{waited_s:.2f} s, of {spared_s:.1f} s it would take")
    check("and the server rests", busy < 0.2, f"{100 * busy:.0f} % of a core")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path, help="folder for model, log and the pictures sent")
    parser.add_argument("--ask", type=Path, help="examples/ask, built already")
    options = parser.parse_args()
    packages()
    binary = options.ask
    if binary is None:
        build = ["cargo", "build", "-q", "-p", "sightline-grounding", "--example", "ask", "--message-format", "json"]
        out = subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        binary = Path(re.findall(r'"executable":"([^"]+/ask)"', out)[-1])
    sys.path.insert(0, str(HERE))
    from tiny_model import build as build_model

    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        model = folder / "tiny"
        build_model(model)
        server = Server(model, folder / "server.log")
        try:
            checks(server, Client(binary, server.url, str(model)), folder)
        finally:
            server.stop()
    print("every check holds" if not FAILED else f"{len(FAILED)} checks do not hold: {', '.join(FAILED)}")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())

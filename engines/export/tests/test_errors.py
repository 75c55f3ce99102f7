"""Every wrong flag or checkpoint is one line and exit 2: `python -m unittest discover engines/export/tests`."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "tests" / "golden" / "sam2-tiny" / "config.yaml"
sys.path.insert(0, str(ROOT / "engines" / "export"))

from sightline_export import ExportError, checkpoint, families  # noqa: E402


def run(*flags: str) -> subprocess.CompletedProcess:
    """The command line with good flags that `flags` override."""
    good = {"--family": "sam2.1", "--config": str(CONFIG), "--checkpoint": "random:1",
            "--image-size": "128", "--out": tempfile.mkdtemp()}
    good.update(zip(flags[::2], flags[1::2], strict=True))
    given = (x for pair in good.items() if pair[1] is not None for x in pair)
    command = [sys.executable, "-m", "sightline_export", *given]
    return subprocess.run(command, cwd=ROOT / "engines" / "export", capture_output=True, text=True)


class CommandLine(unittest.TestCase):
    CASES = {
        "family": (("--family", "sam9"), "family: expected sam2.1|sam2.0|edgetam, got 'sam9'"),
        "size": (("--image-size", "100"), "image size: expected a multiple of 32 from 64 up, got 100"),
        "size text": (("--image-size", "big"), "invalid int value"),
        "max cond": (("--max-cond", "9"), "max cond: expected 1..8, got 9"),
        "config": (("--config", "huge"), "config: expected tiny|small|base+|large or a yaml file"),
        "no config": (("--config", None), "config: expected tiny|small|base+|large or a file, got none"),
        "edgetam size": (("--family", "edgetam", "--config", None, "--image-size", "128"),
                         "expected a multiple of 256"),
        "no file": (("--checkpoint", "missing.pt"), "checkpoint: no such file: missing.pt"),
        "seed": (("--checkpoint", "random:x"), "expected random:SEED with a number"),
        "precision": (("--precision", "fp8"), "argument --precision: invalid choice: 'fp8'"),
        "calibration": (("--int8-encoder", "missing.mp4"), "int8 encoder: no such file or folder: missing.mp4"),
        "unknown flag": (("--colour", "red"), "unrecognized arguments"),
        "not a checkpoint": (("--checkpoint", __file__), "not a weights-only torch file"),
        "not a config": (("--config", __file__), "config test_errors.py"),
    }

    def test_one_line(self):
        for name, (flags, expected) in self.CASES.items():
            with self.subTest(name):
                done = run(*flags)
                self.assertEqual(done.returncode, 2)
                self.assertIn(expected, done.stderr)
                self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)


class Checkpoint(unittest.TestCase):
    def setUp(self):
        family = families.find("sam2.1")
        self.model = family.build(family.read_config(CONFIG, 128))
        self.own = family.official(self.model)
        self.state = dict(self.own)

    def refused(self, expected: str):
        with self.assertRaisesRegex(ExportError, expected):
            checkpoint.fit(self.own, self.state, "x.pt", "sam2.1")

    def test_fits(self):
        checkpoint.fit(self.own, self.state, "x.pt", "sam2.1")

    def test_missing(self):
        del self.state["no_obj_ptr"]
        self.refused("missing no_obj_ptr")

    def test_unexpected(self):
        self.state["extra.weight"] = torch.zeros(1)
        self.refused("unexpected extra.weight")

    def test_shape(self):
        self.state["no_obj_ptr"] = torch.zeros(1, 3)
        self.refused(r"mis-shaped no_obj_ptr: expected \[1, 16\], got \[1, 3\]")


if __name__ == "__main__":
    unittest.main()

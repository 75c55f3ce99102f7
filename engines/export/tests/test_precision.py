"""The int8 encoder, and the parity set that every export writes."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "engines" / "export"), str(ROOT / "tests" / "parity")]

import loop  # noqa: E402
from sightline_export import ExportError, clip, onnx_file, precision, verify  # noqa: E402
from sightline_export.__main__ import export  # noqa: E402
from sightline_export.graph import Graph  # noqa: E402

SIZE = 64
CONFIG = ROOT / "tests" / "golden" / "sam2-tiny" / "config.yaml"


class Net(torch.nn.Module):
    """A convolution, a normalisation, an attention over pixels, and a head that must stay wide."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 8, stride=8)
        self.norm = torch.nn.LayerNorm(16)
        self.key = torch.nn.Linear(16, 16)
        self.pred_obj_score_head = torch.nn.Linear(16, 1)

    def forward(self, image):
        x = self.norm(self.conv(image).flatten(2).transpose(1, 2))
        y = torch.softmax(x @ self.key(x).transpose(1, 2), dim=-1) @ x
        return y, self.pred_obj_score_head(y.mean(dim=1))


def written(folder: Path) -> Graph:
    torch.manual_seed(1)
    net = Net().eval()
    image = torch.randn(1, 3, SIZE, SIZE)
    graph = Graph("net", net, {"image": image}, ["feat", "score"],
                  lambda given: dict(zip(("feat", "score"), net(given["image"]), strict=True)), [{"image": image}])
    onnx_file.write(graph, folder / "net.onnx")
    return graph


class Precision(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.folder = Path(self.scratch.name)

    def boundary_is_f32(self, model: onnx.ModelProto):
        for value in [*model.graph.input, *model.graph.output]:
            self.assertEqual(value.type.tensor_type.elem_type, TensorProto.FLOAT, value.name)

    def test_int8(self):
        graph = written(self.folder)
        for index in range(4):
            picture = clip.frames(4, 96, 80)[index]
            Image.fromarray(picture).save(self.folder / f"{index}.png")
        images = precision.calibration([self.folder], SIZE)
        self.assertEqual([image.shape for image in images], [(1, 3, SIZE, SIZE)] * 4)
        model = precision.to_int8(self.folder / "net.onnx", images)
        self.boundary_is_f32(model)
        per_channel = [value for value in model.graph.initializer
                       if value.name.endswith("_scale") and list(value.dims) == [16]]
        self.assertTrue(per_channel, "expected one scale a channel")
        graph.samples = [{"image": torch.from_numpy(image)} for image in images]
        self.assertLess(max(verify.check(graph, self.folder / "net.onnx", tolerance=None).values()), 0.5)

    def test_calibration_clips(self):
        for source, expected in ((self.folder, "expected png or jpg pictures, got none"),
                                 (self.folder / "no.mp4", "no such file or folder")):
            with self.assertRaisesRegex(ExportError, expected):
                precision.calibration([source], SIZE)


class ParitySet(unittest.TestCase):
    """The set is in the forms the runtime reads, and the exported graphs reproduce it."""

    def test_replayed(self):
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "model"
            export("sam2.1", str(CONFIG), "random:4", 128, 1, out, say=lambda _: None)
            kept = out / "parity"
            want = dict(np.load(kept / "logits.npz"))
            prompts = json.loads((kept / "prompts.json").read_text())
            self.assertEqual([sorted(set(p) - {"frame", "object"}) for p in prompts], [["box"], ["labels", "points"]])
            self.assertEqual(len(list((kept / "frames").glob("*.png"))), 12)
            self.assertEqual(len(want), 24)
            self.assertEqual(want["score_11_1"].shape, (1,))
            got = loop.trace_files(out, kept / "frames", kept / "prompts.json")
            far = max(float(np.abs(got[name] - want[name]).max()) for name in want)
            self.assertLess(far, 1e-3)
            self.assertEqual({value.dtype for value in want.values()}, {np.dtype("float32")})


if __name__ == "__main__":
    unittest.main()

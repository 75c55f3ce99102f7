"""Graphs with f16 or bf16 inside: what stays wide, and how far their numbers are from those in f32."""

import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "engines" / "export"))

from sightline_export import ExportError, families, narrow, onnx_file, verify, weights  # noqa: E402
from sightline_export.graph import Graph  # noqa: E402

# Root mean square of the difference over that of the tensor, or over 1 for what is near zero. Measured on drawn
# weights: at most 2e-3 and 4e-2, in the decoders; feature levels and memories are at 7e-4 and 1e-2.
TOLERANCE = {"fp16": 1e-2, "bf16": 1e-1}
# Added to object scores, so that there is a mask to compare.
PRESENT = 10.0
LEAST = 1e-5
MODELS = {"sam2.1": (str(ROOT / "tests" / "golden" / "sam2-tiny" / "config.yaml"), 128), "edgetam": (None, 256)}


class Net(torch.nn.Module):
    """A convolution, normalisations (one written out), attention over pixels, an age, and a head."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 8, stride=8)
        self.norm = torch.nn.LayerNorm(16)
        self.key = torch.nn.Linear(16, 16)
        self.up = torch.nn.ConvTranspose2d(16, 16, 2, stride=2)
        self.pred_obj_score_head = torch.nn.Linear(16, 1)

    def forward(self, image, ptr_tdiff):
        x = self.conv(image)
        x = x - x.mean(1, keepdim=True)
        x = x / torch.sqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)
        up = self.up(x)
        # Without a mean to take away, and large enough for its square to leave f16.
        x = self.conv(image * 300)
        x = x / torch.sqrt(x.square().mean(1, keepdim=True) + 1e-6) * 1.5
        x = self.norm(x.flatten(2).transpose(1, 2))
        x = torch.softmax(x @ self.key(x).transpose(1, 2), dim=-1) @ x
        x = x + torch.sin(ptr_tdiff / 15)[..., None]
        return up, x, self.pred_obj_score_head(x.mean(dim=1)).sigmoid() * 3


def written(folder: Path) -> Graph:
    """The net's graph and its file, an age that f16 cannot hold among its inputs."""
    torch.manual_seed(1)
    net, outputs = Net().eval(), ["up", "feat", "score"]
    given = {"image": torch.randn(1, 3, 64, 64), "ptr_tdiff": torch.tensor([[70001.0]])}
    graph = Graph("net", net, given, outputs,
                  lambda given: dict(zip(outputs, net(*given.values()), strict=True)), [given])
    onnx_file.write(graph, folder / "net.onnx")
    return graph


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {value.name: value.type.tensor_type.elem_type
             for value in [*graph.input, *graph.output, *graph.value_info]}
    return known | {value.name: value.data_type for value in graph.initializer}


class Narrow(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.set_num_threads(1)

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def test_what_stays_wide(self):
        graph = written(self.folder)
        for precision, width in narrow.WIDTHS.items():
            path = self.folder / f"{precision}.onnx"
            model = narrow.to_narrow(self.folder / "net.onnx", path, precision)
            self.assertEqual(model.opset_import[0].version, narrow.OPSETS[precision])
            kinds = types(model)
            for value in [*model.graph.input, *model.graph.output]:
                self.assertEqual(kinds[value.name], TensorProto.FLOAT, value.name)

            def computed_in(operator, name=""):
                found = [node for node in model.graph.node if node.op_type == operator and name in node.name]
                self.assertTrue(found, f"{operator} {name}")
                return {kinds[one] for node in found for one in node.input if kinds.get(one) != TensorProto.INT64}

            self.assertEqual(computed_in("Conv"), {width})
            up = width if precision == "fp16" else TensorProto.FLOAT
            self.assertEqual(computed_in("ConvTranspose"), {up})
            for operator in ("Softmax", "LayerNormalization", "Sqrt", "Pow", "Sub", "Sin", "Div"):
                self.assertEqual(computed_in(operator), {TensorProto.FLOAT}, operator)
            for operator in ("Sigmoid", "Gemm"):
                self.assertEqual(computed_in(operator), {TensorProto.FLOAT}, operator)
            self.assertIn(width, computed_in("MatMul"))
            worst = verify.check(graph, path, tolerance=None)
            self.assertLess(max(worst.values()), 2e-2 if precision == "fp16" else 1.5e-1)
            self.assertGreater(worst["up"], 1e-4)

    def test_refusals(self):
        written(self.folder)
        narrow.to_narrow(self.folder / "net.onnx", self.folder / "half.onnx", "fp16")
        for name, precision, expected in (("half.onnx", "bf16", "expected f32 inside, got f16"),
                                          ("net.onnx", "fp8", "expected fp16 or bf16, got 'fp8'")):
            with self.assertRaisesRegex(ExportError, expected):
                narrow.to_narrow(self.folder / name, self.folder / "out.onnx", precision)
        self.assertFalse((self.folder / "out.onnx").exists())
        self.assertEqual(narrow.main(["--precision", "fp16", str(self.folder / "none"), "out"]), 2)

    def test_every_graph_of_every_family(self):
        for name, (config, size) in MODELS.items():
            family = families.find(name)
            model = family.build(family.read_config(family.config_path(config), size))
            with torch.no_grad():
                family.restore(model, weights.draw(family.official(model), 3))
                family.score_layer(model).bias += PRESENT
            for graph in family.graphs(model, 1):
                exact = self.folder / f"{graph.name}.onnx"
                onnx_file.write(graph, exact)
                for precision in narrow.WIDTHS:
                    path = self.folder / f"{graph.name}-{precision}.onnx"
                    narrow.to_narrow(exact, path, precision)
                    for output, far in self.distance(graph, exact, path).items():
                        with self.subTest(model=name, graph=graph.name, precision=precision, output=output):
                            self.assertLess(far, TOLERANCE[precision])
                    # Half the weights, but for those of the heads.
                    self.assertLess(path.stat().st_size, max(0.8 * exact.stat().st_size, 200_000))

    def distance(self, graph: Graph, exact: Path, path: Path) -> dict[str, float]:
        """Of every output of two files, the worst over the samples."""
        one, other = verify.session(exact), verify.session(path)
        worst = dict.fromkeys(graph.outputs, 0.0)
        for sample in graph.samples:
            given = {value.name: sample[value.name].numpy() for value in one.get_inputs()}
            for name, want, got in zip(graph.outputs, one.run(graph.outputs, given),
                                       other.run(graph.outputs, given), strict=True):
                far = np.sqrt(np.mean((got - want) ** 2)) / max(np.sqrt(np.mean(want ** 2)), 1.0)
                worst[name] = max(worst[name], float(far))
        self.assertGreater(max(worst.values()), LEAST, f"{graph.name} was not narrowed")
        return worst


if __name__ == "__main__":
    unittest.main()

"""Several objects in one run, and only the memory slots in use: the same numbers as one by one and as all slots."""

import json
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path

import numpy as np
import onnx
import torch

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "engines" / "export"))

from sightline_export import families, samples, verify  # noqa: E402
from sightline_export.__main__ import export  # noqa: E402
from sightline_export.checkpoint import load  # noqa: E402

SIZE, MAX_COND, TOLERANCE = 128, 2, 1e-4
# What another order of additions may leave of numbers of up to a dozen.
PICTURES_TOLERANCE = 1e-5
CONFIG = ROOT / "tests" / "golden" / "sam2-tiny" / "config.yaml"
OF_OBJECTS = ("memory_attention", "decoder_track", "memory_encoder")


def written(folder: Path, source: str, closed: bool) -> dict:
    """The graphs of an export's `model.toml`."""
    export("sam2.1", str(CONFIG), source, SIZE, MAX_COND, folder, name="sam2-tiny", say=lambda _: None,
           with_parity_set=False, closed=closed)
    return tomllib.loads((folder / "model.toml").read_text())["graphs"]


class OpenSizes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.scratch.cleanup)
        cls.folder = Path(cls.scratch.name)
        cls.open = written(cls.folder / "open", "random:5", closed=False)
        checkpoint = str(cls.folder / "open" / "checkpoint.pt")
        cls.closed = written(cls.folder / "closed", checkpoint, closed=True)
        family = families.find("sam2.1")
        model = family.build(family.read_config(CONFIG, SIZE))
        family.restore(model, load(Path(checkpoint)))
        cls.graphs = {graph.name: graph for graph in family.graphs(model, MAX_COND, closed=True)}

    def run_graph(self, kind: str, name: str, inputs: samples.Tensors) -> list[np.ndarray]:
        run = verify.session(self.folder / kind / f"{name}.onnx")
        taken = {value.name for value in run.get_inputs()}
        return run.run(self.graphs[name].outputs, {key: value.numpy() for key, value in inputs.items() if key in taken})

    def test_a_batch_is_one_by_one(self):
        for name in OF_OBJECTS:
            ones = (self.graphs[name].samples * 4)[:4]
            shared = {key: value for key, value in ones[0].items() if key.startswith("feat_")}
            alone = [self.run_graph("closed", name, one | shared) for one in ones]
            for count in (1, 2, 4):
                together = self.run_graph("open", name, samples.stack([one | shared for one in ones[:count]]))
                for index, output in enumerate(self.graphs[name].outputs):
                    with self.subTest(graph=name, objects=count, output=output):
                        want = np.concatenate([made[index] for made in alone[:count]])
                        self.assertEqual(together[index].shape, want.shape)
                        self.assertLessEqual(np.abs(together[index] - want).max(), TOLERANCE)

    def test_a_batch_of_several_pictures_is_one_by_one(self):
        for name in OF_OBJECTS:
            ones = (self.graphs[name].samples * 4)[:4]
            alone = [self.run_graph("closed", name, one) for one in ones]
            for count in (1, 2, 4):
                together = self.run_graph("open", name, samples.stack(ones[:count], own_pictures=True))
                for index, output in enumerate(self.graphs[name].outputs):
                    with self.subTest(graph=name, pictures=count, output=output):
                        want = np.concatenate([made[index] for made in alone[:count]])
                        self.assertLessEqual(np.abs(together[index] - want).max(), PICTURES_TOLERANCE)

    def test_pictures_of_a_batch_matter(self):
        for name in OF_OBJECTS:
            ones = self.graphs[name].samples[:2]
            own, shared = (self.run_graph("open", name, samples.stack(ones, own_pictures=own)) for own in (True, False))
            self.assertLessEqual(np.abs(own[0][0] - shared[0][0]).max(), TOLERANCE, name)
            self.assertGreater(np.abs(own[0][1] - shared[0][1]).max(), 10 * TOLERANCE, name)

    def test_objects_of_a_batch_differ(self):
        ones = self.graphs["memory_attention"].samples[:2]
        (made,) = self.run_graph("open", "memory_attention", samples.stack(ones))
        self.assertGreater(np.abs(made[0] - made[1]).max(), 100 * TOLERANCE)

    def test_unused_slots_may_be_left_out(self):
        name = "memory_attention"
        for one in self.graphs[name].samples:
            used, slots = int(one["mem_mask"].sum()), len(one["mem_mask"])
            (want,) = self.run_graph("closed", name, one)
            whole = {key: value[None] if key in samples.OF_SLOTS else value for key, value in one.items()}
            for inputs in (samples.stack([one]), whole):
                with self.subTest(used=used, given=inputs["mem"].shape[1], slots=slots):
                    (made,) = self.run_graph("open", name, inputs)
                    self.assertLessEqual(np.abs(made - want).max(), TOLERANCE)
        self.assertLess(min(int(one["mem_mask"].sum()) for one in self.graphs[name].samples), slots)

    def test_what_the_manifest_leaves_open(self):
        shapes = {port["name"]: port["shape"] for port in self.open["memory_attention"]["inputs"]}
        self.assertEqual(shapes["mem"][:2], [-1, -1])
        self.assertEqual([shapes[name] for name in ("tpos_idx", "mem_mask")], [[-1, -1]] * 2)
        self.assertEqual(shapes["ptr_mask"], [-1, MAX_COND + 15])
        for name, graph in self.open.items():
            for port in [*graph["inputs"], *graph["outputs"]]:
                self.assertEqual(port["shape"][0], -1 if name in OF_OBJECTS else 1, f"{name} {port['name']}")
        for name, graph in self.closed.items():
            for port in [*graph["inputs"], *graph["outputs"]]:
                if not port["name"].startswith("point_"):
                    self.assertNotIn(-1, port["shape"], f"{name} {port['name']}")

    def test_rearranged_is_as_published(self):
        for kind in ("open", "closed"):
            record = json.loads((self.folder / kind / "verify.json").read_text())["max_abs_diff"]
            for name, outputs in record.items():
                for output, difference in outputs.items():
                    self.assertLessEqual(difference, TOLERANCE, f"{kind} {name} {output}")

    def test_a_shape_with_one_open_size_is_a_constant(self):
        for name in OF_OBJECTS:
            graph = onnx.load(str(self.folder / "open" / f"{name}.onnx")).graph
            constants = {value.name for value in graph.initializer}
            made = [node.name for node in graph.node if node.op_type == "Reshape" and node.input[1] not in constants]
            self.assertLessEqual(len(made), 8 if name == "memory_attention" else 0, f"{name}: {made}")

    def test_inner_shapes_are_noted_in_terms_of_the_open_ones(self):
        model = onnx.load(str(self.folder / "open" / "memory_attention.onnx"))
        named = {dim.dim_param for value in model.graph.value_info for dim in value.type.tensor_type.shape.dim}
        tokens = (SIZE // 16) ** 2
        self.assertTrue(any("slots" in name and str(tokens) in name and "+" in name for name in named), sorted(named))


if __name__ == "__main__":
    torch.set_num_threads(1)
    unittest.main()

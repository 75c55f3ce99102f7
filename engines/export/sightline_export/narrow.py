"""Strongly typed graphs with f16 or bf16 inside: every tensor's width stands in the file, inputs and outputs stay f32.

TensorRT takes the widths as they are, so what must not lose digits is decided here and nowhere else:

* softmax, normalisation and sums (`WIDE_OPERATORS`, and the arithmetic between the steps of a normalisation);
* the heads and whatever is computed from them: scores, pointers, hypernetworks, the masks they multiply;
* what is computed from numbers rather than features (`NUMBERS`): pixel coordinates and ages in frames have more
  digits than a narrow float, and ages have no bound.

`python -m sightline_export.narrow --precision fp16 IN.onnx OUT.onnx` narrows one graph of full precision.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from . import OPSET, ExportError, onnx_file

WIDTHS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
SUFFIX = {TensorProto.FLOAT: "f32", TensorProto.FLOAT16: "f16", TensorProto.BFLOAT16: "bf16"}
# The first standard opset whose convolutions and poolings take bf16.
OPSETS = {"fp16": OPSET, "bf16": 22}

WIDE_OPERATORS = {"Softmax", "LayerNormalization", "ReduceMean", "ReduceSum", "Pow", "Sqrt", "Resize", "ArgMax",
                  "Equal", "Greater", "GreaterOrEqual", "LessOrEqual", "Sin", "Cos", "Range", "Cast"}
# TensorRT's builder has no such operator in bf16 (TensorRT-RTX 1.7.1 refuses it).
NOT_IN_BF16 = {"ConvTranspose"}
# A normalisation that was written out: its steps, and what may stand between and after them.
NORMAL_STEPS = {"ReduceMean", "Pow", "Sqrt"}
POINTWISE = {"Add", "Sub", "Mul", "Div", "Neg", "Erf"}
HEADS = re.compile(r"pred_obj_score_head|iou_prediction_head|obj_ptr_proj|object_pointer_proj|"
                   r"output_hypernetworks_mlps")
NUMBERS = {"point_coords", "point_labels", "has_mask_input", "mem_mask", "ptr_mask", "ptr_tdiff", "binarize",
           "object_score"}


def wide_nodes(nodes: list[onnx.NodeProto], floats: set[str], constants: set[str]) -> set[int]:
    """The indices of the nodes that compute in f32; `floats` names float tensors, `constants` initializers."""
    made_by = {name: index for index, node in enumerate(nodes) for name in node.output}
    readers: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        for name in node.input:
            readers.setdefault(name, []).append(index)
    wide, normal, fixed, numbers, heads = set(), set(), set(constants), set(NUMBERS), set()
    for index, node in enumerate(nodes):
        given = [name for name in node.input if name in floats and name not in fixed]
        if not given and any(name in floats for name in node.input):
            fixed.update(node.output)
        of_numbers = all(name in numbers for name in given) and not fixed.issuperset(node.output)
        of_heads = bool(HEADS.search(node.name)) or any(name in heads for name in given)
        if of_numbers:
            numbers.update(node.output)
        if of_heads:
            heads.update(node.output)
        if of_numbers or of_heads or node.op_type in WIDE_OPERATORS:
            wide.add(index)
        if node.op_type in NORMAL_STEPS and not of_numbers:
            normal.add(index)
    grown = True
    while grown:
        grown = False
        for index, node in enumerate(nodes):
            if index in normal or node.op_type not in POINTWISE:
                continue
            makers = [made_by.get(name) in normal for name in node.input if name in floats and name not in fixed]
            reads = [reader in normal for reader in readers.get(node.output[0], [])]
            divides = node.op_type == "Div" and made_by.get(node.input[1]) in normal
            # After a step, between two, only for one (a square), or the division by one.
            if makers and (all(makers) or any(makers) and any(reads) or reads and all(reads) or divides):
                normal.add(index)
                grown = True
    return wide | normal


class Narrow:
    """Rewrites a graph node by node, in order: each float tensor gets a name for each width it is read in."""

    def __init__(self, model: onnx.ModelProto, width: int):
        self.graph, self.width = onnx.shape_inference.infer_shapes(model).graph, width
        self.values = {value.name: value for value in self.graph.initializer}
        known = [*self.graph.input, *self.graph.output, *self.graph.value_info]
        self.floats = {value.name for value in known if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.floats |= {name for name, value in self.values.items() if value.data_type == TensorProto.FLOAT}
        # What a tensor is called in f32 and in the narrow width; at least one exists.
        self.names: dict[str, dict[int, str]] = {}
        for name in [value.name for value in self.graph.input] + list(self.values):
            self.names[name] = {TensorProto.FLOAT: name}
        self.nodes: list[onnx.NodeProto] = []
        self.made: list[onnx.TensorProto] = []

    def cast(self, source: str, target: str, width: int) -> None:
        """A node that gives `source` in another width."""
        self.nodes.append(helper.make_node("Cast", [source], [target], f"{target}_cast", to=width))

    def constant(self, name: str, narrow: str) -> onnx.TensorProto:
        """An initializer in the narrow width; what is too large for f16 becomes its largest number."""
        value = numpy_helper.to_array(self.values[name])
        kind = helper.tensor_dtype_to_np_dtype(self.width)
        if self.width == TensorProto.FLOAT16:
            limit = np.finfo(np.float16).max
            value = np.clip(value, -limit, limit)
        return numpy_helper.from_array(value.astype(kind), narrow)

    def read(self, name: str, width: int) -> str:
        """The name of `name` in `width`, cast or converted when first asked for."""
        if name not in self.floats:
            return name
        names = self.names[name]
        if width not in names:
            names[width] = f"{name}_{SUFFIX[width]}"
            if name in self.values:
                self.made.append(self.constant(name, names[width]))
            else:
                self.cast(next(iter(names.values())), names[width], width)
        return names[width]

    def rewrite(self) -> None:
        """Every node in the width it is meant to have; outputs of the graph in f32 under their names."""
        results = {value.name for value in self.graph.output}
        wide = wide_nodes(list(self.graph.node), self.floats, set(self.values))
        if self.width == TensorProto.BFLOAT16:
            wide |= {index for index, node in enumerate(self.graph.node) if node.op_type in NOT_IN_BF16}
        for index, node in enumerate(self.graph.node):
            width = TensorProto.FLOAT if index in wide else self.width
            for at, name in enumerate(node.input):
                node.input[at] = self.read(name, width)
            self.nodes.append(node)
            for at, name in enumerate(node.output):
                if name not in self.floats:
                    continue
                renamed = f"{name}_inner" if name in results and width != TensorProto.FLOAT else name
                node.output[at] = renamed
                self.names[name] = {width: renamed}
                if renamed != name:
                    self.cast(renamed, name, TensorProto.FLOAT)
                    self.names[name][TensorProto.FLOAT] = name
        read = {name for node in self.nodes for name in node.input}
        kept = [value for value in [*self.values.values(), *self.made] if value.name in read]
        for field, items in (("node", self.nodes), ("initializer", kept)):
            copies = [type(item).FromString(item.SerializeToString()) for item in items]
            self.graph.ClearField(field)
            getattr(self.graph, field).extend(copies)


def narrowed(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """`model`, all f32, with `precision` (fp16 or bf16) inside. Shapes of inner tensors are not noted any more."""
    if precision not in WIDTHS:
        raise ExportError(f"precision: expected {' or '.join(WIDTHS)}, got {precision!r}")
    inner = {value.data_type for value in model.graph.initializer} & set(WIDTHS.values())
    if inner:
        raise ExportError(f"graph {model.graph.name}: expected f32 inside, got {SUFFIX[inner.pop()]}")
    if OPSETS[precision] != model.opset_import[0].version:
        model = version_converter.convert_version(model, OPSETS[precision])
    rewritten = Narrow(model, WIDTHS[precision])
    rewritten.rewrite()
    out = onnx.ModelProto()
    out.CopyFrom(model)
    out.graph.CopyFrom(rewritten.graph)
    del out.graph.value_info[:]
    return out


def to_narrow(source: Path, target: Path, precision: str) -> onnx.ModelProto:
    """Writes the graph at `source`, all f32, with `precision` inside to `target`, which may be the same file."""
    model = onnx.load(str(source))
    return onnx_file.sign(narrowed(model, precision), model.graph.name, target)


def spelled_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same numbers where no kernel takes bf16: each such node computes in f32 and rounds what it gives."""
    types = {value.name: value.type.tensor_type.elem_type
             for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    types |= {value.name: value.data_type for value in model.graph.initializer}
    narrow = {name for name, kind in types.items() if kind == TensorProto.BFLOAT16}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Cast":
            nodes.append(node)
            continue
        before, after = [], []
        node = onnx.NodeProto.FromString(node.SerializeToString())
        for at, name in enumerate(node.input):
            if name in narrow:
                node.input[at] = f"{name}_of_{node.output[0]}"
                before.append(helper.make_node("Cast", [name], [node.input[at]], to=TensorProto.FLOAT))
        for at, name in enumerate(node.output):
            if name in narrow:
                node.output[at] = f"{name}_exact"
                after.append(helper.make_node("Cast", [node.output[at]], [name], to=TensorProto.BFLOAT16))
        nodes += [*{cast.output[0]: cast for cast in before}.values(), node, *after]
    out = onnx.ModelProto()
    out.CopyFrom(model)
    del out.graph.value_info[:]
    out.graph.ClearField("node")
    out.graph.node.extend(nodes)
    return out


def main(argv: list[str]) -> int:
    """Exit 0, or 2 with one line of reason."""
    parser = argparse.ArgumentParser(prog="sightline_export.narrow", description="Narrows one graph.")
    parser.add_argument("--precision", required=True, choices=list(WIDTHS))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args(argv)
    try:
        to_narrow(args.source, args.target, args.precision)
    except (ExportError, OSError) as error:
        print(f"sightline_export.narrow: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""One `Graph` to one `.onnx` file: legacy TorchScript exporter, opset 17, static shapes but for `Graph.dynamic`."""

import contextlib
import hashlib
import math
import re
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort
import torch

from . import EXPORTER, OPSET, ExportError
from .graph import Graph

# How open sizes are called in the files. Of pictures there are one, or as many as objects.
OBJECTS, SLOTS, PICTURES = "objects", "slots", "pictures"
# Numbers in a tensor, from which on a pass over it shows.
LARGE = 2**18
DTYPES = {onnx.TensorProto.FLOAT: "f32", onnx.TensorProto.INT64: "i64"}


@contextlib.contextmanager
def no_repeats():
    """`repeat_interleave(x, 1, dim=0)` is the identity and one row is broadcast; traced, both become a Loop."""
    original = torch.Tensor.repeat_interleave

    def repeat(x, repeats, dim=None, **kwargs):
        if dim == 0 and (x.shape[0] == 1 or int(repeats) == 1):
            return x
        return original(x, repeats, dim=dim, **kwargs)

    with mock.patch.object(torch, "repeat_interleave", repeat), \
            mock.patch.object(torch.Tensor, "repeat_interleave", repeat):
        yield


def fold(path: Path) -> None:
    """Folds traced shape arithmetic away in place; only standard operators may come out."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"],
                         disabled_optimizers=["MatMulAddFusion"])


def known_shapes(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inner tensors' shapes in terms of the open sizes, `512*slots + 64`.

    Inference takes two sizes that meet in a sum for the same. So it is told that there is one picture, and then
    that there are as many as objects: what differs between the two counts pictures.
    """
    one, many = shapes_for(model, 1), shapes_for(model, OBJECTS)
    for value in many.values():
        if value != one.get(value.name, value):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.dim_param = re.sub(rf"\b{OBJECTS}\b", PICTURES, dim.dim_param)
    return list(many.values())


def shapes_for(model: onnx.ModelProto, pictures: int | str) -> dict[str, onnx.ValueInfoProto]:
    """The inner tensors' shapes for a number of pictures."""
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    told = onnx.ModelProto.FromString(model.SerializeToString())
    del told.graph.value_info[:]
    for value in told.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == PICTURES:
                set_size(dim, pictures)
    inferred = SymbolicShapeInference.infer_shapes(told, auto_merge=True)
    return {value.name: value for value in inferred.graph.value_info}


def set_size(dim: onnx.TensorShapeProto.Dimension, size: int | str) -> None:
    """A number, or the name of one."""
    if isinstance(size, int):
        dim.dim_value = size
    else:
        dim.dim_param = size


def pin_reshapes(model: onnx.ModelProto) -> None:
    """Gives a Reshape that leaves one size open a constant, and drops the arithmetic that made its shape."""
    graph = model.graph
    constants = {value.name for value in graph.initializer}
    shapes = {value.name: value.type.tensor_type.shape.dim for value in known_shapes(model)}
    for node in graph.node:
        sizes = shapes.get(node.output[0])
        if node.op_type != "Reshape" or node.input[1] in constants or sizes is None:
            continue
        pinned = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in sizes]
        if pinned.count(-1) <= 1:
            node.input[1] = f"{node.name}/pinned"
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(pinned, np.int64), node.input[1]))
    wanted, kept = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(node.input)
    replace(graph.node, kept[::-1])
    replace(graph.initializer, [value for value in graph.initializer if value.name in wanted])


def spread_biases(model: onnx.ModelProto) -> None:
    """Gives the bias of a large linear layer as many axes as its sum has, so that the two stay two operators.

    ONNX Runtime would make one of them, which writes the bias into every row on one thread before it multiplies:
    5 % of an image encoder made of linear layers.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.value_info}
    constants = {value.name: value for value in model.graph.initializer}
    products = {node.output[0] for node in model.graph.node if node.op_type == "MatMul"}
    for node in model.graph.node:
        if node.op_type != "Add" or products.isdisjoint(node.input):
            continue
        for index, name in enumerate(node.input):
            shape = shapes.get(node.output[0], [])
            if name in constants and len(constants[name].dims) == 1 and math.prod(shape) >= LARGE and len(shape) > 2:
                node.input[index] = f"{node.name}/spread"
                value = onnx.numpy_helper.to_array(constants[name]).reshape([1] * (len(shape) - 1) + [-1])
                model.graph.initializer.append(onnx.numpy_helper.from_array(value, node.input[index]))
    read = {name for node in model.graph.node for name in node.input}
    replace(model.graph.initializer, [value for value in model.graph.initializer if value.name in read])


def replace(field, items: list) -> None:
    """Sets a repeated field."""
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)


def write(graph: Graph, path: Path) -> onnx.ModelProto:
    """Exports, pins the output shapes, drops what would make two exports differ."""
    with warnings.catch_warnings(), no_repeats(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.module, tuple(graph.inputs.values()), str(path), dynamo=False,
            opset_version=OPSET, input_names=list(graph.inputs), output_names=graph.outputs,
            dynamic_axes=graph.dynamic, do_constant_folding=True,
        )
        results = graph.module(*graph.inputs.values())
    fold(path)
    model = onnx.load(str(path))
    foreign = sorted({node.domain for node in model.graph.node if node.domain})
    if foreign:
        raise ExportError(f"{graph.name}: expected standard operators only, got {', '.join(foreign)}")
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    spread_biases(model)
    if graph.dynamic:
        pin_reshapes(model)
    results = (results,) if isinstance(results, torch.Tensor) else results
    for value, tensor in zip(model.graph.output, results, strict=True):
        dims = value.type.tensor_type.shape
        dims.ClearField("dim")
        named = graph.dynamic.get(value.name, {})
        for axis, size in enumerate(tensor.shape):
            set_size(dims.dim.add(), named.get(axis, size))
    return sign(model, graph.name, path)


def has_open_slots(model: onnx.ModelProto) -> bool:
    """Whether the number of memory slots is open."""
    shapes = (value.type.tensor_type.shape for value in model.graph.input)
    return any(dim.dim_param == SLOTS for shape in shapes for dim in shape.dim)


def name_sizes(model: onnx.ModelProto) -> None:
    """Notes the shape of every inner tensor in terms of the open sizes.

    Otherwise ONNX Runtime cannot know that the scores fit where the scores before the mask were: fresh
    pages for each cost memory attention a tenth of its time. The smaller graphs gain nothing by it.
    """
    model.graph.value_info.extend(sorted(known_shapes(model), key=lambda value: value.name))


def sign(model: onnx.ModelProto, name: str, path: Path) -> onnx.ModelProto:
    """Drops what would make two exports differ, checks, saves."""
    for node in model.graph.node:
        node.ClearField("doc_string")
    for value in [*model.graph.input, *model.graph.output]:
        value.ClearField("doc_string")
    del model.graph.value_info[:]
    if has_open_slots(model):
        name_sizes(model)
    model.producer_name, model.producer_version = EXPORTER.split()
    model.graph.name = name
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return model


def table(values) -> list[dict]:
    """The io table of `model.toml`; -1 is a dynamic dimension."""
    rows = []
    for value in values:
        kind = value.type.tensor_type
        if kind.elem_type not in DTYPES:
            raise ExportError(f"{value.name}: expected f32 or i64, got ONNX type {kind.elem_type}")
        shape = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
        rows.append({"name": value.name, "dtype": DTYPES[kind.elem_type], "shape": shape})
    return rows


def entry(model: onnx.ModelProto, path: Path) -> dict:
    """`[graphs.NAME]`: file, sha256 and the two io tables."""
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "inputs": table(model.graph.input), "outputs": table(model.graph.output)}

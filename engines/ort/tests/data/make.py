"""Writes the graphs that the tests load: `python3 make.py` (needs the package `onnx`; 1.23.2 wrote these)."""

from pathlib import Path

from onnx import TensorProto, helper

HERE = Path(__file__).parent
F32, F16, I64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64


def save(name, nodes, inputs, outputs, constants=()):
    """Opset 17, IR 8: what ONNX Runtime 1.17 reads."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, name, [info(*port) for port in inputs], [info(*port) for port in outputs], list(constants)
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="make.py"
    )
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


node = helper.make_node

# Two inputs, two outputs, two types, an open size: sum = x + y over [1,N], twice = 2 * k.
save(
    "ports",
    [node("Add", ["x", "y"], ["sum"]), node("Add", ["k", "k"], ["twice"])],
    [("x", F32, [1, "n"]), ("y", F32, [1, "n"]), ("k", I64, [2])],
    [("sum", F32, [1, "n"]), ("twice", I64, [2])],
)
# Two sizes that only the run can find unequal.
save(
    "join",
    [node("Concat", ["x", "y"], ["z"], axis=1)],
    [("x", F32, [1, "n"]), ("y", F32, [1, "m"])],
    [("z", F32, [1, "k"])],
)
# A run that fails: an index out of range.
save(
    "pick",
    [node("Gather", ["x", "at"], ["picked"], axis=0)],
    [("x", F32, [4]), ("at", I64, [1])],
    [("picked", F32, [1])],
)
# A product of two inputs shows whether denormals survive.
save("product", [node("Mul", ["x", "y"], ["z"])], [("x", F32, [4]), ("y", F32, [4])], [("z", F32, [4])])
# Not a host tensor of ours.
save("half", [node("Neg", ["x"], ["y"])], [("x", F16, [4])], [("y", F16, [4])])


def stack(name, layers, channels, side):
    """Convolutions whose weights are all alike, so that the file stays small; ONNX Runtime unfolds them."""
    shape = helper.make_tensor("shape", I64, [4], [channels, channels, 3, 3])
    value = helper.make_tensor("value", F32, [1], [0.004])
    nodes, last = [node("ConstantOfShape", ["shape"], ["weight"], value=value)], "x"
    for layer in range(layers):
        out = "y" if layer == layers - 1 else f"relu{layer}"
        nodes += [
            node("Conv", [last, "weight"], [f"conv{layer}"], pads=[1, 1, 1, 1]),
            node("Relu", [f"conv{layer}"], [out]),
        ]
        last = out
    size = [1, channels, side, side]
    save(name, nodes, [("x", F32, size)], [("y", F32, size)], [shape])


# About the work of a small memory graph and of a small encoder: 0.3 and 1.9 GFLOP.
stack("convs_small", 8, 32, 32)
stack("convs", 12, 32, 96)

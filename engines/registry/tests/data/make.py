"""Writes `tiny/`, a whole model of 16x16 pixels in a few hundred bytes a graph that does nothing sensible:
`python3 make.py` (needs the package `onnx`; 1.23.2 wrote these)."""

import hashlib
from pathlib import Path

from onnx import TensorProto, helper

HERE = Path(__file__).parent / "tiny"
F32, I64 = TensorProto.FLOAT, TensorProto.INT64
node, info = helper.make_node, helper.make_tensor_value_info
TYPES = {F32: "f32", I64: "i64"}

HEAD = """\
schema = 1
name = "tiny"
family = "test"
exporter = "make.py"
opset = 17
licence = "MIT OR Apache-2.0"

[image]
height = 16
width = 16
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
filter = "bilinear"

[features]
top = "feat_top"

[masks]
height = 4
width = 4

[memory]
tokens = 16
channels = 3
recent = 2
stride = 1
max_cond = 1
dtype = "f32"
min_object_score = 0.0

[pointers]
channels = 3
recent = 4

[prompts]
points = true
box = true
mask = true
mask_decoder = true
pad_point = true
multimask_max_points = 1

[constants]
no_mem_embed = [0.0, 0.0, 0.0]
no_obj_ptr = [0.0, 0.0, 0.0]
"""

IMAGE, TOP, LOW = ("image", F32, [1, 3, 16, 16]), ("feat_top", F32, [1, 3, 4, 4]), [1, 1, 4, 4]
PIX = ("pix_feat", F32, [1, 3, 4, 4])
DECODED = [
    ("low_res_mask", F32, LOW),
    ("iou", F32, [1, 1]),
    ("object_score", F32, [1, 1]),
    ("obj_ptr", F32, [1, 3]),
]
DECODE = [
    node("ReduceMean", ["pix_feat"], ["low_res_mask"], axes=[1], keepdims=1),
    node("ReduceMean", ["low_res_mask"], ["score"], axes=[2, 3], keepdims=0),
    node("Identity", ["score"], ["object_score"]),
    node("Sigmoid", ["score"], ["iou"]),
    node("ReduceMean", ["pix_feat"], ["obj_ptr"], axes=[2, 3], keepdims=0),
]
GRAPHS = {
    "image_encoder": (
        [node("AveragePool", ["image"], ["feat_top"], kernel_shape=[4, 4], strides=[4, 4])],
        [IMAGE],
        [TOP],
    ),
    "memory_attention": (
        [
            node("ReduceMean", ["mem"], ["mean"], axes=[1], keepdims=0),
            node("Transpose", ["mean"], ["channels"], perm=[0, 2, 1]),
            node("Reshape", ["channels", "shape"], ["read"]),
            node("Add", ["feat_top", "read"], ["pix_feat"]),
        ],
        [TOP, ("mem", F32, [1, 3, 16, 3])],
        [PIX],
        [helper.make_tensor("shape", I64, [4], [1, 3, 4, 4])],
    ),
    "decoder_track": (DECODE, [PIX], DECODED),
    "decoder_prompt": (
        DECODE,
        [
            PIX,
            ("point_coords", F32, [1, "n", 2]),
            ("point_labels", F32, [1, "n"]),
            ("mask_input", F32, LOW),
            ("has_mask_input", F32, [1]),
            ("multimask", I64, [1]),
        ],
        DECODED,
    ),
    "memory_encoder": (
        [
            node("Mul", ["feat_top", "low_res_mask"], ["masked"]),
            node("Reshape", ["masked", "shape"], ["channels"]),
            node("Transpose", ["channels"], ["mem"], perm=[0, 2, 1]),
        ],
        [TOP, ("low_res_mask", F32, LOW)],
        [("mem", F32, [1, 16, 3])],
        [helper.make_tensor("shape", I64, [3], [1, 3, 16])],
    ),
    "mask_downsample": (
        [node("AveragePool", ["mask"], ["mask_prompt"], kernel_shape=[4, 4], strides=[4, 4])],
        [("mask", F32, [1, 1, 16, 16])],
        [("mask_prompt", F32, LOW)],
    ),
}


def ports(values):
    lines = []
    for name, dtype, dims in values:
        dims = [-1 if isinstance(dim, str) else dim for dim in dims]
        lines.append(f'  {{ name = "{name}", dtype = "{TYPES[dtype]}", shape = {dims} }},\n')
    return "[\n" + "".join(lines) + "]"


HERE.mkdir(exist_ok=True)
manifest = HEAD
for name, (nodes, inputs, outputs, *constants) in GRAPHS.items():
    graph = helper.make_graph(
        nodes, name, [info(*port) for port in inputs], [info(*port) for port in outputs], *constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="make.py")
    data = model.SerializeToString()
    (HERE / f"{name}.onnx").write_bytes(data)
    manifest += f"""
[graphs.{name}]
file = "{name}.onnx"
sha256 = "{hashlib.sha256(data).hexdigest()}"
inputs = {ports(inputs)}
outputs = {ports(outputs)}
"""
(HERE / "model.toml").write_text(manifest)

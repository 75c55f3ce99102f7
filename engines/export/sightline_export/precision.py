"""Graphs with less than f32 inside: half precision, and an int8 image encoder. Inputs and outputs stay f32.

Both are measured against the published f32 model and reported, never asserted: what they cost in
quality depends on the weights.
"""

import logging
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from . import ExportError, onnx_file
from .predictor import normalise

# Kept in f32: what sums or exponentiates many numbers, and what decides.
WIDE_OPERATORS = {"Softmax", "LayerNormalization", "ReduceMean", "ReduceSum", "Pow", "Sqrt", "Resize",
                  "ArgMax", "Greater", "GreaterOrEqual", "LessOrEqual", "Sin", "Cos", "Cast"}
HEADS = re.compile(r"pred_obj_score_head|iou_prediction_head|obj_ptr_proj|object_pointer_proj|"
                   r"output_hypernetworks_mlps|_get_stability_scores|pe_layer|shared_embedding")
PICTURES = {".png", ".jpg", ".jpeg"}
MOST_FRAMES = 64


class Half:
    """Rewrites a graph node by node, in order: each float tensor gets a name for each width it is read in."""

    def __init__(self, model: onnx.ModelProto):
        self.graph = onnx.shape_inference.infer_shapes(model).graph
        self.values = {value.name: value for value in self.graph.initializer}
        known = [*self.graph.input, *self.graph.output, *self.graph.value_info]
        self.floats = {value.name for value in known if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.floats |= {name for name, value in self.values.items() if value.data_type == TensorProto.FLOAT}
        # What a tensor is called in f32 and in f16; at least one exists.
        self.names: dict[str, dict[int, str]] = {}
        for name in [value.name for value in self.graph.input] + list(self.values):
            self.names[name] = {TensorProto.FLOAT: name}
        self.nodes: list[onnx.NodeProto] = []
        self.made: list[onnx.TensorProto] = []

    def read(self, name: str, width: int) -> str:
        """The name of `name` in `width`, cast or converted when first asked for."""
        if name not in self.floats:
            return name
        names = self.names[name]
        if width not in names:
            names[width] = f"{name}_{'f16' if width == TensorProto.FLOAT16 else 'f32'}"
            if name in self.values:
                value = numpy_helper.to_array(self.values[name])
                limit = np.finfo(np.float16).max
                half = np.clip(value, -limit, limit).astype(np.float16)
                self.made.append(numpy_helper.from_array(half, names[width]))
            else:
                source = next(iter(names.values()))
                self.nodes.append(helper.make_node("Cast", [source], [names[width]], f"{names[width]}_cast",
                                                   to=width))
        return names[width]

    def rewrite(self) -> None:
        """Every node in the width it is meant to have; outputs of the graph in f32 under their names."""
        results = {value.name for value in self.graph.output}
        for node in self.graph.node:
            given = any(name in self.floats for name in node.input)
            wide = not given or node.op_type in WIDE_OPERATORS or bool(HEADS.search(node.name))
            width = TensorProto.FLOAT if wide else TensorProto.FLOAT16
            for index, name in enumerate(node.input):
                node.input[index] = self.read(name, width)
            self.nodes.append(node)
            for index, name in enumerate(node.output):
                if name in self.floats:
                    renamed = f"{name}_inner" if name in results and not wide else name
                    node.output[index] = renamed
                    self.names[name] = {width: renamed}
                    if renamed != name:
                        self.nodes.append(helper.make_node("Cast", [renamed], [name], f"{name}_cast",
                                                           to=TensorProto.FLOAT))
                        self.names[name][TensorProto.FLOAT] = name
        read = {name for node in self.nodes for name in node.input}
        kept = [value for value in [*self.values.values(), *self.made] if value.name in read]
        for field, items in (("node", self.nodes), ("initializer", kept)):
            copies = [type(item).FromString(item.SerializeToString()) for item in items]
            self.graph.ClearField(field)
            getattr(self.graph, field).extend(copies)


def to_half(path: Path) -> onnx.ModelProto:
    """The graph at `path` in f16 but for `WIDE_OPERATORS`, the heads, and its inputs and outputs."""
    model = onnx.load(str(path))
    half = Half(model)
    half.rewrite()
    model.graph.CopyFrom(half.graph)
    return onnx_file.sign(model, path.stem, path)


def _decode(video: Path, folder: Path) -> list[Path]:
    """The frames of a video as PNG files, by GStreamer as the runtime reads them."""
    tool = shutil.which("gst-launch-1.0")
    if tool is None:
        raise ExportError(f"int8 encoder {video.name}: expected gst-launch-1.0 to read a video, got none "
                          "(a folder of pictures needs no tool)")
    command = [tool, "-q", "filesrc", f"location={video}", "!", "decodebin", "!", "videoconvert", "!",
               "pngenc", "compression-level=1", "!", "multifilesink", f"location={folder}/%05d.png"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = sorted(folder.glob("*.png"))
    if done.returncode or not found:
        reason = (done.stderr.strip().splitlines() or ["no frame came out"])[0]
        raise ExportError(f"int8 encoder {video.name}: expected a video, got: {reason}")
    return found


def calibration(clips: list[Path], size: int) -> list[np.ndarray]:
    """At most `MOST_FRAMES` frames spread over the clips, each [1,3,size,size] normalised."""
    share = max(1, MOST_FRAMES // len(clips))
    out = []
    for source in clips:
        with tempfile.TemporaryDirectory() as scratch:
            if source.is_dir():
                files = sorted(file for file in source.iterdir() if file.suffix.lower() in PICTURES)
            elif source.is_file():
                files = _decode(source, Path(scratch))
            else:
                raise ExportError(f"int8 encoder: no such file or folder: {source}")
            if not files:
                raise ExportError(f"int8 encoder {source.name}: expected png or jpg pictures, got none")
            for index in np.unique(np.linspace(0, len(files) - 1, share).astype(int)):
                picture = Image.open(files[index]).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
                out.append(normalise([np.asarray(picture)]).numpy())
    return out


def to_int8(path: Path, images: list[np.ndarray]) -> onnx.ModelProto:
    """The image encoder at `path` with static QDQ nodes: int8 weights per channel, uint8 activations."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter(images)

        def get_next(self):
            image = next(self.left, None)
            return None if image is None else {"image": image}

    # It asks on the root logger for a step that the export has done.
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        quantized = Path(scratch) / path.name
        quantize_static(str(path), str(quantized), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                        weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
                        op_types_to_quantize=["Conv", "MatMul", "Gemm"])
        model = onnx.load(str(quantized))
    return onnx_file.sign(model, path.stem, path)

"""An int8 image encoder: static QDQ, calibrated on clips. Its input and outputs stay f32.

It is measured against the published f32 model and reported, never asserted: what it costs in quality depends on
the weights. Narrow floats are in `narrow.py`.
"""

import logging
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from . import ExportError, onnx_file
from .predictor import normalise

PICTURES = {".png", ".jpg", ".jpeg"}
MOST_FRAMES = 64


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

"""python -m train.quantize MODEL POOL: the image encoder's and the track decoder's convolutions in 8 bits, in place.

Static QDQ: activations u8, weights s8 a channel, ranges from POOL's own videos (frames of it, and its real tracks
run through the tracker). Weights keep to 7 bits, so that processors without VNNI do not saturate. The last
convolution of the masks stays in floats.
"""
import hashlib
import os
import re
import sys
import tempfile

import cv2
import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from .run_onnx import Model, Tracker

GRAPHS = {"image_encoder": (), "decoder_track": ("/dec/refine/out/Conv",)}


class Recorded(CalibrationDataReader):
    def __init__(self, inputs):
        self.inputs = iter(inputs)

    def get_next(self):
        return next(self.inputs, None)


def record(folder, pool, tracks=24, steps=6):
    """The inputs the graphs see while real tracks are followed, a list of dictionaries for each graph."""
    model, seen = Model(folder), {g: [] for g in GRAPHS}
    for name, session in model.s.items():
        if name in seen:
            model.s[name] = Recorder(session, seen[name])
    z, rng = np.load(os.path.join(pool, "tracks.npz")), np.random.default_rng(0)
    for k in rng.permutation(len(z["clip"]))[:tracks]:
        masks, first = z[f"m{k}"], int(z["first"][k])
        clip, tracker = np.load(os.path.join(pool, "clips", z["clip"][k] + ".npy"), mmap_mode="r"), Tracker(model)
        zoom = rng.uniform(.45, 1)
        for j in range(min(steps, len(masks))):
            mask = np.unpackbits(masks[j]).reshape(288, 512) > 0
            if j == 0:
                ys, xs = np.nonzero(mask)
                h, w = int(288 * zoom), int(512 * zoom)
                y, x = int(np.clip(ys.mean() - h / 2, 0, 288 - h)), int(np.clip(xs.mean() - w / 2, 0, 512 - w))
            tracker.frame(np.ascontiguousarray(clip[first + j][y:y + h, x:x + w]))
            if j == 0:
                tracker.prompt_mask(1, mask[y:y + h, x:x + w])
            else:
                tracker.step(1)
    return seen


class Recorder:
    def __init__(self, session, seen):
        self.session, self.seen = session, seen

    def run(self, outputs, inputs):
        self.seen.append({k: v.copy() for k, v in inputs.items()})
        return self.session.run(outputs, inputs)


def main():
    folder, pool = sys.argv[1:3]
    cv2.setNumThreads(1)
    seen, toml = record(folder, pool), os.path.join(folder, "model.toml")
    for graph, keep in GRAPHS.items():
        path = os.path.join(folder, graph + ".onnx")
        assert not any(n.op_type == "QuantizeLinear" for n in onnx.load(path).graph.node), f"{path}: expected floats, got 8 bits"
        with tempfile.NamedTemporaryFile(suffix=".onnx") as flat:
            quant_pre_process(path, flat.name, skip_symbolic_shape=True)
            names = [n.name for n in onnx.load(flat.name).graph.node]
            assert all(k in names for k in keep), (keep, names)
            quantize_static(flat.name, path, Recorded(seen[graph]), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
                            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
                            op_types_to_quantize=["Conv"], nodes_to_exclude=list(keep))
        digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
        text = open(toml).read()
        text, n = re.subn(rf'(file = "{graph}.onnx"\nsha256 = ")[0-9a-f]+', rf"\g<1>{digest}", text)
        assert n == 1, graph
        open(toml, "w").write(text)
        print(f"{graph}: {os.path.getsize(path) / 1e6:.2f} MB from {len(seen[graph])} inputs")


if __name__ == "__main__":
    main()

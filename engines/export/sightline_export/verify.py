"""Every written graph in ONNX Runtime against the published torch code, on random inputs."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from . import ExportError, narrow
from .graph import Graph

TOLERANCE = 1e-3


def session(path: Path) -> ort.InferenceSession:
    """One thread, CPU, quiet. It has no kernels for bf16: such graphs are spelled out."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = onnx.load(str(path))
    is_bf16 = any(value.data_type == onnx.TensorProto.BFLOAT16 for value in model.graph.initializer)
    source = narrow.spelled_out(model).SerializeToString() if is_bf16 else str(path)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def check(graph: Graph, path: Path, tolerance: float | None = TOLERANCE) -> dict[str, float]:
    """Max abs difference of every output over all samples; above `tolerance` is an error."""
    run = session(path)
    taken = {value.name for value in run.get_inputs()}
    worst = dict.fromkeys(graph.outputs, 0.0)
    for sample in graph.samples:
        with torch.no_grad():
            expected = graph.reference(sample)
        got = run.run(graph.outputs, {k: v.numpy() for k, v in sample.items() if k in taken})
        for name, value in zip(graph.outputs, got, strict=True):
            want = expected[name].numpy()
            if want.shape != value.shape:
                raise ExportError(f'{graph.name} output "{name}": expected {list(want.shape)}, '
                                  f"got {list(value.shape)}")
            worst[name] = max(worst[name], float(np.abs(want - value).max()))
    for name, difference in worst.items():
        if tolerance is not None and not difference <= tolerance:
            raise ExportError(f'{graph.name} output "{name}": expected at most {tolerance:g} from the '
                              f"published model, got {difference:.2e}")
    return worst

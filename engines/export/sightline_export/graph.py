"""What a family hands to the exporter: one `Graph` for every ONNX file."""

from dataclasses import dataclass, field
from typing import Callable

import torch

Tensors = dict[str, torch.Tensor]


@dataclass
class Graph:
    """One static ONNX graph and the published code it must agree with.

    `module` takes the tensors of `inputs` in order and returns those named by `outputs`.
    `reference` computes the same outputs by the *published* methods, never by `module`.
    `samples` are input sets on which the two are compared; `inputs` itself is one of them.
    """

    name: str
    module: torch.nn.Module
    inputs: Tensors
    outputs: list[str]
    reference: Callable[[Tensors], Tensors]
    samples: list[Tensors] = field(default_factory=list)
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)

    def __post_init__(self):
        # The exporter restores the mode it finds: a wrapper left in training mode would switch the
        # published model's dropout on for everything that follows.
        self.module.eval()

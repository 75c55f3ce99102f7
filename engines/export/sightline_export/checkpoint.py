"""Loads a published checkpoint, or says by name which tensors do not fit."""

from pathlib import Path

import torch

from . import ExportError

SHOWN = 5


def load(path: Path) -> dict[str, torch.Tensor]:
    """The `{"model": state_dict}` of a `.pt` file; never runs code from it."""
    if not path.is_file():
        raise ExportError(f"checkpoint: no such file: {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(f"checkpoint {path.name}: not a weights-only torch file: {reason}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ExportError(f'checkpoint {path.name}: expected {{"model": state_dict}}')
    return content["model"]


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def apply(model: torch.nn.Module, state: dict[str, torch.Tensor], name: str) -> None:
    """Copies `state` into `model`; every key must be there with the right shape."""
    own = model.state_dict()
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    shaped = [f"{key}: expected {list(own[key].shape)}, got {list(state[key].shape)}"
              for key in sorted(own.keys() & state.keys()) if own[key].shape != state[key].shape]
    problems = [f"{label} {_some(found)}" for label, found in
                (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shaped)) if found]
    if problems:
        raise ExportError(f"checkpoint {name} does not fit this config: " + "; ".join(problems))
    model.load_state_dict(state)

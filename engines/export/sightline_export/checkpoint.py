"""Loads a published checkpoint, or says by name which tensors do not fit."""

import pickle
from pathlib import Path

import torch

from . import ExportError, layouts

SHOWN = 5


def load(path: Path) -> layouts.State:
    """The tensors of a `.pt` or `.safetensors` file under the file's own names; never runs code from it."""
    if not path.is_file():
        raise ExportError(f"checkpoint: no such file: {path}")
    state = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ExportError(f"checkpoint {path.name}: expected named tensors, got something else")
    return layouts.plain(state)


def _safetensors(path: Path) -> layouts.State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ExportError(f"checkpoint {path.name}: not a safetensors file: {_first(error)}") from error


def _torch(path: Path) -> layouts.State:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Both a file that is no pickle and one that wants to call something; the latter names it.
        told = str(error)
        if "Unsupported global" in told or "Unsupported class" in told or "GLOBAL" in told:
            named = told.split("GLOBAL ", 1)[-1].split(" ", 1)[0] if "GLOBAL " in told else "something"
            raise ExportError(f"checkpoint {path.name}: expected tensors only, got a pickle that would run "
                              f"code ({named})") from error
        raise ExportError(f"checkpoint {path.name}: not a weights-only torch file: {_first(error)}") from error
    except Exception as error:
        raise ExportError(f"checkpoint {path.name}: not a weights-only torch file: {_first(error)}") from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        return content["model"]
    if not isinstance(content, dict) or not content:
        raise ExportError(f'checkpoint {path.name}: expected {{"model": state_dict}}')
    return content


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def fit(own: layouts.State, state: layouts.State, name: str, family: str | None = None) -> layouts.State:
    """`state` in the official layout; every tensor of `own` (official) must be there with its shape.

    Problems are told in the names of the file. A file of another family than the one asked for is
    told as that.
    """
    other = layouts.is_transformers(state)
    official = layouts.to_official(state) if other else state
    found, size = layouts.identify(official)
    if family is not None and found is not None and found != family:
        raise ExportError(f"checkpoint {name}: expected the tensors of {family}, got those of {found} "
                          f"(--family {found})")
    wanted = layouts.to_transformers(own) if other else own
    missing = sorted(wanted.keys() - state.keys())
    unexpected = sorted(state.keys() - wanted.keys())
    shaped = [f"{key}: expected {list(wanted[key].shape)}, got {list(state[key].shape)}"
              for key in sorted(wanted.keys() & state.keys()) if wanted[key].shape != state[key].shape]
    problems = [f"{label} {_some(names)}" for label, names in
                (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shaped)) if names]
    if problems:
        hint = f" (by its tensors it is {found} {size})" if size else ""
        raise ExportError(f"checkpoint {name} does not fit this config{hint}: " + "; ".join(problems))
    return official

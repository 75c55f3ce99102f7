"""Writes `model.toml`: the few shapes of TOML that the schema needs, floats exactly."""

import json
from pathlib import Path

import numpy as np


def _value(value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # The shortest text that reads back as the same f32.
        text = np.format_float_positional(np.float32(value), unique=True, trim="0")
        return text if abs(value) >= 1e-4 or value == 0 else repr(float(np.format_float_scientific(np.float32(value))))
    if isinstance(value, (int, str)):
        return json.dumps(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    return "[" + ", ".join(_value(item) for item in value) + "]"


def _tables(values: list[dict]) -> str:
    return "[\n" + "".join(f"  {_value(value)},\n" for value in values) + "]"


def write(path: Path, head: dict, sections: dict, graphs: dict) -> None:
    """`head` keys, then `sections`, then `[graphs.*]` in order."""
    lines = [f"{key} = {_value(value)}" for key, value in head.items()]
    for name, section in sections.items():
        lines += ["", f"[{name}]"] + [f"{key} = {_value(value)}" for key, value in section.items()]
    for name, graph in graphs.items():
        lines += ["", f"[graphs.{name}]"]
        for key, value in graph.items():
            lines.append(f"{key} = {_tables(value) if isinstance(value, list) else _value(value)}")
    path.write_text("\n".join(lines) + "\n")

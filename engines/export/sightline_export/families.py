"""The families this exporter knows. A new one is a new entry and a module like `sam2_family`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from . import ExportError, sam2_family
from .graph import Graph


@dataclass(frozen=True)
class Family:
    """How one family finds its config, builds its published model and splits it into graphs."""

    name: str
    licence: str
    config_path: Callable[[str], Path]
    read_config: Callable[[Path, int], Any]
    build: Callable[[Any], Any]
    graphs: Callable[[Any, int], list[Graph]]
    manifest: Callable[[Any, int], dict]


def _sam2(name: str, folder: str, prefix: str) -> Family:
    return Family(
        name=name, licence="Apache-2.0",
        config_path=lambda config: sam2_family.config_path(folder, prefix, config),
        read_config=sam2_family.read_config, build=sam2_family.build,
        graphs=sam2_family.graphs, manifest=sam2_family.manifest,
    )


FAMILIES = {
    "sam2.1": _sam2("sam2.1", "sam2.1", "sam2.1_hiera"),
    "sam2.0": _sam2("sam2.0", "sam2", "sam2_hiera"),
}


def find(name: str) -> Family:
    """A family by its name in `model.toml`."""
    if name not in FAMILIES:
        raise ExportError(f"family: expected {'|'.join(FAMILIES)}, got {name!r}")
    return FAMILIES[name]

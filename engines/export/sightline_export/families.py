"""The families this exporter knows. A new one is a new entry and a module like `sam2_family`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import ExportError, edgetam_family, sam2_family
from .graph import Graph
from .layouts import State


@dataclass(frozen=True)
class Family:
    """One family: its names, and the module that knows its published package."""

    name: str
    licence: str
    configs: tuple[str, ...]
    module: Any
    package: dict

    def config_path(self, config: str | None) -> Path:
        """A size of `configs` or a file; a family of one size needs none."""
        if config is None and len(self.configs) > 1:
            raise ExportError(f"config: expected {'|'.join(self.configs)} or a file, got none")
        return self.module.config_path(config or self.configs[0], **self.package)

    def read_config(self, path: Path, image_size: int):
        """The config with its image size set, checked."""
        return self.module.read_config(path, image_size)

    def build(self, config):
        """The published predictor, evaluation mode, weights not yet set."""
        return self.module.build(config)

    def graphs(self, model, max_cond: int, closed: bool = False) -> list[Graph]:
        """The six graphs of a loaded predictor; `closed`: one object and all memory slots in every run."""
        return self.module.graphs(model, max_cond, closed)

    def manifest(self, model, max_cond: int) -> dict:
        """The sections of `model.toml` that do not depend on the files."""
        return self.module.manifest(model, max_cond)

    def dump_config(self, config) -> tuple[str, str]:
        """File name and text of the config as used."""
        return self.module.dump_config(config)

    def official(self, model) -> State:
        """The weights in the official layout."""
        return self.module.official(model)

    def restore(self, model, state: State) -> None:
        """Loads weights in the official layout."""
        self.module.restore(model, state)

    def score_layer(self, model):
        """The last linear layer of the object score."""
        return self.module.score_layer(model)

    def driver(self, model, images):
        """The published predictor on normalised images [N,3,S,S]."""
        return self.module.Driver(model, images)


SIZES = ("tiny", "small", "base+", "large")
FAMILIES = {
    "sam2.1": Family("sam2.1", "Apache-2.0", SIZES, sam2_family,
                     {"folder": "sam2.1", "prefix": "sam2.1_hiera"}),
    "sam2.0": Family("sam2.0", "Apache-2.0", SIZES, sam2_family,
                     {"folder": "sam2", "prefix": "sam2_hiera"}),
    "edgetam": Family("edgetam", "Apache-2.0", ("edgetam",), edgetam_family, {}),
}


def find(name: str) -> Family:
    """A family by its name in `model.toml`."""
    if name not in FAMILIES:
        raise ExportError(f"family: expected {'|'.join(FAMILIES)}, got {name!r}")
    return FAMILIES[name]

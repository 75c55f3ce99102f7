"""Checkpoints in, streaming ONNX graphs out (see `engines/GRAPHS.md` for the contract)."""

__version__ = "0.1.0"
EXPORTER = f"sightline-export {__version__}"
OPSET = 17


class ExportError(Exception):
    """A mistake of the caller's: printed as one line, never as a traceback."""

"""The golden scenarios: what is prompted when, in pixels of the frame."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from sightline_export import clip

FRAMES = 24
MASK = "mask.png"


def _box(frame: int, shape: int, width: int, height: int) -> list[float]:
    return [round(float(v), 2) for v in clip.boxes(frame, width, height)[shape]]


def _centre(frame: int, shape: int, width: int, height: int) -> list[float]:
    x0, y0, x1, y1 = clip.boxes(frame, width, height)[shape]
    return [round(float(x0 + x1) / 2, 2), round(float(y0 + y1) / 2, 2)]


def prompts(width: int, height: int) -> dict[str, list[dict]]:
    """Prompts by scenario for frames of this size."""
    box = lambda frame, shape: _box(frame, shape, width, height)  # noqa: E731
    centre = lambda frame, shape: _centre(frame, shape, width, height)  # noqa: E731
    first = {"frame": 0, "object": 1, "box": box(0, 1)}
    return {
        "box": [first],
        "point": [{"frame": 0, "object": 1, "points": [centre(0, 2)], "labels": [1]}],
        "mask": [{"frame": 0, "object": 1, "mask": MASK}],
        # Corrected on a frame without the object, so that the logits fed back are all -1024.
        "absent": [{"frame": 0, "object": 1, "box": [2, 2, 26, 20]},
                   {"frame": 10, "object": 1, "points": [centre(10, 2)], "labels": [1]}],
        "second-box": [first, {"frame": 5, "object": 1, "box": box(5, 1)}],
        "correction": [first, {"frame": 4, "object": 1, "points": [centre(4, 1)], "labels": [1]},
                       {"frame": 9, "object": 1, "points": [centre(9, 1), centre(9, 2)],
                        "labels": [1, 0]}],
        "two-objects": [first, {"frame": 6, "object": 2, "box": box(6, 2)}],
    }


def frames(width: int, height: int) -> list[np.ndarray]:
    """The clip, [height,width,3] uint8 RGB each."""
    return clip.frames(FRAMES, width, height)


def mask(width: int, height: int) -> np.ndarray:
    """The mask prompt of `mask`: the rectangle of frame 0, [height,width] 0/255."""
    return clip.shape_mask(0, 2, width, height)


def write(folder: Path, width: int, height: int, suffix: str = ".png") -> None:
    """Writes `frames/` and `prompts/` under `folder`."""
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    (folder / "prompts").mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(frames(width, height)):
        options = {"quality": 95} if suffix == ".jpg" else {"optimize": True}
        Image.fromarray(frame).save(folder / "frames" / f"{index:05d}{suffix}", **options)
    Image.fromarray(mask(width, height)).save(folder / "prompts" / MASK)
    for name, given in prompts(width, height).items():
        lines = ",\n ".join(json.dumps(prompt) for prompt in given)
        (folder / "prompts" / f"{name}.json").write_text(f"[{lines}]\n")

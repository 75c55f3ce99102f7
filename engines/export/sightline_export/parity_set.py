"""A model's own parity set: a few drawn frames, prompts, and what the published predictor makes of them.

`parity/frames/NNNNN.png`, `parity/prompts.json` and `parity/logits.npz` are in the forms that
`sightline trace` reads and writes: arrays `logits_F_O` f32 [h,w] and `score_F_O` f32 [1]. Frames have
the model's own size, so that no resize enters.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from . import clip, predictor

FRAMES = 12
OBJECT = 1
CORRECTED = 6
# Few shades compress well; the model sees what the files hold.
SHADES = 0xF0


def frames(size: int) -> list[np.ndarray]:
    """The clip, [size,size,3] uint8 RGB each."""
    return [frame & SHADES for frame in clip.frames(FRAMES, size, size)]


def prompts(size: int) -> list[dict]:
    """A box around the disc, later a click on it."""
    box = [round(float(v), 2) for v in clip.boxes(0, size, size)[OBJECT]]
    x0, y0, x1, y1 = clip.boxes(CORRECTED, size, size)[OBJECT]
    centre = [round(float(x0 + x1) / 2, 2), round(float(y0 + y1) / 2, 2)]
    return [{"frame": 0, "object": OBJECT, "box": box},
            {"frame": CORRECTED, "object": OBJECT, "points": [centre], "labels": [1]}]


def write(folder: Path, family, model) -> None:
    """Writes the set for a loaded published model."""
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    drawn, asked = frames(model.image_size), prompts(model.image_size)
    for index, frame in enumerate(drawn):
        Image.fromarray(frame).save(folder / "frames" / f"{index:05d}.png", optimize=True)
    lines = ",\n ".join(json.dumps(prompt) for prompt in asked)
    (folder / "prompts.json").write_text(f"[{lines}]\n")
    made = predictor.run(predictor.start(family, model, drawn), asked, {}, FRAMES)
    arrays = {name: array if array.ndim else array.reshape(1) for name, array in made.items()}
    np.savez_compressed(folder / "logits.npz", **arrays)

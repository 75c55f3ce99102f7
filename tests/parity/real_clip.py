"""Frames of a DAVIS sequence at a model's own size, and the prompts of the parity table on them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

FRAMES, STEP = 20, 2
MASK = "mask.png"
RE_PROMPTED, CORRECTED, CORRECTED_AGAIN = 8, 4, 9
# When the second and the third object join.
SECOND, THIRD = 5, 11


def pictures(data: Path, sequence: str) -> Path:
    """The folder of a DAVIS sequence."""
    return data / "davis" / "JPEGImages" / "480p" / sequence


class RealClip:
    """`FRAMES` frames, every `STEP`-th, stretched to size x size outside of anything compared."""

    def __init__(self, data: Path, sequence: str, size: int):
        names = sorted(pictures(data, sequence).glob("*.jpg"))[::STEP][:FRAMES]
        if len(names) < FRAMES:
            raise SystemExit(f"table: sequence {sequence}: expected {FRAMES * STEP} pictures, got {len(names) * STEP}")
        marked = data / "davis" / "Annotations" / "480p" / sequence
        self.size = size
        self.frames = [np.asarray(Image.open(name).convert("RGB").resize((size, size), Image.Resampling.BICUBIC))
                       for name in names]
        self.masks = [np.asarray(Image.open(marked / f"{name.stem}.png").convert("L").resize((size, size), 0)) > 127
                      for name in names]

    def box(self, frame: int) -> list[float]:
        """The tight box of the annotation, x0,y0,x1,y1."""
        ys, xs = np.nonzero(self.masks[frame])
        return [float(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]

    def inside(self, frame: int) -> list[float]:
        """The annotated pixel nearest to the middle of all."""
        ys, xs = np.nonzero(self.masks[frame])
        at = int(np.hypot(xs - xs.mean(), ys - ys.mean()).argmin())
        return [float(xs[at]), float(ys[at])]

    def corner(self, which: int) -> list[float]:
        """A small box in one of the four corners."""
        side, far = self.size / 8, self.size - self.size / 8 - 2
        x, y = (2.0, far)[which % 2], (2.0, far)[which // 2]
        return [x, y, x + side, y + side]

    def scenarios(self) -> dict[str, list[dict]]:
        """Prompts by scenario. A drawn network finds what it likes: `absent` needs another score as well."""
        first = {"frame": 0, "object": 1, "box": self.box(0)}
        outside = self.corner(3)[:2]
        return {
            "box": [first],
            "point": [{"frame": 0, "object": 1, "points": [self.inside(0)], "labels": [1]}],
            "mask": [{"frame": 0, "object": 1, "mask": MASK}],
            "absent": [{"frame": 0, "object": 1, "box": self.corner(3)}],
            "re-prompt": [first, {"frame": RE_PROMPTED, "object": 1, "box": self.box(RE_PROMPTED)}],
            "correction": [
                first,
                {"frame": CORRECTED, "object": 1, "points": [self.inside(CORRECTED)], "labels": [1]},
                {"frame": CORRECTED_AGAIN, "object": 1, "points": [self.inside(CORRECTED_AGAIN), outside],
                 "labels": [1, 0]}],
            "3 objects": [
                first,
                {"frame": SECOND, "object": 2, "points": [self.inside(SECOND)], "labels": [1]},
                {"frame": THIRD, "object": 3, "box": self.corner(0)}],
        }

    def write(self, folder: Path) -> None:
        """`frames/*.png` and the mask prompt beside the prompts."""
        (folder / "frames").mkdir(parents=True, exist_ok=True)
        for index, frame in enumerate(self.frames):
            Image.fromarray(frame).save(folder / "frames" / f"{index:05d}.png")
        Image.fromarray(self.mask()).save(folder / MASK)

    def mask(self) -> np.ndarray:
        """The annotation of frame 0 as 0/255."""
        return self.masks[0].astype(np.uint8) * 255


def absent_frames(made: dict) -> int:
    """Frames with a score of 0 or less."""
    return sum(int(value <= 0) for name, value in made.items() if name.startswith("score_"))


def write_prompts(path: Path, prompts: list[dict]) -> None:
    """The prompts file of `sightline trace`."""
    path.write_text(json.dumps(prompts) + "\n")

"""A procedural clip: moving shapes on a slowly changing ground. The same seed gives the same bytes.

Used to calibrate random checkpoints and as the frames of the golden tests; no files, no photographs.
"""

import numpy as np
from PIL import Image, ImageDraw

SEED = 7


def ground(random: np.random.RandomState, width: int, height: int) -> np.ndarray:
    """Two smooth grounds [2,height,width,3] f32 of 0..255 to fade between."""
    small = random.randint(20, 236, size=(2, 5, 5, 3)).astype(np.uint8)
    return np.stack([
        np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC), np.float32)
        for one in small
    ])


def boxes(index: int, width: int, height: int) -> dict[int, tuple[float, float, float, float]]:
    """Bounding boxes (x0,y0,x1,y1) in pixels of shape 1 (disc) and shape 2 (rectangle)."""
    t = index / 24.0
    x, y = (0.30 + 0.38 * t) * width, (0.40 + 0.16 * np.sin(6.0 * t)) * height
    r = 0.16 * min(width, height)
    u, v = (0.72 - 0.34 * t) * width, (0.70 - 0.10 * np.cos(5.0 * t)) * height
    half_w, half_h = 0.13 * width, 0.09 * height
    return {1: (x - r, y - r, x + r, y + r), 2: (u - half_w, v - half_h, u + half_w, v + half_h)}


def frames(count: int, width: int, height: int, seed: int = SEED) -> list[np.ndarray]:
    """`count` frames [height,width,3] uint8 RGB."""
    random = np.random.RandomState(seed)
    first, last = ground(random, width, height)
    colours = [tuple(int(c) for c in random.randint(0, 256, size=3)) for _ in range(3)]
    out = []
    for index in range(count):
        t = index / 24.0
        picture = Image.fromarray((first * (1 - t % 1) + last * (t % 1)).astype(np.uint8))
        draw = ImageDraw.Draw(picture)
        at = boxes(index, width, height)
        draw.rectangle(at[2], fill=colours[1])
        draw.ellipse(at[1], fill=colours[0])
        # A bar that sweeps over both shapes, so that scores and masks change.
        left = ((index * 0.07 + 0.1) % 1.3 - 0.15) * width
        draw.rectangle((left, 0, left + 0.10 * width, height), fill=colours[2])
        out.append(np.asarray(picture))
    return out


def shape_mask(index: int, shape: int, width: int, height: int) -> np.ndarray:
    """The disc (1) or rectangle (2) of frame `index` as [height,width] uint8 of 0/255."""
    picture = Image.new("L", (width, height))
    draw = ImageDraw.Draw(picture)
    (draw.ellipse if shape == 1 else draw.rectangle)(boxes(index, width, height)[shape], fill=255)
    return np.asarray(picture)

"""Runs a published video predictor frame by frame, prompts given as you go.

A family's `Driver(model, images)` has `reset`, `seed`, `correct`, `advance` and `collect`; this is
the order in which a stream calls them.
"""

import numpy as np
import torch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Pointer ages are divided by min(frames, 16) - 1 in the published code; a stream has no end.
LEAST_FRAMES = 16


def normalise(frames: list[np.ndarray]) -> torch.Tensor:
    """[N,3,S,S] f32 of uint8 RGB frames, in the order of operations of the published loader."""
    stack = np.stack(frames)
    images = torch.from_numpy(stack / 255.0).permute(0, 3, 1, 2).to(torch.float32).contiguous()
    images -= torch.tensor(MEAN, dtype=torch.float32)[:, None, None]
    images /= torch.tensor(STD, dtype=torch.float32)[:, None, None]
    return images


def start(family, model, frames: list[np.ndarray]):
    """A driver on SxS frames; a short clip is made long with copies of its last frame."""
    for frame in frames:
        if frame.shape != (model.image_size, model.image_size, 3):
            raise ValueError(f"frame: expected {model.image_size}x{model.image_size}x3, got {frame.shape}")
    padded = [*frames, *[frames[-1]] * (LEAST_FRAMES - len(frames))]
    return family.driver(model, normalise(padded))


def is_correction(prompt: dict, seen: set[int]) -> bool:
    """Points for an object that already has prompts correct; anything else seeds."""
    default = "points" in prompt and "box" not in prompt and prompt["object"] in seen
    return prompt.get("correct", default)


def run(driver, prompts: list[dict], masks: dict[str, np.ndarray], count: int) -> dict:
    """The first `count` frames; returns `logits_F_O` [h,w] and `score_F_O` [] f32 arrays.

    Frame by frame: seeding prompts of the frame, tracking up to it, then its corrections.
    """
    seen: set[int] = set()
    order = []
    for prompt in sorted(prompts, key=lambda p: p["frame"]):
        correct = is_correction(prompt, seen)
        seen.add(prompt["object"])
        order.append((prompt["frame"] + (1 if correct else 0), correct, prompt))
    done = None
    # A correction waits until its frame is tracked, so it comes before the next frame's seeds.
    for frame, correct, prompt in sorted(order, key=lambda item: (item[0], not item[1])):
        if done is not None and frame > done:
            driver.advance(done, frame - 1)
        (driver.correct if correct else driver.seed)(prompt, masks)
        done = frame
    if done < count:
        driver.advance(done, count - 1)
    return driver.collect()

"""Drives the published `SAM2VideoPredictor` on frames held in memory, prompts given as you go.

Only `load_video_frames` is replaced (it wants JPEG files or a video); every state, every step and
every number is made by the predictor's own methods.
"""

from unittest import mock

import numpy as np
import torch

from .sam2_family import MEAN, STD


def normalise(frames: list[np.ndarray]) -> torch.Tensor:
    """[N,3,S,S] f32 of uint8 RGB frames, in the order of operations of the published loader."""
    stack = np.stack(frames)
    images = torch.from_numpy(stack / 255.0).permute(0, 3, 1, 2).to(torch.float32).contiguous()
    images -= torch.tensor(MEAN, dtype=torch.float32)[:, None, None]
    images /= torch.tensor(STD, dtype=torch.float32)[:, None, None]
    return images


def start(model, frames: list[np.ndarray]) -> dict:
    """`init_state` on SxS frames."""
    for frame in frames:
        if frame.shape != (model.image_size, model.image_size, 3):
            raise ValueError(f"frame: expected {model.image_size}x{model.image_size}x3, got {frame.shape}")
    loaded = (normalise(frames), model.image_size, model.image_size)
    with mock.patch("sam2.sam2_video_predictor.load_video_frames", return_value=loaded):
        return model.init_state("frames")


def is_correction(prompt: dict, seen: set[int]) -> bool:
    """Points for an object that already has prompts correct; anything else seeds."""
    default = "points" in prompt and "box" not in prompt and prompt["object"] in seen
    return prompt.get("correct", default)


def _give(model, state: dict, prompt: dict, masks: dict[str, np.ndarray]) -> None:
    at = {"inference_state": state, "frame_idx": prompt["frame"], "obj_id": prompt["object"]}
    if "mask" in prompt:
        model.add_new_mask(**at, mask=masks[prompt["mask"]] > 127)
    else:
        model.add_new_points_or_box(**at, points=prompt.get("points"), labels=prompt.get("labels"),
                                    box=prompt.get("box"))


def _advance(model, state: dict, first: int, last: int) -> None:
    """Tracks frames first..=last of every object."""
    with mock.patch("sam2.sam2_video_predictor.tqdm", lambda frames, **_: frames):
        for _ in model.propagate_in_video(state, start_frame_idx=first,
                                          max_frame_num_to_track=last - first):
            pass


def run(model, state: dict, prompts: list[dict], masks: dict[str, np.ndarray]) -> dict:
    """All frames of `state`; returns `logits_F_O` [h,w] and `score_F_O` [] f32 arrays.

    Frame by frame: seeding prompts of the frame, tracking up to it, then its corrections.
    """
    last = state["num_frames"] - 1
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
            _advance(model, state, done, frame - 1)
        _give(model, state, prompt, masks)
        done = frame
    _advance(model, state, done, last)
    return collect(state)


def collect(state: dict) -> dict:
    """The final low-res logits and scores of every frame and object in `state`."""
    out = {}
    for index, outputs in state["output_dict_per_obj"].items():
        name = state["obj_idx_to_id"][index]
        for kind in ("cond_frame_outputs", "non_cond_frame_outputs"):
            for frame, made in outputs[kind].items():
                out[f"logits_{frame}_{name}"] = made["pred_masks"][0, 0].float().numpy().copy()
                out[f"score_{frame}_{name}"] = np.float32(made["object_score_logits"].item())
    return out

"""Random weights that behave: nothing is left at a value that hides a mistake.

Published initial values make position tables, layer scales and no-object embeddings vanish, keep
attention flat and scores constant, so that most tracking mistakes would not show. Here every tensor
is drawn with a gain, and the object score is then scaled so that objects are sometimes absent.
`numpy.random.RandomState` is frozen by numpy's policy: a seed gives the same weights for ever.
"""

import re

import numpy as np
import torch

from . import clip, predictor
from .layouts import State

# Gains over variance-preserving; the first match wins. Chosen so that each mistake in
# `tests/parity/ablations.py` shows well above the golden tolerance, and rounding noise does not.
GAINS = [
    (r"trunk\.patch_embed\.proj\.weight", 3.0),
    (r"trunk\.blocks\.\d+\.(attn\.proj|mlp\.layers\.1)\.weight", 0.7),
    # Residual branches that nothing normalises; at 1 they grow a millionfold over RepViT's blocks.
    (r"trunk\.body\..*(token_mixer\.conv1?|channel_mixer\.conv2)\.c\.weight", 0.3),
    (r"cross_attn_image\.[qk]_proj\.weight", 1.0),
    (r"cross_attn_image\.(v|out)_proj\.weight", 1.2),
    (r"obj_ptr_tpos_proj\.weight", 6.0),
    (r"transformer.*token_to_image\.[qk]_proj\.weight", 2.0),
    (r"transformer.*token_to_image\.(v|out)_proj\.weight", 2.0),
    (r"output_hypernetworks_mlps\.\d\.layers\.2\.weight", 0.6),
    (r"(pred_obj_score_head|output_hypernetworks_mlps\.\d|iou_prediction_head|obj_ptr_proj)"
     r"\.layers\.[01]\.weight", 1.5),
]
# Tensors that are added, not multiplied: standard deviations.
ADDED = [
    (r"maskmem_tpos_enc", 1.0),
    (r"trunk\.pos_embed", 0.5),
    (r"no_mem_embed", 0.7),
    (r"no_mem_pos_enc", 0.5),
    (r"no_obj_(ptr|embed_spatial)", 0.5),
    (r"\.gamma$", 0.5),
    (r"positional_encoding_gaussian_matrix", 1.0),
    (r"(token|tokens|embed|point_embeddings\.\d)\.weight$", 1.0),
    (r"spatial_perceiver\.latents(_2d)?$", 1.0),
]
CALIBRATION_FRAMES = 16
CLOSED_LOOP_SIZE = 128
BISECTIONS = 7
ABSENT_SHARE = 0.25
SCORE_SPREAD = 1.5
MOST_SCALE = 3.0
PRESENT = 1000.0


def _fan_in(name: str, shape: torch.Size) -> int:
    """Inputs that reach one output; transposed convolutions here have kernel = stride."""
    if re.search(r"output_upscaling\.[03]\.weight", name):
        return shape[0]
    return int(np.prod(shape[1:]))


def draw(state: State, seed: int, gains: tuple[tuple[str, float], ...] = ()) -> State:
    """A value for every tensor of `state`, which is in the official layout of any family.

    `gains` go before `GAINS`.
    """
    random = np.random.RandomState(seed)
    out = {}
    for name, tensor in sorted(state.items()):
        noise = random.standard_normal(tuple(tensor.shape))
        added = next((std for pattern, std in ADDED if re.search(pattern, name)), None)
        if name.endswith("running_var"):
            value = np.exp(0.3 * noise)
        elif name.endswith("num_batches_tracked"):
            out[name] = tensor
            continue
        elif added is not None:
            value = added * noise
        elif name.endswith("weight") and tensor.dim() == 1:
            value = 1.0 + 0.2 * noise
        elif tensor.dim() <= 1:
            value = 0.2 * noise
        else:
            gain = next((g for pattern, g in (*gains, *GAINS) if re.search(pattern, name)), 1.0)
            value = gain * noise / np.sqrt(_fan_in(name, tensor.shape))
        out[name] = torch.from_numpy(np.asarray(value, dtype=np.float32))
    return out


def _scores(driver, prompts: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the tracked frames, then those of the prompted ones; all prompts are on frame 0."""
    driver.reset()
    made = predictor.run(driver, prompts, {}, CALIBRATION_FRAMES)
    scores = {key: value for key, value in made.items() if key.startswith("score_")}
    prompted = np.array([scores.pop(f"score_0_{prompt['object']}") for prompt in prompts])
    return np.array(list(scores.values())), prompted


def _drawn(size: int) -> tuple[list[np.ndarray], list[dict]]:
    """The procedural clip and a box around either of its shapes."""
    boxes = clip.boxes(0, size, size)
    return clip.frames(CALIBRATION_FRAMES, size, size), [
        {"frame": 0, "object": shape, "box": [float(v) for v in boxes[shape]]} for shape in boxes]


def calibrate(family, model: torch.nn.Module) -> None:
    """Shifts and scales the object score so that about `ABSENT_SHARE` of a clip has score < 0.

    An absent object changes the memory and with it later scores, so small models are bisected in
    closed loop; large ones, slow to run, keep the first estimate.
    """
    size, layer = model.image_size, family.score_layer(model)
    frames, prompts = _drawn(size)
    driver = predictor.start(family, model, frames)
    layer.bias += PRESENT
    scores, prompted = (made - PRESENT for made in _scores(driver, prompts))
    if prompted.mean() < np.median(scores):  # prompts should find their object
        layer.weight *= -1
        layer.bias.copy_(2 * PRESENT - layer.bias)
        scores = -scores
    low, high = np.quantile(scores, [0.1, 0.9])
    scale = min(SCORE_SPREAD / max(float(high - low), 1e-3), MOST_SCALE)
    layer.weight *= scale
    bare = (layer.bias - PRESENT) * scale
    scores *= scale
    shift = -float(np.quantile(scores, ABSENT_SHARE))
    layer.bias.copy_(bare + shift)
    if size > CLOSED_LOOP_SIZE:
        return
    below, above = -float(scores.max()), -float(scores.min()) + SCORE_SPREAD
    for _ in range(BISECTIONS):
        layer.bias.copy_(bare + shift)
        if np.mean(_scores(driver, prompts)[0] <= 0) > ABSENT_SHARE:
            below = shift
        else:
            above = shift
        shift = (below + above) / 2
    # Only signs feed back, so zero may move to the middle of the gap it lies in: no score is a toss-up.
    layer.bias.copy_(bare + above)
    scores = np.concatenate(_scores(driver, prompts))
    if (scores > 0).any() and (scores <= 0).any():
        layer.bias -= float(scores[scores > 0].min() + scores[scores <= 0].max()) / 2


def random(family, model: torch.nn.Module, seed: int) -> None:
    """Draws, then calibrates on a procedural clip."""
    with torch.no_grad():
        family.restore(model, draw(family.official(model), seed))
        calibrate(family, model)

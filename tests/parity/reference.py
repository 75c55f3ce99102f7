"""Makes golden folders with the published `SAM2VideoPredictor`; the only file here that needs torch.

A golden folder holds `model/`, `frames/`, `prompts/SCENARIO.json`, `logits/SCENARIO.npz` and
`golden.json` (seed, versions, tolerance and how well-conditioned each scenario is).
"""

import json
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "engines" / "export"))

from sightline_export import EXPORTER, families, predictor, sam2_family, weights  # noqa: E402
from sightline_export.__main__ import export  # noqa: E402

import scenarios  # noqa: E402

CONFIG = ROOT / "tests" / "golden" / "sam2-tiny" / "config.yaml"
SIZE, MAX_COND, TOLERANCE = 128, 2, 1e-3
# Noise on the normalised image, the size of what another runtime's arithmetic adds.
NOISE = 1e-6
LEAST_SCORE, CENTRE_TRIES = 0.004, 6
PACKAGES = ("sam2", "torch", "onnx", "onnxruntime", "numpy", "pillow")


def logit_difference(a: dict, b: dict) -> float:
    """Max abs difference over `logits_*`."""
    return max(float(np.abs(a[key] - b[key]).max()) for key in a if key.startswith("logits_"))


def moved(driver, images: torch.Tensor, prompts: list[dict], masks: dict, made: dict) -> float:
    """How far the published logits move when the images get `NOISE`: what no tracker can beat."""
    noise = torch.Generator().manual_seed(0)
    driver.reset(images + NOISE * torch.randn(images.shape, generator=noise))
    try:
        return logit_difference(made, predictor.run(driver, prompts, masks, scenarios.FRAMES))
    finally:
        driver.reset(images)


def centre(family, driver, masks: dict) -> None:
    """Shifts the object score until none of any scenario is a toss-up.

    Only the sign of a score feeds back, so moving zero within the gap it lies in changes nothing
    else; if that gap is small, zero moves to the nearest wide one and everything runs again.
    """
    layer = family.score_layer(driver.model)
    for _ in range(CENTRE_TRIES):
        scores = []
        for name, prompts in scenarios.prompts(SIZE, SIZE).items():
            driver.reset()
            made = predictor.run(driver, prompts, masks, scenarios.FRAMES)
            scores += [float(v) for k, v in made.items()
                       if k.startswith("score_") and not (name == "mask" and abs(v) == 10)]
        scores = np.unique([-np.inf, *scores, np.inf])
        at = int(np.searchsorted(scores, 0.0, side="left"))
        if min(scores[at], -scores[at - 1]) >= LEAST_SCORE:
            return
        middle = (scores[1:] + scores[:-1]) / 2
        wide = np.diff(scores) >= 2.2 * LEAST_SCORE
        at = at - 1 if wide[at - 1] else int(np.where(wide, np.abs(middle), np.inf).argmin())
        with torch.no_grad():
            layer.bias -= float(middle[at])


def draw(seed: int):
    """The published predictor with the tiny config and the weights of `seed`, on its clip."""
    family = families.find("sam2.1")
    model = family.build(family.read_config(CONFIG, SIZE))
    weights.random(family, model, seed)
    driver = predictor.start(family, model, scenarios.frames(SIZE, SIZE))
    masks = {scenarios.MASK: scenarios.mask(SIZE, SIZE)}
    centre(family, driver, masks)
    return driver, masks


def make(folder: Path, seed: int, names: list[str] | None = None, say=print):
    """Writes a golden folder for a seed; returns (predictor, report by scenario)."""
    torch.set_num_threads(1)
    driver, masks = draw(seed)
    model, images = driver.model, predictor.normalise(scenarios.frames(SIZE, SIZE))
    (folder / "logits").mkdir(parents=True, exist_ok=True)
    report = {}
    for name, prompts in scenarios.prompts(SIZE, SIZE).items():
        if names and name not in names:
            continue
        driver.reset()
        made = predictor.run(driver, prompts, masks, scenarios.FRAMES)
        np.savez(folder / "logits" / f"{name}.npz", **made)
        scores = np.array([value for key, value in made.items() if key.startswith("score_")])
        far = moved(driver, images, prompts, masks, made)
        report[name] = {
            "outputs": len(scores), "absent": int((scores <= 0).sum()),
            "least_abs_score": round(float(np.abs(scores).min()), 5),
            "moved_by_noise": float(f"{far:.1e}"),
        }
    scenarios.write(folder, SIZE, SIZE)
    torch.save({"model": model.state_dict()}, folder / "checkpoint.pt")
    export("sam2.1", str(CONFIG), str(folder / "checkpoint.pt"), SIZE, MAX_COND, folder / "model",
           name="sam2-tiny", say=lambda line: say(f"  {line}"), with_parity_set=False)
    record = {"seed": seed, "exporter": EXPORTER, "tolerance": TOLERANCE, "noise": NOISE,
              "versions": {name: metadata.version(name) for name in PACKAGES}, "scenarios": report}
    (folder / "golden.json").write_text(json.dumps(record, indent=1) + "\n")
    return model, report


class Loaded(sam2_family.Driver):
    """The predictor on frames that its own loader has read and resized."""

    def __init__(self, model, folder: Path):
        self.model, self.state = model, model.init_state(str(folder))


def make_jpeg(folder: Path, model, name: str, width: int, height: int) -> None:
    """Frames of another size as JPEG, loaded and resized by the published loader itself."""
    scenarios.write(folder, width, height, suffix=".jpg")
    (folder / "logits").mkdir(exist_ok=True)
    driver = Loaded(model, folder / "frames")
    made = predictor.run(driver, scenarios.prompts(width, height)[name], {}, scenarios.FRAMES)
    np.savez(folder / "logits" / f"{name}.npz", **made)

"""The parity table: `python tests/parity/table.py --sightline BIN --data DIR`.

For every model a checkpoint is drawn, exported, and run by the real `sightline trace` and by the
published predictor on the same real frames (`real_clip.py`). Needs the environment of
`engines/export/setup_venv.sh`. Writes after every row; exit 1 if a difference is above the
tolerance without the published logits moving as far by themselves. Speed: `benches/compare`.
"""

import argparse
import datetime
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import onnx
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "engines" / "export"))

from sightline_export import ExportError, families, predictor, weights  # noqa: E402
from sightline_export.__main__ import export  # noqa: E402

import real_clip  # noqa: E402
import results  # noqa: E402
from results import NOISE, SEED  # noqa: E402

MAX_COND, TOLERANCE = 2, 1e-3
# The difference from which on it is worth asking what noise does.
NOTABLE = 1e-4
# What makes every score present, and keeps it exact to 4e-6; and how far above 0 the least one is moved, in
# spreads of all.
PRESENT, MARGIN = 32.0, 0.05
# At full size the gains of the small goldens make a network in which noise grows from frame to frame.
CALM = ((r"cross_attn_image\.[qkv]_proj\.weight", 0.7),)
SCORE_BIAS = re.compile(r"pred_obj_score_head\.(layers\.2|proj_out)\.bias$")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sightline", type=Path, required=True, metavar="BIN")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", metavar="DIR")
    parser.add_argument("--models", nargs="+", default=["tiny", "small", "base+", "large", "edgetam"],
                        metavar="SIZE[@PX][:GRAPHS]",
                        help="tiny|small|base+|large (SAM 2.1), 2.0-SIZE, or edgetam; fp16,int8 (the encoder) as well")
    parser.add_argument("--image-size", type=int, default=256, metavar="PX")
    parser.add_argument("--sequence", default="dog", help="a DAVIS sequence")
    parser.add_argument("--calibration", default="dog-agility", help="the DAVIS sequence int8 is calibrated on")
    parser.add_argument("--seed", type=int, default=SEED, help="of the drawn checkpoint")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.add_argument("--append", action="store_true", help="keep the rows of other models that are in --out")
    args = parser.parse_args()
    if not args.sightline.is_file():
        parser.error(f"--sightline: no such file: {args.sightline}")
    if not args.data.is_dir():
        parser.error(f"--data: no such folder: {args.data}")
    return args


class Entry(NamedTuple):
    """One of `--models`."""

    name: str
    size: int
    reduced: list[str]

    @classmethod
    def read(cls, text: str, size: int) -> "Entry":
        """`NAME[@PX][:fp16][,int8]`."""
        text, _, reduced = text.partition(":")
        name, _, px = text.partition("@")
        reduced = reduced.split(",") if reduced else []
        if not {"fp16", "int8"}.issuperset(reduced):
            raise ExportError(f"models: expected fp16 or int8 after the colon, got {','.join(reduced)}")
        return cls(name, int(px or size), reduced)

    def find(self) -> tuple[families.Family, str | None]:
        """Family and config."""
        if self.name == "edgetam":
            return families.find("edgetam"), None
        older = self.name.startswith("2.0-")
        return families.find("sam2.0" if older else "sam2.1"), self.name.removeprefix("2.0-")


def trace(binary: Path, folder: Path, case: Path, prompts: list[dict], threads: int) -> dict:
    """`BIN trace` on the frames of a case; scores as numbers."""
    path, out = case / "prompts.json", case / "out.npz"
    real_clip.write_prompts(path, prompts)
    command = [str(binary), "trace", "--model", str(folder), "--frames", str(case / "frames"),
               "--prompts", str(path), "--out", str(out), "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"table: sightline trace exited {done.returncode}:\n{done.stdout.strip()}")
    return {name: array.reshape(()) if name.startswith("score_") else array
            for name, array in np.load(out).items() if not name.startswith("iou_")}


def compare(got: dict, want: dict) -> dict:
    """Max abs differences and the intersection over union of the masks."""
    if got.keys() != want.keys():
        sys.exit(f"table: expected the arrays {sorted(want)[:3]}..., got {sorted(got)[:3]}...")
    far = {name: float(np.abs(np.float64(got[name]) - want[name]).max()) for name in want}
    logits = {name: value for name, value in far.items() if name.startswith("logits_")}
    overlaps = []
    for name in logits:
        a, b = got[name] > 0, want[name] > 0
        overlaps.append((a & b).sum() / (a | b).sum() if (a | b).any() else 1.0)
    return {"max_logit_diff": max(logits.values()), "iou_min": float(min(overlaps)),
            "max_score_diff": max(value for name, value in far.items() if name.startswith("score_")),
            "iou_mean": float(np.mean(overlaps)), "worst": max(logits, key=logits.get)}


def is_score(name: str, value) -> bool:
    """Whether an array is a score of the decoder's: a mask prompt's is 10 whatever it says."""
    return name.startswith("score_") and abs(value) != 10


def prompted(made: dict, prompts: list[dict], size: int) -> list[torch.Tensor]:
    """The logits [1,1,size,size] of the prompted frames, as the memory encoder enlarges them."""
    small = [torch.from_numpy(np.float32(made[f"logits_{prompt['frame']}_{prompt['object']}"])) for prompt in prompts]
    return [torch.nn.functional.interpolate(one[None, None], size=(size, size), mode="bilinear", align_corners=False)
            for one in small]


def flipped(got: dict, made: dict, prompts: list[dict], size: int) -> int:
    """Pixels of prompted masks on different sides of zero: each is a whole step in what is remembered."""
    pairs = zip(prompted(got, prompts, size), prompted(made, prompts, size), strict=True)
    return sum(int(((a > 0) != (b > 0)).sum()) for a, b in pairs)


def apart(made: dict, first: dict) -> float:
    """Max abs difference of the last frame's published logits, of the latest object from the first scenario's."""
    last = f"logits_{real_clip.FRAMES - 1}_"
    latest = max(name for name in made if name.startswith(last))
    return float(np.abs(made[latest] - first[f"{last}1"]).max())


def spread(made: dict) -> float:
    """Standard deviation of the logits of frames with the object on them."""
    there = [value for name, value in made.items()
             if name.startswith("logits_") and made[name.replace("logits", "score", 1)] > 0]
    return float(np.std(there)) if there else 0.0


def with_score(folder: Path, delta: float) -> Path:
    """A copy of a model whose object score is higher by `delta`; export again would take minutes."""
    other = folder.with_name("shifted")
    shutil.copytree(folder, other, dirs_exist_ok=True)
    manifest = (other / "model.toml").read_text()
    for path in (other / "decoder_track.onnx", other / "decoder_prompt.onnx"):
        before, model = path.read_bytes(), onnx.load(str(path))
        found = [value for value in model.graph.initializer if SCORE_BIAS.search(value.name)]
        if len(found) != 1:
            sys.exit(f"table: {path.name}: expected one object score bias, got {[value.name for value in found]}")
        moved = onnx.numpy_helper.to_array(found[0]) + np.float32(delta)
        found[0].CopyFrom(onnx.numpy_helper.from_array(moved, found[0].name))
        onnx.save(model, str(path))
        old, new = (hashlib.sha256(content).hexdigest() for content in (before, path.read_bytes()))
        manifest = manifest.replace(old, new)
    (other / "model.toml").write_text(manifest)
    return other


class Parity:
    """One model's rows: every scenario by the binary and by the published predictor."""

    def __init__(self, args, entry: Entry, family, model, clip):
        self.args, self.entry, self.family, self.model, self.clip = args, entry, family, model, clip
        self.images = predictor.normalise(clip.frames)
        self.driver = family.driver(model, self.images)
        self.driver.keep_features()
        self.masks = {real_clip.MASK: clip.mask()}
        self.made: dict[str, dict] = {}
        self.absent = 0.0

    def published(self, prompts: list[dict]) -> dict:
        """What the published predictor makes of prompts."""
        self.driver.reset()
        return predictor.run(self.driver, prompts, self.masks, real_clip.FRAMES)

    def settle(self) -> None:
        """Runs the published predictor, and shifts the object score of a drawn checkpoint so that prompts find.

        Objects then are there on every frame of every scenario but `absent`: one absent frame draws others
        after it, and a scenario that is nothing but -1024 agrees for nothing. Only the sign of a score feeds
        back, so that what was made with higher scores holds for the shifted ones.
        """
        layer, found, tracked = self.family.score_layer(self.model), [], []
        layer.bias += PRESENT
        for name, prompts in self.clip.scenarios().items():
            if name == "absent":
                continue
            asked = {f"score_{prompt['frame']}_{prompt['object']}" for prompt in prompts}
            made = self.made[name] = self.published(prompts)
            scores = {name: value - PRESENT for name, value in made.items() if is_score(name, value)}
            if min(scores.values()) <= -PRESENT:
                sys.exit(f"table: {self.entry.name}: expected scores above {-PRESENT:g}, got {min(scores.values())}")
            found += [value for name, value in scores.items() if name in asked]
            tracked += [value for name, value in scores.items() if name not in asked]
        layer.bias -= PRESENT
        sign = -1 if np.mean(found) < np.median(tracked) else 1
        layer.weight *= sign
        layer.bias *= sign
        scores = sign * np.array(found + tracked)
        shift = MARGIN * np.ptp(scores) - scores.min()
        layer.bias += float(shift)
        for made in self.made.values():
            made.update({name: np.float32(sign * (value - PRESENT) + shift)
                         for name, value in made.items() if is_score(name, value)})

    def vanish(self) -> None:
        """Makes `absent`: its median score is moved to 0."""
        prompts, bias = self.clip.scenarios()["absent"], self.family.score_layer(self.model).bias
        made = self.published(prompts)
        self.absent = -float(np.median([value for name, value in made.items() if name.startswith("score_")]))
        bias += self.absent
        self.made["absent"] = self.published(prompts)
        bias -= self.absent

    def moved(self, prompts: list[dict], made: dict) -> float:
        """How far its logits move under `NOISE`: what no tracker can beat."""
        noise = torch.Generator().manual_seed(0)
        driver = self.family.driver(self.model, self.images + NOISE * torch.randn(self.images.shape, generator=noise))
        other = predictor.run(driver, prompts, self.masks, real_clip.FRAMES)
        return max(float(np.abs(other[name] - made[name]).max()) for name in made if name.startswith("logits_"))

    def with_our_bits(self, prompts: list[dict], got: dict) -> float:
        """How far it is from ours when it remembers prompted frames by our masks instead of its own."""
        encode, masks = self.model._encode_new_memory, prompted(got, prompts, self.clip.size)

        def remember(*args, **kwargs):
            if kwargs["is_mask_from_pts"]:
                own = kwargs["pred_masks_high_res"]
                nearest = min(masks, key=lambda mask: float((mask - own.reshape(mask.shape)).abs().max()))
                kwargs["pred_masks_high_res"] = nearest.reshape(own.shape)
            return encode(*args, **kwargs)

        with mock.patch.object(self.model, "_encode_new_memory", remember):
            return compare(got, self.published(prompts))["max_logit_diff"]

    def rows(self, graphs: str, folder: Path, case: Path):
        """Yields a dictionary of `results.HEADER` a scenario and reference, for an exported `folder`."""
        for scenario, prompts in self.clip.scenarios().items():
            made, first = self.made[scenario], self.made["box"]
            model_folder = with_score(folder, self.absent) if scenario == "absent" else folder
            got = trace(self.args.sightline, model_folder, case, prompts, self.args.threads)
            row = self._row(scenario, graphs, "published", prompts, got, made)
            row |= {"moved_by_prompt": apart(made, first), "flipped": flipped(got, made, prompts, self.clip.size)}
            if row["flipped"] and row["moved_by_noise"] != "" and scenario != "absent":
                row["with_our_bits"] = self.with_our_bits(prompts, got)
            yield row
            if self.family.name == "edgetam" and graphs == "fp32" and scenario in ("mask", "correction"):
                self.driver.as_is = True
                yield self._row(scenario, graphs, "transformers as is", prompts, got, self.published(prompts))
                self.driver.as_is = False

    def _row(self, scenario: str, graphs: str, reference: str, prompts: list[dict], got: dict, made: dict) -> dict:
        found = compare(got, made)
        notable = reference == "published" and graphs == "fp32" and found["max_logit_diff"] > NOTABLE
        return {"model": self.entry.name, "family": self.family.name, "image_size": self.model.image_size,
                "graphs": graphs, "scenario": scenario, "reference": reference, "frames": real_clip.FRAMES,
                "absent": real_clip.absent_frames(made), "logit_std": spread(made), **found,
                "moved_by_noise": self.moved(prompts, made) if notable else ""}


def failed(row: dict) -> bool:
    """Above the tolerance, while the published predictor holds still under noise and does not agree with our bits."""
    return (row["reference"] == "published" and row["graphs"] == "fp32" and row["max_logit_diff"] > TOLERANCE
            and not (row["moved_by_noise"] and row["moved_by_noise"] > TOLERANCE)
            and not row.get("with_our_bits", np.inf) <= TOLERANCE)


def run(args, entry: Entry, made: results.Results) -> int:
    """Measures one of `--models`; returns how many rows failed."""
    started, (family, config), bad = time.monotonic(), entry.find(), 0
    made.replace(entry.name, entry.size)
    clip = real_clip.RealClip(args.data, args.sequence, entry.size)
    with tempfile.TemporaryDirectory() as scratch:
        folder, case, checkpoint = (Path(scratch) / name for name in ("model", "case", "checkpoint.pt"))
        model = family.build(family.read_config(family.config_path(config), entry.size))
        family.restore(model, weights.draw(family.official(model), args.seed, CALM))
        parity = Parity(args, entry, family, model, clip)
        parity.settle()
        parity.vanish()
        clip.write(case)
        torch.save({"model": family.official(model)}, checkpoint)
        for graphs in ("fp32", *entry.reduced):
            clips = [real_clip.pictures(args.data, args.calibration)] if graphs == "int8" else None
            export(family.name, config, str(checkpoint), entry.size, MAX_COND, folder, say=lambda _: None,
                   precision_name="fp16" if graphs == "fp16" else "fp32", int8_clips=clips, with_parity_set=False)
            for row in parity.rows(graphs, folder, case):
                made.parity.append(row)
                made.write()
                bad += failed(row)
                print(f"{entry.name:8} {entry.size:5} {graphs} {row['scenario']:11} {row['reference']:18} "
                      f"logits {row['max_logit_diff']:.1e} score {row['max_score_diff']:.1e} "
                      f"iou {row['iou_min']:.4f} absent {row['absent']:2} {row['moved_by_noise']} "
                      f"prompt {row.get('moved_by_prompt', 0):.1e} flipped {row.get('flipped', '')} "
                      f"{row.get('with_our_bits', '')}"
                      f" std {row['logit_std']:.1f}{' FAIL' if failed(row) else ''}", flush=True)
    made.write()
    print(f"{entry.name} {entry.size}: {time.monotonic() - started:.0f} s", flush=True)
    return bad


def main() -> int:
    """Exit 1 if anything that holds still differs."""
    args = parse()
    torch.set_num_threads(1)
    entries = [Entry.read(text, args.image_size) for text in args.models]
    made = results.Results(args, args.out or ROOT / "benches" / "results" / f"{datetime.date.today()}-parity")
    return 1 if sum(run(args, entry, made) for entry in entries) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ExportError as error:
        sys.exit(f"table: {error}")

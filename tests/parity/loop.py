"""A causal, constant-memory tracker over exported graphs: the reference for the Rust tracker.

It follows `engines/GRAPHS.md` and nothing else: it knows no torch and no family. Every rule that
can be got wrong is a small method, so that `ablations.py` can get it wrong on purpose.
"""

import json
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

Arrays = dict[str, np.ndarray]
CLAMP = 32.0


def bf16(x: np.ndarray) -> np.ndarray:
    """Rounds f32 to bfloat16, nearest even, kept as f32."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    bits = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


def antialias_matrix(inputs: int, outputs: int) -> np.ndarray:
    """[outputs,inputs] f32 weights of an antialiased bilinear resize, pixel centres at +0.5."""
    scale = inputs / outputs
    support = max(scale, 1.0)
    centre = (np.arange(outputs) + 0.5) * scale
    weight = 1.0 - np.abs(np.arange(inputs)[None] + 0.5 - centre[:, None]) / support
    weight = np.maximum(weight, 0.0)
    return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased bilinear resize of [H,W] to [height,width]."""
    rows, columns = antialias_matrix(image.shape[0], height), antialias_matrix(image.shape[1], width)
    return rows @ image.astype(np.float32) @ columns.T


class Model:
    """A model folder: `model.toml` and one single-threaded session a graph."""

    def __init__(self, folder: Path):
        self.toml = tomllib.loads((folder / "model.toml").read_text())
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.sessions = {
            name: ort.InferenceSession(str(folder / graph["file"]), options,
                                       providers=["CPUExecutionProvider"])
            for name, graph in self.toml["graphs"].items()
        }
        self.height, self.width = self.toml["image"]["height"], self.toml["image"]["width"]
        self.mask_shape = (self.toml["masks"]["height"], self.toml["masks"]["width"])
        self.constants = {k: np.float32(v) for k, v in self.toml.get("constants", {}).items()}

    def run(self, graph: str, given: Arrays) -> Arrays:
        """Runs a graph on the inputs it takes among `given`; outputs by name."""
        session = self.sessions[graph]
        taken = {value.name: given[value.name] for value in session.get_inputs()}
        for value in session.get_inputs():
            # What is said of slots is said of each object's where the graph takes several objects.
            if len(value.shape) == taken[value.name].ndim + 1:
                taken[value.name] = taken[value.name][None]
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(names, taken), strict=True))

    def encode(self, frame: np.ndarray) -> Arrays:
        """[H,W,3] uint8 RGB of the model's size -> feature levels."""
        image = self.toml["image"]
        pixels = frame.astype(np.float32) / np.float32(255)
        pixels = (pixels - np.float32(image["mean"])) / np.float32(image["std"])
        tensor = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
        return self.run("image_encoder", {"image": tensor})


class Entry:
    """What one frame leaves behind: memory [T,C], pointer [P], final logits [h,w] and score."""

    def __init__(self, frame: int, mem: np.ndarray, pointer: np.ndarray | None):
        self.frame, self.mem, self.pointer = frame, mem, pointer


class Tracker:
    """One object. `seed`, `track` and `correct` return (logits [h,w], score)."""

    def __init__(self, model: Model):
        self.model, toml = model, model.toml
        self.memory, self.prompts = toml["memory"], toml["prompts"]
        self.pointers = toml.get("pointers", {"channels": 0, "recent": 0})
        self.cond: list[Entry] = []
        self.tracked: dict[int, Entry] = {}
        self.previous: np.ndarray | None = None
        self.conditioned: np.ndarray | None = None

    # Rules of the slots.

    def tpos(self, back: int) -> int:
        """Temporal row of the `back`-th recent slot; 0 means a conditioning frame."""
        return back - 1 if back else self.memory["recent"]

    def recent_frame(self, now: int, back: int) -> int:
        """The frame in the `back`-th recent slot."""
        if back == 1:
            return now - 1
        stride = self.memory["stride"]
        return ((now - 2) // stride) * stride - (back - 2) * stride

    def pointer_ages(self) -> range:
        """Ages of tracked frames whose pointers are read."""
        return range(1, self.pointers["recent"] + 1)

    def cond_age(self, now: int, entry: Entry) -> float:
        """Age of a conditioning pointer, as long as it is."""
        return now - entry.frame

    def keep(self, mem: np.ndarray) -> np.ndarray:
        """How memory is stored."""
        return bf16(mem) if self.memory["dtype"] == "bf16" else mem

    def keep_pointer(self, pointer: np.ndarray) -> np.ndarray:
        """How pointers are stored."""
        return pointer

    def slots(self, now: int) -> Arrays:
        """The static inputs of `memory_attention`; unused slots are zero."""
        memory, pointers, cap = self.memory, self.pointers, self.memory["max_cond"]
        near, far = cap + memory["recent"], cap + pointers["recent"]
        out = {
            "mem": np.zeros((1, near, memory["tokens"], memory["channels"]), np.float32),
            "tpos_idx": np.zeros(near, np.int64), "mem_mask": np.zeros(near, np.float32),
            "obj_ptrs": np.zeros((1, far, pointers["channels"]), np.float32),
            "ptr_tdiff": np.zeros(far, np.float32), "ptr_mask": np.zeros(far, np.float32),
        }
        mems = [(0, entry) for entry in self.cond]
        ptrs = [(self.cond_age(now, entry), entry) for entry in self.cond]
        for back in range(1, memory["recent"] + 1):
            entry = self.tracked.get(self.recent_frame(now, back))
            if entry is not None:
                mems.append((back, entry))
        for age in self.pointer_ages():
            entry = self.tracked.get(now - age)
            if entry is not None:
                ptrs.append((age, entry))
        for slot, (back, entry) in enumerate(mems):
            out["mem"][0, slot] = entry.mem
            out["tpos_idx"][slot], out["mem_mask"][slot] = self.tpos(back), 1
        for slot, (age, entry) in enumerate(ptrs):
            out["obj_ptrs"][0, slot] = entry.pointer
            out["ptr_tdiff"][slot], out["ptr_mask"][slot] = age, 1
        return out

    # Rules of a step.

    def unconditioned(self, feats: Arrays, mask: bool) -> np.ndarray:
        """`pix_feat` of a conditioning frame."""
        top = feats[self.model.toml["features"]["top"]]
        return top if mask else top + self.model.constants["no_mem_embed"][None, :, None, None]

    def pad(self, points: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points [P,2] and labels [P] with the padding point."""
        if not self.prompts["pad_point"]:
            return points, labels
        return np.concatenate((points, [[0, 0]])), np.concatenate((labels, [-1]))

    def multimask(self, count: int) -> int:
        """1 iff the best of several masks is wanted for `count` points."""
        return int(0 < count <= self.prompts["multimask_max_points"])

    def clamp(self, logits: np.ndarray) -> np.ndarray:
        """Logits [h,w] as a mask input."""
        return np.clip(logits, -CLAMP, CLAMP)

    def memory_feats(self, feats: Arrays, pix_feat: np.ndarray) -> Arrays:
        """What the memory encoder sees: the raw levels."""
        return feats

    def binarize(self, prompted: bool) -> float:
        """1 for a prompted frame."""
        return float(prompted)

    def remember(self, frame: int, feats: Arrays, pix_feat: np.ndarray, logits: np.ndarray,
                 score: float, pointer: np.ndarray | None, prompted: bool) -> Entry:
        """Runs the memory encoder on final logits [h,w]."""
        made = self.model.run("memory_encoder", {
            **self.memory_feats(feats, pix_feat), "low_res_mask": logits[None, None],
            "object_score": np.float32([[score]]), "binarize": np.float32([self.binarize(prompted)]),
        })
        return Entry(frame, self.keep(made["mem"][0]), pointer)

    def decode(self, feats: Arrays, pix_feat: np.ndarray, points: np.ndarray, labels: np.ndarray,
               mask_input: np.ndarray | None, multimask: int) -> Arrays:
        """`decoder_prompt`; points in pixels of the model's input, without padding."""
        coords, labels = self.pad(points, labels)
        mask = np.zeros(self.model.mask_shape, np.float32) if mask_input is None else mask_input
        return self.model.run("decoder_prompt", {
            **feats, "pix_feat": pix_feat, "prev_low_res_mask": self.prev_mask(),
            "point_coords": np.float32(coords)[None], "point_labels": np.float32(labels)[None],
            "mask_input": mask[None, None], "has_mask_input": np.float32([mask_input is not None]),
            "multimask": np.int64([multimask]),
        })

    def prev_mask(self) -> np.ndarray:
        """`prev_low_res_mask` [1,1,h,w]; zeros before the first frame."""
        if self.previous is None:
            return np.zeros((1, 1, *self.model.mask_shape), np.float32)
        return self.clamp(self.previous)[None, None]

    def add_cond(self, entry: Entry) -> None:
        """At most `max_cond` conditioning frames: the first one and the latest."""
        self.cond.append(entry)
        if len(self.cond) > self.memory["max_cond"]:
            del self.cond[1 if self.memory["max_cond"] > 1 else 0]

    def add_tracked(self, entry: Entry) -> None:
        """Recent memory; what no later frame can read is dropped."""
        self.tracked[entry.frame] = entry
        keep = max(self.pointers["recent"], (self.memory["recent"] + 1) * self.memory["stride"])
        for frame in [frame for frame in self.tracked if frame <= entry.frame - keep]:
            del self.tracked[frame]

    def seed(self, frame: int, feats: Arrays, points: np.ndarray, labels: np.ndarray):
        """A conditioning frame from points or a box (labels 2, 3)."""
        pix_feat = self.unconditioned(feats, mask=False)
        made = self.decode(feats, pix_feat, points, labels, None, self.multimask(len(points)))
        return self._finish(frame, feats, pix_feat, made, prompted=True, cond=True)

    def low_res(self, mask: np.ndarray) -> np.ndarray:
        """+-10 logits of a 0/1 mask [H,W], antialiased /4."""
        return resize(mask * np.float32(20) - np.float32(10), *self.model.mask_shape)

    def mask_score(self, mask: np.ndarray, made: Arrays) -> float:
        """Object score of a mask prompt: the mask decides, not the decoder."""
        return 10.0 if mask.any() else -10.0

    def seed_mask(self, frame: int, feats: Arrays, mask: np.ndarray):
        """A conditioning frame from a 0/1 mask [H,W] of the model's size."""
        pix_feat, pointer, made = self.unconditioned(feats, mask=True), None, {}
        if self.prompts.get("mask_decoder"):
            small = self.model.run("mask_downsample", {"mask": mask[None, None]})["mask_prompt"][0, 0]
            made = self.decode(feats, pix_feat, np.zeros((1, 2)), -np.ones(1), small, 0)
            pointer = made["obj_ptr"][0] if mask.any() else self.model.constants["no_obj_ptr"]
        made = {"low_res_mask": self.low_res(mask)[None, None], "obj_ptr": pointer[None],
                "object_score": np.float32([[self.mask_score(mask, made)]])}
        return self._finish(frame, feats, pix_feat, made, prompted=True, cond=True)

    def track(self, frame: int, feats: Arrays):
        """A frame without a prompt."""
        given = {**feats, **self.slots(frame), "prev_low_res_mask": self.prev_mask()}
        self.conditioned = self.model.run("memory_attention", given)["pix_feat"]
        made = self.model.run("decoder_track", {**given, "pix_feat": self.conditioned})
        return self._finish(frame, feats, self.conditioned, made, prompted=False, cond=False)

    def correction_feat(self, feats: Arrays) -> np.ndarray:
        """`pix_feat` of a correction: the one the frame was tracked with."""
        return self.conditioned

    def correct(self, frame: int, feats: Arrays, points: np.ndarray, labels: np.ndarray):
        """Clicks on the frame tracked last; replaces what it left in memory."""
        pix_feat = self.correction_feat(feats)
        made = self.decode(feats, pix_feat, points, labels, self.clamp(self.previous),
                           self.multimask(len(points)))
        return self._finish(frame, feats, pix_feat, made, prompted=True, cond=False)

    def written(self, score: float, prompted: bool) -> bool:
        """Whether a frame enters memory."""
        least = self.memory.get("min_object_score")
        return prompted or least is None or score > least

    def _finish(self, frame, feats, pix_feat, made: Arrays, prompted: bool, cond: bool):
        logits, score = made["low_res_mask"][0, 0], float(made["object_score"][0, 0])
        pointer = self.keep_pointer(made["obj_ptr"][0]) if "obj_ptr" in made else None
        if self.written(score, prompted):
            entry = self.remember(frame, feats, pix_feat, logits, score, pointer, prompted)
            self.add_cond(entry) if cond else self.add_tracked(entry)
        self.previous = logits
        return logits, np.float32(score)


def is_correction(prompt: dict, seen: set[int]) -> bool:
    """Points for an object that already has prompts correct; anything else seeds."""
    default = "points" in prompt and "box" not in prompt and prompt["object"] in seen
    return prompt.get("correct", default)


def point_arrays(prompt: dict, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [P,2] in pixels of the model's input and labels [P]; a box comes first."""
    points, labels = list(prompt.get("points", [])), list(prompt.get("labels", []))
    if "box" in prompt:
        x0, y0, x1, y1 = prompt["box"]
        points, labels = [[x0, y0], [x1, y1], *points], [2, 3, *labels]
    return np.array(points, np.float64) * scale, np.array(labels, np.float64)


def trace(model: Model, frames: list[np.ndarray], prompts: list[dict], folder: Path,
          tracker=Tracker) -> Arrays:
    """Runs all frames; returns `logits_F_O` [h,w] and `score_F_O` [], final ones."""
    objects: dict[int, Tracker] = {}
    out: Arrays = {}
    for frame, picture in enumerate(frames):
        height, width = picture.shape[:2]
        if (height, width) != (model.height, model.width):
            size = (model.width, model.height)
            picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
        scale = np.array([model.width / width, model.height / height])
        feats = model.encode(picture)
        results, corrections = {}, []
        for prompt in [p for p in prompts if p["frame"] == frame]:
            name = prompt["object"]
            if is_correction(prompt, set(objects)):
                corrections.append(prompt)
                continue
            objects.setdefault(name, tracker(model))
            if "mask" in prompt:
                mask = np.asarray(Image.open(folder / prompt["mask"]).convert("L")) > 127
                if mask.shape != (model.height, model.width):
                    mask = resize(mask, model.height, model.width) >= 0.5
                results[name] = objects[name].seed_mask(frame, feats, mask.astype(np.float32))
            else:
                results[name] = objects[name].seed(frame, feats, *point_arrays(prompt, scale))
        for name, state in objects.items():
            if name not in results:
                results[name] = state.track(frame, feats)
        for prompt in corrections:
            name = prompt["object"]
            results[name] = objects[name].correct(frame, feats, *point_arrays(prompt, scale))
        for name, (logits, score) in results.items():
            out[f"logits_{frame}_{name}"], out[f"score_{frame}_{name}"] = logits, score
    return out


def read_frames(folder: Path) -> list[np.ndarray]:
    """The PNG or JPEG files of a folder by name, [H,W,3] uint8 RGB."""
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in {".png", ".jpg", ".jpeg"})
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def trace_files(model: Path, frames: Path, prompts: Path, tracker=Tracker) -> Arrays:
    """What `sightline trace --model --frames --prompts` computes."""
    return trace(Model(model), read_frames(frames), json.loads(prompts.read_text()), prompts.parent,
                 tracker)

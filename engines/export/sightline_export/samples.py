"""The six graphs of a family, with random inputs on which each is compared with the published code."""

from dataclasses import dataclass
from typing import Callable

import torch

from .graph import Graph, Tensors
from .onnx_file import OBJECTS, PICTURES, SLOTS

# What is said of slots has no leading size where there is one object to say it of.
OF_SLOTS = ("tpos_idx", "mem_mask", "ptr_tdiff", "ptr_mask")
# Where memory attention's inputs count memory slots, for several objects.
SLOT_AXES = {"mem": 1, "tpos_idx": 1, "mem_mask": 1}


@dataclass(frozen=True)
class Sizes:
    """The numbers of one model that shape its graphs."""

    image: int
    side: int
    tokens: int
    hidden: int
    memory: int
    recent: int
    ptr_recent: int


class Shapes:
    """Random inputs that fit the sizes of one model."""

    def __init__(self, sizes: Sizes, max_cond: int, seed: int = 0):
        self.sizes, self.max_cond = sizes, max_cond
        self.size, self.side = sizes.image, sizes.side
        self.recent, self.ptr_recent = sizes.recent, sizes.ptr_recent
        self.random = torch.Generator().manual_seed(seed)

    def noise(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        """Normal noise [*shape]."""
        return torch.randn(*shape, generator=self.random) * scale

    def levels(self) -> Tensors:
        """Random feature levels as `image_encoder` gives them."""
        wide, side = self.sizes.hidden, self.side
        return {"feat_s0": self.noise(1, wide // 8, side * 4, side * 4),
                "feat_s1": self.noise(1, wide // 4, side * 2, side * 2)}

    def pix_feat(self) -> torch.Tensor:
        """[1,C,F,F]."""
        return self.noise(1, self.sizes.hidden, self.side, self.side)

    def memories(self, cond: int, tracked: int) -> Tensors:
        """Slots with `cond` conditioning and `tracked` tracked frames; the rest zero and unused."""
        sizes, tokens = self.sizes, self.sizes.tokens
        slots, ptrs = self.max_cond + self.recent, self.max_cond + self.ptr_recent
        near = min(tracked, self.recent)
        out = {
            "feat_s2": self.pix_feat(),
            "mem": torch.zeros(1, slots, tokens, sizes.memory),
            "tpos_idx": torch.zeros(slots, dtype=torch.int64),
            "mem_mask": torch.zeros(slots),
            "obj_ptrs": torch.zeros(1, ptrs, sizes.hidden),
            "ptr_tdiff": torch.zeros(ptrs),
            "ptr_mask": torch.zeros(ptrs),
        }
        rows = [self.recent] * cond + list(range(near))
        out["mem"][0, : len(rows)] = self.noise(len(rows), tokens, sizes.memory)
        out["tpos_idx"][: len(rows)] = torch.tensor(rows)
        out["mem_mask"][: len(rows)] = 1
        ages = [tracked + 1 + 3 * i for i in range(cond)]
        ages += list(range(1, min(tracked, self.ptr_recent) + 1))
        out["obj_ptrs"][0, : len(ages)] = self.noise(len(ages), sizes.hidden)
        out["ptr_tdiff"][: len(ages)] = torch.tensor(ages, dtype=torch.float32)
        out["ptr_mask"][: len(ages)] = 1
        return out

    def prompt(self, points: int, has_mask: bool, multimask: bool) -> Tensors:
        """`points` random points and the padding point."""
        coords = torch.rand(1, points + 1, 2, generator=self.random) * self.size
        labels = torch.tensor([[2.0, 3.0][:points] if points == 2 else [1.0] * points])
        coords[:, -1] = 0
        return {
            "pix_feat": self.pix_feat(), **self.levels(), "point_coords": coords,
            "point_labels": torch.cat((labels, -torch.ones(1, 1)), dim=1),
            "mask_input": self.noise(1, 1, self.side * 4, self.side * 4, scale=8.0),
            "has_mask_input": torch.tensor([float(has_mask)]),
            "multimask": torch.tensor([int(multimask)]),
        }

    def frame(self, binarize: bool, score: float) -> Tensors:
        """What `memory_encoder` takes."""
        low = self.noise(1, 1, self.side * 4, self.side * 4, scale=4.0)
        return {"feat_s2": self.pix_feat(), "low_res_mask": low,
                "object_score": torch.tensor([[score]]), "binarize": torch.tensor([float(binarize)])}


def present(model, reference, draw, tries: int = 40) -> Tensors:
    """A drawn sample whose object is present, if one comes up: an absent one has no mask to compare."""
    for _ in range(tries):
        sample = draw()
        if reference(model, sample)["object_score"].item() > 0:
            break
    return sample


def stack(samples: list[Tensors], own_pictures: bool = False) -> Tensors:
    """Samples of one object each as one of several, in the most slots any uses: all on the first one's features, or
    each on its own."""
    used = max((int(sample["mem_mask"].sum()) for sample in samples if "mem_mask" in sample), default=0)
    out = {}
    for name, first in samples[0].items():
        each = [sample[name][None] if name in OF_SLOTS else sample[name] for sample in samples]
        together = first if name.startswith("feat_") and not own_pictures else torch.cat(each)
        out[name] = together.narrow(SLOT_AXES[name], 0, used) if name in SLOT_AXES else together
    return out


def one_by_one(reference: Callable[[Tensors], Tensors]) -> Callable[[Tensors], Tensors]:
    """A reference of one object for several: each by itself."""
    def run(given: Tensors) -> Tensors:
        objects = max(len(value) for name, value in given.items() if name not in OF_SLOTS)
        own = {name: value for name, value in given.items() if not name.startswith("feat_") or len(value) == objects}
        made = [reference(given | {name: value[i] if name in OF_SLOTS else value[i : i + 1]
                                   for name, value in own.items()}) for i in range(objects)]
        return {name: torch.cat([one[name] for one in made]) for name in made[0]}
    return run


def opened(graph: Graph) -> Graph:
    """The same graph for any number of objects and of memory slots, on one picture or each on its own.

    It is traced with two of each, as one would leave constants behind, and compared on one, two and four.
    """
    dynamic = {name: {0: PICTURES if name.startswith("feat_") else OBJECTS} for name in (*graph.inputs, *graph.outputs)}
    for name in SLOT_AXES.keys() & graph.inputs.keys():
        dynamic[name][SLOT_AXES[name]] = SLOTS
    ones = graph.samples
    several = [stack((ones * 4)[:count], own) for count in (2, 4) for own in (False, True)]
    samples = [*(stack([one]) for one in ones), *several]
    return Graph(graph.name, graph.module, several[1], graph.outputs, one_by_one(graph.reference), samples, dynamic)


def graphs(model, sizes: Sizes, max_cond: int, closed: bool, nets, published) -> list[Graph]:
    """The six graphs of a loaded model: `nets` has their modules, `published` their references.

    `closed`: one object and all memory slots in every run.
    """
    give = Shapes(sizes, max_cond)
    memory = [give.memories(max_cond, 30), give.memories(1, 1), give.memories(1, 4)]
    prompts = [present(model, published.decoder_prompt, lambda kind=kind: give.prompt(*kind))
               for kind in ((2, False, False), (1, False, True), (1, True, True), (3, True, False))]
    frames = [give.frame(False, 3.0), give.frame(True, 3.0), give.frame(False, -3.0)]
    image = {"image": give.noise(1, 3, sizes.image, sizes.image)}
    tracks = [present(model, published.decoder_track, lambda levels=give.levels(): {"pix_feat": give.pix_feat(), **levels})
              for _ in range(4)]
    mask = {"mask": (give.noise(1, 1, sizes.image, sizes.image) > 0).float()}
    heads = ["low_res_mask", "iou", "obj_ptr", "object_score"]
    points = {"point_coords": {1: "points"}, "point_labels": {1: "points"}}

    def graph(name, module, samples, outputs, dynamic=None):
        reference = getattr(published, name)
        return Graph(name, module, samples[0], outputs, lambda given: reference(model, given), samples, dynamic or {})

    several = (lambda graph: graph) if closed else opened
    return [
        graph("image_encoder", nets.ImageEncoder(model), [image], ["feat_s0", "feat_s1", "feat_s2"]),
        several(graph("memory_attention", nets.MemoryAttention(model), memory, ["pix_feat"])),
        graph("decoder_prompt", nets.DecoderPrompt(model), prompts, heads, points),
        several(graph("decoder_track", nets.DecoderTrack(model), tracks, heads)),
        several(graph("memory_encoder", nets.MemoryEncoder(model), frames, ["mem"])),
        graph("mask_downsample", nets.MaskDownsample(model), [mask], ["mask_prompt"]),
    ]

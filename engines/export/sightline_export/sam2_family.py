"""SAM 2.0 and 2.1: building the published predictor, its graphs and its entry in `model.toml`."""

from pathlib import Path

import sam2
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import ExportError
from . import sam2_graphs as nets
from .graph import Graph, Tensors

PACKAGE = Path(sam2.__file__).parent
STEMS = {"tiny": "t", "small": "s", "base+": "b+", "large": "l"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# What `build_sam2_video_predictor` adds to a config, but for hole filling, which needs CUDA.
PREDICTOR = {
    "_target_": "sam2.sam2_video_predictor.SAM2VideoPredictor",
    "binarize_mask_from_pts_for_mem_enc": True,
    "fill_hole_area": 0,
    "compile_image_encoder": False,
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
}


def config_path(folder: str, prefix: str, config: str) -> Path:
    """`tiny|small|base+|large` -> the published yaml; anything else is a file."""
    if config in STEMS:
        return PACKAGE / "configs" / folder / f"{prefix}_{STEMS[config]}.yaml"
    path = Path(config)
    if not path.is_file():
        raise ExportError(f"config: expected {'|'.join(STEMS)} or a yaml file, got {config!r}")
    return path


def read_config(path: Path, image_size: int):
    """The yaml with `image_size` set, as the published `SAM2Base` config."""
    if image_size < 64 or image_size % 32:
        raise ExportError(f"image size: expected a multiple of 32 from 64 up, got {image_size}")
    try:
        config = OmegaConf.load(path)
    except Exception as error:  # yaml raises several families of errors
        raise ExportError(f"config {path.name}: not readable as yaml: {first_line(error)}") from error
    if "model" not in config:
        raise ExportError(f"config {path.name}: expected a `model` section, got none")
    config.model.image_size = image_size
    return config


def build(config) -> torch.nn.Module:
    """The published `SAM2VideoPredictor` of a config, evaluation mode, weights not yet set."""
    config = OmegaConf.merge(config, {"model": PREDICTOR})
    try:
        OmegaConf.resolve(config)
        model = instantiate(config.model, _recursive_=True).eval()
    except (OmegaConfBaseException, Exception) as error:
        raise ExportError(f"config: the published classes refuse it: {first_line(error)}") from error
    if not model.directly_add_no_mem_embed or not model.use_obj_ptrs_in_encoder:
        raise ExportError("config: expected directly_add_no_mem_embed and use_obj_ptrs_in_encoder")
    if not model.use_high_res_features_in_sam or not model.use_mask_input_as_output_without_sam:
        raise ExportError(
            "config: expected use_high_res_features_in_sam and use_mask_input_as_output_without_sam"
        )
    if model.multimask_min_pt_num != 0 or not model.multimask_output_in_sam:
        raise ExportError("config: expected multimask_output_in_sam with multimask_min_pt_num 0")
    if model.hidden_dim % model.mem_dim:
        raise ExportError(f"config: memory width {model.mem_dim} does not divide {model.hidden_dim}")
    return model.requires_grad_(False)


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def manifest(model, max_cond: int) -> dict:
    """The sections of `model.toml` that do not depend on the files."""
    size, side = model.image_size, model.image_size // 4
    return {
        "image": {"height": size, "width": size, "mean": list(MEAN), "std": list(STD),
                  "filter": "bicubic"},
        "features": {"top": "feat_s2"},
        "masks": {"height": side, "width": side},
        "memory": {"tokens": model.sam_image_embedding_size ** 2, "channels": model.mem_dim,
                   "recent": model.num_maskmem - 1, "stride": model.memory_temporal_stride_for_eval,
                   "max_cond": max_cond, "dtype": "bf16"},
        "pointers": {"channels": model.hidden_dim, "recent": model.max_obj_ptrs_in_encoder - 1},
        "prompts": {"points": True, "box": True, "mask": True, "mask_decoder": True,
                    "pad_point": True, "multimask_max_points": model.multimask_max_pt_num},
        "constants": {"no_mem_embed": model.no_mem_embed.flatten().tolist(),
                      "no_obj_ptr": model.no_obj_ptr.flatten().tolist()},
    }


class Shapes:
    """The sizes of one model, and random inputs that fit them."""

    def __init__(self, model, max_cond: int, seed: int = 0):
        self.model, self.max_cond = model, max_cond
        self.size, self.side = model.image_size, model.sam_image_embedding_size
        self.recent, self.ptr_recent = model.num_maskmem - 1, model.max_obj_ptrs_in_encoder - 1
        self.random = torch.Generator().manual_seed(seed)

    def noise(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        """Normal noise [*shape]."""
        return torch.randn(*shape, generator=self.random) * scale

    def levels(self) -> Tensors:
        """Random feature levels as `image_encoder` gives them."""
        wide, side = self.model.hidden_dim, self.side
        return {"feat_s0": self.noise(1, wide // 8, side * 4, side * 4),
                "feat_s1": self.noise(1, wide // 4, side * 2, side * 2)}

    def pix_feat(self) -> torch.Tensor:
        """[1,C,F,F]."""
        return self.noise(1, self.model.hidden_dim, self.side, self.side)

    def memories(self, cond: int, tracked: int) -> Tensors:
        """Slots with `cond` conditioning and `tracked` tracked frames; the rest zero and unused."""
        model, tokens = self.model, self.side ** 2
        slots, ptrs = self.max_cond + self.recent, self.max_cond + self.ptr_recent
        near = min(tracked, self.recent)
        out = {
            "feat_s2": self.pix_feat(),
            "mem": torch.zeros(1, slots, tokens, model.mem_dim),
            "tpos_idx": torch.zeros(slots, dtype=torch.int64),
            "mem_mask": torch.zeros(slots),
            "obj_ptrs": torch.zeros(1, ptrs, model.hidden_dim),
            "ptr_tdiff": torch.zeros(ptrs),
            "ptr_mask": torch.zeros(ptrs),
        }
        rows = [self.recent] * cond + list(range(near))
        out["mem"][0, : len(rows)] = self.noise(len(rows), tokens, model.mem_dim)
        out["tpos_idx"][: len(rows)] = torch.tensor(rows)
        out["mem_mask"][: len(rows)] = 1
        ages = [tracked + 1 + 3 * i for i in range(cond)]
        ages += list(range(1, min(tracked, self.ptr_recent) + 1))
        out["obj_ptrs"][0, : len(ages)] = self.noise(len(ages), model.hidden_dim)
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


def graphs(model, max_cond: int) -> list[Graph]:
    """The six graphs of a loaded predictor."""
    from . import sam2_reference as published

    give = Shapes(model, max_cond)
    memory = [give.memories(1, 1), give.memories(max_cond, 30), give.memories(1, 4)]
    prompts = [present(model, published.decoder_prompt, lambda kind=kind: give.prompt(*kind))
               for kind in ((2, False, False), (1, False, True), (1, True, True), (3, True, False))]
    frames = [give.frame(False, 3.0), give.frame(True, 3.0), give.frame(False, -3.0)]
    image = {"image": give.noise(1, 3, model.image_size, model.image_size)}
    track = present(model, published.decoder_track,
                    lambda: {"pix_feat": give.pix_feat(), **give.levels()})
    mask = {"mask": (give.noise(1, 1, model.image_size, model.image_size) > 0).float()}
    heads = ["low_res_mask", "iou", "obj_ptr", "object_score"]
    points = {"point_coords": {1: "points"}, "point_labels": {1: "points"}}

    def graph(name, module, inputs, outputs, samples=None, dynamic=None):
        reference = getattr(published, name)
        return Graph(name, module, inputs, outputs, lambda given: reference(model, given),
                     samples or [inputs], dynamic or {})

    return [
        graph("image_encoder", nets.ImageEncoder(model), image, ["feat_s0", "feat_s1", "feat_s2"]),
        graph("memory_attention", nets.MemoryAttention(model), memory[1], ["pix_feat"], memory),
        graph("decoder_prompt", nets.DecoderPrompt(model), prompts[0], heads, prompts, points),
        graph("decoder_track", nets.DecoderTrack(model), track, heads),
        graph("memory_encoder", nets.MemoryEncoder(model), frames[0], ["mem"], frames),
        graph("mask_downsample", nets.MaskDownsample(model), mask, ["mask_prompt"]),
    ]

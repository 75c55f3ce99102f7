"""SAM 2.0 and 2.1: building the published predictor, its graphs and its entry in `model.toml`."""

from pathlib import Path
from unittest import mock

import numpy as np
import sam2
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import ExportError, samples
from . import sam2_graphs as nets
from .graph import Graph
from .layouts import State
from .predictor import MEAN, STD

PACKAGE = Path(sam2.__file__).parent
STEMS = {"tiny": "t", "small": "s", "base+": "b+", "large": "l"}


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


def config_path(config: str, folder: str, prefix: str) -> Path:
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


def dump_config(config) -> tuple[str, str]:
    """File name and text of the config as used."""
    return "config.yaml", "# @package _global_\n" + OmegaConf.to_yaml(config)


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


def graphs(model, max_cond: int, closed: bool = False) -> list[Graph]:
    """The six graphs of a loaded predictor."""
    from . import sam2_reference as published

    side = model.sam_image_embedding_size
    sizes = samples.Sizes(image=model.image_size, side=side, tokens=side ** 2, hidden=model.hidden_dim,
                          memory=model.mem_dim, recent=model.num_maskmem - 1,
                          ptr_recent=model.max_obj_ptrs_in_encoder - 1)
    return samples.graphs(model, sizes, max_cond, closed, nets, published)


def official(model) -> State:
    """The weights of a predictor in the official layout."""
    return dict(model.state_dict())


def restore(model, state: State) -> None:
    """Loads weights in the official layout; every name and shape has been checked."""
    model.load_state_dict(state)


def score_layer(model) -> torch.nn.Linear:
    """The last linear layer of the object score."""
    head = model.sam_mask_decoder.pred_obj_score_head
    return head.layers[-1] if hasattr(head, "layers") else head


class Driver:
    """The published `SAM2VideoPredictor` on frames held in memory, prompts given as you go.

    Only `load_video_frames` is replaced (it wants JPEG files or a video); every state, every step
    and every number is made by the predictor's own methods.
    """

    def __init__(self, model, images: torch.Tensor):
        """`images` [N,3,S,S], normalised."""
        self.model = model
        loaded = (images, model.image_size, model.image_size)
        with mock.patch("sam2.sam2_video_predictor.load_video_frames", return_value=loaded):
            self.state = model.init_state("frames")

    def reset(self, images: torch.Tensor | None = None) -> None:
        """Forgets every object; other `images` of the same number may take the place of the old."""
        self.model.reset_state(self.state)
        if images is not None:
            self.state["images"], self.state["cached_features"] = images, {}

    def keep_features(self) -> None:
        """Lets the features of all frames stay, for clips that are run more than once."""
        with torch.inference_mode():
            self.state["cached_features"] = {
                index: (image[None], self.model.forward_image(image[None]))
                for index, image in enumerate(self.state["images"])
            }

    def seed(self, prompt: dict, masks: dict[str, np.ndarray]) -> None:
        """A prompt on a frame not yet tracked."""
        at = {"inference_state": self.state, "frame_idx": prompt["frame"], "obj_id": prompt["object"]}
        if "mask" in prompt:
            self.model.add_new_mask(**at, mask=masks[prompt["mask"]] > 127)
        else:
            self.model.add_new_points_or_box(**at, points=prompt.get("points"),
                                             labels=prompt.get("labels"), box=prompt.get("box"))

    def correct(self, prompt: dict, masks: dict[str, np.ndarray]) -> None:
        """A prompt on a tracked frame: the predictor knows by itself."""
        self.seed(prompt, masks)

    def advance(self, first: int, last: int) -> None:
        """Tracks frames first..=last of every object."""
        with mock.patch("sam2.sam2_video_predictor.tqdm", lambda frames, **_: frames):
            for _ in self.model.propagate_in_video(self.state, start_frame_idx=first,
                                                   max_frame_num_to_track=last - first):
                pass

    def collect(self) -> dict[str, np.ndarray]:
        """The final low-res logits `logits_F_O` [h,w] and scores `score_F_O` [] of all frames."""
        out = {}
        for index, outputs in self.state["output_dict_per_obj"].items():
            name = self.state["obj_idx_to_id"][index]
            for kind in ("cond_frame_outputs", "non_cond_frame_outputs"):
                for frame, made in outputs[kind].items():
                    out[f"logits_{frame}_{name}"] = made["pred_masks"][0, 0].float().numpy().copy()
                    out[f"score_{frame}_{name}"] = np.float32(made["object_score_logits"].item())
        return out

"""EdgeTAM: building the published `EdgeTamVideoModel`, its graphs and its entry in `model.toml`.

The published implementation that runs on PyPI packages is that of `transformers`; where its session
departs from facebookresearch/EdgeTAM, `Driver` says so and follows the latter.
"""

import json
import logging
import math
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

from . import ExportError, layouts, samples
from .graph import Graph
from .layouts import State
from .predictor import MEAN, STD

NAME = "edgetam"
# What facebookresearch/EdgeTAM's `edgetam.yaml` says where the defaults of `transformers` differ
# (their vision default is another backbone: 36 M parameters instead of 13.9 M).
RELEASED = {
    "vision_config": {
        "model_type": "edgetam_vision_model",
        "backbone_config": {
            "model_type": "timm_wrapper", "architecture": "repvit_m1", "num_classes": 1000,
            "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
        },
    },
    "enable_temporal_pos_encoding_for_object_pointers": False,
    "enable_occlusion_spatial_embedding": False,
}
CLAMP = 32.0


def config_path(config: str) -> Path:
    """`edgetam`, or a `config.json` as `transformers` saves it."""
    path = Path(config)
    if config != NAME and not path.is_file():
        raise ExportError(f"config: expected {NAME} or a json file, got {config!r}")
    return path


def read_config(path: Path, image_size: int) -> dict:
    """The config with every size that follows from `image_size`."""
    config = json.loads(json.dumps(RELEASED))
    if path.name != NAME:
        try:
            config = json.loads(path.read_text())
        except ValueError as error:
            raise ExportError(f"config {path.name}: not readable as json: {error}") from error
        if not isinstance(config, dict) or not isinstance(config.get("vision_config"), dict):
            raise ExportError(f"config {path.name}: expected a `vision_config`, got none")
    windows = math.isqrt(config.get("perceiver_resampler_num_latents_2d", 256))
    step = 16 * windows
    if image_size < step or image_size % step:
        raise ExportError(f"image size: expected a multiple of {step} (the 2-D latents are {windows}x{windows} "
                          f"windows of 16 px tokens), got {image_size}")
    side = image_size // 16
    config["image_size"] = image_size
    config["vision_config"]["backbone_feature_sizes"] = [[side * 4] * 2, [side * 2] * 2, [side] * 2]
    config["prompt_encoder_config"] = {**config.get("prompt_encoder_config", {}), "image_size": image_size}
    config["memory_attention_rope_feat_sizes"] = [side, side]
    config["memory_attention_rope_k_sizes"] = [windows, windows]
    return config


def dump_config(config: dict) -> tuple[str, str]:
    """File name and text of the config as used."""
    return "config.json", json.dumps(config, indent=1) + "\n"


def build(config: dict) -> torch.nn.Module:
    """The published `EdgeTamVideoModel`, evaluation mode, weights not yet set."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

    try:
        model = EdgeTamVideoModel(EdgeTamVideoConfig.from_dict(json.loads(json.dumps(config)))).eval()
    except Exception as error:  # each config class raises its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(f"config: the published classes refuse it: {reason}") from error
    config = model.config
    if config.enable_temporal_pos_encoding_for_object_pointers or config.enable_occlusion_spatial_embedding:
        raise ExportError("config: expected no temporal positions on pointers and no occlusion embedding")
    if config.memory_attention_num_attention_heads != 1 or not config.perceiver_resampler_num_latents_2d:
        raise ExportError("config: expected one memory attention head and 2-D latents")
    if config.multimask_min_pt_num != 0 or not config.multimask_output_for_tracking:
        raise ExportError("config: expected multimask_output_for_tracking with multimask_min_pt_num 0")
    return model.requires_grad_(False)


def sizes(model) -> samples.Sizes:
    """The numbers that shape the graphs."""
    config = model.config
    tokens = config.perceiver_resampler_num_latents + config.perceiver_resampler_num_latents_2d
    return samples.Sizes(image=model.image_size, side=model.image_size // 16, tokens=tokens,
                         hidden=model.hidden_dim, memory=model.mem_dim, recent=model.num_maskmem - 1,
                         ptr_recent=config.max_object_pointers_in_encoder - 1)


def manifest(model, max_cond: int) -> dict:
    """The sections of `model.toml` that do not depend on the files."""
    size = sizes(model)
    return {
        "image": {"height": size.image, "width": size.image, "mean": list(MEAN), "std": list(STD),
                  "filter": "bicubic"},
        "features": {"top": "feat_s2"},
        "masks": {"height": size.side * 4, "width": size.side * 4},
        # The published session keeps memories in the model's own type, unlike SAM 2's.
        "memory": {"tokens": size.tokens, "channels": size.memory, "recent": size.recent, "stride": 1,
                   "max_cond": max_cond, "dtype": "f32"},
        "pointers": {"channels": size.hidden, "recent": size.ptr_recent},
        "prompts": {"points": True, "box": True, "mask": True, "mask_decoder": True, "pad_point": True,
                    "multimask_max_points": model.config.multimask_max_pt_num},
        "constants": {"no_mem_embed": model.no_memory_embedding.flatten().tolist(),
                      "no_obj_ptr": model.no_object_pointer.flatten().tolist()},
    }


def graphs(model, max_cond: int, closed: bool = False) -> list[Graph]:
    """The six graphs of a loaded model."""
    from . import edgetam_graphs, edgetam_reference

    return samples.graphs(model, sizes(model), max_cond, closed, edgetam_graphs, edgetam_reference)


def official(model) -> State:
    """The weights in the layout of facebookresearch/EdgeTAM."""
    return layouts.to_official(model.state_dict())


def restore(model, state: State) -> None:
    """Loads weights in the official layout; every name and shape has been checked."""
    model.load_state_dict(layouts.to_transformers(state))


def score_layer(model) -> torch.nn.Linear:
    """The last linear layer of the object score."""
    return model.mask_decoder.pred_obj_score_head.proj_out


class Driver:
    """The published `EdgeTamVideoModel` and its inference session, prompts given as you go.

    The session of `transformers` departs from facebookresearch/EdgeTAM in three places, and by
    default this driver takes the latter's side, through arguments the published methods have:

    * a correction is decoded without the mask it corrects; the original feeds it back, clamped;
    * a mask prompt's pointer is the best of three; the original takes the single-mask token;
    * a mask prompt is remembered at full size; the original remembers its low-res logits, enlarged.

    `as_is` leaves all three as `transformers` has them.
    """

    def __init__(self, model, images: torch.Tensor, as_is: bool = False):
        """`images` [N,3,S,S], normalised."""
        self.model, self.as_is = model, as_is
        self.reset(images)

    def reset(self, images: torch.Tensor | None = None) -> None:
        """Forgets every object; other `images` may take the place of the old."""
        from transformers.models.edgetam_video.modeling_edgetam_video import EdgeTamVideoInferenceSession

        if images is None:
            self.session.reset_tracking_data()
            return
        size = self.model.image_size
        self.session = EdgeTamVideoInferenceSession(video=images, video_height=size, video_width=size,
                                                    dtype=torch.float32)

    def keep_features(self) -> None:
        """Lets the features of all frames stay, for clips that are run more than once."""
        self.session.cache.max_vision_features_cache_size = self.session.num_frames

    def _points(self, prompt: dict) -> dict[str, torch.Tensor]:
        points, labels = list(prompt.get("points", [])), list(prompt.get("labels", []))
        if "box" in prompt:
            x0, y0, x1, y1 = prompt["box"]
            points, labels = [[x0, y0], [x1, y1], *points], [2, 3, *labels]
        return {"point_coords": torch.tensor(points, dtype=torch.float32)[None, None],
                "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None]}

    def seed(self, prompt: dict, masks: dict[str, np.ndarray]) -> None:
        """A prompt on a frame not yet tracked; it takes effect when the frame is."""
        index = self.session.obj_id_to_idx(prompt["object"])
        if "mask" in prompt:
            mask = torch.from_numpy(masks[prompt["mask"]] > 127)[None, None].float()
            self.session.add_mask_inputs(index, prompt["frame"], mask)
        else:
            self.session.add_point_inputs(index, prompt["frame"], self._points(prompt))
        self.session.obj_with_new_inputs.append(prompt["object"])

    def correct(self, prompt: dict, masks: dict[str, np.ndarray]) -> None:
        """A prompt on a tracked frame."""
        session, frame = self.session, prompt["frame"]
        index = session.obj_id_to_idx(prompt["object"])
        before = session.get_output(index, frame, "pred_masks", is_conditioning_frame=False)
        with torch.inference_mode():
            made = self.model._run_single_frame_inference(
                inference_session=session, frame_idx=frame, obj_idx=index, batch_size=1,
                is_init_cond_frame=False, point_inputs=self._points(prompt), mask_inputs=None,
                reverse=False, run_mem_encoder=True,
                prev_sam_mask_logits=None if self.as_is else before.clamp(-CLAMP, CLAMP))
        session.store_output(index, frame, output_value=made, is_conditioning_frame=False)

    def advance(self, first: int, last: int) -> None:
        """Tracks frames first..=last of every object."""
        with self._mask_prompts():
            for frame in range(first, last + 1):
                self.model(self.session, frame_idx=frame)

    @contextmanager
    def _mask_prompts(self):
        if self.as_is:
            yield
            return
        model = self.model
        published, decode = model._use_mask_as_output, model._single_frame_forward

        def use(*args, **kwargs):
            single = lambda *a, **k: decode(*a, **{**k, "multimask_output": False})  # noqa: E731
            with mock.patch.object(model, "_single_frame_forward", single):
                made = published(*args, **kwargs)
            made.high_res_masks = F.interpolate(made.pred_masks, size=(model.image_size,) * 2,
                                                mode="bilinear", align_corners=False)
            return made

        with mock.patch.object(model, "_use_mask_as_output", use):
            yield

    def collect(self) -> dict[str, np.ndarray]:
        """The final low-res logits `logits_F_O` [h,w] and scores `score_F_O` [] of all frames."""
        out = {}
        for index, outputs in self.session.output_dict_per_obj.items():
            name = self.session.obj_idx_to_id(index)
            for frames in outputs.values():
                for frame, made in frames.items():
                    out[f"logits_{frame}_{name}"] = made["pred_masks"].squeeze().float().numpy().copy()
                    out[f"score_{frame}_{name}"] = np.float32(made["object_score_logits"].item())
        return out

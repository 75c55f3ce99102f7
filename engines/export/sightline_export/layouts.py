"""Names of tensors: the official `.pt` layout and the `transformers` layout, one table both ways.

Sources: the modules of facebookresearch/sam2 and facebookresearch/EdgeTAM, and of `transformers`'
`Sam2VideoModel` and `EdgeTamVideoModel`. `{n}` is a number, `{w}` one word, `{r}` the rest; the
first rule that fits wins, in both directions.
"""

import re

import torch

State = dict[str, torch.Tensor]


def _mlp(official: str, other: str) -> list[tuple[str, str]]:
    """An MLP of three linear layers."""
    return [(f"{official}.layers.{index}.{{r}}", f"{other}.{name}.{{r}}")
            for index, name in enumerate(("proj_in", "layers.0", "proj_out"))]


def _numbered(official: str, other: str, names: dict[int, str]) -> list[tuple[str, str]]:
    """Entries of a `Sequential` and what they are called elsewhere."""
    return [(f"{official}.{index}.{{r}}", f"{other}.{name}.{{r}}") for index, name in names.items()]


_DECODER, _PROMPT = "sam_mask_decoder", "sam_prompt_encoder"
_DOWNSAMPLER = {12: "final_conv"}
for _layer in range(4):
    _DOWNSAMPLER |= {3 * _layer: f"layers.{_layer}.conv", 3 * _layer + 1: f"layers.{_layer}.layer_norm"}

RULES = [
    # Mask decoder.
    *_mlp(f"{_DECODER}.output_hypernetworks_mlps.{{n}}", "mask_decoder.output_hypernetworks_mlps.{n}"),
    *_mlp(f"{_DECODER}.iou_prediction_head", "mask_decoder.iou_prediction_head"),
    *_mlp(f"{_DECODER}.pred_obj_score_head", "mask_decoder.pred_obj_score_head"),
    *_numbered(f"{_DECODER}.transformer.layers.{{n}}.mlp.layers", "mask_decoder.transformer.layers.{n}.mlp",
               {0: "proj_in", 1: "proj_out"}),
    (f"{_DECODER}.transformer.layers.{{n}}.norm{{n}}.{{r}}",
     "mask_decoder.transformer.layers.{n}.layer_norm{n}.{r}"),
    (f"{_DECODER}.transformer.layers.{{n}}.{{w}}.out_proj.{{r}}",
     "mask_decoder.transformer.layers.{n}.{w}.o_proj.{r}"),
    (f"{_DECODER}.transformer.{{w}}.out_proj.{{r}}", "mask_decoder.transformer.{w}.o_proj.{r}"),
    (f"{_DECODER}.transformer.norm_final_attn.{{r}}", "mask_decoder.transformer.layer_norm_final_attn.{r}"),
    *_numbered(f"{_DECODER}.output_upscaling", "mask_decoder",
               {0: "upscale_conv1", 1: "upscale_layer_norm", 3: "upscale_conv2"}),
    (f"{_DECODER}.{{r}}", "mask_decoder.{r}"),
    # Prompt encoder.
    *_numbered(f"{_PROMPT}.mask_downscaling", "prompt_encoder.mask_embed",
               {0: "conv1", 1: "layer_norm1", 3: "conv2", 4: "layer_norm2", 6: "conv3"}),
    (f"{_PROMPT}.pe_layer.positional_encoding_gaussian_matrix",
     "prompt_encoder.shared_embedding.positional_embedding"),
    (f"{_PROMPT}.{{r}}", "prompt_encoder.{r}"),
    # Memory attention.
    ("memory_attention.layers.{n}.norm{n}.{r}", "memory_attention.layers.{n}.layer_norm{n}.{r}"),
    ("memory_attention.layers.{n}.{w}.out_proj.{r}", "memory_attention.layers.{n}.{w}.o_proj.{r}"),
    ("memory_attention.norm.{r}", "memory_attention.layer_norm.{r}"),
    ("memory_attention.{r}", "memory_attention.{r}"),
    # Memory encoder.
    *_numbered("memory_encoder.mask_downsampler.encoder", "memory_encoder.mask_downsampler", _DOWNSAMPLER),
    ("memory_encoder.pix_feat_proj.{r}", "memory_encoder.feature_projection.{r}"),
    ("memory_encoder.fuser.layers.{n}.gamma", "memory_encoder.memory_fuser.layers.{n}.scale"),
    ("memory_encoder.fuser.layers.{n}.dwconv.{r}", "memory_encoder.memory_fuser.layers.{n}.depthwise_conv.{r}"),
    ("memory_encoder.fuser.layers.{n}.pwconv{n}.{r}",
     "memory_encoder.memory_fuser.layers.{n}.pointwise_conv{n}.{r}"),
    ("memory_encoder.fuser.layers.{n}.norm.{r}", "memory_encoder.memory_fuser.layers.{n}.layer_norm.{r}"),
    ("memory_encoder.out_proj.{r}", "memory_encoder.projection.{r}"),
    # Tracker.
    *_mlp("obj_ptr_proj", "object_pointer_proj"),
    ("obj_ptr_tpos_proj.{r}", "temporal_positional_encoding_projection_layer.{r}"),
    ("maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    ("no_mem_embed", "no_memory_embedding"),
    ("no_mem_pos_enc", "no_memory_positional_encoding"),
    ("no_obj_ptr", "no_object_pointer"),
    ("no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
    ("mask_downsample.{r}", "mask_downsample.{r}"),
    # Image encoder: RepViT as `timm` names it, or Hiera.
    ("image_encoder.neck.convs.{n}.conv.{r}", "vision_encoder.neck.convs.{n}.{r}"),
    ("image_encoder.trunk.body.{r}", "vision_encoder.backbone.timm_model.{r}"),
    ("image_encoder.trunk.patch_embed.proj.{r}", "vision_encoder.backbone.patch_embed.projection.{r}"),
    ("image_encoder.trunk.blocks.{n}.norm{n}.{r}", "vision_encoder.backbone.blocks.{n}.layer_norm{n}.{r}"),
    *_numbered("image_encoder.trunk.blocks.{n}.mlp.layers", "vision_encoder.backbone.blocks.{n}.mlp",
               {0: "proj_in", 1: "proj_out"}),
    ("image_encoder.trunk.{r}", "vision_encoder.backbone.{r}"),
    # EdgeTAM's perceiver.
    ("spatial_perceiver.latents", "spatial_perceiver.latents_1d"),
    ("spatial_perceiver.latents_2d", "spatial_perceiver.latents_2d"),
    ("spatial_perceiver.norm.{r}", "spatial_perceiver.layer_norm.{r}"),
]
for _own, _other, _norms in (("attn", "cross_attention", {"norm_x": "layer_norm_input",
                                                          "norm_latents": "layer_norm_latents"}),
                             ("self_attn", "self_attention", {"norm": "layer_norm_self"})):
    _at = "spatial_perceiver.layers.{n}"
    RULES += [(f"{_at}.{_own}.{norm}.{{r}}", f"{_at}.{name}.{{r}}") for norm, name in _norms.items()]
    RULES += [(f"{_at}.{_own}.to_q.{{r}}", f"{_at}.{_other}.q_proj.{{r}}"),
              (f"{_at}.{_own}.to_out.{{r}}", f"{_at}.{_other}.o_proj.{{r}}")]
for _own, _other in (("ff", "mlp"), ("self_ff", "self_mlp")):
    RULES += _numbered(f"spatial_perceiver.layers.{{n}}.{_own}", f"spatial_perceiver.layers.{{n}}.{_other}",
                       {0: "layer_norm", 1: "up_proj", 3: "down_proj"})

# `transformers` renamed these in EdgeTAM and not in SAM 2.
EDGETAM_RULES = [
    ("memory_attention.layers.{n}.linear1.{r}", "memory_attention.layers.{n}.mlp.up_proj.{r}"),
    ("memory_attention.layers.{n}.linear2.{r}", "memory_attention.layers.{n}.mlp.down_proj.{r}"),
]

PARTS = {"n": r"(\d+)", "w": r"([^.]+)", "r": r"(.+)"}
# One tensor here, several there.
POINTS = f"{_PROMPT}.point_embeddings"
ALL_POINTS = "prompt_encoder.point_embed.weight"
SHARED_POSITION = "prompt_encoder.shared_embedding.positional_embedding"
SECOND_POSITION = "shared_image_embedding.positional_embedding"
KEYS_VALUES = re.compile(r"spatial_perceiver\.layers\.(\d+)\.(attn|self_attn)\.to_kv\.weight")
KEYS = re.compile(r"spatial_perceiver\.layers\.(\d+)\.(cross_attention|self_attention)\.k_proj\.weight")
# Layer scales have been called all three; some loaders turn `gamma` into `weight`.
SCALES = re.compile(r"(memory_encoder\.(?:memory_)?fuser\.layers\.\d+)\.(?:gamma|weight|scale)")


def _compiled(table: list[tuple[str, str]], source: int) -> list[tuple[re.Pattern, str]]:
    rules = []
    for rule in table:
        pattern = re.sub(r"\\\{([nwr])\\\}", lambda part: PARTS[part[1]], re.escape(rule[source]))
        rules.append((re.compile(pattern), re.sub(r"\{[nwr]\}", "{}", rule[1 - source])))
    return rules


_TO_SAM2, _TO_EDGETAM = _compiled(RULES, 0), _compiled(EDGETAM_RULES + RULES, 0)
_TO_OFFICIAL = _compiled(EDGETAM_RULES + RULES, 1)


def _rename(name: str, rules: list[tuple[re.Pattern, str]]) -> str:
    """The other layout's name; a name no rule knows stays as it is."""
    for pattern, template in rules:
        found = pattern.fullmatch(name)
        if found:
            return template.format(*found.groups())
    return name


def is_transformers(state: State) -> bool:
    """Whether the names are those of `transformers`."""
    return any(name.startswith(("vision_encoder.", "mask_decoder.", "prompt_encoder.")) for name in state)


def is_edgetam(official: State) -> bool:
    """Whether there is anything that only EdgeTAM has."""
    return any(name.startswith(("spatial_perceiver.", "image_encoder.trunk.body.")) for name in official)


def plain(state: State) -> State:
    """`state` with layer scales under the one name its layout has now, and every copy of the position matrix."""
    other = is_transformers(state)
    scale = "scale" if other else "gamma"
    out = {SCALES.sub(rf"\1.{scale}", name) if SCALES.fullmatch(name) else name: tensor
           for name, tensor in state.items()}
    # Versions of `transformers` differ in which of the two they save.
    copies = [out[name] for name in (SHARED_POSITION, SECOND_POSITION) if name in out]
    if other and copies:
        out = {SHARED_POSITION: copies[0], SECOND_POSITION: copies[0], **out}
    return out


def to_transformers(official: State) -> State:
    """The official layout as `transformers` has it."""
    out: State = {}
    points: dict[int, torch.Tensor] = {}
    rules = _TO_EDGETAM if is_edgetam(official) else _TO_SAM2
    for name, tensor in official.items():
        both = KEYS_VALUES.fullmatch(name)
        if both:
            kind = {"attn": "cross_attention", "self_attn": "self_attention"}[both[2]]
            for part, value in zip("kv", tensor.chunk(2, dim=0), strict=True):
                out[f"spatial_perceiver.layers.{both[1]}.{kind}.{part}_proj.weight"] = value.contiguous()
        elif name.startswith(f"{POINTS}."):
            points[int(name.split(".")[2])] = tensor
        else:
            out[_rename(name, rules)] = tensor
    if points:
        out[ALL_POINTS] = torch.cat([points[index] for index in sorted(points)])
    if SHARED_POSITION in out:
        out[SECOND_POSITION] = out[SHARED_POSITION].clone()
    return out


def to_official(state: State) -> State:
    """The `transformers` layout as the official checkpoints have it."""
    out: State = {}
    for name, tensor in state.items():
        keys = KEYS.fullmatch(name)
        if name == SECOND_POSITION or re.fullmatch(KEYS.pattern.replace("k_proj", "v_proj"), name):
            continue
        if keys:
            kind = {"cross_attention": "attn", "self_attention": "self_attn"}[keys[2]]
            values = state.get(name.replace("k_proj", "v_proj"), tensor[:0])
            out[f"spatial_perceiver.layers.{keys[1]}.{kind}.to_kv.weight"] = torch.cat((tensor, values))
        elif name == ALL_POINTS:
            for index, row in enumerate(tensor):
                out[f"{POINTS}.{index}.weight"] = row[None].clone()
        else:
            out[_rename(name, _TO_OFFICIAL)] = tensor
    return out


HIERAS = {(96, 12): "tiny", (96, 16): "small", (112, 24): "base+", (144, 48): "large"}


def identify(official: State) -> tuple[str | None, str | None]:
    """Family and size by the tensors that only they have; None where nothing says so."""
    blocks = {int(found[1]) for found in
              (re.match(r"image_encoder\.trunk\.blocks\.(\d+)\.", name) for name in official) if found}
    if is_edgetam(official):
        return "edgetam", "edgetam"
    if not blocks:
        return None, None
    patch = official.get("image_encoder.trunk.patch_embed.proj.weight")
    size = HIERAS.get((patch.shape[0], len(blocks))) if patch is not None and patch.dim() else None
    newer = "no_obj_embed_spatial" in official or "obj_ptr_tpos_proj.weight" in official
    return ("sam2.1" if newer else "sam2.0"), size

"""The same outputs by the published methods of `EdgeTamVideoModel`: what every graph is verified against.

One function a graph; each takes the model and the graph's inputs by name. None of them calls
`edgetam_graphs` or `attention`.
"""

import functools

import torch
import torch.nn.functional as F

from .graph import Tensors


def _flat(feat: torch.Tensor) -> torch.Tensor:
    """[1,C,F,F] -> [N,1,C]."""
    return feat.flatten(2).permute(2, 0, 1)


def image_encoder(model, given: Tensors) -> Tensors:
    """`get_image_features`, unflattened."""
    levels = model.get_image_features(given["image"], return_dict=True).fpn_hidden_states
    return {f"feat_s{i}": level.permute(1, 2, 0).reshape(1, -1, *size)
            for i, (level, size) in enumerate(zip(levels, model.backbone_feature_sizes, strict=True))}


@functools.lru_cache(maxsize=2)
def _memory_positions(model, side: int) -> torch.Tensor:
    """What the published session keeps beside each memory [1,1,T,c]: the same for all."""
    with torch.no_grad():
        blank = torch.zeros(1, model.mem_dim, side, side)
        return model.spatial_perceiver(blank, blank)[1].unsqueeze(1)


def memory_attention(model, given: Tensors) -> Tensors:
    """`EdgeTamVideoMemoryAttention.forward` on the used slots, put together by the published methods."""
    feat = given["feat_s2"]
    mem_pos = _memory_positions(model, feat.shape[-1])
    slots = given["mem_mask"].nonzero().flatten().tolist()
    kept = [(int(given["tpos_idx"][slot]) + 1,
             {"maskmem_features": given["mem"][:, slot], "maskmem_pos_enc": mem_pos})
            for slot in slots]
    memory, pos = model._build_memory_attention_inputs(kept, feat.device)
    used = given["ptr_mask"].nonzero().flatten().tolist()
    pointers, pointer_pos = model._process_object_pointers(
        [int(given["ptr_tdiff"][i]) for i in used], [given["obj_ptrs"][:, i] for i in used],
        model.config.max_object_pointers_in_encoder, 1, model.hidden_dim, feat.device)
    position = model.vision_encoder.neck.position_encoding(feat.shape, feat.device, feat.dtype)
    out = model.memory_attention(
        current_vision_features=_flat(feat), current_vision_position_embeddings=_flat(position),
        memory=torch.cat([*memory, pointers]), memory_posision_embeddings=torch.cat([*pos, pointer_pos]),
        num_object_pointer_tokens=len(pointers), num_spatial_memory_tokens=len(slots))
    return {"pix_feat": out.squeeze(1).transpose(1, 2).reshape(feat.shape)}


def _heads(model, given: Tensors, **kwargs) -> Tensors:
    made = model._single_frame_forward(
        image_embeddings=[given["feat_s0"], given["feat_s1"], given["pix_feat"]], **kwargs)
    return {"low_res_mask": made.pred_masks, "iou": made.iou_scores[:, 0].max(dim=-1, keepdim=True).values,
            "obj_ptr": made.object_pointer[:, 0], "object_score": made.object_score_logits[:, 0]}


def decoder_track(model, given: Tensors) -> Tensors:
    """`_single_frame_forward` without a prompt."""
    return _heads(model, given, multimask_output=model._use_multimask(False, None))


def decoder_prompt(model, given: Tensors) -> Tensors:
    """`_single_frame_forward`, which appends the padding point itself."""
    mask = given["mask_input"] if given["has_mask_input"].item() else None
    return _heads(model, given, input_points=given["point_coords"][:, None, :-1],
                  input_labels=given["point_labels"][:, None, :-1].to(torch.int32), input_masks=mask,
                  multimask_output=bool(given["multimask"].item()))


def memory_encoder(model, given: Tensors) -> Tensors:
    """`_encode_new_memory` of the x4 mask."""
    high = F.interpolate(given["low_res_mask"], size=(model.image_size,) * 2, mode="bilinear",
                         align_corners=False)
    mem, _ = model._encode_new_memory(
        current_vision_feats=_flat(given["feat_s2"]), pred_masks_high_res=high,
        object_score_logits=given["object_score"][None], is_mask_from_pts=bool(given["binarize"].item()))
    return {"mem": mem}


def mask_downsample(model, given: Tensors) -> Tensors:
    """The published convolution."""
    return {"mask_prompt": model.mask_downsample(given["mask"])}

"""The same outputs by the published methods of `SAM2Base`: what every graph is verified against.

One function a graph; each takes the predictor and the graph's inputs by name. None of them calls
`sam2_graphs` or `attention`.
"""

import torch
import torch.nn.functional as F

from sam2.modeling.sam2_utils import get_1d_sine_pe

from .graph import Tensors


def image_encoder(model, given: Tensors) -> Tensors:
    """`forward_image`, unpatched."""
    levels = model.forward_image(given["image"])["backbone_fpn"]
    return {f"feat_s{i}": level for i, level in enumerate(levels)}


def memory_attention(model, given: Tensors) -> Tensors:
    """`MemoryAttention.forward` on the used slots only, as the predictor would concatenate them."""
    feat, width = given["feat_s2"], model.mem_dim
    tokens = lambda x: x.flatten(2).permute(2, 0, 1)  # noqa: E731  [1,C,F,F] -> [N,1,C]
    blank = torch.zeros(1, width, *feat.shape[-2:])
    mem_pos = tokens(model.memory_encoder.position_encoding(blank))
    memory, pos = [], []
    for slot in given["mem_mask"].nonzero().flatten().tolist():
        memory.append(given["mem"][:, slot].transpose(0, 1))
        pos.append(mem_pos + model.maskmem_tpos_enc[given["tpos_idx"][slot]])
    used = given["ptr_mask"].nonzero().flatten()
    split = model.hidden_dim // width
    pointers = given["obj_ptrs"][0, used].reshape(-1, 1, width)
    ptr_pos = torch.zeros(len(used), width)
    if model.add_tpos_enc_to_obj_ptrs:
        dim = model.hidden_dim if model.proj_tpos_enc_in_obj_ptrs else width
        ages = given["ptr_tdiff"][used] / (model.max_obj_ptrs_in_encoder - 1)
        ptr_pos = model.obj_ptr_tpos_proj(get_1d_sine_pe(ages, dim=dim))
    memory.append(pointers)
    pos.append(ptr_pos.repeat_interleave(split, dim=0).unsqueeze(1))
    out = model.memory_attention(
        curr=[tokens(feat)], curr_pos=[tokens(model.image_encoder.neck.position_encoding(feat))],
        memory=torch.cat(memory), memory_pos=torch.cat(pos), num_obj_ptr_tokens=len(pointers),
    )
    return {"pix_feat": out.permute(1, 2, 0).reshape(feat.shape)}


def _heads(model, given: Tensors, **kwargs) -> Tensors:
    _, _, ious, low_res, _, pointer, score = model._forward_sam_heads(
        backbone_features=given["pix_feat"],
        high_res_features=[given["feat_s0"], given["feat_s1"]], **kwargs)
    return {"low_res_mask": low_res, "iou": ious.max(dim=-1, keepdim=True).values,
            "obj_ptr": pointer, "object_score": score}


def decoder_track(model, given: Tensors) -> Tensors:
    """`_forward_sam_heads` without a prompt."""
    return _heads(model, given, multimask_output=model._use_multimask(False, None))


def decoder_prompt(model, given: Tensors) -> Tensors:
    """`_forward_sam_heads`, which appends the padding point itself."""
    points = {"point_coords": given["point_coords"][:, :-1],
              "point_labels": given["point_labels"][:, :-1].to(torch.int32)}
    mask = given["mask_input"] if given["has_mask_input"].item() else None
    return _heads(model, given, point_inputs=points, mask_inputs=mask,
                  multimask_output=bool(given["multimask"].item()))


def memory_encoder(model, given: Tensors) -> Tensors:
    """`_encode_new_memory` of the x4 mask."""
    feat = given["feat_s2"]
    high = F.interpolate(given["low_res_mask"], size=(model.image_size,) * 2, mode="bilinear",
                         align_corners=False)
    mem, _ = model._encode_new_memory(
        current_vision_feats=[feat.flatten(2).permute(2, 0, 1)], feat_sizes=[feat.shape[-2:]],
        pred_masks_high_res=high, object_score_logits=given["object_score"],
        is_mask_from_pts=bool(given["binarize"].item()))
    return {"mem": mem.flatten(2).transpose(1, 2)}


def mask_downsample(model, given: Tensors) -> Tensors:
    """The published convolution."""
    return {"mask_prompt": model.mask_downsample(given["mask"])}

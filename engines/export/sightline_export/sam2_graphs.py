"""The graphs of SAM 2.0 and 2.1: thin modules around a published `SAM2VideoPredictor`.

S is the image size, F = S/16, T = F*F tokens a memory, h = S/4, C the model width, c the memory
width, B the number of objects; where slots are said to be [B,NM], a model of closed sizes has [NM].
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2.modeling.sam2_base import NO_OBJ_SCORE
from sam2.modeling.sam2_utils import get_1d_sine_pe

from . import ExportError, two_way
from .attention import FusedLayer, FusedMemoryAttention, Parts, Projections, Rope, read_memory
from .rewrites import Block, Downsampler, chained


class ImageEncoder(nn.Module):
    """image [1,3,S,S] -> feat_s0 [1,C/8,S/4,S/4], feat_s1 [1,C/4,S/8,S/8], feat_s2 [1,C,F,F]."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.encoder, decoder = copy.deepcopy(model.image_encoder), model.sam_mask_decoder
        trunk, neck = self.encoder.trunk, self.encoder.neck
        side = model.image_size // 4
        # Bicubic Resize is baked: some runtimes run it as linear without saying so.
        baked = type(trunk)._get_pos_embed(trunk, (side, side)).detach()
        self.register_buffer("pos_embed", baked)
        trunk._get_pos_embed = lambda _hw: self.pos_embed
        # Nothing reads the fine levels but the decoder's own projections.
        if not {0, 1}.isdisjoint(neck.fpn_top_down_levels):
            raise ExportError(f"image encoder: expected fine levels by themselves, got {neck.fpn_top_down_levels}")
        for conv, projection in ((neck.convs[3], decoder.conv_s0), (neck.convs[2], decoder.conv_s1)):
            conv.conv = chained(conv.conv, projection)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encoder(image)["backbone_fpn"])


def rope_tables(attn: nn.Module, side: int) -> Rope:
    """The tables of a published `RoPEAttention` for side x side tokens."""
    cis = attn.compute_cis(end_x=side, end_y=side)
    return Rope(cis.real.contiguous(), cis.imag.contiguous())


def fused(layer: nn.Module) -> FusedLayer:
    """A published `MemoryAttentionLayer` for static slots."""
    for attn in (layer.self_attn, layer.cross_attn_image):
        if attn.num_heads != 1:
            raise ExportError(f"memory attention: expected 1 head, got {attn.num_heads}")
    if not layer.pos_enc_at_cross_attn_keys or layer.pos_enc_at_cross_attn_queries:
        raise ExportError("memory attention: expected positions on the cross-attention keys only")
    own, cross = (Projections(attn.q_proj, attn.k_proj, attn.v_proj, attn.out_proj)
                  for attn in (layer.self_attn, layer.cross_attn_image))
    return FusedLayer(layer, Parts((layer.norm1, layer.norm2, layer.norm3), own, cross,
                                   lambda y: layer.linear2(layer.activation(layer.linear1(y))),
                                   layer.pos_enc_at_attn))


class MemoryAttention(nn.Module):
    """feat_s2 conditioned on NM memory slots and NP pointer slots -> pix_feat [B,C,F,F]."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, published = model, model.memory_attention
        side = model.sam_image_embedding_size
        top = torch.zeros(1, model.hidden_dim, side, side)
        pos = model.image_encoder.neck.position_encoding(top).flatten(2).transpose(1, 2)
        tables = [rope_tables(attn, side) for layer in published.layers
                  for attn in (layer.self_attn, layer.cross_attn_image)]
        if not all(torch.equal(one.cos, tables[0].cos) for one in tables):
            raise ExportError("memory attention: expected the same RoPE in every layer")
        self.attention = FusedMemoryAttention(
            [fused(layer) for layer in published.layers], published.norm, pos,
            published.pos_enc_at_input, tables[0], tables[0])
        mem = torch.zeros(1, model.mem_dim, side, side)
        mem_pos = model.memory_encoder.position_encoding(mem).flatten(2).transpose(1, 2)
        self.register_buffer("mem_pos", mem_pos.detach())
        self.register_buffer("tpos", model.maskmem_tpos_enc.detach().flatten(1))

    def _pointer_pos(self, ptr_tdiff: Tensor) -> Tensor:
        """Signed ages [B,NP] in frames -> positions [B,NP,c]."""
        model = self.model
        if not model.use_signed_tpos_enc_to_obj_ptrs:
            ptr_tdiff = ptr_tdiff.abs()
        dim = model.hidden_dim if model.proj_tpos_enc_in_obj_ptrs else model.mem_dim
        # The published code divides by min(num_frames, 16) - 1; a stream has no end.
        ages = ptr_tdiff / (model.max_obj_ptrs_in_encoder - 1)
        return model.obj_ptr_tpos_proj(get_1d_sine_pe(ages, dim=dim))

    def forward(self, feat_s2: Tensor, mem: Tensor, tpos_idx: Tensor, mem_mask: Tensor,
                obj_ptrs: Tensor, ptr_tdiff: Tensor, ptr_mask: Tensor) -> Tensor:
        """mem [B,NM,T,c]; tpos_idx, mem_mask [B,NM]; obj_ptrs [B,NP,C]; ptr_tdiff, ptr_mask [B,NP]."""
        tpos_idx, mem_mask, ptr_tdiff, ptr_mask = map(by_object, (tpos_idx, mem_mask, ptr_tdiff, ptr_mask))
        mem_pos = self.mem_pos.unsqueeze(1) + self.tpos[tpos_idx].unsqueeze(2)
        ptr_pos = self._pointer_pos(ptr_tdiff) if self.model.add_tpos_enc_to_obj_ptrs else None
        return read_memory(self.attention, feat_s2, mem, mem_pos, mem_mask, obj_ptrs, ptr_pos, ptr_mask)


def by_object(slots: Tensor) -> Tensor:
    """[NM] or [B,NM] -> [B,NM]."""
    return slots.unsqueeze(0) if slots.dim() == 1 else slots


def pick(many: Tensor, best: Tensor) -> Tensor:
    """many [B,M,...] at best [B] -> [B,...]: one lookup of rows, which every runtime has."""
    first = torch.arange(many.shape[0]) * many.shape[1]
    return torch.index_select(many.flatten(0, 1), 0, best + first)


class Transformer(nn.Module):
    """In the place of a `TwoWayTransformer`."""

    def __init__(self, published: nn.Module):
        super().__init__()

        def attention(layer: nn.Module) -> two_way.Attention:
            return two_way.Attention(layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj, layer.num_heads)

        layers = [two_way.Parts(
            layer.self_attn, (layer.norm1, layer.norm2, layer.norm3, layer.norm4),
            attention(layer.cross_attn_token_to_image), layer.mlp, attention(layer.cross_attn_image_to_token),
            layer.skip_first_layer_pe) for layer in published.layers]
        self.both = two_way.TwoWay(published, layers, attention(published.final_attn_token_to_image),
                                   published.norm_final_attn)

    def forward(self, image: Tensor, pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.both(tokens, two_way.flat(image), two_way.flat(pe))


class Heads(nn.Module):
    """The published prompt encoder and mask decoder, one best mask out.

    Returns low_res_mask [B,1,h,h], iou [B,1], obj_ptr [B,C], object_score [B,1].
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.decoder = model, copy.deepcopy(model.sam_mask_decoder)
        self.decoder.transformer = Transformer(self.decoder.transformer)
        self.register_buffer("dense_pe", model.sam_prompt_encoder.get_dense_pe().detach())

    def decode(self, pix_feat: Tensor, feat_s0: Tensor, feat_s1: Tensor, sparse: Tensor,
               dense: Tensor, multimask: Tensor | bool) -> tuple[Tensor, ...]:
        model, decoder = self.model, self.decoder
        masks, ious, tokens, score = decoder.predict_masks(
            image_embeddings=pix_feat, image_pe=self.dense_pe, sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense, repeat_image=False, high_res_features=[feat_s0, feat_s1],
        )
        if isinstance(multimask, bool):
            mask, iou, token = self._best(masks, ious, tokens) if multimask else self._single(masks, ious, tokens)
        else:
            wanted = multimask.reshape(1, 1) > 0
            many, one = self._best(masks, ious, tokens), self._single(masks, ious, tokens)
            mask = torch.where(wanted[..., None, None], many[0], one[0])
            iou, token = (torch.where(wanted, many[i], one[i]) for i in (1, 2))
        pointer = model.obj_ptr_proj(token)
        if model.pred_obj_scores:
            present = score > 0
            mask = torch.where(present[..., None, None], mask, torch.full_like(mask, NO_OBJ_SCORE))
            shown = score.sigmoid() if model.soft_no_obj_ptr else present.float()
            if model.fixed_no_obj_ptr:
                pointer = shown * pointer
            pointer = pointer + (1 - shown) * model.no_obj_ptr
        return mask, iou, pointer, score

    def _best(self, masks: Tensor, ious: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        """The best of tokens 1..3 by predicted IoU."""
        best = torch.argmax(ious[:, 1:], dim=-1) + 1
        use_its_token = self.model.sam_mask_decoder.use_multimask_token_for_obj_ptr
        token = pick(tokens, best) if use_its_token else tokens[:, 0]
        return pick(masks, best).unsqueeze(1), pick(ious, best).unsqueeze(1), token

    def _single(self, masks: Tensor, ious: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        """Token 0; an unstable mask falls back to the best of 1..3, its pointer does not."""
        mask, iou = masks[:, 0:1], ious[:, 0:1]
        decoder = self.model.sam_mask_decoder
        if decoder.dynamic_multimask_via_stability:
            best_mask, best_iou, _ = self._best(masks, ious, tokens)
            stable = decoder._get_stability_scores(mask) >= decoder.dynamic_multimask_stability_thresh
            mask = torch.where(stable[..., None, None], mask, best_mask)
            iou = torch.where(stable, iou, best_iou)
        return mask, iou, tokens[:, 0]


class DecoderTrack(Heads):
    """A tracked frame: no prompt, so the prompt embeddings are constants."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        nothing = (torch.zeros(1, 1, 2), -torch.ones(1, 1, dtype=torch.int32))
        with torch.no_grad():
            sparse, dense = model.sam_prompt_encoder(points=nothing, boxes=None, masks=None)
        self.register_buffer("sparse", sparse.detach())
        self.register_buffer("dense", dense.detach().contiguous())
        self.multimask = bool(model._use_multimask(False, None))

    def forward(self, pix_feat: Tensor, feat_s0: Tensor, feat_s1: Tensor) -> tuple[Tensor, ...]:
        sparse = self.sparse.expand(pix_feat.shape[0], -1, -1)
        return self.decode(pix_feat, feat_s0, feat_s1, sparse, self.dense, self.multimask)


class DecoderPrompt(Heads):
    """A prompted frame; the host has appended the padding point and chosen `multimask`."""

    def forward(self, pix_feat: Tensor, feat_s0: Tensor, feat_s1: Tensor, point_coords: Tensor,
                point_labels: Tensor, mask_input: Tensor, has_mask_input: Tensor,
                multimask: Tensor) -> tuple[Tensor, ...]:
        """point_coords [1,P,2] in pixels of S x S; point_labels [1,P]; mask_input [1,1,h,h]."""
        encoder = self.model.sam_prompt_encoder
        sparse = encoder._embed_points(point_coords, point_labels, pad=False)
        given = has_mask_input.reshape(1, 1, 1, 1) > 0
        none = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        dense = torch.where(given, encoder._embed_masks(mask_input), none)
        return self.decode(pix_feat, feat_s0, feat_s1, sparse, dense, multimask)


class MemoryEncoder(nn.Module):
    """feat_s2 (raw) and low-res mask logits -> mem [B,T,c]."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, published = model, model.memory_encoder
        steps = list(published.mask_downsampler.encoder)
        self.downsample = Downsampler(list(zip(steps[0:-1:3], steps[1:-1:3], strict=True)), steps[-1])
        self.fuse = nn.Sequential(*(Block(layer.dwconv, layer.norm, layer.pwconv1, layer.pwconv2, layer.gamma)
                                    for layer in published.fuser.layers))

    def forward(self, feat_s2: Tensor, low_res_mask: Tensor, object_score: Tensor,
                binarize: Tensor) -> Tensor:
        """low_res_mask [B,1,h,h] logits; object_score [B,1]; binarize [B]."""
        model = self.model
        size = (model.image_size, model.image_size)
        logits = F.interpolate(low_res_mask, size=size, mode="bilinear", align_corners=False)
        mask = torch.sigmoid(logits)
        if model.binarize_mask_from_pts_for_mem_enc:
            mask = torch.where(binarize.reshape(-1, 1, 1, 1) > 0, (logits > 0).float(), mask)
        mask = mask * model.sigmoid_scale_for_mem_enc + model.sigmoid_bias_for_mem_enc
        encoder = model.memory_encoder
        mem = encoder.out_proj(self.fuse(encoder.fuser.proj(encoder.pix_feat_proj(feat_s2) + self.downsample(mask))))
        if model.no_obj_embed_spatial is not None:
            absent = (object_score <= 0).float()[..., None, None]
            mem = mem + absent * model.no_obj_embed_spatial[..., None, None]
        return mem.flatten(2).transpose(1, 2)


class MaskDownsample(nn.Module):
    """mask [1,1,S,S] of 0/1 -> mask_prompt [1,1,h,h]."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.conv = model.mask_downsample

    def forward(self, mask: Tensor) -> Tensor:
        return self.conv(mask)

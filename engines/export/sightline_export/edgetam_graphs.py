"""The graphs of EdgeTAM: thin modules around a published `EdgeTamVideoModel`.

S is the image size, F = S/16, h = S/4, C the model width, c the memory width; T = 512 tokens a
memory (256 of the whole frame, then 16x16 of its windows), B the number of objects; where slots are
said to be [B,NM], a model of closed sizes has [NM].
"""

import copy
from typing import Callable

import torch
import torch.nn.functional as F
from timm.layers import SqueezeExcite
from timm.utils.model import reparameterize_model
from torch import Tensor, nn

from . import ExportError, two_way
from .attention import FusedLayer, FusedMemoryAttention, Parts, Projections, Rope, read_memory
from .perceiver import Perceiver
from .rewrites import Block, Downsampler, Gate, chained
from .sam2_graphs import MaskDownsample as MaskDownsample
from .sam2_graphs import by_object, pick

NO_OBJ_SCORE = -1024.0


class ImageEncoder(nn.Module):
    """image [1,3,S,S] -> feat_s0 [1,C/8,S/4,S/4], feat_s1 [1,C/4,S/8,S/8], feat_s2 [1,C,F,F]."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.vision, decoder = copy.deepcopy(model.vision_encoder), model.mask_decoder
        # RepViT's training branches summed into one convolution by its own code: 8 % less time.
        backbone = self.vision.backbone.timm_model = reparameterize_model(self.vision.backbone.timm_model)
        for name, layer in list(backbone.named_modules()):
            if isinstance(layer, SqueezeExcite):
                backbone.set_submodule(name, Gate(layer))
        # Nothing reads the fine levels but the decoder's own projections.
        neck = self.vision.neck
        if not {0, 1}.isdisjoint(neck.fpn_top_down_levels):
            raise ExportError(f"image encoder: expected fine levels by themselves, got {neck.fpn_top_down_levels}")
        neck.convs[3] = chained(neck.convs[3], decoder.conv_s0)
        neck.convs[2] = chained(neck.convs[2], decoder.conv_s1)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.vision(image).fpn_hidden_states[:3])


def fused(layer: nn.Module) -> FusedLayer:
    """A published `EdgeTamVideoMemoryAttentionLayer` for static slots."""
    own, cross = (Projections(attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj)
                  for attn in (layer.self_attn, layer.cross_attn_image))
    norms = (layer.layer_norm1, layer.layer_norm2, layer.layer_norm3)
    return FusedLayer(layer, Parts(norms, own, cross, layer.mlp), narrow=True)


class MemoryAttention(nn.Module):
    """feat_s2 conditioned on NM memory slots and NP pointer slots -> pix_feat [B,C,F,F]."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, published = model, model.memory_attention
        side = model.image_size // 16
        position = model.vision_encoder.neck.position_encoding
        pos = position(torch.Size((1, model.hidden_dim, side, side)), "cpu", torch.float32)
        # The published tables have every angle twice.
        queries, keys = (Rope(*(table[0, :, ::2].contiguous() for table in published.rotary_emb(pos, ids)))
                         for ids in (published.position_ids, published.position_ids_k))
        # The latents of the whole frame have no place and are not turned.
        still = model.config.perceiver_resampler_num_latents
        self.attention = FusedMemoryAttention(
            [fused(layer) for layer in published.layers], published.layer_norm,
            pos.flatten(2).transpose(1, 2), True, queries, keys, still)
        with torch.no_grad():
            blank = torch.zeros(1, model.mem_dim, side, side)
            _, mem_pos = model.spatial_perceiver(blank, blank)
        self.register_buffer("mem_pos", mem_pos.detach())
        self.register_buffer("tpos", model.memory_temporal_positional_encoding.detach().flatten(1))

    def forward(self, feat_s2: Tensor, mem: Tensor, tpos_idx: Tensor, mem_mask: Tensor,
                obj_ptrs: Tensor, ptr_tdiff: Tensor, ptr_mask: Tensor) -> Tensor:
        """mem [B,NM,T,c]; tpos_idx, mem_mask [B,NM]; obj_ptrs [B,NP,C]; ptr_mask [B,NP]; ages are not used."""
        tpos_idx, mem_mask, ptr_mask = map(by_object, (tpos_idx, mem_mask, ptr_mask))
        mem_pos = self.mem_pos.unsqueeze(1) + self.tpos[tpos_idx].unsqueeze(2)
        return read_memory(self.attention, feat_s2, mem, mem_pos, mem_mask, obj_ptrs, None, ptr_mask)


class Transformer(nn.Module):
    """In the place of an `EdgeTamVideoTwoWayTransformer`."""

    def __init__(self, published: nn.Module):
        super().__init__()

        def attention(layer: nn.Module) -> two_way.Attention:
            return two_way.Attention(layer.q_proj, layer.k_proj, layer.v_proj, layer.o_proj, layer.num_attention_heads)

        def own(layer: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
            return lambda *qkv: layer(*(x.unsqueeze(1) for x in qkv))[0][:, 0]

        layers = [two_way.Parts(
            own(layer.self_attn), (layer.layer_norm1, layer.layer_norm2, layer.layer_norm3, layer.layer_norm4),
            attention(layer.cross_attn_token_to_image), layer.mlp, attention(layer.cross_attn_image_to_token),
            layer.skip_first_layer_pe) for layer in published.layers]
        self.both = two_way.TwoWay(published, layers, attention(published.final_attn_token_to_image),
                                   published.layer_norm_final_attn)

    def forward(self, point_embeddings: Tensor, image_embeddings: Tensor, image_positional_embeddings: Tensor,
                **_nothing: None) -> tuple[Tensor, Tensor]:
        image, pe = two_way.flat(image_embeddings), two_way.flat(image_positional_embeddings)
        return tuple(x.unsqueeze(1) for x in self.both(point_embeddings[:, 0], image, pe))


class Heads(nn.Module):
    """The published prompt encoder and mask decoder, one best mask out.

    Returns low_res_mask [B,1,h,h], iou [B,1], obj_ptr [B,C], object_score [B,1].
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.decoder = model, copy.deepcopy(model.mask_decoder)
        self.decoder.transformer = Transformer(self.decoder.transformer)
        self.register_buffer("dense_pe", model.get_image_wide_positional_embeddings().detach())

    def embed(self, coords: Tensor, labels: Tensor) -> Tensor:
        """coords [1,P,2] in pixels, labels [1,P] -> [1,1,P,C]; the host has padded."""
        encoder = self.model.prompt_encoder
        published = encoder.shared_embedding.forward
        # The published division writes into slices, which a graph can only scatter; the image is square.
        encoder.shared_embedding.forward = lambda points, shape: published(points / shape[0])
        try:
            return encoder._embed_points(coords.unsqueeze(1), labels.unsqueeze(1), pad=False)
        finally:
            del encoder.shared_embedding.forward

    def decode(self, pix_feat: Tensor, feat_s0: Tensor, feat_s1: Tensor, sparse: Tensor,
               dense: Tensor, multimask: bool) -> tuple[Tensor, ...]:
        """The published decoder's choice: mask [B,1,h,h], iou [B,1], token [B,C], score [B,1]."""
        masks, ious, tokens, score = self.decoder(
            image_embeddings=pix_feat, image_positional_embeddings=self.dense_pe,
            sparse_prompt_embeddings=sparse, dense_prompt_embeddings=dense, multimask_output=multimask,
            high_resolution_features=[feat_s0, feat_s1])
        masks, ious, tokens = masks[:, 0], ious[:, 0], tokens[:, 0]
        if multimask:
            best = torch.argmax(ious, dim=-1)
            masks, ious, tokens = (pick(x, best).unsqueeze(1) for x in (masks, ious, tokens))
        return masks, ious, tokens[:, 0], score[:, 0]

    def finish(self, mask: Tensor, iou: Tensor, token: Tensor, score: Tensor) -> tuple[Tensor, ...]:
        """What an absent object leaves of mask and pointer."""
        present = score > 0
        mask = torch.where(present[..., None, None], mask, torch.full_like(mask, NO_OBJ_SCORE))
        pointer = torch.where(present, self.model.object_pointer_proj(token), self.model.no_object_pointer)
        return mask, iou, pointer, score


class DecoderTrack(Heads):
    """A tracked frame: no prompt, so the prompt embeddings are constants."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        with torch.no_grad():
            sparse, dense = model.prompt_encoder(
                input_points=torch.zeros(1, 1, 1, 2), input_labels=-torch.ones(1, 1, 1, dtype=torch.int32),
                input_boxes=None, input_masks=None)
        self.register_buffer("sparse", sparse.detach())
        self.register_buffer("dense", dense.detach().contiguous())
        self.multimask = model._use_multimask(False, None)

    def forward(self, pix_feat: Tensor, feat_s0: Tensor, feat_s1: Tensor) -> tuple[Tensor, ...]:
        sparse = self.sparse.expand(pix_feat.shape[0], -1, -1, -1)
        return self.finish(*self.decode(pix_feat, feat_s0, feat_s1, sparse, self.dense, self.multimask))


class DecoderPrompt(Heads):
    """A prompted frame; the host has appended the padding point and chosen `multimask`."""

    def forward(self, pix_feat: Tensor, feat_s0: Tensor, feat_s1: Tensor, point_coords: Tensor,
                point_labels: Tensor, mask_input: Tensor, has_mask_input: Tensor,
                multimask: Tensor) -> tuple[Tensor, ...]:
        """point_coords [1,P,2] in pixels of S x S; point_labels [1,P]; mask_input [1,1,h,h]."""
        encoder = self.model.prompt_encoder
        sparse = self.embed(point_coords, point_labels.to(torch.int64))
        given = has_mask_input.reshape(1, 1, 1, 1) > 0
        none = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        dense = torch.where(given, encoder.mask_embed(mask_input), none)
        # Both of the published choices; all they share is run once after folding.
        many, one = (self.decode(pix_feat, feat_s0, feat_s1, sparse, dense, wanted)
                     for wanted in (True, False))
        wanted = multimask.reshape(1, 1) > 0
        mask = torch.where(wanted[..., None, None], many[0], one[0])
        iou, token = (torch.where(wanted, many[i], one[i]) for i in (1, 2))
        return self.finish(mask, iou, token, one[3])


class MemoryEncoder(nn.Module):
    """feat_s2 (raw) and low-res mask logits -> mem [B,T,c]."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, published = model, model.memory_encoder
        downsampler = published.mask_downsampler
        self.downsample = Downsampler([(step.conv, step.layer_norm) for step in downsampler.layers],
                                      downsampler.final_conv)
        self.fuse = nn.Sequential(*(Block(layer.depthwise_conv, layer.layer_norm, layer.pointwise_conv1,
                                          layer.pointwise_conv2, layer.scale)
                                    for layer in published.memory_fuser.layers))
        side = model.image_size // 16
        pos = published.position_encoding(torch.Size((1, model.mem_dim, side, side)), "cpu", torch.float32)
        self.resample = Perceiver(model.spatial_perceiver, pos)

    def forward(self, feat_s2: Tensor, low_res_mask: Tensor, object_score: Tensor,
                binarize: Tensor) -> Tensor:
        """low_res_mask [B,1,h,h] logits; binarize [B]; the score is not used."""
        model, config, encoder = self.model, self.model.config, self.model.memory_encoder
        size = (model.image_size, model.image_size)
        logits = F.interpolate(low_res_mask, size=size, mode="bilinear", align_corners=False)
        mask = torch.where(binarize.reshape(-1, 1, 1, 1) > 0, (logits > 0).float(), torch.sigmoid(logits))
        mask = mask * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        features = self.fuse(encoder.feature_projection(feat_s2) + self.downsample(mask))
        return self.resample(encoder.projection(features))

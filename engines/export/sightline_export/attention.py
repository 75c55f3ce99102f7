"""Memory attention as a static graph: masked slots, real-valued RoPE, fused value projection.

The weights are those of the published `sam2.modeling.memory_attention.MemoryAttention`; only the
arithmetic is arranged differently, and every rearrangement is exact:

* complex rotation -> `x * cos + rotate_pairs(x) * sin`, interleaved pairs (x0, x1) -> (-x1, x0);
* a variable number of memories -> a fixed number of slots and an additive key mask;
* softmax(QK') (M Wv' + bv) Wo' + bo -> (softmax(QK') M) (Wo Wv)' + (Wo bv + bo): the rows of a
  softmax sum to one and there is one head, so attention runs on raw memory channels.
"""

import torch
from torch import Tensor, nn

from . import ExportError

# Queries attended at once. Above `CHUNK_ABOVE` the score matrix [F*F, keys] is cut into rows of
# `CHUNK`: 470 MB at 1024 px otherwise. The numbers do not change.
CHUNK_ABOVE = 1024
CHUNK = 256
MASKED = 1.0e4


def rope_tables(attn: nn.Module, side: int) -> tuple[Tensor, Tensor]:
    """`cos`, `sin` [side*side, head dim] of a published `RoPEAttention`, each value twice."""
    cis = attn.compute_cis(end_x=side, end_y=side)
    cos = cis.real.repeat_interleave(2, dim=-1).contiguous()
    sin = cis.imag.repeat_interleave(2, dim=-1).contiguous()
    return cos, sin


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the last dimension of `x` [..., tokens, d] by tables [tokens, d]."""
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return x * cos + turned * sin


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k' / sqrt(d) + bias) v, with q [1,N,d], k [1,K,d], v [1,K,c], bias [K]."""
    k_t = k.transpose(1, 2)
    scale = q.shape[-1] ** -0.5

    def rows(part: Tensor) -> Tensor:
        scores = part @ k_t
        if bias is not None:
            scores = scores + bias
        return torch.softmax(scores, dim=-1) @ v

    q = q * scale
    if q.shape[1] <= CHUNK_ABOVE:
        return rows(q)
    return torch.cat([rows(part) for part in torch.split(q, CHUNK, dim=1)], dim=1)


class FusedLayer(nn.Module):
    """One published `MemoryAttentionLayer`, evaluation mode."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        for attn in (layer.self_attn, layer.cross_attn_image):
            if attn.num_heads != 1:
                raise ExportError(f"memory attention: expected 1 head, got {attn.num_heads}")
        if not layer.pos_enc_at_cross_attn_keys or layer.pos_enc_at_cross_attn_queries:
            raise ExportError("memory attention: expected positions on the cross-attention keys only")
        cross = layer.cross_attn_image
        wv, bv = cross.v_proj.weight.double(), cross.v_proj.bias.double()
        wo, bo = cross.out_proj.weight.double(), cross.out_proj.bias.double()
        self.register_buffer("value_weight", (wo @ wv).float())
        self.register_buffer("value_bias", (wo @ bv + bo).float())

    def forward(self, x: Tensor, pos: Tensor, mem_keys: Tensor, ptr_keys: Tensor | None,
                values: Tensor, bias: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """x, pos [1,N,C]; mem_keys [1,NM,T,c]; ptr_keys [1,K',c]; values [1,K,c]; bias [K]."""
        layer = self.layer
        y = layer.norm1(x)
        qk = y + pos if layer.pos_enc_at_attn else y
        attn = layer.self_attn
        q = rotate(attn.q_proj(qk), *rope)
        k = rotate(attn.k_proj(qk), *rope)
        x = x + attn.out_proj(attend(q, k, attn.v_proj(y), None))

        y = layer.norm2(x)
        cross = layer.cross_attn_image
        q = rotate(cross.q_proj(y), *rope)
        k = rotate(cross.k_proj(mem_keys), *rope).flatten(1, 2)
        if ptr_keys is not None:
            k = torch.cat((k, cross.k_proj(ptr_keys)), dim=1)
        y = attend(q, k, values, bias)
        x = x + nn.functional.linear(y, self.value_weight, self.value_bias)

        y = layer.norm3(x)
        return x + layer.linear2(layer.activation(layer.linear1(y)))


class FusedMemoryAttention(nn.Module):
    """The published `MemoryAttention` on a fixed number of keys."""

    def __init__(self, attention: nn.Module, pos: Tensor, side: int):
        """`pos` [1,N,C]: the sine encoding of the top feature level."""
        super().__init__()
        self.pos_enc_at_input = attention.pos_enc_at_input
        self.register_buffer("pos", pos)
        # One pair of tables for all layers: kept in each, they would outweigh the weights.
        tables = [rope_tables(attn, side) for layer in attention.layers
                  for attn in (layer.self_attn, layer.cross_attn_image)]
        if not all(torch.equal(one[0], tables[0][0]) for one in tables):
            raise ExportError("memory attention: expected the same RoPE in every layer")
        self.register_buffer("cos", tables[0][0])
        self.register_buffer("sin", tables[0][1])
        self.layers = nn.ModuleList(FusedLayer(layer) for layer in attention.layers)
        self.norm = attention.norm

    def forward(self, x: Tensor, mem_keys: Tensor, ptr_keys: Tensor | None, values: Tensor,
                used: Tensor) -> Tensor:
        """x [1,N,C]; used [K] is 1 for a key to read, 0 for an empty one. Returns [1,N,C]."""
        bias = (used - 1.0) * MASKED
        if self.pos_enc_at_input:
            x = x + 0.1 * self.pos
        for layer in self.layers:
            x = layer(x, self.pos, mem_keys, ptr_keys, values, bias, (self.cos, self.sin))
        return self.norm(x)

"""Memory attention as a static graph: masked slots, real-valued RoPE, fused value projection.

The weights are those of the published memory attention (`sam2`'s `MemoryAttention`, `transformers`'
`EdgeTamVideoMemoryAttention`); only the arithmetic is arranged differently, and every rearrangement
is exact:

* complex rotation -> `x * cos + rotate_pairs(x) * sin`, interleaved pairs (x0, x1) -> (-x1, x0);
* a variable number of memories -> slots and an additive key mask;
* softmax(QK') (M Wv' + bv) Wo' + bo -> (softmax(QK') M) (Wo Wv)' + (Wo bv + bo): the rows of a
  softmax sum to one and there is one head, so attention runs on raw memory channels.

B counts objects. They look at one picture, so B is 1 until the first cross-attention: the first
self-attention is computed once for all of them.
"""

from typing import Callable, NamedTuple

import torch
from torch import Tensor, nn

# Queries attended at once. Above `CHUNK_ABOVE` the score matrix [F*F, keys] is cut into rows of
# `CHUNK`: 470 MB at 1024 px otherwise. The numbers do not change.
CHUNK_ABOVE = 1024
CHUNK = 256
MASKED = 1.0e4


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the last dimension of `x` [..., tokens, d] by tables [tokens, d]."""
    pairs = x.unflatten(-1, (-1, 2))
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return x * cos + turned * sin


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k' / sqrt(d) + bias) v, with q [B,N,d], k [B,K,d], v [B,K,c], bias [B,1,K]; q may have B = 1."""
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


class Projections(NamedTuple):
    """The four linear layers of one attention."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear


class Parts(NamedTuple):
    """What one published layer is made of, whatever its package calls it."""

    norms: tuple[nn.Module, nn.Module, nn.Module]
    own: Projections
    cross: Projections
    mlp: Callable[[Tensor], Tensor]
    pos_at_own: bool = False


class Rope(NamedTuple):
    """`cos`, `sin` [tokens, C], each value twice; tokens that are not turned have 1 and 0."""

    cos: Tensor
    sin: Tensor


class FusedLayer(nn.Module):
    """One published memory attention layer, evaluation mode."""

    def __init__(self, layer: nn.Module, parts: Parts):
        super().__init__()
        self.layer, self.parts = layer, parts
        value, out = parts.cross.value, parts.cross.out
        wv, bv, wo, bo = (x.double() for x in (value.weight, value.bias, out.weight, out.bias))
        self.register_buffer("value_weight", (wo @ wv).float())
        self.register_buffer("value_bias", (wo @ bv + bo).float())

    def forward(self, x: Tensor, pos: Tensor, mem_keys: Tensor, ptr_keys: Tensor | None,
                values: Tensor, bias: Tensor, rope: Rope, mem_rope: Rope) -> Tensor:
        """x [1 or B,N,C], pos [1,N,C]; mem_keys [B,NM,T,c]; ptr_keys [B,K',c]; values [B,K,c]; bias [B,1,K]."""
        norms, own, cross, mlp, pos_at_own = self.parts
        y = norms[0](x)
        qk = y + pos if pos_at_own else y
        q, k = rotate(own.query(qk), *rope), rotate(own.key(qk), *rope)
        x = x + own.out(attend(q, k, own.value(y), None))

        y = norms[1](x)
        q = rotate(cross.query(y), *rope)
        k = rotate(cross.key(mem_keys), *mem_rope).flatten(1, 2)
        if ptr_keys is not None:
            k = torch.cat((k, cross.key(ptr_keys)), dim=1)
        y = attend(q, k, values, bias)
        x = x + nn.functional.linear(y, self.value_weight, self.value_bias)
        return x + mlp(norms[2](x))


class FusedMemoryAttention(nn.Module):
    """A published memory attention on masked keys."""

    def __init__(self, layers: list[FusedLayer], norm: nn.Module, pos: Tensor, pos_at_input: bool,
                 rope: Rope, mem_rope: Rope):
        """`pos` [1,N,C]: the sine encoding of the top feature level; one `Rope` serves all layers."""
        super().__init__()
        self.layers, self.norm, self.pos_at_input = nn.ModuleList(layers), norm, pos_at_input
        self.register_buffer("pos", pos)
        for name, tables in (("rope", rope), ("mem_rope", mem_rope)):
            self.register_buffer(f"{name}_cos", tables.cos)
            self.register_buffer(f"{name}_sin", tables.sin)

    def forward(self, x: Tensor, mem_keys: Tensor, ptr_keys: Tensor | None, values: Tensor,
                used: Tensor) -> Tensor:
        """x [1,N,C]; used [B,K] is 1 for a key to read, 0 for an empty one. Returns [B,N,C]."""
        bias = ((used - 1.0) * MASKED).unsqueeze(1)
        rope = Rope(self.rope_cos, self.rope_sin)
        mem_rope = Rope(self.mem_rope_cos, self.mem_rope_sin)
        if self.pos_at_input:
            x = x + 0.1 * self.pos
        for layer in self.layers:
            x = layer(x, self.pos, mem_keys, ptr_keys, values, bias, rope, mem_rope)
        return self.norm(x)


def read_memory(attention: FusedMemoryAttention, feat: Tensor, mem: Tensor, mem_pos: Tensor,
                mem_mask: Tensor, obj_ptrs: Tensor, ptr_pos: Tensor | None, ptr_mask: Tensor) -> Tensor:
    """feat [1,C,F,F] conditioned on mem [B,NM,T,c] (positions mem_pos [B,NM,T,c]) and obj_ptrs [B,NP,C].

    A pointer is C/c tokens; ptr_pos [B,NP,c] is the position of them all. Returns [B,C,F,F].
    """
    tokens, width = mem.shape[2], mem.shape[3]
    split = obj_ptrs.shape[2] // width
    pointers = obj_ptrs.unflatten(2, (split, width))
    keys = pointers if ptr_pos is None else pointers + ptr_pos.unsqueeze(2)
    used = torch.cat((each(mem_mask, tokens), each(ptr_mask, split)), dim=1)
    values = torch.cat((mem.flatten(1, 2), pointers.flatten(1, 2)), dim=1)
    x = attention(feat.flatten(2).transpose(1, 2), mem + mem_pos, keys.flatten(1, 2), values, used)
    return x.transpose(1, 2).unflatten(2, feat.shape[2:])


def each(mask: Tensor, times: int) -> Tensor:
    """[B,K] -> [B,K*times], every value `times` times."""
    return mask.unsqueeze(2).expand(-1, -1, times).flatten(1)

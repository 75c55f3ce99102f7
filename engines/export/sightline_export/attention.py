"""Memory attention as a static graph: masked slots, real-valued RoPE, fused projections.

The weights are those of the published memory attention (`sam2`'s `MemoryAttention`, `transformers`'
`EdgeTamVideoMemoryAttention`); only the arithmetic is arranged differently, and every rearrangement
is exact:

* complex rotation -> channels in the order even, odd, so that a pair's halves are two products of
  their own, `(a cos - b sin, b cos + a sin)`; queries and keys are reordered alike;
* a variable number of memories -> slots, and a last channel that is 1 in queries and 0 or `-MASKED` in
  keys: the score of an empty slot vanishes in the softmax;
* softmax(QK') (M Wv' + bv) Wo' + bo -> (softmax(QK') M) (Wo Wv)' + (Wo bv + bo): the rows of a
  softmax sum to one and there is one head, so attention runs on what the values are made of;
* keys that are not turned: q (m Wk' + bk)' -> (q Wk) m' + q bk', so that they meet the queries in the
  memory's width instead of the model's;
* 1/sqrt(d) is part of the query weights.

B counts objects. Where they look at one picture, B is 1 until the first cross-attention: the first
self-attention is computed once for all of them. Those of several pictures bring a picture each. Linear layers take rows [B*N,C] and so become one operator
with their bias, but for those of the MLP, whose bias costs more that way.
"""

from typing import Callable, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

# Queries attended at once: the scores of so many rows stay in a processor's cache, and at 1024 px the
# whole matrix would be 470 MB. The numbers do not change.
CHUNK = 256
MASKED = 1.0e4


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
    """`cos`, `sin` [tokens, C/2]: one angle for each pair of channels."""

    cos: Tensor
    sin: Tensor


class Keys(NamedTuple):
    """What the memories of `objects`, B, are read by; masks are 0, or `-MASKED` for what is not there.

    `turned` [B*NM,T',c] and its `mask` [B*NM,T',1]; `still` [B,K',c+2], whose last channels are 1 and its
    mask; `values` [B,K,c], the turned ones first.
    """

    objects: int
    turned: Tensor
    mask: Tensor
    still: Tensor
    values: Tensor


class Turned(nn.Module):
    """A published linear layer and the rotation of what it gives: rows [R,c] -> [B,tokens,C], or C + 1."""

    def __init__(self, published: nn.Linear, scale: float = 1.0):
        super().__init__()
        weight, bias = published.weight.detach() * scale, published.bias.detach() * scale
        for name, start in (("even", 0), ("odd", 1)):
            self.register_buffer(f"{name}_weight", weight[start::2].contiguous())
            self.register_buffer(f"{name}_bias", bias[start::2].contiguous())

    def forward(self, x: Tensor, rope: Rope, last: Tensor | None = None) -> Tensor:
        """`last` [B,tokens,1] becomes the last channel."""
        a, b = (linear(x, weight, bias).unflatten(0, (-1, rope.cos.shape[0]))
                for weight, bias in ((self.even_weight, self.even_bias), (self.odd_weight, self.odd_bias)))
        parts = [a * rope.cos - b * rope.sin, b * rope.cos + a * rope.sin]
        return torch.cat(parts if last is None else [*parts, last], dim=-1)


class FusedValue(nn.Module):
    """The value and output projections of a one-headed attention as one matrix."""

    def __init__(self, parts: Projections):
        super().__init__()
        wv, bv, wo, bo = (x.detach().double() for x in (parts.value.weight, parts.value.bias,
                                                        parts.out.weight, parts.out.bias))
        kind = parts.out.weight.dtype
        self.register_buffer("weight", (wo @ wv).to(kind))
        self.register_buffer("bias", (wo @ bv + bo).to(kind))

    def forward(self, x: Tensor) -> Tensor:
        return linear(in_rows(x), self.weight, self.bias)


def in_rows(x: Tensor) -> Tensor:
    """[B,N,C] -> [B*N,C], as a Reshape: of a Flatten shape inference does not know how many rows there are."""
    return x.reshape(-1, int(x.shape[-1]))


def attend(pairs: list[tuple[Tensor, Tensor]], v: Tensor) -> Tensor:
    """softmax of the scores q k' of all `pairs` side by side, times v: q [B,N,d], k [B,K,d], v [B,sum of K,c]."""
    keys = [k.transpose(1, 2) for _, k in pairs]

    def rows(queries) -> Tensor:
        scores = [q @ k for q, k in zip(queries, keys, strict=True)]
        return torch.softmax(scores[0] if len(scores) == 1 else torch.cat(scores, dim=2), dim=-1) @ v

    queries = [q for q, _ in pairs]
    if queries[0].shape[1] <= CHUNK:
        return rows(queries)
    parts = zip(*(torch.split(q, CHUNK, dim=1) for q in queries), strict=True)
    return torch.cat([rows(part) for part in parts], dim=1)


class FusedLayer(nn.Module):
    """One published memory attention layer, evaluation mode."""

    def __init__(self, layer: nn.Module, parts: Parts, narrow: bool = False):
        """`narrow`: so many keys are not turned that they are worth a score matrix of their own."""
        super().__init__()
        self.layer, self.parts, self.narrow = layer, parts, narrow
        own, cross = parts.own, parts.cross
        scale = own.query.out_features ** -0.5
        self.query, self.key, self.value = Turned(own.query, scale), Turned(own.key), FusedValue(own)
        self.cross_query, self.cross_key = Turned(cross.query, scale), Turned(cross.key)
        self.cross_value = FusedValue(cross)
        # [C+1, c+2]: a query and its 1 -> what meets a key that is not turned, its bias, and its mask.
        weight, bias = cross.key.weight.detach(), cross.key.bias.detach()
        weight, bias = (torch.cat((x[0::2], x[1::2])) for x in (weight, bias))
        still = torch.zeros(weight.shape[0] + 1, weight.shape[1] + 2, dtype=weight.dtype)
        still[:-1, :-2], still[:-1, -2], still[-1, -1] = weight, bias, 1
        self.register_buffer("still", still)

    def forward(self, x: Tensor, pos: Tensor, ones: Tensor, keys: Keys, rope: Rope, mem_rope: Rope) -> Tensor:
        """x [1 or B,N,C], pos [1,N,C], ones [1 or B,N,1] as x; returns [B,N,C]."""
        norms, _, _, mlp, pos_at_own = self.parts
        y = norms[0](x)
        qk = in_rows(y + pos if pos_at_own else y)
        y = attend([(self.query(qk, rope), self.key(qk, rope))], y)
        # Sums in rows: ONNX Runtime would put one [B,N,C] and its norm into one operator, six times as slow.
        rows = in_rows(x) + self.value(y)

        q = self.cross_query(norms[1](rows), rope, ones)
        k = self.cross_key(in_rows(keys.turned), mem_rope, keys.mask).reshape(keys.objects, -1, q.shape[2])
        if self.narrow:
            pairs = [(q, k), (q @ self.still, keys.still)]
        else:
            pairs = [(q, torch.cat((k, keys.still @ self.still.T), dim=1))]
        tokens = (-1, x.shape[1])
        x = rows.unflatten(0, tokens) + self.cross_value(attend(pairs, keys.values)).unflatten(0, tokens)
        rows = in_rows(x) + in_rows(mlp(norms[2](x)))
        return rows.unflatten(0, tokens)


class FusedMemoryAttention(nn.Module):
    """A published memory attention on masked keys."""

    def __init__(self, layers: list[FusedLayer], norm: nn.Module, pos: Tensor, pos_at_input: bool,
                 rope: Rope, mem_rope: Rope, still: int = 0):
        """`pos` [1,N,C]: the sine encoding of the top feature level; one `Rope` serves all layers. The first
        `still` tokens of a memory are not turned, the others by `mem_rope`."""
        super().__init__()
        self.layers, self.norm, self.pos_at_input, self.still = nn.ModuleList(layers), norm, pos_at_input, still
        self.register_buffer("pos", pos)
        self.register_buffer("pos_0", 0.1 * pos.transpose(1, 2).contiguous())
        self.register_buffer("ones", torch.ones(1, pos.shape[1], 1))
        for name, tables in (("rope", rope), ("mem_rope", mem_rope)):
            self.register_buffer(f"{name}_cos", tables.cos)
            self.register_buffer(f"{name}_sin", tables.sin)

    def forward(self, x: Tensor, keys: Keys) -> Tensor:
        """x [1 or B,C,N]. Returns [B,N,C]."""
        if self.pos_at_input:
            x = x + self.pos_0
        x = x.transpose(1, 2)
        rope = Rope(self.rope_cos, self.rope_sin)
        mem_rope = Rope(self.mem_rope_cos, self.mem_rope_sin)
        ones = self.ones.expand(x.shape[0], -1, -1)
        for layer in self.layers:
            x = layer(x, self.pos, ones, keys, rope, mem_rope)
            ones = self.ones.expand(keys.objects, -1, -1)
        return self.norm(x)


def read_memory(attention: FusedMemoryAttention, feat: Tensor, mem: Tensor, mem_pos: Tensor,
                mem_mask: Tensor, obj_ptrs: Tensor, ptr_pos: Tensor | None, ptr_mask: Tensor) -> Tensor:
    """feat [1 or B,C,F,F] conditioned on mem [B,NM,T,c] (positions mem_pos [B,NM,T,c]) and obj_ptrs [B,NP,C].

    A pointer is C/c tokens; ptr_pos [B,NP,c] is the position of them all. Returns [B,C,F,F].
    """
    objects, still, turned = mem.shape[0], attention.still, mem.shape[2] - attention.still
    split = obj_ptrs.shape[2] // mem.shape[3]
    pointers = ptr_keys = obj_ptrs.reshape(objects, -1, mem.shape[3])
    if ptr_pos is not None:
        ptr_keys = pointers + ptr_pos.repeat_interleave(split, dim=1)
    mem_keys = mem + mem_pos
    mem_mask, ptr_mask = ((used - 1.0) * MASKED for used in (mem_mask, ptr_mask))
    mask = each(ptr_mask, split)
    if still:
        ptr_keys = torch.cat((mem_keys[:, :, :still].flatten(1, 2), ptr_keys), dim=1)
        pointers = torch.cat((mem[:, :, :still].flatten(1, 2), pointers), dim=1)
        mask = torch.cat((each(mem_mask, still), mask), dim=1)
        mem, mem_keys = mem[:, :, still:], mem_keys[:, :, still:]
    mask = mask.unsqueeze(2)
    keys = Keys(objects, mem_keys.flatten(0, 1), mem_mask.reshape(-1, 1, 1).expand(-1, turned, -1),
                torch.cat((ptr_keys, torch.ones_like(mask), mask), dim=2),
                torch.cat((mem.flatten(1, 2), pointers), dim=1))
    x = attention(feat.flatten(2), keys)
    return x.transpose(1, 2).unflatten(2, feat.shape[2:])


def each(mask: Tensor, times: int) -> Tensor:
    """[B,K] -> [B,K*times], every value `times` times."""
    return mask.unsqueeze(2).expand(-1, -1, times).flatten(1)

"""The mask decoder's two-way transformer, with the picture left in its own width.

The weights are those of the published `TwoWayTransformer` (`sam2`) and `EdgeTamVideoTwoWayTransformer`
(`transformers`). A picture has a thousand tokens or more, an object about eight. Whatever stands between
a picture's token and a score or a sum is linear, so it is moved to the other side, exactly:

* q (x Wk' + bk)' -> (q Wk) x' + q bk', and what is the same for all keys vanishes in the softmax;
* softmax(..) (x Wv' + bv) -> (softmax(..) x) Wv' + bv, as the rows of a softmax sum to one;
* the other way round alike: (x Wq' + bq) k' -> x (k Wq)' + bq k'.

With T tokens and H heads of an object, H T of them meet the picture instead of projections of it: half the
work at 8 tokens, and no tensor as large as the picture is ever split into heads.
"""

from typing import Callable, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class Attention(NamedTuple):
    """One published attention: its linear layers and number of heads."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    heads: int


class Parts(NamedTuple):
    """One published block, whatever its package calls it. `own` is its self-attention of q, k, v [B,T,C]."""

    own: Callable[[Tensor, Tensor, Tensor], Tensor]
    norms: tuple[nn.Module, nn.Module, nn.Module, nn.Module]
    to_image: Attention
    mlp: Callable[[Tensor], Tensor]
    from_image: Attention
    skip_first_pe: bool


class Heads(nn.Module):
    """What both directions share: weights by head."""

    def __init__(self, parts: Attention):
        super().__init__()
        self.heads = parts.heads
        scale = (parts.query.out_features // parts.heads) ** -0.5
        with torch.no_grad():
            self.register_buffer("query", parts.query.weight * scale)
            self.register_buffer("query_bias", parts.query.bias * scale)
            self.register_buffer("out_bias", parts.out.weight @ parts.value.bias + parts.out.bias)
        self.key, self.value, self.out = parts.key, parts.value, parts.out

    def rows(self, weight: Tensor) -> Tensor:
        """[H*d,C] -> [H,d,C]."""
        return weight.unflatten(0, (self.heads, -1)).contiguous()

    def split(self, x: Tensor) -> Tensor:
        """[B,T,H*d] -> [B,H,T,d]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class ToImage(Heads):
    """Tokens [B,T,C] looking at the picture."""

    def __init__(self, parts: Attention):
        super().__init__(parts)
        self.register_buffer("lift", self.rows(parts.key.weight.detach()))
        self.register_buffer("lower", self.rows(parts.value.weight.detach()).transpose(1, 2).contiguous())

    def forward(self, tokens: Tensor, keys: Tensor, image: Tensor) -> Tensor:
        """keys, image [B,N,C] -> [B,T,C]."""
        count = tokens.shape[1]
        q = self.split(linear(tokens, self.query, self.query_bias)) @ self.lift
        seen = torch.softmax(q.flatten(1, 2) @ keys.transpose(1, 2), dim=-1) @ image
        values = seen.unflatten(1, (self.heads, count)) @ self.lower
        return linear(values.transpose(1, 2).flatten(2), self.out.weight, self.out_bias)


class FromImage(Heads):
    """The picture looking at tokens [B,T,C]."""

    def __init__(self, parts: Attention):
        super().__init__(parts)
        self.register_buffer("lift", self.rows(self.query))
        self.register_buffer("bias", self.query_bias.unflatten(0, (self.heads, -1)).unsqueeze(2).contiguous())
        self.register_buffer("raise_", self.rows(parts.out.weight.detach().T))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """queries [B,N,C] -> [B,N,C]."""
        count = keys.shape[1]
        k = self.split(self.key(keys))
        bias = (k @ self.bias).flatten(1)
        scores = queries @ (k @ self.lift).flatten(1, 2).transpose(1, 2) + bias.unsqueeze(1)
        found = torch.softmax(scores.unflatten(2, (self.heads, count)), dim=-1).flatten(2)
        raised = self.split(linear(values, self.value.weight)) @ self.raise_
        return found @ raised.flatten(1, 2) + self.out_bias


class TwoWay(nn.Module):
    """A published two-way transformer."""

    def __init__(self, published: nn.Module, layers: list[Parts], last: Attention, norm: nn.Module):
        """`published` has all of it; the rest says where."""
        super().__init__()
        self.published, self.parts, self.norm = published, layers, norm
        self.to_image = nn.ModuleList([ToImage(layer.to_image) for layer in layers])
        self.from_image = nn.ModuleList([FromImage(layer.from_image) for layer in layers])
        self.last = ToImage(last)

    def forward(self, given: Tensor, image: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B,T,C], image [B,N,C], its positions [1,N,C] -> both after it."""
        tokens = given
        for layer, to_image, from_image in zip(self.parts, self.to_image, self.from_image, strict=True):
            if layer.skip_first_pe:
                tokens = layer.own(tokens, tokens, tokens)
            else:
                q = tokens + given
                tokens = tokens + layer.own(q, q, tokens)
            tokens = layer.norms[0](tokens)
            keys = image + pe
            tokens = layer.norms[1](tokens + to_image(tokens + given, keys, image))
            tokens = layer.norms[2](tokens + layer.mlp(tokens))
            image = layer.norms[3](image + from_image(keys, tokens + given, tokens))
        tokens = tokens + self.last(tokens + given, image + pe, image)
        return self.norm(tokens), image


def flat(feature: Tensor) -> Tensor:
    """[B,C,F,F] -> [B,N,C]."""
    return feature.flatten(2).transpose(1, 2)

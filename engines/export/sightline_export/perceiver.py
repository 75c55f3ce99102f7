"""EdgeTAM's perceiver on static windows, its two sets of latents side by side.

The weights are those of the published `EdgeTamVideoPerceiverResampler`, which runs its layers twice: for
the latents that read the whole frame, and for those that read a window each. Exactly rearranged:

* tokens come in the order of their windows, which attention over all of them does not see; so norms, keys
  and values are computed once, and what works latent by latent takes both sets at once;
* a latent alone with itself attends to itself: the softmax of one number is 1, and what is left of the
  windows' self-attention is its value;
* what depends on the latents alone is a constant in the first layer; 1/sqrt(d) is part of the query
  weights; value and output projections are one matrix in self-attention.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from . import ExportError


def look(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k') v over the last two dimensions."""
    return torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v


class Layer(nn.Module):
    """One published `EdgeTamVideoPerceiverEncoderLayer`."""

    def __init__(self, published: nn.Module, whole: int):
        super().__init__()
        self.published, self.whole = published, whole
        cross, own = published.cross_attention, published.self_attention
        if cross.num_attention_heads != 1 or own.num_attention_heads != 1:
            raise ExportError(f"perceiver: expected 1 head, got {cross.num_attention_heads}")
        with torch.no_grad():
            self.register_buffer("query", cross.q_proj.weight * cross.scaling)
            self.register_buffer("own_query", own.q_proj.weight * own.scaling)
            self.register_buffer("own_value", (own.o_proj.weight.double() @ own.v_proj.weight.double()).to(
                own.o_proj.weight.dtype))

    def forward(self, latents: Tensor, tokens: Tensor, pos: Tensor) -> Tensor:
        """latents [1 or B,L,c]; tokens [B,W,N/W,c] in W windows; pos [1,N,c] -> [B,L,c]."""
        layer, whole = self.published, self.whole
        cross, own = layer.cross_attention, layer.self_attention
        rows = layer.layer_norm_input(tokens)
        k, v = cross.k_proj(rows), cross.v_proj(rows)
        q = linear(layer.layer_norm_latents(latents), self.query)
        of_all = look(q[:, :whole], k.flatten(1, 2) + pos, v.flatten(1, 2) + pos)
        of_windows = look(q[:, whole:].unsqueeze(2), k, v).flatten(2)
        latents = latents + cross.o_proj(torch.cat((of_all, of_windows), dim=1))
        latents = latents + layer.mlp(latents)

        rows = layer.layer_norm_self(latents)
        first = rows[:, :whole]
        first = look(linear(first, self.own_query), own.k_proj(first), first)
        latents = latents + linear(torch.cat((first, rows[:, whole:]), dim=1), self.own_value)
        return latents + layer.self_mlp(latents)


class Perceiver(nn.Module):
    """features [B,c,F,F] -> memory [B,L,c]: first the latents of the whole frame, then those of the windows."""

    def __init__(self, published: nn.Module, pos: Tensor):
        """`pos` [1,c,F,F]: the sine encoding of the memory features."""
        super().__init__()
        self.windows = math.isqrt(published.num_latents_2d)
        self.layers = nn.ModuleList([Layer(layer, published.num_latents_1d) for layer in published.layers])
        self.norm = published.layer_norm
        latents = torch.cat((published.latents_1d, published.latents_2d)).detach()
        self.register_buffer("latents", latents.unsqueeze(0))
        self.register_buffer("pos", self.split(pos).flatten(1, 2))

    def split(self, features: Tensor) -> Tensor:
        """[B,c,F,F] -> [B,W,N/W,c]."""
        parts = features.permute(0, 2, 3, 1).contiguous()
        parts = parts.unflatten(2, (self.windows, -1)).unflatten(1, (self.windows, -1))
        return parts.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        tokens, latents = self.split(features), self.latents
        for layer in self.layers:
            latents = layer(latents, tokens, self.pos)
        return self.norm(latents)

"""Published layers in forms that are quicker to run and compute the same."""

import torch
from torch import Tensor, nn


def chained(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Two 1x1 convolutions as one: `second(first(x))`."""
    both = nn.Conv2d(first.in_channels, second.out_channels, 1)
    with torch.no_grad():
        outer, inner = second.weight.double().flatten(1), first.weight.double().flatten(1)
        both.weight.copy_((outer @ inner)[..., None, None])
        both.bias.copy_(outer @ first.bias.double() + second.bias.double())
    return both

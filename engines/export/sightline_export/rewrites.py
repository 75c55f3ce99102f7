"""Published layers in forms that are quicker to run and compute the same."""

import torch
from torch import Tensor, nn


def chained(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Two 1x1 convolutions as one: `second(first(x))`."""
    both = nn.Conv2d(first.in_channels, second.out_channels, 1, dtype=first.weight.dtype)
    with torch.no_grad():
        outer, inner = second.weight.double().flatten(1), first.weight.double().flatten(1)
        both.weight.copy_((outer @ inner)[..., None, None])
        both.bias.copy_(outer @ first.bias.double() + second.bias.double())
    return both


class Gate(nn.Module):
    """`timm`'s `SqueezeExcite` with its gate enlarged to the picture before the two are multiplied.

    ONNX Runtime keeps channels in blocks as long as shapes are the same, and moves every tensor out of them
    and back where they are not: in RepViT twice for each of ten gates.
    """

    def __init__(self, published: nn.Module):
        super().__init__()
        self.published = published

    def forward(self, x: Tensor) -> Tensor:
        layer = self.published
        y = layer.fc2(layer.act(layer.bn(layer.fc1(nn.functional.adaptive_avg_pool2d(x, 1)))))
        return x * nn.functional.interpolate(layer.gate(y), scale_factor=int(x.shape[-1]), mode="nearest")


class NormedConv(nn.Module):
    """A convolution and the LayerNorm over its channels, all in [B,C,H,W].

    The mean over the channels leaves with the weights: what remains of the norm is to divide by a root
    mean square. ONNX Runtime takes 1.6 ms for 65536 norms of 4 channels, which this does in 0.3.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module):
        super().__init__()
        self.stride, self.padding, self.eps = conv.stride, conv.padding, norm.eps
        with torch.no_grad():
            for name, value in (("weight", conv.weight), ("bias", conv.bias)):
                self.register_buffer(name, (value.double() - value.double().mean(0, keepdim=True)).to(value.dtype))
            for name, value in (("gain", norm.weight), ("shift", norm.bias)):
                self.register_buffer(name, value[:, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        return x / torch.sqrt(x.square().mean(1, keepdim=True) + self.eps) * self.gain + self.shift


class Block(nn.Module):
    """A ConvNeXt block of the memory encoder with 1x1 convolutions for its linear layers, their scale included."""

    def __init__(self, depthwise: nn.Conv2d, norm: nn.Module, wide: nn.Linear, narrow: nn.Linear, scale: Tensor):
        super().__init__()
        self.depthwise, self.norm = depthwise, norm
        for name, layer, gain in (("wide", wide, torch.ones(wide.out_features)), ("narrow", narrow, scale.detach())):
            self.register_buffer(f"{name}_weight", (gain[:, None] * layer.weight.detach())[..., None, None])
            self.register_buffer(f"{name}_bias", gain * layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.conv2d(self.norm(self.depthwise(x)), self.wide_weight, self.wide_bias)
        return x + nn.functional.conv2d(nn.functional.gelu(y), self.narrow_weight, self.narrow_bias)


class Downsampler(nn.Module):
    """The memory encoder's way from a mask [B,1,S,S] to [B,C,S/16,S/16]."""

    def __init__(self, steps: list[tuple[nn.Conv2d, nn.Module]], last: nn.Conv2d):
        super().__init__()
        # From 64 channels on the norm along rows of channels is as quick.
        self.steps = nn.ModuleList([NormedConv(*step) if step[0].out_channels < 64 else nn.Sequential(*step)
                                    for step in steps])
        self.last = last

    def forward(self, mask: Tensor) -> Tensor:
        for step in self.steps:
            mask = nn.functional.gelu(step(mask))
        return self.last(mask)

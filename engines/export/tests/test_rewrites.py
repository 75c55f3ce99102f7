"""Every rearranged layer beside the published one, in f64: the same but for its last digits."""

import sys
import unittest
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "engines" / "export"))

from sightline_export import attention as attn, rewrites, sam2_graphs  # noqa: E402
from sightline_export.perceiver import Perceiver  # noqa: E402

TOLERANCE = 1e-12


def drawn(module: nn.Module) -> nn.Module:
    """In f64, every weight drawn: what is initialised to nothing or to the identity hides mistakes."""
    module = module.double().eval()
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, dtype=torch.float64) * 0.3)
    return module


class Rewrites(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(7)

    def same(self, got, want):
        with torch.no_grad():
            self.assertEqual(got.shape, want.shape)
            self.assertGreater(want.std().item(), 1e-2)
            self.assertLessEqual((got - want).abs().max().item(), TOLERANCE * max(1.0, want.abs().max().item()))

    def noise(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    def test_chained(self):
        first, second = drawn(nn.Conv2d(5, 9, 1)), drawn(nn.Conv2d(9, 3, 1))
        x = self.noise(2, 5, 4, 6)
        self.same(rewrites.chained(first, second)(x), second(first(x)))

    def test_normed_conv(self):
        from sam2.modeling.sam2_utils import LayerNorm2d

        conv, norm = drawn(nn.Conv2d(3, 8, 3, 2, 1)), drawn(LayerNorm2d(8))
        x = self.noise(2, 3, 8, 8)
        self.same(rewrites.NormedConv(conv, norm)(x), norm(conv(x)))

    def test_downsampler(self):
        from sam2.modeling.memory_encoder import MaskDownSampler

        published = drawn(MaskDownSampler(embed_dim=12, kernel_size=3, stride=2, padding=1))
        steps = list(published.encoder)
        ours = rewrites.Downsampler(list(zip(steps[0:-1:3], steps[1:-1:3], strict=True)), steps[-1])
        self.assertEqual([isinstance(step, rewrites.NormedConv) for step in ours.steps], [True, True, False, False])
        x = self.noise(2, 1, 64, 64)
        self.same(ours(x), published(x))

    def test_block(self):
        from sam2.modeling.memory_encoder import CXBlock

        published = drawn(CXBlock(8, kernel_size=7, padding=3))
        ours = rewrites.Block(published.dwconv, published.norm, published.pwconv1, published.pwconv2, published.gamma)
        x = self.noise(2, 8, 6, 6)
        self.same(ours(x), published(x))

    def test_gate(self):
        from timm.layers import SqueezeExcite

        published = drawn(SqueezeExcite(16, rd_ratio=0.25))
        x = self.noise(2, 16, 6, 6)
        self.same(rewrites.Gate(published)(x), published(x))

    def test_keys_that_are_not_turned(self):
        """Met in their own width or projected: the same. The latter is what SAM 2's exports are verified with."""
        def attention(memory: int) -> attn.Projections:
            return attn.Projections(*(drawn(nn.Linear(width, 8)) for width in (8, memory, memory, 8)))

        norms = tuple(drawn(nn.LayerNorm(8)) for _ in range(3))
        parts = attn.Parts(norms, attention(8), attention(4), drawn(nn.Linear(8, 8)))
        rope, mem_rope = (attn.Rope(self.noise(count, 4), self.noise(count, 4)) for count in (6, 5))
        masks = [torch.where(self.noise(*shape) > 0.5, -attn.MASKED, 0.0).double() for shape in ((6, 5, 1), (2, 7, 1))]
        still = torch.cat((self.noise(2, 7, 4), torch.ones(2, 7, 1), masks[1]), dim=2)
        keys = attn.Keys(2, self.noise(6, 5, 4), masks[0], still, self.noise(2, 22, 4))
        x, ones = self.noise(1, 6, 8), torch.ones(1, 6, 1, dtype=torch.float64)
        one, other = (attn.FusedLayer(nn.Identity(), parts, narrow).double()(x, None, ones, keys, rope, mem_rope)
                      for narrow in (True, False))
        self.same(one, other)

    def test_two_way(self):
        from sam2.modeling.sam.transformer import TwoWayTransformer

        published = drawn(TwoWayTransformer(depth=2, embedding_dim=32, num_heads=4, mlp_dim=16))
        image, pe, tokens = self.noise(3, 32, 4, 5), self.noise(1, 32, 4, 5), self.noise(3, 6, 32)
        want = published(image, pe.expand(3, -1, -1, -1), tokens)
        for got, expected in zip(sam2_graphs.Transformer(published)(image, pe, tokens), want, strict=True):
            self.same(got, expected)

    def test_perceiver(self):
        from transformers.models.edgetam_video.configuration_edgetam_video import EdgeTamVideoConfig
        from transformers.models.edgetam_video.modeling_edgetam_video import EdgeTamVideoPerceiverResampler

        config = EdgeTamVideoConfig(perceiver_resampler_num_latents=5, perceiver_resampler_num_latents_2d=16)
        config._attn_implementation = "sdpa"  # the other one has its softmax in f32
        published = drawn(EdgeTamVideoPerceiverResampler(config))
        width = config.perceiver_resampler_hidden_size
        features, pos = self.noise(1, width, 8, 8), self.noise(1, width, 8, 8)
        want, _ = published(features, pos)
        ours = Perceiver(published, pos)
        self.same(ours(features), want)
        self.same(ours(torch.cat((features.flip(3), features)))[1:], want)


if __name__ == "__main__":
    torch.set_num_threads(1)
    unittest.main()

"""Names of tensors between the official and the `transformers` layouts, and what is said of files that do not fit."""

import pickle
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "engines" / "export"))

from sightline_export import ExportError, checkpoint, families, layouts  # noqa: E402

# The published sizes as `transformers` writes them (its conversion script for SAM 2).
HIERAS = {
    "tiny": {},
    "small": {"blocks_per_stage": [1, 2, 11, 2], "global_attention_blocks": [7, 10, 13]},
    "base+": {
        "hidden_size": 112, "embed_dim_per_stage": [112, 224, 448, 896],
        "num_attention_heads_per_stage": [2, 4, 8, 16], "blocks_per_stage": [2, 3, 16, 3],
        "global_attention_blocks": [12, 16, 20], "window_positional_embedding_background_size": [14, 14],
    },
    "large": {
        "hidden_size": 144, "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16], "blocks_per_stage": [2, 6, 36, 4],
        "global_attention_blocks": [23, 33, 43], "window_positional_embedding_background_size": [7, 7],
        "window_size_per_stage": [8, 4, 16, 8],
    },
}


def transformers_sam2(family: str, size: str, image_size: int = 1024) -> torch.nn.Module:
    """The published `Sam2VideoModel` of a size."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig

    hiera = Sam2HieraDetConfig(**HIERAS[size], image_size=[image_size] * 2)
    channels = {"backbone_channel_list": hiera.embed_dim_per_stage[::-1]}
    side = image_size // 16
    vision = Sam2VisionConfig(backbone_config=hiera, **channels,
                              backbone_feature_sizes=[[side * 4] * 2, [side * 2] * 2, [side] * 2])
    newer = family == "sam2.1"
    return Sam2VideoModel(Sam2VideoConfig(
        vision_config=vision, image_size=image_size, prompt_encoder_config={"image_size": image_size},
        memory_attention_rope_feat_sizes=[side, side],
        enable_temporal_pos_encoding_for_object_pointers=newer, enable_occlusion_spatial_embedding=newer)).eval()


def built(family: str, config: str | None, image_size: int = 1024) -> torch.nn.Module:
    """The package the exporter drives, as it builds it."""
    kind = families.find(family)
    return kind.build(kind.read_config(kind.config_path(config), image_size))


def names_of(family: str, size: str) -> layouts.State:
    """The official names and shapes of a size, without memory for them."""
    linspace = torch.linspace  # the package reads its values while it builds
    with torch.device("meta"), mock.patch("torch.linspace", lambda *a: linspace(*a, device="cpu")):
        return dict(built(family, size).state_dict())


def filled(state: layouts.State) -> layouts.State:
    """The same names and shapes with small numbers that tell tensors apart."""
    random = torch.Generator().manual_seed(5)
    return {name: torch.randn(tensor.shape, generator=random) if tensor.is_floating_point() else tensor.clone()
            for name, tensor in sorted(state.items())}


def shapes(state: layouts.State) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in state.items()}


class Names(unittest.TestCase):
    """Every name and shape of every published size, both ways."""

    maxDiff = None

    def test_sam2(self):
        for family in ("sam2.0", "sam2.1"):
            for size in HIERAS:
                with self.subTest(f"{family} {size}"):
                    official = names_of(family, size)
                    with torch.device("meta"):
                        other = dict(transformers_sam2(family, size).state_dict())
                    self.assertEqual(shapes(layouts.to_transformers(official)), shapes(other))
                    self.assertEqual(shapes(layouts.to_official(other)), shapes(official))
                    self.assertEqual(layouts.identify(official), (family, size))

    def test_edgetam(self):
        model = built("edgetam", None)
        self.assertAlmostEqual(sum(p.numel() for p in model.parameters()) / 1e6, 13.9, delta=0.05)
        official = families.find("edgetam").official(model)
        self.assertEqual(layouts.identify(official), ("edgetam", "edgetam"))
        # Names as facebookresearch/EdgeTAM's modules have them.
        for name, shape in {
            "image_encoder.trunk.body.stem.conv1.c.weight": [24, 3, 3, 3],
            "image_encoder.neck.convs.3.conv.weight": [256, 48, 1, 1],
            "spatial_perceiver.latents": [256, 64],
            "spatial_perceiver.latents_2d": [256, 64],
            "spatial_perceiver.layers.1.attn.to_kv.weight": [128, 64],
            "spatial_perceiver.layers.1.attn.norm_x.weight": [64],
            "spatial_perceiver.layers.1.self_attn.norm.bias": [64],
            "spatial_perceiver.layers.0.self_ff.3.weight": [64, 256],
            "spatial_perceiver.norm.weight": [64],
            "memory_attention.layers.1.cross_attn_image.k_proj.weight": [256, 64],
        }.items():
            self.assertEqual(list(official[name].shape), shape, name)
        self.assertEqual(shapes(layouts.to_transformers(official)), shapes(model.state_dict()))

    def test_values_survive(self):
        for family, config in (("edgetam", None), ("sam2.1", "tiny")):
            kind = families.find(family)
            official = filled(kind.official(built(family, config, 256)))
            back = layouts.to_official(layouts.to_transformers(official))
            self.assertEqual(official.keys(), back.keys())
            for name, tensor in official.items():
                self.assertTrue(torch.equal(tensor, back[name]), name)

    def test_same_numbers(self):
        """The renamed weights are the same network: features and a decoded mask of both packages."""
        sam2, other = built("sam2.1", "tiny", 256), transformers_sam2("sam2.1", "tiny", 256)
        torch.manual_seed(3)
        state = {name: tensor + 0.02 * torch.randn(tensor.shape) for name, tensor in sam2.state_dict().items()}
        sam2.load_state_dict(state)
        other.load_state_dict(layouts.to_transformers(state))
        image, points = torch.randn(1, 3, 256, 256), torch.tensor([[[60.0, 90.0], [200.0, 30.0]]])
        labels = torch.tensor([[1, 0]], dtype=torch.int32)
        with torch.no_grad():
            levels = sam2.forward_image(image)["backbone_fpn"]
            got = other.get_image_features(image, return_dict=True).fpn_hidden_states
            maps = [level.permute(1, 2, 0).reshape(ours.shape) for level, ours in zip(got, levels, strict=True)]
            for ours, theirs in zip(levels, maps, strict=True):
                self.assertLess((ours - theirs).abs().max(), 1e-4)
            ours = sam2._forward_sam_heads(backbone_features=levels[2], high_res_features=levels[:2],
                                           point_inputs={"point_coords": points, "point_labels": labels})
            theirs = other._single_frame_forward(image_embeddings=maps, input_points=points[:, None],
                                                 input_labels=labels[:, None], multimask_output=False)
        self.assertLess((ours[3] - theirs.pred_masks).abs().max(), 1e-4)
        self.assertLess((ours[5] - theirs.object_pointer[:, 0]).abs().max(), 1e-4)


class Danger:
    """What a hostile pickle holds."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


class Files(unittest.TestCase):
    """Loading: each layout, and each way not to fit."""

    @classmethod
    def setUpClass(cls):
        cls.kind = families.find("edgetam")
        cls.own = cls.kind.official(built("edgetam", None, 256))
        cls.state = filled(cls.own)
        cls.folder = tempfile.TemporaryDirectory()

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def file(self, name: str) -> Path:
        return Path(self.folder.name) / name

    def refused(self, expected: str, path: Path, own=None, family: str = "edgetam"):
        with self.assertRaisesRegex(ExportError, expected):
            checkpoint.fit(own or self.own, checkpoint.load(path), path.name, family)

    def saved(self, state: layouts.State, name: str = "x.safetensors") -> Path:
        path = self.file(name)
        if path.suffix == ".pt":
            torch.save({"model": state}, path)
        else:
            save_file({key: value.contiguous() for key, value in state.items()}, path)
        return path

    def test_both_layouts(self):
        other = layouts.to_transformers(self.state)
        for path in (self.saved(self.state, "a.pt"), self.saved(self.state, "a.safetensors"),
                     self.saved(other, "b.pt"), self.saved(other, "b.safetensors")):
            got = checkpoint.fit(self.own, checkpoint.load(path), path.name, "edgetam")
            self.assertEqual(got.keys(), self.state.keys())
            self.assertTrue(all(torch.equal(got[name], value) for name, value in self.state.items()))

    def test_bare_state_dict(self):
        path = self.file("bare.pt")
        torch.save(self.state, path)
        self.assertEqual(checkpoint.load(path).keys(), self.state.keys())

    def test_layer_scale_names(self):
        for spelling in ("gamma", "weight", "scale"):
            renamed = {name.replace(".gamma", f".{spelling}"): value for name, value in self.state.items()}
            got = checkpoint.fit(self.own, checkpoint.load(self.saved(renamed)), "x", "edgetam")
            self.assertIn("memory_encoder.fuser.layers.1.gamma", got)

    def test_either_position_matrix(self):
        for left_out in (layouts.SHARED_POSITION, layouts.SECOND_POSITION):
            other = layouts.to_transformers(self.state)
            del other[left_out]
            got = checkpoint.fit(self.own, checkpoint.load(self.saved(other)), "x", "edgetam")
            self.assertTrue(all(torch.equal(got[name], value) for name, value in self.state.items()))

    def test_names_of_the_file(self):
        other = layouts.to_transformers(self.state)
        del other["no_object_pointer"]
        other["extra.weight"] = torch.zeros(1)
        other["mask_decoder.iou_token.weight"] = torch.zeros(2, 2)
        self.refused(r"missing no_object_pointer; unexpected extra.weight; mis-shaped "
                     r"mask_decoder.iou_token.weight: expected \[1, 256\], got \[2, 2\]", self.saved(other))
        state = {**self.state, "obj_ptr_proj.layers.9.bias": torch.zeros(1)}
        del state["spatial_perceiver.layers.0.attn.to_kv.weight"]
        self.refused("missing spatial_perceiver.layers.0.attn.to_kv.weight; "
                     "unexpected obj_ptr_proj.layers.9.bias", self.saved(state, "x.pt"))

    def test_other_family(self):
        self.refused("expected the tensors of sam2.1, got those of edgetam", self.saved(self.state), family="sam2.1")
        models = {name: names_of(name, "tiny") for name in ("sam2.0", "sam2.1")}
        self.assertEqual(layouts.identify(models["sam2.0"]), ("sam2.0", "tiny"))
        with self.assertRaisesRegex(ExportError, r"of sam2.0, got those of sam2.1 \(--family sam2.1\)"):
            checkpoint.fit(models["sam2.0"], models["sam2.1"], "x", "sam2.0")

    def test_other_size(self):
        small, large = (names_of("sam2.1", size) for size in ("small", "large"))
        with self.assertRaisesRegex(ExportError, r"by its tensors it is sam2.1 large\): missing .* unexpected .* mis-shaped"):
            checkpoint.fit(small, large, "x", "sam2.1")

    def test_hostile_pickle(self):
        path = self.file("hostile.pt")
        torch.save({"model": Danger()}, path)
        self.refused("expected tensors only, got a pickle that would run code", path)
        path.write_bytes(pickle.dumps({"model": Danger()}))
        self.refused("expected tensors only, got a pickle that would run code|not a weights-only", path)

    def test_not_a_checkpoint(self):
        path = self.file("text.safetensors")
        path.write_text("no tensors here")
        self.refused("text.safetensors: not a safetensors file", path)
        path = self.file("list.pt")
        torch.save([1, 2], path)
        self.refused("list.pt: expected", path)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""The published PyTorch predictors on the weights of a checkpoint, frame by frame. Prints one JSON object.

    python3 benches/gpu/torch_side.py --model tiny@1024 --checkpoint FILE --objects 1 --mode compile

Frames lie on the device as normalised tensors before the clock starts, and masks stay there at the model's own size: less
work than the runtime has. `--mode compile` is what the package calls `vos_optimized`; EdgeTAM's package has nothing like it.
"""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
# Beside the scripts in a packed folder, else where the repository has it.
EXPORT = next(path for path in (HERE / "export", HERE.parents[1] / "engines" / "export") if path.is_dir())
sys.path.insert(0, str(EXPORT))

import torch  # noqa: E402

from sightline_export import checkpoint, families, sam2_family  # noqa: E402

COMPILED = {"_target_": "sam2.sam2_video_predictor.SAM2VideoPredictorVOS", "compile_image_encoder": True}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, metavar="NAME@PX")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--precision", choices=list(DTYPES), default="bf16")
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=24)
    return parser.parse_args()


def build(name: str, size: int, source: Path, compiled: bool, device: str):
    """Family and predictor, weights loaded."""
    family = families.find("edgetam" if name == "edgetam" else "sam2.1")
    if compiled and family.name == "edgetam":
        sys.exit("torch_side: edgetam: its package has no compiled predictor")
    with mock.patch.dict(sam2_family.PREDICTOR, COMPILED if compiled else {}), contextlib.redirect_stdout(sys.stderr):
        model = family.build(family.read_config(family.config_path(None if name == "edgetam" else name), size))
    state = checkpoint.load(source)
    family.restore(model, checkpoint.fit(family.official(model), state, source.name, family.name))
    return family, model.to(device)


def box(index: int, size: int) -> list[float]:
    """As scene.rs spreads them."""
    column, row = index % 4, index // 4 % 4
    x0, y0 = 0.03 + 0.24 * column, 0.03 + 0.24 * row
    return [side * size for side in (x0, y0, x0 + 0.18, y0 + 0.18)]


def sam2_frames(model, images: torch.Tensor, objects: int):
    """One step a frame."""
    loaded = (images, model.image_size, model.image_size)
    with mock.patch("sam2.sam2_video_predictor.load_video_frames", return_value=loaded):
        state = model.init_state("frames")
    for index in range(objects):
        model.add_new_points_or_box(inference_state=state, frame_idx=0, obj_id=index + 1,
                                    box=box(index, model.image_size))
    with mock.patch("sam2.sam2_video_predictor.tqdm", lambda frames, **_: frames):
        yield from model.propagate_in_video(state, start_frame_idx=0)


def edgetam_frames(model, images: torch.Tensor, objects: int):
    """One step a frame."""
    from transformers.models.edgetam_video.modeling_edgetam_video import EdgeTamVideoInferenceSession

    size, device = model.image_size, images.device
    session = EdgeTamVideoInferenceSession(video=images, video_height=size, video_width=size, dtype=torch.float32,
                                           inference_device=device, inference_state_device=device,
                                           video_storage_device=device)
    for index in range(objects):
        x0, y0, x1, y1 = box(index, size)
        at = session.obj_id_to_idx(index + 1)
        session.add_point_inputs(at, 0, {
            "point_coords": torch.tensor([[[[x0, y0], [x1, y1]]]], dtype=torch.float32),
            "point_labels": torch.tensor([[[2, 3]]], dtype=torch.int32)})
        session.obj_with_new_inputs.append(index + 1)
    for frame in range(len(images)):
        yield model(session, frame_idx=frame)


def main() -> None:
    """Times every frame, the device idle at both ends."""
    args = parse()
    name, _, size = args.model.partition("@")
    cuda = args.device.startswith("cuda")
    wait = torch.cuda.synchronize if cuda else lambda: None
    # As everywhere in this bench: f32 is f32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with torch.inference_mode():
        family, model = build(name, int(size), args.checkpoint, args.mode == "compile", args.device)
        count = args.warmup + args.frames
        noise = torch.randn(8, 3, int(size), int(size), generator=torch.Generator().manual_seed(1))
        # The same few over and over, which take no more room than they must.
        images = noise.to(args.device)[torch.arange(count) % len(noise)]
        frames = (edgetam_frames if family.name == "edgetam" else sam2_frames)(model, images, args.objects)
        half = args.precision != "fp32"
        times = []
        with torch.autocast(args.device.partition(":")[0], DTYPES[args.precision], enabled=half), \
                contextlib.redirect_stdout(sys.stderr):
            wait()
            last = time.perf_counter()
            for _ in frames:
                wait()
                now = time.perf_counter()
                times.append(1e3 * (now - last))
                last = now
    if len(times) != count:
        sys.exit(f"torch_side: expected {count} frames, got {len(times)}")
    kept = sorted(times[args.warmup:])
    rank = {key: kept[max(0, -(-len(kept) * share // 100) - 1)] for key, share in
            (("p50", 50), ("p95", 95), ("p99", 99), ("max", 100))}
    print(json.dumps({"model": args.model, "mode": args.mode, "precision": args.precision, "objects": args.objects,
                      "torch": torch.__version__, "frame_ms": {"samples": len(kept), **{
                          key: round(value, 4) for key, value in rank.items()}},
                      "warmup_s": round(sum(times[:args.warmup]) / 1e3, 2)}))


if __name__ == "__main__":
    main()

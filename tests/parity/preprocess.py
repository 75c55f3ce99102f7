"""How far our preprocessing is from the published one: `python tests/parity/preprocess.py --preprocess BIN --sightline BIN`.

The published predictors read a folder of JPEGs (`jpeg`: made by `ffmpeg -q:v 2`, read by Pillow, `Image.resize`,
which is bicubic) or an mp4 (`decord`, whose swscale scales as it decodes). Ours goes from the decoder's YUV to the
tensor. `exact` is what all of them approximate: YUV to RGB in f64, chroma interpolated where it was sampled, then
Pillow. Pictures of each way are compared as bytes at the model's size, then as masks: every way is tracked by the real
`sightline trace` with the same model and prompt. Needs the environment of `engines/export/setup_venv.sh` and the
packages av and decord. Writes after every clip.
"""

import argparse
import csv
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from fractions import Fraction
from importlib import metadata
from pathlib import Path

import av
import decord
import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
EXPORTER = ROOT / "engines" / "export"
SEED, SCORE_BIAS = 9, "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
sys.path.insert(0, str(EXPORTER))

FRAMES, STEP, START = 12, 2, 30
# A box around something on frame START, x0,y0,x1,y1 in pixels of the clip.
CLIPS = {
    "01_dog": (550, 325, 715, 525), "02_cups": (310, 265, 475, 525), "06_pingpong": (945, 100, 1185, 585),
    "19_cyclist": (395, 245, 730, 720), "16_robotarm": (630, 110, 965, 320), "bedroom": (175, 50, 490, 450),
}
SEQUENCES = ("dog", "blackswan", "horsejump-high", "motorbike")
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR, "box": Image.Resampling.BOX}
# R and B in luma.
LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
SIZES = {"nano": (320, 192), "256": (256, 256), "512": (512, 512), "1024": (1024, 1024)}
TIMED = (("i420", "nano", "bilinear"), ("i420", "nano", "bicubic"), ("nv12", "nano", "bilinear"),
         ("nv12", "nano", "bicubic"), ("bgrx", "nano", "bilinear"), ("i420", "512", "bilinear"),
         ("i420", "512", "bicubic"), ("nv12", "512", "bicubic"), ("bgrx", "512", "bicubic"),
         ("i420", "1024", "bilinear"), ("i420", "1024", "bicubic"))
PACKAGES = ("av", "decord", "pillow", "numpy", "onnxruntime")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preprocess", type=Path, required=True, metavar="BIN", help="of sightline-benches")
    parser.add_argument("--sightline", type=Path, required=True, metavar="BIN")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", metavar="DIR")
    parser.add_argument("--sam", type=Path, metavar="DIR", help="an exported SAM 2.1 at 256 px [default: drawn weights]")
    parser.add_argument("--repeats", type=int, default=20, metavar="N", help="timings of each picture")
    parser.add_argument("--resume", action="store_true", help="keep the clips that --out has already")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    return parser.parse_args()


class Clip:
    """`FRAMES` pictures as their decoder gives them, and the ways from there to a model's size."""

    def __init__(self, name: str, binary: Path, folder: Path):
        self.name, self.binary, self.raw, self.answer = name, binary, folder / "raw", folder / "rgb"

    def ours(self, size: tuple[int, int], kernel: str, repeats: int = 1, as_format: str | None = None):
        """Pictures [N,h,w,3] u8 of the real preprocessing, and how long it took."""
        given = as_format or self.format
        self.raw.write_bytes(b"".join(self.bytes_of(given)))
        command = [str(self.binary), "--input", str(self.raw), "--format", given, "--width", str(self.size[0]),
                   "--height", str(self.size[1]), "--matrix", self.matrix, "--to-width", str(size[0]), "--to-height",
                   str(size[1]), "--filter", kernel, "--out", str(self.answer), "--repeats", str(repeats)]
        done = subprocess.run(command + ["--full-range"] * self.full_range, capture_output=True, text=True, check=True)
        pictures = np.frombuffer(self.answer.read_bytes(), np.uint8).reshape(FRAMES, size[1], size[0], 3)
        return pictures, json.loads(done.stdout)

    def candidates(self, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Ours with the filters that are built, and with those that are not, by Pillow on our own RGB."""
        whole, _ = self.ours(self.size, "bilinear")
        made = {kernel: self.ours(size, kernel)[0] for kernel in ("bicubic", "bilinear")}
        return made | {"box": resized(whole, size, "box")}

    def box_in(self, size: tuple[int, int]) -> list[float]:
        """The prompt in pixels of a model's picture."""
        return [round(v * size[at % 2] / self.size[at % 2], 2) for at, v in enumerate(self.box)]


class Video(Clip):
    """Frames of an mp4."""

    def __init__(self, data: Path, name: str, binary: Path, folder: Path):
        super().__init__(name, binary, folder)
        self.path, self.box, self.format = data / "clips" / f"{name}.mp4", CLIPS[name], "i420"
        with av.open(str(self.path)) as opened:
            frames = [frame for at, frame in zip(range(START + FRAMES * STEP), opened.decode(video=0)) if at >= START]
        self.frames = frames[::STEP]
        first = self.frames[0]
        self.size = (first.width, first.height)
        # What a clip does not say, GStreamer takes from its height.
        tagged = {1: "bt709", 5: "bt601", 6: "bt601"}
        self.matrix = tagged.get(int(first.colorspace), "bt709" if first.height > 576 else "bt601")
        self.full_range = int(first.color_range) == 2
        self.note = "matrix not tagged" if int(first.colorspace) not in tagged else self.matrix

    def bytes_of(self, given: str) -> list[bytes]:
        """Raw pictures in a format, rows without padding."""
        kinds = {"i420": "yuv420p", "nv12": "nv12", "bgrx": "bgra"}
        out = []
        for frame in self.frames:
            array = frame.reformat(format=kinds[given]).to_ndarray() if given != "i420" else frame.to_ndarray()
            out.append(np.ascontiguousarray(array).tobytes())
        return out

    def published(self, size: tuple[int, int], kernel: str) -> dict[str, np.ndarray]:
        """`jpeg` and `exact` by Pillow; `decord` by its own scaler, whose filter cannot be chosen."""
        folder = np.stack([np.asarray(Image.open(io.BytesIO(jpeg(frame))).convert("RGB")) for frame in self.frames])
        reader = decord.VideoReader(str(self.path), width=size[0], height=size[1], num_threads=1)
        indices = list(range(START, START + FRAMES * STEP, STEP))
        return {"jpeg": resized(folder, size, kernel), "decord": reader.get_batch(indices).asnumpy(),
                "exact": resized(np.stack([self.exact(frame) for frame in self.frames]), size, kernel)}

    def exact(self, frame: av.VideoFrame) -> np.ndarray:
        """RGB [h,w,3] u8; chroma lies on the left column and between the rows, as H.264 has it."""
        (width, height), planes = self.size, frame.to_ndarray().astype(np.float64)
        quarter = height // 4
        small = [planes[at:at + quarter].reshape(height // 2, width // 2) for at in (height, height + quarter)]
        grey, black, colour = (255, 0, 255) if self.full_range else (219, 16, 224)
        luma = (planes[:height] - black) / grey
        blue, red = (2 * (between(between(one, height, -0.25, 0), width, 0.0, 1) - 128) / colour for one in small)
        of_red, of_blue = LUMA[self.matrix]
        r, b = luma + (1 - of_red) * red, luma + (1 - of_blue) * blue
        g = (luma - of_red * r - of_blue * b) / (1 - of_red - of_blue)
        return np.clip(np.round(np.stack([r, g, b], -1) * 255), 0, 255).astype(np.uint8)


class Sequence(Clip):
    """Frames of a DAVIS sequence: JPEGs already, so the published way begins where ours does."""

    def __init__(self, data: Path, name: str, binary: Path, folder: Path):
        super().__init__(name, binary, folder)
        paths = sorted((data / "davis" / "JPEGImages" / "480p" / name).glob("*.jpg"))[::STEP][:FRAMES]
        self.pictures = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
        self.size, self.format, self.matrix, self.full_range = self.pictures.shape[2:0:-1], "rgb", "bt601", True
        marked = data / "davis" / "Annotations" / "480p" / name / f"{paths[0].stem}.png"
        ys, xs = np.nonzero(np.asarray(Image.open(marked).convert("L")) > 127)
        self.box = [int(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]
        self.note = "JPEG"

    def bytes_of(self, _: str) -> list[bytes]:
        """Raw RGB."""
        return [picture.tobytes() for picture in self.pictures]

    def published(self, size: tuple[int, int], kernel: str) -> dict[str, np.ndarray]:
        """Pillow alone."""
        return {"jpeg": resized(self.pictures, size, kernel)}


def jpeg(frame: av.VideoFrame) -> bytes:
    """What `ffmpeg -q:v 2 %05d.jpg` makes of a frame."""
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = frame.width, frame.height, "yuvj420p", Fraction(1, 25)
    codec.options = {"flags": "+qscale", "global_quality": str(2 * 118), "qmin": "2", "qmax": "2"}
    full = frame.reformat(format="yuvj420p", dst_color_range="JPEG")
    full.pts = None
    return b"".join(bytes(packet) for packet in [*codec.encode(full), *codec.encode(None)])


def between(plane: np.ndarray, count: int, offset: float, axis: int) -> np.ndarray:
    """Twice as many samples along an axis, linear; the first lies `offset` samples behind the first."""
    last = plane.shape[axis] - 1
    at = np.clip(np.arange(count) / 2 + offset, 0, last)
    low = np.floor(at).astype(int)
    share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
    return plane.take(low, axis) * (1 - share) + plane.take(np.minimum(low + 1, last), axis) * share


def resized(pictures: np.ndarray, size: tuple[int, int], kernel: str) -> np.ndarray:
    """Pillow's `resize`, antialiased."""
    return np.stack([np.asarray(Image.fromarray(one).resize(size, FILTERS[kernel])) for one in pictures])


def apart(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Differences in levels of 255."""
    far = np.abs(a.astype(np.int16) - b)
    return {"mean": round(float(far.mean()), 3), "p99": float(np.quantile(far, 0.99)), "max": int(far.max())}


def masks(binary: Path, model: Path, pictures: np.ndarray, box: list[float]) -> np.ndarray:
    """Masks [N,h,w] of one object prompted on the first picture, by `sightline trace`."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "frames").mkdir()
        for index, picture in enumerate(pictures):
            Image.fromarray(picture).save(root / "frames" / f"{index:05d}.png", compress_level=1)
        (root / "prompts.json").write_text(json.dumps([{"frame": 0, "object": 1, "box": box}]))
        subprocess.run([str(binary), "trace", "--model", str(model), "--frames", str(root / "frames"), "--prompts",
                        str(root / "prompts.json"), "--out", str(root / "out.npz")], check=True, capture_output=True)
        made = np.load(root / "out.npz")
        return np.stack([made[f"logits_{index}_1"] for index in range(len(pictures))]) > 0


def overlap(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Intersection over union frame by frame; two empty masks agree."""
    pairs = [((x & y).sum(), (x | y).sum()) for x, y in zip(a, b)]
    each = [both / either if either else 1.0 for both, either in pairs]
    return {"iou_mean": round(float(np.mean(each)), 4), "iou_min": round(float(np.min(each)), 4)}


def drawn(folder: Path) -> Path:
    """SAM 2.1 tiny at 256 px with drawn weights whose object is always there: a score near 0 would decide everything."""
    from sightline_export import families, weights

    family = families.find("sam2.1")
    with torch.no_grad():
        model = family.build(family.read_config(family.config_path("tiny"), 256))
        state = weights.draw(family.official(model), SEED)
        state[SCORE_BIAS] = state[SCORE_BIAS] + 100.0
    folder.mkdir()
    torch.save({"model": state}, folder / "drawn.pt")
    subprocess.run([sys.executable, "-m", "sightline_export", "--family", "sam2.1", "--config", "tiny", "--checkpoint",
                    str(folder / "drawn.pt"), "--image-size", "256", "--out", str(folder)], check=True,
                   env=os.environ | {"PYTHONPATH": str(EXPORTER)}, stdout=subprocess.DEVNULL)
    return folder


def models(args: argparse.Namespace, root: Path) -> dict[str, tuple[Path, tuple[int, int], str]]:
    """Folder, size and the filter it was trained or published with; nano is shown the whole picture."""
    nano = root / "nano"
    nano.mkdir()
    for path in (ROOT / "engines" / "nano" / "model").iterdir():
        if path.suffix == ".onnx":
            (nano / path.name).symlink_to(path)
    manifest = (ROOT / "engines" / "nano" / "model" / "model.toml").read_text()
    (nano / "model.toml").write_text(re.sub(r"\[view\]\n(?:[^\[\n].*\n|\n)*", "", manifest))
    sam = args.sam or drawn(root / "sam")
    return {"nano": (nano, SIZES["nano"], "bilinear"), "sam2.1-tiny drawn": (sam, SIZES["256"], "bicubic")}


def compare_pixels(clip: Clip) -> list[dict]:
    """Ours against the published ways, and those against each other, at every size."""
    rows = []
    for label, size in SIZES.items():
        published, ours = clip.published(size, "bicubic"), clip.candidates(size)
        head = {"clip": clip.name, "note": clip.note, "size": label}
        for reference, wanted in published.items():
            for kernel, pictures in ours.items():
                rows.append(head | {"ours": kernel, "against": reference} | apart(pictures, wanted))
        for one, other in (("decord", "jpeg"), ("decord", "exact"), ("jpeg", "exact")):
            if one in published and other in published:
                rows.append(head | {"ours": f"({one})", "against": other} | apart(published[one], published[other]))
    return rows


def compare_masks(clip: Clip, known: dict, binary: Path) -> list[dict]:
    """The same, tracked."""
    rows = []
    for model, (folder, size, kernel) in known.items():
        box = clip.box_in(size)
        track = {name: masks(binary, folder, pictures, box) for name, pictures in clip.candidates(size).items()}
        wanted = {name: masks(binary, folder, pictures, box) for name, pictures in clip.published(size, kernel).items()}
        head = {"clip": clip.name, "note": clip.note, "model": model}
        for reference in wanted:
            for name in track:
                rows.append(head | {"ours": name, "against": reference} | overlap(track[name], wanted[reference]))
        for one, other in (("decord", "jpeg"), ("decord", "exact"), ("jpeg", "exact")):
            if one in wanted and other in wanted:
                rows.append(head | {"ours": f"({one})", "against": other} | overlap(wanted[one], wanted[other]))
    return rows


def timed(clip: Clip, repeats: int) -> list[dict]:
    """What a picture costs, one thread, from the decoder's planes to the tensor."""
    rows = []
    for given, label, kernel in TIMED:
        _, times = clip.ours(SIZES[label], kernel, repeats, given)
        rows.append({"clip": clip.name, "from": f"{given} {clip.size[0]}x{clip.size[1]}", "size": label,
                     "filter": kernel} | {name: round(value, 3) for name, value in times.items()})
    return rows


def write(folder: Path, name: str, rows: list[dict]) -> None:
    """One table."""
    if rows:
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


def read(folder: Path, name: str) -> list[dict]:
    """What an earlier run wrote."""
    def typed(text: str):
        return float(text) if re.fullmatch(r"[\d.]+", text) and "." in text else text

    path = folder / f"{name}.csv"
    rows = list(csv.DictReader(path.open())) if path.is_file() else []
    return [{key: int(text) if key == "max" else typed(text) for key, text in row.items()} for row in rows]


def table(head: list[str], rows: list[list]) -> list[str]:
    """Markdown."""
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head),
            *("| " + " | ".join(map(str, row)) + " |" for row in rows), ""]


def summary(folder: Path, pixels: list[dict], overlaps: list[dict], costs: list[dict]) -> None:
    """Means over clips; the clip with an untagged matrix apart, as no filter can mend that."""
    def groups(rows, *keys):
        found = {}
        for row in rows:
            kind = "DAVIS" if row["note"] == "JPEG" else "untagged" if "not" in row["note"] else "mp4"
            found.setdefault((kind, *(row[key] for key in keys)), []).append(row)
        return found.items()

    lines = ["# Our preprocessing beside the published one", "",
             "`tests/parity/preprocess.py`; machine and command beside this file, every clip in the CSVs.", "",
             "## Pixels", "", "Levels of 255 at the model's size. `jpeg` and `exact` are resized by Pillow's bicubic. In brackets: the references",
             "against each other.", ""]
    lines += table(["clips", "size", "published", "ours", "mean abs", "p99", "max"],
                   [[*key, f"{np.mean([r['mean'] for r in rows]):.2f}", f"{np.mean([r['p99'] for r in rows]):.1f}",
                     max(r["max"] for r in rows)] for key, rows in groups(pixels, "size", "against", "ours")])
    lines += ["## Masks", "", "IoU with the masks that the same model tracks on the published pictures (resized for nano "
              "by Pillow's bilinear, as it was trained).", ""]
    lines += table(["clips", "model", "published", "ours", "IoU mean", "IoU min"],
                   [[*key, f"{np.mean([r['iou_mean'] for r in rows]):.4f}", min(r["iou_min"] for r in rows)]
                    for key, rows in groups(overlaps, "model", "against", "ours")])
    lines += ["## Cost", "", "Milliseconds a picture, one thread, wall clock.", ""]
    lines += table(["from", "to", "filter", "p5", "p50", "p95"],
                   [[r["from"], r["size"], r["filter"], r["p5_ms"], r["p50_ms"], r["p95_ms"]] for r in costs])
    (folder / "summary.md").write_text("\n".join(lines))


def machine() -> str:
    """What a figure is worth nothing without."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout.strip()
    facts = {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(),
             **{name: metadata.version(name) for name in PACKAGES}, "load": " ".join(map(str, os.getloadavg())),
             "commit": f"{commit or 'unknown'}{' and changes' if changed else ''}"}
    return "".join(f"{name:15} {value}\n" for name, value in facts.items())


def main() -> int:
    """Pixels and masks clip by clip, then the cost."""
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "machine.txt").write_text(machine())
    pixels, overlaps = (read(args.out, name) if args.resume else [] for name in ("pixels", "masks"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make = [*((Video, name) for name in CLIPS), *((Sequence, name) for name in SEQUENCES)]
        known = models(args, root)
        done = {row["clip"] for row in overlaps}
        for kind, name in make:
            if name in done:
                continue
            clip = kind(args.data, name, args.preprocess, root)
            pixels += compare_pixels(clip)
            overlaps += compare_masks(clip, known, args.sightline)
            write(args.out, "pixels", pixels)
            write(args.out, "masks", overlaps)
            print(name, flush=True)
        costs = timed(Video(args.data, next(iter(CLIPS)), args.preprocess, root), args.repeats)
        write(args.out, "cost", costs)
    summary(args.out, pixels, overlaps, costs)
    print((args.out / "summary.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())

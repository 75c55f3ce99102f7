#!/usr/bin/env python3
"""Packs what `run.py` needs on a machine that has an NVIDIA GPU, Python and PyTorch and can fetch nothing.

    python3 benches/gpu/pack.py --bin target/release/gpu-bench --wheel onnxruntime_gpu-*.whl --venv DIR --out DIR

The folder holds our program, ONNX Runtime and its CUDA provider with the code of one architecture (`fatbin.py`), the
exporter, those Python packages of its environment that a PyTorch installation lacks, and the scripts. CUDA, cuDNN and NVRTC
are those that PyTorch brings. It is for measuring; nothing of it is published.
"""

import argparse
import hashlib
import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import fatbin

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRIPTS = ("run.py", "summary.py", "draw.py", "torch_side.py")
# Pure Python; the others that the exporter imports come with PyTorch or are asked for by `run.py`'s steps.
PACKAGES = ("sam2", "hydra", "omegaconf", "antlr4", "iopath")
LIBRARY, PROVIDERS = "libonnxruntime.so.1.31.1", "libonnxruntime_providers_"
# Machine code packs smaller with its jumps made absolute first.
FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, required=True, help="gpu-bench, built with the feature cuda")
    parser.add_argument("--wheel", type=Path, required=True, help="of onnxruntime-gpu")
    parser.add_argument("--venv", type=Path, required=True, help="of engines/export/setup_venv.sh")
    parser.add_argument("--arch", type=int, default=90, help="compute capability without its dot: 90 is an H100 or H200")
    parser.add_argument("--limit-mib", type=float, default=60)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache/gpu-bench", help="what was packed before")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    return parser.parse_args()


def packed(data: bytes, cache: Path) -> bytes:
    """xz, out of the cache if it was done before: it takes minutes."""
    kept = cache / f"{hashlib.sha256(data).hexdigest()}.xz"
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        draft = kept.with_suffix(".part")
        draft.write_bytes(lzma.compress(data, check=lzma.CHECK_CRC64, filters=FILTERS))
        draft.rename(kept)
    return kept.read_bytes()


def stripped(program: Path) -> bytes:
    """Without symbols."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / program.name
        subprocess.run(["strip", "-o", str(target), str(program)], check=True)
        return target.read_bytes()


def provider(data: bytes, arch: int) -> bytes:
    """With the code of one architecture."""
    pruned = bytearray(data)
    if not fatbin.keep_only(pruned, arch)["bytes kept"]:
        raise SystemExit(f"pack: CUDA provider: expected code for architecture {arch}, got none")
    return bytes(pruned)


def site(venv: Path) -> bytes:
    """The packages, as a tar."""
    places = list(venv.glob("lib/python3*/site-packages"))
    if not places:
        raise SystemExit(f"pack: no Python environment at {venv}: make one with engines/export/setup_venv.sh")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in PACKAGES:
            if not (places[0] / name).is_dir():
                raise SystemExit(f"pack: expected the package {name} in {venv}, got none")
            for path in sorted((places[0] / name).rglob("*")):
                if path.is_file() and path.suffix in (".py", ".yaml") and "test" not in path.parts:
                    entry = tar.gettarinfo(str(path), f"site/{path.relative_to(places[0])}")
                    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
                    tar.addfile(entry, io.BytesIO(path.read_bytes()))
    return out.getvalue()


def main() -> int:
    """Writes the folder and says how large it is; exit code 1 above the limit."""
    args = parse()
    if args.out.exists():
        shutil.rmtree(args.out)
    for folder in ("bin", "lib"):
        (args.out / folder).mkdir(parents=True)
    write = lambda name, data: (args.out / name).write_bytes(packed(data, args.cache))  # noqa: E731
    write("bin/gpu-bench.xz", stripped(args.bin))
    with zipfile.ZipFile(args.wheel) as wheel:
        def read(name: str) -> bytes:
            return wheel.read(f"onnxruntime/capi/{name}")

        write(f"lib/{LIBRARY}.xz", read(LIBRARY))
        write(f"lib/{PROVIDERS}cuda.so.xz", provider(read(f"{PROVIDERS}cuda.so"), args.arch))
        write(f"lib/{PROVIDERS}shared.so.xz", read(f"{PROVIDERS}shared.so"))
    write("lib/site.tar.xz", site(args.venv))
    shutil.copytree(ROOT / "engines/export/sightline_export", args.out / "export/sightline_export",
                    ignore=shutil.ignore_patterns("__pycache__"))
    for name in SCRIPTS:
        shutil.copy(HERE / name, args.out / name)
    described = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"],
                               capture_output=True, text=True, check=True).stdout
    (args.out / "commit.txt").write_text(described)
    files = [path for path in sorted(args.out.rglob("*")) if path.is_file()]
    for path in (path for path in files if path.stat().st_size > 1 << 18):
        print(f"{path.stat().st_size / (1 << 20):8.2f} MiB  {path.relative_to(args.out)}")
    total = sum(path.stat().st_size for path in files) / (1 << 20)
    print(f"{total:8.2f} MiB  {args.out}, for sm_{args.arch}; there: python3 run.py --out results")
    return 0 if total <= args.limit_mib else 1


if __name__ == "__main__":
    sys.exit(main())

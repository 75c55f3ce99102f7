"""Fetches what the tests of this crate need of TensorRT and nobody may commit: headers out of published crates, NVIDIA's
lean libraries out of their wheels. Pinned by version and SHA-256; nothing is fetched twice.

    python3 fetch.py FOLDER headers    FOLDER/include-10, FOLDER/include-11
    python3 fetch.py FOLDER libs       FOLDER/lib/libnvinfer_lean.so.10 and .11 (90 MB, x86_64)
"""

import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

# The lowest minor of each major that a published package has.
HEADERS = {
    "include-10": (
        "trtx-sys",
        "0.5.0",
        "1efd9036abbd2775da5df4e49793ec8e656f026fb9c60dff7e95bda2d654e634",
        "TensorRT-Headers/TRT-Enterprise-10.16",
    ),
    "include-11": (
        "trtx-sys",
        "0.6.0+rtx1.5",
        "a20ef33bdda170608d38ffaa604ad0587c2e8f9383ccb7945d4e8fc2202508d0",
        "TensorRT-Headers/TRT-Enterprise-11.0",
    ),
}
LIBS = {
    "libnvinfer_lean.so.10": (
        "tensorrt-lean-cu12-libs==10.16.1.11",
        "b472f89c55752ea35406b951da629f033e598a522bcb4e472e741c0f1f91eb58",
    ),
    "libnvinfer_lean.so.11": (
        "tensorrt-lean-cu13-libs==11.4.0.106",
        "e022b8d0e21f19258657aec6760e1de8b454ed176f76217e3f7ec2036c5a9410",
    ),
}


def check(path, wanted):
    found = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    if found != wanted:
        sys.exit(f"{path}: expected sha256 {wanted}, got {found}")


def crate(name, version, sha256):
    """A crate's archive, in cargo's cache."""
    home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))

    def cached():
        return sorted(home.glob(f"registry/cache/*/{name}-{version}.crate"))

    if not cached():
        print(f"fetching {name} {version}", flush=True)
        # The one command of cargo that downloads a package without what it depends on.
        subprocess.run(
            ["cargo", "info", "--quiet", f"{name}@{version}"], check=True, stdout=subprocess.DEVNULL
        )
    if not cached():
        sys.exit(f"{name} {version}: expected it in {home}/registry/cache, got none")
    check(cached()[0], sha256)
    return cached()[0]


def headers(folder):
    for name, (package, version, sha256, inside) in HEADERS.items():
        target = folder / name
        if target.is_dir():
            continue
        with tarfile.open(crate(package, version, sha256)) as archive, tempfile.TemporaryDirectory(dir=folder) as part:
            root = f"{package}-{version}/{inside}/"
            members = [member for member in archive.getmembers() if member.name.startswith(root)]
            for member in members:
                member.name = member.name.removeprefix(root)
            archive.extractall(f"{part}/include", members, filter="data")
            os.rename(f"{part}/include", target)


def libs(folder):
    if platform.machine() != "x86_64":
        sys.exit(f"lean libraries: expected x86_64, got {platform.machine()}")
    (folder / "lib").mkdir(exist_ok=True)
    for name, (requirement, sha256) in LIBS.items():
        target = folder / "lib" / name
        if target.is_file():
            continue
        print(f"fetching {requirement} (45 MB, once)", flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
            platforms = ["--only-binary=:all:", "--platform", "manylinux_2_28_x86_64"]
            subprocess.run([*pip, *platforms, "-d", part, requirement], check=True)
            (wheel,) = pathlib.Path(part).glob("*.whl")
            check(wheel, sha256)
            with zipfile.ZipFile(wheel) as archive, open(f"{part}/{name}", "wb") as file:
                shutil.copyfileobj(archive.open(f"tensorrt_lean_libs/{name}"), file)
            os.rename(f"{part}/{name}", target)


def main():
    folder, what = pathlib.Path(sys.argv[1]), sys.argv[2]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        {"headers": headers, "libs": libs}[what](folder)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"{what} of TensorRT: expected them from the package index, got {error}")


main()

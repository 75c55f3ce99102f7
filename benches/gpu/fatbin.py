#!/usr/bin/env python3
"""Leaves the machine code of one GPU architecture in a CUDA library, so that it packs small.

    python3 benches/gpu/fatbin.py libonnxruntime_providers_cuda.so out.so 90

nvcc puts a kernel's code into a container, an element for each architecture. Elements of other architectures are
dropped: those kept move to the front of their container, its size says how far they reach, what is left over is zero
and packs to nothing. No container moves, so nothing that points to one is touched; one that has nothing of the kept
architecture stays as it is. What comes out is for measuring on a machine of that architecture, not for shipping.
"""

import struct
import sys
from collections import Counter
from pathlib import Path

# u32 magic, u16 version, u16 bytes of this header, u64 bytes that follow it.
CONTAINER = struct.Struct("<IHHQ")
MAGIC = struct.pack("<I", 0xBA55ED50)
# u16 kind, u16 version, u32 bytes of this header, u64 bytes that follow it; the architecture is a u32 at ARCH.
ELEMENT = struct.Struct("<HHIQ")
ARCH, LEAST_HEADER, MOST_HEADER = 28, 32, 512
KINDS = {1, 2, 4, 8, 16}


def elements(data, start: int, end: int) -> list[tuple[int, int, int]] | None:
    """(architecture, first byte, end) of every element, or None if this is no container after all."""
    found, at = [], start
    while at < end:
        if end - at < LEAST_HEADER:
            return None
        kind, _, header, payload = ELEMENT.unpack_from(data, at)
        after = at + header + payload
        if kind not in KINDS or not LEAST_HEADER <= header <= MOST_HEADER or after > end:
            return None
        found.append((struct.unpack_from("<I", data, at + ARCH)[0], at, after))
        at = after
    return found


def keep_only(data: bytearray, arch: int) -> Counter:
    """Drops the code of every other architecture in place; what was counted."""
    seen, at = Counter(), data.find(MAGIC)
    while at >= 0:
        begin = at + CONTAINER.size
        header, size = CONTAINER.unpack_from(data, at)[2:] if begin <= len(data) else (0, 0)
        parts = elements(data, begin, begin + size) if header == CONTAINER.size and begin + size <= len(data) else None
        if parts:
            mine = b"".join(data[first:end] for found, first, end in parts if found == arch)
            seen["containers"] += 1
            seen["without it"] += not mine
            if mine:
                data[begin:begin + size] = mine.ljust(size, b"\0")
                CONTAINER.pack_into(data, at, *CONTAINER.unpack_from(data, at)[:3], len(mine))
                seen["bytes kept"] += len(mine)
                seen["bytes dropped"] += size - len(mine)
            at = begin + size - len(MAGIC)
        at = data.find(MAGIC, at + len(MAGIC))
    return seen


def prune(source: Path, target: Path, arch: int) -> Counter:
    """Writes `target`; refuses a library that has nothing for `arch`."""
    data = bytearray(source.read_bytes())
    seen = keep_only(data, arch)
    if not seen["bytes kept"]:
        raise SystemExit(f"fatbin: {source.name}: expected code for architecture {arch}, got none")
    target.write_bytes(data)
    return seen


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[3].isdigit():
        raise SystemExit("usage: fatbin.py LIBRARY OUT ARCHITECTURE")
    print(dict(prune(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))

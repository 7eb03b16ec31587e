# SPDX-License-Identifier: GPL-2.0-only
"""Count the words of Python's own library, in scratch memory that is given back as allocators give it back.

Each file is read into the next 2 MiB slot of one large private mapping and counted there; then the slot is
given back by MADV_DONTNEED, as jemalloc, tcmalloc or Go's runtime do with a run of pages they no longer
need. No memory is left in use, but on kernels before 6.14 the page table of every slot stays.

Usage: arena.py [DIRECTORY]
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SLOT = 2 << 20
SLOTS = 512  # an arena of 1 GiB, so that small machines let us have it
WORD = re.compile(rb"[A-Za-z_]\w+")


def slots() -> Iterator[tuple[mmap.mmap, int]]:
    """The arena and the offset of its next 2 MiB-aligned slot, round and round."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    arena = mmap.mmap(-1, (SLOTS + 1) * SLOT, flags=flags)
    arena.madvise(mmap.MADV_NOHUGEPAGE)
    first = -ctypes.addressof(ctypes.c_char.from_buffer(arena)) % SLOT
    while True:
        for slot in range(SLOTS):
            yield arena, first + slot * SLOT


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib"))
    words: Counter[bytes] = Counter()
    files = size = 0
    paths = sorted(p for p in directory.rglob("*.py") if "site-packages" not in p.parts)
    for path, (arena, at) in zip(paths, slots(), strict=False):
        with path.open("rb", buffering=0) as file, memoryview(arena) as memory:
            length = file.readinto(memory[at : at + SLOT])
        words.update(match[0] for match in WORD.finditer(arena, at, at + length))
        arena.madvise(mmap.MADV_DONTNEED, at, SLOT)
        files += 1
        size += length
    common = ", ".join(f"{word.decode()} {count}" for word, count in words.most_common(5))
    print(f"{files} files, {size >> 10} KiB, {words.total()} words, {len(words)} different: {common}")


if __name__ == "__main__":
    main()

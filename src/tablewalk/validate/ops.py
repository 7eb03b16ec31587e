# SPDX-License-Identifier: GPL-2.0-only
"""The vocabulary of memory operations, and programs of them as text for the agent.

An operation is what one process does once: a system call or accesses to memory.  Addresses are absolute, lengths are
bytes, files are numbers of `FILES`, processes numbers that the generator chose.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Op(NamedTuple):
    """An operation of a process; what the arguments of a kind are is told in `ARGUMENTS`."""

    process: int
    kind: str
    args: tuple[int, ...] = ()

    def line(self, index: int) -> str:
        """It as operation `index` of a program."""
        return " ".join((str(index), str(self.process), "0", self.kind, *(f"{a:#x}" for a in self.args)))


class FileSpec(NamedTuple):
    """A file that each program has: memfd, regular, or readonly (the regular one before it, opened again)."""

    kind: str
    size: int


class Geometry(NamedTuple):
    """Where programs map memory: `tables` page tables from `start` on, each of `table` pages of `page` bytes."""

    page: int
    table: int
    start: int
    tables: int = 24

    @property
    def end(self) -> int:
        """Address behind the arena."""
        return self.start + self.tables * self.table * self.page

    @property
    def file_pages(self) -> tuple[int, ...]:
        """Pages of each file."""
        return 4 * self.table, 2 * self.table + 3, 96, 96

    @property
    def files(self) -> tuple[FileSpec, ...]:
        """The files of every program."""
        kinds = ("memfd", "memfd", "regular", "readonly")
        return tuple(FileSpec(kind, pages * self.page) for kind, pages in zip(kinds, self.file_pages, strict=True))


ARGUMENTS = {
    "reset": "",  # everything afresh: process 0 alone, files empty
    "mmap": "addr length prot flags file offset",
    "munmap": "addr length",
    "mprotect": "addr length prot",
    "madvise": "addr length advice",
    "mremap": "addr old_length new_length flags new_addr",
    "mlock": "addr length",
    "mlock2": "addr length flags",
    "munlock": "addr length",
    "mlockall": "flags",
    "munlockall": "",
    "read": "addr",
    "write": "addr value",
    "fill": "addr length step value",  # value 0: read
    "sum": "addr length",
    "fork": "child",
    "exit": "",
    "mbind": "addr length mode nodes flags",
    "remap_file_pages": "addr length prot pgoff flags",
    "ftruncate": "file size",
    "punch": "file offset length",
    "process_madvise": "process addr length advice",
    "thp_disable": "on",
}

# What cannot fail, because nothing that it is asked for can be wrong.
NEVER_FAILS = frozenset({"reset", "fork", "exit", "sum", "munlockall", "fill", "thp_disable"})

MADV = {
    0: "NORMAL",
    1: "RANDOM",
    2: "SEQUENTIAL",
    3: "WILLNEED",
    4: "DONTNEED",
    8: "FREE",
    9: "REMOVE",
    10: "DONTFORK",
    11: "DOFORK",
    12: "MERGEABLE",
    13: "UNMERGEABLE",
    14: "HUGEPAGE",
    15: "NOHUGEPAGE",
    16: "DONTDUMP",
    17: "DODUMP",
    18: "WIPEONFORK",
    19: "KEEPONFORK",
    20: "COLD",
    21: "PAGEOUT",
    22: "POPULATE_READ",
    23: "POPULATE_WRITE",
    24: "DONTNEED_LOCKED",
    25: "COLLAPSE",
    102: "GUARD_INSTALL",
    103: "GUARD_REMOVE",
}

MAP_ANONYMOUS = 0x20
MREMAP_DONTUNMAP = 4


def kind_of(op: Op) -> str:
    """What the coverage counts the operation as."""
    if op.kind == "madvise":
        return f"madvise {MADV.get(op.args[2], 'unknown')}"
    if op.kind == "process_madvise":
        return f"process_madvise {MADV.get(op.args[3], 'unknown')}"
    if op.kind == "mmap":
        sharing = "private" if op.args[3] & 3 == 2 else "shared"
        return f"mmap {sharing} {'anonymous' if op.args[3] & MAP_ANONYMOUS else 'file'}"
    if op.kind == "mremap":
        _, old, new, flags, _ = op.args
        if flags & MREMAP_DONTUNMAP:
            return "mremap DONTUNMAP"
        return "mremap move" if flags & 2 else ("mremap grow" if new > old else "mremap shrink")
    if op.kind == "fill":
        return "fill write" if op.args[3] else "fill read"
    return op.kind


def program_text(ops: Iterable[Op], geometry: Geometry, exact_rss: bool) -> str:
    """A program for the agent."""
    lines = [f"arena {geometry.start:#x} {geometry.end:#x}", f"rss {int(exact_rss)}"]
    lines += [f"file {f.kind} {f.size}" for f in geometry.files]
    lines += [op.line(i) for i, op in enumerate(ops)]
    return "\n".join(lines) + "\n"

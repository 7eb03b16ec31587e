# SPDX-License-Identifier: GPL-2.0-only
"""The vocabulary of memory operations, and programs of them as text for the agent.

An operation is what one process does once: a system call or accesses to memory.  Addresses are absolute, lengths are
bytes, files are numbers of `FILES`, processes numbers that the generator chose.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Op(NamedTuple):
    """An operation of a process; what the arguments of a kind are is told in `ARGUMENTS`.

    `thread` is which of the process's does it, 0 the first.
    """

    process: int
    kind: str
    args: tuple[int, ...] = ()
    thread: int = 0

    def line(self, index: int) -> str:
        """It as operation `index` of a program."""
        return " ".join((str(index), str(self.process), str(self.thread), self.kind, *(f"{a:#x}" for a in self.args)))


class FileSpec(NamedTuple):
    """A file that each program has.

    memfd, regular, readonly (the regular one before it, opened again), or on a tmpfs with huge=: tmpfs-always, ...
    """

    kind: str
    size: int


class Geometry(NamedTuple):
    """Where programs map memory: `tables` page tables from `start` on, each of `table` pages of `page` bytes."""

    page: int
    table: int
    start: int
    tables: int = 24
    ksmd: bool = False  # whether programs may let ksmd run: the whole machine's memory is scanned
    uffd: bool = True  # whether programs may open userfaultfds
    soft_dirty: bool = False  # whether programs may clear soft-dirty bits
    prot_none: bool = True  # whether programs may take all permissions from memory
    mprotect: bool = True  # whether programs may change permissions
    endless: int = 1 << 62  # a length that no address space has, and the last offset that an off_t has
    last_offset: int = (1 << 63) - 4096

    @property
    def end(self) -> int:
        """Address behind the arena."""
        return self.start + self.tables * self.table * self.page

    @property
    def heap(self) -> int:
        """Where the heap begins."""
        return self.end - 6 * self.table * self.page + 3 * self.page

    @property
    def file_pages(self) -> tuple[int, ...]:
        """Pages of each file."""
        tmpfs = (3 * self.table + 5, 2 * self.table + 40, 2 * self.table)
        return 4 * self.table, 2 * self.table + 3, 96, 96, *tmpfs

    @property
    def files(self) -> tuple[FileSpec, ...]:
        """The files of every program."""
        kinds = ("memfd", "memfd", "regular", "readonly", "tmpfs-always", "tmpfs-within_size", "tmpfs-advise")
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
    "process_madvise_ranges": "process addr length addr2 length2 advice",
    "thp_disable": "on flags",
    "vfork": "child",  # which uses the process's memory until it exits; the process waits for that
    "brk": "addr",
    "fallocate": "file mode offset length",
    "pread": "file offset",
    "pwrite": "file offset value",  # a page that begins with the value
    "msync": "addr length flags",
    "mincore": "addr length",
    "set_mempolicy": "mode nodes",
    "get_mempolicy": "addr flags",
    "mseal": "addr length flags",
    "pagemap_scan": "addr length flags max_pages nr_ranges inverted mask anyof returned",
    "uffd_open": "flags features uffd",
    "uffd_close": "uffd",
    "uffd_register": "addr length mode uffd",
    "uffd_unregister": "addr length uffd",
    "uffd_wake": "addr length uffd",
    "uffd_copy": "addr src_addr length mode uffd",
    "uffd_move": "addr src_addr length mode uffd",
    "uffd_zeropage": "addr length mode uffd",
    "uffd_continue": "addr length mode uffd",
    "uffd_poison": "addr length mode uffd",
    "uffd_writeprotect": "addr length mode uffd",
    "clear_refs": "kind",
    "ksm": "passes",  # of ksmd, whole ones
}

# Files by their number: those whose pages may be made otherwise than by faults.
MEMFDS = (0, 1)
REGULAR, READONLY = 2, 3

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

# Modes of uffd_register
REGISTER = {1: "missing", 2: "wp", 4: "minor"} | dict.fromkeys((3, 5, 6, 7), "of several modes")

MADV_REMOVE, MADV_PAGEOUT, MADV_COLLAPSE = 9, 21, 25
MAP_ANONYMOUS = 0x20
MREMAP_DONTUNMAP = 4


class Family:
    """Which processes live, and which of them can do something."""

    def __init__(self) -> None:
        self.live = {0}
        self.lenders: dict[int, int] = {}  # a child by vfork: whose memory it uses

    @property
    def ready(self) -> list[int]:
        """Those that do not wait for a child."""
        return sorted(self.live - set(self.lenders.values()))

    def allows(self, op: Op) -> bool:
        """Whether the operation is one of a process that lives and can do it."""
        if op.process not in self.ready:
            return False
        if op.thread and (op.process in self.lenders or op.kind in ("vfork", "exit", "reset")):
            return False
        if op.kind.startswith("process_madvise"):
            return op.args[0] in self.live
        if op.kind in ("fork", "vfork"):
            return op.args[0] not in self.live
        return op.kind != "exit" or len(self.live) > 1

    def after(self, op: Op) -> None:
        """Note who comes and goes by the operation."""
        if op.kind in ("fork", "vfork"):
            self.live.add(op.args[0])
        if op.kind == "vfork":
            self.lenders[op.args[0]] = op.process
        if op.kind == "exit":
            self.live.remove(op.process)
            self.lenders.pop(op.process, None)


def advises(op: Op, advice: int) -> bool:
    """Whether the operation gives this advice, to whatever process."""
    return op.kind in ("madvise", "process_madvise", "process_madvise_ranges") and op.args[-1] == advice


def kind_of(op: Op) -> str:
    """What the coverage counts the operation as."""
    if op.kind == "madvise":
        return f"madvise {MADV.get(op.args[2], 'unknown')}"
    if op.kind == "process_madvise":
        return f"process_madvise {MADV.get(op.args[3], 'unknown')}"
    if op.kind == "fallocate":
        return {0: "fallocate", 1: "fallocate keep size"}.get(op.args[1], "fallocate unknown")
    if op.kind == "uffd_register":
        return f"uffd_register {REGISTER.get(op.args[2], 'unknown')}"
    if op.kind == "pagemap_scan":
        return "pagemap_scan that protects" if op.args[2] & 1 else "pagemap_scan"
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
    lines = [f"arena {geometry.start:#x} {geometry.end:#x}", f"brk {geometry.heap:#x}", f"rss {int(exact_rss)}"]
    lines += [f"file {f.kind} {f.size}" for f in geometry.files]
    lines += [op.line(i) for i, op in enumerate(ops)]
    return "\n".join(lines) + "\n"

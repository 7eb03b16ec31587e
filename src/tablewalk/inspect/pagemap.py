# SPDX-License-Identifier: GPL-2.0-only
"""What the page tables of a process hold, by the PAGEMAP_SCAN ioctl (Linux 6.7) or by reading pagemap.

The scan also shows where a PTE table stands that holds nothing.  Asked for PAGE_IS_WRITTEN alone, the kernel
takes a short cut (pagemap_scan_pmd_entry(), fs/proc/task_mmu.c; 6.12, 6.18 and 7.2 do): it reports every entry of a
table that is not write-protected by userfaultfd, empty ones included, whereas an address with no table at all
is a hole and is not reported.  No manual promises that, so `probe` tries it on a table of its own first.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tablewalk.arch import Arch
from tablewalk.errors import TablewalkError
from tablewalk.inspect.procfs import Vma

PAGEMAP_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg), include/uapi/linux/fs.h
PAGE_IS_WRITTEN = 1 << 1
PAGE_IS_FILE = 1 << 2
PAGE_IS_PRESENT = 1 << 3
PAGE_IS_SWAPPED = 1 << 4
PAGE_IS_HUGE = 1 << 6

PAGEMAP_ENTRY = 8  # bytes
PM_SWAP_SHIFT = 62  # bits 62 and 63 say swapped (or a marker) and present
READ_ENTRIES = 1 << 21  # of pagemap in one read: 16 MiB, 8 GiB of addresses
SCAN_RANGES = 1 << 14
SKIP_ABOVE_KB = 1 << 30  # where pagemap must be read, a mapping above 1 TiB with nothing resident is not

Ranges = NDArray[np.int64]  # rows of start, end (bytes), PAGE_IS_* bits; in order of address, disjoint


@dataclass(frozen=True, slots=True)
class Kernel:
    """What this kernel can be asked, and whether MADV_DONTNEED gives empty tables back (PT_RECLAIM, 6.14)."""

    pagemap_scan: bool
    shows_empty_tables: bool
    pt_reclaim: bool | None


@dataclass(frozen=True, slots=True)
class Contents:
    """One look at the tables of a process.

    `entries` are the addresses whose entry holds something (page, swap, marker, zero page), with PAGE_IS_HUGE
    where a PMD maps it and PAGE_IS_FILE where that is a file's; `tables` the addresses that have a page table
    or a huge page, or None where the kernel does not show them; `complete` is False where a mapping was too
    large to read.
    """

    entries: Ranges
    tables: Ranges | None
    complete: bool = True


def look(fd: int, vmas: list[Vma], kernel: Kernel, arch: Arch) -> Contents:
    """Look through the open /proc/PID/pagemap `fd` at everything in `vmas`; OSError ESRCH if it is gone."""
    if not vmas:
        raise ProcessLookupError(errno.ESRCH, "no memory any more")
    start, end = vmas[0].start, vmas[-1].end
    if kernel.pagemap_scan:
        tables = scan_tables(fd, start, end) if kernel.shows_empty_tables else None
        return Contents(scan_entries(fd, start, end), tables)
    large = [v for v in vmas if v.end - v.start > SKIP_ABOVE_KB << 10 and not (v.kb["Rss"] or v.kb["Swap"])]
    entries = [r for v in vmas if v not in large for r in read_entries(fd, v, arch)]
    return Contents(np.concatenate([_NONE, *entries]), None, complete=not large)


def scan_tables(fd: int, start: int, end: int) -> Ranges:
    return _scan(fd, start, end, PAGE_IS_WRITTEN, 0, PAGE_IS_WRITTEN)


def scan_entries(fd: int, start: int, end: int) -> Ranges:
    return _scan(fd, start, end, 0, PAGE_IS_PRESENT | PAGE_IS_SWAPPED, PAGE_IS_HUGE | PAGE_IS_FILE)


_NONE: Ranges = np.empty((0, 3), dtype=np.int64)


def _scan(fd: int, start: int, end: int, mask: int, anyof_mask: int, return_mask: int) -> Ranges:
    vec = np.empty((SCAN_RANGES, 3), dtype=np.int64)
    found = [_NONE]
    n = SCAN_RANGES
    # Not by walk_end: 6.18 leaves the end of an inner step there where it came to the end in several.
    while n == SCAN_RANGES and start < end:
        arg = struct.pack(
            "12Q", 96, 0, start, end, 0, vec.ctypes.data, SCAN_RANGES, 0,
            0, mask, anyof_mask, return_mask,
        )  # fmt: skip
        n = fcntl.ioctl(fd, PAGEMAP_SCAN, bytearray(arg), True)
        found.append(vec[:n].copy())
        start = int(vec[n - 1, 1])
    return np.concatenate(found)


def read_entries(fd: int, vma: Vma, arch: Arch) -> list[Ranges]:
    """The entries of one mapping from pagemap itself, which every kernel has.

    pagemap does not say what a PMD maps.  smaps counts it, so that many whole huge pages are marked: the
    right number, any of those that it can be.  The huge zero page is not counted there, so that its deposited
    table is taken for a populated one.
    """
    found: list[Ranges] = []
    huge_kb = arch.pmd_size >> 10
    anon = vma.kb.get("AnonHugePages", 0) // huge_kb
    file = (vma.kb.get("ShmemPmdMapped", 0) + vma.kb.get("FilePmdMapped", 0)) // huge_kb
    step = READ_ENTRIES << arch.page_shift  # and at its multiples, so that no huge page is cut
    for start in (vma.start, *range((vma.start // step + 1) * step, vma.end, step)):
        count = (min((start // step + 1) * step, vma.end) - start) >> arch.page_shift
        raw = os.pread(fd, count * PAGEMAP_ENTRY, (start >> arch.page_shift) * PAGEMAP_ENTRY)
        if len(raw) < count * PAGEMAP_ENTRY:
            raise ProcessLookupError(errno.ESRCH, "pagemap ends early")
        held = np.frombuffer(raw, dtype=np.uint64) >> np.uint64(PM_SWAP_SHIFT) != 0
        edges = np.flatnonzero(np.diff(held, prepend=False, append=False)).reshape(-1, 2)
        bytes_ = start + (edges.astype(np.int64) << arch.page_shift)
        ranges = np.column_stack([bytes_, np.zeros(len(bytes_), dtype=np.int64)])
        found.append(ranges)
    if not (anon or file):
        return found
    return _mark_huge(np.concatenate(found), anon, file, arch)


def _mark_huge(ranges: Ranges, anon: int, file: int, arch: Arch) -> list[Ranges]:
    """Cut the first `anon` + `file` whole aligned huge pages out of `ranges` and mark them."""
    marked: list[Ranges] = []
    left = [(PAGE_IS_HUGE, anon), (PAGE_IS_HUGE | PAGE_IS_FILE, file)]
    for start, end, _ in ranges.tolist():
        at = -(-start // arch.pmd_size) * arch.pmd_size
        rows = [(start, min(at, end), 0)] if start < min(at, end) else []
        for i, (bits, n) in enumerate(left):
            take = min(n, max(end - at, 0) // arch.pmd_size)
            if take:
                rows.append((at, at + take * arch.pmd_size, bits))
                at += take * arch.pmd_size
                left[i] = (bits, n - take)
        if at < end:
            rows.append((at, end, 0))
        marked.append(np.array(rows, dtype=np.int64).reshape(-1, 3))
    return marked


def probe(arch: Arch) -> Kernel:
    """Find out on a mapping of our own what this kernel can be asked; raises TablewalkError if too little."""
    try:
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        hint = (
            "; inspect needs a mounted /proc and CONFIG_PROC_PAGE_MONITOR" if e.errno == errno.ENOENT else ""
        )
        raise TablewalkError(f"/proc/self/pagemap: {e.strerror}{hint}") from None
    try:
        return _probe(fd, arch)
    finally:
        os.close(fd)


def _probe(fd: int, arch: Arch) -> Kernel:
    size = arch.pmd_size
    with mmap.mmap(-1, 4 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        with contextlib.suppress(OSError):  # EINVAL: a kernel without THP, which cannot disturb either
            area.madvise(mmap.MADV_NOHUGEPAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(area))
        table = -(-base // size) * size + size - base
        try:
            area[table] = 1
            area.madvise(mmap.MADV_DONTNEED, table, arch.page_size)
            empty = scan_tables(fd, base + table, base + table + size)
            hole = scan_tables(fd, base + table - size, base + table)
        except OSError as e:
            if e.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
            return Kernel(pagemap_scan=False, shows_empty_tables=False, pt_reclaim=False)
        shows = np.array_equal(empty[:, :2], [(base + table, base + table + size)]) and not len(hole)
        area.madvise(mmap.MADV_DONTNEED, table, size)
        gone = not len(scan_tables(fd, base + table, base + table + size))
    return Kernel(pagemap_scan=True, shows_empty_tables=shows, pt_reclaim=gone if shows else None)

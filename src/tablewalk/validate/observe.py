# SPDX-License-Identifier: GPL-2.0-only
"""What a process of the model looks like from outside, as the text that the agent makes of /proc on a real kernel.

What the files say is `kernel/task_mmu` and `kernel/mincore`; here it is only put into words, after each operation.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from tablewalk.machine.drivers import Model

# VmFlags that the agent tells
TOLD = frozenset({
    "rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "um", "gu", "uw", "lo", "sr", "rr", "dc", "de", "lf", "ac",
    "nr", "wf", "dd", "sd", "hg", "nh", "mg", "ui", "sl",
})  # fmt: skip
PAGEMAP_LETTERS = "xwgd_fsp"  # of an entry's bits from 56 on

Run = tuple[int, int, int]  # address, pages, what they are


class Observer:
    """Makes the text for processes of a model; `names` gives the file of an address_space's address."""

    def __init__(self, model: Model) -> None:
        self.names: dict[int, str] = {}
        self.exact_rss = True
        self.tables_at_first = 0  # bytes that a process has before it maps anything
        self._load: Any = model.machine.load
        self._size: int = model.arch.page_size
        self._task_mmu = model.kernel("task_mmu")
        self._mincore = model.kernel("mincore").sys_mincore
        self._pgtables_bytes = model.kernel("pgtable_generic").mm_pgtables_bytes
        self._protections: dict[int, str] = {}  # and VmFlags, by vm_flags
        self._flags: dict[int, str] = {}

    def text(self, mms: dict[int, Any]) -> str:
        """The observation of all processes, by number."""
        lines: list[str] = []
        for process, mm in sorted(mms.items()):
            vmas = self._task_mmu.proc_smaps(mm)
            spans = _joined((vma.vm_start, vma.vm_end) for vma in vmas)
            lines.append(self._counters(process, mm))
            lines += map(self._line, vmas)
            lines += self._pages(mm, spans)
            lines += (f"c{at:x} {nr}" for start, end in spans for at, nr in self._in_core(mm, start, end))
        lines.append("")
        return "\n".join(lines)

    def present(self, mm: Any, start: int, end: int) -> Iterator[int]:
        """Addresses of the pages in [start, end) that are mapped."""
        for at, nr, entry in self._task_mmu.pagemap_read(mm, start, end):
            if entry & self._task_mmu.PM_PRESENT:
                yield from range(at, at + nr * self._size, self._size)

    def _counters(self, process: int, mm: Any) -> str:
        load, kb = self._load, self._size >> 10
        text = f"p{process} pte={self._pgtables_bytes(mm) - self.tables_at_first >> 10}"
        if self.exact_rss:
            text += f" anon={load(mm.anon_rss) * kb} file={load(mm.file_rss) * kb} shmem={load(mm.shmem_rss) * kb}"
            text += f" swap={load(mm.swapents) * kb}"
        return f"{text} lck={mm.locked_vm * kb}"

    def _line(self, vma: Any) -> str:
        start, end, vm_flags, pgoff, inode, mss = vma
        resident, anonymous, anonymous_thp, shmem_thp, file_thp, swap, ksm, pss, pss_locked = mss
        flags = self._flags.get(vm_flags)
        if flags is None:
            flags = self._name_flags(vm_flags)
        offset, name = (pgoff * self._size, self.names.get(inode, "s")) if inode else (0, "-")
        head = f"v{start:x}-{end:x} {self._protections[vm_flags]} {offset:x} {name}"
        if not resident and not swap:
            return f"{head} 0,0,0,0,0,0,0,0,0 {flags}"
        shift = self._task_mmu.PSS_SHIFT + 10
        return (
            f"{head} {resident >> 10},{pss >> shift},{anonymous >> 10},{anonymous_thp >> 10},{shmem_thp >> 10},"
            f"{file_thp >> 10},{swap >> 10},{pss_locked >> shift},{ksm >> 10} {flags}"
        )

    def _name_flags(self, vm_flags: int) -> str:
        """Remember how a VMA with these flags is told."""
        names = self._task_mmu.show_smap_vma_flags(vm_flags).split()
        self._protections[vm_flags] = "".join(
            letter if name in names else "-" for letter, name in (("r", "rd"), ("w", "wr"), ("x", "ex"))
        ) + ("s" if "ms" in names else "p")
        self._flags[vm_flags] = flags = "".join(name for name in names if name in TOLD)
        return flags

    def _pages(self, mm: Any, spans: list[tuple[int, int]]) -> Iterator[str]:
        """Lines of what pagemap has; neighbours of the same kind are one."""
        size = self._size
        first = last = kind = 0
        for start, end in spans:
            for at, nr, entry in self._task_mmu.pagemap_read(mm, start, end):
                if at != last or entry != kind:
                    if kind:
                        yield f"m{first:x} {(last - first) // size} {LETTERS[kind]}"
                    first, kind = at, entry
                last = at + nr * size
        if kind:
            yield f"m{first:x} {(last - first) // size} {LETTERS[kind]}"

    def _in_core(self, mm: Any, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Runs of pages that mincore finds in core: address, pages."""
        _, vec = self._mincore(mm, start, end - start)
        first = vec.find(1)
        while first >= 0:
            last = vec.find(0, first)
            if last < 0:
                last = len(vec)
            yield start + first * self._size, last - first
            first = vec.find(1, last)


LETTERS = tuple("".join(c for i, c in enumerate(PAGEMAP_LETTERS) if entry >> i & 1) for entry in range(1 << 8))


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges that follow each other as one."""
    joined: list[tuple[int, int]] = []
    for start, end in ranges:
        if joined and joined[-1][1] == start:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def digest(text: str) -> int:
    """CRC-32 above Adler-32 of an observation, as the agent has it."""
    data = text.encode()
    return zlib.crc32(data) << 32 | zlib.adler32(data)

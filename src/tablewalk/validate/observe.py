# SPDX-License-Identifier: GPL-2.0-only
"""What a process of the model looks like from outside, as the text that the agent makes of /proc on a real kernel.

The readers' rules are those of fs/proc/task_mmu.c and mm/mincore.c (7.2), but without locks: between two operations
nothing changes.

The loops here are run after each operation for each mapped page, and are written for speed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import tablewalk.kernel.mm_types  # noqa: F401  (its layouts)
from tablewalk.machine.drivers import Model
from tablewalk.machine.memory import layouts

FLAGS = {
    "rd": 0x1, "wr": 0x2, "ex": 0x4, "sh": 0x8, "mr": 0x10, "mw": 0x20, "me": 0x40, "ms": 0x80, "gd": 0x100,
    "um": 0x200, "gu": 0x800, "uw": 0x1000, "lo": 0x2000, "sr": 0x8000, "rr": 0x10000, "dc": 0x20000, "de": 0x40000,
    "lf": 0x80000, "ac": 0x100000, "nr": 0x200000, "wf": 0x2000000, "dd": 0x4000000, "hg": 0x20000000,
    "nh": 0x40000000, "mg": 0x80000000, "ui": 1 << 41, "sl": 1 << 42,
}  # fmt: skip
PSS_SHIFT = 12

# bits of /proc/PID/pagemap, in this order: exclusive, uffd-wp, guard, file or shared, swapped, present
EXCLUSIVE, UFFD, GUARD, FILE, SWAPPED, IS_PRESENT = 1, 2, 4, 8, 16, 32
LETTERS = tuple("".join(c for i, c in enumerate("xwgfsp") if kind >> i & 1) for kind in range(64))

_FOLIO = {slot.name: slot.offset for slot in next(s for s in layouts if s.name == "folio").slots}
_ORDER, _MAPPING, _PTES, _ENTIRE = (
    _FOLIO[name] for name in ("order", "mapping", "_mapcount", "_entire_mapcount")
)

Run = tuple[int, int, int]  # address, pages, bits


@dataclass(slots=True)
class Smaps:
    """A VMA's line: sizes in pages, `pss` in bytes << PSS_SHIFT; `runs` are its entries as pagemap shows them."""

    start: int
    end: int
    flags: int
    pgoff: int
    file: Any
    rss: int = 0
    pss: int = 0
    anon: int = 0
    anon_huge: int = 0
    shmem_huge: int = 0
    file_huge: int = 0
    swap: int = 0
    ksm: int = 0
    runs: list[Run] = field(default_factory=list)


class Observer:
    """Makes the text for processes of a model; `names` gives the file of an address_space's address."""

    def __init__(self, model: Model) -> None:
        self.names: dict[int, str] = {}
        self.exact_rss = True
        self.tables_at_first = 0  # bytes that a process has before it maps anything
        self.ksm_field = True  # smaps tells of pages of KSM
        self.huge_by_head = True  # pagemap says of all of a huge page what is true of its first
        self.lockonfault_told = True
        self._machine = model.machine
        self._load: Any = model.machine.load
        self._arch = model.module("arch").arch
        self._types = model.kernel("mm_types")
        self._find_pmd = model.kernel("pagewalk").find_pmd
        self._pgtable = model.kernel("pgtable")
        self._filemap = model.kernel("filemap")
        self._mincore = model.kernel("mincore").sys_mincore
        self._pgtables_bytes = model.kernel("pgtable_generic").mm_pgtables_bytes
        self._page_mapcount = model.kernel("page_alloc").page_mapcount
        self._page_cells = model.kernel("page_alloc").PAGE_CELLS
        self._size = self._arch.page_size
        self._ulong_max = (1 << (32 if self._arch.task_size < 1 << 32 else 64)) - 1

    def text(self, mms: dict[int, Any]) -> str:
        """The observation of all processes, by number."""
        lines: list[str] = []
        for process, mm in sorted(mms.items()):
            vmas = [self._smaps(vma) for vma in self._vmas(mm)]
            lines.append(self._counters(process, mm))
            lines += map(self._line, vmas)
            lines += (f"m{at:x} {nr} {LETTERS[kind]}" for at, nr, kind in self._joined(r for s in vmas for r in s.runs))
            lines += (f"c{at:x} {nr}" for span in self._spans(vmas) for at, nr in self._in_core(mm, *span))
        lines.append("")
        return "\n".join(lines)

    def present(self, mm: Any, start: int, end: int) -> list[int]:
        """Addresses of the pages in [start, end) that are mapped."""
        return [
            page
            for vma in self._vmas(mm)
            for at, nr, kind in self._smaps(vma).runs
            if kind & IS_PRESENT
            for page in range(max(at, start), min(at + nr * self._size, end), self._size)
        ]

    # --- walking -----------------------------------------------------------------------------------------

    def _vmas(self, mm: Any) -> list[Any]:
        return [self._types.vm_area_struct(found) for found in self._machine.mt_values(mm.mm_mt)]

    def _entries(self, mm: Any, start: int, end: int) -> Iterator[tuple[int, int, list[int]]]:
        """Each PMD entry that maps something: (address, value of a huge pmd or 0, entries of a table)."""
        p, addr = self._pgtable, start
        while addr < end:
            pmd, next_ = self._find_pmd(mm, addr, end)
            value = self._load(pmd) if pmd else 0
            if p.pmd_is_table(value):
                table = p.pmd_pgtable(value).entry + p.pte_index(addr)
                entries = self._machine.load_range(table, next_ - addr >> self._arch.page_shift)
                if any(entries):
                    yield addr, 0, entries
            elif value:
                yield addr, value, []
            addr = next_

    def _smaps(self, vma: Any) -> Smaps:
        s = Smaps(vma.vm_start, vma.vm_end, vma.vm_flags, vma.vm_pgoff, vma.vm_file)
        for addr, huge, entries in self._entries(vma.vm_mm, s.start, s.end):
            if huge:
                self._add_huge(s, addr, huge)
            else:
                self._add_table(s, addr, entries)
        if s.file and s.file.f_mapping.shmem:
            s.swap += self._shmem_swap(s, vma.vm_mm)
        return s

    def _add_table(self, s: Smaps, addr: int, entries: list[int]) -> None:
        """Add what a table maps from `addr` on."""
        p, load, size = self._pgtable, self._load, self._size
        present, special, uffd, shift = p.PRESENT | p.PROTNONE, p.SPECIAL, p.UFFD_WP, p.PFN_SHIFT
        whole = size << PSS_SHIFT
        rss = anon = pss = ksm = 0
        run_at = run_end = run_kind = -1
        for at, entry in zip(range(addr, addr + len(entries) * size, size), entries, strict=True):
            if not entry:
                continue
            if entry & present == 0:
                kind = self._nonpresent(s, at, entry)
            elif entry & special:
                kind = IS_PRESENT
            else:
                page = entry >> shift
                folio = load(page)
                rss += 1
                count = self._mapcount(folio, page) if load(folio + _ORDER) else load(folio + _PTES)
                kind = IS_PRESENT | EXCLUSIVE if count == 1 else IS_PRESENT
                pss += whole if count < 2 else whole // count
                mapping = load(folio + _MAPPING) & 3
                if mapping & 1:
                    anon += 1
                    ksm += mapping >> 1
                else:
                    kind |= FILE
            if entry & uffd and entry & present:
                kind |= UFFD
            if kind != run_kind or at != run_end:
                if run_end >= 0:
                    s.runs.append((run_at, (run_end - run_at) // size, run_kind))
                run_at, run_kind = at, kind
            run_end = at + size
        s.runs.append((run_at, (run_end - run_at) // size, run_kind))
        s.rss += rss
        s.pss += pss
        s.anon += anon
        s.ksm += ksm

    def _nonpresent(self, s: Smaps, at: int, entry: int) -> int:
        p = self._pgtable
        if p.swp_type(entry) == p.SWP_SWAP:
            s.swap += 1
            return SWAPPED | UFFD if entry & p.UFFD_WP else SWAPPED
        marker = p.pte_marker(entry)
        kind = SWAPPED | (GUARD if marker & p.PTE_MARKER_GUARD else 0)
        return kind | UFFD if marker & p.PTE_MARKER_UFFD_WP else kind

    def _add_huge(self, s: Smaps, addr: int, value: int) -> None:
        """Add a huge pmd; the huge zero page counts as no memory, but shows as a file's."""
        nr, page = self._arch.hpage_pmd_nr, value >> self._pgtable.PFN_SHIFT
        folio = self._load(page)
        entire, in_ptes = self._load(folio + _ENTIRE), self._load(folio + _PTES)
        is_anon = self._load(folio + _MAPPING) & 1
        kind = IS_PRESENT if is_anon else IS_PRESENT | FILE
        if value & self._pgtable.UFFD_WP:
            kind |= UFFD
        counts = [entire] * nr
        if in_ptes:
            counts = [self._mapcount(folio, page + i * self._page_cells) for i in range(nr)]
        if self._types.folio(folio) != self._types.system(64).huge_zero_folio:
            s.rss += nr
            pss = sum((self._size << PSS_SHIFT) // max(count, 1) for count in counts)
            # What only one maps, and only whole, is added at once, as an unsigned long: 2 MiB overflow one of 32 bits.
            s.pss += pss & self._ulong_max if is_anon and entire == 1 and not in_ptes else pss
            if is_anon:
                s.anon += nr
                s.anon_huge += nr
            elif s.file.f_mapping.shmem:
                s.shmem_huge += nr
            else:
                s.file_huge += nr
        if self.huge_by_head:
            counts = counts[:1] * nr
        for i, count in enumerate(counts):
            s.runs.append((addr + i * self._size, 1, kind | EXCLUSIVE if count == 1 else kind))

    def _mapcount(self, folio: int, page: int) -> int:
        """How often a page of a large folio is mapped, by PTEs or whole (folio_precise_page_mapcount)."""
        return int(self._load(self._page_mapcount(page)) + self._load(folio + _ENTIRE))

    def _shmem_swap(self, s: Smaps, mm: Any) -> int:
        """Pages in swap that are the file's; of a private, writable mapping only those where it maps nothing."""
        mapping, shift = s.file.f_mapping, self._arch.page_shift
        swapped = self._partial_swap_usage(mapping, s.pgoff, s.pgoff + (s.end - s.start >> shift))
        if not swapped or s.flags & FLAGS["sh"] or not s.flags & FLAGS["wr"]:
            return swapped
        swapped, addr = 0, s.start
        while addr < s.end:
            pmd, next_ = self._find_pmd(mm, addr, s.end)
            value, index = self._load(pmd) if pmd else 0, s.pgoff + (addr - s.start >> shift)
            if not value:
                swapped += self._partial_swap_usage(mapping, index, index + (next_ - addr >> shift))
            elif self._pgtable.pmd_is_table(value):
                table = self._pgtable.pmd_pgtable(value).entry + self._pgtable.pte_index(addr)
                for i, entry in enumerate(self._machine.load_range(table, next_ - addr >> shift)):
                    swapped += 0 if entry else self._partial_swap_usage(mapping, index + i, index + i + 1)
            addr = next_
        return swapped

    def _partial_swap_usage(self, mapping: Any, first: int, end: int) -> int:
        """Pages in swap of the entries from page `first` to `end`, which may stand for more than lie there."""
        found = {}
        for index, value in self._machine.xa_range(mapping.i_pages, first, end - 1):
            if value < 0:
                order = self._filemap.radix_order(value)
                found[index >> order << order] = 1 << order
        return sum(found.values())

    # --- what the readers say ----------------------------------------------------------------------------

    def _counters(self, process: int, mm: Any) -> str:
        load, kb = self._load, self._size >> 10
        text = f"p{process} pte={self._pgtables_bytes(mm) - self.tables_at_first >> 10}"
        if self.exact_rss:
            text += f" anon={load(mm.anon_rss) * kb} file={load(mm.file_rss) * kb} shmem={load(mm.shmem_rss) * kb}"
            text += f" swap={load(mm.swapents) * kb}"
        return f"{text} lck={mm.locked_vm * kb}"

    def _line(self, s: Smaps) -> str:
        kb, flags = self._size >> 10, s.flags if self.lockonfault_told else s.flags & ~FLAGS["lf"]
        pss = s.pss >> PSS_SHIFT + 10
        sizes = (s.rss * kb, pss, s.anon * kb, s.anon_huge * kb, s.shmem_huge * kb, s.file_huge * kb, s.swap * kb)
        prot = "".join(c if flags & bit else "-" for c, bit in (("r", 1), ("w", 2), ("x", 4)))
        offset, name = (s.pgoff * self._size, self.names.get(s.file.f_mapping.addr, "s")) if s.file else (0, "-")
        return (
            f"v{s.start:x}-{s.end:x} {prot}{'s' if flags & FLAGS['ms'] else 'p'} {offset:x} {name} "
            f"{','.join(map(str, sizes))},{pss if flags & FLAGS['lo'] else 0},{s.ksm * kb if self.ksm_field else 0} "
            + "".join(letters for letters, bit in FLAGS.items() if flags & bit)
        )

    def _spans(self, vmas: list[Smaps]) -> list[tuple[int, int]]:
        """The ranges without holes that the VMAs make up."""
        spans: list[tuple[int, int]] = []
        for s in vmas:
            if spans and spans[-1][1] == s.start:
                spans[-1] = spans[-1][0], s.end
            else:
                spans.append((s.start, s.end))
        return spans

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

    def _joined(self, runs: Iterable[Run]) -> Iterator[Run]:
        """Neighbours of the same kind as one."""
        start = end = kind = -1
        for at, nr, this in runs:
            if at != end or this != kind:
                if end >= 0:
                    yield start, (end - start) // self._size, kind
                start, kind = at, this
            end = at + nr * self._size
        if end >= 0:
            yield start, (end - start) // self._size, kind


def digest(text: str) -> int:
    """CRC-32 above Adler-32 of an observation, as the agent has it."""
    data = text.encode()
    return zlib.crc32(data) << 32 | zlib.adler32(data)

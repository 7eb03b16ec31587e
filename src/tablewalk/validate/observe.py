# SPDX-License-Identifier: GPL-2.0-only
"""What a process of the model looks like from outside, as the text that the agent makes of /proc on a real kernel.

The readers' rules are those of fs/proc/task_mmu.c and mm/mincore.c (7.2), but without locks: between two operations
nothing changes.  How often a page of a large folio is mapped is counted over the tables of all processes.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from tablewalk.machine.drivers import Model

FLAGS = {
    "rd": 0x1, "wr": 0x2, "ex": 0x4, "sh": 0x8, "mr": 0x10, "mw": 0x20, "me": 0x40, "ms": 0x80, "gd": 0x100,
    "lo": 0x2000, "sr": 0x8000, "rr": 0x10000, "dc": 0x20000, "de": 0x40000, "lf": 0x80000, "ac": 0x100000,
    "nr": 0x200000, "wf": 0x2000000, "dd": 0x4000000, "hg": 0x20000000, "nh": 0x40000000, "mg": 0x80000000,
}  # fmt: skip
PSS_SHIFT = 12

# bits of /proc/PID/pagemap, in this order: exclusive, uffd-wp, guard, file or shared, swapped, present
EXCLUSIVE, UFFD, GUARD, FILE, SWAPPED, IS_PRESENT = 1, 2, 4, 8, 16, 32
LETTERS = tuple("".join(c for i, c in enumerate("xwgfsp") if kind >> i & 1) for kind in range(64))


class Page(NamedTuple):
    """An entry that is not none: its pages (a huge pmd: many), bits but EXCLUSIVE, struct page (0: none) and folio."""

    start: int
    nr: int
    kind: int
    page: int
    folio: Any


class Mapping(NamedTuple):
    """A VMA and its entries."""

    vma: Any
    start: int
    end: int
    flags: int
    file: Any
    pages: list[Page]


class Observer:
    """Makes the text for processes of a model; `names` gives the file of an address_space's address."""

    def __init__(self, model: Model) -> None:
        self.names: dict[int, str] = {}
        self.exact_rss = True
        self._machine = model.machine
        self._arch = model.module("arch").arch
        self._types = model.kernel("mm_types")
        self._pagewalk = model.kernel("pagewalk")
        self._pgtable = model.kernel("pgtable")
        self._filemap = model.kernel("filemap")
        self._pgtables_bytes = model.kernel("pgtable_generic").mm_pgtables_bytes
        self._page_cells = model.kernel("page_alloc").PAGE_CELLS
        self._kb = self._arch.page_size >> 10

    def text(self, mms: dict[int, Any]) -> str:
        """The observation of all processes, by number."""
        walked = {process: [self._mapping(v) for v in self._vmas(mm)] for process, mm in sorted(mms.items())}
        counts = self._large_mapcounts(walked)
        lines: list[str] = []
        for process, mappings in walked.items():
            lines.append(self._counters(process, mms[process]))
            lines += [self._smaps(m, counts) for m in mappings]
            lines += self._runs("m", self._pagemap(mappings, counts), self._arch.page_size)
            lines += self._runs("c", self._mincore(mappings), self._arch.page_size)
        lines.append("")
        return "\n".join(lines)

    def present(self, mm: Any, start: int, end: int) -> list[int]:
        """Addresses of the pages in [start, end) that are mapped."""
        size = self._arch.page_size
        return [
            addr
            for vma in self._vmas(mm)
            for p in self._entries(mm, max(start, vma.vm_start), min(end, vma.vm_end))
            if p.kind & IS_PRESENT
            for addr in range(p.start, p.start + p.nr * size, size)
        ]

    # --- walking -----------------------------------------------------------------------------------------

    def _vmas(self, mm: Any) -> list[Any]:
        return [self._types.vm_area_struct(found) for found in self._machine.mt_values(mm.mm_mt)]

    def _mapping(self, vma: Any) -> Mapping:
        start, end = vma.vm_start, vma.vm_end
        return Mapping(vma, start, end, vma.vm_flags, vma.vm_file, list(self._entries(vma.vm_mm, start, end)))

    def _entries(self, mm: Any, start: int, end: int) -> Iterator[Page]:
        load, load_range, pgtable = self._machine.load, self._machine.load_range, self._pgtable
        size, shift = self._arch.page_size, self._arch.page_shift
        addr = start
        while addr < end:
            pmd, next_ = self._pagewalk.find_pmd(mm, addr, end)
            value = load(pmd) if pmd else 0
            if pgtable.pmd_is_table(value):
                table = pgtable.pmd_pgtable(value).entry + pgtable.pte_index(addr)
                entries = load_range(table, next_ - addr >> shift)
                if any(entries):
                    for i, entry in enumerate(entries):
                        if entry:
                            yield self._page(addr + i * size, entry)
            elif value:
                yield self._huge(addr, next_ - addr >> shift, value)
            addr = next_

    def _page(self, addr: int, entry: int) -> Page:
        p = self._pgtable
        if entry & (p.PRESENT | p.PROTNONE):
            kind = IS_PRESENT | (UFFD if entry & p.UFFD_WP else 0)
            if entry & p.SPECIAL:
                return Page(addr, 1, kind, 0, None)
            page = entry >> p.PFN_SHIFT
            folio = self._types.folio(self._machine.load(page))
            return Page(addr, 1, kind if folio.mapping & 1 else kind | FILE, page, folio)
        marker = p.pte_marker(entry)
        kind = SWAPPED | (UFFD if marker & p.PTE_MARKER_UFFD_WP else 0) | (GUARD if marker & p.PTE_MARKER_GUARD else 0)
        return Page(addr, 1, kind, 0, None)

    def _huge(self, addr: int, nr: int, value: int) -> Page:
        page = value >> self._pgtable.PFN_SHIFT
        folio = self._types.folio(self._machine.load(page))
        return Page(addr, nr, IS_PRESENT if folio.mapping & 1 else IS_PRESENT | FILE, page, folio)

    def _large_mapcounts(self, walked: dict[int, list[Mapping]]) -> Counter[int]:
        """How many PTEs map each page of a large folio, by struct page."""
        return Counter(
            p.page for ms in walked.values() for m in ms for p in m.pages if p.page and p.nr == 1 and p.folio.order
        )

    def _mapcount(self, p: Page, counts: Counter[int]) -> int:
        load, folio = self._machine.load, p.folio
        if folio.order == 0:
            return int(load(folio._mapcount))
        return counts[p.page] + int(load(folio._entire_mapcount))

    # --- what the readers say ----------------------------------------------------------------------------

    def _counters(self, process: int, mm: Any) -> str:
        load, kb = self._machine.load, self._kb
        text = f"p{process} pte={self._pgtables_bytes(mm) >> 10}"
        if self.exact_rss:
            text += f" anon={load(mm.anon_rss) * kb} file={load(mm.file_rss) * kb} shmem={load(mm.shmem_rss) * kb}"
            text += f" swap={load(mm.swapents) * kb}"
        return f"{text} lck={mm.locked_vm * kb}"

    def _smaps(self, m: Mapping, counts: Counter[int]) -> str:
        rss = pss = anon = anon_huge = shmem_huge = file_huge = swap = 0
        page_pss = self._arch.page_size << PSS_SHIFT
        zero = self._types.system(64).huge_zero_folio
        for p in m.pages:
            if not p.page or p.folio == zero:
                continue
            rss += p.nr
            is_anon = p.kind & FILE == 0
            anon += p.nr if is_anon else 0
            if p.nr > 1:
                anon_huge += p.nr if is_anon else 0
                shmem_huge += p.nr if not is_anon and m.file.f_mapping.shmem else 0
                file_huge += p.nr if not is_anon and not m.file.f_mapping.shmem else 0
            pss += self._pss(p, counts, page_pss)
        pss >>= PSS_SHIFT + 10
        kb = self._kb
        fields = (rss * kb, pss, anon * kb, anon_huge * kb, shmem_huge * kb, file_huge * kb, swap * kb)
        locked = pss if m.flags & FLAGS["lo"] else 0
        offset = m.vma.vm_pgoff * self._arch.page_size if m.file else 0
        name = self.names.get(m.file.f_mapping.addr, "s") if m.file else "-"
        return (
            f"v{m.start:x}-{m.end:x} {self._prot(m.flags)} {offset:x} {name} {','.join(map(str, fields))},{locked} "
            + "".join(letters for letters, bit in FLAGS.items() if m.flags & bit)
        )

    def _pss(self, p: Page, counts: Counter[int], page_pss: int) -> int:
        if p.nr == 1:
            return page_pss // max(self._mapcount(p, counts), 1)
        entire = self._machine.load(p.folio._entire_mapcount)
        step = self._page_cells
        return sum(page_pss // max(entire + counts[p.page + i * step], 1) for i in range(p.nr))

    def _prot(self, flags: int) -> str:
        prot = "".join(c if flags & bit else "-" for c, bit in (("r", 1), ("w", 2), ("x", 4)))
        return prot + ("s" if flags & FLAGS["ms"] else "p")

    def _pagemap(self, mappings: list[Mapping], counts: Counter[int]) -> Iterator[tuple[int, int, str]]:
        for m in mappings:
            for p in m.pages:
                exclusive = p.page and self._mapcount(p, counts) == 1
                yield p.start, p.nr, " " + LETTERS[p.kind | EXCLUSIVE if exclusive else p.kind]

    def _mincore(self, mappings: list[Mapping]) -> Iterator[tuple[int, int, str]]:
        size = self._arch.page_size
        for m in mappings:
            if not m.file:
                yield from ((p.start, p.nr, "") for p in m.pages if p.kind & IS_PRESENT)
                continue
            present = {p.start + i * size for p in m.pages if p.kind & IS_PRESENT for i in range(p.nr)}
            present |= set(self._cached(m))
            yield from ((addr, 1, "") for addr in sorted(present))

    def _cached(self, m: Mapping) -> Iterator[int]:
        """Addresses whose page of the file is cached, which of a regular file is all that there is."""
        mapping, size = m.file.f_mapping, self._arch.page_size
        first = m.vma.vm_pgoff
        last = first + (m.end - m.start) // size - 1
        if mapping.shmem:
            indices = [index for index, _ in self._machine.xa_range(mapping.i_pages, first, last)]
        else:
            indices = list(range(first, min(last + 1, self._filemap.i_size_pages(mapping))))
        return (m.start + (index - first) * size for index in indices)

    def _runs(self, what: str, pages: Iterator[tuple[int, int, str]], size: int) -> Iterator[str]:
        """Neighbours of the same kind as one line."""
        start = end = -1
        kind = ""
        for addr, nr, this in pages:
            if addr != end or this != kind:
                if end >= 0:
                    yield f"{what}{start:x} {(end - start) // size}{kind}"
                start, kind = addr, this
            end = addr + nr * size
        if end >= 0:
            yield f"{what}{start:x} {(end - start) // size}{kind}"


def digest(text: str) -> int:
    """CRC-32 above Adler-32 of an observation, as the agent has it."""
    data = text.encode()
    return zlib.crc32(data) << 32 | zlib.adler32(data)

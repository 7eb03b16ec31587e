# SPDX-License-Identifier: GPL-2.0-only
"""From what was seen to an account of every page-table page that VmPTE counts.

Each table is in exactly one class:

- populated: it leads to something: a page, a swapped page, a marker, the zero page,
- empty: it leads to nothing, though a PMD or PUD table may have empty tables below it,
- deposited: the spare PTE table behind a huge page of anonymous memory (pgtable_trans_huge_deposit()),
- unknown: under a mapping that pagemap does not show (VM_PFNMAP), so that it may be populated or empty.

VmPTE is mm->pgtables_bytes: PTE, PMD and PUD tables, not the PGD and not the P4D (include/linux/mm.h, 6.18).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tablewalk.arch import Arch
from tablewalk.inspect.pagemap import PAGE_IS_FILE, PAGE_IS_HUGE, Contents, Ranges
from tablewalk.inspect.procfs import Vma

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class VmaTables:
    """The PTE tables that one mapping reaches into: with its own pages, or with nothing in them at all.

    Neighbours can reach into the same table, which then counts for each of them; `shared` says how many of
    this mapping's tables that concerns.
    """

    vma: Vma
    populated: int
    empty: int
    deposited: int
    shared: int
    reclaimable: int

    @property
    def any(self) -> bool:
        return bool(self.populated or self.empty or self.deposited)


@dataclass(frozen=True, slots=True)
class Account:
    """Numbers of tables.  `vmpte` is the sum of populated, empty, deposited and unknown, and all levels' sum.

    `pte_empty` is None where the kernel shows no empty PTE table: `empty` is then known by difference for
    the three levels together.  `pmd_empty` and `pud_empty` count those with empty tables below them and, by
    difference, those without; None where the difference can be split in more than one way.  `reclaimable`
    is the number of PTE tables that MADV_DONTNEED on exactly the empty ones would free (each has all its
    addresses in one mapping, which allows it), None where they are not shown.  `missing` is how many more
    tables were seen than VmPTE counted, and `torn` that some were seen outside of the mappings: the process
    changed between the looks.
    """

    vmpte: int
    pte_populated: int
    pmd_populated: int
    pud_populated: int
    pte_empty: int | None
    pmd_empty: int | None
    pud_empty: int | None
    empty: int
    deposited: int
    unknown: int
    reclaimable: int | None
    missing: int
    torn: bool
    vmas: list[VmaTables]

    @property
    def populated(self) -> int:
        return self.pte_populated + self.pmd_populated + self.pud_populated

    @property
    def reclaimable_max(self) -> int:
        return self.empty if self.reclaimable is None else self.reclaimable


@dataclass(frozen=True, slots=True)
class Reached:
    """Which mapping (by index) reaches into which table (address >> shift): pairs, each once, in order."""

    vma: Numbers
    table: Numbers
    covers_all: bool  # no range lies outside of the mappings

    def where(self, keep: NDArray[np.bool_]) -> Reached:
        return Reached(self.vma[keep], self.table[keep], self.covers_all)


def reach(bounds: Numbers, ranges: Ranges, shift: int) -> Reached:
    """Pair the mappings of `bounds` (rows of start, end) with the tables that `ranges` has inside of each."""
    starts, ends = ranges[:, 0], ranges[:, 1]
    first = np.searchsorted(ends, bounds[:, 0], side="right")
    last = np.searchsorted(starts, bounds[:, 1], side="left") - 1
    vma, piece = _count_up(first, last)
    lo = np.maximum(starts[piece], bounds[vma, 0])
    hi = np.minimum(ends[piece], bounds[vma, 1])
    covers_all = int((hi - lo).sum()) == int((ends - starts).sum())
    owner, table = _count_up(lo >> shift, (hi - 1) >> shift)
    vma = vma[owner]
    new = np.ones(len(vma), dtype=bool)
    new[1:] = (vma[1:] != vma[:-1]) | (table[1:] != table[:-1])
    return Reached(vma[new], table[new], covers_all)


def _count_up(first: Numbers, last: Numbers) -> tuple[Numbers, Numbers]:
    """(i, n) for every n in first[i] to last[i], as two arrays."""
    counts = np.maximum(last - first + 1, 0)
    owner = np.repeat(np.arange(len(counts)), counts)
    numbers = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    return owner, numbers


def account(vmpte_kb: int, vmas: list[Vma], contents: Contents, arch: Arch) -> Account:
    """Account for `vmpte_kb` with the mappings and what their page tables were seen to hold."""
    bounds = np.array([(v.start, v.end) for v in vmas], dtype=np.int64)
    hidden = np.array([v.hidden for v in vmas])
    pte = _pte_tables(bounds, vmas, contents, arch)
    under_hidden = reach(bounds[hidden], _as_ranges(bounds), arch.pmd_shift).table
    held = _levels(pte.populated, arch, pte.mapped, pte.gigantic)
    seen = _levels(pte.existing, arch, pte.mapped, pte.gigantic)
    unheld = _without(pte.existing, pte.populated)
    doubtful = _minus(_levels(np.intersect1d(unheld, under_hidden), arch), held)
    empty = _minus(_minus(seen, held), doubtful)

    # What is left was not seen: tables under hidden mappings, or upper ones with nothing below them.
    vmpte = (vmpte_kb << 10) // arch.page_size
    rest = vmpte - _count(seen) - len(pte.anon_huge.table)
    could_hide = _count(_minus(_levels(under_hidden, arch), seen))
    unseen = max(min(rest, could_hide) if contents.complete else rest, 0)
    empty_above = max(rest, 0) - unseen

    holding_none = pte.seen.where(np.isin(pte.seen.table, empty[0]))
    whole = holding_none.where(_whole(bounds, holding_none, arch))
    whole = whole.where(np.array([v.discardable for v in vmas])[whole.vma])
    shown = contents.tables is not None
    above = _split(empty_above, bounds[~hidden], seen, arch) if shown else None
    return Account(
        vmpte=vmpte,
        pte_populated=len(held[0]),
        pmd_populated=len(held[1]),
        pud_populated=len(held[2]),
        pte_empty=len(empty[0]) if shown else None,
        pmd_empty=len(empty[1]) + above[0] if above else None,
        pud_empty=len(empty[2]) + above[1] if above else None,
        empty=_count(empty) + empty_above,
        deposited=len(pte.anon_huge.table),
        unknown=_count(doubtful) + unseen,
        reclaimable=len(whole.table) if shown else None,
        missing=max(-rest, 0),
        torn=pte.torn,
        vmas=_by_vma(vmas, pte, holding_none, whole),
    )


@dataclass(frozen=True, slots=True)
class _Ptes:
    """The PTE tables and what stands in their place.  Numbers are address >> pmd_shift."""

    held: Reached  # tables by entries that hold something
    seen: Reached  # tables by any entry, as far as the kernel shows them
    anon_huge: Reached  # huge pages with a deposited table
    populated: Numbers
    existing: Numbers
    mapped: Numbers  # by a PMD instead of a table
    gigantic: Numbers  # by a PUD
    torn: bool  # something was seen outside of the mappings


def _pte_tables(bounds: Numbers, vmas: list[Vma], contents: Contents, arch: Arch) -> _Ptes:
    hugetlb = np.array([v.hugetlb for v in vmas])
    gigantic = np.array([v.hugetlb and v.page_kb << 10 >= arch.pud_size for v in vmas])
    private = np.array(["p" in v.perms for v in vmas])
    bits = contents.entries[:, 2]
    is_huge, is_file = bits & PAGE_IS_HUGE != 0, bits & PAGE_IS_FILE != 0
    held = reach(bounds, contents.entries, arch.pmd_shift)
    small = reach(bounds, contents.entries[~is_huge], arch.pmd_shift)
    huge = reach(bounds, contents.entries[is_huge], arch.pmd_shift)
    anon = reach(bounds, contents.entries[is_huge & ~is_file], arch.pmd_shift)
    seen = small if contents.tables is None else reach(bounds, contents.tables, arch.pmd_shift)
    torn = not (held.covers_all and seen.covers_all)

    small = small.where(~hugetlb[small.vma])
    huge = huge.where(~hugetlb[huge.vma])
    seen = seen.where(~hugetlb[seen.vma] & ~np.isin(seen.table, huge.table))
    populated = np.unique(small.table)
    return _Ptes(
        held=small,
        seen=seen,
        # a huge page in a shared mapping that is not a file's is the zero page of DAX, which deposits nothing
        anon_huge=anon.where((~hugetlb & private)[anon.vma]),
        populated=populated,
        existing=np.union1d(seen.table, populated),
        mapped=np.union1d(huge.table, held.table[(hugetlb & ~gigantic)[held.vma]]),
        gigantic=held.table[gigantic[held.vma]],
        torn=torn,
    )


Levels = tuple[Numbers, Numbers, Numbers]  # PTE, PMD and PUD tables, each by its address >> its own shift
_NONE: Numbers = np.empty(0, dtype=np.int64)


def _levels(tables: Numbers, arch: Arch, mapped: Numbers = _NONE, gigantic: Numbers = _NONE) -> Levels:
    """PTE tables with every table above them; and above what is mapped without one."""
    pmds = np.unique(np.concatenate([tables, mapped]) >> (arch.pud_shift - arch.pmd_shift))
    puds = np.union1d(
        pmds >> (arch.p4d_shift - arch.pud_shift), gigantic >> (arch.p4d_shift - arch.pmd_shift)
    )
    return np.unique(tables), pmds, puds


def _minus(a: Levels, b: Levels) -> Levels:
    return _without(a[0], b[0]), _without(a[1], b[1]), _without(a[2], b[2])


def _without(a: Numbers, b: Numbers) -> Numbers:
    return np.setdiff1d(a, b, assume_unique=True)


def _count(levels: Levels) -> int:
    return sum(map(len, levels))


def _as_ranges(bounds: Numbers) -> Ranges:
    return np.insert(bounds, 2, 0, axis=1)


def _whole(bounds: Numbers, reached: Reached, arch: Arch) -> NDArray[np.bool_]:
    """Does the mapping have all of the table's addresses?"""
    start = reached.table << arch.pmd_shift
    inside: NDArray[np.bool_] = (bounds[reached.vma, 0] <= start) & (
        start + arch.pmd_size <= bounds[reached.vma, 1]
    )
    return inside


def _by_vma(vmas: list[Vma], pte: _Ptes, empty: Reached, whole: Reached) -> list[VmaTables]:
    tables, times = np.unique(pte.seen.table, return_counts=True)
    shared = pte.seen.where(np.isin(pte.seen.table, tables[times > 1]))
    kinds = (pte.held, empty, pte.anon_huge, shared, whole)
    columns = [np.bincount(kind.vma, minlength=len(vmas)).tolist() for kind in kinds]
    return [VmaTables(*row) for row in zip(vmas, *columns, strict=True)]


def _split(rest: int, bounds: Numbers, seen: Levels, arch: Arch) -> tuple[int, int] | None:
    """Split `rest` upper tables that were not seen into PMD and PUD tables; None if there are several ways.

    A table can only stand where a mapping does (free_pgtables()), and a PMD table only under a PUD table.
    """
    if not rest:
        return 0, 0
    _, pmds, puds = seen
    pmd_room = _without(np.unique(reach(bounds, _as_ranges(bounds), arch.pud_shift).table), pmds)
    pud_of_room = pmd_room >> (arch.p4d_shift - arch.pud_shift)
    under_seen = np.isin(pud_of_room, puds)
    _, under_new = np.unique(pud_of_room[~under_seen], return_counts=True)
    room = [int(under_seen.sum()), *np.sort(under_new)[::-1].tolist()]
    ways = [(rest - u, u) for u in range(len(room)) if 0 <= rest - u <= sum(room[: u + 1])]
    return ways[0] if len(ways) == 1 else None

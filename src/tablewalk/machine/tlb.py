# SPDX-License-Identifier: GPL-2.0-only
"""What CPUs remember of page tables: translations, and where the tables are (Intel SDM vol. 3A, 5.10; arm ARM, D8.16).

A CPU may fill either cache at any time from the tables of the address space it has loaded, and keeps what it has until
it is told to drop it.  An invalidation without freed tables leaves the paging-structure cache alone: some CPUs drop it
too, but nobody may count on it.  A CPU on which a kernel thread runs is lazy: it keeps the address space and uses
no translation of user space, but may still walk the tables, so a flush has to interrupt it only when tables are freed.
A lazy or absent CPU that a flush passed over is behind, and drops everything of that address space before it uses it
again (arch/x86/mm/tlb.c, tlb_gen; 7.2).

The state is `Tlbs`, plain dicts that belong to the driver; an address space is named by its mm's address.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

LOCAL: Final = 0  # `others` of tlb_invalidate: this CPU only
IPI: Final = 1  # every CPU that has the mm loaded, by interrupt
BROADCAST: Final = 2  # every CPU, by the hardware

Place: TypeAlias = tuple[int, int, int]  # (mm, log2 of bytes covered, address >> that)


@dataclass(slots=True)
class Cpu:
    """One CPU's caches."""

    mm: int = 0  # the address space loaded, 0 for none
    lazy: bool = False
    behind: set[int] = field(default_factory=set)  # mms that a flush passed over here
    # -> (page, writable, log2 of the bytes that its entry maps)
    pages: dict[Place, tuple[int, bool, int]] = field(default_factory=dict)
    tables: dict[Place, int] = field(default_factory=dict)  # -> the table that covers it


Tlbs: TypeAlias = dict[int, Cpu]


def switch_mm(tlbs: Tlbs, cpu: int, mm: int) -> None:
    """CPU `cpu` runs in address space `mm` from here on; what it remembers of others it keeps."""
    state = tlbs.setdefault(cpu, Cpu())
    state.mm = mm
    state.lazy = False
    if mm in state.behind:
        state.behind.discard(mm)
        _drop(state, mm, 0, 0, everything=True)


def enter_lazy(tlbs: Tlbs, cpu: int) -> None:
    """A kernel thread runs on `cpu`; the address space stays loaded."""
    tlbs.setdefault(cpu, Cpu()).lazy = True


def fill(
    tlbs: Tlbs,
    cpu: int,
    mm: int,
    va: int,
    walk: tuple[tuple[int, int], ...],
    page: int = 0,
    shift: int = 12,
    writable: bool = False,
    size: int = 0,
) -> None:
    """A walk for `va` went through the tables `walk`, each (log2 of the bytes it covers, address), and is remembered.

    If it ended at a present entry, `page` is what that maps in 2^`shift` bytes, of 2^`size` in all.  Raises ValueError
    for a CPU that cannot do so: it has another address space loaded, or is lazy and would remember a translation.
    """
    state = tlbs.setdefault(cpu, Cpu())
    if state.mm != mm or (state.lazy and page):
        raise ValueError(f"CPU {cpu} does not use address space {mm}")
    for covers, table in walk:
        state.tables[mm, covers, va >> covers] = table
    if page:
        state.pages[mm, shift, va >> shift] = (page, writable, size or shift)


def translate(tlbs: Tlbs, cpu: int, mm: int, va: int, write: bool = False) -> int:
    """The page that an access to `va` reaches without a walk, or 0 (nothing remembered, or only for reading)."""
    state = tlbs.get(cpu)
    if state is None or state.mm != mm or state.lazy:
        return 0
    for (owner, shift, index), (page, writable, _) in state.pages.items():
        if owner == mm and va >> shift == index and (writable or not write):
            return page
    return 0


def of_other_size(tlbs: Tlbs, cpu: int, mm: int, va: int, size: int) -> list[str]:
    """What `cpu` remembers of the 2^`size` bytes around `va`, or around what covers them, by entries of another size.

    It must be empty when such an entry is remembered: no flush may have left the other.
    """
    found = []
    for (owner, shift, index), (_, _, other) in tlbs[cpu].pages.items():
        around = max(size, other)
        if owner == mm and other != size and index << shift >> around == va >> around:
            found.append(f"{index << shift:#x} by 2^{other}")
    return found


def walk_from(tlbs: Tlbs, cpu: int, mm: int, va: int) -> tuple[int, int]:
    """(log2 of the bytes it covers, address) of the remembered table that a walk for `va` begins at, or (0, 0)."""
    state = tlbs.get(cpu)
    if state is None or state.mm != mm:
        return 0, 0
    found = [(shift, t) for (owner, shift, index), t in state.tables.items() if owner == mm and va >> shift == index]
    return min(found, default=(0, 0))


def invalidate(tlbs: Tlbs, cpu: int, mm: int, start: int, end: int, freed_tables: bool, others: int) -> None:
    """Drop translations of [start, end) on `cpu`, and on others as LOCAL, IPI or BROADCAST says.

    With `freed_tables` also every remembered table that covers a part of the range.
    """
    for number, state in tlbs.items():
        if others != BROADCAST and number != cpu:
            if others == LOCAL:
                continue
            if state.mm != mm or (state.lazy and not freed_tables):
                state.behind.add(mm)
                continue
        _drop(state, mm, start, end, tables=freed_tables)


def _drop(state: Cpu, mm: int, start: int, end: int, *, tables: bool = False, everything: bool = False) -> None:
    def goes(place: Place) -> bool:
        owner, shift, index = place
        return owner == mm and (everything or (index << shift < end and index + 1 << shift > start))

    state.pages = {place: leaf for place, leaf in state.pages.items() if not goes(place)}
    if tables or everything:
        state.tables = {place: table for place, table in state.tables.items() if not goes(place)}


def holders(tlbs: Tlbs, first: int, last: int) -> list[str]:
    """Who can still reach a page or table at address first..last (inclusive) by what a CPU remembers, one line each.

    It must be empty when that memory is freed.
    """
    found: list[str] = []
    for cpu, state in sorted(tlbs.items()):
        for (mm, shift, index), (page, writable, _) in state.pages.items():
            if first <= page <= last and mm not in state.behind:
                access = "writes" if writable else "reads"
                found.append(f"CPU {cpu} {access} page {page} at {index << shift:#x} of mm {mm}")
        for (mm, shift, index), table in state.tables.items():
            walks = mm == state.mm or mm not in state.behind
            if first <= table <= last and walks:
                found.append(f"CPU {cpu} walks table {table} for {index << shift:#x} of mm {mm}")
    return found


def drop_mm(tlbs: Tlbs, mm: int) -> list[str]:
    """The mm is freed and its number may be used again; returns which CPUs still have it loaded, one line each."""
    found = [f"CPU {cpu} has mm {mm} loaded" for cpu, state in sorted(tlbs.items()) if state.mm == mm]
    for state in tlbs.values():
        _drop(state, mm, 0, 0, everything=True)
        state.behind.discard(mm)
    return found

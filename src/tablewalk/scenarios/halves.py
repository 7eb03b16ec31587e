# SPDX-License-Identifier: GPL-2.0-only
"""Where a pmd is read in two halves, as x86 with PAE does: a read must not see a half of two tables.

All tables' addresses are taken to differ in the upper half only, which is the worst case.  PT_RECLAIM is off: 7.x has
none to care for such reads (docs/patches.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tablewalk.explore.scenario import MADV_COLLAPSE, Process, Setup, override, scenario

from ..arch import arch
from ..kernel import tlb
from ..kernel.mm_types import mm_struct
from ..kernel.pgtable import FLAGS_MASK, LEAF, PFN_SHIFT, PRESENT, TABLE_ENTRY
from ..machine import forget, load, rcu_read_lock, rcu_read_unlock, tlb_invalidate

BROADCAST: Final = 2  # of tlb_invalidate: other CPUs' translations go, interrupts off are not waited for


@override("pgtable_generic:flush_tlb_range")
def flush_where_it_runs(mm: mm_struct, start: int, end: int, freed_tables: bool = True) -> None:
    """A flush reaches CPUs that run the process; who walks its tables on another is not interrupted by it."""
    tlb_invalidate(mm.addr, start, end, freed_tables, BROADCAST)


@override("pgtable_generic.__pte_offset_map")
def map_in_halves(pmd: int, addr: int) -> tuple[int, int]:
    """With interrupts off: the lower half, the upper half, and the lower again until that has not changed."""
    rcu_read_lock()
    flags = tlb.pmdp_get_lockless_start()
    pmdval = load(pmd) if not arch.split_pmd_reads else read_in_halves(pmd)
    tlb.pmdp_get_lockless_end(flags)
    if pmdval & (PRESENT | LEAF) != PRESENT:
        rcu_read_unlock()
        return 0, pmdval
    return (pmdval >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.page_shift & arch.ptrs_per_pte - 1), pmdval


def read_in_halves(pmd: int) -> int:
    """pmdp_get_lockless() of GUP_GET_PXX_LOW_HIGH."""
    while True:
        low = load(pmd) & FLAGS_MASK
        pmdval = load(pmd) & ~FLAGS_MASK | low
        if load(pmd) & FLAGS_MASK == low:
            return pmdval
        forget(())


def looking(s: Setup, p: Process) -> Callable[[], None]:
    """What a thread does that maps the table of `s.A` and reads an entry."""
    generic, load_entry = s.model.kernel("pgtable_generic"), s.model.machine.load
    pmd = s.model.kernel("pgtable").mm_find_pmd(p.mm, s.A)

    def look() -> None:
        pte = generic.pte_offset_map(pmd, s.A)
        if pte:
            load_entry(pte)
            generic.pte_unmap(pte)

    return look


def _retract_and_map(s: Setup) -> None:
    p, q = s.sharing(2)
    q.read(s.A)
    s.model.kernel("sys").prctl_set_thp_disable(q.mm, True, 0)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("fault", lambda: q.read(s.A))
    s.thread("look", looking(s, q))
    s.finally_(lambda results: None if results["fault"] == 1 else f"the read saw {results['fault']}")
    s.sometimes("retracted")


@scenario(arch="x86-pae/1", options={"pt_reclaim": "n"})
def shmem_collapse_map_in_halves(s: Setup) -> None:
    """MADV_COLLAPSE retracts a table, a fault brings another into its place, and a reader maps one of them."""
    _retract_and_map(s)


@scenario(options={"pt_reclaim": "n"})
def shmem_collapse_map_at_once(s: Setup) -> None:
    """The same where a pmd is read at once."""
    _retract_and_map(s)

# SPDX-License-Identifier: GPL-2.0-only
"""mm: free retracted page table by RCU (6.6): readers, freeing, and what only other architectures or options have.

What khugepaged did before (C09 to C11) is in `khugepaged.py`: releases lack that.  These are mutants: before 6.6
nobody freed a table under those who had it mapped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from ..arch import arch
from ..kernel.mm_init import mmdrop
from ..kernel.mm_types import mm_struct, ptdesc, spinlock_t
from ..kernel.pgtable import LEAF, PFN_SHIFT, PRESENT, TABLE_ENTRY, pmd_p, pmdp_get_lockless, pte_p
from ..kernel.pgtable_frag import (
    LISTED,
    PENDING,
    page_table_free,
    pte_fragment_free,
    queue_rcu_head,
    table_page,
    table_page_free,
)
from ..kernel.pgtable_generic import pte_free, pte_lockptr
from ..machine import add, add_return, forget, load, spin_lock, spin_unlock, store
from . import Claim, patch, without_code

F = TypeVar("F", bound=Callable[..., object])

SERIES: Final = "mm: free retracted page table by RCU"


def c01(site: str) -> Callable[[F], F]:
    """A site of C01."""
    return patch(
        "C01",
        commit="a349d72fd9ef",
        title="mm/pgtable: add rcu_read_lock() and rcu_read_unlock()s",
        series=SERIES,
        since="6.6",
        site=site,
        files=("mm/pgtable-generic.c", "include/linux/pgtable.h"),
        mutant=True,
        claim=Claim("race", "shmem-collapse-fault", "I1"),
    )


@c01("pgtable_generic.__pte_offset_map")
def map_outside_rcu(pmd: pmd_p, addr: int) -> tuple[pte_p, int]:
    """Nothing keeps the table from being freed."""
    pmdval = pmdp_get_lockless(pmd)
    if pmdval & (PRESENT | LEAF) != PRESENT:
        return 0, pmdval
    return (pmdval >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.page_shift & arch.ptrs_per_pte - 1), pmdval


@c01("pgtable_generic.pte_offset_map_lock")
def lock_outside_rcu(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, spinlock_t]:
    """The lock that is waited for may be freed meanwhile."""
    while True:
        pte, pmdval = map_outside_rcu(pmd, addr)
        if not pte:
            return 0, 0
        ptl = pte_lockptr(mm, pmdval)
        spin_lock(ptl)
        if pmdval == pmdp_get_lockless(pmd):
            return pte, ptl
        spin_unlock(ptl)
        forget(())


@c01("pgtable_generic.pte_unmap")
def unmap_outside_rcu(pte: pte_p) -> None:
    """There is nothing to end."""


@c01("pgtable_generic.pte_unmap_unlock")
def unlock_outside_rcu(pte: pte_p, ptl: spinlock_t) -> None:
    """Only the lock."""
    spin_unlock(ptl)


@patch(
    "C06",
    commit="ad1ac8d94cde",
    title="sparc: add pte_free_defer() for pte_t *pgtable_t",
    series=SERIES,
    since="6.6",
    site="pgtable_generic.pte_free_defer",
    files=("arch/sparc/mm/init_64.c",),
    mutant=True,
    claim=Claim("race", "shmem-collapse-fault", "I1", note="a table has a page there: as C08"),
)
@patch(
    "C08",
    commit="13cf577e6b66",
    title="mm/pgtable: add pte_free_defer() for pgtable as page",
    series=SERIES,
    since="6.6",
    site="pgtable_generic.pte_free_defer",
    files=("mm/pgtable-generic.c",),
    mutant=True,
    claim=Claim("race", "shmem-collapse-fault", "I1"),
)
def free_at_once(mm: mm_struct, pgtable: ptdesc) -> None:
    """A table that was taken is freed while others have it mapped."""
    pte_free(mm, pgtable)


# --- pmds that are read in halves ------------------------------------------------------------------------

HALVES: Final = "shmem-collapse-map-in-halves"


def c02(site: str) -> Callable[[F], F]:
    """A site of C02."""
    return patch(
        "C02",
        commit="146b42e07494",
        title="mm/pgtable: add PAE safety to __pte_offset_map()",
        series=SERIES,
        since="6.6",
        site=f"tlb.{site}",
        files=("include/linux/pgtable.h", "mm/pgtable-generic.c"),
        mutant=True,
        claim=Claim("race", HALVES, "I1"),
    )


@c02("pmdp_get_lockless_start")
def interrupts_stay_on() -> int:
    """Nobody who changes a pmd waits for those who read."""
    return 0


@c02("pmdp_get_lockless_end")
def interrupts_stayed_on(flags: int) -> None:
    """There is nothing to end."""


@patch(
    "K16f",
    title="review of free by RCU: who takes a table interrupts those who read its pmd in halves (PAE)",
    series=SERIES,
    since="6.6",
    site="retract:pmdp_get_lockless_sync",
    files=("mm/khugepaged.c",),
    mutant=True,
    claim=Claim("race", HALVES, "I1"),
)
def nobody_is_interrupted() -> None:
    """Another table may come before a read of the slot is over."""


# --- tables that share a page ----------------------------------------------------------------------------


def fragments(id: str, commit: str, title: str, site: str, claim: Claim, file: str) -> Callable[[F], F]:
    """A patch of an architecture whose tables share pages, or of what it was before review (K16)."""
    return patch(
        id,
        commit=commit,
        title=title,
        series=SERIES,
        since="6.6",
        site=f"pgtable_frag.{site}",
        files=(file,),
        mutant=True,
        claim=claim,
    )


DEFERRED: Final = 1 << 16  # of pt_frag_refcount: a table that waits for a grace period, and is not in use any more
POWERPC: Final = "arch/powerpc/mm/pgtable-frag.c"
S390: Final = "arch/s390/mm/pgalloc.c"


@fragments(
    "C05",
    "32cc0b7c9d50",
    "powerpc: add pte_free_defer() for pgtables sharing page",
    "pte_fragment_free_defer",
    Claim("race", "powerpc-fragments", "I1"),
    POWERPC,
)
def free_fragment_at_once(page: table_page) -> None:
    """There is only the way that waits for nobody."""
    pte_fragment_free(page)


@fragments(
    "C07",
    "8211dad62798",
    "s390: add pte_free_defer() for pgtables sharing page",
    "page_table_free_defer",
    Claim("race", "s390-halves", "I1"),
    S390,
)
def free_half_at_once(mm: mm_struct, page: table_page) -> None:
    """The same."""
    page_table_free(mm, page)


@fragments(
    "K16a",
    "",
    "review of free by RCU: the tables of a page have one rcu_head (powerpc)",
    "pte_fragment_free_defer",
    Claim("race", "powerpc-fragments", "BUG"),
    POWERPC,
)
def a_callback_for_each_fragment(page: table_page) -> None:
    """The page's rcu_head is queued for each of its tables."""
    queue_rcu_head(page, fragment_free_rcu)


def fragment_free_rcu(address: int) -> None:
    """RCU callback: the head may be queued again."""
    store(table_page(address).rcu_head, 0)
    pte_fragment_free(table_page(address))


@fragments(
    "C05-v2",
    "",
    "powerpc: add pte_free_defer() for pgtables sharing page, second version: rcu_head is used once a grace period",
    "pte_fragment_free_defer",
    Claim("cleanup", "powerpc-fragments", note="right, and more than is needed: no fragment is used again"),
    POWERPC,
)
def a_callback_for_the_first(page: table_page) -> None:
    """Deferrals are counted beside the tables in use; the first of them queues rcu_head."""
    if add_return(page.pt_frag_refcount, DEFERRED - 1) < 2 * DEFERRED:
        queue_rcu_head(page, deferrals_are_over)


def deferrals_are_over(address: int) -> None:
    """RCU callback: one deferral is over; those that came meanwhile wait for a grace period more, all together."""
    page = table_page(address)
    store(page.rcu_head, 0)
    left = add_return(page.pt_frag_refcount, -DEFERRED)
    if left >= DEFERRED:
        add(page.pt_frag_refcount, (1 - left // DEFERRED) * DEFERRED)
        queue_rcu_head(page, deferrals_are_over)
    elif left == 0:
        table_page_free(address)


@fragments(
    "K16b",
    "",
    "review of free by RCU: the list of half-free pages lies over rcu_head (s390)",
    "page_table_free_defer",
    Claim("race", "s390-halves", "BUG"),
    S390,
)
def a_callback_while_listed(mm: mm_struct, page: table_page) -> None:
    """The page is queued though its other half was freed before, and it is listed."""
    store(page.active, 1)
    queue_rcu_head(page, half_free_rcu)


def half_free_rcu(address: int) -> None:
    """RCU callback: now the half is free, and the page if the other is too."""
    page = table_page(address)
    store(page.rcu_head, 0)
    if add_return(page.pt_frag_refcount, -1) == 0:
        table_page_free(address)


@fragments(
    "K16c",
    "",
    "review of free by RCU: an RCU callback has no reference to the process (s390)",
    "page_table_free_defer",
    Claim("race", "s390-halves-exit", "I1"),
    S390,
)
def a_callback_that_needs_the_mm(mm: mm_struct, page: table_page) -> None:
    """The half is freed by the callback, under a lock of the process."""
    spin_lock(mm.page_table_lock)
    store(page.rcu_head, 0)
    spin_unlock(mm.page_table_lock)
    queue_rcu_head(page, half_free_rcu_by_mm)


def half_free_rcu_by_mm(address: int) -> None:
    """RCU callback."""
    page = table_page(address)
    store(page.rcu_head, 0)
    page_table_free(page.pt_mm, page)


@fragments(
    "C07-v1",
    "",
    "s390: add pte_free_defer(), with use of mmdrop_async(): a callback with a reference to the process",
    "page_table_free_defer",
    Claim("count", measure="processes-kept-by-a-callback", before=1, after=0),
    S390,
)
def a_callback_that_keeps_the_mm(mm: mm_struct, page: table_page) -> None:
    """K16c without its fault: the process stays until the grace period is over, and goes where nothing may sleep."""
    add(mm.mm_count, 1)  # mmgrab
    spin_lock(mm.page_table_lock)
    store(page.rcu_head, 0)
    spin_unlock(mm.page_table_lock)
    queue_rcu_head(page, half_free_rcu_and_mmdrop)


def half_free_rcu_and_mmdrop(address: int) -> None:
    """RCU callback."""
    mm = table_page(address).pt_mm
    half_free_rcu_by_mm(address)
    mmdrop(mm)


def s390_v2(site: str) -> Callable[[F], F]:
    """A site of C07's second version."""
    return fragments(
        "C07-v2",
        "",
        "s390: add pte_free_defer() for pgtables sharing page, second version: no page of a half that waits is listed",
        site,
        Claim("cleanup", "s390-halves", note="right: rcu_head is used for nothing else, and no process is referred to"),
        S390,
    )


@s390_v2("half_free")
def half_free_of_unlisted(mm: mm_struct, page: table_page) -> None:
    """The page is listed unless the other half waits."""
    spin_lock(mm.page_table_lock)
    left = add_return(page.pt_frag_refcount, PENDING - 1)
    if left < DEFERRED:
        store(page.rcu_head, LISTED if left & PENDING - 1 else 0)
    spin_unlock(mm.page_table_lock)


@s390_v2("page_table_free_defer")
def unlist_and_defer(mm: mm_struct, page: table_page) -> None:
    """The page is taken off the list, and each half that waits is noted (HHead bits); as powerpc's second version."""
    spin_lock(mm.page_table_lock)
    if load(page.rcu_head) == LISTED:
        store(page.rcu_head, 0)
    first = add_return(page.pt_frag_refcount, DEFERRED - 1) < 2 * DEFERRED
    spin_unlock(mm.page_table_lock)
    if first:
        queue_rcu_head(page, deferrals_are_over)


# --- nothing to leave out --------------------------------------------------------------------------------


def nothing(kind: str, id: str, commit: str, title: str, note: str, *files: str) -> None:
    """A patch of this series that the model has no function for."""
    claim = Claim(kind, note=note)
    without_code(__name__, id, commit=commit, title=title, series=SERIES, since="6.6", files=files, claim=claim)


nothing("cleanup", "C12", "cf95e337cb63", "mm: delete mmap_write_trylock() and vma_try_start_write()",
        "what C09 replaced was their last caller", "include/linux/mmap_lock.h", "include/linux/mm.h")  # fmt: skip
nothing("cleanup", "C13", "610d06576737", "mm/pgtable: notes on pte_offset_map[_lock]()",
        "a comment", "mm/pgtable-generic.c")  # fmt: skip

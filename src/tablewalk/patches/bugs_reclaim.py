# SPDX-License-Identifier: GPL-2.0-only
"""Published bugs of PT_RECLAIM, of locks, flushes and mremap: each row undoes a fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..arch import arch
from ..kernel.guard import guard_install_range, is_valid_guard_vma
from ..kernel.guard import guard_prepare_vma as prepare
from ..kernel.huge_pmd import zap_huge_pmd_folio
from ..kernel.mm_types import folio, mm_struct, ptdesc, vm_area_struct
from ..kernel.mmap_lock import vma_start_write
from ..kernel.mmu_gather import (
    mmu_gather,
    pte_free_tlb,
    tlb_flush_mmu_free,
    tlb_flush_mmu_tlbonly,
)
from ..kernel.pgtable import DIRTY, pmd_clear, pmd_p, pmd_pgtable, pmdp_huge_get_and_clear, ptes_none
from ..kernel.pgtable_generic import (
    mm_dec_nr_ptes,
    pagetable_dtor,
    pmd_lock,
    pmdp_collapse_flush,
    pte_free_defer,
    pte_lockptr,
    pte_offset_map_rw_nolock,
    pte_unmap,
)
from ..kernel.retract import file_backed_vma_is_retractable
from ..kernel.rmap import vma_address
from ..kernel.scan_result import SCAN_FAIL, SCAN_SUCCEED, collapse_test_exit, find_pmd_or_thp_or_none
from ..kernel.tlb import flush_tlb_range
from ..kernel.vm_flags import EINVAL
from ..machine import load, spin_lock_nested, spin_unlock
from . import Claim, patch

F = TypeVar("F", bound=Callable[..., object])

# --- MADV_DONTNEED that takes tables away ----------------------------------------------------------------


@patch(
    "K19",
    commit="366a4532d96f",
    title="mm: fix the race between collapse and PT_RECLAIM under per-vma lock",
    since="6.17",
    site="collapse_huge_page.lock_and_check_pmd",
    files=("mm/khugepaged.c",),
    mutant=True,
    claim=Claim("race", "anon-collapse-dontneed", "I1"),
)
def check_pmd_and_lock(vma: vm_area_struct, address: int, pmd: pmd_p) -> int:
    """The slot is looked at before those who hold the VMA's lock are waited for."""
    result, now = find_pmd_or_thp_or_none(vma.vm_mm, address)
    vma_start_write(vma)
    if result == SCAN_SUCCEED and now != pmd:
        return SCAN_FAIL
    return result


@patch(
    "K22",
    commit="f39edcf6349a",
    title="mm: pgtable: fix incorrect reclaim of non-empty PTE pages",
    since="6.14",
    site="memory_zap.zapped_at_once",
    files=("mm/memory.c",),
    mutant=True,
    claim=Claim("race", "fault-and-dontneed-in-pieces", "I2"),
)
def direct_even_in_pieces(found: int) -> bool:
    """What was zapped under an earlier hold of ptl is taken to be empty still."""
    return True


def k23(site: str) -> Callable[[F], F]:
    """A site of K23."""
    return patch(
        "K23",
        title="mm: free the locks of page tables by RCU (and move pagetable_*_dtor() to __tlb_remove_table())",
        since="6.14",
        site=f"mmu_gather{site}",
        files=("mm/mmu_gather.c", "include/linux/mm.h"),
        mutant=True,
        claim=Claim("race", "fault-and-dontneed-allocated-lock", "I1"),
    )


@k23(".pte_free_tlb")
def destroy_and_queue(tlb: mmu_gather, pgtable: ptdesc, addr: int) -> None:
    """The destructor is called, and the lock freed, before the table waits for those who have it mapped."""
    pagetable_dtor(pgtable)
    pte_free_tlb(tlb, pgtable, addr)


@k23(":pte_free_now")
def free_page(pgtable: int) -> None:
    """What is left."""
    ptdesc(pgtable).free(arch.ptrs_per_pte)


@patch(
    "K24",
    title="mm: pgtable: the lock of a table that could not be mapped is not released (follow-up in 6.14-rc)",
    since="6.14",
    site="memory_zap.zap_pte_table_if_empty",
    files=("mm/pt_reclaim.c",),
    mutant=True,
    claim=Claim("race", "dontneed-twice-in-pieces", "I1"),
)
def unlock_what_was_not_locked(mm: mm_struct, pmd: pmd_p, addr: int) -> int:
    """The way out releases a lock of which only the address is not known."""
    pml = pmd_lock(mm, pmd, addr)
    pte, pmdval, ptl = pte_offset_map_rw_nolock(mm, pmd, addr)
    empty = False
    if pte:
        if ptl != pml:
            spin_lock_nested(ptl)
        empty = ptes_none(pte, arch.ptrs_per_pte)
        pte_unmap(pte)
        if empty:
            pmd_clear(pmd)
    if ptl != pml:
        spin_unlock(ptl)
    spin_unlock(pml)
    return pmdval if empty else 0


# --- locks -----------------------------------------------------------------------------------------------


@patch(
    "K20",
    title="mm: where all tables have one lock, that of the mm, it is not taken twice",
    since="6.6",
    site="retract.retract_page_table",
    files=("mm/khugepaged.c",),
    mutant=True,
    claim=Claim("race", "shmem-collapse-one-lock", "I28"),
)
def nested_whatever_lock(vma: vm_area_struct, pgoff: int) -> None:
    """ptl is taken inside pml, though it may be the same."""
    address = vma_address(vma, pgoff)
    mm = vma.vm_mm
    result, pmd = find_pmd_or_thp_or_none(mm, address)
    if result != SCAN_SUCCEED or collapse_test_exit(mm) or not file_backed_vma_is_retractable(vma):
        return
    pml = pmd_lock(mm, pmd, address)
    ptl = pte_lockptr(mm, load(pmd))
    spin_lock_nested(ptl)
    pmdval = pmdp_collapse_flush(vma, address, pmd)
    spin_unlock(ptl)
    spin_unlock(pml)
    mm_dec_nr_ptes(mm)
    pte_free_defer(mm, pmd_pgtable(pmdval))


@patch(
    "K33",
    commit="49b0638502da",
    title="mm: enable page walking API to lock vmas during the walk",
    since="6.5",
    site="mmap_lock.vma_start_write",
    files=("mm/pagewalk.c",),
    mutant=True,
    claim=Claim("race", "mprotect-and-fault", "I3"),
)
def readers_go_on(vma: vm_area_struct) -> None:
    """mmap_lock held for writing does not exclude those who have only the VMA's lock."""


# --- entries that are empty for a moment, flushes --------------------------------------------------------


@patch(
    "K43",
    commit="58ceeb6bec86",
    title="thp: fix MADV_DONTNEED vs. MADV_FREE race (and ced108037c2a, 024eee0e83f0)",
    since="4.12",
    site="pgtable.pmdp_invalidate",
    files=("mm/huge_memory.c",),
    mutant=True,
    claim=Claim("race", "huge-free-and-dontneed", "RESULT"),
)
def none_for_a_moment(pmd: pmd_p) -> int:
    """Who changes a huge page takes it out first."""
    return pmdp_huge_get_and_clear(pmd)


def k53(site: str) -> Callable[[F], F]:
    """A site of K53."""
    return patch(
        "K53",
        commit="d86564a2f085",
        title="mm/tlb, x86/mm: Support invalidating TLB caches for RCU_TABLE_FREE (and others of 2018)",
        since="4.19",
        site=f"mmu_gather.{site}",
        files=("mm/mmu_gather.c", "arch/x86/include/asm/tlb.h"),
        mutant=True,
        claim=Claim("race", "fault-and-dontneed", "I1"),
    )


@k53("tlb_table_invalidate")
def not_for_tables(tlb: mmu_gather) -> None:
    """RCU gets tables that CPUs have not forgotten."""


@k53("tlb_flush_mmu")
def free_then_flush(tlb: mmu_gather) -> None:
    """Tables and pages are freed before the CPUs have forgotten them."""
    tlb_flush_mmu_free(tlb)
    tlb_flush_mmu_tlbonly(tlb)


@patch(
    "K10",
    commit="723a80dafed5",
    title="khugepaged: collapse_pte_mapped_thp() flush the right range",
    since="5.8",
    site="pgtable_generic.pmdp_collapse_flush",
    files=("mm/khugepaged.c",),
    mutant=True,
    claim=Claim("count", measure="stale-after-collapse", before=1, after=0),
)
def flush_behind(vma: vm_area_struct, addr: int, pmd: pmd_p) -> int:
    """What is flushed begins where the table's range ends."""
    pmdval = pmdp_huge_get_and_clear(pmd)
    flush_tlb_range(vma.vm_mm, addr + arch.pmd_size, addr + 2 * arch.pmd_size)
    return pmdval


@patch(
    "K37",
    commit="eb66ae030829",
    title="mremap: properly flush TLB before releasing the page (CVE-2018-18281)",
    since="4.19",
    site="move_page_tables:flush_tlb_range",
    files=("mm/mremap.c",),
    mutant=True,
    claim=Claim("count", measure="stale-after-mremap", before=1, after=0),
)
def flush_too_late(mm: mm_struct, start: int, end: int, freed_tables: bool = True) -> None:
    """The old range is not flushed before others can unmap the new one (here: not at all)."""


@patch(
    "K42",
    commit="60bae7370896",
    title="mm/migrate_device.c: flush TLB while holding PTL",
    since="6.0",
    site="migrate_device:flush_tlb_range",
    files=("mm/migrate_device.c",),
    mutant=True,
    claim=Claim("count", measure="read-after-dontneed-of-what-moves", before=1, after=0),
)
def flush_after_unlock(mm: mm_struct, start: int, end: int, freed_tables: bool = True) -> None:
    """Who finds the entry gone before the flush takes it that nobody can reach the page (here: not at all)."""


@patch(
    "K38",
    commit="3ef938c35035",
    title="x86/mm: Fix flush_tlb_range() when used for zapping normal PMDs (CVE-2025-22045)",
    since="6.15",
    site="pgtable_generic.pmdp_collapse_flush",
    files=("arch/x86/include/asm/tlbflush.h",),
    mutant=True,
    claim=Claim("count", measure="stale-on-lazy-cpu", before=1, after=0),
)
def flush_pages_only(vma: vm_area_struct, addr: int, pmd: pmd_p) -> int:
    """What CPUs remember of the table stays, and lazy ones are not interrupted."""
    pmdval = pmdp_huge_get_and_clear(pmd)
    flush_tlb_range(vma.vm_mm, addr, addr + arch.pmd_size, freed_tables=False)
    return pmdval


@patch(
    "K48",
    title="mm/huge_memory: transfer the pmd dirty bit to the folio on zap (CVE-2026-89987)",
    since="7.0",
    site="huge_pmd.zap_huge_pmd_folio",
    files=("mm/huge_memory.c",),
    mutant=True,
    claim=Claim("count", measure="clean-though-written", before=1, after=0),
)
def dirty_bit_is_lost(vma: vm_area_struct, f: folio, pmdval: int) -> None:
    """The page is clean, whatever its entry says."""
    zap_huge_pmd_folio(vma, f, pmdval & ~DIRTY)


@patch(
    "K56",
    title="mm: guard regions: the VMA's flag is set before a table's lock is taken (6.19; an anon_vma before)",
    since="6.15",
    site="guard.madvise_guard_install",
    files=("mm/madvise.c",),
    mutant=True,
    claim=Claim("race", "shmem-collapse-guard", "I2"),
)
def flag_after_markers(vma: vm_area_struct, start: int, end: int) -> int:
    """Markers first: who looks at the VMA under ptl may find them in a table that should have none."""
    if not is_valid_guard_vma(vma, False) or not guard_install_range(vma, start, end):
        return -EINVAL
    prepare(vma)
    return 0

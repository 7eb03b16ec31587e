# SPDX-License-Identifier: GPL-2.0-only
"""powerpc's own users of page tables (arch/powerpc/mm/book3s64, kvm/book3s_64_mmu_radix.c, xmon/xmon.c; 7.2).

With the hash MMU the CPU knows entries from a hash table, from which the kernel has to take them; which of them are
there the kernel notes in the entry.  In the model any present entry is.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import is_locked, load, local_irq_restore, local_irq_save, store
from .bug import BugOn
from .mm_types import mm_struct, ptdesc
from .pgtable import (
    PRESENT,
    mm_find_pmd,
    pmd_clear,
    pmd_is_table,
    pmd_p,
    pmd_pgtable,
    pmd_trans_huge,
    pmdp_get_lockless,
    pte_offset_kernel,
    pte_p,
    ptep_get,
)
from .pgtable_generic import (
    pte_free,
    pte_offset_map,
    pte_offset_map_lock,
    pte_offset_map_ro_nolock,
    pte_unmap,
    pte_unmap_unlock,
)


def flush_hash_table_pmd_range(mm: mm_struct, pmd: pmd_p, addr: int) -> int:
    """Take the entries of a table that has been unlinked or will be from the hash table; how many they were."""
    addr &= -arch.pmd_size
    flags = local_irq_save()
    flushed = 0
    start_pte = pte_offset_map(pmd, addr)
    if start_pte:
        for i in range(arch.ptrs_per_pte):
            flushed += ptep_get(start_pte + i) & PRESENT
        pte_unmap(start_pte)
    local_irq_restore(flags)
    return flushed


def hpte_flush_range(mm: mm_struct, addr: int, npages: int) -> int:
    """subpage_prot(2), under mmap_lock for writing: take pages of one table from the hash table; how many they were."""
    pmd = mm_find_pmd(mm, addr)
    if not pmd or load(pmd) == 0:
        return 0
    pte, ptl = pte_offset_map_lock(mm, pmd, addr)
    if not pte:
        return 0
    flushed = 0
    for i in range(npages):
        flushed += ptep_get(pte + i) & PRESENT
    pte_unmap_unlock(pte, ptl)
    return flushed


def show_pte(mm: mm_struct, addr: int) -> tuple[int, ...]:
    """The entries that xmon prints of an address: the pmd, and the pte if it is valid."""
    pmd = mm_find_pmd(mm, addr)
    pmdval = pmdp_get_lockless(pmd) if pmd else 0
    if pmdval == 0 or pmd_trans_huge(pmdval):
        return (pmdval,)
    pte = pte_offset_map(pmd, addr)
    if not pte:
        return (pmdval,)
    entry = ptep_get(pte)
    pte_unmap(pte)
    return (pmdval, entry) if entry else (pmdval,)


def kvmppc_unmap_free_pmd(mm: mm_struct, table: ptdesc) -> None:
    """Empty a PMD table of a guest's second stage, and free the PTE tables below; under kvm->mmu_lock.

    The model keeps the guest's tables in an mm of their own, whose page_table_lock is that lock.
    """
    for i in range(arch.ptrs_per_pmd):
        pmd = table.entry + i
        pmdval = load(pmd)
        if pmd_trans_huge(pmdval):
            pmd_clear(pmd)
        elif pmd_is_table(pmdval):
            pte = pte_offset_kernel(pmd, 0)
            for nr in range(arch.ptrs_per_pte):
                store(pte + nr, 0)
            pmd_clear(pmd)
            pte_free(mm, pmd_pgtable(pmdval))


def ptep_set_access_flags(mm: mm_struct, addr: int, pte: pte_p, entry: int) -> None:
    """Change an entry so that it allows more, under ptl, which DEBUG_VM asserts."""
    assert_pte_locked(mm, addr)
    store(pte, entry)


def assert_pte_locked(mm: mm_struct, addr: int) -> None:
    """The caller holds the lock of the table at `addr`.  Raises BugOn; khugepaged may have emptied the pmd itself."""
    pmd = mm_find_pmd(mm, addr)
    if load(pmd) == 0:
        return
    pte, ptl = pte_offset_map_ro_nolock(mm, pmd, addr)
    if not pte or not is_locked(ptl):
        raise BugOn("powerpc changes an entry without its table's lock")
    pte_unmap(pte)

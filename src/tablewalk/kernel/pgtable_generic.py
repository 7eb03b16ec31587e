# SPDX-License-Identifier: GPL-2.0-only
"""Mapping a PTE table, which may fail at any call (mm/pgtable-generic.c, include/linux/mm.h; 7.2).

A PTE table can be detached from its pmd and freed by RCU while only mmap_lock or an rmap lock is held for reading.
So each access maps the table inside an RCU section, and who writes checks, under the table's lock, that the pmd
still points to it.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import (
    PMD_TABLES_ALLOCATED,
    PTE_TABLES_ALLOCATED,
    PTE_TABLES_FREED,
    add,
    call_rcu,
    count,
    forget,
    kmap_local,
    kunmap_local,
    load,
    might_sleep,
    publish,
    rcu_read_lock,
    rcu_read_unlock,
    spin_lock,
    spin_unlock,
    store,
    unpublish,
)
from .config import config
from .mm_types import mm_struct, ptdesc, ptlock, spinlock_t, vm_area_struct
from .pgtable import (
    LEAF,
    PFN_SHIFT,
    PRESENT,
    TABLE_ENTRY,
    TABLE_PTL,
    p4d_offset,
    pmd_offset,
    pmd_p,
    pmd_populate,
    pmdp_get_lockless,
    pmdp_huge_get_and_clear,
    pte_p,
    pud_offset,
)
from .tlb import flush_tlb_range

NO_TABLE = ptdesc(0)


# --- locks -----------------------------------------------------------------------------------------------


def pte_lockptr(mm: mm_struct, pmdval: int) -> spinlock_t:
    """The lock of the PTE table that the value `pmdval` points to."""
    if config.split_ptlocks:
        if config.alloc_split_ptlocks:
            load(ptdesc(pmdval >> PFN_SHIFT).ptl_memory.addr)
        return (pmdval >> PFN_SHIFT) + TABLE_PTL
    return mm.page_table_lock


def pmd_lockptr(mm: mm_struct, pmd: pmd_p, addr: int) -> spinlock_t:
    """The lock of the PMD table that the slot `pmd` of address `addr` lies in."""
    if config.split_ptlocks and arch.split_pmd_ptlock:
        return ptdesc(pmd - (addr >> arch.pmd_shift & arch.pmd_index_mask) - TABLE_ENTRY).ptl
    return mm.page_table_lock


def pmd_lock(mm: mm_struct, pmd: pmd_p, addr: int) -> spinlock_t:
    """Take the pmd lock; returns it."""
    pml = pmd_lockptr(mm, pmd, addr)
    spin_lock(pml)
    return pml


# --- mapping ---------------------------------------------------------------------------------------------


def __pte_offset_map(pmd: pmd_p, addr: int) -> tuple[pte_p, int]:
    """(address of the PTE, value of the pmd), inside an RCU section; (0, value) and no section if there is no table."""
    rcu_read_lock()
    pmdval = pmdp_get_lockless(pmd)
    if pmdval & (PRESENT | LEAF) != PRESENT:
        rcu_read_unlock()
        return 0, pmdval
    pte = (pmdval >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.page_shift & arch.ptrs_per_pte - 1)
    if config.highpte:
        kmap_local(pte)
    return pte, pmdval


def pte_offset_map(pmd: pmd_p, addr: int) -> pte_p:
    """Map for a pure reader that can live with an empty, already detached table; 0 if there is no table."""
    return __pte_offset_map(pmd, addr)[0]


def pte_offset_map_ro_nolock(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, spinlock_t]:
    """(pte, ptl) for one who will only read, lock or not; (0, 0) if there is no table."""
    pte, pmdval = __pte_offset_map(pmd, addr)
    return (pte, pte_lockptr(mm, pmdval)) if pte else (0, 0)


def pte_offset_map_rw_nolock(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, int, spinlock_t]:
    """(pte, pmd value, ptl) for one who will lock and then check pmd_same, or pte_same of a non-none entry."""
    pte, pmdval = __pte_offset_map(pmd, addr)
    return (pte, pmdval, pte_lockptr(mm, pmdval)) if pte else (0, pmdval, 0)


def pte_offset_map_lock(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, spinlock_t]:
    """(pte, ptl) with ptl held and the table attached; (0, 0) if there is no table."""
    while True:
        pte, pmdval = __pte_offset_map(pmd, addr)
        if not pte:
            return 0, 0
        ptl = pte_lockptr(mm, pmdval)
        spin_lock(ptl)
        if pmdval == pmdp_get_lockless(pmd):
            return pte, ptl
        spin_unlock(ptl)
        pte_unmap(pte)
        forget(())


def pte_unmap(pte: pte_p) -> None:
    """End what a successful map began.  With HIGHPTE the last that was mapped is unmapped first."""
    if config.highpte:
        kunmap_local(pte)
    rcu_read_unlock()


def pte_unmap_unlock(pte: pte_p, ptl: spinlock_t) -> None:
    """Release what pte_offset_map_lock took."""
    spin_unlock(ptl)
    if config.highpte:
        kunmap_local(pte)
    rcu_read_unlock()


# --- tables: accounting, allocation, freeing (include/linux/mm.h, mm/memory.c, arch/*/include/asm/pgalloc.h) ---


def mm_inc_nr_ptes(mm: mm_struct) -> None:
    """One more PTE table attached or deposited."""
    add(mm.nr_ptes, 1)


def mm_dec_nr_ptes(mm: mm_struct) -> None:
    """One PTE table less."""
    add(mm.nr_ptes, -1)


def mm_pgtables_bytes(mm: mm_struct) -> int:
    """What VmPTE shows, in bytes: PTE, PMD and PUD tables; the PGD and P4D tables don't count."""
    puds = 0 if mm.pud_folded else load(mm.nr_puds)
    return load(mm.nr_ptes) * arch.pte_bytes + load(mm.nr_pmds) * arch.pmd_bytes + puds * arch.pud_bytes


def pte_alloc_one(mm: mm_struct) -> ptdesc:
    """A new, empty PTE table; may sleep."""
    might_sleep()
    count(PTE_TABLES_ALLOCATED)
    pgtable: ptdesc = ptdesc.alloc(arch.ptrs_per_pte)
    pgtable.pt_mm = mm
    if config.alloc_split_ptlocks:
        pgtable.ptl_memory = ptlock.alloc()
    return pgtable


def pte_free(mm: mm_struct, pgtable: ptdesc) -> None:
    """Free a table that nobody else can see, at once."""
    pte_free_now(pgtable.addr)


def pte_free_now(pgtable: int) -> None:
    """RCU callback of pte_free_defer."""
    pagetable_dtor(ptdesc(pgtable))
    ptdesc(pgtable).free(arch.ptrs_per_pte)


def pagetable_dtor(pgtable: ptdesc) -> None:
    """What a PTE table had beside its page goes: its lock, if that was allocated, and its place in the statistics."""
    count(PTE_TABLES_FREED)
    if config.alloc_split_ptlocks:
        pgtable.ptl_memory.free()


def pte_free_defer(mm: mm_struct, pgtable: ptdesc) -> None:
    """Free a detached table after a grace period."""
    call_rcu(pte_free_now, pgtable.addr)


def pmd_install(mm: mm_struct, pmd: pmd_p, addr: int, pgtable: ptdesc) -> bool:
    """Let an empty slot point to the new table; false if the slot is taken, and the table still the caller's."""
    pml = pmd_lock(mm, pmd, addr)
    installed = pmdp_get_lockless(pmd) == 0
    if installed:
        mm_inc_nr_ptes(mm)
        publish(pgtable.addr)  # smp_wmb()
        pmd_populate(pmd, pgtable)
    spin_unlock(pml)
    return installed


def __pte_alloc(mm: mm_struct, pmd: pmd_p, addr: int) -> None:
    """Allocate a PTE table for an empty slot, unless somebody else is quicker."""
    pgtable = pte_alloc_one(mm)
    if not pmd_install(mm, pmd, addr, pgtable):
        pte_free(mm, pgtable)


def pte_alloc(mm: mm_struct, pmd: pmd_p, addr: int) -> None:
    """See to it that the slot was not empty once; it promises no table."""
    if load(pmd) == 0:
        __pte_alloc(mm, pmd, addr)


def pte_alloc_map_lock(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, spinlock_t]:
    """pte_alloc, then pte_offset_map_lock."""
    pte_alloc(mm, pmd, addr)
    return pte_offset_map_lock(mm, pmd, addr)


def p4d_alloc(mm: mm_struct, pgd: int, addr: int) -> int:
    """Address of the P4D entry, its table allocated where the level exists."""
    if arch.p4d_bits and load(pgd) == 0:
        _alloc_upper(mm, pgd, arch.ptrs_per_p4d, mm.nr_p4ds)
    return p4d_offset(pgd, addr)


def pud_alloc(mm: mm_struct, p4d: int, addr: int) -> int:
    """Address of the PUD entry, its table allocated where the level exists."""
    if arch.pud_bits and load(p4d) == 0:
        _alloc_upper(mm, p4d, arch.ptrs_per_pud, mm.nr_puds)
    return pud_offset(p4d, addr)


def pmd_alloc(mm: mm_struct, pud: int, addr: int) -> pmd_p:
    """Address of the PMD entry, its table allocated where the level exists."""
    if arch.pmd_bits and load(pud) == 0:
        count(PMD_TABLES_ALLOCATED)
        _alloc_upper(mm, pud, arch.ptrs_per_pmd, mm.nr_pmds)
    return pmd_offset(pud, addr)


def _alloc_upper(mm: mm_struct, slot: int, nr: int, counter: int) -> None:
    might_sleep()
    table: ptdesc = ptdesc.alloc(nr)
    table.pt_mm = mm
    spin_lock(mm.page_table_lock)
    if load(slot) == 0:
        add(counter, 1)
        publish(table.addr)  # smp_wmb()
        store(slot, table.addr << PFN_SHIFT | PRESENT)
        spin_unlock(mm.page_table_lock)
    else:
        spin_unlock(mm.page_table_lock)
        table.free(nr)


def walk_to_pmd(mm: mm_struct, addr: int) -> pmd_p:
    """Address of the PMD entry with every upper table allocated (mm_alloc_pmd in mm/userfaultfd.c)."""
    pgd = mm.pgd.entry + (addr >> arch.pgdir_shift & arch.ptrs_per_pgd - 1)
    return pmd_alloc(mm, pud_alloc(mm, p4d_alloc(mm, pgd, addr), addr), addr)


# --- huge pmds -------------------------------------------------------------------------------------------


def pmdp_collapse_flush(vma: vm_area_struct, addr: int, pmd: pmd_p) -> int:
    """Empty a slot that points to a table, and flush what was mapped through it; returns the old value."""
    pmdval = pmdp_huge_get_and_clear(pmd)
    flush_tlb_range(vma.vm_mm, addr, addr + arch.pmd_size, freed_tables=True)
    return pmdval


def pgtable_trans_huge_deposit(mm: mm_struct, pmd: pmd_p, addr: int, pgtable: ptdesc) -> None:
    """Keep a PTE table with the PMD table for the day the huge page is split; under pml."""
    table = ptdesc(pmd - (addr >> arch.pmd_shift & arch.pmd_index_mask) - TABLE_ENTRY)
    pgtable.deposit_next = table.pmd_huge_pte
    table.pmd_huge_pte = pgtable
    add(mm.nr_deposited, 1)


def pgtable_trans_huge_withdraw(mm: mm_struct, pmd: pmd_p, addr: int) -> ptdesc:
    """Take a deposited table back; under pml."""
    table = ptdesc(pmd - (addr >> arch.pmd_shift & arch.pmd_index_mask) - TABLE_ENTRY)
    pgtable = table.pmd_huge_pte
    table.pmd_huge_pte = pgtable.deposit_next
    unpublish(pgtable.addr)
    pgtable.deposit_next = NO_TABLE
    add(mm.nr_deposited, -1)
    return pgtable

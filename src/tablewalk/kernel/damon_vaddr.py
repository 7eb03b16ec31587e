# SPDX-License-Identifier: GPL-2.0-only
"""How DAMON tells which pages of a process are in use (mm/damon/vaddr.c; 7.2).

It makes the entry of an address old, and looks some time later whether it is young again.  Which addresses it samples,
and what it makes of what it finds, is not modelled; nor are idle folios, the other sign that a page is in use.
"""

from __future__ import annotations

from ..machine import spin_unlock, store
from .config import config
from .huge_pmd import pmd_trans_huge_lock
from .mm_types import mm_struct, vm_area_struct
from .mmap_lock import NO_VMA, lock_vma_under_rcu, mmap_read_lock, mmap_read_unlock, vma_end_read
from .pagewalk import PmdEntry, walk_page_range_vma
from .pgtable import ACCESSED, SPECIAL, pmd_p, pmd_present, pmdp_get_lockless, pte_present, ptep_get
from .pgtable_generic import pte_offset_map_lock, pte_unmap_unlock
from .vm_flags import VM_PFNMAP
from .vma import vma_lookup


def damon_va_mkold(mm: mm_struct, addr: int) -> None:
    """Make what maps an address old: an entry, or a huge page."""
    damon_va_walk_page_range(mm, addr, damon_mkold_pmd_entry)


def damon_va_young(mm: mm_struct, addr: int) -> bool:
    """Whether what maps an address is young."""
    return damon_va_walk_page_range(mm, addr, damon_young_pmd_entry) != 0


def damon_va_walk_page_range(mm: mm_struct, addr: int, pmd_entry: PmdEntry) -> int:
    """Walk to one address, under its VMA's lock, or where that is not to be had at once under mmap_lock."""
    vma = lock_vma_under_rcu(mm, addr) if config.per_vma_lock else NO_VMA
    if vma:
        ret = damon_va_walk_vma(vma, addr, pmd_entry)
        vma_end_read(vma)
        return ret
    mmap_read_lock(mm)
    vma = vma_lookup(mm, addr)
    ret = damon_va_walk_vma(vma, addr, pmd_entry) if vma else 0
    mmap_read_unlock(mm)
    return ret


def damon_va_walk_vma(vma: vm_area_struct, addr: int, pmd_entry: PmdEntry) -> int:
    """Within a VMA that is locked; of one without struct pages nothing is known."""
    return 0 if vma.vm_flags & VM_PFNMAP else walk_page_range_vma(vma, addr, addr + 1, pmd_entry, 0)


def damon_mkold_pmd_entry(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, private: int) -> int:
    """A huge page, or an entry, grows old; where no table is (any more) DAMON does without."""
    pml = pmd_trans_huge_lock(vma.vm_mm, pmd, addr)
    if pml:
        pmdval = pmdp_get_lockless(pmd)
        if pmd_present(pmdval):
            store(pmd, pmdval & ~ACCESSED)
        spin_unlock(pml)
        return 0
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not pte:
        return 0
    entry = ptep_get(pte)
    if pte_present(entry):
        store(pte, entry & ~ACCESSED)
    pte_unmap_unlock(pte, ptl)
    return 0


def damon_young_pmd_entry(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, private: int) -> int:
    """1 if a huge page or an entry is young, else 0; so it is where no table is (any more)."""
    pml = pmd_trans_huge_lock(vma.vm_mm, pmd, addr)
    if pml:
        pmdval = pmdp_get_lockless(pmd)
        spin_unlock(pml)
        return int(pmd_present(pmdval) and pmdval & SPECIAL == 0 and pmdval & ACCESSED != 0)
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not pte:
        return 0
    entry = ptep_get(pte)
    pte_unmap_unlock(pte, ptl)
    return int(pte_present(entry) and entry & SPECIAL == 0 and entry & ACCESSED != 0)

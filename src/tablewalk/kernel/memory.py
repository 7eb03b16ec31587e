# SPDX-License-Identifier: GPL-2.0-only
"""Page faults of anonymous memory, and those on present entries (mm/memory.c; 7.2).

`memory_file` has the faults of file mappings, `memory_zap` unmapping, `memory_copy` fork's copying.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import PAGE_FAULTS, add, count, down_read_trylock, load, spin_lock, spin_unlock, store
from .config import config
from .huge_memory import create_huge_pmd, huge_pmd_fault, thp_vma_allowable_pmd
from .memory_file import do_fault
from .mm_types import folio, vm_area_struct
from .mmap_lock import mmap_read_unlock
from .page_alloc import (
    PG_ANON_EXCLUSIVE,
    copy_page,
    folio_alloc,
    folio_get,
    folio_page,
    folio_put,
    folio_ref_count,
    folio_test_anon,
    zero_page,
)
from .pgtable import (
    ACCESSED,
    DIRTY,
    LEAF,
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    RW,
    SPECIAL,
    UFFD_WP,
    page_folio,
    pmdp_get_lockless,
    pte_page,
    ptep_get,
    ptep_get_and_clear,
    ptep_get_lockless,
)
from .pgtable_generic import (
    p4d_alloc,
    pmd_alloc,
    pte_alloc,
    pte_offset_map_lock,
    pte_offset_map_rw_nolock,
    pte_unmap,
    pte_unmap_unlock,
    pud_alloc,
)
from .rmap import __anon_vma_prepare, folio_add_new_anon_rmap, folio_remove_rmap_ptes
from .swap_pte import do_swap_page
from .tlb import flush_tlb_range
from .vm_fault import NO_PTE, vm_fault
from .vm_flags import (
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_VMA_LOCK,
    FAULT_FLAG_WRITE,
    VM_FAULT_FALLBACK,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_SHARED,
    VM_WRITE,
)


def handle_mm_fault(vma: vm_area_struct, address: int, flags: int) -> int:
    """Serve a fault that the VMA allows; mmap_lock or the VMA's lock is held.  Returns VM_FAULT_* bits, 0 = done or try again."""
    count(PAGE_FAULTS)
    mm = vma.vm_mm
    address &= -arch.page_size
    pgd = mm.pgd.entry + (address >> arch.pgdir_shift & arch.ptrs_per_pgd - 1)
    pmd = pmd_alloc(mm, pud_alloc(mm, p4d_alloc(mm, pgd, address), address), address)
    vmf = vm_fault(vma, address, flags, pmd)
    pmdval = pmdp_get_lockless(pmd)
    if pmdval & (PRESENT | LEAF) != PRESENT:
        if pmdval != 0:
            return huge_pmd_fault(vmf, pmdval)
        if thp_vma_allowable_pmd(vma, vma.vm_flags):
            ret = create_huge_pmd(vmf)
            if ret & VM_FAULT_FALLBACK == 0:
                return ret
    return handle_pte_fault(vmf)


def handle_pte_fault(vmf: vm_fault) -> int:
    """Serve a fault at PTE level."""
    vma = vmf.vma
    if pmdp_get_lockless(vmf.pmd) == 0:
        return do_pte_missing(vmf, NO_PTE)
    pte, _, ptl = pte_offset_map_rw_nolock(vma.vm_mm, vmf.pmd, vmf.address)
    if not pte:
        return 0
    entry = ptep_get_lockless(pte)
    if entry == 0:
        pte_unmap(pte)
        return do_pte_missing(vmf, 0)
    if entry & (PRESENT | PROTNONE) == 0:
        pte_unmap(pte)
        return do_swap_page(vmf, entry)
    spin_lock(ptl)
    if ptep_get(pte) != entry:
        pte_unmap_unlock(pte, ptl)
        return 0
    if vmf.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE) and entry & RW == 0:
        return do_wp_page(vmf, pte, ptl, entry)
    young = entry | ACCESSED | (DIRTY if vmf.flags & FAULT_FLAG_WRITE else 0)
    if young != entry:
        store(pte, young)
    pte_unmap_unlock(pte, ptl)
    return 0


def do_pte_missing(vmf: vm_fault, orig_pte: int) -> int:
    """Nothing is mapped; `orig_pte` is 0 if that was seen in a table, NO_PTE if there was no table."""
    vma = vmf.vma
    if not vma.vm_file and vma.vm_flags & VM_SHARED == 0:
        return do_anonymous_page(vmf)
    return do_fault(vmf)


def vmf_anon_prepare(vmf: vm_fault) -> int:
    """See to it that the VMA has an anon_vma, under the VMA lock only if mmap_lock can be had at once."""
    vma = vmf.vma
    if vma.anon_vma:
        return 0
    if vmf.flags & FAULT_FLAG_VMA_LOCK:
        if not down_read_trylock(vma.vm_mm.mmap_lock):
            return VM_FAULT_RETRY
        __anon_vma_prepare(vma)
        mmap_read_unlock(vma.vm_mm)
    else:
        __anon_vma_prepare(vma)
    return 0


def do_anonymous_page(vmf: vm_fault) -> int:
    """Map the zero page for a read, a new page for a write."""
    vma = vmf.vma
    mm = vma.vm_mm
    pte_alloc(mm, vmf.pmd, vmf.address)
    if vmf.flags & FAULT_FLAG_WRITE == 0:
        pte, ptl = pte_offset_map_lock(mm, vmf.pmd, vmf.address)
        if not pte:
            return 0
        if ptep_get(pte) == 0:
            store(pte, zero_page() << PFN_SHIFT | vm_page_prot(vma.vm_flags) & ~RW | SPECIAL | ACCESSED)
        pte_unmap_unlock(pte, ptl)
        return 0
    ret = vmf_anon_prepare(vmf)
    if ret:
        return ret
    new = folio_alloc(0)
    entry = new.page << PFN_SHIFT | vm_page_prot(vma.vm_flags) | ACCESSED
    if vma.vm_flags & VM_WRITE:
        entry |= RW | DIRTY
    pte, ptl = pte_offset_map_lock(mm, vmf.pmd, vmf.address)
    if not pte:
        folio_put(new)
        return 0
    if load(pte) != 0:
        pte_unmap_unlock(pte, ptl)
        folio_put(new)
        return 0
    add(mm.anon_rss, 1)
    folio_add_new_anon_rmap(new, vma, vmf.address)
    store(pte, entry)
    pte_unmap_unlock(pte, ptl)
    return 0

# SPDX-License-Identifier: GPL-2.0-only
"""Huge pmds: faults, mprotect, mremap, fork, MADV_FREE (mm/huge_memory.c; 7.2).

`huge_mm` says who may have them, `huge_pmd` maps a file's and takes all kinds away; deposited tables are told of there.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import (
    THP_FAULT_ALLOC,
    WRITE_ONCE,
    add,
    cmpxchg,
    count,
    forget,
    load,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    spin_lock,
    spin_lock_nested,
    spin_unlock,
    store,
)
from .config import config
from .folio_split import split_folio
from .huge_mm import khugepaged_enter, thp_vma_suitable_pmd, vma_is_anonymous
from .huge_mm import thp_vma_allowable_pmd as thp_vma_allowable_pmd
from .huge_pmd import __split_huge_pmd as __split_huge_pmd
from .huge_pmd import huge_page_prot, pmd_trans_huge_lock, pmdp_huge_clear_flush
from .huge_pmd import split_huge_pmd_if_needed as split_huge_pmd_if_needed
from .huge_pmd import vma_adjust_trans_huge as vma_adjust_trans_huge
from .huge_pmd import zap_huge_pmd as zap_huge_pmd
from .migrate import pmd_migration_entry_wait
from .mm_types import folio, mm_struct, ptdesc, vm_area_struct
from .mmu_gather import mmu_gather, tlb_change_page_size, tlb_flush_range
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .page_alloc import (
    FOLIO_MAPPING_ANON,
    MAPPING_SHIFT,
    NO_FOLIO,
    PAGE_ANON_EXCLUSIVE,
    PG_DIRTY,
    PG_SWAPBACKED,
    PG_UPTODATE,
    __folio_mark_uptodate,
    folio_alloc,
    folio_get,
    folio_needs_cow_for_dma,
    folio_put,
    folio_ref_count,
    folio_test_anon,
    mm_get_huge_zero_folio,
    page_flags,
)
from .pgtable import (
    ACCESSED,
    DIRTY,
    LEAF,
    MIGRATION_EXCLUSIVE,
    MKDIRTY,
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    RW,
    SPECIAL,
    UFFD_WP,
    is_pmd_migration_entry,
    maybe_mkwrite,
    move_soft_dirty,
    page_folio,
    pmd_p,
    pmd_page,
    pmd_present,
    pmd_trans_huge,
    pmdp_get_lockless,
    pmdp_huge_get_and_clear,
    pmdp_invalidate,
    pte_needs_soft_dirty_wp,
    vm_page_prot,
)
from .pgtable_generic import (
    mm_inc_nr_ptes,
    pgtable_trans_huge_deposit,
    pgtable_trans_huge_withdraw,
    pmd_lock,
    pmd_lockptr,
    pte_alloc_one,
    pte_free,
)
from .rmap import folio_add_rmap_pmd, folio_dup_rmap_pmd, folio_maybe_mapped_shared, vmf_anon_prepare
from .tlb import flush_tlb_range
from .userfaultfd_fault import handle_userfault
from .userfaultfd_k import (
    pte_mkuffd_wp,
    userfaultfd_missing,
    userfaultfd_pte_wp,
    userfaultfd_wp,
    userfaultfd_wp_async,
    vma_has_uffd_without_event_remap,
)
from .vm_fault import vm_fault
from .vm_flags import (
    EAGAIN,
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_WRITE,
    MM_CP_TRY_CHANGE_WRITABLE,
    MM_CP_UFFD_WP,
    MM_CP_UFFD_WP_RESOLVE,
    VM_FAULT_FALLBACK,
    VM_SHARED,
    VM_SPECIAL,
    VM_UFFD_MISSING,
    VM_UFFD_WP,
)

# --- faults ----------------------------------------------------------------------------------------------


def create_huge_pmd(vmf: vm_fault) -> int:
    """Map anonymous memory by a huge pmd (do_huge_pmd_anonymous_page); VM_FAULT_FALLBACK where it does not fit."""
    vma = vmf.vma
    if not thp_vma_suitable_pmd(vma, vmf.address):
        return VM_FAULT_FALLBACK
    ret = vmf_anon_prepare(vmf)
    if ret:
        return ret
    if vma.vm_flags & VM_SPECIAL == 0:
        khugepaged_enter(vma.vm_mm)
    zero = vmf.flags & FAULT_FLAG_WRITE == 0 and config.use_zero_page
    f = mm_get_huge_zero_folio() if zero else folio_alloc(arch.pte_bits)
    pgtable = pte_alloc_one(vma.vm_mm)
    pml = pmd_lock(vma.vm_mm, vmf.pmd, vmf.address)
    if pmdp_get_lockless(vmf.pmd) != 0:
        spin_unlock(pml)
        pte_free(vma.vm_mm, pgtable)
        if not zero:
            folio_put(f)
        return 0
    if userfaultfd_missing(vma):
        spin_unlock(pml)
        pte_free(vma.vm_mm, pgtable)
        if not zero:
            folio_put(f)
        return handle_userfault(vmf, VM_UFFD_MISSING)
    haddr = vmf.address & -arch.pmd_size
    pgtable_trans_huge_deposit(vma.vm_mm, vmf.pmd, haddr, pgtable)
    mm_inc_nr_ptes(vma.vm_mm)
    if zero:
        store(vmf.pmd, f.page << PFN_SHIFT | vm_page_prot(vma.vm_flags) | LEAF | SPECIAL)
    else:
        map_anon_folio_pmd_pf(f, vmf.pmd, vma, haddr)
    spin_unlock(pml)
    return 0


def map_anon_folio_pmd_pf(f: folio, pmd: pmd_p, vma: vm_area_struct, haddr: int) -> None:
    """map_anon_folio_pmd() of a fault, whose pages are new to the mm."""
    map_anon_folio_pmd(f, pmd, vma, haddr)
    add(vma.vm_mm.anon_rss, arch.hpage_pmd_nr)
    count(THP_FAULT_ALLOC)


def map_anon_folio_pmd(f: folio, pmd: pmd_p, vma: vm_area_struct, haddr: int) -> None:
    """Map a new huge folio in an empty slot (map_anon_folio_pmd_nopf); under pml."""
    f.mapping = vma.anon_vma.addr << MAPPING_SHIFT | FOLIO_MAPPING_ANON
    f.index = (haddr - vma.vm_start >> arch.page_shift) + vma.vm_pgoff
    WRITE_ONCE(f, "flags", PG_SWAPBACKED | PG_UPTODATE)
    store(page_flags(f.page), PAGE_ANON_EXCLUSIVE)
    folio_add_rmap_pmd(f, vma)
    __folio_mark_uptodate(f)
    entry = f.page << PFN_SHIFT | vm_page_prot(vma.vm_flags) | LEAF | ACCESSED | MKDIRTY
    store(pmd, maybe_mkwrite(entry, vma.vm_flags))
    add(vma.vm_mm.anon_huge, 1)


def huge_pmd_fault(vmf: vm_fault, pmdval: int) -> int:
    """Serve a fault on a pmd that is no table; VM_FAULT_FALLBACK: it has been split, go on with the table."""
    if pmdval & (PRESENT | PROTNONE) == 0:
        pmd_migration_entry_wait(vmf.vma.vm_mm, vmf.pmd, vmf.address)
        return 0
    if vmf.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE) and pmdval & RW == 0:
        return wp_huge_pmd(vmf, pmdval)
    pml = pmd_lock(vmf.vma.vm_mm, vmf.pmd, vmf.address)
    if pmdp_get_lockless(vmf.pmd) == pmdval:
        store(vmf.pmd, pmdval | ACCESSED | (MKDIRTY if vmf.flags & FAULT_FLAG_WRITE else 0))
    spin_unlock(pml)
    return 0


def wp_huge_pmd(vmf: vm_fault, pmdval: int) -> int:
    """A write (or unshare) fault on a huge pmd without write permission."""
    vma = vmf.vma
    if vma_is_anonymous(vma):
        if vmf.flags & FAULT_FLAG_UNSHARE or not userfaultfd_pte_wp(vma, pmdval):
            return do_huge_pmd_wp_page(vmf, pmdval)
        if not userfaultfd_wp_async(vma):
            return handle_userfault(vmf, VM_UFFD_WP)
    __split_huge_pmd(vma, vmf.pmd, vmf.address)
    return VM_FAULT_FALLBACK


def do_huge_pmd_wp_page(vmf: vm_fault, pmdval: int) -> int:
    """Reuse an anonymous huge page that is the caller's alone, else split."""
    vma = vmf.vma
    if pmdval & SPECIAL:
        return do_huge_zero_wp_pmd(vmf, pmdval)
    f = page_folio(pmd_page(pmdval))
    pml = pmd_lock(vma.vm_mm, vmf.pmd, vmf.address)
    if pmdp_get_lockless(vmf.pmd) != pmdval:
        spin_unlock(pml)
        return 0
    if load(page_flags(f.page)) & PAGE_ANON_EXCLUSIVE == 0:
        if not mutex_trylock(f.lock):
            folio_get(f)
            spin_unlock(pml)
            mutex_lock(f.lock)
            spin_lock(pml)
            same = pmdp_get_lockless(vmf.pmd) == pmdval
            if not same:
                spin_unlock(pml)
                mutex_unlock(f.lock)
            folio_put(f)
            if not same:
                return 0
        reuse = load(page_flags(f.page)) & PAGE_ANON_EXCLUSIVE != 0
        if not reuse and folio_ref_count(f) == 1:
            f.mapping = vma.anon_vma.addr << MAPPING_SHIFT | FOLIO_MAPPING_ANON
            store(page_flags(f.page), PAGE_ANON_EXCLUSIVE)
            reuse = True
        mutex_unlock(f.lock)
        if not reuse:
            spin_unlock(pml)
            __split_huge_pmd(vma, vmf.pmd, vmf.address)
            return VM_FAULT_FALLBACK
    if vmf.flags & FAULT_FLAG_UNSHARE == 0:
        store(vmf.pmd, maybe_mkwrite(pmdval | ACCESSED | MKDIRTY, vma.vm_flags))
    spin_unlock(pml)
    return 0


def do_huge_zero_wp_pmd(vmf: vm_fault, pmdval: int) -> int:
    """First write to the huge zero page: a huge page of its own, with the table that is deposited already."""
    vma = vmf.vma
    f = folio_alloc(arch.pte_bits)
    haddr = vmf.address & -arch.pmd_size
    mmu_notifier_invalidate_range_start(vma, haddr, haddr + arch.pmd_size)
    pml = pmd_lock(vma.vm_mm, vmf.pmd, vmf.address)
    if pmdp_get_lockless(vmf.pmd) == pmdval:
        pmdp_huge_clear_flush(vma, haddr, vmf.pmd)
        map_anon_folio_pmd_pf(f, vmf.pmd, vma, haddr)
    else:
        folio_put(f)
    spin_unlock(pml)
    mmu_notifier_invalidate_range_end(vma, haddr, haddr + arch.pmd_size)
    return 0


# --- mprotect, mremap, fork, MADV_FREE -------------------------------------------------------------------


def change_huge_pmd(
    tlb: mmu_gather, vma: vm_area_struct, pmd: pmd_p, addr: int, newprot: int, cp_flags: int
) -> int:
    """Give a huge page the flags `newprot` (vm_page_prot) and what MM_CP_* asks for.

    Returns the pages changed, 1 if it was only looked at, 0 if there is no huge page (any more).
    """
    tlb_change_page_size(tlb, arch.pmd_shift)
    pml = pmd_trans_huge_lock(vma.vm_mm, pmd, addr)
    if not pml:
        return 0
    pmdval = pmdp_get_lockless(pmd)
    if not pmd_present(pmdval):
        entry = pmdval & ~RW
        ret = 1
    else:
        pmdval = pmdp_invalidate(pmd)
        entry = pmdval & ~(PRESENT | PROTNONE | RW) | huge_page_prot(newprot)
        ret = arch.hpage_pmd_nr
    if cp_flags & MM_CP_UFFD_WP:
        entry = pte_mkuffd_wp(entry)
    elif cp_flags & MM_CP_UFFD_WP_RESOLVE:
        entry &= ~UFFD_WP
    if ret > 1 and cp_flags & MM_CP_TRY_CHANGE_WRITABLE and can_change_pmd_writable(vma, entry):
        entry |= RW
    store(pmd, entry)
    if ret > 1:
        tlb_flush_range(tlb, addr, addr + arch.pmd_size)
    spin_unlock(pml)
    return ret


def can_change_pmd_writable(vma: vm_area_struct, pmdval: int) -> bool:
    """Whether a write needs no fault: nobody tracks it, and the page is the VMA's own, or shared and dirty already."""
    if pmdval & PROTNONE or pte_needs_soft_dirty_wp(vma, pmdval) or userfaultfd_pte_wp(vma, pmdval):
        return False
    if vma.vm_flags & VM_SHARED:
        return pmdval & DIRTY != 0
    if pmdval & SPECIAL:
        return False
    f = page_folio(pmd_page(pmdval))
    return folio_test_anon(f) and load(page_flags(f.page)) & PAGE_ANON_EXCLUSIVE != 0


def move_huge_pmd(vma: vm_area_struct, old_addr: int, new_addr: int, old_pmd: pmd_p, new_pmd: pmd_p) -> bool:
    """Move a huge page to an empty slot, with its deposited table; false if there is none, or no such slot."""
    mm = vma.vm_mm
    if pmdp_get_lockless(new_pmd) != 0:
        return False
    old_ptl = pmd_trans_huge_lock(mm, old_pmd, old_addr)
    if not old_ptl:
        return False
    new_ptl = pmd_lockptr(mm, new_pmd, new_addr)
    if new_ptl != old_ptl:
        spin_lock_nested(new_ptl)
    pmdval = pmdp_huge_get_and_clear(old_pmd)
    if arch.file_thp_deposits or vma_is_anonymous(vma):
        pgtable = pgtable_trans_huge_withdraw(mm, old_pmd, old_addr)
        pgtable_trans_huge_deposit(mm, new_pmd, new_addr, pgtable)
    pmdval = move_soft_dirty(pmdval)
    if vma_has_uffd_without_event_remap(vma):
        pmdval &= ~UFFD_WP
    store(new_pmd, pmdval)
    if pmd_present(pmdval):
        flush_tlb_range(mm, old_addr, old_addr + arch.pmd_size)
    if new_ptl != old_ptl:
        spin_unlock(new_ptl)
    spin_unlock(old_ptl)
    return True


def copy_huge_pmd(
    dst_mm: mm_struct,
    src_mm: mm_struct,
    dst_pmd: pmd_p,
    src_pmd: pmd_p,
    addr: int,
    dst_vma: vm_area_struct,
    src_vma: vm_area_struct,
) -> int:
    """Share a huge page with the child, read-only in both; nothing for a file's, which a fault brings back.

    Returns 0, or -EAGAIN: it is no huge page any more, or may be pinned and was split.
    """
    if not vma_is_anonymous(dst_vma):
        return 0
    pgtable = pte_alloc_one(dst_mm)
    dst_ptl = pmd_lock(dst_mm, dst_pmd, addr)
    src_ptl = pmd_lockptr(src_mm, src_pmd, addr)
    spin_lock_nested(src_ptl)
    pmdval = pmdp_get_lockless(src_pmd)
    if is_pmd_migration_entry(pmdval):
        copy_huge_non_present_pmd(dst_mm, dst_pmd, src_pmd, addr, dst_vma, pmdval, pgtable)
        spin_unlock(src_ptl)
        spin_unlock(dst_ptl)
        return 0
    pinned = pmd_trans_huge(pmdval) and pmdval & SPECIAL == 0 and not dup_anon_rmap_pmd(dst_vma.vm_mm, src_mm, pmdval)
    if pinned or not pmd_trans_huge(pmdval):
        spin_unlock(src_ptl)
        spin_unlock(dst_ptl)
        pte_free(dst_mm, pgtable)
        if pinned:
            __split_huge_pmd(src_vma, src_pmd, addr)
        return -EAGAIN
    if pmdval & SPECIAL == 0:
        add(dst_mm.anon_rss, arch.hpage_pmd_nr)
        add(dst_mm.anon_huge, 1)
    mm_inc_nr_ptes(dst_mm)
    pgtable_trans_huge_deposit(dst_mm, dst_pmd, addr, pgtable)
    pmdp_set_wrprotect(src_pmd)
    if not userfaultfd_wp(dst_vma):
        pmdval &= ~UFFD_WP
    store(dst_pmd, pmdval & ~(RW | ACCESSED))
    spin_unlock(src_ptl)
    spin_unlock(dst_ptl)
    return 0


def copy_huge_non_present_pmd(
    dst_mm: mm_struct,
    dst_pmd: pmd_p,
    src_pmd: pmd_p,
    addr: int,
    dst_vma: vm_area_struct,
    pmdval: int,
    pgtable: ptdesc,
) -> None:
    """Share a huge page under migration with the child; both map it read-only in the end.  Under both pml."""
    if pmdval & (RW | MIGRATION_EXCLUSIVE):
        pmdval &= ~(RW | MIGRATION_EXCLUSIVE)
        store(src_pmd, pmdval)
    add(dst_mm.anon_rss, arch.hpage_pmd_nr)
    mm_inc_nr_ptes(dst_mm)
    pgtable_trans_huge_deposit(dst_mm, dst_pmd, addr, pgtable)
    store(dst_pmd, pmdval if userfaultfd_wp(dst_vma) else pmdval & ~UFFD_WP)


def dup_anon_rmap_pmd(dst_mm: mm_struct, src_mm: mm_struct, pmdval: int) -> bool:
    """One more huge pmd maps an anonymous page, no longer anybody's own; false if it may be pinned (mm/rmap.h)."""
    f = page_folio(pmd_page(pmdval))
    if load(page_flags(f.page)) & PAGE_ANON_EXCLUSIVE:
        if folio_needs_cow_for_dma(src_mm, f):
            return False
        store(page_flags(f.page), 0)
    folio_get(f)
    folio_dup_rmap_pmd(f, dst_mm)
    return True


def pmdp_set_wrprotect(pmd: pmd_p) -> None:
    """Take write permission from a live huge pmd without losing what the hardware sets meanwhile."""
    while True:
        pmdval = pmdp_get_lockless(pmd)
        if cmpxchg(pmd, pmdval, pmdval & ~RW) == pmdval:
            return
        forget(())


def madvise_free_huge_pmd(tlb: mmu_gather, vma: vm_area_struct, pmd: pmd_p, addr: int, end: int) -> bool:
    """MADV_FREE of a huge page, or of part of it, for which it is split; whether all is done."""
    tlb_change_page_size(tlb, arch.pmd_shift)
    pml = pmd_trans_huge_lock(vma.vm_mm, pmd, addr)
    if not pml:
        return False
    pmdval = pmdp_get_lockless(pmd)
    f = NO_FOLIO
    if pmd_present(pmdval) and pmdval & SPECIAL == 0:
        f = page_folio(pmd_page(pmdval))
    if not f or folio_maybe_mapped_shared(f) or not mutex_trylock(f.lock):
        spin_unlock(pml)
        return False
    if end - addr != arch.pmd_size:
        folio_get(f)
        spin_unlock(pml)
        split_folio(f)
        mutex_unlock(f.lock)
        folio_put(f)
        return False
    WRITE_ONCE(f, "flags", f.flags & ~(PG_DIRTY | PG_SWAPBACKED))
    mutex_unlock(f.lock)
    if pmdval & (ACCESSED | DIRTY):
        pmdval = pmdp_invalidate(pmd)
        store(pmd, pmdval & ~(ACCESSED | DIRTY))
        tlb_flush_range(tlb, addr, addr + arch.pmd_size)
    spin_unlock(pml)
    return True

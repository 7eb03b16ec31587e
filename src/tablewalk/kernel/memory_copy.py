# SPDX-License-Identifier: GPL-2.0-only
"""Copying page tables at fork (copy_page_range in mm/memory.c; 7.2).

Both mmap_locks are held for writing and the parent's VMA is write-locked, so the parent's tables are stable:
retraction leaves VMAs with an anon_vma alone, and only those (and guarded, special and uffd-wp ones) are copied.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    WRITE_ONCE,
    add,
    cmpxchg,
    forget,
    load,
    load_range,
    spin_lock_nested,
    spin_unlock,
    store,
)
from .huge_memory import copy_huge_pmd
from .mm_types import folio, vm_area_struct
from .mmu_notifier import (
    __mmu_notifier_invalidate_range_end,
    __mmu_notifier_invalidate_range_start,
    mm_has_notifiers,
)
from .page_alloc import (
    NO_FOLIO,
    PAGE_ANON_EXCLUSIVE,
    copy_page,
    folio_alloc,
    folio_get,
    folio_needs_cow_for_dma,
    folio_put,
    folio_test_anon,
    page_flags,
)
from .pgtable import (
    ACCESSED,
    DIRTY,
    MIGRATION_EXCLUSIVE,
    MKDIRTY,
    PRESENT,
    PROTNONE,
    PTE_MARKER_GUARD,
    PTE_MARKER_POISONED,
    PTE_MARKER_UFFD_WP,
    RW,
    SPECIAL,
    SWP_EXCLUSIVE,
    SWP_MARKER,
    SWP_MIGRATION,
    SWP_SWAP,
    UFFD_WP,
    make_pte_marker,
    maybe_mkwrite,
    mk_pte,
    p4d_addr_end,
    p4d_offset,
    page_folio,
    pgd_addr_end,
    pgd_offset,
    pmd_addr_end,
    pmd_is_table,
    pmd_offset,
    pmd_p,
    pte_p,
    pte_page,
    ptep_get,
    pud_addr_end,
    pud_offset,
    swp_offset,
    swp_type,
    vm_page_prot,
)
from .pgtable_generic import (
    p4d_alloc,
    pmd_alloc,
    pte_alloc_map_lock,
    pte_offset_map_rw_nolock,
    pte_unmap,
    pte_unmap_unlock,
    pud_alloc,
)
from .rmap import folio_add_new_anon_rmap, folio_dup_rmap_ptes, mm_counter_file
from .swapfile import swap_dup_entry_direct
from .userfaultfd_k import pte_mkuffd_wp
from .vm_flags import (
    EAGAIN,
    ENOMEM,
    VM_MAYBE_GUARD,
    VM_MAYWRITE,
    VM_MIXEDMAP,
    VM_PFNMAP,
    VM_SHARED,
    VM_UFFD_WP,
)

VM_COPY_ON_FORK: Final = VM_PFNMAP | VM_MIXEDMAP | VM_UFFD_WP | VM_MAYBE_GUARD



def is_cow_mapping(vm_flags: int) -> bool:
    """Private and possibly writable: both sides lose write permission at fork."""
    return vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE


def vma_needs_copy(dst_vma: vm_area_struct, src_vma: vm_area_struct) -> bool:
    """Whether the child needs the tables now, rather than faulting pages in later."""
    return dst_vma.vm_flags & VM_COPY_ON_FORK != 0 or bool(src_vma.anon_vma)


def copy_page_range(dst_vma: vm_area_struct, src_vma: vm_area_struct) -> int:
    """Give the child's VMA what the parent's maps, if it needs it.  Returns 0 or -ENOMEM."""
    if not vma_needs_copy(dst_vma, src_vma):
        return 0
    src_mm = src_vma.vm_mm
    is_cow = is_cow_mapping(src_vma.vm_flags)
    if is_cow:
        if mm_has_notifiers(src_mm):
            __mmu_notifier_invalidate_range_start(src_mm, src_vma.vm_start, src_vma.vm_end)
        WRITE_ONCE(src_mm, "write_protect_seq", src_mm.write_protect_seq + 1)
    ret = copy_pgd_range(dst_vma, src_vma)
    if is_cow:
        WRITE_ONCE(src_mm, "write_protect_seq", src_mm.write_protect_seq + 1)
        if mm_has_notifiers(src_mm):
            __mmu_notifier_invalidate_range_end(src_mm, src_vma.vm_start, src_vma.vm_end)
    return ret


def copy_pgd_range(dst_vma: vm_area_struct, src_vma: vm_area_struct) -> int:
    """Copy below each PGD entry of the VMA."""
    addr = src_vma.vm_start
    while addr < src_vma.vm_end:
        end = pgd_addr_end(addr, src_vma.vm_end)
        pgd = pgd_offset(src_vma.vm_mm, addr)
        if load(pgd) != 0:
            ret = copy_p4d_range(dst_vma, src_vma, pgd, addr, end)
            if ret:
                return ret
        addr = end
    return 0


def copy_p4d_range(dst_vma: vm_area_struct, src_vma: vm_area_struct, src_pgd: int, addr: int, end: int) -> int:
    """Copy below each P4D entry of a PGD entry's range."""
    dst_mm = dst_vma.vm_mm
    dst_pgd = pgd_offset(dst_mm, addr)
    p4d_alloc(dst_mm, dst_pgd, addr)
    while addr < end:
        next_ = p4d_addr_end(addr, end)
        p4d = p4d_offset(src_pgd, addr)
        if load(p4d) != 0:
            ret = copy_pud_range(dst_vma, src_vma, p4d_offset(dst_pgd, addr), p4d, addr, next_)
            if ret:
                return ret
        addr = next_
    return 0


def copy_pud_range(
    dst_vma: vm_area_struct, src_vma: vm_area_struct, dst_p4d: int, src_p4d: int, addr: int, end: int
) -> int:
    """Copy below each PUD entry of a P4D entry's range."""
    pud_alloc(dst_vma.vm_mm, dst_p4d, addr)
    while addr < end:
        next_ = pud_addr_end(addr, end)
        pud = pud_offset(src_p4d, addr)
        if load(pud) != 0:
            ret = copy_pmd_range(dst_vma, src_vma, pud_offset(dst_p4d, addr), pud, addr, next_)
            if ret:
                return ret
        addr = next_
    return 0


def copy_pmd_range(
    dst_vma: vm_area_struct, src_vma: vm_area_struct, dst_pud: int, src_pud: int, addr: int, end: int
) -> int:
    """Copy each PMD entry of a PUD entry's range; the child gets a PMD table even where all of them are empty."""
    pmd_alloc(dst_vma.vm_mm, dst_pud, addr)
    while addr < end:
        next_ = pmd_addr_end(addr, end)
        ret = copy_one_pmd(dst_vma, src_vma, pmd_offset(dst_pud, addr), pmd_offset(src_pud, addr), addr, next_)
        if ret:
            return ret
        addr = next_
    return 0


def copy_one_pmd(
    dst_vma: vm_area_struct, src_vma: vm_area_struct, dst_pmd: pmd_p, src_pmd: pmd_p, addr: int, end: int
) -> int:
    """Copy a huge page or a PTE table; a huge page that may be pinned has been split, and goes by entries."""
    pmdval = load(src_pmd)
    if pmdval != 0 and not pmd_is_table(pmdval):
        ret = copy_huge_pmd(dst_vma.vm_mm, src_vma.vm_mm, dst_pmd, src_pmd, addr, dst_vma, src_vma)
        if ret != -EAGAIN:
            return ret
    if load(src_pmd) == 0:
        return 0
    return copy_pte_range(dst_vma, src_vma, dst_pmd, src_pmd, addr, end)


def copy_pte_range(
    dst_vma: vm_area_struct, src_vma: vm_area_struct, dst_pmd: pmd_p, src_pmd: pmd_p, addr: int, end: int
) -> int:
    """Copy [addr, end) of one PTE table, allocating the child's even if all entries are none."""
    prealloc = NO_FOLIO
    while True:
        addr, ret = copy_ptes_locked(dst_vma, src_vma, dst_pmd, src_pmd, addr, end, prealloc)
        if ret != -EAGAIN:
            return ret
        prealloc = folio_alloc(0)
        forget((addr, prealloc))


def copy_ptes_locked(
    dst_vma: vm_area_struct,
    src_vma: vm_area_struct,
    dst_pmd: pmd_p,
    src_pmd: pmd_p,
    addr: int,
    end: int,
    prealloc: folio,
) -> tuple[int, int]:
    """One hold of both ptls.  Returns (address reached, 0), or -EAGAIN if a page to copy into is needed there."""
    dst_pte, dst_ptl = pte_alloc_map_lock(dst_vma.vm_mm, dst_pmd, addr)
    if not dst_pte:
        return addr, -ENOMEM
    src_pte, _, src_ptl = pte_offset_map_rw_nolock(src_vma.vm_mm, src_pmd, addr)
    if not src_pte:
        pte_unmap_unlock(dst_pte, dst_ptl)
        return end, 0
    if src_ptl != dst_ptl:
        spin_lock_nested(src_ptl)
    nr = end - addr >> arch.page_shift
    i = 0
    for i, entry in enumerate(load_range(src_pte, nr)):
        if entry == 0:
            continue
        address = addr + (i << arch.page_shift)
        if entry & (PRESENT | PROTNONE) == 0:
            copy_nonpresent_pte(dst_vma, src_vma, dst_pte + i, src_pte + i, entry)
        elif copy_present_pte(dst_vma, src_vma, dst_pte + i, src_pte + i, entry):
            if not prealloc:
                break
            copy_present_page(dst_vma, dst_pte + i, entry, address, prealloc)
            prealloc = NO_FOLIO
        elif prealloc:
            folio_put(prealloc)
            prealloc = NO_FOLIO
    else:
        i = nr
    if src_ptl != dst_ptl:
        spin_unlock(src_ptl)
    pte_unmap(src_pte)
    pte_unmap_unlock(dst_pte, dst_ptl)
    return addr + (i << arch.page_shift), 0 if i == nr else -EAGAIN


def copy_present_pte(
    dst_vma: vm_area_struct, src_vma: vm_area_struct, dst_pte: pte_p, src_pte: pte_p, entry: int
) -> bool:
    """Share a present entry; true if its page may be pinned, and must be copied instead."""
    dst_mm = dst_vma.vm_mm
    if entry & SPECIAL == 0:
        page = pte_page(entry)
        f = page_folio(page)
        folio_get(f)
        if folio_test_anon(f):
            if load(page_flags(page)) & PAGE_ANON_EXCLUSIVE:
                if folio_needs_cow_for_dma(src_vma.vm_mm, f):
                    folio_put(f)
                    return True
                store(page_flags(page), 0)
            add(dst_mm.anon_rss, 1)
        else:
            add(mm_counter_file(dst_mm, f), 1)
        folio_dup_rmap_ptes(f, page, 1, dst_mm)
    if entry & RW and is_cow_mapping(src_vma.vm_flags):
        ptep_set_wrprotect(src_pte)
        entry &= ~RW
    if src_vma.vm_flags & VM_SHARED:
        entry &= ~DIRTY
    if dst_vma.vm_flags & VM_UFFD_WP == 0:
        entry &= ~UFFD_WP
    store(dst_pte, entry & ~ACCESSED)
    return False


def ptep_set_wrprotect(ptep: pte_p) -> None:
    """Take write permission from a live entry without losing what the hardware sets meanwhile."""
    while True:
        entry = ptep_get(ptep)
        if cmpxchg(ptep, entry, entry & ~RW) == entry:
            return
        forget(())


def copy_present_page(dst_vma: vm_area_struct, dst_pte: pte_p, entry: int, address: int, new: folio) -> None:
    """Copy a pinned page into `new`, and map that for the child."""
    copy_page(new.page, pte_page(entry))
    folio_add_new_anon_rmap(new, dst_vma, address)
    add(dst_vma.vm_mm.anon_rss, 1)
    copied = maybe_mkwrite(mk_pte(new.page, vm_page_prot(dst_vma.vm_flags) | MKDIRTY), dst_vma.vm_flags)
    if dst_vma.vm_flags & VM_UFFD_WP:
        copied = pte_mkuffd_wp(copied) if entry & UFFD_WP else copied
    store(dst_pte, copied)


def copy_nonpresent_pte(
    dst_vma: vm_area_struct, src_vma: vm_area_struct, dst_pte: pte_p, src_pte: pte_p, entry: int
) -> None:
    """Copy a marker, or an entry of a page swapped out or under migration, which becomes shared."""
    kind = swp_type(entry)
    if kind == SWP_MARKER:
        marker = copy_pte_marker(entry, dst_vma)
        if marker:
            store(dst_pte, make_pte_marker(marker))
        return
    if kind == SWP_MIGRATION:
        f = page_folio(swp_offset(entry))
        anon = folio_test_anon(f)
        add(dst_vma.vm_mm.anon_rss if anon else mm_counter_file(dst_vma.vm_mm, f), 1)
        if entry & (RW | MIGRATION_EXCLUSIVE) and is_cow_mapping(src_vma.vm_flags):
            entry &= ~(RW | MIGRATION_EXCLUSIVE)
            store(src_pte, entry)
    elif kind == SWP_SWAP:
        swap_dup_entry_direct(swp_offset(entry))
        add(dst_vma.vm_mm.swapents, 1)
        if entry & SWP_EXCLUSIVE:
            entry &= ~SWP_EXCLUSIVE
            store(src_pte, entry)
    store(dst_pte, entry if dst_vma.vm_flags & VM_UFFD_WP else entry & ~UFFD_WP)


def copy_pte_marker(entry: int, dst_vma: vm_area_struct) -> int:
    """The bits of a marker that the child keeps: poison and guard always, uffd-wp if it is registered too."""
    kept = PTE_MARKER_POISONED | PTE_MARKER_GUARD
    if dst_vma.vm_flags & VM_UFFD_WP:
        kept |= PTE_MARKER_UFFD_WP
    return swp_offset(entry) & kept



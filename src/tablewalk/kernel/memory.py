# SPDX-License-Identifier: GPL-2.0-only
"""Page faults of anonymous memory, and those on present entries (mm/memory.c; 7.2).

`memory_file` has the faults of file mappings, `memory_zap` unmapping, `memory_copy` fork's copying.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import (
    PAGE_FAULTS,
    READ_ONCE,
    add,
    count,
    load,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    spin_lock,
    spin_unlock,
    store,
)
from .huge_memory import create_huge_pmd, huge_pmd_fault, thp_vma_allowable_pmd
from .memory_file import do_fault
from .mm_types import folio, vm_area_struct
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .page_alloc import (
    FOLIO_MAPPING_ANON,
    MAPPING_SHIFT,
    NO_FOLIO,
    PAGE_ANON_EXCLUSIVE,
    PG_SWAPCACHE,
    copy_page,
    folio_alloc,
    folio_get,
    folio_mapcount,
    folio_mark_dirty,
    folio_put,
    folio_put_refs,
    folio_ref_count,
    folio_test_anon,
    folio_test_ksm,
    page_flags,
    zero_page,
)
from .pgtable import (
    ACCESSED,
    LEAF,
    MKDIRTY,
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    PTE_MARKER_UFFD_WP,
    RW,
    SOFT_DIRTY,
    SPECIAL,
    UFFD_WP,
    maybe_mkwrite,
    mm_find_pmd,
    page_folio,
    pmdp_get_lockless,
    pte_marker,
    pte_page,
    ptep_get,
    ptep_get_and_clear,
    ptep_get_lockless,
    vm_page_prot,
)
from .pgtable_generic import (
    pte_alloc,
    pte_offset_map_lock,
    pte_offset_map_rw_nolock,
    pte_unmap,
    pte_unmap_unlock,
    walk_to_pmd,
)
from .rmap import folio_add_new_anon_rmap, folio_remove_rmap_pte, mm_counter_file, vmf_anon_prepare
from .swap_pte import do_swap_page
from .swapfile import folio_free_swap
from .tlb import flush_tlb_range
from .userfaultfd_fault import handle_userfault
from .userfaultfd_k import pte_mkuffd_wp, userfaultfd_missing, userfaultfd_wp, userfaultfd_wp_async
from .vm_fault import vm_fault
from .vm_flags import (
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_WRITE,
    VM_FAULT_FALLBACK,
    VM_SHARED,
    VM_SPECIAL_MAPPING,
    VM_UFFD_MISSING,
    VM_UFFD_WP,
    VM_WRITE,
)


def handle_mm_fault(vma: vm_area_struct, address: int, flags: int) -> int:
    """Serve a fault that the VMA allows; mmap_lock or the VMA's lock is held.  Returns VM_FAULT_* bits."""
    count(PAGE_FAULTS)
    mm = vma.vm_mm
    address &= -arch.page_size
    pmd = mm_find_pmd(mm, address) or walk_to_pmd(mm, address)
    vmf = vm_fault(vma, address, flags, pmd)
    pmdval = pmdp_get_lockless(pmd)
    if pmdval & (PRESENT | LEAF) != PRESENT:
        if pmdval != 0:
            ret = huge_pmd_fault(vmf, pmdval)
            if ret & VM_FAULT_FALLBACK == 0:
                return ret
        elif thp_vma_allowable_pmd(vma, vma.vm_flags):
            ret = create_huge_pmd(vmf)
            if ret & VM_FAULT_FALLBACK == 0:
                return ret
    return handle_pte_fault(vmf)


def handle_pte_fault(vmf: vm_fault) -> int:
    """Serve a fault at PTE level."""
    vma = vmf.vma
    if pmdp_get_lockless(vmf.pmd) == 0:
        return do_pte_missing(vmf)
    pte, _, ptl = pte_offset_map_rw_nolock(vma.vm_mm, vmf.pmd, vmf.address)
    if not pte:
        return 0
    entry = ptep_get_lockless(pte)
    if entry == 0:
        pte_unmap(pte)
        return do_pte_missing(vmf)
    if entry & (PRESENT | PROTNONE) == 0:
        pte_unmap(pte)
        if userfaultfd_wp(vma) and pte_marker(entry) == PTE_MARKER_UFFD_WP:
            return do_pte_missing(vm_fault(vma, vmf.address, vmf.flags, vmf.pmd, entry))
        return do_swap_page(vmf, entry)
    spin_lock(ptl)
    if ptep_get(pte) != entry:
        pte_unmap_unlock(pte, ptl)
        return 0
    if vmf.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE) and entry & RW == 0:
        return do_wp_page(vmf, pte, ptl, entry)
    young = entry | ACCESSED | (MKDIRTY if vmf.flags & FAULT_FLAG_WRITE else 0)
    if young != entry:
        store(pte, young)
    pte_unmap_unlock(pte, ptl)
    return 0


def do_pte_missing(vmf: vm_fault) -> int:
    """Nothing is mapped."""
    vma = vmf.vma
    if not vma.vm_file and vma.vm_flags & (VM_SHARED | VM_SPECIAL_MAPPING) == 0:
        return do_anonymous_page(vmf)
    return do_fault(vmf)


def do_anonymous_page(vmf: vm_fault) -> int:
    """Map the zero page for a read, a new page for a write."""
    vma = vmf.vma
    mm = vma.vm_mm
    pte_alloc(mm, vmf.pmd, vmf.address)
    if vmf.flags & FAULT_FLAG_WRITE == 0:
        pte, ptl = pte_offset_map_lock(mm, vmf.pmd, vmf.address)
        if not pte:
            return 0
        same = ptep_get(pte) == vmf.orig_pte
        missing = same and userfaultfd_missing(vma)
        if same and not missing:
            wp = UFFD_WP if vmf.orig_pte else 0
            store(pte, zero_page() << PFN_SHIFT | vm_page_prot(vma.vm_flags) & ~RW | SPECIAL | ACCESSED | wp)
        pte_unmap_unlock(pte, ptl)
        return handle_userfault(vmf, VM_UFFD_MISSING) if missing else 0
    ret = vmf_anon_prepare(vmf)
    if ret:
        return ret
    new = folio_alloc(0)
    entry = new.page << PFN_SHIFT | vm_page_prot(vma.vm_flags) | ACCESSED
    if vma.vm_flags & VM_WRITE:
        entry |= RW | MKDIRTY
    if vmf.orig_pte:
        entry = pte_mkuffd_wp(entry)
    pte, ptl = pte_offset_map_lock(mm, vmf.pmd, vmf.address)
    if not pte:
        folio_put(new)
        return 0
    if load(pte) != vmf.orig_pte:
        pte_unmap_unlock(pte, ptl)
        folio_put(new)
        return 0
    if userfaultfd_missing(vma):
        pte_unmap_unlock(pte, ptl)
        folio_put(new)
        return handle_userfault(vmf, VM_UFFD_MISSING)
    add(mm.anon_rss, 1)
    folio_add_new_anon_rmap(new, vma, vmf.address)
    store(pte, entry)
    pte_unmap_unlock(pte, ptl)
    return 0


def do_wp_page(vmf: vm_fault, pte: int, ptl: int, entry: int) -> int:
    """A write (or unshare) fault on a present entry without write permission; ptl is held, and released here."""
    vma = vmf.vma
    if userfaultfd_wp(vma) and vmf.flags & FAULT_FLAG_UNSHARE == 0:
        if entry & UFFD_WP:
            if not userfaultfd_wp_async(vma):
                pte_unmap_unlock(pte, ptl)
                return handle_userfault(vmf, VM_UFFD_WP)
            entry &= ~UFFD_WP
            store(pte, entry)
        flush_tlb_before_copy(vmf)
    page = 0 if entry & SPECIAL else pte_page(entry)
    if vma.vm_flags & VM_SHARED:
        return wp_page_shared(vmf, pte, ptl, entry, page)
    if page and wp_is_exclusive(page, vma):
        store(page_flags(page), PAGE_ANON_EXCLUSIVE)
        if vmf.flags & FAULT_FLAG_UNSHARE == 0:
            wp_page_reuse(vma, pte, entry)
        pte_unmap_unlock(pte, ptl)
        return 0
    if page:
        folio_get(page_folio(page))
    pte_unmap_unlock(pte, ptl)
    return wp_page_copy(vmf, entry, page)


def flush_tlb_before_copy(vmf: vm_fault) -> None:
    """UFFDIO_WRITEPROTECT flushes after it has dropped ptl: nobody may write any more to what is copied now."""
    mm = vmf.vma.vm_mm
    if load(mm.tlb_flush_pending):
        flush_tlb_range(mm, vmf.address, vmf.address + arch.page_size)


def wp_is_exclusive(page: int, vma: vm_area_struct) -> bool:
    """Whether an anonymous page belongs to this mapping alone."""
    f = page_folio(page)
    if not folio_test_anon(f):
        return False
    return load(page_flags(page)) & PAGE_ANON_EXCLUSIVE != 0 or wp_can_reuse_anon_folio(f, vma)


def wp_page_reuse(vma: vm_area_struct, pte: int, entry: int) -> None:
    """Make the entry writable in place; under ptl."""
    store(pte, maybe_mkwrite(entry | MKDIRTY | ACCESSED, vma.vm_flags))


def wp_page_shared(vmf: vm_fault, pte: int, ptl: int, entry: int, page: int) -> int:
    """First write through a read-only entry of a shared mapping: tell the file system, then make it writable."""
    vma = vmf.vma
    if not page or not vma.vm_file or vma.vm_file.f_mapping.shmem:
        wp_page_reuse(vma, pte, entry)
        pte_unmap_unlock(pte, ptl)
        return 0
    f = page_folio(page)
    folio_get(f)
    pte_unmap_unlock(pte, ptl)
    mutex_lock(f.lock)
    if f.mapping != vma.vm_file.f_mapping.addr << MAPPING_SHIFT:
        mutex_unlock(f.lock)
        folio_put(f)
        return 0
    pte, ptl = pte_offset_map_lock(vma.vm_mm, vmf.pmd, vmf.address)
    if pte:
        if ptep_get(pte) == entry:
            wp_page_reuse(vma, pte, entry)
            folio_mark_dirty(f)
        pte_unmap_unlock(pte, ptl)
    mutex_unlock(f.lock)
    folio_put(f)
    return 0


def wp_can_reuse_anon_folio(f: folio, vma: vm_area_struct) -> bool:
    """Whether this mapping is the only reference of an anonymous folio; if so it becomes this VMA's."""
    if f.order:
        return __wp_can_reuse_large_anon_folio(f)
    if folio_test_ksm(f) or folio_ref_count(f) > (2 if f.flags & PG_SWAPCACHE else 1):
        return False
    if not mutex_trylock(f.lock):
        return False
    folio_free_swap(f)
    reuse = folio_ref_count(f) == 1
    if reuse:
        f.mapping = vma.anon_vma.addr << MAPPING_SHIFT | FOLIO_MAPPING_ANON
    mutex_unlock(f.lock)
    return reuse


def __wp_can_reuse_large_anon_folio(f: folio) -> bool:
    """The same for a large folio: whether this mm maps it alone, more than one page of it, and nobody else has it."""
    if folio_mapcount(f) <= 1 or READ_ONCE(f, "_mm_ids_shared"):
        return False
    if f.flags & PG_SWAPCACHE:
        if not mutex_trylock(f.lock):
            return False
        folio_free_swap(f)
        mutex_unlock(f.lock)
    if folio_mapcount(f) != folio_ref_count(f):
        return False
    spin_lock(f._mm_ids_lock)
    alone = READ_ONCE(f, "_mm_ids_shared") == 0 and folio_mapcount(f) == folio_ref_count(f)
    spin_unlock(f._mm_ids_lock)
    return alone


def wp_page_copy(vmf: vm_fault, entry: int, page: int) -> int:
    """Give the VMA its own copy of a page (`page` 0: the zero page); the caller's reference on it is dropped."""
    vma = vmf.vma
    mm = vma.vm_mm
    old = page_folio(page) if page else NO_FOLIO
    ret = vmf_anon_prepare(vmf)
    if ret:
        if old:
            folio_put(old)
        return ret
    new = folio_alloc(0)
    if old:
        copy_page(new.page, page)
    start = vmf.address & -arch.page_size
    mmu_notifier_invalidate_range_start(vma, start, start + arch.page_size)
    pte, ptl = pte_offset_map_lock(mm, vmf.pmd, vmf.address)
    copied = False
    if pte:
        copied = ptep_get(pte) == entry
        if copied:
            wp_page_install(vmf, pte, entry, old, new)
        pte_unmap_unlock(pte, ptl)
    mmu_notifier_invalidate_range_end(vma, start, start + arch.page_size)
    if not copied:
        folio_put(new)
        if old:
            folio_put(old)
    elif old:
        folio_put_refs(old, 2)
    return 0


def wp_page_install(vmf: vm_fault, pte: int, entry: int, old: folio, new: folio) -> None:
    """Replace the entry by the copy: clear, flush, map, and only then drop the old mapping; under ptl."""
    vma = vmf.vma
    mm = vma.vm_mm
    if not old:
        add(mm.anon_rss, 1)
    elif not folio_test_anon(old):
        add(mm_counter_file(mm, old), -1)
        add(mm.anon_rss, 1)
    copy = new.page << PFN_SHIFT | vm_page_prot(vma.vm_flags) | ACCESSED
    if vmf.flags & FAULT_FLAG_UNSHARE:
        copy |= entry & (SOFT_DIRTY | UFFD_WP)
    else:
        copy = maybe_mkwrite(copy | MKDIRTY, vma.vm_flags)
    ptep_get_and_clear(pte)
    flush_tlb_range(mm, vmf.address, vmf.address + arch.page_size)
    folio_add_new_anon_rmap(new, vma, vmf.address)
    store(pte, copy)
    if old:
        folio_remove_rmap_pte(old, pte_page(entry), vma)

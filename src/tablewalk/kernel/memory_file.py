# SPDX-License-Identifier: GPL-2.0-only
"""Page faults of file mappings (do_fault and below in mm/memory.c; 7.2)."""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import add, load, mutex_lock, mutex_unlock, store
from .config import config
from .filemap import (
    file_pte_flags,
    filemap_fault,
    filemap_map_pages,
    folio_file_page,
    folio_next_index,
    i_size_pages,
    page_cache_present,
)
from .huge_pmd import do_set_pmd
from .mm_types import folio, ptdesc
from .page_alloc import (
    MAPPING_SHIFT,
    NO_FOLIO,
    PAGE_CELLS,
    copy_page,
    folio_alloc,
    folio_mark_dirty,
    folio_nr_pages,
    folio_page,
    folio_page_idx,
    folio_put,
)
from .pgtable import (
    ACCESSED,
    MKDIRTY,
    PFN_SHIFT,
    SPECIAL,
    maybe_mkwrite,
    page_t,
    pmdp_get_lockless,
    pte_index,
    ptep_get,
    ptes_none,
    vm_page_prot,
)
from .pgtable_generic import (
    NO_TABLE,
    pmd_install,
    pte_alloc,
    pte_alloc_map_lock,
    pte_alloc_one,
    pte_free,
    pte_offset_map_lock,
    pte_unmap_unlock,
)
from .rmap import folio_add_new_anon_rmap, folio_add_rmap_ptes, mm_counter_file, vma_pages, vmf_anon_prepare
from .shmem import shmem_fault
from .userfaultfd_k import pte_mkuffd_wp, uffd_disable_fault_around, userfaultfd_armed
from .vm_fault import vm_fault
from .vm_flags import (
    FAULT_FLAG_WRITE,
    VM_FAULT_ERROR,
    VM_FAULT_FALLBACK,
    VM_FAULT_NOPAGE,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_PFNMAP,
    VM_SHARED,
    VM_SPECIAL_MAPPING,
)

FAILED: Final = VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_RETRY


def do_fault(vmf: vm_fault) -> int:
    """Serve a fault of a file mapping where no entry is.  Returns VM_FAULT bits."""
    vma = vmf.vma
    if not vma.vm_file:
        return special_mapping_fault(vmf)
    if vmf.flags & FAULT_FLAG_WRITE == 0:
        ret, prealloc = do_read_fault(vmf)
        if prealloc:
            pte_free(vma.vm_mm, prealloc)
        return ret & ~VM_FAULT_NOPAGE
    if vma.vm_flags & VM_SHARED == 0:
        return do_cow_fault(vmf) & ~VM_FAULT_NOPAGE
    return do_shared_fault(vmf) & ~VM_FAULT_NOPAGE


def __do_fault(vmf: vm_fault) -> tuple[int, folio]:
    """(VM_FAULT bits, the page's folio locked and referenced) from the file's ->fault."""
    if vmf.vma.vm_file.f_mapping.shmem:
        return shmem_fault(vmf)
    return filemap_fault(vmf)


def do_fault_around(vmf: vm_fault) -> tuple[int, ptdesc]:
    """Map what is cached around the fault, within its table and VMA; (VM_FAULT bits, table not used)."""
    vma = vmf.vma
    nr_pages = config.fault_around_bytes >> arch.page_shift
    pte_off = pte_index(vmf.address)
    vma_off = vmf.pgoff - vma.vm_pgoff
    from_pte = max(pte_off & -nr_pages, pte_off - min(pte_off, vma_off))
    to_pte = min(from_pte + nr_pages, arch.ptrs_per_pte, pte_off + vma_pages(vma) - vma_off) - 1
    prealloc = NO_TABLE
    if pmdp_get_lockless(vmf.pmd) == 0:
        prealloc = pte_alloc_one(vma.vm_mm)
    first = vmf.pgoff + from_pte - pte_off
    last = vmf.pgoff + to_pte - pte_off
    page_cache_present(vma.vm_file.f_mapping, first, last)
    return filemap_map_pages(vmf, first, last, prealloc)


def do_read_fault(vmf: vm_fault) -> tuple[int, ptdesc]:
    """A read fault, around it first; (VM_FAULT bits, table not used)."""
    prealloc = NO_TABLE
    if config.fault_around_bytes > arch.page_size and not uffd_disable_fault_around(vmf.vma):
        ret, prealloc = do_fault_around(vmf)
        if ret:
            return ret, prealloc
    ret, f = __do_fault(vmf)
    if ret & FAILED:
        return ret, prealloc
    ret, prealloc = finish_fault(vmf, folio_file_page(f, vmf.pgoff), prealloc)
    mutex_unlock(f.lock)
    if ret & FAILED:
        folio_put(f)
    return ret, prealloc


def do_cow_fault(vmf: vm_fault) -> int:
    """A write fault of a private mapping: map a copy of the page."""
    ret = vmf_anon_prepare(vmf)
    if ret:
        return ret
    cow = folio_alloc(0)
    ret, f = __do_fault(vmf)
    if ret & FAILED:
        folio_put(cow)
        return ret
    copy_page(cow.page, folio_file_page(f, vmf.pgoff))
    ret = finish_cow_fault(vmf, cow)
    mutex_unlock(f.lock)
    folio_put(f)
    if ret & FAILED:
        folio_put(cow)
    return ret


def finish_cow_fault(vmf: vm_fault, cow: folio) -> int:
    """finish_fault for the private copy of a page."""
    vma = vmf.vma
    mm = vma.vm_mm
    pte, ptl = pte_alloc_map_lock(mm, vmf.pmd, vmf.address)
    if not pte:
        return VM_FAULT_NOPAGE
    if ptep_get(pte) != vmf.orig_pte:
        pte_unmap_unlock(pte, ptl)
        return VM_FAULT_NOPAGE
    folio_add_new_anon_rmap(cow, vma, vmf.address)
    entry = maybe_mkwrite(cow.page << PFN_SHIFT | vm_page_prot(vma.vm_flags) | ACCESSED | MKDIRTY, vma.vm_flags)
    store(pte, pte_mkuffd_wp(entry) if vmf.orig_pte else entry)
    add(mm.anon_rss, 1)
    pte_unmap_unlock(pte, ptl)
    return 0


def do_shared_fault(vmf: vm_fault) -> int:
    """A write fault of a shared mapping: the file learns of it, the page becomes dirty."""
    ret, f = __do_fault(vmf)
    if ret & FAILED:
        return ret
    mapping = vmf.vma.vm_file.f_mapping
    if not mapping.shmem:
        mutex_unlock(f.lock)
        if not page_mkwrite(vmf, f):
            folio_put(f)
            return 0
    ret, prealloc = finish_fault(vmf, folio_file_page(f, vmf.pgoff), NO_TABLE)
    if prealloc:
        pte_free(vmf.vma.vm_mm, prealloc)
    if ret & FAILED == 0:
        folio_mark_dirty(f)
    mutex_unlock(f.lock)
    if ret & FAILED:
        folio_put(f)
    return ret


def page_mkwrite(vmf: vm_fault, f: folio) -> bool:
    """The file system makes room for a write to the page, and locks it; false if it was truncated meanwhile."""
    mutex_lock(f.lock)
    if f.mapping == vmf.vma.vm_file.f_mapping.addr << MAPPING_SHIFT:
        return True
    mutex_unlock(f.lock)
    return False


def finish_fault(vmf: vm_fault, page: page_t, prealloc: ptdesc) -> tuple[int, ptdesc]:
    """Map a page of a locked file folio, or the folio whole where it fits; (VM_FAULT bits, table not used).

    The caller's reference goes to the entry on success.
    """
    vma = vmf.vma
    mm = vma.vm_mm
    f = folio(load(page))
    mapping = vma.vm_file.f_mapping
    single = not mapping.shmem and i_size_pages(mapping) < folio_next_index(f)
    if pmdp_get_lockless(vmf.pmd) == 0:
        if not single and f.order >= arch.pte_bits:
            ret, prealloc = do_set_pmd(vmf, f, prealloc)
            if ret != VM_FAULT_FALLBACK:
                return ret, prealloc
        if prealloc:
            if pmd_install(mm, vmf.pmd, vmf.address, prealloc):
                prealloc = NO_TABLE
        else:
            pte_alloc(mm, vmf.pmd, vmf.address)
    nr_pages = 1 if single or userfaultfd_armed(vma) else folio_nr_pages(f)
    if nr_pages > 1:
        ret, whole = map_whole_folio(vmf, f, page, nr_pages)
        if whole:
            return ret, prealloc
    pte, ptl = pte_offset_map_lock(mm, vmf.pmd, vmf.address)
    if not pte:
        return VM_FAULT_NOPAGE, prealloc
    ret = VM_FAULT_NOPAGE
    if ptep_get(pte) == vmf.orig_pte:
        set_pte_range(vmf, f, page, 1, pte)
        ret = 0
    pte_unmap_unlock(pte, ptl)
    return ret, prealloc


def map_whole_folio(vmf: vm_fault, f: folio, page: page_t, nr_pages: int) -> tuple[int, bool]:
    """Map a large folio if it fits table and VMA and nothing is in its way; (VM_FAULT bits, whether done)."""
    vma = vmf.vma
    idx = folio_page_idx(f, page)
    vma_off = vmf.pgoff - vma.vm_pgoff
    pte_off = pte_index(vmf.address)
    rest = nr_pages - idx
    if vma_off < idx or vma_off + rest > vma_pages(vma) or pte_off < idx or pte_off + rest > arch.ptrs_per_pte:
        return 0, False
    pte, ptl = pte_offset_map_lock(vma.vm_mm, vmf.pmd, vmf.address - (idx << arch.page_shift))
    if not pte:
        return VM_FAULT_NOPAGE, True
    fits = ptes_none(pte, nr_pages)
    if fits:
        add(f._refcount, nr_pages - 1)
        set_pte_range(vmf, f, folio_page(f, 0), nr_pages, pte)
    pte_unmap_unlock(pte, ptl)
    return 0, fits


def set_pte_range(vmf: vm_fault, f: folio, page: page_t, nr: int, pte: int) -> None:
    """Map `nr` pages of a file folio; under ptl, the references are the caller's."""
    vma = vmf.vma
    entry = page << PFN_SHIFT | file_pte_flags(vma, f)
    if vmf.flags & FAULT_FLAG_WRITE:
        entry = maybe_mkwrite(entry | MKDIRTY, vma.vm_flags)
    if vmf.orig_pte:
        entry = pte_mkuffd_wp(entry)
    folio_add_rmap_ptes(f, page, nr, vma)
    add(mm_counter_file(vma.vm_mm, f), nr)
    for i in range(nr):
        store(pte + i, entry + (PAGE_CELLS * i << PFN_SHIFT))


def special_mapping_fault(vmf: vm_fault) -> int:
    """vdso: a page of the kernel's, counted as file memory; vvar: a bare frame number, which nothing counts."""
    vma = vmf.vma
    if vma.vm_flags & VM_SPECIAL_MAPPING == 0:
        return VM_FAULT_SIGBUS
    bare = vma.vm_flags & VM_PFNMAP != 0
    f = NO_FOLIO if bare else folio_alloc(0)
    pte, ptl = pte_alloc_map_lock(vma.vm_mm, vmf.pmd, vmf.address)
    taken = not pte or ptep_get(pte) != 0
    if not taken:
        flags = vm_page_prot(vma.vm_flags) | ACCESSED
        if bare:
            store(pte, vmf.address >> arch.page_shift << PFN_SHIFT | flags | SPECIAL)
        else:
            store(pte, f.page << PFN_SHIFT | flags)
            folio_add_rmap_ptes(f, f.page, 1, vma)
            add(vma.vm_mm.file_rss, 1)
    if pte:
        pte_unmap_unlock(pte, ptl)
    if taken and f:
        folio_put(f)
    return 0

# SPDX-License-Identifier: GPL-2.0-only
"""Getting user pages, with locks and without, and populating (mm/gup.c; 7.2)."""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import READ_ONCE, WRITE_ONCE, forget, load, local_irq_restore, local_irq_save, spin_unlock, store
from .config import config
from .huge_pmd import __split_huge_pmd
from .memory import handle_mm_fault
from .mm_types import mm_struct, vm_area_struct
from .mmap_lock import mmap_read_lock, mmap_read_unlock
from .page_alloc import PAGE_CELLS, PG_DIRTY, folio_get, folio_put, folio_try_get
from .pgtable import (
    ACCESSED,
    DIRTY,
    LEAF,
    MKDIRTY,
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    RW,
    SPECIAL,
    mm_find_pmd,
    page_folio,
    page_t,
    pmd_p,
    pmdp_get_lockless,
    pte_index,
    ptep_get,
    ptep_get_lockless,
)
from .pgtable_generic import pmd_lock, pte_alloc, pte_offset_map, pte_offset_map_lock, pte_unmap, pte_unmap_unlock
from .vm_flags import (
    EFAULT,
    EHWPOISON,
    ENOMEM,
    EUSERFAULT,
    FAULT_FLAG_ALLOW_RETRY,
    FAULT_FLAG_REMOTE,
    FAULT_FLAG_WRITE,
    VM_ACCESS_FLAGS,
    VM_FAULT_ERROR,
    VM_FAULT_HWPOISON,
    VM_FAULT_OOM,
    VM_FAULT_USERFAULT,
    VM_IO,
    VM_LOCKONFAULT,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)
from .vma import find_vma

FOLL_WRITE: Final = 1
FOLL_GET: Final = 2
FOLL_FORCE: Final = 4
FOLL_HWPOISON: Final = 8  # poisoned memory is told by an errno of its own
FOLL_UNLOCKABLE: Final = 16  # mmap_lock may be dropped to wait
FOLL_SPLIT_PMD: Final = 32  # a huge page is split first: uprobes


def check_vma_flags(vma: vm_area_struct, gup_flags: int) -> int:
    """0 if pages of the VMA may be got with these flags, -EFAULT otherwise."""
    vm_flags = vma.vm_flags
    if vm_flags & (VM_IO | VM_PFNMAP):
        return -EFAULT
    needed = VM_WRITE if gup_flags & FOLL_WRITE else VM_READ
    if vm_flags & needed:
        return 0
    if gup_flags & FOLL_FORCE == 0 or gup_flags & FOLL_WRITE:
        return -EFAULT
    return 0 if vm_flags & VM_ACCESS_FLAGS else -EFAULT


def follow_page_mask(vma: vm_area_struct, address: int, gup_flags: int) -> tuple[page_t, int]:
    """(page mapped at `address` so that it serves the flags, else 0; bytes up to the end of its mapping, or -errno)."""
    pmd = mm_find_pmd(vma.vm_mm, address)
    if not pmd:
        return 0, 0
    pmdval = pmdp_get_lockless(pmd)
    if pmdval & LEAF and pmdval & (PRESENT | PROTNONE):
        if gup_flags & FOLL_SPLIT_PMD:
            return follow_split_pmd(vma, address, pmd, gup_flags)
        return follow_huge_pmd(vma, address, pmd, gup_flags)
    if pmdval & (PRESENT | LEAF) != PRESENT:
        return 0, 0
    return follow_page_pte(vma, address, pmd, gup_flags), arch.page_size


def serves(entry: int, gup_flags: int) -> bool:
    """Whether a present entry is enough for the flags."""
    needed = PRESENT | RW if gup_flags & FOLL_WRITE else PRESENT
    return entry & needed == needed


def follow_page_pte(vma: vm_area_struct, address: int, pmd: pmd_p, gup_flags: int) -> page_t:
    """The page of a PTE, with a reference if FOLL_GET; 0 if a fault is needed."""
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, address)
    if not pte:
        return 0
    entry = ptep_get(pte)
    page = entry >> PFN_SHIFT if serves(entry, gup_flags) else 0
    if page:
        f = page_folio(page)
        if gup_flags & FOLL_WRITE and entry & DIRTY == 0:
            WRITE_ONCE(f, "flags", f.flags | PG_DIRTY)
        if gup_flags & FOLL_GET:
            folio_get(f)
    pte_unmap_unlock(pte, ptl)
    return page


def follow_split_pmd(vma: vm_area_struct, address: int, pmd: pmd_p, gup_flags: int) -> tuple[page_t, int]:
    """The same of a huge pmd that is split; that of a file is empty then, and gets a table."""
    __split_huge_pmd(vma, pmd, address)
    pte_alloc(vma.vm_mm, pmd, address)
    return follow_page_pte(vma, address, pmd, gup_flags), arch.page_size


def follow_huge_pmd(vma: vm_area_struct, address: int, pmd: pmd_p, gup_flags: int) -> tuple[page_t, int]:
    """The same for a huge pmd."""
    pml = pmd_lock(vma.vm_mm, pmd, address)
    entry = ptep_get(pmd)
    page = 0
    if entry & LEAF and serves(entry, gup_flags):
        page = (entry >> PFN_SHIFT) + PAGE_CELLS * pte_index(address)
        touched = entry | ACCESSED | MKDIRTY if gup_flags & FOLL_WRITE else entry | ACCESSED
        if touched != entry:
            store(pmd, touched)
        if gup_flags & FOLL_GET:
            folio_get(page_folio(page))
    spin_unlock(pml)
    return page, arch.pmd_size - (address & arch.pmd_size - 1)


def faultin_page(vma: vm_area_struct, address: int, gup_flags: int) -> int:
    """Fault a page in; 0 to look again, or -errno (-EUSERFAULT: the kernel would wait here)."""
    flags = FAULT_FLAG_REMOTE | (FAULT_FLAG_WRITE if gup_flags & FOLL_WRITE else 0)
    flags |= FAULT_FLAG_ALLOW_RETRY if gup_flags & FOLL_UNLOCKABLE else 0
    ret = handle_mm_fault(vma, address, flags)
    if ret & VM_FAULT_USERFAULT:
        return -EUSERFAULT
    if ret & VM_FAULT_ERROR == 0:
        return 0
    if ret & VM_FAULT_OOM:
        return -ENOMEM
    return -EHWPOISON if ret & VM_FAULT_HWPOISON and gup_flags & FOLL_HWPOISON else -EFAULT


def get_page(vma: vm_area_struct, address: int, gup_flags: int) -> tuple[page_t, int]:
    """Follow or fault until the page is there: (page, bytes to the end of its mapping), or (0, -errno)."""
    while True:
        page, size = follow_page_mask(vma, address, gup_flags)
        if page or size < 0:
            return page, size
        error = faultin_page(vma, address, gup_flags)
        if error:
            return 0, error
        forget(())


def touch_range(vma: vm_area_struct, start: int, end: int, gup_flags: int) -> int:
    """Fault in [start, end) of one VMA: pages done before the first that cannot be, or -errno if that is the first."""
    error = check_vma_flags(vma, gup_flags)
    if error:
        return error
    address = start
    while address < end:
        page, size = get_page(vma, address, gup_flags)
        if not page:
            return size if address == start else address - start >> arch.page_shift
        address += size
        forget((address,))
    return end - start >> arch.page_shift


def populate_vma_page_range(vma: vm_area_struct, start: int, end: int, unlockable: bool) -> int:
    """Fault in what mlock or MAP_POPULATE wants of one VMA; pages, or -errno.

    mmap_lock is held; `unlockable`: it may be dropped to wait for a userfaultfd.
    """
    vm_flags = vma.vm_flags
    if vm_flags & VM_LOCKONFAULT:
        return end - start >> arch.page_shift
    gup_flags = FOLL_WRITE if vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE else 0
    gup_flags |= FOLL_UNLOCKABLE if unlockable else 0
    if vm_flags & VM_ACCESS_FLAGS:
        gup_flags |= FOLL_FORCE
    return touch_range(vma, start, end, gup_flags)


def faultin_page_range(mm: mm_struct, start: int, end: int, write: bool) -> int:
    """MADV_POPULATE_READ and _WRITE within one VMA: pages done, or -errno.  mmap_lock is held."""
    return touch_range(find_vma(mm, start), start, end, FOLL_UNLOCKABLE | FOLL_HWPOISON | (FOLL_WRITE if write else 0))


def mm_populate(mm: mm_struct, start: int, length: int) -> None:
    """Populate all VMAs in the range, as far as they can be."""
    __mm_populate(mm, start, length, True)


def __mm_populate(mm: mm_struct, start: int, length: int, ignore_errors: bool) -> int:
    """Populate the VMAs in [start, start + length); 0, or unless errors are ignored the -errno of the first to fail."""
    end = start + length
    mmap_read_lock(mm)
    ret = 0
    while start < end:
        vma = find_vma(mm, start)
        if not vma or vma.vm_start >= end:
            break
        stop = min(end, vma.vm_end)
        if vma.vm_flags & (VM_IO | VM_PFNMAP) == 0:
            begin = max(start, vma.vm_start)
            ret = populate_vma_page_range(vma, begin, stop, True)
            if ret == -EUSERFAULT and config.userfault_reader_again is not None:
                mmap_read_unlock(mm)
                config.userfault_reader_again()
                mmap_read_lock(mm)
                stop = begin
            elif ret >= 0:
                stop = begin + (ret << arch.page_shift)
                ret = 0
            elif not ignore_errors:
                break
        start = stop
        forget((start,))
    mmap_read_unlock(mm)
    return 0 if ignore_errors else ret


def get_user_pages(mm: mm_struct, start: int, nr: int, write: bool, more_flags: int = 0) -> tuple[page_t, ...]:
    """Up to `nr` pages from `start` on, each with a reference; fewer where one cannot be had."""
    pages: tuple[page_t, ...] = ()
    gup_flags = FOLL_GET | FOLL_UNLOCKABLE | (FOLL_WRITE if write else 0) | more_flags
    mmap_read_lock(mm)
    for i in range(nr):
        address = start + (i << arch.page_shift)
        vma = find_vma(mm, address)
        if not vma or vma.vm_start > address or check_vma_flags(vma, gup_flags):
            break
        page, _ = get_page(vma, address, gup_flags)
        if not page:
            break
        pages += (page,)
    mmap_read_unlock(mm)
    return pages


# --- without locks -------------------------------------------------------------------------------------


def get_user_pages_fast(mm: mm_struct, start: int, nr: int, write: bool) -> tuple[page_t, ...]:
    """The same, first without any lock, with interrupts disabled against those who free tables; the rest with locks."""
    pages: tuple[page_t, ...] = ()
    seq = READ_ONCE(mm, "write_protect_seq")
    if arch.gup_fast and seq & 1 == 0:
        flags = local_irq_save()
        for i in range(nr):
            page = gup_fast_page(mm, start + (i << arch.page_shift), write)
            if not page:
                break
            pages += (page,)
        local_irq_restore(flags)
        if READ_ONCE(mm, "write_protect_seq") != seq:
            put_user_pages(pages)
            pages = ()
    if len(pages) < nr:
        pages += get_user_pages(mm, start + (len(pages) << arch.page_shift), nr - len(pages), write)
    return pages


def put_user_pages(pages: tuple[page_t, ...]) -> None:
    """Drop the references that get_user_pages took."""
    for page in pages:
        folio_put(page_folio(page))


def gup_fast_page(mm: mm_struct, address: int, write: bool) -> page_t:
    """The page with a reference, or 0 to take the slow path; interrupts are disabled."""
    pmd = mm_find_pmd(mm, address)
    if not pmd:
        return 0
    pmdval = pmdp_get_lockless(pmd)
    gup_flags = FOLL_WRITE if write else 0
    if pmdval & LEAF:
        return gup_fast_pmd_leaf(pmd, pmdval, address, gup_flags)
    if pmdval & PRESENT == 0:
        return 0
    return gup_fast_pte(pmd, pmdval, address, gup_flags)


def gup_fast_pmd_leaf(pmd: pmd_p, pmdval: int, address: int, gup_flags: int) -> page_t:
    """A page of a huge pmd that still is what it was after the reference was taken."""
    if not serves(pmdval, gup_flags):
        return 0
    page = (pmdval >> PFN_SHIFT) + PAGE_CELLS * pte_index(address)
    f = page_folio(page)
    if not folio_try_get(f):
        return 0
    if pmdp_get_lockless(pmd) != pmdval:
        folio_put(f)
        return 0
    return page


def gup_fast_pte(pmd: pmd_p, pmdval: int, address: int, gup_flags: int) -> page_t:
    """A page whose pte and pmd still are what they were after the reference was taken."""
    pte = pte_offset_map(pmd, address)
    if not pte:
        return 0
    entry = ptep_get_lockless(pte)
    page = 0
    if serves(entry, gup_flags) and entry & SPECIAL == 0:
        f = page_folio(entry >> PFN_SHIFT)
        if folio_try_get(f):
            if pmdp_get_lockless(pmd) == pmdval and load(pte) == entry:
                page = entry >> PFN_SHIFT
            else:
                folio_put(f)
    pte_unmap(pte)
    return page

# SPDX-License-Identifier: GPL-2.0-only
"""mlock and its kin (mm/mlock.c; 7.2)."""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import forget, spin_unlock
from .gup import __mm_populate, mm_populate
from .huge_pmd import pmd_trans_huge_lock
from .mlock_folio import mlock_folio, munlock_folio
from .mm_types import folio, mm_struct, vm_area_struct
from .mmap import page_align
from .mmap_lock import mmap_write_lock, mmap_write_unlock
from .page_alloc import SYSTEM, folio_nr_pages, folio_pte_batch
from .pgtable import (
    SPECIAL,
    mm_find_pmd,
    page_folio,
    pmd_addr_end,
    pmd_page,
    pmd_present,
    pmdp_get_lockless,
    pte_p,
    pte_page,
    pte_present,
    ptep_get,
)
from .pgtable_generic import pte_offset_map_lock, pte_unmap_unlock
from .vm_flags import (
    EAGAIN,
    EFAULT,
    EINVAL,
    ENOMEM,
    EPERM,
    VM_DROPPABLE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_LOCKONFAULT,
    VM_SPECIAL,
)
from .vma import find_vma, vma_lookup, vma_modify
from .vma_change import IS_ERR, PTR_ERR, vm_flags_reset

MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2
MCL_ONFAULT: Final = 4
MLOCK_ONFAULT: Final = 1


def mlock_this(f: folio, vma: vm_area_struct) -> None:
    """Count the folio as the VMA's flags say."""
    if vma.vm_flags & VM_LOCKED:
        mlock_folio(f)
    else:
        munlock_folio(f)


def mlock_entries(vma: vm_area_struct, pte: pte_p, nr: int) -> None:
    """The entries of a table, under its lock; a large folio is locked only if they map all of it."""
    i = 0
    while i < nr:
        entry = ptep_get(pte + i)
        step = 1
        if pte_present(entry) and entry & SPECIAL == 0:
            f = page_folio(pte_page(entry))
            step = folio_pte_batch(f, pte + i, entry, nr - i)
            if vma.vm_flags & VM_LOCKED == 0 or step == folio_nr_pages(f):
                mlock_this(f, vma)
        i += step


def mlock_pte_range(vma: vm_area_struct, addr: int, end: int) -> None:
    """Lock or unlock what is mapped in one PMD entry's range, under its lock."""
    pmd = mm_find_pmd(vma.vm_mm, addr)
    while pmd and pmdp_get_lockless(pmd) != 0:
        pml = pmd_trans_huge_lock(vma.vm_mm, pmd, addr)
        if pml:
            pmdval = pmdp_get_lockless(pmd)
            if pmd_present(pmdval) and page_folio(pmd_page(pmdval)) != SYSTEM.huge_zero_folio:
                mlock_this(page_folio(pmd_page(pmdval)), vma)
            spin_unlock(pml)
            return
        pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
        if pte:
            mlock_entries(vma, pte, end - addr >> arch.page_shift)
            pte_unmap_unlock(pte, ptl)
            return
        forget((pmd,))


def mlock_vma_pages_range(vma: vm_area_struct, start: int, end: int, vm_flags: int) -> None:
    """Set VM_LOCKED or clear it, and visit the pages; meanwhile VM_IO warns rmap walkers."""
    vm_flags_reset(vma, vm_flags | VM_IO if vm_flags & VM_LOCKED else vm_flags)
    addr = start
    while addr < end:
        next_addr = pmd_addr_end(addr, end)
        mlock_pte_range(vma, addr, next_addr)
        addr = next_addr
    if vm_flags & VM_LOCKED:
        vm_flags_reset(vma, vm_flags)


def vma_supports_mlock(vma: vm_area_struct) -> bool:
    """Whether VM_LOCKED means anything to the VMA."""
    return vma.vm_flags & (VM_SPECIAL | VM_HUGETLB | VM_DROPPABLE) == 0


def mlock_fixup(vma: vm_area_struct, start: int, end: int, vm_flags: int) -> vm_area_struct:
    """Give [start, end), part of `vma`, these flags; the VMA that has it then, or an errno."""
    old = vma.vm_flags
    if vm_flags == old or not vma_supports_mlock(vma):
        return vma
    vma = vma_modify(vma, start, end, vm_flags)
    if IS_ERR(vma):
        return vma
    pages = end - start >> arch.page_shift
    if vm_flags & VM_LOCKED == 0:
        vma.vm_mm.locked_vm -= pages
    elif old & VM_LOCKED == 0:
        vma.vm_mm.locked_vm += pages
    if vm_flags & old & VM_LOCKED:
        vm_flags_reset(vma, vm_flags)
    else:
        mlock_vma_pages_range(vma, start, end, vm_flags)
    return vma


def apply_vma_lock_flags(mm: mm_struct, start: int, end: int, vm_flags: int) -> int:
    """Give all of [start, end) these VM_LOCKED_MASK bits; -ENOMEM at the first hole, with all before it done."""
    while start < end:
        vma = vma_lookup(mm, start)
        if not vma:
            return -ENOMEM
        vma = mlock_fixup(vma, start, min(end, vma.vm_end), vma.vm_flags & ~VM_LOCKED_MASK | vm_flags)
        if IS_ERR(vma):
            return PTR_ERR(vma)
        start = vma.vm_end
        forget((start,))
    return 0


def count_mm_mlocked_page_nr(mm: mm_struct, start: int, end: int) -> int:
    """Pages of [start, end) that are locked already."""
    count = 0
    while start < end:
        vma = find_vma(mm, start)
        if not vma or vma.vm_start >= end:
            break
        if vma.vm_flags & VM_LOCKED:
            count += min(end, vma.vm_end) - max(start, vma.vm_start) >> arch.page_shift
        start = vma.vm_end
        forget((start, count))
    return count


def mlock_allowed(mm: mm_struct, start: int, end: int) -> bool:
    """Whether RLIMIT_MEMLOCK lets [start, end) be locked."""
    limit = mm.rlimit_memlock >> arch.page_shift
    locked = mm.locked_vm + (end - start >> arch.page_shift)
    return locked <= limit or locked - count_mm_mlocked_page_nr(mm, start, end) <= limit


def sys_mlock(mm: mm_struct, start: int, length: int, flags_mlock2: int = 0) -> int:
    """mlock(2), or mlock2(2) with its flags; 0 or -errno."""
    if flags_mlock2 & ~MLOCK_ONFAULT:
        return -EINVAL
    if mm.rlimit_memlock == 0:
        return -EPERM
    end = page_align(start + length)
    if end >= 1 << 64:
        return -EINVAL
    start &= -arch.page_size
    vm_flags = VM_LOCKED | VM_LOCKONFAULT if flags_mlock2 & MLOCK_ONFAULT else VM_LOCKED
    mmap_write_lock(mm)
    error = apply_vma_lock_flags(mm, start, end, vm_flags) if mlock_allowed(mm, start, end) else -ENOMEM
    mmap_write_unlock(mm)
    if error:
        return error
    error = __mm_populate(mm, start, end - start, False)
    if error == -EFAULT:
        return -ENOMEM
    return -EAGAIN if error == -ENOMEM else error


def sys_munlock(mm: mm_struct, start: int, length: int) -> int:
    """munlock(2); 0 or -errno."""
    end = page_align(start + length)
    if end >= 1 << 64:
        return -EINVAL
    mmap_write_lock(mm)
    error = apply_vma_lock_flags(mm, start & -arch.page_size, end, 0)
    mmap_write_unlock(mm)
    return error


def apply_mlockall_flags(mm: mm_struct, flags: int) -> None:
    """What MCL_* (0: munlockall) asks of VMAs to come and of those that are there; VMAs that refuse are passed over."""
    mm.def_flags &= ~VM_LOCKED_MASK
    onfault = VM_LOCKONFAULT if flags & MCL_ONFAULT else 0
    if flags & MCL_FUTURE:
        mm.def_flags |= VM_LOCKED | onfault
        if flags & MCL_CURRENT == 0:
            return
    to_add = VM_LOCKED | onfault if flags & MCL_CURRENT else 0
    addr = 0
    while True:
        vma = find_vma(mm, addr)
        if not vma:
            return
        fixed = mlock_fixup(vma, vma.vm_start, vma.vm_end, vma.vm_flags & ~VM_LOCKED_MASK | to_add)
        addr = vma.vm_end if IS_ERR(fixed) else fixed.vm_end
        forget((addr,))


def sys_mlockall(mm: mm_struct, flags: int) -> int:
    """mlockall(2); 0 or -errno."""
    if flags == 0 or flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) or flags == MCL_ONFAULT:
        return -EINVAL
    if mm.rlimit_memlock == 0:
        return -EPERM
    mmap_write_lock(mm)
    if flags & MCL_CURRENT and mm.total_vm > mm.rlimit_memlock >> arch.page_shift:
        mmap_write_unlock(mm)
        return -ENOMEM
    apply_mlockall_flags(mm, flags)
    mmap_write_unlock(mm)
    if flags & MCL_CURRENT:
        mm_populate(mm, 0, arch.task_size)
    return 0


def sys_munlockall(mm: mm_struct) -> int:
    """munlockall(2)."""
    mmap_write_lock(mm)
    apply_mlockall_flags(mm, 0)
    mmap_write_unlock(mm)
    return 0

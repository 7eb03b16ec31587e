# SPDX-License-Identifier: GPL-2.0-only
"""The PAGEMAP_SCAN ioctl (fs/proc/task_mmu.c; 7.2): ranges of pages of some categories, write-protected on the way.

What a scan has found so far is a value that goes through the walk: see `Scanned`.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import forget, load, load_range, spin_unlock, store
from .config import config
from .huge_pmd import __split_huge_pmd, pmd_trans_huge_lock
from .mm_types import mm_struct, vm_area_struct
from .mmap_lock import mmap_read_lock, mmap_read_unlock
from .mmu_notifier import (
    __mmu_notifier_invalidate_range_end,
    __mmu_notifier_invalidate_range_start,
    mm_has_notifiers,
)
from .not_modelled import NotModelled
from .page_alloc import folio_test_anon
from .pagewalk import find_pmd
from .pgtable import (
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    PTE_MARKER_GUARD,
    PTE_MARKER_UFFD_WP,
    SOFT_DIRTY,
    SPECIAL,
    UFFD_WP,
    make_pte_marker,
    page_folio,
    pmd_p,
    pmd_page,
    pte_marker,
    pte_p,
)
from .pgtable_generic import pte_offset_map_lock, pte_unmap_unlock
from .tlb import flush_tlb_range
from .userfaultfd import uffd_wp_range
from .userfaultfd_k import pte_mkuffd_wp, userfaultfd_wp, userfaultfd_wp_async, userfaultfd_wp_use_markers
from .vm_flags import EFAULT, EINVAL, ENOSPC, EPERM, VM_HUGETLB, VM_PFNMAP, VM_SOFTDIRTY
from .vma import find_vma_intersection

PAGE_IS_WPALLOWED: Final = 1
PAGE_IS_WRITTEN: Final = 2
PAGE_IS_FILE: Final = 4
PAGE_IS_PRESENT: Final = 8
PAGE_IS_SWAPPED: Final = 16
PAGE_IS_PFNZERO: Final = 32
PAGE_IS_HUGE: Final = 64
PAGE_IS_SOFT_DIRTY: Final = 128
PAGE_IS_GUARD: Final = 256

PM_SCAN_WP_MATCHING: Final = 1
PM_SCAN_CHECK_WPASYNC: Final = 2

WALK_PAGES: Final = 512  # PAGEMAP_WALK_SIZE: more ranges than that are put out in several steps

Region = tuple[int, int, int]  # start, end, categories
# (0 or -errno, ranges, pages in them, address at which the scan had enough, or 0)
Scanned = tuple[int, tuple[Region, ...], int, int]


def untagged_addr(addr: int) -> int:
    """The address without its tag: if it is user space's, without its top byte where the CPU ignores that."""
    return addr & (1 << 56) - 1 if arch.top_byte_ignored and addr >> 55 & 1 == 0 else addr


class pm_scan_arg:
    """What is asked for (struct pm_scan_arg), never changed once made; `vec_len` is how many ranges may be told."""

    def __init__(
        self, start: int, end: int, flags: int, max_pages: int, vec_len: int, masks: tuple[int, int, int, int]
    ) -> None:
        self.start = untagged_addr(start)
        self.end = untagged_addr(end)
        self.flags = flags
        self.max_pages = max_pages or 1 << 40
        self.vec_len = vec_len
        self.masks = masks
        self.inverted, self.mask, self.anyof, self.returned = masks

    def __eq__(self, other: object) -> bool:
        return isinstance(other, pm_scan_arg) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[int, ...]:
        return (self.start, self.end, self.flags, self.max_pages, self.vec_len, *self.masks)


def pm_scan_categories() -> int:
    """Categories that there are."""
    return (PAGE_IS_GUARD << 1) - 1


def do_pagemap_scan(mm: mm_struct, arg: pm_scan_arg) -> tuple[int, int, tuple[Region, ...]]:
    """The ioctl: (number of ranges or -errno, address where it ended, the ranges)."""
    error = check_scan_arg(arg)
    if error:
        return error, 0, ()
    scanned: Scanned = (0, (), 0, 0)
    if arg.start < arg.end:
        mmap_read_lock(mm)
        notify = arg.flags & PM_SCAN_WP_MATCHING != 0 and mm_has_notifiers(mm)
        if notify:
            __mmu_notifier_invalidate_range_start(mm, arg.start, arg.end)
        scanned = scan_range(mm, arg, scanned)
        if notify:
            __mmu_notifier_invalidate_range_end(mm, arg.start, arg.end)
        mmap_read_unlock(mm)
    error, regions, _, stopped = scanned
    if error and error != -ENOSPC:
        return error, 0, ()
    return len(regions), stopped or arg.end, regions


def check_scan_arg(arg: pm_scan_arg) -> int:
    """0 or -errno (pagemap_scan_get_args)."""
    inverted, mask, anyof, returned = arg.masks
    asked = inverted | mask | anyof | returned
    if arg.flags & ~(PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC) or asked & ~pm_scan_categories():
        return -EINVAL
    if arg.start & arch.page_size - 1:
        return -EINVAL
    if not arch.own_user_space and (arg.end < arg.start or arg.end > arch.task_size):
        return -EFAULT
    if arg.vec_len > WALK_PAGES:
        raise NotModelled("PAGEMAP_SCAN of more than 512 ranges")
    return 0


# --- the walk ----------------------------------------------------------------------------------------------


def scan_range(mm: mm_struct, arg: pm_scan_arg, scanned: Scanned) -> Scanned:
    """Scan one VMA after the other, under mmap_lock."""
    addr = arg.start
    while scanned[0] == 0:
        vma = find_vma_intersection(mm, addr, arg.end)
        if not vma:
            return scanned
        error, category = scan_test_walk(vma, arg)
        if error:
            return error, scanned[1], scanned[2], scanned[3]
        if category >= 0:
            scanned = scan_vma(vma, category, max(addr, vma.vm_start), min(vma.vm_end, arg.end), arg, scanned)
        addr = vma.vm_end
        forget((addr, scanned))
    return scanned


def scan_test_walk(vma: vm_area_struct, arg: pm_scan_arg) -> tuple[int, int]:
    """(0, categories of all pages of the VMA), (0, -1) if it is passed over, or (-EPERM, -1)."""
    if vma.vm_flags & VM_HUGETLB:
        raise NotModelled("hugetlb")
    wp_allowed = userfaultfd_wp_async(vma) and userfaultfd_wp_use_markers(vma)
    if not wp_allowed and arg.flags & PM_SCAN_CHECK_WPASYNC:
        return -EPERM, -1
    if vma.vm_flags & VM_PFNMAP or (not wp_allowed and arg.flags & PM_SCAN_WP_MATCHING):
        return 0, -1
    category = PAGE_IS_WPALLOWED if wp_allowed else 0
    if vma.vm_flags & VM_SOFTDIRTY:
        category |= PAGE_IS_SOFT_DIRTY
    if arg.mask & PAGE_IS_WPALLOWED & ~(category ^ arg.inverted):
        return 0, -1
    return 0, category


def scan_vma(vma: vm_area_struct, category: int, addr: int, end: int, arg: pm_scan_arg, scanned: Scanned) -> Scanned:
    """Scan [addr, end) of one VMA, PMD entry by PMD entry."""
    while addr < end and scanned[0] == 0:
        pmd, next_ = find_pmd(vma, addr, end)
        if not pmd or load(pmd) == 0:
            scanned = scan_hole(vma, category, addr, next_, arg, scanned)
        else:
            again, scanned = scan_pmd(vma, pmd, category, addr, next_, arg, scanned)
            next_ = addr if again else next_
        addr = next_
        forget((addr, scanned))
    return scanned


def scan_hole(vma: vm_area_struct, category: int, addr: int, end: int, arg: pm_scan_arg, scanned: Scanned) -> Scanned:
    """No table: write-protected it would have markers, so it counts as written (pagemap_scan_pte_hole)."""
    category |= PAGE_IS_WRITTEN if userfaultfd_wp(vma) else 0
    if not is_interesting(category, arg):
        return scanned
    scanned, end = scan_output(category, addr, end, arg, scanned)
    if addr < end and arg.flags & PM_SCAN_WP_MATCHING:
        uffd_wp_range(vma, addr, end - addr, True)
    return scanned


def scan_pmd(
    vma: vm_area_struct, pmd: pmd_p, category: int, addr: int, end: int, arg: pm_scan_arg, scanned: Scanned
) -> tuple[bool, Scanned]:
    """(whether to look at the entry again, what was found)."""
    done, found = scan_huge(vma, pmd, category, addr, end, arg, scanned)
    if done:
        return False, found
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not pte:
        return True, scanned
    if arg.flags & PM_SCAN_WP_MATCHING and arg.vec_len == 0:
        protect_all(vma, pte, addr, end)
    else:
        scanned = scan_ptes(vma, pte, category, addr, end, arg, scanned)
    pte_unmap_unlock(pte, ptl)
    return False, scanned


def scan_huge(
    vma: vm_area_struct, pmd: pmd_p, category: int, addr: int, end: int, arg: pm_scan_arg, scanned: Scanned
) -> tuple[bool, Scanned]:
    """Scan a huge page: (true, what was found), or (false, nothing more) where there is none, or it had to be split."""
    pml = pmd_trans_huge_lock(vma.vm_mm, pmd, addr)
    if not pml:
        return False, scanned
    pmdval = load(pmd)
    category |= huge_category(pmdval)
    split = False
    if is_interesting(category, arg):
        found, stop = scan_output(category, addr, end, arg, scanned)
        protect = addr < stop and arg.flags & PM_SCAN_WP_MATCHING != 0 and category & PAGE_IS_WRITTEN != 0
        split = protect and stop != addr + arch.pmd_size
        if protect and not split:
            store(pmd, pte_mkuffd_wp(pmdval))
            flush_tlb_range(vma.vm_mm, addr, stop)
        scanned = scanned if split else found
    spin_unlock(pml)
    if split:
        __split_huge_pmd(vma, pmd, addr)
    return not split, scanned


def scan_ptes(
    vma: vm_area_struct, pte: pte_p, category: int, addr: int, end: int, arg: pm_scan_arg, scanned: Scanned
) -> Scanned:
    """Scan the entries of [addr, end) in one locked table."""
    protected = -1
    at = addr
    for i, entry in enumerate(load_range(pte, end - addr >> arch.page_shift)):
        categories = category | page_category(entry)
        if is_interesting(categories, arg):
            scanned, next_ = scan_output(categories, at, at + arch.page_size, arg, scanned)
            if next_ == at:
                break
            if arg.flags & PM_SCAN_WP_MATCHING and categories & PAGE_IS_WRITTEN:
                protect_pte(pte + i, entry)
                protected = at if protected < 0 else protected
        at += arch.page_size
    if protected >= 0:
        flush_tlb_range(vma.vm_mm, protected, at)
    return scanned


def protect_all(vma: vm_area_struct, pte: pte_p, addr: int, end: int) -> None:
    """Write-protect all entries of a locked table that are not, whatever their category."""
    first = last = -1
    for i, entry in enumerate(load_range(pte, end - addr >> arch.page_shift)):
        if not uffd_wp_any(entry):
            protect_pte(pte + i, entry)
            first, last = i if first < 0 else first, i
    if first >= 0:
        flush_tlb_range(vma.vm_mm, addr + (first << arch.page_shift), addr + (last + 1 << arch.page_shift))


# --- categories --------------------------------------------------------------------------------------------


def uffd_wp_any(entry: int) -> bool:
    """Whether userfaultfd write-protects the entry, which may be a marker."""
    return entry & UFFD_WP != 0 or pte_marker(entry) & PTE_MARKER_UFFD_WP != 0


def soft_dirty_category(entry: int) -> int:
    """Whether an entry that is not none was written."""
    return PAGE_IS_SOFT_DIRTY if config.soft_dirty and entry & SOFT_DIRTY else 0


def page_category(entry: int) -> int:
    """Categories of an entry of a PTE table (pagemap_page_category)."""
    if entry == 0:
        return PAGE_IS_WRITTEN
    category = (0 if uffd_wp_any(entry) else PAGE_IS_WRITTEN) | soft_dirty_category(entry)
    if entry & (PRESENT | PROTNONE) == 0:
        return category | PAGE_IS_SWAPPED | (PAGE_IS_GUARD if pte_marker(entry) & PTE_MARKER_GUARD else 0)
    if entry & SPECIAL:
        return category | PAGE_IS_PRESENT | PAGE_IS_PFNZERO
    return category | PAGE_IS_PRESENT | (0 if folio_test_anon(page_folio(entry >> PFN_SHIFT)) else PAGE_IS_FILE)


def huge_category(pmdval: int) -> int:
    """Categories of a huge page (pagemap_thp_category)."""
    if pmdval & (PRESENT | PROTNONE) == 0:
        raise NotModelled("migration of a huge page")
    category = PAGE_IS_HUGE | PAGE_IS_PRESENT | (0 if pmdval & UFFD_WP else PAGE_IS_WRITTEN)
    category |= soft_dirty_category(pmdval)
    if pmdval & SPECIAL:
        return category | PAGE_IS_PFNZERO
    return category | (0 if folio_test_anon(page_folio(pmd_page(pmdval))) else PAGE_IS_FILE)


def protect_pte(pte: pte_p, entry: int) -> None:
    """Write-protect an entry by userfaultfd, whatever it is (make_uffd_wp_pte)."""
    if entry & (PRESENT | PROTNONE):
        store(pte, pte_mkuffd_wp(entry))
    else:
        store(pte, entry | UFFD_WP if entry else make_pte_marker(PTE_MARKER_UFFD_WP))


def is_interesting(category: int, arg: pm_scan_arg) -> bool:
    """Whether pages of these categories are asked for."""
    category ^= arg.inverted
    return category & arg.mask == arg.mask and (arg.anyof == 0 or category & arg.anyof != 0)


# --- what is told ------------------------------------------------------------------------------------------


def scan_output(category: int, addr: int, end: int, arg: pm_scan_arg, scanned: Scanned) -> tuple[Scanned, int]:
    """Tell of [addr, end), as far as there is room: (what was found by then, where that ends)."""
    if arg.vec_len == 0:
        return scanned, end
    _, regions, found, _ = scanned
    room = arg.max_pages - found << arch.page_shift
    stop = min(end, addr + room)
    told = push_region(regions, addr, stop, category & arg.returned, arg.vec_len) if stop > addr else ()
    if not told:
        return (-ENOSPC, regions, found, addr), addr
    found += stop - addr >> arch.page_shift
    if stop < end:
        return (-ENOSPC, told, found, stop), stop
    return (0, told, found, 0), end


def push_region(regions: tuple[Region, ...], addr: int, end: int, category: int, limit: int) -> tuple[Region, ...]:
    """The ranges with one more, which may continue the last; () if there is no room."""
    if regions and regions[-1][1] == addr and regions[-1][2] == category:
        return (*regions[:-1], (regions[-1][0], end, category))
    return (*regions, (addr, end, category)) if len(regions) < limit else ()

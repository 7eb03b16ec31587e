# SPDX-License-Identifier: GPL-2.0-only
"""mprotect and the change of protections in page tables (mm/mprotect.c, mm/mmap.c; 7.2).

NUMA hinting is not modelled.  An entry has no NX and no key bits: where mprotect would change those, what it does to
an entry (clear, set, flush) happens all the same.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import forget, load, load_range, store, xchg
from .config import config
from .gup import populate_vma_page_range
from .huge_memory import change_huge_pmd
from .huge_mm import vma_is_anonymous
from .huge_pmd import __split_huge_pmd
from .mm_types import mm_struct, vm_area_struct
from .mmap import calc_vm_prot_bits, page_align
from .mmap_lock import mmap_write_lock, mmap_write_unlock
from .mmu_gather import (
    mmu_gather,
    tlb_change_page_size,
    tlb_end_vma,
    tlb_finish_mmu,
    tlb_flush_range,
    tlb_gather_mmu,
)
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .not_modelled import NotModelled
from .page_alloc import (
    PAGE_ANON_EXCLUSIVE,
    PAGE_CELLS,
    folio_nr_pages,
    folio_page_idx,
    folio_test_anon,
    page_flags,
)
from .pgtable import (
    ACCESSED,
    DIRTY,
    LEAF,
    MKDIRTY,
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    PTE_MARKER_GUARD,
    PTE_MARKER_POISONED,
    PTE_MARKER_UFFD_WP,
    RW,
    SPECIAL,
    SWP_MARKER,
    SWP_MIGRATION,
    UFFD_WP,
    make_pte_marker,
    p4d_addr_end,
    p4d_offset,
    page_folio,
    pgd_addr_end,
    pgd_offset,
    pmd_addr_end,
    pmd_offset,
    pmd_p,
    pmdp_get_lockless,
    pte_marker,
    pte_needs_soft_dirty_wp,
    pte_p,
    pte_page,
    pud_addr_end,
    pud_offset,
    swp_type,
    vma_set_page_prot,
    vma_wants_writenotify,
)
from .pgtable_generic import (
    p4d_alloc,
    pmd_alloc,
    pte_alloc,
    pte_offset_map_lock,
    pte_unmap_unlock,
    pud_alloc,
)
from .userfaultfd_k import pte_mkuffd_wp, userfaultfd_pte_wp, userfaultfd_wp_use_markers
from .vm_flags import (
    EACCES,
    EINVAL,
    ENOMEM,
    EPERM,
    MM_CP_TRY_CHANGE_WRITABLE,
    MM_CP_UFFD_WP,
    MM_CP_UFFD_WP_RESOLVE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_NORESERVE,
    VM_PKEY_MASK,
    VM_PKEY_SHIFT,
    VM_SHARED,
    VM_WRITE,
)
from .vma import find_vma_intersection, vma_is_sealed, vma_lookup, vma_modify
from .vma_change import ERR_PTR, IS_ERR, PTR_ERR, vm_flags_reset

PROT_SEM: Final = 8
PROT_GROWSDOWN: Final = 0x01000000
PROT_GROWSUP: Final = 0x02000000

NEXT_PAGE: Final = PAGE_CELLS << PFN_SHIFT  # between the entries of two pages of a folio
CP_NX_CHANGES: Final = 1 << 8  # beside MM_CP_*: entries get another NX or key, so each of them has to be flushed


# --- entries -----------------------------------------------------------------------------------------------


def vma_wants_manual_pte_write_upgrade(vma: vm_area_struct) -> bool:
    """Whether entries that vm_page_prot leaves read-only may yet be made writable one by one."""
    if vma.vm_flags & VM_SHARED:
        return vma_wants_writenotify(vma)
    return vma.vm_flags & VM_WRITE != 0


def can_change_pte_writable(vma: vm_area_struct, pte: int) -> bool:
    """Whether a write fault would do nothing but make the entry writable."""
    if pte & PROTNONE or pte_needs_soft_dirty_wp(vma, pte) or userfaultfd_pte_wp(vma, pte):
        return False
    if vma.vm_flags & VM_SHARED:
        return pte & DIRTY != 0
    if pte & SPECIAL:
        return False
    page = pte >> PFN_SHIFT
    return folio_test_anon(page_folio(page)) and load(page_flags(page)) & PAGE_ANON_EXCLUSIVE != 0


def mprotect_folio_pte_batch(entries: list[int], i: int) -> int:
    """How many entries from `i` on map consecutive pages of a large folio alike, but for what is young or dirty."""
    entry = entries[i]
    if entry & SPECIAL:
        return 1
    f = page_folio(pte_page(entry))
    end = min(len(entries), i + folio_nr_pages(f) - folio_page_idx(f, pte_page(entry)))
    ignored = ~(ACCESSED | DIRTY if config.soft_dirty else ACCESSED | MKDIRTY)
    nr = 1
    while i + nr < end and (entries[i + nr] ^ entry + nr * NEXT_PAGE) & ignored == 0:
        nr += 1
    return nr


def modify_prot_start_ptes(ptep: pte_p, nr: int) -> int:
    """Take `nr` entries out; the first, young or dirty if any is.  What others have makes it soft-dirty, too."""
    pte = xchg(ptep, 0)
    for i in range(1, nr):
        other = xchg(ptep + i, 0)
        pte |= other & ACCESSED | (MKDIRTY if other & DIRTY else 0)
    return pte


def change_present_pte(vma: vm_area_struct, ptep: pte_p, old: int, newprot: int, cp_flags: int) -> bool:
    """Put a present entry that was taken out back with other permissions; whether it has to be flushed."""
    new = old & ~(PRESENT | PROTNONE | RW) | newprot
    if cp_flags & MM_CP_UFFD_WP:
        new = pte_mkuffd_wp(new)
    elif cp_flags & MM_CP_UFFD_WP_RESOLVE:
        new &= ~UFFD_WP
    if cp_flags & MM_CP_TRY_CHANGE_WRITABLE and new & RW == 0 and can_change_pte_writable(vma, new):
        new |= RW
    store(ptep, new)
    return old & PRESENT != 0 and (cp_flags & CP_NX_CHANGES != 0 or (old ^ new) & (PRESENT | RW) != 0)


def change_nonpresent_pte(ptep: pte_p, pte: int, cp_flags: int) -> None:
    """Take write permission from a migration entry; do what MM_CP_UFFD_WP* asks for, which drops a uffd-wp marker."""
    new = pte
    if swp_type(pte) == SWP_MARKER:
        if cp_flags & MM_CP_UFFD_WP_RESOLVE and pte_marker(pte) & (PTE_MARKER_POISONED | PTE_MARKER_GUARD) == 0:
            new = 0
    else:
        if swp_type(pte) == SWP_MIGRATION:
            new &= ~RW
        if cp_flags & MM_CP_UFFD_WP:
            new |= UFFD_WP
        elif cp_flags & MM_CP_UFFD_WP_RESOLVE:
            new &= ~UFFD_WP
    if new != pte:
        store(ptep, new)


def change_pte_range(
    tlb: mmu_gather, vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, newprot: int, cp_flags: int
) -> bool:
    """Change the entries of [addr, end) in one table; false if there was no table."""
    tlb_change_page_size(tlb, arch.page_shift)
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not pte:
        return False
    first = last = -1
    mark = pgtable_populate_needed(vma, cp_flags)
    entries = load_range(pte, end - addr >> arch.page_shift)
    batch_end = old = 0
    for i, entry in enumerate(entries):
        if entry == 0:
            if mark:
                store(pte + i, make_pte_marker(PTE_MARKER_UFFD_WP))
            continue
        if entry & (PRESENT | PROTNONE) == 0:
            change_nonpresent_pte(pte + i, entry, cp_flags)
            continue
        if i >= batch_end:
            nr = mprotect_folio_pte_batch(entries, i)
            batch_end = i + nr
            old = modify_prot_start_ptes(pte + i, nr)
        if change_present_pte(vma, pte + i, old, newprot, cp_flags):
            first = i if first < 0 else first
            last = i
        old += NEXT_PAGE
    if first >= 0:
        tlb_flush_range(tlb, addr + (first << arch.page_shift), addr + (last + 1 << arch.page_shift))
    pte_unmap_unlock(pte, ptl)
    return True


def pgtable_split_needed(vma: vm_area_struct, cp_flags: int) -> bool:
    """Whether a huge page must go for markers, which only entries of PTE tables can be: a file's is unmapped."""
    return cp_flags & MM_CP_UFFD_WP != 0 and not vma_is_anonymous(vma)


def pgtable_populate_needed(vma: vm_area_struct, cp_flags: int) -> bool:
    """Whether missing tables are allocated, and none entries filled with markers."""
    return cp_flags & MM_CP_UFFD_WP != 0 and userfaultfd_wp_use_markers(vma)


def change_pmd(
    tlb: mmu_gather, vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, newprot: int, cp_flags: int
) -> bool:
    """Change what one PMD entry maps of [addr, end); false: look at the entry again."""
    populate = pgtable_populate_needed(vma, cp_flags)
    if populate:
        pte_alloc(vma.vm_mm, pmd, addr)
    pmdval = pmdp_get_lockless(pmd)
    if pmdval == 0:
        return True
    if pmdval & (PRESENT | LEAF) != PRESENT:
        if end - addr != arch.pmd_size or pgtable_split_needed(vma, cp_flags):
            __split_huge_pmd(vma, pmd, addr)
            if populate:
                pte_alloc(vma.vm_mm, pmd, addr)
        elif change_huge_pmd(tlb, vma, pmd, addr, newprot, cp_flags):
            return True
    return change_pte_range(tlb, vma, pmd, addr, end, newprot, cp_flags)


def change_pmd_range(
    tlb: mmu_gather, vma: vm_area_struct, pud: int, addr: int, end: int, newprot: int, cp_flags: int
) -> None:
    """Walk the PMD table."""
    pmd = pmd_offset(pud, addr)
    while addr < end:
        next_addr = pmd_addr_end(addr, end)
        if change_pmd(tlb, vma, pmd, addr, next_addr, newprot, cp_flags):
            addr = next_addr
            pmd += 1
        forget((addr, pmd))


def change_pud_range(
    tlb: mmu_gather, vma: vm_area_struct, p4d: int, addr: int, end: int, newprot: int, cp_flags: int
) -> None:
    """Walk the PUD table."""
    populate = pgtable_populate_needed(vma, cp_flags)
    notified = end
    while addr < end:
        pud = pud_offset(p4d, addr)
        next_addr = pud_addr_end(addr, end)
        if populate:
            pmd_alloc(vma.vm_mm, pud, addr)
        if populate or load(pud):
            if notified == end:
                notified = addr
                mmu_notifier_invalidate_range_start(vma, notified, end)
            change_pmd_range(tlb, vma, pud, addr, next_addr, newprot, cp_flags)
        addr = next_addr
    if notified < end:
        mmu_notifier_invalidate_range_end(vma, notified, end)


def change_p4d_range(
    tlb: mmu_gather, vma: vm_area_struct, pgd: int, addr: int, end: int, newprot: int, cp_flags: int
) -> None:
    """Walk the P4D table."""
    populate = pgtable_populate_needed(vma, cp_flags)
    while addr < end:
        p4d = p4d_offset(pgd, addr)
        next_addr = p4d_addr_end(addr, end)
        if populate:
            pud_alloc(vma.vm_mm, p4d, addr)
        if populate or load(p4d):
            change_pud_range(tlb, vma, p4d, addr, next_addr, newprot, cp_flags)
        addr = next_addr


def new_page_prot(vma: vm_area_struct, cp_flags: int) -> int:
    """What present entries get, whatever the change is for."""
    return vma.vm_page_prot


def change_protection(tlb: mmu_gather, vma: vm_area_struct, start: int, end: int, cp_flags: int) -> None:
    """Give the present entries of [start, end) the VMA's permissions, and do to all what MM_CP_* asks for.

    mmap_lock is held: for writing, where the permissions are others than before.
    """
    if vma.vm_flags & VM_HUGETLB:
        raise NotModelled("hugetlb")
    newprot = new_page_prot(vma, cp_flags)
    populate = pgtable_populate_needed(vma, cp_flags)
    addr = start
    while addr < end:
        pgd = pgd_offset(vma.vm_mm, addr)
        next_addr = pgd_addr_end(addr, end)
        if populate:
            p4d_alloc(vma.vm_mm, pgd, addr)
        if populate or load(pgd):
            change_p4d_range(tlb, vma, pgd, addr, next_addr, newprot, cp_flags)
        addr = next_addr
    tlb_end_vma(tlb)


# --- VMAs --------------------------------------------------------------------------------------------------


def mprotect_account(vma: vm_area_struct, new: int) -> int:
    """The new flags with VM_ACCOUNT: private memory counts once writable, and stops to only if never written."""
    old = vma.vm_flags
    if new & VM_WRITE:
        if old & (VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE) == 0:
            return new | VM_ACCOUNT
    elif old & VM_ACCOUNT and vma_is_anonymous(vma) and not vma.anon_vma:
        return new & ~VM_ACCOUNT
    return new


def mprotect_fixup(
    tlb: mmu_gather, vma: vm_area_struct, start: int, end: int, vm_flags: int
) -> vm_area_struct:
    """Give [start, end), part of `vma`, these flags; the VMA that has it then, or an errno."""
    if vma_is_sealed(vma):
        return ERR_PTR(-EPERM)
    old = vma.vm_flags
    if vm_flags == old:
        return vma
    new = mprotect_account(vma, vm_flags)
    vma = vma_modify(vma, start, end, new)
    if IS_ERR(vma):
        return vma
    vm_flags_reset(vma, new)
    vma_set_page_prot(vma)
    cp_flags = MM_CP_TRY_CHANGE_WRITABLE if vma_wants_manual_pte_write_upgrade(vma) else 0
    if (old ^ new) & (VM_EXEC | VM_PKEY_MASK):
        cp_flags |= CP_NX_CHANGES
    change_protection(tlb, vma, start, end, cp_flags)
    if new & VM_WRITE and old & (VM_LOCKED | VM_WRITE | VM_SHARED) == VM_LOCKED:
        populate_vma_page_range(vma, start, end, False)
    return vma


def mprotect_range(
    mm: mm_struct, tlb: mmu_gather, vma: vm_area_struct, start: int, end: int, prot: int, pkey: int
) -> int:
    """VMA by VMA from `vma`, which contains `start`, up to `end`; 0, or the -errno at which it stopped."""
    while True:
        vm_flags = vma.vm_flags & ~VM_ACCESS_FLAGS | calc_vm_prot_bits(prot)
        if pkey >= 0:
            vm_flags = vm_flags & ~VM_PKEY_MASK | pkey << VM_PKEY_SHIFT
        if vm_flags & ~(vm_flags >> 4) & VM_ACCESS_FLAGS:
            return -EACCES
        vma = mprotect_fixup(tlb, vma, start, min(end, vma.vm_end), vm_flags)
        if IS_ERR(vma):
            return PTR_ERR(vma)
        start = vma.vm_end
        if start >= end:
            return 0
        vma = vma_lookup(mm, start)
        if not vma:
            return -ENOMEM
        forget((vma, start))


def sys_mprotect(mm: mm_struct, start: int, length: int, prot: int, pkey: int = -1) -> int:
    """mprotect(2), and pkey_mprotect(2) with a `pkey`; 0 or -errno.  VMAs before the one that fails are changed."""
    grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP)
    prot &= ~grows
    if grows == PROT_GROWSDOWN | PROT_GROWSUP or start & arch.page_size - 1:
        return -EINVAL
    if length == 0:
        return 0
    end = start + page_align(length)
    if end > 1 << 64:
        return -ENOMEM
    if prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM) or pkey > VM_PKEY_MASK >> VM_PKEY_SHIFT:
        return -EINVAL
    mmap_write_lock(mm)
    error = do_mprotect(mm, start, end, prot, pkey, grows)
    mmap_write_unlock(mm)
    return error


def do_mprotect(mm: mm_struct, start: int, end: int, prot: int, pkey: int, grows: int) -> int:
    """The same for whole pages, under mmap_lock."""
    vma = find_vma_intersection(mm, start, end)
    if not vma:
        return -ENOMEM
    if grows & PROT_GROWSDOWN:
        if vma.vm_flags & VM_GROWSDOWN == 0:
            return -EINVAL
        start = vma.vm_start
    elif vma.vm_start > start:
        return -ENOMEM
    elif grows:
        return -EINVAL
    tlb = tlb_gather_mmu(mm)
    error = mprotect_range(mm, tlb, vma, start, end, prot, pkey)
    tlb_finish_mmu(tlb)
    return error

# SPDX-License-Identifier: GPL-2.0-only
"""What /proc/PID/smaps and /proc/PID/pagemap say of a process's memory (fs/proc/task_mmu.c; 7.2).

Of what they say that is here which page tables and mappings decide; not what is young or dirty.
"""

from __future__ import annotations

from operator import add as plus
from typing import Final, NamedTuple

from ..arch import arch
from ..machine import (
    forget,
    load,
    load_range,
    mt_range,
    mt_values,
    rcu_read_lock,
    rcu_read_unlock,
    spin_unlock,
)
from .config import config
from .huge_pmd import pmd_trans_huge_lock
from .mm_init import mmget_not_zero, mmput
from .mm_types import folio, mm_struct, vm_area_struct
from .mmap_lock import lock_next_vma, mmap_read_lock, mmap_read_unlock, vma_end_read
from .page_alloc import (
    FOLIO_ENTIRE_MAPCOUNT,
    FOLIO_MAPCOUNT,
    FOLIO_MAPPING,
    FOLIO_MAPPING_ANON,
    FOLIO_MAPPING_KSM,
    FOLIO_ORDER,
    FOLIO_REFCOUNT,
    PAGE_CELLS,
    PG_SWAPBACKED,
    folio_precise_page_mapcount,
    folio_test_anon,
    page_mapcount,
)
from .pagewalk import gather_page_range, runs_of_equal
from .pgtable import (
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    PTE_MARKER_GUARD,
    PTE_MARKER_UFFD_WP,
    SOFT_DIRTY,
    SPECIAL,
    SWP_MARKER,
    SWP_MIGRATION,
    SWP_SWAP,
    UFFD_WP,
    page_folio,
    page_t,
    pmd_addr_end,
    pmd_is_huge,
    pmd_p,
    pmd_page,
    pmd_present,
    pmdp_get_lockless,
    pte_page,
    swp_offset,
    swp_type,
)
from .pgtable_generic import pte_offset_map_lock, pte_unmap_unlock
from .rmap import linear_page_index
from .shmem import shmem_partial_swap_usage, shmem_swap_usage
from .vm_flags import (
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYBE_GUARD,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MERGEABLE,
    VM_MIXEDMAP,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_READ,
    VM_SEALED,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_SYNC,
    VM_UFFD_MINOR,
    VM_UFFD_MISSING,
    VM_UFFD_WP,
    VM_WIPEONFORK,
    VM_WRITE,
)

PSS_SHIFT: Final = 12

# a pagemap_entry_t from bit 56 on; below is the page's number, which only root is told
PM_MMAP_EXCLUSIVE: Final = 1 << 0
PM_UFFD_WP: Final = 1 << 1
PM_GUARD_REGION: Final = 1 << 2
PM_SOFT_DIRTY: Final = 1 << 3  # which is bit 55
PM_FILE: Final = 1 << 5
PM_SWAP: Final = 1 << 6
PM_PRESENT: Final = 1 << 7

# (address, pages, their entry), but for where nothing is mapped: that is 0, or as soft-dirty as the VMA
Pagemap = tuple[tuple[int, int, int], ...]

MNEMONICS: Final = (
    (VM_READ, "rd"), (VM_WRITE, "wr"), (VM_EXEC, "ex"), (VM_SHARED, "sh"), (VM_MAYREAD, "mr"), (VM_MAYWRITE, "mw"),
    (VM_MAYEXEC, "me"), (VM_MAYSHARE, "ms"), (VM_GROWSDOWN, "gd"), (VM_UFFD_MISSING, "um"), (VM_PFNMAP, "pf"),
    (VM_MAYBE_GUARD, "gu"), (VM_UFFD_WP, "uw"), (VM_LOCKED, "lo"), (VM_IO, "io"), (VM_SEQ_READ, "sr"),
    (VM_RAND_READ, "rr"), (VM_DONTCOPY, "dc"), (VM_DONTEXPAND, "de"), (VM_LOCKONFAULT, "lf"), (VM_ACCOUNT, "ac"),
    (VM_NORESERVE, "nr"), (VM_HUGETLB, "ht"), (VM_SYNC, "sf"), (VM_WIPEONFORK, "wf"), (VM_DONTDUMP, "dd"),
    (VM_SOFTDIRTY, "sd"), (VM_MIXEDMAP, "mm"), (VM_HUGEPAGE, "hg"), (VM_NOHUGEPAGE, "nh"), (VM_MERGEABLE, "mg"),
    (VM_UFFD_MINOR, "ui"), (VM_SEALED, "sl"),
)  # fmt: skip


class mem_size_stats(NamedTuple):
    """What smaps adds up, in bytes; `pss` and `pss_locked` shifted by PSS_SHIFT (struct mem_size_stats)."""

    resident: int = 0
    anonymous: int = 0
    anonymous_thp: int = 0
    shmem_thp: int = 0
    file_thp: int = 0
    swap: int = 0
    ksm: int = 0
    pss: int = 0
    pss_locked: int = 0


class smap(NamedTuple):
    """What smaps says of a VMA; `inode` is the address of its address_space, 0 for anonymous memory."""

    vm_start: int
    vm_end: int
    vm_flags: int
    vm_pgoff: int
    inode: int
    stats: mem_size_stats


NO_STATS: Final = mem_size_stats()


# --- smaps -------------------------------------------------------------------------------------------------


def proc_smaps(mm: mm_struct) -> tuple[smap, ...]:
    """/proc/PID/smaps: all VMAs, each under its own lock; nothing if the process has exited."""
    if not mmget_not_zero(mm):
        return ()
    shown = smaps_under_vma_locks(mm) if config.per_vma_lock else smaps_under_mmap_lock(mm)
    mmput(mm)
    return shown


def smaps_under_mmap_lock(mm: mm_struct) -> tuple[smap, ...]:
    """All VMAs while none can change."""
    mmap_read_lock(mm)
    shown = tuple([show_smap(vm_area_struct(found)) for found in mt_values(mm.mm_mt)])
    mmap_read_unlock(mm)
    return shown


def smaps_under_vma_locks(mm: mm_struct) -> tuple[smap, ...]:
    """One VMA after the other (m_start, m_next)."""
    shown: tuple[smap, ...] = ()
    addr = 0
    while True:
        rcu_read_lock()
        vma = lock_next_vma(mm, addr)
        rcu_read_unlock()
        if not vma:
            return shown
        addr = vma.vm_end
        shown += (show_smap(vma),)
        vma_end_read(vma)
        forget((addr, shown))


def show_smap(vma: vm_area_struct) -> smap:
    """One VMA, which the caller keeps as it is."""
    f = vma.vm_file
    inode = f.f_mapping.addr if f else 0
    return smap(vma.vm_start, vma.vm_end, vma.vm_flags, vma.vm_pgoff, inode, __show_smap(smap_gather_stats(vma)))


def __show_smap(mss: mem_size_stats) -> mem_size_stats:
    """Which of the figures are told."""
    return mss


def show_smap_vma_flags(vm_flags: int) -> str:
    """What smaps calls the flags of a VMA."""
    return " ".join([mnemonic for flag, mnemonic in MNEMONICS if vm_flags & flag])


def smap_gather_stats(vma: vm_area_struct) -> mem_size_stats:
    """Add up what the VMA maps.

    What is in swap of shared memory is its file's; in a private, writable mapping only where that maps nothing itself.
    """
    start, end = vma.vm_start, vma.vm_end
    if not vma.vm_file or not vma.vm_file.f_mapping.shmem:
        return gather_page_range(vma, start, end, smaps_pte_range, smaps_no_hole, NO_STATS)
    swapped = shmem_swap_usage(vma) << arch.page_shift
    if swapped and vma.vm_flags & (VM_SHARED | VM_WRITE) == VM_WRITE:
        return gather_page_range(vma, start, end, smaps_shmem_pte_range, smaps_pte_hole, NO_STATS)
    return gather_page_range(vma, start, end, smaps_pte_range, smaps_no_hole, mem_size_stats(swap=swapped))


def smaps_no_hole(vma: vm_area_struct, addr: int, end: int, mss: mem_size_stats) -> mem_size_stats:
    """Nothing is looked for where no table is."""
    return mss


def smaps_pte_hole(vma: vm_area_struct, addr: int, end: int, mss: mem_size_stats) -> mem_size_stats:
    """Where no table is, what the file has in swap."""
    first, nr = linear_page_index(vma, addr), end - addr >> arch.page_shift
    swapped = shmem_partial_swap_usage(vma.vm_file.f_mapping, first, first + nr)
    return mss._replace(swap=mss.swap + (swapped << arch.page_shift))


def smaps_pte_range(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, mss: mem_size_stats) -> mem_size_stats | None:
    """A huge page, or the entries of a table."""
    if pmd_is_huge(load(pmd)):
        pml = pmd_trans_huge_lock(vma.vm_mm, pmd, addr)
        if pml:
            found = smaps_pmd_entry(vma, pmdp_get_lockless(pmd))
            spin_unlock(pml)
            return mem_size_stats(*map(plus, mss, found))
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not pte:
        return None  # ACTION_AGAIN
    nr = end - addr >> arch.page_shift
    entries = load_range(pte, nr)
    if entries.count(0) < nr:
        mss = mem_size_stats(*map(plus, mss, smaps_pte_entries(vma, entries)))
    pte_unmap_unlock(pte, ptl)
    return mss


def smaps_shmem_pte_range(
    vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, mss: mem_size_stats
) -> mem_size_stats | None:
    """The same of a private mapping, and what its file has in swap where entries are none (smaps_pte_hole_lookup)."""
    if pmd_is_huge(load(pmd)):
        return smaps_pte_range(vma, pmd, addr, end, mss)
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not pte:
        return None
    entries = load_range(pte, end - addr >> arch.page_shift)
    mss = mem_size_stats(*map(plus, mss, smaps_pte_entries(vma, entries)))
    for i, entry in enumerate(entries):
        if entry == 0:
            at = addr + (i << arch.page_shift)
            mss = smaps_pte_hole(vma, at, at + arch.page_size, mss)
    pte_unmap_unlock(pte, ptl)
    return mss


def smaps_pte_entries(vma: vm_area_struct, entries: list[int]) -> mem_size_stats:
    """What entries map (smaps_pte_entry, smaps_account); under ptl."""
    present, special, shift = PRESENT | PROTNONE, SPECIAL, PFN_SHIFT
    size = arch.page_size
    whole = size << PSS_SHIFT
    resident = anonymous = ksm = swap = pss = 0
    for entry in filter(None, entries):
        if entry & present:
            if entry & special:
                continue
            f = load(entry >> shift)
            if load(f + FOLIO_REFCOUNT) == 1:
                pss += whole
            else:
                order0 = load(f + FOLIO_ORDER) == 0
                mapcount = load(f + FOLIO_MAPCOUNT) if order0 else precise_mapcount(f, entry >> shift)
                pss += whole if mapcount < 2 else whole // mapcount
        elif swp_type(entry) == SWP_MIGRATION:
            f = load(entry >> shift)
            pss += whole  # by how many it is shared cannot be told
        else:
            swap += swp_type(entry) == SWP_SWAP
            continue
        resident += 1
        kind = load(f + FOLIO_MAPPING) & FOLIO_MAPPING_KSM
        if kind:
            anonymous += 1
            if kind == FOLIO_MAPPING_KSM:
                ksm += 1
    locked = pss if vma.vm_flags & VM_LOCKED else 0
    return mem_size_stats(
        resident * size, anonymous * size, swap=swap * size, ksm=ksm * size, pss=pss, pss_locked=locked
    )


def smaps_pmd_entry(vma: vm_area_struct, pmdval: int) -> mem_size_stats:
    """What a huge pmd maps; under pml."""
    if pmdval & SPECIAL and pmd_present(pmdval):
        return NO_STATS
    f = page_folio(pmd_page(pmdval))
    nr, size = arch.hpage_pmd_nr, arch.pmd_size
    pss = size << PSS_SHIFT & ((1 << 32) - 1 if arch.task_size < 1 << 32 else -1)  # an unsigned long
    if pmd_present(pmdval) and load(f._refcount) != 1:
        whole = arch.page_size << PSS_SHIFT
        mapcounts = [load(page_mapcount(f.page + i * PAGE_CELLS)) for i in range(nr)]
        entire = load(f._entire_mapcount)
        pss = sum([whole // max(mapcount + entire, 1) for mapcount in mapcounts])
    anon = folio_test_anon(f)
    shmem = not anon and f.flags & PG_SWAPBACKED != 0
    return mem_size_stats(
        resident=size,
        anonymous=size if anon else 0,
        anonymous_thp=size if anon else 0,
        shmem_thp=size if shmem else 0,
        file_thp=0 if anon or shmem else size,
        pss=pss,
        pss_locked=pss if vma.vm_flags & VM_LOCKED else 0,
    )


def precise_mapcount(f: int, page: page_t) -> int:
    """folio_precise_page_mapcount of the folio at address `f`."""
    if load(f + FOLIO_ORDER) == 0:
        return load(f + FOLIO_MAPCOUNT)
    return load(page_mapcount(page)) + load(f + FOLIO_ENTIRE_MAPCOUNT)


# --- pagemap -----------------------------------------------------------------------------------------------


def pagemap_read(mm: mm_struct, start: int, end: int) -> Pagemap:
    """/proc/PID/pagemap from address `start` to `end`; nothing if the process has exited."""
    if not mmget_not_zero(mm):
        return ()
    runs: Pagemap = ()
    while start < end:
        next_ = pmd_addr_end(start, end)
        mmap_read_lock(mm)
        for found in mt_range(mm.mm_mt, start, next_):
            vma = vm_area_struct(found)
            first, last = max(start, vma.vm_start), min(next_, vma.vm_end)
            runs = gather_page_range(vma, first, last, pagemap_pmd_range, pagemap_pte_hole, runs)
        mmap_read_unlock(mm)
        start = next_
        forget((start, runs))
    mmput(mm)
    return runs


def pagemap_pte_hole(vma: vm_area_struct, addr: int, end: int, runs: Pagemap) -> Pagemap:
    """Nothing is mapped."""
    return runs


def pagemap_pmd_range(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, runs: Pagemap) -> Pagemap | None:
    """A huge page, or the entries of a table."""
    if pmd_is_huge(load(pmd)):
        pml = pmd_trans_huge_lock(vma.vm_mm, pmd, addr)
        if pml:
            runs += pagemap_pmd_range_thp(vma, pmdp_get_lockless(pmd), addr, end - addr >> arch.page_shift)
            spin_unlock(pml)
            return runs
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not pte:
        return None  # ACTION_AGAIN
    nr = end - addr >> arch.page_shift
    entries = load_range(pte, nr)
    if entries.count(0) < nr:
        found = bytes([pte_to_pagemap_entry(pte) if pte else 0 for pte in entries])
        runs += pagemap_runs(addr, pagemap_soft_dirty(vma, entries, found) if config.soft_dirty else found)
    pte_unmap_unlock(pte, ptl)
    return runs


def pagemap_runs(addr: int, entries: bytes) -> Pagemap:
    """The entries of the pages from address `addr` on (add_to_pagemap)."""
    return tuple([(addr + (i << arch.page_shift), nr, entry) for i, nr, entry in runs_of_equal(entries) if entry])


def pagemap_soft_dirty(vma: vm_area_struct, ptes: list[int], found: bytes) -> bytes:
    """What was found of entries, with the bits of those that count as written."""
    always = vma.vm_flags & VM_SOFTDIRTY
    return bytes([
        entry | PM_SOFT_DIRTY if pte and (always or pte & SOFT_DIRTY) else entry
        for pte, entry in zip(ptes, found, strict=True)
    ])  # fmt: skip


def pte_to_pagemap_entry(pte: int) -> int:
    """The entry of a page; under ptl."""
    if pte & (PRESENT | PROTNONE) == 0:
        return swp_to_pagemap_entry(pte)
    flags = PM_PRESENT | PM_UFFD_WP if pte & UFFD_WP else PM_PRESENT
    if pte & SPECIAL:
        return flags
    f = load(pte >> PFN_SHIFT)
    if (load(f + FOLIO_MAPCOUNT) if load(f + FOLIO_ORDER) == 0 else precise_mapcount(f, pte >> PFN_SHIFT)) == 1:
        flags |= PM_MMAP_EXCLUSIVE
    return flags if load(f + FOLIO_MAPPING) & FOLIO_MAPPING_ANON else flags | PM_FILE


def swp_to_pagemap_entry(pte: int) -> int:
    """The same of an entry that is not present."""
    kind = swp_type(pte)
    flags = PM_SWAP | PM_UFFD_WP if pte & UFFD_WP else PM_SWAP
    if kind == SWP_MARKER:
        return flags | pagemap_marker(swp_offset(pte))
    if kind == SWP_MIGRATION and not folio_test_anon(page_folio(pte_page(pte))):
        flags |= PM_FILE
    return flags


def pagemap_marker(marker: int) -> int:
    """The entry of a marker."""
    flags = PM_SWAP | PM_GUARD_REGION if marker & PTE_MARKER_GUARD else PM_SWAP
    return flags | PM_UFFD_WP if marker & PTE_MARKER_UFFD_WP else flags


def pagemap_pmd_range_thp(vma: vm_area_struct, pmdval: int, addr: int, nr: int) -> Pagemap:
    """`nr` pages of a huge page; under pml."""
    f = page_folio(pmd_page(pmdval))
    flags = PM_PRESENT if pmd_present(pmdval) else PM_SWAP
    if pmdval & UFFD_WP:
        flags |= PM_UFFD_WP
    if config.soft_dirty and (vma.vm_flags & VM_SOFTDIRTY or pmdval & SOFT_DIRTY):
        flags |= PM_SOFT_DIRTY
    if not folio_test_anon(f):
        flags |= PM_FILE
    if not pmd_present(pmdval):
        return ((addr, nr, flags),)
    return thp_mapped_exclusively(f, addr, nr, flags)


def thp_mapped_exclusively(f: folio, addr: int, nr: int, flags: int) -> Pagemap:
    """The entries of `nr` pages of a huge page that are mapped whole: all tell what is true of the first."""
    if folio_precise_page_mapcount(f, f.page) == 1:
        flags |= PM_MMAP_EXCLUSIVE
    return ((addr, nr, flags),)

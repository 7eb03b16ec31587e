# SPDX-License-Identifier: GPL-2.0-only
"""Migration: another page takes the place of one, and who needs it meanwhile waits (mm/migrate.c; 7.2).

The entries that map the old page become migration entries, under the page's lock; then its content and what refers to
it move to the new page, and the entries map that.  Nodes are not modelled: each page is taken to be on another than the
one that it shall go to.  Nor are the lists of the LRU: of two who move a page, each finds the other's reference and
gives up, where in the kernel one does not get it from its list.  Folios move one by one, and each is tried once, where
the kernel tries up to ten times.
"""

from __future__ import annotations

from ..machine import (
    WRITE_ONCE,
    add,
    cmpxchg,
    forget,
    inc_not_zero,
    mutex_lock,
    mutex_unlock,
    publish,
    rcu_read_lock,
    rcu_read_unlock,
    spin_lock,
    spin_unlock,
    store,
    up_read,
    wait_unlocked,
    xa_store,
)
from .mm_types import address_space, anon_vma, folio, mm_struct, spinlock_t, vm_area_struct
from .mmap_lock import mmap_read_lock, mmap_read_unlock
from .not_modelled import NotModelled
from .page_alloc import (
    NO_FOLIO,
    PG_MLOCKED,
    PG_SWAPCACHE,
    copy_page,
    folio_alloc,
    folio_expected_ref_count,
    folio_get,
    folio_mapcount,
    folio_nr_pages,
    folio_page,
    folio_put,
    folio_ref_count,
    folio_test_anon,
    folio_test_ksm,
)
from .pgtable import (
    SPECIAL,
    SWP_MIGRATION,
    is_pmd_migration_entry,
    is_swap_pte,
    mm_find_pmd,
    page_folio,
    pmd_p,
    pmd_trans_huge,
    pmdp_get_lockless,
    pte_page,
    pte_present,
    ptep_get,
    swp_offset,
    swp_type,
)
from .pgtable_generic import pmd_lock, pte_offset_map_lock, pte_unmap, pte_unmap_unlock
from .rmap import NO_ANON_VMA, folio_maybe_mapped_shared, put_anon_vma
from .rmap_walk import folio_anon_vma, folio_mapping, remove_migration_ptes, rmap_lock_read, try_to_migrate
from .swap_table import NO_CLUSTER, swap_cluster_lock, swap_slot
from .vm_flags import EACCES, EAGAIN, EFAULT, ENOENT, VM_HUGETLB, VM_IO, VM_PFNMAP
from .vma import vma_lookup

# --- who waits -------------------------------------------------------------------------------------------


def migration_entry_wait(mm: mm_struct, pmd: pmd_p, address: int) -> None:
    """Wait until the page at an address is no longer under migration, if it is."""
    pte, ptl = pte_offset_map_lock(mm, pmd, address)
    if not pte:
        return
    entry = ptep_get(pte)
    pte_unmap(pte)
    if is_swap_pte(entry) and swp_type(entry) == SWP_MIGRATION:
        softleaf_entry_wait_on_locked(entry, ptl)
    else:
        spin_unlock(ptl)


def pmd_migration_entry_wait(mm: mm_struct, pmd: pmd_p, address: int) -> None:
    """The same of a huge page."""
    pml = pmd_lock(mm, pmd, address)
    entry = pmdp_get_lockless(pmd)
    if is_pmd_migration_entry(entry):
        softleaf_entry_wait_on_locked(entry, pml)
    else:
        spin_unlock(pml)


def softleaf_entry_wait_on_locked(entry: int, ptl: spinlock_t) -> None:
    """Let go of `ptl`, and wait until the folio of a migration entry is unlocked (mm/filemap.c).

    No reference is taken, which would keep the folio from being moved: it is there as long as the entry is.
    """
    f = page_folio(swp_offset(entry))
    spin_unlock(ptl)
    wait_unlocked(f.lock)


# --- who moves -------------------------------------------------------------------------------------------


def do_pages_move(mm: mm_struct, addresses: tuple[int, ...], move_all: bool) -> tuple[int, ...]:
    """move_pages(2) of the pages at these addresses, `move_all` also of those that others map.

    What became of each: 0, -EAGAIN for one that is in use and stays, -EACCES for one that others map, -EFAULT where
    nothing is or the zero page, -ENOENT where no page is.
    """
    status: tuple[int, ...] = ()
    for address in addresses:
        error, f = add_folio_for_migration(mm, address, move_all)
        status += (error or unmap_and_move(f),)
        forget((address, status))
    return status


def add_folio_for_migration(mm: mm_struct, address: int, move_all: bool) -> tuple[int, folio]:
    """(0, the folio at an address with a reference), or (-errno, NULL)."""
    mmap_read_lock(mm)
    vma = vma_lookup(mm, address)
    error, f = -EFAULT, NO_FOLIO
    if vma and vma.vm_flags & (VM_IO | VM_PFNMAP | VM_HUGETLB) == 0:
        error, f = folio_walk(vma, address)
    if f and not move_all and folio_maybe_mapped_shared(f):
        folio_put(f)
        error, f = -EACCES, NO_FOLIO
    mmap_read_unlock(mm)
    return error, f


def folio_walk(vma: vm_area_struct, address: int) -> tuple[int, folio]:
    """(0, the folio that is mapped at an address, with a reference), or (-errno, NULL) (folio_walk_start)."""
    pmd = mm_find_pmd(vma.vm_mm, address)
    if not pmd:
        return -ENOENT, NO_FOLIO
    pmdval = pmdp_get_lockless(pmd)
    if pmd_trans_huge(pmdval):
        pml = pmd_lock(vma.vm_mm, pmd, address)
        pmdval = pmdp_get_lockless(pmd)
        if pmd_trans_huge(pmdval):
            error, f = walked(pmdval)
            spin_unlock(pml)
            return error, f
        spin_unlock(pml)
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, address)
    if not pte:
        return -ENOENT, NO_FOLIO
    error, f = walked(ptep_get(pte))
    pte_unmap_unlock(pte, ptl)
    return error, f


def walked(entry: int) -> tuple[int, folio]:
    """What folio_walk() finds in an entry, huge or not, under its lock."""
    if not pte_present(entry):
        return -ENOENT, NO_FOLIO
    if entry & SPECIAL:
        return -EFAULT, NO_FOLIO
    f = page_folio(pte_page(entry))
    folio_get(f)
    return 0, f


def unmap_and_move(src: folio) -> int:
    """Let a new folio take the place of one, with whose reference the caller parts: 0, or -EAGAIN if it is in use.

    migrate_folio_unmap() and migrate_folio_move()
    """
    if folio_ref_count(src) == 1:  # freed from under us
        folio_put(src)
        return 0
    if folio_test_ksm(src):
        raise NotModelled("migration of pages that KSM has merged")
    dst = folio_alloc(src.order)
    mutex_lock(src.lock)
    av = folio_get_anon_vma(src)
    mutex_lock(dst.lock)
    was_mapped = src.mapping != 0 and folio_mapcount(src) != 0
    moved = (not was_mapped or try_to_migrate(src)) and move_to_new_folio(dst, src)
    if was_mapped:
        now = dst if moved else src
        sem = rmap_lock_read(src)
        remove_migration_ptes(src, tuple([folio_page(now, i) for i in range(folio_nr_pages(now))]))
        up_read(sem)
    if moved and not folio_test_anon(src):
        src.mapping = 0
    mutex_unlock(dst.lock)
    folio_put(dst)
    if av:
        put_anon_vma(av)
    mutex_unlock(src.lock)
    folio_put(src)
    return 0 if moved else -EAGAIN


def folio_get_anon_vma(f: folio) -> anon_vma:
    """The anon_vma of a mapped anonymous folio with a reference, else NULL (mm/rmap.c)."""
    rcu_read_lock()
    av = folio_anon_vma(f) if folio_test_anon(f) and folio_mapcount(f) else NO_ANON_VMA
    if av and not inc_not_zero(av.refcount):
        av = NO_ANON_VMA
    rcu_read_unlock()
    if av and not folio_mapcount(f):
        put_anon_vma(av)
        return NO_ANON_VMA
    return av


def move_to_new_folio(dst: folio, src: folio) -> bool:
    """Copy a locked folio that nothing maps, and let file or swap cache have the copy; false if it is in use."""
    mapping = folio_mapping(src)
    expected = folio_expected_ref_count(src) + 1 + (folio_nr_pages(src) if mapping else 0)
    if folio_ref_count(src) != expected:
        return False
    for i in range(folio_nr_pages(src)):
        copy_page(folio_page(dst, i), folio_page(src, i))
    return folio_migrate_mapping(mapping, dst, src, expected)


def folio_migrate_mapping(mapping: address_space, dst: folio, src: folio, expected: int) -> bool:
    """Replace a folio by its copy where it is cached; false if its references are not `expected`."""
    cached = bool(mapping) or src.flags & PG_SWAPCACHE != 0
    if not cached and src.order == 0:  # no turning back from here
        folio_migrate_flags(dst, src)
        return True
    ci = swap_cluster_lock(src.swap) if src.flags & PG_SWAPCACHE else NO_CLUSTER
    nr = folio_nr_pages(src)
    if mapping:
        spin_lock(mapping.i_pages_lock)
    frozen = cmpxchg(src._refcount, expected, 0) == expected
    if frozen:
        folio_migrate_flags(dst, src)
        if cached:
            add(dst._refcount, nr)
        for i in range(nr):
            if ci:
                store(swap_slot(ci, src.swap + i), dst.addr)
            elif mapping:
                xa_store(mapping.i_pages, src.index + i, dst.addr)
        store(src._refcount, expected - nr if cached else expected)
    if ci:
        spin_unlock(ci.lock)
    elif mapping:
        spin_unlock(mapping.i_pages_lock)
    return frozen


def folio_migrate_flags(dst: folio, src: folio) -> None:
    """The copy is what the folio was, and others may find it; that it is locked in memory its mappings will say."""
    dst.mapping = src.mapping
    dst.index = src.index
    dst.swap = src.swap
    WRITE_ONCE(dst, "flags", src.flags & ~PG_MLOCKED)
    publish(dst.addr)

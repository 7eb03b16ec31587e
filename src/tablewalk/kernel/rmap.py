# SPDX-License-Identifier: GPL-2.0-only
"""Reverse mapping: anon_vmas and the counts of a folio's mappings (mm/rmap.c, mm/vma.c; 7.2)."""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    READ_ONCE,
    WRITE_ONCE,
    add,
    add_return,
    down_read_trylock,
    down_write,
    interval_tree_destroy,
    interval_tree_empty,
    interval_tree_init,
    interval_tree_insert,
    interval_tree_remove,
    might_sleep,
    mt_find,
    mt_prev,
    publish,
    spin_lock,
    spin_unlock,
    store,
    up_write,
)
from .mlock_folio import mlock_vma_folio, munlock_vma_folio
from .mm_types import anon_vma, anon_vma_chain, atomic_t, counter_t, folio, mm_struct, vm_area_struct
from .mmap_lock import mmap_read_unlock
from .page_alloc import (
    FOLIO_MAPPING_ANON,
    MAPPING_SHIFT,
    PAGE_ANON_EXCLUSIVE,
    PAGE_CELLS,
    PG_SWAPBACKED,
    PG_UPTODATE,
    __folio_mark_uptodate,
    folio_mapcount,
    page_mapcount,
)
from .pgtable import page_t
from .vm_fault import vm_fault
from .vm_flags import FAULT_FLAG_VMA_LOCK, VM_ACCESS_FLAGS, VM_FAULT_RETRY, VM_STICKY_FLAGS

NO_ANON_VMA: Final = anon_vma(0)
NO_AVC: Final = anon_vma_chain(0)
NO_MM: Final = mm_struct(0)


def vma_pages(vma: vm_area_struct) -> int:
    """Pages."""
    return vma.vm_end - vma.vm_start >> arch.page_shift


def vma_last_pgoff(vma: vm_area_struct) -> int:
    """Offset of the last page."""
    return vma.vm_pgoff + vma_pages(vma) - 1


def linear_page_index(vma: vm_area_struct, address: int) -> int:
    """Page offset of `address` in the file, or its virtual page number for anonymous memory."""
    return (address - vma.vm_start >> arch.page_shift) + vma.vm_pgoff


def vma_address(vma: vm_area_struct, pgoff: int) -> int:
    """Address at which the VMA maps page `pgoff`."""
    return vma.vm_start + (pgoff - vma.vm_pgoff << arch.page_shift)


# --- anon_vma --------------------------------------------------------------------------------------------


def anon_vma_lock_write(av: anon_vma) -> None:
    """Lock the whole tree of anon_vmas exclusively."""
    down_write(av.root.rwsem)


def anon_vma_unlock_write(av: anon_vma) -> None:
    """Release it."""
    up_write(av.root.rwsem)


def anon_vma_alloc() -> anon_vma:
    """A new anon_vma with one reference that is its own root and parent."""
    av: anon_vma = anon_vma.alloc()
    store(av.refcount, 1)
    av.root = av
    av.parent = av
    interval_tree_init(av.rb_root)
    return av


def anon_vma_free(av: anon_vma) -> None:
    """Free an anon_vma that nothing hangs on."""
    interval_tree_destroy(av.rb_root)
    av.free()


def get_anon_vma(av: anon_vma) -> None:
    """One reference more; the caller has one, or what keeps one."""
    add(av.refcount, 1)


def put_anon_vma(av: anon_vma) -> None:
    """Drop a reference; with the last one it goes, and with it its reference to the root."""
    if add_return(av.refcount, -1):
        return
    root = av.root
    anon_vma_free(av)
    if root != av:
        put_anon_vma(root)


def list_is_singular(vma: vm_area_struct) -> bool:
    """Whether exactly one anon_vma_chain hangs on the VMA."""
    first = vma.anon_vma_chain
    return bool(first) and not first.next


def anon_vma_chain_link(vma: vm_area_struct, av: anon_vma) -> anon_vma_chain:
    """A new link between VMA and anon_vma at the head of the VMA's list, not yet in the anon_vma's tree."""
    avc: anon_vma_chain = anon_vma_chain.alloc()
    avc.vma = vma
    avc.anon_vma = av
    avc.next = vma.anon_vma_chain
    vma.anon_vma_chain = avc
    return avc


def anon_vma_interval_tree_insert(avc: anon_vma_chain) -> None:
    """Let rmap walks of the anon_vma find the VMA; under the root's lock."""
    vma = avc.vma
    interval_tree_insert(avc.anon_vma.rb_root, vma.vm_pgoff, vma_last_pgoff(vma), avc.addr)


def anon_vma_compatible(a: vm_area_struct, b: vm_area_struct) -> bool:
    """Whether two neighbours differ at most in what mprotect can make equal again."""
    return (
        a.vm_end == b.vm_start
        and a.vm_policy == b.vm_policy
        and a.vm_file == b.vm_file
        and (a.vm_flags ^ b.vm_flags) & ~(VM_ACCESS_FLAGS | VM_STICKY_FLAGS) == 0
        and b.vm_pgoff == a.vm_pgoff + vma_pages(a)
    )


def reusable_anon_vma(old: vm_area_struct, a: vm_area_struct, b: vm_area_struct) -> anon_vma:
    """`old`'s anon_vma if the neighbours a and b could merge and it was never forked; NULL otherwise."""
    if anon_vma_compatible(a, b):
        av: anon_vma = READ_ONCE(old, "anon_vma")
        if av and list_is_singular(old):
            return av
    return NO_ANON_VMA


def find_mergeable_anon_vma(vma: vm_area_struct) -> anon_vma:
    """The anon_vma of the next or the previous VMA if sharing it keeps a later merge possible; NULL otherwise."""
    tree = vma.vm_mm.mm_mt
    after = vm_area_struct(mt_find(tree, vma.vm_end))
    if after:
        av = reusable_anon_vma(after, vma, after)
        if av:
            return av
    before = vm_area_struct(mt_prev(tree, vma.vm_start))
    if before:
        return reusable_anon_vma(before, before, vma)
    return NO_ANON_VMA


def __anon_vma_prepare(vma: vm_area_struct) -> None:
    """Give the VMA an anon_vma: a neighbour's, or a new one.  mmap_lock is held."""
    might_sleep()
    av = find_mergeable_anon_vma(vma)
    allocated = NO_ANON_VMA
    if not av:
        av = anon_vma_alloc()
        av.num_children = 1
        allocated = av
    anon_vma_lock_write(av)
    spin_lock(vma.vm_mm.page_table_lock)
    if not vma.anon_vma:
        publish(av.addr)
        WRITE_ONCE(vma, "anon_vma", av)
        anon_vma_interval_tree_insert(anon_vma_chain_link(vma, av))
        av.num_active_vmas += 1
        allocated = NO_ANON_VMA
    spin_unlock(vma.vm_mm.page_table_lock)
    anon_vma_unlock_write(av)
    if allocated:
        put_anon_vma(allocated)


def anon_vma_prepare(vma: vm_area_struct) -> None:
    """See to it that the VMA has an anon_vma; mmap_lock is held."""
    if not vma.anon_vma:
        __anon_vma_prepare(vma)


def vmf_anon_prepare(vmf: vm_fault) -> int:
    """See to it that the VMA of a fault has an anon_vma (mm/memory.c).

    Under the VMA lock only if mmap_lock can be had at once, else VM_FAULT_RETRY.
    """
    vma = vmf.vma
    if vma.anon_vma:
        return 0
    if vmf.flags & FAULT_FLAG_VMA_LOCK:
        if not down_read_trylock(vma.vm_mm.mmap_lock):
            return VM_FAULT_RETRY
        __anon_vma_prepare(vma)
        mmap_read_unlock(vma.vm_mm)
    else:
        __anon_vma_prepare(vma)
    return 0


def anon_vma_chains(vma: vm_area_struct) -> tuple[anon_vma_chain, ...]:
    """The VMA's links, newest first."""
    links: tuple[anon_vma_chain, ...] = ()
    avc = vma.anon_vma_chain
    while avc:
        links += (avc,)
        avc = avc.next
    return links


def anon_vma_clone(dst: vm_area_struct, src: vm_area_struct, fork: bool = False) -> None:
    """Link `dst` to every anon_vma of `src`; a fork may reuse an anon_vma that has lost all its VMAs."""
    if not src.anon_vma:
        return
    for avc in reversed(anon_vma_chains(src)):
        anon_vma_chain_link(dst, avc.anon_vma)
    anon_vma_lock_write(src.anon_vma)
    for avc in reversed(anon_vma_chains(dst)):
        anon_vma_interval_tree_insert(avc)
        av = avc.anon_vma
        if fork and not dst.anon_vma and av.num_children < 2 and av.num_active_vmas == 0:
            WRITE_ONCE(dst, "anon_vma", av)
            av.num_active_vmas += 1
    if not fork:
        dst.anon_vma.num_active_vmas += 1
    anon_vma_unlock_write(src.anon_vma)


def anon_vma_fork(vma: vm_area_struct, pvma: vm_area_struct) -> None:
    """Give the child's VMA its own anon_vma below the parent's, besides all the parent's."""
    if not pvma.anon_vma:
        return
    WRITE_ONCE(vma, "anon_vma", NO_ANON_VMA)
    anon_vma_clone(vma, pvma, fork=True)
    if vma.anon_vma:
        return
    av = anon_vma_alloc()
    av.num_active_vmas = 1
    av.root = pvma.anon_vma.root
    get_anon_vma(av.root)
    av.parent = pvma.anon_vma
    WRITE_ONCE(vma, "anon_vma", av)
    avc = anon_vma_chain_link(vma, av)
    anon_vma_lock_write(av)
    anon_vma_interval_tree_insert(avc)
    av.parent.num_children += 1
    anon_vma_unlock_write(av)


def unlink_anon_vmas(vma: vm_area_struct) -> None:
    """Take the VMA out of the reverse map; anon_vmas without any VMA go."""
    active = vma.anon_vma
    if not active:
        return
    empty: tuple[anon_vma, ...] = ()
    root = active.root
    down_write(root.rwsem)
    for avc in anon_vma_chains(vma):
        av = avc.anon_vma
        interval_tree_remove(av.rb_root, avc.addr)
        if interval_tree_empty(av.rb_root):
            av.parent.num_children -= 1
            empty += (av,)
        avc.free()
    active.num_active_vmas -= 1
    vma.anon_vma_chain = NO_AVC
    WRITE_ONCE(vma, "anon_vma", NO_ANON_VMA)
    up_write(root.rwsem)
    for av in empty:
        put_anon_vma(av)


# --- folio mappings --------------------------------------------------------------------------------------


def folio_add_new_anon_rmap(f: folio, vma: vm_area_struct, address: int, nr: int = 1) -> None:
    """A new anonymous folio, not yet visible, gets its first `nr` mappings."""
    f.mapping = vma.anon_vma.addr << MAPPING_SHIFT | FOLIO_MAPPING_ANON
    f.index = (address - vma.vm_start >> arch.page_shift) + vma.vm_pgoff
    f.flags = PG_SWAPBACKED | PG_UPTODATE
    store(f.page + 1, PAGE_ANON_EXCLUSIVE)
    for i in range(1, nr):
        store(f.page + PAGE_CELLS * i + 1, PAGE_ANON_EXCLUSIVE)
    folio_dup_rmap_ptes(f, f.page, nr, vma.vm_mm)
    __folio_mark_uptodate(f)
    mlock_vma_folio(f, vma)


def folio_add_rmap_ptes(f: folio, page: page_t, nr: int, vma: vm_area_struct) -> None:
    """`nr` more entries of the VMA map pages of the folio, from `page` on."""
    folio_dup_rmap_ptes(f, page, nr, vma.vm_mm)
    if nr == 1 << f.order:
        mlock_vma_folio(f, vma)


def folio_dup_rmap_ptes(f: folio, page: page_t, nr: int, mm: mm_struct) -> None:
    """The same in a fork, whose child has nothing locked."""
    if f.order == 0:
        add(f._mapcount, nr)
        return
    folio_add_large_mapcount(f, f._mapcount, nr, mm)
    for i in range(nr):
        add(page_mapcount(page + PAGE_CELLS * i), 1)


def folio_add_large_mapcount(f: folio, mapcount: atomic_t, nr: int, mm: mm_struct) -> None:
    """`nr` more mappings of a large folio: they are counted as the mm's if it has one of the folio's two slots.

    A third mm has none, not even after others have gone (include/linux/rmap.h).
    """
    spin_lock(f._mm_ids_lock)
    add(mapcount, nr)
    if f._mm_id_0 == mm:
        f._mm_id_mapcount_0 += nr
    elif f._mm_id_1 == mm:
        f._mm_id_mapcount_1 += nr
    elif not f._mm_id_0:
        f._mm_id_0 = mm
        f._mm_id_mapcount_0 = nr
        if folio_mapcount(f) != nr:
            WRITE_ONCE(f, "_mm_ids_shared", 1)
    elif not f._mm_id_1:
        f._mm_id_1 = mm
        f._mm_id_mapcount_1 = nr
        WRITE_ONCE(f, "_mm_ids_shared", 1)
    spin_unlock(f._mm_ids_lock)


def folio_sub_large_mapcount(f: folio, mapcount: atomic_t, mm: mm_struct) -> None:
    """One mapping less of a large folio by the mm: a slot without mappings becomes free (include/linux/rmap.h)."""
    spin_lock(f._mm_ids_lock)
    add(mapcount, -1)
    left = 0
    if f._mm_id_0 == mm:
        left = f._mm_id_mapcount_0 = f._mm_id_mapcount_0 - 1
        if left == 0:
            f._mm_id_0 = NO_MM
    elif f._mm_id_1 == mm:
        left = f._mm_id_mapcount_1 = f._mm_id_mapcount_1 - 1
        if left == 0:
            f._mm_id_1 = NO_MM
    if left == 0 and folio_mapcount(f) in (f._mm_id_mapcount_0, f._mm_id_mapcount_1):
        WRITE_ONCE(f, "_mm_ids_shared", 0)
    spin_unlock(f._mm_ids_lock)


def folio_maybe_mapped_shared(f: folio) -> bool:
    """Whether others than one mm map the folio, or seem to (include/linux/mm.h)."""
    return folio_mapcount(f) > 1 and (f.order == 0 or READ_ONCE(f, "_mm_ids_shared") != 0)


def mm_counter_file(mm: mm_struct, f: folio) -> counter_t:
    """The counter of a file folio's mappings: MM_SHMEMPAGES or MM_FILEPAGES (include/linux/mm.h)."""
    return mm.shmem_rss if f.flags & PG_SWAPBACKED else mm.file_rss


def folio_remove_rmap_pte(f: folio, page: page_t, vma: vm_area_struct) -> None:
    """One entry less of the VMA maps a page of the folio."""
    if f.order:
        folio_sub_large_mapcount(f, f._mapcount, vma.vm_mm)
        add(page_mapcount(page), -1)
    else:
        add(f._mapcount, -1)
    munlock_vma_folio(f, vma)


def folio_add_rmap_pmd(f: folio, vma: vm_area_struct) -> None:
    """One more huge pmd, of the VMA, maps the folio."""
    folio_dup_rmap_pmd(f, vma.vm_mm)
    mlock_vma_folio(f, vma)


def folio_dup_rmap_pmd(f: folio, mm: mm_struct) -> None:
    """The same in a fork, whose child has nothing locked."""
    folio_add_large_mapcount(f, f._entire_mapcount, 1, mm)


def folio_remove_rmap_pmd(f: folio, vma: vm_area_struct) -> None:
    """One huge pmd less, of the VMA, maps the folio."""
    folio_sub_large_mapcount(f, f._entire_mapcount, vma.vm_mm)
    munlock_vma_folio(f, vma)

# SPDX-License-Identifier: GPL-2.0-only
"""Merging pages of equal content: what ksmd does with a page that it has come to (mm/ksm.c; 7.2).

A large folio is split first, and its pieces are folios of their own: what may split a page returns what it has become,
with the caller's reference.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    LEFT,
    RIGHT,
    WRITE_ONCE,
    forget,
    load,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    rb_child,
    rb_insert,
    rb_root,
    store,
)
from .config import config
from .folio_split import split_huge_page
from .ksm import break_cow, find_mergeable_vma, get_mergeable_page
from .ksm_tree import (
    NO_ITEM,
    NO_NODE,
    SEQNR_MASK,
    UNSTABLE_FLAG,
    calc_checksum,
    folio_set_stable_node,
    folio_stable_node,
    ksm_state,
    memcmp_pages,
    remove_rmap_item_from_tree,
    stable_tree_append,
    stable_tree_insert,
    stable_tree_search,
)
from .mm_types import folio, ksm_rmap_item, vm_area_struct
from .mmap_lock import mmap_read_lock, mmap_read_unlock
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .page_alloc import (
    PAGE_ANON_EXCLUSIVE,
    PG_DIRTY,
    PG_SWAPCACHE,
    folio_get,
    folio_mapcount,
    folio_maybe_dma_pinned,
    folio_put,
    folio_ref_count,
    folio_test_anon,
    folio_test_ksm,
    page_flags,
)
from .pgtable import (
    DIRTY,
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    RW,
    SPECIAL,
    mm_find_pmd,
    page_folio,
    page_t,
    pte_p,
    pte_page,
    ptep_get,
    ptep_get_and_clear,
    vm_page_prot,
)
from .pgtable_generic import pte_offset_map_lock, pte_unmap_unlock
from .rmap import folio_add_rmap_ptes, folio_remove_rmap_pte, get_anon_vma, vma_address
from .rmap_walk import folio_anon_vma
from .tlb import flush_tlb_range
from .vm_flags import EFAULT

NO_PTE: Final = 0  # no entry is 0 that maps a page


def cmp_and_merge_page(page: page_t, item: ksm_rmap_item) -> page_t:
    """Merge a page with one of the stable tree, or with one of the unstable tree, or put it there.

    The caller has a reference of the page, and gets it back as one of what is returned.
    """
    f = page_folio(page)
    node = folio_stable_node(f)
    if node:
        if item.head == node:
            return page
    elif not unchanged_before_search(item, page):
        return page
    kfolio, busy = stable_tree_search(page)
    if kfolio == f and item.head == node:
        folio_put(kfolio)
        return page
    remove_rmap_item_from_tree(item)
    if busy:
        return page
    if kfolio:
        return merge_with_stable(item, page, kfolio)
    if not unchanged_after_search(item, page):
        return page
    return merge_with_unstable(item, page)


def unchanged_before_search(item: ksm_rmap_item, page: page_t) -> bool:
    """Whether the page is what it was when it was last seen here: for one that changes no tree is searched.

    Its item is in no tree then: what it has left is not full because of it.
    """
    remove_rmap_item_from_tree(item)
    return checksum_is_old(item, page)


def unchanged_after_search(item: ksm_rmap_item, page: page_t) -> bool:
    """The same where it is asked only for the unstable tree."""
    return True


def checksum_is_old(item: ksm_rmap_item, page: page_t) -> bool:
    """Compare with the checksum that the item has, and keep the page's."""
    checksum = calc_checksum(page)
    if item.oldchecksum == checksum:
        return True
    item.oldchecksum = checksum
    return False


def merge_with_stable(item: ksm_rmap_item, page: page_t, kfolio: folio) -> page_t:
    """Map a page of KSM, of which a reference is dropped, instead of `page`."""
    err, page = try_to_merge_with_ksm_page(item, page, kfolio.page)
    if err == 0:
        mutex_lock(kfolio.lock)
        stable_tree_append(item, folio_stable_node(kfolio))
        mutex_unlock(kfolio.lock)
    folio_put(kfolio)
    return page


def merge_with_unstable(item: ksm_rmap_item, page: page_t) -> page_t:
    """Make `page` one of KSM that another item maps too, or let the item wait for such a one."""
    tree_item, tree_page = unstable_tree_search_insert(item, page)
    if not tree_item:
        return page
    err, page, tree_page = try_to_merge_two_pages(item, page, tree_item, tree_page)
    f = page_folio(page)
    split = f.order != 0 and f == page_folio(tree_page)
    folio_put(page_folio(tree_page))
    if err == 0:
        mutex_lock(f.lock)
        node = stable_tree_insert(f)
        stable_tree_append(tree_item, node)
        stable_tree_append(item, node)
        mutex_unlock(f.lock)
    elif split and mutex_trylock(f.lock):
        _, page = split_huge_page(page)
        mutex_unlock(page_folio(page).lock)
    return page


# --- the unstable tree -----------------------------------------------------------------------------------


def unstable_tree_search_insert(item: ksm_rmap_item, page: page_t) -> tuple[ksm_rmap_item, page_t]:
    """An item of another page with this content, and the page with a reference; or (NULL, 0).

    Then the item is in the tree, unless the way there led past one that has lost its page.
    """
    scan = ksm_state()
    root = scan.root_unstable_tree
    parent, side = 0, LEFT
    at = rb_root(root)
    while at:
        tree_item = ksm_rmap_item(at)
        tree_page = get_mergeable_page(tree_item)
        if not tree_page:
            return NO_ITEM, 0
        order = memcmp_pages(page, tree_page)
        if page != tree_page and order == 0:
            return tree_item, tree_page
        folio_put(page_folio(tree_page))
        if page == tree_page:
            return NO_ITEM, 0
        parent, side = at, RIGHT if order > 0 else LEFT
        at = rb_child(root, parent, side)
        forget((parent, side, at))
    item.state |= UNSTABLE_FLAG | scan.seqnr & SEQNR_MASK
    rb_insert(root, item.addr, parent, side)
    return NO_ITEM, 0


# --- merging ---------------------------------------------------------------------------------------------


def try_to_merge_two_pages(
    item: ksm_rmap_item, page: page_t, tree_item: ksm_rmap_item, tree_page: page_t
) -> tuple[int, page_t, page_t]:
    """Make `page` one of KSM, and map it instead of `tree_page` too: (0 or -EFAULT, what the pages have become)."""
    err, page = try_to_merge_with_ksm_page(item, page, 0)
    if err == 0:
        err, tree_page = try_to_merge_with_ksm_page(tree_item, tree_page, page)
        if err:
            break_cow(item)
    return err, page, tree_page


def try_to_merge_with_ksm_page(item: ksm_rmap_item, page: page_t, kpage: page_t) -> tuple[int, page_t]:
    """Let the item map `kpage` instead of `page`, or (0) make `page` one of KSM; (0 or -EFAULT, the page)."""
    mm = item.mm
    err = -EFAULT
    mmap_read_lock(mm)
    vma = find_mergeable_vma(mm, item.address)
    if vma:
        err, page = try_to_merge_one_page(vma, page, kpage)
        if err == 0:
            remove_rmap_item_from_tree(item)
            item.anon_vma = vma.anon_vma
            get_anon_vma(vma.anon_vma)
    mmap_read_unlock(mm)
    return err, page


def try_to_merge_one_page(vma: vm_area_struct, page: page_t, kpage: page_t) -> tuple[int, page_t]:
    """The same under mmap_lock."""
    if page == kpage:
        return 0, page
    f = page_folio(page)
    if not folio_test_anon(f) or not mutex_trylock(f.lock):
        return -EFAULT, page
    err = -EFAULT
    split = 0
    if f.order:
        split, page = split_huge_page(page)
        f = page_folio(page)
    if split == 0:
        address = vma_address(vma, f.index) if config.mmu_notifier else 0
        mmu_notifier_invalidate_range_start(vma, address, address + arch.page_size)
        orig_pte = write_protect_page(vma, f)
        if orig_pte != NO_PTE and not kpage:
            folio_set_stable_node(f, NO_NODE)
            WRITE_ONCE(f, "flags", f.flags | PG_DIRTY)
            err = 0
        elif orig_pte != NO_PTE and memcmp_pages(page, kpage) == 0:
            err = replace_page(vma, f, kpage, orig_pte)
        mmu_notifier_invalidate_range_end(vma, address, address + arch.page_size)
    mutex_unlock(f.lock)
    return err, page


def map_of_page(vma: vm_area_struct, f: folio) -> tuple[pte_p, int]:
    """The entry in which the VMA maps an anonymous page, and its lock, which is held; or (0, 0)."""
    if folio_test_ksm(f) or vma.anon_vma.root != folio_anon_vma(f).root:
        return 0, 0
    address = vma_address(vma, f.index)
    if not vma.vm_start <= address < vma.vm_end:
        return 0, 0
    pmd = mm_find_pmd(vma.vm_mm, address)
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, address) if pmd else (0, 0)
    if not pte:
        return 0, 0
    entry = ptep_get(pte)
    if entry & (PRESENT | PROTNONE) and entry & SPECIAL == 0 and pte_page(entry) == f.page:
        return pte, ptl
    pte_unmap_unlock(pte, ptl)
    return 0, 0


def write_protect_page(vma: vm_area_struct, f: folio) -> int:
    """Take the right to write from the one entry that may have it: the entry then, or 0 if the page is in use."""
    mm = vma.vm_mm
    pte, ptl = map_of_page(vma, f)
    if not pte:
        return NO_PTE
    entry = ptep_get(pte)
    exclusive = load(page_flags(f.page)) & PAGE_ANON_EXCLUSIVE != 0
    done = True
    if entry & (RW | DIRTY) or exclusive or load(mm.tlb_flush_pending):
        address = vma_address(vma, f.index)
        entry = ptep_get_and_clear(pte)
        flush_tlb_range(mm, address, address + arch.page_size)
        cached = 1 if f.flags & PG_SWAPCACHE else 0
        done = folio_mapcount(f) + 1 + cached == folio_ref_count(f) and not (exclusive and folio_maybe_dma_pinned(f))
        if done:
            if exclusive:
                store(page_flags(f.page), 0)
            if entry & DIRTY:
                WRITE_ONCE(f, "flags", f.flags | PG_DIRTY)
            entry &= ~(DIRTY | RW)
        store(pte, entry)
    pte_unmap_unlock(pte, ptl)
    return entry if done else NO_PTE


def replace_page(vma: vm_area_struct, f: folio, kpage: page_t, orig_pte: int) -> int:
    """Let the entry that maps the page map a page of KSM, unless it has changed: 0 or -EFAULT."""
    pte, ptl = map_of_page(vma, f)
    if not pte:
        return -EFAULT
    if ptep_get(pte) != orig_pte:
        pte_unmap_unlock(pte, ptl)
        return -EFAULT
    kfolio = page_folio(kpage)
    folio_get(kfolio)
    folio_add_rmap_ptes(kfolio, kpage, 1, vma)
    address = vma_address(vma, f.index)
    ptep_get_and_clear(pte)
    flush_tlb_range(vma.vm_mm, address, address + arch.page_size)
    store(pte, kpage << PFN_SHIFT | vm_page_prot(vma.vm_flags) & ~RW)
    folio_remove_rmap_pte(f, f.page, vma)
    folio_put(f)
    pte_unmap_unlock(pte, ptl)
    return 0

# SPDX-License-Identifier: GPL-2.0-only
"""What ksmd knows of pages: items by virtual address, nodes by content, and two trees of them (mm/ksm.c; 7.2).

The stable tree has the pages of KSM, the unstable one items whose pages have not changed since the pass before.  Both
belong to ksmd, which holds ksm_thread_mutex; a page's list of items is also read under the page's lock.  Pages are
merged across NUMA nodes, and never with the zero page (use_zero_pages is 0).
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    LEFT,
    READ_ONCE,
    RIGHT,
    WRITE_ONCE,
    forget,
    lives,
    load,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    publish,
    rb_child,
    rb_erase,
    rb_init,
    rb_insert,
    rb_replace,
    rb_root,
    xa_init,
)
from .config import config
from .mm_types import folio, ksm_mm_slot, ksm_rmap_item, ksm_scan, ksm_stable_node
from .page_alloc import (
    FOLIO_MAPPING_KSM,
    MAPPING_SHIFT,
    NO_FOLIO,
    SYSTEM,
    folio_get,
    folio_put,
    folio_test_ksm,
    folio_try_get,
    page_content,
)
from .pgtable import page_folio, page_t
from .rmap import NO_ANON_VMA, put_anon_vma

SEQNR_MASK: Final = 0x0FF  # low bits of the pass in which an item came into the unstable tree
UNSTABLE_FLAG: Final = 0x100
STABLE_FLAG: Final = 0x200
STABLE_NODE_CHAIN: Final = -1024

# enum ksm_get_folio_flags
NOLOCK: Final = 0
LOCK: Final = 1
TRYLOCK: Final = 2

NO_NODE: Final = ksm_stable_node(0)
NO_ITEM: Final = ksm_rmap_item(0)


def ksm_init() -> None:
    """Empty lists and trees."""
    scan: ksm_scan = ksm_scan.alloc()
    head: ksm_mm_slot = ksm_mm_slot.alloc()
    head.ksm = scan
    head.next = head
    head.prev = head
    scan.ksm_mm_head = head
    scan.mm_slot = head
    xa_init(scan.mm_slots_hash)
    rb_init(scan.root_stable_tree)
    rb_init(scan.root_unstable_tree)
    publish(scan.addr)
    SYSTEM.ksm = scan


def ksm_state() -> ksm_scan:
    """What mm/ksm.c has in static variables."""
    return SYSTEM.ksm


# --- contents --------------------------------------------------------------------------------------------


def memcmp_pages(a: page_t, b: page_t) -> int:
    """Below, at or above 0 as the first bytes that differ say; a page has its content in its first word."""
    return content_order(load(page_content(a))) - content_order(load(page_content(b)))


def content_order(content: int) -> int:
    """Contents by the order of their bytes in memory."""
    return content if arch.big_endian else int.from_bytes(content.to_bytes(8, "little"), "big")


def calc_checksum(page: page_t) -> int:
    """What is equal for pages of equal content; never 0."""
    return load(page_content(page)) + 1


# --- pages of KSM ----------------------------------------------------------------------------------------


def folio_stable_node(f: folio) -> ksm_stable_node:
    """The node of a page of KSM; NULL for another page, and before it has one."""
    mapping: int = READ_ONCE(f, "mapping")
    return ksm_stable_node(mapping >> MAPPING_SHIFT) if folio_test_ksm(f) else NO_NODE


def folio_set_stable_node(f: folio, node: ksm_stable_node) -> None:
    """Make a locked page one of KSM."""
    f.mapping = node.addr << MAPPING_SHIFT | FOLIO_MAPPING_KSM


def is_page_sharing_candidate(node: ksm_stable_node, offset: int = 0) -> bool:
    """Whether the page is mapped, and so seldom that it may be once more (after `offset` times)."""
    return node.rmap_hlist_len > 0 and node.rmap_hlist_len + offset < config.max_page_sharing


def ksm_get_folio(node: ksm_stable_node, how: int) -> tuple[folio, bool]:
    """The node's page with a reference, locked if wished, or NULL; with `TRYLOCK` also whether it was busy.

    The node has no reference, and looks whether the page is still its own.  If not the node goes.
    """
    f = folio(node.kpfn)
    expected = node.addr << MAPPING_SHIFT | FOLIO_MAPPING_KSM
    if not lives(f.addr) or READ_ONCE(f, "mapping") != expected or not folio_try_get(f):
        remove_node_from_stable_tree(node)
        return NO_FOLIO, False
    if READ_ONCE(f, "mapping") == expected:
        if how == TRYLOCK and not mutex_trylock(f.lock):
            folio_put(f)
            return NO_FOLIO, True
        if how == LOCK:
            mutex_lock(f.lock)
        if how == NOLOCK or READ_ONCE(f, "mapping") == expected:
            return f, False
        mutex_unlock(f.lock)
    folio_put(f)
    remove_node_from_stable_tree(node)
    return NO_FOLIO, False


def remove_node_from_stable_tree(node: ksm_stable_node) -> None:
    """The page is gone: its items are in no tree any more."""
    item = node.hlist
    while item:
        put_anon_vma(item.anon_vma)
        item.anon_vma = NO_ANON_VMA
        item.state = 0
        item = item.hlist
    if node.chain:
        stable_node_dup_del(node)
    else:
        rb_erase(ksm_state().root_stable_tree, node.addr)
    node.free()


# --- items -----------------------------------------------------------------------------------------------


def remove_rmap_item_from_tree(item: ksm_rmap_item) -> None:
    """Take an item out of the tree that it is in."""
    if item.state & STABLE_FLAG:
        node = item.head
        f, _ = ksm_get_folio(node, LOCK)
        if not f:
            return
        hlist_del(node, item)
        mutex_unlock(f.lock)
        folio_put(f)
        node.rmap_hlist_len -= 1
        put_anon_vma(item.anon_vma)
        item.anon_vma = NO_ANON_VMA
        item.head = NO_NODE
        item.state = 0
    elif item.state & UNSTABLE_FLAG:
        scan = ksm_state()
        if (scan.seqnr - item.state) & SEQNR_MASK == 0:
            rb_erase(scan.root_unstable_tree, item.addr)
        item.state = 0


def hlist_del(node: ksm_stable_node, item: ksm_rmap_item) -> None:
    """Take an item off the list of those that map the node's page, which is locked."""
    if node.hlist == item:
        WRITE_ONCE(node, "hlist", item.hlist)
        return
    before = node.hlist
    while before.hlist != item:
        before = before.hlist
    WRITE_ONCE(before, "hlist", item.hlist)


def stable_tree_append(item: ksm_rmap_item, node: ksm_stable_node) -> None:
    """One more item maps the node's page, which is locked."""
    node.rmap_hlist_len += 1
    WRITE_ONCE(item, "head", node)
    item.state |= STABLE_FLAG
    WRITE_ONCE(item, "hlist", node.hlist)
    WRITE_ONCE(node, "hlist", item)


# --- chains of pages with the same content ---------------------------------------------------------------


def stable_node_chain_add_dup(dup: ksm_stable_node, chain: ksm_stable_node) -> None:
    """Put a page at the chain's head."""
    dup.chain = chain
    dup.next_dup = chain.dups
    chain.dups = dup


def stable_node_dup_del(dup: ksm_stable_node) -> None:
    """Take a page out of its chain."""
    chain = dup.chain
    if chain.dups == dup:
        chain.dups = dup.next_dup
    else:
        before = chain.dups
        while before.next_dup != dup:
            before = before.next_dup
        before.next_dup = dup.next_dup
    dup.chain = NO_NODE
    dup.next_dup = NO_NODE


def alloc_stable_node_chain(dup: ksm_stable_node) -> ksm_stable_node:
    """Put a chain in the place of a page in the tree, and the page in the chain."""
    chain: ksm_stable_node = ksm_stable_node.alloc()
    chain.ksm = ksm_state()
    chain.rmap_hlist_len = STABLE_NODE_CHAIN
    publish(chain.addr)
    rb_replace(ksm_state().root_stable_tree, dup.addr, chain.addr)
    stable_node_chain_add_dup(dup, chain)
    return chain


def stable_node_chain(node: ksm_stable_node, prune: bool) -> tuple[folio, ksm_stable_node, ksm_stable_node]:
    """(page with a reference, its node, what is in the tree now); NULL for the page if all were gone, and the node too.

    Of a chain the page that more can share, with `prune` the one that most do: for the kernel that is so once in
    stable_node_chains_prune_millisecs.  A chain of one page is given up.
    """
    if node.rmap_hlist_len != STABLE_NODE_CHAIN:
        f, _ = ksm_get_folio(node, NOLOCK)
        return f, node, node
    found, f = stable_node_dup(node, prune)
    root = ksm_state().root_stable_tree
    if not found:
        rb_erase(root, node.addr)
        node.free()
        return NO_FOLIO, NO_NODE, NO_NODE
    if node.dups == found and not found.next_dup:
        rb_replace(root, node.addr, found.addr)
        found.chain = NO_NODE
        node.free()
        return f, found, found
    if node.dups != found and is_page_sharing_candidate(found, 1):
        stable_node_dup_del(found)
        stable_node_chain_add_dup(found, node)
    return f, found, node


def stable_node_dup(chain: ksm_stable_node, prune: bool) -> tuple[ksm_stable_node, folio]:
    """The best page of a chain, with a reference; those that are gone leave it on the way."""
    found, best = NO_NODE, NO_FOLIO
    length = 0
    dup = chain.dups
    while dup:
        after = dup.next_dup
        f, _ = ksm_get_folio(dup, NOLOCK)
        if f:
            better = is_page_sharing_candidate(dup) and (
                not found or not is_page_sharing_candidate(found) or dup.rmap_hlist_len > length
            )
            if not found or better:
                if found:
                    folio_put(best)
                found, best = dup, f
                length = found.rmap_hlist_len
                if not prune and is_page_sharing_candidate(found):
                    break
            else:
                folio_put(f)
        dup = after
        forget((found, best, length, dup))
    return found, best


# --- the stable tree -------------------------------------------------------------------------------------


def stable_tree_walk(page: page_t, prune: bool) -> tuple[ksm_stable_node, ksm_stable_node, int, int]:
    """Look for a page of this content: (its node, what is in the tree, ...), or (NULL, NULL, where it would hang)."""
    root = ksm_state().root_stable_tree
    parent, side = 0, LEFT
    at = rb_root(root)
    while at:
        tree_folio, dup, node = stable_node_chain(ksm_stable_node(at), prune)
        if not tree_folio:
            parent, side = 0, LEFT
            at = rb_root(root)
        else:
            order = memcmp_pages(page, tree_folio.page)
            folio_put(tree_folio)
            if order == 0:
                return dup, node, 0, LEFT
            parent, side = node.addr, RIGHT if order > 0 else LEFT
            at = rb_child(root, parent, side)
        forget((parent, side, at))
    return NO_NODE, NO_NODE, parent, side


def stable_tree_search(page: page_t) -> tuple[folio, bool]:
    """A page of KSM with this content that more may share, with a reference, or NULL; and whether it was busy."""
    f = page_folio(page)
    if folio_stable_node(f):
        folio_get(f)
        return f, False
    while True:
        dup, _, _, _ = stable_tree_walk(page, True)
        if not dup or not is_page_sharing_candidate(dup):
            return NO_FOLIO, False
        tree_folio, busy = ksm_get_folio(dup, TRYLOCK)
        if busy:
            return NO_FOLIO, True
        if tree_folio:
            mutex_unlock(tree_folio.lock)
            return tree_folio, False
        forget(())


def stable_tree_insert(kfolio: folio) -> ksm_stable_node:
    """Put a page of KSM, which is locked, into the tree: its node."""
    scan = ksm_state()
    _, node, parent, side = stable_tree_walk(kfolio.page, False)
    new: ksm_stable_node = ksm_stable_node.alloc()
    new.ksm = scan
    new.kpfn = kfolio.addr
    publish(new.addr)
    if not node:
        rb_insert(scan.root_stable_tree, new.addr, parent, side)
    else:
        if node.rmap_hlist_len != STABLE_NODE_CHAIN:
            node = alloc_stable_node_chain(node)
        stable_node_chain_add_dup(new, node)
    folio_set_stable_node(kfolio, new)
    return new

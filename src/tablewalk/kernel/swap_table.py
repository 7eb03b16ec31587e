# SPDX-License-Identifier: GPL-2.0-only
"""Slots of the swap device, by clusters (mm/swap_table.h, mm/swap.h, mm/swapfile.c; 7.2).

An offset numbers the slots, from 1 on: 0 is none.  A slot is in use while entries refer to it or a folio is cached
for it.  Which of the free slots is taken cannot be seen, so there are no lists by order, nor one a CPU.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    load,
    publish,
    spin_lock,
    spin_lock_nested,
    spin_unlock,
    store,
    xa_load,
    xa_range,
    xa_store,
)
from .mm_types import swap_cluster_info
from .page_alloc import SYSTEM

SLOT_CELLS: Final = 3
SLOT_COUNT: Final = 1  # in a slot: cells behind the folio's
SLOT_CONTENT: Final = 2
MAX_CLUSTERS: Final = 1 << 60
NO_CLUSTER: Final = swap_cluster_info(0)


def swap_cluster_of(offset: int) -> swap_cluster_info:
    """The cluster of a slot (__swap_offset_to_cluster); clusters stay."""
    return swap_cluster_info(xa_load(SYSTEM.swap_info.cluster_info, offset >> arch.pte_bits))


def swap_cluster_lock(offset: int) -> swap_cluster_info:
    """The cluster of a slot, locked."""
    ci = swap_cluster_of(offset)
    spin_lock(ci.lock)
    return ci


def swap_slot(ci: swap_cluster_info, offset: int) -> int:
    """Address of a slot's cells, of which the first is the folio's."""
    return ci.slot + SLOT_CELLS * (offset & arch.ptrs_per_pte - 1)


def swap_slot_in_use(slot: int) -> bool:
    """Whether a slot has an entry or a folio; under the cluster's lock."""
    return load(slot) != 0 or load(slot + SLOT_COUNT) != 0


def swap_slot_release(ci: swap_cluster_info, slot: int) -> None:
    """Count a slot as free if neither entry nor folio is left (__swap_cluster_free_entries); under the lock."""
    if swap_slot_in_use(slot):
        return
    full = ci.count == arch.ptrs_per_pte
    ci.count -= 1
    ci.next = (slot - ci.slot) // SLOT_CELLS
    if full or ci.count == 0:
        swap_cluster_relist(ci)


def swap_cluster_relist(ci: swap_cluster_info) -> None:
    """Put a locked cluster on the list that its number of slots in use asks for."""
    si = SYSTEM.swap_info
    spin_lock_nested(si.lock)
    xa_store(si.free_clusters, ci.index, ci.addr if ci.count == 0 else 0)
    xa_store(si.nonfull_clusters, ci.index, ci.addr if 0 < ci.count < arch.ptrs_per_pte else 0)
    spin_unlock(si.lock)


def swap_alloc_slots(nr: int) -> tuple[swap_cluster_info, int]:
    """(a cluster, locked, offset of the first of `nr` free slots in it), aligned (cluster_alloc_swap_entry)."""
    while True:
        ci = isolate_cluster(nr)
        spin_lock(ci.lock)
        first = cluster_scan(ci, nr)
        if first >= 0:
            ci.next = first + nr
            offset: int = ci.index << arch.pte_bits | first
            return ci, offset
        spin_unlock(ci.lock)


def isolate_cluster(nr: int) -> swap_cluster_info:
    """A cluster that may have room for `nr` pages: for one of those in use, else a free one, else a new one."""
    si = SYSTEM.swap_info
    spin_lock(si.lock)
    found = xa_range(si.nonfull_clusters, 0, MAX_CLUSTERS) if nr == 1 else []
    if not found:
        found = xa_range(si.free_clusters, 0, MAX_CLUSTERS)
    if found:
        ci = swap_cluster_info(found[0][1])
    else:
        ci = swap_cluster_info.alloc(arch.ptrs_per_pte)
        si.nr_clusters += 1  # the first has the device's header
        ci.index = si.nr_clusters
        publish(ci.addr)
        xa_store(si.cluster_info, ci.index, ci.addr)
        xa_store(si.free_clusters, ci.index, ci.addr)
    spin_unlock(si.lock)
    return ci


def cluster_scan(ci: swap_cluster_info, nr: int) -> int:
    """Index of the first of `nr` free slots of a locked cluster, aligned, or -1."""
    room = arch.ptrs_per_pte - ci.count
    if room < nr:
        return -1
    begin = ci.next & -nr
    for i in range(0, arch.ptrs_per_pte, nr):
        first: int = begin + i & arch.ptrs_per_pte - 1
        slot = ci.slot + SLOT_CELLS * first
        if not any([swap_slot_in_use(slot + SLOT_CELLS * k) for k in range(nr)]):
            return first
    return -1


def swap_slots_take(ci: swap_cluster_info, nr: int) -> None:
    """`nr` more slots of a locked cluster are in use."""
    free = ci.count == 0
    ci.count += nr
    if free or ci.count == arch.ptrs_per_pte:
        swap_cluster_relist(ci)


def __swap_count(offset: int) -> int:
    """Entries that refer to the slot."""
    return load(swap_slot(swap_cluster_of(offset), offset) + SLOT_COUNT)


def swap_count_add(ci: swap_cluster_info, offset: int, n: int) -> int:
    """`n` more entries refer to the slot; returns how many then do.  Under the cluster's lock."""
    cell = swap_slot(ci, offset) + SLOT_COUNT
    count = load(cell) + n
    store(cell, count)
    return count

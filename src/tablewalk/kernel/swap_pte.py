# SPDX-License-Identifier: GPL-2.0-only
"""Faults on non-present entries: markers, migration, swap (mm/memory.c, mm/migrate.c; 7.2)."""

from __future__ import annotations

from ..machine import spin_unlock, store
from .not_modelled import NotModelled
from .pgtable import (
    PTE_MARKER_GUARD,
    PTE_MARKER_POISONED,
    SWP_HWPOISON,
    SWP_MARKER,
    SWP_MIGRATION,
    ptep_get,
    swp_offset,
    swp_type,
)
from .pgtable_generic import pte_offset_map_lock, pte_unmap, pte_unmap_unlock
from .vm_fault import vm_fault
from .vm_flags import VM_FAULT_HWPOISON, VM_FAULT_SIGSEGV


def do_swap_page(vmf: vm_fault, entry: int) -> int:
    """Serve a fault on the non-present `entry`; the table is not mapped."""
    kind = swp_type(entry)
    if kind == SWP_MARKER:
        return handle_pte_marker(vmf, entry)
    if kind == SWP_MIGRATION:
        return migration_entry_wait(vmf)
    if kind == SWP_HWPOISON:
        return VM_FAULT_HWPOISON
    raise NotModelled("swap")


def handle_pte_marker(vmf: vm_fault, entry: int) -> int:
    """A guard region or a poisoned page kills; a uffd-wp marker goes: no userfaultfd is left to care."""
    marker = swp_offset(entry)
    if marker & PTE_MARKER_POISONED:
        return VM_FAULT_HWPOISON
    if marker & PTE_MARKER_GUARD:
        return VM_FAULT_SIGSEGV
    return pte_marker_clear(vmf, entry)


def pte_marker_clear(vmf: vm_fault, entry: int) -> int:
    """Drop a marker that means nothing any more; the access faults again."""
    pte, ptl = pte_offset_map_lock(vmf.vma.vm_mm, vmf.pmd, vmf.address)
    if not pte:
        return 0
    if ptep_get(pte) == entry:
        store(pte, 0)
    pte_unmap_unlock(pte, ptl)
    return 0


def migration_entry_wait(vmf: vm_fault) -> int:
    """Wait until the page at this address is no longer under migration; the access faults again."""
    pte, ptl = pte_offset_map_lock(vmf.vma.vm_mm, vmf.pmd, vmf.address)
    if not pte:
        return 0
    waiting = swp_type(ptep_get(pte)) == SWP_MIGRATION
    pte_unmap(pte)
    spin_unlock(ptl)
    if waiting:
        raise NotModelled("page migration")
    return 0

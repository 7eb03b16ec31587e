# SPDX-License-Identifier: GPL-2.0-only
"""Delivering faults to a userfaultfd (handle_userfault in mm/userfaultfd.c; 7.2).

Where nobody reads the message, or cannot resolve the fault (config.userfault_reader), one that would sleep here ends
with VM_FAULT_USERFAULT beside VM_FAULT_RETRY; who resolves it lets the access be made again.
"""

from __future__ import annotations

from ..machine import READ_ONCE, forget
from .config import config
from .mm_types import userfaultfd_ctx
from .pgtable import LEAF, PRESENT, PROTNONE, RW, mm_find_pmd, pmd_present, pmdp_get_lockless, ptep_get_lockless
from .pgtable_generic import pte_offset_map, pte_unmap
from .userfaultfd_k import UFFD_FEATURE_SIGBUS, UFFD_USER_MODE_ONLY, ctx_has, pte_is_uffd_marker, vma_ctx
from .vm_fault import vm_fault
from .vm_flags import (
    FAULT_FLAG_ALLOW_RETRY,
    FAULT_FLAG_USER,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_FAULT_USERFAULT,
    VM_UFFD_WP,
)


def handle_userfault(vmf: vm_fault, reason: int) -> int:
    """Deliver a fault for `reason`, one of the VM_UFFD_* flags.  Returns VM_FAULT bits: killed, look again, or wait."""
    ctx = vma_ctx(vmf.vma)
    if not ctx or ctx_has(ctx, UFFD_FEATURE_SIGBUS):
        return VM_FAULT_SIGBUS
    if vmf.flags & FAULT_FLAG_USER == 0 and ctx.flags & UFFD_USER_MODE_ONLY:
        return VM_FAULT_SIGBUS
    if vmf.flags & FAULT_FLAG_ALLOW_RETRY == 0:
        return VM_FAULT_SIGBUS
    if READ_ONCE(ctx, "released") or not userfaultfd_must_wait(ctx, vmf, reason):
        return VM_FAULT_RETRY
    if config.userfault_reader is not None and config.userfault_reader(ctx.addr, vmf.address, reason):
        return VM_FAULT_RETRY
    return VM_FAULT_RETRY | VM_FAULT_USERFAULT


def userfaultfd_must_wait(ctx: userfaultfd_ctx, vmf: vm_fault, reason: int) -> bool:
    """Whether the fault, whose message can be read by now, still waits for its resolution.  Reads without locks.

    A wrong yes does no harm: who resolves the fault wakes all that wait.
    """
    pmd = mm_find_pmd(ctx.mm, vmf.address)
    if not pmd:
        return True
    while True:
        pmdval = pmdp_get_lockless(pmd)
        if pmdval == 0:
            return True
        if not pmd_present(pmdval):
            return False
        if pmdval & LEAF:
            return pmdval & RW == 0 and reason & VM_UFFD_WP != 0
        pte = pte_offset_map(pmd, vmf.address)
        if pte:
            entry = ptep_get_lockless(pte)
            pte_unmap(pte)
            return entry_must_wait(entry, reason)
        forget(())


def entry_must_wait(entry: int, reason: int) -> bool:
    """Whether what is mapped now does not resolve a fault for `reason`."""
    if entry == 0 or pte_is_uffd_marker(entry):
        return True
    # of an entry that is not present bit RW is anything: it may be part of a swap offset
    if entry & (PRESENT | PROTNONE) == 0:
        return False
    return entry & RW == 0 and reason & VM_UFFD_WP != 0

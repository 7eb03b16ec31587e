# SPDX-License-Identifier: GPL-2.0-only
"""From the exception to handle_mm_fault (arch/x86/mm/fault.c, mm/mmap_lock.c; 7.2), and user code's own accesses."""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import forget, instruction_begin, instruction_end, load, store, tlb_fill, tlb_lookup
from .config import config
from .memory import handle_mm_fault
from .mm_types import mm_struct, vm_area_struct
from .mmap import expand_stack
from .mmap_lock import (
    NO_VMA,
    lock_vma_under_rcu,
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    vma_end_read,
)
from .page_alloc import PAGE_CELLS, page_content
from .pgtable import (
    LEAF,
    PRESENT,
    RW,
    mm_find_pmd,
    pmd_page,
    pmd_pgtable,
    pte_index,
    pte_page,
)
from .vm_flags import (
    FAULT_FLAG_ALLOW_RETRY,
    FAULT_FLAG_USER,
    FAULT_FLAG_VMA_LOCK,
    FAULT_FLAG_WRITE,
    VM_ACCESS_FLAGS,
    VM_FAULT_ERROR,
    VM_FAULT_RETRY,
    VM_FAULT_SIGSEGV,
    VM_FAULT_USERFAULT,
    VM_GROWSDOWN,
    VM_WRITE,
)
from .vma import find_vma

WOULD_WAIT: Final = -2  # the access goes on when a userfaultfd has resolved its fault


def access_error(vm_flags: int, write: bool) -> bool:
    """Whether the VMA forbids the access."""
    return vm_flags & VM_WRITE == 0 if write else vm_flags & VM_ACCESS_FLAGS == 0


def do_user_addr_fault(mm: mm_struct, address: int, write: bool, by: int = FAULT_FLAG_USER) -> int:
    """Serve a fault of user code, or (`by` is 0) of the kernel on a user address.  Returns VM_FAULT_* bits."""
    flags = by | FAULT_FLAG_ALLOW_RETRY | (FAULT_FLAG_WRITE if write else 0)
    if config.per_vma_lock:
        vma = lock_vma_under_rcu(mm, address)
        if vma:
            if access_error(vma.vm_flags, write):
                vma_end_read(vma)
                return VM_FAULT_SIGSEGV
            ret = handle_mm_fault(vma, address, flags | FAULT_FLAG_VMA_LOCK)
            vma_end_read(vma)
            if ret & VM_FAULT_RETRY == 0 or ret & VM_FAULT_USERFAULT:
                return ret
    vma = lock_mm_and_find_vma(mm, address)
    if not vma:
        return VM_FAULT_SIGSEGV
    if access_error(vma.vm_flags, write):
        mmap_read_unlock(mm)
        return VM_FAULT_SIGSEGV
    ret = handle_mm_fault(vma, address, flags)
    mmap_read_unlock(mm)
    return ret


def lock_mm_and_find_vma(mm: mm_struct, address: int) -> vm_area_struct:
    """The VMA for a fault at `address` with mmap_lock held for reading, a stack grown if need be; NULL unlocked."""
    mmap_read_lock(mm)
    vma = find_vma(mm, address)
    if vma and vma.vm_start <= address:
        return vma
    if not vma or vma.vm_flags & VM_GROWSDOWN == 0:
        mmap_read_unlock(mm)
        return NO_VMA
    mmap_read_unlock(mm)
    return grow_stack(mm, address)


def grow_stack(mm: mm_struct, address: int) -> vm_area_struct:
    """Look again under mmap_lock for writing and let the stack above `address` grow; NULL unlocked if it may not."""
    mmap_write_lock(mm)
    vma = find_vma(mm, address)
    fits = bool(vma) and (
        vma.vm_start <= address or (vma.vm_flags & VM_GROWSDOWN != 0 and expand_stack(vma, address) == 0)
    )
    mmap_write_unlock(mm)
    if not fits:
        return NO_VMA
    mmap_read_lock(mm)
    vma = find_vma(mm, address)
    if vma and vma.vm_start <= address:
        return vma
    mmap_read_unlock(mm)
    return NO_VMA


def hardware_walk(asid: int, mm: mm_struct, address: int, write: bool) -> int:
    """Content cell that an MMU reaches through its TLB or by a page walk, or 0 where it faults.

    `asid` is what its TLB knows the address space by: the mm's address, for a CPU.
    """
    cell = tlb_lookup(asid, address, write)
    if cell:
        return cell
    pmd = mm_find_pmd(mm, address)
    if not pmd:
        return 0
    pmdval = load(pmd)
    needed = PRESENT | RW if write else PRESENT
    if pmdval & PRESENT == 0:
        return 0
    if pmdval & LEAF:
        if pmdval & needed != needed:
            return 0
        cell = page_content(pmd_page(pmdval) + PAGE_CELLS * pte_index(address))
        tlb_fill(asid, address, (), cell, pmdval & RW != 0, arch.pmd_shift)
        return cell
    table = pmd_pgtable(pmdval)
    pte = load(table.entry + pte_index(address))
    if pte & needed != needed:
        return 0
    cell = page_content(pte_page(pte))
    tlb_fill(asid, address, ((arch.pmd_shift, table.addr),), cell, pte & RW != 0, arch.page_shift)
    return cell


def user_read(mm: mm_struct, address: int, by: int = FAULT_FLAG_USER) -> int:
    """Read the content of the page at `address` as user code does, or (`by` 0) the kernel; -1 if not, WOULD_WAIT."""
    while True:
        instruction_begin(mm.addr)
        cell = hardware_walk(mm.addr, mm, address, False)
        value = load(cell) if cell else 0
        instruction_end()
        if cell:
            return value
        ret = do_user_addr_fault(mm, address, False, by)
        if ret & (VM_FAULT_ERROR | VM_FAULT_USERFAULT):
            return WOULD_WAIT if ret & VM_FAULT_USERFAULT else -1
        forget(())


def user_write(mm: mm_struct, address: int, value: int) -> int:
    """Write the content of the page at `address` as user code does; 0, or -1 if it is killed for it, or WOULD_WAIT."""
    while True:
        instruction_begin(mm.addr)
        cell = hardware_walk(mm.addr, mm, address, True)
        if cell:
            store(cell, value)
        instruction_end()
        if cell:
            return 0
        ret = do_user_addr_fault(mm, address, True)
        if ret & (VM_FAULT_ERROR | VM_FAULT_USERFAULT):
            return WOULD_WAIT if ret & VM_FAULT_USERFAULT else -1
        forget(())

# SPDX-License-Identifier: GPL-2.0-only
"""A device that works in a process's address space: its IOMMU walks the process's page tables (drivers/iommu/; 7.2).

It holds no lock and is in no RCU section, and no interrupt makes it wait.
"""

from __future__ import annotations

from ..machine import READ_ONCE, forget, instruction_begin, instruction_end, load
from .fault import access_error, hardware_walk
from .memory import handle_mm_fault
from .mm_init import mmget_not_zero, mmput
from .mm_types import mm_struct, mmu_notifier
from .mmap_lock import mmap_read_lock, mmap_read_unlock
from .mmu_notifier import mmu_notifier_register
from .vm_flags import EFAULT, FAULT_FLAG_REMOTE, FAULT_FLAG_USER, VM_FAULT_ERROR, VM_FAULT_USERFAULT
from .vma import vma_lookup


def iommu_sva_bind_device(mm: mm_struct) -> mmu_notifier:
    """Let a device work in the address space."""
    device: mmu_notifier = mmu_notifier.alloc()
    device.mm = mm
    mmu_notifier_register(device)
    return device


def iommu_sva_handle_mm(mm: mm_struct, address: int) -> int:
    """Serve a device's page request for reading: 0, or -EFAULT."""
    if not mmget_not_zero(mm):
        return -EFAULT
    mmap_read_lock(mm)
    vma = vma_lookup(mm, address)
    ret = VM_FAULT_ERROR
    if vma and not access_error(vma.vm_flags, False):
        ret = handle_mm_fault(vma, address, FAULT_FLAG_USER | FAULT_FLAG_REMOTE)
    mmap_read_unlock(mm)
    mmput(mm)
    return -EFAULT if ret & (VM_FAULT_ERROR | VM_FAULT_USERFAULT) else 0


def device_read(device: mmu_notifier, address: int) -> int:
    """The device reads the content of the page at `address`; -1 if it cannot."""
    while True:
        instruction_begin(device.addr)
        released = READ_ONCE(device, "released") != 0
        cell = 0 if released else hardware_walk(device.addr, device.mm, address, False)
        value = load(cell) if cell else 0
        instruction_end()
        if cell:
            return value
        if released or iommu_sva_handle_mm(device.mm, address):
            return -1
        forget(())

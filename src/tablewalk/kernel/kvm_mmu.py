# SPDX-License-Identifier: GPL-2.0-only
"""A virtual machine's page faults, and what its guest does (virt/kvm/kvm_main.c, arch/x86/kvm/mmu/mmu.c; 7.2).

The guest's pages are mapped one by one.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import READ_ONCE, forget, instruction_begin, instruction_end, load, spin_lock, spin_unlock, store
from .gup import get_user_pages_fast, put_user_pages
from .kvm_main import mmu_invalidate_retry
from .mm_types import kvm, mm_struct, mmu_notifier
from .mmu_notifier import mmu_notifier_register
from .page_alloc import page_content
from .pgtable import PFN_SHIFT, PRESENT, RW, pte_page
from .vm_flags import EFAULT


def kvm_create_vm(mm: mm_struct, userspace_addr: int, npages: int) -> kvm:
    """A virtual machine whose memory is that of the process from `userspace_addr` on; nothing of it is mapped."""
    vm: kvm = kvm.alloc(npages)
    vm.mm = mm
    vm.userspace_addr = userspace_addr
    vm.npages = npages
    subscription: mmu_notifier = mmu_notifier.alloc()
    subscription.mm = mm
    subscription.kvm = vm
    mmu_notifier_register(subscription)
    return vm


def kvm_tdp_page_fault(vm: kvm, gfn: int, write: bool) -> int:
    """Map a page of the guest as its process has it; 0, or -EFAULT where that has none."""
    while True:
        seq = READ_ONCE(vm, "mmu_invalidate_seq")
        pages = get_user_pages_fast(vm.mm, vm.userspace_addr + (gfn << arch.page_shift), 1, write)
        if not pages:
            return -EFAULT
        spin_lock(vm.mmu_lock)
        stale = mmu_invalidate_retry(vm, seq)
        if not stale:
            store(vm.spte + gfn, pages[0] << PFN_SHIFT | (PRESENT | RW if write else PRESENT))
        spin_unlock(vm.mmu_lock)
        put_user_pages(pages)
        if not stale:
            return 0
        forget(())


def guest_read(vm: kvm, gfn: int) -> int:
    """The guest reads the content of its page `gfn`; -1 if it cannot."""
    while True:
        instruction_begin(vm.addr)
        spte = load(vm.spte + gfn)
        value = load(page_content(pte_page(spte))) if spte else 0
        instruction_end()
        if spte:
            return value
        if kvm_tdp_page_fault(vm, gfn, False):
            return -1
        forget(())


def guest_write(vm: kvm, gfn: int, value: int) -> int:
    """The guest writes the content of its page `gfn`; 0, or -1 if it cannot."""
    while True:
        instruction_begin(vm.addr)
        spte = load(vm.spte + gfn)
        if spte & RW:
            store(page_content(pte_page(spte)), value)
        instruction_end()
        if spte & RW:
            return 0
        if kvm_tdp_page_fault(vm, gfn, True):
            return -1
        forget(())

# SPDX-License-Identifier: GPL-2.0-only
"""What a virtual machine does when told of changes to its memory (virt/kvm/kvm_main.c; 7.2).

No reference is held on pages that the guest has mapped.  Whoever wants to map one remembers `mmu_invalidate_seq`,
looks the page up, and under mmu_lock finds by mmu_invalidate_retry whether it still is the right one.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import WRITE_ONCE, load, spin_lock, spin_unlock, store, tlb_invalidate
from .mm_types import kvm


def hva_range_to_gfns(vm: kvm, start: int, end: int) -> range:
    """The pages of the guest that lie in [start, end) bytes of the process (kvm_handle_hva_range)."""
    first = start - vm.userspace_addr >> arch.page_shift
    last = end - vm.userspace_addr + arch.page_size - 1 >> arch.page_shift
    return range(max(first, 0), min(last, vm.npages))


def kvm_mmu_notifier_invalidate_range_start(vm: kvm, start: int, end: int) -> None:
    """Unmap [start, end) from the guest, and let nothing be mapped until it ends."""
    gfns = hva_range_to_gfns(vm, start, end)
    if gfns:
        spin_lock(vm.mmu_lock)
        vm.mmu_invalidate_in_progress += 1
        kvm_unmap_gfn_range(vm, gfns)
        spin_unlock(vm.mmu_lock)


def kvm_unmap_gfn_range(vm: kvm, gfns: range) -> None:
    """Unmap pages from the guest, and wait until it uses none of them; under mmu_lock."""
    flush = False
    for gfn in gfns:
        if load(vm.spte + gfn):
            store(vm.spte + gfn, 0)
            flush = True
    if flush:  # kvm_flush_remote_tlbs
        tlb_invalidate(vm.addr, 0, vm.npages << arch.page_shift, False, 1)


def kvm_mmu_notifier_invalidate_range_end(vm: kvm, start: int, end: int) -> None:
    """Pages that were looked up before are not to be mapped; new ones may be."""
    if hva_range_to_gfns(vm, start, end):
        spin_lock(vm.mmu_lock)
        WRITE_ONCE(vm, "mmu_invalidate_seq", vm.mmu_invalidate_seq + 1)
        vm.mmu_invalidate_in_progress -= 1
        spin_unlock(vm.mmu_lock)


def kvm_mmu_notifier_release(vm: kvm) -> None:
    """Unmap all."""
    spin_lock(vm.mmu_lock)
    kvm_unmap_gfn_range(vm, range(vm.npages))
    spin_unlock(vm.mmu_lock)


def mmu_invalidate_retry(vm: kvm, seq: int) -> bool:
    """Whether what was looked up since mmu_invalidate_seq was `seq` may not be mapped; under mmu_lock.

    include/linux/kvm_host.h
    """
    return vm.mmu_invalidate_in_progress != 0 or vm.mmu_invalidate_seq != seq

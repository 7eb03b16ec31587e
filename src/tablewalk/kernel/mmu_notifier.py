# SPDX-License-Identifier: GPL-2.0-only
"""Telling secondary MMUs of changes to page tables (mm/mmu_notifier.c; 7.2).

There are two kinds.  A virtual machine has translations of its own (kvm_main.py): it drops them before the tables are
changed, and makes none until that is done.  A device that walks the process's tables (iommu_sva.py) has to be done
with them when the CPUs have flushed.  Drivers of devices with tables of their own, which use mmu_interval_notifiers,
are not modelled; nor is what a guest has used of late (clear_young).

Where nobody has subscribed nothing is done.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import READ_ONCE, WRITE_ONCE, add, might_sleep, tlb_invalidate
from .bug import BugOn
from .config import config
from .kvm_main import (
    kvm_mmu_notifier_invalidate_range_end,
    kvm_mmu_notifier_invalidate_range_start,
    kvm_mmu_notifier_release,
)
from .mm_types import mm_struct, mmu_notifier, vm_area_struct
from .mmap_lock import mmap_write_lock, mmap_write_unlock


def mm_has_notifiers(mm: mm_struct) -> bool:
    """Whether somebody has subscribed; the option is looked at first, so that one who lacks it reads nothing."""
    return config.mmu_notifier and bool(READ_ONCE(mm, "notifier_subscriptions"))


def mmu_notifier_register(subscription: mmu_notifier) -> None:
    """Subscribe to changes of the mm that it names.  Raises BugOn in a kernel without MMU notifiers."""
    if not config.mmu_notifier:
        raise BugOn("a secondary MMU in a kernel without CONFIG_MMU_NOTIFIER")
    mm = subscription.mm
    mmap_write_lock(mm)
    add(mm.mm_count, 1)
    subscription.next = mm.notifier_subscriptions
    WRITE_ONCE(mm, "notifier_subscriptions", subscription)
    mmap_write_unlock(mm)


def subscribed(mm: mm_struct) -> tuple[mmu_notifier, ...]:
    """Who has, the last first."""
    found: tuple[mmu_notifier, ...] = ()
    subscription = READ_ONCE(mm, "notifier_subscriptions")
    while subscription:
        found += (subscription,)
        subscription = subscription.next
    return found


def mmu_notifier_invalidate_range_start(vma: vm_area_struct, start: int, end: int) -> None:
    """The tables of [start, end) bytes of the VMA's process are going to be changed.  May sleep."""
    if config.mmu_notifier and mm_has_notifiers(vma.vm_mm):
        __mmu_notifier_invalidate_range_start(vma.vm_mm, start, end)


def __mmu_notifier_invalidate_range_start(mm: mm_struct, start: int, end: int) -> None:
    """The same where somebody has subscribed."""
    might_sleep()
    for subscription in subscribed(mm):
        if subscription.kvm:
            kvm_mmu_notifier_invalidate_range_start(subscription.kvm, start, end)


def mmu_notifier_invalidate_range_end(vma: vm_area_struct, start: int, end: int) -> None:
    """They have been."""
    if config.mmu_notifier and mm_has_notifiers(vma.vm_mm):
        __mmu_notifier_invalidate_range_end(vma.vm_mm, start, end)


def __mmu_notifier_invalidate_range_end(mm: mm_struct, start: int, end: int) -> None:
    """The same where somebody has subscribed."""
    for subscription in subscribed(mm):
        if subscription.kvm:
            kvm_mmu_notifier_invalidate_range_end(subscription.kvm, start, end)


def mmu_notifier_arch_invalidate_secondary_tlbs(mm: mm_struct, start: int, end: int) -> None:
    """CPUs have flushed [start, end): so do devices, which have no walk under way then that began before."""
    if mm_has_notifiers(mm):
        __mmu_notifier_arch_invalidate_secondary_tlbs(mm, start, end)


def __mmu_notifier_arch_invalidate_secondary_tlbs(mm: mm_struct, start: int, end: int) -> None:
    """The same where somebody has subscribed."""
    for subscription in subscribed(mm):
        if not subscription.kvm:
            tlb_invalidate(subscription.addr, start, end, True, 1)


def mmu_notifier_release(mm: mm_struct) -> None:
    """The mm's last user is gone: nothing is reached by a secondary MMU from here on."""
    if mm_has_notifiers(mm):
        for subscription in subscribed(mm):
            if subscription.kvm:
                kvm_mmu_notifier_release(subscription.kvm)
            else:
                WRITE_ONCE(subscription, "released", 1)
                tlb_invalidate(subscription.addr, 0, arch.task_size, True, 1)

# SPDX-License-Identifier: GPL-2.0-only
# mypy: ignore-errors
"""A seeded bug: a virtual machine maps the page that it has looked up, whatever came of that meanwhile."""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_DONTNEED, Setup, override, scenario

from ..kernel.mm_types import kvm


@override("kvm_mmu:mmu_invalidate_retry")
def never(vm: kvm, seq: int) -> bool:
    """Neither whether an invalidation is under way, nor whether one has been."""
    return False


def _guest(s: Setup, does: str, *arguments: int) -> None:
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    k = s.model.kernel("kvm_mmu")
    vm = k.kvm_create_vm(p.mm, s.A, 1)
    s.thread("guest", lambda: getattr(k, does)(vm, 0, *arguments))
    s.thread("dontneed", lambda: p.madvise(s.A, 1, MADV_DONTNEED))


@scenario(options={"mmu_notifier": "y"})
def map_and_dontneed(s: Setup) -> None:
    """A guest's fault, after which it does nothing."""
    _guest(s, "kvm_tdp_page_fault", False)


@scenario(options={"mmu_notifier": "y"})
def read_and_dontneed(s: Setup) -> None:
    """A guest's read."""
    _guest(s, "guest_read")

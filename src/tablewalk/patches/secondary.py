# SPDX-License-Identifier: GPL-2.0-only
"""Secondary MMUs that are not told that a table goes (K3, K16e), and how devices were told before 6.6.

Until then the IOMMU of a device that walks a process's tables was told by what gathers, and at the end of each
invalidation; where single entries were changed, before ptl was released too, which makes no difference here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from ..kernel.mm_types import mm_struct, vm_area_struct
from ..kernel.mmu_gather import mmu_gather, tlb_flush_mmu_tlbonly
from ..kernel.mmu_notifier import (
    __mmu_notifier_arch_invalidate_secondary_tlbs,
    __mmu_notifier_invalidate_range_end,
    mm_has_notifiers,
)
from . import Claim, patch

F = TypeVar("F", bound=Callable[..., object])

BY_FLUSH: Final = "R-secondary-tlbs"
FILES: Final = ("mm/khugepaged.c",)


def unnoticed(id: str, commit: str, title: str, since: str, module: str, claim: Claim) -> Callable[[F], F]:
    """A row of which the absence is that nobody is told of what a module of the model does."""

    def declare(func: F) -> F:
        for side in ("start", "end"):
            site = f"{module}:mmu_notifier_invalidate_range_{side}"
            patch(id, commit=commit, title=title, since=since, site=site, files=FILES, mutant=True, claim=claim)(func)
        return func

    return declare


@unnoticed(
    "K3",
    "f268f6cf875f",
    "mm/khugepaged: invoke MMU notifiers in shmem/file collapse paths",
    "6.1",
    "patches.khugepaged",
    Claim("race", "guest-khugepaged-reclaim", "I1", kernel="6.1"),
)
@unnoticed(
    "K16e",
    "",
    "review of free by RCU: retract_page_tables() needs an MMU notifier",
    "6.6",
    "retract",
    Claim("race", "device-and-shmem-collapse", "I1", without=(BY_FLUSH,)),
)
def nobody_is_told(vma: vm_area_struct, start: int, end: int) -> None:
    """Pages and tables of the range go, and secondary MMUs keep what they have of them."""


def by_flush(site: str) -> Callable[[F], F]:
    """A site of the patches that moved the invalidation of devices' TLBs to where the CPUs' are flushed."""
    return patch(
        BY_FLUSH,
        commit="6bbd42e2df8f",
        title="mmu_notifiers: call invalidate_range() when invalidating TLBs (and ec8832d007cb)",
        since="6.6",
        site=site,
        files=("arch/x86/mm/tlb.c", "include/asm-generic/tlb.h", "mm/mmu_notifier.c"),
        claim=Claim("cleanup", "device-and-shmem-collapse", note="tables are freed after both"),
    )


@by_flush("mmu_notifier.mmu_notifier_arch_invalidate_secondary_tlbs")
def not_by_flush(mm: mm_struct, start: int, end: int) -> None:
    """A flush is one of CPUs."""


@by_flush("mmu_gather.tlb_flush_mmu_tlbonly")
def flush_and_invalidate(tlb: mmu_gather) -> None:
    """The gather tells devices."""
    start, end = tlb.start, tlb.end
    tlb_flush_mmu_tlbonly(tlb)
    if end and mm_has_notifiers(tlb.mm):
        __mmu_notifier_arch_invalidate_secondary_tlbs(tlb.mm, start, end)


@by_flush("mmu_notifier.__mmu_notifier_invalidate_range_end")
def invalidate_at_the_end(mm: mm_struct, start: int, end: int) -> None:
    """And so does the end of an invalidation."""
    __mmu_notifier_arch_invalidate_secondary_tlbs(mm, start, end)
    __mmu_notifier_invalidate_range_end(mm, start, end)

# SPDX-License-Identifier: GPL-2.0-only
"""What older releases left of a VMA that MREMAP_DONTUNMAP had moved."""

from __future__ import annotations

from ..kernel.mm_types import vm_area_struct
from ..kernel.mremap import dontunmap_complete
from ..kernel.rmap import unlink_anon_vmas
from ..kernel.vm_flags import VM_LOCKED_MASK
from ..kernel.vma_change import vm_flags_reset
from . import patch

FILES = ("mm/mremap.c",)


@patch(
    "R-mremap-pgoff",
    title="what MREMAP_DONTUNMAP leaves empty gets the page offset of its address (seen in 7.2, not in 6.18.44)",
    since="7.2",
    site="mremap.dontunmap_complete",
    files=FILES,
)
@patch(
    "R-mremap-pgoff-6.1",
    title="mm/mremap: reset unfaulted VMA page offset for MREMAP_DONTUNMAP",
    since="6.1.191",
    site="mremap.dontunmap_complete",
    files=FILES,
)
def dontunmap_keeps_pgoff(vma: vm_area_struct, start: int, end: int) -> None:
    """It keeps the page offset of where its pages came from, and merges only with what fits that."""
    vm_flags_reset(vma, vma.vm_flags & ~VM_LOCKED_MASK)
    if vma.vm_start == start and vma.vm_end == end:
        unlink_anon_vmas(vma)


@patch(
    "R-mremap-refactor",
    title="mm/mremap: refactor mremap() system call implementation",
    since="6.15",
    site="mremap.dontunmap_complete",
    files=FILES,
)
def dontunmap_complete_as_ever(vma: vm_area_struct, start: int, end: int) -> None:
    """Older releases were given the fix of 7.2, too."""
    dontunmap_complete(vma, start, end)

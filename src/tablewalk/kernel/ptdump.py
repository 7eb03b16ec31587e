# SPDX-License-Identifier: GPL-2.0-only
"""Dumping the kernel's own tables (walk_page_range_debug and walk_pte_range in mm/pagewalk.c, mm/ptdump.c; 7.2)."""

from __future__ import annotations

from ..arch import arch
from .pgtable import pmd_p, pte_offset_kernel, ptep_get


def ptdump_walk_pte_range(pmd: pmd_p, addr: int) -> int:
    """How many entries of a table of the kernel's are in use; it cannot go away, and so is not mapped."""
    pte = pte_offset_kernel(pmd, addr)
    return sum([ptep_get(pte + i) != 0 for i in range(arch.ptrs_per_pte)])

# SPDX-License-Identifier: GPL-2.0-only
"""sparc flushes what a slot held when the slot changes: it scans the table that a collapse has unlinked."""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_COLLAPSE, Setup, override, scenario

from ..arch import arch
from ..kernel.arch_sparc import set_pmd_at
from ..kernel.mm_types import vm_area_struct
from ..kernel.pgtable import pmd_p
from ..kernel.tlb import flush_tlb_range


@override("pgtable_generic.pmdp_collapse_flush")
def pmdp_collapse_flush(vma: vm_area_struct, addr: int, pmd: pmd_p) -> int:
    """The slot is emptied by set_pmd_at()."""
    pmdval = set_pmd_at(pmd, addr, 0)
    flush_tlb_range(vma.vm_mm, addr, addr + arch.pmd_size, freed_tables=True)
    return pmdval


@scenario(arch="sparc64/1")
def sparc_batch_pmd_scan(s: Setup) -> None:
    """MADV_COLLAPSE of shared memory, one of whose tables has entries, and a write fault."""
    (p,) = s.sharing(1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("fault", lambda: p.write(s.A, 2))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("tlb_batch_pmd_scan", "retracted")

# SPDX-License-Identifier: GPL-2.0-only
"""Tables that are freed where there is no memory for a batch of them: each by itself (tlb_remove_table_one)."""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_DONTNEED, Setup, override, scenario

from ..kernel.mmu_gather import NO_BATCH, table_batch


@override("mmu_gather.table_batch_alloc")
def no_memory() -> table_batch:
    """Nothing is free at the moment."""
    return NO_BATCH


@scenario()
def fault_and_dontneed_without_memory(s: Setup) -> None:
    """A write fault while MADV_DONTNEED takes the table away, which goes to RCU by itself."""
    p = s.written()
    s.thread("fault", lambda: p.write(s.A, 2))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) in (0, 2) else f"the page reads {p.read(s.A)}")
    s.sometimes("reclaimed_fast", "tlb_remove_table_one")


@scenario(arch="arm64/1", options={"pt_reclaim": "n"})
def gup_fast_and_munmap_without_memory(s: Setup) -> None:
    """get_user_pages_fast while the mapping goes; munmap waits for a grace period before it frees a table."""
    p = s.written()
    s.thread("gup", lambda: p.gup_fast(s.A))
    s.thread("munmap", lambda: p.munmap(s.A, 2 * s.huge))
    s.sometimes("tlb_remove_table_one")

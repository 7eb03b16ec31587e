# SPDX-License-Identifier: GPL-2.0-only
"""synchronously scan and reclaim empty user PTE pages (6.14), but for D01 (`khugepaged.py`) and D02 (`userfaultfd.py`).

Releases have it or not by the option PT_RECLAIM; each row is a mutant of a kernel that has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from ..kernel.huge_mm import vma_is_anonymous
from ..kernel.memory_zap import FORCE_BREAK, SKIPPED, ZAP_DROP_MARKERS
from ..kernel.memory_zap import zap_ptes as zap_ptes_today
from ..kernel.mm_types import vm_area_struct
from ..kernel.mmu_gather import __tlb_remove_table, mmu_gather, table_batch, tlb_remove_table_rcu
from ..kernel.pgtable import PTE_MARKER_UFFD_WP, make_pte_marker
from ..kernel.tlb import tlb_remove_table_sync_one
from ..kernel.userfaultfd_k import userfaultfd_pte_wp
from ..machine import store
from . import Claim, patch, without_code

F = TypeVar("F", bound=Callable[..., object])

SERIES: Final = "synchronously scan and reclaim empty user PTE pages"
MEMORY: Final = ("mm/memory.c",)


def row(id: str, commit: str, title: str, site: str, claim: Claim, *files: str) -> Callable[[F], F]:
    """A patch of this series."""
    return patch(
        id, commit=commit, title=title, series=SERIES, since="6.14", site=site, files=files, mutant=True, claim=claim
    )


@row(
    "D06",
    "735fad44b5a8",
    "mm: zap_install_uffd_wp_if_needed: return whether uffd-wp pte has been re-installed",
    "memory_zap.zap_install_uffd_wp_if_needed",
    Claim("race", "uffd-wp-and-dontneed", "I2"),
    *MEMORY,
)
def nobody_is_told(vma: vm_area_struct, pte: int, entry: int, details: int) -> bool:
    """A marker is left, and the table taken to be empty."""
    if details & ZAP_DROP_MARKERS == 0 and not vma_is_anonymous(vma) and userfaultfd_pte_wp(vma, entry):
        store(pte, make_pte_marker(PTE_MARKER_UFFD_WP))
    return False


@row(
    "D07",
    "4059971c79fc",
    "mm: do_zap_pte_range: return any_skipped information to the caller",
    "memory_zap.zap_ptes",
    Claim("race", "guard-and-dontneed", "I2"),
    *MEMORY,
)
def nothing_is_skipped(
    tlb: mmu_gather, vma: vm_area_struct, pte: int, addr: int, end: int, details: int
) -> tuple[int, int]:
    """Entries that have to stay are not told of."""
    done, found = zap_ptes_today(tlb, vma, pte, addr, end, details)
    return done, found & ~SKIPPED


@row(
    "D08",
    "2686d514c345",
    "mm: make zap_pte_range() handle full within-PMD range",
    "memory_zap.zap_ptes",
    Claim("count", measure="tables-left-by-long-dontneed", before=1, after=0),
    *MEMORY,
)
def rest_is_a_part(
    tlb: mmu_gather, vma: vm_area_struct, pte: int, addr: int, end: int, details: int
) -> tuple[int, int]:
    """What is left of a table when the batch is full is zapped as a part of it, after which no table is freed."""
    done, found = zap_ptes_today(tlb, vma, pte, addr, end, details)
    return done, found | SKIPPED if found & FORCE_BREAK else found


@row(
    "D09",
    "6375e95f381e",
    "mm: pgtable: reclaim empty PTE page in madvise(MADV_DONTNEED)",
    "memory_zap.pte_table_reclaim_possible",
    Claim("count", measure="tables-left-by-dontneed", before=1, after=0),
    "mm/memory.c",
    "mm/pt_reclaim.c",
    "mm/madvise.c",
    "include/linux/mm.h",
)
@row(
    "D11",
    "4817f70c25b6",
    "x86: select ARCH_SUPPORTS_PT_RECLAIM if X86_64",
    "memory_zap.pte_table_reclaim_possible",
    Claim("count", measure="tables-left-by-dontneed", before=1, after=0),
    "arch/x86/Kconfig",
)
def never_reclaimed(addr: int, end: int, details: int) -> bool:
    """Tables stay until the mapping goes."""
    return False


def d10(site: str) -> Callable[[F], F]:
    """A site of D10."""
    return row(
        "D10",
        "718b13861d22",
        "x86: mm: free page table pages by RCU instead of semi RCU",
        f"mmu_gather.{site}",
        Claim("race", "fault-and-dontneed", "I1"),
        "mm/mmu_gather.c",
        "arch/x86/include/asm/tlb.h",
        "arch/x86/kernel/paravirt.c",
    )


@d10("tlb_remove_table_free")
def free_after_flush(batch: table_batch) -> None:
    """Without a hypervisor: tables are freed with the pages, after an interrupt that waits for no RCU section."""
    tlb_remove_table_rcu(batch.addr)


@d10("tlb_remove_table_one")
def free_after_interrupt(table: int) -> None:
    """Where there is no memory for a batch: the same."""
    tlb_remove_table_sync_one()
    __tlb_remove_table(table)


# --- nothing to leave out --------------------------------------------------------------------------------


def nothing(id: str, commit: str, title: str, note: str) -> None:
    """A patch of this series that changes no outcome."""
    claim = Claim("cleanup", note=note)
    without_code(__name__, id, commit=commit, title=title, series=SERIES, since="6.14", files=MEMORY, claim=claim)


nothing("D03", "fabc0e8dac5b", "mm: introduce zap_nonpresent_ptes()", "only the text changes")
nothing("D04", "117cdb05e32d", "mm: introduce do_zap_pte_range()", "only the text changes")
nothing("D05", "45fec1e59514", "mm: skip over all consecutive none ptes in do_zap_pte_range()",
        "the same entries are looked at, in a loop of their own")  # fmt: skip

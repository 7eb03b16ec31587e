# SPDX-License-Identifier: GPL-2.0-only
"""An architecture that does not exist, as one module of `arch/` would have it: pages of 8 KiB, three levels.

Four PTE tables of 2 KiB share a page.  Flushes are broadcast.
"""

from __future__ import annotations

from tablewalk.arch import Arch

RECLAIM_SINCE = (7, 0)


def pocket(release: tuple[int, int]) -> Arch:
    """2 MiB a PTE table, 2 GiB a PMD table, which has 8 KiB; 48 bits in all."""
    return Arch(
        "pocket",
        page_shift=13,
        pte_bits=8,
        pmd_bits=10,
        pud_bits=0,
        pgd_bits=17,
        task_size=1 << 47,
        tables_per_page=4,
        broadcast_flush=True,
        pt_reclaim_since=RECLAIM_SINCE,
    )

# SPDX-License-Identifier: GPL-2.0-only
"""s390x: page tables of 2 KiB below segment and region tables of 16 KiB (arch/s390; 6.1, 6.12, 7.2).

A process begins with three levels: its PGD is a region-third table, which is not counted.  With the first mapping that
ends above 4 TiB a level is put on top, and the region-third table becomes a PUD table like others, counted from then
on (crst_table_upgrade).  The fifth level comes above 8 PiB, and is not counted as no P4D table is; so the model has all
five from the beginning, and leaves the PUD table out while there is but one.

Until 6.7 (d08d4e7cd6bf) two page tables shared a page of 4 KiB; since then each has one of its own and leaves half of
it unused.  VmPTE counts 2 KiB each in both.
"""

from __future__ import annotations

from typing import Final

from . import Arch, upper_levels

PAGE_SHIFT: Final = 12
PTE_BITS: Final = 8  # _PAGE_ENTRIES
CRST_BITS: Final = 11  # _CRST_ENTRIES
REGION2_SIZE: Final = 1 << 42  # _REGION2_SIZE: what three levels address

WHOLE_PAGES_SINCE: Final = (6, 7)


def s390x(name: str, edat1: bool, release: tuple[int, int]) -> Arch:
    """With EDAT1, which z/Architecture has since z10, there are huge pages of 1 MiB; QEMU emulates none."""
    return Arch(
        name,
        pte_bits=PTE_BITS,
        **upper_levels(64 - PAGE_SHIFT - PTE_BITS, CRST_BITS),
        task_size=(1 << 64) - 4096,
        has_thp=edat1,
        big_endian=True,
        own_user_space=True,
        no_gather=True,
        has_move_pud=False,
        pud_folded_below=REGION2_SIZE,
        pt_reclaim_since=(7, 0),
        tables_per_page=1 if release >= WHOLE_PAGES_SINCE else 2,
        broadcast_flush=True,
    )

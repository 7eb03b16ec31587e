# SPDX-License-Identifier: GPL-2.0-only
"""powerpc, 64-bit Book3S: radix and hash MMU, pages of 64 and 4 KiB (arch/powerpc; 6.1, 6.12, 7.2).

A table is a fragment of a page: with 64 KiB pages and the radix MMU 256 PTE tables of 256 bytes share one.  VmPTE
counts what a table has in entries; the page is given back when its last fragment is.  No kernel reclaims PTE tables
here: powerpc frees tables its own way (HAVE_ARCH_TLB_REMOVE_TABLE).
"""

from __future__ import annotations

from typing import Final

from . import Arch, variant

DEBIAN_4K_SINCE: Final = (6, 10)  # 6.10.1-1~exp1; the 64 KiB kernel became the package -64k


def ppc64le(release: tuple[int, int]) -> Arch:
    """As Debian builds it, on POWER9 or newer (radix): 64 KiB pages, from 6.10 on 4 KiB."""
    base = ppc64le_4k(release) if release >= DEBIAN_4K_SINCE else ppc64le_64k(release)
    return variant(base, name="ppc64le")


def ppc64le_4k(release: tuple[int, int]) -> Arch:
    """Radix MMU, 4 KiB pages: 9, 9, 9 and 13 bits (radix-4k.h)."""
    return _powerpc("ppc64le-4k", 12, (9, 9, 9, 13), fragment_shift=12)


def ppc64le_64k(release: tuple[int, int]) -> Arch:
    """Radix MMU, 64 KiB pages: 5, 9, 9 and 13 bits (radix-64k.h)."""
    return _powerpc("ppc64le-64k", 16, (5, 9, 9, 13), fragment_shift=8)


def ppc64le_hash_4k(release: tuple[int, int]) -> Arch:
    """Hash MMU, 4 KiB pages: 9, 7, 9 and 9 bits (hash-4k.h); no huge pages, which would have to be 16 MiB."""
    return _powerpc("ppc64le-hash-4k", 12, (9, 7, 9, 9), fragment_shift=12, radix=False, has_thp=False)


def ppc64le_hash_64k(release: tuple[int, int]) -> Arch:
    """Hash MMU, 64 KiB pages: 8, 10, 10 and 8 bits (hash-64k.h), and as much again behind the entries of a table."""
    return _powerpc("ppc64le-hash-64k", 16, (8, 10, 10, 8), fragment_shift=12, radix=False)


def _powerpc(
    name: str,
    page_shift: int,
    bits: tuple[int, int, int, int],
    *,
    fragment_shift: int,
    radix: bool = True,
    has_thp: bool = True,
) -> Arch:
    pte, pmd, pud, pgd = bits
    return Arch(
        name,
        page_shift=page_shift,
        pte_bits=pte,
        pmd_bits=pmd,
        pud_bits=pud,
        pgd_bits=pgd,
        task_size=1 << 52 if page_shift == 16 else 1 << 46,
        has_thp=has_thp,
        has_move_pud=radix,
        file_thp_deposits=not radix,
        own_tlb_remove_table=True,
        gather_page_size=True,
        tlb_needs_table_invalidate=radix,
        pt_reclaim_since=None,
        tables_per_page=1 << page_shift - fragment_shift,
        broadcast_flush=True,
    )

# SPDX-License-Identifier: GPL-2.0-only
"""Published bugs of UFFDIO_MOVE and the swap cache: each row undoes a fix.  Others are in `userfaultfd.py`."""

from __future__ import annotations

from ..kernel.mm_types import folio
from ..kernel.page_alloc import NO_FOLIO
from ..kernel.pgtable import pte_p
from ..kernel.pgtable_generic import pte_unmap
from . import Claim, patch

FILES = ("mm/userfaultfd.c",)


@patch(
    "K27",
    commit="0ea148a79919",
    title="mm: userfaultfd: fix race of userfaultfd_move and swap cache (CVE-2025-38242)",
    since="6.16",
    site="userfaultfd_move:swap_cache_has_folio",
    files=FILES,
    mutant=True,
    claim=Claim("race", "uffd-move-swapped", "RESULT"),
)
def nothing_came_into_the_cache(offset: int) -> bool:
    """What was not in the swap cache before the locks is taken not to be there under them."""
    return False


@patch(
    "K28",
    commit="c50f8e6053b0",
    title="userfaultfd: fix a kernel BUG when userfaultfd_move encounters swapcache",
    since="6.14",
    site="userfaultfd_move:swap_cache_get_folio",
    files=FILES,
    mutant=True,
    claim=Claim("race", "uffd-move-cached", "RESULT"),
)
def cache_is_not_looked_at(offset: int) -> folio:
    """The entry moves; the page in the swap cache still says that it belongs to the old place."""
    return NO_FOLIO


@patch(
    "K28",
    commit="c50f8e6053b0",
    title="userfaultfd: fix a kernel BUG when userfaultfd_move encounters swapcache",
    since="6.14",
    site="userfaultfd_move:swap_cache_has_folio",
    files=FILES,
    mutant=True,
)
def cache_is_not_looked_at_either(offset: int) -> bool:
    """Nor under the locks."""
    return False


@patch(
    "K30",
    commit="927e926d72d9",
    title="userfaultfd: fix PTE unmapping stack-allocated PTE copies",
    since="6.14",
    site="userfaultfd_move.unmap_ptes",
    files=FILES,
    mutant=True,
    claim=Claim("race", "uffd-move-and-dontneed-highpte", "I7"),
)
def unmap_copies(dst_pte: pte_p, src_pte: pte_p) -> None:
    """What is unmapped is where the entries were copied to, on the stack."""
    pte_unmap(0)
    pte_unmap(0)


@patch(
    "K30-order",
    title="userfaultfd: fix kmap_local LIFO ordering for CONFIG_HIGHPTE",
    since="6.17",
    site="userfaultfd_move.unmap_ptes",
    files=FILES,
    mutant=True,
    claim=Claim("race", "uffd-move-and-dontneed-highpte", "I7"),
)
def unmap_first_first(dst_pte: pte_p, src_pte: pte_p) -> None:
    """The destination, which was mapped first, goes first."""
    pte_unmap(dst_pte)
    pte_unmap(src_pte)

# SPDX-License-Identifier: GPL-2.0-only
"""Published bugs of UFFDIO_MOVE and the swap cache: each row undoes a fix.  Others are in `userfaultfd.py`."""

from __future__ import annotations

from ..kernel.mm_types import folio
from ..kernel.page_alloc import NO_FOLIO
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

# SPDX-License-Identifier: GPL-2.0-only
"""What older releases do with memory that may be merged, from their sources (6.1, 6.12)."""

from __future__ import annotations

from ..kernel.ksm_merge import checksum_is_old
from ..kernel.mm_types import folio, ksm_rmap_item
from ..kernel.pgtable import page_t
from ..kernel.vm_flags import FAULT_FLAG_REMOTE, FAULT_FLAG_WRITE
from . import patch

KSM = ("mm/ksm.c",)


@patch(
    "R-ksm-unshare",
    title="mm/ksm: convert break_ksm() to use FAULT_FLAG_UNSHARE",
    since="6.2",
    site="ksm.break_ksm_flags",
    files=KSM,
)
def break_ksm_flags() -> int:
    """A fault for writing, whether the VMA may be written or not, takes a merged page apart."""
    return FAULT_FLAG_WRITE | FAULT_FLAG_REMOTE


@patch(
    "R-ksm-smart-scan",
    title="mm/ksm: add \"smart\" page scanning mode",
    since="6.7",
    site="ksm_scan.should_skip_rmap_item",
    files=KSM,
)
def should_skip_rmap_item(f: folio, item: ksm_rmap_item) -> bool:
    """Each pass looks at each page."""
    return False


@patch(
    "R-ksm-checksum-first",
    title="mm/ksm: don't waste time searching stable tree for fast changing page",
    since="6.11",
    site="ksm_merge.unchanged_before_search",
    files=KSM,
)
def unchanged_before_search(item: ksm_rmap_item, page: page_t) -> bool:
    """The stable tree is searched for each page, of which the item is still there where it has left the tree."""
    return True


@patch(
    "R-ksm-checksum-first",
    title="mm/ksm: don't waste time searching stable tree for fast changing page",
    since="6.11",
    site="ksm_merge.unchanged_after_search",
    files=KSM,
)
def unchanged_after_search(item: ksm_rmap_item, page: page_t) -> bool:
    """Only the unstable tree is for pages that do not change."""
    return checksum_is_old(item, page)


@patch(
    "R-folio-batch-31",
    title="mm: increase folio batch size",
    since="6.9",
    site="mlock_folio.folio_batch_size",
    files=("include/linux/pagevec.h",),
)
def folio_batch_size() -> int:
    """A batch of folios is full with 15."""
    return 15

# SPDX-License-Identifier: GPL-2.0-only
"""PAGEMAP_SCAN as older releases have it (fs/proc/task_mmu.c of 6.1 and 6.12)."""

from __future__ import annotations

from ..kernel.mm_types import mm_struct
from ..kernel.pagemap_scan import PAGE_IS_GUARD, Region, pm_scan_arg
from ..kernel.vm_flags import ENOTTY
from . import patch

FILES = ("fs/proc/task_mmu.c",)


@patch(
    "R-pagemap-scan-guard",
    title="fs/proc: extend the PAGEMAP_SCAN ioctl to report guard regions",
    since="6.16",
    site="pagemap_scan.pm_scan_categories",
    files=FILES,
)
def categories_without_guard() -> int:
    """Guard regions are not told from other entries that are not present."""
    return PAGE_IS_GUARD - 1


@patch(
    "R-pagemap-scan",
    commit="52526ca7fdb9",
    title="fs/proc/task_mmu: implement IOCTL to get and optionally clear info about PTEs",
    since="6.7",
    site="pagemap_scan.do_pagemap_scan",
    files=FILES,
)
def no_pagemap_scan(mm: mm_struct, arg: pm_scan_arg) -> tuple[int, int, tuple[Region, ...]]:
    """There is none."""
    return -ENOTTY, 0, ()

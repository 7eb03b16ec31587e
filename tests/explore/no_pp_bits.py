# SPDX-License-Identifier: GPL-2.0-only
# mypy: ignore-errors
"""A seeded bug: s390 without PP bits, so that a half which is being freed does not keep its page."""

from __future__ import annotations

from tablewalk.explore.scenario import Setup, override, scenario

from ..kernel.mm_types import mm_struct
from ..kernel.pgtable_frag import LISTED, PENDING, page_free, table_page
from ..machine import add_return, load, spin_lock, spin_unlock, store
from ..scenarios.fragments import s390_halves_munmap


@override("pgtable_frag.page_table_free")
def free_under_the_lock_alone(mm: mm_struct, page: table_page) -> None:
    """Without a mark of its own: the count is lower before the page is off the list."""
    spin_lock(mm.page_table_lock)
    left = add_return(page.pt_frag_refcount, -1)
    store(page.rcu_head, LISTED if left & PENDING - 1 and load(page.active) == 0 else 0)
    spin_unlock(mm.page_table_lock)
    if left == 0:
        page_free(page)


@scenario()
def no_pp_bits(s: Setup) -> None:
    """As s390-halves-munmap."""
    s390_halves_munmap(s)

# SPDX-License-Identifier: GPL-2.0-only
# mypy: ignore-errors
"""A seeded bug: a file learns of a mapping with its first page locked, inside of i_mmap_rwsem."""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_COLLAPSE, Setup, override, scenario

from ..kernel.filemap import filemap_get_folio
from ..kernel.mm_types import vm_area_struct
from ..kernel.page_alloc import folio_put
from ..kernel.vma_change import vma_interval_tree_insert
from ..machine import down_write, mutex_lock, mutex_unlock, up_write


@override("vma_change.vma_link_file")
def link_and_lock_page(vma: vm_area_struct) -> None:
    """Elsewhere the page's lock is the outer one."""
    mapping = vma.vm_file.f_mapping
    down_write(mapping.i_mmap_rwsem)
    f = filemap_get_folio(mapping, 0)
    if f:
        mutex_lock(f.lock)
        mutex_unlock(f.lock)
        folio_put(f)
    vma_interval_tree_insert(vma)
    up_write(mapping.i_mmap_rwsem)


@scenario()
def wrong_order(s: Setup) -> None:
    """One thread maps a file, then collapses it: nobody is there to deadlock with."""
    f = s.shmem(s.huge)
    p = s.process()
    p.mmap(s.A, s.huge, f)
    p.fill(s.A, s.huge, 1)
    there = s.A + 2 * s.huge * s.page
    s.thread("both", lambda: (p.mmap(there, s.huge, f), p.madvise(s.A, s.huge, MADV_COLLAPSE)))

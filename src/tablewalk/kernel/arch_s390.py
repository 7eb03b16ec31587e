# SPDX-License-Identifier: GPL-2.0-only
"""s390's own users of page tables, for guests (arch/s390/mm/pgtable.c; 7.2. kernel/uv.c, mm/gmap.c; 6.12).

A guest's storage key of a page is kept beside the page's entry (PGSTE), under a lock bit of its own, or in the page if
that is huge.  The model has no PGSTEs: it says by the result where the key would have been.
"""

from __future__ import annotations

from typing import Final

from ..machine import forget, load, spin_unlock
from .mm_types import mm_struct, spinlock_t
from .pgtable import (
    PRESENT,
    RW,
    mm_find_pmd,
    pmd_p,
    pmd_present,
    pmd_trans_huge,
    pte_p,
    ptep_get,
)
from .pgtable_generic import pmd_lock, pte_alloc_map_lock, pte_offset_map_lock, pte_unmap_unlock, walk_to_pmd
from .vm_flags import EFAULT, ENOMEM

IN_PGSTE: Final = 1
IN_PAGE: Final = 2
ENXIO: Final = 6


def set_guest_storage_key(mm: mm_struct, addr: int) -> int:
    """Where a storage key is set (IN_PGSTE, IN_PAGE), or -EFAULT if the page has to be faulted in first."""
    pmd = mm_find_pmd(mm, addr)
    if not pmd:
        return -EFAULT
    while True:
        pml = pmd_lock(mm, pmd, addr)
        pmdval = load(pmd)
        spin_unlock(pml)  # of a huge page once its key is set
        if not pmd_present(pmdval):
            return -EFAULT
        if pmd_trans_huge(pmdval):
            return IN_PAGE
        pte, ptl = pte_offset_map_lock(mm, pmd, addr)
        if pte:
            pte_unmap_unlock(pte, ptl)
            return IN_PGSTE
        forget(())


def gmap_make_secure(mm: mm_struct, addr: int) -> int:
    """Give a small page to a protected guest, under mmap_lock: 0, or -ENXIO to fault it in first."""
    pmd = walk_to_pmd(mm, addr)
    pte, ptl = pte_alloc_map_lock(mm, pmd, addr)  # get_locked_pte
    if not pte:
        return -ENXIO
    entry = ptep_get(pte)
    ret = 0 if entry & (PRESENT | RW) == PRESENT | RW else -ENXIO
    pte_unmap_unlock(pte, ptl)
    return ret


def gmap_pte_op_end(ptep: pte_p, ptl: spinlock_t) -> None:
    """Release what gmap_protect_pte mapped."""
    pte_unmap_unlock(ptep, ptl)


def gmap_protect_pte(mm: mm_struct, addr: int, pmd: pmd_p) -> int:
    """Note that a guest's page is to be watched: 0, or -ENOMEM; under mmap_lock for reading."""
    pte, ptl = pte_alloc_map_lock(mm, pmd, addr)
    if not pte:
        return -ENOMEM
    ret = 0 if ptep_get(pte) & PRESENT else -EFAULT
    gmap_pte_op_end(pte, ptl)
    return ret

# SPDX-License-Identifier: GPL-2.0-only
"""An mm_struct's beginning and end (kernel/fork.c; 7.2)."""

from __future__ import annotations

from typing import Final

from ..machine import add_return, inc_not_zero, load, mt_destroy, mt_init, store
from .bug import BugOn
from .ksm import ksm_exit
from .mm_types import mm_struct
from .mmap import exit_mmap
from .pgalloc import pgd_alloc, pgd_free
from .pgtable_generic import mm_pgtables_bytes

STACK_LIMIT: Final = 8 << 20  # _STK_LIM
RLIM_INFINITY: Final = (1 << 64) - 1


def mm_alloc() -> mm_struct:
    """A new, empty address space with one user, on one CPU, with the default stack limit and none on locked memory."""
    mm: mm_struct = mm_struct.alloc()
    store(mm.mm_users, 1)
    store(mm.mm_count, 1)
    pgd_alloc(mm)
    mt_init(mm.mm_mt)
    mm.nr_cpus = 1
    mm.rlimit_stack = STACK_LIMIT
    mm.rlimit_memlock = RLIM_INFINITY
    return mm


def mmget_not_zero(mm: mm_struct) -> bool:
    """A user more unless the process has exited; whether it was counted (include/linux/sched/mm.h)."""
    return inc_not_zero(mm.mm_users)


def mmput(mm: mm_struct) -> None:
    """A user less; with the last one everything is unmapped.  Raises BugOn if something stays counted then."""
    if add_return(mm.mm_users, -1) == 0:
        ksm_exit(mm)
        exit_mmap(mm)
        mmdrop(mm)


def mmdrop(mm: mm_struct) -> None:
    """A reference to the struct less; the last one frees it."""
    if add_return(mm.mm_count, -1) == 0:
        pgd_free(mm)
        check_mm(mm)
        mt_destroy(mm.mm_mt)
        mm.free()


def check_mm(mm: mm_struct) -> None:
    """Raise BugOn for counters that should be back at 0."""
    for name, counter in (
        ("MM_FILEPAGES", mm.file_rss),
        ("MM_ANONPAGES", mm.anon_rss),
        ("MM_SWAPENTS", mm.swapents),
        ("MM_SHMEMPAGES", mm.shmem_rss),
    ):
        if load(counter):
            raise BugOn(f"Bad rss-counter state type:{name} val:{load(counter)}")
    if mm_pgtables_bytes(mm) or load(mm.nr_p4ds) or load(mm.nr_deposited):
        raise BugOn(f"non-zero pgtables_bytes on freeing mm: {mm_pgtables_bytes(mm)}")

# SPDX-License-Identifier: GPL-2.0-only
"""Duplicating an address space (dup_mm in kernel/fork.c, dup_mmap in mm/mmap.c; 7.2)."""

from __future__ import annotations

from typing import Final

from ..machine import WRITE_ONCE, load, mt_values
from .bug import BugOn
from .filemap import get_file
from .huge_mm import MMF_DISABLE_THP_COMPLETELY, MMF_DISABLE_THP_EXCEPT_ADVISED, khugepaged_enter
from .ksm import ksm_fork
from .memory_copy import copy_page_range
from .mm_init import mm_alloc
from .mm_types import mm_struct, vm_area_struct
from .mmap_lock import mmap_write_lock, mmap_write_lock_nested, mmap_write_unlock, vma_start_write
from .rmap import NO_ANON_VMA, anon_vma_fork, vma_pages
from .tlb import flush_tlb_mm
from .userfaultfd_events import dup_userfaultfd, dup_userfaultfd_complete, uffd_forks
from .vm_flags import VM_DONTCOPY, VM_LOCKED_MASK, VM_NOHUGEPAGE, VM_WIPEONFORK
from .vma_change import vm_area_dup, vma_link

VM_INIT_DEF_MASK: Final = VM_NOHUGEPAGE
MMF_DISABLE_THP_MASK: Final = MMF_DISABLE_THP_COMPLETELY | MMF_DISABLE_THP_EXCEPT_ADVISED


def dup_mm(oldmm: mm_struct) -> mm_struct:
    """A copy of the address space for a child, with one user and on one CPU."""
    mm = mm_alloc()
    dup_mmap(mm, oldmm)
    return mm


def dup_mmap(mm: mm_struct, oldmm: mm_struct) -> None:
    """Give the new mm the VMAs of the old one, and the pages that a fault could not bring back."""
    mmap_write_lock(oldmm)
    mmap_write_lock_nested(mm)
    mm_init_from(mm, oldmm)
    forks: uffd_forks = ()
    for address in mt_values(oldmm.mm_mt):
        forks = dup_vma(mm, vm_area_struct(address), forks)
    ksm_fork(mm, oldmm)
    if load(oldmm.khugepaged):
        khugepaged_enter(mm)
    mmap_write_unlock(mm)
    flush_tlb_mm(oldmm)
    mmap_write_unlock(oldmm)
    dup_userfaultfd_complete(forks)


def mm_init_from(mm: mm_struct, oldmm: mm_struct) -> None:
    """What a child inherits besides VMAs; dup_mm copies it before mmap_lock is taken, and mm_init masks it."""
    mm.def_flags = oldmm.def_flags & VM_INIT_DEF_MASK
    WRITE_ONCE(mm, "flags", oldmm.flags & MMF_DISABLE_THP_MASK)
    mm.start_brk = oldmm.start_brk
    mm.brk = oldmm.brk
    mm.start_stack = oldmm.start_stack
    mm.pud_folded = oldmm.pud_folded
    mm.rlimit_stack = oldmm.rlimit_stack
    mm.rlimit_memlock = oldmm.rlimit_memlock
    mm.total_vm = oldmm.total_vm


def dup_vma(mm: mm_struct, mpnt: vm_area_struct, forks: uffd_forks) -> uffd_forks:
    """Give the child its copy of the parent's VMA, unless MADV_DONTFORK forbids it.  Returns `forks`, or more."""
    vma_start_write(mpnt)
    if mpnt.vm_flags & VM_DONTCOPY:
        mm.total_vm -= vma_pages(mpnt)
        return forks
    vma = vm_area_dup(mpnt, mm)
    WRITE_ONCE(vma, "vm_flags", vma.vm_flags & ~VM_LOCKED_MASK)
    forks = dup_userfaultfd(vma, forks)
    if vma.vm_flags & VM_WIPEONFORK:
        WRITE_ONCE(vma, "anon_vma", NO_ANON_VMA)
    else:
        anon_vma_fork(vma, mpnt)
    if vma.vm_file:
        get_file(vma.vm_file)
    vma_link(mm, vma)
    if vma.vm_flags & VM_WIPEONFORK == 0 and copy_page_range(vma, mpnt):
        raise BugOn("fork: the child's page table is gone under mmap_lock")
    return forks

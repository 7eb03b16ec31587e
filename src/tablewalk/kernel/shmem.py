# SPDX-License-Identifier: GPL-2.0-only
"""Shared memory: anonymous, memfd, tmpfs (mm/shmem.c; 7.2).  Nothing is ever swapped out.

Of the huge orders only the PMD's is modelled: smaller ones change no table.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import WRITE_ONCE, forget, mutex_lock, mutex_unlock, xa_range
from .config import config
from .filemap import (
    SIZE_UNKNOWN,
    file_mapping,
    filemap_add_folio,
    filemap_get_folio,
    filemap_remove_folio,
    i_size_pages,
    iput,
    open_file,
)
from .huge_mm import thp_vma_suitable_pmd, vma_thp_disabled
from .mm_types import address_space, file, folio, vm_area_struct
from .page_alloc import MAPPING_SHIFT, NO_FOLIO, PG_SWAPBACKED, PG_UPTODATE, folio_alloc, folio_put
from .userfaultfd_fault import handle_userfault
from .userfaultfd_k import userfaultfd_minor, userfaultfd_missing
from .vm_fault import vm_fault
from .vm_flags import VM_FAULT_SIGBUS, VM_HUGEPAGE, VM_UFFD_MINOR, VM_UFFD_MISSING

# address_space.huge of a tmpfs mount; INTERNAL: the kernel's own mount (memfd, shared anonymous and System V memory)
SHMEM_HUGE_NEVER: Final = 0
SHMEM_HUGE_ALWAYS: Final = 1
SHMEM_HUGE_WITHIN_SIZE: Final = 2
SHMEM_HUGE_ADVISE: Final = 3
SHMEM_HUGE_INTERNAL: Final = 4

HUGE_OPTION: Final = {  # by the mount's huge=
    "never": SHMEM_HUGE_NEVER,
    "always": SHMEM_HUGE_ALWAYS,
    "within_size": SHMEM_HUGE_WITHIN_SIZE,
    "advise": SHMEM_HUGE_ADVISE,
}
_KNOB: Final = {
    "never": SHMEM_HUGE_NEVER,
    "always": SHMEM_HUGE_ALWAYS,
    "within_size": SHMEM_HUGE_WITHIN_SIZE,
    "advise": SHMEM_HUGE_ADVISE,
    "deny": SHMEM_HUGE_NEVER,
    "force": SHMEM_HUGE_NEVER,
}


def shmem_file_setup(size: int, ident: int = 0) -> file:
    """An unlinked file of `size` bytes on the kernel's own mount (shmem_zero_setup, memfd_create, shmget)."""
    mapping = shmem_mapping(size, SHMEM_HUGE_INTERNAL)
    f = open_file(mapping, ident)
    iput(mapping)
    return f


def shmem_mapping(i_size: int = SIZE_UNKNOWN, huge: int = SHMEM_HUGE_NEVER) -> address_space:
    """A new tmpfs inode of `i_size` bytes with the mount's SHMEM_HUGE_*, held once by the caller."""
    mapping = file_mapping(i_size, shmem=True)
    mapping.huge = huge
    return mapping


def shmem_huge_global_enabled(mapping: address_space, index: int, force: bool, vm_flags: int) -> bool:
    """Whether mount options and the deny/force knob allow a huge page at `index` (`force`: MADV_COLLAPSE)."""
    if config.shmem_enabled == "deny" or not arch.has_thp:
        return False
    if force or config.shmem_enabled == "force":
        return True
    huge = mapping.huge
    if huge == SHMEM_HUGE_INTERNAL:
        huge = _KNOB[config.shmem_enabled]
    if huge == SHMEM_HUGE_ALWAYS:
        return True
    if huge == SHMEM_HUGE_WITHIN_SIZE:
        end = (index // arch.hpage_pmd_nr + 1) * arch.hpage_pmd_nr
        if i_size_pages(mapping) >= end:
            return True
    return huge in (SHMEM_HUGE_WITHIN_SIZE, SHMEM_HUGE_ADVISE) and vm_flags & VM_HUGEPAGE != 0


def shmem_allowable_huge_pmd(mapping: address_space, vma: vm_area_struct, index: int, force: bool) -> bool:
    """Whether a huge page may be allocated (or collapsed into) at page `index`; `vma` NULL where none is involved."""
    vm_flags = 0
    if vma:
        vm_flags = vma.vm_flags
        if vma_thp_disabled(vma, vm_flags, force):
            return False
    return shmem_huge_global_enabled(mapping, index, force, vm_flags)


def shmem_get_folio(vmf: vm_fault) -> tuple[int, folio]:
    """(VM_FAULT bits, the folio of the page, allocated if need be, locked and referenced).

    A userfaultfd may want to know of a page that is cached (minor) or is not (missing).
    """
    vma = vmf.vma
    mapping = vma.vm_file.f_mapping
    while True:
        if vmf.pgoff >= i_size_pages(mapping):
            return VM_FAULT_SIGBUS, NO_FOLIO
        f = filemap_get_folio(mapping, vmf.pgoff)
        if f:
            if userfaultfd_minor(vma):
                folio_put(f)
                return handle_userfault(vmf, VM_UFFD_MINOR), NO_FOLIO
            mutex_lock(f.lock)
            if f.mapping == mapping.addr << MAPPING_SHIFT:
                shmem_mark_uptodate(f)
                return 0, f
            mutex_unlock(f.lock)
            folio_put(f)
        elif userfaultfd_missing(vma):
            return handle_userfault(vmf, VM_UFFD_MISSING), NO_FOLIO
        else:
            f = shmem_alloc_and_add_folio(mapping, vmf.pgoff, vma, vmf.address)
            if f:
                if vmf.pgoff < i_size_pages(mapping):
                    return 0, f
                mutex_unlock(f.lock)
                folio_put(f)
        forget(())


def shmem_mark_uptodate(f: folio) -> None:
    """What fallocate() made is valid when somebody asks for it, who locked it."""
    if f.flags & PG_UPTODATE == 0:
        WRITE_ONCE(f, "flags", f.flags | PG_UPTODATE)


def shmem_alloc_and_add_folio(mapping: address_space, index: int, vma: vm_area_struct, address: int) -> folio:
    """A new folio in the cache at page `index`, locked and referenced; NULL if somebody else was quicker."""
    order = 0
    if shmem_allowable_huge_pmd(mapping, vma, index, False) and shmem_suitable_pmd(mapping, index, vma, address):
        order = arch.pte_bits
    f = folio_alloc(order)
    mutex_lock(f.lock)
    WRITE_ONCE(f, "flags", PG_SWAPBACKED | PG_UPTODATE)
    if filemap_add_folio(mapping, f, index & -(1 << order)):
        return f
    mutex_unlock(f.lock)
    folio_put(f)
    return NO_FOLIO


def shmem_suitable_pmd(mapping: address_space, index: int, vma: vm_area_struct, address: int) -> bool:
    """Whether a huge page at `index` fits the VMA and nothing is cached in its way."""
    if vma and not thp_vma_suitable_pmd(vma, address):
        return False
    first = index & -arch.hpage_pmd_nr
    return not xa_range(mapping.i_pages, first, first + arch.hpage_pmd_nr - 1)


def shmem_fault(vmf: vm_fault) -> tuple[int, folio]:
    """(VM_FAULT bits, the locked and referenced folio of the page)."""
    return shmem_get_folio(vmf)


# --- userfaultfd -----------------------------------------------------------------------------------------


def shmem_mfill_filemap_add(f: folio, mapping: address_space, index: int) -> bool:
    """Lock a new folio and put it into the cache; false, and unlocked again, if a page is there."""
    mutex_lock(f.lock)
    WRITE_ONCE(f, "flags", PG_SWAPBACKED | PG_UPTODATE)
    if filemap_add_folio(mapping, f, index):
        return True
    mutex_unlock(f.lock)
    return False


def shmem_mfill_filemap_remove(f: folio, mapping: address_space) -> None:
    """Undo it: nothing could be mapped."""
    filemap_remove_folio(mapping, f)
    mutex_unlock(f.lock)

# SPDX-License-Identifier: GPL-2.0-only
"""Shared memory: anonymous, memfd, tmpfs (mm/shmem.c; 7.2).  `vmscan` has how it gets to swap.

Of the huge orders only the PMD's is modelled: smaller ones change no table.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    READ_ONCE,
    WRITE_ONCE,
    add,
    forget,
    mutex_lock,
    mutex_unlock,
    rcu_read_lock,
    rcu_read_unlock,
    spin_lock,
    spin_unlock,
    xa_load,
    xa_range,
    xa_store,
)
from .config import config
from .filemap import (
    SIZE_UNKNOWN,
    file_mapping,
    filemap_add_folio,
    filemap_get_folio,
    filemap_lock_folio,
    filemap_remove_folio,
    i_size_pages,
    iput,
    open_file,
    radix_order,
    radix_to_swp_entry,
    swp_to_radix_entry,
    xa_is_value,
)
from .huge_mm import thp_vma_suitable_pmd, vma_thp_disabled
from .mm_types import address_space, file, folio, vm_area_struct
from .mmap_lock import NO_VMA
from .page_alloc import (
    MAPPING_SHIFT,
    NO_FOLIO,
    PG_DIRTY,
    PG_SWAPBACKED,
    PG_UPTODATE,
    folio_alloc,
    folio_nr_pages,
    folio_put,
)
from .rmap import vma_pages
from .swap_state import folio_matches_swap_entry, swap_cache_del_folio, swapin_sync
from .swapfile import folio_put_swap
from .userfaultfd_fault import handle_userfault
from .userfaultfd_k import userfaultfd_armed, userfaultfd_minor, userfaultfd_missing
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

XA_CHUNK_SHIFT: Final = 6  # of the orders that a node of the page cache's tree holds

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


def shmem_huge_global_enabled(
    mapping: address_space, index: int, within: int, force: bool, vm_flags: int
) -> bool:
    """Whether mount options and the deny/force knob allow a huge page at `index` (`force`: MADV_COLLAPSE).

    `within`: the pages there, aligned, that have to lie within a file with huge=within_size.
    """
    if config.shmem_enabled == "deny" or not arch.has_thp:
        return False
    if force or config.shmem_enabled == "force":
        return True
    huge = mapping.huge
    if huge == SHMEM_HUGE_INTERNAL:
        huge = _KNOB[config.shmem_enabled]
    if huge == SHMEM_HUGE_ALWAYS:
        return True
    if huge == SHMEM_HUGE_WITHIN_SIZE and i_size_pages(mapping) >= (index // within + 1) * within:
        return True
    return huge in (SHMEM_HUGE_WITHIN_SIZE, SHMEM_HUGE_ADVISE) and vm_flags & VM_HUGEPAGE != 0


def shmem_allowable_huge_pmd(mapping: address_space, vma: vm_area_struct, index: int, force: bool) -> bool:
    """Whether a huge page may be allocated (or collapsed into) at page `index`; `vma` NULL where none is involved.

    Files with huge= are unlinked when they are mapped, as shared anonymous memory and memfds are.
    """
    vm_flags = 0
    within = arch.hpage_pmd_nr
    if vma:
        vm_flags = vma.vm_flags
        if vma_thp_disabled(vma, vm_flags, force):
            return False
        if not force:
            within = shmem_orders_inherited()
    return shmem_huge_global_enabled(mapping, index, within, force, vm_flags)


def shmem_orders_inherited() -> int:
    """Pages of the least large folio that lets a mapping of unlinked memory inherit the mount's huge=, and with it
    huge pages (huge_shmem_orders_inherit)."""
    return 2


def shmem_get_folio(vmf: vm_fault) -> tuple[int, folio]:
    """(VM_FAULT bits, the folio of the page, allocated if need be, locked and referenced).

    A userfaultfd may want to know of a page that is cached (minor) or is not (missing).
    """
    vma = vmf.vma
    mapping = vma.vm_file.f_mapping
    while True:
        if vmf.pgoff >= i_size_pages(mapping):
            return VM_FAULT_SIGBUS, NO_FOLIO
        f, value = shmem_get_entry(mapping, vmf.pgoff)
        if value:
            if userfaultfd_minor(vma):
                return handle_userfault(vmf, VM_UFFD_MINOR), NO_FOLIO
            shmem_swapin_folio(mapping, vmf.pgoff, value, vma)
        elif f:
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


def shmem_get_entry(mapping: address_space, index: int) -> tuple[folio, int]:
    """(the cached folio at page `index` with a reference or NULL, what stands there for a page in swap or 0)."""
    value = xa_load(mapping.i_pages, index)
    if xa_is_value(value):
        return NO_FOLIO, value
    return filemap_get_folio(mapping, index), 0


def shmem_lock_folio(mapping: address_space, index: int) -> folio:
    """The folio at page `index` locked and with a reference, read in from swap if need be, or NULL (SGP_NOALLOC)."""
    while True:
        value = xa_load(mapping.i_pages, index)
        if xa_is_value(value):
            shmem_swapin_folio(mapping, index, value, NO_VMA)
        else:
            f = filemap_lock_folio(mapping, index)
            if f or not xa_is_value(xa_load(mapping.i_pages, index)):  # else it went to swap meanwhile
                return f
        forget(())


def shmem_swapin_folio(mapping: address_space, index: int, value: int, vma: vm_area_struct) -> None:
    """Let the file have a page again that `value` stood for; who wants it looks again."""
    order = radix_order(value)
    offset = radix_to_swp_entry(value)
    f = swapin_sync(offset, shmem_swapin_order(vma, order))
    if not f:
        return
    if order > f.order:
        shmem_split_large_entry(mapping, index, value)
    mutex_lock(f.lock)
    if folio_matches_swap_entry(f, offset) and shmem_replace_swap(mapping, index & -folio_nr_pages(f), f):
        folio_put_swap(f)
        swap_cache_del_folio(f)
        WRITE_ONCE(f, "flags", f.flags | PG_DIRTY)
    mutex_unlock(f.lock)
    folio_put(f)


def shmem_swapin_order(vma: vm_area_struct, order: int) -> int:
    """The order of the folio that a swap entry of `order` is read into."""
    return 0 if vma and userfaultfd_armed(vma) else order


def shmem_split_large_entry(mapping: address_space, index: int, value: int) -> None:
    """Split the entry of several pages around `index`, as far as it must be for one page to be replaced."""
    spin_lock(mapping.i_pages_lock)
    if xa_load(mapping.i_pages, index) == value:
        order = radix_order(value)
        while order:
            below = order - (order % XA_CHUNK_SHIFT or XA_CHUNK_SHIFT)
            split_entry(mapping, index & -(1 << order), 1 << order, below)
            order = below
    spin_unlock(mapping.i_pages_lock)


def split_entry(mapping: address_space, first: int, nr: int, order: int) -> None:
    """Let the entry of `nr` pages from `first` on be entries of 2^order pages each."""
    for index in range(first, first + nr):
        offset = radix_to_swp_entry(xa_load(mapping.i_pages, index))
        xa_store(mapping.i_pages, index, swp_to_radix_entry(offset, order))


def shmem_replace_swap(mapping: address_space, first: int, f: folio) -> bool:
    """Put a locked folio where its swap entries stand in the file; false if they do no more."""
    nr = folio_nr_pages(f)
    spin_lock(mapping.i_pages_lock)
    expected = [swp_to_radix_entry(f.swap + i, f.order) for i in range(nr)]
    same = [value for _, value in xa_range(mapping.i_pages, first, first + nr - 1)] == expected
    if same:
        add(f._refcount, nr)
        f.mapping = mapping.addr << MAPPING_SHIFT
        f.index = first
        for i in range(nr):
            xa_store(mapping.i_pages, first + i, f.addr)
        mapping.nrpages += nr
        WRITE_ONCE(mapping, "swapped", mapping.swapped - nr)
    spin_unlock(mapping.i_pages_lock)
    return same


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


def shmem_swap_usage(vma: vm_area_struct) -> int:
    """Pages of the file behind the VMA that are in swap."""
    mapping = vma.vm_file.f_mapping
    swapped: int = READ_ONCE(mapping, "swapped")
    if swapped == 0 or (vma.vm_pgoff == 0 and vma_pages(vma) >= i_size_pages(mapping)):
        return swapped
    return shmem_partial_swap_usage(mapping, vma.vm_pgoff, vma.vm_pgoff + vma_pages(vma))


def shmem_partial_swap_usage(mapping: address_space, start: int, end: int) -> int:
    """Pages in swap of the entries from page `start` to `end` of a file, which may stand for more than lie there."""
    swapped: dict[int, int] = {}
    rcu_read_lock()
    for index, value in xa_range(mapping.i_pages, start, end - 1):
        if xa_is_value(value):
            order = radix_order(value)
            swapped[index >> order << order] = 1 << order
    rcu_read_unlock()
    return sum(swapped.values())

# SPDX-License-Identifier: GPL-2.0-only
"""Filling and write-protecting memory for a userfaultfd (the mfill and wp parts of mm/userfaultfd.c; 7.2).

UFFDIO_COPY, _ZEROPAGE, _CONTINUE and _POISON fill page by page, with the VMA's lock (or mmap_lock) and the context's
map_changing_lock held for reading.  Content is copied with page faults disabled first, and again with no lock held.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import add, down_read, forget, load, mutex_unlock, store, up_read
from .config import config
from .fault import WOULD_WAIT, hardware_walk, user_read
from .filemap import folio_file_page, i_size_pages
from .mm_types import address_space, folio, mm_struct, userfaultfd_ctx, vm_area_struct
from .mmap_lock import (
    lock_vma_under_rcu,
    mmap_read_lock,
    mmap_read_unlock,
    vma_end_read,
    vma_start_read_locked,
)
from .mmu_gather import tlb_finish_mmu, tlb_gather_mmu
from .mprotect import change_protection, vma_wants_manual_pte_write_upgrade
from .not_modelled import NotModelled
from .page_alloc import NO_FOLIO, folio_alloc, folio_put, folio_test_anon, page_content, zero_page
from .pgtable import (
    ACCESSED,
    LEAF,
    MKDIRTY,
    PFN_SHIFT,
    PRESENT,
    PTE_MARKER_POISONED,
    RW,
    SPECIAL,
    make_pte_marker,
    page_folio,
    page_t,
    pmd_p,
    pmdp_get_lockless,
    ptep_get,
    vm_page_prot,
)
from .pgtable_generic import __pte_alloc, pte_offset_map_lock, pte_unmap_unlock, walk_to_pmd
from .rmap import (
    anon_vma_prepare,
    folio_add_new_anon_rmap,
    folio_add_rmap_ptes,
    linear_page_index,
    mm_counter_file,
)
from .shmem import (
    shmem_lock_folio,
    shmem_mark_uptodate,
    shmem_mfill_filemap_add,
    shmem_mfill_filemap_remove,
)
from .userfaultfd_k import pte_is_uffd_marker, pte_mkuffd_wp, userfaultfd_wp
from .vm_flags import (
    EAGAIN,
    EEXIST,
    EFAULT,
    EINVAL,
    ENOENT,
    ENOMEM,
    EUSERFAULT,
    MM_CP_TRY_CHANGE_WRITABLE,
    MM_CP_UFFD_WP,
    MM_CP_UFFD_WP_RESOLVE,
    VM_HUGETLB,
    VM_SHARED,
    VM_UFFD_FLAGS,
    VM_WRITE,
)
from .vma import find_vma, vma_lookup
from .vma_change import ERR_PTR, IS_ERR, PTR_ERR

MFILL_ATOMIC_COPY: Final = 0
MFILL_ATOMIC_ZEROPAGE: Final = 1
MFILL_ATOMIC_CONTINUE: Final = 2
MFILL_ATOMIC_POISON: Final = 3


# --- the VMA ---------------------------------------------------------------------------------------------


def find_vma_and_prepare_anon(mm: mm_struct, address: int) -> vm_area_struct:
    """The VMA that contains `address`, with an anon_vma if private; -ENOENT without one.  mmap_lock is held."""
    vma = vma_lookup(mm, address)
    if not vma:
        return ERR_PTR(-ENOENT)
    if vma.vm_flags & VM_SHARED == 0:
        anon_vma_prepare(vma)
    return vma


def uffd_lock_vma(mm: mm_struct, address: int) -> vm_area_struct:
    """The same VMA read-locked: -ENOENT, or -EAGAIN for too many readers."""
    vma = lock_vma_under_rcu(mm, address)
    if vma:
        if vma.vm_flags & VM_SHARED or vma.anon_vma:
            return vma
        vma_end_read(vma)
    mmap_read_lock(mm)
    vma = find_vma_and_prepare_anon(mm, address)
    if not IS_ERR(vma) and not vma_start_read_locked(vma):
        vma = ERR_PTR(-EAGAIN)
    mmap_read_unlock(mm)
    return vma


def uffd_vma_locks() -> bool:
    """Whether the VMA's lock does, and not mmap_lock."""
    return config.per_vma_lock


def validate_dst_vma(vma: vm_area_struct, end: int) -> bool:
    """Whether the VMA reaches to `end` and is registered with any userfaultfd."""
    return end <= vma.vm_end and vma.vm_userfaultfd_ctx != 0


def uffd_mfill_lock(mm: mm_struct, start: int, length: int) -> vm_area_struct:
    """The registered VMA that has all of the range, locked; or -ENOENT, -EAGAIN."""
    if uffd_vma_locks():
        vma = uffd_lock_vma(mm, start)
    else:
        mmap_read_lock(mm)
        vma = find_vma_and_prepare_anon(mm, start)
        if IS_ERR(vma):
            mmap_read_unlock(mm)
    if IS_ERR(vma) or validate_dst_vma(vma, start + length):
        return vma
    uffd_mfill_unlock(vma)
    return ERR_PTR(-ENOENT)


def uffd_mfill_unlock(vma: vm_area_struct) -> None:
    """Release what uffd_mfill_lock took."""
    if uffd_vma_locks():
        vma_end_read(vma)
    else:
        mmap_read_unlock(vma.vm_mm)


def vma_is_shmem(vma: vm_area_struct) -> bool:
    """Whether the VMA maps shared memory, privately perhaps."""
    return bool(vma.vm_file) and vma.vm_file.f_mapping.shmem != 0


def mfill_get_vma(ctx: userfaultfd_ctx, start: int, length: int, mode: int, wp: bool) -> vm_area_struct:
    """The VMA to fill, with its lock and map_changing_lock held; or an errno and nothing held."""
    vma = uffd_mfill_lock(ctx.mm, start, length)
    if IS_ERR(vma):
        return vma
    down_read(ctx.map_changing_lock)
    error = 0
    if load(ctx.mmap_changing):
        error = -EAGAIN
    elif wp and not userfaultfd_wp(vma):
        error = -EINVAL
    elif vma.vm_flags & VM_HUGETLB:
        raise NotModelled("hugetlb")
    elif not vma_is_shmem(vma) and (vma.vm_file or mode == MFILL_ATOMIC_CONTINUE):
        error = -EINVAL
    if error:
        mfill_put_vma(ctx, vma)
        return ERR_PTR(error)
    return vma


def mfill_put_vma(ctx: userfaultfd_ctx, vma: vm_area_struct) -> None:
    """Release both locks."""
    up_read(ctx.map_changing_lock)
    uffd_mfill_unlock(vma)


# --- filling ---------------------------------------------------------------------------------------------


def mfill_atomic(
    ctx: userfaultfd_ctx, start: int, length: int, mode: int, wp: bool, src_mm: mm_struct, src: int
) -> int:
    """Fill [start, start + length) bytes: bytes done before the first page that could not be, or its -errno.

    `src_mm` and `src`: where MFILL_ATOMIC_COPY copies from.
    """
    vma = mfill_get_vma(ctx, start, length, mode, wp)
    if IS_ERR(vma):
        return PTR_ERR(vma)
    copied = error = 0
    while copied < length:
        error, pmd = mfill_establish_pmd(ctx.mm, start + copied)
        if error == 0 and mode == MFILL_ATOMIC_COPY:
            error, vma = mfill_copy(ctx, vma, pmd, start, length, copied, wp, src_mm, src + copied)
        elif error == 0:
            error = mfill_atomic_pte(vma, pmd, start + copied, mode, wp)
        if error:
            break
        copied += arch.page_size
        forget((vma, copied))
    if vma:
        mfill_put_vma(ctx, vma)
    return copied or error


def mfill_establish_pmd(mm: mm_struct, address: int) -> tuple[int, pmd_p]:
    """(0 or -errno, the PMD entry): it pointed to a table a moment ago; -EEXIST for a huge page."""
    pmd = walk_to_pmd(mm, address)
    if pmdp_get_lockless(pmd) == 0:
        __pte_alloc(mm, pmd, address)
    if pmdp_get_lockless(pmd) & (PRESENT | LEAF) != PRESENT:
        return -EEXIST, 0
    return 0, pmd


def mfill_atomic_pte(vma: vm_area_struct, pmd: pmd_p, address: int, mode: int, wp: bool) -> int:
    """Fill one page, from the cache or with zeroes or poison; 0 or -errno."""
    if mode == MFILL_ATOMIC_CONTINUE:
        return mfill_atomic_pte_continue(vma, pmd, address, wp)
    if mode == MFILL_ATOMIC_POISON:
        return mfill_atomic_pte_value(vma, pmd, address, make_pte_marker(PTE_MARKER_POISONED))
    if vma.vm_flags & VM_SHARED:
        error, f = mfill_alloc_folio(vma, address)
        return error or mfill_install_folio(vma, pmd, address, f, False)
    return mfill_atomic_pte_value(
        vma, pmd, address, zero_page() << PFN_SHIFT | vm_page_prot(vma.vm_flags) | SPECIAL | ACCESSED
    )


def mfill_alloc_folio(vma: vm_area_struct, address: int) -> tuple[int, folio]:
    """(0, a new folio for the page), or (-errno, NULL) beyond the end of a shared file."""
    if vma.vm_flags & VM_SHARED and linear_page_index(vma, address) >= i_size_pages(vma.vm_file.f_mapping):
        return -ENOMEM, NO_FOLIO
    return 0, folio_alloc(0)


def mfill_copy(
    ctx: userfaultfd_ctx,
    vma: vm_area_struct,
    pmd: pmd_p,
    start: int,
    length: int,
    copied: int,
    wp: bool,
    src_mm: mm_struct,
    src: int,
) -> tuple[int, vm_area_struct]:
    """Copy one page: (0 or -errno, the VMA that is locked now, NULL if none is)."""
    address = start + copied
    error, f = mfill_alloc_folio(vma, address)
    if error:
        return error, vma
    if not mfill_copy_folio_locked(f, src_mm, src):
        error, vma, pmd = mfill_copy_folio_retry(ctx, vma, f, start, length, address, wp, src_mm, src)
        if error:
            folio_put(f)
            return error, vma
    return mfill_install_folio(vma, pmd, address, f, wp), vma


def mfill_copy_folio_locked(f: folio, src_mm: mm_struct, src: int) -> bool:
    """Copy what the CPU can read at `src` without a page fault; whether it could."""
    if src & arch.page_size - 1:
        raise NotModelled("UFFDIO_COPY from parts of two pages")
    cell = hardware_walk(src_mm.addr, src_mm, src, False)
    if cell:
        store(page_content(f.page), load(cell))
    return cell != 0


def mfill_copy_folio_retry(
    ctx: userfaultfd_ctx,
    vma: vm_area_struct,
    f: folio,
    start: int,
    length: int,
    address: int,
    wp: bool,
    src_mm: mm_struct,
    src: int,
) -> tuple[int, vm_area_struct, pmd_p]:
    """Drop the locks, copy with page faults, and take the locks: (0 or -errno, VMA locked or NULL, PMD entry)."""
    mode = vma.vm_flags & (VM_UFFD_FLAGS | VM_SHARED)
    was_file, pgoff = vma.vm_file, vma.vm_pgoff
    mfill_put_vma(ctx, vma)
    value = user_read(src_mm, src, 0)
    if value < 0:
        return -EUSERFAULT if value == WOULD_WAIT else -EFAULT, vm_area_struct(0), 0
    store(page_content(f.page), value)
    vma = mfill_get_vma(ctx, start, length, MFILL_ATOMIC_COPY, wp)
    if IS_ERR(vma):
        return PTR_ERR(vma), vm_area_struct(0), 0
    if vma.vm_flags & (VM_UFFD_FLAGS | VM_SHARED) != mode or vma.vm_file != was_file:
        return -EAGAIN, vma, 0
    if was_file and vma.vm_pgoff != pgoff:
        return -EAGAIN, vma, 0
    error, pmd = mfill_establish_pmd(ctx.mm, address)
    return error, vma, pmd


def mfill_install_folio(vma: vm_area_struct, pmd: pmd_p, address: int, f: folio, wp: bool) -> int:
    """Map a new folio, through the cache of a shared file: 0, or -errno and the folio is gone."""
    if vma.vm_flags & VM_SHARED == 0:
        error = mfill_atomic_install_pte(vma, pmd, address, f.page, wp)
    else:
        mapping = vma.vm_file.f_mapping
        if not shmem_mfill_filemap_add(f, mapping, linear_page_index(vma, address)):
            folio_put(f)
            return -EEXIST
        error = mfill_atomic_install_pte(vma, pmd, address, f.page, wp)
        if error:
            shmem_mfill_filemap_remove(f, mapping)
    if error:
        folio_put(f)
    return error


def mfill_atomic_pte_continue(vma: vm_area_struct, pmd: pmd_p, address: int, wp: bool) -> int:
    """Map the page that the cache has."""
    mapping, index = vma.vm_file.f_mapping, linear_page_index(vma, address)
    f = shmem_get_folio_noalloc(mapping, index)
    if not f:
        return mfill_nothing_cached(mapping, index)
    page = folio_file_page(f, index)
    error = mfill_atomic_install_pte(vma, pmd, address, page, wp)
    if error:
        mutex_unlock(f.lock)
        folio_put(f)
    return error


def mfill_nothing_cached(mapping: address_space, index: int) -> int:
    """What UFFDIO_CONTINUE fails with where the cache has no page."""
    return -EFAULT


def shmem_get_folio_noalloc(mapping: address_space, index: int) -> folio:
    """The cached folio locked, referenced and valid, or NULL (mm/shmem.c)."""
    if index >= i_size_pages(mapping):
        return NO_FOLIO
    f = shmem_lock_folio(mapping, index)
    if f:
        shmem_mark_uptodate(f)
    return f


# --- entries ---------------------------------------------------------------------------------------------


def mfill_file_over_size(vma: vm_area_struct, address: int) -> bool:
    """Whether the page lies beyond the end of the file; under ptl."""
    return bool(vma.vm_file) and linear_page_index(vma, address) >= i_size_pages(vma.vm_file.f_mapping)


def mfill_may_replace(entry: int) -> bool:
    """Whether a page may take the place of the entry: none, or a marker of userfaultfd's."""
    return entry == 0 or pte_is_uffd_marker(entry)


def mfill_atomic_install_pte(vma: vm_area_struct, pmd: pmd_p, address: int, page: page_t, wp: bool) -> int:
    """Map a page with the caller's reference: 0, and a page of the cache is unlocked then, or -errno."""
    mm = vma.vm_mm
    f = page_folio(page)
    in_cache = f.mapping != 0 and not folio_test_anon(f)
    entry = page << PFN_SHIFT | vm_page_prot(vma.vm_flags) | ACCESSED | MKDIRTY
    if vma.vm_flags & VM_WRITE and (vma.vm_flags & VM_SHARED or not in_cache):
        entry |= RW
    if wp:
        entry = pte_mkuffd_wp(entry)
    pte, ptl = pte_offset_map_lock(mm, pmd, address)
    if not pte:
        return -EAGAIN
    error = 0
    if mfill_file_over_size(vma, address):
        error = -EFAULT
    elif not mfill_may_replace(ptep_get(pte)):
        error = -EEXIST
    elif in_cache:
        folio_add_rmap_ptes(f, page, 1, vma)
        add(mm_counter_file(mm, f), 1)
    else:
        folio_add_new_anon_rmap(f, vma, address)
        add(mm.anon_rss, 1)
    if not error:
        store(pte, entry)
        if in_cache:
            mutex_unlock(f.lock)
    pte_unmap_unlock(pte, ptl)
    return error


def mfill_atomic_pte_value(vma: vm_area_struct, pmd: pmd_p, address: int, entry: int) -> int:
    """Put what has no folio, the zero page or poison, into a none entry; 0 or -errno."""
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, address)
    if not pte:
        return -EAGAIN
    error = 0
    if mfill_file_over_size(vma, address):
        error = -EFAULT
    elif ptep_get(pte) != 0:
        error = -EEXIST
    else:
        store(pte, entry)
    pte_unmap_unlock(pte, ptl)
    return error


# --- write protection ------------------------------------------------------------------------------------


def uffd_wp_range(vma: vm_area_struct, start: int, length: int, enable_wp: bool) -> None:
    """Write-protect a part of the VMA, or resolve that; mmap_lock is held."""
    cp_flags = MM_CP_UFFD_WP if enable_wp else MM_CP_UFFD_WP_RESOLVE
    if not enable_wp and vma_wants_manual_pte_write_upgrade(vma):
        cp_flags |= MM_CP_TRY_CHANGE_WRITABLE
    tlb = tlb_gather_mmu(vma.vm_mm)
    change_protection(tlb, vma, start, start + length, cp_flags)
    tlb_finish_mmu(tlb)


def mwriteprotect_range(ctx: userfaultfd_ctx, start: int, length: int, enable_wp: bool) -> int:
    """Write-protect [start, start + length) bytes, or resolve that: 0, -EAGAIN, -ENOENT at a VMA not registered."""
    mm = ctx.mm
    mmap_read_lock(mm)
    down_read(ctx.map_changing_lock)
    error = -EAGAIN if load(ctx.mmap_changing) else mwriteprotect_vmas(mm, start, start + length, enable_wp)
    up_read(ctx.map_changing_lock)
    mmap_read_unlock(mm)
    return error


def mwriteprotect_vmas(mm: mm_struct, start: int, end: int, enable_wp: bool) -> int:
    """The same for each VMA of the range, holes between them left out."""
    error = -ENOENT
    while start < end:
        vma = find_vma(mm, start)
        if not vma or vma.vm_start >= end:
            break
        if not userfaultfd_wp(vma):
            return -ENOENT
        if vma.vm_flags & VM_HUGETLB:
            raise NotModelled("hugetlb")
        start = max(start, vma.vm_start)
        uffd_wp_range(vma, start, min(end, vma.vm_end) - start, enable_wp)
        start = vma.vm_end
        error = 0
        forget((start, error))
    return error

# SPDX-License-Identifier: GPL-2.0-only
"""UFFDIO_MOVE: anonymous pages go to another address of the same mm (move_pages in mm/userfaultfd.c; 7.2).

Only read locks are held.  Two ptls nest by address; the destination's entry is none, which proves nothing about its
table, so that its pmd is looked at again under the locks.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    down_read,
    forget,
    load,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    spin_lock,
    spin_lock_nested,
    spin_unlock,
    store,
    up_read,
)
from .folio_split import split_folio
from .huge_mm import vma_is_anonymous
from .huge_pmd import __split_huge_pmd, pmd_trans_huge_lock, pmdp_huge_clear_flush
from .migrate import migration_entry_wait, pmd_migration_entry_wait
from .mm_types import folio, mm_struct, spinlock_t, userfaultfd_ctx, vm_area_struct
from .mmap_lock import (
    NO_VMA,
    lock_vma_under_rcu,
    mmap_read_lock,
    mmap_read_unlock,
    vma_end_read,
    vma_start_read_locked,
)
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .page_alloc import (
    FOLIO_MAPPING_ANON,
    MAPPING_SHIFT,
    NO_FOLIO,
    PAGE_ANON_EXCLUSIVE,
    folio_get,
    folio_maybe_dma_pinned,
    folio_put,
    folio_test_anon,
    page_flags,
    zero_page,
)
from .pgtable import (
    ACCESSED,
    DIRTY,
    LEAF,
    MKDIRTY,
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    RW,
    SPECIAL,
    SWP_EXCLUSIVE,
    SWP_MIGRATION,
    SWP_SWAP,
    UFFD_WP,
    is_pmd_migration_entry,
    mm_find_pmd,
    move_soft_dirty,
    page_folio,
    pmd_addr_end,
    pmd_p,
    pmd_page,
    pmd_present,
    pmd_trans_huge,
    pmdp_get_lockless,
    pte_p,
    pte_page,
    ptep_get,
    ptep_get_and_clear,
    swp_offset,
    swp_type,
    vm_page_prot,
)
from .pgtable_generic import (
    __pte_alloc,
    pgtable_trans_huge_deposit,
    pgtable_trans_huge_withdraw,
    pmd_lockptr,
    pte_alloc,
    pte_offset_map_rw_nolock,
    pte_unmap,
    walk_to_pmd,
)
from .rmap import linear_page_index
from .swap_state import folio_matches_swap_entry, swap_cache_get_folio, swap_cache_has_folio
from .tlb import flush_tlb_range
from .userfaultfd import find_vma_and_prepare_anon, uffd_lock_vma, uffd_vma_locks
from .vm_flags import (
    EAGAIN,
    EBUSY,
    EEXIST,
    EFAULT,
    EINVAL,
    ENOENT,
    VM_ACCESS_FLAGS,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_MIXEDMAP,
    VM_PFNMAP,
    VM_PKEY_MASK,
    VM_SHARED,
    VM_WRITE,
)
from .vma import vma_lookup
from .vma_change import IS_ERR, PTR_ERR

UFFDIO_MOVE_MODE_DONTWAKE: Final = 1
UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES: Final = 2


# --- locks -----------------------------------------------------------------------------------------------


def double_pt_lock(ptl1: spinlock_t, ptl2: spinlock_t) -> None:
    """Take two ptls, which may be one, in the order of their addresses."""
    spin_lock(min(ptl1, ptl2))
    if ptl1 != ptl2:
        spin_lock_nested(max(ptl1, ptl2))


def double_pt_unlock(ptl1: spinlock_t, ptl2: spinlock_t) -> None:
    """Release them."""
    spin_unlock(ptl1)
    if ptl1 != ptl2:
        spin_unlock(ptl2)


def find_vmas_mm_locked(mm: mm_struct, dst: int, src: int) -> tuple[int, vm_area_struct, vm_area_struct]:
    """(0 or -ENOENT, destination's VMA with an anon_vma, source's VMA); mmap_lock is held."""
    dst_vma = find_vma_and_prepare_anon(mm, dst)
    if IS_ERR(dst_vma):
        return PTR_ERR(dst_vma), NO_VMA, NO_VMA
    if dst_vma.vm_start <= src < dst_vma.vm_end:
        return 0, dst_vma, dst_vma
    src_vma = vma_lookup(mm, src)
    return 0 if src_vma else -ENOENT, dst_vma, src_vma


def uffd_move_lock(mm: mm_struct, dst: int, src: int) -> tuple[int, vm_area_struct, vm_area_struct]:
    """(0 or -errno, destination's VMA, source's VMA), both locked if 0."""
    if not uffd_vma_locks():
        mmap_read_lock(mm)
        error, dst_vma, src_vma = find_vmas_mm_locked(mm, dst, src)
        if error:
            mmap_read_unlock(mm)
        return error, dst_vma, src_vma
    dst_vma = uffd_lock_vma(mm, dst)
    if IS_ERR(dst_vma):
        return PTR_ERR(dst_vma), NO_VMA, NO_VMA
    if dst_vma.vm_start <= src < dst_vma.vm_end:
        return 0, dst_vma, dst_vma
    src_vma = lock_vma_under_rcu(mm, src)
    if src_vma:
        return 0, dst_vma, src_vma
    # mmap_lock while the one VMA is locked could deadlock with a writer who waits for that VMA
    vma_end_read(dst_vma)
    mmap_read_lock(mm)
    error, dst_vma, src_vma = find_vmas_mm_locked(mm, dst, src)
    if error == 0:
        error = start_read_both(dst_vma, src_vma)
    mmap_read_unlock(mm)
    return error, dst_vma, src_vma


def start_read_both(dst_vma: vm_area_struct, src_vma: vm_area_struct) -> int:
    """Lock both, under mmap_lock; 0 or -EAGAIN for too many readers."""
    if not vma_start_read_locked(dst_vma):
        return -EAGAIN
    if src_vma != dst_vma and not vma_start_read_locked(src_vma):
        vma_end_read(dst_vma)
        return -EAGAIN
    return 0


def uffd_move_unlock(dst_vma: vm_area_struct, src_vma: vm_area_struct) -> None:
    """Release what uffd_move_lock took."""
    if not uffd_vma_locks():
        mmap_read_unlock(dst_vma.vm_mm)
        return
    vma_end_read(src_vma)
    if src_vma != dst_vma:
        vma_end_read(dst_vma)


# --- the range -------------------------------------------------------------------------------------------


def vma_move_compatible(vma: vm_area_struct) -> bool:
    """Whether the VMA has pages that may move."""
    return vma.vm_flags & (VM_PFNMAP | VM_IO | VM_HUGETLB | VM_MIXEDMAP) == 0


def validate_move_areas(
    ctx: userfaultfd_ctx, src_vma: vm_area_struct, dst_vma: vm_area_struct, src_end: int, dst_end: int
) -> int:
    """0, or -EINVAL if a range ends beyond its VMA, or pages of the one VMA cannot be pages of the other."""
    if (src_vma.vm_flags | dst_vma.vm_flags) & VM_SHARED or src_end > src_vma.vm_end or dst_end > dst_vma.vm_end:
        return -EINVAL
    same = VM_ACCESS_FLAGS | VM_PKEY_MASK | VM_LOCKED
    if (src_vma.vm_flags ^ dst_vma.vm_flags) & same or src_vma.vm_flags & VM_WRITE == 0:
        return -EINVAL
    if not vma_move_compatible(src_vma) or not vma_move_compatible(dst_vma):
        return -EINVAL
    if dst_vma.vm_userfaultfd_ctx != ctx.addr:
        return -EINVAL
    return 0 if vma_is_anonymous(src_vma) and vma_is_anonymous(dst_vma) else -EINVAL


def move_pages(ctx: userfaultfd_ctx, dst_start: int, src_start: int, length: int, mode: int) -> int:
    """Move the pages of [src_start, src_start + length) bytes: bytes done before the first failure, or its -errno."""
    error, dst_vma, src_vma = uffd_move_lock(ctx.mm, dst_start, src_start)
    if error:
        return error
    down_read(ctx.map_changing_lock)
    moved = 0
    if load(ctx.mmap_changing):
        error = -EAGAIN
    else:
        error = validate_move_areas(ctx, src_vma, dst_vma, src_start + length, dst_start + length)
    if error == 0:
        moved, error = move_range(dst_vma, src_vma, dst_start, src_start, length, mode)
    up_read(ctx.map_changing_lock)
    uffd_move_unlock(dst_vma, src_vma)
    return moved or error


def move_range(
    dst_vma: vm_area_struct, src_vma: vm_area_struct, dst_start: int, src_start: int, length: int, mode: int
) -> tuple[int, int]:
    """(bytes moved, 0 or the -errno at which it ended); -EAGAIN is tried again at once."""
    moved = 0
    while moved < length:
        step = move_step(dst_vma, src_vma, dst_start + moved, src_start + moved, length - moved, mode)
        if step >= 0:
            moved += step
        elif step != -EAGAIN:
            return moved, step
        forget((moved,))
    return moved, 0


def move_step(
    dst_vma: vm_area_struct, src_vma: vm_area_struct, dst: int, src: int, length: int, mode: int
) -> int:
    """Move what can be moved at once of the range's beginning: bytes, or -errno."""
    mm = src_vma.vm_mm
    holes = mode & UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES != 0
    src_pmd = mm_find_pmd(mm, src)
    if not src_pmd:
        if not holes:
            return -ENOENT
        src_pmd = walk_to_pmd(mm, src)
    dst_pmd = walk_to_pmd(mm, dst)
    dst_pmdval = pmdp_get_lockless(dst_pmd)
    if pmd_trans_huge(dst_pmdval):
        return -EEXIST
    ptl = pmd_trans_huge_lock(mm, src_pmd, src)
    if ptl:
        if dst_pmdval == 0 and not move_splits_huge_pmd(dst, src, length):
            error = move_pages_huge_pmd(dst_vma, src_vma, dst_pmd, src_pmd, dst, src, ptl)
            return error or arch.pmd_size
        exclusive = huge_pmd_exclusive(load(src_pmd))
        spin_unlock(ptl)
        if not exclusive:
            return -EBUSY
        __split_huge_pmd(src_vma, src_pmd, src)
        return -EAGAIN
    if load(src_pmd) == 0:
        if not holes:
            return -ENOENT
        __pte_alloc(mm, src_pmd, src)
    pte_alloc(mm, dst_pmd, dst)
    return move_pages_ptes(dst_vma, src_vma, dst_pmd, src_pmd, dst, src, length, mode)


# --- huge pages ------------------------------------------------------------------------------------------


def move_splits_huge_pmd(dst: int, src: int, length: int) -> bool:
    """Whether a huge page cannot move whole."""
    return (src | dst) & arch.pmd_size - 1 != 0 or length < arch.pmd_size


def huge_pmd_exclusive(pmdval: int) -> bool:
    """Whether the huge page, unless it is the zero page or under migration, is its mapper's own; under pml."""
    if not pmd_present(pmdval) or pmdval & SPECIAL:
        return True
    return load(page_flags(pmd_page(pmdval))) & PAGE_ANON_EXCLUSIVE != 0


def move_pages_huge_pmd(
    dst_vma: vm_area_struct,
    src_vma: vm_area_struct,
    dst_pmd: pmd_p,
    src_pmd: pmd_p,
    dst: int,
    src: int,
    src_ptl: spinlock_t,
) -> int:
    """Move a huge page to an empty slot, with its deposited table: 0 or -errno.  Releases `src_ptl`."""
    mm = src_vma.vm_mm
    pmdval = load(src_pmd)
    if not pmd_trans_huge(pmdval):
        spin_unlock(src_ptl)
        if not is_pmd_migration_entry(pmdval):
            return -ENOENT
        pmd_migration_entry_wait(mm, src_pmd, src)
        return -EAGAIN
    f = NO_FOLIO if pmdval & SPECIAL else page_folio(pmd_page(pmdval))
    exclusive = huge_pmd_exclusive(pmdval)
    if f and exclusive:
        folio_get(f)
    spin_unlock(src_ptl)
    if not exclusive:
        return -EBUSY
    mmu_notifier_invalidate_range_start(src_vma, src, src + arch.pmd_size)
    if f:
        mutex_lock(f.lock)
    dst_ptl = pmd_lockptr(mm, dst_pmd, dst)
    double_pt_lock(src_ptl, dst_ptl)
    error = -EAGAIN
    if load(src_pmd) == pmdval and load(dst_pmd) == 0:
        error = move_huge_pmd_locked(dst_vma, src_vma, dst_pmd, src_pmd, dst, src, f)
    double_pt_unlock(src_ptl, dst_ptl)
    mmu_notifier_invalidate_range_end(src_vma, src, src + arch.pmd_size)
    if f:
        mutex_unlock(f.lock)
        folio_put(f)
    return error


def move_huge_pmd_locked(
    dst_vma: vm_area_struct, src_vma: vm_area_struct, dst_pmd: pmd_p, src_pmd: pmd_p, dst: int, src: int, f: folio
) -> int:
    """The same with both pmd locks and the folio's lock held (`f` NULL: the huge zero page)."""
    mm = src_vma.vm_mm
    if f and (folio_maybe_dma_pinned(f) or not huge_pmd_exclusive(load(src_pmd))):
        return -EBUSY
    pmdval = pmdp_huge_clear_flush(src_vma, src, src_pmd)
    if f and folio_maybe_dma_pinned(f):
        store(src_pmd, pmdval)
        return -EBUSY
    if f:
        folio_moves_to(f, dst_vma, dst)
        pmdval = f.page << PFN_SHIFT | vm_page_prot(dst_vma.vm_flags) | LEAF | ACCESSED | MKDIRTY | RW
    else:
        pmdval = moved_huge_zero_pmd(pmdval)
    store(dst_pmd, pmdval)
    pgtable_trans_huge_deposit(mm, dst_pmd, dst, pgtable_trans_huge_withdraw(mm, src_pmd, src))
    return 0


def moved_huge_zero_pmd(pmdval: int) -> int:
    """The entry of the huge zero page where it moves to."""
    return move_soft_dirty(pmdval) & ~UFFD_WP


# --- entries ---------------------------------------------------------------------------------------------


def folio_moves_to(f: folio, vma: vm_area_struct, address: int) -> None:
    """The locked folio is `vma`'s from now on (folio_move_anon_rmap), mapped at `address`."""
    f.mapping = vma.anon_vma.addr << MAPPING_SHIFT | FOLIO_MAPPING_ANON
    f.index = linear_page_index(vma, address)


def is_pte_pages_stable(
    dst_pte: pte_p, src_pte: pte_p, orig_src: int, dst_pmd: pmd_p, dst_pmdval: int
) -> bool:
    """Whether both entries, and the destination's table, are what they were; under both ptls."""
    return ptep_get(src_pte) == orig_src and ptep_get(dst_pte) == 0 and pmdp_get_lockless(dst_pmd) == dst_pmdval


def move_pages_ptes(
    dst_vma: vm_area_struct,
    src_vma: vm_area_struct,
    dst_pmd: pmd_p,
    src_pmd: pmd_p,
    dst: int,
    src: int,
    length: int,
    mode: int,
) -> int:
    """Move single pages between two tables, at least one: bytes, or -errno.

    The folio's lock, where it takes sleeping to get it, is taken with the tables unmapped, and all looked at again.
    """
    f = NO_FOLIO
    locked_pte = 0
    mmu_notifier_invalidate_range_start(src_vma, src, src + length)
    while True:
        ret, f, again = try_move_ptes(dst_vma, src_vma, dst_pmd, src_pmd, dst, src, length, mode, f, locked_pte)
        if not again:
            break
        locked_pte = ret
        if f:
            mutex_lock(f.lock)
        forget((f, locked_pte))
    mmu_notifier_invalidate_range_end(src_vma, src, src + length)
    return ret


def try_move_ptes(
    dst_vma: vm_area_struct,
    src_vma: vm_area_struct,
    dst_pmd: pmd_p,
    src_pmd: pmd_p,
    dst: int,
    src: int,
    length: int,
    mode: int,
    f: folio,
    locked_pte: int,
) -> tuple[int, folio, bool]:
    """One try, with the folio `f` locked for the source entry `locked_pte`, or NULL.

    Returns (bytes or -errno, NULL, false), or to be called again: (the source entry, a folio to lock or NULL, true).
    """
    mm = src_vma.vm_mm
    dst_pte, dst_pmdval, dst_ptl = pte_offset_map_rw_nolock(mm, dst_pmd, dst)
    if not dst_pte:
        release_folio(f)
        return -EAGAIN, NO_FOLIO, False
    src_pte, _, src_ptl = pte_offset_map_rw_nolock(mm, src_pmd, src)
    if not src_pte:
        release_folio(f)
        pte_unmap(dst_pte)
        return -EAGAIN, NO_FOLIO, False
    ret, entry = look_at_ptes(dst_pte, src_pte, dst_ptl, src_ptl, mode)
    locked = bool(f)
    if ret == 0 and f and entry != locked_pte:
        ret = -EAGAIN
    if ret == 0 and entry & (PRESENT | PROTNONE) == 0:
        release_folio(f)
        if swp_type(entry) == SWP_SWAP:
            ret = move_swap_pte(dst_vma, dst, dst_pte, src_pte, entry, dst_pmd, dst_pmdval, dst_ptl, src_ptl)
        unmap_ptes(dst_pte, src_pte)
        if swp_type(entry) != SWP_SWAP:
            ret = move_nonpresent_pte(src_vma, src_pmd, src, entry)
        return ret, NO_FOLIO, False
    if ret == 0 and entry & SPECIAL == 0 and not f:
        ret, f, locked = pin_and_trylock(src_pte, src_ptl, entry)
    if ret == 0 and f and (not locked or f.order):
        unmap_ptes(dst_pte, src_pte)
        if not locked:
            return entry, f, True
        ret = split_folio(f)
        release_folio(f)
        return (ret, NO_FOLIO, False) if ret else (entry, NO_FOLIO, True)
    if ret == 0 and f:
        ret, f = move_present_ptes(
            dst_vma, src_vma, dst, src, dst_pte, src_pte, entry, dst_pmd, dst_pmdval, dst_ptl, src_ptl, f, length
        )
    elif ret == 0:
        ret = move_zeropage_pte(
            dst_vma, src_vma, src, dst_pte, src_pte, entry, dst_pmd, dst_pmdval, dst_ptl, src_ptl
        )
    release_folio(f)
    unmap_ptes(dst_pte, src_pte)
    return ret, NO_FOLIO, False


def unmap_ptes(dst_pte: pte_p, src_pte: pte_p) -> None:
    """The source was mapped last."""
    pte_unmap(src_pte)
    pte_unmap(dst_pte)


def release_folio(f: folio) -> None:
    """Unlock and put a folio, if there is one."""
    if f:
        mutex_unlock(f.lock)
        folio_put(f)


def look_at_ptes(
    dst_pte: pte_p, src_pte: pte_p, dst_ptl: spinlock_t, src_ptl: spinlock_t, mode: int
) -> tuple[int, int]:
    """(0, the source's entry), or (-errno, 0), or (bytes of a hole that needs no moving, 0)."""
    spin_lock(dst_ptl)
    taken = ptep_get(dst_pte) != 0
    spin_unlock(dst_ptl)
    if taken:
        return -EEXIST, 0
    spin_lock(src_ptl)
    entry = ptep_get(src_pte)
    spin_unlock(src_ptl)
    if entry == 0:
        return arch.page_size if mode & UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES else -ENOENT, 0
    return 0, entry


def pin_and_trylock(src_pte: pte_p, src_ptl: spinlock_t, entry: int) -> tuple[int, folio, bool]:
    """Get a reference of the source's folio: (0, it, whether its lock was free), or (-errno, NULL, false).

    Those who wait for a large folio with a reference keep each other from splitting it.
    """
    error = -EAGAIN
    f = NO_FOLIO
    locked = False
    spin_lock(src_ptl)
    if ptep_get(src_pte) == entry:
        f = page_folio(pte_page(entry))
        if not folio_test_anon(f) or load(page_flags(pte_page(entry))) & PAGE_ANON_EXCLUSIVE == 0:
            error = -EBUSY
        else:
            locked = mutex_trylock(f.lock)
            error = 0 if locked or waits_for_lock(f) else -EAGAIN
        if error:
            f = NO_FOLIO
        else:
            folio_get(f)
    spin_unlock(src_ptl)
    return error, f, locked


def waits_for_lock(f: folio) -> bool:
    """Whether to wait, with a reference, for the folio's lock."""
    return f.order == 0


def move_present_ptes(
    dst_vma: vm_area_struct,
    src_vma: vm_area_struct,
    dst: int,
    src: int,
    dst_pte: pte_p,
    src_pte: pte_p,
    entry: int,
    dst_pmd: pmd_p,
    dst_pmdval: int,
    dst_ptl: spinlock_t,
    src_ptl: spinlock_t,
    f: folio,
    length: int,
) -> tuple[int, folio]:
    """Move the page of the locked folio `f`, and those behind it: (bytes or -errno, `f` if it is still ours)."""
    mm = src_vma.vm_mm
    limit = move_batch(dst, src, length)
    double_pt_lock(dst_ptl, src_ptl)
    ret = 0
    if not is_pte_pages_stable(dst_pte, src_pte, entry, dst_pmd, dst_pmdval):
        ret = -EAGAIN
    elif f.order or folio_maybe_dma_pinned(f) or load(page_flags(f.page)) & PAGE_ANON_EXCLUSIVE == 0:
        ret = -EBUSY
    if ret:
        double_pt_unlock(dst_ptl, src_ptl)
        return ret, f
    folio_put(f)  # the entry has one
    moved = 0
    while f:
        if not move_present_pte(dst_vma, dst + (moved << arch.page_shift), dst_pte + moved, src_pte + moved, f):
            ret = -EBUSY
            break
        mutex_unlock(f.lock)
        moved += 1
        f = NO_FOLIO if moved == limit else check_pte_for_batched_move(src_pte + moved, dst_pte + moved)
    if f:
        mutex_unlock(f.lock)
    if moved:
        flush_tlb_range(mm, src, src + (moved << arch.page_shift))
    double_pt_unlock(dst_ptl, src_ptl)
    return (moved << arch.page_shift) or ret, NO_FOLIO


def move_batch(dst: int, src: int, length: int) -> int:
    """Pages that may be moved in one hold of the two ptls: as far as both tables and the range go."""
    return min(pmd_addr_end(dst, dst + length) - dst, pmd_addr_end(src, src + length) - src) >> arch.page_shift


def move_present_pte(dst_vma: vm_area_struct, dst: int, dst_pte: pte_p, src_pte: pte_p, f: folio) -> bool:
    """Move one page of a locked folio, under both ptls; false if it got pinned meanwhile."""
    entry = ptep_get_and_clear(src_pte)
    if folio_maybe_dma_pinned(f):
        store(src_pte, entry)
        return False
    folio_moves_to(f, dst_vma, dst)
    dirty = move_soft_dirty(MKDIRTY if entry & DIRTY else 0)
    store(dst_pte, f.page << PFN_SHIFT | vm_page_prot(dst_vma.vm_flags) | ACCESSED | dirty | RW)
    return True


def check_pte_for_batched_move(src_pte: pte_p, dst_pte: pte_p) -> folio:
    """The next folio locked, if it can move without ado; else NULL.  Under both ptls."""
    entry = ptep_get(src_pte)
    if ptep_get(dst_pte) != 0 or entry & (PRESENT | PROTNONE) == 0 or entry & SPECIAL:
        return NO_FOLIO
    f = page_folio(pte_page(entry))
    if not mutex_trylock(f.lock):
        return NO_FOLIO
    if f.order or load(page_flags(pte_page(entry))) & PAGE_ANON_EXCLUSIVE == 0:
        mutex_unlock(f.lock)
        return NO_FOLIO
    return f


def move_zeropage_pte(
    dst_vma: vm_area_struct,
    src_vma: vm_area_struct,
    src: int,
    dst_pte: pte_p,
    src_pte: pte_p,
    entry: int,
    dst_pmd: pmd_p,
    dst_pmdval: int,
    dst_ptl: spinlock_t,
    src_ptl: spinlock_t,
) -> int:
    """The zero page moves, too: bytes or -EAGAIN."""
    double_pt_lock(dst_ptl, src_ptl)
    stable = is_pte_pages_stable(dst_pte, src_pte, entry, dst_pmd, dst_pmdval)
    if stable:
        ptep_get_and_clear(src_pte)
        flush_tlb_range(src_vma.vm_mm, src, src + arch.page_size)
        store(dst_pte, zero_page() << PFN_SHIFT | vm_page_prot(dst_vma.vm_flags) | SPECIAL | ACCESSED)
    double_pt_unlock(dst_ptl, src_ptl)
    return arch.page_size if stable else -EAGAIN


def move_swap_pte(
    dst_vma: vm_area_struct,
    dst: int,
    dst_pte: pte_p,
    src_pte: pte_p,
    entry: int,
    dst_pmd: pmd_p,
    dst_pmdval: int,
    dst_ptl: spinlock_t,
    src_ptl: spinlock_t,
) -> int:
    """A page in swap moves if it is the source's own, and with it what the swap cache has: bytes, -EBUSY or -EAGAIN."""
    if entry & SWP_EXCLUSIVE == 0:
        return -EBUSY
    f = swap_cache_get_folio(swp_offset(entry))
    if f and (f.order or not mutex_trylock(f.lock)):
        error = -EBUSY if f.order else -EAGAIN
        folio_put(f)
        return error
    double_pt_lock(dst_ptl, src_ptl)
    stable = is_pte_pages_stable(dst_pte, src_pte, entry, dst_pmd, dst_pmdval)
    if f:
        stable = stable and folio_matches_swap_entry(f, swp_offset(entry))
    else:
        stable = stable and not swap_cache_has_folio(swp_offset(entry))
    if stable:
        if f:
            folio_moves_to(f, dst_vma, dst)
        store(dst_pte, move_soft_dirty(ptep_get_and_clear(src_pte)))
    double_pt_unlock(dst_ptl, src_ptl)
    release_folio(f)
    return arch.page_size if stable else -EAGAIN


def move_nonpresent_pte(src_vma: vm_area_struct, src_pmd: pmd_p, src: int, entry: int) -> int:
    """-EFAULT for a marker, -EAGAIN after having waited for a migration."""
    kind = swp_type(entry)
    if kind == SWP_MIGRATION:
        migration_entry_wait(src_vma.vm_mm, src_pmd, src)
        return -EAGAIN
    return -EFAULT

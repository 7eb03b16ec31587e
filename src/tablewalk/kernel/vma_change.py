# SPDX-License-Identifier: GPL-2.0-only
"""Making VMAs and changing their bounds, under all locks that readers of them may hold (mm/vma.c, mm/vma_init.c; 7.2).

Who may fail returns what the kernel's ERR_PTR() is: a view of a negative address, to be tested by `IS_ERR`.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    WRITE_ONCE,
    down_write,
    interval_tree_insert,
    interval_tree_remove,
    mt_erase,
    mt_store,
    publish,
    up_write,
)
from .filemap import fput, get_file
from .huge_pmd import split_huge_pmd_if_needed, vma_adjust_trans_huge
from .mm_types import anon_vma, mm_struct, vm_area_struct
from .mmap_lock import NO_VMA, vma_mark_attached, vma_mark_detached, vma_start_write
from .pgalloc import crst_table_upgrade
from .pgtable import vm_page_prot
from .rmap import (
    anon_vma_chains,
    anon_vma_clone,
    anon_vma_interval_tree_insert,
    anon_vma_lock_write,
    anon_vma_unlock_write,
    unlink_anon_vmas,
    vma_last_pgoff,
)
from .vm_flags import EINVAL, VM_SPECIAL_MAPPING, VM_STICKY_FLAGS

MAX_MAP_COUNT: Final = 65530  # sysctl vm.max_map_count
NO_LOCK_SEQ: Final = -1  # vm_lock_seq of a VMA that was never write-locked


def ERR_PTR(error: int) -> vm_area_struct:
    """In place of a VMA: a negative errno."""
    return vm_area_struct(error)


def IS_ERR(vma: vm_area_struct) -> bool:
    """Whether it is an errno and no VMA."""
    return vma.addr < 0


def PTR_ERR(vma: vm_area_struct) -> int:
    """The negative errno that it is."""
    return vma.addr


# --- one VMA ---------------------------------------------------------------------------------------------


def vm_area_alloc(mm: mm_struct, start: int, end: int, pgoff: int, vm_flags: int) -> vm_area_struct:
    """A new VMA for [start, end) bytes, not yet in the tree."""
    vma: vm_area_struct = vm_area_struct.alloc()
    vma.vm_mm = mm
    vma.vm_lock_seq = NO_LOCK_SEQ
    vma.vm_start = start
    vma.vm_end = end
    vma.vm_pgoff = pgoff
    vma.vm_flags = vm_flags
    vma.vm_page_prot = vm_page_prot(vm_flags)
    return vma


def vm_area_dup(orig: vm_area_struct, mm: mm_struct) -> vm_area_struct:
    """A copy for `mm`, not yet in the tree nor in any reverse map; it holds no reference to the file yet."""
    new = vm_area_alloc(mm, orig.vm_start, orig.vm_end, orig.vm_pgoff, orig.vm_flags)
    new.vm_page_prot = orig.vm_page_prot
    new.vm_file = orig.vm_file
    new.anon_vma = orig.anon_vma
    new.vm_policy = orig.vm_policy
    new.vm_userfaultfd_ctx = orig.vm_userfaultfd_ctx
    new.anon_name = orig.anon_name
    return new


def vm_area_free(vma: vm_area_struct) -> None:
    """Free a detached VMA at once: its memory stays a VMA for lockless readers (SLAB_TYPESAFE_BY_RCU)."""
    vma.free()


def remove_vma(vma: vm_area_struct) -> None:
    """Free a VMA that is in no tree any more, with its reference to the file."""
    if vma.vm_file:
        fput(vma.vm_file)
    vm_area_free(vma)


def vm_flags_reset(vma: vm_area_struct, vm_flags: int) -> None:
    """Give the VMA other flags, but leave it the sticky ones it has; mmap_lock is held for writing."""
    vma_start_write(vma)
    WRITE_ONCE(vma, "vm_flags", vm_flags | vma.vm_flags & VM_STICKY_FLAGS)


def vma_set_range(vma: vm_area_struct, start: int, end: int, pgoff: int) -> None:
    """Set the bounds; every lock is held."""
    vma.vm_start = start
    vma.vm_end = end
    vma.vm_pgoff = pgoff


def vma_iter_store(vma: vm_area_struct) -> None:
    """Let the maple tree point to the VMA for all of its range."""
    publish(vma.addr)
    if arch.pud_folded_below:
        crst_table_upgrade(vma.vm_mm, vma.vm_end)
    mt_store(vma.vm_mm.mm_mt, vma.vm_start, vma.vm_end, vma.addr)


def vma_iter_store_new(vma: vm_area_struct) -> None:
    """The same for a VMA that was not in the tree; it is write-locked until mmap_lock is released."""
    vma_start_write(vma)
    vma_mark_attached(vma)
    vma_iter_store(vma)


# --- the files' trees of VMAs --------------------------------------------------------------------------


def vma_interval_tree_insert(vma: vm_area_struct) -> None:
    """Let the file find the VMA; i_mmap_rwsem is held for writing."""
    interval_tree_insert(vma.vm_file.f_mapping.i_mmap, vma.vm_pgoff, vma_last_pgoff(vma), vma.addr)


def vma_interval_tree_remove(vma: vm_area_struct) -> None:
    """Take the VMA out again; i_mmap_rwsem is held for writing."""
    interval_tree_remove(vma.vm_file.f_mapping.i_mmap, vma.addr)


def vma_link_file(vma: vm_area_struct) -> None:
    """Let the file, if there is one, find the VMA."""
    if vma.vm_file:
        mapping = vma.vm_file.f_mapping
        down_write(mapping.i_mmap_rwsem)
        vma_interval_tree_insert(vma)
        up_write(mapping.i_mmap_rwsem)


def unlink_file_vma(vma: vm_area_struct) -> None:
    """Hide the VMA from its file, if there is one."""
    if vma.vm_file:
        mapping = vma.vm_file.f_mapping
        down_write(mapping.i_mmap_rwsem)
        vma_interval_tree_remove(vma)
        up_write(mapping.i_mmap_rwsem)


def vma_link(mm: mm_struct, vma: vm_area_struct) -> None:
    """Put a new VMA into the tree and into its file's."""
    vma_iter_store_new(vma)
    vma_link_file(vma)
    mm.map_count += 1


# --- changing bounds -------------------------------------------------------------------------------------


def anon_vma_interval_tree_pre_update_vma(vma: vm_area_struct) -> None:
    """Before the bounds change: out of the trees of its anon_vmas."""
    for avc in anon_vma_chains(vma):
        interval_tree_remove(avc.anon_vma.rb_root, avc.addr)


def anon_vma_interval_tree_post_update_vma(vma: vm_area_struct) -> None:
    """After the bounds changed: in again."""
    for avc in anon_vma_chains(vma):
        anon_vma_interval_tree_insert(avc)


def vma_prepare(vma: vm_area_struct, adjust: vm_area_struct, insert: vm_area_struct, av: anon_vma) -> None:
    """Lock everything, and take `vma` and `adjust` (or NULL) out of the reverse maps: their bounds are going to change.

    `insert` (or NULL) is split off `vma`; `av` is the anon_vma of either, or NULL.
    """
    if vma.vm_file:
        down_write(vma.vm_file.f_mapping.i_mmap_rwsem)
        if insert:
            vma_interval_tree_insert(insert)
    if av:
        anon_vma_lock_write(av)
        anon_vma_interval_tree_pre_update_vma(vma)
        if adjust:
            anon_vma_interval_tree_pre_update_vma(adjust)
    if vma.vm_file:
        vma_interval_tree_remove(vma)
        if adjust:
            vma_interval_tree_remove(adjust)


def vma_complete(
    vma: vm_area_struct,
    adjust: vm_area_struct,
    insert: vm_area_struct,
    av: anon_vma,
    remove: vm_area_struct = NO_VMA,
    remove2: vm_area_struct = NO_VMA,
) -> None:
    """Undo vma_prepare after the change.  `insert` enters the tree; `remove` and `remove2` are swallowed and freed."""
    if vma.vm_file:
        if adjust:
            vma_interval_tree_insert(adjust)
        vma_interval_tree_insert(vma)
        if remove:
            vma_interval_tree_remove(remove)
        if remove2:
            vma_interval_tree_remove(remove2)
    if insert:
        vma_iter_store_new(insert)
        vma.vm_mm.map_count += 1
    if av:
        anon_vma_interval_tree_post_update_vma(vma)
        if adjust:
            anon_vma_interval_tree_post_update_vma(adjust)
        anon_vma_unlock_write(av)
    if vma.vm_file:
        up_write(vma.vm_file.f_mapping.i_mmap_rwsem)
    if remove:
        remove_merged(remove)
    if remove2:
        remove_merged(remove2)


def remove_merged(vma: vm_area_struct) -> None:
    """Free a VMA that another one has swallowed."""
    vma_mark_detached(vma)
    mm = vma.vm_mm
    unlink_anon_vmas(vma)
    mm.map_count -= 1
    remove_vma(vma)


def __split_vma(vma: vm_area_struct, addr: int, new_below: bool) -> vm_area_struct:
    """Split at `addr`: the new VMA is the part below or the part above.  Returns it, or -EINVAL for vdso and vvar."""
    if vma.vm_flags & VM_SPECIAL_MAPPING:
        return ERR_PTR(-EINVAL)
    new = vm_area_dup(vma, vma.vm_mm)
    if new_below:
        new.vm_end = addr
    else:
        new.vm_start = addr
        new.vm_pgoff += addr - vma.vm_start >> arch.page_shift
    anon_vma_clone(new, vma)
    if new.vm_file:
        get_file(new.vm_file)
    vma_start_write(vma)
    vma_prepare(vma, NO_VMA, new, vma.anon_vma)
    vma_adjust_trans_huge(vma, vma.vm_start, addr)
    if new_below:
        vma_set_range(vma, addr, vma.vm_end, vma.vm_pgoff + (addr - vma.vm_start >> arch.page_shift))
    else:
        vma.vm_end = addr
    vma_complete(vma, NO_VMA, new, vma.anon_vma)
    return new


def vma_shrink(vma: vm_area_struct, start: int, end: int, pgoff: int) -> None:
    """Cut the VMA at one side."""
    vma_start_write(vma)
    av = vma.anon_vma
    vma_prepare(vma, NO_VMA, NO_VMA, av)
    vma_adjust_trans_huge(vma, start, end)
    if vma.vm_start < start:
        mt_erase(vma.vm_mm.mm_mt, vma.vm_start, start)
    else:
        mt_erase(vma.vm_mm.mm_mt, end, vma.vm_end)
    vma_set_range(vma, start, end, pgoff)
    vma_complete(vma, NO_VMA, NO_VMA, av)


def commit_merge(
    vma: vm_area_struct,
    start: int,
    end: int,
    pgoff: int,
    target: vm_area_struct,
    adjust: vm_area_struct = NO_VMA,
    remove: vm_area_struct = NO_VMA,
    remove2: vm_area_struct = NO_VMA,
) -> None:
    """Let `vma` have [start, end) at `pgoff`; `adjust` (or NULL) begins at `end` from now on.

    `target` is the one of the two that grows; `remove` and `remove2` lie within it and go.
    """
    av = vma.anon_vma if vma.anon_vma or not adjust else adjust.anon_vma
    vma_prepare(vma, adjust, NO_VMA, av)
    vma_adjust_trans_huge(vma, start, end)
    vma_set_range(vma, start, end, pgoff)
    if adjust:
        if adjust != target:
            split_huge_pmd_if_needed(adjust, end)
        shift = end - adjust.vm_start >> arch.page_shift
        vma_set_range(adjust, end, adjust.vm_end, adjust.vm_pgoff + shift)
    vma_iter_store(target)
    vma_complete(vma, adjust, NO_VMA, av, remove, remove2)

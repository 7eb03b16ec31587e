# SPDX-License-Identifier: GPL-2.0-only
"""mremap as older releases have it (mm/mremap.c of 6.1, 6.12 and 6.18).

Not modelled: that before 6.1.191 userfaultfd's write protection outlives mremap and its file.
"""

from __future__ import annotations

from ..arch import arch
from ..kernel.mm_types import mm_struct, vm_area_struct
from ..kernel.mmap_lock import NO_VMA
from ..kernel.mremap import (
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    account_move,
    check_prep_vma,
    dontunmap_complete,
    expand_vma,
    implies_new_addr,
    keep_source,
    mremap_to,
    pre_split,
    without_self,
)
from ..kernel.pgtable import pmd_clear, pmd_p, pmd_pgtable, pmd_populate
from ..kernel.pgtable_generic import pmd_lock, pmd_lockptr
from ..kernel.tlb import flush_tlb_range
from ..kernel.vm_flags import EFAULT, EINVAL, EPERM, VM_LOCKED
from ..kernel.vma import do_vmi_munmap, vma_is_sealed, vma_lookup
from ..machine import load, spin_lock_nested, spin_unlock
from . import patch

FILES = ("mm/mremap.c",)


@patch(
    "R-mremap-realign",
    title="mm/mremap: optimize the start addresses in move_page_tables()",
    since="6.7",
    site="move_page_tables.can_realign_addr",
    files=FILES,
)
def can_realign_addr(old: vm_area_struct, new: vm_area_struct, old_addr: int, new_addr: int, length: int) -> bool:
    """Where the range does not begin at a table's boundary the first entries move one by one."""
    return False


@patch(
    "R-mremap-recheck",
    commit="6fa1066fc5d0",
    title="mm/mremap: fix move_normal_pmd/retract_page_tables race",
    since="6.12",
    site="move_page_tables.move_normal_pmd",
    files=FILES,
)
def move_normal_pmd(vma: vm_area_struct, old_addr: int, new_addr: int, old_pmd: pmd_p, new_pmd: pmd_p) -> bool:
    """The slot is not looked at again under the locks: after a retraction the new one points to nowhere."""
    if load(new_pmd) != 0:
        return False
    mm = vma.vm_mm
    old_ptl = pmd_lock(mm, old_pmd, old_addr)
    new_ptl = pmd_lockptr(mm, new_pmd, new_addr)
    if new_ptl != old_ptl:
        spin_lock_nested(new_ptl)
    pmdval = load(old_pmd)
    pmd_clear(old_pmd)
    pmd_populate(new_pmd, pmd_pgtable(pmdval))
    flush_tlb_range(mm, old_addr, old_addr + arch.pmd_size)
    if new_ptl != old_ptl:
        spin_unlock(new_ptl)
    spin_unlock(old_ptl)
    return True


@patch(
    "R-mremap-multi",
    title="mm/mremap: permit mremap() move of multiple VMAs",
    since="6.17",
    site="mremap.do_mremap",
    files=FILES,
)
def do_mremap(
    mm: mm_struct, addr: int, old_len: int, new_len: int, flags: int, new_addr: int
) -> tuple[int, bool, bool]:
    """One VMA a call; the destination is unmapped, and what is too long, before the source is looked at."""
    vma = vma_lookup(mm, addr)
    if not vma:
        return -EFAULT, True, False
    if vma_is_sealed(vma):
        return -EPERM, True, False
    if not implies_new_addr(flags) and new_len <= old_len:
        if new_len == old_len:
            return addr, True, False
        error = do_vmi_munmap(mm, addr + new_len, addr + old_len, True)
        return (error, True, False) if error else (addr, False, False)
    error = make_room(mm, addr, old_len, new_len, flags, new_addr)
    if error:
        return error, True, False
    kept = min(old_len, new_len) if implies_new_addr(flags) else old_len
    vma = vma_lookup(mm, addr)
    error = check_prep_vma(mm, vma, addr, kept, new_len, flags)
    if error:
        return error, True, False
    populate = new_len > kept and vma.vm_flags & VM_LOCKED != 0
    if implies_new_addr(flags):
        return mremap_to(mm, addr, kept, new_len, flags, new_addr), True, populate
    return expand_vma(mm, vma, addr, kept, new_len, flags, new_addr), True, populate


@patch(
    "R-mremap-refactor",
    title="mm/mremap: refactor mremap() system call implementation",
    since="6.15",
    site="mremap.check_mremap_params",
    files=FILES,
)
def check_mremap_flags(addr: int, old_len: int, new_len: int, flags: int, new_addr: int) -> int:
    """Where a mapping goes, and whether it fits there, is looked at only once there is one."""
    if flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) or addr & arch.page_size - 1:
        return -EINVAL
    if implies_new_addr(flags) and flags & MREMAP_MAYMOVE == 0:
        return -EINVAL
    if flags & MREMAP_DONTUNMAP and old_len != new_len:
        return -EINVAL
    return -EINVAL if new_len == 0 else 0


@patch(
    "R-mremap-refactor",
    title="mm/mremap: refactor mremap() system call implementation",
    since="6.15",
    site="mremap.do_mremap",
    files=FILES,
)
def do_mremap_checked(
    mm: mm_struct, addr: int, old_len: int, new_len: int, flags: int, new_addr: int
) -> tuple[int, bool, bool]:
    """See check_mremap_flags."""
    vma = vma_lookup(mm, addr)
    if vma and not vma_is_sealed(vma) and implies_new_addr(flags):
        error = new_place_error(addr, old_len, new_len, new_addr)
        if error:
            return error, True, False
    return do_mremap(mm, addr, old_len, new_len, flags, new_addr)


def new_place_error(addr: int, old_len: int, new_len: int, new_addr: int) -> int:
    """-EINVAL if nothing can be moved to new_addr, or 0."""
    if new_addr & arch.page_size - 1 or new_len > arch.task_size or new_addr > arch.task_size - new_len:
        return -EINVAL
    return -EINVAL if addr + old_len > new_addr and new_addr + new_len > addr else 0


def make_room(mm: mm_struct, addr: int, old_len: int, new_len: int, flags: int, new_addr: int) -> int:
    """Unmap the destination of MREMAP_FIXED and the source's end that is cut off; 0 or -errno."""
    error = do_vmi_munmap(mm, new_addr, new_addr + new_len) if flags & MREMAP_FIXED else 0
    if error == 0 and implies_new_addr(flags) and new_len < old_len:
        error = do_vmi_munmap(mm, addr + new_len, addr + old_len)
    return error


@patch(
    "R-mremap-presplit",
    title="a locked VMA of which MREMAP_DONTUNMAP moves a part is split again (lost in 6.15; seen in 7.2)",
    since="7.2",
    site="mremap.pre_split",
    files=FILES,
)
@patch(
    "R-mremap-presplit-6.1",
    title="mm/mremap: fix locked_vm leak by splitting VMA for MREMAP_DONTUNMAP",
    since="6.1.191",
    site="mremap.pre_split",
    files=FILES,
)
def no_pre_split(vma: vm_area_struct, addr: int, old_len: int, flags: int) -> int:
    """All of the source VMA loses VM_LOCKED."""
    return 0


@patch(
    "R-mremap-refactor",
    title="mm/mremap: refactor mremap() system call implementation",
    since="6.15",
    site="mremap.pre_split",
    files=FILES,
)
def pre_split_as_ever(vma: vm_area_struct, addr: int, old_len: int, flags: int) -> int:
    """Before, as in 7.2, only what is moved."""
    return pre_split(vma, addr, old_len, flags)


@patch(
    "R-mremap-dontunmap-locked",
    title="MREMAP_DONTUNMAP of locked memory does not count it twice (lost in 6.15; seen in 7.2, not in 6.18.44)",
    since="7.2",
    site="mremap.keep_source",
    files=FILES,
)
def keep_source_counted_twice(vma: vm_area_struct, start: int, end: int, new_len: int) -> None:
    """The source's share of VmLck stays although it is no longer locked."""
    account_move(vma, new_len)
    dontunmap_complete(vma, start, end)


@patch(
    "R-mremap-refactor",
    title="mm/mremap: refactor mremap() system call implementation",
    since="6.15",
    site="mremap.keep_source",
    files=FILES,
)
def keep_source_as_ever(vma: vm_area_struct, start: int, end: int, new_len: int) -> None:
    """Before, as in 7.2, it is counted once."""
    keep_source(vma, start, end, new_len)


@patch(
    "R-mremap-self-merge",
    title="MREMAP_DONTUNMAP does not merge the copy with its source (seen in 6.1.192, 6.12.117, 7.2; not in 6.18.44)",
    since="7.2",
    site="mremap.without_self",
    files=("mm/vma.c",),
)
@patch(
    "R-mremap-self-merge-6.1",
    title="mm/mremap: fix locked_vm leak from MREMAP_DONTUNMAP self-merge",
    since="6.1.191",
    site="mremap.without_self",
    files=FILES,
)
def with_self(
    vma: vm_area_struct, prev: vm_area_struct, next_: vm_area_struct, addr: int, end: int
) -> tuple[vm_area_struct, vm_area_struct]:
    """The source may grow over the destination as long as it never had an anon_vma."""
    return prev, next_


@patch(
    "R-mremap-refactor",
    title="mm/mremap: refactor mremap() system call implementation",
    since="6.15",
    site="mremap.without_self",
    files=FILES,
)
def without_self_as_ever(
    vma: vm_area_struct, prev: vm_area_struct, next_: vm_area_struct, addr: int, end: int
) -> tuple[vm_area_struct, vm_area_struct]:
    """Older releases were given the fix of 7.2, too."""
    return without_self(vma, prev, next_, addr, end)


@patch(
    "R-vma-new-range",
    commit="cacded5e42b9",
    title="mm: avoid using vma_merge() for new VMAs",
    since="6.12",
    site="mremap.without_self",
    files=("mm/mmap.c",),
)
def alone_beside_self(
    vma: vm_area_struct, prev: vm_area_struct, next_: vm_area_struct, addr: int, end: int
) -> tuple[vm_area_struct, vm_area_struct]:
    """Beside the source the copy merges with nobody."""
    if addr == vma.vm_end or vma.vm_start == end:
        return NO_VMA, NO_VMA
    return prev, next_

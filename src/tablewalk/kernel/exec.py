# SPDX-License-Identifier: GPL-2.0-only
"""What execve maps (fs/exec.c, mm/vma_exec.c, arch/x86/entry/vdso/vma.c, _install_special_mapping() in mm/mmap.c; 7.2).

`exec_map` is fed one recorded mapping after the other; where they go, and how large they are, it is told.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from .brk import vm_brk_flags
from .gup import get_user_pages, put_user_pages
from .memory_zap import free_pgd_range
from .mm_types import file, mm_struct, vm_area_struct
from .mmap import MAP_FIXED, calc_vm_prot_bits, do_mmap, expand_stack
from .mmap_lock import NO_VMA, mmap_read_lock, mmap_read_unlock, mmap_write_lock, mmap_write_unlock, vma_start_write
from .mmu_gather import tlb_finish_mmu, tlb_gather_mmu
from .move_page_tables import move_page_tables
from .mprotect import mprotect_fixup
from .pgtable import vma_set_soft_dirty
from .vm_flags import (
    ENOMEM,
    PROT_EXEC,
    VM_ACCOUNT,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_IO,
    VM_LOCKED_MASK,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_READ,
    VM_SPECIAL_MAPPING,
    VM_STACK_INCOMPLETE,
    VM_WRITE,
)
from .vma import find_vma, find_vma_intersection
from .vma_change import commit_merge, vm_area_alloc, vm_flags_reset, vma_link, vma_shrink

STACK_FLAGS: Final = VM_GROWSDOWN | VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | VM_ACCOUNT
VDSO_FLAGS: Final = VM_READ | VM_EXEC | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
VVAR_FLAGS: Final = VM_READ | VM_MAYREAD | VM_IO | VM_DONTDUMP | VM_PFNMAP
STACK_EXPAND: Final = 131072  # bytes that a new stack has below its arguments


def exec_map(
    mm: mm_struct, start: int, length: int, prot: int, flags: int, f: file, pgoff: int, kind: str
) -> int:
    """Map what execve maps at [start, start + length) bytes; 0 or -errno.

    `kind`: "" for a segment of file `f`, or without a file for zeroed data (also "heap"); "stack"; "vdso", and
    anything that begins with "vvar".
    """
    if kind == "stack":
        return exec_stack(mm, start, start + length, prot)
    if kind == "vdso":
        return install_special_mapping(mm, start, length, VDSO_FLAGS)
    if kind.startswith("vvar"):
        return install_special_mapping(mm, start, length, VVAR_FLAGS)
    if not f:
        return vm_brk_flags(mm, start, length, VM_EXEC if prot & PROT_EXEC else 0)
    mmap_write_lock(mm)
    ret, _ = do_mmap(mm, start, length, prot, flags | MAP_FIXED, f, pgoff)
    mmap_write_unlock(mm)
    return min(ret, 0)


def install_special_mapping(mm: mm_struct, start: int, length: int, vm_flags: int) -> int:
    """A mapping with vm_ops of its own, without a file; 0 or -ENOMEM."""
    mmap_write_lock(mm)
    error = 0
    if find_vma_intersection(mm, start, start + length):
        error = -ENOMEM
    else:
        vm_flags |= VM_SPECIAL_MAPPING | VM_DONTEXPAND | mm.def_flags & ~VM_LOCKED_MASK
        vma = vm_area_alloc(mm, start, start + length, 0, vm_flags)
        vma_set_soft_dirty(vma)
        vma_link(mm, vma)
        mm.total_vm += length >> arch.page_shift
    mmap_write_unlock(mm)
    return error


# --- the stack -------------------------------------------------------------------------------------------


def exec_stack(mm: mm_struct, start: int, end: int, prot: int) -> int:
    """Make the new program's stack, or let it be at [start, end) if it is there; 0 or -errno.

    It first stands at the top of the address space, page by page as the arguments are written, and then moves.
    """
    vma = stack_vma(mm)
    if not vma:
        grown = 0 if prot & PROT_EXEC else STACK_EXPAND  # an executable one is told of before it grows, too
        arg_bytes = max(end - start - grown, arch.page_size)
        vma = create_init_stack_vma(mm)
        if not copy_strings(mm, vma, arg_bytes):
            return -ENOMEM
    mmap_write_lock(mm)
    error = setup_arg_pages(mm, vma, start, end, prot)
    mmap_write_unlock(mm)
    return error


def stack_vma(mm: mm_struct) -> vm_area_struct:
    """The stack that exec has begun, or NULL."""
    mmap_read_lock(mm)
    vma = find_vma(mm, mm.start_stack) if mm.start_stack else NO_VMA
    mmap_read_unlock(mm)
    return vma


def create_init_stack_vma(mm: mm_struct) -> vm_area_struct:
    """A stack of one page at the highest address that the architecture allows for one."""
    mmap_write_lock(mm)
    end = arch.task_size & -arch.page_size
    start = end - arch.page_size
    vma = vm_area_alloc(mm, start, end, start >> arch.page_shift, STACK_FLAGS | VM_STACK_INCOMPLETE)
    vma_set_soft_dirty(vma)
    vma_link(mm, vma)
    mm.total_vm = 1
    mm.start_stack = start
    mmap_write_unlock(mm)
    return vma


def copy_strings(mm: mm_struct, vma: vm_area_struct, length: int) -> bool:
    """Write `length` bytes of arguments downwards from the stack's end; false if they cannot be."""
    end = arch.task_size & -arch.page_size
    for done in range(arch.page_size, length + 1, arch.page_size):
        address = end - done
        mmap_write_lock(mm)
        error = expand_stack(vma, address) if address < vma.vm_start else 0
        mmap_write_unlock(mm)
        pages = () if error else get_user_pages(mm, address, 1, True)
        if not pages:
            return False
        put_user_pages(pages)
    return True


def setup_arg_pages(mm: mm_struct, vma: vm_area_struct, start: int, end: int, prot: int) -> int:
    """Give the stack its permissions, move it to where it ends at `end`, and let it grow down to `start`."""
    vm_flags = vma.vm_flags & ~VM_EXEC | calc_vm_prot_bits(prot) | mm.def_flags
    tlb = tlb_gather_mmu(mm)
    mprotect_fixup(tlb, vma, vma.vm_start, vma.vm_end, vm_flags)
    tlb_finish_mmu(tlb)
    if vma.vm_end != end:
        relocate_vma_down(vma, vma.vm_end - end)
    vm_flags_reset(vma, vma.vm_flags & ~VM_STACK_INCOMPLETE)
    mm.start_stack = vma.vm_start
    return expand_stack(vma, start) if start < vma.vm_start else 0


def relocate_vma_down(vma: vm_area_struct, shift: int) -> None:
    """Move the VMA and what it maps down by `shift` bytes, where nothing else is; vm_pgoff stays what it was."""
    mm = vma.vm_mm
    vma_start_write(vma)
    old_start = vma.vm_start
    old_end = vma.vm_end
    new_start = old_start - shift
    new_end = old_end - shift
    commit_merge(vma, new_start, old_end, vma.vm_pgoff, vma)
    move_page_tables(vma, vma, old_start, new_start, old_end - old_start, False)
    tlb = tlb_gather_mmu(mm)
    next_ = find_vma(mm, old_end)
    ceiling = next_.vm_start if next_ else 0
    free_pgd_range(tlb, max(new_end, old_start), old_end, new_end, ceiling)
    tlb_finish_mmu(tlb)
    vma_shrink(vma, new_start, new_end, vma.vm_pgoff)

# SPDX-License-Identifier: GPL-2.0-only
"""mmap, munmap, stack growth, exit (mm/mmap.c, mm/vma.c; 7.2).

Where a mapping goes is not modelled: sys_mmap is told.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import mt_erase, mt_values
from .collapse_policy import khugepaged_enter_vma
from .filemap import fput, get_file
from .gup import mm_populate
from .memory_zap import free_pgtables, unmap_vmas
from .mm_types import file, mm_struct, vm_area_struct
from .mmap_lock import (
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    vma_mark_detached,
    vma_start_write,
)
from .mmu_gather import tlb_finish_mmu, tlb_gather_mmu
from .mmu_notifier import mmu_notifier_release
from .not_modelled import NotModelled
from .pgtable import vma_set_page_prot, vma_set_soft_dirty
from .rmap import anon_vma_lock_write, anon_vma_prepare, anon_vma_unlock_write
from .shmem import shmem_file_setup
from .vm_flags import (
    EACCES,
    EAGAIN,
    EEXIST,
    EFAULT,
    EINVAL,
    ENOMEM,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_DONTDUMP,
    VM_DROPPABLE,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_SYNC,
    VM_WIPEONFORK,
    VM_WRITE,
)
from .vma import (
    do_vmi_munmap,
    find_vma,
    find_vma_intersection,
    neighbours,
    unmap_region,
    vma_lookup,
    vma_merge_new_range,
    vma_prev,
    vms_account,
    vms_gather_munmap_vmas,
)
from .vma_change import (
    MAX_MAP_COUNT,
    anon_vma_interval_tree_post_update_vma,
    anon_vma_interval_tree_pre_update_vma,
    remove_vma,
    vm_area_alloc,
    vma_iter_store,
    vma_link,
)
from .vma_merge import vma_merge_struct

MAP_SHARED: Final = 1
MAP_PRIVATE: Final = 2
MAP_SHARED_VALIDATE: Final = 3
MAP_DROPPABLE: Final = 8
MAP_TYPE: Final = 15
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
MAP_GROWSDOWN: Final = 0x100
MAP_LOCKED: Final = 0x2000
MAP_NORESERVE: Final = 0x4000
MAP_POPULATE: Final = 0x8000
MAP_NONBLOCK: Final = 0x10000
MAP_STACK: Final = 0x20000
MAP_HUGETLB: Final = 0x40000
MAP_SYNC: Final = 0x80000
MAP_FIXED_NOREPLACE: Final = 0x100000

NO_FILE: Final = file(0)
MMAP_MIN_ADDR: Final = 65536  # sysctl vm.mmap_min_addr
STACK_GUARD_GAP: Final = 256  # pages
MAX_LFS_FILESIZE: Final = (1 << 63) - 1


def page_align(length: int) -> int:
    """Rounded up to whole pages."""
    return length + arch.page_size - 1 & -arch.page_size


def calc_vm_prot_bits(prot: int) -> int:
    """VM_READ, VM_WRITE, VM_EXEC of PROT_*."""
    return (
        (VM_READ if prot & PROT_READ else 0)
        | (VM_WRITE if prot & PROT_WRITE else 0)
        | (VM_EXEC if prot & PROT_EXEC else 0)
    )


def map_stack_flags() -> int:
    """What MAP_STACK asks for."""
    return VM_NOHUGEPAGE


def calc_vm_flag_bits(flags: int) -> int:
    """VM_* of MAP_*."""
    return (
        (VM_GROWSDOWN if flags & MAP_GROWSDOWN else 0)
        | (VM_LOCKED if flags & MAP_LOCKED else 0)
        | (VM_SYNC if flags & MAP_SYNC else 0)
        | (map_stack_flags() if flags & MAP_STACK else 0)
    )


def mlock_future_ok(mm: mm_struct, vm_flags: int, length: int) -> bool:
    """Whether `length` more bytes may be locked, if they are going to be."""
    return vm_flags & VM_LOCKED == 0 or (mm.locked_vm << arch.page_shift) + length <= mm.rlimit_memlock


def sys_mmap(mm: mm_struct, addr: int, length: int, prot: int, flags: int, f: file, pgoff: int) -> int:
    """Map `length` bytes at `addr`, of file `f` from page `pgoff` on or (NULL) anonymous; the address, or -errno."""
    if flags & MAP_HUGETLB:
        raise NotModelled("hugetlb")
    mmap_write_lock(mm)
    ret, populate = do_mmap(mm, addr, length, prot, flags, f, pgoff)
    mmap_write_unlock(mm)
    if populate:
        mm_populate(mm, addr, populate)
    return ret


def do_mmap(
    mm: mm_struct, addr: int, length: int, prot: int, flags: int, f: file, pgoff: int
) -> tuple[int, int]:
    """(address or -errno, bytes to populate); mmap_lock is held for writing."""
    if length == 0:
        return -EINVAL, 0
    length = page_align(length)
    if pgoff + (length >> arch.page_shift) >= 1 << arch.long_bits:
        return -EOVERFLOW, 0
    if mm.map_count > MAX_MAP_COUNT or length > arch.task_size:
        return -ENOMEM, 0
    if addr + length > arch.task_size:
        return -EINVAL if arch.fixed_must_fit else -ENOMEM, 0
    if addr & arch.page_size - 1:
        return -EINVAL, 0
    may_replace = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) == MAP_FIXED
    if not may_replace and find_vma_intersection(mm, addr, addr + length):
        return -EEXIST, 0
    vm_flags = calc_vm_prot_bits(prot) | calc_vm_flag_bits(flags) | mm.def_flags
    vm_flags |= VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    if flags & MAP_LOCKED and mm.rlimit_memlock == 0:
        return -EPERM, 0
    if not mlock_future_ok(mm, vm_flags, length):
        return -EAGAIN, 0
    if f and not file_mmap_ok(pgoff, length):
        return -EOVERFLOW, 0
    vm_flags = file_map_flags(f, prot, flags, vm_flags) if f else anon_map_flags(flags, vm_flags)
    if vm_flags < 0:
        return vm_flags, 0
    if not f:
        pgoff = 0 if vm_flags & VM_SHARED else addr >> arch.page_shift
    if flags & MAP_NORESERVE:
        vm_flags |= VM_NORESERVE
    ret = mmap_region(mm, addr, addr + length, vm_flags, f, pgoff)
    populate = vm_flags & VM_LOCKED or flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE
    return ret, length if populate and ret >= 0 else 0


def file_mmap_ok(pgoff: int, length: int) -> bool:
    """Whether the file could ever reach so far; what a file system allows less than the VFS is not modelled."""
    return pgoff << arch.page_shift <= MAX_LFS_FILESIZE - length


def file_map_flags(f: file, prot: int, flags: int, vm_flags: int) -> int:
    """VM_* of a file mapping, or -errno."""
    kind = flags & MAP_TYPE
    if kind not in (MAP_SHARED, MAP_SHARED_VALIDATE, MAP_PRIVATE):
        return -EINVAL
    if kind != MAP_PRIVATE:
        if kind == MAP_SHARED_VALIDATE and flags & MAP_SYNC:
            return -EOPNOTSUPP
        vm_flags &= ~VM_SYNC
        if f.f_readonly and prot & PROT_WRITE:
            return -EACCES
        vm_flags |= VM_SHARED | VM_MAYSHARE
        if f.f_readonly:
            vm_flags &= ~(VM_MAYWRITE | VM_SHARED)
    return -EINVAL if vm_flags & VM_GROWSDOWN else vm_flags


def anon_map_flags(flags: int, vm_flags: int) -> int:
    """VM_* of an anonymous mapping, or -errno."""
    kind = flags & MAP_TYPE
    if kind == MAP_PRIVATE:
        return vm_flags
    if vm_flags & VM_GROWSDOWN:
        return -EINVAL
    if kind == MAP_SHARED:
        return vm_flags | VM_SHARED | VM_MAYSHARE
    if kind == MAP_DROPPABLE and flags & MAP_LOCKED == 0:
        return vm_flags | VM_DROPPABLE | VM_NORESERVE | VM_WIPEONFORK | VM_DONTDUMP
    return -EINVAL


def mmap_region(mm: mm_struct, addr: int, end: int, vm_flags: int, f: file, pgoff: int) -> int:
    """Map [addr, end) in place of what is there; `addr` or -errno."""
    vmas: tuple[vm_area_struct, ...] = ()
    if find_vma_intersection(mm, addr, end):
        error, vmas = vms_gather_munmap_vmas(mm, addr, end)
        if error:
            return error
    if vm_flags & (VM_WRITE | VM_NORESERVE | VM_SHARED) == VM_WRITE:
        vm_flags |= VM_ACCOUNT
    if vmas:
        floor, ceiling = neighbours(mm, addr, end)
        unmap_region(mm, vmas, addr, end, floor, ceiling)
    vmg = vma_merge_struct(addr, end, pgoff, vm_flags, f)
    vma = mmap_merge(vmg, vma_prev(mm, addr), find_vma(mm, end))
    if not vma:
        vma = mmap_new_vma(mm, vmg)
    vms_account(mm, vmas)
    for old in vmas:
        remove_vma(old)
    mmap_account(vma, end - addr >> arch.page_shift)
    return addr


def mmap_merge(vmg: vma_merge_struct, prev: vm_area_struct, next_: vm_area_struct) -> vm_area_struct:
    """Let a neighbour (or NULL) have the new mapping too, if it can; it, or NULL."""
    return vma_merge_new_range(vmg, prev, next_)


def mmap_new_vma(mm: mm_struct, vmg: vma_merge_struct) -> vm_area_struct:
    """A VMA of its own (__mmap_new_vma); shared anonymous memory gets a file of its own."""
    vma = vm_area_alloc(mm, vmg.start, vmg.end, vmg.pgoff, vmg.vm_flags)
    if vmg.file:
        vma.vm_file = vmg.file
        get_file(vmg.file)
    elif vmg.vm_flags & VM_SHARED:
        vma.vm_file = shmem_file_setup(vmg.end - vmg.start)
    vma_link(mm, vma)
    if vma.vm_file:
        khugepaged_enter_vma(vma, vma.vm_flags)
    return vma


def mmap_account(vma: vm_area_struct, pages: int) -> None:
    """Count `pages` of the VMA as new; memory that cannot be locked is not."""
    mm = vma.vm_mm
    mm.total_vm += pages
    vma_set_soft_dirty(vma)
    vma_set_page_prot(vma)
    if vma.vm_flags & VM_LOCKED == 0:
        return
    if vma.vm_flags & (VM_SPECIAL | VM_HUGETLB | VM_DROPPABLE):
        vma.vm_flags &= ~VM_LOCKED_MASK
    else:
        mm.locked_vm += pages


def sys_munmap(mm: mm_struct, start: int, length: int) -> int:
    """Unmap `length` bytes, up to whole pages; 0 or -errno."""
    mmap_write_lock(mm)
    error = do_vmi_munmap(mm, start, start + page_align(length), unlock=True)
    if error:
        mmap_write_unlock(mm)
    return error


# --- stack -------------------------------------------------------------------------------------------------


def acct_stack_growth(vma: vm_area_struct, size: int, grow: int) -> int:
    """Whether a stack of `size` bytes is allowed, `grow` of them new: 0 or -ENOMEM."""
    mm = vma.vm_mm
    if size > mm.rlimit_stack or not mlock_future_ok(mm, vma.vm_flags, grow):
        return -ENOMEM
    return 0


def expand_stack(vma: vm_area_struct, address: int) -> int:
    """Let the stack above `address` grow down to it (expand_downwards); 0 or -errno.  mmap_lock is held for writing."""
    if vma.vm_flags & VM_GROWSDOWN == 0:
        return -EFAULT
    address &= -arch.page_size
    if address < MMAP_MIN_ADDR:
        return -EPERM
    prev = vma_prev(vma.vm_mm, vma.vm_start)
    if (
        prev
        and prev.vm_flags & VM_GROWSDOWN == 0
        and prev.vm_flags & VM_ACCESS_FLAGS
        and address - prev.vm_end < STACK_GUARD_GAP << arch.page_shift
    ):
        return -ENOMEM
    anon_vma_prepare(vma)
    vma_start_write(vma)
    anon_vma_lock_write(vma.anon_vma)
    error = grow_down(vma, address) if address < vma.vm_start else 0
    anon_vma_unlock_write(vma.anon_vma)
    return error


def grow_down(vma: vm_area_struct, address: int) -> int:
    """Move the start of a locked stack VMA down to `address`; 0 or -ENOMEM."""
    grow = vma.vm_start - address
    pages = grow >> arch.page_shift
    if pages > vma.vm_pgoff or acct_stack_growth(vma, vma.vm_end - address, grow):
        return -ENOMEM
    mm = vma.vm_mm
    mm.total_vm += pages
    if vma.vm_flags & VM_LOCKED:
        mm.locked_vm += pages
    anon_vma_interval_tree_pre_update_vma(vma)
    vma.vm_start = address
    vma.vm_pgoff -= pages
    vma_iter_store(vma)
    anon_vma_interval_tree_post_update_vma(vma)
    return 0


# --- exit --------------------------------------------------------------------------------------------------


def exit_mmap(mm: mm_struct) -> None:
    """The last user is gone: unmap everything and free every table and VMA."""
    mmu_notifier_release(mm)
    mmap_read_lock(mm)
    vmas = tuple([vm_area_struct(found) for found in mt_values(mm.mm_mt)])
    tlb = tlb_gather_mmu(mm, fullmm=True)
    unmap_vmas(tlb, vmas, 0, arch.task_size)
    mmap_read_unlock(mm)
    mmap_write_lock(mm)
    if vmas:
        for vma in vmas:
            vma_start_write(vma)
        free_pgtables(tlb, vmas, arch.first_user_address, arch.user_pgtables_ceiling)
    tlb_finish_mmu(tlb)
    for vma in vmas:
        vma_mark_detached(vma)
        remove_vma(vma)
    mt_erase(mm.mm_mt, 0, arch.task_size)
    mm.map_count = 0
    mmap_write_unlock(mm)


# --- remap_file_pages ----------------------------------------------------------------------------------------


def remap_range_uniform(vma: vm_area_struct, end: int) -> bool:
    """Whether the memory from this VMA up to `end` has no hole and the same file and flags throughout."""
    mm = vma.vm_mm
    next_ = vma
    while next_.vm_end < end:
        after = vma_lookup(mm, next_.vm_end)
        if not after or after.vm_file != vma.vm_file or after.vm_flags != vma.vm_flags:
            return False
        next_ = after
    return True


def sys_remap_file_pages(mm: mm_struct, start: int, size: int, prot: int, pgoff: int, flags: int) -> int:
    """Map other pages of the file of a shared mapping in its place, and populate them; 0 or -errno."""
    start &= -arch.page_size
    size &= -arch.page_size
    if prot or size == 0:
        return -EINVAL
    mmap_read_lock(mm)
    vma = vma_lookup(mm, start)
    if not vma or vma.vm_flags & VM_SHARED == 0:
        mmap_read_unlock(mm)
        return -EINVAL
    vm_flags = vma.vm_flags
    f = vma.vm_file
    get_file(f)
    mmap_read_unlock(mm)
    mmap_write_lock(mm)
    ret = -EINVAL
    populate = 0
    vma = vma_lookup(mm, start)
    if vma and vma.vm_flags == vm_flags and vma.vm_file == f and remap_range_uniform(vma, start + size):
        map_flags = flags & MAP_NONBLOCK | MAP_SHARED | MAP_FIXED | MAP_POPULATE
        if vm_flags & VM_LOCKED:
            map_flags |= MAP_LOCKED
        ret, populate = do_mmap(mm, start, size, vm_flags & VM_ACCESS_FLAGS, map_flags, f, pgoff)
    mmap_write_unlock(mm)
    fput(f)
    if populate:
        mm_populate(mm, start, populate)
    return min(ret, 0)

# SPDX-License-Identifier: GPL-2.0-only
"""Memory policies as far as they decide about VMAs (mm/mempolicy.c; 7.2), of a machine with one node.

A policy is a number: mode and flags, the nodes it has, and those that were asked for where it keeps them; 0 is the
default.  Equal policies are equal numbers.  Where pages are allocated, and their migration, is not modelled: no table
depends on it.  Nor are the policies of shared memory itself, which only get_mempolicy() tells.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import forget
from .config import config
from .gup import get_user_pages_fast, put_user_pages
from .mm_types import mm_struct
from .mmap import page_align
from .mmap_lock import mmap_read_lock, mmap_read_unlock, mmap_write_lock, mmap_write_unlock, vma_start_write
from .not_modelled import NotModelled
from .vm_flags import EFAULT, EINVAL, ENOSYS
from .vma import find_vma, vma_lookup, vma_modify
from .vma_change import IS_ERR, PTR_ERR

MPOL_MF_VALID: Final = 7  # MPOL_MF_STRICT, MPOL_MF_MOVE, MPOL_MF_MOVE_ALL
MPOL_PREFERRED: Final = 1
MPOL_INTERLEAVE: Final = 3
MPOL_LOCAL: Final = 4
MPOL_MAX: Final = 7
MPOL_F_RELATIVE_NODES: Final = 1 << 14
MPOL_F_STATIC_NODES: Final = 1 << 15
MPOL_MODE_FLAGS: Final = MPOL_F_RELATIVE_NODES | MPOL_F_STATIC_NODES
MPOL_F_NODE: Final = 1
MPOL_F_ADDR: Final = 2
MPOL_F_MEMS_ALLOWED: Final = 4
NODES_SHIFT: Final = 16  # of a policy's nodes in its number; above them those asked for
NODES_BITS: Final = 8
NODE_0: Final = 1  # as a mask: what has memory


def sanitize_mpol_flags(mode: int) -> int:
    """0, or -EINVAL for a mode or flags that do not exist."""
    flags = mode & MPOL_MODE_FLAGS
    if mode & ~MPOL_MODE_FLAGS >= MPOL_MAX or flags == MPOL_MODE_FLAGS:
        return -EINVAL
    return 0


def mpol_new(mode: int, nodes: int) -> int:
    """The number of the policy of this mode, flags in it, for a mask of nodes; or -errno."""
    if not config.numa:
        return -ENOSYS
    if sanitize_mpol_flags(mode) < 0:
        return -EINVAL
    flags = mode & MPOL_MODE_FLAGS
    mode &= ~MPOL_MODE_FLAGS
    if mode == 0:
        return -EINVAL if nodes else 0
    if mode == MPOL_PREFERRED and nodes == 0:
        return -EINVAL if flags else MPOL_LOCAL
    if mode == MPOL_LOCAL:
        return -EINVAL if nodes or flags else MPOL_LOCAL
    return mpol_set_nodemask(mode | flags, nodes)


def mpol_set_nodemask(mode: int, nodes: int) -> int:
    """The policy's number with the nodes that it has of those asked for; -EINVAL if none."""
    allowed = nodes & NODE_0
    if mode & MPOL_F_RELATIVE_NODES and nodes:
        allowed = NODE_0
    if not allowed:
        return -EINVAL
    kept = nodes if mode & MPOL_MODE_FLAGS else 0
    return mode | allowed << NODES_SHIFT | kept << NODES_SHIFT + NODES_BITS


def policy_nodes(policy: int) -> int:
    """The mask of nodes that get_mempolicy() tells."""
    nodes = policy >> NODES_SHIFT
    return nodes >> NODES_BITS if policy & MPOL_MODE_FLAGS else nodes


def queue_pages_range(mm: mm_struct, start: int, end: int, holes_ok: bool) -> int:
    """Write-lock the VMAs of [start, end) in order; -EFAULT at a hole, or if there is nothing else, else 0."""
    addr = start
    while addr < end:
        vma = find_vma(mm, addr)
        if not vma or vma.vm_start >= end:
            return -EFAULT if addr == start or not holes_ok else 0
        if vma.vm_start > addr and not holes_ok:
            return -EFAULT
        vma_start_write(vma)
        addr = vma.vm_end
        forget((addr,))
    return 0


def mbind_ranges(mm: mm_struct, start: int, end: int, policy: int) -> int:
    """Give every VMA in [start, end) the policy; 0, or the -errno at which it stopped."""
    while start < end:
        vma = find_vma(mm, start)
        if not vma or vma.vm_start >= end:
            return 0
        if vma.vm_policy != policy:
            vma = vma_modify(vma, max(start, vma.vm_start), min(end, vma.vm_end), policy=policy)
            if IS_ERR(vma):
                return PTR_ERR(vma)
            vma_start_write(vma)
            vma.vm_policy = policy
        start = vma.vm_end
        forget((start,))
    return 0


def sys_mbind(mm: mm_struct, start: int, length: int, policy: int, flags: int) -> int:
    """mbind(2) of the policy with this number, or -errno of what is none; 0 or -errno."""
    if flags & ~MPOL_MF_VALID or start & arch.page_size - 1:
        return -EINVAL
    end = start + page_align(length)
    if end == start:
        return 0
    if policy < 0:
        return policy
    mmap_write_lock(mm)
    error = queue_pages_range(mm, start, end, policy == 0)
    if error == 0:
        error = mbind_ranges(mm, start, end, policy)
    mmap_write_unlock(mm)
    return error


def kernel_mbind(mm: mm_struct, start: int, length: int, mode: int, nodes: int, flags: int) -> int:
    """mbind(2) of a mode, flags in it, for a mask of nodes; 0 or -errno."""
    if not config.numa:
        return -ENOSYS
    if sanitize_mpol_flags(mode) < 0:
        return -EINVAL
    return sys_mbind(mm, start, length, mpol_new(mode, nodes), flags)


def sys_get_mempolicy(mm: mm_struct, policy: int, addr: int, flags: int) -> int:
    """get_mempolicy(2) of a thread with this policy: mode and flags, nodes above; a node (MPOL_F_NODE); or -errno."""
    if not config.numa:
        return -ENOSYS
    if flags & ~(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED):
        return -EINVAL
    if flags & MPOL_F_MEMS_ALLOWED:
        return -EINVAL if flags != MPOL_F_MEMS_ALLOWED else NODE_0 << NODES_SHIFT
    if flags & MPOL_F_ADDR:
        return address_policy(mm, addr, flags)
    if addr:
        return -EINVAL
    if flags & MPOL_F_NODE:
        return 0 if policy & 0xFFFF & ~MPOL_MODE_FLAGS == MPOL_INTERLEAVE else -EINVAL
    return policy & 0xFFFF | policy_nodes(policy) << NODES_SHIFT


def address_policy(mm: mm_struct, addr: int, flags: int) -> int:
    """What get_mempolicy() says of an address: its policy, or the node of its page, which is faulted in for that."""
    mmap_read_lock(mm)
    vma = vma_lookup(mm, addr)
    policy = vma.vm_policy if vma else -EFAULT
    shared = bool(vma) and bool(vma.vm_file) and vma.vm_file.f_mapping.shmem != 0
    mmap_read_unlock(mm)
    if policy < 0:
        return policy
    if flags & MPOL_F_NODE:
        pages = get_user_pages_fast(mm, addr & -arch.page_size, 1, False)
        put_user_pages(pages)
        return 0 if pages else -EFAULT
    if shared:
        raise NotModelled("policies of shared memory")
    return policy & 0xFFFF | policy_nodes(policy) << NODES_SHIFT

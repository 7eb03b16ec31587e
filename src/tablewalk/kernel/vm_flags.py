# SPDX-License-Identifier: GPL-2.0-only
"""VM_* flags of a VMA, FAULT_FLAG_*, VM_FAULT_*, errno (include/linux/mm.h, mm_types.h; 7.2)."""

from __future__ import annotations

from typing import Final

VM_READ: Final = 0x1
VM_WRITE: Final = 0x2
VM_EXEC: Final = 0x4
VM_SHARED: Final = 0x8
VM_MAYREAD: Final = 0x10
VM_MAYWRITE: Final = 0x20
VM_MAYEXEC: Final = 0x40
VM_MAYSHARE: Final = 0x80
VM_GROWSDOWN: Final = 0x100
VM_UFFD_MISSING: Final = 0x200
VM_PFNMAP: Final = 0x400
VM_MAYBE_GUARD: Final = 0x800
VM_UFFD_WP: Final = 0x1000
VM_LOCKED: Final = 0x2000
VM_IO: Final = 0x4000
VM_SEQ_READ: Final = 0x8000
VM_RAND_READ: Final = 0x10000
VM_DONTCOPY: Final = 0x20000
VM_DONTEXPAND: Final = 0x40000
VM_LOCKONFAULT: Final = 0x80000
VM_ACCOUNT: Final = 0x100000
VM_NORESERVE: Final = 0x200000
VM_HUGETLB: Final = 0x400000
VM_SYNC: Final = 0x800000
VM_WIPEONFORK: Final = 0x2000000
VM_DONTDUMP: Final = 0x4000000
VM_SOFTDIRTY: Final = 0x8000000
VM_MIXEDMAP: Final = 0x10000000
VM_HUGEPAGE: Final = 0x20000000
VM_NOHUGEPAGE: Final = 0x40000000
VM_MERGEABLE: Final = 0x80000000
VM_STACK_INCOMPLETE: Final = VM_RAND_READ | VM_SEQ_READ
VM_PKEY_SHIFT: Final = 32
VM_DROPPABLE: Final = 1 << 40
VM_UFFD_MINOR: Final = 1 << 41
VM_SEALED: Final = 1 << 42  # of 64-bit kernels
VM_MTE_ALLOWED: Final = 1 << 43  # arm64
VM_SPECIAL_MAPPING: Final = 1 << 50  # vdso, vvar: its own vm_ops (no real flag)

VM_ACCESS_FLAGS: Final = VM_READ | VM_WRITE | VM_EXEC
VM_SPECIAL: Final = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP
VM_LOCKED_MASK: Final = VM_LOCKED | VM_LOCKONFAULT
VM_STICKY_FLAGS: Final = VM_SOFTDIRTY | VM_MAYBE_GUARD  # kept by a merge, and no reason against one
VM_PKEY_MASK: Final = 15 << VM_PKEY_SHIFT
VM_UFFD_FLAGS: Final = VM_UFFD_MISSING | VM_UFFD_WP | VM_UFFD_MINOR

FAULT_FLAG_WRITE: Final = 1
FAULT_FLAG_VMA_LOCK: Final = 2
FAULT_FLAG_UNSHARE: Final = 4
FAULT_FLAG_REMOTE: Final = 8
FAULT_FLAG_USER: Final = 16
FAULT_FLAG_INSTRUCTION: Final = 32
FAULT_FLAG_ALLOW_RETRY: Final = 64

VM_FAULT_OOM: Final = 0x1
VM_FAULT_SIGBUS: Final = 0x2
VM_FAULT_MAJOR: Final = 0x4
VM_FAULT_HWPOISON: Final = 0x10
VM_FAULT_SIGSEGV: Final = 0x40
VM_FAULT_NOPAGE: Final = 0x100
VM_FAULT_RETRY: Final = 0x400
VM_FAULT_FALLBACK: Final = 0x800
VM_FAULT_USERFAULT: Final = 0x10000  # the model's own: until it is resolved by a userfaultfd the access waits
VM_FAULT_ERROR: Final = VM_FAULT_OOM | VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV | VM_FAULT_HWPOISON

EPERM: Final = 1
ENOENT: Final = 2
ESRCH: Final = 3
EIO: Final = 5
EBADF: Final = 9
EAGAIN: Final = 11
ENOMEM: Final = 12
EACCES: Final = 13
EFAULT: Final = 14
EBUSY: Final = 16
EEXIST: Final = 17
EINVAL: Final = 22
ENOTTY: Final = 25
ENOSPC: Final = 28
ENOSYS: Final = 38
EOVERFLOW: Final = 75
EHWPOISON: Final = 133
EOPNOTSUPP: Final = 95
EUSERFAULT: Final = 600  # no errno of the kernel: the call would wait until a userfaultfd resolves a fault
EINTR: Final = 4

PROT_READ: Final = 1
PROT_WRITE: Final = 2
PROT_EXEC: Final = 4

# change_protection()
MM_CP_TRY_CHANGE_WRITABLE: Final = 1
MM_CP_PROT_NUMA: Final = 2
MM_CP_UFFD_WP: Final = 4
MM_CP_UFFD_WP_RESOLVE: Final = 8

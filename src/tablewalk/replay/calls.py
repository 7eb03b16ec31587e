# SPDX-License-Identifier: GPL-2.0-only
"""x86-64 system calls by number, as far as they concern an address space (arch/x86/entry/syscalls, man 2)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

MMAP: Final = 9
MADVISE: Final = 28
SHMAT: Final = 30
PROCESS_MADVISE: Final = 440
PROCESS_VM: Final = (310, 311)

NAMES: Final = {
    9: "mmap", 10: "mprotect", 11: "munmap", 12: "brk", 25: "mremap", 26: "msync", 27: "mincore", 28: "madvise",
    29: "shmget", 30: "shmat", 31: "shmctl", 56: "clone", 57: "fork", 58: "vfork", 59: "execve", 60: "exit",
    67: "shmdt", 77: "ftruncate", 101: "ptrace", 135: "personality", 149: "mlock", 150: "munlock",
    151: "mlockall", 152: "munlockall", 157: "prctl", 158: "arch_prctl", 160: "setrlimit",
    216: "remap_file_pages", 231: "exit_group", 237: "mbind", 238: "set_mempolicy", 239: "get_mempolicy",
    256: "migrate_pages", 278: "vmsplice", 279: "move_pages", 285: "fallocate", 302: "prlimit64",
    310: "process_vm_readv", 311: "process_vm_writev", 319: "memfd_create", 322: "execveat",
    323: "userfaultfd", 325: "mlock2", 329: "pkey_mprotect", 330: "pkey_alloc", 331: "pkey_free",
    425: "io_uring_setup", 426: "io_uring_enter", 427: "io_uring_register", 435: "clone3",
    440: "process_madvise", 447: "memfd_secret", 448: "process_mrelease",
    450: "set_mempolicy_home_node", 453: "map_shadow_stack", 462: "mseal",
}  # fmt: skip

ADVICE: Final = {
    0: "MADV_NORMAL", 1: "MADV_RANDOM", 2: "MADV_SEQUENTIAL", 3: "MADV_WILLNEED", 4: "MADV_DONTNEED",
    8: "MADV_FREE", 9: "MADV_REMOVE", 10: "MADV_DONTFORK", 11: "MADV_DOFORK", 12: "MADV_MERGEABLE",
    13: "MADV_UNMERGEABLE", 14: "MADV_HUGEPAGE", 15: "MADV_NOHUGEPAGE", 16: "MADV_DONTDUMP",
    17: "MADV_DODUMP", 18: "MADV_WIPEONFORK", 19: "MADV_KEEPONFORK", 20: "MADV_COLD", 21: "MADV_PAGEOUT",
    22: "MADV_POPULATE_READ", 23: "MADV_POPULATE_WRITE", 24: "MADV_DONTNEED_LOCKED", 25: "MADV_COLLAPSE",
    100: "MADV_HWPOISON", 101: "MADV_SOFT_OFFLINE", 102: "MADV_GUARD_INSTALL", 103: "MADV_GUARD_REMOVE",
}  # fmt: skip

HARMLESS: Final = {
    26, 27, 29, 31, 56, 57, 58, 60, 77, 101, 135, 231, 238, 239, 256, 278, 279, 285, 319, 330, 331, 435, 447, 448,
    450, 462,
}  # fmt: skip
"""Calls that change no table of any mm that the recording does not tell in another row (fork is told by FORK).

Migration (256, 279), truncation and hole punching (77, 285) change entries and leave the tables."""


def name_of(nr: int, args: tuple[int, ...]) -> str:
    """The call with what tells its kinds apart: `madvise(MADV_DONTNEED)`."""
    if nr in (MADVISE, PROCESS_MADVISE):
        return _advised(nr, args[2 if nr == MADVISE else 3] & 0xFFFFFFFF)
    return NAMES.get(nr) or f"system call {nr}"


@lru_cache(256)
def _advised(nr: int, advice: int) -> str:
    return f"{NAMES[nr]}({ADVICE.get(advice, advice)})"

# SPDX-License-Identifier: GPL-2.0-only
"""What is recorded: the events that perf is asked for, the system calls, and what one learns from each.

Raw events travel as `Rows` too, with the kinds of `Raw`; record/pairing.py makes rows of a recording of them.
"""

from __future__ import annotations

from enum import IntEnum


class Raw(IntEnum):
    """Kinds of raw events that need their partners; MMAP, COMM, FORK, EXIT and LOST are as in `Kind`."""

    FAULT_ENTRY = 16  # a0 address, a1 x86 error code
    FAULT_DONE = 17  # a0 address, nr 0 minor 1 major
    SYS_ENTER = 18  # nr, a0..a5
    SYS_EXIT = 19  # nr, ret
    LOCKED = 20  # mmap_lock taken for writing
    NEWTASK = 21  # a2 clone flags


FAULTS_MINOR = "minor-faults"
FAULTS_MAJOR = "major-faults"
FAULT_USER = "exceptions:page_fault_user"
FAULT_KERNEL = "exceptions:page_fault_kernel"
SYS_ENTER = "raw_syscalls:sys_enter"
SYS_EXIT = "raw_syscalls:sys_exit"
MMAP_LOCK = "mmap_lock:mmap_lock_acquire_returned"
NEWTASK = "task:task_newtask"

EVENTS: dict[str, str] = {
    FAULTS_MINOR: "faults served without waiting: without them tables appear too early or not at all",
    FAULTS_MAJOR: "faults that waited for a disk: without them tables appear too early or not at all",
    FAULT_USER: "entries of faults from user mode: without them it is not known which faults wrote",
    FAULT_KERNEL: "entries of faults from kernel mode: without them it is not known which of these wrote",
    SYS_ENTER: "arguments of system calls: without them no table is ever freed in the replay",
    SYS_EXIT: "results of system calls: without them it is not known which of them failed",
    MMAP_LOCK: "the time at which a call takes mmap_lock: without it calls take effect at their return",
    NEWTASK: "clone flags: without them it is not known which children share their parent's memory",
}
"""The events by perf's names, and what their absence means."""

TRACEPOINT_FIELDS: dict[str, dict[str, tuple[int, ...]]] = {
    FAULT_USER: {"address": (8,), "error_code": (8,)},
    FAULT_KERNEL: {"address": (8,), "error_code": (8,)},
    SYS_ENTER: {"id": (8,), "args": (48,)},
    SYS_EXIT: {"id": (8,), "ret": (8,)},
    MMAP_LOCK: {"write": (1,), "success": (1,)},
    NEWTASK: {"clone_flags": (8, 4)},
}
"""The tracepoints' fields that are read, and the sizes in bytes that they may have."""

SYSCALLS: dict[int, str] = {
    9: "mmap",
    10: "mprotect",
    11: "munmap",
    12: "brk",
    25: "mremap",
    26: "msync",
    27: "mincore",
    28: "madvise",
    29: "shmget",
    30: "shmat",
    56: "clone",
    57: "fork",
    58: "vfork",
    59: "execve",
    60: "exit",
    67: "shmdt",
    76: "truncate",
    77: "ftruncate",
    149: "mlock",
    150: "munlock",
    151: "mlockall",
    152: "munlockall",
    157: "prctl",
    216: "remap_file_pages",
    231: "exit_group",
    237: "mbind",
    238: "set_mempolicy",
    239: "get_mempolicy",
    256: "migrate_pages",
    279: "move_pages",
    285: "fallocate",
    310: "process_vm_readv",
    311: "process_vm_writev",
    319: "memfd_create",
    322: "execveat",
    323: "userfaultfd",
    325: "mlock2",
    329: "pkey_mprotect",
    425: "io_uring_setup",
    426: "io_uring_enter",
    427: "io_uring_register",
    435: "clone3",
    440: "process_madvise",
    447: "memfd_secret",
    448: "process_mrelease",
    453: "map_shadow_stack",
    462: "mseal",
}
"""The x86-64 system calls that are recorded (arch/x86/entry/syscalls/syscall_64.tbl)."""

EXECS = (59, 322)
CLOCK_MONOTONIC = 1

FILTERS: dict[str, str] = {
    SYS_ENTER: "||".join(f"id=={nr}" for nr in SYSCALLS),
    SYS_EXIT: "||".join(f"id=={nr}" for nr in SYSCALLS),
    MMAP_LOCK: "write==1",
}
"""perf's --filter of each event that has one."""


def missing_events(have: set[str]) -> list[str]:
    """A sentence for each event that is not in `have`."""
    return [f"{name} was not recorded: {why}" for name, why in EVENTS.items() if name not in have]

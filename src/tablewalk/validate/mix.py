# SPDX-License-Identifier: GPL-2.0-only
"""How often the generator chooses what: kinds of operations, arguments, and arguments that are wrong."""

from __future__ import annotations

from . import generate_uffd

HUGE = 1 << 62

PROTS = (0, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 5, 7)
SIZES = (1, 1, 1, 2, 3, 4, 8, 16, 17, 64, 100)  # pages

# advice that works on pages, and advice that is kept in the VMA
ACTIONS = (4, 4, 4, 4, 8, 8, 9, 9, 20, 21, 22, 23, 24, 25, 25, 25, 3, 102, 103)
RECLAIM = (21, 21, 21, 21, 20, 4, 8, 3, 25)
HINTS = (0, 1, 2, 10, 11, 12, 13, 14, 14, 14, 14, 15, 16, 17, 18, 18, 18, 19)

WEIGHTS = {
    "anon": 10,
    "shared": 3,
    "file": 7,
    "munmap": 5,
    "mprotect": 6,
    "action": 22,
    "collapse": 4,
    "hint": 13,
    "move": 7,
    "resize": 3,
    "grow": 1.5,
    "lock": 3,
    "lockall": 1.6,
    "read": 9,
    "write": 20,
    "fill": 10,
    "sum": 2,
    "fork": 1.2,
    "exit": 1.5,
    "mbind": 1.5,
    "remap": 2.5,
    "truncate": 1.5,
    "punch": 2,
    "process_madvise": 7,
    "process_madvise_ranges": 1,
    "thp_disable": 1,
    "mergeable": 0,
    "ksmd": 0,
    "vfork": 0.8,
    "brk": 1.5,
    "stack": 0.6,
    "below": 1.5,
    "fallocate": 1.6,
    "pread": 0.7,
    "pwrite": 1.5,
    "msync": 1.2,
    "mincore": 1,
    "set_mempolicy": 1.1,
    "get_mempolicy": 0.8,
}

# What a focus makes more likely
FOCUS: dict[str, dict[str, float]] = {
    "ksm": {"mergeable": 14, "ksmd": 9, "fill": 25, "write": 30, "fork": 3, "exit": 2.5, "sum": 6, "process_madvise": 0,
            "process_madvise_ranges": 0, "reclaim": 0},
    "collapse": {"collapse": 30, "action": 30, "fill": 30, "hint": 14, "file": 12},
    "mremap": {"move": 40, "resize": 15, "grow": 10},
    "fork": {"fork": 8, "vfork": 4, "exit": 10, "write": 30},
    "files": {"file": 30, "truncate": 8, "punch": 10, "shared": 8, "fallocate": 8, "pwrite": 10, "pread": 4},
    "heap": {"brk": 25, "stack": 6, "below": 20, "munmap": 10},
    "policy": {"mbind": 20, "set_mempolicy": 5, "get_mempolicy": 8, "lock": 15, "lockall": 6, "thp_disable": 5},
    "threads": {"fork": 5, "vfork": 3, "exit": 6},
    "reclaim": {"reclaim": 40, "write": 30, "read": 14, "fill": 14, "fork": 4, "exit": 3.5, "sum": 5, "shared": 5},
    "vma": {"mprotect": 25, "munmap": 15, "hint": 20, "lock": 10, "mbind": 6},
    "uffd": generate_uffd.WEIGHTS,
}

# (mode with flags, nodes) of memory policies
POLICIES = ((0, 0), (0, 0), (1, 1), (2, 1), (3, 1), (4, 0), (1, 0), (0x8002, 1), (0x4003, 1), (5, 1), (2, 0), (0, 1))

# How often an argument is wrong, and of what is seldom done
WRONG = 0.05
WRONG_OF = {"pread": 0.15, "pwrite": 0.1, "fallocate": 0.1, "thp_disable": 0.1, "mlockall": 0.1}

# How often an operation is another thread's
THREADS = {"threads": 0.5}
SOME_THREADS = 0.03

# Arguments by their place, and what they are replaced by (an address: what is added to it).
SPOILERS: dict[str, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "mmap": ((0, (1, 2048)), (1, (0, HUGE)), (3, (0x10, 0x30, 0x1F)), (5, (1, 0x7FFFFFFFFFFFF000))),
    "munmap": ((0, (1, 2048)), (1, (0, HUGE))),
    "mprotect": ((0, (1, 2048)), (1, (0, HUGE)), (2, (0x1000000, 0x3000000))),
    "madvise": ((0, (1, 2048)), (1, (0, (1 << 64) - 4096)), (2, (5, 7, 99))),
    "mremap": ((0, (1, 2048)), (1, (0,)), (2, (0, HUGE)), (3, (2, 4, 8, 6))),
    "mlock": ((1, (0, HUGE)),),
    "mlockall": ((0, (4, 8)),),
    "mlock2": ((2, (2, 3)), (1, (0, HUGE))),
    "munlock": ((1, (0, HUGE)),),
    "mbind": ((0, (1, 2048)), (2, (9, 0xC002, 4)), (1, (0,)), (3, (0, 2)), (4, (8,))),
    "set_mempolicy": ((0, (9, 0xC002)), (1, (0, 2, 1))),
    "get_mempolicy": ((1, (8, 5, 1)),),
    "msync": ((0, (1, 2048)), (2, (5, 8)), (1, (HUGE,))),
    "mincore": ((0, (1, 2048)),),
    "pread": ((1, (1 << 63,)), (0, (9,))),
    "pwrite": ((1, (1 << 63,)), (0, (9,))),
    "fallocate": ((3, (0, 1 << 63)), (1, (8, 0x10, 2))),
    "thp_disable": ((1, (1, 4)),),
    "process_madvise_ranges": ((1, (1,)), (3, (1,)), (5, (99,))),
    "remap_file_pages": ((1, (0, 1)), (2, (1,))),
    "ftruncate": ((1, (1 << 63,)),),
    "punch": ((2, (0,)),),
    "process_madvise": ((1, (1,)), (3, (99,))),
    **generate_uffd.SPOILERS,
}

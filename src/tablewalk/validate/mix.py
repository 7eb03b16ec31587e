# SPDX-License-Identifier: GPL-2.0-only
"""How often the generator chooses what: kinds of operations, arguments, and arguments that are wrong."""

from __future__ import annotations

from . import generate_uffd

HUGE = 1 << 62
LAST_OFFSET = (1 << 63) - 4096

PROTS = (0, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 5, 7)
SIZES = (1, 1, 1, 2, 3, 4, 8, 16, 17, 64, 100)  # pages

# Advice with its weight: what works on pages, what is kept in the VMA, and what process_madvise is asked for
ACTIONS = {
    3: 1.2, 4: 4, 8: 2, 9: 3.4, 20: 1.6, 21: 1.3, 22: 1.3, 23: 1.5, 24: 1.1, 25: 1, 102: 1.5, 103: 1.2
}  # fmt: skip
RECLAIM = {3: 1, 4: 1, 8: 1, 20: 1, 21: 4, 25: 1}
HINTS = {
    0: 1.5, 1: 1.4, 2: 1.4, 10: 1.6, 11: 1.3, 12: 1.4, 13: 1.6, 14: 4, 15: 1.7, 16: 1.4, 17: 1.6, 18: 1.7, 19: 1.3
}  # fmt: skip
PROCESS_ADVICE = {3: 1.1, 4: 1.3, 8: 1.7, 14: 1.2, 20: 1.3, 21: 1.3, 25: 4}
RANGES_ADVICE = {3: 1, 4: 1, 8: 1, 14: 1, 20: 2, 21: 2, 25: 1}

WEIGHTS = {
    "anon": 10,
    "shared": 3,
    "file": 7,
    "munmap": 5,
    "mprotect": 6,
    "action": 24,
    "collapse": 4,
    "hint": 20,
    "move": 7,
    "resize": 3,
    "grow": 2,
    "lock": 5.9,
    "lockall": 3,
    "read": 9,
    "write": 20,
    "fill": 10,
    "sum": 2,
    "fork": 1.8,
    "exit": 2.2,
    "mbind": 1.6,
    "remap": 2.5,
    "truncate": 1.5,
    "punch": 2,
    "process_madvise": 16,
    "process_madvise_ranges": 2,
    "thp_disable": 1.6,
    "mergeable": 0,
    "ksmd": 0,
    "vfork": 1.4,
    "brk": 2.8,
    "stack": 0.6,
    "below": 1.5,
    "fallocate": 3,
    "pread": 1.5,
    "pwrite": 1.5,
    "msync": 2,
    "mincore": 1.6,
    "set_mempolicy": 1.2,
    "get_mempolicy": 1.3,
    "mseal": 0,
    "pagemap_scan": 3.4,
    "clear_refs": 2.5,
}

# What a focus makes more likely
FOCUS: dict[str, dict[str, float]] = {
    "ksm": {
        "mergeable": 14,
        "ksmd": 9,
        "fill": 25,
        "write": 30,
        "fork": 3,
        "exit": 2.5,
        "sum": 6,
        "process_madvise": 0,
        "process_madvise_ranges": 0,
        "reclaim": 0,
    },
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

# Share of programs that have userfaultfds too, with the weights that `--focus uffd` gives them
WITH_UFFD = 0.5

# Share of programs that seal memory, and how often those do: it cannot be had back
WITH_SEALS = 0.25
SEALS = 5.5

# Of PAGEMAP_SCAN: flags, pages at most, ranges at most, and sets of categories
SCAN_FLAGS = (0, 0, 0, 0, 1, 1, 1, 2, 3)
SCAN_PAGES = (0, 0, 0, 1, 5, 100, 513)
SCAN_RANGES = (64, 64, 64, 1, 2, 5)
SCAN_SETS = (0, 0, 0, 0, 2, 8, 4, 10, 1, 16, 0x100, 0x40)
ALL_CATEGORIES = 0x1FF

# How often an argument is wrong, and of what is seldom done
WRONG = 0.05
WRONG_OF = {
    "pread": 0.2, "pwrite": 0.1, "fallocate": 0.14,
    "thp_disable": 0.12, "mlockall": 0.12, "madvise": 0.1, "mincore": 0.12, "mseal": 0.1, "pagemap_scan": 0.1,
    "get_mempolicy": 0.14, "process_madvise": 0.08, "process_madvise_ranges": 0.1, "uffd_open": 0.1, "uffd_close": 0.15,
    "uffd_wake": 0.16, "mmap": 0.04, "clear_refs": 0.1,
}  # fmt: skip

# How often an operation is another thread's
THREADS = {"threads": 0.5}
SOME_THREADS = 0.03

# Arguments by their place, and what they are replaced by (an address: what is added to it).
SPOILERS: dict[str, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "mmap": ((0, (1, 2048)), (1, (0, HUGE)), (3, (0x10, 0x30, 0x1F)), (5, (1, LAST_OFFSET))),
    "munmap": ((0, (1, 2048)), (1, (0, HUGE))),
    "mprotect": ((0, (1, 2048)), (1, (0, HUGE)), (2, (0x1000000, 0x3000000))),
    "madvise": (*((0, (1, 2048)), (1, ((1 << 64) - 4096,))) * 3, (1, (0,)), (2, (5, 7, 99))),
    "mremap": ((0, (1, 2048)), (1, (0,)), (2, (0, HUGE)), (3, (2, 4, 8, 6))),
    "mlock": ((1, (0, HUGE)),),
    "mlockall": ((0, (4, 8)),),
    "mlock2": ((2, (2, 3)), (1, (0, HUGE))),
    "munlock": ((1, (0, HUGE)),),
    "mbind": ((0, (1, 2048)), (2, (9, 0xC002, 4)), (1, (0,)), (3, (0, 2)), (4, (8,))),
    "set_mempolicy": ((0, (9, 0xC002)), (1, (0, 2, 1))),
    "get_mempolicy": ((1, (8, 5, 1)),),
    "mseal": ((0, (1, 2048)), (1, (HUGE,)), (2, (1,))),
    "pagemap_scan": ((0, (1, 2048)), (1, (HUGE,)), (2, (4, 8)), (8, (1 << 9, 1 << 20))),
    "clear_refs": ((0, (0, 6, 99)),),
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
    "process_madvise": ((1, (1,)), (1, (1,)), (3, (99,))),
    **generate_uffd.SPOILERS,
}

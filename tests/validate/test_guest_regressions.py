# SPDX-License-Identifier: GPL-2.0-only
"""Programs on which the model once disagreed with a kernel that only QEMU runs, reduced; it agrees now."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tablewalk.machine.drivers import fastest
from tablewalk.validate.compare import Comparison
from tablewalk.validate.kernels import Kernel
from tablewalk.validate.ops import Op
from tablewalk.validate.setup import setup

ANON, SHARED, FILE = 0x32, 0x31, 0x11
NO_FILE = (1 << 64) - 1


def soft_dirty(at: int) -> list[Op]:
    """fork and mprotect take the right to write, and give it back."""
    return [
        Op(0, "reset"),
        Op(0, "mmap", (at, 0x40000, 3, ANON, NO_FILE, 0)),
        Op(0, "fill", (at, 0x40000, 0x10000, 5)),
        Op(0, "clear_refs", (4,)),
        Op(0, "write", (at, 6)),
        Op(0, "mprotect", (at, 0x40000, 1)),
        Op(0, "mprotect", (at, 0x40000, 3)),
        Op(0, "write", (at + 0x10000, 6)),
        Op(0, "fork", (1,)),
        Op(1, "clear_refs", (4,)),
        Op(1, "write", (at + 0x20000, 6)),
        Op(0, "write", (at + 0x30000, 6)),
    ]


def marked_page(at: int, *ops: Op) -> list[Op]:
    """A dirty page that was to be paged out is marked for it, and only mapped around a fault if `ops` end that."""
    return [
        Op(0, "reset"),
        Op(0, "mmap", (at, 0x4000, 3, FILE, 2, 0)),
        Op(0, "madvise", (at, 0x4000, 1)),
        Op(0, "write", (at, 7)),
        Op(0, "madvise", (at, 0x4000, 21)),
        *ops,
        Op(0, "mmap", (at + 0x200000, 0x4000, 3, FILE, 2, 0)),
        Op(0, "read", (at + 0x202000,)),
    ]


# A page leaves one of KSM that as many share as may, and has the same contents again: has it room?
KSM_WITH_ROOM = [
    Op(0, "reset"),
    Op(0, "mmap", (0x10003F400000, 0x100000, 3, ANON, NO_FILE, 0)),
    Op(0, "madvise", (0x10003F400000, 0x100000, 12)),
    Op(0, "fill", (0x10003F400000, 0x100000, 0x1000, 7)),
    Op(0, "ksm", (2,)),
    Op(0, "write", (0x10003F40A000, 7)),
    Op(0, "ksm", (1,)),
    Op(0, "ksm", (1,)),
]


# Entries of a large folio that is dirty are dirty from 7.0 on, and mprotect makes them soft-dirty with each other.
MAPPED_DIRTY = [
    Op(0, "reset"),
    Op(0, "mmap", (0x100040000000, 0x800000, 3, FILE, 0, 0)),
    Op(0, "fill", (0x100040200000, 0x200000, 0x10000, 7)),
    Op(0, "madvise", (0x100040200000, 0x200000, 25)),
    Op(0, "remap_file_pages", (0x100040600000, 0x200000, 0, 0x1EA, 0)),
    Op(0, "clear_refs", (4,)),
    Op(0, "mprotect", (0x100040400000, 0x400000, 7)),
]


MARKED_PAGES = [
    op
    for ops in ([], [Op(0, "write", (0x10003F400000, 8))], [Op(0, "pread", (2, 0))], [Op(0, "pwrite", (2, 0, 9))])
    for op in marked_page(0x10003F400000, *ops)
]


PROGRAMS = {
    # 6.1.176: MREMAP_DONTUNMAP of a part unlocks all of the VMA, the copy may merge with it, and what is left empty
    # keeps the page offset that its pages had.
    "ppc64le-6.1": [
        Op(0, "reset"),
        Op(0, "mmap", (0x100041E00000, 0x100000, 3, SHARED, NO_FILE, 0)),
        Op(0, "mlock", (0x100041E00000, 0x100000)),
        Op(0, "mremap", (0x100041E40000, 0x40000, 0x40000, 7, 0x100040E00000)),
        Op(0, "mmap", (0x100041000000, 0x20000, 3, ANON, NO_FILE, 0)),
        Op(0, "mremap", (0x100041000000, 0x20000, 0x20000, 7, 0x100041020000)),
        Op(0, "mmap", (0x100041200000, 0x20000, 3, ANON, NO_FILE, 0)),
        Op(0, "write", (0x100041200000, 1)),
        Op(0, "mremap", (0x100041200000, 0x20000, 0x20000, 3, 0x100041400000)),
        Op(0, "mremap", (0x100041400000, 0x20000, 0x20000, 7, 0x100041600000)),
        Op(0, "mmap", (0x100041420000, 0x20000, 3, ANON, NO_FILE, 0)),
        # A huge page of shmem is split although there is no swap to page it out to.
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F400000, 0x400000, 3, SHARED, NO_FILE, 0)),
        Op(0, "fill", (0x10003F400000, 0x200000, 0x40000, 7)),
        Op(0, "madvise", (0x10003F400000, 0x200000, 25)),
        Op(0, "madvise", (0x10003F400000, 0x400000, 21)),
        Op(0, "mlock", (0x10003F400000, 0x400000)),
    ],
    # Whether others map a huge page is asked of its first page only.
    "x86_64-6.1": [
        op
        for page, advice in ((0x2A8, 20), (0x200, 20), (0x204, 21))
        for op in (
            Op(0, "reset"),
            Op(0, "mmap", (0x10003F400000, 0x200000, 3, FILE, 0, 0x200000)),
            Op(0, "fill", (0x10003F400000, 0x200000, 0x40000, 7)),
            Op(0, "madvise", (0x10003F400000, 0x200000, 25)),
            Op(0, "mmap", (0x10003F800000, 0x1000, 3, FILE, 0, page << 12)),
            Op(0, "read", (0x10003F800000,)),
            Op(0, "madvise", (0x10003F403000, 0x1000, advice)),
            Op(0, "read", (0x10003F404000,)),
            Op(0, "madvise", (0x10003F400000, 0x200000, advice)),
        )
    ]
    + [
        # smaps does not see a huge page without permissions.
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F400000, 0x400000, 3, ANON, NO_FILE, 0)),
        Op(0, "madvise", (0x10003F400000, 0x400000, 14)),
        Op(0, "write", (0x10003F400000, 7)),
        Op(0, "mprotect", (0x10003F400000, 0x200000, 0)),
        # Holes that a userfaultfd is to be told of are filled by MADV_COLLAPSE, and it is never EBUSY.
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F400000, 0x400000, 3, FILE, 0, 0)),
        Op(0, "uffd_open", (1, 14, 0)),
        Op(0, "fill", (0x10003F400000, 0x400000, 0x40000, 7)),
        Op(0, "uffd_register", (0x10003F600000, 0x200000, 7, 0)),
        Op(0, "madvise", (0x10003F400000, 0x400000, 25)),
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F400000, 0x200000, 3, ANON, NO_FILE, 0)),
        Op(0, "write", (0x10003F400000, 7)),
        Op(0, "uffd_open", (1, 14, 0)),
        Op(0, "uffd_register", (0x10003F400000, 0x200000, 1, 0)),
        Op(0, "madvise", (0x10003F400000, 0x200000, 25)),
        # VMAs that merge since they are registered are as soft-dirty as the one that was.
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F400000, 0x3000, 3, ANON, NO_FILE, 0)),
        Op(0, "uffd_open", (1, 14, 0)),
        Op(0, "uffd_register", (0x10003F400000, 0x3000, 1, 0)),
        Op(0, "clear_refs", (4,)),
        Op(0, "mmap", (0x10003F401000, 0x1000, 3, ANON, NO_FILE, 0)),
        Op(0, "uffd_register", (0x10003F401000, 0x1000, 1, 0)),
        # What userfaultfd no longer protects is writable at once, and the first write is not seen.
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F400000, 0x1000, 3, FILE, 0, 0)),
        Op(0, "write", (0x10003F400000, 7)),
        Op(0, "uffd_open", (1, 14, 0)),
        Op(0, "uffd_register", (0x10003F400000, 0x1000, 2, 0)),
        Op(0, "clear_refs", (4,)),
        Op(0, "uffd_unregister", (0x10003F400000, 0x1000, 0)),
        Op(0, "write", (0x10003F400000, 8)),
    ]
    + MARKED_PAGES
    + KSM_WITH_ROOM
    + MAPPED_DIRTY,
    # vm_page_prot may be older than the VMA's flags: entries are writable though their first write is to be seen.
    "x86_64-6.12": [
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F400000, 0x2000, 3, FILE, 0, 0)),
        Op(0, "madvise", (0x10003F400000, 0x2000, 1)),
        Op(0, "clear_refs", (4,)),
        Op(0, "mmap", (0x10003F402000, 0x2000, 3, FILE, 0, 0x2000)),
        Op(0, "madvise", (0x10003F400000, 0x2000, 0)),
        Op(0, "read", (0x10003F403000,)),
        Op(0, "write", (0x10003F403000, 7)),
        Op(0, "read", (0x10003F401000,)),
        Op(0, "write", (0x10003F401000, 7)),
    ],
    # A file without a name gets huge pages beyond its end, if a smaller folio lies within (huge=within_size).
    "x86_64-7.x": [
        op
        for size in (1025, 1026, 1064, 1536)
        for op in (
            Op(0, "reset"),
            Op(0, "ftruncate", (5, size << 12)),
            Op(0, "mmap", (0x10003F400000, 0x401000, 7, FILE, 5, 0x200000)),
            Op(0, "fill", (0x10003F400000, 0x400000, 0x200000, 0)),
        )
    ]
    # Dirty pages of a file are written, and then collapsed if the file has enough of them.
    + [
        op
        for size in (96 << 12, 0x400000)
        for op in (
            Op(0, "reset"),
            Op(0, "ftruncate", (2, size)),
            Op(0, "mmap", (0x10003F400000, 0x400000, 3, FILE, 2, 0)),
            Op(0, "madvise", (0x10003F401000, 0x1000, 25)),
            Op(0, "fill", (0x10003F400000, 0x40000, 0x1000, 7)),
            Op(0, "madvise", (0x10003F400000, 0x400000, 25)),
            Op(0, "write", (0x10003F400000, 7)),
            Op(0, "madvise", (0x10003F400000, 0x400000, 25)),
            Op(0, "sum", (0x10003F400000, 0x40000)),
        )
    ]
    # Pages of a file that were written are clean, and can be reclaimed, one by one or as a huge page.
    + [
        op
        for size in (96 << 12, 0x400000)
        for length in (0x400000, 0x200000, 0x8000)
        for op in (
            Op(0, "reset"),
            Op(0, "ftruncate", (2, size)),
            Op(0, "mmap", (0x10003F400000, 0x400000, 3, FILE, 2, 0)),
            Op(0, "madvise", (0x10003F400000, 0x400000, 25)),
            Op(0, "ftruncate", (2, size)),
            Op(0, "fill", (0x10003F400000, size, 0x10000, 0)),
            Op(0, "write", (0x10003F401000, 7)),
            Op(0, "madvise", (0x10003F400000, length, 21)),
            Op(0, "fill", (0x10003F400000, size, 0x10000, 0)),
            Op(0, "sum", (0x10003F400000, size)),
        )
    ]
    # A huge page that the file system has still to write is not split; where the file ends in it it is unmapped.
    + [
        op
        for locked in ([], [Op(0, "mlock", (0x10003F400000, 0x400000))])
        for written in ([], [Op(0, "write", (0x10003F401000, 7))])
        for op in (
            Op(0, "reset"),
            Op(0, "ftruncate", (2, 0x400000)),
            Op(0, "mmap", (0x10003F400000, 0x400000, 3, FILE, 2, 0)),
            Op(0, "madvise", (0x10003F400000, 0x400000, 25)),
            *locked,
            *written,
            Op(0, "madvise", (0x10003F404000, 0x1000, 20)),
            Op(0, "ftruncate", (2, 0x148000)),
            Op(0, "read", (0x10003F410000,)),
            Op(0, "ftruncate", (2, 0x400000)),
            Op(0, "fill", (0x10003F400000, 0x400000, 0x40000, 0)),
            Op(0, "madvise", (0x10003F500000, 0x41000, 21)),
            Op(0, "punch", (2, 0x100000, 0x8000)),
            Op(0, "sum", (0x10003F400000, 0x400000)),
            Op(0, "madvise", (0x10003F400000, 0x400000, 25)),
            Op(0, "sum", (0x10003F400000, 0x400000)),
        )
    ]
    + MARKED_PAGES
    + KSM_WITH_ROOM
    + MAPPED_DIRTY,
    # Software makes pages dirty where the hardware cannot, and soft-dirty with them.
    "ppc64le-7.x": soft_dirty(0x10003F400000),
    # Where the CPU has no huge pages there is advice about them nevertheless.
    "s390x-6.1": [
        Op(0, "reset"),
        Op(0, "mmap", (0x403FC00000, 0x300000, 3, ANON, NO_FILE, 0)),
        Op(0, "madvise", (0x403FC00000, 0x200000, 14)),
        Op(0, "madvise", (0x403FC00000, 0x100000, 15)),
        Op(0, "fill", (0x403FC00000, 0x300000, 0x1000, 5)),
        Op(0, "madvise", (0x403FC00000, 0x300000, 25)),
        Op(0, "madvise", (0x4040600000, 0x100000, 25)),
    ],
    "s390x-7.x": [
        # A file that was truncated to nothing is closed: ext4 would allocate blocks, which QEMU cannot do there.
        Op(0, "reset"),
        Op(0, "ftruncate", (2, 0)),
        Op(0, "ftruncate", (2, 0x1000)),
        # Any address is user space's, also a range that ends before it begins.
        Op(0, "reset"),
        Op(0, "mmap", (0x403FC00000, 0x10000, 3, ANON, NO_FILE, 0)),
        Op(0, "fill", (0x403FC00000, 0x10000, 0x1000, 5)),
        Op(0, "pagemap_scan", (0x403FC00000, 0x10000, 0, 0, 5, 0, 0, 0, 0x18)),
        Op(0, "pagemap_scan", (0x403FC00000, (1 << 64) - (1 << 16), 0, 0, 5, 0, 0, 0, 0x18)),
        Op(0, "mlock", (0x403FC01000, (1 << 64) - (1 << 16))),
        Op(0, "munlock", (0x403FC01000, (1 << 64) - (1 << 16))),
        Op(0, "mmap", (0x403FD00000, (1 << 64) - (1 << 16), 3, 0x12, 2, 0x14000)),
        *soft_dirty(0x403FC00000),
    ],
    # The CPU takes the top byte of an address for a tag: the range is empty.
    "arm64-7.x": [
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F000000, 0x10000, 3, ANON, NO_FILE, 0)),
        Op(0, "fill", (0x10003F000000, 0x10000, 0x1000, 5)),
        Op(0, "pagemap_scan", (0x10003F000000, 1 << 62, 0, 0, 5, 0, 0, 0, 0x18)),
        # The heap has VM_MTE_ALLOWED, what is mapped has not, and they do not merge.
        Op(0, "reset"),
        Op(0, "brk", (0x100041405000,)),
        Op(0, "mmap", (0x100041405000, 0x1000, 3, ANON, NO_FILE, 0)),
        Op(0, "brk", (0x100041405000,)),
    ],
    # A huge page's bytes, in units of Pss, are more than a word has.
    "arm-lpae-6.1": [
        Op(0, "reset"),
        Op(0, "mmap", (0x40400000, 0x400000, 3, ANON, NO_FILE, 0)),
        Op(0, "madvise", (0x40400000, 0x400000, 14)),
        Op(0, "fill", (0x40400000, 0x400000, 0x200000, 5)),
        Op(0, "mlock", (0x40400000, 0x201000)),
        Op(0, "fork", (1,)),
        Op(1, "madvise", (0x40400000, 0x200000, 4)),
        Op(1, "exit"),
        Op(0, "mmap", (0x40C00000, 0x200000, 3, ANON, NO_FILE, (1 << 31) - 4096)),
        Op(0, "mprotect", (0x40400000, 1 << 31, 1)),
        Op(0, "munlock", (0x40400000, 1 << 31)),
        Op(0, "munmap", (0x40400000, 1 << 31)),
    ],
}


@pytest.mark.kernels
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_guest_agrees(name: str, kernel_here: Callable[[str], Kernel]) -> None:
    comparison = Comparison(setup(kernel_here(name)), fastest(), 120)
    assert next(comparison.compare([PROGRAMS[name]])).report == []

# SPDX-License-Identifier: GPL-2.0-only
"""The process that the tests look at: runs each line of its standard input, and answers with `reply` as JSON.

The mapping under test stands at AREA, where nothing else is: a 512 GiB region with its own PMD and PUD table.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import struct
import sys

PAGE, M, G = 4096, 1 << 21, 1 << 30
AREA = 0x100000000000
RW, NONE, RO = 3, 0, 1
ANON, SHARED_ANON, SHARED, PRIVATE = 0x4022, 0x4021, 0x1, 0x2  # MAP_NORESERVE with the anonymous ones
DONTNEED, FREE, REMOVE, HUGEPAGE, NOHUGEPAGE, PAGEOUT, GUARD_INSTALL = 4, 8, 9, 14, 15, 21, 102

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_size_t
libc.mmap.argtypes = [ctypes.c_size_t, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


def check(result: int) -> int:
    if result in (-1, ctypes.c_size_t(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def area(size: int, flags: int = ANON, prot: int = RW, at: int = 0, fd: int = -1, offset: int = 0) -> None:
    """mmap(2) at AREA + `at`."""
    check(libc.mmap(AREA + at, size, prot, flags | 0x100000, fd, offset))  # MAP_FIXED_NOREPLACE


def madvise(at: int, size: int, advice: int) -> None:
    check(libc.madvise(ctypes.c_size_t(AREA + at), ctypes.c_size_t(size), advice))


def call(name: str, at: int, *args: int) -> int:
    """A libc function whose first argument is an address in the area and the second a size."""
    return check(getattr(libc, name)(ctypes.c_size_t(AREA + at), *map(ctypes.c_size_t, args)))


def touch(at: int, size: int, step: int = PAGE, write: bool = True) -> None:
    for address in range(AREA + at, AREA + at + size, step):
        if write:
            ctypes.memset(address, 1, 1)
        else:
            ctypes.c_char.from_address(address).value  # noqa: B018


def memfd(size: int) -> int:
    fd = os.memfd_create("victim")
    os.ftruncate(fd, size)
    return fd


def protect_unpopulated(at: int, size: int) -> None:
    """userfaultfd write protection of addresses that have no page: a marker in each entry."""
    fd = check(libc.syscall(323, os.O_CLOEXEC))
    api = (ctypes.c_uint64 * 3)(0xAA, 1 << 13, 0)  # UFFD_FEATURE_WP_UNPOPULATED
    check(libc.ioctl(fd, ctypes.c_ulong(0xC018AA3F), api))
    register = (ctypes.c_uint64 * 4)(AREA + at, size, 2, 0)  # UFFDIO_REGISTER_MODE_WP
    check(libc.ioctl(fd, ctypes.c_ulong(0xC020AA00), register))
    protect = (ctypes.c_uint64 * 3)(AREA + at, size, 1)  # UFFDIO_WRITEPROTECT_MODE_WP
    check(libc.ioctl(fd, ctypes.c_ulong(0xC018AA06), protect))


def ring_buffer(at: int, pages: int) -> None:
    """A perf event's buffer, which the kernel maps by page frame number (VM_PFNMAP, Linux 6.15)."""
    attr = struct.pack("IIQ", 1, 64, 9).ljust(64, b"\0")  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY
    fd = check(libc.syscall(298, attr, 0, -1, -1, 0))
    area((1 + pages) * PAGE, SHARED, at=at, fd=fd)


def main() -> None:
    assert mmap.PAGESIZE == PAGE
    # pages that wait in the batch of another CPU (mm/swap.c) would be passed over by MADV_PAGEOUT
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    names = dict(globals())
    for line in sys.stdin:
        names["reply"] = None
        try:
            exec(line, names)
        except OSError as e:
            names["reply"] = {"errno": e.errno}
        print(json.dumps(names["reply"]), flush=True)


if __name__ == "__main__":
    main()

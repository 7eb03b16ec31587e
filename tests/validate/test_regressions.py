# SPDX-License-Identifier: GPL-2.0-only
"""Programs on which the model once disagreed with a kernel, reduced; it agrees with the running one now."""

from __future__ import annotations

import os
import platform
import shutil
import sys

import pytest

from tablewalk.validate.compare import host_difference
from tablewalk.validate.ops import Op

NO_FILE = (1 << 64) - 1

PROGRAMS = {
    # A huge page that was given up is dropped page by page in 6.18, and its table stays.
    "pageout-of-a-huge-page-given-up": [
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F000000, 0x600000, 3, 0x32, NO_FILE, 0)),
        Op(0, "madvise", (0x10003F000000, 0x600000, 14)),
        Op(0, "write", (0x10003F200000, 1)),
        Op(0, "madvise", (0x10003F200000, 0x200000, 8)),
        Op(0, "madvise", (0x10003F200000, 0x200000, 21)),
    ],
    # Pages of a large folio that one mm alone maps again are written in place: MADV_COLD finds and splits the folio.
    "write-to-a-large-folio-had-alone": [
        Op(0, "reset"),
        Op(0, "mmap", (0x100041000000, 0x600000, 3, 0x32, NO_FILE, 0)),
        Op(0, "madvise", (0x100041000000, 0x600000, 14)),
        Op(0, "write", (0x100041200000, 1)),
        Op(0, "madvise", (0x100041200000, 0x1000, 4)),
        Op(0, "fork", (1,)),
        Op(1, "munmap", (0x100041000000, 0x600000)),
        Op(0, "madvise", (0x100041200000, 0x200000, 23)),
        Op(0, "madvise", (0x100041200000, 0x200000, 20)),
    ],
    # Beyond the end of a file a huge page may be cached: up to 6.18 UFFDIO_COPY looks at the size first.
    "copy-beyond-the-end-into-a-huge-page": [
        Op(0, "reset"),
        Op(0, "mmap", (0x10003FA00000, 0x600000, 3, 0x11, 1, 0)),
        Op(0, "fill", (0x10003FE00000, 0x1000, 0x1000, 1)),
        Op(0, "fork", (1,)),
        Op(0, "madvise", (0x10003FE00000, 0x200000, 25)),
        Op(1, "uffd_open", (0, 0, 2)),
        Op(1, "uffd_register", (0x10003FC00000, 0x400000, 2, 2)),
        Op(1, "uffd_copy", (0x10003FEA8000, 0x10003FA00000, 0x1000, 0, 2)),
    ],
    # A neighbour's anon_vma is taken although the neighbour has guards: that does not keep VMAs from merging.
    "anon-vma-beside-guards": [
        Op(0, "reset"),
        Op(0, "mmap", (0x100040A00000, 0x200000, 0, 0x32, NO_FILE, 0)),
        Op(0, "madvise", (0x100040A00000, 0x1000, 102)),
        Op(0, "mprotect", (0x100040A00000, 0x200000, 3)),
        Op(0, "mprotect", (0x100040A00000, 0x200000, 1)),
        Op(0, "mmap", (0x100040C00000, 0x1000, 3, 0x8032, NO_FILE, 0)),
        Op(0, "mprotect", (0x100040B9F000, 0x1FF000, 1)),
    ],
    # What mprotect() populates of locked memory does not wait for a userfaultfd.
    "mprotect-of-locked-memory-of-userfaultfd": [
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F000000, 0x4000, 0, 0x32, NO_FILE, 0)),
        Op(0, "mlock", (0x10003F000000, 0x4000)),
        Op(0, "uffd_open", (0, 0, 0)),
        Op(0, "uffd_register", (0x10003F000000, 0x4000, 1, 0)),
        Op(0, "mprotect", (0x10003F000000, 0x4000, 3)),
        Op(0, "mlock", (0x10003F000000, 0x2000)),
    ],
    # A size that stays as it was drops what fallocate() keeps beyond the end.
    "ftruncate-to-the-same-size": [
        Op(0, "reset"),
        Op(0, "ftruncate", (0, 0x4000)),
        Op(0, "fallocate", (0, 1, 0x2000, 0x4000)),
        Op(0, "ftruncate", (0, 0x4000)),
        Op(0, "ftruncate", (0, 0x8000)),
        Op(0, "mmap", (0x10003F000000, 0x8000, 3, 0x11, 0, 0)),
        Op(0, "fill", (0x10003F000000, 0x4000, 0x1000, 0)),
    ],
    # The kernel tries for ever to put guards where markers of userfaultfd are that its zap leaves.
    "guards-among-markers": [
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F000000, 0x2000, 3, 0x31, NO_FILE, 0)),
        Op(0, "write", (0x10003F001000, 1)),
        Op(0, "uffd_open", (0, 0, 0)),
        Op(0, "uffd_register", (0x10003F000000, 0x2000, 2, 0)),
        Op(0, "uffd_writeprotect", (0x10003F000000, 0x2000, 1, 0)),
        Op(0, "madvise", (0x10003F000000, 0x2000, 102)),
        Op(0, "madvise", (0x10003F001000, 0x1000, 102), 1),
        Op(0, "read", (0x10003F000000,)),
    ],
    # What is left of a folio that a hole was made in is dirty, though nobody wrote to it: without swap it stays.
    "pageout-of-what-a-hole-left": [
        Op(0, "reset"),
        Op(0, "mmap", (0x100041A00000, 0x600000, 3, 0x13, 4, 0)),
        Op(0, "fill", (0x100041E00000, 0x1000, 0x1000, 0)),
        Op(0, "remap_file_pages", (0x100041A00000, 0x7B000, 0, 0x3EC, 0)),
        Op(0, "madvise", (0x100041A00000, 0x13A000, 9)),
        Op(0, "read", (0x100041F03000,)),
        Op(0, "process_madvise", (0, 0x100041A00000, 0x600000, 21)),
    ],
    # MADV_COLD splits a huge page that lies, moved, in tables far from each other: nobody else maps it.
    "cold-of-a-moved-huge-page": [
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F000000, 0x3000000, 3, 0x32, NO_FILE, 0)),
        Op(0, "madvise", (0x10003F000000, 0x3000000, 14)),
        Op(0, "madvise", (0x100040800000, 0x1000, 23)),
        Op(0, "mremap", (0x1000407EC000, 0x200000, 0x200000, 3, 0x100040200000)),
        Op(0, "madvise", (0x100040200000, 0x200000, 20)),
    ],
    # MREMAP_DONTUNMAP unlocks all of the VMA that it takes a part of, but not the pages that it leaves there.
    "pageout-of-pages-that-stay-locked": [
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F800000, 0x600000, 3, 0x32, NO_FILE, 0)),
        Op(0, "madvise", (0x10003F800000, 0x600000, 14)),
        Op(0, "write", (0x10003FA00000, 1)),
        Op(0, "mlock", (0x10003F800000, 0x600000)),
        Op(0, "mremap", (0x10003FC00000, 0x200000, 0x200000, 7, 0x100040400000)),
        Op(0, "madvise", (0x10003FA00000, 0x200000, 21)),
    ],
    # A large folio has slots for two address spaces: the third seems to share it even when the others have gone.
    "pageout-by-the-third-address-space": [
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F800000, 0x200000, 3, 0x32, NO_FILE, 0)),
        Op(0, "madvise", (0x10003F800000, 0x200000, 14)),
        Op(0, "write", (0x10003F800000, 1)),
        Op(0, "fork", (1,)),
        Op(0, "fork", (2,)),
        Op(0, "munmap", (0x10003F800000, 0x200000)),
        Op(1, "exit"),
        Op(2, "mprotect", (0x10003F800000, 0x1000, 1)),
        Op(2, "madvise", (0x10003F801000, 0x2000, 21)),
        Op(2, "munmap", (0x10003F802000, 0x1FE000)),
        Op(2, "munmap", (0x10003F800000, 0x1000)),
        Op(2, "madvise", (0x10003F801000, 0x1000, 21)),
    ],
    # A page that fallocate() keeps beyond the file's end is not valid, so it does not collapse.
    "collapse-beyond-the-end": [
        Op(0, "reset"),
        Op(0, "ftruncate", (0, 0)),
        Op(0, "fallocate", (0, 1, 0x200000, 0x1000)),
        Op(0, "mmap", (0x10003FE00000, 0x200000, 3, 0x11, 0, 0x200000)),
        Op(0, "madvise", (0x10003FE00000, 0x200000, 25)),
    ],
    # Which of a wrong mode and a file that is not open for writing is said.
    "fallocate-wrong-twice": [
        Op(0, "reset"),
        Op(0, "fallocate", (3, 0x10, 0, 0x1000)),
        Op(0, "fallocate", (3, 2, 0, 0x1000)),
        Op(0, "fallocate", (0, 8, 0, 0x1000)),
    ],
    # UFFDIO_CONTINUE beyond the end of the file.
    "continue-beyond-the-end": [
        Op(0, "reset"),
        Op(0, "uffd_open", (0, 0, 1)),
        Op(0, "ftruncate", (1, 0)),
        Op(0, "mmap", (0x100040800000, 0x1000, 1, 0x12, 1, 0)),
        Op(0, "uffd_register", (0x100040800000, 0x1000, 4, 1)),
        Op(0, "uffd_continue", (0x100040800000, 0x1000, 0, 1)),
    ],
    # A userfaultfd for faults of user code alone: the kernel's own, at the source of a copy, are not delivered.
    "copy-from-where-the-kernel-may-not-wait": [
        Op(0, "reset"),
        Op(0, "mmap", (0x10003F000000, 0x1000, 3, 0x32, NO_FILE, 0)),
        Op(0, "uffd_open", (1, 0, 0)),
        Op(0, "uffd_register", (0x10003F000000, 0x1000, 1, 0)),
        Op(0, "uffd_copy", (0x10003F000000, 0x10003F000000, 0x1000, 0, 0)),
    ],
    # UFFDIO_COPY beyond the end of the file: the source is faulted in before that is noticed.
    "copy-beyond-the-end": [
        Op(0, "reset"),
        Op(0, "uffd_open", (0, 0, 0)),
        Op(0, "ftruncate", (0, 0)),
        Op(0, "mmap", (0x10003F000000, 0x1000, 3, 0x11, 0, 0)),
        Op(0, "mmap", (0x10003F400000, 0x1000, 3, 0x31, NO_FILE, 0)),
        Op(0, "uffd_register", (0x10003F000000, 0x1000, 1, 0)),
        Op(0, "uffd_copy", (0x10003F000000, 0x10003F400000, 0x1000, 0, 0)),
    ],
    # Poisoned memory has an errno of its own for MADV_POPULATE_READ, and none for mlock.
    "populate-poisoned-memory": [
        Op(0, "reset"),
        Op(0, "uffd_open", (0, 0, 0)),
        Op(0, "mmap", (0x10003F000000, 0x1000, 3, 0x32, NO_FILE, 0)),
        Op(0, "uffd_register", (0x10003F000000, 0x1000, 1, 0)),
        Op(0, "uffd_poison", (0x10003F000000, 0x1000, 0, 0)),
        Op(0, "madvise", (0x10003F000000, 0x1000, 22)),
        Op(0, "mlock", (0x10003F000000, 0x1000)),
    ],
    # What is missing behind a marker, of which UFFDIO_ZEROPAGE does not get rid; then its protection is resolved.
    "fault-behind-a-marker": [
        Op(0, "reset"),
        Op(0, "uffd_open", (0, 1 << 13, 0)),
        Op(0, "mmap", (0x10003F000000, 0x4000, 3, 0x32, NO_FILE, 0)),
        Op(0, "uffd_register", (0x10003F000000, 0x4000, 3, 0)),
        Op(0, "uffd_writeprotect", (0x10003F000000, 0x4000, 1, 0)),
        Op(0, "fill", (0x10003F000000, 0x4000, 0x1000, 0)),
        Op(0, "fill", (0x10003F000000, 0x4000, 0x1000, 5)),
    ],
    # The child has a userfaultfd of its own, which the monitor got: its number is the first that is free.
    "fork-with-its-event": [
        Op(0, "reset"),
        Op(0, "uffd_open", (0, 2, 0)),
        Op(0, "mmap", (0x10003F000000, 0x4000, 3, 0x32, NO_FILE, 0)),
        Op(0, "uffd_register", (0x10003F000000, 0x4000, 1, 0)),
        Op(0, "fork", (1,)),
        Op(1, "fill", (0x10003F000000, 0x4000, 0x1000, 5)),
        Op(1, "uffd_unregister", (0x10003F000000, 0x2000, 1)),
        Op(0, "uffd_zeropage", (0x10003F000000, 0x1000, 0, 1)),
        Op(0, "uffd_zeropage", (0x10003F003000, 0x1000, 0, 0)),
    ],
    # The mode is looked at before the memory that has gone; a source that is not aligned after whether there is any.
    "arguments-before-memory": [
        Op(0, "reset"),
        Op(0, "uffd_open", (0, 0, 0)),
        Op(0, "uffd_copy", (0x100040A00000, 0x100040BF2800, 0x1000, 0, 0)),
        Op(0, "fork", (1,)),
        Op(0, "exit"),
        Op(1, "fork", (0,)),
        Op(0, "uffd_writeprotect", (0x100041A00000, 0x1000, 3, 0)),
    ],
    # A marker that is write-protected besides.
    "protected-marker": [
        Op(0, "reset"),
        Op(0, "uffd_open", (0, 0x8000, 2)),
        Op(0, "mmap", (0x100040200000, 0x1000, 3, 0x32, NO_FILE, 0)),
        Op(0, "uffd_register", (0x100040200000, 0x1000, 2, 2)),
        Op(0, "uffd_poison", (0x100040200000, 0x1000, 0, 2)),
        Op(0, "pagemap_scan", (0x100040200000, 0x1000, 1, 0x201, 0, 0, 0x100, 0xA, 2)),
    ],
    # What MREMAP_DONTUNMAP leaves of locked or unlocked memory keeps its page offset up to 6.18.
    "left-with-its-offset": [
        Op(0, "reset"),
        Op(0, "mmap", (0x100041200000, 0x200000, 3, 0x32, NO_FILE, 0)),
        Op(0, "fill", (0x100041200000, 0x1000, 0x1000, 0)),
        Op(0, "mremap", (0x100041200000, 0x200000, 0x200000, 7, 0x100041400000)),
        Op(0, "mremap", (0x100041400000, 0x400000, 0x400000, 7, 0x100041A00000)),
        Op(0, "mlockall", (7,)),
    ],
    # mremap tells of a move when what it adds is populated, and until then a monitor can only give up what it watches.
    "move-and-growth-of-locked-memory": [
        Op(0, "reset"),
        Op(0, "mlockall", (2,)),
        Op(0, "uffd_open", (0, 4, 1)),
        Op(0, "mmap", (0x100040600000, 0x1000, 3, 0x32, NO_FILE, 0)),
        Op(0, "uffd_register", (0x100040600000, 0x1000, 1, 1)),
        Op(0, "mremap", (0x100040600000, 0x1000, 0x200000, 3, 0x100041800000)),
        Op(0, "sum", (0x100041800000, 0x200000)),
    ],
    "move-and-growth-of-a-locked-file": [
        Op(0, "reset"),
        Op(0, "uffd_open", (0, 4, 0)),
        Op(0, "mmap", (0x1000414D4000, 0x8000, 3, 0x12, 0, 0)),
        Op(0, "uffd_register", (0x1000414D4000, 0x8000, 4, 0)),
        Op(0, "mlockall", (1,)),
        Op(0, "mremap", (0x1000414D6000, 0x1000, 0x1F000, 3, 0x100041200000)),
    ],
    # UFFDIO_CONTINUE makes a page valid that fallocate() made.
    "continue-of-an-allocated-page": [
        Op(0, "reset"),
        Op(0, "uffd_open", (0, 0, 0)),
        Op(0, "fallocate", (0, 0, 0, 0x1000)),
        Op(0, "mmap", (0x100041800000, 0x1000, 3, 0x11, 0, 0)),
        Op(0, "uffd_register", (0x100041800000, 0x1000, 4, 0)),
        Op(0, "read", (0x100041800000,)),
        Op(0, "madvise", (0x100041800000, 0x1000, 4)),
    ],
}


@pytest.mark.skipif(
    sys.platform != "linux"
    or platform.machine() != "x86_64"
    or os.geteuid() != 0
    or tuple(map(int, platform.release().split(".")[:2])) < (6, 18)
    or not shutil.which("gcc"),
    reason="compares with the running kernel: needs Linux 6.18 or newer on x86-64, root, and gcc",
)
@pytest.mark.parametrize("name", PROGRAMS)
def test_host_agrees(name: str) -> None:
    assert host_difference(PROGRAMS[name]) == []

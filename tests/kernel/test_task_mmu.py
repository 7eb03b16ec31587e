# SPDX-License-Identifier: GPL-2.0-only
"""What smaps and pagemap say, and what older releases say instead."""

from __future__ import annotations

from typing import Any

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import BASE, PAGE, PRIVATE, SHARED, WRITE, M, Process

DONTNEED, HUGEPAGE, PAGEOUT, COLLAPSE, GUARD_INSTALL = 4, 14, 21, 25, 102
MLOCK_ONFAULT = True


def smaps(p: Process) -> list[Any]:
    found = list(p.k("task_mmu").proc_smaps(p.mm))
    p.done()
    return found


def pagemap(p: Process, addr: int, pages: int) -> list[tuple[int, int, str]]:
    """(first page from `addr` on, pages, letters: e`x`clusive, `g`uard, `f`ile, `s`wapped, `p`resent)."""
    k = p.k("task_mmu")
    bits = ("x", k.PM_MMAP_EXCLUSIVE), ("g", k.PM_GUARD_REGION), ("f", k.PM_FILE), ("s", k.PM_SWAP), ("p", k.PM_PRESENT)
    found = k.pagemap_read(p.mm, addr, addr + pages * PAGE)
    p.done()
    return [((at - addr) // PAGE, nr, "".join(c for c, bit in bits if entry & bit)) for at, nr, entry in found]


def kernel(release: str, driver: str) -> Process:
    return Process(KernelConfig(release, options=(("swap", "y"),)), driver)


def test_memory_shared_with_a_child_counts_in_part(driver: str) -> None:
    p = Process(driver=driver)
    p.mmap(BASE, 4 * M)
    p.fill(BASE + 2 * M - 2 * PAGE, 4 * PAGE)
    child = p.fork()
    child.write(BASE + 2 * M, 1)
    (vma,) = smaps(p)
    assert (vma.vm_start, vma.vm_end, vma.inode) == (BASE, BASE + 4 * M, 0)
    assert (vma.stats.resident, vma.stats.anonymous) == (4 * PAGE, 4 * PAGE)
    assert vma.stats.pss >> 12 == 3 * PAGE // 2 + PAGE
    assert pagemap(p, BASE, 1024) == [(510, 2, "p"), (512, 1, "xp"), (513, 1, "p")]
    assert pagemap(child, BASE, 1024) == [(510, 2, "p"), (512, 1, "xp"), (513, 1, "p")]
    child.exit()
    assert pagemap(p, BASE, 1024) == [(510, 2, "xp"), (512, 2, "xp")]


def test_pages_of_files_guards_and_swap(driver: str) -> None:
    p = kernel("7.x", driver)
    f = p.memfd(8 * PAGE)
    p.mmap(BASE, 8 * PAGE, flags=SHARED, f=f)
    p.fill(BASE, 3 * PAGE)
    p.mmap(BASE + M, 4 * PAGE)
    p.write(BASE + M, 1)
    assert p.madvise(BASE + M, PAGE, PAGEOUT) == 0
    assert p.madvise(BASE + M + 2 * PAGE, PAGE, GUARD_INSTALL) == 0
    assert pagemap(p, BASE, 8) == [(0, 3, "xfp")]
    assert pagemap(p, BASE + M, 4) == [(0, 1, "s"), (2, 1, "gs")]
    shared, private = smaps(p)
    assert shared.inode == f.f_mapping.addr and shared.stats.resident == 3 * PAGE
    assert (private.stats.swap, private.stats.resident) == (PAGE, 0)


def test_swapped_pages_of_a_file_count_where_a_private_mapping_has_none_of_its_own(driver: str) -> None:
    p = kernel("7.x", driver)
    f = p.memfd(4 * PAGE)
    p.mmap(BASE, 4 * PAGE, flags=SHARED, f=f)
    p.fill(BASE, 4 * PAGE)
    assert p.madvise(BASE, 4 * PAGE, PAGEOUT) == 0
    p.mmap(BASE + 4 * M, 3 * PAGE, flags=PRIVATE, f=f)
    p.write(BASE + 4 * M, 1)
    shared, private = smaps(p)
    assert shared.stats.swap == 3 * PAGE  # the write has read one in
    assert private.stats.swap == 2 * PAGE and private.stats.resident == PAGE


@pytest.mark.parametrize("release", ["6.1", "6.12", "6.18", "7.x"])
def test_a_page_of_a_huge_one_that_is_mapped_once_more(release: str, driver: str) -> None:
    p = kernel(release, driver)
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, flags=SHARED, f=f)
    p.fill(BASE, 2 * M)
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0
    p.fault(BASE)
    assert pagemap(p, BASE, 512) == [(0, 512, "xfp")]
    p.mmap(BASE + 4 * M, PAGE, flags=SHARED, f=f, off=PAGE)
    p.fault(BASE + 4 * M, write=False)
    each = [(0, 1, "xfp"), (1, 1, "fp"), (2, 1, "xfp")]
    assert pagemap(p, BASE, 3) == (each if release == "6.12" else [(0, 3, "xfp")])
    assert smaps(p)[0].stats.shmem_thp == 2 * M


def test_older_releases_tell_less(driver: str) -> None:
    told = {}
    for release in ("6.1", "6.13", "6.18"):
        p = kernel(release, driver)
        p.mmap(BASE, 2 * PAGE, WRITE)
        p.mlock(BASE, PAGE, MLOCK_ONFAULT)
        if release != "6.1":
            assert p.madvise(BASE + PAGE, PAGE, GUARD_INSTALL) == 0
        flags = p.k("task_mmu").show_smap_vma_flags(smaps(p)[0].vm_flags).split()
        told[release] = "lf" in flags, pagemap(p, BASE + PAGE, 1)
    assert told == {"6.1": (False, []), "6.13": (True, [(0, 1, "s")]), "6.18": (True, [(0, 1, "gs")])}

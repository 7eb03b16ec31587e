# SPDX-License-Identifier: GPL-2.0-only
"""What architectures do with tables beyond their size, on the model: levels folded, made early or added late."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tablewalk.arch.table import by_name, names
from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

GIB, TIB, PIB = 1 << 30, 1 << 40, 1 << 50
MADV_DONTNEED, MADV_HUGEPAGE = 4, 14


class Process:
    """A process on the model of an architecture."""

    def __init__(self, arch: str, release: str = "7.2", driver: str = "sequential", model: Any = None) -> None:
        self.model = model or drivers.model(KernelConfig(release, arch), driver)
        self.arch: Any = self.model.arch
        self.mm: Any = self.model.kernel("mm_init").mm_alloc()

    def call(self, module: str, function: str, *args: Any) -> Any:
        ret = getattr(self.model.kernel(module), function)(self.mm, *args)
        self.model.machine.quiescent()
        return ret

    def map(self, address: int, length: int) -> None:
        none = self.model.kernel("mm_types").file(0)
        assert self.call("mmap", "sys_mmap", address, length, 3, 0x32, none, 0) == address

    def unmap(self, address: int, length: int) -> None:
        assert self.call("mmap", "sys_munmap", address, length) == 0

    def touch(self, address: int) -> None:
        assert self.call("fault", "do_user_addr_fault", address, True) == 0

    def bytes(self) -> int:
        size: int = self.model.kernel("pgtable_generic").mm_pgtables_bytes(self.mm)
        return size

    def fork(self) -> Process:
        child = Process(self.arch.name, model=self.model)
        child.exit()
        child.mm = self.call("fork", "dup_mm")
        return child

    def exit(self) -> None:
        """What is still counted then is an error."""
        self.call("mm_init", "mmput")


@pytest.mark.parametrize("driver", ["sequential", "checked"])
@pytest.mark.parametrize("name", names())
def test_scattered_mappings_come_and_go(name: str, driver: str) -> None:
    """VmPTE is what the touched addresses need, and goes back to where it began."""
    p = Process(name, driver=driver)
    a = p.arch
    early = len(a.preallocated_pmds) * a.pmd_bytes
    assert p.bytes() == early
    rng = random.Random(name)
    places = sorted(
        rng.randrange(a.first_user_address, a.task_size - 700 * a.page_size) & -a.page_size for _ in range(12)
    )
    lengths = {start: rng.randrange(1, 700) * a.page_size for start in places}
    touched: set[int] = set(a.preallocated_pmds)
    ptes: set[int] = set()
    for start, length in lengths.items():
        p.map(start, length)
        for address in {start, start + length - a.page_size}:
            p.touch(address)
            touched.add(address)
            ptes.add(address >> a.pmd_shift)
    pmds, puds = {t >> a.pud_shift for t in touched}, {t >> a.p4d_shift for t in touched}
    assert p.bytes() == len(ptes) * a.pte_bytes + len(pmds) * a.pmd_bytes + len(puds) * a.pud_bytes
    for start in rng.sample(places, len(places)):
        p.unmap(start, 700 * a.page_size)
    kept = {t >> a.pud_shift for t in a.preallocated_pmds if t >= (a.user_pgtables_ceiling or a.task_size)}
    if a.first_user_address and any(start >> a.pud_shift == 0 for start in places):
        kept.add(0)
    assert p.bytes() == len(kept) * a.pmd_bytes
    p.exit()


@pytest.mark.parametrize("name", [n for n in names() if by_name(n, (7, 2)).has_thp])
def test_a_huge_page_keeps_a_table_in_deposit(name: str) -> None:
    p = Process(name)
    a = p.arch
    start = 4 * a.pmd_size
    p.map(start, 2 * a.pmd_size)
    assert p.call("madvise", "sys_madvise", start, 2 * a.pmd_size, MADV_HUGEPAGE) == 0
    before = p.bytes()
    p.touch(start)
    huge = p.bytes() - before
    load = p.model.machine.load
    assert (load(p.mm.anon_huge), load(p.mm.nr_deposited), load(p.mm.anon_rss)) == (1, 1, a.hpage_pmd_nr)
    assert p.call("fault", "user_write", start + a.page_size, 7) == 0
    assert p.call("fault", "user_read", start + a.page_size) == 7
    upper = huge - a.pte_bytes
    assert upper in {0, a.pmd_bytes, a.pmd_bytes + a.pud_bytes}
    assert p.call("madvise", "sys_madvise", start, a.page_size, MADV_DONTNEED) == 0
    assert p.bytes() - before == huge  # split: the deposited table is in use now
    assert (load(p.mm.anon_huge), load(p.mm.nr_deposited), load(p.mm.anon_rss)) == (0, 0, a.hpage_pmd_nr - 1)
    p.exit()


@pytest.mark.parametrize("huge", [False, True], ids=["pages", "huge"])
@pytest.mark.parametrize("name", [n for n in names() if by_name(n, (7, 2)).has_thp])
def test_mremap_moves_tables_where_the_architecture_can(name: str, huge: bool) -> None:
    p = Process(name)
    a = p.arch
    old, new, length = 4 * a.pmd_size, 16 * a.pmd_size, 2 * a.pmd_size
    p.map(old, length)
    if huge:
        assert p.call("madvise", "sys_madvise", old, length, MADV_HUGEPAGE) == 0
    for address in (old, old + a.pmd_size + 3 * a.page_size):
        p.touch(address)
    load, made = p.model.machine.load, p.model.machine.stats[p.model.machine.PTE_TABLES_ALLOCATED]
    before = [load(p.mm.nr_ptes), load(p.mm.nr_deposited), load(p.mm.anon_huge), load(p.mm.anon_rss)]
    assert p.call("mremap", "sys_mremap", old, length, length, 3, new) == new
    assert [load(p.mm.nr_ptes), load(p.mm.nr_deposited), load(p.mm.anon_huge), load(p.mm.anon_rss)] == before
    made = p.model.machine.stats[p.model.machine.PTE_TABLES_ALLOCATED] - made
    assert made == (0 if huge or a.has_move_pud else 2)
    p.unmap(new, length)
    p.exit()


def test_pae_has_its_pmd_tables_from_the_beginning() -> None:
    p = Process("x86-pae", "6.12")
    assert p.bytes() == 3 * 4096
    p.map(GIB, 4096)
    p.touch(GIB)
    assert p.bytes() == 4 * 4096
    p.unmap(GIB, 4096)
    assert p.bytes() == 2 * 4096  # munmap takes the PMD table too
    p.exit()
    assert Process("x86-pae", "7.2").bytes() == 4 * 4096


def test_arm_keeps_the_first_tables_and_the_last() -> None:
    p = Process("arm-lpae")
    first, last = 0x10000, 0xBEF00000
    assert p.bytes() == 4096
    for address in (first, last):
        p.map(address, 4096)
        p.touch(address)
    assert p.bytes() == 4 * 4096  # the last GiB's PMD table was there
    p.unmap(first, 4096)
    assert p.bytes() == 4 * 4096
    p.unmap(last, 4096)
    assert p.bytes() == 3 * 4096
    p.exit()


def test_s390_counts_its_region_third_table_once_there_is_a_second() -> None:
    """The figures of a 6.1 kernel: 16 kB when something is mapped above 4 TiB, not when it is touched."""
    p = Process("s390x", "6.1")
    stack = 4 * TIB - 500 * (1 << 20)
    p.map(stack, 4096)
    p.touch(stack)
    assert p.bytes() == 18 << 10
    p.map(4 * TIB - 4096, 4096)
    assert p.bytes() == 18 << 10
    p.map(5 * TIB, 4096)
    assert p.bytes() == 34 << 10
    p.touch(5 * TIB)
    assert p.bytes() == 68 << 10
    p.map(13 * PIB, 4096)  # a fifth level
    assert p.bytes() == 68 << 10
    p.touch(13 * PIB)
    assert p.bytes() == 102 << 10
    child = p.fork()
    assert child.bytes() == 102 << 10
    for address in (5 * TIB, 13 * PIB):
        p.unmap(address, 4096)
    assert p.bytes() == p.fork().bytes() == 34 << 10  # the level stays, in a child too
    child.exit()
    p.exit()

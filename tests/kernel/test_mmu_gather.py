# SPDX-License-Identifier: GPL-2.0-only
"""When munmap frees page tables: with the pages, by RCU, or where there is no memory for a batch each by itself.

And the other configurations of the gather: what is flushed at once, and what is freed without waiting for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import READ, M, Process

AREA = 0x1000_0000
MADV_DONTNEED, MADV_HUGEPAGE = 4, 14
NO_RECLAIM = (("pt_reclaim", "n"),)
GUESTS = ("kvm", "hyperv", "xen")


def unmapped(config: KernelConfig, driver: str, memory: bool = True) -> tuple[int, Process]:
    """(PTE tables that are freed when munmap returns, the process); user space was not entered since."""
    p = Process(config, driver)
    if not memory:
        no_batch = p.k("mmu_gather").NO_BATCH
        p.model.replace("mmu_gather.table_batch_alloc", lambda: no_batch)
    p.mmap(AREA, 4 * M)
    p.touch(AREA, 4 * M)
    assert p.k("mmap").sys_munmap(p.mm, AREA, 4 * M) == 0
    return p.stat("PTE_TABLES_FREED"), p


@pytest.mark.parametrize(
    ("config", "at_once"),
    [
        (KernelConfig(), False),
        (KernelConfig(options=NO_RECLAIM), False),
        (KernelConfig("6.12"), True),
        *((KernelConfig("6.12", options=(("hypervisor", guest),)), False) for guest in GUESTS),
        (KernelConfig("6.14"), False),  # PT_RECLAIM: as in a guest (D10)
        (KernelConfig("6.14", options=NO_RECLAIM), True),
        (KernelConfig("6.12", "arm64"), False),
        (KernelConfig("6.8", "riscv64"), True),
        (KernelConfig("6.12", "riscv64"), False),
        (KernelConfig("6.12", "mips64"), True),
        (KernelConfig(arch="mips64"), False),
        (KernelConfig(arch="sh"), True),
        (KernelConfig(arch="sparc64"), False),
    ],
    ids=str,
)
def test_when_tables_are_freed(config: KernelConfig, at_once: bool, driver: str) -> None:
    freed, p = unmapped(config, driver)
    tables = p.stat("PTE_TABLES_ALLOCATED")
    assert freed == (tables if at_once else 0)
    p.exit()
    assert p.stat("PTE_TABLES_FREED") == tables


@pytest.mark.parametrize(
    ("config", "callbacks", "waits", "interrupts"),
    [
        (KernelConfig(), True, False, False),
        (KernelConfig("6.18"), True, False, False),
        (KernelConfig("7.0", options=NO_RECLAIM), False, False, True),
        (KernelConfig("7.1", options=NO_RECLAIM), False, True, False),
        (KernelConfig("6.12", "arm64"), False, False, True),
        (KernelConfig(arch="sh"), False, False, False),
    ],
    ids=str,
)
def test_without_memory(config: KernelConfig, callbacks: bool, waits: bool, interrupts: bool, driver: str) -> None:
    freed, p = unmapped(config, driver, memory=False)
    assert (freed == 0) == callbacks
    assert (p.stat("SYNCHRONIZE_RCU") > 0) == waits
    assert (p.stat("IPIS") > 0) == interrupts
    p.exit()


def events(p: Process, call: Callable[[], object], *names: str) -> list[int]:
    """How often each event happens in a call."""
    before = [p.stat(name) for name in names]
    call()
    return [p.stat(name) - at for name, at in zip(names, before, strict=True)]


@pytest.mark.parametrize(
    ("arch", "flushes"),
    [("x86_64", 1), ("ppc64le", 1), ("sparc64", 1), ("m68k", 1), ("arm64", 3), ("riscv64", 3), ("xtensa", 3)],
)
def test_vmas_are_flushed_at_once_or_one_by_one(arch: str, flushes: int, driver: str) -> None:
    """munmap of two VMAs; where each is flushed by itself, their tables are flushed after them."""
    p = Process(KernelConfig(arch=arch), driver)
    there = AREA + 16 * M
    for start, prot in ((AREA, READ), (there, READ | 2)):
        p.mmap(start, M, prot)
        p.read(start)
    assert events(p, lambda: p.munmap(AREA, 17 * M), "TLB_FLUSHES") == [flushes]


@pytest.mark.parametrize(
    ("config", "interrupts", "waits"),
    [
        (KernelConfig(), 1, True),
        (KernelConfig(options=(("hypervisor", "kvm"),)), 1, False),
        (KernelConfig(options=(("hypervisor", "hyperv"),)), 0, False),
        (KernelConfig(options=(("hypervisor", "xen"),)), 0, False),
        (KernelConfig(arch="arm64", options=(("hypervisor", "kvm"),)), 0, False),
        (KernelConfig(arch="mips64", options=(("hypervisor", "kvm"),)), 1, True),
    ],
    ids=str,
)
def test_how_other_cpus_are_flushed(config: KernelConfig, interrupts: int, waits: bool, driver: str) -> None:
    """MADV_DONTNEED beside another CPU: whether that is interrupted, and whether it must have interrupts on."""
    p = Process(config, driver)
    p.mm.nr_cpus = 2
    p.mmap(AREA, M)
    p.write(AREA, 1)
    asked: list[int] = []
    p.model.replace("tlb:tlb_invalidate", lambda *args: asked.append(args[-1]))
    assert events(p, lambda: p.madvise(AREA, p.page_size, MADV_DONTNEED), "IPIS") == [interrupts]
    assert asked == [1 if waits else 2]


@pytest.mark.parametrize(("arch", "pages"), [("x86_64", 2), ("arm64", 2), ("m68k", 0), ("microblaze", 0)])
def test_without_ranges_everything_is_flushed(arch: str, pages: int, driver: str) -> None:
    """MADV_DONTNEED of two pages; a flush of everything counts no pages."""
    p = Process(KernelConfig(arch=arch), driver)
    size = p.page_size
    p.mmap(AREA, 3 * size)
    p.fill(AREA, 3 * size)
    dontneed = events(p, lambda: p.madvise(AREA, 2 * size, MADV_DONTNEED), "TLB_FLUSHES", "TLB_FLUSH_PAGES")
    assert dontneed == [1, pages]


@pytest.mark.parametrize(("arch", "everything"), [("x86_64", False), ("arm-lpae", False), ("x86-pae", True)])
def test_where_cpus_hold_the_pgd_a_pmd_table_flushes_everything(arch: str, everything: bool, driver: str) -> None:
    p = Process(KernelConfig(arch=arch), driver)
    start = 1 << 30
    p.mmap(start, M)
    p.touch(start)
    before = p.stat("PMD_TABLES_FREED")
    flushes, pages = events(p, lambda: p.munmap(start, M), "TLB_FLUSHES", "TLB_FLUSH_PAGES")
    assert p.stat("PMD_TABLES_FREED") == before + 1
    assert flushes == (1 if arch.startswith("x86") else 2)
    assert (pages == 0) == everything


@pytest.mark.parametrize(("arch", "flushes"), [("x86_64", 1), ("ppc64le-4k", 3), ("ppc64le-64k", 3)])
def test_pages_of_one_size_are_flushed_before_others(arch: str, flushes: int, driver: str) -> None:
    """MADV_DONTNEED of pages, a huge page, and pages again."""
    p = Process(KernelConfig(arch=arch, options=NO_RECLAIM), driver)
    huge = p.model.arch.pmd_size
    start = 4 * huge
    p.mmap(start, 3 * huge)
    assert p.madvise(start + huge, huge, MADV_HUGEPAGE) == 0
    p.touch(start, 3 * huge, step=huge)
    assert p.huge == 1
    assert events(p, lambda: p.madvise(start, 3 * huge, MADV_DONTNEED), "TLB_FLUSHES") == [flushes]


def read_elsewhere(config: KernelConfig, size: int = 1) -> Process:
    """A process that has written `size` pages on another CPU, which remembers them."""
    p = Process(config, "checked")
    p.mm.nr_cpus = 2
    p.mmap(AREA, 4 * M)
    p.model.machine.run_on(1, p.mm.addr)
    for i in range(size):
        p.write(AREA + i * p.page_size, 1)
    p.model.machine.run_on(0, p.mm.addr)
    return p


def test_s390_flushes_each_entry_and_frees_its_page_at_once() -> None:
    p = read_elsewhere(KernelConfig(arch="s390x"), 3)
    freed: list[int] = []
    gather = p.k("mmu_gather")
    put = gather.free_page_and_swap_cache

    def count_flushes(f: Any) -> None:
        freed.append(p.stat("TLB_FLUSHES"))
        put(f)

    p.model.replace("mmu_gather.free_page_and_swap_cache", count_flushes)
    before = p.stat("TLB_FLUSHES")
    p.madvise(AREA, 3 * p.page_size, MADV_DONTNEED)
    assert [at - before for at in freed] == [1, 2, 3]
    assert p.stat("TLB_FLUSHES") == before + 3  # nothing is left for the end
    p.exit()


def test_without_that_flush_a_freed_page_is_reached() -> None:
    p = read_elsewhere(KernelConfig(arch="s390x"))
    p.model.replace("mmu_gather:flush_tlb_range", lambda *args, **named: None)
    with pytest.raises(p.model.machine.Violation):
        p.madvise(AREA, p.page_size, MADV_DONTNEED)


@pytest.mark.parametrize("arch", ["s390x", "arm64", "m68k", "ppc64le"])
def test_at_exit_nothing_is_reached(arch: str) -> None:
    p = read_elsewhere(KernelConfig(arch=arch), 3)
    p.exit()

# SPDX-License-Identifier: GPL-2.0-only
"""When munmap frees page tables: with the pages, by RCU, or where there is no memory for a batch each by itself."""

from __future__ import annotations

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import M, Process

AREA = 0x1000_0000
NO_RECLAIM = (("pt_reclaim", "n"),)
GUEST = (("hypervisor", "y"),)


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
        (KernelConfig("6.12", options=GUEST), False),
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

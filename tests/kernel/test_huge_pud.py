# SPDX-License-Identifier: GPL-2.0-only
"""Huge PUDs of a device's mapping: who walks it or unmaps a part splits them, and drivers insert them again."""

from __future__ import annotations

from typing import Any

import pytest

from .process import BASE, SHARED, WRITE, G, M, Process

DEVICE_PFN = 1 << 20


@pytest.fixture
def p(driver: str) -> Process:
    """A process that has mapped 2 GiB of a device's memory."""
    p = Process(driver=driver)
    p.mmap(BASE, 2 * G, WRITE, SHARED, p.file(2 * G))
    p.set_flag(BASE, "VM_PFNMAP")
    for address in (BASE, BASE + G):
        fault(p, address)
    return p


def slot(p: Process, address: int) -> int:
    k = p.k("pgtable")
    return int(k.pud_offset(k.p4d_offset(k.pgd_offset(p.mm, address), address), address))


def pud(p: Process, address: int) -> int:
    return int(p.model.machine.load(slot(p, address)))


def fault(p: Process, address: int) -> None:
    """What vfio's huge_fault does for 1 GiB."""
    generic, k = p.k("pgtable_generic"), p.k("pgtable")
    p.k("mmap_lock").mmap_read_lock(p.mm)
    vma: Any = p.k("vma").find_vma(p.mm, address)
    entry = generic.pud_alloc(p.mm, generic.p4d_alloc(p.mm, k.pgd_offset(p.mm, address), address), address)
    p.k("huge_pud").insert_pud(vma, entry, DEVICE_PFN)
    p.k("mmap_lock").mmap_read_unlock(p.mm)


def test_who_looks_for_tables_splits_them(p: Process) -> None:
    assert pud(p, BASE) >> 12 == DEVICE_PFN
    (vma,) = p.k("task_mmu").proc_smaps(p.mm)
    assert vma.stats.resident == 0
    assert pud(p, BASE) == pud(p, BASE + G) == 0
    fault(p, BASE)
    assert pud(p, BASE) >> 12 == DEVICE_PFN


def test_what_is_unmapped_in_part_is_split_and_else_kept(p: Process) -> None:
    p.munmap(BASE, M)
    assert pud(p, BASE) == 0
    assert pud(p, BASE + G) >> 12 == DEVICE_PFN
    p.munmap(BASE + M, 2 * G - M)
    assert p.vmpte == 0

# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from typing import Any

import pytest

from tablewalk.explore.scenario import MADV_COLLAPSE, Setup
from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig
from tablewalk.machine.tlb import (
    BROADCAST,
    IPI,
    LOCAL,
    Tlbs,
    drop_mm,
    enter_lazy,
    fill,
    holders,
    invalidate,
    switch_mm,
    translate,
    walk_from,
)
from tablewalk.scenarios.mapped import file_huge

MM, OTHER_MM = 100, 200
PMD_TABLE, PTE_TABLE, PAGE, HUGE_PAGE = 1000, 2000, 3000, 4000
VA = 0x40201000
WALK = ((30, PMD_TABLE), (21, PTE_TABLE))


@pytest.fixture
def tlbs() -> Tlbs:
    """Two CPUs run in MM, and remember how to get to VA."""
    state: Tlbs = {}
    for cpu in (0, 1):
        switch_mm(state, cpu, MM)
        fill(state, cpu, MM, VA, WALK, PAGE, writable=True)
    return state


def test_a_translation_covers_its_page_only(tlbs: Tlbs) -> None:
    assert translate(tlbs, 0, MM, VA) == translate(tlbs, 0, MM, VA + 4095, write=True) == PAGE
    assert translate(tlbs, 0, MM, VA + 4096) == translate(tlbs, 0, MM, VA - 1) == 0
    assert translate(tlbs, 0, OTHER_MM, VA) == translate(tlbs, 7, MM, VA) == 0


def test_a_read_only_translation_is_none_for_a_write(tlbs: Tlbs) -> None:
    fill(tlbs, 0, MM, VA, WALK, PAGE, writable=False)
    assert translate(tlbs, 0, MM, VA) == PAGE
    assert translate(tlbs, 0, MM, VA, write=True) == 0


def test_a_huge_translation(tlbs: Tlbs) -> None:
    fill(tlbs, 0, MM, 0x800000, WALK[:1], HUGE_PAGE, shift=21)
    assert translate(tlbs, 0, MM, 0x9FFFFF) == HUGE_PAGE
    assert translate(tlbs, 0, MM, 0xA00000) == 0
    invalidate(tlbs, 0, MM, 0x8FF000, 0x900000, False, LOCAL)
    assert translate(tlbs, 0, MM, 0x800000) == 0


def test_a_walk_begins_at_the_lowest_remembered_table(tlbs: Tlbs) -> None:
    assert walk_from(tlbs, 0, MM, VA + 0x1000) == (21, PTE_TABLE)
    assert walk_from(tlbs, 0, MM, VA + 0x200000) == (30, PMD_TABLE)
    assert walk_from(tlbs, 0, MM, VA + (1 << 30)) == (0, 0)
    assert walk_from(tlbs, 0, OTHER_MM, VA) == (0, 0)


def test_a_flush_of_the_range_drops_the_page_but_no_table(tlbs: Tlbs) -> None:
    invalidate(tlbs, 0, MM, VA & ~4095, (VA & ~4095) + 4096, False, IPI)
    assert holders(tlbs, PAGE, PAGE) == []
    assert walk_from(tlbs, 1, MM, VA) == (21, PTE_TABLE)


def test_a_flush_beside_the_page_leaves_it(tlbs: Tlbs) -> None:
    page = VA & ~4095
    invalidate(tlbs, 0, MM, page - 4096, page, True, IPI)
    invalidate(tlbs, 0, MM, page + 4096, page + 8192, False, IPI)
    invalidate(tlbs, 0, OTHER_MM, page, page + 4096, True, IPI)
    assert translate(tlbs, 0, MM, VA) == PAGE


def test_a_freed_table_is_dropped_by_any_address_it_covers(tlbs: Tlbs) -> None:
    invalidate(tlbs, 0, MM, 0x40200000, 0x40200000 + 4096, True, IPI)
    assert holders(tlbs, PTE_TABLE, PTE_TABLE) == []
    assert walk_from(tlbs, 0, MM, VA) == (0, 0)  # the PMD table's entry went with it
    assert translate(tlbs, 0, MM, VA) == PAGE  # pages go by their own addresses


def test_a_local_flush_leaves_the_other_cpu(tlbs: Tlbs) -> None:
    invalidate(tlbs, 0, MM, 0, 1 << 47, True, LOCAL)
    assert holders(tlbs, PAGE, PAGE) == [f"CPU 1 writes page {PAGE} at 0x40201000 of mm {MM}"]
    assert holders(tlbs, PTE_TABLE, PTE_TABLE) == [f"CPU 1 walks table {PTE_TABLE} for 0x40200000 of mm {MM}"]


def test_a_lazy_cpu_is_interrupted_only_for_freed_tables(tlbs: Tlbs) -> None:
    enter_lazy(tlbs, 1)
    invalidate(tlbs, 0, MM, 0, 1 << 47, False, IPI)
    assert holders(tlbs, PAGE, PAGE) == []  # CPU 1 is behind: it cannot use it
    assert len(holders(tlbs, PTE_TABLE, PTE_TABLE)) == 2  # but both may still walk the table
    invalidate(tlbs, 0, MM, 0, 1 << 47, True, IPI)
    assert holders(tlbs, PTE_TABLE, PTE_TABLE) == []


def test_a_cpu_that_is_behind_forgets_before_it_goes_on(tlbs: Tlbs) -> None:
    enter_lazy(tlbs, 1)
    assert translate(tlbs, 1, MM, VA) == 0
    invalidate(tlbs, 0, MM, 0, 4096, False, IPI)
    switch_mm(tlbs, 1, MM)
    assert translate(tlbs, 1, MM, VA) == 0
    assert walk_from(tlbs, 1, MM, VA) == (0, 0)


def test_a_lazy_cpu_that_no_flush_passed_over_goes_on_with_what_it_has(tlbs: Tlbs) -> None:
    enter_lazy(tlbs, 1)
    assert len(holders(tlbs, PAGE, PAGE)) == 2
    switch_mm(tlbs, 1, MM)
    assert translate(tlbs, 1, MM, VA) == PAGE


def test_a_cpu_that_left_keeps_its_translations_until_a_flush_passes_over_it(tlbs: Tlbs) -> None:
    switch_mm(tlbs, 1, OTHER_MM)
    assert len(holders(tlbs, PAGE, PAGE)) == len(holders(tlbs, PTE_TABLE, PTE_TABLE)) == 2
    invalidate(tlbs, 0, MM, 0, 1 << 47, True, IPI)
    assert holders(tlbs, PAGE, PAGE) == holders(tlbs, PTE_TABLE, PTE_TABLE) == []
    switch_mm(tlbs, 1, MM)
    assert translate(tlbs, 1, MM, VA) == 0


def test_a_broadcast_reaches_everybody(tlbs: Tlbs) -> None:
    enter_lazy(tlbs, 0)
    switch_mm(tlbs, 1, OTHER_MM)
    invalidate(tlbs, 0, MM, 0, 1 << 47, False, BROADCAST)
    assert holders(tlbs, PAGE, PAGE) == []
    assert all(not cpu.behind for cpu in tlbs.values())


def test_holders_finds_a_page_within_a_folio(tlbs: Tlbs) -> None:
    assert len(holders(tlbs, PAGE - 9, PAGE + 9)) == 2
    assert holders(tlbs, PAGE + 1, PAGE + 9) == []


def test_only_a_cpu_in_the_address_space_fills(tlbs: Tlbs) -> None:
    with pytest.raises(ValueError, match="CPU 0 does not use address space 200"):
        fill(tlbs, 0, OTHER_MM, VA, WALK, PAGE)
    enter_lazy(tlbs, 0)
    with pytest.raises(ValueError, match="CPU 0"):
        fill(tlbs, 0, MM, VA, WALK, PAGE)
    fill(tlbs, 0, MM, VA + (1 << 30), WALK)  # a lazy CPU may walk, speculatively
    assert walk_from(tlbs, 0, MM, VA + (1 << 30)) == (21, PTE_TABLE)


def test_an_mm_that_is_freed_is_loaded_nowhere(tlbs: Tlbs) -> None:
    switch_mm(tlbs, 1, OTHER_MM)
    assert drop_mm(tlbs, MM) == [f"CPU 0 has mm {MM} loaded"]
    assert holders(tlbs, 0, 10**6) == []


def collapsed(without: tuple[str, ...]) -> tuple[Any, Any, int]:
    """(machine, process whose small pages became a huge one after CPU 1 had read the first of them, its address)."""
    model = drivers.model(KernelConfig(without=without), "checked")
    s = Setup(model)
    p, _ = file_huge(s)
    p.mm.nr_cpus = 2
    model.machine.run_on(1, p.mm.addr)
    p.read(s.A)
    model.machine.run_on(0, p.mm.addr)
    p.madvise(s.A, s.huge, MADV_COLLAPSE)
    model.machine.run_on(1, p.mm.addr)
    return model.machine, p, s.A


def test_no_cpu_translates_an_address_by_pages_of_two_sizes() -> None:
    _, p, address = collapsed(())
    assert p.read(address + p.page) == p.read(address) == 1
    machine, p, address = collapsed(("K10",))
    with pytest.raises(machine.Violation) as info:
        p.read(address + p.page)
    assert info.value.rule == "two-sizes"

# SPDX-License-Identifier: GPL-2.0-only
"""The flat memory and its containers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablewalk import machine
from tablewalk.kernel.mm_types import folio, mm_struct, ptdesc, vm_area_struct
from tablewalk.kernel.page_alloc import PAGE_CELLS
from tablewalk.machine import memory


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    machine.reset()
    yield
    machine.reset()


def test_a_view_is_an_address_with_fields() -> None:
    vma = vm_area_struct.alloc()
    mm = mm_struct.alloc()
    vma.vm_start = 4096
    vma.vm_mm = mm
    assert vma.vm_start == 4096
    assert vma.vm_mm == mm
    assert vma.vm_mm.mmap_lock == mm.addr
    assert not vma.vm_file


def test_freed_cells_are_used_again_and_zeroed() -> None:
    table = ptdesc.alloc(512)
    machine.store(table.entry + 511, 7)
    table.free(512)
    again = ptdesc.alloc(512)
    assert again == table
    assert machine.load(again.entry + 511) == 0
    assert dict(machine.objects())["ptdesc"] == 1


def test_trailing_elements_do_not_overlap_the_next_object() -> None:
    big, small = folio.alloc(512), folio.alloc(1)
    machine.store(big.page + PAGE_CELLS * 511 + PAGE_CELLS - 1, 9)
    assert machine.load(small.addr) == 0
    assert small.addr - big.addr == big.page - big.addr + PAGE_CELLS * 512


def test_lock_acquisitions_are_counted_by_class() -> None:
    mm = mm_struct.alloc()
    machine.down_read(mm.mmap_lock)
    machine.up_read(mm.mmap_lock)
    machine.down_write(mm.mmap_lock)
    taken = dict(zip(memory.lock_classes, memory.lockstat, strict=True))
    assert taken["mm_struct.mmap_lock"] == 2
    assert taken["mm_struct.page_table_lock"] == 0


def test_rcu_callbacks_wait_for_the_quiescent_state() -> None:
    freed: list[int] = []
    machine.call_rcu(freed.append, 5)
    assert freed == []
    machine.quiescent()
    assert freed == [5]


ranges = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10), st.integers(0, 5)), max_size=30)


@given(ranges)
def test_maple_tree_agrees_with_a_dictionary(operations: list[tuple[int, int, int]]) -> None:
    machine.reset()
    machine.mt_init(1)
    naive: dict[int, int] = {}
    for start, size, value in operations:
        machine.mt_store(1, start, start + size, value)
        for i in range(start, start + size):
            naive[i] = value
    for i in range(60):
        assert machine.mtree_load(1, i) == naive.get(i, 0)
    occupied = [i for i in range(60) if naive.get(i, 0)]
    for i in range(60):
        above = [j for j in occupied if j >= i]
        assert machine.mt_find(1, i) == (naive[above[0]] if above else 0)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10)), max_size=20), st.integers(0, 20), st.integers(0, 9))
def test_interval_tree_finds_what_overlaps(items: list[tuple[int, int]], first: int, size: int) -> None:
    machine.reset()
    machine.interval_tree_init(1)
    for value, (low, length) in enumerate(items, 1):
        machine.interval_tree_insert(1, low, low + length, value)
    found = machine.interval_tree_overlapping(1, first, first + size)
    wanted = {*range(first, first + size + 1)}
    naive = [v for v, (low, length) in enumerate(items, 1) if wanted & {*range(low, low + length + 1)}]
    assert found == sorted(naive, key=lambda value: items[value - 1][0])

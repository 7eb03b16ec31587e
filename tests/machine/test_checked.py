# SPDX-License-Identifier: GPL-2.0-only
"""The checked driver finds each kind of broken rule, and nothing where the rules are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tablewalk.machine import drivers


@pytest.fixture
def model() -> Iterator[Any]:
    m = drivers.load("checked")
    m.machine.reset()
    yield m
    m.machine.reset()


def published_mm(model: Any) -> Any:
    mm = model.kernel("mm_types").mm_struct.alloc()
    model.machine.publish(mm.addr)
    return mm


def rule(info: pytest.ExceptionInfo[BaseException]) -> str:
    return info.value.rule  # type: ignore[attr-defined,no-any-return]


def test_a_guarded_field_needs_its_lock(model: Any) -> None:
    mm = published_mm(model)
    with pytest.raises(model.machine.Violation) as info:
        mm.map_count = 3
    assert rule(info) == "guard"
    model.machine.down_read(mm.mmap_lock)
    assert mm.map_count == 0
    with pytest.raises(model.machine.Violation):
        mm.map_count = 3
    model.machine.up_read(mm.mmap_lock)
    model.machine.down_write(mm.mmap_lock)
    mm.map_count = 3
    assert mm.map_count == 3


def test_an_unpublished_object_needs_no_lock_until_it_is_stored(model: Any) -> None:
    t = model.kernel("mm_types")
    mm, vma = t.mm_struct.alloc(), t.vm_area_struct.alloc()
    vma.vm_mm = mm
    vma.vm_start = 4096
    assert vma.vm_start == 4096
    model.machine.publish(vma.addr)
    with pytest.raises(model.machine.Violation) as info:
        vma.vm_start = 8192
    assert rule(info) == "guard"


def test_use_after_free(model: Any) -> None:
    mm = published_mm(model)
    mm.free()
    with pytest.raises(model.machine.Violation) as info:
        model.machine.load(mm.nr_ptes)
    assert rule(info) == "use-after-free"


def test_entries_are_written_under_the_tables_lock(model: Any) -> None:
    table = model.kernel("mm_types").ptdesc.alloc(4)
    model.machine.publish(table.addr)
    with pytest.raises(model.machine.Violation) as info:
        model.machine.store(table.entry, 1)
    assert rule(info) == "guard"
    model.machine.spin_lock(table.ptl)
    model.machine.store(table.entry, 1)
    assert model.machine.load(table.entry) == 1


def test_sleeping_while_atomic(model: Any) -> None:
    mm = published_mm(model)
    model.machine.rcu_read_lock()
    with pytest.raises(model.machine.Violation) as info:
        model.machine.down_read(mm.mmap_lock)
    assert rule(info) == "sleep"


def test_lock_order_is_learned(model: Any) -> None:
    m, mm = model.machine, published_mm(model)
    table = model.kernel("mm_types").ptdesc.alloc(4)
    m.spin_lock(mm.page_table_lock)
    m.spin_lock(table.ptl)
    m.spin_unlock(table.ptl)
    m.spin_unlock(mm.page_table_lock)
    m.spin_lock(table.ptl)
    with pytest.raises(m.Violation) as info:
        m.spin_lock(mm.page_table_lock)
    assert rule(info) == "lock-order"


def test_self_deadlock_and_foreign_unlock(model: Any) -> None:
    m, mm = model.machine, published_mm(model)
    m.spin_lock(mm.page_table_lock)
    with pytest.raises(m.Violation) as info:
        m.spin_lock(mm.page_table_lock)
    assert rule(info) == "deadlock"
    with pytest.raises(m.Violation) as info:
        m.up_read(mm.mmap_lock)
    assert rule(info) == "unlock"


def test_nothing_is_held_on_return_to_user_space(model: Any) -> None:
    m = model.machine
    m.rcu_read_lock()
    with pytest.raises(m.Violation) as info:
        m.quiescent()
    assert rule(info) == "held"
    m.rcu_read_unlock()
    with pytest.raises(m.Violation) as info:
        m.rcu_read_unlock()
    assert rule(info) == "rcu"

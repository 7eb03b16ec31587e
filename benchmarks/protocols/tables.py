# SPDX-License-Identifier: GPL-2.0-only
# mypy: ignore-errors
"""Page tables installed by faults, taken away by a retraction (MADV_COLLAPSE) and by a zap (MADV_DONTNEED), read
locklessly, and freed by RCU: a protocol in a page, the same as tables.pml, one operation a statement there.

    tablewalk explore benchmarks/protocols/tables.py::small

Entries are special, so that no folios are counted.  Each function of the protocol returns only what its caller needs:
what else it has seen makes no states.
"""

from __future__ import annotations

from tablewalk.explore.learn import activation
from tablewalk.explore.scenario import Setup, scenario

from ..kernel.mm_types import mm_struct, ptdesc
from ..kernel.pgtable import PFN_SHIFT, PRESENT, SPECIAL, mk_table
from ..kernel.pgtable_generic import pmd_lockptr, pte_alloc, walk_to_pmd
from ..machine import (
    add,
    call_rcu,
    forget,
    load,
    publish,
    rcu_read_lock,
    rcu_read_unlock,
    spin_lock,
    spin_lock_nested,
    spin_unlock,
    store,
)

ENTRIES = 2  # of a table
PTE = 1 << PFN_SHIFT | PRESENT | SPECIAL
DONE, CHANGED, NO_TABLE = range(3)


@activation
def is_still(pmd: int, value: int) -> bool:
    return load(pmd) == value


# --- a fault ------------------------------------------------------------------------------------------------


@activation
def fault(mm: mm_struct, pmd: int, pml: int, index: int, recheck: bool) -> None:
    """Set an entry of the table that is there, or of a new one."""
    while True:
        forget(())
        found = fault_once(pmd, index, recheck)
        if found == DONE:
            return
        if found == NO_TABLE:
            install(mm, pmd, pml)


@activation
def fault_once(pmd: int, index: int, recheck: bool) -> int:
    rcu_read_lock()
    found = set_entry(pmd, index, recheck)
    rcu_read_unlock()
    return found


@activation
def set_entry(pmd: int, index: int, recheck: bool) -> int:
    value = load(pmd)
    if not value:
        return NO_TABLE
    table = ptdesc(value >> PFN_SHIFT)
    spin_lock(table.ptl)
    same = not recheck or is_still(pmd, value)
    if same:
        store(table.entry + index, PTE)
    spin_unlock(table.ptl)
    return DONE if same else CHANGED


@activation
def install(mm: mm_struct, pmd: int, pml: int) -> None:
    """Let the entry point to a new table, unless somebody was quicker."""
    table = ptdesc.alloc(ENTRIES)
    spin_lock(pml)
    if is_still(pmd, 0):
        add(mm.nr_ptes, 1)
        publish(table.addr)
        store(pmd, mk_table(table))
        spin_unlock(pml)
    else:
        spin_unlock(pml)
        table.free(ENTRIES)


# --- who takes tables away ----------------------------------------------------------------------------------


@activation
def retract(mm: mm_struct, pmd: int, pml: int) -> None:
    """Empty the table and take it away."""
    table = detach_full(pmd, pml)
    if table:
        free_later(mm, table)


@activation
def detach_full(pmd: int, pml: int) -> int:
    spin_lock(pml)
    table = ptdesc(load(pmd) >> PFN_SHIFT)
    if table:
        spin_lock_nested(table.ptl)
        for i in range(ENTRIES):
            clear(table.entry + i)
        store(pmd, 0)
        spin_unlock(table.ptl)
    spin_unlock(pml)
    return table.addr


@activation
def zap(mm: mm_struct, pmd: int, pml: int) -> None:
    """Empty the table, and take it away if it is empty still."""
    if zap_entries(pmd):
        table = detach_empty(pmd, pml)
        if table:
            free_later(mm, table)


@activation
def zap_entries(pmd: int) -> bool:
    rcu_read_lock()
    found = zap_table(pmd)
    rcu_read_unlock()
    return found


@activation
def zap_table(pmd: int) -> bool:
    value = load(pmd)
    if not value:
        return False
    table = ptdesc(value >> PFN_SHIFT)
    spin_lock(table.ptl)
    same = is_still(pmd, value)
    if same:
        for i in range(ENTRIES):
            clear(table.entry + i)
    spin_unlock(table.ptl)
    return same


@activation
def detach_empty(pmd: int, pml: int) -> int:
    spin_lock(pml)
    table = ptdesc(load(pmd) >> PFN_SHIFT)
    if table:
        spin_lock_nested(table.ptl)
        empty = is_empty(table)
        if empty:
            store(pmd, 0)
        spin_unlock(table.ptl)
    spin_unlock(pml)
    return table.addr if table and empty else 0


@activation
def is_empty(table: ptdesc) -> bool:
    return all(load(table.entry + i) == 0 for i in range(ENTRIES))


@activation
def clear(entry: int) -> None:
    if load(entry):
        store(entry, 0)


@activation
def free_later(mm: mm_struct, table: int) -> None:
    add(mm.nr_ptes, -1)
    call_rcu(free_table, table)


@activation
def free_table(table: int) -> None:
    ptdesc(table).free(ENTRIES)


# --- who only looks -----------------------------------------------------------------------------------------


@activation
def read(pmd: int, index: int) -> None:
    rcu_read_lock()
    peek(pmd, index)
    rcu_read_unlock()


@activation
def peek(pmd: int, index: int) -> None:
    table = ptdesc(load(pmd) >> PFN_SHIFT)
    if table:
        load(table.entry + index)


# --- scenarios ----------------------------------------------------------------------------------------------


def threads(s: Setup, faults: int, retractions: int, zaps: int, readers: int, recheck: bool = True) -> None:
    """So many threads of each kind, and a table to begin with."""
    mm = s.process().mm
    pmd = walk_to_pmd(mm, s.A)
    pml = pmd_lockptr(mm, pmd, s.A)
    pte_alloc(mm, pmd, s.A)
    for n in range(faults):
        s.thread(f"fault {n}", lambda index=n % ENTRIES: fault(mm, pmd, pml, index, recheck))
    for n in range(retractions):
        s.thread(f"retract {n}", lambda: retract(mm, pmd, pml))
    for n in range(zaps):
        s.thread(f"zap {n}", lambda: zap(mm, pmd, pml))
    for n in range(readers):
        s.thread(f"read {n}", lambda: read(pmd, 0))


@scenario(slots=2)
def small(s: Setup) -> None:
    """A fault, a retraction and a zap."""
    threads(s, 1, 1, 1, 0)


@scenario(slots=2)
def medium(s: Setup) -> None:
    """Two faults, a retraction and a zap."""
    threads(s, 2, 1, 1, 0)


@scenario(slots=2)
def large(s: Setup) -> None:
    """Two faults, a retraction, a zap and a reader."""
    threads(s, 2, 1, 1, 1)


@scenario(slots=2)
def huge(s: Setup) -> None:
    """Two faults, a retraction, a zap and two readers."""
    threads(s, 2, 1, 1, 2)


@scenario(slots=2)
def without_recheck(s: Setup) -> None:
    """A fault that does not look at the pmd again when it has the lock."""
    threads(s, 1, 1, 1, 0, recheck=False)

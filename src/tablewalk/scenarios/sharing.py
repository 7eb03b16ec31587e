# SPDX-License-Identifier: GPL-2.0-only
"""PMD tables of hugetlb pages that two processes share."""

from __future__ import annotations

from typing import Any, Final

from tablewalk.explore.scenario import Setup, scenario

from ..machine import inc_not_zero

SHARED_PAGE: Final = 1
OTHER_PAGE: Final = 2  # what the second process maps when it has the table for itself


def _two(s: Setup) -> tuple[Any, Any, Any]:
    """(module, mappings of one file by two processes); the first has touched its own."""
    hugetlb, lock = s.model.kernel("huge_pmd_share"), s.shmem(1).f_mapping.i_mmap_rwsem
    first, second = (hugetlb.hugetlb_mmap(s.process().mm, lock) for _ in range(2))
    hugetlb.huge_pmd_share(first, second)
    return hugetlb, first, second


def _shared_table(s: Setup) -> tuple[Any, Any, Any, Any]:
    """The same, and the table that both have."""
    hugetlb, first, second = _two(s)
    hugetlb.huge_pmd_share(second, first)
    table = hugetlb.pmd_table(s.model.machine.load(first.pud))
    s.model.machine.store(table.entry, SHARED_PAGE)
    return hugetlb, first, second, table


def _gup_and_unshare(s: Setup) -> None:
    """The first process pins a page without locks while it gives the table up, and the second uses it otherwise."""
    hugetlb, first, second, table = _shared_table(s)
    machine = s.model.machine

    def gup() -> int:
        flags = machine.local_irq_save()
        page = machine.load(table.entry) if machine.load(first.pud) else 0
        machine.local_irq_restore(flags)
        return int(page)

    def reuse() -> None:
        machine.down_write(second.i_mmap_rwsem)
        alone = not hugetlb.ptdesc_pmd_is_shared(table)
        machine.up_write(second.i_mmap_rwsem)
        if alone:
            machine.store(table.entry, OTHER_PAGE)

    s.thread("gup", gup)
    s.thread("munmap", lambda: hugetlb.unmap_hugepages((first,)))
    s.thread("reuse", reuse)
    s.finally_(lambda results: "another's page was pinned" if results["gup"] == OTHER_PAGE else None)
    s.sometimes_ends("a page is pinned", lambda results: results["gup"] == SHARED_PAGE)


@scenario(arch="arm64/1")
def hugetlb_unshare_and_gup_fast(s: Setup) -> None:
    """A process gives up a shared PMD table that get_user_pages_fast walks (arm64)."""
    _gup_and_unshare(s)


@scenario()
def hugetlb_unshare_and_gup_fast_interrupt(s: Setup) -> None:
    """The same where the flush interrupts (x86)."""
    _gup_and_unshare(s)


@scenario()
def hugetlb_unmap_twice(s: Setup) -> None:
    """Two processes unmap a shared PMD table, whose page a third task looks at: it is freed once."""
    hugetlb, first, second, table = _shared_table(s)
    machine = s.model.machine

    def look() -> None:
        machine.rcu_read_lock()
        if machine.load(second.pud) and inc_not_zero(table._refcount):
            machine.add(table._refcount, -1)
        machine.rcu_read_unlock()

    s.thread("first", lambda: hugetlb.unmap_hugepages((first,)))
    s.thread("second", lambda: hugetlb.unmap_hugepages((second,)))
    s.thread("look", look)
    s.finally_(lambda results: "the table is left" if machine.mem[machine.ghost_of(table.addr)] else None)
    s.sometimes("huge_pmd_unshare: store")


@scenario()
def hugetlb_share_and_unmap(s: Setup) -> None:
    """A fault shares a PMD table whose process unmaps it: both have it, or the fault makes one of its own."""
    hugetlb, first, second = _two(s)
    machine = s.model.machine

    def not_shared(results: dict[str, Any]) -> str | None:
        table = hugetlb.pmd_table(machine.load(second.pud))
        return "it counts as shared" if hugetlb.ptdesc_pmd_is_shared(table) else None

    s.thread("munmap", lambda: hugetlb.unmap_hugepages((first,)))
    s.thread("fault", lambda: hugetlb.huge_pmd_share(second, first))
    s.finally_(not_shared)
    s.sometimes("huge_pmd_unshare: store", "pmd_alloc_one")


@scenario()
def hugetlb_faults(s: Setup) -> None:
    """Two faults of one process, of which one installs the table that it shares."""
    hugetlb, first, second = _two(s)
    machine = s.model.machine

    def count(results: dict[str, Any]) -> str | None:
        shared = machine.load(hugetlb.pmd_table(machine.load(second.pud)).pt_share_count)
        return None if shared == 1 else f"it is shared {shared} times"

    s.thread("one", lambda: hugetlb.huge_pmd_share(second, first))
    s.thread("other", lambda: hugetlb.huge_pmd_share(second, first))
    s.finally_(count)
    s.sometimes("huge_pmd_share")


@scenario()
def hugetlb_split_and_fault(s: Setup) -> None:
    """A process splits its mapping, while another's fault finds its table to share."""
    hugetlb, first, second = _two(s)
    machine = s.model.machine

    def not_shared(results: dict[str, Any]) -> str | None:
        table = hugetlb.pmd_table(machine.load(first.pud))
        return "parts share a table" if table and hugetlb.ptdesc_pmd_is_shared(table) else None

    s.thread("split", lambda: hugetlb.hugetlb_split(first))
    s.thread("fault", lambda: hugetlb.huge_pmd_share(second, first))
    s.finally_(not_shared)
    s.sometimes("huge_pmd_unshare: store", "pmd_alloc_one")

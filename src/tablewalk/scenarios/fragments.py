# SPDX-License-Identifier: GPL-2.0-only
"""PTE tables that share a page: both are freed, and one of them is being read."""

from __future__ import annotations

from typing import Any

from tablewalk.explore.scenario import Setup, scenario


def _shared_page(s: Setup) -> tuple[Any, Any, Any]:
    """(process, page of two tables, slot that points to the first of them); a reader comes by the slot."""
    frag, machine = s.model.kernel("pgtable_frag"), s.model.machine
    p = s.process()
    page = frag.table_page_alloc(p.mm)
    slot = frag.table_page_alloc(p.mm).entry
    machine.store(slot, page.addr)

    def read() -> None:
        machine.rcu_read_lock()
        if machine.load(slot):
            machine.load(page.entry)
        machine.rcu_read_unlock()

    def page_is_left(results: dict[str, Any]) -> str | None:
        return "the page is not freed" if machine.mem[machine.ghost_of(page.addr)] else None

    s.thread("read", read)
    s.finally_(page_is_left)
    return p, page, slot


@scenario()
def powerpc_fragments(s: Setup) -> None:
    """Two tables of a page are freed by RCU, by two tasks."""
    _, page, slot = _shared_page(s)
    frag, machine = s.model.kernel("pgtable_frag"), s.model.machine
    s.thread("first", lambda: (machine.store(slot, 0), frag.pte_fragment_free_defer(page)))
    s.thread("second", lambda: frag.pte_fragment_free_defer(page))
    s.sometimes("pte_fragment_free_defer", "queue_rcu_head")


@scenario()
def powerpc_fragments_munmap(s: Setup) -> None:
    """One table of a page is freed by RCU, the other by the gather of a munmap, when it is the last or not."""
    _, page, slot = _shared_page(s)
    frag, machine = s.model.kernel("pgtable_frag"), s.model.machine
    s.thread("collapse", lambda: frag.pte_fragment_free_defer(page))
    s.thread("munmap", lambda: (machine.store(slot, 0), frag.tlb_remove_fragment(page)))
    s.sometimes("queue_rcu_head")


@scenario()
def s390_halves(s: Setup) -> None:
    """One half of a page is freed by RCU, the other at once."""
    p, page, slot = _shared_page(s)
    frag, machine = s.model.kernel("pgtable_frag"), s.model.machine
    s.thread("first", lambda: (machine.store(slot, 0), frag.page_table_free_defer(p.mm, page)))
    s.thread("second", lambda: frag.page_table_free(p.mm, page))
    s.sometimes("page_table_free_defer", "page_table_free")


@scenario()
def s390_halves_munmap(s: Setup) -> None:
    """One half of a page is freed by RCU, the other by the gather of a munmap."""
    p, page, slot = _shared_page(s)
    frag, machine = s.model.kernel("pgtable_frag"), s.model.machine
    s.thread("collapse", lambda: frag.page_table_free_defer(p.mm, page))
    s.thread("munmap", lambda: (machine.store(slot, 0), frag.page_table_free_rcu(p.mm, page)))
    s.sometimes("queue_rcu_head")


@scenario()
def s390_halves_exit(s: Setup) -> None:
    """One half was freed, the other is freed by RCU, and the process exits before the grace period is over."""
    p, page, slot = _shared_page(s)
    frag, machine = s.model.kernel("pgtable_frag"), s.model.machine
    frag.page_table_free(p.mm, page)
    s.thread("defer", lambda: (machine.store(slot, 0), frag.page_table_free_defer(p.mm, page), p.exit()))
    s.sometimes("page_table_free_defer", "exit_mmap")

# SPDX-License-Identifier: GPL-2.0-only
"""Pages that move elsewhere in memory (migration), and two who use them meanwhile."""

from __future__ import annotations

from tablewalk.explore.scenario import (
    MADV_COLLAPSE,
    MADV_DONTNEED,
    MADV_PAGEOUT,
    UFFD_MISSING,
    Process,
    Setup,
    scenario,
)


@scenario()
def migrate_fault_dontneed(s: Setup) -> None:
    """Who waits for a page that moves finds its table gone: MADV_DONTNEED has taken it away."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    s.thread("migrate", lambda: p.move_pages(s.A))
    s.thread("write-fault", lambda: p.write(s.A, 2))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) in (0, 2) else f"the page reads {p.read(s.A)}")
    s.sometimes_ends("the page moves", lambda results: results["migrate"] == (0,))
    s.sometimes("softleaf_entry_wait_on_locked", "reclaimed_fast")


@scenario(pool=4)
def migrate_mremap_after(s: Setup) -> None:
    """A page moves elsewhere in memory while mremap moves it behind what was moved there: the reverse map, which looks
    there first, finds it, here or there."""
    p = s.process()
    p.mmap(s.A, 2)
    p.fill(s.A, 2, 1)
    there = s.A + 4 * s.huge * s.page
    p.mremap(s.A, 1, 1, there)
    s.thread("migrate", lambda: p.move_pages(s.A + s.page))
    s.thread("mremap", lambda: p.mremap(s.A + s.page, 1, 1, there + s.page))
    s.finally_(lambda results: None if p.read(there + s.page) == 1 else "the page does not read 1")
    s.sometimes_ends("the page moves", lambda results: results["migrate"] == (0,))
    s.sometimes("take_rmap_locks", "remove_migration_pte")


def _moves(s: Setup, p: Process) -> None:
    s.thread("migrate", lambda: p.move_pages(s.A))
    s.sometimes_ends("the huge page moves", lambda results: results["migrate"] == (0,))


@scenario()
def huge_migrate_and_collapse(s: Setup) -> None:
    """A huge page moves whose range MADV_COLLAPSE is asked to make huge."""
    p = s.huge_page()
    _moves(s, p)
    s.thread("collapse-anon", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.finally_(lambda results: None if p.read(s.A) == 1 else f"the page reads {p.read(s.A)}, not 1")


@scenario()
def huge_migrate_and_uffd_move(s: Setup) -> None:
    """A huge page moves elsewhere in memory, of which UFFDIO_MOVE moves a page to another address."""
    p = s.huge_page()
    there = s.A + 4 * s.huge * s.page
    p.mmap(there, s.huge)
    uffd = p.uffd(there, s.huge, UFFD_MISSING)
    _moves(s, p)
    s.thread("uffd-move", lambda: uffd.move(there, s.A))
    s.finally_(lambda results: None if p.read(s.A + s.page) == 1 else "the page beside has lost what was written")


@scenario(pool=5, options={"swap": "y"})
def huge_migrate_and_split_elsewhere(s: Setup) -> None:
    """A huge page of a child's moves, while the one that its parent has at the same address is split."""
    p = s.huge_page()
    q = p.fork()
    s.processes.append(q)
    q.fill(s.A, s.huge, 2)
    q.madvise(s.A, s.huge, MADV_COLLAPSE)
    _moves(s, q)
    s.thread("swap-out", lambda: p.madvise(s.A, 1, MADV_PAGEOUT))
    s.finally_(lambda results: None if (p.read(s.A), q.read(s.A)) == (1, 2) else "a page has lost what was written")
    s.sometimes("split_folio")


@scenario()
def huge_migrate_and_damon(s: Setup) -> None:
    """DAMON looks at a huge page under migration, and keeps its CPU from who moves it; another CPU writes to it."""
    p = s.huge_page()
    migrate, machine = s.model.kernel("migrate"), s.model.machine
    _, f = migrate.folio_walk(s.model.kernel("vma").vma_lookup(p.mm, s.A), s.A)
    machine.mutex_lock(f.lock)
    migrate.try_to_migrate(f)
    damon = s.model.kernel("damon_vaddr")

    def cpu() -> tuple[bool, bool]:
        damon.damon_va_mkold(p.mm, s.A)
        moving = damon.damon_va_young(p.mm, s.A)
        sem = migrate.rmap_lock_read(f)
        migrate.remove_migration_ptes(f, tuple([migrate.folio_page(f, i) for i in range(s.huge)]))
        machine.up_read(sem)
        machine.mutex_unlock(f.lock)
        migrate.folio_put(f)
        damon.damon_va_mkold(p.mm, s.A)
        return moving, damon.damon_va_young(p.mm, s.A)

    s.thread("damon", cpu)
    s.thread("write-fault", lambda: p.write(s.A, 2))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("softleaf_entry_wait_on_locked")
    s.sometimes_ends("the page is under migration", lambda results: not results["damon"][0])
    s.sometimes_ends("it is young again", lambda results: results["damon"][1])

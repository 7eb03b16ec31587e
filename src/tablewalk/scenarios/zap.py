# SPDX-License-Identifier: GPL-2.0-only
"""MADV_DONTNEED that takes empty tables away (PT_RECLAIM), and those who use the tables meanwhile."""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_DONTNEED, PROT_READ, RW, Setup, scenario


@scenario()
def fault_and_dontneed(s: Setup) -> None:
    """A write fault while MADV_DONTNEED empties the table and takes it away: the write is never lost."""
    p = s.written()
    s.thread("fault", lambda: p.write(s.A, 2))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) in (0, 2) else f"the page reads {p.read(s.A)}")
    s.sometimes("reclaimed_fast")


@scenario(options={"alloc_split_ptlocks": "y"})
def fault_and_dontneed_allocated_lock(s: Setup) -> None:
    """The same where the table's lock is allocated apart from it."""
    p = s.written()
    s.thread("fault", lambda: p.write(s.A, 2))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) in (0, 2) else f"the page reads {p.read(s.A)}")
    s.sometimes("reclaimed_fast")


@scenario()
def faults_and_dontneed_slow(s: Setup) -> None:
    """The pmd lock is taken by a fault of the next table: MADV_DONTNEED proves by a rescan that its table is empty."""
    p = s.written()
    s.thread("faults", lambda: (p.write(s.A + s.huge * s.page, 3), p.write(s.A, 2)))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) in (0, 2) else f"the page reads {p.read(s.A)}")
    s.sometimes("reclaimed_slow")


@scenario()
def dontneed_twice(s: Setup) -> None:
    """Two MADV_DONTNEED of one range: the table is taken away once."""
    p = s.written()
    s.thread("first", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.thread("second", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) == 0 else f"the page reads {p.read(s.A)}")
    s.sometimes("reclaimed_fast")


@scenario()
def read_and_dontneed(s: Setup) -> None:
    """A read, which may map the zero page, while MADV_DONTNEED empties the table."""
    p = s.written()
    s.thread("read", lambda: p.read(s.A))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if results["read"] in (0, 1) else f"the read saw {results['read']}")
    s.sometimes("reclaimed_fast", "do_anonymous_page")


@scenario()
def gup_fast_and_dontneed(s: Setup) -> None:
    """get_user_pages_fast walks without locks while the table is taken away."""
    p = s.written()
    s.thread("gup", lambda: p.gup_fast(s.A))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if results["gup"] == 1 else f"{results['gup']} pages were pinned")
    s.sometimes("reclaimed_fast", "gup_fast_pte", "faultin_page")


@scenario()
def munmap_and_fault(s: Setup) -> None:
    """A write fault while the mapping goes away: it is served, or the task killed."""
    p = s.written()
    s.thread("fault", lambda: p.write(s.A + s.page, 2))
    s.thread("munmap", lambda: p.munmap(s.A, 2 * s.huge))
    s.finally_(lambda results: None if results["fault"] in (0, -1) else f"the write returned {results['fault']}")
    s.sometimes("do_anonymous_page: store", "free_pgtables")


@scenario()
def mprotect_and_fault(s: Setup) -> None:
    """A write fault while write permission is taken away: it is served, or the task killed."""
    p = s.written()
    s.thread("fault", lambda: p.write(s.A + s.page, 2))
    s.thread("mprotect", lambda: p.mprotect(s.A, s.huge, PROT_READ))
    s.finally_(lambda results: None if results["fault"] in (0, -1) else f"the write returned {results['fault']}")
    s.sometimes("do_anonymous_page: store", "change_protection")


@scenario(pool=4)
def fork_and_dontneed(s: Setup) -> None:
    """fork copies the table while MADV_DONTNEED waits for mmap_lock, or has emptied it before."""
    p = s.written()
    s.thread("fork", lambda: p.fork().exit())
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) == 0 else f"the page reads {p.read(s.A)}")
    s.sometimes("reclaimed_fast", "copy_present_pte")


@scenario(pool=4)
def fork_and_fault(s: Setup) -> None:
    """A write fault while fork shares the page: the child sees what was there before or after."""
    p = s.written()

    def child_reads() -> int:
        child = p.fork()
        value = child.read(s.A)
        child.exit()
        return value

    s.thread("fork", child_reads)
    s.thread("fault", lambda: p.write(s.A, 2))
    s.finally_(lambda results: None if results["fork"] in (1, 2) else f"the child reads {results['fork']}")
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}")
    s.sometimes("copy_present_pte", "do_wp_page")


@scenario(pool=4)
def mremap_and_fault(s: Setup) -> None:
    """A fault while the mapping moves elsewhere."""
    p = s.written()
    there = s.A + 4 * s.huge * s.page
    s.thread("fault", lambda: p.write(s.A + s.page, 2))
    s.thread("mremap", lambda: p.mremap(s.A, s.huge, s.huge, there))
    s.finally_(lambda results: None if p.read(there) == 1 else f"the page that was there reads {p.read(there)}")
    s.finally_(lambda results: None if p.read(there + s.page) in (0, 2) else f"the other: {p.read(there + s.page)}")
    s.sometimes("do_anonymous_page: store", "move_normal_pmd")


@scenario()
def stack_grows(s: Setup) -> None:
    """A write below a stack lets it grow, while a fault in it is served and mincore looks for it."""
    p, below = s.process(), s.A + (s.huge - 2) * s.page
    k = s.model.kernel("mmap")
    flags = k.MAP_PRIVATE | k.MAP_FIXED | k.MAP_ANONYMOUS | k.MAP_GROWSDOWN
    k.sys_mmap(p.mm, s.A + s.huge * s.page, s.page, RW, flags, s.model.kernel("mm_types").file(0), 0)
    s.thread("below", lambda: p.write(below, 1))
    s.thread("above", lambda: p.write(s.A + s.huge * s.page, 2))
    s.thread("mincore", lambda: p.mincore(s.A + s.huge * s.page, 1))
    s.finally_(lambda results: None if p.read(below) == 1 else f"the page reads {p.read(below)}, not 1")
    s.sometimes("grow_stack")

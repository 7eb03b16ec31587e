# SPDX-License-Identifier: GPL-2.0-only
"""Those who map a table that goes away in that moment: each has to notice."""

from __future__ import annotations

from tablewalk.explore.scenario import (
    MADV_COLLAPSE,
    MADV_DONTNEED,
    MADV_FREE,
    PROT_READ,
    UFFD_MISSING,
    Process,
    Setup,
    scenario,
)


def _anonymous(s: Setup) -> Process:
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    return p


def _retracted(s: Setup) -> tuple[Process, Process]:
    """(process whose MADV_COLLAPSE retracts, process of which the table is retracted)."""
    f = s.shmem(s.huge)
    p, q = s.process(), s.process()
    for process in (p, q):
        process.mmap(s.A, s.huge, f)
    for i in range(s.huge):
        p.write(s.A + i * s.page, 1)
    q.read(s.A)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.sometimes("retracted")
    return p, q


@scenario()
def file_read_and_dontneed(s: Setup) -> None:
    """A read fault maps around itself while MADV_DONTNEED takes the table away."""
    f = s.shmem(s.huge)
    p, q = s.process(), s.process()
    for process in (p, q):
        process.mmap(s.A, s.huge, f)
    for i in range(s.huge):
        q.write(s.A + i * s.page, 1)
    p.read(s.A)
    s.thread("read", lambda: p.read(s.A))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if results["read"] == 1 else f"the read saw {results['read']}")


@scenario()
def mincore_and_dontneed(s: Setup) -> None:
    """mincore looks at entries of a table that MADV_DONTNEED takes away."""
    p = _anonymous(s)
    mincore = s.model.kernel("mincore")
    s.thread("mincore", lambda: mincore.sys_mincore(p.mm, s.A, s.page))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if results["mincore"][0] == 0 else f"mincore returns {results['mincore'][0]}")


@scenario()
def pagemap_and_dontneed(s: Setup) -> None:
    """pagemap looks at entries of a table that MADV_DONTNEED takes away."""
    p = _anonymous(s)
    task_mmu = s.model.kernel("task_mmu")
    s.thread("pagemap", lambda: task_mmu.pagemap_read(p.mm, s.A, s.A + s.huge * s.page))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))


@scenario()
def file_reads(s: Setup) -> None:
    """Two read faults where there is no table yet: one is installed."""
    f = s.shmem(s.huge)
    p, q = s.process(), s.process()
    for process in (p, q):
        process.mmap(s.A, s.huge, f)
    for i in range(s.huge):
        q.write(s.A + i * s.page, 1)
    s.thread("first", lambda: p.read(s.A))
    s.thread("second", lambda: p.read(s.A + s.page))
    s.finally_(lambda results: None if set(results.values()) == {1} else f"the reads saw {results}")


@scenario()
def free_and_dontneed(s: Setup) -> None:
    """MADV_FREE looks at entries of a table that MADV_DONTNEED takes away."""
    p = _anonymous(s)
    s.thread("free", lambda: p.madvise(s.A, s.huge, MADV_FREE))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) == 0 else f"the page reads {p.read(s.A)}")


@scenario()
def uffd_fault_and_dontneed(s: Setup) -> None:
    """A fault that userfaultfd is told of looks whether it still has to wait, while MADV_DONTNEED takes the table."""
    p = _anonymous(s)
    p.uffd(s.A, s.huge, UFFD_MISSING)
    s.thread("fault", lambda: p.read(s.A + s.page))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    waits = s.model.kernel("fault").WOULD_WAIT
    s.finally_(lambda results: None if results["fault"] == waits else "a missing page was read")


@scenario()
def uffd_copy_and_dontneed(s: Setup) -> None:
    """UFFDIO_COPY into a table that MADV_DONTNEED takes away."""
    p = _anonymous(s)
    source = s.A + 2 * s.huge * s.page
    p.mmap(source, 1)
    p.write(source, 7)
    uffd = p.uffd(s.A, s.huge, UFFD_MISSING)
    s.thread("copy", lambda: uffd.copy(s.A + s.page, source))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))


@scenario()
def shmem_collapse_mprotect(s: Setup) -> None:
    """MADV_COLLAPSE retracts the table of which another process's mprotect changes the entries."""
    _, q = _retracted(s)
    s.thread("mprotect", lambda: q.mprotect(s.A, s.huge, PROT_READ))
    s.finally_(lambda results: None if q.write(s.A, 2) == -1 else "the page can be written")


@scenario()
def shmem_collapse_mlock(s: Setup) -> None:
    """MADV_COLLAPSE retracts the table of which another process's mlock walks the entries."""
    _, q = _retracted(s)
    mlock = s.model.kernel("mlock")
    s.thread("mlock", lambda: mlock.sys_mlock(q.mm, s.A, s.huge * s.page))


@scenario(pool=4)
def shmem_collapse_mremap_page(s: Setup) -> None:
    """MADV_COLLAPSE retracts the table of which another process's mremap moves an entry."""
    _, q = _retracted(s)
    there = s.A + (4 * s.huge + 1) * s.page
    s.thread("mremap", lambda: q.mremap(s.A, 1, 1, there))
    s.finally_(lambda results: None if q.read(there) == 1 else f"the page reads {q.read(there)}, not 1")

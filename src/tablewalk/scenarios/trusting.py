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
    """(process whose MADV_COLLAPSE unmaps page by page and retracts, process of which the table is retracted)."""
    p, q = s.sharing(2)
    q.read(s.A)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.sometimes("retracted")
    return p, q


@scenario()
def file_read_and_dontneed(s: Setup) -> None:
    """A read fault maps around itself while MADV_DONTNEED takes the table away."""
    _, p = s.sharing(2)
    p.read(s.A)
    s.thread("read", lambda: p.read(s.A))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if results["read"] == 1 else f"the read saw {results['read']}")
    s.sometimes("reclaimed_fast", "filemap_map_pages")


@scenario()
def mincore_and_dontneed(s: Setup) -> None:
    """mincore looks at entries of a table that MADV_DONTNEED takes away."""
    p = _anonymous(s)
    s.thread("mincore", lambda: p.mincore(s.A, 1))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if results["mincore"] >= 0 else f"mincore returns {results['mincore']}")
    s.sometimes("reclaimed_fast", "mincore_pte_range")


@scenario()
def file_reads(s: Setup) -> None:
    """Two read faults where there is no table yet: one is installed."""
    _, p = s.sharing(2)
    s.thread("first", lambda: p.read(s.A))
    s.thread("second", lambda: p.read(s.A + s.page))
    s.finally_(lambda results: None if set(results.values()) == {1} else f"the reads saw {results}")
    s.sometimes("pmd_install", "pte_free")


@scenario()
def free_and_dontneed(s: Setup) -> None:
    """MADV_FREE looks at entries of a table that MADV_DONTNEED takes away."""
    p = _anonymous(s)
    s.thread("free", lambda: p.madvise(s.A, s.huge, MADV_FREE))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) == 0 else f"the page reads {p.read(s.A)}")
    s.sometimes("reclaimed_fast", "madvise_free_pmd")


@scenario()
def uffd_fault_and_dontneed(s: Setup) -> None:
    """A fault that userfaultfd is told of looks whether it still has to wait, while MADV_DONTNEED takes the table."""
    p = _anonymous(s)
    p.uffd(s.A, s.huge, UFFD_MISSING)
    s.thread("fault", lambda: p.read(s.A + s.page))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    waits = s.model.kernel("fault").WOULD_WAIT
    s.finally_(lambda results: None if results["fault"] == waits else "a missing page was read")
    s.sometimes("reclaimed_fast", "userfaultfd_must_wait")


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
    s.sometimes("reclaimed_fast", "mfill_atomic_install_pte")


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


# --- readers: smaps, pagemap, mincore ----------------------------------------------------------------------


def _written(s: Setup) -> Process:
    """A process with one huge page's worth of anonymous memory, all of it mapped."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.fill(s.A, s.huge, 1)
    return p


@scenario()
def smaps_and_dontneed(s: Setup) -> None:
    """smaps adds up a table that MADV_DONTNEED empties and takes away: all pages are there, or none."""
    p = _written(s)
    s.thread("smaps", lambda: p.smaps()[0].stats.resident)
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    whole = s.huge * s.page
    s.finally_(lambda results: None if results["smaps"] in (0, whole) else f"Rss is {results['smaps']} bytes")
    s.sometimes("reclaimed_fast")


@scenario()
def pagemap_and_dontneed(s: Setup) -> None:
    """pagemap shows a table that MADV_DONTNEED empties and takes away: all pages are there, or none."""
    p = _written(s)
    s.thread("pagemap", lambda: p.pagemap(s.A, s.huge))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if results["pagemap"] in (0, s.huge) else f"{results['pagemap']} pages are present")
    s.sometimes("reclaimed_fast", "pagemap_pmd_range")


@scenario()
def smaps_and_munmap(s: Setup) -> None:
    """smaps goes from VMA to VMA, each locked by itself, while one goes away."""
    p = _written(s)
    p.mmap(s.A + 4 * s.huge * s.page, 1)
    s.thread("smaps", lambda: tuple(vma.vm_start for vma in p.smaps()))
    s.thread("munmap", lambda: p.munmap(s.A, s.huge))
    kept = s.A + 4 * s.huge * s.page
    s.finally_(lambda results: None if results["smaps"] in ((kept,), (s.A, kept)) else "a VMA that stayed is missing")
    s.sometimes("free_pgtables", "smap_gather_stats")


@scenario()
def shmem_collapse_smaps(s: Setup) -> None:
    """MADV_COLLAPSE retracts the table that smaps of another process adds up."""
    _, q = _retracted(s)
    s.thread("smaps", lambda: q.smaps()[0].stats.resident)
    whole = s.huge * s.page
    s.finally_(lambda results: None if results["smaps"] <= whole else f"Rss is {results['smaps']} bytes")


@scenario()
def shmem_collapse_pagemap(s: Setup) -> None:
    """MADV_COLLAPSE retracts the table that pagemap of another process shows."""
    _, q = _retracted(s)
    s.thread("pagemap", lambda: q.pagemap(s.A, s.huge))
    s.finally_(lambda results: None if results["pagemap"] <= s.huge else f"{results['pagemap']} pages are present")


@scenario()
def shmem_collapse_mincore(s: Setup) -> None:
    """MADV_COLLAPSE retracts the table that mincore of another process walks: the file's pages are always in core."""
    _, q = _retracted(s)
    s.thread("mincore", lambda: q.mincore(s.A, s.huge))
    s.finally_(lambda results: None if results["mincore"] == s.huge else f"{results['mincore']} pages are in core")


@scenario()
def shmem_collapse_dontneed_mincore(s: Setup) -> None:
    """mincore of a file's mapping that is collapsed, and given back: its pages are always in core."""
    (p,) = s.sharing(1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.thread("mincore", lambda: p.mincore(s.A, s.huge))
    s.finally_(lambda results: None if results["mincore"] == s.huge else f"{results['mincore']} pages are in core")
    s.sometimes("retracted", "reclaimed_fast", "mincore_pte_range")

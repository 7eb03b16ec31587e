# SPDX-License-Identifier: GPL-2.0-only
"""Readers of page tables, smaps, pagemap and mincore, and those who take the tables away meanwhile."""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_COLLAPSE, MADV_DONTNEED, Process, Setup, scenario


def _written(s: Setup) -> Process:
    """A process with one huge page's worth of anonymous memory, all of it mapped."""
    p = s.process()
    p.mmap(s.A, s.huge)
    for i in range(s.huge):
        p.write(s.A + i * s.page, 1)
    return p


def _retracted(s: Setup) -> tuple[Process, Process]:
    """(process whose MADV_COLLAPSE unmaps page by page and retracts, process of which the table is retracted)."""
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


@scenario()
def smaps_and_munmap(s: Setup) -> None:
    """smaps goes from VMA to VMA, each locked by itself, while one goes away."""
    p = _written(s)
    p.mmap(s.A + 4 * s.huge * s.page, 1)
    s.thread("smaps", lambda: tuple(vma.vm_start for vma in p.smaps()))
    s.thread("munmap", lambda: p.munmap(s.A, s.huge))
    kept = s.A + 4 * s.huge * s.page
    s.finally_(lambda results: None if results["smaps"] in ((kept,), (s.A, kept)) else "a VMA that stayed is missing")


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
    f = s.shmem(s.huge)
    p = s.process()
    p.mmap(s.A, s.huge, f)
    for i in range(s.huge):
        p.write(s.A + i * s.page, 1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.thread("mincore", lambda: p.mincore(s.A, s.huge))
    s.finally_(lambda results: None if results["mincore"] == s.huge else f"{results['mincore']} pages are in core")

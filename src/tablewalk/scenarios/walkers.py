# SPDX-License-Identifier: GPL-2.0-only
"""Those who come to a table without a fault or a system call of its owner's, while it goes away: swap, aging, devices,
probes."""

from __future__ import annotations

from collections.abc import Callable

from tablewalk.explore.scenario import (
    MADV_DONTNEED,
    MADV_GUARD_INSTALL,
    MADV_HUGEPAGE,
    MADV_PAGEOUT,
    Process,
    Setup,
    scenario,
)


def _emptied(s: Setup, swapped: int = 0) -> Process:
    """A process with a table, of which so many pages are in swap, that MADV_DONTNEED takes away."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.fill(s.A, s.huge, 1)
    if swapped:
        p.madvise(s.A, swapped, MADV_PAGEOUT)
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    return p


def _locked(s: Setup, p: Process, walk: Callable[[], int]) -> Callable[[], int]:
    """The walk with mmap_lock held for reading."""
    locks = s.model.kernel("mmap_lock")

    def body() -> int:
        locks.mmap_read_lock(p.mm)
        result = int(walk())
        locks.mmap_read_unlock(p.mm)
        return result

    return body


@scenario(options={"swap": "y"})
def swapoff_and_dontneed(s: Setup) -> None:
    """swapoff brings pages back into a table that MADV_DONTNEED takes away."""
    p = _emptied(s, 1)
    unuse_mm = s.model.kernel("swapoff").unuse_mm
    s.thread("swapoff", lambda: unuse_mm(p.mm))
    s.finally_(lambda results: None if p.read(s.A) == 0 else f"the page reads {p.read(s.A)}")
    s.sometimes("unuse_pte: store")


@scenario(options={"swap": "y", "page_cluster": "1"})
def swapin_and_dontneed(s: Setup) -> None:
    """A fault reads ahead what the entries around it have in swap, while MADV_DONTNEED takes their table away."""
    p = _emptied(s, 2)
    s.thread("fault", lambda: p.read(s.A))
    s.finally_(lambda results: None if results["fault"] in (0, 1) else f"the read saw {results['fault']}")
    s.sometimes("swap_vma_readahead: load")


@scenario()
def aging_and_dontneed(s: Setup) -> None:
    """The multi-generational LRU makes entries old, while MADV_DONTNEED takes their table away."""
    p = _emptied(s)
    lru_gen, pmd = s.model.kernel("lru_gen"), s.model.kernel("pgtable").mm_find_pmd(p.mm, s.A)
    s.thread("aging", _locked(s, p, lambda: lru_gen.walk_pte_range(p.mm, pmd, s.A, s.huge)))
    s.finally_(lambda results: None if results["aging"] in (0, s.huge) else f"{results['aging']} entries were young")
    s.sometimes_ends("all entries are young", lambda results: results["aging"] == s.huge)
    s.sometimes_ends("no entry is young", lambda results: results["aging"] == 0)


@scenario()
def damon_and_dontneed(s: Setup) -> None:
    """DAMON makes an entry old and looks whether it is young again, while MADV_DONTNEED takes its table away."""
    p = _emptied(s)
    damon = s.model.kernel("damon_vaddr")
    s.thread("damon", lambda: (damon.damon_va_mkold(p.mm, s.A), damon.damon_va_young(p.mm, s.A)))
    s.finally_(lambda results: None if results["damon"] == (None, False) else "a page is young that nobody has used")
    s.sometimes("damon_mkold_pmd_entry: store", "reclaimed_fast")


@scenario()
def device_and_dontneed(s: Setup) -> None:
    """A device that shares the address space (HMM) asks for pages, while MADV_DONTNEED takes their table away."""
    p = _emptied(s)
    hmm, vmas, end = s.model.kernel("hmm"), s.model.kernel("vma"), s.A + s.huge * s.page
    s.thread("device", _locked(s, p, lambda: len(hmm.hmm_range_fault(vmas.find_vma(p.mm, s.A), s.A, end))))
    s.finally_(lambda results: None if results["device"] == s.huge else f"{results['device']} pages are given")
    s.sometimes("reclaimed_fast", "hmm_vma_walk_pmd")


@scenario()
def uprobe_and_dontneed(s: Setup) -> None:
    """A probe splits the huge zero page to get one of its pages, while MADV_DONTNEED takes the new table away."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.madvise(s.A, s.huge, MADV_HUGEPAGE)
    p.read(s.A)
    gup = s.model.kernel("gup")

    def probe() -> int:
        pages = gup.get_user_pages(p.mm, s.A, 1, False, gup.FOLL_SPLIT_PMD)
        gup.put_user_pages(pages)
        return len(pages)

    s.thread("probe", probe)
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if results["probe"] == 1 else "the probe gets no page")
    s.sometimes("split_zero_pmd")


@scenario()
def guard_install_and_dontneed(s: Setup) -> None:
    """MADV_GUARD_INSTALL puts a marker into a table that MADV_DONTNEED takes away."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    s.thread("guard", lambda: p.madvise(s.A + s.page, 1, MADV_GUARD_INSTALL))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A + s.page) == -1 else "the guard page can be read")
    s.sometimes("reclaimed_fast")


@scenario()
def device_migrates_and_dontneed(s: Setup) -> None:
    """A driver moves pages to where its device has them near, while MADV_DONTNEED takes their table away."""
    p = _emptied(s)
    device, vmas = s.model.kernel("migrate_device"), s.model.kernel("vma")
    s.thread("migrate", _locked(s, p, lambda: device.migrate_vma(vmas.find_vma(p.mm, s.A), s.A, s.A + s.page)))
    s.finally_(lambda results: None if p.read(s.A) == 0 else f"the page reads {p.read(s.A)}, not 0")
    s.sometimes_ends("the page moves", lambda results: results["migrate"] == 1)


@scenario(options={"swap": "y"})
def first_write_and_pageout(s: Setup) -> None:
    """The first write to a mapping gives it its reverse map, by which MADV_PAGEOUT of another page goes at once."""
    p = s.process()
    p.mmap(s.A, s.huge)
    beside = s.A + s.page
    s.thread("write", lambda: p.write(s.A, 1))
    s.thread("pageout", lambda: (p.write(beside, 2), p.madvise(beside, 1, MADV_PAGEOUT)))
    s.finally_(lambda results: None if (p.read(s.A), p.read(beside)) == (1, 2) else "a page has lost what was written")
    s.sometimes("swap_out_page")

# SPDX-License-Identifier: GPL-2.0-only
"""userfaultfd: pages that UFFDIO_MOVE takes elsewhere, markers that keep a table."""

from __future__ import annotations

from typing import Any

from tablewalk.explore.scenario import (
    MADV_DONTNEED,
    MADV_GUARD_INSTALL,
    MADV_HUGEPAGE,
    MADV_PAGEOUT,
    UFFD_MISSING,
    UFFD_WP,
    Process,
    Setup,
    Uffd,
    override,
    scenario,
)

from ..kernel.bug import BugOn
from ..kernel.folio_split import split_folio
from ..kernel.mm_types import folio


@override("userfaultfd_move:split_folio")
def split_or_livelock(f: folio) -> int:
    """Who has a folio's lock can split it: movers that keep each other from it would try again for ever."""
    error = split_folio(f)
    if error:
        raise BugOn("a mover that waits keeps the one who has the folio's lock from splitting it")
    return error


def _to_move(s: Setup, pages: int = 1) -> tuple[Process, Uffd, int]:
    """(process, its userfaultfd of a huge page's worth at A with a table of empty entries, address of what to move)."""
    p = s.process()
    source = s.A + 2 * s.huge * s.page
    p.mmap(s.A, s.huge)
    p.mmap(source, pages)
    p.write(s.A, 1)
    p.madvise(s.A, 1, MADV_DONTNEED)
    if pages > 1:
        p.madvise(source, pages, MADV_HUGEPAGE)
    p.write(source, 7)
    return p, p.uffd(s.A, s.huge, UFFD_MISSING), source


@scenario()
def uffd_move_and_dontneed(s: Setup) -> None:
    """UFFDIO_MOVE into a table that MADV_DONTNEED takes away: a page that was moved is there, or was dropped."""
    p, uffd, source = _to_move(s)
    s.thread("move", lambda: uffd.move(s.A, source))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.sometimes("reclaimed_fast", "move_present_ptes")


@scenario(arch="x86-pae/1", options={"highpte": "y"})
def uffd_move_and_dontneed_highpte(s: Setup) -> None:
    """The same with tables in high memory, each of which is mapped while it is used."""
    p, uffd, source = _to_move(s)
    s.thread("move", lambda: uffd.move(s.A, source))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.sometimes("reclaimed_fast", "move_present_ptes")


@scenario()
def uffd_move_huge_twice(s: Setup) -> None:
    """Two UFFDIO_MOVE of parts of a huge page, which has to be split for them: one of them gets on."""
    _, uffd, source = _to_move(s, s.huge)
    s.thread("first", lambda: uffd.move(s.A, source))
    s.thread("second", lambda: uffd.move(s.A + s.page, source + s.page))
    s.finally_(lambda results: None if 0 in results.values() else f"neither gets on: {results}")
    s.sometimes("split_anon_folio")


@scenario(options={"swap": "y"})
def uffd_move_swapped(s: Setup) -> None:
    """UFFDIO_MOVE of a page in swap that is read and swapped out again: it belongs to its new place."""
    p, uffd, source = _to_move(s)
    p.madvise(source, 1, MADV_PAGEOUT)
    s.thread("move", lambda: (uffd.move(s.A, source), p.read(s.A)))
    s.thread("swap", lambda: (p.read(source), p.madvise(source, 1, MADV_PAGEOUT)))
    s.finally_(lambda results: _misplaced(s, p, s.A))
    s.sometimes("move_swap_pte", "swap_out_page")


@scenario(options={"swap": "y"})
def uffd_move_cached(s: Setup) -> None:
    """UFFDIO_MOVE of a page in swap that is in the swap cache too: what is cached moves along."""
    p, uffd, source = _to_move(s)
    gup = s.model.kernel("gup")
    pages = gup.get_user_pages(p.mm, source, 1, False)
    p.madvise(source, 1, MADV_PAGEOUT)
    gup.put_user_pages(pages)
    s.thread("move", lambda: (uffd.move(s.A, source), p.read(s.A)))
    s.thread("read", lambda: p.read(source))
    s.finally_(lambda results: _misplaced(s, p, s.A))
    s.sometimes("move_swap_pte", "swapin_sync")


def _misplaced(s: Setup, p: Process, address: int) -> str | None:
    """What is wrong with the reverse map of the page at an address, if one is there."""
    pgtable, load = s.model.kernel("pgtable"), s.model.machine.load
    pmdval = load(pgtable.mm_find_pmd(p.mm, address))
    if not pgtable.pmd_is_table(pmdval):
        return None
    entry = load(pgtable.pmd_pgtable(pmdval).entry + pgtable.pte_index(address))
    if not pgtable.pte_present(entry) or entry & pgtable.SPECIAL:
        return None
    f: Any = pgtable.page_folio(pgtable.pte_page(entry))
    index = address // s.page
    return None if f.index == index else f"the page at index {index} is found by the reverse map at {f.index} only"


@scenario()
def uffd_move_zero_page(s: Setup) -> None:
    """UFFDIO_MOVE of the zero page, in the place of which another page is written."""
    p, uffd, source = _to_move(s)
    p.madvise(source, 1, MADV_DONTNEED)
    p.read(source)
    s.thread("move", lambda: uffd.move(s.A, source))
    s.thread("write", lambda: p.write(source, 2))
    s.finally_(lambda results: None if 2 in (p.read(s.A), p.read(source)) else "the write is lost")
    s.sometimes("move_zeropage_pte", "move_present_ptes")


@scenario()
def uffd_wp_and_dontneed(s: Setup) -> None:
    """MADV_DONTNEED of shared memory that userfaultfd has write-protected leaves markers, and so the table."""
    (p,) = s.sharing(1)
    uffd = p.uffd(s.A, s.huge, UFFD_WP)
    uffd.writeprotect(s.A, s.huge, True)
    waits = s.model.kernel("fault").WOULD_WAIT
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.thread("read", lambda: p.read(s.A))
    s.finally_(lambda results: None if p.write(s.A, 2) == waits else "the page can be written")
    s.sometimes("zap_install_uffd_wp_if_needed")


@scenario()
def guard_and_dontneed(s: Setup) -> None:
    """MADV_DONTNEED leaves the marker of a guard page, and so the table."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A + s.page, 1)
    p.madvise(s.A, 1, MADV_GUARD_INSTALL)
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.thread("read", lambda: p.read(s.A + s.page))
    s.finally_(lambda results: None if p.read(s.A) == -1 else "the guard page can be read")
    s.sometimes("zap_ptes")

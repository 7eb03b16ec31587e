# SPDX-License-Identifier: GPL-2.0-only
"""A huge page that is pinned, moved, copied or write-protected while others write to it, split it or take it away."""

from __future__ import annotations

from typing import Any

from tablewalk.explore.scenario import MADV_DONTNEED, UFFD_MISSING, UFFD_WP, Setup, scenario


@scenario()
def huge_gup_fast_and_split(s: Setup) -> None:
    """get_user_pages_fast pins a page of a huge page, another part of which MADV_DONTNEED splits off."""
    p = s.huge_page()
    s.thread("gup-fast", lambda: p.gup_fast(s.A + s.page))
    s.thread("dontneed", lambda: p.madvise(s.A, 1, MADV_DONTNEED))
    s.finally_(lambda results: None if results["gup-fast"] == 1 else f"{results['gup-fast']} pages were pinned")
    s.finally_(lambda results: None if p.read(s.A + s.page) == 1 else "the page beside has lost what was written")
    s.sometimes("gup_fast_pmd_leaf", "gup_fast_pte", "thp_split_pmd")


@scenario()
def huge_gup_fast_and_dontneed(s: Setup) -> None:
    """get_user_pages_fast pins a page of a huge page that MADV_DONTNEED takes away."""
    p = s.huge_page()
    s.thread("gup-fast", lambda: p.gup_fast(s.A + s.page))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if results["gup-fast"] == 1 else f"{results['gup-fast']} pages were pinned")
    s.finally_(lambda results: None if p.read(s.A) == 0 else f"the page reads {p.read(s.A)}")
    s.sometimes("gup_fast_pmd_leaf", "zap_huge_pmd", "faultin_page")


@scenario(pool=4)
def huge_mremap_and_write(s: Setup) -> None:
    """mremap moves a huge page as it is, which is written: before, or not at all."""
    p, there = s.huge_page(), s.A + 4 * s.huge * s.page
    s.thread("mremap", lambda: p.mremap(s.A, s.huge, s.huge, there))
    s.thread("write", lambda: p.write(s.A + s.page, 2))

    def check(results: dict[str, Any]) -> str | None:
        found = p.read(there), p.read(there + s.page)
        return None if found == (1, 1 if results["write"] else 2) else f"the pages read {found}"

    s.finally_(check)
    s.sometimes("move_huge_pmd: store")
    s.sometimes_ends("the write comes too late", lambda results: results["write"] == -1)


@scenario(pool=4)
def huge_mremap_and_migrate(s: Setup) -> None:
    """A huge page moves elsewhere in memory, while mremap moves it to another address."""
    p, there = s.huge_page(), s.A + 4 * s.huge * s.page
    s.thread("mremap", lambda: p.mremap(s.A, s.huge, s.huge, there))
    s.thread("migrate", lambda: p.move_pages(s.A))
    s.finally_(lambda results: None if p.read(there) == 1 else f"the page reads {p.read(there)}, not 1")
    s.sometimes("move_huge_pmd: store", "move_to_new_folio")


@scenario(pool=5)
def huge_migrate_and_fork(s: Setup) -> None:
    """A huge page moves elsewhere in memory, while fork copies its entry."""
    p = s.huge_page()

    def child_reads() -> int:
        child = p.fork()
        value = child.read(s.A)
        child.exit()
        return value

    s.thread("migrate", lambda: p.move_pages(s.A))
    s.thread("fork", child_reads)
    s.finally_(lambda results: None if results["fork"] == 1 else f"the child reads {results['fork']}")
    s.finally_(lambda results: None if p.read(s.A) == 1 else f"the page reads {p.read(s.A)}, not 1")
    s.sometimes("copy_huge_non_present_pmd", "move_to_new_folio")


@scenario(pool=5)
def huge_fork_and_write(s: Setup) -> None:
    """fork shares a huge page with a child, while it is written: what comes after that the child does not see."""
    p, there = s.huge_page(), s.A + s.page

    def child_reads() -> int:
        child = p.fork()
        value = child.read(there)
        child.exit()
        return value

    s.thread("fork", child_reads)
    s.thread("write", lambda: p.write(there, 2))
    s.finally_(lambda results: None if results["fork"] in (1, 2) else f"the child reads {results['fork']}")
    s.finally_(lambda results: None if p.read(there) == 2 else f"the page reads {p.read(there)}, not 2")
    s.sometimes("copy_huge_pmd", "do_huge_pmd_wp_page", "thp_split_pmd")


@scenario(pool=4)
def huge_uffd_move_and_write(s: Setup) -> None:
    """UFFDIO_MOVE of a huge page as it is, which is written: here or there."""
    p, there = s.huge_page(), s.A + 4 * s.huge * s.page
    p.mmap(there, s.huge)
    uffd = p.uffd(there, s.huge, UFFD_MISSING)
    s.thread("uffd-move", lambda: uffd.move(there, s.A, s.huge))
    s.thread("write", lambda: p.write(s.A + s.page, 2))
    s.finally_(lambda results: None if 2 in (p.read(s.A + s.page), p.read(there + s.page)) else "the write is lost")
    s.sometimes("move_huge_pmd_locked: store", "create_huge_pmd")


@scenario()
def huge_uffd_writeprotect_and_write(s: Setup) -> None:
    """UFFDIO_WRITEPROTECT ends the protection of a huge page, while it is written: then, or the writer waits."""
    p = s.huge_page()
    _protection_ends(s, p, "change_huge_pmd")


@scenario()
def uffd_writeprotect_and_write(s: Setup) -> None:
    """The same of small pages."""
    p = s.written()
    _protection_ends(s, p, "change_present_pte")


def _protection_ends(s: Setup, p: Any, by: str) -> None:
    uffd = p.uffd(s.A, s.huge, UFFD_WP)
    uffd.writeprotect(s.A, s.huge, True)
    waits = s.model.kernel("fault").WOULD_WAIT
    s.thread("uffd-writeprotect", lambda: uffd.writeprotect(s.A, s.huge, False))
    s.thread("write", lambda: p.write(s.A, 2))

    def check(results: dict[str, Any]) -> str | None:
        legal = 1 if results["write"] == waits else 2
        return None if p.read(s.A) == legal else f"the page reads {p.read(s.A)}, not {legal}"

    s.finally_(check)
    s.sometimes(by)
    s.sometimes_ends("it is written", lambda results: results["write"] == 0)
    s.sometimes_ends("the writer waits", lambda results: results["write"] == waits)

# SPDX-License-Identifier: GPL-2.0-only
"""Guard regions: tables, markers, who refuses.  The deltas were measured on Linux 6.18."""

from __future__ import annotations

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import ANON, BASE, PAGE, PRIVATE, READ, SHARED, G, M, Process

DONTNEED, HUGEPAGE, GUARD_INSTALL, GUARD_REMOVE = 4, 14, 102, 103
EINVAL = 22


@pytest.fixture
def p(driver: str) -> Process:
    process = Process(driver=driver)
    process.mmap(BASE + G - PAGE, PAGE)
    process.touch(BASE + G - PAGE)
    return process


def cost(p: Process, addr: int, length: int, advice: int) -> int:
    """kB that the advice adds to VmPTE."""
    before = p.vmpte
    assert p.madvise(addr, length, advice) == 0
    return p.vmpte - before


@pytest.mark.parametrize("kind", ["anon", "shared anon", "memfd", "private file", "read only"])
def test_install_makes_tables(p: Process, kind: str) -> None:
    f = p.memfd(8 * M) if kind == "memfd" else p.file(8 * M) if kind == "private file" else None
    flags = SHARED if kind in ("memfd", "shared anon") else PRIVATE
    if f is None:
        flags |= ANON
    p.mmap(BASE, 8 * M, READ if kind == "read only" else 3, f=f, flags=flags)
    assert cost(p, BASE, 8 * M, GUARD_INSTALL) == 16
    assert p.rss == 1
    assert p.read(BASE + 5 * PAGE) == -1
    assert cost(p, BASE, 8 * M, DONTNEED) == 0
    assert p.read(BASE + 5 * PAGE) == -1
    assert cost(p, BASE, 8 * M, GUARD_REMOVE) == 0
    assert p.read(BASE + 5 * PAGE) == 0
    assert cost(p, BASE, 8 * M, DONTNEED) == -16
    p.exit()


def test_install_drops_what_is_there(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.fill(BASE, 2 * M)
    p.write(BASE + 2 * M, 22)
    assert p.rss == 514
    assert cost(p, BASE, 2 * M, GUARD_INSTALL) == 0
    assert p.rss == 2 and p.read(BASE) == -1 and p.read(BASE + 2 * M) == 22
    p.exit()


def test_a_page_in_the_middle(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.fill(BASE, 2 * M)
    assert cost(p, BASE + PAGE, PAGE, GUARD_INSTALL) == 0
    assert p.rss == 512
    assert [p.read(BASE + i * PAGE) for i in range(3)] == [0, -1, 0]
    assert cost(p, BASE, 2 * M, DONTNEED) == 0
    assert cost(p, BASE, 2 * M, GUARD_REMOVE) == 0
    assert cost(p, BASE, 2 * M, DONTNEED) == -4
    p.exit()


def test_huge_pages_go(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.madvise(BASE, 8 * M, HUGEPAGE)
    p.touch(BASE, 8 * M)
    assert p.huge == 4
    assert cost(p, BASE, 2 * M, GUARD_INSTALL) == 0
    assert p.huge == 3 and p.rss == 3 * 512 + 1
    assert cost(p, BASE + 2 * M, M, GUARD_INSTALL) == 0
    assert p.huge == 2 and p.rss == 2 * 512 + 256 + 1
    assert cost(p, BASE, 8 * M, GUARD_REMOVE) == 0
    assert p.huge == 2
    p.exit()


def test_over_several_vmas(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.mmap(BASE + 2 * M, 2 * M, READ)
    assert cost(p, BASE, 4 * M, GUARD_INSTALL) == 8
    assert p.read(BASE) == -1 and p.read(BASE + 2 * M) == -1
    p.exit()


def test_guards_move_with_mremap(p: Process) -> None:
    p.mmap(BASE, 4 * M)
    p.madvise(BASE, 4 * M, GUARD_INSTALL)
    to = BASE + 64 * M
    assert p.mremap(BASE, 4 * M, 4 * M, 3, to) == to
    assert p.read(to) == -1
    p.mmap(BASE, 4 * M)
    assert p.read(BASE) == 0
    assert p.mremap(to, 4 * M, 4 * M, 3, BASE + 128 * M + 3 * PAGE) > 0
    assert p.read(BASE + 128 * M + 3 * PAGE) == -1
    p.exit()


def test_the_flag_is_no_reason_against_a_merge(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.touch(BASE)
    p.madvise(BASE, PAGE, GUARD_INSTALL)
    p.mmap(BASE + 2 * M, 2 * M)
    assert p.vmas()[0] == (0, 4 * M)
    assert p.has(BASE + 2 * M, "VM_MAYBE_GUARD")
    p.exit()


def test_locked_memory(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.madvise(BASE, 2 * M, GUARD_INSTALL)
    p.k("mlock").sys_mlock(p.mm, BASE, 2 * M, 0)
    p.done()
    assert p.madvise(BASE, 2 * M, GUARD_INSTALL) == -EINVAL
    assert p.madvise(BASE, 2 * M, GUARD_REMOVE) == 0
    p.exit()


def test_special_memory(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.set_flag(BASE, "VM_PFNMAP")
    assert p.madvise(BASE, 2 * M, GUARD_INSTALL) == -EINVAL
    assert p.madvise(BASE, 2 * M, GUARD_REMOVE) == -EINVAL
    p.exit()


def test_a_guarded_table_is_not_retracted(p: Process) -> None:
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, f=f, flags=SHARED)
    p.fill(BASE, 2 * M)
    other = BASE + 64 * M
    p.mmap(other, 2 * M, f=f, flags=SHARED)
    p.touch(other, write=False)
    p.madvise(other + 7 * PAGE, PAGE, GUARD_INSTALL)
    before = p.vmpte
    assert p.madvise(BASE, 2 * M, 25) == 0
    assert p.vmpte - before == -4  # the caller's table alone
    assert p.read(other + 7 * PAGE) == -1
    p.exit()


@pytest.mark.parametrize(("release", "marked"), [("6.17", False), ("6.18", True), ("7.x", True)])
def test_the_vma_is_marked(release: str, marked: bool) -> None:
    p = Process(KernelConfig(release))
    p.mmap(BASE, 2 * M, f=p.memfd(2 * M), flags=SHARED)
    assert p.madvise(BASE, PAGE, GUARD_INSTALL) == 0
    assert p.has(BASE, "VM_MAYBE_GUARD") == marked
    assert bool(p.field(BASE, "anon_vma")) == (not marked)
    p.exit()


@pytest.mark.parametrize(
    ("release", "kind", "result"),
    [("6.12", "anon", -EINVAL), ("6.14", "anon", 0), ("6.14", "memfd", -EINVAL), ("6.15", "memfd", 0)],
)
def test_releases(release: str, kind: str, result: int) -> None:
    p = Process(KernelConfig(release))
    if kind == "anon":
        p.mmap(BASE, 2 * M)
    else:
        p.mmap(BASE, 2 * M, f=p.memfd(2 * M), flags=SHARED)
    assert p.madvise(BASE, 2 * M, GUARD_INSTALL) == result
    p.exit()


def test_pages_that_keep_coming_back(p: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three rounds the call begins again, with its locks dropped meanwhile."""
    guard = p.k("guard")
    real = guard.guard_install_range
    rounds = [False] * 4

    def racing(*args: object) -> bool:
        return rounds.pop() if rounds else real(*args)

    monkeypatch.setattr(guard, "guard_install_range", racing)
    p.mmap(BASE, 2 * M)
    p.touch(BASE)
    p.madvise(BASE, PAGE, GUARD_REMOVE)
    before = p.locked("mm_struct.mmap_lock") + p.locked("vm_area_struct.vm_lock")
    assert cost(p, BASE, 2 * M, GUARD_INSTALL) == 0
    assert p.locked("mm_struct.mmap_lock") + p.locked("vm_area_struct.vm_lock") - before == 2
    assert rounds == [] and p.read(BASE) == -1
    p.exit()


def test_a_map_that_fails_is_tried_again(p: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = p.k("guard")
    real = guard.pte_offset_map_lock
    failures = [1, 1, 1]

    def flaky(*args: object) -> object:
        return (0, 0) if failures and failures.pop() else real(*args)

    monkeypatch.setattr(guard, "pte_offset_map_lock", flaky)
    p.mmap(BASE, 2 * M)
    assert cost(p, BASE, 2 * M, GUARD_INSTALL) == 4
    failures.append(1)
    assert cost(p, BASE, 2 * M, GUARD_REMOVE) == 0
    assert p.read(BASE) == 0 and failures == []
    p.exit()

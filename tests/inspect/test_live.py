# SPDX-License-Identifier: GPL-2.0-only
"""Inspect a real process that did a known thing: every figure must come out exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tablewalk.inspect import Inspection, Inspector
from tablewalk.inspect.figures import figures

from .conftest import AREA, AREA_END, Victim

# What is asked of the victim, and by how much each figure must have changed; those not given: by nothing.
# The area is alone in its 512 GiB: what is touched there first also needs a PMD and a PUD table.
CASES = {
    "only mapped": ("area(64 * M)", {}),
    "touched": ("area(64*M); touch(0, 64*M)", {"pte": 64, "pmd": 1, "pud": 1}),
    "one page of each table": ("area(64*M); touch(0, 64*M, M)", {"pte": 64, "pmd": 1, "pud": 1}),
    "zero page": ("area(8*M); touch(0, 8*M, write=False)", {"pte": 8, "pmd": 1, "pud": 1}),
    "DONTNEED page by page": (
        "area(64*M); touch(0, 64*M); [madvise(a, PAGE, DONTNEED) for a in range(0, 64*M, PAGE)]",
        {"empty": 64, "reclaim": 64, "empty pmd": 1, "empty pud": 1},
    ),
    "DONTNEED of the only page": (
        "area(64*M); touch(0, 64*M, M); [madvise(a, PAGE, DONTNEED) for a in range(0, 32*M, M)]",
        {"pte": 32, "empty": 32, "reclaim": 32, "pmd": 1, "pud": 1},
    ),
    "FREE": ("area(8*M); touch(0, 8*M); madvise(0, 8*M, FREE)", {"pte": 8, "pmd": 1, "pud": 1}),
    "FREE and memory is short": (
        "area(8*M); touch(0, 8*M); madvise(0, 8*M, FREE); madvise(0, 8*M, PAGEOUT)",
        {"empty": 8, "reclaim": 8, "empty pmd": 1, "empty pud": 1},
    ),
    "munmap but for a neighbour's page": (
        "area(8*M); touch(0, 8*M); call('munmap', PAGE, 8*M - PAGE); madvise(0, PAGE, DONTNEED)",
        {"empty": 1, "empty pmd": 1, "empty pud": 1},
    ),
    "empty but locked": (
        "area(8*M); touch(0, 8*M, M); [madvise(a, PAGE, DONTNEED) for a in range(0, 8*M, M)];"
        "call('mlock2', 0, 4*M, 1)",
        {"empty": 8, "reclaim": 4, "empty pmd": 1, "empty pud": 1},
    ),
    "empty but shared by two mappings": (
        "area(8*M); touch(0, 8*M, M); call('mprotect', M // 2, 2*M, NONE);"
        "[madvise(a, PAGE, DONTNEED) for a in range(0, 8*M, M)]",
        {"empty": 8, "reclaim": 5 + 1, "empty pmd": 1, "empty pud": 1},
    ),
    "misaligned ends": (
        "area(4*M, at=M//2); touch(M//2, 4*M); [madvise(M//2 + a, PAGE, DONTNEED) for a in range(0, 4*M, PAGE)]",
        {"empty": 5, "reclaim": 3, "empty pmd": 1, "empty pud": 1},
    ),
    "guard markers": (
        "area(8*M); madvise(0, 4*M, GUARD_INSTALL)",
        {"pte": 4, "pmd": 1, "pud": 1},
    ),
    "userfaultfd markers": ("area(8*M); protect_unpopulated(0, 4*M)", {"pte": 4, "pmd": 1, "pud": 1}),
    "PROT_NONE": (
        "area(8*M); touch(0, 8*M); call('mprotect', 0, 8*M, NONE)",
        {"pte": 8, "pmd": 1, "pud": 1},
    ),
    "shared anonymous": ("area(8*M, SHARED_ANON); touch(0, 8*M)", {"pte": 8, "pmd": 1, "pud": 1}),
    "shared, hole punched": (
        "area(8*M, SHARED_ANON); touch(0, 8*M); madvise(0, 8*M, REMOVE)",
        {"empty": 8, "reclaim": 8, "empty pmd": 1, "empty pud": 1},
    ),
    "memfd shared, truncated": (
        "fd = memfd(8*M); area(8*M, SHARED, fd=fd); touch(0, 8*M); os.ftruncate(fd, M)",
        {"pte": 1, "empty": 7, "reclaim": 7, "pmd": 1, "pud": 1},
    ),
    "memfd private": (
        "fd = memfd(8*M); area(8*M, PRIVATE, fd=fd); touch(0, 4*M); touch(4*M, 4*M, write=False)",
        {"pte": 8, "pmd": 1, "pud": 1},
    ),
    "file": (
        "fd = os.open(path, os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 8*M); area(8*M, SHARED, RO, fd=fd);"
        "touch(0, 8*M, write=False)",
        {"pte": 8, "pmd": 1, "pud": 1},
    ),
    "sparse": ("area(50*G); touch(0, 50*G, G)", {"pte": 50, "pmd": 50, "pud": 1}),
    "sparse, emptied": (
        "area(50*G); touch(0, 50*G, G); [madvise(a, PAGE, DONTNEED) for a in range(0, 50*G, G)]",
        {"empty": 50, "reclaim": 50, "empty pmd": 50, "empty pud": 1},
    ),
    "across 512 GiB": ("area(1024*G); touch(0, 1024*G, 256*G)", {"pte": 4, "pmd": 4, "pud": 2}),
    "many mappings": (
        "area(16*M); touch(0, 16*M); [call('mprotect', a, PAGE, RO) for a in range(0, 16*M, 2*PAGE)]",
        {"pte": 16, "pmd": 1, "pud": 1},
    ),
    "moved": (
        "area(8*M); touch(0, 8*M); libc.mremap.argtypes = [ctypes.c_size_t]*5;"
        "check(libc.mremap(AREA, 8*M, 8*M, 3, AREA + 64*M))",
        {"pte": 8, "pmd": 1, "pud": 1},
    ),
}  # fmt: skip

THP_CASES = {
    "huge": ("touch(0, 8*M)", {"deposited": 8, "pmd": 1, "pud": 1}),
    "huge split by DONTNEED": (
        "touch(0, 8*M); madvise(0, M, DONTNEED); madvise(M, PAGE, DONTNEED)",
        {"pte": 1, "deposited": 6, "pmd": 1, "pud": 1},
    ),
    "huge split by mprotect": (
        "touch(0, 8*M); call('mprotect', 0, PAGE, RO)",
        {"pte": 1, "deposited": 7, "pmd": 1, "pud": 1},
    ),
    "huge zero page": ("touch(0, 8*M, write=False)", {"deposited": 8, "pmd": 1, "pud": 1}),
    "half huge": (
        "madvise(0, 4*M, NOHUGEPAGE); touch(0, 8*M)",
        {"pte": 4, "deposited": 4, "pmd": 1, "pud": 1},
    ),
}


def changes(before: Inspection, after: Inspection) -> dict[str, int]:
    names = {
        "pte": "pte_populated_tables",
        "pmd": "pmd_populated_tables",
        "pud": "pud_populated_tables",
        "empty": "pte_empty_tables",
        "empty pmd": "pmd_empty_tables",
        "empty pud": "pud_empty_tables",
        "deposited": "deposited_tables",
        "unknown": "unknown_tables",
        "reclaim": "reclaimable_kb",
    }
    old, new = figures(before), figures(after)
    result = {}
    for short, name in names.items():
        was, now = old[name], new[name]
        assert was is not None and now is not None, name
        if now != was:
            result[short] = (now - was) // (4 if short == "reclaim" else 1)
    return result


def area_rss(p: Inspection) -> int:
    return sum(t.vma.kb["Rss"] for t in p.tables.vmas if AREA <= t.vma.start < AREA_END)


def check_sound(p: Inspection) -> None:
    t = p.tables
    assert not p.changed and not t.missing and not t.torn
    assert t.populated + t.empty + t.deposited + t.unknown == p.memory_kb["VmPTE"] // p.table_kb == t.vmpte


def needs_empty_tables_shown(inspector: Inspector) -> None:
    if not inspector.kernel.shows_empty_tables:
        pytest.skip("this kernel has no PAGEMAP_SCAN (Linux 6.7) that shows empty tables")


def totals(before: Inspection, after: Inspection) -> tuple[int, ...]:
    """How many more tables are populated, empty, deposited and unknown, of all levels."""
    a, b = before.tables, after.tables
    return (
        b.populated - a.populated,
        b.empty - a.empty,
        b.deposited - a.deposited,
        b.unknown - a.unknown,
    )


class Before:
    """How the victim was, by both ways of looking; `check` compares with how it is."""

    def __init__(self, victim: Victim, inspector: Inspector, old_kernel: Inspector) -> None:
        self.victim, self.inspector, self.old_kernel = victim, inspector, old_kernel
        self.first, self.first_old = inspector.inspect(victim.pid), old_kernel.inspect(victim.pid)

    def check(self, expected: dict[str, int], unseen: int = 0) -> None:
        """`expected` has changed.  `unseen` deposited tables pass for populated where smaps counts them."""
        e = expected.get
        sums = (
            e("pte", 0) + e("pmd", 0) + e("pud", 0) + unseen,
            e("empty", 0) + e("empty pmd", 0) + e("empty pud", 0),
            e("deposited", 0) - unseen,
            e("unknown", 0),
        )
        # by difference, as kernels before 6.7 need it
        old = self.old_kernel.inspect(self.victim.pid)
        check_sound(old)
        assert totals(self.first_old, old) == sums
        assert old.tables.reclaimable is None
        assert (old.tables.reclaimable_max - self.first_old.tables.reclaimable_max) >= e("reclaim", 0)
        if self.inspector.kernel.shows_empty_tables:
            after = self.inspector.inspect(self.victim.pid)
            check_sound(after)
            assert changes(self.first, after) == expected
            check_rows(after, expected)


def check_rows(p: Inspection, expected: dict[str, int]) -> None:
    """The mappings of the area say the same, where each has its tables for itself."""
    rows = [t for t in p.tables.vmas if AREA <= t.vma.start < AREA_END]
    if not any(t.shared for t in rows):
        assert sum(t.populated for t in rows) == expected.get("pte", 0)
        assert sum(t.empty for t in rows) == expected.get("empty", 0)
        assert sum(t.deposited for t in rows) == expected.get("deposited", 0)
        assert sum(t.reclaimable for t in rows) == expected.get("reclaim", 0)


@pytest.fixture
def before(victim: Victim, inspector: Inspector, old_kernel: Inspector) -> Before:
    return Before(victim, inspector, old_kernel)


@pytest.mark.parametrize("case", CASES)
def test_exact(case: str, victim: Victim, before: Before, tmp_path: Path) -> None:
    code, expected = CASES[case]
    if reply := victim.do(f"path = {str(tmp_path / 'file')!r}; {code}"):
        pytest.skip(f"this kernel refuses: errno {reply['errno']}")
    before.check(expected)


@pytest.mark.parametrize("case", THP_CASES)
def test_huge_pages(case: str, victim: Victim, before: Before) -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("transparent huge pages are off")
    code, expected = THP_CASES[case]
    assert victim.do(f"area(8*M); madvise(0, 8*M, HUGEPAGE); {code}") is None
    before.check(expected, unseen=8 if case == "huge zero page" else 0)


def test_reclaimable_is_what_dontneed_gives_back(victim: Victim, inspector: Inspector) -> None:
    """Call MADV_DONTNEED on just the empty tables: VmPTE drops by `reclaimable_kb`, and no page is lost."""
    if not inspector.kernel.pt_reclaim:
        pytest.skip("this kernel has no PT_RECLAIM (Linux 6.14)")
    victim.do("area(64*M, at=M//2); touch(M//2, 64*M)")
    victim.do("[madvise(M//2 + a, PAGE, DONTNEED) for a in range(0, 40*M, PAGE)]")
    before = inspector.inspect(victim.pid)
    assert changes(before, before) == {} and before.tables.reclaimable == 39
    victim.do("[madvise(a, M, DONTNEED) for a in range(M, 40*M, M)]")
    after = inspector.inspect(victim.pid)
    assert before.memory_kb["VmPTE"] - after.memory_kb["VmPTE"] == 39 * 4
    assert area_rss(before) == area_rss(after) == 24 * 2048
    assert after.tables.reclaimable == 0
    assert after.tables.pte_empty == (before.tables.pte_empty or 0) - 39


def test_empty_upper_tables(victim: Victim, inspector: Inspector) -> None:
    """MADV_DONTNEED frees the PTE tables and leaves the PMD tables, which nothing but the difference shows."""
    if not inspector.kernel.pt_reclaim:
        pytest.skip("this kernel has no PT_RECLAIM (Linux 6.14)")
    before = inspector.inspect(victim.pid)
    victim.do("area(50*G); touch(0, 50*G, G); madvise(0, 49*G, DONTNEED)")
    after = inspector.inspect(victim.pid)
    check_sound(after)
    assert changes(before, after) == {"pte": 1, "pmd": 1, "pud": 1, "empty pmd": 49}
    victim.do("madvise(0, 50*G, DONTNEED)")
    nothing = inspector.inspect(victim.pid)
    check_sound(nothing)
    assert nothing.tables.empty == before.tables.empty + 51
    assert (nothing.tables.pmd_empty, nothing.tables.pud_empty) == (50, 1)


def test_stack(victim: Victim, inspector: Inspector) -> None:
    needs_empty_tables_shown(inspector)
    [stack] = [t.vma for t in inspector.inspect(victim.pid).tables.vmas if t.vma.name == "[stack]"]
    low = stack.start - 6 * (1 << 20)
    victim.do(f"[ctypes.memset(a, 1, 1) for a in range({stack.start} - PAGE, {low} - PAGE, -PAGE)]")
    after = inspector.inspect(victim.pid)
    check_sound(after)
    [grown] = [t for t in after.tables.vmas if t.vma.name == "[stack]"]
    assert grown.vma.start == low
    assert (grown.populated, grown.empty) == (((stack.end - 1) >> 21) - (low >> 21) + 1, 0)


def test_huge_pages_are_not_cut_where_pagemap_is_read_in_pieces(
    victim: Victim, old_kernel: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim.do("area(8*M, at=M - PAGE); madvise(M - PAGE, 8*M, HUGEPAGE); touch(M - PAGE, 8*M)")
    if not any(t.vma.kb["AnonHugePages"] for t in old_kernel.inspect(victim.pid).tables.vmas):
        pytest.skip("no transparent huge pages")
    whole = old_kernel.inspect(victim.pid)
    monkeypatch.setattr("tablewalk.inspect.pagemap.READ_ENTRIES", 512)
    pieces = old_kernel.inspect(victim.pid)
    check_sound(pieces)
    assert pieces.tables.deposited == whole.tables.deposited == 7
    assert pieces.tables.populated == whole.tables.populated


def test_hidden_mapping(victim: Victim, inspector: Inspector, old_kernel: Inspector) -> None:
    """What pagemap does not show is neither empty nor populated."""
    needs_empty_tables_shown(inspector)
    before = inspector.inspect(victim.pid)
    if reply := victim.do("ring_buffer(0, 1024)"):
        pytest.skip(f"no perf event: errno {reply['errno']}")
    after = inspector.inspect(victim.pid)
    check_sound(after)
    if not any(t.vma.hidden for t in after.tables.vmas if AREA <= t.vma.start < AREA_END):
        pytest.skip("this kernel does not map perf buffers by page frame number (Linux 6.15)")
    assert changes(before, after) == {"unknown": 3 + 1 + 1}
    assert old_kernel.inspect(victim.pid).tables.unknown == after.tables.unknown
    # a neighbour in the same table shows the table, not what the hidden mapping has in it
    victim.do("area(M, at=2*M + PAGE); touch(3*M - PAGE, PAGE); madvise(3*M - PAGE, PAGE, DONTNEED)")
    shared = inspector.inspect(victim.pid)
    check_sound(shared)
    assert changes(before, shared) == {"unknown": 3 + 1 + 1}


def test_lazyfree(victim: Victim, inspector: Inspector) -> None:
    victim.do("area(8*M); touch(0, 8*M)")
    assert inspector.inspect(victim.pid).lazyfree_kb == 0
    victim.do("madvise(0, 8*M, FREE)")
    # the last few pages wait in a per-CPU batch (folio_mark_lazyfree(), mm/swap.c)
    assert 16384 - 31 * 4 * 8 <= inspector.inspect(victim.pid).lazyfree_kb <= 16384

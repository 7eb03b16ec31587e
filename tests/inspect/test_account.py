# SPDX-License-Identifier: GPL-2.0-only
"""The accounting itself, on made-up processes: what this machine cannot be made to show, and random ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tablewalk.arch import Arch
from tablewalk.inspect.account import Account, account, reach
from tablewalk.inspect.pagemap import PAGE_IS_FILE, PAGE_IS_HUGE, Contents, Ranges
from tablewalk.inspect.procfs import Vma, parse_smaps

PAGE, M, G, T = 4096, 1 << 21, 1 << 30, 1 << 39
ARCH = Arch()


def ranges(*rows: tuple[int, int] | tuple[int, int, int]) -> Ranges:
    return np.array([(*row, 0)[:3] for row in rows], dtype=np.int64).reshape(-1, 3)


def vma(start: int, end: int, *flags: str, perms: str = "rw-p", page_kb: int = 4) -> Vma:
    return Vma(start, end, perms, flags=frozenset(flags), page_kb=page_kb)


def levels(a: Account) -> tuple[tuple[int | None, ...], ...]:
    return (a.pte_populated, a.pmd_populated, a.pud_populated), (a.pte_empty, a.pmd_empty, a.pud_empty)


def test_hugetlb_2m_has_no_pte_table_and_1g_no_pmd_table() -> None:
    vmas = [vma(T, T + 4 * M, "ht", page_kb=2048), vma(2 * T, 2 * T + 2 * G, "ht", page_kb=1 << 20)]
    huge = ranges((T, T + 4 * M, PAGE_IS_HUGE), (2 * T, 2 * T + G, PAGE_IS_HUGE))
    a = account(4 * 3, vmas, Contents(huge, ranges(*huge[:, :2].tolist())), ARCH)
    assert levels(a) == ((0, 1, 2), (0, 0, 0)) and (a.deposited, a.missing) == (0, 0)


def test_huge_pages_of_files_and_of_dax_deposit_nothing() -> None:
    file, dax = vma(T + 8 * M, T + 16 * M, perms="rw-s"), vma(T + 16 * M, T + 18 * M, perms="r--s")
    vmas = [vma(T, T + 8 * M), file, dax]
    huge = ranges(
        (T, T + 8 * M, PAGE_IS_HUGE),
        (T + 8 * M, T + 16 * M, PAGE_IS_HUGE | PAGE_IS_FILE),
        (T + 16 * M, T + 18 * M, PAGE_IS_HUGE),
    )
    a = account(4 * (8 + 1 + 1), vmas, Contents(huge, ranges(*huge[:, :2].tolist())), ARCH)
    assert (a.deposited, a.pte_populated, a.pte_empty, a.missing) == (8, 0, 0, 0)


def test_hidden_mapping_takes_the_blame_before_upper_tables_do() -> None:
    vmas = [vma(T, T + 2 * M, "pf"), vma(2 * T, 2 * T + 4 * G)]
    page = ranges((2 * T, 2 * T + PAGE))
    a = account(4 * (3 + 6), vmas, Contents(page, ranges((2 * T, 2 * T + M))), ARCH)
    # at most 2 PTE tables, a PMD and a PUD table are hidden: of 6 more, 2 are empty at least
    assert (a.unknown, a.empty, a.pmd_empty, a.pud_empty) == (4, 2, 2, 0)


def test_upper_tables_that_can_be_split_in_two_ways_are_not_split() -> None:
    vmas = [vma(T, T + 3 * G), vma(2 * T, 2 * T + 3 * G)]
    page = ranges((T, T + PAGE))
    contents = Contents(page, ranges((T, T + M)))
    # there is room for 2 PMD tables under the PUD table that is there, and for 3 and their PUD table
    for rest, split in ((0, (0, 0)), (1, (None, None)), (2, (None, None)), (3, (2, 1)), (6, (5, 1))):
        a = account(4 * (3 + rest), vmas, contents, ARCH)
        assert (a.empty, a.pmd_empty, a.pud_empty) == (rest, *split)


def test_missing_tables_say_that_the_process_changed() -> None:
    a = account(4 * 2, [vma(T, T + M)], Contents(ranges((T, T + M)), ranges((T, T + M))), ARCH)
    assert (a.missing, a.torn) == (1, False)
    a = account(4 * 3, [vma(T, T + M)], Contents(ranges((T, T + 2 * M)), ranges((T, T + M))), ARCH)
    assert a.torn


def test_sealed_read_only_mapping_cannot_be_reclaimed() -> None:
    for perms, expected in (("r--p", 0), ("rw-p", 1)):
        vmas = [vma(T, T + M, "sl", perms=perms)]
        a = account(4 * 3, vmas, Contents(ranges(), ranges((T, T + M))), ARCH)
        assert (a.pte_empty, a.reclaimable) == (1, expected)


SMAPS = b"""\
555555554000-555555556000 r--p 00000000 fe:00 1234                       /tmp/a b\\012\x1b[31m\xff
Size:                  8 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                   8 kB
AnonHugePages:         0 kB
VmFlags: rd mr mw me lo sd
7ffff7fb8000-7ffff7fbc000 r--p 00000000 00:00 0                          [vvar]
KernelPageSize:        4 kB
Rss:                   0 kB
VmFlags: rd mr pf io de dd sd
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
KernelPageSize:        4 kB
Rss:                   0 kB
VmFlags: ex
"""


def test_smaps() -> None:
    text, vvar = parse_smaps(SMAPS)
    assert (text.start, text.end, text.perms) == (0x555555554000, 0x555555556000, "r--p")
    assert text.name == "/tmp/a b\\012\x1b[31m\\xff"  # escaped where it is shown
    assert text.kb == {"Rss": 8, "AnonHugePages": 0} and not text.discardable and not text.hidden
    assert vvar.name == "[vvar]" and vvar.hidden and not vvar.discardable


# Random processes of a few tables, against a plain walk over every page of them.

cuts = st.lists(st.integers(0, 6 * 512), min_size=2, max_size=14, unique=True).map(sorted)


def spans(points: list[int]) -> list[tuple[int, int]]:
    return [(a, b) for i, (a, b) in enumerate(pairwise(points)) if i % 3 != 1]


@given(cuts, cuts, st.sets(st.integers(0, 6)))
def test_against_a_plain_walk(mapped: list[int], held: list[int], standing: set[int]) -> None:
    vmas = [vma(T + a * PAGE, T + b * PAGE) for a, b in spans(mapped)]
    of_page = {p: i for i, (a, b) in enumerate(spans(mapped)) for p in range(a, b)}
    full = {p for a, b in spans(held) for p in range(a, b) if p in of_page}
    stands = {p // 512 for p in full} | {t for t in standing if any(p // 512 == t for p in of_page)}
    seen = [p for p in sorted(of_page) if p // 512 in stands]
    entries = ranges(*((T + p * PAGE, T + (p + 1) * PAGE) for p in sorted(full)))
    tables = ranges(*((T + p * PAGE, T + (p + 1) * PAGE) for p in seen))
    populated = {p // 512 for p in full}
    upper = 2 if stands else 0
    a = account(4 * (len(stands) + upper), vmas, Contents(entries, tables), ARCH)
    assert (a.pte_populated, a.pte_empty, a.missing, a.torn) == (
        len(populated),
        len(stands - populated),
        0,
        False,
    )
    owners = [{of_page.get(p) for p in range(t * 512, t * 512 + 512)} for t in stands - populated]
    assert a.reclaimable == sum(len(o) == 1 and None not in o for o in owners)
    for i, row in enumerate(a.vmas):
        mine = {p // 512 for p in seen if of_page[p] == i}
        assert row.populated == len({p // 512 for p in full if of_page[p] == i})
        assert row.empty == len(mine - populated)
        assert row.shared == sum(any(of_page[p] != i for p in seen if p // 512 == t) for t in mine)


@given(cuts, cuts)
def test_reach_says_whether_all_is_covered(mapped: list[int], held: list[int]) -> None:
    bounds = np.array(spans(mapped), dtype=np.int64)
    reached = reach(bounds, ranges(*spans(held)), 9)
    inside = {p for a, b in spans(mapped) for p in range(a, b)}
    pages = {p for a, b in spans(held) for p in range(a, b)}
    assert reached.covers_all == (pages <= inside)
    assert set(reached.table.tolist()) == {p >> 9 for p in pages & inside}

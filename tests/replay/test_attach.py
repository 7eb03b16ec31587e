# SPDX-License-Identifier: GPL-2.0-only
"""Recordings of a process that was running already: its state at the start comes first."""

from __future__ import annotations

import pytest

from tablewalk.record.rows import Kind

from .conftest import Replay, only
from .story import ANON, HEAP, STACK, TABLE, Story

GROWS = "ac gd me mr mw rd wr"
USUAL = "ac me mr mw rd wr"


@pytest.fixture
def attached() -> Story:
    """A process with a stack, a heap, four written pages in as many tables, and two empty tables behind them."""
    story = Story()
    story.meta.source = "attach"
    t = story.t
    mappings = [
        (HEAP, TABLE, "[heap]", USUAL),
        (ANON, 2 * TABLE, "//anon", USUAL),
        (ANON + 2 * TABLE, 6 * TABLE, "//anon", USUAL + " nh"),
        (STACK, 0x21000, "[stack]", GROWS),
    ]
    story.meta.attach = {
        "pid": 100, "time": t, "held": True, "brk": [HEAP, HEAP + TABLE],
        "empty_tables": [[ANON + 4 * TABLE, ANON + 6 * TABLE]], "huge": [],
        "vmflags": [[start, start + length, flags] for start, length, _, flags in mappings],
    }  # fmt: skip
    story.row(Kind.COMM, 0, name="old")
    for start, length, name, _ in mappings:
        story.rows.append(story.mapping(start, length, file=(0, 0, name)))
    story.fault(STACK + 0x20000, HEAP, *range(ANON, ANON + 4 * TABLE, TABLE))
    story.rows = [row._replace(t=t, begin=t, end=t) for row in story.rows]
    story.t = t
    return story


START = 12 + 12 + 12 + 3 * 4 + 2 * 4  # stack, heap, the first table at ANON, three more, two empty


def test_the_start_state(attached: Story, run: Replay) -> None:
    attached.sample(START)
    attached.call(12, 0, ret=HEAP + TABLE)
    attached.exit()
    result = run(attached, check=True)
    p = only(result)
    assert (p.name, p.final_kb) == ("old", START)
    assert p.check and (p.check.compared, p.check.disagreements) == (1, 0)
    assert p.at_end.empty == 2
    assert result.accuracy.mismatches == []  # the heap ends where brk says


def test_flags_keep_mappings_apart(attached: Story, run: Replay) -> None:
    """Huge pages may not be where VM_NOHUGEPAGE was, and THP that is always on does not change the start state."""
    attached.madvise(ANON, TABLE, 4)
    attached.fault(ANON, ANON + 7 * TABLE)
    p = only(run(attached, options=(("transparent_hugepage", "always"),)))
    assert p.at_end.huge_anon == 1
    assert p.final_kb == START + 4  # one table less and one more where it was, and one more at the end


def test_a_page_written_before_its_mapping_became_read_only(attached: Story, run: Replay) -> None:
    rows = attached.rows
    heap = next(i for i, row in enumerate(rows) if row.name == "[heap]")
    rows[heap] = rows[heap]._replace(a=(HEAP, TABLE, 0, 1, 2, 0))
    result = run(attached)
    assert (only(result).final_kb, result.accuracy.faults_refused) == (START, 0)


def test_huge_pages_of_the_start_state(attached: Story, run: Replay) -> None:
    assert attached.meta.attach
    attached.meta.attach["huge"] = [[ANON, ANON + TABLE]]
    attached.munmap(STACK - TABLE, 4096)
    p = only(run(attached))
    assert (p.final_kb, p.at_end.huge_anon, p.at_end.deposited) == (START, 1, 1)

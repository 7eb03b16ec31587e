# SPDX-License-Identifier: GPL-2.0-only
"""An architecture that does not exist is one file: it is replayed and explored as any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tablewalk.explore.run import built_in, explore
from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

from . import fictitious
from .conftest import Replay, only, values
from .story import ANON, TABLE, Story

MADV_DONTNEED = 4


@pytest.fixture(autouse=True)
def pocket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model knows it on both drivers."""
    for driver in ("sequential", "searched"):
        monkeypatch.setitem(drivers.load(driver).module("arch.table")._MAKERS, "pocket", fictitious.pocket)


def test_it_is_one_short_file() -> None:
    assert len(Path(fictitious.__file__).read_text().splitlines()) < 80


def test_its_own_tables_are_counted(story: Story, run: Replay) -> None:
    story.mmap(ANON, 16 * TABLE)
    story.touch(ANON, 4)
    result = run(story, "7.x", arch="pocket")
    p = only(result)
    assert result.page_size == 8192
    assert p.final_kb == 2 * p.at_end.pte + 8 * 2
    assert p.at_end.pte == 5


def test_it_reclaims_since_its_release(story: Story, run: Replay) -> None:
    story.mmap(ANON, 16 * TABLE)
    story.touch(ANON, 4)
    story.madvise(ANON, 4 * TABLE, MADV_DONTNEED)
    older, newer = (only(run(story, release, arch="pocket")) for release in ("6.18", "7.x"))
    assert older.at_end.pte - newer.at_end.pte == 4
    assert values(older)[-1] - values(newer)[-1] == 4 * 2


def test_it_is_explored() -> None:
    program = built_in()["fault-and-dontneed"]
    program = replace(program, scenario=replace(program.scenario, arch="pocket/1"))
    assert explore(program).verdict == "exhausted"
    assert explore(program, KernelConfig(without=("B28",))).verdict == "violation"

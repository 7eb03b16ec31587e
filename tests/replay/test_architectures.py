# SPDX-License-Identifier: GPL-2.0-only
"""The same program on other architectures."""

from __future__ import annotations

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.report.words import _about

from .conftest import Replay, only
from .story import ANON, TABLE, Story


@pytest.mark.parametrize(
    ("arch", "tables", "kb"),
    [
        ("x86_64", 5, 4 * (5 + 2 + 2)),
        ("x86_64-5level", 5, 4 * (5 + 2 + 2)),
        ("arm64", 5, 4 * (5 + 2 + 2)),
        ("riscv64", 5, 4 * (5 + 2 + 2)),
        ("s390x", 5, 2 * 5 + 16 * (2 + 1)),  # a table maps 1 MiB, a segment table 2 GiB, a region table 4 TiB
        ("arm64-16k", 2, 16 * (2 + 2 + 1)),  # a table maps 32 MiB, the next level 64 GiB, then 128 TiB
    ],
)
def test_what_tables_cost(story: Story, run: Replay, arch: str, tables: int, kb: int) -> None:
    story.mmap(ANON, 16 * TABLE)
    story.touch(ANON, 4)
    p = only(run(story, "7.x", arch=arch))
    assert (p.at_end.pte, p.final_kb) == (tables, kb)


def test_larger_pages_round_outward_and_say_so(story: Story, run: Replay) -> None:
    story.mmap(ANON + 4096, 4096)
    story.fault(ANON + 4096)
    result = run(story, "7.x", arch="arm64-64k")
    p = only(result)
    assert result.page_size == 65536
    assert p.at_end.rss_anon_kb == 2 * 64
    assert result.accuracy.faults_refused == 0
    assert any(line.startswith("recorded with pages of 4 kB: here a fault fills 64 kB") for line in _about(result))


@pytest.mark.parametrize("arch", ["riscv64-sv39", "x86-pae", "arm-lpae", "arm64-39bit"])
def test_addresses_that_do_not_fit(story: Story, run: Replay, arch: str) -> None:
    with pytest.raises(TablewalkError, match=f"past the end of user space on {arch} .*try another --arch"):
        run(story, "7.x", arch=arch)


def test_an_address_that_the_recorded_machine_does_not_have_either(story: Story, run: Replay) -> None:
    story.fault((1 << 47) - 4096, 1 << 63)
    assert run(story).accuracy.faults_refused == 2

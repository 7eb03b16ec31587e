# SPDX-License-Identifier: GPL-2.0-only
"""The examples do what their comments say, on the machine they run on."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("no gcc: apt-get install gcc libc6-dev")
    if os.sysconf("SC_PAGESIZE") != 4096:
        pytest.skip("the figures hold for pages of 4 KiB")
    out = tmp_path_factory.mktemp("examples")
    for name in ("headline", "memfd_collapse", "madvise_stress"):
        source = EXAMPLES / f"{name}.c"
        subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-pthread", "-o", out / name, source], check=True)
    return out


def run(program: Path, *args: str, samples: Path) -> tuple[list[int], list[tuple[int, int, int, int]]]:
    """The figures of the last line it prints, and its own samples."""
    out = subprocess.run(
        [program, *args],
        env={**os.environ, "TABLEWALK_SAMPLES": str(samples)},
        capture_output=True,
        text=True,
        check=True,
    )
    figures = [int(n) for n in re.findall(r"(?<= )\d+(?=[,\n])", out.stdout)]
    rows = [tuple(map(int, line.split())) for line in samples.read_text().splitlines()]
    return figures, [(a, b, c, d) for a, b, c, d in rows]


def test_headline_returns_to_where_it_began(programs: Path, tmp_path: Path) -> None:
    figures, samples = run(programs / "headline", "-1", "1", samples=tmp_path / "samples")
    start, looped, unmapped = figures
    assert start == unmapped
    # 1 GiB: 512 PTE tables where they stay, and one PMD table, or two where the map straddles a 1 GiB
    # boundary; and possibly the PMD table is there already.
    assert looped - start in (0, 4, 8, 2048, 2052, 2056)
    assert [vmpte for *_, vmpte in samples] == [start, *[v for *_, v in samples[1:-2]], looped, unmapped]
    assert all(begin < end for begin, end, *_ in samples)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(samples))


def test_memfd_collapse(programs: Path, tmp_path: Path) -> None:
    figures, samples = run(programs / "memfd_collapse", samples=tmp_path / "samples")
    assert [vmpte for *_, vmpte in samples] == figures
    start, once, twice, *_ = figures
    # 32 PTE tables, and a PMD and a PUD table of their own
    assert once - start == twice - once == 136


def test_madvise_stress_verifies_its_memory(programs: Path, tmp_path: Path) -> None:
    figures, samples = run(programs / "madvise_stress", "4", "3", "9", samples=tmp_path / "samples")
    assert len(samples) == 1 + 4 + 1
    assert samples[-1][3] == samples[-2][3] == figures[-1] > samples[0][3]


@pytest.mark.parametrize("bad", [["headline", "0"], ["headline", "-1", "x"], ["madvise_stress", "4x"]])
def test_wrong_use_is_one_line(programs: Path, bad: list[str]) -> None:
    out = subprocess.run([programs / bad[0], *bad[1:]], capture_output=True, text=True)
    assert out.returncode == 2 and "usage: " in out.stderr and out.stderr.count("\n") == 1


def test_arena_counts_words(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one two two")
    (tmp_path / "b.py").write_text("two three")
    out = subprocess.run(
        [sys.executable, EXAMPLES / "arena.py", tmp_path], capture_output=True, text=True, check=True
    )
    assert out.stdout == "2 files, 0 KiB, 5 words, 3 different: two 3, one 1, three 1\n"

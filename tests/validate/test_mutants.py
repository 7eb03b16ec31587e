# SPDX-License-Identifier: GPL-2.0-only
"""The errors made in the model on purpose: each still applies, and one is found."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mutants
from mutant_hunt import Found, mutated, site
from mutant_list import MUTANTS, Mutant
from tablewalk.errors import TablewalkError
from tablewalk.validate.mix import FOCUS

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "mutants.py"

needs_host = pytest.mark.skipif(
    sys.platform != "linux"
    or platform.machine() != "x86_64"
    or os.geteuid() != 0
    or tuple(map(int, platform.release().split(".")[:2])) < (6, 18)
    or not shutil.which("gcc"),
    reason="compares with the running kernel: needs Linux 6.18 or newer on x86-64, root, and gcc",
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_each_applies(mutant: Mutant) -> None:
    compile(mutated(mutant), mutant.file, "exec")
    assert mutant.focus in ("", *FOCUS)
    assert site(mutant).startswith(mutant.file.removesuffix(".py"))


def test_the_list() -> None:
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) >= 30
    assert len({m.file for m in MUTANTS}) >= 20


def test_a_text_that_moved_on_is_told() -> None:
    with pytest.raises(TablewalkError, match=r"mutant m: kernel/fork\.py has its text 0 times, not once: adapt it"):
        mutated(Mutant("m", "fork.py", "", "no such text", ""))


def test_the_table() -> None:
    found, missed = MUTANTS[:2]
    fared = {
        found.name: Found(found.name, True, 1234, "mmap private file", 3),
        missed.name: Found(missed.name, False, 20000),
    }
    text = mutants.table([found, missed], fared, 20000, 1)
    assert f"| {found.name} | `{site(found)}` | {found.wrong} | 1,234 | mmap private file | 3 |" in text
    assert "| not in 20,000 | | |" in text and "1 of 2 were found." in text


@needs_host
def test_one_is_found(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--ops", "1000", "--directory", str(tmp_path), "guard-signal"]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert "1 of 1 mutants found" in first.stdout
    again = subprocess.run(command, capture_output=True, text=True)  # from what was kept
    assert (again.returncode, again.stdout) == (0, first.stdout)
    unknown = subprocess.run([*command, "no-such"], capture_output=True, text=True)
    assert unknown.returncode == 2 and "no such mutant: no-such" in unknown.stderr

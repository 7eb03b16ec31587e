# SPDX-License-Identifier: GPL-2.0-only
"""What inspect sees of a running program is what the model has after a replay of the same run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tablewalk.inspect import Inspector
from tablewalk.inspect.figures import figures

ROOT = Path(__file__).parents[2]
TABLEWALK = [sys.executable, "-m", "tablewalk"]
ENV = os.environ | {"PYTHONPATH": str(ROOT / "src")}


@pytest.mark.parametrize("mode", ["dontneed", "free"])
def test_empty_tables(mode: str, tmp_path: Path, inspector: Inspector) -> None:
    if not inspector.kernel.shows_empty_tables:
        pytest.skip("this kernel does not show empty tables")
    if not shutil.which("gcc"):
        pytest.skip("no gcc: apt-get install gcc libc6-dev")
    program, recording = tmp_path / "empty_tables", tmp_path / "recording.tw"
    subprocess.run(["gcc", "-O1", "-o", program, ROOT / "examples" / "empty_tables.c"], check=True)
    with subprocess.Popen(
        [*TABLEWALK, "record", "-o", recording, "--", program, "-w", mode, "40"],
        env=ENV,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as record:
        assert record.stdin and record.stdout and record.stderr
        started = re.match(r"pid (\d+): VmPTE (\d+) kB", record.stdout.readline())
        if not started:
            pytest.skip(f"nothing can be recorded here: {record.stderr.read()}")
        pid, vmpte = map(int, started.groups())
        seen = figures(inspector.inspect(pid))
        record.stdin.close()
        record.wait(timeout=60)
    assert record.returncode == 0 and seen["vmpte_kb"] == vmpte

    replay = subprocess.run(
        [*TABLEWALK, "replay", recording, "--kernel", "6.18", "--json"],
        env=ENV,
        check=True,
        capture_output=True,
        text=True,
    )
    [model] = [r for r in json.loads(replay.stdout)["results"] if r["pid"] == pid]
    end = model["at_end"]
    assert (model["final_kb"], end["empty"], end["deposited"]) == (vmpte, 40, 0)
    assert (seen["pte_empty_tables"], seen["deposited_tables"]) == (end["empty"], end["deposited"])
    for level in ("pte", "pmd", "pud"):
        populated, empty = seen[f"{level}_populated_tables"], seen[f"{level}_empty_tables"]
        assert populated is not None and empty is not None
        assert populated + empty == end[level], level

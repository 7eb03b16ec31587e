# SPDX-License-Identifier: GPL-2.0-only
"""Random calls on the running kernel, recorded, replayed, and compared after each call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tablewalk
from tablewalk.errors import TablewalkError
from tablewalk.record.perf import Perf
from tablewalk.record.recording import Recording
from tablewalk.replay.run import replay
from tablewalk.replay.select import select

SOURCE = Path(__file__).with_name("random_calls.c")
SRC = Path(tablewalk.__file__).parents[1]
CALLS = 1500


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("gcc is missing")
    try:
        missing = Perf.find().missing
    except TablewalkError as e:
        pytest.skip(str(e))
    if missing:
        pytest.skip(missing[0])
    directory = tmp_path_factory.mktemp("live")
    directory.chmod(0o755)
    path = directory / "random_calls"
    subprocess.run(["gcc", "-O1", "-o", path, SOURCE], check=True)
    return path


@pytest.mark.parametrize("seed", [1, 3, 10])
def test_every_exact_sample_agrees(program: Path, tmp_path: Path, seed: int) -> None:
    path = tmp_path / "random.tw"
    command = [sys.executable, "-m", "tablewalk", "record", "-o", str(path), "--", str(program), str(seed), str(CALLS)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(SRC)}, check=True)
    recording = Recording.open(path)
    if recording.meta.lost:
        pytest.skip(f"this machine lost {recording.meta.lost} events")
    (result,) = replay(path, select(recording.meta, [], None, [], []), check=True).results
    compared = sum(p.check.compared for p in result.processes if p.check)
    wrong = [(p.name, p.check.first) for p in result.processes if p.check and p.check.disagreements]
    told = f"kernel {os.uname().release}: {result.accuracy}"
    assert compared > CALLS
    assert not wrong, told
    assert result.accuracy.vma_mismatches == 0 and not result.accuracy.mismatches, told
    assert result.accuracy.faults_refused == 0, told

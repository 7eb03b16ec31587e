# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios that raise, never come back, are not the same again, or use up the memory: each is told with its line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tablewalk.cli import main
from tablewalk.errors import TablewalkError
from tablewalk.explore import misuse
from tablewalk.explore.run import Options, Outcome, built_in, explore, from_file
from tablewalk.explore.search import Search

HEAD = """import random, sys, time
from tablewalk.explore.scenario import MADV_DONTNEED, scenario
def process(s):
    p = s.process()
    p.mmap(s.A, 2)
    p.write(s.A, 1)
    s.thread("dontneed", lambda: p.madvise(s.A, 2, MADV_DONTNEED))
    return p
"""
GOOD = """
@scenario()
def good(s):
    p = process(s)
    s.thread("write", lambda: p.write(s.A, 2))
"""


def own(tmp_path: Path, body: str) -> tuple[Path, int]:
    """A file with a scenario of such a body, and the number of the line that is marked `HERE`."""
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    text = f"{HEAD}@scenario()\ndef bad(s):\n{indented}{GOOD}"
    path = tmp_path / "own.py"
    path.write_text(text)
    return path, 1 + text.partition("HERE")[0].count("\n")


def run(tmp_path: Path, body: str) -> tuple[Outcome | str, int]:
    path, line = own(tmp_path, body)
    try:
        return explore(from_file(path)["bad"], options=Options()), line
    except TablewalkError as e:
        return str(e), line


RAISES = {
    "ValueError: no": "process(s)\nraise ValueError('no')  # HERE",
    "SystemExit: 3": "process(s)\nsys.exit(3)  # HERE",
    "mmap(0x3, 2 pages): error 22": "process(s).mmap(3, 2)  # HERE",
    "out of memory": "raise MemoryError  # HERE",
    "KeyError: 'nobody'": "process(s)\ns.finally_(lambda r: r['nobody'])  # HERE",
    "KeyError: 'anybody'": "process(s)\ns.sometimes_ends('any', lambda r: r['anybody'])  # HERE",
    "SystemExit: 4": "p = process(s)\ns.thread('w', lambda: (p.write(s.A, 2), sys.exit(4)))  # HERE",
}


@pytest.mark.parametrize("said", RAISES)
def test_what_raises_is_told_with_its_line(tmp_path: Path, said: str) -> None:
    told, line = run(tmp_path, RAISES[said])
    assert isinstance(told, str) and "bad" in told and f"own.py:{line})" in told and told.endswith(said)


def test_a_thread_that_raises_has_a_schedule(tmp_path: Path) -> None:
    told, line = run(tmp_path, "p = process(s)\ns.thread('w', lambda: [1][p.write(s.A, 2) + 5])  # HERE")
    assert isinstance(told, Outcome) and told.verdict == "error" and told.trace is not None
    assert "IndexError" in told.sentence and f"own.py:{line}" in told.sentence


def test_an_assertion_of_a_thread_is_the_scenarios_own(tmp_path: Path) -> None:
    body = "p = process(s)\ndef check():\n    assert p.tables() == 2, 'two'  # HERE\ns.thread('w', check)"
    told, line = run(tmp_path, body)
    assert isinstance(told, Outcome) and told.rule is not None
    assert (told.verdict, told.rule.id) == ("violation", "RESULT") and f"own.py:{line}" in told.sentence


def test_a_scenario_without_threads_shows_nothing(tmp_path: Path) -> None:
    told, _ = run(tmp_path, "s.process()")
    assert isinstance(told, str) and told.endswith("has no thread")


def test_what_a_thread_returns_is_compared(tmp_path: Path) -> None:
    told, _ = run(tmp_path, "p = process(s)\ns.thread('w', lambda: [p.write(s.A, 2)])")
    assert isinstance(told, str) and "a thread returned [0]; what it returns has to be immutable" in told


ENDLESS = {
    "set-up": "process(s)\nwhile True: pass  # HERE",
    "thread": "p = process(s)\ndef w():\n    p.read(s.A)\n    while True: pass  # HERE\ns.thread('w', w)",
    "check": "p = process(s)\ndef c(r):\n    while True: pass  # HERE\ns.finally_(c)",
}


@pytest.mark.parametrize("where", ENDLESS)
def test_what_does_not_come_back_is_told_with_its_line(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    explore(built_in()["fault-and-dontneed"])  # compiled
    monkeypatch.setattr(misuse, "ENDLESS", 0.5)
    told, line = run(tmp_path, ENDLESS[where])
    assert isinstance(told, str) and told.endswith(f"own.py:{line}): does not come back within 0.5 seconds")


def test_a_loop_of_calls_is_bounded_with_its_line(tmp_path: Path) -> None:
    body = "p = process(s)\ndef w():\n    while True:\n        p.read(s.A)  # HERE\ns.thread('w', w)"
    told, line = run(tmp_path, body)
    assert isinstance(told, Outcome) and told.verdict == "bounded" and f"own.py:{line}" in told.bound


MOODY = {
    "sets folio": "p = process(s)\np.write(s.A, random.randrange(1 << 40))",
    "does store of folio": "p = process(s)\ns.thread('w', lambda: p.write(s.A, time.perf_counter_ns()))",
    "does exit": "p = process(s)\ns.thread('w', lambda: (p.write(s.A, 2), time.perf_counter_ns()))",
}


@pytest.mark.parametrize("differs", MOODY)
def test_what_is_not_the_same_again_is_told(tmp_path: Path, differs: str) -> None:
    told, _ = run(tmp_path, MOODY[differs])
    assert isinstance(told, str) and "run twice" in told and differs in told and "the second time" in told


def test_other_scenarios_have_their_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, line = own(tmp_path, "sys.exit(0)  # HERE")
    with pytest.raises(SystemExit) as e:
        main(["explore", str(path), "--json"])
    bad, good = json.loads(capsys.readouterr().out)["scenarios"]
    assert e.value.code == 2
    assert (bad["verdict"], good["verdict"]) == ("error", "exhausted") and f"own.py:{line}" in bad["sentence"]


def test_memory_runs_out_for_the_scenario_alone(tmp_path: Path) -> None:
    path, line = own(tmp_path, "kept = []\nwhile True:\n    kept.append(bytes(1 << 24))  # HERE")
    limited = "from tablewalk import memory; memory.available = lambda: 1 << 29; from tablewalk.cli import main; main()"
    command = [sys.executable, "-c", limited, "explore", str(path), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    bad, good = json.loads(done.stdout)["scenarios"]
    assert f"own.py:{line}): out of memory" in bad["sentence"]
    assert good["verdict"] == "exhausted" and done.returncode == 2


def test_a_search_that_finds_no_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Search, "make_room", none)
    outcome = explore(built_in()["shmem-collapse-fault"], options=Options("none"))
    assert (outcome.verdict, outcome.bound) == ("bounded", "memory") and outcome.result.states > 0

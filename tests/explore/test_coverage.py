# SPDX-License-Identifier: GPL-2.0-only
"""Which branches were reached is said exactly, and what a scenario promises has to happen."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from tablewalk.cli import run
from tablewalk.explore.coverage import Branch, _function, _lines
from tablewalk.explore.run import explore, from_file

TEXT = """
def example(values, stop):
    total = 0
    for value in values:
        if (
            value < 0
            or value == stop
        ):
            break
        elif value > 10:
            total += 1
        while value > 5:
            value -= 1
    if total:
        raise ValueError
"""


def reached_by(*arguments: object) -> set[Branch]:
    """Branches of `example` that a call reaches."""
    (node,) = ast.parse(TEXT).body
    assert isinstance(node, ast.FunctionDef)
    scope: dict[str, object] = {}
    exec(compile(TEXT, "example", "exec"), scope)
    branches: set[Branch] = set()
    tests = _function("example", node).tests
    before = sys.gettrace()
    sys.settrace(lambda frame, event, arg: _lines(tests, branches) if frame.f_code.co_name == "example" else None)
    try:
        scope["example"](*arguments)  # type: ignore[operator]
    except (ValueError, TypeError):
        pass
    finally:
        sys.settrace(before)
    return branches


def test_outcomes_of_each_statement() -> None:
    loop, stops, large, shrinks, found = 4, 5, 10, 12, 14
    assert reached_by([], 0) == {(loop, False), (found, False)}
    assert reached_by([7, 0], 0) == {
        (loop, True), (stops, False), (stops, True), (large, False), (shrinks, True), (shrinks, False), (found, False),
    }  # fmt: skip
    assert (found, True) in reached_by([11], 0)


def test_a_test_that_raises_has_no_outcome() -> None:
    assert reached_by(["text"], 0) == {(4, True)}


def test_report_says_what_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "coverage.md"
    assert run(["explore", "fault-and-dontneed", "--coverage", str(path)]) == 0
    files = dict(part.split(".py: ", 1) for part in path.read_text().split("\n## ")[1:] if ".py: " in part)
    whole, partial, by_none = (
        next(line for line in files[file].splitlines() if line.startswith(f"- {start}"))
        for file, start in (("fault", "whole"), ("fault", "hardware_walk (1): "), ("memory_zap", "by none"))
    )
    assert "access_error (1)" in whole
    assert "`if pmdval & LEAF:` never" in partial and "`if pmdval & needed != needed:` not come to" in partial
    assert "zap_nonpresent_pte" in by_none
    assert files["pgtable_generic"].partition(" of ")[0].isdecimal()
    untouched = path.read_text().partition("## Files that no scenario reaches")[2].partition("##")[0]
    assert "ksm, " in untouched and "memory_zap" not in untouched


PROMISES = """
from tablewalk.explore.scenario import MADV_DONTNEED, scenario

def race(s):
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    s.thread("fault", lambda: p.write(s.A, 2))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    return p

@scenario()
def kept(s):
    race(s)
    s.sometimes("do_madvise", "pte_offset_map_lock: lock")
    s.sometimes_ends("both are served", lambda results: set(results.values()) == {0})

@scenario()
def broken(s):
    race(s)
    s.sometimes("migrate", "pte_offset_map_lock: free")
    s.sometimes_ends("the write fails", lambda results: results["fault"] == -1)
"""


def test_promises(tmp_path: Path) -> None:
    path = tmp_path / "promises.py"
    path.write_text(PROMISES)
    programs = from_file(path)
    kept, broken = (explore(programs[name]) for name in ("kept", "broken"))
    assert (kept.verdict, kept.sentence) == ("exhausted", "")
    said = "never happens, in no schedule: migrate, pte_offset_map_lock: free, the write fails"
    assert (broken.verdict, broken.sentence) == ("violation", said)

# SPDX-License-Identifier: GPL-2.0-only
"""Which branches of the model's functions scenarios reach, under all schedules that a search has seen.

Each edge of a thread's automaton is learned by running the model's Python, and only what the search comes upon is
learned; so the lines traced meanwhile are those of some schedule.  A branch is an outcome of an `if`, `while` or `for`
statement of `kernel/`: its body is entered, or it is not (any more).
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from tablewalk.machine.drivers import ROOT

from . import learn

KERNEL: Final = str(ROOT / "kernel") + "/"

Branch = tuple[int, bool]  # (line of the statement, whether its body is entered)
Test = tuple[int, int, int]  # lines: of a statement, of the first in its body, and of the last


@dataclass(slots=True)
class Function:
    """A function of the model: its branches, and for each line of a test which statement it belongs to."""

    module: str
    name: str
    branches: set[Branch] = field(default_factory=set)
    tests: dict[int, Test] = field(default_factory=dict)  # by line


Key = tuple[str, int]  # of a function: module and first line
Reached = dict[Key, set[Branch]]


def functions() -> dict[Key, Function]:
    """Every function of `kernel/`."""
    found: dict[Key, Function] = {}
    for path in sorted((ROOT / "kernel").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                found[path.stem, _first_line(node)] = _function(path.stem, node)
    return found


def _first_line(node: ast.FunctionDef) -> int:
    """As a code object has it."""
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


def _function(module: str, node: ast.FunctionDef) -> Function:
    function = Function(module, node.name)
    for statement in _statements(node.body):
        first, last = statement.body[0].lineno, statement.body[-1].end_lineno or 0
        for line in range(statement.lineno, first):
            function.tests[line] = statement.lineno, first, last
        function.branches.add((statement.lineno, True))
        if not _for_ever(statement):
            function.branches.add((statement.lineno, False))
    return function


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.If | ast.While | ast.For]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef):
            continue
        if isinstance(statement, ast.If | ast.While | ast.For):
            yield statement
        for name in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, name, ()))


def _for_ever(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.While) and isinstance(statement.test, ast.Constant)


@contextmanager
def traced(known: dict[Key, Function]) -> Iterator[Reached]:
    """What threads run of these functions in here; the set-up and the final assertions do not count."""
    reached: Reached = {}
    if not known:
        yield reached
        return

    def on_call(frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        if learn._active[0] is None or not code.co_filename.startswith(KERNEL):
            return None
        key = code.co_filename[len(KERNEL) :].removesuffix(".py"), code.co_firstlineno
        function = known.get(key)
        if function is None:
            return None
        branches = reached.setdefault(key, set())
        return _lines(function.tests, branches) if function.tests else None

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        yield reached
    finally:
        sys.settrace(before)


def _lines(tests: dict[int, Test], branches: set[Branch]) -> Any:
    """Traces one call: where a test's line is followed by one that is not of the same test, it had an outcome."""
    last: Test | None = None

    def on_event(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal last
        if event == "exception":
            last = None
            return on_event
        line = frame.f_lineno if event == "line" else 0
        test = tests.get(line)
        if last is not None and test != last:
            branches.add((last[0], last[1] <= line <= last[2]))
        last = test
        return on_event

    return on_event


def as_markdown(known: dict[Key, Function], scenarios: dict[str, Reached]) -> str:
    """The report: by file of `kernel/` what is reached and what is not, and by scenario."""
    union: Reached = {}
    for reached in scenarios.values():
        for key, branches in reached.items():
            union.setdefault(key, set()).update(branches)
    files: dict[str, list[Key]] = {}
    for key in known:
        files.setdefault(key[0], []).append(key)
    times = Counter(key for reached in scenarios.values() for key in reached)
    lines = [
        "# What scenarios reach",
        "",
        "`tablewalk explore --coverage FILE` writes this. A branch is an outcome of an `if`, `while` or `for` of",
        "`kernel/`, reached in some schedule of the scenario's threads; set-up and final assertions do not count.",
        "In brackets: how many scenarios reach a function; behind a statement: what it always or never comes to.",
        "",
        f"{len(scenarios)} scenarios: {_of(known, union, list(known))}.",
        "",
    ]
    for file, keys in files.items():
        if any(key in union for key in keys):
            lines += [f"## {file}.py: {_of(known, union, keys)}", "", *_file(file, known, union, keys, times), ""]
    untouched = [file for file, keys in files.items() if not any(key in union for key in keys)]
    lines += ["## Files that no scenario reaches", "", ", ".join(untouched) or "none", "", *_by_scenario(scenarios), ""]
    return "\n".join(lines)


def _of(known: dict[Key, Function], union: Reached, keys: list[Key]) -> str:
    branches = sum(len(known[key].branches) for key in keys)
    found = sum(len(union.get(key, ())) for key in keys)
    return f"{sum(key in union for key in keys)} of {len(keys)} functions, {found} of {branches} branches"


def _file(
    file: str, known: dict[Key, Function], union: Reached, keys: list[Key], times: Counter[Key]
) -> Iterator[str]:
    text = (ROOT / "kernel" / f"{file}.py").read_text(encoding="utf-8").splitlines()
    whole = [key for key in keys if key in union and union[key] == known[key].branches]
    if whole:
        yield f"- whole: {', '.join(f'{known[key].name} ({times[key]})' for key in whole)}"
    for key in keys:
        missing = known[key].branches - union[key] if key in union else set()
        if missing:
            said = [f"{n} `{text[n - 1].strip()}` {_outcome(n, missing)}" for n in sorted({n for n, _ in missing})]
            yield f"- {known[key].name} ({times[key]}): {'; '.join(said)}"
    by_none = [known[key].name for key in keys if key not in union]
    if by_none:
        yield f"- by none: {', '.join(by_none)}"


def _outcome(line: int, missing: set[Branch]) -> str:
    """What a statement came to in all schedules."""
    if (line, False) not in missing:
        return "never"
    return "not come to" if (line, True) in missing else "always"


def _by_scenario(scenarios: dict[str, Reached]) -> Iterator[str]:
    yield from ("## By scenario", "", "| scenario | functions | branches | only here |", "| --- | --- | --- | --- |")
    times = Counter((key, b) for reached in scenarios.values() for key, found in reached.items() for b in found)
    for name, reached in scenarios.items():
        branches = [(key, b) for key, found in reached.items() for b in found]
        alone = sum(times[branch] == 1 for branch in branches)
        yield f"| {name} | {len(reached)} | {len(branches)} | {alone} |"

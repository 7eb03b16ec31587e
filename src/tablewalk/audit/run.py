# SPDX-License-Identifier: GPL-2.0-only
"""The audit of a set of files: reads them, infers contracts, follows every function that uses the interface."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tablewalk.audit.annotations import Annotation, read_annotations
from tablewalk.audit.contracts import Contract, Lookup
from tablewalk.audit.engine import Waypoint
from tablewalk.audit.local import local_reports
from tablewalk.audit.names import IMPLEMENTATION, INTEREST, NEARBY, Names, tree_root
from tablewalk.audit.one import Result, follow
from tablewalk.audit.reader import Reader
from tablewalk.audit.sleepers import Sleepers
from tablewalk.audit.sources import CFile, Note, find
from tablewalk.audit.text import Function
from tablewalk.audit.unit import Unit

MAX_ROUNDS = 5
_HELPER = re.compile(r"\bpte_t\s*\*|\bspinlock_t\s*\*")
_FIELDS = re.compile(r"->(?:pte|ptl)\b|\bp[tm][ed]_same\s*\(")


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is broken, or not known to be kept."""

    rule: str
    file: str
    line: int
    function: str
    message: str
    origin: int = 0  # line of the map; 0 where there is none in the function
    path: tuple[Waypoint, ...] = ()


@dataclass(slots=True)
class Entry:
    """A function of one file."""

    file: str
    function: Function
    uses: bool  # the interface, itself
    unit: Unit | None = None
    result: Result | None = None
    calls: frozenset[str] = frozenset()


@dataclass(slots=True)
class Coverage:
    """What was looked at and what was not."""

    files: int = 0
    files_of_interest: int = 0
    functions: int = 0
    calls: int = 0
    notes: list[Note] = field(default_factory=list)
    macros: list[Note] = field(default_factory=list)


@dataclass(slots=True)
class Audit:
    """Everything that is known after a run."""

    names: Names
    root: Path | None
    annotations: dict[str, Annotation] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)
    entries: list[Entry] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    contracts: dict[str, dict[str, tuple[Contract, bool]]] = field(default_factory=dict)  # by name, file; if static
    sleepers: Sleepers = field(default_factory=Sleepers)


def audit(paths: Iterable[Path], annotations: Iterable[Path] = (), reader: Reader | None = None) -> Audit:
    """Audit the C files at `paths`, as `reader` has them.  Raises TablewalkError where a path is nothing."""
    paths = list(paths)
    reader = reader or Reader()
    found = find(paths)
    root = next((r for r in map(tree_root, paths) if r is not None), None)
    run = Audit(Names.of_tree(root), root, read_annotations(annotations))
    files = reader.with_overlaid(found.files)
    run.coverage.files = len(files)
    run.coverage.notes += found.notes
    for file in reader.read(files):
        if file.resolutions:
            add_file(run, file)
        else:
            run.coverage.notes += file.notes
    conclude(run)
    return run


def add_file(run: Audit, file: CFile) -> None:
    """Take what is of interest in `file` into the run."""
    run.coverage.files_of_interest += 1
    run.coverage.calls += file.calls
    run.coverage.notes += file.notes
    run.coverage.macros += file.macros
    for function in file.functions:
        if function.name in IMPLEMENTATION:
            continue
        run.sleepers.add(file.name, _private(function, file.name), function)
        uses = INTEREST.search(function.body) is not None or NEARBY.search(function.body) is not None
        parameters = ",".join(p.type for p in function.parameters)
        if uses or _HELPER.search(parameters) or _FIELDS.search(function.body):
            run.entries.append(Entry(file.name, function, uses))


def conclude(run: Audit) -> None:
    """Follow the functions until no contract changes any more, then list what is broken."""
    for entry in run.entries:
        prepare(run, entry)
    infer(run, [e for e in run.entries if e.unit is not None])
    findings: dict[tuple[str, str, int, int], Finding] = {}
    for entry in run.entries:
        for finding in judge(run, entry):
            findings.setdefault((finding.file, finding.rule, finding.line, finding.origin), finding)
    run.findings = sorted(findings.values(), key=lambda f: (f.file, f.line, f.rule))
    run.coverage.functions = sum(e.uses for e in run.entries)


def prepare(run: Audit, entry: Entry) -> None:
    entry.unit = Unit.of(entry.function)
    line = entry.function.line
    name = entry.function.name
    if entry.unit is None:
        run.coverage.notes.append(Note(entry.file, line, f"{name}() is too long or too deep to be followed"))
        return
    entry.calls = frozenset(c.name for c in entry.unit.calls)
    if entry.unit.broken and entry.uses:
        run.coverage.notes.append(Note(entry.file, line, f"{name}() is understood in part only"))


def infer(run: Audit, pending: list[Entry]) -> None:
    """Follow `pending`, and whatever calls a function whose contract has changed by that."""
    callers: dict[str, list[Entry]] = {}
    for entry in run.entries:
        for name in entry.calls:
            callers.setdefault(name, []).append(entry)
    for _ in range(MAX_ROUNDS):
        changed: set[str] = set()
        for entry in pending:
            if entry.unit is None:
                continue
            note = run.annotations.get(entry.function.name, Annotation())
            entry.result = follow(entry.unit, lookup(run, entry.file), note)
            if _learn(run, entry, entry.result.contract):
                changed.add(entry.function.name)
        pending = list({id(e): e for name in changed for e in callers.get(name, [])}.values())
        if not pending:
            break


def _learn(run: Audit, entry: Entry, contract: Contract) -> bool:
    """Whether this is news."""
    known = run.contracts.setdefault(entry.function.name, {})
    static = _private(entry.function, entry.file)
    if known.get(entry.file, (Contract(), static))[0] == contract:
        return False
    known[entry.file] = (contract, static)
    return True


def _private(function: Function, file: str) -> bool:
    """Whether only its own file sees it."""
    return "static" in function.returns.split() and not file.endswith(".h")


@dataclass(frozen=True, slots=True)
class _Seen:
    """Contracts as `file` sees them: of its own functions first, then of those that are not static elsewhere."""

    run: Audit
    file: str

    def __call__(self, name: str, /) -> Contract | None:
        known = self.run.contracts.get(name)
        if known is None:
            return None
        if self.file in known:
            return known[self.file][0]
        return next((contract for contract, static in known.values() if not static), None)

    def sleeps(self, name: str, /) -> tuple[str, ...]:
        return self.run.sleepers.chain(name, self.file)


def lookup(run: Audit, file: str) -> Lookup:
    """What `file` sees of other functions."""
    return _Seen(run, file)


def judge(run: Audit, entry: Entry) -> list[Finding]:
    """The findings of one function."""
    if entry.unit is None or entry.result is None:
        return []
    if not entry.result.complete:
        said = f"{entry.function.name}() has too many paths: not all are followed"
        run.coverage.notes.append(Note(entry.file, entry.function.line, said))
    reports = [*entry.result.reports]
    weak = {r.origin for r in reports if r.rule == "none-recheck"}
    local = local_reports(entry.unit, run.names)
    reports += [r for r in local if r.rule != "no-recheck" or r.origin not in weak]
    name = shown_name(run, entry.file)
    return [Finding(r.rule, name, r.line, entry.function.name, r.message, r.origin, r.path) for r in reports]


def shown_name(run: Audit, file: str) -> str:
    """A file's name as findings have it: from the top of the kernel tree, where there is one."""
    return os.path.relpath(os.path.realpath(file), run.root) if run.root is not None else file

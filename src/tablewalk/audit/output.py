# SPDX-License-Identifier: GPL-2.0-only
"""What a run found, for programs: JSON, SARIF 2.1.0, the census of call sites."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from tablewalk.audit.contracts import describe
from tablewalk.audit.names import DEPRECATED, MAPS, UNMAPS
from tablewalk.audit.rules import RULES, scenario_of
from tablewalk.audit.run import Audit, Finding, shown_name

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_SITES = frozenset((*MAPS, *UNMAPS, *DEPRECATED, "pte_lockptr"))


@dataclass(frozen=True, order=True, slots=True)
class Site:
    """One call of the interface."""

    file: str
    line: int
    function: str
    call: str
    verdict: str  # ids of rules that name this line, or the map at it; "no finding"; "not followed"


def census(run: Audit, findings: list[Finding]) -> list[Site]:
    """Every call in a function that was found."""
    rules: dict[tuple[str, int], set[str]] = {}
    for f in findings:
        for line in {f.line, f.origin} - {0}:
            rules.setdefault((f.file, line), set()).add(f.rule)
    sites: set[Site] = set()
    for entry in run.entries:
        if entry.unit is None or not entry.uses:
            continue
        name = shown_name(run, entry.file)
        silent = "no finding" if entry.result is not None and entry.result.complete else "not followed"
        for call in entry.unit.calls:
            if call.name in _SITES:
                verdict = " ".join(sorted(rules.get((name, call.line), ()))) or silent
                sites.add(Site(name, call.line, entry.function.name, call.name, verdict))
    return sorted(sites)


def coverage_json(run: Audit) -> dict[str, Any]:
    c = run.coverage
    return {
        "files": c.files,
        "files_of_interest": c.files_of_interest,
        "functions": c.functions,
        "calls": c.calls,
        "names": run.names.as_json(),
        "notes": [asdict(n) for n in c.notes],
        "macros": [asdict(n) for n in c.macros],
    }


def as_json(run: Audit, findings: list[Finding], with_census: bool) -> dict[str, Any]:
    sites = {"census": [asdict(s) for s in census(run, findings)]} if with_census else {}
    return {"findings": [_finding(f) for f in findings], "coverage": coverage_json(run), **sites}


def _finding(f: Finding) -> dict[str, Any]:
    rule = RULES[f.rule]
    return asdict(f) | {"source": rule.source, "invariant": rule.invariant, "scenario": scenario_of(f.rule, f.function)}


def contracts(run: Audit) -> list[tuple[str, int, str, list[str]]]:
    """File, line and name of each function with a contract, and what it says."""
    found = []
    for entry in run.entries:
        said = describe(entry.result.contract, entry.function) if entry.result is not None else []
        if said:
            found.append((shown_name(run, entry.file), entry.function.line, entry.function.name, said))
    return sorted(found)


def as_sarif(findings: list[Finding], version: str) -> dict[str, Any]:
    rules = [
        {
            "id": name,
            "shortDescription": {"text": rule.statement},
            "help": {"text": f"Source: {rule.source}. Not reported: {rule.unless}."},
            "properties": {"invariant": rule.invariant, "scenario": rule.command()},
        }
        for name, rule in RULES.items()
    ]
    driver = {"name": "tablewalk audit", "version": version, "rules": rules}
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": [_result(f) for f in findings]}],
    }


def _result(f: Finding) -> dict[str, Any]:
    steps = [{"location": _location(f.file, w.line, w.text)} for w in f.path]
    flows = {"codeFlows": [{"threadFlows": [{"locations": steps}]}]} if steps else {}
    return {
        "ruleId": f.rule,
        "level": "warning",
        "message": {"text": f"{f.function}(): {f.message}"},
        "locations": [_location(f.file, f.line)],
        **flows,
    }


def _location(file: str, line: int, text: str = "") -> dict[str, Any]:
    place = {"artifactLocation": {"uri": quote(os.fsencode(file))}, "region": {"startLine": max(line, 1)}}
    return {"physicalLocation": place, **({"message": {"text": text}} if text else {})}

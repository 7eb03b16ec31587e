# SPDX-License-Identifier: GPL-2.0-only
"""Findings that somebody looked at and accepted, with the reason."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tablewalk.audit.run import Finding
from tablewalk.errors import TablewalkError

_KEYS = {"rule", "file", "function", "reason"}


@dataclass(frozen=True, slots=True)
class Accepted:
    """All findings of one rule in one function: lines move, so they are not part of it."""

    rule: str
    file: str
    function: str
    reason: str

    def covers(self, f: Finding) -> bool:
        return (self.rule, self.file, self.function) == (f.rule, f.file, f.function)


def read_baseline(path: Path) -> list[Accepted]:
    """Raises TablewalkError where the file is none, or an entry lacks its reason."""
    try:
        data = tomllib.loads(path.read_text())
    except OSError as e:
        raise TablewalkError(f"{path}: {e.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise TablewalkError(f"{path}: {e}") from None
    entries = data.pop("accept", [])
    if data or not isinstance(entries, list):
        raise TablewalkError(f"{path}: may have [[accept]] entries and nothing else")
    found = []
    for i, entry in enumerate(entries, 1):
        ok = isinstance(entry, dict) and entry.keys() == _KEYS
        if not ok or any(not isinstance(v, str) or not v.strip() for v in entry.values()):
            raise TablewalkError(f"{path}: entry {i} needs rule, file, function and reason, as strings")
        found.append(Accepted(**entry))
    return found


def without_accepted(findings: Iterable[Finding], baseline: list[Accepted]) -> tuple[list[Finding], list[Accepted]]:
    """The findings that are left, and the entries that cover none."""
    findings = list(findings)
    left = [f for f in findings if not any(a.covers(f) for a in baseline)]
    unused = [a for a in baseline if not any(a.covers(f) for f in findings)]
    return left, unused

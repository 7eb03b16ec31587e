# SPDX-License-Identifier: GPL-2.0-only
"""Two audits side by side: what a change introduces, what one tree has and another has not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tablewalk.audit.changes import Change
from tablewalk.audit.reader import Reader
from tablewalk.audit.run import Audit, Finding, audit
from tablewalk.errors import TablewalkError

_LINE = re.compile(r"\bline \d+")
# of a tree, that have users of page tables
_PARTS = ("mm", "fs", "arch", "kernel", "virt", "lib", "include", "drivers")


def signature(f: Finding) -> tuple[str, str, str, str]:
    """What stays when lines move."""
    return f.file, f.function, f.rule, _LINE.sub("line", f.message)


def only_in(these: Iterable[Finding], those: Iterable[Finding]) -> list[Finding]:
    """The findings of `these` that `those` have not; of several alike, those too many."""
    known = Counter(signature(f) for f in those)
    left = []
    for f in these:
        if known[signature(f)] > 0:
            known[signature(f)] -= 1
        else:
            left.append(f)
    return left


def introduced(
    paths: Iterable[Path], change: Change, annotations: Iterable[Path], reader: Reader
) -> tuple[Audit, list[Finding]]:
    """The audit after a change, and the findings that were not there before.

    `paths` is what is read besides, so that contracts of functions elsewhere are known.
    """
    paths, annotations = list(paths), list(annotations)
    elsewhere = change.elsewhere(paths)
    reader.overlay = {**elsewhere, **change.before}
    before = audit(paths, annotations, reader)
    reader.overlay = {**elsewhere, **change.after}
    after = audit(paths, annotations, reader)
    return after, only_in(after.findings, before.findings)


@dataclass(frozen=True, slots=True)
class Compared:
    """`gone` are findings of the old tree alone, `new` of the new one alone."""

    old: Audit
    new_tree: Audit
    gone: list[Finding]
    new: list[Finding]


def compare(old: Path, new: Path, parts: Iterable[str], annotations: Iterable[Path], jobs: int = 1) -> Compared:
    """Two kernel trees, or the same `parts` of both."""
    parts, annotations = list(parts), list(annotations)
    runs = [audit(parts_of(tree, parts), annotations, Reader(jobs=jobs)) for tree in (old, new)]
    a, b = runs
    return Compared(a, b, only_in(a.findings, b.findings), only_in(b.findings, a.findings))


def parts_of(tree: Path, parts: Sequence[str] = ()) -> list[Path]:
    """Where a kernel tree has these `parts`, or without any those that have users of page tables."""
    found = [tree / p for p in parts or _PARTS if (tree / p).exists()]
    missing = [p for p in parts if not (tree / p).exists()]
    if missing and len(missing) == len(parts):
        raise TablewalkError(f"{tree}: has no {', '.join(missing)}")
    return found or [tree]

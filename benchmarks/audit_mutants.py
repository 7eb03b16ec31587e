# SPDX-License-Identifier: GPL-2.0-only
"""Errors made on purpose in a tree's users of the interface, which the audit has to find.

    audit_mutants.py TREE [--every N] [--only CLASS] [--write]

Every mutant that `audit_mutant_list.py` makes (or every Nth) is followed in the place of its function, and so are the
functions whose callee's contract it changes.  It is caught if there is a finding that the tree has not without it.
Survivors are listed; benchmarks/audit/survivors.toml says why, by class, file and function.  --write writes
benchmarks/audit/MUTANTS.md.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from audit_again import again, keys
from audit_mutant_list import Mutant, mutants
from tablewalk.audit.compare import parts_of
from tablewalk.audit.run import Entry, audit, infer, prepare, shown_name
from tablewalk.audit.text import Function

WHERE = Path(__file__).parent / "audit"


class Mutants:
    """An audited tree, and what is found in it with one function in the place of another."""

    def __init__(self, tree: Path) -> None:
        self.run = audit(parts_of(tree))
        self.found = {id(e): keys(self.run, e) for e in self.run.entries}

    def all(self) -> Iterator[tuple[Entry, Mutant]]:
        """Each site once, however many resolutions of the #ifs have it."""
        seen: set[tuple[str, int, str]] = set()
        for entry in self.run.entries:
            if not entry.uses or entry.unit is None:
                continue
            for m in mutants(entry.function, lambda name: self._gives(name)):
                at = (entry.file, entry.function.body_at + m.edits[0][0], m.kind)
                if at not in seen:
                    seen.add(at)
                    yield entry, m

    def _gives(self, name: str) -> bool:
        known = self.run.contracts.get(name, {})
        return any(
            e.slot == "ret" and e.what == "null" for c, _ in known.values() for o in c.outcomes for e in o.effects
        )

    def caught(self, entry: Entry, mutant: Mutant) -> set[str]:
        """The rules of the findings that are new with it."""
        run = again(self.run)
        changed = []
        for old, new in zip(self.run.entries, run.entries, strict=True):
            if old.file == entry.file and (body := _edited(old.function, entry.function, mutant)) is not None:
                new.function = replace(old.function, body=body)
                prepare(run, new)
                changed.append(new)
        infer(run, changed)
        rules: set[str] = set()
        for old, new in zip(self.run.entries, run.entries, strict=True):
            if new.result is not old.result:
                rules |= {rule for rule, *_ in keys(run, new) - self.found[id(old)]}
        return rules


def _edited(function: Function, of: Function, mutant: Mutant) -> str | None:
    """The body of `function` with the edits made, if it has the text there that `of` has."""
    shift = of.body_at - function.body_at
    body = function.body
    for begin, end, new in sorted(mutant.edits, reverse=True):
        a, b = begin + shift, end + shift
        if (
            a < 0
            or b > len(body)
            or function.body[a:b] != of.body[begin:end]
            or (a == b and not _same(body, of, a, begin))
        ):
            return None
        body = body[:a] + new + body[b:]
    return body


def _same(body: str, of: Function, a: int, begin: int) -> bool:
    """Whether what stands just behind an insertion is the same."""
    return body[a : a + 1] == of.body[begin : begin + 1]


def reasons() -> dict[tuple[str, str, str], str]:
    path = WHERE / "survivors.toml"
    data = tomllib.loads(path.read_text())["survivor"] if path.exists() else []
    return {(s["kind"], s["file"], s["function"]): s["reason"] for s in data}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tree", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    begin = time.process_time()
    all_ = Mutants(options.tree)
    chosen = [(e, m) for e, m in all_.all() if options.only in m.kind][:: options.every]
    tried: collections.Counter[str] = collections.Counter()
    caught: collections.Counter[str] = collections.Counter()
    known = reasons()
    survivors = []
    for entry, mutant in chosen:
        tried[mutant.kind] += 1
        if all_.caught(entry, mutant):
            caught[mutant.kind] += 1
        else:
            file = shown_name(all_.run, entry.file)
            why = known.get((mutant.kind, file, entry.function.name), "")
            survivors.append((mutant.kind, file, mutant.line, entry.function.name, why))
    lines = ["| Class | Mutants | Caught | |", "|---|---|---|---|"]
    for kind in (*sorted(tried), "all"):
        n, k = (tried[kind], caught[kind]) if kind != "all" else (tried.total(), caught.total())
        lines.append(f"| {kind} | {n} | {k} | {100 * k / max(n, 1):.1f} % |")
    lines += ["", "| Survivor | Where | Why |", "|---|---|---|"]
    lines += [f"| {k} | {file}:{line} `{name}` | {why} |" for k, file, line, name, why in survivors]
    print("\n".join(lines))
    print(f"{time.process_time() - begin:.0f} s", file=sys.stderr)
    if options.write:
        name = options.tree.resolve().name
        head = f"# Mutants of {name}\n\n`benchmarks/audit_mutants.py` makes them and follows them.\n\n"
        (WHERE / "MUTANTS.md").write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-2.0-only
"""Errors made on purpose in a tree's users of the interface, which the audit has to find.

    audit_mutants.py TREE [SECONDS]    a random sample, as far as the time goes; caught of tried, by class

A mutant is audited with its file alone; it is caught if there is a finding that the file has not without it.
"""

from __future__ import annotations

import collections
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tablewalk.audit.run import Audit, audit
from tablewalk.audit.sources import has_interest

UNMAP = re.compile(r"^\t+pte_unmap(?:_unlock)?\([^;{}]*\);\n", re.MULTILINE)
CHECK = re.compile(r"^\t+if \((?:unlikely\()?!(?:\w+->)?(?:\w*pte\w*)\)?\)(?= \{\n|\n)", re.MULTILINE)


def mutants(text: str) -> Iterator[tuple[str, str]]:
    """Class, mutated text."""
    for m in UNMAP.finditer(text):
        before, line, after = text[: m.start()], m.group(), text[m.end() :]
        yield "dropped unmap", before + after
        yield "doubled unmap", before + line + line + after
        yield "sleep inserted", before + "\tcond_resched();\n" + line + after
        if "pte_unmap_unlock" in line:
            yield "unlock forgotten", before + re.sub(r"_unlock\((.*),[^,]*\);", r"(\1);", line) + after
    for m in CHECK.finditer(text):
        yield "dropped check", text[: m.start()] + "\tif (0)" + text[m.end() :]


def found(run: Audit) -> collections.Counter[tuple[str, str]]:
    return collections.Counter((f.rule, f.function) for f in run.findings)


def main(tree: Path, seconds: float) -> None:
    files = [p for d in ("mm", "fs/proc") for p in sorted((tree / d).rglob("*.c")) if has_interest(p.read_bytes())]
    texts = {p: p.read_text() for p in files}
    chosen = [(p, kind, text) for p in files for kind, text in mutants(texts[p])]
    random.Random(1).shuffle(chosen)
    tried: collections.Counter[str] = collections.Counter()
    caught: collections.Counter[str] = collections.Counter()
    base: dict[Path, collections.Counter[tuple[str, str]]] = {}
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "m.c"
        for path, kind, text in chosen:
            if time.monotonic() > end:
                break
            if path not in base:
                copy.write_text(texts[path])
                base[path] = found(audit([copy]))
            copy.write_text(text)
            tried[kind] += 1
            if found(audit([copy])) - base[path]:
                caught[kind] += 1
            else:
                print("survived:", kind, path.relative_to(tree), differs(texts[path], text))
    for kind in sorted(tried):
        print(f"{kind}: {caught[kind]} of {tried[kind]}")
    print(f"all: {caught.total()} of {tried.total()}, sampled from {len(chosen)}")


def differs(old: str, new: str) -> int:
    """The first line that is not the same."""
    pairs = zip(old.splitlines(), new.splitlines(), strict=False)
    return next((i for i, (a, b) in enumerate(pairs, 1) if a != b), 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 60.0)

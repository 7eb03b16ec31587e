# SPDX-License-Identifier: GPL-2.0-only
"""The blind measure: functions drawn, judged by reading, and committed with verdicts before the audit runs on them.

    audit_blind.py draw TREE6.12 TREE7.2     writes audit/blind.csv: 200 functions, no verdicts
    audit_blind.py show TREE6.12 TREE7.2 N M prints the text of rows N to M, for who judges

Drawn are users of the interface, of its neighbours (kernel and huge lookups, upper tables' locks), of
kmap_local_page() and its kin, and, as controls, of other pairs: RCU, spinlocks, get and put.  Left out are functions
that an earlier draw had (audit/blind-spent.csv), and those that the audit's tests, documents or annotations name.
"""

from __future__ import annotations

import csv
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tablewalk.audit.conditionals import Source
from tablewalk.audit.text import code_only, functions

HERE = Path(__file__).parent
TABLE = HERE / "audit" / "blind.csv"
SPENT = HERE / "audit" / "blind-spent.csv"
NAMING = (
    *HERE.glob("audit/*.md"),
    *HERE.glob("audit/*.toml"),
    *HERE.glob("../tests/audit/*.py"),
    *HERE.glob("../src/tablewalk/audit/*.toml"),
)
CHOSEN = 200
SEED = 20261125
LONGEST = 110  # lines, of what does not use the interface itself
KINDS = {  # in order: a function is of the first kind that it has a call of; how many of each, None: all
    "interface": (
        r"(?:__)?(?:pte_offset_map\w*|pte_alloc_map\w*|get_locked_pte|pte_unmap\w*|pte_lockptr|pte_free_defer)",
        None,
    ),
    "neighbour": (
        r"pte_(?:offset|alloc)_(?:kernel|huge)\w*|pmd_lock|pmd_trans_huge_lock|huge_pte_(?:lock|offset|alloc)"
        r"|hugetlb_walk|page_vma_mapped_walk|pte_free\w*|folio_walk_start",
        60,
    ),
    "kmap": (r"kmap_local_\w+|kunmap_local|kmap_atomic|kunmap_atomic", 30),
    "control": (r"rcu_read_unlock|spin_unlock|(?:folio|get|put)_(?:page|task_struct|get|put)|mmap_read_unlock", None),
}
QUICK = (
    b"pte_",
    b"kmap_",
    b"kunmap_",
    b"pmd_lock",
    b"huge_lock",
    b"hugetlb_walk",
    b"page_vma_mapped_walk",
    b"folio_walk",
)
DIRECTORIES = ("mm", "fs", "kernel", "arch", "virt", "lib", "include", "drivers")
Row = tuple[str, str, str, str, str]  # kind, tree, file, function, body


def release(tree: Path) -> str:
    return tree.name.removeprefix("linux-source-")


def candidates(tree: Path) -> Iterator[Row]:
    """Each function of a tree that has one of the calls."""
    uses = {kind: re.compile(rf"\b(?:{words})\s*\(") for kind, (words, _) in KINDS.items()}
    for top in DIRECTORIES:
        for path in sorted(p for p in (tree / top).rglob("*.[ch]") if p.is_file()):
            data = path.read_bytes()
            if top != "mm" and not any(word in data for word in QUICK):
                continue  # controls are of mm
            raw = data.decode("latin-1")
            kinds = [kind for kind in uses if uses[kind].search(raw)]
            if not kinds:
                continue
            for f in functions(next(Source.read(code_only(raw)).resolutions([]))):
                kind = next((k for k in kinds if uses[k].search(f.body)), None)
                if (
                    kind
                    and (kind != "control" or top == "mm")
                    and (kind == "interface" or f.body.count("\n") <= LONGEST)
                ):
                    yield kind, release(tree), str(path.relative_to(tree)), f.name, f.body


def draw(trees: list[Path]) -> None:
    """200 of both trees' functions, each text once."""
    spent = {(r["file"], r["function"]) for r in csv.DictReader(SPENT.open())}
    named = {word for path in NAMING for word in re.findall(r"\w+", path.read_text())}
    seen: dict[tuple[str, str], Row] = {}
    for tree in trees:
        for row in candidates(tree):
            if (row[2], row[3]) not in spent and row[3] not in named:
                seen.setdefault((row[3], row[4]), row)
    rng = random.Random(SEED)
    rows: list[Row] = []
    for kind, (_, most) in KINDS.items():
        those = sorted(row for row in seen.values() if row[0] == kind)
        number = min(CHOSEN - len(rows), len(those) if most is None else most)
        rows += sorted(rng.sample(those, number))
        print(f"{kind}: {number} of {len(those)}")
    with TABLE.open("w", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(("kind", "tree", "file", "function", "verdict", "reason"))
        writer.writerows((*row[:4], "", "") for row in rows)


def show(trees: list[Path], first: int, last: int) -> None:
    """The text of drawn functions, comments and #ifs as they are."""
    roots = {release(t): t for t in trees}
    for number, row in enumerate(csv.DictReader(TABLE.open()), 1):
        if first <= number <= last:
            raw = (roots[row["tree"]] / row["file"]).read_bytes().decode("latin-1")
            for f in functions(next(Source.read(code_only(raw)).resolutions([]))):
                if f.name == row["function"]:
                    print(f"=== {number} {row['tree']} {row['file']}:{f.line}\n{raw[f.start : f.end].strip()}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["draw"]:
        draw([Path(a) for a in sys.argv[2:]])
    elif sys.argv[1:2] == ["show"]:
        show([Path(a) for a in sys.argv[2:4]], int(sys.argv[4]), int(sys.argv[5]))
    else:
        sys.exit(__doc__)

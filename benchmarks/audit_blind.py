# SPDX-License-Identifier: GPL-2.0-only
"""The blind measure: functions drawn, judged by reading, and committed with verdicts before the audit runs on them.

    audit_blind.py draw TREE6.12 TREE7.2     writes audit/blind.csv: 200 functions, no verdicts
    audit_blind.py show TREE6.12 TREE7.2 N M prints the text of rows N to M, for who judges
    audit_blind.py run TREE6.12 TREE7.2      runs the audit and writes audit/BLIND.md

A verdict is `clean`, or the ids of the rules that are broken; so are the `rules` of audit/blind-faults.toml, which has
faults made by hand in drawn functions.  A report is right if its rule is one of them.

Drawn are users of the interface, of its neighbours (kernel and huge lookups, upper tables' locks), of
kmap_local_page() and its kin, and, as controls, of other pairs: RCU, spinlocks, get and put.  Left out are functions
that an earlier draw had (audit/blind-spent.csv), and those that the audit's tests, documents or annotations name.
"""

from __future__ import annotations

import collections
import csv
import random
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from audit_again import Key, again, keys
from tablewalk.audit.conditionals import Source
from tablewalk.audit.reader import Reader, parse
from tablewalk.audit.run import Audit, add_file, audit, infer, prepare, shown_name
from tablewalk.audit.text import code_only, functions

HERE = Path(__file__).parent
TABLE = HERE / "audit" / "blind.csv"
FAULTS = HERE / "audit" / "blind-faults.toml"
RESULT = HERE / "audit" / "BLIND.md"
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
HEAD = """\
# The audit on functions that were judged before

`benchmarks/audit_blind.py` drew 200 functions of 6.12 and 7.2 and runs the audit on them; [blind.csv](blind.csv) has
the verdicts, which were made by reading, and committed before. Nothing was changed in the audit because of what is
here. Two things make it less blind than it sounds: 7.2 as a whole was audited often while the audit was written, and
most functions of a kernel are clean, so that few reports decide the precision. A verdict that is *literal* breaks the
letter of a rule, and nothing can come of it.
"""
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


def audited(tree: Path, rows: list[dict[str, str]]) -> Audit:
    """The tree but for drivers, of which the drawn files are enough."""
    paths = [tree / d for d in DIRECTORIES if d != "drivers" and (tree / d).exists()]
    drawn = {tree / r["file"] for r in rows if r["tree"] == release(tree) and r["file"].startswith("drivers/")}
    return audit([*paths, *sorted(drawn)], reader=Reader(jobs=2))


def edited(data: bytes, edits: list[tuple[int, int, str]]) -> bytes:
    lines = data.split(b"\n")
    for first, last, text in sorted(edits, reverse=True):
        lines[first - 1 : last] = text.encode().split(b"\n")[:-1]
    return b"\n".join(lines)


def new_rules(run: Audit, path: Path, data: bytes) -> set[str]:
    """The rules of findings that are new with `data` as the file."""
    read = Audit(run.names, run.root, run.annotations)
    add_file(read, parse(str(path), data))
    other = again(run)
    other.entries = [e for e in other.entries if e.file != str(path)] + read.entries
    before = {id(e.result) for e in run.entries}
    as_it_was = {(e.function.name, e.function.body): e for e in run.entries if e.file == str(path)}
    fresh = []
    for entry in read.entries:
        old = as_it_was.get((entry.function.name, entry.function.body))
        if old is None:
            prepare(other, entry)
            fresh.append(entry)
        else:
            entry.unit, entry.result, entry.calls = old.unit, old.result, old.calls
    infer(other, fresh)
    touched = {e.function.name for e in other.entries if id(e.result) not in before}
    then, now = (
        sum((keys(r, e) for e in r.entries if e.function.name in touched), collections.Counter[Key]())
        for r in (run, other)
    )
    return {rule for rule, *_ in now - then}


def percent(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({100 * part / whole:.0f} %)" if whole else "")


def run(trees: list[Path]) -> None:
    """The audit beside the verdicts."""
    rows = list(csv.DictReader(TABLE.open()))
    runs = {release(t): audited(t, rows) for t in trees}
    lines = [HEAD, "## As they are", ""]
    lines += _as_they_are(rows, runs)
    lines += ["", "## With faults made by hand", ""]
    lines += _with_faults(rows, runs, {release(t): t for t in trees}, tomllib.loads(FAULTS.read_text())["fault"])
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _as_they_are(rows: list[dict[str, str]], runs: dict[str, Audit]) -> list[str]:
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    table = []
    for number, row in enumerate(rows, 1):
        known = runs[row["tree"]]
        reported = collections.Counter(
            f.rule for f in known.findings if (f.file, f.function) == (row["file"], row["function"])
        )
        broken = set(row["verdict"].split()) - {"clean"}
        followed = any(
            e.function.name == row["function"] and shown_name(known, e.file) == row["file"] for e in known.entries
        )
        for kind in (row["kind"], "all"):
            counts[kind, "functions"] += 1
            counts[kind, "followed"] += followed
            counts[kind, "reports"] += reported.total()
            counts[kind, "right"] += sum(n for rule, n in reported.items() if rule in broken)
            counts[kind, "broken"] += len(broken)
            counts[kind, "found"] += len(broken & set(reported))
            counts[kind, "clean"] += not broken
            counts[kind, "silent"] += not broken and not reported
        if broken or reported:
            said = ", ".join(f"{rule} x {n}" for rule, n in sorted(reported.items())) or "nothing"
            table.append(
                f"| {number} | {row['tree']} `{row['function']}` | {row['verdict']} | {said} | {row['reason']} |"
            )
    lines = ["| | Functions | Followed | Reports | Right | Rules broken | Found | Clean | Silent |", "|---" * 9 + "|"]
    for kind in (*KINDS, "all"):
        columns = ("functions", "followed", "reports", "right", "broken", "found", "clean", "silent")
        lines.append(f"| {kind} | " + " | ".join(str(counts[kind, c]) for c in columns) + " |")
    lines += ["", f"Precision: {percent(counts['all', 'right'], counts['all', 'reports'])} reports."]
    lines += [f"Recall: {percent(counts['all', 'found'], counts['all', 'broken'])} rules broken."]
    lines += ["", "| Row | Function | Verdict | Reported | Why the verdict |", "|---" * 5 + "|", *table]
    return lines


def _with_faults(
    rows: list[dict[str, str]], runs: dict[str, Audit], roots: dict[str, Path], faults: list[dict[str, Any]]
) -> list[str]:
    caught: collections.Counter[str] = collections.Counter()
    made: collections.Counter[str] = collections.Counter()
    right = other = 0
    table = []
    for fault in faults:
        row = rows[fault["row"] - 1]
        path = roots[row["tree"]] / row["file"]
        rules = new_rules(runs[row["tree"]], path, edited(path.read_bytes(), fault["edits"]))
        hit = rules & set(fault["rules"].split())
        right, other = right + len(hit), other + len(rules - hit)
        made[row["kind"]] += 1
        caught[row["kind"]] += bool(hit)
        said = " ".join(sorted(rules)) or "nothing"
        where = f"{row['tree']} `{row['function']}`"
        table.append(f"| {fault['row']} | {where} | {fault['what']} | {fault['rules']} | {said} |")
    lines = [f"- {kind}: {percent(caught[kind], made[kind])} caught" for kind in made]
    lines += [f"- all: {percent(caught.total(), made.total())} caught"]
    lines += ["", f"Of the rules newly reported, {percent(right, right + other)} are among those of the fault."]
    return [*lines, "", "| Row | Function | Fault | Rules | New reports |", "|---" * 5 + "|", *table]


if __name__ == "__main__":
    if sys.argv[1:2] == ["draw"]:
        draw([Path(a) for a in sys.argv[2:]])
    elif sys.argv[1:2] == ["show"]:
        show([Path(a) for a in sys.argv[2:4]], int(sys.argv[4]), int(sys.argv[5]))
    elif sys.argv[1:2] == ["run"]:
        run([Path(a) for a in sys.argv[2:]])
    else:
        sys.exit(__doc__)

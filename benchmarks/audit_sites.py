# SPDX-License-Identifier: GPL-2.0-only
"""Every call of the page-table interface in 6.1 beside what has become of it in 6.12, and what the audit says of it.

    audit_sites.py TREE6.1 CLASSIFICATION.csv    writes audit/sites-6.1.csv, prints a table of the kinds of change

The classification (file, function, line, call, what changed) was made by comparing the two trees; where it is wrong,
`corrected` has the right kind.
"""

from __future__ import annotations

import collections
import csv
import sys
from pathlib import Path

from tablewalk.audit.compare import parts_of
from tablewalk.audit.output import census
from tablewalk.audit.run import audit

TABLE = Path(__file__).parent / "audit" / "sites-6.1.csv"
CORRECTED = {
    ("mm/memory.c", "apply_to_pte_range", "pte_alloc_map_lock"): "already-checked",
    ("mm/memory.c", "copy_pte_range", "pte_alloc_map_lock"): "already-checked",
    ("mm/ksm.c", "ksm_next_page_pmd_entry", "pte_offset_map_lock"): "already-checked",
    ("mm/userfaultfd.c", "__mcopy_atomic_hugetlb", "huge_pte_alloc"): "function-renamed",  # the call is as it was
}
CHANGED = ("null-check-added", "deprecated-removed", "lockptr->nolock", "lockptr-removed", "call-removed", "func-gone")
UNMAPS = ("pte_unmap", "pte_unmap_unlock")


def must(change: str, call: str) -> bool:
    """Whether 6.12 has done something about the rules here; an unmap is wrong only together with its map."""
    return call not in UNMAPS and (change in CHANGED or change.startswith("api-changed"))


def main(tree: Path, classification: Path) -> None:
    run = audit(parts_of(tree))
    verdicts = {(s.file, s.line): s.verdict for s in census(run, run.findings)}
    in_function = collections.defaultdict(set)
    for f in run.findings:
        in_function[f.file, f.function].add(f.rule)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    rows = []
    for row in csv.DictReader(classification.open()):
        file, function, line, call = row["file"], row["function"], int(row["line_6.1"]), row["api"]
        change = row["change_6.1_to_6.12"]
        right = CORRECTED.get((file, function, call), change)
        verdict = verdicts.get((file, line), "not a call that the audit follows")
        others = " ".join(sorted(in_function[file, function]))
        reported = "line" if "-" in verdict else "function" if others else "no"
        rows.append((file, function, line, call, change, right if right != change else "", verdict, others, reported))
        if must(right, call):
            counts[right, reported] += 1
    with TABLE.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(
            ("file", "function", "line", "call", "change", "corrected", "verdict", "in function", "reported")
        )
        writer.writerows(rows)
    for kind in sorted({k for k, _ in counts}):
        at, near, no = (counts[kind, r] for r in ("line", "function", "no"))
        print(f"{kind}: {at + near + no} sites, {at} reported, {near} in a function with a finding, {no} not")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

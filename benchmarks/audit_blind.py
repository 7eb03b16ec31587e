# SPDX-License-Identifier: GPL-2.0-only
"""The blind measure of precision: functions chosen before the tool ran on them, judged by hand, then compared.

    audit_blind.py choose TREE6.12 TREE7.2    writes audit/blind.csv: 200 functions, no verdicts
    audit_blind.py run TREE6.12 TREE7.2       runs the audit and prints its reports beside the verdicts

The verdict is a human's, of the text of the function alone with what it calls: `clean`, or the ids of the rules that
it breaks.
"""

from __future__ import annotations

import csv
import random
import re
import sys
from pathlib import Path

from tablewalk.audit.conditionals import Source
from tablewalk.audit.text import code_only, functions

TABLE = Path(__file__).parent / "audit" / "blind.csv"
CHOSEN = 200
SEED = 20231013
USES = re.compile(
    r"\b(?:pte_offset_map\w*|pte_alloc_map\w*|get_locked_pte|pte_unmap\w*|pte_lockptr|pte_offset_kernel|pte_offset_huge"
    r"|pmd_lock|pmd_trans_huge_lock|huge_pte_lock|huge_pte_offset|hugetlb_walk"
    r"|page_vma_mapped_walk|pte_free|pte_free_defer)\s*\("
)
DIRECTORIES = ("mm", "fs", "kernel/events", "arch", "virt", "lib")


def candidates(tree: Path) -> list[tuple[str, str, str]]:
    """File, name and text of each function that uses the API or pairs like it."""
    found = []
    for directory in DIRECTORIES:
        top = tree / directory
        for path in sorted(top.rglob("*.c")):
            raw = path.read_bytes().decode("latin-1")
            if USES.search(raw):
                resolved = next(Source.read(code_only(raw)).resolutions([]))
                for f in functions(resolved):
                    if USES.search(f.body):
                        found.append((str(path.relative_to(tree)), f.name, f.body))
    return found


def choose(trees: list[Path]) -> None:
    """200 of both trees' functions, each text once."""
    seen: dict[str, tuple[str, str, str]] = {}
    for tree in trees:
        for file, name, body in candidates(tree):
            seen.setdefault(body, (tree.name.removeprefix("linux-source-"), file, name))
    rows = sorted(random.Random(SEED).sample(sorted(seen.values()), CHOSEN))
    TABLE.parent.mkdir(exist_ok=True)
    with TABLE.open("w", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(("tree", "file", "function", "verdict", "reason"))
        writer.writerows((*row, "", "") for row in rows)
    print(f"{CHOSEN} of {len(seen)} functions")


if __name__ == "__main__":
    if sys.argv[1] == "choose":
        choose([Path(a) for a in sys.argv[2:]])

# SPDX-License-Identifier: GPL-2.0-only
"""The audit beside coccinelle with a rule that is like `unchecked-null` (audit/null.cocci), and how long both take.

    audit_coccinelle.py TREE6.1 TREE7.2 [--write]     both on mm/ and on the files of users; --write: audit/SPEED.md
    audit_coccinelle.py --speed TREE7.2 [--write]     the audit alone: mm/, the whole tree, the whole tree again

A site counts as found if the tool names its line.  On 6.1 those have to be found that audit/sites-6.1.csv says were
changed; on 7.2 nothing has to, and two sites break the letter of the rule.  Times are of one run each, CPU seconds with
those of children; the audit follows all its rules, and coccinelle one.
"""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
RULE = HERE / "audit" / "null.cocci"
RESULT = HERE / "audit" / "SPEED.md"
USERS = ("mm", "fs", "arch", "kernel", "virt", "lib", "drivers")
ACQUIRES = re.compile(rb"\b(?:pte_offset_map|pte_alloc_map|get_locked_pte)\w*\s*\(")
MAPS = ("pte_offset_map", "pte_offset_map_lock", "pte_alloc_map", "pte_alloc_map_lock", "get_locked_pte")
KEPT = ("already-checked", "unchanged")
CALLERS = {("mm/page_vma_mapped.c", 254)}  # map_pte(), whose table 6.12 compares with NULL in the caller: right too
LITERAL = ("arch/arm/mm/pgd.c", "arch/mips/mm/tlb-r4k.c")  # unchecked and harmless, see audit/NEWEST.md
Site = tuple[str, int]


@dataclass
class Measured:
    output: str
    wall: float
    cpu: float


def measure(command: list[str], cwd: Path, cache: Path | None = None) -> Measured:
    environment = {**os.environ, **({"XDG_CACHE_HOME": str(cache)} if cache else {})}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        sys.exit(f"{command[0]}: {done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(done.stdout, wall, cpu)


def audit(paths: list[str], tree: Path, *options: str, cache: Path | None = None) -> Measured:
    return measure([sys.executable, "-m", "tablewalk", "audit", "--json", *options, *paths], tree, cache)


def users(tree: Path) -> list[str]:
    """The C files that have a call of a map."""
    found = []
    for top in USERS:
        for path in sorted((tree / top).rglob("*.c")):
            if path.is_file() and ACQUIRES.search(path.read_bytes()):
                found.append(str(path.relative_to(tree)))
    return found


def compare(tree: Path, name: str, paths: list[str], must: set[Site], kept: set[Site]) -> list[str]:
    """Rows of the table: the audit's and coccinelle's."""
    ours = audit(paths, tree, "--no-cache")
    findings = [f for f in json.loads(ours.output)["findings"] if f["rule"] == "unchecked-null"]
    theirs = measure(["spatch", "--sp-file", str(RULE), "--very-quiet", "--no-includes", *_named(paths)], tree)
    lines = (line.split(":")[:2] for line in theirs.output.splitlines() if line.count(":") > 1)
    within = {s for s in must if any(s[0] == p or s[0].startswith(f"{p}/") for p in paths)}
    rows = []
    for tool, sites, m in (
        ("audit", {(f["file"], f["origin"] or f["line"]) for f in findings}, ours),
        ("coccinelle", {(os.path.normpath(file), int(line)) for file, line in lines}, theirs),
    ):
        literal = {s for s in sites - must if s[0] in LITERAL}
        false = sites - must - literal - CALLERS
        times = f"{m.cpu:.1f} | {m.wall:.1f} | {m.cpu / theirs.cpu:.2f}"
        rows.append(
            f"| {name} | {tool} | {len(sites & within)} of {len(within)} | {len(literal)} | {len(false)} | {times} |"
        )
        for file, line in sorted(false):
            print(f"{name}: {tool}: false at {file}:{line}", "(known)" if (file, line) in kept else "")
        for file, line in sorted(within - sites):
            print(f"{name}: {tool}: missed {file}:{line}")
    return rows


def _named(paths: list[str]) -> list[str]:
    return ["--dir", *paths] if len(paths) == 1 else paths


def sites() -> tuple[set[Site], set[Site]]:
    """Calls of maps in 6.1: changed by 6.12, and left as they were."""
    changed: set[Site] = set()
    kept: set[Site] = set()
    for row in csv.DictReader((HERE / "audit" / "sites-6.1.csv").open()):
        if row["call"] in MAPS:
            what = row["corrected"] or row["change"]
            (kept if what in KEPT or what.startswith("checked-both") else changed).add((row["file"], int(row["line"])))
    return changed, kept


def beside_coccinelle(old: Path, new: Path) -> list[str]:
    version = subprocess.run(["spatch", "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    lines = [f"## Beside coccinelle ({version})", "", _load(), ""]
    lines += ["| | Tool | Found | Literal | False | CPU s | Wall s | CPU to coccinelle's |", "|---" * 8 + "|"]
    changed, kept = sites()
    for tree, must in ((old, changed), (new, set[Site]())):
        those = users(tree)
        lines += compare(tree, f"{tree.name.removeprefix('linux-source-')}, mm", ["mm"], must, kept)
        lines += compare(tree, f"{tree.name.removeprefix('linux-source-')}, {len(those)} users", those, must, kept)
    return lines


def speed(tree: Path) -> list[str]:
    lines = ["## Speed", "", _load(), "", "| | Files | CPU s | Wall s |", "|---" * 4 + "|"]
    with tempfile.TemporaryDirectory() as directory:
        for name, paths, options in (
            ("mm/, all rules", ["mm"], ["--no-cache"]),
            ("the whole tree, `--jobs 2`", ["."], ["--jobs", "2"]),
            ("the whole tree again, by the cache", ["."], ["--jobs", "2"]),
        ):
            m = audit(paths, tree, *options, cache=Path(directory))
            files = json.loads(m.output)["coverage"]["files"]
            lines.append(f"| {name} | {files:,} | {m.cpu:.1f} | {m.wall:.1f} |")
    return lines


def _load() -> str:
    return f"Load average when it began: {os.getloadavg()[0]:.1f}, on {os.cpu_count()} processors."


def main(arguments: list[str]) -> None:
    trees = [Path(a).resolve() for a in arguments if not a.startswith("--")]
    part = speed(*trees) if "--speed" in arguments else beside_coccinelle(*trees)
    print("\n".join(part))
    if "--write" in arguments:
        head = (
            "# How fast the audit is\n\n`benchmarks/audit_coccinelle.py` measures and writes this, a part at a time.\n"
        )
        text = RESULT.read_text() if RESULT.exists() else head
        known = [s for s in text.split("\n## ")[1:] if not part[0].startswith("## " + s.split("\n")[0].split(" (")[0])]
        RESULT.write_text(head + "".join(f"\n## {s.strip()}\n" for s in known) + "\n" + "\n".join(part) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

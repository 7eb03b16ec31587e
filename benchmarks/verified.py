# SPDX-License-Identifier: GPL-2.0-only
"""What the catalogue's rows claim, run without each patch and with it, and the CPU seconds that took.

    .venv/bin/python benchmarks/verified.py [ID]... [--workers N] [--write]

As `tablewalk patches --verify`, with a table of it; that of some rows leaves the others in the table as they were.
Exit status 1 if a claim is not reproduced, a row took more than 60 seconds of CPU time, or all of them more than 15
minutes.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import click

from tablewalk.explore.verify import Found, Result, rows, verify

VERIFIED = Path(__file__).with_name("VERIFIED.md")
A_ROW, ALL = 60.0, 15 * 60.0  # seconds
HEAD = "| # | kind | claimed | found | states without | states with | CPU s without | CPU s with |"


def line(r: Result) -> str:
    lacking, having = r.runs
    found = r.found if r.reproduced else f"{r.found}: **not reproduced**"
    cells = [r.row.id, r.row.claim.kind, r.claimed, found, size(lacking), size(having),
             f"{lacking.seconds:.1f}", f"{having.seconds:.1f}"]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def size(found: Found) -> str:
    return "" if found.verdict == "measured" else f"{found.states:,}"


def before() -> dict[str, str]:
    """The table as it was, by row."""
    lines = VERIFIED.read_text().splitlines() if VERIFIED.exists() else []
    return {text.split()[1]: text for text in lines if text.startswith("| ") and text != HEAD and "---" not in text}


def markdown(table: dict[str, str], nothing_to_run: int, all_at_once: str) -> str:
    seconds = {id: [float(cell) for cell in text.split("|")[-3:-1]] for id, text in table.items()}
    total = sum(map(sum, seconds.values()))
    slowest = max(seconds, key=lambda id: max(seconds[id]))
    return "\n".join([
        "# The catalogue, verified",
        "",
        f"Linux {platform.release()} on {platform.machine()}, {os.cpu_count()} CPUs, Python "
        f"{platform.python_version()}; written by `benchmarks/verified.py --write`.",
        f"{len(table)} rows were run, {total:.0f} s of CPU time in all; {nothing_to_run} have nothing to run.",
        f"The slowest run is one of {slowest}: {max(seconds[slowest]):.1f} s of CPU time.",
        all_at_once,
        "",
        "*states* and *CPU s* are those of the search without the patch, which ends at the first violation, and with",
        "it. A run that several rows need is in the table with each.",
        "",
        HEAD,
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
        *(table[id] for id in sorted(table)),
        "",
    ])  # fmt: skip


@click.command()
@click.argument("ids", nargs=-1)
@click.option("--workers", default=2, show_default=True, help="Processes.")
@click.option("--write", is_flag=True, help=f"Write the table to benchmarks/{VERIFIED.name}.")
def main(ids: tuple[str, ...], workers: int, write: bool) -> None:
    load, began = os.getloadavg()[0], time.monotonic()
    every = {r.id: r for r in rows() if r.claim.kind != "release"}
    results = list(verify(tuple(r for id, r in every.items() if not ids or id in ids), workers, lambda done, of: None))
    ran = {r.row.id: line(r) for r in results if r.runs}
    for text in ran.values():
        click.echo(text)
    seconds = time.monotonic() - began
    wrong = [r.row.id for r in results if not r.reproduced]
    slow = [r.row.id for r in results if r.seconds > A_ROW]
    click.echo(f"{len(ran)} rows in {seconds:.0f} s; not reproduced: {wrong}; slow: {slow}")
    if write:
        table = ran if not ids else {id: text for id, text in before().items() if id in every} | ran
        nothing = sum(not (r.claim.scenario or r.claim.measure) for r in every.values())
        at_once = f"All together, by {workers} processes: {seconds:.0f} s; load average before: {load:.1f}."
        if ids:
            at_once = "They were run some at a time, on a machine with other work."
        VERIFIED.write_text(markdown(table, nothing, at_once))
    sys.exit(bool(wrong or slow or seconds > ALL))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-2.0-only
"""What the catalogue's rows claim, run without each patch and with it, and the CPU seconds that took.

    .venv/bin/python benchmarks/verified.py [ID]... [--workers N] [--write]

As `tablewalk patches --verify`, with a table of it.  Exit status 1 if a claim is not reproduced, a row took more than
60 seconds of CPU time, or all of them more than 15 minutes.
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


def cells(r: Result) -> list[str]:
    lacking, having = r.runs
    return [r.row.id, r.row.claim.kind, r.claimed, r.found, size(lacking), size(having),
            f"{lacking.seconds:.1f}", f"{having.seconds:.1f}"]  # fmt: skip


def size(found: Found) -> str:
    return "" if found.verdict == "measured" else f"{found.states:,}"


def markdown(ran: list[Result], others: int, wrong: list[str], workers: int, seconds: float, load: float) -> str:
    cpu = sum(run.seconds for run in {id(run): run for r in ran for run in r.runs}.values())
    slowest = max(ran, key=lambda r: r.seconds)
    return "\n".join([
        "# The catalogue, verified",
        "",
        f"Linux {platform.release()} on {platform.machine()}, {os.cpu_count()} CPUs, Python "
        f"{platform.python_version()}; written by `benchmarks/verified.py --write`.",
        f"{len(ran)} rows were run by {workers} processes in {seconds:.0f} s, {cpu:.0f} s of CPU time; {others} rows",
        "have nothing to run.",
        f"Load average when it began: {load:.1f}.",
        f"Not reproduced: {', '.join(wrong) or 'none'}. The slowest run is one of {slowest.row.id}: "
        f"{slowest.seconds:.1f} s of CPU time.",
        "",
        "*states* and *CPU s* are those of the search without the patch, which ends at the first violation, and with",
        "it. A run that several rows need was made once.",
        "",
        "| # | kind | claimed | found | states without | states with | CPU s without | CPU s with |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
        *(f"| {' | '.join(cells(r))} |" for r in sorted(ran, key=lambda r: r.row.id)),
        "",
    ])  # fmt: skip


@click.command()
@click.argument("ids", nargs=-1)
@click.option("--workers", default=2, show_default=True, help="Processes.")
@click.option("--write", is_flag=True, help=f"Write the table to benchmarks/{VERIFIED.name}.")
def main(ids: tuple[str, ...], workers: int, write: bool) -> None:
    load, began = os.getloadavg()[0], time.monotonic()
    chosen = tuple(r for r in rows() if r.claim.kind != "release" and (not ids or r.id in ids))
    ran: list[Result] = []
    for r in verify(chosen, workers, lambda done, of: None):
        if r.runs:
            ran.append(r)
            click.echo(f"{r.row.id}: {r.found}, {r.seconds:.1f} s{'' if r.reproduced else ', not reproduced'}")
    seconds = time.monotonic() - began
    wrong = [r.row.id for r in ran if not r.reproduced]
    slow = [r.row.id for r in ran if r.seconds > A_ROW]
    click.echo(f"{len(ran)} rows in {seconds:.0f} s; not reproduced: {wrong}; slow: {slow}")
    if write:
        VERIFIED.write_text(markdown(ran, len(chosen) - len(ran), wrong, workers, seconds, load))
    sys.exit(bool(wrong or slow or seconds > ALL))


if __name__ == "__main__":
    main()

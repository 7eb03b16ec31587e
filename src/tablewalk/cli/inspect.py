# SPDX-License-Identifier: GPL-2.0-only
"""The verb `inspect`: the page tables of live processes."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from tablewalk.errors import TablewalkError
from tablewalk.inspect import Inspection, Inspector, Survey
from tablewalk.inspect.figures import figures, total
from tablewalk.inspect.openmetrics import openmetrics
from tablewalk.inspect.pagemap import Kernel
from tablewalk.inspect.procfs import all_pids, cgroup_pids
from tablewalk.inspect.text import process_text, skipped_text, summary_text, survey_text

PID = click.IntRange(1, 2**31 - 1)


@click.command()
@click.argument("pids", metavar="[PID]...", nargs=-1, type=PID)
@click.option("--pid", "more_pids", type=PID, multiple=True, help="A process; can be given several times.")
@click.option("--all", "every", is_flag=True, help="Every process that may be looked at.")
@click.option(
    "--cgroup",
    "cgroups",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Every process of this control group (its directory) and of those below; several times.",
)
@click.option("--rollup", is_flag=True, help="Only the sum over all the processes.")
@click.option("--vmas", is_flag=True, help="The mappings of each process; one process alone shows them anyway.")
@click.option("--inc-empty", is_flag=True, help="Also the mappings that have no page table.")
@click.option("--watch", type=click.FloatRange(0.01), metavar="SECONDS", help="Again and again, this far apart.")
@click.option("--periodic", type=click.IntRange(10), metavar="MS", help="The same in milliseconds.")
@click.option("--count", type=click.IntRange(1), help="With --watch: stop after so many times.")
@click.option("--format", "form", type=click.Choice(["text", "json", "openmetrics"]), default="text")
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Replace this file, at once, instead of printing.")
def command(
    pids: tuple[int, ...],
    more_pids: tuple[int, ...],
    every: bool,
    cgroups: tuple[Path, ...],
    rollup: bool,
    vmas: bool,
    inc_empty: bool,
    watch: float | None,
    periodic: int | None,
    count: int | None,
    form: str,
    output: Path | None,
) -> int:
    """The page tables of live processes: how many, how many are empty, what could be given back.

    One process is shown with its mappings, several with a line each.  docs/inspect.md explains the figures.
    """
    named = list(dict.fromkeys(pids + more_pids))
    if sum([bool(named), every, bool(cgroups)]) != 1:
        raise click.UsageError("give process ids, --all, or --cgroup (one of them)")
    if periodic and watch:
        raise click.UsageError("--watch and --periodic are the same thing: give one")
    pause = watch or (periodic or 0) / 1000
    if count and not pause:
        raise click.UsageError("--count goes with --watch or --periodic")
    inspector = Inspector()
    show = Show(inspector.kernel, form, rollup, vmas or len(named) == 1, inc_empty)
    seen = 0
    while True:
        wanted = named or (all_pids() if every else cgroup_pids(cgroups))
        survey = _survey(inspector, wanted)
        if named and not survey.processes:
            if seen:
                ...
            raise survey.skipped[0]
    return 0

# SPDX-License-Identifier: GPL-2.0-only
"""The verb `inspect`: the page tables of live processes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from tablewalk.cli import EXIT_BAD
from tablewalk.errors import TablewalkError, escape
from tablewalk.files import replaceable
from tablewalk.inspect import Inspector, Survey
from tablewalk.inspect.figures import process_json, survey_json, total
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
@click.option("--vmas", is_flag=True, help="The mappings of each process, as for one alone.")
@click.option("--inc-empty", is_flag=True, help="Also the mappings that have no page table.")
@click.option("--watch", type=click.FloatRange(0.01), metavar="SECONDS", help="Again, every so often.")
@click.option("--periodic", type=click.IntRange(10), metavar="MS", help="The same in milliseconds.")
@click.option("--count", type=click.IntRange(1), help="With --watch: stop after so many times.")
@click.option("--format", "format_", type=click.Choice(["text", "json", "openmetrics"]), default="text")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Replace this file instead.")
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
    format_: str,
    as_json: bool,
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
    form = Form("json" if as_json else format_, inspector.kernel, len(named), rollup, vmas, inc_empty)
    for i in itertools.count(1):
        survey = _survey(inspector, named or (all_pids() if every else cgroup_pids(cgroups)))
        failed = survey.skipped if named else []
        for e in failed:
            click.echo(f"tablewalk: {escape(str(e))}", err=True)
        if named and not survey.processes:
            return EXIT_BAD if i == 1 else 0  # or watched to the end
        _emit(form.lines(survey), output, clear=i > 1 and form.name == "text")
        if not pause or i == count:
            return EXIT_BAD if failed else 0
        time.sleep(pause)
    raise AssertionError("endless")


def _survey(inspector: Inspector, pids: list[int]) -> Survey:
    """Look at `pids`, with a progress bar where it takes over a second and somebody watches."""
    console = Console(stderr=True)
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        bar = Progress(console=console, transient=True)
        task = bar.add_task("looking at page tables", total=len(pids))

        def progress(_: int) -> None:
            bar.advance(task)
            if console.is_terminal and not bar.live.is_started and time.monotonic() - begun > 1:
                stack.enter_context(bar)

        return inspector.survey(pids, progress)


@dataclass(frozen=True, slots=True)
class Form:
    """How to show a survey."""

    name: str
    kernel: Kernel
    named: int  # how many processes were asked for by their ids, 0 for --all and --cgroup
    rollup: bool
    vmas: bool
    inc_empty: bool

    def lines(self, s: Survey) -> Iterator[str]:
        if self.name == "openmetrics":
            yield from openmetrics(s, self.rollup)
        elif self.name == "json":
            yield json.dumps(self._json(s))
        else:
            yield from self._text(s)

    def _json(self, s: Survey) -> dict[str, Any]:
        if self.named == 1 and not self.rollup:
            return process_json(s.processes[0], self.kernel, True, self.inc_empty)
        return survey_json(s, self.kernel, self.rollup, self.vmas, self.inc_empty)

    def _text(self, s: Survey) -> Iterator[str]:
        if self.rollup:
            yield f"processes: {len(s.processes)}"
            yield from summary_text(total(s.distinct), self.kernel)
        elif self.named == 1:
            yield from process_text(s.processes[0], self.kernel, self.inc_empty)
        else:
            if self.vmas:
                for p in s.processes:
                    yield from (*process_text(p, self.kernel, self.inc_empty), "")
            yield from survey_text(s)
        if not self.named:
            yield from skipped_text(s)


def _emit(lines: Iterator[str], output: Path | None, clear: bool) -> None:
    """Print `lines`, or replace `output` by them in one step: whoever reads it never sees half of it."""
    if output is None:
        if clear and sys.stdout.isatty():
            click.clear()
        click.echo("\n".join(lines))
        return
    text = "\n".join(lines) + "\n"
    try:
        if _takes_text(output):
            with output.open("a") as f:
                f.write(text)
        else:
            _replace(replaceable(output), text)
    except OSError as e:
        raise TablewalkError(f"{output}: cannot be written: {e.strerror}") from None


def _takes_text(path: Path) -> bool:
    """Whether to write to `path` as it is: a FIFO, a terminal, wherever standard output goes."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return stat.S_ISFIFO(there.st_mode) or stat.S_ISCHR(there.st_mode) or os.path.samestat(there, os.fstat(1))


def _replace(path: Path, text: str) -> None:
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w") as f:
            f.write(text)
            os.fchmod(fd, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise

# SPDX-License-Identifier: GPL-2.0-only
"""tablewalk replay"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tablewalk.cli._options import write
from tablewalk.errors import TablewalkError, escape
from tablewalk.machine.drivers import fastest
from tablewalk.record.recording import Recording
from tablewalk.replay.run import replay
from tablewalk.replay.select import Selection, select
from tablewalk.report import words
from tablewalk.report.html import page
from tablewalk.report.json import as_object
from tablewalk.report.terminal import show

EXIT_INTERRUPTED = 130
DRIVERS = ("sequential", "native", "checked")


@click.command()
@click.argument("recording", type=click.Path(path_type=Path))
@click.option("--kernel", "kernels", multiple=True, metavar="RELEASE", help="Linux release, as 6.12; may be repeated.")
@click.option("--arch", metavar="ARCH", help="Architecture [default: the recorded one].")
@click.option("--set", "options", multiple=True, metavar="NAME=VALUE", help="Kconfig or sysfs option, as PT_RECLAIM=n.")
@click.option("--without", multiple=True, metavar="PATCH", help="Leave a patch out; may be repeated.")
@click.option("--check", is_flag=True, help="Compare with the recorded samples; status 1 on a disagreement.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
@click.option("--driver", type=click.Choice(DRIVERS), help="How the model is run [default: native where compiled].")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write the report as an HTML page.")
def command(
    recording: Path,
    kernels: tuple[str, ...],
    arch: str | None,
    options: tuple[str, ...],
    without: tuple[str, ...],
    check: bool,
    as_json: bool,
    driver: str | None,
    html: Path | None,
) -> int:
    """Replay RECORDING under one or several kernels.

    Tells how much page-table memory each process takes, when and for what, beside what was recorded. Without
    --kernel it is the recorded kernel's series. Ctrl-C gives the partial result, and status 130.
    """
    opened = Recording.open(recording)
    selections = select(opened.meta, kernels, arch, options, without)
    with _progress(selections, opened.num_rows) as progress:
        report = replay(recording, selections, check=check, driver=driver or fastest(), progress=progress)
    if html:
        write(html, page(report))
    if as_json:
        click.echo(json.dumps(as_object(report), separators=(",", ":")))
    else:
        show(report, Console(highlight=False, width=_width()))
    if any(r.interrupted for r in report.results):
        return EXIT_INTERRUPTED
    if check and not any(words.total_check(r).compared for r in report.results):
        raise TablewalkError(f"{escape(str(recording))}: --check compared nothing: no sample is of what was replayed")
    return int(check and any(words.total_check(r).disagreements for r in report.results))


def _width() -> int | None:
    """A pipe has no width: wide enough for the tables; None where rich knows it."""
    return None if os.environ.get("COLUMNS") or os.isatty(1) else 140


@contextlib.contextmanager
def _progress(selections: list[Selection], rows: int) -> Iterator[Callable[[list[int], int], None]]:
    """A bar for each kernel on a terminal."""
    console = Console(stderr=True)
    percent = TextColumn("{task.percentage:>3.0f}%")
    columns = (TextColumn("{task.description}"), BarColumn(), percent, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = [bars.add_task(escape(str(s.config.release)), total=rows) for s in selections]

        def update(done: list[int], total: int) -> None:
            for task, n in zip(tasks, done, strict=True):
                bars.update(task, completed=n)

        yield update

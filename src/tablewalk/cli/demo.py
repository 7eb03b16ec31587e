# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from tablewalk.cli import run
from tablewalk.cli._options import write
from tablewalk.errors import TablewalkError, escape
from tablewalk.explore.run import built_in, explore
from tablewalk.explore.verify import rows
from tablewalk.machine.drivers import KernelConfig, fastest
from tablewalk.record.recording import Recording
from tablewalk.replay.results import Report
from tablewalk.replay.run import replay
from tablewalk.replay.select import select
from tablewalk.report import story
from tablewalk.report.markup import Markup, element
from tablewalk.report.terminal import show
from tablewalk.simulate.pairs import PAIRS
from tablewalk.simulate.run import Result

ROOT = Path(__file__).parents[3]
KERNELS = ("6.1", "6.12", "6.18", "7.x")
COUNTEREXAMPLE: Final = ("anon-collapse-dontneed", "K19")  # a race that 6.17 corrected
CPUS: Final = 8


@click.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=".",
    help="Where demo.tw and report.html go.  [default: the current directory]",
)
@click.argument("program", nargs=-1, type=click.UNPROCESSED)
def command(directory: Path, program: tuple[str, ...]) -> int:
    """Record a program here and now, and replay it under four kernels.

    PROGRAM is a command with its arguments, after --; by default examples/arena.py, which counts words in
    memory that it gives back as allocators do. Prints the comparison of Linux 6.1, 6.12, 6.18 and 7.x and
    writes report.html, which also has latencies of old kernels against new ones, a race to step through, the
    catalogue of patches, and how far the model was validated. Where this machine cannot record, a recording made
    elsewhere is replayed instead.
    """
    recording, path = directory / "demo.tw", directory / "report.html"
    arena = ROOT / "examples" / "arena.py"
    if not program and not arena.exists():
        raise TablewalkError("demo: the default program is part of a checkout; give a command after --")
    recorded = list(program) or [sys.executable, str(arena)]
    try:
        if status := run(["record", "--require-all", "-o", str(recording), "--", *recorded]):
            return status
    except TablewalkError as e:
        bundled = ROOT / "examples" / "recordings" / "arena.tw"
        if program or not bundled.exists():
            raise
        click.echo(f"This machine cannot record: {escape(str(e))}", err=True)
        click.echo(f"Replaying a recording made elsewhere, {bundled.name}.", err=True)
        recording = bundled
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        simulated, searched = pool.submit(waits), pool.submit(schedule)
        report = replay(recording, select(Recording.open(recording).meta, KERNELS, None, (), ()), check=True,
                        driver=fastest())  # fmt: skip
        report.checked = False  # the other kernels have to disagree; the page says how the recorded one does
        show(report, Console(highlight=False, width=None if os.environ.get("COLUMNS") or os.isatty(1) else 140))
        if not searched.done():
            click.echo("\nSearching a race; the first search on a machine compiles the search.", err=True)
        told = story_of(report, simulated.result(), searched.result())
    write(path, story.page(told))
    click.echo(f"\nThe report, for a browser: {escape(str(path))}")
    return 0


def waits() -> Markup:
    """Simulations of old against new, in a process of its own."""
    compared: list[tuple[str, str, list[Result]]] = []
    for pair in PAIRS:
        results = [pair.run(config, CPUS, logged=not compared) for config in (pair.old, pair.new)]
        compared.append((pair.about, pair.command(CPUS), results))
    return story.old_against_new(compared)


def schedule() -> Markup:
    """A counterexample, in a process of its own."""
    name, patch = COUNTEREXAMPLE
    try:
        outcome = explore(built_in()[name], KernelConfig(without=(patch,)))
    except (TablewalkError, MemoryError, OSError) as e:
        return element("p", f"It could not be searched for here: {escape(str(e))}", cls="warn")
    if not outcome.trace:
        return element("p", f"{name} without {patch}: {outcome.verdict}. {outcome.sentence}", cls="warn")
    row = next(row for row in rows() if row.id == patch)
    return story.counterexample(outcome, row, f"tablewalk explore {name} --without {patch}")


def story_of(report: Report, waits: Markup, schedule: Markup) -> story.Story:
    """What the page tells."""
    return story.Story(report, rows(), schedule, waits, _figures())


def _figures() -> list[story.Figures]:
    """Tables of the checkout's documents."""
    told = []
    for title, source, wanted, left in (
        ("Real programs, sample by sample", "benchmarks/RESULTS.md",
         ("program", "faults", "calls", "compared", "disagree", "strictly"), 1),
        ("Random programs on real kernels", "docs/validate.md", ("kernel", "state"), 2),
        ("Latencies measured on kernels, and simulated", "benchmarks/SIMULATED.md",
         ("figure", "kernel", "measured, µs", "simulated, µs", "measured / simulated"), 2),
    ):  # fmt: skip
        found = _markdown_table(ROOT / source, wanted[0])
        if found:
            at = [found[0].index(name) for name in wanted]
            told.append(story.Figures(title, source, wanted, [[row[i] for i in at] for row in found[1:]], left))
    return told


def _markdown_table(path: Path, first: str) -> list[list[str]]:
    """The cells of the first table whose first column is named so; none without the file."""
    if not path.exists():
        return []
    found: list[list[str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if found and not cells:
            break
        if found or (cells and cells[0] == first):
            found.append(cells)
    return found[:1] + found[2:]  # the second line only rules

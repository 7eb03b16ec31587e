# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import sys
from pathlib import Path

import click

from tablewalk.cli import run
from tablewalk.errors import TablewalkError, escape

EXAMPLES = Path(__file__).parents[3] / "examples"
KERNELS = ("6.1", "6.12", "6.18", "7.x")


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
    writes report.html. Where this machine cannot record, a recording made elsewhere is replayed instead.
    """
    recording, report = directory / "demo.tw", directory / "report.html"
    arena = EXAMPLES / "arena.py"
    if not program and not arena.exists():
        raise TablewalkError("demo: the default program is part of a checkout; give a command after --")
    recorded = list(program) or [sys.executable, str(arena)]
    try:
        if status := run(["record", "--require-all", "-o", str(recording), "--", *recorded]):
            return status
    except TablewalkError as e:
        bundled = EXAMPLES / "recordings" / "arena.tw"
        if program or not bundled.exists():
            raise
        click.echo(f"This machine cannot record: {escape(str(e))}", err=True)
        click.echo(f"Replaying a recording made elsewhere, {bundled.name}.", err=True)
        recording = bundled
    kernels = [option for kernel in KERNELS for option in ("--kernel", kernel)]
    status = run(["replay", str(recording), *kernels, "--html", str(report)])
    click.echo(f"\nThe report, for a browser: {escape(str(report))}")
    return status

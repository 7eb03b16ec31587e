# SPDX-License-Identifier: GPL-2.0-only
"""What record and import say of the recording that they made."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tablewalk.errors import TablewalkError, escape
from tablewalk.record.convert import NothingGathered
from tablewalk.record.part import Part
from tablewalk.record.recording import Meta
from tablewalk.record.rows import Kind


@contextlib.contextmanager
def converting() -> Iterator[Callable[[int], None]]:
    """A progress display on a terminal; yields the function to call with the number of rows written."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("writing the recording")
        yield lambda rows: bar.update(task, description=f"writing the recording: {rows:,} events")


def facts(path: Path, meta: Meta, by_kind: dict[Kind, int]) -> dict[str, Any]:
    """The object that --json prints."""
    return {
        "recording": str(path),
        "bytes": os.path.getsize(path),
        "command": meta.command,
        "exit_status": meta.exit_status,
        "seconds": (meta.end - meta.start) / 1e9,
        "rows": {kind.name.lower(): n for kind, n in by_kind.items()},
        "lost": meta.lost,
        "complete": meta.complete,
        "missing": meta.missing,
    }


def finish(part: Part, output: Path, as_json: bool) -> Meta:
    """Make the recording of what was gathered, say what it holds, and remove what it was made from."""
    try:
        with converting() as progress:
            meta, by_kind = part.convert(output, progress)
    except NothingGathered:
        part.remove()
        raise TablewalkError("no event of any process was recorded: nothing to make a recording of") from None
    except TablewalkError as e:
        raise TablewalkError(f"{e}; what was gathered is kept: tablewalk import {part.path}") from None
    part.remove()
    report(output, meta, by_kind, as_json)
    return meta


def report(path: Path, meta: Meta, by_kind: dict[Kind, int], as_json: bool) -> None:
    """Say what was recorded: as JSON on stdout, or in a few lines on stderr, where it is in nobody's way."""
    told = facts(path, meta, by_kind)
    if as_json:
        click.echo(json.dumps(told))
        return
    out = sys.stderr
    rows = ", ".join(f"{n:,} {kind}" for kind, n in told["rows"].items() if n)
    partial = "" if meta.complete else " (partial: it was cut short)"
    click.echo(
        f"{escape(str(path))}: {told['seconds']:.2f} s, {told['bytes'] / 1e6:.2f} MB{partial}: {rows}",
        file=out,
    )
    if meta.exit_status:
        click.echo(f"the program exited with status {meta.exit_status}", file=out)
    if meta.lost:
        click.echo(f"lost: {meta.lost:,} events", file=out)
    for what in meta.missing:
        click.echo(f"missing: {escape(what)}", file=out)

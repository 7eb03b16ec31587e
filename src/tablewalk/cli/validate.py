# SPDX-License-Identifier: GPL-2.0-only
"""The verb `validate`: the model against real kernels, by random programs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tablewalk.cli import EXIT_BAD
from tablewalk.errors import escape
from tablewalk.machine.drivers import fastest
from tablewalk.machine.native import cache_dir
from tablewalk.validate.coverage import coverage_rows, seldom
from tablewalk.validate.emit import c_program, python_test
from tablewalk.validate.kernels import Kernel, find
from tablewalk.validate.mix import FOCUS
from tablewalk.validate.results import NAME, Results
from tablewalk.validate.session import Validation, validate
from tablewalk.validate.setup import setup
from tablewalk.validate.workers import processors


@click.command()
@click.option("--kernel", "names", multiple=True, help="A kernel of `tablewalk kernels` [default: host]; repeatable.")
@click.option("--ops", type=click.IntRange(1), default=5000, show_default=True, help="Operations on each kernel.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the first program.")
@click.option("--focus", type=click.Choice(sorted(FOCUS)), help="What the programs shall do more of.")
@click.option("--jobs", type=click.IntRange(1), help="Processes that compare at once [default: one a processor].")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Keep outcomes in this file [default: the cache]."
)
@click.option(
    "--save", type=click.Path(path_type=Path), help="Write reduced programs to this directory, in C and Python."
)
def command(
    names: tuple[str, ...],
    ops: int,
    seed: int,
    focus: str | None,
    jobs: int | None,
    as_json: bool,
    output: Path | None,
    save: Path | None,
) -> int:
    """Run the same random memory operations on the model and on real kernels, and compare all that can be seen.

    Compared after each operation: its result, VmPTE and RSS, the mappings with their smaps fields, pagemap bits,
    mincore, contents. A disagreement is reduced to the smallest program found. What was compared before is not run
    again. Exit status 1 on a disagreement, an oops, or an operation that never succeeds.
    """
    if save:
        save.mkdir(parents=True, exist_ok=True)
    kernels = [find(name) for name in dict.fromkeys(names)] or [find("host")]
    results = Results(output or cache_dir() / NAME)
    found = []
    with _progress() as progress:
        for kernel in kernels:
            task = progress.add_task(kernel.name, total=ops)
            step = partial(progress.advance, task)
            found.append(validate(kernel, ops, seed, focus or "", fastest(), results, step, jobs=jobs or processors()))
    results.close()
    if save:
        for kernel, v in zip(kernels, found, strict=True):
            _save(v, kernel, save)
    if as_json:
        click.echo(json.dumps({"kernels": [_as_object(v) for v in found]}))
    else:
        for v in found:
            _tell(v)
    if any(v.failed for v in found):
        return 1
    return EXIT_BAD if any(v.ended for v in found) else 0


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _as_object(v: Validation) -> dict[str, Any]:
    return {
        "kernel": v.kernel,
        "operations": v.operations,
        "programs": v.programs,
        "disagreements": [
            {
                "seed": d.seed,
                "report": d.report,
                "program": [op.line(i) for i, op in enumerate(d.small or d.program)],
                "reduced": d.small_report,
            }
            for d in v.disagreements
        ],
        "not_repeated": v.noise,
        "coverage": {kind: {"succeeded": ok, "failed": bad} for kind, (ok, bad) in sorted(v.coverage.items())},
        "differences": v.differences,
        "never_succeeded": v.never_succeeded,
        "seldom": seldom(v.coverage, v.lacks),
        "ended": v.ended or None,
        "oops": v.oops or None,
    }


def _tell(v: Validation) -> None:
    click.echo(
        f"kernel {v.kernel}: {v.operations} operations in {v.programs} programs, "
        f"{len(v.disagreements)} disagreements, {v.noise} that did not show again"
    )
    width = max((len(kind) for kind in v.coverage), default=0)
    click.echo(f"  {'operation':{width}} {'succeeded':>9} {'failed':>8}")
    for kind, ok, bad, remark in coverage_rows(v.coverage, v.lacks):
        click.echo(f"  {kind:{width}} {ok:9} {bad:8}  {remark}".rstrip())
    for what, times in v.differences.items():
        click.echo(f"  {times:9} {what}")
    for d in v.disagreements:
        click.echo(f"seed {d.seed}:")
        for line in d.report:
            click.echo(f"  {escape(line)}")
        if d.small:
            click.echo("  reduced:")
            for i, op in enumerate(d.small):
                click.echo(f"    {op.line(i)}")
            for line in d.small_report:
                click.echo(f"  {escape(line)}")
    if v.oops:
        click.echo(f"the kernel reports trouble, which may be a bug of its own:\n{escape_lines(v.oops)}")
    if v.ended:
        click.echo(escape(v.ended), err=True)


def escape_lines(text: str) -> str:
    """Text of several lines, each made harmless."""
    return "\n".join(escape(line) for line in text.splitlines())


def _save(v: Validation, kernel: Kernel, directory: Path) -> None:
    for d in v.disagreements:
        name = f"{v.kernel}_{d.seed}".replace("-", "_").replace(".", "_")
        ops, report = d.small or d.program, d.small_report or d.report
        title = f"Seed {d.seed}: the model disagrees with kernel {v.kernel}."
        (directory / f"{name}.c").write_text(c_program(ops, setup(kernel).geometry, title, report))
        (directory / f"test_{name}.py").write_text(python_test(ops, name, v.kernel, report))

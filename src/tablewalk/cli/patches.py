# SPDX-License-Identifier: GPL-2.0-only
"""`tablewalk patches`: the catalogue of what older kernels do otherwise, and what each patch's absence breaks."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tablewalk.errors import TablewalkError
from tablewalk.explore.verify import Result, claimed, command_of, rows, verify
from tablewalk.patches import KINDS, Patch
from tablewalk.report.story import GROUPS


@click.command("patches")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--verify", "verified", is_flag=True, help="Run what the rows claim, without the patch and with it.")
@click.option("--kind", type=click.Choice(sorted(KINDS)), help="Only rows of a kind.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes for --verify.")
@click.option("--matrix", is_flag=True, help="Print the README's matrix.")
@click.option("--table", "as_markdown", is_flag=True, help="Print the table of docs/patches.md.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def command(
    ids: tuple[str, ...],
    verified: bool,
    kind: str | None,
    workers: int,
    matrix: bool,
    as_markdown: bool,
    as_json: bool,
) -> int:
    """List the patches that a kernel may lack, by id, or verify what their absence does.

    `explore` and `replay` leave one out by `--without ID`. A release lacks every patch that came later than it, but
    for those that are only left out by name. Exit status 1 if a claim is not reproduced.
    """
    chosen = _chosen(ids, kind)
    if verified:
        return _verify(chosen, workers, as_json)
    if as_json:
        click.echo(json.dumps([_as_object(row) for row in chosen]))
    elif matrix:
        click.echo(as_matrix(chosen))
    elif as_markdown:
        click.echo(as_table(chosen))
    else:
        _list(chosen)
    return 0


def _chosen(ids: tuple[str, ...], kind: str | None) -> tuple[Patch, ...]:
    known = rows()
    unknown = set(ids) - {row.id for row in known}
    if unknown:
        raise TablewalkError(f"no such patch: {', '.join(sorted(unknown))}; `tablewalk patches` lists them")
    return tuple(r for r in known if (not ids or r.id in ids) and kind in (None, r.claim.kind))


def _as_object(row: Patch) -> dict[str, Any]:
    claim = row.claim
    return {
        "id": row.id,
        "commit": row.commit,
        "title": row.title,
        "series": row.series,
        "since": row.release,
        "site": row.site,
        "files": list(row.files),
        "kind": claim.kind,
        "scenario": claim.scenario or None,
        "invariant": claim.invariant or None,
        "claim": claimed(claim),
        "command": command_of(row) or None,
        "only_by_name": row.mutant,
    }


def _list(chosen: tuple[Patch, ...]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("id", "since", "commit", "kind", "title", "site", "without it"):
        table.add_column(column, no_wrap=column in ("id", "since", "commit", "kind"))
    for r in chosen:
        table.add_row(r.id, r.release, r.commit, r.claim.kind, r.title, r.site, claimed(r.claim))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=240)
    console.print(table)


def as_table(chosen: tuple[Patch, ...]) -> str:
    """The rows as the Markdown table of docs/patches.md."""
    lines = ["| # | commit | title | kind | without it |", "| --- | --- | --- | --- | --- |"]
    for r in chosen:
        if r.claim.kind != "release":
            lines.append(f"| {r.id} | {r.commit} | {r.title} | {r.claim.kind} | {claimed(r.claim)} |")
    return "\n".join(lines)


def as_matrix(chosen: tuple[Patch, ...]) -> str:
    """The README's matrix: the rows of each group by kind."""
    kinds = [kind for kind in KINDS if kind != "release"]
    lines = ["| | " + " | ".join(kinds) + " |", "| --- " * (len(kinds) + 1) + "|"]
    for group, belongs in GROUPS.items():
        cells = [[r.id for r in chosen if belongs(r.id) and r.claim.kind == kind] for kind in kinds]
        lines.append(f"| {group} | " + " | ".join(", ".join(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _verify(chosen: tuple[Patch, ...], workers: int, as_json: bool) -> int:
    console = Console(stderr=True)
    results = []
    with console.status("verifying") as status:

        def progress(done: int, of: int) -> None:
            status.update(f"{done} of {of} runs")

        for result in verify(tuple(r for r in chosen if r.claim.kind != "release"), workers, progress):
            results.append(result)
            if not as_json:
                click.echo(_line(result))
    wrong = [r for r in results if not r.reproduced]
    if as_json:
        click.echo(json.dumps([_result_as_object(r) for r in results]))
    else:
        ran = sum(bool(r.runs) for r in results)
        click.echo(f"{len(results)} rows: {ran} run, {len(wrong)} not reproduced")
    return 1 if wrong else 0


def _line(r: Result) -> str:
    row, mark = r.row, "  " if r.reproduced else "! "
    return f"{mark}{row.id:5} {row.claim.kind:12} {row.title[:60]:60}  {r.claimed}  ->  {r.found}  {r.seconds:.1f} s"


def _result_as_object(r: Result) -> dict[str, Any]:
    runs = [
        {"verdict": run.verdict, "invariant": run.invariant or None, "sentence": run.sentence or None}
        | {"figure": run.figure, "states": run.states, "seconds": round(run.seconds, 3)}
        for run in r.runs
    ]
    return _as_object(r.row) | {"found": r.found, "reproduced": r.reproduced, "runs": runs}

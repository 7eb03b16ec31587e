# SPDX-License-Identifier: GPL-2.0-only
"""`tablewalk patches`: the catalogue of what older kernels do otherwise."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.table import Table

from tablewalk.patches import catalogue


@click.command("patches")
@click.option("--json", "as_json", is_flag=True, help="Print the catalogue as a JSON list.")
def command(as_json: bool) -> None:
    """List the patches that a release may lack, by id.

    `replay --without ID` leaves one out.  A release lacks every patch that came later than it.
    """
    rows = catalogue()
    if as_json:
        click.echo(
            json.dumps(
                [
                    {"id": r.id, "commit": r.commit, "title": r.title, "series": r.series, "since": r.release}
                    | {"site": r.site, "files": list(r.files)}
                    for r in rows
                ]
            )
        )
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("id", "since", "commit", "title", "site"):
        table.add_column(column, no_wrap=column in ("id", "since", "commit"))
    for r in rows:
        table.add_row(r.id, r.release, r.commit, r.title, r.site)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(table)

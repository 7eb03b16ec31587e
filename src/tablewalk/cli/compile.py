# SPDX-License-Identifier: GPL-2.0-only
"""`tablewalk compile`: compile the model with mypyc, for fast replays."""

from __future__ import annotations

import json
import time

import click
from rich.console import Console

from tablewalk.machine import native


@click.command("compile")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(as_json: bool) -> None:
    """Compile the model with mypyc (a minute or two, once), so that replays run several times faster.

    The result is the same model from the same text.  It needs a C compiler and the Python headers.
    """
    known = native.built()
    began = time.monotonic()
    if known is None:
        console = Console(stderr=True)
        if console.is_terminal:
            with console.status("compiling the model (a minute or two)"):
                place = native.build()
        else:
            place = native.build()
    else:
        place = known
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        click.echo(json.dumps({"path": str(place), "built": known is None, "seconds": seconds}))
    else:
        click.echo(f"{'compiled' if known is None else 'already compiled'}: {place}")

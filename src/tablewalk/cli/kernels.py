# SPDX-License-Identifier: GPL-2.0-only
"""The verb `kernels`: the real kernels that the model is compared with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

from tablewalk.cli import EXIT_BAD
from tablewalk.errors import TablewalkError, escape
from tablewalk.validate import qemu
from tablewalk.validate.kernels import KERNELS, Kernel, fetch, find
from tablewalk.validate.run import boot


@click.command()
@click.argument("what", type=click.Choice(["list", "fetch", "boot"]), default="list")
@click.option("--kernel", "names", multiple=True, help="Only this one; can be given several times.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(what: str, names: tuple[str, ...], as_json: bool) -> int:
    """List the kernels that the model can be compared with, fetch them, or see them boot.

    `fetch` takes the newest Debian package of each into the cache, with package lists of its own: what is installed
    on this machine stays as it is. `boot` fetches what is missing and starts each in QEMU, one after the other.
    Exit status 2 if one cannot be had or does not boot; its row says why.
    """
    kernels = [find(name) for name in dict.fromkeys(names)] or list(KERNELS.values())
    act = {"list": _nothing, "fetch": fetch, "boot": boot}[what]
    rows = []
    with Console(stderr=True).status("") as status:
        for kernel in kernels:
            status.update(f"{what} {kernel.name}")
            rows.append(_row(kernel, act))
            if not as_json and what != "list":
                click.echo(_line(rows[-1]))
    if as_json:
        click.echo(json.dumps({"kernels": rows}))
    elif what == "list":
        click.echo("\n".join(map(_line, rows)))
    return EXIT_BAD if what != "list" and any(row["problem"] for row in rows) else 0


def _nothing(kernel: Kernel) -> None:
    """What `list` does to a kernel."""


def _row(kernel: Kernel, act: Callable[[Kernel], object]) -> dict[str, Any]:
    """What is known of `kernel` after `act`; `problem` is why it cannot be run, or None."""
    begun, problem, seen = time.monotonic(), None, None
    try:
        seen = act(kernel)
        if not kernel.is_host:
            qemu.available(kernel)
    except TablewalkError as e:
        problem = str(e)
    return {
        "name": kernel.name,
        "arch": kernel.arch,
        "release": kernel.release,
        "version": kernel.version,
        "booted": seen,
        "seconds": round(time.monotonic() - begun, 1),
        "problem": problem,
    }


def _line(row: dict[str, Any]) -> str:
    seconds = f"{row['seconds']:6.1f} s  " if row["seconds"] >= 0.1 else ""
    state = row["problem"] or row["booted"] or row["version"] or "not fetched"
    return escape(f"{row['name']:14} {row['arch']:9} {row['release']:5} {seconds}{state}")

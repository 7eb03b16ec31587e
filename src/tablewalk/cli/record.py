# SPDX-License-Identifier: GPL-2.0-only
"""tablewalk record"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import click

from tablewalk.cli._recorded import finish
from tablewalk.record import session


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The recording [default: COMMAND.tw].")
@click.option("--interval", type=click.FloatRange(0.1), default=5, show_default=True, help="Between samples, ms.")
@click.option("-p", "--pid", type=click.IntRange(1), help="Record this process, which runs already.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="End the recording after this time.")
@click.option("--require-all", is_flag=True, help="Refuse to record where something would be missing.")
@click.option("--json", "as_json", is_flag=True, help="Say what was recorded as JSON on stdout.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def command(
    output: Path | None,
    interval: float,
    pid: int | None,
    seconds: float | None,
    require_all: bool,
    as_json: bool,
    command: tuple[str, ...],
) -> int:
    """Record the memory activity of COMMAND and everything it starts, or of a process.

    perf records its page faults, mappings and memory calls; VmPTE and RSS are sampled beside. The status is 0
    if the recording is good, whatever the program's own was. Ctrl-C ends the recording early and keeps what
    there is: status 130, or 0 with -p.
    """
    if (pid is None) == (not command):
        raise click.UsageError("say either a COMMAND to run or -p PID")
    path = output or _unused(command[0] if command else f"pid-{pid}")
    options: dict[str, Any] = {"interval": int(interval * 1e6), "seconds": seconds, "require_all": require_all}
    if pid is None:
        part, interrupted = session.record(list(command), path, **options)
    else:
        part, interrupted = session.attach(pid, path, **options)
    meta = finish(part, path, as_json)
    return 130 if interrupted and pid is None else 0 if meta.complete else 2


def _unused(program: str) -> Path:
    """PROGRAM.tw, or PROGRAM-2.tw ... where that exists."""
    stem = re.sub(r"[^\w.+-]", "_", Path(program).name) or "recording"
    names = (f"{stem}.tw" if n == 1 else f"{stem}-{n}.tw" for n in itertools.count(1))
    return Path(next(name for name in names if not Path(name).exists()))

# SPDX-License-Identifier: GPL-2.0-only
"""tablewalk import"""

from __future__ import annotations

from pathlib import Path

import click

from tablewalk.cli._recorded import converting, report
from tablewalk.errors import TablewalkError
from tablewalk.record.imports import import_perf
from tablewalk.record.part import Part


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The recording [default: SOURCE.tw].")
@click.option("--samples", type=click.Path(path_type=Path), help="Lines BEGIN END PID VMPTE_KB ..., of a sampler.")
@click.option("--exact-samples", type=click.Path(path_type=Path), help="The same, by the program itself.")
@click.option("--json", "as_json", is_flag=True, help="Say what was imported as JSON on stdout.")
def command(source: Path, output: Path | None, samples: Path | None, exact_samples: Path | None, as_json: bool) -> None:
    """Make a recording of SOURCE, which was gathered elsewhere or earlier.

    SOURCE is a perf.data, the text that `perf script` prints of one, or the directory FILE.part that a
    recording left which was cut short. docs/recording.md has the commands of perf that gather what is needed.
    """
    if source.is_dir():
        part = Part.at(source)
        with converting() as progress:
            path = output or part.output
            meta, by_kind = part.convert(path, progress)
    else:
        path = output or source.with_name(source.name + ".tw")
        if not output and path.exists():
            raise TablewalkError(f"{path}: exists already; name the recording with -o")
        with converting() as progress:
            meta, by_kind = import_perf(source, path, samples, exact_samples, progress)
    report(path, meta, by_kind, as_json)

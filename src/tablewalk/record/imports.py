# SPDX-License-Identifier: GPL-2.0-only
"""Recordings of what perf gathered elsewhere: a perf.data or its text, and samples beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tablewalk.errors import TablewalkError
from tablewalk.files import check_regular
from tablewalk.record.convert import convert
from tablewalk.record.perf_data import PerfData
from tablewalk.record.perf_script import PerfScript
from tablewalk.record.recording import Meta
from tablewalk.record.rows import Kind, Rows, by_time
from tablewalk.record.samples import read_samples


def import_perf(
    source: Path,
    output: Path,
    samples: Path | None = None,
    exact_samples: Path | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> tuple[Meta, dict[Kind, int]]:
    """Make the recording `output` of a perf.data or of the text that `perf script` printed of it.

    Returns what the recording says of itself and its rows by kind. Raises TablewalkError for a file that is
    neither, that is damaged, or whose clock is not that of the samples.
    """
    meta = Meta(machine="x86_64")
    try:
        check_regular(source)
        with open(source, "rb") as f:
            head = f.read(8)
    except OSError as e:
        raise TablewalkError(f"{source}: {e.strerror}") from None
    if head.startswith(b"PAR1"):
        raise TablewalkError(f"{source}: is a recording already, or some other Parquet file")
    perf: PerfData | PerfScript
    if head in (b"PERFILE2", b"2ELIFREP"):
        perf = PerfData(source)
        header = perf.header
        meta.source, meta.kernel, meta.perf_version, meta.cpus = (
            "perf.data",
            header.release,
            header.version,
            header.cpus,
        )
        meta.command = header.cmdline[header.cmdline.index("--") + 1 :] if "--" in header.cmdline else []
        meta.page_size = header.page_size or meta.page_size
        if not header.monotonic and (samples or exact_samples):
            raise TablewalkError(f"{source}: not recorded with -k CLOCK_MONOTONIC: samples cannot be joined")
    else:
        perf = PerfScript(source)
        meta.source = "perf script"
    found = [Rows.zeros(0, perf.names)]
    for path, exact in ((samples, False), (exact_samples, True)):
        if path:
            found.append(read_samples(path, perf.names, exact=exact))
    meta.missing.append("the machine's page-table levels, THP settings and kernel configuration")
    return meta, convert(perf, by_time(found), output, meta, progress)

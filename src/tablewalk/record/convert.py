# SPDX-License-Identifier: GPL-2.0-only
"""From what perf left (and samples) to a recording."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from tablewalk.errors import TablewalkError
from tablewalk.record.pairing import Pairing
from tablewalk.record.recording import Meta, Writer
from tablewalk.record.rows import Kind, Names, Rows


class NothingGathered(TablewalkError):
    """There is no event of any process."""


class Source(Protocol):
    """Raw events from a perf.data or from its text."""

    names: Names
    path: Path

    def batches(self) -> Iterator[Rows]: ...

    def describe(self, meta: Meta) -> None:
        """Fill in what is known once all was read: events, what is missing, whether it is complete."""

    @property
    def attached(self) -> bool:
        """Recording began in a running process."""

    @property
    def has_newtask(self) -> bool:
        """A FORK is followed by its clone flags."""


def convert(
    source: Source,
    samples: Rows,
    path: str | os.PathLike[str],
    meta: Meta,
    progress: Callable[[int], None] = lambda rows: None,
    start: Rows | None = None,
) -> dict[Kind, int]:
    """Write the recording `path` of all that `source` tells; `meta` is completed. Returns rows by kind.

    `samples` are sorted SAMPLE rows with the source's names; those of processes that no event tells of
    (perf's own child before its exec) are left out. `progress` is called with the number of rows so far.
    `start` are rows of the state at one time, that of a process which ran already; what was before is left out.
    """
    pairing = Pairing(source.names, has_newtask=source.has_newtask, late=source.attached)
    lost = 0
    since = int(start.t[0]) if start else 0
    samples = samples[samples.t >= since]
    with Writer(path) as out:
        if start:
            out.add(start)
        for raw in source.batches():
            rows = pairing.add(raw)
            out.add(rows[rows.t >= since])
            lost += int(rows.a[0][rows.kind == Kind.LOST].sum())
            n = int(np.searchsorted(samples.t, pairing.settled, "left"))
            out.add(_of_known(samples[:n], pairing))
            samples = samples[n:]
            out.settle(pairing.settled)
            progress(out.num_rows)
        out.add(pairing.finish())
        out.add(_of_known(samples, pairing))
        if not out.num_rows and not out.num_held:
            raise NothingGathered(f"{source.path}: holds no event of any process: nothing to make a recording of")
        source.describe(meta)
        meta.missing += pairing.missing()
        meta.lost = max(lost, meta.lost)
        out.finish(meta)
    return out.by_kind


def _of_known(samples: Rows, pairing: Pairing) -> Rows:
    """The samples of processes that had appeared when they were taken."""
    pids, times = samples.pid.tolist(), samples.t.tolist()
    return samples[np.array([pairing.has_seen(p, t) for p, t in zip(pids, times, strict=True)], bool)]

# SPDX-License-Identifier: GPL-2.0-only
"""Programs compared in several processes at once, each with a model of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import NamedTuple

from tablewalk.errors import TablewalkError

from .compare import Comparison, Outcome
from .generate import Generator
from .kernels import find
from .results import Row
from .run import Ended
from .setup import setup

Rows = list[tuple[int, Row]]


class Work(NamedTuple):
    """What all programs of a session have in common; `length` operations each."""

    kernel: str
    driver: str
    focus: str
    length: int


def in_parallel(work: Work, batches: Sequence[Sequence[int]], jobs: int) -> Iterator[tuple[int, Row]]:
    """(seed, outcome) of the programs of all batches, as they are done, by `jobs` processes.

    Raises run.Ended, once all batches are through, for the first that the kernel did not get through.
    """
    jobs = min(jobs, len(batches))
    if jobs < 2:
        for batch in batches:
            yield from _outcomes(work, batch)
        return
    ended: list[tuple[str, ...]] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin_worker) as pool:
        try:
            for done in as_completed([pool.submit(_batch, work, batch) for batch in batches]):
                rows, end = done.result()
                yield from rows
                if end:
                    ended.append(end)
        except BrokenProcessPool:
            raise TablewalkError("a process that compares was killed; what was compared is kept") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if ended:
        raise Ended(find(work.kernel), *ended[0])


def _begin_worker() -> None:
    """An interrupt is the parent's to handle, and without it there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def _batch(work: Work, seeds: Sequence[int]) -> tuple[Rows, tuple[str, ...]]:
    """The outcomes of a batch, and if its run ended early why."""
    rows: Rows = []
    try:
        rows.extend(_outcomes(work, seeds))
    except Ended as e:
        return rows, (e.reason, e.what, e.report)
    return rows, ()


def _outcomes(work: Work, seeds: Sequence[int]) -> Iterator[tuple[int, Row]]:
    comparison = _comparison(work.kernel, work.driver)
    geometry = setup(find(work.kernel)).geometry
    programs = [Generator(seed, work.focus, geometry).program(work.length) for seed in seeds]
    for seed, outcome in zip(seeds, comparison.compare(programs), strict=True):
        yield seed, _row(outcome)


@cache
def _comparison(kernel: str, driver: str) -> Comparison:
    """One model for all programs."""
    return Comparison(setup(find(kernel)), driver)


def _row(outcome: Outcome) -> Row:
    at = -1 if outcome.at is None else outcome.at
    return Row(outcome.compared, at, outcome.report, outcome.noise, outcome.coverage, outcome.differences)


def processors() -> int:
    """How many processors this process may use."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

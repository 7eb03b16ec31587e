# SPDX-License-Identifier: GPL-2.0-only
"""Programs compared in several processes at once, each with a model of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from tablewalk.errors import TablewalkError

from .compare import Comparison, Outcome
from .generate import Generator
from .kernels import find
from .results import Row
from .run import Ended
from .setup import setup


class Work(NamedTuple):
    """What all programs of a session have in common; `length` operations each."""

    kernel: str
    driver: str
    focus: str
    length: int


class Done(NamedTuple):
    """A worker is through with a batch; the rest says why early, if it is (`run.Ended`)."""

    reason: str = ""
    what: str = ""
    report: str = ""


def in_parallel(work: Work, batches: Sequence[Sequence[int]], jobs: int) -> Iterator[tuple[int, Row]]:
    """(seed, outcome) of the programs of all batches, as they are done, by `jobs` processes.

    Raises run.Ended, once all batches are through, for the first that the kernel did not get through.
    """
    jobs = min(jobs, len(batches))
    if jobs < 2:
        for batch in batches:
            yield from _outcomes(work, batch)
        return
    waiting, ended = list(reversed(batches)), []
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_worker(work)) for _ in range(jobs)]
        for worker in workers:
            worker.send(waiting.pop())
        while workers:
            ready = wait(workers)
            worker = next(worker for worker in workers if worker in ready)
            try:
                said = worker.recv()
            except EOFError:
                said = Done("error", "a process that compares was killed")
                waiting.clear()
            if not isinstance(said, Done):
                yield said
                continue
            if said.reason:
                ended.append(said)
            if waiting:
                worker.send(waiting.pop())
            else:
                workers.remove(worker)
    if ended:
        raise Ended(find(work.kernel), *ended[0])


@contextlib.contextmanager
def _worker(work: Work) -> Iterator[Connection]:
    """A process that takes batches from what it is connected to and gives outcomes, each as soon as it is there."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_compare, args=(work, there), daemon=True)
    process.start()
    there.close()
    try:
        with here:
            yield here
    finally:
        process.terminate()
        process.join()


def _compare(work: Work, parent: Connection) -> None:
    """What a worker does, until it is terminated; then what it runs is reaped.

    An interrupt is the parent's to handle, and without the parent there is nothing to do.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent has gone
        while True:
            parent.send(_batch(work, parent.recv(), parent))


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _batch(work: Work, seeds: Sequence[int], parent: Connection) -> Done:
    try:
        for outcome in _outcomes(work, seeds):
            parent.send(outcome)
    except Ended as e:
        return Done(e.reason, e.what, e.report)
    return Done()


def _outcomes(work: Work, seeds: Sequence[int]) -> Iterator[tuple[int, Row]]:
    comparison = _comparison(work.kernel, work.driver)
    geometry = setup(find(work.kernel)).geometry
    programs = [Generator(seed, work.focus, geometry).program(work.length) for seed in seeds]
    try:
        for seed, outcome in zip(seeds, comparison.compare(programs), strict=True):
            yield seed, _row(outcome)
    except Ended:
        raise
    except TablewalkError as e:
        raise Ended(find(work.kernel), "error", str(e), "") from None
    except OSError as e:
        raise Ended(find(work.kernel), "error", f"{e.filename}: {e.strerror}", "") from None


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

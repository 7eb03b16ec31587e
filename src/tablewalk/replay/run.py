# SPDX-License-Identifier: GPL-2.0-only
"""Replays of one recording, each kernel in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, MutableSequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tablewalk.errors import TablewalkError, escape
from tablewalk.machine import drivers
from tablewalk.machine.drivers import Model
from tablewalk.memory import available
from tablewalk.record.recording import Meta, Recording, Sample
from tablewalk.replay.check import Comparison, InFlight, Lives
from tablewalk.replay.engine import Engine
from tablewalk.replay.results import Check, KernelResult, ProcessResult, Report, Site, Source
from tablewalk.replay.select import Selection
from tablewalk.replay.spaces import AddressSpace, Process

PROCESSES_SHOWN = 1000  # told one by one, largest peak first; the rest is summed up
SITES_SHOWN = 10
POINTS_SHOWN = 10
TIMELINE_SAMPLES = 4000
MEMORY_PART = 0.6  # of the machine's available memory, for all replays together

Board = MutableSequence[int]


@dataclass(frozen=True, slots=True)
class Job:
    """One replay: of which recording, under which kernel, what for."""

    path: Path
    selection: Selection
    check: bool
    driver: str
    memory: int  # bytes the model may take


def replay(
    path: Path,
    selections: list[Selection],
    *,
    check: bool = False,
    driver: str = "sequential",
    progress: Callable[[list[int], int], None] = lambda done, total: None,
) -> Report:
    """Replay the recording under each of `selections`.

    `progress` is called with rows done by replay and rows in all. Ctrl-C ends all of them early, and the
    results then say so. Raises TablewalkError for a recording that cannot be read or replayed.
    """
    recording = Recording.open(path)
    meta, rows = recording.meta, recording.num_rows
    refuse_unreadable(path, meta)
    memory = replay_memory() // min(len(selections), os.cpu_count() or 1)
    jobs = [Job(path, selection, check, driver, memory) for selection in selections]
    results = [_alone(jobs[0], progress)] if len(jobs) == 1 else _together(jobs, rows, progress)
    source = Source(
        str(path), meta.command, meta.kernel, meta.machine, meta.start, meta.end, rows, meta.lost, meta.complete,
        meta.missing, meta.exit_status,
    )  # fmt: skip
    return Report(source, results, check)


def refuse_unreadable(path: Path, meta: Meta) -> None:
    """Raises TablewalkError for a recording of a machine whose calls the replay does not understand."""
    if meta.machine not in ("", "x86_64"):
        raise TablewalkError(
            f"{path}: recorded on {escape(meta.machine)}; system calls of x86-64 are understood only"
        )


# --- in this process or several --------------------------------------------------------------------------


def _alone(job: Job, progress: Callable[[list[int], int], None]) -> KernelResult:
    board = _TellingBoard(progress)
    with _stopping(board):
        return _replay_one(job, 0, board)


class _TellingBoard(list[int]):
    """A board in this very process: shows progress when told of rows."""

    def __init__(self, progress: Callable[[list[int], int], None]) -> None:
        super().__init__([0, 0])
        self._progress = progress

    def __setitem__(self, i: Any, value: Any) -> None:
        super().__setitem__(i, value)
        if i == 0:
            self._progress(self[:1], 0)


@contextmanager
def _stopping(board: Board) -> Iterator[None]:
    """SIGINT asks all replays to stop; the second one is a KeyboardInterrupt."""

    def stop(*_: object) -> None:
        board[-1] = 1
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _together(jobs: list[Job], rows: int, progress: Callable[[list[int], int], None]) -> list[KernelResult]:
    context = multiprocessing.get_context("spawn")
    board: Board = context.RawArray("q", len(jobs) + 1)
    workers = min(len(jobs), os.cpu_count() or 1)
    with (
        ProcessPoolExecutor(workers, context, _worker, (board,), max_tasks_per_child=1) as pool,
        _stopping(board),
    ):
        # Workers begin with SIGINT blocked, so that one for the whole process group cannot end them half-started.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        futures: list[Future[KernelResult]] = [pool.submit(_replay_shared, job, i) for i, job in enumerate(jobs)]
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            pending: set[Future[KernelResult]] = set(futures)
            while pending:
                done, pending = wait(pending, timeout=0.1)
                progress(list(board[: len(jobs)]), rows)
                for future in done:
                    future.result()
        except BaseException:
            board[-1] = 1
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


_board: Board = [0, 0]


def _worker(board: Board) -> None:
    global _board
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is asked to stop, and asks us by the board
    _board = board


def _replay_shared(job: Job, slot: int) -> KernelResult:
    return _replay_one(job, slot, _board)


# --- one replay ------------------------------------------------------------------------------------------


def _replay_one(job: Job, slot: int, board: Board) -> KernelResult:
    began = time.perf_counter()
    recording = Recording.open(job.path)
    model = drivers.model(job.selection.config, job.driver)
    engine = Engine(recording, model, board, slot, job.memory)
    samples = recording.samples()
    in_flight = InFlight(samples) if job.check else None
    try:
        engine.run(in_flight.look if in_flight else None)
    except TablewalkError as e:
        if str(e).startswith(str(job.path)):
            raise
        raise TablewalkError(f"{job.path}: {e}") from None
    except Exception as e:
        if os.environ.get("TABLEWALK_DEBUG"):
            raise
        where = f"{job.path}: after row {engine.rows}"
        what = escape(f"{type(e).__name__}: {e}")
        raise TablewalkError(f"{where}: the replay itself failed ({what}); TABLEWALK_DEBUG=1 shows where") from e
    meta = recording.meta
    if meta.complete and meta.attach is None and not engine.interrupted:
        # Nothing happened from the last event to here.  What perf leaves behind when it lets go of a process that
        # goes on is not known.
        engine.last_t = max(engine.last_t, meta.end)
    result = _result(job, model, engine, samples, in_flight)
    result.rows_total = recording.num_rows
    result.seconds = time.perf_counter() - began
    result.max_rss_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return result


def _result(
    job: Job, model: Model, engine: Engine, samples: list[Sample], in_flight: InFlight | None
) -> KernelResult:
    config = job.selection.config
    result = KernelResult(
        kernel=config.release,
        arch=config.arch,
        options=job.selection.given,
        recorded=job.selection.recorded,
        without=list(config.without),
        page_size=model.arch.page_size,
        accuracy=engine.accuracy,
        harmless=engine.harmless,
        unapplied=engine.calls.unapplied,
        unknowns=[f"{what} ({n:,})" for what, n in engine.calls.unknowns.items()],
        rows=engine.rows,
        interrupted=engine.interrupted,
    )
    if not engine.population.processes and not engine.interrupted:
        raise TablewalkError(f"{job.path}: no process begins in this recording; there is nothing to replay")
    result.effective = effective_options(model)
    by_process = _samples_of(engine, samples, result)
    ranked = sorted((p for p in engine.population.processes if p.spaces), key=lambda p: -p.peak_kb)
    told: list[ProcessResult] = []
    for process in ranked:
        mine = by_process.get(id(process), [])
        if len(told) < PROCESSES_SHOWN:
            told.append(_process(model, engine, process, mine, in_flight))
        elif in_flight and mine:
            result.more_check = add_checks(result.more_check, Comparison(process, in_flight).check(mine))
    rest = ranked[PROCESSES_SHOWN:]
    result.processes = sorted(told, key=lambda p: -p.peak_kb)
    result.more_processes = len(rest)
    result.more_peak_kb = max((p.peak_kb for p in rest), default=0)
    return result


def effective_options(model: Model) -> dict[str, str]:
    """The options that a replay ran with, asked for, recorded or the release's own, by their names."""
    config = model.kernel("config").config
    told = {"transparent_hugepage": config.transparent_hugepage, "shmem_enabled": config.shmem_enabled}
    return told | {name.upper(): "y" if getattr(config, name) else "n" for name in ("pt_reclaim", "per_vma_lock")}


def add_checks(a: Check | None, b: Check) -> Check:
    """Both together."""
    if a is None:
        return b
    return Check(
        a.compared + b.compared,
        a.disagreements + b.disagreements,
        a.disagreements_strict + b.disagreements_strict,
        a.error_kb + b.error_kb,
        max(a.max_error_kb, b.max_error_kb),
        max(a.max_error_strict_kb, b.max_error_strict_kb),
        (a.first + b.first)[:5],
    )


def _samples_of(engine: Engine, samples: list[Sample], result: KernelResult) -> dict[int, list[Sample]]:
    """The samples of each process, as far as the model knows it then; the others are counted."""
    lives = Lives(engine.population.processes)
    known: dict[int, list[Sample]] = {}
    for s in samples:
        process = lives.at(s.pid, s.begin)
        if process is None or s.begin < process.spaces[0][0] or s.end > engine.last_t:
            result.uncovered += 1
            continue
        space = next(space for since, space, _ in reversed(process.spaces) if since <= s.begin)
        if space.stopped is not None and s.end >= space.stopped_t:
            result.uncovered += 1
            continue
        known.setdefault(id(process), []).append(s)
    return known


def _process(
    model: Model, engine: Engine, process: Process, samples: list[Sample], in_flight: InFlight | None
) -> ProcessResult:
    comparison = Comparison(process, in_flight)
    times, kbs = comparison.times, comparison.kbs
    top = max(range(len(kbs)), key=kbs.__getitem__)
    out = ProcessResult(
        process.pid, process.generation, process.name, process.start, process.end or engine.last_t,
        times, kbs, kbs[top], times[top], kbs[-1],
    )  # fmt: skip
    if samples:
        out.sampled = len(samples)
        out.sampled_peak_kb = max(s.vmpte for s in samples)
        out.sampled_final_kb = samples[-1].vmpte
        out.points = comparison.points(samples, POINTS_SHOWN)
        step = len(samples) // TIMELINE_SAMPLES + 1
        out.samples = [(s.begin, s.vmpte) for s in samples[::step]]
        if in_flight:
            out.check = comparison.check(samples)
    own = [space for _, space, own in process.spaces if own]
    if not own:
        out.shares_with = process.spaces[-1][1].pids[0]
    _tell_spaces(out, model, own)
    for _, space, _ in process.spaces:
        if space.stopped is not None:
            out.stopped, out.stopped_t = space.stopped, space.stopped_t
    return out


def _tell_spaces(out: ProcessResult, model: Model, own: list[AddressSpace]) -> None:
    """What the address spaces that belong to the process say, one after the other or together."""
    if not own:
        return
    top = max(own, key=lambda space: space.peak.vmpte_kb)
    out.at_peak, out.holders, out.at_end = top.peak, top.holders, own[-1].end
    counts: Counter[str] = Counter()
    locks: Counter[str] = Counter()
    sites: list[Site] = []
    for space in own:
        out.rss_times += space.rss_times
        out.rss_kbs += space.rss_kbs
        out.rss_peak_kb = max(out.rss_peak_kb, space.rss_peak_kb)
        out.faults += space.faults
        if space.stats and space.locks:
            counts.update(dict(zip(model.module("machine.stat").STAT_NAMES, space.stats, strict=True)))
            locks.update(dict(zip(model.machine.lock_classes, space.locks, strict=True)))
        sites += space.sites.values()
    out.counts = dict(counts)
    out.locks = {name: n for name, n in locks.most_common() if n}
    by_memory = sorted(sites, key=lambda s: -max(s.allocated_kb, s.freed_kb))
    by_work = sorted(sites, key=lambda s: -s.work)
    chosen = {id(s): s for pair in zip(by_memory, by_work, strict=True) for s in pair}
    out.sites = list(chosen.values())[:SITES_SHOWN]


def replay_memory() -> int:
    """Bytes of memory that all replays together may take on this machine."""
    return int(available() * MEMORY_PART)

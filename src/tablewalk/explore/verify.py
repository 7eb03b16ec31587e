# SPDX-License-Identifier: GPL-2.0-only
"""Verifying the catalogue: what a row claims of a patch's absence is run, without the patch and with it."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache, partial
from time import process_time

from tablewalk.machine.drivers import KernelConfig
from tablewalk.machine.layout import Cell
from tablewalk.patches import Claim, Patch, catalogue

from .measure import measures, take
from .run import Options, Outcome, Program, built_in, explore, searched
from .search import Limits

SECONDS = 300.0  # after which a search counts as one that does not end


@dataclass(frozen=True, slots=True)
class Job:
    """A scenario to be explored, or a measure to be taken, on a kernel that lacks some patches."""

    what: str
    release: str
    without: tuple[str, ...]

    @property
    def command(self) -> str:
        """What does the same by hand."""
        kernel = "" if self.release == "7.x" else f" --kernel {self.release}"
        return f"tablewalk explore {self.what}{kernel}" + "".join(f" --without {p}" for p in self.without)


@dataclass(frozen=True, slots=True)
class Found:
    """What a job came to: a verdict and the rule broken, or a figure; and the CPU seconds it took."""

    verdict: str
    invariant: str = ""
    sentence: str = ""
    figure: int = 0
    finals: str = ""  # digest of the outcomes
    states: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.verdict == "measured":
            return f"{self.figure:,}"
        return f"{self.verdict} {self.invariant}".rstrip()


@dataclass(frozen=True, slots=True)
class Result:
    """A row and what was found of its claim; without runs there is nothing to reproduce."""

    row: Patch
    claimed: str
    found: str
    reproduced: bool
    runs: tuple[Found, ...] = ()

    @property
    def seconds(self) -> float:
        """The longest of its runs; they are counted with every row that needs them."""
        return max((run.seconds for run in self.runs), default=0.0)


def rows() -> tuple[Patch, ...]:
    """The catalogue by patches: of one with several sites, the row that says what its absence does."""
    found: dict[str, Patch] = {}
    for row in catalogue():
        if row.id not in found or row.claim.kind != "release":
            found[row.id] = row
    return tuple(found.values())


def jobs(row: Patch) -> tuple[Job, ...]:
    """What shows a row's claim: first without the patch, then with it."""
    claim = row.claim
    what = claim.measure or claim.scenario
    if not what:
        return ()
    lacking = Job(what, claim.kernel, (*claim.without, row.id))
    return lacking, Job(what, claim.kernel, claim.without)


def command_of(row: Patch) -> str:
    """The command that shows a row's claim; empty where there is none."""
    claim = row.claim
    if claim.kind == "race":
        return jobs(row)[0].command
    if claim.kind == "release":
        return "tablewalk validate --kernel RELEASE"
    return f"tablewalk patches --verify {row.id}" if jobs(row) else ""


def claimed(claim: Claim) -> str:
    """A claim in words."""
    if claim.kind == "race":
        return f"{claim.scenario}: {claim.invariant}"
    if claim.measure:
        return f"{measures()[claim.measure].title}: {claim.before:,}, not {claim.after:,}"
    return f"{claim.scenario} ends the same" if claim.scenario else claim.note


@cache
def _programs() -> dict[str, Program]:
    return built_in()


def perform(job: Job) -> Found:
    """Do a job; what goes wrong with it is its outcome."""
    began = process_time()
    try:
        found = _measured(job) if job.what in measures() else _explored(job)
    except Exception as e:
        found = Found("error", sentence=f"{type(e).__name__}: {e}")
    return replace(found, seconds=process_time() - began)


def _measured(job: Job) -> Found:
    return Found("measured", figure=take(measures()[job.what], job.release, job.without))


def _explored(job: Job) -> Found:
    config = KernelConfig(job.release, without=job.without)
    outcome = explore(_programs()[job.what], config, Options(limits=Limits(0, SECONDS)))
    invariant = outcome.rule.id if outcome.rule else ""
    return Found(outcome.verdict, invariant, outcome.sentence, 0, digest(outcome), outcome.result.states)


def digest(outcome: Outcome) -> str:
    """Of the results and of what each process's counters are in the end.

    The rest of memory is not comparable between two searches: which object is where depends on their order.
    """
    machine = searched().machine
    counters = [
        base + slot.offset
        for base, class_id in machine.class_of.items()
        for slot in machine.layouts[class_id].slots
        if machine.layouts[class_id].name == "mm_struct" and slot.field.cell is Cell.COUNTER
    ]
    threads = len(outcome.threads)
    finals = {(*(final[cell] for cell in counters), *final[len(final) - threads :]) for final in outcome.finals}
    return hashlib.sha256(repr(sorted(map(repr, finals))).encode()).hexdigest()


def judge(row: Patch, runs: tuple[Found, ...]) -> Result:
    """Compare a claim with what its jobs came to."""
    claim = row.claim
    result = partial(Result, row, claimed(claim))
    if not runs:
        return result("nothing to run", True)
    lacking, having = runs
    if claim.measure:
        said = f"{lacking}, {having} with it"
        return result(said, (lacking.figure, having.figure) == (claim.before, claim.after), runs)
    if claim.kind == "cleanup":
        same = lacking.verdict == having.verdict == "exhausted" and lacking.finals == having.finals
        return result("the same" if same else f"{lacking}, {having} with it", same, runs)
    shown = (lacking.verdict, lacking.invariant, having.verdict) == ("violation", claim.invariant, "exhausted")
    return result(f"{lacking}; {having} with it", shown, runs)


def verify(wanted: tuple[Patch, ...], workers: int, progress: Callable[[int, int], None]) -> Iterator[Result]:
    """Run the claims of rows by `workers` processes; results come as they are found, `progress` gets (done, of)."""
    waiting = {row: jobs(row) for row in wanted}
    todo = list(dict.fromkeys(job for needed in waiting.values() for job in needed))
    found: dict[Job, Found] = {}

    def ready() -> Iterator[Result]:
        for row in [row for row, needed in waiting.items() if found.keys() >= set(needed)]:
            yield judge(row, tuple(found[job] for job in waiting.pop(row)))

    yield from ready()
    if not todo:
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        found[todo[0]] = pool.submit(perform, todo[0]).result()  # alone: the first search may have to compile
        futures: dict[Future[Found], Job] = {pool.submit(perform, job): job for job in todo[1:]}
        progress(len(found), len(todo))
        yield from ready()
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            progress(len(found), len(todo))
            yield from ready()

# SPDX-License-Identifier: GPL-2.0-only
"""A validation of the model against one kernel: programs by seed, outcomes kept, disagreements reduced."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tablewalk.errors import TablewalkError
from tablewalk.machine import native

from .compare import Comparison
from .coverage import Coverage, lacking, never_succeeded
from .generate import Generator
from .kernels import Kernel, ensure
from .ops import Op
from .results import Key, Results, Row
from .run import Ended
from .setup import Setup, setup
from .shrink import shrink
from .workers import Work, in_parallel

LENGTH = 250  # operations of a program
PROGRAMS_A_RUN = {True: 2, False: 40}  # on the host; in one boot of a guest


@dataclass(slots=True)
class Disagreement:
    """A program on which kernel and model differ; `small` is it reduced."""

    seed: int
    report: list[str]
    program: list[Op]
    small: list[Op] = field(default_factory=list)
    small_report: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Validation:
    """What a session found; `coverage` by kind of operation: succeeded, failed.

    `lacks` are the kinds that the kernel cannot do, and why (`coverage.lacking`),
    `differences` counts what releases and architectures do differently (`model_run`), `ended` is why it ended early.
    """

    kernel: str
    operations: int = 0
    programs: int = 0
    noise: int = 0
    disagreements: list[Disagreement] = field(default_factory=list)
    coverage: Coverage = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)
    differences: dict[str, int] = field(default_factory=dict)
    ended: str = ""
    oops: str = ""

    @property
    def never_succeeded(self) -> list[str]:
        """Kinds that were tried often enough, in vain."""
        return never_succeeded(self.coverage, self.lacks)

    @property
    def failed(self) -> bool:
        """Whether something was found."""
        return bool(self.disagreements or self.never_succeeded or self.oops)


def validate(
    kernel: Kernel,
    operations: int,
    seed: int,
    focus: str,
    driver: str,
    results: Results,
    step: Callable[[int], None] = lambda n: None,
    reduce: bool = True,
    jobs: int = 1,
) -> Validation:
    """Compare the model with `kernel` on `operations` operations, in programs of seeds from `seed` on.

    `step` is told how many more operations are done.  What `results` has is not run again.  `jobs` processes share
    the programs; what comes out does not depend on how many.
    """
    try:
        ensure(kernel)
    except TablewalkError as e:
        return Validation(kernel.name, ended=str(e))
    on = setup(kernel)
    seeds = list(range(seed, seed + math.ceil(operations / LENGTH)))
    version = _version(kernel)
    keys = {s: Key(kernel.name, version, focus, s, LENGTH) for s in seeds}
    rows = {s: row for s in seeds if (row := results.get(keys[s]))}
    step(LENGTH * len(rows))
    open_ = [s for s in seeds if s not in rows]
    batch = max(min(PROGRAMS_A_RUN[kernel.is_host], math.ceil(len(open_) / jobs)), 1)
    batches = [open_[i : i + batch] for i in range(0, len(open_), batch)]
    validation = Validation(kernel.name, lacks=lacking(on))
    try:
        for s, row in in_parallel(Work(kernel.name, driver, focus, LENGTH), batches, jobs):
            results.put(keys[s], row)
            rows[s] = row
            step(LENGTH)
    except Ended as e:
        validation.ended = str(e)
        validation.oops = e.report if e.reason == "oops" else ""
    except TablewalkError as e:  # of the results
        validation.ended = str(e)
    for s, row in sorted(rows.items()):
        _take(validation, s, row, on, focus)
    if reduce and validation.disagreements:
        comparison = Comparison(on, driver)
        for d in validation.disagreements:
            _reduce(d, comparison, on)
    return validation


def _take(v: Validation, seed: int, row: Row, on: Setup, focus: str) -> None:
    """Add the outcome of a seed."""
    v.operations += row.compared
    v.programs += 1
    v.noise += row.noise
    for kind, (ok, bad) in row.coverage.items():
        counts = v.coverage.setdefault(kind, [0, 0])
        counts[0] += ok
        counts[1] += bad
    for what, times in row.differences.items():
        v.differences[what] = v.differences.get(what, 0) + times
    if row.at >= 0:
        program = Generator(seed, focus, on.geometry).program(LENGTH)
        v.disagreements.append(Disagreement(seed, row.report, program[: row.at + 1]))


def _reduce(d: Disagreement, comparison: Comparison, on: Setup) -> None:
    try:
        d.small = shrink(d.program, comparison.disagree, on.geometry)
        d.small_report = next(comparison.compare([d.small])).report
    except TablewalkError:
        d.small, d.small_report = d.program, d.report


def _version(kernel: Kernel) -> str:
    """What an outcome depends on: the kernel, and the texts of model and validation."""
    here = Path(__file__).parent
    digest = hashlib.sha256(f"{native.fingerprint()} {kernel.version or kernel.release}".encode())
    for file in sorted((*here.glob("*.py"), *here.glob("agent/*"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]

# SPDX-License-Identifier: GPL-2.0-only
"""Runs programs on a kernel and on the model and compares what each operation returned and what was seen after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tablewalk.errors import TablewalkError
from tablewalk.kernel.not_modelled import NotModelled
from tablewalk.machine.drivers import fastest

from .kernels import find
from .model_run import ModelRun
from .observe import digest
from .ops import Op, kind_of, program_text
from .run import Ended, run
from .setup import Setup, setup

Program = Sequence[Op]
NOISE_TRIES = 4  # how often a program is run for a disagreement to show again


class Answer(NamedTuple):
    """What an operation returned (errno or signal beside it); what was seen then: a digest, and the text if told."""

    ret: int
    error: int
    digest: int
    text: list[str]


@dataclass(slots=True)
class Outcome:
    """The comparison of one program: operations compared, and where the two differ first, if they do."""

    program: Program
    compared: int = 0
    at: int | None = None  # index of the operation
    answer: tuple[int, int, int] = (0, 0, 0)  # the kernel's to it: result, errno, digest
    report: list[str] = field(default_factory=list)  # what differs, as lines
    noise: bool = False  # it differed once and not again
    coverage: dict[str, list[int]] = field(default_factory=dict)  # kind: succeeded, failed
    differences: dict[str, int] = field(default_factory=dict)  # between releases and architectures: how often seen


class Comparison:
    """Compares programs on one kernel with the model, which it keeps."""

    def __init__(self, setup: Setup, driver: str, timeout: float = 60.0) -> None:
        self._setup, self._timeout = setup, timeout
        self._model = ModelRun(setup.config, setup.geometry, setup.exact_rss, driver)

    def compare(self, programs: Sequence[Program], step: Callable[[], None] = lambda: None) -> Iterator[Outcome]:
        """The outcome of each program, run one after the other; `step` is called after each operation.

        Raises run.Ended if the kernel did not get through all of them, after the outcomes of those it did.
        """
        answers = self._answers([op for program in programs for op in program])
        for program in programs:
            outcome = Outcome(program)
            self._compare_one(outcome, answers, step)
            if outcome.at is not None:
                self.confirm(outcome)
            yield outcome

    def disagree(self, programs: Sequence[Program]) -> list[bool]:
        """Whether kernel and model differ on each program; a program that the kernel does not survive does."""
        found: list[bool] = []
        try:
            answers = self._answers([op for program in programs for op in program])
            for program in programs:
                outcome = Outcome(program)
                self._compare_one(outcome, answers, lambda: None)
                found.append(outcome.at is not None)
        except TablewalkError:
            found += [True] * (len(programs) - len(found))
        return found

    def confirm(self, outcome: Outcome) -> None:
        """Run a program that disagreed again, and fill in the report; what does not show again is noise.

        Other tasks of the kernel (khugepaged, page-out, migration) may change what a program sees, each time elsewhere:
        the kernel has to give the same answer to the same operation.
        """
        seen = {(outcome.at, outcome.answer)}
        for _ in range(NOISE_TRIES):
            again = Outcome(outcome.program)
            first = min(at or 0 for at, _ in seen)
            self._compare_one(again, self._answers(outcome.program, verbose_from=max(first - 1, 0)), lambda: None)
            outcome.at, outcome.report = again.at, again.report
            if (again.at, again.answer) in seen:
                return
            if again.at is None:
                break
            seen.add((again.at, again.answer))
        outcome.noise, outcome.at = True, None
        outcome.compared, outcome.coverage, outcome.differences = again.compared, again.coverage, again.differences

    def _answers(self, ops: Program, verbose_from: int | None = None) -> Iterator[Answer]:
        text = program_text(ops, self._setup.geometry, self._setup.exact_rss)
        pending: Answer | None = None
        for line in run(self._setup.kernel, text, verbose_from, self._timeout):
            if line.startswith(" "):
                if pending is not None:
                    pending.text.append(line[1:])
                continue
            if line.startswith("!"):
                raise Ended(self._setup.kernel, "agent", f"the agent stops: {line[1:].strip()}", "")
            if pending is not None:
                yield pending
            _, ret, error, seen = line.split()
            pending = Answer(int(ret), int(error), int(seen, 16), [])
        if pending is not None:
            yield pending

    def _compare_one(self, outcome: Outcome, answers: Iterator[Answer], step: Callable[[], None]) -> None:
        before: list[str] = []
        for i, op in enumerate(outcome.program):
            answer = next(answers, None)
            if answer is None:
                raise Ended(self._setup.kernel, "agent", "the agent ended before its program did", "")
            step()
            if outcome.at is not None:
                continue
            counts = outcome.coverage.setdefault(kind_of(op), [0, 0])
            counts[answer.error != 0] += 1
            result, text = self._on_model(op)
            outcome.compared += 1
            if result == (answer.ret, answer.error) and digest(text) == answer.digest:
                before = text.splitlines()
                continue
            outcome.at, outcome.answer = i, answer[:3]
            outcome.report = report(op, i, answer, result, text.splitlines(), before)
        outcome.differences = self._model.differences()

    def _on_model(self, op: Op) -> tuple[tuple[int, int] | str, str]:
        """(what the operation returns, observation); a fault of the model itself agrees with nothing."""
        try:
            return self._model.run(op), self._model.text()
        except NotModelled:
            raise
        except Exception as e:
            return f"{type(e).__name__}: {e}", ""


def report(
    op: Op, index: int, answer: Answer, result: tuple[int, int] | str, model: list[str], before: list[str]
) -> list[str]:
    """What differs after an operation, and what was there before it, as lines."""
    kernel = answer.text
    lines = [f"operation {op.line(index)}"]
    if result != (answer.ret, answer.error):
        lines.append(f"  returned on the kernel {answer.ret:#x} errno {answer.error}")
        lines.append(f"  returned by the model  {_result(result)}")
    differing = {line for line in kernel if line not in model} | {line for line in model if line not in kernel}
    if kernel:
        lines += [f"  before {line}" for line in before if line not in kernel or line not in model]
        lines += [f"  kernel {line}" for line in kernel if line in differing]
        lines += [f"  model  {line}" for line in model if line in differing]
    return lines


def _result(result: tuple[int, int] | str) -> str:
    return result if isinstance(result, str) else f"{result[0]:#x} errno {result[1]}"


def host_difference(ops: Program) -> list[str]:
    """How the kernel that runs here and the model differ on a program, as lines; none if they agree."""
    comparison = Comparison(setup(find("host")), fastest())
    return next(comparison.compare([ops])).report

# SPDX-License-Identifier: GPL-2.0-only
"""One mutant of the model against the kernel that runs here: a process of its own, in which the model is the mutant.

Nothing of tablewalk.kernel may be imported before the mutant is in place, so `hunt` imports what it needs itself.
"""

from __future__ import annotations

import ast
import os
import signal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING, NamedTuple

import tablewalk
from mutant_list import Mutant
from tablewalk.errors import TablewalkError

if TYPE_CHECKING:
    from tablewalk.validate.kept import KeptComparison

KERNEL = Path(tablewalk.__file__).parent / "kernel"
HANGS_SECONDS = 5  # of CPU time, after which an operation of the model is given up


class Found(NamedTuple):
    """How a mutant fared: `operations` until it was found or all that there were, and what showed it."""

    mutant: str
    found: bool
    operations: int
    kind: str = ""  # of the operation that showed it
    reduced: int = 0  # operations of the reduced program, besides its reset
    program: tuple[str, ...] = ()  # it
    report: tuple[str, ...] = ()


def mutated(mutant: Mutant) -> str:
    """The text of the mutant's module.  Raises TablewalkError where the model's text has moved on."""
    source = (KERNEL / mutant.file).read_text()
    times = source.count(mutant.old)
    if times != 1:
        raise TablewalkError(
            f"mutant {mutant.name}: kernel/{mutant.file} has its text {times} times, not once: adapt it"
        )
    return source.replace(mutant.old, mutant.new)


def site(mutant: Mutant) -> str:
    """`module.function` that the mutant changes."""
    source = (KERNEL / mutant.file).read_text()
    line = source[: source.index(mutant.old)].count("\n") + 1
    last = line + mutant.old.rstrip("\n").count("\n")
    module = mutant.file.removesuffix(".py")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.lineno <= last and line <= (node.end_lineno or 0):
            return f"{module}.{node.name}"
    return module


class _Loader(SourceFileLoader):
    """Loads one module of the model with the mutant's text."""

    def __init__(self, name: str, mutant: Mutant) -> None:
        super().__init__(name, str(KERNEL / mutant.file))
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        return compile(mutated(self._mutant), self.path, "exec")


class _Finder(PathFinder):
    """Finds that module before others do."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = f"tablewalk.kernel.{mutant.file.removesuffix('.py')}"
        self._mutant = mutant

    def find_spec(  # type: ignore[override]
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return ModuleSpec(fullname, _Loader(fullname, self._mutant), origin=str(KERNEL / self._mutant.file))


def become(mutant: Mutant) -> None:
    """From now on this process's model is the mutant."""
    if any(name.startswith("tablewalk.kernel.") for name in sys.modules):
        raise TablewalkError(f"mutant {mutant.name}: this process has imported the model already")
    sys.meta_path.insert(0, _Finder(mutant))


def begin_worker() -> None:
    """An interrupt is the parent's to handle, and without it there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
    os._exit(1)


def comparison(answers: Path) -> KeptComparison:
    """A comparison with the kernel that runs here, whose answers are kept; what a mutant breaks is no end of it."""
    from tablewalk.kernel.not_modelled import NotModelled
    from tablewalk.validate.kept import KeptAnswers, KeptComparison
    from tablewalk.validate.kernels import find
    from tablewalk.validate.ops import Op
    from tablewalk.validate.setup import setup

    class Careful(KeptComparison):
        """An operation that hangs, or that the mutant says is not modelled, agrees with nothing."""

        def _on_model(self, op: Op) -> tuple[tuple[int, int] | str, str]:
            signal.setitimer(signal.ITIMER_VIRTUAL, HANGS_SECONDS)
            try:
                return super()._on_model(op)
            except NotModelled as e:
                return f"not modelled: {e}", ""
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def hangs(number: int, frame: FrameType | None) -> None:
        raise RuntimeError(f"the model hangs for {HANGS_SECONDS} s")

    signal.signal(signal.SIGVTALRM, hangs)
    on = setup(find("host"))
    return Careful(on, "sequential", KeptAnswers(answers, on))


def hunt(mutant: Mutant, lengths: Sequence[tuple[int, int]], answers: Path) -> Found:
    """Compare the mutant on the first operations of programs, given as (seed, length), until one shows it."""
    become(mutant)
    from tablewalk.validate.generate import Generator
    from tablewalk.validate.kernels import find
    from tablewalk.validate.ops import kind_of
    from tablewalk.validate.session import LENGTH
    from tablewalk.validate.setup import setup
    from tablewalk.validate.shrink import shrink

    on = setup(find("host"))
    compared = comparison(answers)
    operations = 0
    for seed, length in lengths:
        ops = Generator(seed, mutant.focus, on.geometry).program(LENGTH)[:length]
        outcome = next(compared.compare([ops]))
        operations += outcome.compared if outcome.at is None else outcome.at + 1
        if outcome.at is None:
            continue
        kind = kind_of(ops[outcome.at])
        small = shrink(ops[: outcome.at + 1], compared.disagree, on.geometry)
        text = tuple(op.line(i) for i, op in enumerate(small))
        return Found(mutant.name, True, operations, kind, len(small) - 1, text, tuple(outcome.report[:20]))
    return Found(mutant.name, False, operations)


def agreed(seeds: Sequence[int], focus: str, answers: Path) -> list[tuple[int, int]]:
    """(seed, operations from its first on) in which the model itself agrees with the kernel; the answers are kept."""
    from tablewalk.validate.generate import Generator
    from tablewalk.validate.kernels import find
    from tablewalk.validate.session import LENGTH
    from tablewalk.validate.setup import setup

    on = setup(find("host"))
    compared = comparison(answers)
    lengths = []
    for seed in seeds:
        ops = Generator(seed, focus, on.geometry).program(LENGTH)
        outcome = next(compared.compare([ops]))
        if outcome.noise:  # other tasks of the kernel had a part in its answers, which are forgotten now
            outcome = next(compared.compare([ops]))
        lengths.append((seed, len(ops) if outcome.at is None else outcome.at))
    return lengths

# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's answers kept in a file (SQLite), so that another model of it need not run the kernel again.

What a kernel answers to a program does not depend on the model: it is asked once, and then many models (each mutant
of `benchmarks/mutants.py`, or the next version of the model) are compared with what it said.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tablewalk.errors import TablewalkError

from .compare import Answer, Comparison, Outcome, Program
from .ops import program_text
from .run import AGENT
from .setup import Setup

_ANSWER = struct.Struct("<qiQ")  # ret, error, digest
WAIT_SECONDS = 60.0  # for another process that writes


class KeptAnswers:
    """The file: what a kernel answered to each program.  Raises TablewalkError where it cannot be used."""

    def __init__(self, path: Path, setup: Setup) -> None:
        self._path, self._setup = path, setup
        agent = b"".join(file.read_bytes() for file in sorted(AGENT.iterdir()) if file.is_file())
        self._kernel = f"{setup.kernel.version or setup.kernel.release} {setup.config}\n".encode() + agent
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=WAIT_SECONDS)
            self._db.execute("create table if not exists answers (program text primary key, answers blob)")
        except (OSError, sqlite3.Error) as e:
            raise TablewalkError(f"{path}: answers cannot be kept there: {e}") from None

    def _key(self, program: Program) -> str:
        text = program_text(program, self._setup.geometry, self._setup.exact_rss)
        return hashlib.sha256(self._kernel + text.encode()).hexdigest()

    def get(self, program: Program) -> list[Answer] | None:
        """What the kernel answered, without the texts of what was seen; None if it was not asked."""
        found = self._db.execute("select answers from answers where program=?", (self._key(program),)).fetchone()
        return found and [Answer(ret, error, seen, []) for ret, error, seen in _ANSWER.iter_unpack(found[0])]

    def put(self, program: Program, answers: Sequence[Answer]) -> None:
        """Keep the answers, in place of others."""
        packed = b"".join(_ANSWER.pack(a.ret, a.error, a.digest) for a in answers)
        try:
            with self._db:
                self._db.execute("insert or replace into answers values (?,?)", (self._key(program), packed))
        except sqlite3.Error as e:
            raise TablewalkError(f"{self._path}: answers cannot be kept there: {e}") from None

    def drop(self, program: Program) -> None:
        """Forget the answers: other tasks of the kernel have had a part in them."""
        with self._db:
            self._db.execute("delete from answers where program=?", (self._key(program),))

    def close(self) -> None:
        self._db.close()


class KeptComparison(Comparison):
    """Asks the kernel only for what is not kept; a disagreement is confirmed on the kernel itself."""

    def __init__(self, setup: Setup, driver: str, kept: KeptAnswers) -> None:
        super().__init__(setup, driver)
        self._kept = kept

    def compare(self, programs: Sequence[Program], step: Callable[[], None] = lambda: None) -> Iterator[Outcome]:
        """As `Comparison.compare`, one program a run of the kernel."""
        for program in programs:
            answers = self._kept.get(program)
            if answers is None:
                answers = list(self._answers(program))
                self._kept.put(program, answers)
            outcome = Outcome(program)
            self._compare_one(outcome, iter(answers), step)
            if outcome.at is not None:
                self.confirm(outcome)
            if outcome.noise:
                self._kept.drop(program)
            yield outcome

# SPDX-License-Identifier: GPL-2.0-only
"""Outcomes of comparisons kept in a file (SQLite), so that a run goes on where an earlier one ended."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tablewalk.errors import TablewalkError
from tablewalk.files import replaceable

VERSION = 2  # of the table
NAME = f"validate-{VERSION}.sqlite"  # of the file, where nobody chooses one
WAIT_SECONDS = 60.0  # for another process that writes


class Key(NamedTuple):
    """What a row is of; `version` stands for the kernel and for the texts of model, agent and generator."""

    kernel: str
    version: str
    focus: str
    seed: int
    length: int


class Row(NamedTuple):
    """How a program fared: operations compared, where and how it disagreed (-1, none), and what it did.

    `coverage` and `differences` are those of `compare.Outcome`.
    """

    compared: int
    at: int
    report: list[str]
    noise: bool
    coverage: dict[str, list[int]]
    differences: dict[str, int]


_SCHEMA = """
create table outcomes (
    kernel text, version text, focus text, seed integer, length integer,
    compared integer, at integer, report text, noise integer, coverage text, differences text,
    primary key (kernel, version, focus, seed, length)
)
"""


class Results:
    """The file; its methods raise TablewalkError where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(replaceable(path), timeout=WAIT_SECONDS)
            with self._db:
                self._db.execute("begin immediate")  # one makes the table
                self._prepare()

    def _prepare(self) -> None:
        version = self._db.execute("pragma user_version").fetchone()[0]
        if self._db.execute("select count(*) from sqlite_master").fetchone()[0] == 0:
            self._db.execute(_SCHEMA)
            self._db.execute(f"pragma user_version = {VERSION}")
        elif version != VERSION:
            raise TablewalkError(f"{self._path}: not results of this version; name another file, or remove it")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, ValueError) as e:
            damaged = isinstance(e, ValueError) or type(e) is sqlite3.DatabaseError
            advice = "; remove the file to begin anew" if damaged else ""
            why = e.strerror if isinstance(e, OSError) else e
            raise TablewalkError(f"{self._path}: results cannot be kept there: {why}{advice}") from None

    def get(self, key: Key) -> Row | None:
        """The row of an earlier run."""
        where = "kernel=? and version=? and focus=? and seed=? and length=?"
        sql = f"select compared, at, report, noise, coverage, differences from outcomes where {where}"
        with self._told():
            found = self._db.execute(sql, key).fetchone()
            if found is None:
                return None
            compared, at, report, noise, coverage, differences = found
            return Row(compared, at, json.loads(report), bool(noise), json.loads(coverage), json.loads(differences))

    def put(self, key: Key, row: Row) -> None:
        """Keep a row, on disk at once."""
        counts = json.dumps(row.coverage), json.dumps(row.differences)
        values = (row.compared, row.at, json.dumps(row.report), int(row.noise), *counts)
        with self._told(), self._db:
            self._db.execute("insert or replace into outcomes values (?,?,?,?,?,?,?,?,?,?,?)", (*key, *values))

    def close(self) -> None:
        self._db.close()

# SPDX-License-Identifier: GPL-2.0-only
"""Outcomes of comparisons kept in a file (SQLite), so that a run goes on where an earlier one ended."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import NamedTuple

from tablewalk.errors import TablewalkError
from tablewalk.files import replaceable


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
create table if not exists outcomes (
    kernel text, version text, focus text, seed integer, length integer,
    compared integer, at integer, report text, noise integer, coverage text, differences text,
    primary key (kernel, version, focus, seed, length)
)
"""


class Results:
    """The file; raises TablewalkError where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(replaceable(path))
            self._db.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as e:
            raise TablewalkError(f"{path}: results cannot be kept there: {e}") from None

    def get(self, key: Key) -> Row | None:
        """The row of an earlier run."""
        where = "kernel=? and version=? and focus=? and seed=? and length=?"
        sql = f"select compared, at, report, noise, coverage, differences from outcomes where {where}"
        found = self._db.execute(sql, key).fetchone()
        if found is None:
            return None
        return Row(found[0], found[1], json.loads(found[2]), bool(found[3]), json.loads(found[4]), json.loads(found[5]))

    def put(self, key: Key, row: Row) -> None:
        """Keep a row, on disk at once. Raises TablewalkError where it cannot be kept."""
        counts = json.dumps(row.coverage), json.dumps(row.differences)
        values = (row.compared, row.at, json.dumps(row.report), int(row.noise), *counts)
        try:
            with self._db:
                self._db.execute("insert or replace into outcomes values (?,?,?,?,?,?,?,?,?,?,?)", (*key, *values))
        except sqlite3.Error as e:
            raise TablewalkError(f"{self._path}: results cannot be kept there: {e}") from None

    def close(self) -> None:
        self._db.close()

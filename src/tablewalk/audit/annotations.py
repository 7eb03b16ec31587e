# SPDX-License-Identifier: GPL-2.0-only
"""Contracts that somebody wrote down, for functions of which the wrong one would be inferred."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tablewalk.errors import TablewalkError


@dataclass(frozen=True, slots=True)
class Annotation:
    takes: frozenset[str] | None = None  # slots that are mapped when it is called; None: inferred
    opaque: bool = False  # nothing is inferred
    reason: str = ""


def read_annotations(files: Iterable[Path] = ()) -> dict[str, Annotation]:
    """The annotations that come along, and those of `files`.  Raises TablewalkError where a file is none."""
    found: dict[str, Annotation] = {}
    _add(found, "annotations.toml", resources.files("tablewalk.audit").joinpath("annotations.toml").read_text())
    for path in files:
        try:
            _add(found, str(path), path.read_text())
        except UnicodeDecodeError:
            raise TablewalkError(f"{path}: not UTF-8") from None
    return found


def _add(found: dict[str, Annotation], name: str, text: str) -> None:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise TablewalkError(f"{name}: {e}") from None
    for function, table in tables.items():
        known = {"takes": list, "opaque": bool, "reason": str}
        if not isinstance(table, dict) or any(not isinstance(v, known.get(k, ())) for k, v in table.items()):
            raise TablewalkError(f'{name}: [{function}] may have takes = [...], opaque = true and reason = "..."')
        takes = table.get("takes")
        if takes is not None and not all(isinstance(t, str) for t in takes):
            raise TablewalkError(f'{name}: [{function}] takes is a list of slots as "0->pte"')
        found[function] = Annotation(
            None if takes is None else frozenset(takes), table.get("opaque", False), table.get("reason", "")
        )

# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel without a patch does instead: one override a patch, at exactly the site that the patch changed.

`kernel/` is the newest kernel.  A function decorated with `patch` replaces its site in a kernel that lacks the
patch; a release lacks every patch that came after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])

Release = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Patch:
    """A row of the catalogue: `site` is `module.function` of `kernel/`, `since` the first release with the patch."""

    id: str
    commit: str
    title: str
    series: str
    since: Release
    site: str
    files: tuple[str, ...]
    override: str  # `module.function` of this package

    @property
    def release(self) -> str:
        """The first release that has it, as `6.6`."""
        return f"{self.since[0]}.{self.since[1]}"


_rows: dict[str, list[Patch]] = {}


def parse_release(text: str) -> Release:
    """`6.12` or `7.x` as a pair.  Raises ValueError for anything else."""
    major, _, minor = text.removeprefix("v").partition(".")
    return int(major), 10**6 if minor == "x" else int(minor)


def patch(
    id: str, *, title: str, since: str, site: str, commit: str = "", series: str = "", files: tuple[str, ...] = ()
) -> Callable[[F], F]:
    """Declare that the decorated function is what `site` is in a kernel without this patch."""

    def declare(func: F) -> F:
        module = func.__module__.rpartition(".")[2]
        row = Patch(id, commit, title, series, parse_release(since), site, files, f"{module}.{func.__name__}")
        package = func.__module__.rpartition(".")[0]
        rows = _rows.setdefault(package, [])
        if all(r.id != id or r.site != site for r in rows):
            rows.append(row)
        return func

    return declare


def catalogue() -> tuple[Patch, ...]:
    """Every row, by id."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return tuple(sorted(_rows.get(__name__, ()), key=lambda row: (row.id, row.site)))

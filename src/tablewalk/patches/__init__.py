# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel without a patch does instead: one override a patch, at exactly the site that the patch changed.

`kernel/` is the newest kernel.  A function decorated with `patch` replaces its site in a kernel that lacks the
patch; a release lacks every patch that came after it.  A `mutant` is one that is left out only by name: kernels
before it were right in other ways, or it repairs what no release had.

Rows of the catalogue that say what their absence does (`kind`, and what belongs to it) are verified by
`tablewalk patches --verify`.  `without_code` are those for which there is nothing to leave out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Final, TypeVar

F = TypeVar("F", bound=Callable[..., object])

Version = tuple[int, ...]

NEWEST = 10**6  # what `x` stands for

KINDS: Final = {
    "race": "without it a scenario breaks a rule",
    "count": "without it something is counted that is not with it",
    "latency": "without it somebody waits, or a lock is taken, who does not with it",
    "cleanup": "nothing observable",
    "release": "what another release does otherwise; validate compares it with real kernels",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """What the absence of a patch does, and where it shows.

    race: `scenario` breaks `invariant` without the patch (and whatever else `without` names), and is exhausted with it.
    count, latency: `measure` is `before` without the patch and `after` with it.
    cleanup: `note` says why; a `scenario` ends the same without it.
    """

    kind: str = "release"
    scenario: str = ""
    invariant: str = ""
    measure: str = ""
    before: int = 0
    after: int = 0
    note: str = ""
    kernel: str = "7.x"
    without: tuple[str, ...] = ()  # patches that are left out both times


RELEASE: Final = Claim()


@dataclass(frozen=True, slots=True)
class Patch:
    """A row of the catalogue: `site` is `module.function` of `kernel/`, `since` the first release with the patch.

    A patch that an older series was given too has another row, whose `since` is the stable release of that series.
    """

    id: str
    commit: str
    title: str
    series: str
    since: Version
    site: str
    files: tuple[str, ...]
    override: str  # `module.function` of this package, or empty: there is nothing to leave out
    mutant: bool = False
    claim: Claim = RELEASE

    @property
    def release(self) -> str:
        """The first release that has it, as `6.6` or `6.1.191`."""
        return ".".join(map(str, self.since))


_rows: dict[str, list[Patch]] = {}


def parse_version(text: str) -> tuple[int, int, int]:
    """`6.12`, `6.1.176` or `7.x` as three numbers: without a third it is the series' newest stable release.

    Raises ValueError for anything else.
    """
    said = text.removeprefix("v").split(".")
    major, minor, stable = said if len(said) == 3 else (*said, "x")
    return int(major), _number(minor), _number(stable)


def first_release(text: str) -> Version:
    """The numbers of `6.12` or `6.1.191`: to have what came with it a kernel must not be older."""
    return tuple([_number(part) for part in text.split(".")])


def _number(text: str) -> int:
    return NEWEST if text == "x" else int(text)


def patch(
    id: str,
    *,
    title: str,
    since: str,
    site: str,
    commit: str = "",
    series: str = "",
    files: tuple[str, ...] = (),
    mutant: bool = False,
    claim: Claim = RELEASE,
) -> Callable[[F], F]:
    """Declare that the decorated function is what `site` is in a kernel without this patch."""

    def declare(func: F) -> F:
        package, _, module = func.__module__.rpartition(".")
        override = f"{module}.{func.__name__}"
        _declare(package, Patch(id, commit, title, series, first_release(since), site, files, override, mutant, claim))
        return func

    return declare


def without_code(
    module: str, id: str, *, title: str, since: str, commit: str, series: str, files: tuple[str, ...], claim: Claim
) -> None:
    """Declare a patch of which the model has nothing to leave out; `module` is the caller's `__name__`."""
    package = module.rpartition(".")[0]
    _declare(package, Patch(id, commit, title, series, first_release(since), "", files, "", True, claim))


def _declare(package: str, row: Patch) -> None:
    rows = _rows.setdefault(package, [])
    if all(r.id != row.id or r.site != row.site for r in rows):
        rows.append(row)


def catalogue() -> tuple[Patch, ...]:
    """Every row, by id; a patch with several sites has several rows."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return tuple(sorted(_rows.get(__name__, ()), key=lambda row: (row.id, row.site)))


def overrides() -> tuple[Patch, ...]:
    """The rows of which there is something to leave out."""
    return tuple(row for row in catalogue() if row.override)

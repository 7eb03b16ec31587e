# SPDX-License-Identifier: GPL-2.0-only
"""What is counted rather than explored: programs of one thread that end in a figure.

    @measure("page tables that MADV_DONTNEED leaves, kB")
    def dontneed_leaves(s):
        p = s.process()
        ...
        return p.vmpte()

They are written in the words of scenarios, and run on tables of the real size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

from .scenario import Setup


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure: its name, what is counted, and the program that counts it on a kernel just booted."""

    name: str
    title: str
    program: Callable[[Setup], int]
    arch: str
    options: tuple[tuple[str, str], ...]
    driver: str


_declared: Final[dict[str, Measure]] = {}


def measure(
    title: str, arch: str = "x86_64", options: dict[str, str] | None = None, driver: str = "sequential"
) -> Callable[[Callable[[Setup], int]], Callable[[Setup], int]]:
    """Declare a measure by its program; the driver `checked` is for programs that break a rule, or do not."""

    def declare(program: Callable[[Setup], int]) -> Callable[[Setup], int]:
        name = program.__name__.replace("_", "-")
        _declared[name] = Measure(name, title, program, arch, tuple((options or {}).items()), driver)
        return program

    return declare


def measures() -> dict[str, Measure]:
    """Those that come along, by name."""
    import_module("tablewalk.scenarios.measures")
    return _declared


def take(m: Measure, release: str, without: tuple[str, ...]) -> int:
    """The figure on kernel `release` without some patches."""
    model = drivers.model(KernelConfig(release, m.arch, m.options, without), m.driver)
    return m.program(Setup(model))

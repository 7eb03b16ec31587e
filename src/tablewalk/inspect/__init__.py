# SPDX-License-Identifier: GPL-2.0-only
"""The page tables of live processes: how many, how many of them hold nothing, what could be had back.

Facts and their limits are in docs/inspect.md.  Only x86-64 is known; `Inspector` refuses other machines.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from tablewalk.arch import Arch
from tablewalk.errors import TablewalkError
from tablewalk.inspect import pagemap
from tablewalk.inspect.account import Account, account
from tablewalk.inspect.procfs import Process, Uninspectable, same_mm, why

TRIES = 3

__all__ = ["Account", "Inspection", "Inspector", "Survey", "Uninspectable"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """One process.  `tables` counts table pages of `table_kb` kB each; `memory_kb` has the Vm* of its status.

    `changed` is True if the process went on changing its tables in each of the tries: the numbers are then of
    slightly different instants.
    """

    pid: int
    comm: str
    memory_kb: dict[str, int]
    lazyfree_kb: int
    table_kb: int
    tables: Account
    changed: bool


@dataclass(slots=True)
class Survey:
    """Several processes.  `same_mm` has the pids that run on the memory of another one, which counts once."""

    processes: list[Inspection] = field(default_factory=list)
    skipped: list[Uninspectable] = field(default_factory=list)
    same_mm: dict[int, int] = field(default_factory=dict)

    @property
    def distinct(self) -> list[Inspection]:
        return [p for p in self.processes if p.pid not in self.same_mm]


class Inspector:
    """Looks at live processes.  Raises TablewalkError on a machine or kernel that it does not know.

    `kernel` overrides what the running kernel was found to be able to do.
    """

    def __init__(self, kernel: pagemap.Kernel | None = None) -> None:
        if platform.machine() != "x86_64":
            raise TablewalkError(f"inspect knows the page tables of x86_64 only, not {platform.machine()}")
        self.arch = Arch()
        self.kernel = kernel or pagemap.probe(self.arch)

    def inspect(self, pid: int) -> Inspection:
        """Look at one process; raises Uninspectable if it cannot be looked at."""
        with Process(pid) as process:
            fd = process.open("pagemap")
            try:
                for _ in range(TRIES):
                    result = self._look(process, fd)
                    if not result.changed:
                        break
                return result
            except OSError as e:
                raise process.uninspectable(why(e)) from None
            finally:
                os.close(fd)

    def _look(self, process: Process, fd: int) -> Inspection:
        before = process.memory_kb()
        vmas = process.vmas()
        contents = pagemap.look(fd, vmas, self.kernel, self.arch)
        tables = account(before["VmPTE"], vmas, contents, self.arch)
        changed = tables.torn or tables.missing > 0
        if contents.tables is not None:
            again = pagemap.scan_tables(fd, vmas[0].start, vmas[-1].end)
            changed |= not np.array_equal(again, contents.tables)
        changed |= process.memory_kb()["VmPTE"] != before["VmPTE"]
        return Inspection(
            process.pid,
            process.comm,
            before,
            sum(v.kb.get("LazyFree", 0) for v in vmas),
            self.arch.page_size >> 10,
            tables,
            changed,
        )

    def survey(self, pids: Iterable[int], progress: Callable[[int], None] = lambda pid: None) -> Survey:
        """Look at several processes; those that cannot be looked at are in `skipped` with the reason."""
        survey = Survey()
        alike: dict[int, list[int]] = {}
        for pid in pids:
            progress(pid)
            try:
                found = self.inspect(pid)
            except Uninspectable as e:
                survey.skipped.append(e)
                continue
            survey.processes.append(found)
            twins = alike.setdefault(found.memory_kb["VmSize"], [])
            twin = next((t for t in twins if same_mm(t, pid)), None)
            if twin is None:
                twins.append(pid)
            else:
                survey.same_mm[pid] = twin
        return survey

# SPDX-License-Identifier: GPL-2.0-only
"""What calls cost, added up by kind of call and mapping."""

from __future__ import annotations

from typing import NamedTuple

from tablewalk.machine.drivers import Model
from tablewalk.replay.calls import MMAP, SHMAT, name_of
from tablewalk.replay.peek import Peek
from tablewalk.replay.results import Site
from tablewalk.replay.spaces import AddressSpace
from tablewalk.replay.stream import Event
from tablewalk.replay.walk import Walker

_COUNTED = (
    "tlb_flushes", "ipis", "rcu_callbacks", "pte_tables_allocated", "pmd_tables_allocated", "pte_tables_freed",
    "pmd_tables_freed",
)  # fmt: skip


class Call(NamedTuple):
    """A call that is being run: where its costs go, and the machine's counts when it began."""

    site: Site
    stats: list[int]
    locks: int


class Costs:
    """Adds up costs in the `sites` of address spaces."""

    def __init__(self, model: Model, peek: Peek, walker: Walker) -> None:
        self._peek, self._walker = peek, walker
        self._stats: list[int] = model.machine.stats
        self._locks: list[int] = model.machine.lockstat
        names: tuple[str, ...] = model.module("machine.stat").STAT_NAMES
        self._at = [names.index(name) for name in _COUNTED]
        self._retracted = names.index("retracted")
        arch = model.arch
        self._pte_kb, self._pmd_kb = arch.pte_bytes >> 10, arch.pmd_bytes >> 10

    def site(self, space: AddressSpace, call: str, address: int) -> Site:
        """Where such calls on the mapping at `address` are added up."""
        key = (call, self._peek.start_of(space.mm, address))
        site = space.sites.get(key)
        if site is None:
            vma = self._peek.vma_at(space.mm, address)
            where = f"{self._walker.what(space.mm, vma)} at {vma.start:#x}" if vma else "nothing mapped"
            site = space.sites[key] = Site(call, where)
        return site

    def begin(self, space: AddressSpace, e: Event) -> Call:
        """A call is about to be run. Those that make mappings are told apart by what they map."""
        name = name_of(e.nr, e.a)
        if e.nr not in (MMAP, SHMAT):
            site = self.site(space, name, e.a[0])
        else:
            what = (e.inside[0].name or "") if e.inside else "not told"
            what = "anonymous memory" if what == "//anon" else what
            site = space.sites.setdefault((name + what, 0), Site(name, what))
        return Call(site, self._stats[:], sum(self._locks))

    def reached_others(self, call: Call) -> bool:
        """Whether it has taken tables from mappings of a file, and so perhaps from other processes."""
        return self._stats[self._retracted] != call.stats[self._retracted]

    def end(self, call: Call, change: int) -> tuple[int, int]:
        """It has changed VmPTE by `change` kB; returns the kB of tables that it made and freed on its way."""
        site, was, now = call.site, call.stats, self._stats
        site.add(change)
        flushes, ipis, rcu, pte_made, pmd_made, pte_freed, pmd_freed = self._at
        site.flushes += now[flushes] - was[flushes]
        site.ipis += now[ipis] - was[ipis]
        site.rcu_callbacks += now[rcu] - was[rcu]
        site.locks += sum(self._locks) - call.locks
        made = (now[pte_made] - was[pte_made]) * self._pte_kb + (now[pmd_made] - was[pmd_made]) * self._pmd_kb
        freed = (now[pte_freed] - was[pte_freed]) * self._pte_kb + (now[pmd_freed] - was[pmd_freed]) * self._pmd_kb
        return made, freed

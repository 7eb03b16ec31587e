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


class Work(NamedTuple):
    """The machine's counts so far, of all address spaces together."""

    flushes: int
    ipis: int
    rcu_callbacks: int
    locks: int
    made_kb: int
    freed_kb: int


class Call(NamedTuple):
    """A call that is being run: where its costs go, and the counts when it began."""

    site: Site
    began: Work


class Costs:
    """Adds up costs in the `sites` of address spaces."""

    def __init__(self, model: Model, peek: Peek, walker: Walker) -> None:
        self._peek, self._walker = peek, walker
        self._stats, self._locks = model.machine.stats, model.machine.lockstat
        names = model.module("machine.stat").STAT_NAMES
        self._flushes, self._ipis, self._rcu = (names.index(n) for n in ("tlb_flushes", "ipis", "rcu_callbacks"))
        arch = model.module("arch").arch
        kinds = (("pte", arch.pte_bytes), ("pmd", arch.pmd_bytes))
        self._made = [(names.index(f"{kind}_tables_allocated"), size) for kind, size in kinds]
        self._freed = [(names.index(f"{kind}_tables_freed"), size) for kind, size in kinds]

    def site(self, space: AddressSpace, call: str, address: int) -> Site:
        """Where such calls on the mapping at `address` are added up."""
        vma = self._peek.vma_at(space.mm, address)
        key = (call, vma.start if vma else -1)
        site = space.sites.get(key)
        if site is None:
            where = f"{self._walker.what(space.mm, vma)} at {vma.start:#x}" if vma else "nothing mapped"
            site = space.sites[key] = Site(call, where)
        return site

    def begin(self, space: AddressSpace, e: Event) -> Call:
        """A call is about to be run. Those that make mappings are told apart by what they map."""
        name = name_of(e.nr, e.a)
        if e.nr not in (MMAP, SHMAT):
            return Call(self.site(space, name, e.a[0]), self._work())
        what = (e.inside[0].name or "") if e.inside else "not told"
        what = "anonymous memory" if what == "//anon" else what
        site = space.sites.setdefault((name + what, 0), Site(name, what))
        return Call(site, self._work())

    def end(self, call: Call, change: int) -> tuple[int, int]:
        """It has changed VmPTE by `change` kB; returns the kB of tables that it made and freed on its way."""
        site, began, now = call.site, call.began, self._work()
        site.add(change)
        site.flushes += now.flushes - began.flushes
        site.ipis += now.ipis - began.ipis
        site.rcu_callbacks += now.rcu_callbacks - began.rcu_callbacks
        site.locks += now.locks - began.locks
        return now.made_kb - began.made_kb, now.freed_kb - began.freed_kb

    def _work(self) -> Work:
        s = self._stats
        made = sum(s[i] * size for i, size in self._made) >> 10
        freed = sum(s[i] * size for i, size in self._freed) >> 10
        return Work(s[self._flushes], s[self._ipis], s[self._rcu], sum(self._locks), made, freed)

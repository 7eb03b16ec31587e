# SPDX-License-Identifier: GPL-2.0-only
"""What the engine keeps of each address space and process: history of VmPTE, peak, costs."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Any

from tablewalk.machine.drivers import Model
from tablewalk.replay.results import Holders, Site, Tables

RSS_STEPS = 64  # a point of the RSS history is kept where RSS changed by this part of its peak


class AddressSpace:
    """An mm of the model. `mm` is None once it is gone; `stopped` says why the model no longer follows it."""

    def __init__(self, mm: Any, t: int) -> None:
        self.mm = mm
        self.users = 1  # processes
        self.pids: list[int] = []  # all that ever used it
        self.times = array("q", [t])
        self.kbs = array("q", [0])
        self.rss_times = array("q")
        self.rss_kbs = array("q")
        self.rss_peak_kb = 0
        self.peak = Tables(t=t)
        self.end = Tables(t=t)
        self.holders: Holders | None = None
        self.stats: list[int] | None = None  # by machine.stats
        self.locks: list[int] | None = None  # by machine.lockstat
        self.sites: dict[tuple[str, int], Site] = {}  # by call and start of the mapping
        self.foreign: list[tuple[int, int, int]] = []  # begin, end and effect of other processes' calls that changed it
        self.transients: dict[int, tuple[int, int]] = {}  # t: lowest and highest kB inside the call
        self.faults = 0
        self.calls = 0
        self.walked = 0  # faults and calls when its tables were last walked
        self.stopped: str | None = None
        self.stopped_t = 0


class Process:
    """A pid from the fork or exec that made it to its exit, with the address spaces it had one after the other."""

    def __init__(self, pid: int, generation: int, name: str, t: int) -> None:
        self.pid, self.generation, self.name = pid, generation, name
        self.start = t
        self.end: int | None = None
        self.tids = {pid}
        self.spaces: list[tuple[int, AddressSpace, bool]] = []  # from when on, which, whether it is its own
        self.exec_since: int | None = None
        self.execs: list[tuple[int, int]] = []  # begin and end of each exec

    @property
    def space(self) -> AddressSpace | None:
        return self.spaces[-1][1] if self.spaces else None

    @property
    def peak_kb(self) -> int:
        """The highest VmPTE of its address spaces, also while it did not use them."""
        return max((space.peak.vmpte_kb for _, space, _ in self.spaces), default=0)

    def history(self) -> tuple[array[int], array[int]]:
        """(times, kB) over its whole life, whatever its address space was."""
        times, kbs = array("q"), array("q")
        for i, (since, space, _) in enumerate(self.spaces):
            until = self.spaces[i + 1][0] if i + 1 < len(self.spaces) else self.end
            first = max(bisect_right(space.times, since) - 1, 0)
            last = len(space.times) if until is None else bisect_right(space.times, until)
            times.append(max(since, space.times[first]))
            kbs.append(space.kbs[first])
            times += space.times[first + 1 : last]
            kbs += space.kbs[first + 1 : last]
        return times, kbs


class Meter:
    """Reads the model's counters for an address space, and shares the machine's out among them."""

    def __init__(self, model: Model) -> None:
        machine = model.machine
        self._load = machine.load
        self._stats: list[int] = machine.stats
        self._locks: list[int] = machine.lockstat
        self._seen_stats = list(self._stats)
        self._seen_locks = list(self._locks)
        arch = model.arch
        self._bytes = (arch.pte_bytes, arch.pmd_bytes, arch.pud_bytes)
        self._page_kb = arch.page_size >> 10
        self._mm_pgtables_bytes = model.kernel("pgtable_generic").mm_pgtables_bytes

    def charge(self, space: AddressSpace | None) -> None:
        """What the machine has counted since the last call was for `space` (None: for nobody)."""
        stats, locks = list(self._stats), list(self._locks)
        if space is not None:
            if space.stats is None or space.locks is None:
                space.stats, space.locks = [0] * len(stats), [0] * len(locks)
            seen = self._seen_stats
            space.stats = [a + b - c for a, b, c in zip(space.stats, stats, seen, strict=True)]
            seen = self._seen_locks
            space.locks = [a + b - c for a, b, c in zip(space.locks, locks, seen, strict=True)]
        self._seen_stats, self._seen_locks = stats, locks

    def note(self, space: AddressSpace, t: int) -> int:
        """Look at VmPTE after a change that took effect at `t`; returns it in kB."""
        kb: int = self._mm_pgtables_bytes(space.mm) >> 10
        if kb != space.kbs[-1]:
            if space.times[-1] == t:
                space.kbs[-1] = kb
            else:
                space.times.append(t)
                space.kbs.append(kb)
            if kb > space.peak.vmpte_kb:
                space.peak = self.tables(space.mm, t, kb)
        return kb

    def note_rss(self, space: AddressSpace, t: int) -> None:
        """Look at RSS: exact for the peak if called before anything that may free memory."""
        load, mm = self._load, space.mm
        kb = (load(mm.anon_rss) + load(mm.file_rss) + load(mm.shmem_rss)) * self._page_kb
        peak = space.rss_peak_kb
        if kb > peak:
            space.rss_peak_kb = peak = kb
        last = space.rss_kbs[-1] if space.rss_kbs else 0
        if abs(kb - last) * RSS_STEPS > peak:
            space.rss_times.append(t)
            space.rss_kbs.append(kb)

    def tables(self, mm: Any, t: int, kb: int) -> Tables:
        """The counters of an mm."""
        load, page_kb = self._load, self._page_kb
        deposited = load(mm.nr_deposited)
        return Tables(
            vmpte_kb=kb,
            t=t,
            pte=load(mm.nr_ptes) - deposited,
            pmd=load(mm.nr_pmds),
            pud=load(mm.nr_puds),
            deposited=deposited,
            rss_anon_kb=load(mm.anon_rss) * page_kb,
            rss_file_kb=load(mm.file_rss) * page_kb,
            rss_shmem_kb=load(mm.shmem_rss) * page_kb,
            huge_anon=load(mm.anon_huge),
            huge_file=load(mm.file_huge),
        )

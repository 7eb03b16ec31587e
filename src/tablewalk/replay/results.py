# SPDX-License-Identifier: GPL-2.0-only
"""What a replay found: plain data that reports print and `--json` dumps. Sizes are kB, times ns (CLOCK_MONOTONIC)."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tables:
    """The page tables and resident pages of a process at one instant.

    `empty` counts PTE tables without a single entry, `deposited` those kept for the split of a huge page;
    both are part of VmPTE. Either is None where nobody walked the tables at that instant.
    """

    vmpte_kb: int = 0
    t: int = 0
    pte: int = 0  # tables that map something or are empty, without the deposited ones
    pmd: int = 0
    pud: int = 0
    deposited: int = 0
    empty: int | None = None
    rss_anon_kb: int = 0
    rss_file_kb: int = 0
    rss_shmem_kb: int = 0
    huge_anon: int = 0  # huge pages mapped by a PMD
    huge_file: int = 0

    @property
    def rss_kb(self) -> int:
        return self.rss_anon_kb + self.rss_file_kb + self.rss_shmem_kb


@dataclass(slots=True)
class Holder:
    """A mapping and the page tables it holds; a table that several mappings share is the first one's."""

    start: int
    end: int
    what: str  # file name, [heap], [stack], anon
    pte: int = 0
    empty: int = 0
    huge: int = 0


@dataclass(slots=True)
class Holders:
    """Which mappings held the tables at time `t`, largest first; `others` mappings are left out."""

    t: int
    vmpte_kb: int
    mappings: list[Holder]
    others: int = 0
    others_pte: int = 0


@dataclass(slots=True)
class Site:
    """Calls of one kind on one mapping (or page faults in it, which count as far as they changed a table)."""

    call: str
    where: str
    calls: int = 0
    allocated_kb: int = 0
    freed_kb: int = 0
    flushes: int = 0
    ipis: int = 0
    rcu_callbacks: int = 0
    locks: int = 0

    def add(self, change: int) -> None:
        """One more call, which has changed VmPTE by `change` kB."""
        self.calls += 1
        if change > 0:
            self.allocated_kb += change
        else:
            self.freed_kb -= change

    @property
    def work(self) -> int:
        """What orders sites by cost: interrupts and flushes weigh as many lock acquisitions as they take time."""
        return self.locks + 20 * self.flushes + 50 * self.ipis + 10 * self.rcu_callbacks


@dataclass(slots=True)
class Disagreement:
    """A sample that the model does not explain."""

    t: int
    real_kb: int
    model_kb: int  # the model's nearest value


@dataclass(slots=True)
class Check:
    """Samples against the model: `strict` the value at some instant of the read, else allowing for calls in flight."""

    compared: int = 0
    disagreements: int = 0
    disagreements_strict: int = 0
    error_kb: int = 0  # sum of absolute strict errors
    max_error_kb: int = 0  # largest error that calls in flight don't explain
    max_error_strict_kb: int = 0
    first: list[Disagreement] = field(default_factory=list)


@dataclass(slots=True)
class SamplePoint:
    """One sample with the model's value at its beginning."""

    t: int
    real_kb: int
    model_kb: int
    exact: bool


@dataclass(slots=True)
class ProcessResult:
    """One process (pid and generation, for pids are used again) under one kernel."""

    pid: int
    generation: int
    name: str
    start: int
    end: int
    times: array[int]
    kbs: array[int]
    peak_kb: int = 0
    peak_t: int = 0
    final_kb: int = 0
    sampled: int = 0  # samples of it in the recording
    sampled_peak_kb: int | None = None
    sampled_final_kb: int | None = None
    points: list[SamplePoint] = field(default_factory=list)  # a selection, for tables
    samples: list[tuple[int, int]] = field(default_factory=list)  # (t, kB), thinned, for the timeline
    rss_times: array[int] = field(default_factory=lambda: array("q"))
    rss_kbs: array[int] = field(default_factory=lambda: array("q"))
    rss_peak_kb: int = 0
    at_peak: Tables = field(default_factory=Tables)
    at_end: Tables = field(default_factory=Tables)
    holders: Holders | None = None
    counts: dict[str, int] = field(default_factory=dict)
    locks: dict[str, int] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)
    faults: int = 0
    check: Check | None = None
    stopped: str | None = None  # why the model does not know it from `stopped_t` on
    stopped_t: int = 0
    shares_with: int | None = None  # pid whose address space this one uses (vfork, CLONE_VM)


@dataclass(slots=True)
class Mismatch:
    """A call whose outcome in the model is not the recorded one: how often, and the first."""

    call: str
    times: int
    t: int
    pid: int
    detail: str


@dataclass(slots=True)
class Accuracy:
    """How the recording and the model agree besides VmPTE."""

    vma_extents: int = 0  # mappings whose extent after merging the recording tells
    vma_mismatches: int = 0
    vma_first: list[str] = field(default_factory=list)
    returns: int = 0  # calls whose return value was compared
    mismatches: list[Mismatch] = field(default_factory=list)
    faults_refused: int = 0  # served in reality, refused by the model
    faults_refused_first: list[str] = field(default_factory=list)
    faults_failed: int = 0  # not served in reality, by reading the recording
    faults_failed_odd: int = 0  # of these, such that the model would have served
    faults_unattributed: int = 0  # of processes that the replay does not know (any more)
    write_unknown: int = 0  # faults whose write bit was not recorded


@dataclass(slots=True)
class KernelResult:
    """The replay of one recording under one kernel."""

    kernel: str
    arch: str
    options: dict[str, str]  # asked for
    without: list[str]
    page_size: int
    processes: list[ProcessResult] = field(default_factory=list)
    more_processes: int = 0  # left out of `processes`, each with a smaller peak
    more_peak_kb: int = 0
    more_check: Check | None = None  # the samples of those left out
    accuracy: Accuracy = field(default_factory=Accuracy)
    uncovered: int = 0  # samples of processes or times that the recording does not cover
    harmless: dict[str, int] = field(default_factory=dict)  # calls that cannot change VmPTE
    unapplied: dict[str, int] = field(default_factory=dict)  # calls that failed in reality for reasons not recorded
    unknowns: list[str] = field(default_factory=list)  # what happened and is not known
    recorded: dict[str, str] = field(default_factory=dict)  # options taken from the recorded machine
    effective: dict[str, str] = field(default_factory=dict)  # the main options as the replay ran with them
    rows: int = 0
    rows_total: int = 0
    interrupted: bool = False
    seconds: float = 0.0
    max_rss_kb: int = 0  # of the replaying process

    @property
    def partial(self) -> bool:
        return self.interrupted or any(p.stopped for p in self.processes)

    @property
    def label(self) -> str:
        parts = [self.kernel, *(f"{k}={v}" for k, v in self.options.items()), *(f"-{p}" for p in self.without)]
        return " ".join(parts)


@dataclass(slots=True)
class Source:
    """The recording, as far as reports speak of it."""

    path: str
    command: list[str]
    kernel: str
    machine: str
    start: int
    end: int
    rows: int
    lost: int
    complete: bool
    missing: list[str]
    exit_status: int | None


@dataclass(slots=True)
class Report:
    """One recording under one or several kernels."""

    source: Source
    results: list[KernelResult]
    checked: bool

# SPDX-License-Identifier: GPL-2.0-only
"""Simulations as a Chrome trace: threads with what they do and wait for, CPUs with who runs on them, VmPTE."""

from __future__ import annotations

from tablewalk.report.chrome import NS, Trace
from tablewalk.simulate.log import Log
from tablewalk.simulate.run import Result


def us(ps: int) -> float:
    """Microseconds, to the nanosecond: rounded down, so that what nests still does."""
    return (ps // 1000) / 1000


def chrome_trace(results: list[Result]) -> str:
    """One trace of all; each kernel's threads are a process, and its CPUs another."""
    trace = Trace()
    for i, r in enumerate(results):
        if r.log:
            _threads(trace, 2 * i + 1, r, r.log)
            _cpus(trace, 2 * i + 2, r, r.log)
    return trace.text()


def _threads(trace: Trace, pid: int, r: Result, log: Log) -> None:
    trace.process(pid, f"{r.workload} under {r.kernel}: threads")
    for t, name in enumerate(log.threads):
        trace.track(pid, t, name)
    for o in log.operations:
        trace.slice(pid, o.thread, o.name, us(o.begin), us(o.end), function=o.function)
    for run in log.runs:
        if run.thread in log.daemons:
            trace.slice(pid, run.thread, "runs", us(run.begin), us(run.end))
    for w in log.waits:
        trace.slice(pid, w.thread, f"{w.function} waits for {w.lock}", us(w.begin), us(w.end),
                    function=w.function, lock=w.lock)  # fmt: skip
        for b in w.blame:
            if b.holder < 0:
                trace.slice(pid, w.thread, b.function, us(b.begin), us(b.end))
                continue
            holder = log.threads[b.holder]
            trace.slice(pid, w.thread, f"{holder} in {b.function}", us(b.begin), us(b.end),
                        holder=holder, function=b.function)  # fmt: skip
            at = round(us(b.end) - NS, 3)
            if at >= us(b.begin):
                trace.flow(f"{b.function} lets go of {w.lock}", pid, (b.holder, at), (w.thread, at))
    for mm, sizes in log.memory.items():
        name = "VmPTE" if len(log.memory) == 1 else f"VmPTE of {mm:#x}"
        for at_ps, size in sizes:
            trace.counter(pid, name, us(at_ps), kB=size >> 10)


def _cpus(trace: Trace, pid: int, r: Result, log: Log) -> None:
    trace.process(pid, f"{r.workload} under {r.kernel}: CPUs")
    for cpu in range(r.cpus):
        trace.track(pid, cpu, f"CPU {cpu}")
    for run in log.runs:
        trace.slice(pid, run.cpu, log.threads[run.thread], us(run.begin), us(run.end))
    for cpu, at in log.interrupts:
        trace.instant(pid, cpu, "IPI", us(at))

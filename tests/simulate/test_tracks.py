# SPDX-License-Identifier: GPL-2.0-only
"""What a simulation logs, and the Chrome trace of it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tablewalk.cli import run
from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import KernelConfig
from tablewalk.simulate.log import Log
from tablewalk.simulate.run import as_object, simulate
from tablewalk.simulate.workloads import WORKLOADS

SMALL = {"threads": 3, "extents": 2, "rounds": 1}


@pytest.mark.parametrize(("workload", "cpus"), list(zip(WORKLOADS, (2, 8, 2, 8, 2), strict=False)))
def test_a_log_changes_nothing_and_has_all_waits(workload: str, cpus: int) -> None:
    plain = simulate(workload, KernelConfig("6.1"), cpus, 1, SMALL)
    logged = simulate(workload, KernelConfig("6.1"), cpus, 1, SMALL, logged=True)
    assert as_object(plain) == as_object(logged) and plain.log is None
    log = logged.log
    assert log is not None
    told: Counter[tuple[str, str, str, str]] = Counter()
    for w in log.waits:
        for b in w.blame:
            holder = log.threads[b.holder] if b.holder >= 0 else ""
            told[w.lock, w.function, holder, b.function] += b.end - b.begin
            assert w.begin <= b.begin <= b.end <= w.end
    named = {key: w.total for key, w in logged.waits.by.items() if key[0] != "vm_area_struct.vm_refcnt" and w.total}
    assert {key: ps for key, ps in told.items() if key in named} == named
    assert Counter(o.name for o in log.operations if o.name in logged.latencies) == {
        name: len(found) for name, found in logged.latencies.items()
    }


def test_one_thread_has_a_cpu_at_a_time() -> None:
    log = simulate("anon-collapse", KernelConfig(), 2, 1, SMALL, logged=True).log
    assert isinstance(log, Log)
    by_cpu = defaultdict(list)
    for r in log.runs:
        by_cpu[r.cpu].append((r.begin, r.end))
    assert sorted(by_cpu) == [0, 1]
    for spans in by_cpu.values():
        spans.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("perfetto") / "trace.json"
    assert run(["simulate", "shmem-collapse", "--kernel", "6.1", "--kernel", "7.x", "--with", "threads=6",
                "--with", "extents=8", "--with", "rounds=4", "--perfetto", str(path)]) == 0  # fmt: skip
    told = json.loads(path.read_text())
    assert told["displayTimeUnit"] == "ns"
    return list(told["traceEvents"])


def test_tracks_have_names_and_their_slices_nest(events: list[dict[str, Any]]) -> None:
    named = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    groups = [e["args"]["name"] for e in events if e["name"] == "process_name"]
    assert groups == [f"shmem-collapse under {k}: {what}" for k in ("6.1", "7.x") for what in ("threads", "CPUs")]
    assert {"collapser", "thread5", "CPU 7", "rcu"} <= set(named.values())
    slices = defaultdict(list)
    for e in events:
        if e["ph"] == "X":
            slices[e["pid"], e["tid"]].append((e["ts"], -e["dur"]))
    assert slices.keys() <= named.keys()
    for spans in slices.values():
        open_until: list[float] = []
        for ts, dur in sorted(spans):
            while open_until and open_until[-1] <= ts:
                open_until.pop()
            assert dur <= 0 and (not open_until or round(ts - dur, 3) <= open_until[-1])
            open_until.append(round(ts - dur, 3))


def test_flows_lead_from_who_held_a_lock_to_who_waited(events: list[dict[str, Any]]) -> None:
    slices = [e for e in events if e["ph"] == "X"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}

    def around(e: dict[str, Any]) -> set[str]:
        return {s["name"] for s in slices if (s["pid"], s["tid"]) == (e["pid"], e["tid"])
                and s["ts"] <= e["ts"] < s["ts"] + s["dur"]}  # fmt: skip

    begun = {e["id"]: e for e in events if e["ph"] == "s"}
    ended = {e["id"]: e for e in events if e["ph"] == "f"}
    assert begun.keys() == ended.keys() and len(begun) > 50
    for number, e in ended.items():
        holder = begun[number]
        assert holder["ts"] <= e["ts"] and holder["name"] == e["name"] and e["bp"] == "e"
        assert around(holder), "who held it is in a call"
        lock, function = e["name"].split(" lets go of ")[1], e["name"].split(" lets go of ")[0]
        assert any(name.endswith(f"waits for {lock}") for name in around(e))
        assert f"{names[holder['pid'], holder['tid']]} in {function}" in around(e)
    blamed = sum("holder" in s["args"] and s["dur"] >= 0.001 for s in slices)
    assert len(begun) == blamed, "every nanosecond's part of a wait that somebody is to blame for has its flow"
    functions = {s["args"].get("function") for s in slices}
    assert "finish_fault" in functions and functions & {"collapse_mapped_thp", "retract_locked"}


def test_times_are_microseconds(events: list[dict[str, Any]]) -> None:
    result = simulate("shmem-collapse", KernelConfig("7.x"), 8, 1, {"threads": 6, "extents": 8, "rounds": 4})
    longest = max(e["dur"] for e in events if e.get("pid") == 3 and e["name"] == "MADV_COLLAPSE")
    assert longest == pytest.approx(result.percentile("MADV_COLLAPSE", 100) / 1e6, abs=0.002)
    sizes = [e["args"]["kB"] for e in events if e["ph"] == "C" and e["name"] == "VmPTE" and e["pid"] == 3]
    assert len(sizes) > 3 and min(sizes) >= 8 and all(kb % 4 == 0 for kb in sizes)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TablewalkError, match=r"t\.json: cannot be written: No such file"):
        run(["simulate", "dontneed-storm", "--with", "rounds=1", "--perfetto", str(tmp_path / "no-such" / "t.json")])

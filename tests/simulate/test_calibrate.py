# SPDX-License-Identifier: GPL-2.0-only
"""Calibration: a profile fitted to measurements gives them back when it is simulated."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tablewalk.machine.drivers import KernelConfig
from tablewalk.simulate.calibrate import LONE, MEASURE, SINGLE, as_table, fitted
from tablewalk.simulate.profile import Profile
from tablewalk.simulate.run import simulate
from tablewalk.validate.build import static_program
from tablewalk.validate.targets import host_arch

MEASURED = {
    "syscall": 200.0, "atomic": 5.0, "load": 1.5, "clear": 0.1, "copy": 0.2, "switch": 2000.0,
    "preempt": 9000.0, "transfer": 90.0, "wakeup": 3000.0, "shootdown": 2000.0, "grace_period": 5e6,
    "dontneed.fault.p50": 1500.0, "dontneed.dontneed.p50": 20_000.0, "collapse": 1e6,
}  # fmt: skip


def test_a_fitted_profile_gives_back_what_was_measured(tmp_path: Path) -> None:
    profile = fitted(MEASURED, "test")
    assert (profile.zero, profile.copy, profile.syscall, profile.transfer) == (10, 5, 200, 90)
    assert profile.ipi_send + profile.ipi_each + profile.ipi_latency + profile.ipi_handler == pytest.approx(1965)
    r = simulate("dontneed-storm", KernelConfig("6.18"), 1, 1, {"threads": 1, "extents": 2, "rounds": 2}, profile)
    assert r.percentile("page fault", 50.0) / 1000 == pytest.approx(1500, rel=0.01)
    assert r.percentile("MADV_DONTNEED", 50.0) / 1000 == pytest.approx(20_000, rel=0.05)
    r = simulate(LONE[0], KernelConfig("6.18"), 1, 1, LONE[1], profile)
    assert r.percentile("MADV_COLLAPSE", 50.0) / 1000 == pytest.approx(1e6, rel=0.01)
    (tmp_path / "profile.json").write_text(json.dumps(as_table(profile)))
    assert Profile.read(tmp_path / "profile.json").exception == pytest.approx(profile.exception, abs=0.001)


@pytest.mark.parametrize(("release", "known"), [("6.18", True), ("6.12", False)])
def test_what_a_table_costs_is_what_reclaim_adds(release: str, known: bool) -> None:
    """A kernel that does not reclaim tables cannot tell."""
    with_tables = {"single.loop.p50": 6000.0, "singlekeep.loop.p50": 4500.0}
    profile = fitted(MEASURED | with_tables, "test", release)
    assert (profile.table != Profile().table) == known
    loops = [simulate("dontneed-storm", KernelConfig(release), 1, 1, SINGLE[1] | {"keep": keep}, profile)
             for keep in (0, 1)]  # fmt: skip
    all_, less = (sum(r.percentile(name, 50.0) for name in r.latencies) / 1000 for r in loops)
    assert all_ - less == pytest.approx(1500 if known else 0, abs=5)


def test_what_was_not_measured_stays_as_it_is() -> None:
    absent = ("transfer", "wakeup", "shootdown", "grace_period", "collapse")
    profile = fitted({k: v for k, v in MEASURED.items() if k not in absent}, "test")
    assert (profile.transfer, profile.wakeup, profile.ipi_send) == (70, 2500, 250)
    assert (profile.grace_period, profile.isolate) == (12e6, 300)


def test_the_measuring_program_measures() -> None:
    program = static_program(MEASURE, host_arch())
    done = subprocess.run([program], input="dontneed\n", capture_output=True, text=True, check=True, timeout=300)
    told = dict(line.split() for line in done.stdout.splitlines())
    assert float(told["dontneed.fault.n"]) == 40 * 8 * 64
    p50, p99, longest = (float(told[f"dontneed.fault.{part}"]) for part in ("p50", "p99", "max"))
    assert 0 < p50 <= p99 <= longest
    assert float(told["single.fault.n"]) == 40 * 8
    assert float(told["keep.loop.p50"]) > float(told["keep.dontneed.p50"]) > 0
    assert subprocess.run([program], input=b"nothing\n", capture_output=True, check=False).returncode == 1

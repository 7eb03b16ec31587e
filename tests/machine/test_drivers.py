# SPDX-License-Identifier: GPL-2.0-only
"""The same program on every driver and release: same results, and no rule broken."""

from __future__ import annotations

import pytest

from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

from .programs import Machine, random_program

RELEASES = ("6.1", "6.12", "6.18", "7.x")


def run(driver: str, release: str, seed: int, length: int) -> list[tuple[int, ...]]:
    machine = Machine(drivers.model(KernelConfig(release), driver))
    trace = [machine.run(op) for op in random_program(seed, length)]
    machine.exit()
    return trace


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("seed", range(3))
def test_checked_finds_nothing_and_agrees(release: str, seed: int) -> None:
    assert run("checked", release, seed, 250) == run("sequential", release, seed, 250)


def test_a_run_is_repeatable() -> None:
    assert run("sequential", "7.x", 11, 200) == run("sequential", "7.x", 11, 200)


def test_releases_differ_where_they_should() -> None:
    """Table reclaim and retraction show in any program long enough."""
    assert run("sequential", "6.1", 5, 300) != run("sequential", "7.x", 5, 300)


def test_of_two_overrides_of_a_site_the_older_stays() -> None:
    model = drivers.load("sequential")
    rows = model.module("patches").catalogue()
    sites = {r.site for r in rows if sum(r.site == other.site for other in rows) > 1}
    for site in sites:
        oldest = min((r for r in rows if r.site == site), key=lambda r: r.since)
        model.configure(KernelConfig("6.1"))
        module, _, name = site.rpartition(".")
        where, _, override = oldest.override.rpartition(".")
        if oldest.since > (6, 1):
            assert getattr(model.kernel(module), name) is getattr(model.module(f"patches.{where}"), override)
    model.configure(KernelConfig())

# SPDX-License-Identifier: GPL-2.0-only
"""The same program on every driver and release: same results, and no rule broken."""

from __future__ import annotations

import re

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig
from tablewalk.machine.native import INTERPRETED, ROOT, UNCOMPILED

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


@pytest.mark.parametrize("release", ["6.1", "6.1.176", "6.1.191"])
def test_of_two_overrides_of_a_site_the_older_stays(release: str) -> None:
    model = drivers.load("sequential")
    rows = [r for r in model.module("patches").overrides() if not r.mutant]
    model.configure(KernelConfig(release))
    for site in {r.site for r in rows}:
        lacking = [r for r in rows if r.site == site and r.since > drivers.version_of(release)]
        if lacking:
            module, _, name = site.rpartition(".")
            where, _, override = min(lacking, key=lambda r: r.since).override.rpartition(".")
            assert getattr(model.kernel(module), name) is getattr(model.module(f"patches.{where}"), override)
    model.configure(KernelConfig())


def test_an_older_stable_release_lacks_what_the_series_was_given() -> None:
    model = drivers.load("sequential")
    mremap = model.module("patches.releases_mremap")
    for release, lacks in (("6.1.190", True), ("6.1.191", False), ("6.1", False), ("6.2", False), ("7.x", False)):
        model.configure(KernelConfig(release))
        assert (model.kernel("mremap").pre_split is mremap.no_pre_split) == lacks
    model.configure(KernelConfig())


def test_each_hypervisor_has_its_pv_ops() -> None:
    """The machine imports no kernel, so the names are said twice."""
    assert tuple(drivers.load("sequential").kernel("paravirt").PV_MMU) == drivers.HYPERVISORS


@pytest.mark.parametrize("release", ["6.1.x.2", "6", "6.1.", "six", "6.0.99", "8.1"])
def test_releases_that_are_none(release: str) -> None:
    with pytest.raises(TablewalkError, match=r"not a release|not modelled|not known"):
        drivers.version_of(release)


def test_one_driver_is_compiled() -> None:
    texts = {f"machine/{path.name}": path.read_text() for path in (ROOT / "machine").glob("*.py")}
    others = {name for name, text in texts.items() if re.search(r"^from \.( import |)sequential", text, re.MULTILINE)}
    others -= UNCOMPILED
    assert others - INTERPRETED == set() and len(others) >= 2

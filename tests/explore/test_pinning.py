# SPDX-License-Identifier: GPL-2.0-only
"""get_user_pages_fast against those who free tables: what each kind of architecture needs, and can do without."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tablewalk.arch.table import by_name, names
from tablewalk.explore.run import built_in, explore
from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

PROGRAMS = built_in()
RCU = "D10"  # without it tables are freed after the flush, and a collapse of 6.1 does so without K2
INTERRUPT = "K2"


def verdict(scenario: str, arch: str = "", config: KernelConfig | None = None) -> str:
    """What the scenario comes to on an architecture: `exhausted`, or the rule that is broken."""
    program = PROGRAMS[scenario]
    if arch:
        program = replace(program, scenario=replace(program.scenario, arch=arch))
    outcome = explore(program, config)
    return outcome.rule.id if outcome.rule else outcome.verdict


@pytest.mark.parametrize(
    ("scenario", "without_rcu"),
    [
        ("gup-fast-and-munmap", "exhausted"),  # an interrupt waits for it
        ("gup-fast-and-munmap-in-a-guest", "I1"),
        ("gup-fast-and-munmap-broadcast", "I1"),
    ],
)
def test_munmap_frees_tables_by_rcu(scenario: str, without_rcu: str) -> None:
    assert verdict(scenario) == "exhausted"
    assert verdict(scenario, config=KernelConfig(without=(RCU,))) == without_rcu


@pytest.mark.parametrize(
    ("hypervisor", "native"), [("none", "exhausted"), ("kvm", "I1"), ("hyperv", "I1"), ("xen", "I1")]
)
def test_a_guest_whose_hypervisor_flushes_needs_rcu(hypervisor: str, native: str) -> None:
    """native_tlb_remove_table() frees tables once an interrupt has flushed: that is what each of pv_ops replaced."""
    guest = (("hypervisor", hypervisor), ("pt_reclaim", "n"))
    assert verdict("gup-fast-and-munmap", config=KernelConfig("6.12", options=guest)) == "exhausted"
    assert verdict("gup-fast-and-munmap", config=KernelConfig("6.12", options=guest, without=(RCU,))) == native


@pytest.mark.parametrize(("arch", "without_interrupt"), [("x86_64/1", "exhausted"), ("arm64/1", "I1")])
def test_a_collapse_of_6_1_interrupts(arch: str, without_interrupt: str) -> None:
    scenario = "shmem-collapse-gup-fast"
    assert verdict(scenario, arch, KernelConfig("6.1")) == "exhausted"
    assert verdict(scenario, arch, KernelConfig("6.1", without=(INTERRUPT,))) == without_interrupt


@pytest.mark.parametrize(
    ("scenario", "without_interrupt"),
    [("hugetlb-unshare-and-gup-fast-interrupt", "exhausted"), ("hugetlb-unshare-and-gup-fast", "RESULT")],
)
def test_who_unshares_a_table_of_hugetlb_interrupts(scenario: str, without_interrupt: str) -> None:
    assert verdict(scenario) == "exhausted"
    assert verdict(scenario, config=KernelConfig(without=("K34",))) == without_interrupt


@pytest.fixture
def changed_arches(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ia64` as if it walked tables without locks, `sh` as if its flushes were broadcasts."""
    table, arch = drivers.load("searched").module("arch.table"), drivers.load("searched").module("arch")
    made = {"ia64": {"gup_fast": True}, "sh": {"broadcast_flush": True}}
    for name, changes in made.items():
        changed = arch.variant(table.by_name(name, (7, 2)), **changes)
        monkeypatch.setitem(table._MAKERS, f"{name}-changed", lambda release, changed=changed: changed)


@pytest.mark.parametrize(
    ("scenario", "arch"), [("gup-fast-and-munmap-interrupt", "sh"), ("gup-and-munmap", "ia64")]
)
@pytest.mark.usefixtures("changed_arches")
def test_who_frees_at_once_interrupts_or_does_not_walk_without_locks(scenario: str, arch: str) -> None:
    assert verdict(scenario) == "exhausted"
    assert verdict(scenario, f"{arch}-changed/1") == "I1"


@pytest.mark.parametrize("release", [(6, 1), (6, 12), (7, 2)])
def test_every_architecture_has_one_or_the_other(release: tuple[int, int]) -> None:
    """Walks without locks need flushes by interrupt or tables freed by RCU."""
    for name in names():
        a = by_name(name, release)
        assert not a.gup_fast or a.rcu_table_free or not a.broadcast_flush, name

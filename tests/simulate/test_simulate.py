# SPDX-License-Identifier: GPL-2.0-only
"""Simulations as a whole: the same seed gives the same, another one another; parameters out of range are refused."""

from __future__ import annotations

import json

import pytest

from tablewalk.cli import run
from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import KernelConfig, load
from tablewalk.simulate.pairs import PAIRS, Pair
from tablewalk.simulate.profile import Profile
from tablewalk.simulate.run import Result, as_object, simulate
from tablewalk.simulate.world import World

SMALL = {"threads": 3, "extents": 2, "rounds": 1}


def small(kernel: str = "7.x", seed: int = 1, cpus: int = 4) -> Result:
    return simulate("shmem-collapse", KernelConfig(kernel), cpus, seed, SMALL)


@pytest.mark.parametrize("kernel", ["6.1", "7.x"])
@pytest.mark.parametrize("cpus", [1, 4])
def test_a_seed_determines_everything(kernel: str, cpus: int) -> None:
    one, other, third = small(kernel, 1, cpus), small(kernel, 1, cpus), small(kernel, 2, cpus)
    assert as_object(one) == as_object(other)
    assert one.latencies == other.latencies
    assert one.time != third.time


def test_collapse_takes_mmap_lock_for_writing_in_6_1_only() -> None:
    """What the series of 2023 was about: 1d65b771bc08 and 1043173eb5eb."""
    def made_wait(kernel: str) -> set[str]:
        r = simulate("shmem-collapse", KernelConfig(kernel), 8, 1, {"threads": 6, "extents": 8, "rounds": 4})
        return {held for (lock, _, holder, held) in r.waits.by if lock == "mm_struct.mmap_lock" and holder}

    assert made_wait("6.1") & {"collapse_mapped_thp", "retract_locked"}
    assert not made_wait("7.x") & {"collapse_mapped_thp", "retract_locked"}


@pytest.mark.parametrize(
    ("values", "cpus", "told"),
    [({"threads": 0}, 4, "threads 0: 1 to 1024"), ({"extents": 65}, 4, "1 to 64"), ({}, 257, "--cpus 257: 1 to 256")],
)
def test_impossible_parameters_are_refused_with_the_range(values: dict[str, int], cpus: int, told: str) -> None:
    with pytest.raises(TablewalkError, match=told):
        simulate("shmem-collapse", KernelConfig(), cpus, 1, values)


@pytest.mark.parametrize(("arch", "threads", "told"), [
    ("x86-pae", 1024, "mappings of 4 huge pages: x86-pae has room for [0-9]+"),
    ("m68k", 1, "shmem-collapse: m68k has no huge pages"),
])  # fmt: skip
def test_what_an_architecture_has_no_room_for_is_refused(arch: str, threads: int, told: str) -> None:
    workload = "shmem-collapse" if threads == 1 else "dontneed-storm"
    with pytest.raises(TablewalkError, match=told):
        simulate(workload, KernelConfig(arch=arch), 4, 1, {"threads": threads})


@pytest.mark.parametrize("arch", ["ppc64le-64k", "arm64-16k", "sparc64"])  # 32, 2048 and 1024 pages of a table
def test_tables_may_have_any_size(arch: str) -> None:
    r = simulate("dontneed-storm", KernelConfig(arch=arch), 2, 1, {"threads": 2, "extents": 1, "rounds": 1})
    assert len(r.latencies["page fault"]) == 2 * min(64, load("timed").arch.ptrs_per_pte)


def test_more_cpus_wait_less_for_a_cpu() -> None:
    assert small(cpus=1).time > 1.2 * small(cpus=4).time


def longest_fault(workload: str, *options: tuple[str, str]) -> int:
    r = simulate(workload, KernelConfig(options=options), 8, 1)
    return r.percentile("page fault", 99.0)


def test_faults_wait_for_those_who_map_only_without_per_vma_locks() -> None:
    assert longest_fault("mmap-churn", ("PER_VMA_LOCK", "n")) > 2 * longest_fault("mmap-churn")


@pytest.mark.parametrize("kernel", ["6.1", "7.x"])
@pytest.mark.parametrize("workload", ["shmem-collapse", "anon-collapse"])
def test_every_huge_page_is_made_while_others_fault(workload: str, kernel: str) -> None:
    """A collapse that meets a page in use is tried again, and is told apart."""
    r = simulate(workload, KernelConfig(kernel), 8, 1)
    made = r.latencies["MADV_COLLAPSE"]
    assert len(made) == 4 and made[0] > 300_000_000  # copying 2 MiB alone takes 262 us
    assert max(r.latencies.get("MADV_COLLAPSE, in vain", [0])) < 300_000_000
    assert any(holder == "collapser" for _, _, holder, _ in r.waits.by)


def test_who_flushes_waits_for_the_answers_of_other_cpus() -> None:
    def waited(cpus: int, batches: int = 1, without: tuple[str, ...] = ()) -> dict[str, int]:
        r = simulate("dontneed-storm", KernelConfig(without=without), cpus, 1, SMALL | {"batches": batches})
        return {waiter: w.times for (lock, waiter, _, _), w in r.waits.by.items() if lock == "IPIs"}

    assert waited(1) == {}
    assert waited(4) == waited(4, 1, ("D10",)) == {"tlb_flush_mmu_tlbonly": 6}  # 3 threads give 2 huge pages back
    by_itself = waited(4, 0)
    assert by_itself.keys() == {"tlb_flush_mmu_tlbonly"}
    assert waited(4, 0, ("D10",)) == by_itself | {"tlb_remove_table_sync_one": 6}  # semi-RCU: an IPI for each table


def test_table_reclaim_gives_back_the_tables_of_what_is_not_needed() -> None:
    with_it = simulate("dontneed-storm", KernelConfig(), 4, 1, SMALL)
    without = simulate("dontneed-storm", KernelConfig(options=(("PT_RECLAIM", "n"),)), 4, 1, SMALL)
    kept = [kb for _, kb in without.memory["process"]]
    assert with_it.memory["process"][-1][1] < kept[-1] == max(kept)


def test_a_page_that_is_kept_keeps_its_table() -> None:
    """So the cost of reclaim is measured on one kernel: it needs the whole range."""
    kept = simulate("dontneed-storm", KernelConfig(), 4, 1, SMALL | {"keep": 1})
    without = simulate("dontneed-storm", KernelConfig(options=(("PT_RECLAIM", "n"),)), 4, 1, SMALL)
    assert kept.memory["process"][-1][1] == without.memory["process"][-1][1]


def test_on_one_cpu_who_sleeps_between_writes_meets_the_locks_of_who_collapses() -> None:
    values = SMALL | {"threads": 1, "extents": 8, "sleep": 20}
    waits = []
    for seed in range(4):
        r = simulate("shmem-collapse", KernelConfig(), 1, seed, values, Profile(granularity=5000))
        waits += [lock for lock, _, holder, _ in r.waits.by if holder == "collapser"]
    assert "folio.lock" in waits


def test_collapse_of_a_file_flushes_once_for_all_its_pages() -> None:
    r = simulate("shmem-collapse", KernelConfig(), 2, 1, SMALL | {"threads": 1})
    assert len(r.latencies["MADV_COLLAPSE"]) == 2
    assert r.flushes < 50  # of 1024 pages that were mapped


def test_a_fork_makes_faults_wait_for_as_long_as_it_copies() -> None:
    r = simulate("fork", KernelConfig(), 8, 1, SMALL)
    assert any(held == "dup_mmap" for _, _, _, held in r.waits.by)
    assert r.percentile("page fault", 100.0) > r.percentile("fork", 50.0) // 2


@pytest.mark.parametrize("workload", ["shmem-collapse", "anon-collapse"])
def test_khugepaged_makes_huge_pages_while_others_fault(workload: str) -> None:
    r = simulate(workload, KernelConfig(), 4, 1, SMALL | {"rounds": 8, "khugepaged": 50})
    again = simulate(workload, KernelConfig(), 4, 1, SMALL | {"rounds": 8, "khugepaged": 50})
    assert as_object(r) == as_object(again)
    assert "MADV_COLLAPSE" not in r.latencies
    assert r.percentile("khugepaged's step", 100.0) > 100_000_000  # a huge page was copied
    assert any(holder == "khugepaged" for _, _, holder, _ in r.waits.by)


def test_what_an_operation_waits_is_part_of_what_it_takes() -> None:
    for workload in ("fork", "mmap-churn"):
        r = simulate(workload, KernelConfig("6.1"), 4, 1, SMALL)
        assert all(r.waited(name) < r.mean(name) for name in r.latencies)
        assert 0 < sum(r.waited_in_all.values()) == sum(w.total for w in r.waits.by.values())


@pytest.mark.parametrize("spins", [True, False])
def test_interrupts_take_no_time_of_who_spins_but_for_the_last(spins: bool) -> None:
    """Else it would hold the lock, once it has it, for as long as it takes to catch up on all of them."""
    model = load("timed")
    model.configure(KernelConfig())
    world, got = World(model, 4, Profile()), list[float]()
    mm = model.kernel("mm_init").mm_alloc()
    lock, us = mm.page_table_lock, 1_000_000

    def holder() -> None:
        world.lock(lock)
        world.think(100 * us)
        world.unlock(lock)

    def spinner() -> None:
        world.think(10 * us)
        if spins:
            world.lock(lock)
        else:
            world.think(110 * us)
        got.append(world.clock[0] / us)
        world.sync()
        got.append(world.clock[0] / us)

    def flusher() -> None:
        world.think(20 * us)
        for _ in range(20):
            world.interrupt(mm.addr, 0, 4096, True, 1)

    with world:
        for body in (holder, spinner, flusher):
            world.spawn(body.__name__, body, mm.addr)
        world.run()
    handlers = 20 * (450 + 35) / 1000
    # interrupts delay the holder, and he who computes; who spins has the lock as soon as the holder lets it go
    assert got[1] == pytest.approx(100 + 2.5 + handlers + 0.07 if spins else 120 + 2.5 + handlers, abs=0.1)
    assert got[0] == got[1]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_a_pair_is_what_its_command_compares(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*pair.command(2).split()[1:], "--with", "extents=1", "--with", "rounds=1"]
    assert run([*words, "--json"]) == 0
    told = {r["kernel"]: r for r in json.loads(capsys.readouterr().out)["simulations"]}
    assert told == {str(config): as_object(pair.run(config, 2, extents=1, rounds=1)) for config in (pair.old, pair.new)}

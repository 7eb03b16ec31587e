# SPDX-License-Identifier: GPL-2.0-only
"""mmap, munmap, brk, stack growth, exit: results, VMAs, and VmPTE in kB as measured on Linux 6.18."""

from __future__ import annotations

import pytest

from tablewalk.kernel.not_modelled import NotModelled
from tablewalk.machine.drivers import KernelConfig

from .process import ANON, BASE, FIXED, GROWSDOWN, NONE, PAGE, PRIVATE, READ, SHARED, WRITE, G, M, Process

ENOMEM, EINVAL = 12, 22

LOCKED, NORESERVE, POPULATE, NONBLOCK, STACK, HUGETLB, NOREPLACE = (
    0x2000, 0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x100000,
)  # fmt: skip
SEGV = 0x40


@pytest.fixture
def p(driver: str) -> Process:
    return Process(driver=driver)


def mmap(p: Process, addr: int, length: int, prot: int, flags: int, f: object = None, pgoff: int = 0) -> int:
    ret: int = p.k("mmap").sys_mmap(p.mm, addr, length, prot, flags, f or p.k("mm_types").file(0), pgoff)
    p.done()
    return ret


# --- mmap --------------------------------------------------------------------------------------------------


def test_mapping_costs_nothing(p: Process) -> None:
    p.mmap(BASE, 8 * G)
    assert p.vmpte == 0
    assert p.mm_field("total_vm") == 8 * G // PAGE
    p.exit()


@pytest.mark.parametrize("flags", [POPULATE, LOCKED])
def test_populate(p: Process, flags: int) -> None:
    assert mmap(p, BASE, 8 * M, WRITE, PRIVATE | ANON | flags) == BASE
    assert (p.vmpte, p.rss) == (24, 2048)
    p.exit()


@pytest.mark.parametrize("prot, flags", [(NONE, POPULATE), (WRITE, POPULATE | NONBLOCK)])
def test_nothing_to_populate(p: Process, prot: int, flags: int) -> None:
    assert mmap(p, BASE, 8 * M, prot, PRIVATE | ANON | flags) == BASE
    assert p.vmpte == 0
    p.exit()


def test_map_fixed_over_touched_memory(p: Process) -> None:
    p.mmap(BASE, 16 * M)
    p.touch(BASE, 16 * M)
    assert p.vmpte == 40
    p.mmap(BASE + 4 * M, 8 * M, READ, PRIVATE | ANON | FIXED)
    assert p.vmpte == 24
    assert p.vmas() == [(0, 4 * M), (4 * M, 12 * M), (12 * M, 16 * M)]
    assert p.rss == 4
    p.exit()


def test_what_replaces_itself_is_one_vma_again(p: Process) -> None:
    p.mmap(BASE, 6 * M)
    p.fill(BASE, 6 * M)
    p.mmap(BASE + 2 * M, 2 * M, WRITE, PRIVATE | ANON | FIXED)
    assert p.vmas() == [(0, 6 * M)]
    assert (p.rss, p.vmpte) == (1024, 16)
    assert p.mm_field("total_vm") == 1536
    p.exit()


@pytest.mark.parametrize(
    "addr, length, prot, flags, error",
    [
        (BASE, 0, WRITE, PRIVATE | ANON, -22),
        (BASE + 1, M, WRITE, PRIVATE | ANON, -22),
        (BASE, M, WRITE, ANON | FIXED, -22),
        (BASE, 1 << 60, WRITE, PRIVATE | ANON, -12),
        (BASE, M, WRITE, PRIVATE | ANON | FIXED | NOREPLACE, -17),
        (BASE, M, WRITE, SHARED | ANON | FIXED | GROWSDOWN, -22),
    ],
)
def test_errors(p: Process, addr: int, length: int, prot: int, flags: int, error: int) -> None:
    p.mmap(BASE, PAGE)
    assert mmap(p, addr, length, prot, flags) == error
    assert p.vmas() == [(0, PAGE)]
    p.exit()


def test_errors_of_files(p: Process) -> None:
    f = p.file(M)
    f.f_readonly = 1
    assert mmap(p, BASE, M, WRITE, SHARED, f) == -13
    assert mmap(p, BASE, M, READ, SHARED, f, (1 << 52) - 1) == -75
    assert mmap(p, BASE, M, READ, PRIVATE | GROWSDOWN, f) == -22
    assert mmap(p, BASE, M, READ, SHARED, f) == BASE
    assert p.k("mprotect").sys_mprotect(p.mm, BASE, M, WRITE) == -13
    p.exit()


def test_hugetlb_is_not_modelled(p: Process) -> None:
    with pytest.raises(p.k("not_modelled").NotModelled, match="hugetlb"):
        mmap(p, BASE, 2 * M, WRITE, PRIVATE | ANON | HUGETLB)
    assert issubclass(NotModelled, Exception)


def test_accounting_flag(p: Process) -> None:
    for i, (prot, flags, counts) in enumerate(
        [(WRITE, 0, True), (READ, 0, False), (WRITE, NORESERVE, False), (NONE, 0, False)]
    ):
        p.mmap(BASE + i * M, PAGE, prot, PRIVATE | ANON | flags)
        assert p.has(BASE + i * M, "VM_ACCOUNT") is counts
    p.mmap(BASE + 8 * M, PAGE, WRITE, SHARED | ANON)
    assert not p.has(BASE + 8 * M, "VM_ACCOUNT")
    p.exit()


@pytest.mark.parametrize("release, nohugepage", [("6.1", False), ("6.12", True), ("7.x", True)])
def test_map_stack(driver: str, release: str, nohugepage: bool) -> None:
    p = Process(KernelConfig(release), driver)
    p.mmap(BASE, M, WRITE, PRIVATE | ANON | STACK)
    assert p.has(BASE, "VM_NOHUGEPAGE") is nohugepage
    p.exit()


# --- munmap ------------------------------------------------------------------------------------------------


def test_munmap_of_a_touched_gigabyte(p: Process) -> None:
    p.mmap(BASE, G)
    p.touch(BASE, G)
    before = p.vmpte
    p.munmap(BASE, G)
    assert before - p.vmpte == 2056
    assert p.vmpte == 0
    p.exit()
    assert (p.stat("PTE_TABLES_FREED"), p.stat("PMD_TABLES_FREED")) == (512, 1)


@pytest.mark.parametrize("below, above, left", [(0, 0, 0), (1, 0, 12), (0, 1, 12), (1, 1, 12)])
def test_an_untouched_neighbour_keeps_all_tables(p: Process, below: int, above: int, left: int) -> None:
    """PTE, PMD and PUD table go only if no other VMA lies in what they cover."""
    if below:
        p.mmap(BASE, PAGE, READ)
    if above:
        p.mmap(BASE + 2 * M - PAGE, PAGE, READ)
    p.mmap(BASE + PAGE, M)
    p.touch(BASE + PAGE)
    assert p.vmpte == 12
    p.munmap(BASE + PAGE, M)
    assert p.vmpte == left
    p.exit()


def test_munmap_across_vmas_and_holes(p: Process) -> None:
    for i in range(8):
        p.mmap(BASE + i * 4 * M, 2 * M, READ if i % 2 else WRITE)
        p.touch(BASE + i * 4 * M, write=not i % 2)
    assert p.vmpte == 40
    p.munmap(BASE + M, 20 * M)
    assert p.vmas() == [(0, M), (21 * M, 22 * M), (24 * M, 26 * M), (28 * M, 30 * M)]
    assert p.vmpte == 24
    p.munmap(BASE, 32 * M)
    assert (p.vmpte, p.mm_field("map_count"), p.mm_field("total_vm")) == (0, 0, 0)
    p.exit()


def test_munmap_errors(p: Process) -> None:
    munmap = p.k("mmap").sys_munmap
    assert munmap(p.mm, BASE + 1, PAGE) == -22
    assert munmap(p.mm, BASE, 0) == -22
    assert munmap(p.mm, 1 << 62, PAGE) == -22
    assert munmap(p.mm, BASE, PAGE) == 0


def test_partial_failure_leaves_the_split_made_before(p: Process) -> None:
    """The end of the range lies in the vdso: the VMA below has been split by then, and stays."""
    none = p.k("mm_types").file(0)
    p.mmap(BASE, 4 * PAGE)
    assert p.k("exec").exec_map(p.mm, BASE + 4 * PAGE, 2 * PAGE, 5, 2, none, 0, "vdso") == 0
    assert p.k("mmap").sys_munmap(p.mm, BASE + 2 * PAGE, 3 * PAGE) == -22
    assert p.vmas() == [(0, 2 * PAGE), (2 * PAGE, 4 * PAGE), (4 * PAGE, 6 * PAGE)]
    p.touch(BASE + 2 * PAGE)
    p.exit()


def test_remap_file_pages_populates(p: Process) -> None:
    p.mmap(BASE, 4 * M, WRITE, SHARED, p.memfd(8 * M))
    remap = p.k("mmap").sys_remap_file_pages
    assert remap(p.mm, BASE + 2 * M, 2 * M, 0, 0, 0) == 0
    p.done()
    assert p.vmpte == 12
    assert p.field(BASE + 2 * M, "vm_pgoff") == 0
    assert remap(p.mm, BASE, 2 * M, WRITE, 0, 0) == -22
    assert remap(p.mm, BASE, 8 * M, 0, 0, 0) == -22
    p.exit()


# --- brk ---------------------------------------------------------------------------------------------------


def test_brk(p: Process) -> None:
    brk = p.k("brk").sys_brk
    p.set_mm_field("start_brk", BASE)
    p.set_mm_field("brk", BASE)
    assert brk(p.mm, 0) == BASE
    assert brk(p.mm, BASE + 32 * M) == BASE + 32 * M
    assert p.vmas() == [(0, 32 * M)]
    assert p.vmpte == 0
    p.touch(BASE, 32 * M)
    assert p.vmpte == 72
    assert brk(p.mm, BASE + 16 * M + 5) == BASE + 16 * M + 5
    p.done()
    assert p.vmpte == 44
    assert p.vmas() == [(0, 16 * M + PAGE)]
    assert brk(p.mm, BASE + 16 * M) == BASE + 16 * M
    p.done()
    assert p.vmpte == 40
    assert brk(p.mm, BASE + 17 * M) == BASE + 17 * M
    assert p.vmas() == [(0, 17 * M)]
    assert brk(p.mm, BASE - 1) == BASE + 17 * M
    p.exit()


def test_brk_stops_at_a_neighbour(p: Process) -> None:
    p.set_mm_field("start_brk", BASE)
    p.set_mm_field("brk", BASE)
    p.mmap(BASE + 2 * M, M)
    brk = p.k("brk").sys_brk
    assert brk(p.mm, BASE + 2 * M) == BASE, "a page has to stay free"
    assert brk(p.mm, BASE + 2 * M - PAGE) == BASE + 2 * M - PAGE
    p.exit()


def test_heap_does_not_join_what_ends_below_it(p: Process) -> None:
    p.mmap(BASE, M)
    p.set_mm_field("start_brk", BASE + M)
    p.set_mm_field("brk", BASE + M)
    p.k("brk").sys_brk(p.mm, BASE + 2 * M)
    assert p.vmas() == [(0, M), (M, 2 * M)]
    p.exit()


def test_locked_heap_is_populated(p: Process) -> None:
    p.set_mm_field("start_brk", BASE)
    p.set_mm_field("brk", BASE)
    assert p.k("mlock").sys_mlockall(p.mm, 2) == 0
    p.k("brk").sys_brk(p.mm, BASE + 4 * M)
    p.done()
    assert (p.vmpte, p.rss, p.mm_field("locked_vm")) == (16, 1024, 1024)
    p.exit()


# --- stack -------------------------------------------------------------------------------------------------


def test_stack_growth(p: Process) -> None:
    p.mmap(BASE, 128 << 10, WRITE, PRIVATE | ANON | GROWSDOWN)
    p.touch(BASE, 128 << 10, step=PAGE)
    assert p.vmpte == 12
    p.touch(BASE - 6 * M, 6 * M)
    assert p.vmpte == 12 + 12 + 8, "three PTE tables, and a PMD and a PUD table below"
    assert p.vmas() == [(-6 * M, 128 << 10)]
    assert p.fault(BASE - 8 * M) == SEGV
    p.exit()


@pytest.mark.parametrize("distance, prot, grows", [(255, WRITE, False), (256, WRITE, True), (255, NONE, True)])
def test_stack_guard_gap(p: Process, distance: int, prot: int, grows: bool) -> None:
    p.mmap(BASE, M, prot)
    stack = BASE + 4 * M
    p.mmap(stack, M, WRITE, PRIVATE | ANON | GROWSDOWN)
    assert p.fault(BASE + M + distance * PAGE) == (0 if grows else SEGV)
    p.exit()


def test_stack_limits(p: Process) -> None:
    p.mm.rlimit_stack = 2 * M
    p.mmap(BASE, M, WRITE, PRIVATE | ANON | GROWSDOWN)
    assert p.fault(BASE - 2 * M) == SEGV
    assert p.fault(BASE - M) == 0
    q = Process(driver="sequential")
    q.mmap(0x20000, M, WRITE, PRIVATE | ANON | GROWSDOWN)
    assert q.fault(0xF000) == SEGV, "below mmap_min_addr"
    assert q.fault(0x10000) == 0
    p.exit()


def test_a_locked_stack_counts_and_is_limited(p: Process) -> None:
    p.mm.rlimit_memlock = 2 * M
    p.mmap(BASE, M, WRITE, PRIVATE | ANON | GROWSDOWN | LOCKED)
    assert p.fault(BASE - M) == 0
    assert p.mm_field("locked_vm") == 2 * M // PAGE
    assert p.fault(BASE - M - PAGE) == SEGV
    p.exit()


@pytest.mark.parametrize(
    ("arch", "error"), [("x86_64", ENOMEM), ("arm", ENOMEM), ("mips32", EINVAL), ("parisc64", EINVAL)]
)
def test_beyond_the_end_of_user_space(arch: str, error: int) -> None:
    p = Process(KernelConfig(arch=arch))
    end = p.model.arch.task_size
    none = p.k("mm_types").file(0)

    def mmap(addr: int, length: int) -> int:
        ret: int = p.k("mmap").sys_mmap(p.mm, addr, length, 3, PRIVATE | ANON | FIXED, none, 0)
        return ret

    assert mmap(end - 2 * p.page_size, 4 * p.page_size) == -error
    assert mmap(2 * p.page_size, end + p.page_size) == -ENOMEM
    assert mmap(end - 2 * p.page_size, p.page_size) == end - 2 * p.page_size

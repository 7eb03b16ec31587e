# SPDX-License-Identifier: GPL-2.0-only
"""mprotect: VMAs, entries, flushes; mlock and its kin."""

from __future__ import annotations

import pytest

from tablewalk.kernel.pgtable import PRESENT, PROTNONE, RW
from tablewalk.machine.drivers import KernelConfig

from .process import ANON, BASE, NONE, PAGE, PRIVATE, READ, SHARED, WRITE, M, Process

GROWSDOWN_PROT = 0x1000000


@pytest.fixture
def p(driver: str) -> Process:
    return Process(driver=driver)


def entry(p: Process, addr: int) -> int:
    """Flags of the PTE of `addr`."""
    pgtable = p.k("pgtable")
    pmd = pgtable.mm_find_pmd(p.mm, addr)
    pte, ptl = p.k("pgtable_generic").pte_offset_map_lock(p.mm, pmd, addr)
    value = int(p.model.machine.load(pte))
    p.k("pgtable_generic").pte_unmap_unlock(pte, ptl)
    return value & int(pgtable.FLAGS_MASK)


def mprotect(p: Process, start: int, length: int, prot: int, pkey: int = -1) -> int:
    ret: int = p.k("mprotect").sys_mprotect(p.mm, start, length, prot, pkey)
    p.done()
    return ret


# --- entries -----------------------------------------------------------------------------------------------


def test_own_pages_become_writable_again_without_a_fault(p: Process) -> None:
    p.mmap(BASE, M)
    p.touch(BASE)
    p.mprotect(BASE, M, READ)
    assert entry(p, BASE) & (PRESENT | RW) == PRESENT
    p.mprotect(BASE, M, WRITE)
    assert entry(p, BASE) & (PRESENT | RW) == PRESENT | RW
    p.exit()


def test_pages_shared_with_a_child_and_the_zero_page_stay_read_only(p: Process) -> None:
    p.mmap(BASE, M)
    p.touch(BASE)
    p.touch(BASE + PAGE, write=False)
    child = p.fork()
    p.mprotect(BASE, M, READ)
    p.mprotect(BASE, M, WRITE)
    assert entry(p, BASE) & RW == 0
    assert entry(p, BASE + PAGE) & RW == 0
    child.exit()
    p.exit()


def test_prot_none_keeps_the_pages(p: Process) -> None:
    p.mmap(BASE, M)
    p.write(BASE, 7)
    p.mprotect(BASE, M, NONE)
    assert entry(p, BASE) & (PRESENT | PROTNONE) == PROTNONE
    assert p.read(BASE) == -1
    assert (p.rss, p.vmpte) == (1, 12)
    p.mprotect(BASE, M, READ)
    assert p.read(BASE) == 7
    p.exit()


@pytest.mark.parametrize("shmem", [True, False])
def test_shared_files_tell_of_the_first_write_but_shmem_does_not(p: Process, shmem: bool) -> None:
    f = p.memfd(M) if shmem else p.file(M)
    p.mmap(BASE, M, READ, SHARED, f)
    p.touch(BASE, write=False)
    p.mprotect(BASE, M, WRITE)
    assert entry(p, BASE) & RW == (RW if shmem else 0)
    p.touch(BASE)
    p.mprotect(BASE, M, READ)
    p.mprotect(BASE, M, WRITE)
    assert entry(p, BASE) & RW == RW, "dirty: the file knows"
    p.exit()


@pytest.mark.parametrize("old, new, flushes", [(WRITE, READ, 1), (READ, WRITE, 0), (READ, 5, 1), (NONE, READ, 0)])
def test_flushes(p: Process, old: int, new: int, flushes: int) -> None:
    """Only entries that were present and get other permissions; zero pages do not become writable."""
    p.mmap(BASE, M)
    p.touch(BASE, write=old == WRITE)
    if old != WRITE:
        p.mprotect(BASE, M, old)
    before = p.stat("TLB_FLUSHES")
    p.mprotect(BASE, M, new)
    assert p.stat("TLB_FLUSHES") - before == flushes
    p.exit()


def test_huge_pages_are_changed_whole_or_split(p: Process) -> None:
    p.mmap(BASE, 4 * M)
    p.madvise(BASE, 4 * M, 14)
    p.touch(BASE, 4 * M)
    assert (p.huge, p.vmpte) == (2, 16)
    p.mprotect(BASE, 2 * M, READ)
    assert (p.huge, p.vmpte) == (2, 16)
    p.mprotect(BASE + 2 * M, M, READ)
    assert (p.huge, p.vmpte) == (1, 16), "the deposited table is used"
    p.mprotect(BASE, 2 * M, WRITE)
    p.write(BASE, 1)
    p.exit()


def test_untouched_memory_needs_no_table(p: Process) -> None:
    p.mmap(BASE, 64 * M)
    p.mprotect(BASE, 64 * M, READ)
    assert p.vmpte == 0
    p.exit()


# --- VMAs --------------------------------------------------------------------------------------------------


def test_what_changes_nothing_splits_nothing(p: Process) -> None:
    p.mmap(BASE, M)
    p.mprotect(BASE + PAGE, PAGE, WRITE)
    assert p.vmas() == [(0, M)]
    p.exit()


def test_partial_effect_before_a_hole(p: Process) -> None:
    p.mmap(BASE, M)
    p.mmap(BASE + 2 * M, M)
    assert mprotect(p, BASE, 3 * M, READ) == -12
    assert not p.has(BASE, "VM_WRITE")
    assert p.has(BASE + 2 * M, "VM_WRITE")
    assert mprotect(p, BASE + M, M, READ) == -12
    p.exit()


def test_partial_effect_before_a_refusal(p: Process) -> None:
    f = p.file(M)
    f.f_readonly = 1
    p.mmap(BASE, M, READ)
    p.mmap(BASE + M, M, READ, SHARED, f)
    assert mprotect(p, BASE, 2 * M, WRITE) == -13
    assert p.has(BASE, "VM_WRITE")
    p.exit()


@pytest.mark.parametrize(
    "args, error", [((1, PAGE, READ), -22), ((0, 0, READ), 0), ((0, PAGE, 64), -22), ((0, PAGE, READ, 99), -22)]
)
def test_errors(p: Process, args: tuple[int, ...], error: int) -> None:
    p.mmap(BASE, M)
    assert mprotect(p, BASE + args[0], *args[1:]) == error
    p.exit()


def test_growsdown_reaches_back_to_the_start(p: Process) -> None:
    p.mmap(BASE, M, WRITE, PRIVATE | ANON | 0x100)
    assert mprotect(p, BASE + 16 * PAGE, PAGE, READ | GROWSDOWN_PROT) == 0
    assert p.vmas() == [(0, 17 * PAGE), (17 * PAGE, M)]
    p.mmap(BASE + 4 * M, M)
    assert mprotect(p, BASE + 4 * M, M, READ | GROWSDOWN_PROT) == -22
    p.exit()


def test_keys_keep_vmas_apart(p: Process) -> None:
    p.mmap(BASE, M)
    assert mprotect(p, BASE, 2 * PAGE, WRITE, 5) == 0
    assert p.vmas() == [(0, 2 * PAGE), (2 * PAGE, M)]
    p.mprotect(BASE, 2 * PAGE, READ)
    p.mprotect(BASE, 2 * PAGE, WRITE)
    assert len(p.vmas()) == 2, "mprotect leaves the key"
    assert mprotect(p, BASE, 2 * PAGE, WRITE, 0) == 0
    assert p.vmas() == [(0, M)]
    p.exit()


@pytest.mark.parametrize("release, counted", [("6.1", True), ("6.12", False), ("7.x", False)])
def test_memory_never_written_stops_to_count(driver: str, release: str, counted: bool) -> None:
    p = Process(KernelConfig(release), driver)
    p.mmap(BASE, M)
    p.mprotect(BASE, M, READ)
    assert p.has(BASE, "VM_ACCOUNT") is counted
    p.mprotect(BASE, M, WRITE)
    p.touch(BASE)
    p.mprotect(BASE, M, READ)
    assert p.has(BASE, "VM_ACCOUNT")
    p.exit()


# --- mlock -------------------------------------------------------------------------------------------------


def test_mlock_populates_and_munlock_gives_nothing_back(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.mlock(BASE + 1, 8 * M - 2)
    assert (p.vmpte, p.rss, p.mm_field("locked_vm")) == (24, 2048, 2048)
    assert p.k("mlock").sys_munlock(p.mm, BASE, 2 * M) == 0
    assert (p.vmpte, p.mm_field("locked_vm")) == (24, 1536)
    assert p.vmas() == [(0, 2 * M), (2 * M, 8 * M)]
    p.munmap(BASE, 8 * M)
    assert p.mm_field("locked_vm") == 0
    p.exit()


def test_mlock_on_fault(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.mlock(BASE, 8 * M, onfault=True)
    assert (p.vmpte, p.mm_field("locked_vm")) == (0, 2048)
    p.mlock(BASE, 8 * M)
    assert (p.vmpte, p.mm_field("locked_vm")) == (24, 2048)
    p.exit()


def test_mlock_of_what_cannot_be_populated(p: Process) -> None:
    p.mmap(BASE, M, NONE)
    assert p.k("mlock").sys_mlock(p.mm, BASE, M) == -12
    assert p.has(BASE, "VM_LOCKED")
    assert p.vmpte == 0
    p.exit()


def test_mlock_stops_at_a_hole(p: Process) -> None:
    p.mmap(BASE, M)
    p.mmap(BASE + 2 * M, M)
    assert p.k("mlock").sys_mlock(p.mm, BASE, 3 * M) == -12
    assert p.has(BASE, "VM_LOCKED")
    assert not p.has(BASE + 2 * M, "VM_LOCKED")
    assert p.vmpte == 0, "nothing is populated then"
    p.exit()


def test_mlock_limit(p: Process) -> None:
    p.mm.rlimit_memlock = M
    p.mmap(BASE, 2 * M)
    mlock = p.k("mlock").sys_mlock
    assert mlock(p.mm, BASE, M + PAGE) == -12
    assert mlock(p.mm, BASE, M) == 0
    assert mlock(p.mm, BASE, M) == 0, "what is locked already counts once"
    assert mlock(p.mm, BASE + M, PAGE) == -12
    assert p.k("mmap").sys_mmap(p.mm, BASE + 4 * M, PAGE, 3, PRIVATE | ANON | 0x2000, p.k("mm_types").file(0), 0) == -11
    p.mm.rlimit_memlock = 0
    assert mlock(p.mm, BASE, PAGE) == -1
    assert p.k("mlock").sys_mlockall(p.mm, 1) == -1
    p.exit()


def test_mlockall(p: Process) -> None:
    p.mmap(BASE, M)
    p.mmap(BASE + 4 * M, M, NONE)
    mlockall = p.k("mlock").sys_mlockall
    assert [mlockall(p.mm, flags) for flags in (0, 4, 8)] == [-22, -22, -22]
    assert mlockall(p.mm, 1) == 0
    assert p.rss == 256
    assert p.has(BASE + 4 * M, "VM_LOCKED")
    assert mlockall(p.mm, 2 | 4) == 0
    p.mmap(BASE + 8 * M, M)
    assert p.has(BASE + 8 * M, "VM_LOCKONFAULT")
    assert p.rss == 256
    assert p.k("mlock").sys_munlockall(p.mm) == 0
    assert p.mm_field("locked_vm") == 0
    p.mmap(BASE + 12 * M, M)
    assert not p.has(BASE + 12 * M, "VM_LOCKED")
    p.exit()


def test_locked_private_memory_that_becomes_writable_is_copied_at_once(p: Process) -> None:
    p.mmap(BASE, M, READ)
    p.mlock(BASE, M)
    assert p.rss == 0, "the zero page"
    p.mprotect(BASE, M, WRITE)
    assert p.rss == 256
    p.exit()

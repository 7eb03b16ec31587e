# SPDX-License-Identifier: GPL-2.0-only
"""userfaultfd: faults that wait, filling, write protection, moving, events.  The deltas were measured on Linux 6.18."""

from __future__ import annotations

from typing import Any

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import BASE, PAGE, READ, SHARED, G, M, Process

DONTNEED, HUGEPAGE, POPULATE_WRITE, COLLAPSE, GUARD_INSTALL = 4, 14, 23, 25, 102
MISSING, WP, MINOR = 1, 2, 4
COPY_WP, PROTECT, HOLES = 2, 1, 2
EPERM, ENOENT, EAGAIN, EFAULT, EBUSY, EEXIST, EINVAL, EUSERFAULT = 1, 2, 11, 14, 16, 17, 22, 600
EVENT_FORK, EVENT_REMAP, EVENT_REMOVE, SIGBUS = 1 << 1, 1 << 2, 1 << 3, 1 << 7
WP_UNPOPULATED, WP_ASYNC = 1 << 13, 1 << 15
FAULT_SIGBUS, FAULT_HWPOISON, FAULT_USERFAULT = 0x2, 0x10, 0x10000
WOULD_WAIT = -2
SOURCE = BASE + G


class Uffd(Process):
    """A process with a userfaultfd, a page of its PMD table in use, and something to copy from."""

    def __init__(self, config: KernelConfig | None = None, driver: str = "sequential", features: int = 0) -> None:
        super().__init__(config, driver)
        self.mmap(BASE + G - PAGE, PAGE)
        self.touch(BASE + G - PAGE)
        self.mmap(SOURCE, 2 * M)
        for i in range(8):
            self.write(SOURCE + i * PAGE, 100 + i)
        self.ctx: Any = self.k("fs_userfaultfd").uffd_alloc(self.mm, features)
        assert self.ctx

    def io(self, name: str, *args: int) -> Any:
        """An ioctl of the userfaultfd."""
        ret = getattr(self.k("fs_userfaultfd"), f"uffdio_{name}")(self.ctx, *args)
        self.done()
        return ret

    def register(self, addr: int, length: int, mode: int) -> None:
        assert self.io("register", addr, length, mode)[0] == 0

    def area(self, length: int, mode: int, f: Any = None, shared: bool = False) -> None:
        """A registered mapping at BASE."""
        self.mmap(BASE, length, f=f, flags=SHARED) if shared else self.mmap(BASE, length)
        self.register(BASE, length, mode)

    def entry(self, addr: int) -> int:
        """The PTE, or the huge pmd."""
        p = self.k("pgtable")
        pmd = p.mm_find_pmd(self.mm, addr)
        value = self.model.machine.load(pmd) if pmd else 0
        if p.pmd_is_table(value):
            value = self.model.machine.load(p.pmd_pgtable(value).entry + p.pte_index(addr))
        return int(value)

    def marked(self, addr: int) -> bool:
        """Whether the page is write-protected while nothing is mapped."""
        return bool(self.k("userfaultfd_k").pte_is_uffd_wp_marker(self.entry(addr)))

    def end(self) -> None:
        """The file is closed, then the mm goes."""
        self.k("fs_userfaultfd").uffd_close(self.ctx)
        self.done()
        self.exit()


@pytest.fixture
def p(driver: str) -> Uffd:
    return Uffd(driver=driver, features=WP_UNPOPULATED)


def cost(p: Uffd, name: str, *args: int) -> int:
    """kB that an ioctl (or madvise) adds to VmPTE."""
    before = p.vmpte
    ret = p.madvise(*args) if name == "madvise" else p.io(name, *args)
    assert (ret[0] if isinstance(ret, tuple) else ret) == 0
    return p.vmpte - before


# --- missing pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_a_missing_page_is_waited_for_and_copied(p: Uffd, shared: bool) -> None:
    p.area(8 * M, MISSING, p.memfd(8 * M) if shared else None, shared)
    for write in (False, True):
        assert p.fault(BASE, write) & FAULT_USERFAULT
    assert p.k("fault").user_read(p.mm, BASE) == p.k("fault").user_write(p.mm, BASE, 1) == WOULD_WAIT
    assert p.rss == 9  # the page below, the source
    assert p.io("copy", BASE, SOURCE, 8 * PAGE, 0) == (0, 8 * PAGE)
    assert [p.read(BASE + i * PAGE) for i in range(8)] == [100 + i for i in range(8)]
    assert p.rss == 17
    p.write(BASE, 5)
    assert p.read(BASE) == 5 and p.read(SOURCE) == 100
    assert p.io("copy", BASE, SOURCE, PAGE, 0) == (-EEXIST, -EEXIST)
    p.end()


def test_sigbus_instead_of_waiting(driver: str) -> None:
    p = Uffd(driver=driver, features=SIGBUS)
    p.area(2 * M, MISSING)
    assert p.fault(BASE) == FAULT_SIGBUS and p.read(BASE) == -1
    p.end()


def test_what_the_kernel_does_for_the_program_would_wait_too(p: Uffd) -> None:
    p.area(2 * M, MISSING)
    p.touch(SOURCE)
    assert p.madvise(BASE, 2 * M, POPULATE_WRITE) == -EUSERFAULT
    p.end()


def test_filling_makes_tables_the_source_needs_its_own(p: Uffd) -> None:
    p.area(8 * M, MISSING)
    p.mmap(BASE + 64 * M, 2 * M)
    assert cost(p, "copy", BASE, SOURCE, PAGE, 0) == 4
    assert cost(p, "copy", BASE + 2 * M, BASE + 64 * M, PAGE, 0) == 8
    assert p.read(BASE + 2 * M) == 0
    assert cost(p, "zeropage", BASE + 4 * M, 2 * PAGE) == 4
    assert p.rss == 11  # the zero page counts nothing
    assert cost(p, "poison", BASE + 6 * M, PAGE) == 4
    assert cost(p, "madvise", BASE, 8 * M, DONTNEED) == -16
    p.end()


def test_source_of_a_copy_that_is_not_there(p: Uffd) -> None:
    p.area(2 * M, MISSING)
    assert p.io("copy", BASE, BASE + 512 * M, PAGE, 0) == (-EFAULT, -EFAULT)
    p.register(SOURCE + M, M, MISSING)
    assert p.io("copy", BASE, SOURCE + M, PAGE, 0) == (-EUSERFAULT, -EUSERFAULT)
    assert p.io("copy", BASE, SOURCE + M - PAGE, 2 * PAGE, 0) == (-EAGAIN, PAGE)
    p.end()


def test_zeropage_of_shared_memory_is_a_page_of_the_file(p: Uffd) -> None:
    p.area(2 * M, MISSING, p.memfd(M), True)
    before = p.rss
    assert p.io("zeropage", BASE, 2 * PAGE) == (0, 2 * PAGE)
    assert p.rss == before + 2
    p.write(BASE, 7)
    assert p.read(BASE) == 7
    p.end()


@pytest.mark.parametrize(("release", "error"), [("6.18", EFAULT), ("7.x", 12)])
def test_beyond_the_end_of_the_file(release: str, error: int) -> None:
    p = Uffd(KernelConfig(release))
    p.area(2 * M, MISSING, p.memfd(M), True)
    assert p.io("copy", BASE + M, SOURCE, PAGE, 0)[0] == p.io("zeropage", BASE + M, PAGE)[0] == -error
    assert p.io("copy", BASE + M - PAGE, SOURCE, 2 * PAGE, 0) == (-EAGAIN, PAGE)
    assert p.io("poison", BASE + M, PAGE) == (-EFAULT, -EFAULT)
    p.end()


def test_poison(p: Uffd) -> None:
    p.area(2 * M, MISSING)
    assert p.io("poison", BASE, 2 * PAGE) == (0, 2 * PAGE)
    assert p.fault(BASE) == FAULT_HWPOISON
    assert p.io("zeropage", BASE, PAGE)[0] == p.io("poison", BASE, PAGE)[0] == -EEXIST
    assert p.io("copy", BASE, SOURCE, PAGE, 0) == (0, PAGE)
    assert p.read(BASE) == 100
    assert cost(p, "madvise", BASE, 2 * M, DONTNEED) == -4
    p.end()


@pytest.mark.parametrize(("release", "ret"), [("6.18", 0), ("7.x", -EEXIST)])
def test_copy_onto_a_guard_marker(release: str, ret: int) -> None:
    p = Uffd(KernelConfig(release))
    p.mmap(BASE, 2 * M)
    p.madvise(BASE, PAGE, GUARD_INSTALL)
    p.register(BASE, 2 * M, MISSING)
    assert p.io("copy", BASE, SOURCE, PAGE, 0)[0] == ret
    assert p.read(BASE) == (-1 if ret else 100)
    p.end()


def test_a_map_that_fails(p: Uffd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table went away after it was seen: the caller has to try again, and nothing is left behind."""
    uffd = p.k("userfaultfd")
    p.area(2 * M, MISSING, p.memfd(2 * M), True)
    with monkeypatch.context() as m:
        m.setattr(uffd, "pte_offset_map_lock", lambda *_: (0, 0))
        assert p.io("copy", BASE, SOURCE, PAGE, 0) == (-EAGAIN, -EAGAIN)
        assert p.io("poison", BASE, PAGE) == (-EAGAIN, -EAGAIN)
    assert p.io("copy", BASE, SOURCE, PAGE, 0) == (0, PAGE)
    p.end()


def test_a_huge_page_in_the_way(p: Uffd) -> None:
    p.mmap(BASE, 2 * M)
    p.madvise(BASE, 2 * M, HUGEPAGE)
    p.touch(BASE)
    p.register(BASE, 2 * M, MISSING)
    assert p.io("copy", BASE, SOURCE, PAGE, 0) == (-EEXIST, -EEXIST)
    assert p.huge == 1
    assert p.madvise(BASE, 2 * M, DONTNEED) == 0
    assert p.fault(BASE) & FAULT_USERFAULT and p.fault(BASE, False) & FAULT_USERFAULT
    assert p.io("copy", BASE, SOURCE, PAGE, 0) == (0, PAGE)
    p.end()


def test_no_collapse_behind_the_monitors_back(p: Uffd) -> None:
    p.mmap(BASE, 2 * M)
    p.fill(BASE, 2 * M - PAGE)
    p.register(BASE, 2 * M, MISSING)
    assert p.madvise(BASE, 2 * M, COLLAPSE) < 0
    assert p.io("copy", BASE + 2 * M - PAGE, SOURCE, PAGE, 0) == (0, PAGE)
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0 and p.huge == 1
    p.end()


# --- minor faults ----------------------------------------------------------------------------------------


def test_minor_faults_and_continue(p: Uffd) -> None:
    f = p.memfd(2 * M)
    p.area(2 * M, MINOR, f, True)
    other = BASE + 64 * M
    p.mmap(other, 2 * M, f=f, flags=SHARED)
    assert p.io("continue", BASE, PAGE) == (-EFAULT, -EFAULT)
    p.write(other, 9)
    assert p.fault(BASE) & FAULT_USERFAULT and p.fault(BASE, False) & FAULT_USERFAULT
    assert p.io("continue", BASE, 2 * PAGE) == (-EAGAIN, PAGE)
    assert p.read(BASE) == 9
    assert p.io("continue", BASE, PAGE)[0] == -EEXIST
    p.write(BASE + PAGE, 4)  # a hole is no minor fault
    assert p.read(other + PAGE) == 4
    p.end()


def test_continue_makes_valid_what_fallocate_made(p: Uffd) -> None:
    f = p.memfd(2 * M)
    p.area(2 * M, MINOR, f, True)
    p.k("file_write").shmem_fallocate_range(f.f_mapping, 0, PAGE, False)
    in_core = p.k("mincore").sys_mincore
    assert in_core(p.mm, BASE, PAGE) == (0, b"\0")
    assert p.io("continue", BASE, PAGE) == (0, PAGE)
    assert p.madvise(BASE, PAGE, DONTNEED) == 0
    assert in_core(p.mm, BASE, PAGE) == (0, b"\1")
    p.end()


# --- write protection ------------------------------------------------------------------------------------


def test_write_protection_of_what_is_not_populated(p: Uffd) -> None:
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 4 * M)
    p.register(BASE, 8 * M, WP)
    assert cost(p, "writeprotect", BASE, 8 * M, PROTECT) == 8
    assert cost(p, "madvise", BASE, 8 * M, DONTNEED) == -16
    p.end()


def test_write_protection_of_populated_memory_alone(driver: str) -> None:
    p = Uffd(driver=driver)
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 4 * M)
    p.register(BASE, 8 * M, WP)
    assert cost(p, "writeprotect", BASE, 8 * M, PROTECT) == 0
    assert p.fault(BASE) & FAULT_USERFAULT and p.fault(BASE + PAGE) == 0
    p.end()


def test_shared_memory_keeps_markers_until_it_is_unregistered(p: Uffd) -> None:
    p.area(2 * M, WP, p.memfd(2 * M), True)
    assert cost(p, "writeprotect", BASE, 2 * M, PROTECT) == 4
    p.fill(BASE, 4 * PAGE, write=False)
    assert p.fault(BASE) & FAULT_USERFAULT
    assert cost(p, "madvise", BASE, 2 * M, DONTNEED) == 0
    assert p.marked(BASE) and p.marked(BASE + 2 * M - PAGE)
    assert cost(p, "unregister", BASE, 2 * M) == 0
    assert p.entry(BASE) == 0
    assert cost(p, "madvise", BASE, 2 * M, DONTNEED) == -4
    p.end()


@pytest.mark.parametrize("kind", ["anon", "memfd", "private memfd"])
def test_write_protected_pages(p: Uffd, kind: str) -> None:
    p.mmap(BASE, 2 * M, f=None if kind == "anon" else p.memfd(2 * M), flags=SHARED if kind == "memfd" else
           (0x22 if kind == "anon" else 2))
    p.write(BASE, 1)
    p.register(BASE, 2 * M, WP)
    assert p.io("writeprotect", BASE, 2 * PAGE, PROTECT) == 0
    assert p.read(BASE) == 1
    assert p.fault(BASE) & FAULT_USERFAULT
    assert p.marked(BASE + PAGE)
    assert p.fault(BASE + PAGE, False) == 0 and p.fault(BASE + PAGE) & FAULT_USERFAULT
    assert p.io("writeprotect", BASE, 2 * PAGE, 0) == 0
    p.write(BASE, 2)
    p.write(BASE + PAGE, 3)
    assert (p.read(BASE), p.read(BASE + PAGE)) == (2, 3)
    p.end()


def test_a_write_to_an_unpopulated_protected_page_faults_twice(p: Uffd) -> None:
    """First the page comes, with the protection that the marker stood for; the write itself is what waits."""
    p.area(2 * M, WP)
    assert p.io("writeprotect", BASE, PAGE, PROTECT) == 0
    assert p.fault(BASE) == 0
    assert p.entry(BASE) & p.k("pgtable").UFFD_WP and not p.entry(BASE) & p.k("pgtable").RW
    assert p.fault(BASE) & FAULT_USERFAULT
    p.end()


def test_copy_that_protects(p: Uffd) -> None:
    p.area(2 * M, MISSING | WP)
    assert p.io("copy", BASE, SOURCE, PAGE, COPY_WP) == (0, PAGE)
    assert p.read(BASE) == 100 and p.fault(BASE) & FAULT_USERFAULT
    p.register(BASE + M, M, MISSING)
    p.end()


def test_copy_cannot_protect_what_is_registered_for_missing_pages_only(p: Uffd) -> None:
    p.area(2 * M, MISSING)
    assert p.io("copy", BASE, SOURCE, PAGE, COPY_WP) == (-EINVAL, -EINVAL)
    p.end()


def test_the_kernel_resolves_write_faults_itself(driver: str) -> None:
    p = Uffd(driver=driver, features=WP_ASYNC)
    p.area(2 * M, WP)
    p.write(BASE, 1)
    assert p.io("writeprotect", BASE, 2 * PAGE, PROTECT) == 0
    uffd_wp = p.k("pgtable").UFFD_WP
    assert p.entry(BASE) & uffd_wp and p.marked(BASE + PAGE)
    p.write(BASE, 2)
    p.write(BASE + PAGE, 3)
    assert not p.entry(BASE) & uffd_wp and not p.entry(BASE + PAGE) & uffd_wp
    p.end()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_huge_pages_are_protected_whole(driver: str, asynchronous: bool) -> None:
    p = Uffd(driver=driver, features=WP_ASYNC if asynchronous else 0)
    p.mmap(BASE, 4 * M)
    p.madvise(BASE, 4 * M, HUGEPAGE)
    p.touch(BASE, 4 * M)
    p.register(BASE, 4 * M, WP)
    assert cost(p, "writeprotect", BASE, 3 * M, PROTECT) == 0
    assert p.huge == 1
    if asynchronous:
        p.write(BASE + PAGE, 1)
        assert p.huge == 0
        assert p.entry(BASE) & p.k("pgtable").UFFD_WP and not p.entry(BASE + PAGE) & p.k("pgtable").UFFD_WP
    else:
        assert p.fault(BASE + PAGE) & FAULT_USERFAULT and p.huge == 1
        assert p.io("writeprotect", BASE, 2 * M, 0) == 0
        p.write(BASE + PAGE, 1)
    p.end()


def test_a_huge_page_of_a_file_gives_way_to_markers(p: Uffd) -> None:
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, f=f, flags=SHARED)
    p.fill(BASE, 2 * M)
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0
    p.touch(BASE)
    p.register(BASE, 2 * M, WP)
    assert cost(p, "writeprotect", BASE, 2 * M, PROTECT) == 4
    assert p.marked(BASE + M)
    assert p.madvise(BASE, 2 * M, COLLAPSE) < 0 and p.marked(BASE + M)
    p.end()


def test_protection_over_several_vmas(p: Uffd) -> None:
    p.mmap(BASE, 2 * M)
    p.mmap(BASE + 2 * M, 2 * M, READ)
    p.mmap(BASE + 6 * M, 2 * M)
    p.register(BASE, 4 * M, WP)
    assert cost(p, "writeprotect", BASE, 6 * M, PROTECT) == 8
    assert p.io("writeprotect", BASE, 8 * M, PROTECT) == -ENOENT
    assert p.io("writeprotect", BASE + 4 * M, 2 * M, PROTECT) == -ENOENT
    p.end()


def test_protection_before_6_3_wants_one_vma() -> None:
    p = Uffd(KernelConfig("6.1"))
    p.mmap(BASE, 2 * M)
    p.mmap(BASE + 2 * M, 2 * M, READ)
    p.register(BASE, 4 * M, WP)
    assert p.io("writeprotect", BASE, 4 * M, PROTECT) == -ENOENT
    assert p.io("writeprotect", BASE, 2 * M, PROTECT) == 0
    p.end()


# --- registering -----------------------------------------------------------------------------------------


def test_registering_splits_and_unregistering_merges(p: Uffd) -> None:
    p.mmap(BASE, 8 * M)
    p.register(BASE + 2 * M, 2 * M, MISSING)
    assert p.vmas()[:3] == [(0, 2 * M), (2 * M, 4 * M), (4 * M, 8 * M)]
    p.register(BASE + 4 * M, 2 * M, MISSING)
    assert p.vmas()[1] == (2 * M, 6 * M)
    p.register(BASE + 4 * M, M, WP | MISSING)
    assert p.vmas()[1:4] == [(2 * M, 4 * M), (4 * M, 5 * M), (5 * M, 6 * M)]
    p.register(BASE + 4 * M, M, MISSING)  # it has that and more
    assert p.has(BASE + 4 * M, "VM_UFFD_WP")
    assert p.io("unregister", BASE, 8 * M) == 0
    assert p.vmas()[0] == (0, 8 * M)
    p.end()


def test_who_cannot_be_registered(p: Uffd) -> None:
    other = p.k("fs_userfaultfd").uffd_alloc(p.mm, 0)
    p.mmap(BASE, 2 * M)
    p.mmap(BASE + 2 * M, 2 * M, f=p.file(2 * M), flags=2)
    assert p.io("register", BASE, 4 * M, MISSING) == (-EINVAL, 0)
    assert p.io("register", BASE, 2 * M, MINOR) == (-EINVAL, 0)
    assert p.io("register", BASE, 2 * M, 0) == p.io("register", BASE + 1, 2 * M, 1) == (-EINVAL, 0)
    assert p.io("register", BASE + 64 * M, 2 * M, MISSING) == (-EINVAL, 0)
    p.register(BASE, 2 * M, MISSING)
    uffd = p.k("fs_userfaultfd")
    assert uffd.uffdio_register(other, BASE, 2 * M, MISSING) == (-EBUSY, 0)
    assert uffd.uffdio_unregister(other, BASE, 2 * M) == -EINVAL
    f = p.memfd(2 * M)
    f.f_readonly = 1
    p.mmap(BASE + 8 * M, 2 * M, READ, f=f, flags=SHARED)
    assert p.io("register", BASE + 8 * M, 2 * M, MISSING) == (-EPERM, 0)
    uffd.uffd_close(other)
    p.end()


def test_any_memory_can_be_write_protected_by_the_kernel_alone(driver: str) -> None:
    p = Uffd(driver=driver, features=WP_ASYNC)
    p.mmap(BASE, 2 * M, f=p.file(2 * M), flags=2)
    p.register(BASE, 2 * M, WP)
    assert p.io("writeprotect", BASE, PAGE, PROTECT) == 0 and p.marked(BASE)
    assert p.fault(BASE, False) == 0 and p.fault(BASE) == 0
    p.end()


def test_closing_unregisters(p: Uffd) -> None:
    p.area(2 * M, MISSING | WP)
    assert p.io("writeprotect", BASE, 2 * M, PROTECT) == 0
    p.k("fs_userfaultfd").uffd_close(p.ctx)
    p.done()
    assert not p.has(BASE, "VM_UFFD_WP") and p.entry(BASE) == 0
    assert p.fault(BASE) == 0
    p.exit()


def test_a_failing_copy_leaves_an_anon_vma(driver: str) -> None:
    for release, prepared in (("6.1", False), ("7.x", True)):
        p = Uffd(KernelConfig(release), driver)
        p.mmap(BASE, 2 * M)
        assert p.io("copy", BASE, SOURCE, PAGE, 0) == (-ENOENT, -ENOENT)
        assert bool(p.field(BASE, "anon_vma")) == prepared
        p.end()


@pytest.mark.parametrize(
    ("release", "features"), [("6.1", 0x1FFF), ("6.4", 0x3FFF), ("6.6", 0x7FFF), ("6.7", 0xFFFF), ("6.8", 0x1FFFF)]
)
def test_features_by_release(release: str, features: int) -> None:
    p = Process(KernelConfig(release))
    uffd = p.k("fs_userfaultfd")
    ctx = uffd.sys_userfaultfd(p.mm, 0)
    assert uffd.uffdio_register(ctx, BASE, PAGE, 1) == (-EINVAL, 0)
    assert uffd.uffdio_api(ctx, features + 1) == (-EINVAL, 0)
    assert uffd.uffdio_api(ctx, 0) == (0, features)
    assert uffd.uffdio_api(ctx, 0) == (-EINVAL, 0)
    assert not uffd.uffd_alloc(p.mm, features + 1)
    assert (uffd.uffdio_move(ctx, BASE, SOURCE, PAGE)[0] == -ENOENT) == (release == "6.8")
    uffd.uffd_close(ctx)
    p.exit()


# --- moving ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", ["6.12", "7.x"])
def test_moving_pages(driver: str, release: str) -> None:
    p = Uffd(KernelConfig(release), driver)
    p.area(8 * M, MISSING)
    before = p.rss
    assert cost(p, "move", BASE, SOURCE, 8 * PAGE, 0) == 4
    assert p.rss == before
    assert [p.read(BASE + i * PAGE) for i in range(8)] == [100 + i for i in range(8)]
    assert p.entry(SOURCE) == 0
    p.write(SOURCE, 1)
    assert p.io("move", BASE, SOURCE, PAGE, 0) == (-EEXIST, -EEXIST)
    assert p.io("move", BASE + M, SOURCE, 2 * PAGE, 0) == (-EAGAIN, PAGE)
    assert p.io("move", BASE + 2 * M, SOURCE + PAGE, PAGE, 0) == (-ENOENT, -ENOENT)
    assert p.io("move", BASE + 2 * M, SOURCE + PAGE, PAGE, HOLES) == (0, PAGE)
    p.end()


def test_moving_holes_makes_tables_on_both_sides(p: Uffd) -> None:
    p.area(4 * M, MISSING)
    p.mmap(BASE + 64 * M, 4 * M)
    assert cost(p, "move", BASE, BASE + 64 * M, 4 * M, HOLES) == 16
    p.end()


def test_moving_huge_pages(p: Uffd) -> None:
    p.area(8 * M, MISSING)
    source = BASE + 64 * M
    p.mmap(source, 4 * M)
    p.madvise(source, 4 * M, HUGEPAGE)
    p.write(source, 1)
    p.write(source + 3 * M, 2)
    assert cost(p, "move", BASE, source, 2 * M, 0) == 0
    assert p.huge == 2 and p.read(BASE) == 1
    before = p.vmpte
    assert p.io("move", BASE + 2 * M, source + 3 * M, PAGE, 0) == (0, PAGE)
    assert p.huge == 1 and p.vmpte - before == 4
    assert p.read(BASE + 2 * M) == 2 and p.read(source + 3 * M) == 0
    p.end()


def test_pages_that_cannot_move(p: Uffd) -> None:
    p.area(2 * M, MISSING)
    p.mmap(BASE + 64 * M, 2 * M, READ)
    assert p.io("move", BASE, BASE + 64 * M, PAGE, HOLES) == (-EINVAL, -EINVAL)
    child = p.fork()
    assert p.io("move", BASE, SOURCE, PAGE, 0) == (-EBUSY, -EBUSY)
    child.exit()
    p.write(SOURCE + PAGE, 1)
    assert p.io("move", BASE, SOURCE + PAGE, PAGE, 0) == (0, PAGE)
    p.madvise(SOURCE, PAGE, GUARD_INSTALL)
    assert p.io("move", BASE + PAGE, SOURCE, PAGE, 0) == (-EFAULT, -EFAULT)
    assert p.io("move", SOURCE, BASE, PAGE, 0) == (-EINVAL, -EINVAL)  # only to where it is registered
    p.end()


def test_moving_the_zero_page(p: Uffd) -> None:
    p.area(2 * M, MISSING)
    p.touch(SOURCE + M, write=False)
    assert p.io("move", BASE, SOURCE + M, PAGE, 0) == (0, PAGE)
    assert p.read(BASE) == 0 and p.entry(SOURCE + M) == 0
    p.end()


@pytest.mark.parametrize(("without", "lost"), [((), False), (("D02",), True)])
def test_a_destination_whose_table_goes_meanwhile(
    without: tuple[str, ...], lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K25: a none entry looks the same in the detached table; only the pmd tells."""
    p = Uffd(KernelConfig(without=without))
    p.area(2 * M, MISSING)
    assert p.io("copy", BASE + M, SOURCE + PAGE, PAGE, 0) == (0, PAGE)
    move = p.k("userfaultfd_move")
    real = move.double_pt_lock
    steps = [1]

    def racing(a: int, b: int) -> None:
        if steps and steps.pop():
            assert p.k("madvise").sys_madvise(p.mm, BASE, 2 * M, DONTNEED) == 0
            uffd = p.k("userfaultfd")
            copy = (p.ctx, BASE + M, PAGE, uffd.MFILL_ATOMIC_COPY, False, p.mm, SOURCE + PAGE)
            assert uffd.mfill_atomic(*copy) == PAGE
        real(a, b)

    monkeypatch.setattr(move, "double_pt_lock", racing)
    assert p.k("fs_userfaultfd").uffdio_move(p.ctx, BASE, SOURCE, PAGE) == (0, PAGE)
    assert (p.entry(BASE) == 0) == lost
    if not lost:
        assert p.read(BASE) == 100
        p.end()


# --- waiting ---------------------------------------------------------------------------------------------


def test_who_must_wait() -> None:
    for without, waits in (((), False), (("K49",), True)):
        p = Process(KernelConfig(without=without))
        g, must_wait = p.k("pgtable"), p.k("userfaultfd_fault").entry_must_wait
        missing, wp = p.k("vm_flags").VM_UFFD_MISSING, p.k("vm_flags").VM_UFFD_WP
        assert must_wait(0, missing) and must_wait(0, wp)
        assert must_wait(g.make_pte_marker(g.PTE_MARKER_UFFD_WP), wp)
        assert must_wait(g.PRESENT, wp) and not must_wait(g.PRESENT, missing)
        assert not must_wait(g.PRESENT | g.RW, wp)
        assert must_wait(g.swp_entry(g.SWP_MIGRATION, 80), wp) == waits


def test_resolved_while_it_was_being_delivered(p: Uffd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault looks once more before it sleeps, and finds the page."""
    p.area(2 * M, MISSING)
    fault, memory = p.k("userfaultfd_fault"), p.k("memory")
    real = fault.handle_userfault
    resolved: list[int] = []

    def late(vmf: Any, reason: int) -> int:
        if not resolved:
            resolved.append(reason)
            pmd = p.k("pgtable").mm_find_pmd(p.mm, BASE)
            zero = p.k("userfaultfd").MFILL_ATOMIC_ZEROPAGE
            assert p.k("userfaultfd").mfill_atomic_pte(vmf.vma, pmd, BASE, zero, False) == 0
        return int(real(vmf, reason))

    monkeypatch.setattr(memory, "handle_userfault", late)
    assert p.read(BASE) == 0 and len(resolved) == 1
    p.end()


# --- events ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("follows", [False, True])
def test_fork(driver: str, follows: bool) -> None:
    p = Uffd(driver=driver, features=WP_UNPOPULATED | (EVENT_FORK if follows else 0))
    p.area(2 * M, MISSING | WP)
    p.mmap(BASE + 8 * M, 2 * M)
    p.register(BASE + 8 * M, 2 * M, MISSING)
    assert p.io("writeprotect", BASE, PAGE, PROTECT) == 0
    child = Uffd.__new__(Uffd)
    child.__dict__.update(p.fork().__dict__)
    assert child.has(BASE, "VM_UFFD_MISSING") == child.marked(BASE) == follows
    assert bool(child.fault(BASE + PAGE) & FAULT_USERFAULT) == follows
    assert p.fault(BASE + PAGE) & FAULT_USERFAULT
    if follows:
        ctx = child.field(BASE, "vm_userfaultfd_ctx")
        assert ctx not in (0, p.ctx) and child.field(BASE + 8 * M, "vm_userfaultfd_ctx") == ctx
        child.ctx = p.k("mm_types").userfaultfd_ctx(ctx)
        assert child.io("copy", BASE + PAGE, SOURCE, PAGE, 0) == (0, PAGE)
        child.end()
    else:
        child.exit()
    p.end()


def test_unmapping_is_told_without_mmap_lock(driver: str) -> None:
    p = Uffd(driver=driver, features=EVENT_REMOVE)
    p.area(2 * M, MISSING)
    assert p.io("copy", BASE, SOURCE, PAGE, 0) == (0, PAGE)
    before = p.locked("mm_struct.mmap_lock")
    assert cost(p, "madvise", BASE, 2 * M, DONTNEED) == -4
    assert p.locked("mm_struct.mmap_lock") - before == 2
    p.end()


@pytest.mark.parametrize(("without", "output"), [((), -EAGAIN), (("K31",), 0)])
def test_while_an_event_is_not_read(without: tuple[str, ...], output: int) -> None:
    p = Uffd(KernelConfig(without=without))
    p.area(2 * M, MISSING | WP)
    p.model.machine.add(p.ctx.mmap_changing, 1)
    assert p.io("copy", BASE, SOURCE, PAGE, 0) == (-EAGAIN, output)
    assert p.io("writeprotect", BASE, PAGE, PROTECT) == -EAGAIN
    p.model.machine.add(p.ctx.mmap_changing, -1)
    assert p.io("copy", BASE, SOURCE, PAGE, 0) == (0, PAGE)
    p.end()


def test_faults_of_a_locked_move_come_before_its_event(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p = Uffd(driver=driver, features=EVENT_REMAP)
    p.area(PAGE, MISSING)
    assert p.io("copy", BASE, SOURCE, PAGE, 0) == (0, PAGE)
    p.mlock(BASE, PAGE)
    uffd, config, to = p.k("fs_userfaultfd"), p.k("config").config, BASE + 64 * M
    seen: list[tuple[int, int]] = []

    def reader(ctx: int, address: int, reason: int) -> bool:
        seen.append((address, uffd.uffdio_copy(p.ctx, address, SOURCE, PAGE, 0)[0]))
        return False

    monkeypatch.setattr(config, "userfault_reader", reader)
    monkeypatch.setattr(
        config, "userfault_reader_again", lambda: uffd.uffdio_unregister(p.ctx, seen[-1][0], PAGE)
    )
    assert p.mremap(BASE, PAGE, 3 * PAGE, 3, to) == to
    assert seen == [(to + PAGE, -EAGAIN), (to + 2 * PAGE, -EAGAIN)]
    assert p.has(to, "VM_UFFD_MISSING") and not p.has(to + PAGE, "VM_UFFD_MISSING")
    assert p.model.machine.load(p.ctx.mmap_changing) == 0
    assert p.rss == 9 + 3
    p.end()


# --- releases --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("without", "kept"), [((), False), (("K50",), True)])
def test_protection_after_a_move_that_nobody_heard_of(without: tuple[str, ...], kept: bool) -> None:
    p = Uffd(KernelConfig(without=without), features=WP_UNPOPULATED)
    p.area(2 * M, WP)
    assert p.io("writeprotect", BASE, PAGE, PROTECT) == 0
    to = BASE + 64 * M
    assert p.mremap(BASE, 2 * M, 2 * M, 3, to) == to
    assert p.marked(to) == kept and not p.has(to, "VM_UFFD_WP")
    assert p.fault(to) == 0
    p.end()


def test_filling_takes_mmap_lock_before_6_9() -> None:
    for release, lock in (("6.8", "mm_struct.mmap_lock"), ("6.12", "vm_area_struct.vm_lock")):
        p = Uffd(KernelConfig(release))
        p.area(2 * M, MISSING)
        assert p.io("copy", BASE, SOURCE, PAGE, 0) == (0, PAGE)
        names = ("mm_struct.mmap_lock", "vm_area_struct.vm_lock")
        before = [p.locked(name) for name in names]
        assert p.io("copy", BASE + PAGE, SOURCE, PAGE, 0) == (0, PAGE)
        assert [name for name, n in zip(names, before, strict=True) if p.locked(name) > n] == [lock]
        p.end()

# SPDX-License-Identifier: GPL-2.0-only
"""Secondary MMUs: whatever changes entries of a process's tables tells a virtual machine, and it drops what it maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import BASE, PAGE, SHARED, M, Process

DONTNEED, FREE, REMOVE, MERGEABLE, HUGEPAGE, PAGEOUT, COLLAPSE, GUARD_INSTALL = 4, 8, 9, 12, 14, 21, 25, 102
HUGE = ("transparent_hugepage", "always")
SIZE = 2 * M


def anonymous(p: Process) -> None:
    p.mmap(BASE, 2 * SIZE)
    p.write(BASE, 1)


def of_file(p: Process) -> Process:
    """The same file in another process."""
    f = p.memfd(SIZE)
    p.mmap(BASE, SIZE, 3, SHARED, f)
    p.write(BASE, 1)
    q = Process.__new__(Process)
    q.model = p.model
    q.mm = p.k("mm_init").mm_alloc()
    q.mmap(BASE, SIZE, 3, SHARED, f)
    return q


def regular(p: Process) -> None:
    p.mmap(BASE, SIZE, 3, SHARED, p.file(SIZE))
    p.write(BASE, 1)


def zero_huge(p: Process) -> None:
    p.mmap(BASE, SIZE)
    assert p.read(BASE) == 0
    assert p.stat("THP_SPLIT_PMD") == 0


def merge(p: Process) -> None:
    p.write(BASE + PAGE, 1)
    assert p.madvise(BASE, 2 * PAGE, MERGEABLE) == 0
    for _ in range(3):
        p.k("ksm_scan").ksmd_pass()
    p.done()


def move_by_uffd(p: Process) -> None:
    p.mmap(BASE + 4 * SIZE, SIZE)
    k = p.k("fs_userfaultfd")
    ctx = k.uffd_alloc(p.mm, 0)
    assert k.uffdio_register(ctx, BASE + 4 * SIZE, SIZE, 1)[0] == 0
    assert k.uffdio_move(ctx, BASE + 4 * SIZE, BASE, SIZE if p.huge else PAGE, 0)[0] == 0
    p.done()


def migrate_to_device(p: Process) -> None:
    locks = p.k("mmap_lock")
    locks.mmap_read_lock(p.mm)
    assert p.k("migrate_device").migrate_vma(p.k("vma").find_vma(p.mm, BASE), BASE, BASE + PAGE) == 1
    locks.mmap_read_unlock(p.mm)


def collapse_elsewhere(p: Process, q: Process) -> None:
    for i in range(0, SIZE, PAGE):
        q.write(BASE + i, 1)
    assert q.madvise(BASE, SIZE, COLLAPSE) == 0


def write_back(p: Process) -> None:
    mapping = p.field(BASE, "vm_file").f_mapping
    p.k("page_writeback").filemap_write_and_wait_range(mapping, 0, 0)
    p.done()


def remap(p: Process) -> None:
    assert p.mremap(BASE, SIZE, SIZE, 3, BASE + 8 * SIZE) == BASE + 8 * SIZE


def scan_and_protect(p: Process) -> None:
    k, u = p.k("pagemap_scan"), p.k("fs_userfaultfd")
    ctx = u.uffd_alloc(p.mm, u.UFFD_FEATURE_WP_ASYNC)
    assert u.uffdio_register(ctx, BASE, SIZE, 2)[0] == 0
    arg = k.pm_scan_arg(BASE, BASE + SIZE, k.PM_SCAN_WP_MATCHING, 0, 8, (0, k.PAGE_IS_WRITTEN, 0, k.PAGE_IS_WRITTEN))
    assert k.do_pagemap_scan(p.mm, arg)[0] == 1
    p.done()


# name: (what maps the guest's first page, what changes the tables then, options)
Change = tuple[Callable[[Process], Any], Callable[..., Any], tuple[tuple[str, str], ...]]
CHANGES: dict[str, Change] = {
    "dontneed": (anonymous, lambda p, _: p.madvise(BASE, PAGE, DONTNEED), ()),
    "free": (anonymous, lambda p, _: p.madvise(BASE, PAGE, FREE), ()),
    "guard": (anonymous, lambda p, _: p.madvise(BASE, PAGE, GUARD_INSTALL), ()),
    "pageout": (anonymous, lambda p, _: p.madvise(BASE, PAGE, PAGEOUT), (("swap", "y"),)),
    "munmap": (anonymous, lambda p, _: p.munmap(BASE, SIZE), ()),
    "mprotect": (anonymous, lambda p, _: p.mprotect(BASE, SIZE, 1), ()),
    "mremap": (anonymous, lambda p, _: remap(p), ()),
    "fork": (anonymous, lambda p, _: p.fork(), ()),
    "exit": (anonymous, lambda p, _: p.exit(), ()),
    "collapse": (anonymous, lambda p, _: p.madvise(BASE, SIZE, COLLAPSE), ()),
    "clear-refs": (anonymous, lambda p, _: p.k("soft_dirty").clear_refs_write(p.mm, 4), (("soft_dirty", "y"),)),
    "merge": (anonymous, lambda p, _: merge(p), ()),
    "uffd-move": (anonymous, lambda p, _: move_by_uffd(p), ()),
    "uffd-move-huge": (anonymous, lambda p, _: move_by_uffd(p), (HUGE,)),
    "pagemap-scan": (anonymous, lambda p, _: scan_and_protect(p), ()),
    "migrate": (anonymous, lambda p, _: p.k("migrate").do_pages_move(p.mm, (BASE,), True), ()),
    "migrate-to-device": (anonymous, lambda p, _: migrate_to_device(p), ()),
    "split": (anonymous, lambda p, _: p.madvise(BASE + M, PAGE, DONTNEED), (HUGE,)),
    "write-zero-huge": (zero_huge, lambda p, _: p.write(BASE, 1), (HUGE,)),
    "punch": (of_file, lambda p, q: q.madvise(BASE, PAGE, REMOVE), ()),
    "collapse-elsewhere": (of_file, collapse_elsewhere, ()),
    "write-back": (regular, lambda p, _: write_back(p), ()),
}


def process(driver: str, *options: tuple[str, str]) -> Process:
    return Process(KernelConfig(options=(("mmu_notifier", "y"), *options)), driver)


def entry(p: Process, vm: Any) -> int:
    return int(p.model.machine.load(vm.spte))


@pytest.mark.parametrize("name", CHANGES)
def test_a_guest_has_nothing_that_its_process_has_not(name: str, driver: str) -> None:
    prepare, change, options = CHANGES[name]
    p = process(driver, *options)
    q = prepare(p)
    kvm = p.k("kvm_mmu")
    vm = kvm.kvm_create_vm(p.mm, BASE, 2)
    value = p.read(BASE)
    if name != "write-zero-huge":
        assert kvm.guest_write(vm, 0, value) == 0
    assert kvm.guest_read(vm, 0) == value
    assert entry(p, vm) != 0
    change(p, q)
    assert entry(p, vm) == 0
    assert kvm_is_idle(p, vm)
    if name not in ("munmap", "mremap", "exit", "guard"):
        assert kvm.guest_read(vm, 0) == p.read(BASE)


def kvm_is_idle(p: Process, vm: Any) -> bool:
    """Whether each invalidation that began has ended."""
    machine = p.model.machine
    machine.spin_lock(vm.mmu_lock)
    idle = vm.mmu_invalidate_in_progress == 0
    machine.spin_unlock(vm.mmu_lock)
    return bool(idle)


def test_a_copy_on_write_takes_the_page_from_the_guest(driver: str) -> None:
    p = process(driver)
    anonymous(p)
    p.fork()
    kvm = p.k("kvm_mmu")
    vm = kvm.kvm_create_vm(p.mm, BASE, 1)
    assert kvm.guest_read(vm, 0) == 1
    p.write(BASE, 2)
    assert entry(p, vm) == 0
    assert kvm.guest_read(vm, 0) == 2


def test_a_guest_writes_what_its_process_reads(driver: str) -> None:
    p = process(driver)
    p.mmap(BASE, SIZE)
    kvm = p.k("kvm_mmu")
    vm = kvm.kvm_create_vm(p.mm, BASE, 2)
    assert kvm.guest_write(vm, 1, 7) == 0
    assert p.read(BASE + PAGE) == 7
    assert kvm.guest_read(vm, 0) == 0
    p.munmap(BASE, PAGE)
    assert kvm.guest_read(vm, 0) == kvm.guest_write(vm, 0, 1) == -1
    assert kvm.guest_read(vm, 1) == 7


def test_what_lies_outside_of_a_guests_memory_is_nothing_to_it(driver: str) -> None:
    p = process(driver)
    p.mmap(BASE, SIZE)
    kvm = p.k("kvm_mmu")
    vm = kvm.kvm_create_vm(p.mm, BASE + 4 * PAGE, 2)
    assert kvm.guest_write(vm, 0, 7) == 0
    p.madvise(BASE, 4 * PAGE, DONTNEED)
    p.madvise(BASE + 6 * PAGE, PAGE, DONTNEED)
    assert entry(p, vm) != 0
    p.madvise(BASE + 4 * PAGE, PAGE, DONTNEED)
    assert entry(p, vm) == 0


def test_a_device_reads_what_its_process_has() -> None:
    p = process("sequential")
    anonymous(p)
    sva = p.k("iommu_sva")
    device = sva.iommu_sva_bind_device(p.mm)
    assert sva.device_read(device, BASE) == 1
    assert sva.device_read(device, BASE + PAGE) == 0  # which is faulted in for it
    assert sva.device_read(device, BASE - PAGE) == -1
    p.exit()
    assert sva.device_read(device, BASE) == -1


def test_without_notifiers_nobody_can_subscribe(driver: str) -> None:
    p = Process(driver=driver)
    with pytest.raises(p.k("bug").BugOn, match="CONFIG_MMU_NOTIFIER"):
        p.k("kvm_mmu").kvm_create_vm(p.mm, BASE, 1)

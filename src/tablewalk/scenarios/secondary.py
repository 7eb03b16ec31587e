# SPDX-License-Identifier: GPL-2.0-only
"""Secondary MMUs: a virtual machine, which maps pages of a process to its guest, and a device that walks its tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tablewalk.explore.scenario import MADV_COLLAPSE, MADV_DONTNEED, Process, Setup, scenario

from .mapped import map_by_table

NOTIFIED = {"mmu_notifier": "y"}


def guest_of(s: Setup, p: Process) -> Any:
    """A virtual machine whose memory is what the process has at A, a huge page's size."""
    return s.model.kernel("kvm_mmu").kvm_create_vm(p.mm, s.A, s.huge)


def _guest_reads(s: Setup, vm: Any) -> Callable[[], int]:
    """The guest's first page is read."""
    kvm = s.model.kernel("kvm_mmu")
    return lambda: int(kvm.guest_read(vm, 0))


@scenario(options=NOTIFIED | {"transparent_hugepage": "always", "read_only_thp_for_fs": "y"})
def guest_khugepaged_reclaim(s: Setup) -> None:
    """khugepaged removes the table by which a guest has got a page of a file, and then that page is reclaimed."""
    p, q = s.process(), s.process()
    f = s.regular(s.huge)
    q.mmap(s.A, s.huge, f)
    for i in range(s.huge):
        q.read(s.A + i * s.page)
    map_by_table(s, p, q, f)
    reads = _guest_reads(s, guest_of(s, p))
    reads()
    khugepaged = s.model.kernel("khugepaged")
    filemap, vmscan = s.model.kernel("filemap"), s.model.kernel("vmscan")

    def remove_and_reclaim() -> None:
        khugepaged.khugepaged_scan_mm(p.mm)
        khugepaged.khugepaged_scan_mm(p.mm)  # before 6.6 it only takes note of the table the first time
        vmscan.reclaim_pages((filemap.filemap_get_folio(f.f_mapping, 0),))

    s.thread("khugepaged", remove_and_reclaim)
    s.thread("guest", reads)
    s.finally_(lambda results: None if results["guest"] == 0 else f"the guest reads {results['guest']}, not 0")
    s.sometimes("filemap_remove_folio")


@scenario(options=NOTIFIED)
def guest_and_dontneed(s: Setup) -> None:
    """A guest gets a page for the first time while MADV_DONTNEED drops it."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.fill(s.A, s.huge, 1)
    s.thread("guest", _guest_reads(s, guest_of(s, p)))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if results["guest"] in (0, 1) else f"the guest reads {results['guest']}")
    s.sometimes_ends("the guest reads the page", lambda results: results["guest"] == 1)
    s.sometimes_ends("the guest reads another", lambda results: results["guest"] == 0)


@scenario(options=NOTIFIED)
def guest_write_and_fork(s: Setup) -> None:
    """A guest writes to a page that fork makes read-only, as the child has it too from then on."""
    p = s.process()
    p.mmap(s.A, s.huge)
    vm, kvm = guest_of(s, p), s.model.kernel("kvm_mmu")
    kvm.guest_write(vm, 0, 1)
    s.thread("fork", lambda: p.fork().mm)
    s.thread("guest", lambda: kvm.guest_write(vm, 0, 2))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("wp_page_copy")


@scenario(options=NOTIFIED)
def device_and_shmem_collapse(s: Setup) -> None:
    """A device walks the table of one process that MADV_COLLAPSE of another retracts."""
    p, q = s.sharing(2)
    q.read(s.A)
    sva = s.model.kernel("iommu_sva")
    device = sva.iommu_sva_bind_device(q.mm)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("device", lambda: sva.device_read(device, s.A))
    s.finally_(lambda results: None if results["device"] == 1 else f"the device reads {results['device']}, not 1")
    s.sometimes("retracted")


@scenario(options=NOTIFIED, slots=5)
def device_and_exit(s: Setup) -> None:
    """A device reads memory of a process that exits."""
    p = s.written()
    sva = s.model.kernel("iommu_sva")
    device = sva.iommu_sva_bind_device(p.mm)
    s.thread("exit", p.exit)
    s.thread("device", lambda: sva.device_read(device, s.A))
    s.finally_(lambda results: None if results["device"] in (1, -1) else f"the device reads {results['device']}")
    s.sometimes_ends("the device is in time", lambda results: results["device"] == 1)
    s.sometimes_ends("the device is refused", lambda results: results["device"] == -1)

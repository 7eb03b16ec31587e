# SPDX-License-Identifier: GPL-2.0-only
"""Kconfig options and sysfs knobs that the model reads.  `config` is the current configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final


@dataclass(slots=True)
class Kconfig:
    """Options by their kernel names in lower case; the defaults are those of a distribution's x86-64 kernel."""

    pt_reclaim: bool = True  # PT_RECLAIM
    per_vma_lock: bool = True  # PER_VMA_LOCK
    transparent_hugepage: str = "madvise"  # /sys/kernel/mm/transparent_hugepage/enabled: always, madvise, never
    shmem_enabled: str = "never"  # .../shmem_enabled
    use_zero_page: bool = True  # .../use_zero_page
    thp_exec_align: bool = True  # thp_get_unmapped_area
    read_only_thp_for_fs: bool = False  # READ_ONLY_THP_FOR_FS
    max_ptes_none: int = 511  # khugepaged/max_ptes_none
    max_ptes_swap: int = 64  # khugepaged/max_ptes_swap
    max_ptes_shared: int = 256  # khugepaged/max_ptes_shared
    ksm: bool = True  # KSM
    soft_dirty: bool = False  # MEM_SOFT_DIRTY, and pgtable_supports_soft_dirty()
    max_page_sharing: int = 256  # /sys/kernel/mm/ksm/max_page_sharing
    fault_around_bytes: int = 65536  # debugfs fault_around_bytes
    split_ptlocks: bool = True  # SPLIT_PTE_PTLOCKS and SPLIT_PMD_PTLOCKS
    alloc_split_ptlocks: bool = False  # ALLOC_SPLIT_PTLOCKS: locks of PTE tables are allocated (lock debugging)
    highpte: bool = False  # HIGHPTE
    hypervisor: str = "none"  # no option: who runs an x86 machine and may flush its TLBs: none, kvm, hyperv, xen
    numa: bool = True  # NUMA
    mmu_notifier: bool = False  # MMU_NOTIFIER: distributions have it, and it does nothing until somebody subscribes
    swap: bool = False  # no option: there is a swap device, which is read and written at once
    page_cluster: int = 0  # vm.page-cluster: a fault on swap reads 2^that pages; kernels begin with 3
    known_contents: bool = False  # no option: pages hold what the program wrote, so one of zeroes may be told
    # no option: the monitor of all userfaultfds, called with a context's address, a fault's, and a VM_UFFD_* flag:
    # whether it resolved the fault; if not, it is called once more when no lock is held
    userfault_reader: Callable[[int, int, int], bool] | None = None
    userfault_reader_again: Callable[[], None] | None = None


config: Final[Kconfig] = Kconfig()


def use(other: Kconfig) -> None:
    """Make `other` the configuration that the model reads."""
    for f in fields(other):
        setattr(config, f.name, getattr(other, f.name))

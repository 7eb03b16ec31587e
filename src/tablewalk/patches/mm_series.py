# SPDX-License-Identifier: GPL-2.0-only
"""mm: allow pte_offset_map[_lock]() to fail (6.5): what each function did while it could rely on *pmd.

Before 6.5 no table went away under a reader of mmap_lock, so kernels of that time lack nothing: each row is a mutant
of a kernel where tables do go away.  What most functions did was to take what the pmd holds for a table: that is
what `map`, `lock` and so on do without B04, and a row of another patch does it in its own file only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from ..arch import arch
from ..kernel.gup import follow_page_pte
from ..kernel.huge_pmd import __split_huge_pmd
from ..kernel.mm_types import mm_struct, spinlock_t, vm_area_struct
from ..kernel.page_alloc import PAGE_CELLS
from ..kernel.pgtable import (
    PFN_SHIFT,
    SPECIAL,
    TABLE_ENTRY,
    page_t,
    pmd_is_table,
    pmd_p,
    pmd_page,
    pmd_trans_huge,
    pmdp_get_lockless,
    pte_index,
    pte_p,
    pte_page,
    pte_present,
    ptep_get,
)
from ..kernel.pgtable_generic import pte_alloc, pte_lockptr, pte_offset_map, pte_unmap
from ..kernel.vm_flags import EBUSY
from ..machine import kmap_local, kunmap_local, load, rcu_read_lock, rcu_read_unlock, spin_lock
from . import Claim, patch, without_code

F = TypeVar("F", bound=Callable[..., object])

SERIES: Final = "mm: allow pte_offset_map[_lock]() to fail"


def trusting(
    id: str, commit: str, title: str, site: str, claim: Claim, *files: str, series: str = SERIES
) -> Callable[[F], F]:
    """A patch without which `site` trusts in *pmd."""
    return patch(
        id, commit=commit, title=title, series=series, since="6.5", site=site, files=files, mutant=True, claim=claim
    )


def race(scenario: str, invariant: str) -> Claim:
    """The usual claim."""
    return Claim("race", scenario, invariant)


B04: Final = ("B04", "0d940a9b270b", "mm/pgtable: allow pte_offset_map[_lock]() to fail")
B09: Final = ("B09", "7780d04046a2", "mm/pagewalkers: ACTION_AGAIN if pte_offset_map_lock() fails")
B10: Final = ("B10", "be872f83bf57", "mm/pagewalk: walk_pte_range() allow for pte_offset_map()")
B13: Final = ("B13", "6ec1905f6ec7", "mm/hmm: retry if pte_offset_map() fails")
B14: Final = ("B14", "2b683a4ff6ee", "fs/userfaultfd: retry if pte_offset_map() fails")
B15: Final = ("B15", "3622d3cde308", "mm/userfaultfd: allow pte_offset_map_lock() to fail")
B17: Final = ("B17", "04dee9e85cf5", "mm/various: give up if pte_offset_map[_lock]() fails")
B19: Final = ("B19", "a5be621ee292", "mm/mremap: retry if either pte_offset_map_*lock() fails")
B22: Final = ("B22", "d850fa729873", "mm/swapoff: allow pte_offset_map[_lock]() to fail")
B23: Final = ("B23", "52fc048320ad", "mm/mglru: allow pte_offset_map_nolock() to fail")
B24: Final = ("B24", "4b56069c95d6", "mm/migrate_device: allow pte_offset_map_lock() to fail")
B27: Final = ("B27", "895f5ee464cc", "mm/khugepaged: allow pte_offset_map[_lock]() to fail")
B28: Final = ("B28", "3db82b9374ca", "mm/memory: allow pte_offset_map[_lock]() to fail")
B31: Final = ("B31", "4f8fcf4ced0b", "mm/swap: swap_vma_readahead() do the pte_offset_map()")


@trusting(*B04, "pgtable_generic.__pte_offset_map", race("fault-and-dontneed", "I1"), "mm/pgtable-generic.c")
def map_anything(pmd: pmd_p, addr: int) -> tuple[pte_p, int]:
    """Whatever the pmd holds is taken for a table."""
    rcu_read_lock()
    pmdval = pmdp_get_lockless(pmd)
    return (pmdval >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.page_shift & arch.ptrs_per_pte - 1), pmdval


@trusting(*B13, "hmm:pte_offset_map", race("device-and-dontneed", "I1"), "mm/hmm.c")
@trusting(*B14, "userfaultfd_fault:pte_offset_map", race("uffd-fault-and-dontneed", "I1"), "fs/userfaultfd.c")
@trusting(*B17, "gup:pte_offset_map", race("gup-fast-and-dontneed", "I1"), "mm/gup.c")
@trusting(*B22, "swapoff:pte_offset_map", race("swapoff-and-dontneed", "I1"), "mm/swapfile.c")
@trusting(*B31, "swap_readahead:pte_offset_map", race("swapin-and-dontneed", "I1"), "mm/swap_state.c")
@trusting(*B27, "collapse_huge_page:pte_offset_map", race("anon-collapse-dontneed", "I1"), "mm/khugepaged.c")
def map_only(pmd: pmd_p, addr: int) -> pte_p:
    """The same for a reader."""
    return map_anything(pmd, addr)[0]


@trusting(*B19, "move_page_tables:pte_offset_map_rw_nolock", race("shmem-collapse-mremap-page", "I1"), "mm/mremap.c")
@trusting(
    "B29",
    "c7ad08804fae",
    "mm/memory: handle_pte_fault() use pte_offset_map_nolock()",
    "memory:pte_offset_map_rw_nolock",
    race("fault-and-dontneed", "I1"),
    "mm/memory.c",
)
@trusting(*B23, "lru_gen:pte_offset_map_rw_nolock", race("aging-and-dontneed", "I1"), "mm/vmscan.c")
@trusting(*B28, "memory_copy:pte_offset_map_rw_nolock", race("fault-and-dontneed", "I1"), "mm/memory.c")
def map_and_lockptr(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, int, spinlock_t]:
    """The same for who takes the lock later."""
    pte, pmdval = map_anything(pmd, addr)
    return pte, pmdval, pte_lockptr(mm, pmdval)


@trusting(
    "B02",
    "0cb8fd4d1416",
    "mm/migrate: remove cruft from migration_entry_wait()s",
    "migrate:pte_offset_map_lock",
    race("migrate-fault-dontneed", "I1"),
    "mm/migrate.c",
    "mm/filemap.c",
)
@trusting(*B04, "pgtable_generic.pte_offset_map_lock", race("fault-and-dontneed", "I1"), "mm/pgtable-generic.c")
@trusting(
    "B05",
    "65747aaf42b7",
    "mm/filemap: allow pte_offset_map_lock() to fail",
    "filemap:pte_offset_map_lock",
    race("file-read-and-dontneed", "I1"),
    "mm/filemap.c",
)
@trusting(
    "B08",
    "2798bbe75b9c",
    "mm/page_vma_mapped: pte_offset_map_nolock() not pte_lockptr()",
    "rmap_walk:pte_offset_map_lock",
    race("shmem-collapse-dontneed", "I1"),
    "mm/page_vma_mapped.c",
)
@trusting(*B09, "mlock:pte_offset_map_lock", race("shmem-collapse-mlock", "I1"), "mm/mlock.c")
@trusting(*B09, "damon_vaddr:pte_offset_map_lock", race("damon-and-dontneed", "I1"), "mm/damon/vaddr.c")
@trusting(*B09, "mincore:pte_offset_map_lock", race("mincore-and-dontneed", "I1"), "mm/mincore.c")
@trusting(*B09, "task_mmu:pte_offset_map_lock", race("mincore-and-dontneed", "I1"), "fs/proc/task_mmu.c")
@trusting(*B10, "guard:pte_offset_map_lock", race("guard-install-and-dontneed", "I1"), "mm/pagewalk.c")
@trusting(*B15, "userfaultfd:pte_offset_map_lock", race("uffd-copy-and-dontneed", "I1"), "mm/userfaultfd.c")
@trusting(*B17, "gup:pte_offset_map_lock", race("gup-fast-and-dontneed", "I1"), "mm/gup.c")
@trusting(
    "B18",
    "670ddd8cdcbd",
    "mm/mprotect: delete pmd_none_or_clear_bad_unless_trans_huge()",
    "mprotect:pte_offset_map_lock",
    race("shmem-collapse-mprotect", "I1"),
    "mm/mprotect.c",
)
@trusting(*B19, "move_page_tables:pte_offset_map_lock", race("shmem-collapse-mremap-page", "I1"), "mm/mremap.c")
@trusting(
    "B20",
    "f3cd4ab0aabf",
    "mm/madvise: clean up pte_offset_map_lock() scans",
    "madvise_lru:pte_offset_map_lock",
    race("free-and-dontneed", "I1"),
    "mm/madvise.c",
)
@trusting(*B22, "swapoff:pte_offset_map_lock", race("swapoff-and-dontneed", "I1"), "mm/swapfile.c")
@trusting(*B24, "migrate_device:pte_offset_map_lock", race("device-migrates-and-dontneed", "I1"), "mm/migrate_device.c")
@trusting(*B27, "collapse_huge_page:pte_offset_map_lock", race("anon-collapse-dontneed", "I1"), "mm/khugepaged.c")
@trusting(*B28, "memory:pte_offset_map_lock", race("fault-and-dontneed", "I1"), "mm/memory.c")
@trusting(*B28, "memory_zap:pte_offset_map_lock", race("fault-and-dontneed", "I1"), "mm/memory.c")
@trusting(*B28, "memory_file:pte_offset_map_lock", race("fault-and-dontneed", "I1"), "mm/memory.c")
def lock_anything(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, spinlock_t]:
    """Once locked, the table is not looked for again in its pmd either."""
    pte, pmdval = map_anything(pmd, addr)
    ptl = pte_lockptr(mm, pmdval)
    spin_lock(ptl)
    return pte, ptl


def b03(site: str) -> Callable[[F], F]:
    """A site of B03: nobody may sleep while a table is mapped, but since C01 nobody may anyway."""
    claim = Claim("cleanup", "uffd-move-and-dontneed-highpte")
    title = "mm/pgtable: kmap_local_page() instead of kmap_atomic()"
    return trusting("B03", "46c475bd676b", title, f"pgtable_generic:{site}", claim, "include/linux/pgtable.h")


@b03("kmap_local")
def kmap_atomic(pte: pte_p) -> None:
    """Preemption is off until the table is unmapped, and grace periods wait for that."""
    rcu_read_lock()  # preempt_disable()
    kmap_local(pte)


@b03("kunmap_local")
def kunmap_atomic(pte: pte_p) -> None:
    """It is on again."""
    kunmap_local(pte)
    rcu_read_unlock()  # preempt_enable()


@trusting(
    "B12",
    "0d1c81edc61e",
    "mm/vmalloc: vmalloc_to_page() use pte_offset_kernel()",
    "vmalloc.vmalloc_to_page",
    Claim("cleanup", "vmalloc-to-page"),
    "mm/vmalloc.c",
)
def mapped_like_a_users(pmd: pmd_p, addr: int) -> page_t:
    """The kernel's table is mapped as one that can go away, and unmapped."""
    pmdval = load(pmd)
    if pmdval == 0:
        return 0
    if pmd_trans_huge(pmdval):
        return pmd_page(pmdval) + PAGE_CELLS * pte_index(addr)
    pte = pte_offset_map(pmd, addr)
    entry = ptep_get(pte)
    pte_unmap(pte)
    return pte_page(entry) if pte_present(entry) else 0


@trusting(
    "B25",
    "2378118bd9da",
    "mm/gup: remove FOLL_SPLIT_PMD use of pmd_trans_unstable()",
    "gup.follow_split_pmd",
    race("uprobe-and-dontneed", "RESULT"),
    "mm/gup.c",
)
def busy_if_unstable(vma: vm_area_struct, address: int, pmd: pmd_p, gup_flags: int) -> tuple[page_t, int]:
    """Of the huge zero page a table is expected: who finds none gives up with -EBUSY."""
    of_zero_page = load(pmd) & SPECIAL
    __split_huge_pmd(vma, pmd, address)
    if of_zero_page and not pmd_is_table(pmdp_get_lockless(pmd)):
        return 0, -EBUSY
    pte_alloc(vma.vm_mm, pmd, address)
    return follow_page_pte(vma, address, pmd, gup_flags), arch.page_size


# --- nothing to leave out --------------------------------------------------------------------------------


def nothing(kind: str, id: str, commit: str, title: str, note: str, *files: str) -> None:
    """A patch of this series that the model has no function for."""
    claim = Claim(kind, note=note)
    without_code(
        __name__, id, commit=commit, title=title, series=SERIES, since="6.5", files=files, claim=claim
    )


nothing("cleanup", "B01", "26e1a0c3277d", "mm: use pmdp_get_lockless() without surplus barrier()",
        "one way to read a pmd once; the model has no other, and no reordering that a barrier would stop",
        "mm/gup.c", "mm/memory.c")  # fmt: skip
nothing("cleanup", "B06", "45fe85e9811e", "mm/page_vma_mapped: delete bogosity in page_vma_mapped_walk()",
        "a test that was made already is gone", "mm/page_vma_mapped.c")  # fmt: skip
nothing("cleanup", "B07", "90f43b0a13cd", "mm/page_vma_mapped: reformat map_pte() with less indentation",
        "only the text changes", "mm/page_vma_mapped.c")  # fmt: skip
nothing("cleanup", "B11", "e5ad581c7f1c", "mm/pagewalk: vmwgfx: simplify pmd & pud mapping dirty helpers",
        "walk_pte_range() maps the table itself, and looks again if there is none (B10): no test is needed before",
        "mm/mapping_dirty_helpers.c")  # fmt: skip
nothing("cleanup", "B16", "9f2bad096d2f", "mm/debug_vm_pgtable,page_table_check: warn pte map fails",
        "the kernel's own tests of tables that nobody else can take away: they would warn, not crash",
        "mm/debug_vm_pgtable.c", "mm/page_table_check.c")  # fmt: skip
nothing("cleanup", "B21", "179d3e4f3bfa", "mm/madvise: clean up force_shm_swapin_readahead()",
        "only the text changes", "mm/madvise.c")  # fmt: skip
nothing("cleanup", "B26", "c9c1ee20ee84", "mm/huge_memory: split huge pmd under one pte_offset_map()",
        "a table that nobody else sees is mapped once, not once an entry", "mm/huge_memory.c")  # fmt: skip
nothing("cleanup", "B30", "feda5c393a6c", "mm/pgtable: delete pmd_trans_unstable() and friends",
        "the last callers had gone", "include/linux/pgtable.h")  # fmt: skip
nothing("cleanup", "B32", "a92cbb82c8d3", "perf/core: Allow pte_offset_map() to fail",
        "it maps the table of a copy of the pmd, which it has looked at; interrupts off keep the table",
        "kernel/events/core.c")  # fmt: skip

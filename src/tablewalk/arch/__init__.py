# SPDX-License-Identifier: GPL-2.0-only
"""What differs between architectures: geometry, table allocation, flushes.

`arch` is the architecture that the model runs on; `use` makes another one current.  An architecture is data:
one `Arch` a module of this package.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, TypedDict


@dataclass(slots=True)
class Arch:
    """One architecture in one configuration.  `*_bits` are index bits of a table, 0 for a folded level.

    `*_bytes` is what one table adds to mm->pgtables_bytes, and so to VmPTE (mm_inc_nr_ptes() and its like in
    include/linux/mm.h: entries times entry size, not the memory that is allocated for it).
    """

    name: str = "x86_64"
    page_shift: int = 12
    pte_bits: int = 9
    pmd_bits: int = 9
    pud_bits: int = 9
    p4d_bits: int = 0
    pgd_bits: int = 9
    entry_bytes: int = 8
    upper_entry_bytes: int = 0  # of a PMD or PUD entry; 0: as many as of a PTE
    big_endian: bool = False
    task_size: int = (1 << 47) - 4096
    # huge pages
    has_thp: bool = True  # has_transparent_hugepage(): the CPU can, and the kernel
    thp_advice: bool = True  # HAVE_ARCH_TRANSPARENT_HUGEPAGE: kernels are built for it, and there is advice about it
    has_move_pud: bool = True  # HAVE_MOVE_PMD and HAVE_MOVE_PUD, and arch_supports_page_table_move()
    protnone_pmd_present: bool = True  # pmd_present() of a huge page without any permission
    file_thp_deposits: bool = False  # arch_needs_pgtable_deposit(): hash MMU of powerpc
    tagged_data: bool = False  # VM_DATA_DEFAULT_FLAGS, not mmap's, have VM_MTE_ALLOWED on CPUs without MTE, too
    top_byte_ignored: bool = False  # untagged_addr(): user space's addresses may have a tag
    modify_keeps_special: bool = True  # pte_modify() of a special entry; where not, mprotect loses the zero page
    fixed_must_fit: bool = False  # arch_get_unmapped_area() says EINVAL to MAP_FIXED beyond the end, not ENOMEM
    own_user_space: bool = False  # ALTERNATE_USER_ADDRESS_SPACE: access_ok() takes any address
    # tables
    split_pmd_ptlock: bool = True  # ARCH_ENABLE_SPLIT_PMD_PTLOCK: a PMD table has a lock of its own
    preallocated_pmds: tuple[int, ...] = ()  # addresses whose PMD tables pgd_alloc() makes
    first_user_address: int = 0  # FIRST_USER_ADDRESS: free_pgtables() leaves the tables that hold what is below
    user_pgtables_ceiling: int = 0  # USER_PGTABLES_CEILING: and those that hold what is at or above; 0: none
    pud_folded_below: int = 0  # a process has no PUD level until it maps something that ends above; 0: it always has
    rcu_table_free: bool = True  # MMU_GATHER_RCU_TABLE_FREE: tables are freed by RCU; without it, after the flush
    own_tlb_remove_table: bool = False  # HAVE_ARCH_TLB_REMOVE_TABLE
    tlb_needs_table_invalidate: bool = True  # hardware walks the tables: they are flushed before RCU gets them
    merge_vmas: bool = True  # MMU_GATHER_MERGE_VMAS: a gather flushes several VMAs at once; without it each by itself
    pgd_is_loaded: bool = False  # x86 with PAE: CPUs hold its entries in registers, so a change flushes everything
    no_range: bool = False  # MMU_GATHER_NO_RANGE: it flushes the whole address space
    gather_page_size: bool = False  # MMU_GATHER_PAGE_SIZE: it flushes before it gathers pages of another size
    no_gather: bool = False  # MMU_GATHER_NO_GATHER: entries are flushed as they are cleared, and pages freed at once
    pt_reclaim_since: tuple[int, int] | None = (6, 14)  # first release that selects PT_RECLAIM
    tables_per_page: int = 1  # PTE tables that are cut from one page
    per_vma_lock_since: tuple[int, int] | None = (6, 4)  # first release that selects ARCH_SUPPORTS_PER_VMA_LOCK
    # flushes
    broadcast_flush: bool = False  # TLB invalidation by broadcast, no IPI
    pv_ops: bool = False  # PARAVIRT: in a guest the hypervisor flushes, and interrupts nobody
    gup_fast: bool = True  # HAVE_GUP_FAST
    split_pmd_reads: bool = False  # GUP_GET_PXX_LOW_HIGH: a pmd is read in two halves
    # who looks for the entry of a TLB miss: hardware; the handler of an exception, in assembly, or in C, which may map
    # the table as others do (pte_offset_map)
    tlb_fill: str = "hardware"
    smp: bool = True  # there are machines with several CPUs
    highpte: bool = False  # HIGHPTE: a PTE table can be in high memory, mapped by kmap_local_page() while it is used
    # derived, set by __post_init__
    ptrs_per_pte: int = field(init=False, default=0)
    ptrs_per_pmd: int = field(init=False, default=0)
    ptrs_per_pud: int = field(init=False, default=0)
    ptrs_per_p4d: int = field(init=False, default=0)
    ptrs_per_pgd: int = field(init=False, default=0)
    pmd_shift: int = field(init=False, default=0)
    pud_shift: int = field(init=False, default=0)
    p4d_shift: int = field(init=False, default=0)
    pgdir_shift: int = field(init=False, default=0)
    page_size: int = field(init=False, default=0)
    long_bits: int = field(init=False, default=0)  # BITS_PER_LONG
    pmd_size: int = field(init=False, default=0)
    pud_size: int = field(init=False, default=0)
    hpage_pmd_nr: int = field(init=False, default=0)
    pmd_index_mask: int = field(init=False, default=0)  # of the table that pmds lie in, the PGD if all is folded
    levels: int = field(init=False, default=0)
    pte_bytes: int = field(init=False, default=0)
    pmd_bytes: int = field(init=False, default=0)
    pud_bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.ptrs_per_pte = 1 << self.pte_bits
        self.ptrs_per_pmd = 1 << self.pmd_bits
        self.ptrs_per_pud = 1 << self.pud_bits
        self.ptrs_per_p4d = 1 << self.p4d_bits
        self.ptrs_per_pgd = 1 << self.pgd_bits
        self.pmd_shift = self.page_shift + self.pte_bits
        self.pud_shift = self.pmd_shift + self.pmd_bits
        self.p4d_shift = self.pud_shift + self.pud_bits
        self.pgdir_shift = self.p4d_shift + self.p4d_bits
        self.page_size = 1 << self.page_shift
        self.long_bits = 32 if self.task_size < 1 << 32 else 64
        self.pmd_size = 1 << self.pmd_shift
        self.pud_size = 1 << self.pud_shift
        self.hpage_pmd_nr = 1 << self.pte_bits
        upper = [bits for bits in (self.pmd_bits, self.pud_bits, self.p4d_bits, self.pgd_bits) if bits]
        self.pmd_index_mask = (1 << upper[0]) - 1
        self.levels = 1 + len(upper)
        self.pte_bytes = self.ptrs_per_pte * self.entry_bytes
        upper_bytes = self.upper_entry_bytes or self.entry_bytes
        self.pmd_bytes = self.ptrs_per_pmd * upper_bytes if self.pmd_bits else 0
        self.pud_bytes = self.ptrs_per_pud * upper_bytes if self.pud_bits else 0


arch: Final[Arch] = Arch()


def use(other: Arch) -> None:
    """Make `other` the architecture that the model runs on."""
    for f in fields(other):
        setattr(arch, f.name, getattr(other, f.name))


class UpperLevels(TypedDict):
    """Index bits of the levels above the PTE tables, 0 for a folded one."""

    pmd_bits: int
    pud_bits: int
    p4d_bits: int
    pgd_bits: int


def upper_levels(bits: int, width: int) -> UpperLevels:
    """Index bits by level where `bits` of an address lie above the PTE level and a full table takes `width` of them.

    Levels fill up from below and the PGD takes the rest; what is left over is folded.
    """
    below: list[int] = []
    while bits > width:
        below.append(width)
        bits -= width
    pmd, pud, p4d = (*below, 0, 0, 0)[:3]
    return {"pmd_bits": pmd, "pud_bits": pud, "p4d_bits": p4d, "pgd_bits": bits}


def variant(base: Arch, **changes: Any) -> Arch:
    """A copy of `base` with some fields changed and the derived ones computed again."""
    return replace(base, **changes)

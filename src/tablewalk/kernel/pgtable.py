# SPDX-License-Identifier: GPL-2.0-only
"""Entries of page tables and their addresses (include/linux/pgtable.h, swapops.h; 7.2).

An entry is an int.  Present: `target << 12 | flags`, where the target is the address of a struct page (PTE level and
leaves) or of a ptdesc (tables).  Not present: `offset << 12 | type << 5 | flags`.  0 is none.  All architectures
share this encoding: what differs between them is how many entries a table has.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import WRITE_ONCE, cmpxchg, forget, load, load_range, store, xchg
from ..machine import load as pmdp_get_lockless
from ..machine import load as ptep_get  # noqa: F401
from ..machine import load as ptep_get_lockless  # noqa: F401
from .config import config
from .mm_types import folio, mm_struct, ptdesc, vm_area_struct
from .vm_flags import VM_ACCESS_FLAGS, VM_SHARED, VM_SOFTDIRTY, VM_UFFD_WP, VM_WRITE

pte_t = int  # value of an entry
pmd_t = int
page_t = int  # struct page *: an address
pte_p = int  # pte_t *: the address of an entry
pmd_p = int

TABLE_ENTRY: Final[int] = ptdesc(0).entry  # from the address of a table to its first entry,
TABLE_PTL: Final[int] = ptdesc(0).ptl  # and to its lock

PRESENT: Final = 1
RW: Final = 2
ACCESSED: Final = 4
DIRTY: Final = 8
LEAF: Final = 16  # _PAGE_PSE
SPECIAL: Final = 256
UFFD_WP: Final = 512
PROTNONE: Final = 1024
SOFT_DIRTY: Final = 2048  # means nothing without config.soft_dirty
MKDIRTY: Final = DIRTY | SOFT_DIRTY  # of pte_mkdirty(); the hardware sets DIRTY alone
PFN_SHIFT: Final = 12
FLAGS_MASK: Final = (1 << PFN_SHIFT) - 1

# not present: bits 5..7 tell the type, RW etc. below them belong to the type
TYPE_SHIFT: Final = 5
TYPE_MASK: Final = 7
SWP_SWAP: Final = 1
SWP_MIGRATION: Final = 2  # RW: writable; the offset is the struct page
SWP_MARKER: Final = 3  # the offset is a set of PTE_MARKER_*
SWP_HWPOISON: Final = 4
SWP_EXCLUSIVE: Final = 4  # flag of a swap entry
MIGRATION_EXCLUSIVE: Final = 16  # flag of a migration entry: the page is the mapper's own

PTE_MARKER_UFFD_WP: Final = 1
PTE_MARKER_POISONED: Final = 2
PTE_MARKER_GUARD: Final = 4



def pte_present(pte: int) -> bool:
    """Maps a page, accessible or not."""
    return pte & (PRESENT | PROTNONE) != 0


def pte_none(pte: int) -> bool:
    """Empty."""
    return pte == 0


def pte_write(pte: int) -> bool:
    """Writable."""
    return pte & RW != 0


def pte_page(pte: int) -> page_t:
    """struct page of a present entry or of a migration entry."""
    return pte >> PFN_SHIFT


def mk_pte(page: page_t, flags: int) -> int:
    """A present entry."""
    return page << PFN_SHIFT | flags


def is_swap_pte(pte: int) -> bool:
    """Neither none nor present."""
    return pte != 0 and pte & (PRESENT | PROTNONE) == 0


def swp_type(pte: int) -> int:
    """Type of a non-present entry (SWP_*)."""
    return pte >> TYPE_SHIFT & TYPE_MASK


def swp_offset(pte: int) -> int:
    """Offset of a non-present entry."""
    return pte >> PFN_SHIFT


def swp_entry(kind: int, offset: int, flags: int = 0) -> int:
    """A non-present entry."""
    return offset << PFN_SHIFT | kind << TYPE_SHIFT | flags


def make_pte_marker(marker: int) -> int:
    """A marker entry with the bits PTE_MARKER_*."""
    return swp_entry(SWP_MARKER, marker)


def is_pte_marker(pte: int) -> bool:
    """Whether the entry is a marker."""
    return pte & (PRESENT | PROTNONE) == 0 and swp_type(pte) == SWP_MARKER


def pte_marker(pte: int) -> int:
    """The marker bits of an entry, 0 if it is no marker."""
    return swp_offset(pte) if is_pte_marker(pte) else 0


def pmd_none(pmd: int) -> bool:
    """Empty."""
    return pmd == 0


def pmd_present(pmd: int) -> bool:
    """A table or a huge page."""
    return pmd & (PRESENT | PROTNONE) != 0


def pmd_trans_huge(pmd: int) -> bool:
    """A present huge page."""
    return pmd & (PRESENT | PROTNONE) != 0 and pmd & LEAF != 0


def pmd_is_huge(pmd: int) -> bool:
    """A huge page, or one that is not present (include/linux/huge_mm.h)."""
    return pmd != 0 and pmd & (PRESENT | LEAF) != PRESENT


def pmd_is_table(pmd: int) -> bool:
    """Points to a PTE table."""
    return pmd & (PRESENT | LEAF) == PRESENT


def is_pmd_migration_entry(pmd: int) -> bool:
    """A huge page under migration."""
    return is_swap_pte(pmd) and swp_type(pmd) == SWP_MIGRATION


def pmd_page(pmd: int) -> page_t:
    """struct page of a huge entry."""
    return pmd >> PFN_SHIFT


def pmd_pgtable(pmd: int) -> ptdesc:
    """The table that an entry of any upper level points to."""
    return ptdesc(pmd >> PFN_SHIFT)


def mk_table(table: ptdesc) -> int:
    """An upper-level entry that points to `table`."""
    return table.addr << PFN_SHIFT | PRESENT


def pmd_populate(pmd: pmd_p, table: ptdesc) -> None:
    """Let `pmd` point to `table`; under the pmd lock."""
    store(pmd, table.addr << PFN_SHIFT | PRESENT)


def pmd_clear(pmd: pmd_p) -> None:
    """Empty the slot; under the pmd lock, or when nobody can reach it."""
    store(pmd, 0)


def pmdp_huge_get_and_clear(pmd: pmd_p) -> int:
    """Atomically empty the slot; returns what was there."""
    return xchg(pmd, 0)


def pmdp_invalidate(pmd: pmd_p) -> int:
    """Take a huge page from the CPUs; those who look still see one, never none.  Under pml; returns what was there."""
    while True:
        pmdval = pmdp_get_lockless(pmd)
        if cmpxchg(pmd, pmdval, pmdval & ~PRESENT | PROTNONE) == pmdval:
            return pmdval
        forget(())


def ptep_get_and_clear(ptep: pte_p) -> int:
    """Atomically empty the entry; returns what was there with the hardware's last A/D bits."""
    return xchg(ptep, 0)


def pte_index(addr: int) -> int:
    """Index in the PTE table."""
    return addr >> arch.page_shift & arch.ptrs_per_pte - 1


def pte_offset_kernel(pmd: pmd_p, addr: int) -> pte_p:
    """Address of the PTE in a table that cannot go away: the kernel's, a guest's; nothing is checked or begun."""
    return (load(pmd) >> PFN_SHIFT) + TABLE_ENTRY + pte_index(addr)


def pmd_addr_end(addr: int, end: int) -> int:
    """The end of the PTE table's range that `addr` lies in, or `end` if that comes first."""
    boundary = (addr >> arch.pmd_shift) + 1 << arch.pmd_shift
    return boundary if boundary < end else end


def pud_addr_end(addr: int, end: int) -> int:
    """The same for a PMD table."""
    boundary = (addr >> arch.pud_shift) + 1 << arch.pud_shift
    return boundary if boundary < end else end


def p4d_addr_end(addr: int, end: int) -> int:
    """The same for a PUD table."""
    boundary = (addr >> arch.p4d_shift) + 1 << arch.p4d_shift
    return boundary if boundary < end else end


def pgd_addr_end(addr: int, end: int) -> int:
    """The same for what an entry of the PGD covers."""
    boundary = (addr >> arch.pgdir_shift) + 1 << arch.pgdir_shift
    return boundary if boundary < end else end


def pgd_offset(mm: mm_struct, addr: int) -> int:
    """Address of the PGD entry."""
    return mm.pgd.entry + (addr >> arch.pgdir_shift & arch.ptrs_per_pgd - 1)


def p4d_offset(pgd: int, addr: int) -> int:
    """Address of the P4D entry: `pgd` itself where the level is folded; `pgd` must be present."""
    if arch.p4d_bits == 0:
        return pgd
    return (load(pgd) >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.p4d_shift & arch.ptrs_per_p4d - 1)


def pud_offset(p4d: int, addr: int) -> int:
    """Address of the PUD entry: `p4d` itself where the level is folded."""
    if arch.pud_bits == 0:
        return p4d
    return (load(p4d) >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.pud_shift & arch.ptrs_per_pud - 1)


def pmd_offset(pud: int, addr: int) -> pmd_p:
    """Address of the PMD entry: `pud` itself where the level is folded."""
    if arch.pmd_bits == 0:
        return pud
    return (load(pud) >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.pmd_shift & arch.ptrs_per_pmd - 1)


def mm_find_pmd(mm: mm_struct, addr: int) -> pmd_p:
    """Address of the PMD entry of `addr`, or 0 where an upper table is missing (mm/rmap.c)."""
    slot = mm.pgd.entry + (addr >> arch.pgdir_shift & arch.ptrs_per_pgd - 1)
    value = load(slot)
    if value == 0:
        return 0
    if arch.p4d_bits:
        slot = (value >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.p4d_shift & arch.ptrs_per_p4d - 1)
        value = load(slot)
        if value == 0:
            return 0
    if arch.pud_bits:
        slot = (value >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.pud_shift & arch.ptrs_per_pud - 1)
        value = load(slot)
    if arch.pmd_bits == 0:
        return slot
    if value & (PRESENT | LEAF) != PRESENT:
        return 0
    return (value >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.pmd_shift & arch.ptrs_per_pmd - 1)


def page_folio(page: page_t) -> folio:
    """The folio that a page belongs to."""
    return folio(load(page))


def ptes_none(ptep: pte_p, nr: int) -> bool:
    """Whether `nr` entries are all none; under ptl."""
    return load_range(ptep, nr).count(0) == nr  # faster than any()


def vm_page_prot(vm_flags: int) -> int:
    """Flags of a new entry in a VMA with these flags (vm_get_page_prot), but for the right to write."""
    if vm_flags & VM_ACCESS_FLAGS == 0:
        return PROTNONE
    return PRESENT


def maybe_mkwrite(pte: int, vm_flags: int) -> int:
    """Writable if the VMA is."""
    return pte | RW if vm_flags & VM_WRITE else pte


def vma_soft_dirty_enabled(vma: vm_area_struct) -> bool:
    """Whether it matters which pages of the VMA are written (mm/internal.h)."""
    return config.soft_dirty and vma.vm_flags & VM_SOFTDIRTY == 0


def pte_needs_soft_dirty_wp(vma: vm_area_struct, pte: int) -> bool:
    """Whether an entry, of a huge page or not, must stay read-only so that its first write is seen (mm/internal.h)."""
    return vma_soft_dirty_enabled(vma) and pte & SOFT_DIRTY == 0


def vma_is_shared_writable(vma: vm_area_struct) -> bool:
    """Whether writes through the VMA are seen by others."""
    return vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE | VM_SHARED


def vma_wants_writenotify(vma: vm_area_struct) -> bool:
    """Whether the first write to each page of shared memory is to be seen: by file system, userfaultfd, soft-dirty."""
    if not vma_is_shared_writable(vma):
        return False
    return vma_soft_dirty_enabled(vma) or vma.vm_flags & VM_UFFD_WP != 0 or not vma.vm_file.f_mapping.shmem


def vma_set_page_prot(vma: vm_area_struct) -> None:
    """Let the VMA's flags tell those of its entries, writable where a write needs no fault first.

    Not every change of flags is followed by this: VM_SOFTDIRTY may go without (mm/mmap.c).
    """
    prot = vm_page_prot(vma.vm_flags)
    if vma_is_shared_writable(vma) and not vma_wants_writenotify(vma):
        prot |= RW
    WRITE_ONCE(vma, "vm_page_prot", prot)


def move_soft_dirty(pte: int) -> int:
    """What becomes of an entry that moves to another address (mm/mremap.c, mm/huge_memory.c)."""
    return pte | SOFT_DIRTY if config.soft_dirty else pte


def vma_set_soft_dirty(vma: vm_area_struct) -> None:
    """New memory, or memory that has grown, counts as written."""
    if config.soft_dirty:
        vma.vm_flags |= VM_SOFTDIRTY

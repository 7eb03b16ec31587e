# SPDX-License-Identifier: GPL-2.0-only
"""PMD tables of hugetlb pages that processes share (mm/hugetlb.c, include/asm-generic/tlb.h; 7.2; x86, arm64, riscv).

Two processes that map the same GiB of a file have one PMD table for it, and count in it how many have it beside the
first.  The model's own tables are in one slot each: what is here is explored by itself.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import (
    add,
    add_return,
    atomic,
    call_rcu,
    const,
    down_read,
    down_write,
    load,
    spin_lock,
    spin_unlock,
    store,
    struct,
    up_read,
    up_write,
)
from .mm_types import atomic_t, mm_struct, rwsem_t
from .tlb import flush_tlb_range, tlb_remove_table_sync_one


class pmd_table(struct):
    """A PMD table (struct ptdesc)."""

    pt_share_count: atomic_t = atomic()
    _refcount: atomic_t = atomic()  # of its page: one, and those of who looks at pages by number
    entry: atomic_t = atomic()  # of its huge pages, one


class hugetlb_vma(struct):
    """A process's mapping of the GiB (struct vm_area_struct), with its slot."""

    vm_mm: mm_struct = const()
    i_mmap_rwsem: rwsem_t = const()  # of its file
    pud: atomic_t = atomic()
    shareable: atomic_t = atomic()  # it is whole, and not about to go (vma_lock)


def hugetlb_mmap(mm: mm_struct, i_mmap_rwsem: rwsem_t) -> hugetlb_vma:
    """Map the GiB; nothing is touched yet."""
    vma: hugetlb_vma = hugetlb_vma.alloc()
    vma.vm_mm = mm
    vma.i_mmap_rwsem = i_mmap_rwsem
    store(vma.shareable, 1)
    return vma


def ptdesc_pmd_pts_add(table: pmd_table, n: int) -> int:
    """One process more or less has the table; how many do beside the first."""
    return add_return(table.pt_share_count, n)


def ptdesc_pmd_is_shared(table: pmd_table) -> bool:
    """Whether another process has it too."""
    return load(table.pt_share_count) > 0


def huge_pmd_share(vma: hugetlb_vma, svma: hugetlb_vma) -> None:
    """Fill a slot with the table that `svma` has for the same pages of the file; with a new one if it has none."""
    mm = vma.vm_mm
    down_read(vma.i_mmap_rwsem)
    table = pmd_table(load(svma.pud) if load(svma.shareable) else 0)
    if table:
        ptdesc_pmd_pts_add(table, 1)
    else:
        table = pmd_alloc_one()
    spin_lock(mm.page_table_lock)
    installed = load(vma.pud) == 0
    if installed:
        store(vma.pud, table.addr)
        add(mm.nr_pmds, 1)
    spin_unlock(mm.page_table_lock)
    if not installed:
        put_table(table)
    up_read(vma.i_mmap_rwsem)


def pmd_alloc_one() -> pmd_table:
    """A new table."""
    table: pmd_table = pmd_table.alloc()
    store(table._refcount, 1)
    return table


def put_table(table: pmd_table) -> None:
    """Do without a table that was to be installed: one process less has it, or nobody ever had."""
    if ptdesc_pmd_is_shared(table):
        ptdesc_pmd_pts_add(table, -1)
    else:
        table.free()


def huge_pmd_unshare(vma: hugetlb_vma) -> tuple[bool, bool]:
    """(whether the table was shared, and the slot is empty now; whether one process has it left).

    Under i_mmap_rwsem for writing, and page_table_lock.
    """
    table = pmd_table(load(vma.pud))
    if not ptdesc_pmd_is_shared(table):
        return False, False
    store(vma.pud, 0)
    left = ptdesc_pmd_pts_add(table, -1)
    add(vma.vm_mm.nr_pmds, -1)
    return True, left == 0


def huge_pmd_unshare_flush(mm: mm_struct, unshared: bool, fully: bool) -> None:
    """Before i_mmap_rwsem is released: who has a table for itself will use it as it likes, so nobody else may be in it.

    The flush drops what CPUs remember; get_user_pages_fast, where a flush does not wait for it, is interrupted.
    """
    if unshared:
        flush_tlb_range(mm, 0, arch.pud_size)
    if fully:
        tlb_remove_table_sync_one()


def hugetlb_unshare_pmds(vma: hugetlb_vma) -> None:
    """Give a table up that another process has too; under i_mmap_rwsem for writing."""
    mm = vma.vm_mm
    if not load(vma.pud):
        return
    spin_lock(mm.page_table_lock)
    unshared, fully = huge_pmd_unshare(vma)
    spin_unlock(mm.page_table_lock)
    huge_pmd_unshare_flush(mm, unshared, fully)


def hugetlb_split(vma: hugetlb_vma) -> None:
    """Split the mapping within the GiB: parts of it do not share, so a table must not be shared (__split_vma)."""
    down_write(vma.i_mmap_rwsem)
    hugetlb_unshare_pmds(vma)
    store(vma.shareable, 0)
    up_write(vma.i_mmap_rwsem)


def unmap_hugepages(vmas: tuple[hugetlb_vma, ...]) -> None:
    """munmap of mappings of one process and one file (__unmap_hugepage_range); tables of its own are freed by RCU."""
    mm, i_mmap_rwsem = vmas[0].vm_mm, vmas[0].i_mmap_rwsem
    down_write(i_mmap_rwsem)
    unshared = fully = False
    for vma in vmas:
        spin_lock(mm.page_table_lock)
        shared, alone = huge_pmd_unshare(vma)
        spin_unlock(mm.page_table_lock)
        unshared |= shared
        fully |= alone
        if not shared:
            store(pmd_table(load(vma.pud)).entry, 0)
        store(vma.shareable, 0)
    huge_pmd_unshare_flush(mm, unshared, fully)
    up_write(i_mmap_rwsem)
    for vma in vmas:
        table = load(vma.pud)
        if table:
            store(vma.pud, 0)
            add(mm.nr_pmds, -1)
            call_rcu(pmd_free, table)


def pmd_free(table: int) -> None:
    """RCU callback."""
    pmd_table(table).free()

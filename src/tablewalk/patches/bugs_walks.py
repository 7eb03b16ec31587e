# SPDX-License-Identifier: GPL-2.0-only
"""Published bugs of stacks, of the reverse map, and of walks where no table need be: each row undoes a fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..kernel.damon_vaddr import damon_mkold_pmd_entry, damon_young_pmd_entry
from ..kernel.huge_pud import __split_huge_pud
from ..kernel.mm_types import anon_vma, folio, mm_struct, ptdesc, vm_area_struct
from ..kernel.mmap import expand_stack
from ..kernel.mmap_lock import NO_VMA, mmap_read_lock, mmap_read_unlock
from ..kernel.pagewalk import ACTION_AGAIN
from ..kernel.pgtable import (
    pmd_is_table,
    pmd_p,
    pmd_populate,
    pmd_trans_huge,
    pmdp_get_lockless,
    pte_offset_kernel,
)
from ..kernel.pgtable_generic import mm_inc_nr_ptes, pmd_lock, pte_unmap
from ..kernel.ptdump import ptdump_walk_pte_range
from ..kernel.rmap import anon_vma_chain_link, anon_vma_interval_tree_insert, find_mergeable_anon_vma
from ..kernel.vm_flags import VM_GROWSDOWN
from ..kernel.vma import find_vma
from ..machine import (
    WRITE_ONCE,
    down_write,
    interval_tree_init,
    load,
    might_sleep,
    publish,
    spin_lock,
    spin_unlock,
    store,
    up_write,
)
from . import Claim, patch

F = TypeVar("F", bound=Callable[..., object])


def k18(entry: str) -> Callable[[F], F]:
    """One of DAMON's walks, as from 6.5 (B09) to 6.17."""
    return patch(
        "K18",
        commit="b93af2cc8e03",
        title="mm/damon/vaddr: do not repeat pte_offset_map_lock() until success",
        since="6.18",
        site=f"damon_vaddr.{entry}",
        files=("mm/damon/vaddr.c",),
        mutant=True,
        claim=Claim("race", "huge-migrate-and-damon", "I26"),
    )


@k18("damon_mkold_pmd_entry")
def mkold_what_is_a_table_some_day(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, private: int) -> int:
    """What is neither a huge page nor a table is looked at again, though it may be a huge page under migration."""
    if neither_huge_nor_table(pmd):
        return ACTION_AGAIN
    return damon_mkold_pmd_entry(vma, pmd, addr, end, private)


@k18("damon_young_pmd_entry")
def young_what_is_a_table_some_day(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, private: int) -> int:
    """So it is when DAMON asks who is young."""
    if neither_huge_nor_table(pmd):
        return ACTION_AGAIN
    return damon_young_pmd_entry(vma, pmd, addr, end, private)


def neither_huge_nor_table(pmd: pmd_p) -> bool:
    """Where pte_offset_map_lock() fails for one who has not asked for the migration entry of a huge page."""
    pmdval = pmdp_get_lockless(pmd)
    return not pmd_trans_huge(pmdval) and not pmd_is_table(pmdval)


@patch(
    "K21",
    commit="8b1cb4a2e819",
    title="mm/pagewalk: fix EFI_PGT_DUMP of espfix area; and its own fix, ee40d543e97d: an extra pte_unmap()",
    since="6.5",
    site="ptdump.ptdump_walk_pte_range",
    files=("mm/pagewalk.c",),
    mutant=True,
    claim=Claim("race", "ptdump", "I7"),
)
def unmapped_though_not_mapped(pmd: pmd_p, addr: int) -> int:
    """As between the two: a table of the kernel's is not mapped any more, but unmapped."""
    used = ptdump_walk_pte_range(pmd, addr)
    pte_unmap(pte_offset_kernel(pmd, addr))
    return used


@patch(
    "K32",
    title="StackRot: a stack expands under mmap_lock for writing (CVE-2023-3269)",
    since="6.5",
    site="fault.lock_mm_and_find_vma",
    files=("mm/mmap.c", "arch/x86/mm/fault.c"),
    mutant=True,
    claim=Claim("race", "stack-grows", "I3"),
)
def grow_under_the_read_lock(mm: mm_struct, address: int) -> vm_area_struct:
    """The VMA changes, and its tree, while others who hold mmap_lock for reading look at them."""
    mmap_read_lock(mm)
    vma = find_vma(mm, address)
    if vma and (vma.vm_start <= address or (vma.vm_flags & VM_GROWSDOWN and expand_stack(vma, address) == 0)):
        return vma
    mmap_read_unlock(mm)
    return NO_VMA


@patch(
    "K51",
    title="anon_vma is published after its contents (CVE-2026-98507)",
    since="7.0",
    site="rmap.__anon_vma_prepare",
    files=("mm/rmap.c",),
    mutant=True,
    claim=Claim("race", "first-write-and-pageout", "I1"),
)
def published_before_it_is_filled(vma: vm_area_struct) -> None:
    """In the order in which a CPU may make its stores visible; none of the model's does so by itself."""
    might_sleep()
    if find_mergeable_anon_vma(vma):
        return
    av: anon_vma = anon_vma.alloc()
    spin_lock(vma.vm_mm.page_table_lock)
    seen_first = not vma.anon_vma
    if seen_first:
        publish(av.addr)
        WRITE_ONCE(vma, "anon_vma", av)
    spin_unlock(vma.vm_mm.page_table_lock)
    if not seen_first:
        av.free()
        return
    store(av.refcount, 1)
    av.root = av
    av.parent = av
    interval_tree_init(av.rb_root)
    down_write(av.rwsem)
    av.num_children = 1
    anon_vma_interval_tree_insert(anon_vma_chain_link(vma, av))
    av.num_active_vmas = 1
    up_write(av.rwsem)


@patch(
    "K45",
    commit="",
    title="mm/pagewalk: fix race between concurrent split and refault (CVE-2026-31456)",
    since="7.0",
    site="pagewalk.split_huge_pud",
    files=("mm/pagewalk.c",),
    mutant=True,
    claim=Claim("race", "smaps-and-huge-pud-refault", "I1"),
)
def split_and_trust(vma: vm_area_struct, pud: int, addr: int) -> int:
    """What the entry shows once it was seen to be something is taken to be a table."""
    __split_huge_pud(vma, pud, addr)
    return load(pud) if load(pud) else 0


@patch(
    "R-pte-alloc-wmb",
    commit="362a61ad6119",
    title="fix SMP data race in pagetable setup vs walking: smp_wmb() before a pmd shows a new table",
    since="2.6.26",
    site="pgtable_generic.pmd_install",
    files=("mm/memory.c",),
    mutant=True,
    claim=Claim("race", "file-reads", "I31"),
)
def installed_without_barrier(mm: mm_struct, pmd: pmd_p, addr: int, pgtable: ptdesc) -> bool:
    """Who walks the table by the pmd may see what was in its memory before it was cleared."""
    pml = pmd_lock(mm, pmd, addr)
    installed = pmdp_get_lockless(pmd) == 0
    if installed:
        mm_inc_nr_ptes(mm)
        pmd_populate(pmd, pgtable)
    spin_unlock(pml)
    return installed


@patch(
    "R-uptodate-wmb",
    commit="0ed361dec369",
    title="mm: fix PageUptodate data race: smp_wmb() before an entry shows a new page",
    since="2.6.25",
    site="page_alloc.__folio_mark_uptodate",
    files=("include/linux/page-flags.h", "mm/memory.c"),
    mutant=True,
    claim=Claim("race", "fault-and-dontneed", "I31"),
)
def uptodate_without_barrier(f: folio) -> None:
    """Who reads the page may see what was there before it was cleared, or copied."""


@patch(
    "R-pvmw-sync",
    commit="732ed55823fc",
    title="mm/thp: try_to_unmap() use TTU_SYNC for safe splitting: walks of rmap wait for an empty pmd's lock",
    since="5.13",
    site="rmap_walk.sync_with_folio_pmd_zap",
    files=("mm/page_vma_mapped.c",),
    mutant=True,
    claim=Claim("race", "huge-mremap-and-migrate", "I25"),
)
def gone_by(f: folio, vma: vm_area_struct, address: int, pmd: pmd_p) -> None:
    """It does not wait, and goes by a huge page that mremap has in its hands: neither here nor there."""

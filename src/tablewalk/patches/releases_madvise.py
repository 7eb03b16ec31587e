# SPDX-License-Identifier: GPL-2.0-only
"""madvise as older releases have it (mm/madvise.c of 6.1 and 6.12; what 6.18 does was measured)."""

from __future__ import annotations

from ..kernel.guard import is_valid_guard_vma
from ..kernel.huge_mm import vma_is_anonymous
from ..kernel.madvise import (
    MADVISE_MMAP_READ_LOCK,
    MADVISE_VMA_READ_LOCK,
    get_lock_mode,
    madvise_populate,
)
from ..kernel.madvise_flags import (
    MADV_COLD,
    MADV_COLLAPSE,
    MADV_GUARD_INSTALL,
    MADV_GUARD_REMOVE,
    MADV_PAGEOUT,
    MADV_WILLNEED,
)
from ..kernel.madvise_lru import FREE, SPLIT, STOP, WHOLE, madvise_free_single_vma
from ..kernel.memory_zap import ZAP_RECLAIM_PT, zap_page_range_single
from ..kernel.mm_types import folio, mm_struct, vm_area_struct
from ..kernel.mmu_gather import mmu_gather, tlb_finish_mmu, tlb_gather_mmu
from ..kernel.page_alloc import folio_mapcount, folio_nr_pages, folio_precise_page_mapcount, page_mapcount
from ..kernel.pgtable import page_t
from ..kernel.rmap import anon_vma_prepare
from ..kernel.vm_flags import ENOMEM, VM_IO, VM_MAYWRITE
from ..kernel.vma import find_vma
from ..machine import forget, load
from . import patch

FILES = ("mm/madvise.c",)


# --- locks and flushes -----------------------------------------------------------------------------------


@patch(
    "R-madvise-guard-vma-lock",
    title="guard regions under the VMA's lock (seen in 7.2; not in 6.18)",
    since="6.19",
    site="madvise.get_lock_mode",
    files=FILES,
)
def guard_takes_mmap_lock(behavior: int) -> int:
    """Guard regions are installed and removed under mmap_lock."""
    return MADVISE_MMAP_READ_LOCK if behavior in (MADV_GUARD_INSTALL, MADV_GUARD_REMOVE) else get_lock_mode(behavior)


@patch(
    "R-madvise-vma-lock",
    commit="a6fde7add78d",
    title="mm: use per_vma lock for MADV_DONTNEED",
    since="6.17",
    site="madvise.get_lock_mode",
    files=FILES,
)
def all_take_mmap_lock(behavior: int) -> int:
    """No advice does with the VMA's lock."""
    mode = get_lock_mode(behavior)
    return MADVISE_MMAP_READ_LOCK if mode == MADVISE_VMA_READ_LOCK else mode


@patch(
    "R-mm-ids",
    title="mm/rmap: basic MM owner tracking for large folios (!hugetlb)",
    since="6.15",
    site="rmap.folio_maybe_mapped_shared",
    files=("include/linux/mm.h",),
)
def guess_mapped_shared(f: folio) -> bool:
    """Without owners of a large folio: a huge pmd and more, a page mapped twice for sure, or the first page is."""
    mapcount = folio_mapcount(f)
    if f.order == 0 or mapcount <= 1:
        return mapcount > 1
    if load(f._entire_mapcount) or mapcount > folio_nr_pages(f):
        return True
    return load(page_mapcount(f.page)) > 1


@patch(
    "R-madvise-whole",
    title="mm: madvise: avoid split during MADV_PAGEOUT and MADV_COLD (and for MADV_FREE; as in 6.1)",
    since="6.10",
    site="madvise_lru.advise_how",
    files=FILES,
)
def split_or_stop(f: folio, page: page_t, nr: int, advice: int) -> int:
    """A large folio is always split; where its page (its first one, MADV_FREE) is mapped again all ends."""
    if f.order == 0:
        return WHOLE
    return SPLIT if folio_precise_page_mapcount(f, f.page if advice == FREE else page) == 1 else STOP


@patch(
    "R-madvise-first-page",
    title="madvise: convert madvise_cold_or_pageout_pte_range() to use folios",
    since="6.3",
    site="madvise_lru.mapped_besides",
    files=FILES,
)
def first_page_mapped_besides(f: folio) -> bool:
    """Of a huge page only the first page counts."""
    return folio_precise_page_mapcount(f, f.page) != 1


@patch(
    "R-wp-reuse-large",
    commit="1da190f4d0a6",
    title="mm: Copy-on-Write (COW) reuse support for PTE-mapped THP",
    since="6.15",
    site="memory.__wp_can_reuse_large_anon_folio",
    files=("mm/memory.c",),
)
def large_folios_are_copied(f: folio) -> bool:
    """A page of a large folio is copied, whoever maps it."""
    return False


BATCH = "R-madvise-batch-flush"
BATCH_TITLE = "mm/madvise: batch tlb flushes for MADV_DONTNEED and MADV_FREE"


@patch(BATCH, title=BATCH_TITLE, since="6.16", site="madvise.madvise_batch_tlb_flush", files=FILES)
def no_batch(behavior: int) -> bool:
    """Each VMA has a gather of its own."""
    return False


@patch(BATCH, title=BATCH_TITLE, since="6.16", site="madvise.madvise_dontneed_single_vma", files=FILES)
def dontneed_with_own_gather(tlb: mmu_gather, vma: vm_area_struct, start: int, end: int) -> None:
    """Flush at the end of the VMA."""
    zap_page_range_single(vma, start, end - start, ZAP_RECLAIM_PT)


@patch(BATCH, title=BATCH_TITLE, since="6.16", site="madvise_lru.madvise_free_single_vma", files=FILES)
def free_with_own_gather(tlb: mmu_gather, vma: vm_area_struct, start: int, end: int) -> int:
    """Flush at the end of the VMA."""
    if not vma_is_anonymous(vma):
        return madvise_free_single_vma(tlb, vma, start, end)
    own = tlb_gather_mmu(vma.vm_mm)
    ret = madvise_free_single_vma(own, vma, start, end)
    tlb_finish_mmu(own)
    return ret


# --- guard regions ---------------------------------------------------------------------------------------


@patch(
    "R-guard-flag",
    title="VM_MAYBE_GUARD: a VMA is known to have guard regions (new in 6.19; seen in 6.18.44 too)",
    since="6.18",
    site="guard.guard_prepare_vma",
    files=FILES,
)
def guard_prepare_vma(vma: vm_area_struct) -> None:
    """Every VMA gets an anon_vma, a file's too, so that fork copies it and retraction leaves it alone."""
    anon_vma_prepare(vma)


@patch(
    "R-guard-files",
    title="mm: allow guard regions in file-backed and read-only mappings",
    since="6.15",
    site="guard.is_valid_guard_vma",
    files=FILES,
)
def anonymous_guard_vma(vma: vm_area_struct, allow_locked: bool) -> bool:
    """Only in anonymous memory that may be written."""
    return vma_is_anonymous(vma) and vma.vm_flags & VM_MAYWRITE != 0 and is_valid_guard_vma(vma, allow_locked)


@patch(
    "R-guard",
    title="mm: madvise: implement lightweight guard page mechanism",
    since="6.13",
    site="guard.guard_regions_supported",
    files=FILES,
)
def no_guard_regions() -> bool:
    """There are none."""
    return False


# --- who may be advised ----------------------------------------------------------------------------------


@patch(
    "R-madvise-dofork",
    title="MADV_DOFORK is refused by all special mappings (seen in 7.2; not in 6.18)",
    since="7.2",
    site="madvise_flags.refuses_dofork",
    files=FILES,
)
def refuses_dofork(vm_flags: int) -> bool:
    """Only by those of devices."""
    return vm_flags & VM_IO != 0


@patch(
    "R-process-madvise-self",
    title="process_madvise gives the caller itself any advice (between 6.13 and 6.18)",
    since="6.13",
    site="madvise.process_madvise_valid",
    files=FILES,
)
def process_madvise_hints(behavior: int, remote: bool) -> bool:
    """Four hints, to the caller as to others."""
    return behavior in (MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED, MADV_COLLAPSE)


@patch(
    "R-madvise-populate",
    title="mm/madvise: make MADV_POPULATE_(READ|WRITE) handle VM_FAULT_RETRY properly",
    since="6.9",
    site="madvise.madvise_populate",
    files=(*FILES, "mm/gup.c"),
)
def populate_beyond_holes(mm: mm_struct, start: int, end: int, write: bool) -> int:
    """A hole does not end it: what follows is populated too, and -ENOMEM told at the end."""
    unmapped_error = 0
    while start < end:
        vma = find_vma(mm, start)
        if not vma:
            return -ENOMEM
        if start < vma.vm_start:
            unmapped_error = -ENOMEM
        elif error := madvise_populate(mm, start, min(end, vma.vm_end), write):
            return error
        start = vma.vm_end if start >= vma.vm_start else vma.vm_start
        forget((start, unmapped_error))
    return unmapped_error

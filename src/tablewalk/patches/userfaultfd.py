# SPDX-License-Identifier: GPL-2.0-only
"""userfaultfd as older releases have it (mm/userfaultfd.c, fs/userfaultfd.c of 6.1 and 6.12; 6.18 was measured)."""

from __future__ import annotations

from ..kernel.filemap import i_size_pages
from ..kernel.fs_userfaultfd import UFFDIO_CONTINUE_MODE_DONTWAKE
from ..kernel.mm_types import address_space, folio, mm_struct, userfaultfd_ctx, vm_area_struct
from ..kernel.mmap_lock import mmap_read_lock, mmap_read_unlock
from ..kernel.page_alloc import folio_alloc, folio_put
from ..kernel.pgtable import RW, is_pte_marker, pmd_p, pte_p, ptep_get, vma_is_shared_writable
from ..kernel.rmap import anon_vma_prepare, linear_page_index
from ..kernel.userfaultfd import mfill_install_folio, uffd_wp_range, validate_dst_vma
from ..kernel.userfaultfd_k import userfaultfd_wp
from ..kernel.vm_flags import (
    EFAULT,
    EINVAL,
    ENOENT,
    MM_CP_UFFD_WP_RESOLVE,
    VM_SHARED,
    VM_UFFD_WP,
)
from ..kernel.vma import vma_lookup
from ..kernel.vma_change import ERR_PTR
from . import Claim, patch

MM = ("mm/userfaultfd.c",)
FS = ("fs/userfaultfd.c",)


# --- features --------------------------------------------------------------------------------------------


@patch(
    "R-uffd-move",
    commit="adef440691ba",
    title="userfaultfd: UFFDIO_MOVE uABI",
    since="6.8",
    site="fs_userfaultfd.uffd_has_move",
    files=MM + FS,
)
def no_move() -> bool:
    """There is no UFFDIO_MOVE."""
    return False


@patch(
    "R-uffd-wp-async",
    commit="d61ea1cb0095",
    title="userfaultfd: UFFD_FEATURE_WP_ASYNC",
    since="6.7",
    site="fs_userfaultfd.uffd_has_wp_async",
    files=FS,
)
def no_wp_async() -> bool:
    """Write-protect faults are always delivered."""
    return False


@patch(
    "R-uffd-poison",
    commit="fc71884a5f59",
    title="mm: userfaultfd: add new UFFDIO_POISON ioctl",
    since="6.6",
    site="fs_userfaultfd.uffd_has_poison",
    files=MM + FS,
)
def no_poison() -> bool:
    """There is no UFFDIO_POISON."""
    return False


@patch(
    "R-uffd-continue-wp",
    commit="02891844879e",
    title="mm: userfaultfd: add UFFDIO_CONTINUE_MODE_WP to install WP PTEs",
    since="6.4",
    site="fs_userfaultfd.continue_modes",
    files=MM + FS,
)
def no_continue_wp() -> int:
    """UFFDIO_CONTINUE has no mode that write-protects."""
    return UFFDIO_CONTINUE_MODE_DONTWAKE


@patch(
    "R-uffd-wp-unpopulated",
    commit="2bad466cc9d9",
    title="mm/uffd: UFFD_FEATURE_WP_UNPOPULATED",
    since="6.4",
    site="fs_userfaultfd.uffd_has_wp_unpopulated",
    files=FS,
)
def no_wp_unpopulated() -> bool:
    """Write protection of anonymous memory leaves none entries alone."""
    return False


# --- ranges and locks ------------------------------------------------------------------------------------


@patch(
    "R-uffd-wp-range",
    commit="a1b92a3f14e9",
    title="mm/userfaultfd: support WP on multiple VMAs",
    since="6.3",
    site="userfaultfd.mwriteprotect_vmas",
    files=MM,
)
def mwriteprotect_vma(mm: mm_struct, start: int, end: int, enable_wp: bool) -> int:
    """One registered VMA has to have all of the range."""
    vma = vma_lookup(mm, start)
    if not vma or end > vma.vm_end or vma.vm_userfaultfd_ctx == 0 or not userfaultfd_wp(vma):
        return -ENOENT
    uffd_wp_range(vma, start, end - start, enable_wp)
    return 0


@patch(
    "R-uffd-vma-lock",
    commit="867a43a34ff8",
    title="userfaultfd: use per-vma locks in userfaultfd operations",
    since="6.9",
    site="userfaultfd.uffd_vma_locks",
    files=MM,
)
def mmap_lock_always() -> bool:
    """Filling and moving takes mmap_lock."""
    return False


@patch(
    "R-uffd-vma-lock",
    commit="867a43a34ff8",
    title="userfaultfd: use per-vma locks in userfaultfd operations",
    since="6.9",
    site="userfaultfd.uffd_mfill_lock",
    files=MM,
)
def mfill_lock_validated(mm: mm_struct, start: int, length: int) -> vm_area_struct:
    """A private VMA gets an anon_vma only once it is known to be registered."""
    mmap_read_lock(mm)
    vma = vma_lookup(mm, start)
    if not vma or not validate_dst_vma(vma, start + length):
        mmap_read_unlock(mm)
        return ERR_PTR(-ENOENT)
    if vma.vm_flags & VM_SHARED == 0:
        anon_vma_prepare(vma)
    return vma


@patch(
    "R-uffd-unregister-other",
    title="userfaultfd: prevent unregistering VMAs through a different userfaultfd (seen in 6.18; not in 6.12)",
    since="6.17",
    site="fs_userfaultfd.unregister_forbidden",
    files=FS,
)
def anybody_unregisters(ctx: userfaultfd_ctx, vma: vm_area_struct) -> bool:
    """Any userfaultfd of the process may."""
    return False


@patch(
    "K31",
    commit="95567729173e",
    title="userfaultfd: fix uninitialized output field for -EAGAIN race",
    since="6.15",
    site="fs_userfaultfd.eagain_output",
    files=FS,
    claim=Claim("count", measure="output-of-copy-that-has-to-wait", before=0, after=-11),
)
def no_output() -> int:
    """The output field keeps what the caller had in it."""
    return 0


# --- entries ---------------------------------------------------------------------------------------------


@patch(
    "R-uffd-marker-replace",
    title="UFFDIO_COPY replaces userfaultfd's markers alone, not guard markers (seen in 7.2; not in 6.18)",
    since="6.19",
    site="userfaultfd.mfill_may_replace",
    files=MM,
)
def any_marker_may_go(entry: int) -> bool:
    """A page takes the place of any marker, of a guard region's too."""
    return entry == 0 or is_pte_marker(entry)


@patch(
    "R-uffd-copy-beyond-end",
    title="userfaultfd: introduce vm_uffd_ops->alloc_folio() (seen in 7.2; not in 6.18)",
    since="6.19",
    site="userfaultfd.mfill_alloc_folio",
    files=(*MM, "mm/shmem.c"),
)
def alloc_unseen(vma: vm_area_struct, address: int) -> tuple[int, folio]:
    """Beyond the end of the file, too: the content is copied before that is noticed."""
    return 0, folio_alloc(0)


@patch(
    "R-uffd-copy-beyond-end",
    title="userfaultfd: introduce vm_uffd_ops->alloc_folio() (seen in 7.2; not in 6.18)",
    since="6.19",
    site="userfaultfd.mfill_install_folio",
    files=(*MM, "mm/shmem.c"),
)
def install_within_file(vma: vm_area_struct, pmd: pmd_p, address: int, f: folio, wp: bool) -> int:
    """It is noticed here, before a page that the cache has there already."""
    if vma.vm_flags & VM_SHARED and linear_page_index(vma, address) >= i_size_pages(vma.vm_file.f_mapping):
        folio_put(f)
        return -EFAULT
    return mfill_install_folio(vma, pmd, address, f, wp)


@patch(
    "R-uffd-continue-beyond-end",
    title="userfaultfd: introduce vm_uffd_ops->get_folio_noalloc() (seen in 7.2; not in 6.18)",
    since="6.19",
    site="userfaultfd.mfill_nothing_cached",
    files=MM,
)
def beyond_end_is_invalid(mapping: address_space, index: int) -> int:
    """-EINVAL beyond the end of the file."""
    return -EINVAL if index >= i_size_pages(mapping) else -EFAULT


@patch(
    "K49",
    title="userfaultfd: gate the write bit on pte_present() in must_wait (CVE-2026-64514; 7.2 and stable series)",
    since="6.1",
    site="userfaultfd_fault.entry_must_wait",
    files=FS,
    claim=Claim("count", measure="waits-for-what-is-swapped-out", before=8, after=0),
)
def write_bit_of_anything(entry: int, reason: int) -> bool:
    """The write bit of an entry that is not present, which is part of something else, decides."""
    if entry == 0 or is_pte_marker(entry):
        return True
    return entry & RW == 0 and reason & VM_UFFD_WP != 0


@patch(
    "K50",
    commit="0cef0bb836e3",
    title="mm: clear uffd-wp PTE/PMD state on mremap() (CVE-2025-21696; v6.13 and stable series)",
    since="6.1",
    site="userfaultfd_k.vma_has_uffd_without_event_remap",
    files=("mm/mremap.c", "mm/huge_memory.c"),
    claim=Claim("count", measure="markers-carried-by-mremap", before=1, after=0),
)
def bits_move_along(vma: vm_area_struct) -> bool:
    """Bits and markers arrive in a VMA where no userfaultfd will ever resolve them."""
    return False


# --- UFFDIO_MOVE -----------------------------------------------------------------------------------------


@patch(
    "K25",
    commit="dd95d2782a25",
    title="UFFDIO_MOVE writes into a table that was detached: what D02 mends",
    since="6.14",
    site="userfaultfd_move.is_pte_pages_stable",
    files=MM,
    mutant=True,
    claim=Claim("race", "uffd-move-and-dontneed", "I2"),
)
@patch(
    "D02",
    commit="dd95d2782a25",
    title="mm: userfaultfd: recheck dst_pmd entry in move_pages_pte()",
    series="synchronously scan and reclaim empty user PTE pages",
    since="6.14",
    site="userfaultfd_move.is_pte_pages_stable",
    files=MM,
    claim=Claim("race", "uffd-move-and-dontneed", "I2"),
)
def entries_only(dst_pte: pte_p, src_pte: pte_p, orig_src: int, dst_pmd: pmd_p, dst_pmdval: int) -> bool:
    """A none entry of a table that was detached meanwhile looks as it did: the page is moved into nowhere."""
    return ptep_get(src_pte) == orig_src and ptep_get(dst_pte) == 0


@patch(
    "R-uffd-move-batch",
    title="userfaultfd: opportunistic TLB-flush batching for present pages in MOVE (not in 6.12)",
    since="6.18",
    site="userfaultfd_move.move_batch",
    files=MM,
)
def one_page(dst: int, src: int, length: int) -> int:
    """Each page is moved, and flushed, alone."""
    return 1


@patch(
    "K29",
    commit="37b338eed105",
    title="userfaultfd: do not block on locking a large folio with raised refcount",
    since="6.14",
    site="userfaultfd_move.waits_for_lock",
    files=MM,
    claim=Claim("race", "uffd-move-huge-twice", "BUG"),
)
def waits_even_if_large(f: folio) -> bool:
    """Who waits with a reference keeps others from splitting the folio."""
    return True


# --- khugepaged ------------------------------------------------------------------------------------------


@patch(
    "K12",
    commit="a98460494b16",
    title="mm/khugepaged: fix collapse_pte_mapped_thp() versus uffd",
    since="6.6",
    site="retract.uffd_may_fill_table",
    files=("mm/khugepaged.c",),
    claim=Claim("race", "mapped-huge-collapse-uffd-copy", "I2"),
)
def table_stays_empty(vma: vm_area_struct) -> bool:
    """ptl is dropped between emptying and detaching the table, whoever may fill it."""
    return False


@patch(
    "R-uffd-merged-flags",
    title="userfaultfd: move core VMA manipulation logic to mm/userfaultfd.c",
    since="6.12",
    site="userfaultfd_events.registered_flags",
    files=FS,
)
def flags_of_the_range(vma: vm_area_struct, vm_flags: int) -> int:
    """All flags are those of the VMA that had the range, also where others took it in: VM_SOFTDIRTY may be lost."""
    return vm_flags


@patch(
    "R-uffd-wp-prot",
    commit="931298e103c2",
    title="mm/userfaultfd: rely on vma->vm_page_prot in uffd_wp_range()",
    since="6.2",
    site="mprotect.new_page_prot",
    files=MM,
)
def writable_at_once(vma: vm_area_struct, cp_flags: int) -> int:
    """What is no longer write-protected is writable in shared memory, even if its first write was to be seen."""
    return vma.vm_page_prot | (RW if cp_flags & MM_CP_UFFD_WP_RESOLVE and vma_is_shared_writable(vma) else 0)

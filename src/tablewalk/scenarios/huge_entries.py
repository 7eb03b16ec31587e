# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages in PUD entries, of a device, and hugetlb pages in PMD entries."""

from __future__ import annotations

from tablewalk.explore.scenario import Setup, scenario

DEVICE_PFN = 1 << 20  # no memory of the model's


@scenario()
def smaps_and_huge_pud_refault(s: Setup) -> None:
    """smaps splits a device's huge page, to see its parts, while that is unmapped, and a fault maps it anew."""
    p = s.process()
    p.mmap(s.A, int(s.model.arch.pud_size) // s.page)
    vma, pgtable = s.model.kernel("vma").find_vma(p.mm, s.A), s.model.kernel("pgtable")
    vma.vm_flags |= s.model.kernel("vm_flags").VM_PFNMAP
    huge_pud, locks, zap = (s.model.kernel(name) for name in ("huge_pud", "mmap_lock", "memory_zap"))
    pud = pgtable.pud_offset(pgtable.p4d_offset(pgtable.pgd_offset(p.mm, s.A), s.A), s.A)
    huge_pud.insert_pud(vma, pud, DEVICE_PFN)

    def device() -> None:
        for again in (True, False):
            locks.mmap_read_lock(p.mm)
            zap.zap_page_range_single(vma, s.A, vma.vm_end - s.A, 0)
            if again:
                huge_pud.insert_pud(vma, pud, DEVICE_PFN)
            locks.mmap_read_unlock(p.mm)

    s.thread("smaps", lambda: p.smaps()[0].stats.resident)
    s.thread("device", device)
    s.finally_(lambda results: None if results["smaps"] == 0 else f"Rss is {results['smaps']} bytes")
    s.sometimes("zap_huge_pud: xchg", "__split_huge_pud: xchg")


@scenario()
def hugetlb_migrate_and_smaps(s: Setup) -> None:
    """A hugetlb page moves while smaps counts it."""
    p, hugetlb, size = s.process(), s.model.kernel("hugetlb"), int(s.model.arch.pmd_size)
    pte = hugetlb.hugetlb_no_page(p.mm, s.A)
    s.thread("migrate", lambda: hugetlb.unmap_and_move_huge_page(p.mm, pte, s.A))
    s.thread("smaps", lambda: sum(hugetlb.smaps_hugetlb_range(p.mm, pte, s.A)))
    s.finally_(lambda results: None if results["smaps"] == size else f"{results['smaps']} bytes are counted")
    s.sometimes("softleaf_to_folio: trylock")

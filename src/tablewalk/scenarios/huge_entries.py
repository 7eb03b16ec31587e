# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages in PUD entries, of a device, and hugetlb pages in PMD entries and in runs of PTEs."""

from __future__ import annotations

from typing import Any

from tablewalk.explore.scenario import Setup, scenario

from ..kernel.pgtable import PFN_SHIFT

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


def _migrate_and_smaps(s: Setup, size: int) -> None:
    p, hugetlb = s.process(), s.model.kernel("hugetlb")
    pte = hugetlb.hugetlb_no_page(p.mm, s.A, size)
    s.thread("migrate", lambda: hugetlb.unmap_and_move_huge_page(p.mm, pte, s.A, size))
    s.thread("smaps", lambda: sum(hugetlb.smaps_hugetlb_range(p.mm, pte, s.A, size)))
    s.finally_(lambda results: None if results["smaps"] == size else f"{results['smaps']} bytes are counted")
    s.sometimes("softleaf_to_folio: trylock")


def _faults(s: Setup, size: int, entries: int) -> None:
    """Two threads touch a page, one that which is mapped by the next entries of the same table."""
    p, hugetlb, load = s.process(), s.model.kernel("hugetlb"), s.model.machine.load

    def touch(name: str, addr: int) -> None:
        s.thread(name, lambda: int(hugetlb.hugetlb_no_page(p.mm, addr, size)))

    def mapped(results: dict[str, Any]) -> str | None:
        first = results["first"]
        if results != {"first": first, "second": first, "beside": first + entries}:
            return f"the entries are {results}"
        folios = [load(load(first + i) >> PFN_SHIFT) for i in range(2 * entries)]
        right = {folios[0]} == {*folios[:entries]} != {folios[-1]} == {*folios[entries:]}
        return None if right else f"the entries map {folios}"

    touch("first", s.A)
    touch("second", s.A)
    touch("beside", s.A + size)
    s.finally_(mapped)
    s.sometimes("folio_put: add_return")


@scenario()
def hugetlb_pmd_faults(s: Setup) -> None:
    """Two faults of a hugetlb page, and one of the page beside, in one PMD table."""
    _faults(s, s.model.arch.pmd_size, 1)


@scenario()
def hugetlb_migrate_and_smaps(s: Setup) -> None:
    """A hugetlb page moves while smaps counts it."""
    _migrate_and_smaps(s, s.model.arch.pmd_size)


def _runs(name: str, arch: str) -> None:
    """Scenarios of hugetlb pages that are two of a table's four entries."""

    def migrate_and_smaps(s: Setup) -> None:
        _migrate_and_smaps(s, 2 * s.page)

    def faults(s: Setup) -> None:
        _faults(s, 2 * s.page, 2)

    migrate_and_smaps.__name__ = f"hugetlb_run_migrates_{name}"
    migrate_and_smaps.__doc__ = f"A hugetlb page that is a run of PTEs on {name} moves while smaps counts it."
    scenario(arch=f"{arch}/2")(migrate_and_smaps)
    faults.__name__ = f"hugetlb_run_faults_{name}"
    faults.__doc__ = f"Two faults of such a page on {name}, and one of the page beside, in the same table."
    scenario(arch=f"{arch}/2")(faults)


for _name, _arch in (("arm64", "arm64"), ("riscv", "riscv64"), ("parisc", "parisc64"), ("sparc", "sparc64")):
    _runs(_name, _arch)

# SPDX-License-Identifier: GPL-2.0-only
"""The rules by their ids, which stay as they are."""

from __future__ import annotations

RULES = {
    "unchecked-null": "A map may fail: its result is compared with NULL before it is used.",
    "leak": "A page table that is mapped is unmapped on every path.",
    "double-unmap": "A page table is unmapped once.",
    "unmap-moved": "An unmap is given a pointer into the table, not one past its end or before its start.",
    "unmap-wrong": "An unmap is given what was mapped: not NULL, a local variable, or an entry that nobody mapped.",
    "unmap-order": "Maps nest: what was mapped last is unmapped first.",
    "use-after-unmap": "A pointer is not used after its table was unmapped.",
    "use-after-unlock": "Entries are written under the table's lock.",
    "missing-unlock": "A lock is released on every path, and not taken while it is held.",
    "unlock-unheld": "A lock is released by who holds it.",
    "sleep-while-mapped": "Nothing sleeps while a page table is mapped or its lock is held.",
    "live-lockptr": "A lock found by a second look at the pmd may be another table's: compare after it.",
    "no-recheck": "After a map without the lock, the lock is taken and the table compared before entries are written.",
    "none-recheck": "pte_same() with an entry that was none does not tell that the table is still in place.",
    "read-only-write": "Entries are not written under a map that is for reading.",
    "endless-retry": "A map that failed is not tried again at once: let the caller fault or walk again.",
    "kernel-table": "Kernel page tables are not mapped: pte_offset_kernel().",
    "huge-api": "hugetlb's entries come from pte_alloc_huge() and pte_offset_huge(), which nobody unmaps.",
    "undeferred-free": "A page table that was in use is freed by pte_free_defer().",
    "deprecated-name": "Names that newer kernels no longer have.",
}

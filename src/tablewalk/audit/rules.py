# SPDX-License-Identifier: GPL-2.0-only
"""The rules by their ids, which stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

_ADDRS = "Documentation/mm/process_addrs.rst"
_SPLIT = "Documentation/mm/split_page_table_lock.rst"
_HIGHMEM = "Documentation/mm/highmem.rst"
_ATOMIC = "Documentation/locking/spinlocks.rst"
_CODE = "mm/pgtable-generic.c"


@dataclass(frozen=True, slots=True)
class Rule:
    statement: str
    source: str  # where the kernel says so
    unless: str = ""  # when it is not reported
    invariant: str = ""  # of the model, that a program breaks which does not keep the rule; see explore/rules.py


RULES = {
    "unchecked-null": Rule(
        "A map may fail: its result is compared with NULL before it is used.",
        f"{_SPLIT}; {_CODE}",
        "it was compared with NULL, or by IS_ERR_OR_NULL(), on this path",
        "I1",
    ),
    "leak": Rule(
        "A page table that is mapped is unmapped on every path.",
        f"{_ADDRS}; {_CODE}",
        "it is returned, stored in a parameter, or given to who unmaps it",
        "I7",
    ),
    "double-unmap": Rule("A page table is unmapped once.", f"{_ADDRS}; {_CODE}", "it was mapped again between", "I7"),
    "unmap-moved": Rule(
        "An unmap is given a pointer into the table, not one past its end or before its start.",
        _HIGHMEM,
        "the pointer is corrected (pte - 1) after a loop that ran, or looked through after it was moved",
    ),
    "unmap-wrong": Rule(
        "An unmap is given what was mapped: not NULL, a local variable, or an entry that nobody mapped.",
        f"{_SPLIT}; {_HIGHMEM}",
        "where the pointer is from is not known",
        "I7",
    ),
    "unmap-order": Rule(
        "Maps nest: what was mapped last is unmapped first.", _HIGHMEM, "the maps are of the same table"
    ),
    "use-after-unmap": Rule(
        "A pointer is not used after its table was unmapped.", _ADDRS, "it was mapped again between", "I1"
    ),
    "use-after-unlock": Rule(
        "Entries are written under the table's lock.",
        _ADDRS,
        "the lock may be the same as one that is held, or a parameter says that the caller holds it",
        "I2",
    ),
    "missing-unlock": Rule(
        "A lock is released on every path, and not taken while it is held.",
        _ADDRS,
        "it may be the same as one that is held, or the caller gets it",
        "I7",
    ),
    "unlock-unheld": Rule(
        "A lock is released by who holds it.", _ADDRS, "it may be the same as one that is held", "I7"
    ),
    "sleep-while-mapped": Rule(
        "Nothing sleeps while a page table is mapped or its lock is held.",
        f"{_ATOMIC}; {_CODE}",
        "an allocation's flags forbid sleeping, or the callee is given the table and unmaps it",
        "I27",
    ),
    "live-lockptr": Rule(
        "A lock found by a second look at the pmd may be another table's: compare after it.",
        _SPLIT,
        "the saved value of a pmd is looked at, or the upper table's lock is held",
        "I2",
    ),
    "no-recheck": Rule(
        "After a map without the lock, the lock is taken and the table compared before entries are written.",
        f"{_ADDRS}; {_CODE}",
        "pmd_same() or pte_same() follows under the lock; the saved pmd is a dummy, or the upper table's lock is held",
        "I2",
    ),
    "none-recheck": Rule(
        "pte_same() with an entry that was none does not tell that the table is still in place.",
        _CODE,
        "pmd_same() was done too",
        "I2",
    ),
    "read-only-write": Rule(
        "Entries are not written under a map that is for reading.", _SPLIT, "the lock of the table is held", "I2"
    ),
    "endless-retry": Rule(
        "A map that failed is not tried again at once: let the caller fault or walk again.",
        _CODE,
        "something lies between that may let the map succeed",
        "I26",
    ),
    "kernel-table": Rule("Kernel page tables are not mapped: pte_offset_kernel().", _SPLIT, "the mm is not init_mm"),
    "user-table": Rule(
        "A user's page table is not looked into by pte_offset_kernel(), which neither maps it nor keeps it in place.",
        f"{_ADDRS}; {_SPLIT}",
        "RCU, a page table's lock or switched-off interrupts protect it in the same function, or the caller gives an "
        "entry of it; init_mm is named there; or the function is given the pmd, and whose it is cannot be told",
        "I1",
    ),
    "huge-api": Rule(
        "hugetlb's entries come from pte_alloc_huge() and pte_offset_huge(), which nobody unmaps.",
        "include/linux/hugetlb.h",
        "the tree does not have these names",
    ),
    "undeferred-free": Rule(
        "A page table that was in use is freed by pte_free_defer().",
        "include/linux/pgtable.h",
        "the table was never reachable",
        "I1",
    ),
    "deprecated-name": Rule(
        "Names that newer kernels no longer have.", "include/linux/pgtable.h", "the tree has no better name"
    ),
}

_LIFETIME = frozenset(("unchecked-null", "use-after-unmap", "live-lockptr", "no-recheck", "none-recheck", "user-table"))
SCENARIO_OF = {
    "madvise_free_pte_range": "free-and-dontneed",
    "change_pte_range": "shmem-collapse-mprotect",
    "mlock_pte_range": "shmem-collapse-mlock",
    "move_ptes": "shmem-collapse-mremap-page",
    "filemap_map_pages": "file-read-and-dontneed",
    "userfaultfd_must_wait": "uffd-fault-and-dontneed",
    "mfill_atomic_install_pte": "uffd-copy-and-dontneed",
    "move_pages_ptes": "uffd-move-and-dontneed",
    "copy_pte_range": "fork-and-dontneed",
    "handle_pte_fault": "shmem-collapse-fault",
    "do_anonymous_page": "anon-collapse-fault",
    "do_swap_page": "anon-collapse-fault",
    "retract_page_tables": "shmem-collapse-fault-elsewhere",
    "collapse_pte_mapped_thp": "mapped-huge-collapse-fault",
    "try_collapse_pte_mapped_thp": "mapped-huge-collapse-fault",
    "zap_pte_range": "shmem-collapse-dontneed",
}  # functions of the kernel that the model has, to what runs them against one that takes tables away


def scenario_of(rule: str, function: str) -> str:
    """The scenario of `explore` that shows what comes of breaking `rule` in `function`; empty where there is none."""
    return SCENARIO_OF.get(function, "") if rule in _LIFETIME else ""

# SPDX-License-Identifier: GPL-2.0-only
"""The names of the page-table access interface, and which of them a tree has.

What a name means is the same in every release that has it.  Which names a tree has is looked up in its headers, not
in its version, so that backports count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Map:
    """A function that maps a page table and returns a pointer into it, or NULL."""

    kind: str  # "plain": entries are unstable; "locked"; "ro": for ever read only; "rw": to be rechecked under the lock
    ptl: int | None = None  # the argument for the lock, counted from the end
    pmdval: int | None = None  # likewise for the pmd's value


MAPS = {
    "pte_offset_map": Map("plain"),
    "__pte_offset_map": Map("plain"),
    "pte_alloc_map": Map("plain"),
    "pte_offset_map_lock": Map("locked", -1),
    "__pte_offset_map_lock": Map("locked", -1),
    "pte_alloc_map_lock": Map("locked", -1),
    "get_locked_pte": Map("locked", -1),
    "__get_locked_pte": Map("locked", -1),
    "pte_offset_map_nolock": Map("rw", -1),
    "pte_offset_map_ro_nolock": Map("ro", -1),
    "pte_offset_map_rw_nolock": Map("rw", -1, -2),
}
UNMAPS = {"pte_unmap": False, "pte_unmap_nested": False, "pte_unmap_unlock": True}  # whether it unlocks too
IMPLEMENTATION = frozenset((*MAPS, *UNMAPS, "pte_lockptr"))  # the interface itself is not audited

KERNEL_LOOKUPS = frozenset(
    ("pte_offset_kernel", "pte_alloc_kernel", "pte_alloc_kernel_track", "virt_to_kpte", "lookup_address")
)
UPPER = frozenset(
    ("pgd_offset", "p4d_offset", "pud_offset", "pmd_offset", "pmd_off", "pgd_offset_pgd", "pmd_offset_lockless")
)  # down the tables: the first argument says which
USER_MM = re.compile(r"(?:^|->)(?:mm|vm_mm)$")
KEEPS_TABLES = re.compile(
    r"rcu_read_lock\w*|local_irq_(?:save|disable)|pte_lockptr|pmd_lock\w*|mmap_write_lock\w*|spin_lock_irq\w*"
)
_KMAPS = """
    kmap_local_page kmap_local_page_prot kmap_local_folio kmap_local_pfn kmap_local_zpdesc bvec_kmap_local kmap_atomic
    kmap_atomic_prot kmap_atomic_pfn"""
KMAPS = frozenset(_KMAPS.split())
# which argument is what ends
KUNMAPS = {"kunmap_local": 0, "kunmap_atomic": 0, "__kunmap_local": 0, "__kunmap_atomic": 0, "folio_release_kmap": 1}
HUGE_LOOKUPS = frozenset(("pte_offset_huge", "pte_alloc_huge", "huge_pte_offset", "huge_pte_alloc", "hugetlb_walk"))
HUGE_ACCESS = re.compile(r"huge_ptep_\w+$|set_huge_pte\w*$|huge_pte_clear$")

LOCKS = frozenset(("spin_lock", "spin_lock_nested", "raw_spin_lock", "double_pt_lock", "spin_trylock"))
UNLOCKS = frozenset(("spin_unlock", "raw_spin_unlock", "double_pt_unlock"))
PMD_LOCKS = frozenset(
    ("pmd_lock", "pmd_lockptr", "pmd_trans_huge_lock", "__pmd_trans_huge_lock", "pud_lock", "pud_trans_huge_lock")
)  # of the tables above

WRITES = re.compile(
    r"(?:set_ptes?|set_pte_\w+|set_ptes_\w+|__set_pte\w*|ptep_get_and_clear\w*|ptep_clear\w*|pte_clear\w*|ptep_set_\w+"
    r"|ptep_modify_prot_\w+|get_and_clear_(?:full_)?ptes|clear_(?:full|not_present_full|young_dirty)?_?ptes"
    r"|wrprotect_ptes|modify_prot_(?:start|commit)_ptes|ptep_invalidate\w*|pte_install_uffd_wp_if_needed"
    r"|set_huge_pte_at|ptep_xchg\w*|ptep_reset\w*)$"
)
# Clearing the accessed bit is harmless in a table that was detached: the value is not kept.
SAME = re.compile(
    r"(?:pte|pmd)s?_same(?:$|_)|^is_pte_pages_stable$|vmf_pte_changed|check_pmd_still_valid|check_pmd_state|pte_unmap_same"
)
PMD_SAME = re.compile(r"pmd_same|is_pte_pages_stable|check_pmd_still_valid|check_pmd_state")

_SLEEPS = """
    cond_resched cond_resched_rcu might_sleep might_fault mutex_lock mutex_lock_interruptible mutex_lock_killable
    down_read down_write down down_read_killable down_write_killable mmap_read_lock mmap_write_lock
    mmap_read_lock_killable mmap_write_lock_killable i_mmap_lock_read i_mmap_lock_write anon_vma_lock_read
    anon_vma_lock_write lock_page folio_lock lock_page_killable folio_lock_killable copy_from_user copy_to_user get_user
    put_user clear_user __copy_from_user __copy_to_user handle_mm_fault fixup_user_fault get_user_pages
    pin_user_pages get_user_pages_fast schedule schedule_timeout msleep usleep_range wait_event
    wait_event_interruptible wait_for_completion wait_on_page_writeback folio_wait_writeback wait_on_page_locked
    folio_wait_locked synchronize_rcu migration_entry_wait softleaf_entry_wait pte_alloc __pte_alloc pmd_alloc
    pud_alloc p4d_alloc pte_alloc_one vzalloc vmalloc kvmalloc split_huge_page split_folio split_huge_page_to_list
    split_huge_pmd split_huge_pmd_address mmu_notifier_invalidate_range_start anon_vma_prepare
    vmf_anon_prepare __vmf_anon_prepare swapin_readahead swap_cluster_readahead read_swap_cache_async
    shmem_read_mapping_page vma_alloc_folio vma_alloc_zeroed_movable_folio alloc_page_vma folio_prealloc
    page_copy_prealloc flush_work flush_delayed_work swap_readpage swap_read_folio lru_add_drain_all mem_cgroup_charge
    add_swap_count_continuation do_swap_page iput fput mmput"""
SLEEPS = frozenset(_SLEEPS.split())
ALLOCATES = re.compile(
    r"(?:k[mzc]alloc\w*|kv[mz]alloc\w*|kmem_cache_z?alloc\w*|alloc_pages?|folio_alloc\w*|__get_free_pages?"
    r"|get_zeroed_page|mempool_alloc|__?alloc_page\w*)$"
)
NO_SLEEP_FLAGS = re.compile(r"GFP_ATOMIC|GFP_NOWAIT|\bgfp|flags|__GFP_NOWARN$")

READS = frozenset(("ptep_get", "ptep_get_lockless"))

PURE = re.compile(
    r"(?:p[tmug4]d?e?_\w+|is_\w+|folio_test_\w+|vma_is_\w+|softleaf_\w+|userfaultfd_\w+|non_swap\w*|Page[A-Z]\w*"
    r"|[A-Z][A-Z0-9_]+|pte_\w+|uffd_\w+|in_\w+)$"
)  # predicates that say the same of the same values
NULL_ALLOWED = re.compile(r"IS_ERR\w*|PTR_ERR\w*|ERR_CAST|printk|pr_\w+|trace_\w+|kfree|dev_\w+|seq_printf|PTR_ERR")
ERROR_TESTS = {"IS_ERR": ("err",), "IS_ERR_OR_NULL": ("err", "null"), "IS_ERR_VALUE": ("err",)}
KERNEL_MM = re.compile(r"\binit_mm\b")  # others, as text_poke_mm, have tables of their own as a user's

# Names that a newer tree no longer has: what to use instead.
DEPRECATED = {
    "pmd_trans_unstable": "let the map fail",
    "pmd_devmap_trans_unstable": "let the map fail",
    "pmd_none_or_trans_huge_or_clear_bad": "let the map fail",
    "pmd_none_or_clear_bad_unless_trans_huge": "let the map fail",
    "pmd_read_atomic": "pmdp_get_lockless",
    "pte_offset_map_nolock": "pte_offset_map_ro_nolock or pte_offset_map_rw_nolock",
    "pte_unmap_nested": "pte_unmap",
}
INTEREST = re.compile(
    r"\b(?:__)?(?:pte_offset_map\w*|pte_alloc_map\w*|get_locked_pte|pte_unmap\w*|pte_lockptr|"
    + "|".join(DEPRECATED)
    + r")\s*\("
)  # a function is audited that has one of these
_QUICK = """
    pte_offset_ pte_alloc_map get_locked_pte pte_unmap pte_lockptr trans_unstable pte_free pmd_read_atomic
    pmd_none_or_ huge_pte hugetlb_walk kmap_local kmap_atomic"""
QUICK = tuple(_QUICK.split())  # one of these is in every text that has an interest
NEARBY = re.compile(
    r"\bpte_offset_kernel\s*\(|\bpte_free\s*\(|\b(?:huge_ptep_get|set_huge_pte_at|huge_pte_(?:clear|offset|alloc)"
    r"|hugetlb_walk)\s*\(|(?s:kmap_(?:local|atomic)\w*\s*\(.*?kmap_(?:local|atomic))"
)  # or one of these, or maps that may nest; rules of their own


@dataclass(frozen=True, slots=True)
class Names:
    """Which parts of the interface a tree has."""

    may_fail: bool = True  # maps return NULL; in an older tree they could not, and every use is a finding
    nolock: bool = True
    split_nolock: bool = True
    defer: bool = True

    @classmethod
    def of_tree(cls, root: Path | None) -> Names:
        """Those of the kernel tree at `root`; of the newest kernel where there is none."""
        if root is None:
            return cls()
        text = ""
        for name in ("include/linux/mm.h", "include/linux/pgtable.h", "mm/pgtable-generic.c"):
            try:
                text += (root / name).read_bytes().decode("latin-1")
            except OSError:
                continue
        if not text:
            return cls()
        return cls(
            may_fail="__pte_offset_map" in text,
            nolock="_nolock" in text,
            split_nolock="pte_offset_map_rw_nolock" in text,
            defer="pte_free_defer" in text,
        )

    def as_json(self) -> dict[str, bool]:
        return {
            "maps may fail": self.may_fail,
            "pte_offset_map_nolock or its successors": self.nolock,
            "ro and rw nolock apart": self.split_nolock,
            "pte_free_defer": self.defer,
        }


def tree_root(path: Path) -> Path | None:
    """The kernel tree that `path` is in."""
    path = path.resolve()
    for directory in (path, *path.parents):
        if (directory / "include" / "linux" / "mm.h").is_file() and (directory / "mm").is_dir():
            return directory
    return None

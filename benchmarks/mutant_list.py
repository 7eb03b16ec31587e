# SPDX-License-Identifier: GPL-2.0-only
"""Deliberate small errors in the model, each of which `tablewalk validate` has to find on the host.

A mutant replaces text of one module of `kernel/` that occurs there exactly once; where the model's text has moved on,
the test of this list says so, and the mutant is to be adapted.  Good mutants are what somebody could have written:
an address rounded the wrong way, a counter forgotten, a condition too many or too few.

Some errors cannot be seen by any program of one CPU that runs one operation after the other, and are no mutants here:
a flush of the TLB too few (mmu_gather, tlb), a lock not taken (mmap_lock, all files), a table freed without RCU
(the driver `checked` and its tests are for these); whether a write to an exclusive page reuses or copies it
(wp_can_reuse_anon_folio); accessed bits (MADV_COLD); the split of locked memory (all advice that splits a folio refuses
it); and what only khugepaged decides (max_ptes_none, _shared, _swap),
because MADV_COLLAPSE ignores them.  exec and the attribution of a recording are not in the programs of `validate`.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old`, in kernel/`file`, is replaced by `new`; `wrong` says what that amounts to.

    `focus` is that of the programs which are to find it: some operations are in no others.
    """

    name: str
    file: str
    wrong: str
    old: str
    new: str
    focus: str = ""


TABLES = (
    Mutant(
        "wrong-floor",
        "memory_zap.py",
        "free_pgtables keeps the table at the floor even if the VMA below ends right there",
        "    if from_addr < floor:\n",
        "    if from_addr <= floor:\n",
    ),
    Mutant(
        "wrong-ceiling",
        "memory_zap.py",
        "free_pgtables frees the table that is shared with the VMA above",
        "    if end > (ceiling or TOP):\n        end -= arch.pmd_size\n",
        "",
    ),
    Mutant(
        "upper-floor",
        "memory_zap.py",
        "a PMD table is freed although a VMA further down has memory in it",
        "    if start & -size < floor:\n",
        "    if start < floor:\n",
    ),
    Mutant(
        "vmas-far-apart",
        "memory_zap.py",
        "free_pgtables takes VMAs that are tables apart for neighbours",
        "next_start > vma.vm_end + arch.pmd_size:",
        "next_start > vma.vm_end + arch.pud_size:",
    ),
    Mutant(
        "reclaim-neighbour",
        "memory_zap.py",
        "PT_RECLAIM takes a table for empty of which only half was zapped",
        "end - addr >= arch.pmd_size\n",
        "end - addr >= arch.pmd_size // 2\n",
    ),
    Mutant(
        "reclaim-markers",
        "memory_zap.py",
        "PT_RECLAIM frees a table whose guard markers stayed",
        "            if not zap_nonpresent_pte(vma, pte + i, entry, details):\n                found |= SKIPPED\n",
        "            zap_nonpresent_pte(vma, pte + i, entry, details)\n",
    ),
    Mutant(
        "zap-guards",
        "memory_zap.py",
        "MADV_DONTNEED removes guard regions",
        "        elif marker & PTE_MARKER_GUARD:\n            keep = details & ZAP_DROP_MARKERS == 0\n",
        "        elif marker & PTE_MARKER_GUARD:\n            keep = False\n",
    ),
    Mutant(
        "zap-loses-dirty",
        "memory_zap.py",
        "a written page of a file is clean once it is unmapped, and MADV_PAGEOUT drops it",
        "        folio_mark_dirty(f)\n        if not arch.no_gather:",
        "        if not arch.no_gather:",
    ),
    Mutant(
        "punch-takes-copies",
        "memory_zap.py",
        "a hole punched into a file takes private copies, too",
        "    details = 0 if even_cows else ZAP_KEEP_COWS\n",
        "    details = 0\n",
    ),
    Mutant(
        "upper-tables-of-nothing",
        "move_page_tables.py",
        "a move allocates the destination's upper tables only when there is something to move",
        "    new_pud = alloc_new_pud(mm, new_addr)\n    if extent",
        "    if load(pmd_offset(old_pud, old_addr)) == 0:\n"
        "        return get_extent(arch.pmd_size, old_addr, new_addr, old_end)\n"
        "    new_pud = alloc_new_pud(mm, new_addr)\n    if extent",
    ),
    Mutant(
        "move-extent",
        "move_page_tables.py",
        "the extent of a move ends at the source's tables only, not at the destination's",
        "    return min(size - (old_addr & size - 1), size - (new_addr & size - 1), old_end - old_addr)\n",
        "    return min(size - (old_addr & size - 1), old_end - old_addr)\n",
    ),
    Mutant(
        "move-realigned",
        "move_page_tables.py",
        "a move begins at the table's boundary although something else is mapped below",
        "    return not below or below.vm_start >= addr\n",
        "    return True\n",
    ),
    Mutant(
        "walk-skips",
        "pagewalk.py",
        "a walk leaves out more than the missing PMD table covers",
        "            return 0, pud_addr_end(addr, end)\n    if arch.pmd_bits:\n",
        "            return 0, p4d_addr_end(addr, end)\n    if arch.pmd_bits:\n",
    ),
    Mutant(
        "guard-signal",
        "swap_pte.py",
        "an access to a guard region ends in SIGBUS",
        "        return VM_FAULT_SIGSEGV\n    return pte_marker_clear",
        "        return VM_FAULT_HWPOISON\n    return pte_marker_clear",
    ),
)

HUGE = (
    Mutant(
        "thp-read-anon-vma",
        "huge_memory.py",
        "a read fault that maps the huge zero page gives the VMA no anon_vma",
        "    ret = vmf_anon_prepare(vmf)\n",
        "    ret = vmf_anon_prepare(vmf) if vmf.flags & FAULT_FLAG_WRITE else 0\n",
    ),
    Mutant(
        "thp-zero-rss",
        "huge_memory.py",
        "the huge zero page counts as anonymous memory",
        "    if zero:\n        store(vmf.pmd",
        "    if zero:\n        add(vma.vm_mm.anon_rss, arch.hpage_pmd_nr)\n        store(vmf.pmd",
    ),
    Mutant(
        "thp-fork-nr-ptes",
        "huge_memory.py",
        "the table that fork deposits for a huge page is not counted",
        "        add(dst_mm.anon_huge, 1)\n    mm_inc_nr_ptes(dst_mm)\n",
        "        add(dst_mm.anon_huge, 1)\n",
    ),
    Mutant(
        "thp-fork-exclusive",
        "huge_memory.py",
        "fork leaves a huge page the parent's own",
        "        store(page_flags(f.page), 0)\n    folio_get(f)\n",
        "    folio_get(f)\n",
    ),
    Mutant(
        "thp-move-deposit",
        "huge_memory.py",
        "a huge page that moves leaves its deposited table behind",
        "    if arch.file_thp_deposits or vma_is_anonymous(vma):\n        pgtable = pgtable_trans_huge_with",
        "    if arch.file_thp_deposits:\n        pgtable = pgtable_trans_huge_with",
    ),
    Mutant(
        "thp-reuse",
        "huge_memory.py",
        "a huge page is split by a write though the last other process has gone",
        "        if not reuse and folio_ref_count(f) == 1:\n",
        "        if not reuse and folio_ref_count(f) == 0:\n",
    ),
    Mutant(
        "thp-mprotect-shared",
        "huge_memory.py",
        "mprotect makes a huge page writable that parent and child share",
        "    return folio_test_anon(f) and load(page_flags(f.page)) & PAGE_ANON_EXCLUSIVE != 0\n",
        "    return folio_test_anon(f)\n",
    ),
    Mutant(
        "deposit-nr-ptes",
        "huge_pmd.py",
        "a deposited table that is freed stays counted",
        "    pte_free(mm, pgtable_trans_huge_withdraw(mm, pmd, addr))\n    mm_dec_nr_ptes(mm)\n",
        "    pte_free(mm, pgtable_trans_huge_withdraw(mm, pmd, addr))\n",
    ),
    Mutant(
        "split-rounding",
        "huge_pmd.py",
        "a huge page that ends where its VMA does is not split when the VMA is",
        "haddr + arch.pmd_size <= vma.vm_end:\n        split_huge_pmd_address",
        "haddr + arch.pmd_size < vma.vm_end:\n        split_huge_pmd_address",
    ),
    Mutant(
        "split-huge-zero",
        "huge_pmd.py",
        "splitting the huge zero page leaves nothing mapped",
        "    install_split_table(vma.vm_mm, pmd, haddr, entry, 0)\n",
        "    install_split_table(vma.vm_mm, pmd, haddr, 0, 0)\n",
    ),
    Mutant(
        "thp-beyond-vma",
        "huge_mm.py",
        "a huge page may reach beyond the end of its VMA",
        "    return haddr >= vma.vm_start and haddr + arch.pmd_size <= vma.vm_end\n",
        "    return haddr >= vma.vm_start\n",
    ),
    Mutant(
        "thp-disabled-collapse",
        "huge_mm.py",
        "MADV_COLLAPSE works in a process with PR_SET_THP_DISABLE",
        "    if flags & MMF_DISABLE_THP_COMPLETELY:\n",
        "    if flags & MMF_DISABLE_THP_COMPLETELY and not forced_collapse:\n",
    ),
    Mutant(
        "split-keeps-zeroes",
        "rmap_walk.py",
        "splitting a folio leaves its pages of zeroes mapped, instead of the zero page",
        "            if use_zero_page and may_map_zero_page(vma, page):\n",
        "            if False:\n",
    ),
    Mutant(
        "split-beyond-end",
        "folio_split.py",
        "a file's folio that is split keeps its pages beyond the end of the file",
        "if piece.index >= end]",
        "if piece.index > end]",
    ),
)

COLLAPSE = (
    Mutant(
        "retract-nr-ptes",
        "retract.py",
        "a page table taken from a mapping of a collapsed file stays counted",
        "        mm_dec_nr_ptes(mm)\n        pte_free_defer(mm, pmd_pgtable(pmdval))\n\n\ndef recheck",
        "        pte_free_defer(mm, pmd_pgtable(pmdval))\n\n\ndef recheck",
    ),
    Mutant(
        "retract-copies",
        "retract.py",
        "retraction takes tables that may hold private copies",
        '    if READ_ONCE(vma, "anon_vma"):\n        return False\n',
        "",
    ),
    Mutant(
        "retract-guards",
        "retract.py",
        "retraction takes tables that may hold guard markers",
        "    return vm_flags & (VM_UFFD_WP | VM_MAYBE_GUARD) == 0\n",
        "    return vm_flags & VM_UFFD_WP == 0\n",
    ),
    Mutant(
        "collapse-installs-nothing",
        "retract.py",
        "MADV_COLLAPSE of a file does not map the huge page",
        "        if result == SCAN_SUCCEED and install_pmd:\n",
        "        if result == SCAN_SUCCEED and not install_pmd:\n",
    ),
    Mutant(
        "collapse-file-rss",
        "retract.py",
        "the pages of a table that makes way for a huge page stay in RSS",
        "        add(mm_counter_file(mm, f), -nr)\n",
        "",
    ),
    Mutant(
        "collapse-hole-rss",
        "collapse_huge_page.py",
        "a collapse does not count the pages that replace the zero page",
        "        if is_none_or_zero(entry):\n            add(vma.vm_mm.anon_rss, 1)\n",
        "        if entry == 0:\n            add(vma.vm_mm.anon_rss, 1)\n",
    ),
    Mutant(
        "collapse-one-present",
        "collapse_policy.py",
        "MADV_COLLAPSE of anonymous memory wants one page that is there",
        "    return config.max_ptes_none if is_khugepaged else arch.hpage_pmd_nr\n",
        "    return config.max_ptes_none if is_khugepaged else arch.hpage_pmd_nr - 1\n",
    ),
    Mutant(
        "collapse-empty-file",
        "collapse_file.py",
        "MADV_COLLAPSE makes a huge page of shared memory that has no page at all",
        "    elif not swapped and mapping.shmem and index == start and not any_cached(",
        "    elif not swapped and not mapping.shmem and index == start and not any_cached(",
    ),
    Mutant(
        "collapse-stops",
        "scan_result.py",
        "MADV_COLLAPSE stops at a range that has no page table",
        "GO_ON: Final = (\n    SCAN_NO_PTE_TABLE,\n",
        "GO_ON: Final = (\n",
    ),
    Mutant(
        "collapse-rounding",
        "khugepaged.py",
        "MADV_COLLAPSE also takes the huge page in which its range begins",
        "    hstart = start + arch.pmd_size - 1 & -arch.pmd_size\n    hend = end",
        "    hstart = start & -arch.pmd_size\n    hend = end",
    ),
)

VMAS = (
    Mutant(
        "merge-policy",
        "vma_merge.py",
        "VMAs of different memory policy merge",
        "        vmg.policy == vma.vm_policy\n        and (vmg",
        "        (vmg",
    ),
    Mutant(
        "merge-pgoff",
        "vma_merge.py",
        "a VMA merges with the one before it whatever their offsets",
        "        and is_mergeable_anon_vma(vmg, prev)\n        and prev.vm_pgoff + vma_pages(prev) == vmg.pgoff\n",
        "        and is_mergeable_anon_vma(vmg, prev)\n",
    ),
    Mutant(
        "merge-fork-child",
        "vma_merge.py",
        "new memory merges with a VMA that hangs on a parent's anon_vma",
        "        return not vma_is_fork_child(target)\n",
        "        return True\n",
    ),
    Mutant(
        "merge-three",
        "vma_merge.py",
        "three VMAs merge although the outer two have different anon_vmas",
        "    return not prev.anon_vma or not next_.anon_vma or prev.anon_vma == next_.anon_vma\n",
        "    return True\n",
    ),
    Mutant(
        "merge-loses-guard",
        "vma.py",
        "merged VMAs forget that one of them has had guard regions",
        '    WRITE_ONCE(vma, "vm_flags", vma.vm_flags | vm_flags & VM_STICKY_FLAGS)\n',
        "    pass\n",
    ),
    Mutant(
        "merge-loses-anon-vma",
        "vma.py",
        "a VMA that swallows another one does not take over its anon_vma",
        "    if src.anon_vma and not dst.anon_vma:\n",
        "    if src.anon_vma and not dst.anon_vma and src.vm_file:\n",
    ),
    Mutant(
        "munmap-locked",
        "vma.py",
        "unmapping locked memory leaves it counted as locked",
        "    mm.locked_vm -= sum([vma_pages(vma) for vma in vmas if vma.vm_flags & VM_LOCKED])\n",
        "",
    ),
    Mutant(
        "reusable-anon-vma",
        "rmap.py",
        "a new anon_vma where the VMA before has one to share, which keeps the two from merging later",
        "    if before:\n        return reusable_anon_vma(before, before, vma)\n",
        "",
    ),
    Mutant(
        "policy-hole",
        "mempolicy.py",
        "mbind passes over a hole in its range",
        "        if vma.vm_start > addr and not holes_ok:\n            return -EFAULT\n",
        "",
    ),
    Mutant(
        "account-noreserve",
        "mmap.py",
        "MAP_NORESERVE memory is accounted",
        "    if vm_flags & (VM_WRITE | VM_NORESERVE | VM_SHARED) == VM_WRITE:\n",
        "    if vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE:\n",
    ),
    Mutant(
        "populate-nonblock",
        "mmap.py",
        "MAP_POPULATE populates in spite of MAP_NONBLOCK",
        "flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE\n    return ret",
        "flags & MAP_POPULATE != 0\n    return ret",
    ),
    Mutant(
        "noreplace-replaces",
        "mmap.py",
        "MAP_FIXED_NOREPLACE replaces what is there",
        "    may_replace = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) == MAP_FIXED\n",
        "    may_replace = flags & MAP_FIXED != 0\n",
    ),
    Mutant(
        "readonly-may-write",
        "mmap.py",
        "mprotect may make a shared mapping of a read-only file writable",
        "            vm_flags &= ~(VM_MAYWRITE | VM_SHARED)\n",
        "            vm_flags &= ~VM_SHARED\n",
    ),
)

CALLS = (
    Mutant(
        "brk-gap",
        "brk.py",
        "the heap may grow right up to the mapping above it",
        "    if next_ and newbrk + arch.page_size > vm_start_gap(next_):\n",
        "    if next_ and newbrk > vm_start_gap(next_):\n",
    ),
    Mutant(
        "brk-merges",
        "brk.py",
        "a new heap merges with the mapping below it",
        "    if prev and prev.vm_end <= mm.start_brk:\n        prev = NO_VMA\n",
        "",
    ),
    Mutant(
        "brk-locked",
        "brk.py",
        "the heap that grows under mlockall(MCL_FUTURE) does not count as locked",
        "    if vm_flags & VM_LOCKED:\n        mm.locked_vm += pages\n    return 0\n",
        "    return 0\n",
    ),
    Mutant(
        "mprotect-keeps-write",
        "mprotect.py",
        "mprotect leaves mapped pages writable",
        "    new = old & ~(PRESENT | PROTNONE | RW) | newprot\n",
        "    new = old & ~(PRESENT | PROTNONE) | newprot\n",
    ),
    Mutant(
        "mprotect-shared-page",
        "mprotect.py",
        "mprotect makes a page writable that parent and child share",
        "    return folio_test_anon(page_folio(page)) and load(page_flags(page)) & PAGE_ANON_EXCLUSIVE != 0\n",
        "    return folio_test_anon(page_folio(page))\n",
    ),
    Mutant(
        "mprotect-unaccounts",
        "mprotect.py",
        "mprotect to read-only takes the accounting from memory that was written",
        "    elif old & VM_ACCOUNT and vma_is_anonymous(vma) and not vma.anon_vma:\n",
        "    elif old & VM_ACCOUNT and vma_is_anonymous(vma):\n",
    ),
    Mutant(
        "mprotect-no-split",
        "mprotect.py",
        "mprotect of a part of a huge page changes all of it",
        "        if end - addr != arch.pmd_size or pgtable_split_needed(vma, cp_flags):\n",
        "        if pgtable_split_needed(vma, cp_flags):\n",
    ),
    Mutant(
        "mlock-counts-twice",
        "mlock.py",
        "memory that is locked already counts again when it is locked otherwise",
        "    elif old & VM_LOCKED == 0:\n",
        "    else:\n",
    ),
    Mutant(
        "mlockall-onfault",
        "mlock.py",
        "MCL_ONFAULT alone is no error",
        " or flags == MCL_ONFAULT:\n",
        ":\n",
    ),
    Mutant(
        "mlock-on-fault-populates",
        "gup.py",
        "memory locked on fault is populated at once",
        "    if vm_flags & VM_LOCKONFAULT:\n        return end - start >> arch.page_shift\n",
        "",
    ),
    Mutant(
        "mremap-lock",
        "mremap.py",
        "what MREMAP_DONTUNMAP leaves behind stays locked",
        "    vm_flags_reset(vma, vma.vm_flags & ~VM_LOCKED_MASK)\n",
        "",
    ),
    Mutant(
        "mremap-unfaulted-pgoff",
        "mremap.py",
        "memory that was never touched keeps the offset of its old place when it moves",
        "        pgoff = addr >> arch.page_shift\n        if keep_source",
        "        if keep_source",
    ),
    Mutant(
        "mremap-holes",
        "mremap.py",
        "a move of several VMAs closes the holes between them",
        "        target = target + addr - last_end if last_end else new_addr\n",
        "        target = target if last_end else new_addr\n",
    ),
    Mutant(
        "mremap-grown-locked",
        "mremap.py",
        "locked memory that grows is not populated",
        "    populate = new_len > old_len and vma.vm_flags & VM_LOCKED != 0\n",
        "    populate = False\n",
    ),
    Mutant(
        "madvise-hole",
        "madvise.py",
        "advice does not say that it met a hole",
        "            unmapped_error = -ENOMEM\n",
        "            unmapped_error = 0\n",
    ),
    Mutant(
        "remove-errno-order",
        "madvise.py",
        "MADV_REMOVE looks at the rights before it looks for a file",
        "    if vma.vm_flags & VM_LOCKED or not vma.vm_file:\n        return -EINVAL\n"
        "    if vma.vm_flags & (VM_SHARED | VM_MAYWRITE) != VM_SHARED | VM_MAYWRITE:\n        return -EACCES\n",
        "    if vma.vm_flags & (VM_SHARED | VM_MAYWRITE) != VM_SHARED | VM_MAYWRITE:\n        return -EACCES\n"
        "    if vma.vm_flags & VM_LOCKED or not vma.vm_file:\n        return -EINVAL\n",
    ),
    Mutant(
        "remote-dontneed",
        "madvise.py",
        "process_madvise drops another process's pages",
        "    return not remote or behavior in (MADV_COLD,",
        "    return not remote or behavior in (MADV_DONTNEED, MADV_COLD,",
    ),
    Mutant(
        "sequential-random",
        "madvise_flags.py",
        "MADV_RANDOM leaves MADV_SEQUENTIAL in force",
        "        return flags & ~VM_SEQ_READ | VM_RAND_READ\n",
        "        return flags | VM_RAND_READ\n",
    ),
    Mutant(
        "free-keeps-dirty",
        "madvise_lru.py",
        "pages given up by MADV_FREE stay dirty, so that MADV_PAGEOUT does not drop them",
        "    clear_young_dirty_ptes(tlb, ptep, addr, nr, ACCESSED | DIRTY)\n",
        "    clear_young_dirty_ptes(tlb, ptep, addr, nr, ACCESSED)\n",
    ),
    Mutant(
        "free-loses-writes",
        "rmap_walk.py",
        "a page that was written after MADV_FREE is dropped all the same",
        "    if f.flags & PG_DIRTY:\n        WRITE_ONCE(f, \"flags\", f.flags | PG_SWAPBACKED)\n        return True\n",
        "",
    ),
    Mutant(
        "guard-anon-vma",
        "guard.py",
        "MADV_GUARD_INSTALL gives anonymous memory no anon_vma",
        "    if vma_is_anonymous(vma):\n        anon_vma_prepare(vma)\n",
        "",
    ),
    Mutant(
        "guard-locked",
        "guard.py",
        "guard regions may be installed in locked memory",
        "    if not is_valid_guard_vma(vma, False):\n",
        "    if not is_valid_guard_vma(vma, True):\n",
    ),
)

FORK = (
    Mutant(
        "fork-copies-all",
        "memory_copy.py",
        "fork copies page tables of files that faults could bring back",
        "    return dst_vma.vm_flags & VM_COPY_ON_FORK != 0 or bool(src_vma.anon_vma)\n",
        "    return True\n",
    ),
    Mutant(
        "fork-exclusive",
        "memory_copy.py",
        "fork leaves pages the parent's own, which then writes to them in place",
        "                store(page_flags(page), 0)\n            add(dst_mm.anon_rss, 1)\n",
        "            add(dst_mm.anon_rss, 1)\n",
    ),
    Mutant(
        "fork-guards",
        "memory_copy.py",
        "the child has no guard regions",
        "    kept = PTE_MARKER_POISONED | PTE_MARKER_GUARD\n",
        "    kept = PTE_MARKER_POISONED\n",
    ),
    Mutant(
        "fork-guards-of-files",
        "memory_copy.py",
        "fork does not copy the tables of a file mapping with guard regions",
        "VM_COPY_ON_FORK: Final = VM_PFNMAP | VM_MIXEDMAP | VM_UFFD_WP | VM_MAYBE_GUARD\n",
        "VM_COPY_ON_FORK: Final = VM_PFNMAP | VM_MIXEDMAP | VM_UFFD_WP\n",
    ),
    Mutant(
        "fork-lock-on-fault",
        "fork.py",
        "the child inherits half of mlock2(MLOCK_ONFAULT)",
        "vma.vm_flags & ~VM_LOCKED_MASK)\n    forks",
        "vma.vm_flags & ~0x2000)\n    forks",  # VM_LOCKED alone
    ),
    Mutant(
        "fork-wipes-nothing",
        "fork.py",
        "MADV_WIPEONFORK memory is copied",
        "    if vma.vm_flags & VM_WIPEONFORK == 0 and copy_page_range(vma, mpnt):\n",
        "    if copy_page_range(vma, mpnt):\n",
    ),
    Mutant(
        "fork-thp-disable",
        "fork.py",
        "the child does not inherit PR_SET_THP_DISABLE",
        '    WRITE_ONCE(mm, "flags", oldmm.flags & MMF_DISABLE_THP_MASK)\n',
        "",
    ),
)

FILES = (
    Mutant(
        "fault-around",
        "memory_file.py",
        "fault-around leaves out its last page",
        "pte_off + vma_pages(vma) - vma_off) - 1\n",
        "pte_off + vma_pages(vma) - vma_off) - 2\n",
    ),
    Mutant(
        "fault-whole-folio",
        "memory_file.py",
        "a fault on a large folio of a file maps it beyond the end of the VMA",
        "    if vma_off < idx or vma_off + rest > vma_pages(vma) or pte_off",
        "    if vma_off < idx or pte_off",
    ),
    Mutant(
        "cow-file-rss",
        "memory.py",
        "a private copy of a file's page leaves the page counted as the file's",
        "        add(mm_counter_file(mm, old), -1)\n        add(mm.anon_rss, 1)\n",
        "        add(mm.anon_rss, 1)\n",
    ),
    Mutant(
        "map-around-vma",
        "filemap.py",
        "fault-around maps a large folio beyond the ends of the VMA",
        "    if in_file and in_vma and in_table:\n",
        "    if in_file and in_table:\n",
    ),
    Mutant(
        "truncate-copies",
        "truncate.py",
        "truncation spares private copies",
        "    unmap_mapping_range(mapping, first, MAX_INDEX - first, True)\n"
        "    truncate_inode_pages_range(mapping, first, MAX_INDEX)\n"
        "    unmap_mapping_range(mapping, first, MAX_INDEX - first, True)\n",
        "    unmap_mapping_range(mapping, first, MAX_INDEX - first, False)\n"
        "    truncate_inode_pages_range(mapping, first, MAX_INDEX)\n",
    ),
    Mutant(
        "truncate-off-by-one",
        "truncate.py",
        "truncation leaves the first page beyond the new end",
        "    return size + arch.page_size - 1 >> arch.page_shift\n",
        "    return size + arch.page_size >> arch.page_shift\n",
    ),
    Mutant(
        "punch-large-folio",
        "truncate.py",
        "a hole in a large folio takes the whole folio",
        "    if f.index >= first and folio_next_index(f) <= end:\n",
        "    if f.index >= first or folio_next_index(f) <= end:\n",
    ),
    Mutant(
        "shmem-beyond-end",
        "shmem.py",
        "an access beyond the end of shared memory is a SIGSEGV",
        "            return VM_FAULT_SIGBUS, NO_FOLIO\n        f, value = shmem_get_entry",
        "            return 0x40, NO_FOLIO\n        f, value = shmem_get_entry",
    ),
    Mutant(
        "prot-none-read",
        "fault.py",
        "memory without any permission can be read",
        " else vm_flags & VM_ACCESS_FLAGS == 0\n",
        " else False\n",
    ),
)

MUTANTS: tuple[Mutant, ...] = (*TABLES, *HUGE, *COLLAPSE, *VMAS, *CALLS, *FORK, *FILES)

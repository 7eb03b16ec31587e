# SPDX-License-Identifier: GPL-2.0-only
"""The structs that CPUs share, with the guard of each field (include/linux/mm_types.h, fs.h, rmap.h; 7.2).

The guards are those of Documentation/mm/process_addrs.rst.  `vm_lock` is the per-VMA lock: a VMA is write-locked
only together with its mm's mmap_lock.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from ..machine import (
    all_of,
    any_of,
    atomic,
    const,
    container,
    counter,
    entries,
    lockdep_map,
    marked,
    mutex,
    plain,
    rwsem,
    spinlock,
    struct,
)

spinlock_t = int
rwsem_t = int
mutex_t = int
lockdep_map_t = int
atomic_t = int
counter_t = int
entries_t = int
maple_tree_t = int
xarray_t = int
rb_root_t = int
vector_t = int
anon_vma_t: TypeAlias = "anon_vma"  # where a field has the name of its type
anon_vma_chain_t: TypeAlias = "anon_vma_chain"
ksm_scan_t: TypeAlias = "ksm_scan"
kvm_t: TypeAlias = "kvm"


# what keeps a VMA's bounds and flags as they are
STABLE_VMA: Final = any_of(
    "vm_lock", "vm_mm.mmap_lock", "vm_file.f_mapping.i_mmap_rwsem", "anon_vma_chain.anon_vma.root.rwsem"
)


class ptlock(struct):
    """The memory of a table's lock where that is allocated apart (ALLOC_SPLIT_PTLOCKS)."""

    word: int = plain()


class ptdesc(struct):
    """A page-table page of any level (struct ptdesc).  Entries are written under `ptl`, for a PMD table the pmd lock.

    `pmd_huge_pte` is the list of tables deposited with a PMD table, linked by `deposit_next`.
    """

    ptl: spinlock_t = spinlock()
    ptl_memory: ptlock = const()  # the lock itself is in `ptl` all the same
    pt_mm: mm_struct = const()
    pmd_huge_pte: ptdesc = plain(any_of("ptl", "pt_mm.page_table_lock"))
    deposit_next: ptdesc = plain()
    entry: entries_t = entries("ptl", "pt_mm.page_table_lock")


class mm_struct(struct):
    """An address space (struct mm_struct).  The nr_* counters make up what VmPTE shows; kB of it are bytes >> 10."""

    mmap_lock: rwsem_t = rwsem()
    page_table_lock: spinlock_t = spinlock()
    mm_lock_seq: int = marked(all_of("mmap_lock:w"))
    mm_mt: maple_tree_t = container(all_of("mmap_lock:w"))
    pgd: ptdesc = const()
    mm_users: atomic_t = atomic()
    mm_count: atomic_t = atomic()
    nr_ptes: counter_t = counter()
    nr_pmds: counter_t = counter()
    nr_puds: counter_t = counter()
    nr_p4ds: counter_t = counter()
    nr_deposited: counter_t = counter()
    file_rss: counter_t = counter()  # MM_FILEPAGES
    anon_rss: counter_t = counter()  # MM_ANONPAGES
    shmem_rss: counter_t = counter()  # MM_SHMEMPAGES
    swapents: counter_t = counter()  # MM_SWAPENTS
    anon_huge: counter_t = counter()  # anonymous huge pmds (AnonHugePages)
    file_huge: counter_t = counter()  # file and shmem huge pmds
    map_count: int = plain(any_of("mmap_lock"), all_of("mmap_lock:w"))
    total_vm: int = plain(any_of("mmap_lock"), all_of("mmap_lock:w"))
    locked_vm: int = plain(any_of("mmap_lock"), all_of("mmap_lock:w"))
    def_flags: int = plain(any_of("mmap_lock"), all_of("mmap_lock:w"))
    flags: int = marked(any_of("mmap_lock", "page_table_lock"))
    start_brk: int = plain(any_of("mmap_lock"))
    brk: int = plain(any_of("mmap_lock"), all_of("mmap_lock:w"))
    start_stack: int = plain(any_of("mmap_lock"))
    khugepaged: atomic_t = atomic()  # MMF_VM_HUGEPAGE: khugepaged knows of the mm
    ksm_mergeable: atomic_t = atomic()  # MMF_VM_MERGEABLE: ksmd knows of the mm
    pte_mapped_thp: vector_t = container()  # what khugepaged has to try again (kernels before 6.6 only)
    tlb_flush_pending: atomic_t = atomic()
    write_protect_seq: int = marked(all_of("mmap_lock:w"))
    pud_folded: int = plain(any_of(), all_of("mmap_lock:w"))  # s390: the one PUD table is the PGD, and does not count
    nr_cpus: int = marked(any_of())  # CPUs in mm_cpumask: those that flushes must reach
    rlimit_stack: int = marked(any_of())  # RLIMIT_STACK in bytes; of the process, kept with its mm
    rlimit_memlock: int = marked(any_of())  # RLIMIT_MEMLOCK in bytes; RLIM_INFINITY also for CAP_IPC_LOCK
    notifier_subscriptions: mmu_notifier = marked(all_of("mmap_lock:w"))  # the first of those who are told of changes


class mmu_notifier(struct):
    """A secondary MMU that is told of changes to an mm's page tables (struct mmu_notifier, and who has it)."""

    mm: mm_struct = const()
    next: mmu_notifier = const()
    kvm: kvm_t = const()  # a virtual machine; NULL: a device that walks the mm's own tables
    released: int = marked(any_of())  # the device walks no more: the mm's last user is gone


class kvm(struct):
    """A virtual machine's memory, which is a part of a process's (struct kvm with one slot), and what maps it."""

    mm: mm_struct = const()
    userspace_addr: int = const()
    npages: int = const()
    mmu_lock: spinlock_t = spinlock()
    mmu_invalidate_seq: int = marked(any_of("mmu_lock"))
    mmu_invalidate_in_progress: int = plain(any_of("mmu_lock"))
    spte: entries_t = entries("mmu_lock")  # of each page of the guest, as entries of a PTE table are


class vm_area_struct(struct):
    """A mapping (struct vm_area_struct)."""

    vm_start: int = plain(STABLE_VMA,
                          all_of("vm_mm.mmap_lock:w", "vm_lock:w"))
    vm_end: int = plain(STABLE_VMA,
                        all_of("vm_mm.mmap_lock:w", "vm_lock:w"))
    vm_mm: mm_struct = const()
    vm_flags: int = marked(all_of("vm_mm.mmap_lock:w", "vm_lock:w"),
                           STABLE_VMA)
    vm_page_prot: int = marked(all_of("vm_mm.mmap_lock:w", "vm_lock:w"),
                               STABLE_VMA)
    vm_pgoff: int = plain(STABLE_VMA,
                          all_of("vm_mm.mmap_lock:w", "vm_lock:w"))
    vm_file: file = const()
    anon_vma: anon_vma_t = marked(any_of("vm_mm.mmap_lock"),
                                  any_of("vm_lock", "vm_mm.mmap_lock", "vm_file.f_mapping.i_mmap_rwsem"))
    anon_vma_chain: anon_vma_chain_t = plain(any_of("vm_mm.mmap_lock"))
    vm_refcnt: atomic_t = atomic()
    vm_lock_seq: int = marked(all_of("vm_mm.mmap_lock:w"))
    vm_lock: lockdep_map_t = lockdep_map()
    vm_policy: int = plain(any_of("vm_lock", "vm_mm.mmap_lock"), all_of("vm_mm.mmap_lock:w", "vm_lock:w"))
    vm_userfaultfd_ctx: int = plain(any_of("vm_lock", "vm_mm.mmap_lock"), all_of("vm_mm.mmap_lock:w", "vm_lock:w"))
    anon_name: int = plain(any_of("vm_lock", "vm_mm.mmap_lock"), all_of("vm_mm.mmap_lock:w", "vm_lock:w"))
    detached: int = plain()


class userfaultfd_ctx(struct):
    """A userfaultfd (struct userfaultfd_ctx); its readers, and who waits for them, are not in memory."""

    refcount: atomic_t = atomic()
    mm: mm_struct = const()
    flags: int = const()  # UFFD_USER_MODE_ONLY
    features: atomic_t = atomic()  # UFFD_FEATURE_*, 0 before UFFDIO_API
    released: int = marked(any_of())
    map_changing_lock: rwsem_t = rwsem()
    mmap_changing: atomic_t = atomic()  # events that change mappings and that nobody has read yet


class anon_vma(struct):
    """The reverse map of anonymous pages (struct anon_vma); `root` carries the lock that counts."""

    rwsem: rwsem_t = rwsem()
    refcount: atomic_t = atomic()  # its tree while VMAs are in it, anon_vmas whose root it is, pages of KSM
    root: anon_vma = const()
    parent: anon_vma = const()
    num_children: int = plain(all_of("root.rwsem:w"))
    num_active_vmas: int = plain(all_of("root.rwsem:w"))
    rb_root: rb_root_t = container(all_of("root.rwsem:w"), any_of("root.rwsem"))


class anon_vma_chain(struct):
    """Link between a VMA and one of its anon_vmas (struct anon_vma_chain); `next` is the list by VMA (same_vma)."""

    vma: vm_area_struct = const()
    anon_vma: anon_vma_t = const()
    next: anon_vma_chain = plain(any_of("vma.vm_mm.mmap_lock"))


class address_space(struct):
    """The pages of a file and the VMAs that map it (struct address_space with what is needed of its inode)."""

    i_pages: xarray_t = container(all_of("i_pages_lock"))
    i_pages_lock: spinlock_t = spinlock()
    i_mmap_rwsem: rwsem_t = rwsem()
    i_mmap: rb_root_t = container(all_of("i_mmap_rwsem:w"), any_of("i_mmap_rwsem"))
    nrpages: int = plain(all_of("i_pages_lock"))
    swapped: int = marked(all_of("i_pages_lock"))  # shmem: pages in swap (shmem_inode_info)
    shmem: int = const()  # 1: shmem_aops
    huge: int = marked(any_of())  # shmem: SHMEM_HUGE_*
    i_size: int = marked(any_of())  # bytes; -1: not known, nothing is beyond it
    i_count: atomic_t = atomic()  # references: open files, and who else keeps the inode
    invalidate_lock: rwsem_t = rwsem()
    can_collapse: int = const()  # a file system whose read-only text may become huge


class file(struct):
    """An open file that VMAs refer to (struct file)."""

    f_mapping: address_space = const()
    f_count: atomic_t = atomic()
    f_ident: int = const()  # what tells two opens of one inode apart
    f_readonly: int = const()  # 1: without FMODE_WRITE
    f_close: int = const()  # 1: its VMAs have vm_ops->close (SysV shared memory)


class folio(struct):
    """Physical memory of 2^order pages (struct folio).  `page` are its struct pages: folio, flags, content."""

    flags: int = marked(any_of())
    _refcount: atomic_t = atomic()
    _mapcount: atomic_t = atomic()  # entries of PTE tables that map a page of it (_large_mapcount of a large folio)
    _entire_mapcount: atomic_t = atomic()  # huge pmds that map it
    _mm_ids_lock: spinlock_t = spinlock()  # of a large folio: FOLIO_MM_IDS_LOCK_BITNUM
    _mm_id_0: mm_struct = plain(any_of("_mm_ids_lock"))  # two that map a large folio, and how often they do
    _mm_id_1: mm_struct = plain(any_of("_mm_ids_lock"))
    _mm_id_mapcount_0: int = plain(any_of("_mm_ids_lock"))
    _mm_id_mapcount_1: int = plain(any_of("_mm_ids_lock"))
    _mm_ids_shared: int = marked(any_of("_mm_ids_lock"))  # FOLIO_MM_IDS_SHARED_BITNUM
    mapping: int = marked(any_of("lock"))  # address_space, or anon_vma with FOLIO_MAPPING_ANON
    index: int = plain(any_of("lock"))
    order: int = const()
    mlock_count: atomic_t = atomic()  # locked VMAs that map it; PG_MLOCKED is left when it was not counted
    swap: int = plain(any_of("lock"))  # in the swap cache: offset of its first slot
    lock: mutex_t = mutex()  # PG_locked
    page: entries_t = entries(each=4)


class swap_cluster_info(struct):
    """Slots of the swap device, as many as a huge page has pages (struct swap_cluster_info).

    A slot is: the folio in the swap cache or 0, how many entries refer to it, its content.
    """

    lock: spinlock_t = spinlock()
    index: int = const()
    count: int = plain(any_of("lock"))  # slots in use
    next: int = plain(any_of("lock"))  # where to look for a free one
    slot: entries_t = entries("lock", each=3)


class swap_info_struct(struct):
    """The swap device (struct swap_info_struct): a RAM disk, read and written at once, which never is full."""

    lock: spinlock_t = spinlock()
    nr_clusters: int = plain(any_of("lock"))
    cluster_info: xarray_t = container(all_of("lock"))  # all clusters
    nonfull_clusters: xarray_t = container(all_of("lock"))  # those with slots in use and free ones
    free_clusters: xarray_t = container(all_of("lock"))


class ksm_stable_node(struct):
    """A page of KSM, or a chain of those with the same content (struct ksm_stable_node)."""

    ksm: ksm_scan_t = const()
    kpfn: int = const()  # its folio, which may have been freed: no reference is held
    hlist: ksm_rmap_item = marked(any_of("ksm.ksm_thread_mutex"))  # the first of those that map it; or that was merged
    rmap_hlist_len: int = plain(any_of("ksm.ksm_thread_mutex"))  # how many; STABLE_NODE_CHAIN: it is a chain
    chain: ksm_stable_node = plain(any_of("ksm.ksm_thread_mutex"))  # that it is in, else it is in the tree
    dups: ksm_stable_node = plain(any_of("ksm.ksm_thread_mutex"))  # of a chain: the first page in it
    next_dup: ksm_stable_node = plain(any_of("ksm.ksm_thread_mutex"))


class ksm_rmap_item(struct):
    """A virtual address at which ksmd has seen a page (struct ksm_rmap_item)."""

    ksm: ksm_scan_t = const()
    mm: mm_struct = const()
    address: int = const()
    state: int = plain(any_of("ksm.ksm_thread_mutex"))  # the low bits of the kernel's `address`
    rmap_list: ksm_rmap_item = plain(any_of("ksm.ksm_thread_mutex"))  # the next of its mm, by address
    anon_vma: anon_vma_t = marked(any_of("ksm.ksm_thread_mutex"))  # with a reference, when stable
    oldchecksum: int = plain(any_of("ksm.ksm_thread_mutex"))
    age: int = plain(any_of("ksm.ksm_thread_mutex"))
    remaining_skips: int = plain(any_of("ksm.ksm_thread_mutex"))
    head: ksm_stable_node = marked(any_of("ksm.ksm_thread_mutex"))
    hlist: ksm_rmap_item = marked(any_of("ksm.ksm_thread_mutex"))  # the next that maps the page of `head`


class ksm_mm_slot(struct):
    """An mm that ksmd scans (struct ksm_mm_slot); the list of all is a ring with a head that has no mm."""

    ksm: ksm_scan_t = const()
    mm: mm_struct = const()
    next: ksm_mm_slot = marked(any_of("ksm.ksm_mmlist_lock"))
    prev: ksm_mm_slot = plain(any_of("ksm.ksm_mmlist_lock"))
    rmap_list: ksm_rmap_item = marked(any_of("ksm.ksm_thread_mutex"))


class ksm_scan(struct):
    """What mm/ksm.c has once, with the cursor of the scan (struct ksm_scan)."""

    ksm_thread_mutex: mutex_t = mutex()
    ksm_mmlist_lock: spinlock_t = spinlock()
    ksm_mm_head: ksm_mm_slot = const()
    mm_slots_hash: xarray_t = container(any_of("ksm_mmlist_lock"))
    root_stable_tree: rb_root_t = container(any_of("ksm_thread_mutex"))
    root_unstable_tree: rb_root_t = container(any_of("ksm_thread_mutex"))
    mm_slot: ksm_mm_slot = marked(any_of("ksm_mmlist_lock"))
    address: int = plain(any_of("ksm_thread_mutex"))
    rmap_prev: ksm_rmap_item = plain(any_of("ksm_thread_mutex"))  # the last that the scan has passed in this mm
    seqnr: int = plain(any_of("ksm_thread_mutex"))  # whole passes


class system(struct):
    """What exists once: allocated at boot, at the first address."""

    zero_page: int = const()  # struct page of the zero page
    swap_info: swap_info_struct = const()  # NULL where there is no swap
    ksm: ksm_scan_t = const()
    huge_zero_folio: folio = marked(any_of())
    mlock_fbatch: vector_t = container()  # folios that were locked or unlocked last (per-CPU, used while ksmd scans)
    mlock_batched: atomic_t = atomic()
    next_file_ident: atomic_t = atomic()

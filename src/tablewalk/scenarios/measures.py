# SPDX-License-Identifier: GPL-2.0-only
"""Figures that patches change: programs of one thread (`explore/measure.py`)."""

from __future__ import annotations

from collections.abc import Callable

from tablewalk.explore.measure import measure
from tablewalk.explore.scenario import MADV_COLLAPSE, MADV_DONTNEED, UFFD_MISSING, UFFD_WP, Process, Setup

from .mapped import file_huge


@measure("page tables that MADV_DONTNEED of a whole table's range leaves")
def tables_left_by_dontneed(s: Setup) -> int:
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    p.madvise(s.A, s.huge, MADV_DONTNEED)
    return p.tables()


@measure("page tables that MADV_COLLAPSE of a file leaves in another process that maps it")
def tables_left_elsewhere_by_collapse(s: Setup) -> int:
    f = s.shmem(s.huge)
    p, q = s.process(), s.process()
    for process in (p, q):
        process.mmap(s.A, s.huge, f)
    p.write(s.A, 1)
    q.read(s.A)
    p.madvise(s.A, s.huge, MADV_COLLAPSE)
    return q.tables()


@measure("times that MADV_COLLAPSE of a file's huge page takes mmap_lock for writing")
def mmap_lock_for_writing_by_collapse(s: Setup) -> int:
    p, _ = file_huge(s)
    before = p.mm.mm_lock_seq
    p.madvise(s.A, s.huge, MADV_COLLAPSE)
    return (int(p.mm.mm_lock_seq) - int(before)) // 2


@measure("page tables that MADV_DONTNEED of 25 full ones leaves, its batch of pages being full once")
def tables_left_by_long_dontneed(s: Setup) -> int:
    p = s.process()
    p.mmap(s.A, 25 * s.huge)
    for i in range(25 * s.huge):
        p.write(s.A + i * s.page, 1)
    p.madvise(s.A, 25 * s.huge, MADV_DONTNEED)
    return p.tables()


def _stat_of_munmap(s: Setup, stat: str) -> int:
    """How often an event happens when a mapping with one table is unmapped."""
    machine = s.model.machine
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    event = machine.STAT_NAMES.index(stat)
    before = machine.stats[event]
    p.munmap(s.A, s.huge)
    return int(machine.stats[event] - before)


@measure("callbacks of RCU that munmap asks for, where no hypervisor flushes", options={"pt_reclaim": "n"})
def callbacks_of_munmap(s: Setup) -> int:
    return _stat_of_munmap(s, "rcu_callbacks")


@measure("tables for which munmap interrupts all CPUs, as there is no memory for a batch", options={"pt_reclaim": "n"})
def interrupts_for_lack_of_memory(s: Setup) -> int:
    gather = s.model.kernel("mmu_gather")
    s.model.replace("mmu_gather.table_batch_alloc", lambda: gather.NO_BATCH)
    return _stat_of_munmap(s, "ipis")


def _breaks_a_rule(s: Setup, program: Callable[[], object]) -> int:
    """1 if the checked driver finds a rule broken."""
    try:
        program()
        s.model.machine.quiescent()
    except s.model.machine.Violation:
        return 1
    return 0


def _beside_cpu_1(s: Setup, p: Process, lazy: bool) -> None:
    """CPU 1 has read through the process's table; this goes on on CPU 0."""
    p.mm.nr_cpus = 2
    s.model.machine.run_on(1, p.mm.addr)
    p.read(s.A)
    if lazy:
        s.model.machine.enter_lazy()
    s.model.machine.run_on(0, p.mm.addr)


@measure("interrupts of munmap of four PMD tables of hugetlb pages that are shared")
def interrupts_of_unsharing_four_tables(s: Setup) -> int:
    hugetlb, machine = s.model.kernel("huge_pmd_share"), s.model.machine
    p, q, lock = s.process(), s.process(), s.shmem(1).f_mapping.i_mmap_rwsem
    ours, theirs = ([hugetlb.hugetlb_mmap(process.mm, lock) for _ in range(4)] for process in (p, q))
    for own, other in zip(ours, theirs, strict=True):
        hugetlb.huge_pmd_share(own, other)
        hugetlb.huge_pmd_share(other, own)
    event = machine.STAT_NAMES.index("ipis")
    before = machine.stats[event]
    hugetlb.unmap_hugepages(tuple(ours))
    return int(machine.stats[event] - before)


@measure("processes that have exited and stay, for a half of a page of tables to be freed (s390)", driver="checked")
def processes_kept_by_a_callback(s: Setup) -> int:
    frag = s.model.kernel("pgtable_frag")
    p = s.process()
    page = frag.table_page_alloc(p.mm)
    frag.page_table_free_defer(p.mm, page)
    p.exit()
    return int(s.model.machine.lives(p.mm.addr))


@measure("rules broken by MADV_COLLAPSE that takes a table through which another CPU has read", driver="checked")
def stale_after_collapse(s: Setup) -> int:
    p, _ = file_huge(s)
    _beside_cpu_1(s, p, False)
    return _breaks_a_rule(s, lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))


@measure("rules broken by MADV_COLLAPSE that takes a table which a lazy CPU has walked", driver="checked")
def stale_on_lazy_cpu(s: Setup) -> int:
    p, _ = file_huge(s)
    _beside_cpu_1(s, p, True)
    return _breaks_a_rule(s, lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))


@measure("rules broken by MADV_DONTNEED of a page that mremap has moved", driver="checked")
def stale_after_mremap(s: Setup) -> int:
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    _beside_cpu_1(s, p, False)
    there = s.A + (4 * s.huge + 1) * s.page
    p.mremap(s.A, 1, 1, there)
    return _breaks_a_rule(s, lambda: p.madvise(there, 1, MADV_DONTNEED))


@measure("markers of userfaultfd that mremap carries to where no userfaultfd is")
def markers_carried_by_mremap(s: Setup) -> int:
    f = s.shmem(s.huge)
    p = s.process()
    p.mmap(s.A, s.huge, f)
    p.write(s.A, 1)
    p.uffd(s.A, s.huge, UFFD_WP).writeprotect(s.A, 1, True)
    p.madvise(s.A, 1, MADV_DONTNEED)
    there = s.A + 4 * s.huge * s.page
    p.mremap(s.A, 1, 1, there)
    pgtable = s.model.kernel("pgtable")
    pmd = pgtable.mm_find_pmd(p.mm, there)
    entry = pgtable.load(pgtable.pmd_pgtable(pgtable.load(pmd)).entry + pgtable.pte_index(there))
    return int(entry != 0)


@measure("swapped-out pages of which a writer waits for a wake-up that does not come")
def waits_for_what_is_swapped_out(s: Setup) -> int:
    pgtable, fault = s.model.kernel("pgtable"), s.model.kernel("userfaultfd_fault")
    swapped = [pgtable.swp_entry(pgtable.SWP_SWAP, offset, flags) for offset in range(8) for flags in (0, pgtable.RW)]
    return sum(fault.entry_must_wait(entry, s.model.kernel("vm_flags").VM_UFFD_WP) for entry in swapped)


@measure("output of UFFDIO_COPY while an event waits to be read")
def output_of_copy_that_has_to_wait(s: Setup) -> int:
    p = s.process()
    p.mmap(s.A, s.huge)
    context = p.uffd(s.A, s.huge, UFFD_MISSING).context
    s.model.machine.store(context.mmap_changing, 1)
    _, output = s.model.kernel("fs_userfaultfd").uffdio_copy(context, s.A, s.A, s.page, 0)
    return int(output)


@measure("error of MADV_COLLAPSE of a private file mapping that has pages of its own elsewhere")
def error_of_collapse_beside_own_pages(s: Setup) -> int:
    f = s.shmem(2 * s.huge)
    p, q = s.process(), s.process()
    q.mmap(s.A, s.huge, f)
    q.write(s.A, 1)
    q.madvise(s.A, s.huge, MADV_COLLAPSE)
    p.mmap(s.A, 1, f, shared=False)
    p.read(s.A)
    p.mmap(s.A + s.page, 2 * s.huge - 1, f, 1, shared=False)
    p.write(s.A + s.huge * s.page, 1)
    return -p.madvise(s.A, s.huge, MADV_COLLAPSE)


@measure(
    "huge pages of a file that are clean though they were written",
    options={"transparent_hugepage": "always", "shmem_enabled": "always"},
)
def clean_though_written(s: Setup) -> int:
    f = s.shmem(s.huge)
    p = s.process()
    p.mmap(s.A, s.huge, f)
    p.write(s.A, 1)
    page_alloc = s.model.kernel("page_alloc")
    folio = s.model.kernel("mm_types").folio(s.model.machine.xa_load(f.f_mapping.i_pages, 0))
    folio.flags &= ~page_alloc.PG_DIRTY  # what was in the cache is written back; the entry stays dirty
    p.madvise(s.A, s.huge, MADV_DONTNEED)
    return int(folio.flags & page_alloc.PG_DIRTY == 0)


@measure("what another CPU reads of a page after MADV_DONTNEED, while a driver moves it", driver="checked")
def read_after_dontneed_of_what_moves(s: Setup) -> int:
    device, machine = s.model.kernel("migrate_device"), s.model.machine
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    p.fork()
    _beside_cpu_1(s, p, False)
    unlock, reads = s.model.kernel("pgtable_generic").pte_unmap_unlock, []

    def unlock_and_look(pte: int, ptl: int) -> None:
        unlock(pte, ptl)
        p.madvise(s.A, 1, MADV_DONTNEED)
        machine.run_on(1, p.mm.addr)
        reads.append(p.read(s.A))
        machine.run_on(0, p.mm.addr)

    s.model.replace("migrate_device:pte_unmap_unlock", unlock_and_look)
    vma = s.model.kernel("vma").find_vma(p.mm, s.A)
    s.model.kernel("mmap_lock").mmap_read_lock(p.mm)
    device.migrate_vma_collect_pmd(vma, s.model.kernel("pgtable").mm_find_pmd(p.mm, s.A), s.A, s.A + s.page, ())
    s.model.kernel("mmap_lock").mmap_read_unlock(p.mm)
    return int(reads[0])

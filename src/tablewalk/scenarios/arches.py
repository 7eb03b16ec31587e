# SPDX-License-Identifier: GPL-2.0-only
"""What architectures do with page tables of their own accord: those of processes, which go away, and their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tablewalk.explore.scenario import MADV_COLLAPSE, Process, Setup, scenario

from ..kernel.pgtable import PRESENT, SPECIAL

SPECIAL_PAGE: Final = PRESENT | SPECIAL  # nobody's page, not counted


def _retracted(s: Setup) -> Process:
    """A process of which a table is retracted by another's MADV_COLLAPSE."""
    p, q = s.sharing(2)
    q.write(s.A, 1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.sometimes("retracted")
    return q


def _alone(s: Setup) -> Process:
    """A process with a page of its own."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    return p


def _one_of(name: str, *right: object) -> Callable[[dict[str, Any]], str | None]:
    return lambda results: None if results[name] in right else f"{name} returns {results[name]}"


# --- tables of processes ---------------------------------------------------------------------------------


@scenario(arch="arm-lpae/1")
def arm_copy_to_user(s: Setup) -> None:
    """arm copies to user memory through an entry that it keeps locked, whose table is retracted."""
    (p,) = s.sharing(1)
    arm = s.model.kernel("arch_arm")
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("copy", lambda: arm.copy_to_user_memcpy(p.mm, s.A, 2))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("retracted", "pin_huge_page_for_write")


def _shows(s: Setup, name: str, module: str) -> None:
    """A thread prints the entries of an address whose table is retracted."""
    q = _retracted(s)
    show_pte = s.model.kernel(module).show_pte
    s.thread(name, lambda: len(show_pte(q.mm, s.A)))


@scenario(arch="arm-lpae/1")
def arm_show_pte(s: Setup) -> None:
    """arm prints the entries of an address whose table is retracted."""
    _shows(s, "oops", "arch_arm")


@scenario(arch="arm-lpae/1")
def arm_adjust_pte(s: Setup) -> None:
    """A page that is mapped twice is made uncached at both addresses, of which one loses its table to a collapse."""
    (p,) = s.sharing(1)
    there = s.A + 2 * s.huge * s.page
    file = s.model.kernel("vma").find_vma(p.mm, s.A).vm_file
    p.mmap(there, s.huge, file)
    p.read(there)
    s.thread("collapse", lambda: p.madvise(there, s.huge, MADV_COLLAPSE))  # which begins with the table at A
    s.thread("fault", _mapped_again(s, p, there, s.A))
    s.sometimes("retracted")


@scenario(arch="arm-lpae/1")
def arm_adjust_pte_near(s: Setup) -> None:
    """The same where both entries are in one table, while the page is written."""
    p, f = s.process(), s.shmem(1)
    for address in (s.A, s.A + s.page):
        p.mmap(address, 1, f)
        p.write(address, 1)
    s.thread("fault", _mapped_again(s, p, s.A, s.A + s.page))
    s.thread("write", lambda: p.write(s.A + s.page, 2))
    s.finally_(lambda results: None if results["fault"] else "the other entry is not found")
    s.sometimes("do_adjust_pte")


def _mapped_again(s: Setup, p: Process, address: int, alias: int) -> Callable[[], bool]:
    """What arm does at the end of a fault at `address`; whether there is another entry for the page."""
    arm, generic, pgtable = (s.model.kernel(m) for m in ("arch_arm", "pgtable_generic", "pgtable"))

    def update_mmu_cache() -> bool:
        pte, ptl = generic.pte_offset_map_lock(p.mm, pgtable.mm_find_pmd(p.mm, address), address)
        aliased = bool(pte) and bool(arm.make_coherent(p.mm, address, pte, alias))
        if pte:
            generic.pte_unmap_unlock(pte, ptl)
        return aliased

    return update_mmu_cache


@scenario(arch="arm64/1")
def arm64_show_pte(s: Setup) -> None:
    """arm64 prints the entries of an address whose table is retracted."""
    _shows(s, "oops", "arch_arm64")


@scenario(arch="ppc64le-hash-64k/1")
def powerpc_subpage_prot(s: Setup) -> None:
    """powerpc takes the entries of a table that is retracted from its hash table."""
    q = _retracted(s)
    powerpc = s.model.kernel("arch_powerpc")
    s.thread("subpage-prot", lambda: powerpc.hpte_flush_range(q.mm, s.A, s.huge))
    s.finally_(_one_of("subpage-prot", *range(s.huge + 1)))


@scenario(arch="ppc64le-hash-64k/1")
def powerpc_flush_hash(s: Setup) -> None:
    """The same without the table's lock."""
    q = _retracted(s)
    powerpc = s.model.kernel("arch_powerpc")
    pmd = s.model.kernel("pgtable").mm_find_pmd(q.mm, s.A)
    s.thread("flush", lambda: powerpc.flush_hash_table_pmd_range(q.mm, pmd, s.A))
    s.finally_(_one_of("flush", *range(s.huge + 1)))


@scenario(arch="ppc64le/1")
def powerpc_show_pte(s: Setup) -> None:
    """xmon prints the entries of an address whose table is retracted."""
    _shows(s, "xmon", "arch_powerpc")


@scenario(arch="ppc64le/1")
def powerpc_access_flags(s: Setup) -> None:
    """powerpc asserts that a table is locked in which it makes an entry young, while it is to be retracted."""
    q = _retracted(s)
    powerpc, generic, pgtable = (s.model.kernel(m) for m in ("arch_powerpc", "pgtable_generic", "pgtable"))
    load = s.model.machine.load

    def fault() -> None:
        pte, ptl = generic.pte_offset_map_lock(q.mm, pgtable.mm_find_pmd(q.mm, s.A), s.A)
        if pte:
            entry = load(pte)
            if entry:
                powerpc.ptep_set_access_flags(q.mm, s.A, pte, entry | pgtable.ACCESSED)
            generic.pte_unmap_unlock(pte, ptl)

    s.thread("fault", fault)


@scenario(arch="s390x/1")
def s390_storage_key(s: Setup) -> None:
    """s390 sets a guest's storage key of a page whose table is retracted."""
    q = _retracted(s)
    s390 = s.model.kernel("arch_s390")
    s.thread("key", lambda: s390.set_guest_storage_key(q.mm, s.A))


@scenario(arch="s390x/1")
def s390_make_secure(s: Setup) -> None:
    """s390 gives a protected guest a page whose table is retracted."""
    q = _retracted(s)
    s390 = s.model.kernel("arch_s390")
    s.thread("secure", lambda: s390.gmap_make_secure(q.mm, s.A))
    s.finally_(_one_of("secure", 0, -s390.ENXIO))


@scenario(arch="sparc64/1")
def sparc_user_insn(s: Setup) -> None:
    """sparc reads the instruction that has faulted by a table that is retracted."""
    q = _retracted(s)
    sparc = s.model.kernel("arch_sparc")
    s.thread("fault", lambda: sparc.get_user_insn(q.mm, s.A))
    s.finally_(_one_of("fault", 0, 1))


@scenario(arch="sparc64/1")
def sparc_signal_insns(s: Setup) -> None:
    """sparc flushes the instructions of a signal's frame, whose table is retracted."""
    q = _retracted(s)
    sparc = s.model.kernel("arch_sparc")
    s.thread("signal", lambda: sparc.flush_signal_insns(q.mm, s.A))


@scenario(arch="microblaze/1")
def microblaze_signal_frame(s: Setup) -> None:
    """microblaze sets up a signal's frame on a stack that another thread unmaps."""
    p = _alone(s)
    microblaze = s.model.kernel("arch_microblaze")
    s.thread("signal", lambda: microblaze.setup_rt_frame(p.mm, s.A, 7))
    s.thread("munmap", lambda: p.munmap(s.A, s.huge))
    s.finally_(_one_of("signal", -1, 0, 1))
    s.sometimes("setup_rt_frame", "free_pgtables")


# --- tables that do not go away: what is mapped is unmapped ----------------------------------------------


@scenario(arch="m68k-coldfire/1")
def m68k_tlb_miss(s: Setup) -> None:
    """A ColdFire looks for an entry that its TLB misses, and for that of its stack."""
    p = _alone(s)
    m68k = s.model.kernel("arch_m68k")
    s.thread("miss", lambda: (m68k.cf_tlb_miss(p.mm, s.A, True, False), m68k.load_ksp_mmu(p.mm, s.A, False)))
    s.finally_(_one_of("miss", (0, 0)))
    s.sometimes("cf_tlb_miss", "load_ksp_mmu")


@scenario(arch="m68k/1")
def m68k_cmpxchg(s: Setup) -> None:
    """Two threads exchange a word of user memory by m68k's system call: one of them finds the other's."""
    p = _alone(s)
    m68k = s.model.kernel("arch_m68k")
    s.thread("first", lambda: m68k.sys_atomic_cmpxchg_32(p.mm, s.A, 1, 2))
    s.thread("second", lambda: m68k.sys_atomic_cmpxchg_32(p.mm, s.A, 1, 3))
    s.finally_(lambda results: None if 1 in results.values() else f"nobody has exchanged: {results}")
    s.sometimes("sys_atomic_cmpxchg_32: store")


@scenario(arch="mips64/1")
def mips_update_tlb(s: Setup) -> None:
    """mips writes the entry of a fault into the TLB, under its table's lock."""
    p = _alone(s)
    mips, machine = s.model.kernel("arch_mips"), s.model.machine
    generic, pgtable = s.model.kernel("pgtable_generic"), s.model.kernel("pgtable")
    update_tlb: Any = vars(mips)["__update_tlb"]

    def fault() -> None:
        pte, ptl = generic.pte_offset_map_lock(p.mm, pgtable.mm_find_pmd(p.mm, s.A), s.A)
        machine.store(pte, machine.load(pte) | pgtable.ACCESSED)
        update_tlb(p.mm, s.A)
        generic.pte_unmap_unlock(pte, ptl)

    s.thread("fault", fault)
    s.sometimes("__update_tlb")


@scenario(arch="parisc64/1")
def parisc_flush_cache(s: Setup) -> None:
    """parisc looks whether a page is to be flushed from virtually indexed caches."""
    p = _alone(s)
    parisc = s.model.kernel("arch_parisc")
    s.thread("flush", lambda: parisc.flush_cache_page_if_present(p.mm, s.A))
    s.sometimes("get_ptep")


@scenario(arch="s390x/1")
def s390_gmap_protect(s: Setup) -> None:
    """s390 watches a page of a guest's."""
    p = _alone(s)
    s390, pgtable = s.model.kernel("arch_s390"), s.model.kernel("pgtable")
    s.thread("protect", lambda: s390.gmap_protect_pte(p.mm, s.A, pgtable.mm_find_pmd(p.mm, s.A)))
    s.finally_(_one_of("protect", 0))
    s.sometimes("gmap_pte_op_end")


@scenario(arch="xtensa/1")
def xtensa_tlb_sanity(s: Setup) -> None:
    """xtensa compares its TLB with the page table."""
    p = _alone(s)
    xtensa = s.model.kernel("arch_xtensa")
    s.thread("check", lambda: xtensa.get_pte_for_vaddr(p.mm, s.A) != 0)
    s.finally_(_one_of("check", True))
    s.sometimes("get_pte_for_vaddr")


@scenario(arch="x86_64/1")
def x86_ldt_and_collapse(s: Setup) -> None:
    """x86 unmaps the LDT of a process of which a table is retracted."""
    q = _retracted(s)
    x86, there = s.model.kernel("arch_x86"), s.A + 4 * s.huge * s.page
    x86.map_ldt_struct(q.mm, there, s.model.kernel("page_alloc").zero_page())
    s.thread("exec", lambda: x86.unmap_ldt_struct(q.mm, there))


# --- tables of the kernel, and of guests -----------------------------------------------------------------


def _own_table(s: Setup, work: Callable[[int], object]) -> None:
    """A thread does `work` with a pmd of a table that no process has, under the lock that keeps others from it."""
    k, generic, machine = s.process(), s.model.kernel("pgtable_generic"), s.model.machine
    pmd = generic.walk_to_pmd(k.mm, s.A)
    generic.pte_alloc(k.mm, pmd, s.A)
    lock = k.mm.page_table_lock

    def body() -> None:
        machine.spin_lock(lock)
        work(pmd)
        machine.spin_unlock(lock)

    s.thread("work", body)


@scenario(arch="parisc64/1")
def parisc_unmap_uncached(s: Setup) -> None:
    """parisc takes memory for DMA out of the kernel's table."""
    parisc = s.model.kernel("arch_parisc")
    _own_table(s, lambda pmd: parisc.unmap_uncached_pte(pmd, s.A, s.page))
    s.sometimes("unmap_uncached_pte: store")


@scenario()
def vmalloc_to_page(s: Setup) -> None:
    """A page of the kernel's is looked up in its table."""
    vmalloc = s.model.kernel("vmalloc")
    _own_table(s, lambda pmd: vmalloc.vmalloc_to_page(pmd, s.A))
    s.sometimes("vmalloc_to_page")


@scenario()
def ptdump(s: Setup) -> None:
    """A table of the kernel's is dumped."""
    dump = s.model.kernel("ptdump")
    _own_table(s, lambda pmd: dump.ptdump_walk_pte_range(pmd, s.A))
    s.sometimes("ptdump_walk_pte_range")


@scenario(arch="sparc64/1")
def sparc_iommu_map(s: Setup) -> None:
    """sparc maps a page for DMA in the kernel's table."""
    sparc = s.model.kernel("arch_sparc")
    _own_table(s, lambda pmd: sparc.iommu_map_page(pmd, s.A, s.model.kernel("page_alloc").zero_page(), SPECIAL_PAGE))
    s.sometimes("iommu_map_page: store")


@scenario(arch="x86_64/1")
def x86_sme_populate(s: Setup) -> None:
    """x86 fills in an entry of the tables with which it encrypts memory at boot."""
    x86 = s.model.kernel("arch_x86")
    page = s.model.kernel("page_alloc").zero_page()
    _own_table(s, lambda pmd: x86.sme_populate_pgd(pmd, s.A, page, SPECIAL_PAGE))
    s.sometimes("sme_populate_pgd: store")


@scenario(arch="ppc64le/1")
def powerpc_kvm_unmap(s: Setup) -> None:
    """powerpc frees the tables of a guest's second stage."""
    guest, generic, pgtable = s.process(), s.model.kernel("pgtable_generic"), s.model.kernel("pgtable")
    powerpc, machine = s.model.kernel("arch_powerpc"), s.model.machine
    pmd = generic.walk_to_pmd(guest.mm, s.A)
    table = pgtable.ptdesc(pmd - pgtable.TABLE_ENTRY)
    pte_table = generic.pte_alloc_one(guest.mm)
    machine.publish(pte_table.addr)
    pgtable.pmd_populate(pmd, pte_table)

    def unmap() -> None:
        machine.spin_lock(guest.mm.page_table_lock)
        powerpc.kvmppc_unmap_free_pmd(guest.mm, table)
        machine.spin_unlock(guest.mm.page_table_lock)

    s.thread("unmap", unmap)
    s.sometimes("kvmppc_unmap_free_pmd: store")


# --- hugetlb pages that are runs of entries --------------------------------------------------------------


def _hugetlb_fault(name: str, arch: str) -> None:
    def fault(s: Setup) -> None:
        p, hugetlb, machine = s.process(), s.model.kernel("hugetlbpage"), s.model.machine
        size = s.page  # of a table of two: a run of one

        def body() -> int:
            pte = hugetlb.huge_pte_alloc(p.mm, s.A, size)
            machine.spin_lock(p.mm.page_table_lock)  # huge_pte_lock
            entry = machine.load(pte)
            machine.spin_unlock(p.mm.page_table_lock)
            return int(entry or machine.load(hugetlb.huge_pte_offset(p.mm, s.A, size)))

        s.thread("first", body)
        s.thread("second", body)
        s.sometimes("huge_pte_alloc")

    fault.__name__ = f"hugetlb_fault_{name}"
    fault.__doc__ = f"Two faults of a hugetlb page that is a run of PTEs on {name}."
    scenario(arch=f"{arch}/1")(fault)


for _name, _arch in (
    ("arm64", "arm64"),
    ("ia64", "ia64"),
    ("parisc", "parisc64"),
    ("powerpc", "ppc64le-4k"),
    ("riscv", "riscv64"),
    ("sh", "sh"),
    ("sparc", "sparc64"),
):
    _hugetlb_fault(_name, _arch)

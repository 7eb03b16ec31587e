# SPDX-License-Identifier: GPL-2.0-only
"""arch: allow pte_offset_map[_lock]() to fail (6.5): what architectures did with tables of their own accord.

As in `mm_series.py` each row is a mutant: before 6.5 no table went away under them.  Without a check the null pointer
is looked through.  Where an unmap is missing an RCU section is left open, since 6.6 (C01); so too where a table that
cannot go away was mapped like one that can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..arch import arch
from ..kernel.arch_x86 import get_locked_pte
from ..kernel.mm_types import mm_struct, spinlock_t
from ..kernel.pgtable import pmd_p, pte_p, ptep_get
from ..kernel.pgtable_generic import (
    pte_alloc,
    pte_alloc_map_lock,
    pte_offset_map,
    pte_offset_map_lock,
    pte_offset_map_rw_nolock,
    pte_unmap_unlock,
)
from ..kernel.tlb import flush_tlb_range
from ..machine import spin_unlock, store
from . import Claim
from .mm_series import F, race, trusting

SERIES: Final = "arch: allow pte_offset_map[_lock]() to fail"


def site(id: str, commit: str, title: str, where: str, claim: Claim, *files: str) -> Callable[[F], F]:
    """A patch without which `where` does what the decorated function does."""
    return trusting(id, commit, title, where, claim, *(f"arch/{file}" for file in files), series=SERIES)


A01: Final = ("A01", "", "arm: allow pte_offset_map[_lock]() to fail")
A02: Final = ("A02", "52924726f4c0", "arm64: allow pte_offset_map() to fail")
A03: Final = ("A03", "cafcb9ca5a56", "arm64/hugetlb: pte_alloc_huge() pte_offset_huge()")
A04: Final = ("A04", "0db639f768e6", "ia64/hugetlb: pte_alloc_huge() pte_offset_huge()")
A05: Final = ("A05", "e67b37c368b7", "m68k: allow pte_offset_map[_lock]() to fail")
A06: Final = ("A06", "505a23a5f893", "microblaze: allow pte_offset_map() to fail")
A07: Final = ("A07", "17b25a3801d1", "mips: add pte_unmap() to balance pte_offset_map()")
A08: Final = ("A08", "6a2561f92e7d", "parisc: add pte_unmap() to balance get_ptep()")
A09: Final = ("A09", "ffd3e90a8fda", "parisc: unmap_uncached_pte() use pte_offset_kernel()")
A10: Final = ("A10", "def1cd433f8a", "parisc/hugetlb: pte_alloc_huge() pte_offset_huge()")
A11: Final = ("A11", "d00ae31fa2fc", "powerpc: kvmppc_unmap_free_pmd() pte_offset_kernel()")
A12: Final = ("A12", "0c31f29b0cbc", "powerpc: allow pte_offset_map[_lock]() to fail")
A13: Final = ("A13", "5d991378d1e5", "powerpc/hugetlb: pte_alloc_huge()")
A14: Final = ("A14", "893f667f7440", "riscv/hugetlb: pte_alloc_huge() pte_offset_huge()")
A15: Final = ("A15", "5c7f3bf04a6c", "s390: allow pte_offset_map_lock() to fail")
A16: Final = ("A16", "b2f58941adcb", "s390: gmap use pte_unmap_unlock() not spin_unlock()")
A17: Final = ("A17", "b7b7ef6b4485", "sh/hugetlb: pte_alloc_huge() pte_offset_huge()")
A18: Final = ("A18", "c65d09fd2c28", "sparc/hugetlb: pte_alloc_huge() pte_offset_huge()")
A19: Final = ("A19", "4be14ec02ee1", "sparc: allow pte_offset_map() to fail")
A20: Final = ("A20", "7a19c361b1fa", "sparc: iounit and iommu use pte_offset_kernel()")
A21: Final = ("A21", "975ca3986bec", "x86: Allow get_locked_pte() to fail")
A22: Final = ("A22", "653ba8108deb", "x86: sme_populate_pgd() use pte_offset_kernel()")
A23: Final = ("A23", "56e0d1cb1689", "xtensa: add pte_unmap() to balance pte_offset_map()")

ARM: Final = race("arm-copy-to-user", "I1")
M68K: Final = race("m68k-tlb-miss", "I7")
POWERPC: Final = race("powerpc-subpage-prot", "I1")
S390: Final = race("s390-storage-key", "I1")


# --- a null pointer --------------------------------------------------------------------------------------


@site(*A01, "arch_arm:pte_offset_map_lock", ARM, "arm/lib/uaccess_with_memcpy.c")
@site(*A05, "arch_m68k:pte_offset_map_lock", M68K, "m68k/kernel/sys_m68k.c")
@site(*A12, "arch_powerpc:pte_offset_map_lock", POWERPC, "powerpc/mm/book3s64/subpage_prot.c")
@site(*A15, "arch_s390:pte_offset_map_lock", S390, "s390/mm/pgtable.c")
def lock_looked_through(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, spinlock_t]:
    """Whether there is a table is not asked before its entry is looked at."""
    pte, ptl = pte_offset_map_lock(mm, pmd, addr)
    if not pte:
        ptep_get(pte)
    return pte, ptl


@site(*A01, "arch_arm:pte_offset_map_rw_nolock", ARM, "arm/mm/fault-armv.c")
def rw_looked_through(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, int, spinlock_t]:
    """The same where the lock is taken later."""
    pte, pmdval, ptl = pte_offset_map_rw_nolock(mm, pmd, addr)
    if not pte:
        ptep_get(pte)
    return pte, pmdval, ptl


@site(*A15, "arch_s390:pte_alloc_map_lock", S390, "s390/kernel/uv.c", "s390/mm/gmap.c")
def alloc_looked_through(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, spinlock_t]:
    """The same where a table is allocated first, which may be gone again."""
    pte, ptl = pte_alloc_map_lock(mm, pmd, addr)
    if not pte:
        ptep_get(pte)
    return pte, ptl


@site(*A01, "arch_arm:pte_offset_map", ARM, "arm/mm/fault.c")
@site(*A02, "arch_arm64:pte_offset_map", race("arm64-show-pte", "I1"), "arm64/mm/fault.c")
@site(*A05, "arch_m68k:pte_offset_map", M68K, "m68k/mm/mcfmmu.c", "m68k/include/asm/mmu_context.h")
@site(*A06, "arch_microblaze:pte_offset_map", race("microblaze-signal-frame", "I1"), "microblaze/kernel/signal.c")
@site(*A12, "arch_powerpc:pte_offset_map", POWERPC, "powerpc/mm/book3s64/hash_tlb.c", "powerpc/xmon/xmon.c")
@site(*A19, "arch_sparc:pte_offset_map", race("sparc-user-insn", "I1"), "sparc/mm/fault_64.c", "sparc/mm/tlb.c")
def map_looked_through(pmd: pmd_p, addr: int) -> pte_p:
    """The same for who does not lock it."""
    pte = pte_offset_map(pmd, addr)
    if not pte:
        ptep_get(pte)
    return pte


@site(*A21, "arch_x86.unmap_ldt_struct", Claim("cleanup", "x86-ldt-and-collapse"), "x86/kernel/ldt.c")
def unmap_ldt_struct_unchecked(mm: mm_struct, va: int) -> None:
    """No VMA has the LDT, so nobody takes its table away."""
    pte, ptl = get_locked_pte(mm, va)
    store(pte, 0)
    pte_unmap_unlock(pte, ptl)
    flush_tlb_range(mm, va, va + arch.page_size, freed_tables=False)


# --- an RCU section that is left open --------------------------------------------------------------------


@site(*A05, "arch_m68k:pte_unmap", M68K, "m68k/mm/mcfmmu.c", "m68k/include/asm/mmu_context.h")
@site(*A07, "arch_mips:pte_unmap", race("mips-update-tlb", "I7"), "mips/mm/tlb-r4k.c", "mips/mm/tlb-r3k.c")
@site(*A08, "arch_parisc:pte_unmap", race("parisc-flush-cache", "I7"), "parisc/kernel/cache.c")
@site(*A12, "arch_powerpc:pte_unmap", POWERPC, "powerpc/mm/book3s64/hash_tlb.c", "powerpc/xmon/xmon.c")
@site(*A23, "arch_xtensa:pte_unmap", race("xtensa-tlb-sanity", "I7"), "xtensa/mm/tlb.c")
def left_mapped(pte: pte_p) -> None:
    """Nobody unmaps it."""


@site(*A16, "arch_s390:pte_unmap_unlock", race("s390-gmap-protect", "I7"), "s390/mm/gmap.c")
def only_unlocked(ptep: pte_p, ptl: spinlock_t) -> None:
    """It stays mapped."""
    spin_unlock(ptl)


@site(*A09, "arch_parisc:pte_offset_kernel", race("parisc-unmap-uncached", "I7"), "parisc/kernel/pci-dma.c")
@site(*A11, "arch_powerpc:pte_offset_kernel", race("powerpc-kvm-unmap", "I7"), "powerpc/kvm/book3s_64_mmu_radix.c")
@site(*A20, "arch_sparc:pte_offset_kernel", race("sparc-iommu-map", "I7"), "sparc/mm/io-unit.c", "sparc/mm/iommu.c")
@site(*A22, "arch_x86:pte_offset_kernel", race("x86-sme-populate", "I7"), "x86/mm/mem_encrypt_identity.c")
def mapped_like_a_users(pmd: pmd_p, addr: int) -> pte_p:
    """A table that cannot go away is mapped as one that can, and not unmapped."""
    return pte_offset_map(pmd, addr)


def hugetlb(row: tuple[str, str, str], arch: str, function: str) -> Callable[[F], F]:
    """A site of an architecture's patch of hugetlb pages."""
    claim = race(f"hugetlb-fault-{arch}", "I7")
    return site(*row, f"hugetlbpage:{function}", claim, f"{arch}/mm/hugetlbpage.c")


@hugetlb(A03, "arm64", "pte_alloc_huge")
@hugetlb(A04, "ia64", "pte_alloc_huge")
@hugetlb(A10, "parisc", "pte_alloc_huge")
@hugetlb(A13, "powerpc", "pte_alloc_huge")
@hugetlb(A14, "riscv", "pte_alloc_huge")
@hugetlb(A17, "sh", "pte_alloc_huge")
@hugetlb(A18, "sparc", "pte_alloc_huge")
def alloc_and_map(mm: mm_struct, pmd: pmd_p, addr: int) -> pte_p:
    """pte_alloc_map(): generic code of hugetlb does not unmap."""
    pte_alloc(mm, pmd, addr)
    return pte_offset_map(pmd, addr)


@hugetlb(A03, "arm64", "pte_offset_huge")
@hugetlb(A04, "ia64", "pte_offset_huge")
@hugetlb(A10, "parisc", "pte_offset_huge")
@hugetlb(A14, "riscv", "pte_offset_huge")
@hugetlb(A17, "sh", "pte_offset_huge")
@hugetlb(A18, "sparc", "pte_offset_huge")
def map_huge(pmd: pmd_p, addr: int) -> pte_p:
    """pte_offset_map(): the same."""
    return pte_offset_map(pmd, addr)

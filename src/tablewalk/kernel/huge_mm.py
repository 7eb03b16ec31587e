# SPDX-License-Identifier: GPL-2.0-only
"""Which VMAs may have huge pages (include/linux/huge_mm.h, mm/huge_memory.c; 7.2)."""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import READ_ONCE, load, vec_init, xchg
from .config import config
from .mm_types import mm_struct, vm_area_struct
from .vm_flags import (
    VM_GROWSDOWN,
    VM_HUGEPAGE,
    VM_NOHUGEPAGE,
    VM_SPECIAL_MAPPING,
    VM_STACK_INCOMPLETE,
)

MMF_DISABLE_THP_COMPLETELY: Final = 1 << 0  # mm_struct.flags: prctl(PR_SET_THP_DISABLE)
MMF_DISABLE_THP_EXCEPT_ADVISED: Final = 1 << 1


def vma_is_anonymous(vma: vm_area_struct) -> bool:
    """Private memory without a file (vma->vm_ops is NULL)."""
    return not vma.vm_file and vma.vm_flags & VM_SPECIAL_MAPPING == 0


def vma_thp_disabled(vma: vm_area_struct, vm_flags: int, forced_collapse: bool) -> bool:
    """Whether the VMA or its process has huge pages forbidden."""
    if vm_flags & VM_NOHUGEPAGE or not arch.has_thp:
        return True
    flags: int = READ_ONCE(vma.vm_mm, "flags")
    if flags & MMF_DISABLE_THP_COMPLETELY:
        return True
    if vm_flags & VM_HUGEPAGE or forced_collapse:
        return False
    return flags & MMF_DISABLE_THP_EXCEPT_ADVISED != 0


def thp_vma_suitable_pmd(vma: vm_area_struct, address: int) -> bool:
    """Whether the huge page around `address` lies in the VMA, and of a file's VMA is aligned in the file too."""
    if vma.vm_file and (vma.vm_start >> arch.page_shift) - vma.vm_pgoff & arch.hpage_pmd_nr - 1:
        return False
    haddr = address & -arch.pmd_size
    return haddr >= vma.vm_start and haddr + arch.pmd_size <= vma.vm_end


def hugepage_enabled(vm_flags: int) -> bool:
    """What /sys/kernel/mm/transparent_hugepage/enabled says to a VMA with these flags."""
    if config.transparent_hugepage == "always":
        return True
    return config.transparent_hugepage == "madvise" and vm_flags & VM_HUGEPAGE != 0


def vma_is_temporary_stack(vma: vm_area_struct) -> bool:
    """The stack that execve is about to move."""
    return vma.vm_flags & VM_GROWSDOWN != 0 and vma.vm_flags & VM_STACK_INCOMPLETE == VM_STACK_INCOMPLETE


def thp_vma_allowable_pmd(vma: vm_area_struct, vm_flags: int) -> bool:
    """Whether a fault may map anonymous memory by a huge pmd (TVA_PAGEFAULT); size and place are looked at later."""
    if not hugepage_enabled(vm_flags) or vm_flags & VM_NOHUGEPAGE or not vma_is_anonymous(vma):
        return False
    return not vma_thp_disabled(vma, vm_flags, False) and not vma_is_temporary_stack(vma)


def khugepaged_enter(mm: mm_struct) -> None:
    """Let khugepaged know of the process."""
    if load(mm.khugepaged) == 0 and xchg(mm.khugepaged, 1) == 0:
        vec_init(mm.pte_mapped_thp)

# SPDX-License-Identifier: GPL-2.0-only
"""The arguments of a fault (struct vm_fault in include/linux/mm.h; 7.2), never changed once made."""

from __future__ import annotations

from ..arch import arch
from .mm_types import vm_area_struct
from .pgtable import pmd_p


class vm_fault:
    """A fault at page `address` of `vma`; `pgoff` is the page's offset in the file or its virtual page number.

    `orig_pte` is what a fault on a missing page replaces: 0, or the marker that write-protects the page.
    """

    __slots__ = ("address", "flags", "orig_pte", "pmd", "vma")

    def __init__(self, vma: vm_area_struct, address: int, flags: int, pmd: pmd_p, orig_pte: int = 0) -> None:
        self.vma = vma
        self.address = address
        self.flags = flags
        self.pmd = pmd
        self.orig_pte = orig_pte

    @property
    def pgoff(self) -> int:
        """Worked out when asked for: faults of anonymous memory never do."""
        return (self.address - self.vma.vm_start >> arch.page_shift) + self.vma.vm_pgoff

    def __eq__(self, other: object) -> bool:
        return isinstance(other, vm_fault) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[int, int, int, int, int]:
        return (self.vma.addr, self.address, self.flags, self.pmd, self.orig_pte)

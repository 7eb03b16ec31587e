# SPDX-License-Identifier: GPL-2.0-only
"""arm64 with pages of 4, 16 and 64 KiB, and the sizes of its address space (arch/arm64; 6.1, 6.12, 7.2).

Debian's kernels: 48 bits, from 6.12 on 52 where the CPU has LPA2 or LVA, which shows only to who asks for addresses
above 48 bits.  Debian builds 4 KiB, and 16 KiB since 6.10; RHEL builds 4 and 64 KiB, Android 39 bits.
"""

from __future__ import annotations

from . import Arch, upper_levels


def arm64(name: str, page_shift: int, va_bits: int) -> Arch:
    """Pages of 2^`page_shift` bytes, `va_bits` of virtual address; a table fills a page."""
    width = page_shift - 3
    return Arch(
        name,
        page_shift=page_shift,
        pte_bits=width,
        **upper_levels(va_bits - page_shift - width, width),
        task_size=1 << va_bits,
        split_pmd_ptlock=va_bits - page_shift > 2 * width,
        merge_vmas=False,
        pt_reclaim_since=(7, 0),
        tagged_data=True,
        top_byte_ignored=True,
        broadcast_flush=True,
    )

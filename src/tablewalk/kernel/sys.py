# SPDX-License-Identifier: GPL-2.0-only
"""prctl() (kernel/sys.c; 7.2)."""

from __future__ import annotations

from typing import Final

from ..machine import READ_ONCE, WRITE_ONCE
from .huge_mm import MMF_DISABLE_THP_COMPLETELY, MMF_DISABLE_THP_EXCEPT_ADVISED
from .mm_types import mm_struct
from .mmap_lock import mmap_write_lock, mmap_write_unlock
from .vm_flags import EINVAL

PR_THP_DISABLE_EXCEPT_ADVISED: Final = 1 << 1


def prctl_set_thp_disable(mm: mm_struct, disable: int, flags: int) -> int:
    """PR_SET_THP_DISABLE: forbid huge pages, or all but those that were advised; 0 or -EINVAL."""
    if flags & ~PR_THP_DISABLE_EXCEPT_ADVISED or (flags and not disable):
        return -EINVAL
    mmap_write_lock(mm)
    mm_flags = READ_ONCE(mm, "flags") & ~(MMF_DISABLE_THP_COMPLETELY | MMF_DISABLE_THP_EXCEPT_ADVISED)
    if disable:
        mm_flags |= MMF_DISABLE_THP_EXCEPT_ADVISED if flags else MMF_DISABLE_THP_COMPLETELY
    WRITE_ONCE(mm, "flags", mm_flags)
    mmap_write_unlock(mm)
    return 0

# SPDX-License-Identifier: GPL-2.0-only
"""What the generator knows of a page, as bits, and which pages advice is for."""

from __future__ import annotations

from .ops import MADV_REMOVE

READ, WRITE, MAPPED, SHARED, FILE, SEALED = 1, 2, 8, 16, 32, 64  # above PROT_*

MADV_FREE, MADV_WIPEONFORK, MADV_POPULATE_READ, MADV_POPULATE_WRITE = 8, 18, 22, 23

# Bits that pages need, bits that they must not have; other advice is for all that is mapped
NEEDS = {
    MADV_REMOVE: (MAPPED | SHARED | WRITE, 0),
    MADV_FREE: (MAPPED, SHARED | FILE),
    MADV_WIPEONFORK: (MAPPED, SHARED | FILE),
    MADV_POPULATE_READ: (MAPPED | READ, 0),
    MADV_POPULATE_WRITE: (MAPPED | WRITE, 0),
}

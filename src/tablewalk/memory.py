# SPDX-License-Identifier: GPL-2.0-only
"""Memory that this machine has to give."""

from __future__ import annotations

import os
from pathlib import Path


def available() -> int:
    """Bytes that can be had without taking them from others."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

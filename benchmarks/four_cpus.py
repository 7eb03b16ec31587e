# SPDX-License-Identifier: GPL-2.0-only
"""MADV_COLLAPSE of shared memory, a write, MADV_DONTNEED with PT_RECLAIM and a read of the same page, on four CPUs.

    ./run explore benchmarks/four_cpus.py --reduction futures

What that takes is in docs/explore.md.
"""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_COLLAPSE, MADV_DONTNEED, Setup, scenario


@scenario()
def shmem_collapse_fault_dontneed_read(s: Setup) -> None:
    """As shmem-collapse-fault-dontneed, with a reader: it sees the old content or the new."""
    (p,) = s.sharing(1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("fault", lambda: p.write(s.A, 2))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.thread("read", lambda: p.read(s.A))

    def check(results: dict[str, int]) -> str | None:
        if results["read"] not in (1, 2):
            return f"{results['read']} was read"
        return None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2"

    s.finally_(check)
    s.sometimes("thp_collapse_alloc", "retracted")
    s.sometimes_ends("the old content is read", lambda results: results["read"] == 1)
    s.sometimes_ends("the new content is read", lambda results: results["read"] == 2)

# SPDX-License-Identifier: GPL-2.0-only
"""Facts of this machine that a replay needs: kernel, geometry, THP, Kconfig. None names the machine."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

from tablewalk.record.recording import Meta

_THP = Path("/sys/kernel/mm/transparent_hugepage")
_FACTS = (
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/vm/nr_hugepages",
    "/proc/sys/vm/swappiness",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/numa_balancing",
    "/sys/kernel/mm/ksm/run",
)
_KCONFIG = re.compile(
    rb"^(?:CONFIG_(PT_RECLAIM|PER_VMA_LOCK|HIGHPTE|PARAVIRT|PGTABLE_LEVELS|X86_5LEVEL|MMU_GATHER_\w+"
    rb"|TRANSPARENT_HUGEPAGE\w*|READ_ONLY_THP_FOR_FS|USERFAULTFD|HUGETLB_PAGE|KSM|NUMA|MEM_SOFT_DIRTY"
    rb"|SPLIT_PTE_PTLOCKS|PREEMPT_RCU|X86_PAE|ARCH_SUPPORTS_PT_RECLAIM)=(\S+)"
    rb"|# CONFIG_(PT_RECLAIM|PER_VMA_LOCK|HIGHPTE|PARAVIRT|X86_5LEVEL|TRANSPARENT_HUGEPAGE"
    rb"|READ_ONLY_THP_FOR_FS|USERFAULTFD|KSM|NUMA|MEM_SOFT_DIRTY) is not set)$",
    re.M,
)


def describe(meta: Meta) -> None:
    """Fill in the facts of this machine; what cannot be read is left out, or said in `meta.missing`."""
    uname = os.uname()
    meta.kernel, meta.machine = uname.release, uname.machine
    meta.page_size = os.sysconf("SC_PAGE_SIZE")
    meta.cpus = os.cpu_count()
    cpuinfo = _read("/proc/cpuinfo")
    if uname.machine == "x86_64" and cpuinfo:
        # The kernel clears the flag where it runs on four levels (arch/x86/kernel/cpu/common.c).
        meta.levels = 5 if re.search(r"^flags\b.*\bla57\b", cpuinfo, re.M) else 4
    meta.thp = {name: _chosen(_THP / name) for name in ("enabled", "shmem_enabled", "defrag", "use_zero_page")}
    meta.thp |= {
        f"{folder.name}/{file.name}": _chosen(file)
        for folder in sorted(_THP.glob("hugepages-*kB"))
        for file in sorted(folder.glob("*enabled"))
    }
    meta.thp |= {f"khugepaged/{file.name}": _chosen(file) for file in sorted((_THP / "khugepaged").glob("*"))}
    meta.thp = {name: value for name, value in meta.thp.items() if value}
    meta.host = {fact: value for fact in _FACTS if (value := _read(fact).strip())}
    meta.kconfig = kconfig(uname.release)
    if not meta.kconfig:
        meta.missing.append(
            f"the kernel's configuration (/proc/config.gz or /boot/config-{uname.release} cannot be read):"
            " options such as PT_RECLAIM are those of the release"
        )


def kconfig(release: str) -> dict[str, str]:
    """The options that matter to page tables, without CONFIG_, `n` for those that are not set."""
    for path, opener in ((Path("/proc/config.gz"), gzip.open), (Path(f"/boot/config-{release}"), open)):
        try:
            with opener(path, "rb") as f:
                text = f.read()
        except OSError:
            continue
        return {(m[1] or m[3]).decode(): m[2].decode() if m[1] else "n" for m in _KCONFIG.finditer(text)}
    return {}


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _chosen(path: Path) -> str:
    """The value of a file such as `always [madvise] never`."""
    text = _read(path).strip()
    chosen = re.search(r"\[(.+?)\]", text)
    return chosen[1] if chosen else text

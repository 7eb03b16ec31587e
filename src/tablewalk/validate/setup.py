# SPDX-License-Identifier: GPL-2.0-only
"""What a comparison with a kernel needs: the model's configuration for it, where programs map memory, their files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

from .kernels import Kernel
from .ops import Geometry
from .targets import target

_THP = Path("/sys/kernel/mm/transparent_hugepage")
ARENA_64BIT = 0x1000_0000_0000
# mips64 ends at 1 TiB; s390's fourth level, above 4 TiB, would make a table of the agent's memory count.
ARENA_LOW = 0x40_0000_0000
ARENA_32BIT = 0x4000_0000
ENDLESS_64BIT = (1 << 64) - (1 << 16)

# The first release whose RSS counters in /proc/PID/status are summed up over all CPUs, not estimated.
EXACT_RSS = (6, 18)


@dataclass(frozen=True, slots=True)
class Setup:
    """A kernel as the model knows it; `exact_rss`: the RSS counters of /proc/PID/status can be compared."""

    kernel: Kernel
    config: KernelConfig
    geometry: Geometry
    exact_rss: bool


def setup(kernel: Kernel) -> Setup:
    """How to compare the model with `kernel`.  Raises TablewalkError for an architecture that is not modelled."""
    release = drivers.release_of(kernel.release)
    name = kernel.arch if kernel.is_host else target(kernel.arch).model or kernel.arch
    arch = drivers.load().module("arch.table").by_name(name, release)
    options = {"known_contents": "y", "swap": "y" if kernel.has_swap else "n"} | _built_in(kernel)
    if kernel.is_host:
        options |= _host_options()
    config = KernelConfig(_stable_release(kernel), name, tuple(sorted(options.items())))
    ksmd = options.get("ksm", "y") == "y" and not kernel.is_host
    geometry = Geometry(
        *(arch.page_size, arch.ptrs_per_pte, _arena(arch)),
        ksmd=ksmd,
        uffd=name == "x86_64",
        soft_dirty=options.get("soft_dirty") == "y",
        prot_none=arch.protnone_pmd_present,
        mprotect=arch.modify_keeps_special,
    )
    if arch.task_size > geometry.endless:  # s390: programs would unmap the agent
        geometry = geometry._replace(endless=ENDLESS_64BIT)
    elif arch.long_bits == 32:
        geometry = geometry._replace(endless=1 << 31, last_offset=(1 << 31) - arch.page_size)
    return Setup(kernel, config, geometry, release >= EXACT_RSS)


def _stable_release(kernel: Kernel) -> str:
    """Which release of its series the kernel is, where its version is known: some patches come with it (`6.1.176`)."""
    found = re.search(rf"\b{re.escape(kernel.release)}\.\d+", (kernel.version or "").split(" ")[-1])
    return found[0] if found else kernel.release


def _arena(arch: Any) -> int:
    """Where programs map memory: a third of the tables lies below a boundary of PMD tables, so that there are two.

    With 32 bits only one GiB has nothing of the agent's own, and so there is no such boundary.
    """
    upper = min(arch.pud_size, 1 << 30)
    if arch.task_size <= 1 << 32:
        return ARENA_32BIT
    base = ARENA_LOW if arch.pud_folded_below or arch.task_size <= ARENA_64BIT else ARENA_64BIT
    return base + upper - 8 * arch.pmd_size if upper > 8 * arch.pmd_size else base


def _built_in(kernel: Kernel) -> dict[str, str]:
    """Kconfig options that the model has no release or architecture for, where the kernel's are known."""
    found = kernel.config()
    if not found:
        return {}
    options = {name: "y" if name.upper() in found else "n" for name in ("numa", "ksm")}
    # riscv has them only with an extension that QEMU's CPU lacks
    options["soft_dirty"] = "y" if "MEM_SOFT_DIRTY" in found and kernel.arch != "riscv64" else "n"
    return options


def _host_options() -> dict[str, str]:
    """Kernel settings that matter, where this machine's differ from the model's defaults."""
    options = {}
    for name, file in (("transparent_hugepage", "enabled"), ("shmem_enabled", "shmem_enabled")):
        chosen = re.search(r"\[(.+?)\]", _read(_THP / file))
        if chosen:
            options[name] = chosen[1]
    if _read(_THP / "use_zero_page").strip() == "0":
        options["use_zero_page"] = "n"
    for name in ("max_ptes_none", "max_ptes_swap", "max_ptes_shared"):
        value = _read(_THP / "khugepaged" / name).strip()
        if value:
            options[name] = value
    return options


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

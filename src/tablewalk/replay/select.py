# SPDX-License-Identifier: GPL-2.0-only
"""Which kernel to replay under: what was asked for, and of the rest what the recording says of its machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import KernelConfig, release_of
from tablewalk.record.recording import Meta

_KCONFIG = ("PT_RECLAIM", "PER_VMA_LOCK", "HIGHPTE", "READ_ONLY_THP_FOR_FS")
_KNOBS = {
    "enabled": ("transparent_hugepage", "always|madvise|never"),
    "hugepages-2048kB/enabled": ("transparent_hugepage", "always|madvise|never"),
    "shmem_enabled": ("shmem_enabled", "always|within_size|advise|never"),
    "use_zero_page": ("use_zero_page", "0|1"),
    "khugepaged/max_ptes_none": ("max_ptes_none", r"\d{1,3}"),
    "khugepaged/max_ptes_swap": ("max_ptes_swap", r"\d{1,3}"),
    "khugepaged/max_ptes_shared": ("max_ptes_shared", r"\d{1,3}"),
}


def series_of(release: str) -> str | None:
    """`6.18` of `6.18.44-amd64`; None where it is no release."""
    m = re.match(r"v?(\d+\.\d+)", release)
    return m[1] if m else None


@dataclass(frozen=True, slots=True)
class Selection:
    """A kernel to replay under; of its options `given` were asked for, the rest is the recorded machine's."""

    config: KernelConfig
    given: dict[str, str]
    recorded: dict[str, str]


def select(
    meta: Meta, kernels: Sequence[str], arch: str | None, options: Sequence[str], without: Sequence[str]
) -> list[Selection]:
    """A selection for each of `kernels` (none: the recorded one).

    THP settings are those of the recorded machine; its Kconfig holds where its own series is replayed on its own
    architecture. `options` (NAME=VALUE) come last. Raises TablewalkError for what is not known.
    """
    host = series_of(meta.kernel)
    if not kernels:
        if host is None:
            raise TablewalkError("the recording does not say which kernel it is of; name one with --kernel")
        kernels = [host]
    given: dict[str, str] = {}
    for option in options:
        name, sign, value = option.partition("=")
        if not sign or not name:
            raise TablewalkError(f"--set {option}: NAME=VALUE is wanted")
        given[name] = value
    recorded_arch = "x86_64-5level" if meta.levels == 5 else "x86_64"
    chosen_arch = arch or recorded_arch
    out = []
    for kernel in dict.fromkeys(kernels):
        release_of(kernel)
        recorded = _knobs(meta)
        if chosen_arch == recorded_arch and series_of(kernel) == host:
            recorded |= {k: v for k, v in meta.kconfig.items() if k in _KCONFIG and v in ("y", "n")}
        settings = (*recorded.items(), *given.items())
        out.append(Selection(KernelConfig(kernel, chosen_arch, settings, tuple(without)), given, recorded))
    return out


def _knobs(meta: Meta) -> dict[str, str]:
    """The recorded sysfs settings by the model's names; one that the model does not know is left out."""
    found = {}
    for knob, (name, known) in _KNOBS.items():
        value = meta.thp.get(knob, "")
        if re.fullmatch(known, value):
            found[name] = {"0": "n", "1": "y"}[value] if name == "use_zero_page" else value
    return found

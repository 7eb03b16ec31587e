# SPDX-License-Identifier: GPL-2.0-only
"""Combinations that no kernel has, and recordings that nothing can be said of, are refused in one line."""

from __future__ import annotations

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (KernelConfig("6.1", options=(("PT_RECLAIM", "y"),)), "does not have it"),
        (KernelConfig("6.1", options=(("PER_VMA_LOCK", "y"),)), "does not have it"),
        (KernelConfig("7.x", arch="ppc64le", options=(("PT_RECLAIM", "y"),)), "does not have it"),
        (KernelConfig("9.9"), "not known"),
        (KernelConfig("5.15"), "not modelled"),
        (KernelConfig("7.x", options=(("max_ptes_none", "99999999"),)), "is the most"),
        (KernelConfig("7.x", options=(("NO_SUCH", "y"),)), "no such option"),
        (KernelConfig("7.x", without=("Z99",)), "no such patch"),
    ],
)
def test_impossible_kernels(config: KernelConfig, says: str) -> None:
    with pytest.raises(TablewalkError, match=says):
        drivers.model(config)
    drivers.model(KernelConfig())


def test_options_that_a_kernel_has_are_taken() -> None:
    model = drivers.model(KernelConfig("6.18", options=(("PT_RECLAIM", "n"), ("thp", "always"))))
    assert not model.kernel("config").config.pt_reclaim
    assert model.kernel("config").config.transparent_hugepage == "always"
    drivers.model(KernelConfig())

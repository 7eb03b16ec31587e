# SPDX-License-Identifier: GPL-2.0-only
"""The random programs of `test_host_tables` under other releases: the rules hold, and exit gives everything back."""

from __future__ import annotations

import pytest

from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

from .test_host_tables import random_tables
from .test_host_vmas import Process


@pytest.mark.parametrize("release", ["6.1", "6.4", "6.6", "6.12", "6.13", "6.15", "6.17", "6.18", "7.x"])
@pytest.mark.parametrize("arch", ["x86_64", "s390x"])
def test_rules_hold(release: str, arch: str) -> None:
    for seed in range(3):
        process = Process(drivers.model(KernelConfig(release, arch), "checked"))
        for op in random_tables(seed, 60):
            process.call(op)
            process.model.machine.quiescent()
        process.exit()

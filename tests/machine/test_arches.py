# SPDX-License-Identifier: GPL-2.0-only
"""The same program on other architectures with 4 KiB pages: both drivers agree, and no rule is broken."""

from __future__ import annotations

import pytest

from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

from .programs import Machine, random_program

ARCHES = ("x86_64-5level", "arm64", "arm64-39bit", "s390x", "ppc64le-4k", "ppc64le-hash-4k", "riscv64-sv39")


def run(driver: str, release: str, arch: str) -> list[tuple[int, ...]]:
    machine = Machine(drivers.model(KernelConfig(release, arch), driver))
    trace = [machine.run(op) for op in random_program(1, 150)]
    machine.exit()
    return trace


@pytest.mark.parametrize("release", ["6.1", "7.2"])
@pytest.mark.parametrize("arch", ARCHES)
def test_drivers_agree(arch: str, release: str) -> None:
    assert run("checked", release, arch) == run("sequential", release, arch)

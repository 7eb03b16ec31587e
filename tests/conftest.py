# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import shutil
import signal
from collections.abc import Callable

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.validate import qemu
from tablewalk.validate.kernels import Kernel, ensure, find

# A shell's background job ignores interrupts, and so would the programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--kernels", action="store_true", help="also compare with every kernel that QEMU boots")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for mark in ("slow", "kernels"):
        if not config.getoption(f"--{mark}"):
            for item in items:
                if item.get_closest_marker(mark):
                    item.add_marker(pytest.mark.skip(reason=f"{mark}: runs with ./test --{mark}"))


@pytest.fixture
def kernel_here() -> Callable[[str], Kernel]:
    """Gives the kernel of a name, fetched; skips, with its name, where it cannot be had or booted."""

    def here(name: str) -> Kernel:
        kernel = find(name)
        try:
            qemu.available(kernel)
            ensure(kernel)
        except TablewalkError as e:
            pytest.skip(f"{name}: {e}")
        if not shutil.which("gcc"):
            pytest.skip(f"{name}: no C compiler")
        return kernel

    return here

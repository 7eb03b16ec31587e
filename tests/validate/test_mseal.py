# SPDX-License-Identifier: GPL-2.0-only
"""mseal: what it forbids, on the model by release and against the kernel that runs here."""

from __future__ import annotations

import pytest

from tablewalk.machine.drivers import KernelConfig
from tablewalk.validate.compare import host_difference
from tablewalk.validate.model_run import ModelRun
from tablewalk.validate.ops import Geometry, Op

from .test_validate import GEOMETRY, needs_host

START, PAGE = GEOMETRY.start, 4096
NO_FILE = (1 << 64) - 1
EPERM, ENOMEM, EINVAL, ENOSYS = 1, 12, 22, 38
ADVICE = (4, 24, 8, 9, 10, 11, 18, 19, 102, 103, 25, 14, 15, 16, 20, 21, 22, 23)


def at(page: int) -> int:
    return START + page * PAGE


def mapped(page: int, nr: int, prot: int = 3) -> Op:
    return Op(0, "mmap", (at(page), nr * PAGE, prot, 0x32, NO_FILE, 0))


def sealed(page: int, nr: int) -> Op:
    return Op(0, "mseal", (at(page), nr * PAGE, 0))


WRITABLE = [Op(0, "reset"), mapped(0, 64), Op(0, "fill", (at(0), 64 * PAGE, PAGE, 7)), sealed(8, 8)]
FORBIDDEN = [
    Op(0, "munmap", (at(0), 64 * PAGE)),
    Op(0, "munmap", (at(9), PAGE)),
    Op(0, "mprotect", (at(9), PAGE, 3)),
    mapped(9, 1),
    mapped(4, 8),
    Op(0, "mremap", (at(9), PAGE, PAGE, 0, 0)),
    Op(0, "mremap", (at(9), 2 * PAGE, PAGE, 0, 0)),
    Op(0, "mremap", (at(9), PAGE, PAGE, 3, at(100))),
    Op(0, "mremap", (at(9), PAGE, PAGE, 7, at(100))),
    Op(0, "mremap", (at(30), PAGE, PAGE, 3, at(9))),
]
HOST = [
    *WRITABLE,
    sealed(14, 8),
    sealed(60, 8),
    *FORBIDDEN,
    Op(0, "mprotect", (at(0), 64 * PAGE, 1)),
    Op(0, "mremap", (at(2), 10 * PAGE, 10 * PAGE, 3, at(100))),
    *(Op(0, "madvise", (at(9), 2 * PAGE, advice)) for advice in ADVICE),
    mapped(200, 8, 1),
    Op(0, "fill", (at(200), 8 * PAGE, PAGE, 0)),
    sealed(200, 4),
    *(Op(0, "madvise", (at(202), PAGE, advice)) for advice in ADVICE),
    *(Op(0, "process_madvise", (0, at(202), PAGE, advice)) for advice in (4, 8, 20)),
    Op(0, "mlock", (at(200), 3 * PAGE)),
    Op(0, "munlock", (at(200), 8 * PAGE)),
    Op(0, "mbind", (at(201), PAGE, 2, 1, 0)),
    Op(0, "uffd_open", (0, 0, 0)),
    Op(0, "uffd_register", (at(200), 3 * PAGE, 3, 0)),
    Op(0, "uffd_unregister", (at(200), 3 * PAGE, 0)),
    Op(0, "fork", (1,)),
    Op(1, "munmap", (at(9), PAGE)),
    Op(1, "write", (at(9), 3)),
    Op(1, "madvise", (at(9), PAGE, 4)),
    Op(0, "sum", (START, 512 * PAGE)),
    Op(1, "exit"),
]


def errors(release: str, ops: list[Op]) -> list[int]:
    model = ModelRun(KernelConfig(release), Geometry(4096, 512, START))
    return [model.run(op)[1] for op in ops]


@pytest.mark.parametrize("release", ["6.12", "6.18", "7.x"])
def test_sealed_memory_stays_as_it_is(release: str) -> None:
    assert errors(release, [*WRITABLE, *FORBIDDEN])[len(WRITABLE) :] == [EPERM] * len(FORBIDDEN)
    read_only = [mapped(0, 8, 1), sealed(0, 4)]
    discards = [Op(0, "madvise", (at(1), PAGE, advice)) for advice in (4, 24, 8, 9, 10, 18)]
    allowed = [Op(0, "madvise", (at(1), PAGE, advice)) for advice in (11, 14, 20, 22)]
    assert errors(release, [Op(0, "reset"), *read_only, *discards, *allowed]) == [0, 0, 0, *[EPERM] * 6, *[0] * 4]


def test_sealing_itself_can_fail() -> None:
    wrong = [(at(0) + 1, PAGE, 0), (at(0), PAGE, 1), (at(0), (1 << 64) - 1, 0), (at(4), 8 * PAGE, 0), (at(9), PAGE, 0)]
    wrong.append((at(0), 0, 0))
    found = errors("7.x", [Op(0, "reset"), mapped(0, 8), *(Op(0, "mseal", args) for args in wrong)])
    assert found[2:] == [EINVAL, EINVAL, EINVAL, ENOMEM, ENOMEM, 0]
    assert errors("6.1", [Op(0, "reset"), mapped(0, 8), sealed(0, 8)]) == [0, 0, ENOSYS]


@pytest.mark.parametrize(("release", "error"), [("6.12", EPERM), ("7.x", EINVAL)])
def test_a_seal_or_a_wrong_place_whichever_is_looked_at_first(release: str, error: int) -> None:
    onto_itself = Op(0, "mremap", (at(0), PAGE, PAGE, 3, at(0)))
    assert errors(release, [Op(0, "reset"), mapped(0, 8), sealed(0, 8), onto_itself])[-1] == error


@needs_host
def test_the_host_agrees_about_seals() -> None:
    assert host_difference(HOST) == []

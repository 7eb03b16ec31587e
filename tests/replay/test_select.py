# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.record.recording import Meta
from tablewalk.replay.select import select


@pytest.fixture
def meta() -> Meta:
    return Meta(
        kernel="6.18.44-amd64", machine="x86_64", levels=4, kconfig={"PT_RECLAIM": "n", "NUMA": "y", "HIGHPTE": "what"},
        thp={"enabled": "always", "use_zero_page": "0", "khugepaged/max_ptes_none": "100", "shmem_enabled": "deny"},
    )  # fmt: skip


def test_by_default_the_recorded_kernel_with_its_options(meta: Meta) -> None:
    (chosen,) = select(meta, [], None, [], [])
    assert (chosen.config.release, chosen.config.arch) == ("6.18", "x86_64")
    assert chosen.recorded == {
        "transparent_hugepage": "always", "use_zero_page": "n", "max_ptes_none": "100", "PT_RECLAIM": "n",
    }  # fmt: skip
    assert chosen.given == {}


def test_another_kernel_has_its_own_kconfig_and_the_recorded_thp(meta: Meta) -> None:
    chosen = {s.config.release: s.recorded for s in select(meta, ["6.1", "6.18", "6.1"], None, [], [])}
    assert list(chosen) == ["6.1", "6.18"]
    assert "PT_RECLAIM" not in chosen["6.1"] and chosen["6.1"]["transparent_hugepage"] == "always"
    assert chosen["6.18"]["PT_RECLAIM"] == "n"


def test_so_has_another_architecture(meta: Meta) -> None:
    (chosen,) = select(meta, [], "arm64", [], [])
    assert chosen.config.arch == "arm64" and "PT_RECLAIM" not in chosen.recorded


def test_five_levels(meta: Meta) -> None:
    meta.levels = 5
    assert select(meta, [], None, [], [])[0].config.arch == "x86_64-5level"


def test_options_come_last(meta: Meta) -> None:
    (chosen,) = select(meta, [], None, ["PT_RECLAIM=y"], [])
    assert chosen.config.options[-1] == ("PT_RECLAIM", "y")
    assert chosen.given == {"PT_RECLAIM": "y"}


@pytest.mark.parametrize(
    ("kernels", "options", "what"),
    [
        (["five"], [], "not a release"),
        (["5.10"], [], "before 6.1"),
        ([], ["PT_RECLAIM"], "NAME=VALUE is wanted"),
        ([], ["=y"], "NAME=VALUE is wanted"),
    ],
)
def test_what_is_not_known_is_refused(meta: Meta, kernels: list[str], options: list[str], what: str) -> None:
    with pytest.raises(TablewalkError, match=what):
        select(meta, kernels, None, options, [])


def test_a_recording_that_does_not_say_its_kernel() -> None:
    with pytest.raises(TablewalkError, match="--kernel"):
        select(Meta(), [], None, [], [])

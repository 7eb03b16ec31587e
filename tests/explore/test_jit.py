# SPDX-License-Identifier: GPL-2.0-only
"""The compiled search is kept, and called as it was compiled."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from tablewalk.explore.packed import hash_all
from tablewalk.explore.tables import Tables
from tablewalk.explore.visited import rehash

KEPT = """
import sys
from tablewalk.explore.run import built_in, explore
outcome = explore(built_in()["arm-copy-to-user"])
print(outcome.verdict, "numba" in sys.modules)
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="no cc")
def test_numba_is_not_imported_once_the_search_is_compiled() -> None:
    hash_all(Tables(1, 0).all, np.zeros(64, np.uint8), np.zeros(2, np.uint64))  # so that it is
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["exhausted", "False"]


@pytest.mark.skipif(not shutil.which("cc"), reason="no cc")
def test_arrays_of_another_type_are_refused() -> None:
    table, second = np.zeros(4, np.uint64), np.zeros(1, np.uint64)
    with pytest.raises(TypeError, match="rehash: uint64, 1 dimensions wanted"):
        rehash(table, second, np.zeros(8, np.int64), second)
    with pytest.raises(TypeError, match="rehash"):
        rehash(table, second, np.zeros(16, np.uint64)[::2], second)


def test_a_larger_visited_set_has_what_the_smaller_had() -> None:
    table, none = np.array([4, 0, 8, 7], np.uint64), np.zeros(1, np.uint64)
    larger = np.zeros(8, np.uint64)
    rehash(table, none, larger, none)
    assert larger.tolist() == [8, 0, 0, 0, 4, 0, 0, 7]

# SPDX-License-Identifier: GPL-2.0-only
"""The set of states that a search has seen."""

from __future__ import annotations

import numpy as np

from .jit import ByteRows, Bytes, Hashes, entry
from .packed import copy, same


@entry
def insert(table: Hashes, second: Hashes, kept: ByteRows, h: Hashes, state: Bytes, number: int) -> bool:
    """Put a state into the visited set; false if it was there.

    It is known by 64 bits of its hash, or 128, the others in `second`; or by itself, in `kept` by its number, which is
    in `second` then.
    """
    key = h[0] if h[0] else np.uint64(1)
    mask = np.uint64(table.shape[0] - 1)
    i = np.int64(key & mask)
    exact = kept.shape[0] > 1
    wide = second.shape[0] > 1
    while table[i]:
        if table[i] == key:
            if exact:
                if same(kept[second[i]], state):
                    return False
            elif not wide or second[i] == h[1]:
                return False
        i = np.int64(np.uint64(i + 1) & mask)
    table[i] = key
    if exact:
        second[i] = number
        copy(kept[number], state)
    elif wide:
        second[i] = h[1]
    return True


@entry
def rehash(table: Hashes, second: Hashes, new: Hashes, new_second: Hashes) -> None:
    """Put all of a visited set into a larger one."""
    mask = np.uint64(new.shape[0] - 1)
    for i in range(table.shape[0]):
        if table[i]:
            to = np.int64(table[i] & mask)
            while new[to]:
                to = np.int64(np.uint64(to + 1) & mask)
            new[to] = table[i]
            if second.shape[0] > 1:
                new_second[to] = second[i]

# SPDX-License-Identifier: GPL-2.0-only
"""A search kept in a file, to go on after it was killed with the same totals in the end.

What was learned is kept as the misses in their order: learning is deterministic, so doing it again gives the same
automata, numbers included.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from tablewalk.errors import TablewalkError, escape

if TYPE_CHECKING:
    from .search import Search

ARRAYS = (
    "queue", "hashes", "index", "table", "second", "kept", "parent", "finals", "ends", "rules", "io", "scratch",
    "lengths",
)  # fmt: skip


def save(path: Path, search: Search, identity: str) -> None:
    """Write the search to `path`; what was there is replaced at once or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as f:
        np.savez(
            f,
            identity=np.array(identity),
            misses=np.array(search.engine.misses, np.int64).reshape(-1, 4),
            restarts=np.array(search.result.restarts),
            mistaken=np.array(search.engine.mistaken),
            **{name: getattr(search, name) for name in ARRAYS},
        )
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)


def restore(path: Path, search: Search, identity: str) -> bool:
    """Let the search go on from `path`; false if nothing is there.

    Raises TablewalkError for a file that is something else, or of another search.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["identity"]) != identity:
                where = escape(str(path))
                raise TablewalkError(f"{where}: of another search, kernel or version; remove it to begin anew")
            for miss in kept["misses"]:
                search.engine.learn(miss)
            for name in ARRAYS:
                setattr(search, name, kept[name])
            search.result.restarts = int(kept["restarts"])
            search.engine.mistaken = bool(kept["mistaken"])
            search.engine.counted = [search.scratch]
    except FileNotFoundError:
        return False
    except (BadZipFile, ValueError, KeyError, EOFError) as e:
        raise TablewalkError(f"{escape(str(path))}: not a checkpoint: {e}") from None
    search.width = search.queue.shape[1]
    return True

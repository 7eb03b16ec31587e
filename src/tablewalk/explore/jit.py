# SPDX-License-Identifier: GPL-2.0-only
"""The decorator of native functions: compiled by numba once a machine, and kept beside other caches.

numba looks only at the file of a function to see whether what it has kept is stale, not at those of its callees and
constants; so the place where it is kept is named by a digest of all of them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numba

from tablewalk.machine.native import cache_dir

_HERE = Path(__file__).resolve().parent
_TEXT = b"".join((_HERE / name).read_bytes() for name in ("jit.py", "tables.py", "native.py", "loop.py"))
_PLACE = cache_dir() / f"explore-{numba.__version__}-{hashlib.sha256(_TEXT).hexdigest()[:16]}"
numba.config.CACHE_DIR = str(_PLACE)  # type: ignore[attr-defined]

jit = numba.njit(cache=True, nogil=True)

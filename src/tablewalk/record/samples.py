# SPDX-License-Identifier: GPL-2.0-only
"""Files of VmPTE samples: a line a reading, `begin end pid VmPTE [VmRSS [RssAnon [RssFile [RssShmem]]]]`.

Times are CLOCK_MONOTONIC: with a decimal point seconds, without one nanoseconds. Sizes are kB. An empty line
or one that begins with # says nothing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from tablewalk.errors import TablewalkError
from tablewalk.record.rows import UNKNOWN, Kind, Names, Rows

_LINE = re.compile(rb"\s*(\d{1,19}(?:\.\d+)?)\s+(\d{1,19}(?:\.\d+)?)\s+(\d{1,7})((?:\s+\d{1,16}){1,5})\s*")


def read_samples(path: str | os.PathLike[str], names: Names, *, exact: bool = False, whole: bool = True) -> Rows:
    """The samples of a file as SAMPLE rows in the order of their begins.

    `exact`: the program read its own status while it did nothing else. `whole`: False for a file whose
    writer was killed, so that its last line may be cut off. Raises TablewalkError that names file and line.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as e:
        raise TablewalkError(f"{path}: {e.strerror}") from None
    if lines.pop() and whole:
        raise TablewalkError(f"{path}: its last line is cut off")
    found: list[tuple[int, ...]] = []
    for number, line in enumerate(lines, 1):
        if m := _LINE.fullmatch(line):
            begin, end, sizes = _ns(m[1]), _ns(m[2]), [int(s) for s in m[4].split()]
            if not begin <= end < 1 << 63:
                raise TablewalkError(f"{path}: line {number}: the reading ends before it begins")
            found.append((begin, end, int(m[3]), *sizes, *[UNKNOWN] * (5 - len(sizes))))
        elif line.strip() and not line.lstrip().startswith(b"#"):
            raise TablewalkError(f"{path}: line {number} is no sample: it should read BEGIN END PID VMPTE_KB ...")
    found.sort(key=lambda sample: sample[0])
    rows = Rows.zeros(len(found), names)
    if found:
        columns = list(zip(*found, strict=True))
        rows.kind[:] = Kind.SAMPLE
        rows.t[:] = rows.begin[:] = columns[0]
        rows.end[:] = columns[1]
        rows.pid[:] = rows.tid[:] = columns[2]
        for i in range(5):
            rows.a[i] = np.array(columns[3 + i], np.uint64)
        rows.a[5] = exact
    return rows


def _ns(text: bytes) -> int:
    """A time as a decimal number of seconds or a whole number of ns."""
    seconds, point, fraction = text.partition(b".")
    return int(seconds) * 10**9 + int(fraction[:9].ljust(9, b"0")) if point else int(seconds)

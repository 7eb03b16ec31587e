# SPDX-License-Identifier: GPL-2.0-only
"""What a path names: a file that may be replaced or mapped, or something else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tablewalk.errors import TablewalkError

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO or pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: Path) -> None:
    """Raises TablewalkError where `path`, links followed, is no regular file, and OSError where it is nothing.

    To be asked before open(2), which waits for ever for the other end of a FIFO.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise TablewalkError(f"{path}: not a regular file, but {_KINDS.get(stat.S_IFMT(mode), 'something else')}")


def replaceable(path: Path) -> Path:
    """The file to put in the place of `path` by rename(2): where its links lead.

    Raises TablewalkError where something else than a regular file is there.
    """
    try:
        check_regular(path)
    except FileNotFoundError:
        pass  # it will be new
    except OSError as e:
        raise TablewalkError(f"{path}: cannot be written: {e.strerror}") from None
    return Path(os.path.realpath(path))

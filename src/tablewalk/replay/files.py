# SPDX-License-Identifier: GPL-2.0-only
"""The files that recorded mappings are of, as files of the model."""

from __future__ import annotations

from typing import Any

from tablewalk.machine.drivers import Model
from tablewalk.replay.stream import Event

MAP_HUGETLB = 0x40000
FIRST_IDENT = 16  # of an open file of descriptor 0; 0 is shared anonymous memory, which nobody opens
_SHMEM = ("/memfd:", "/SYSV", "/dev/shm/", "/dev/zero")
_DRIVER_MEMORY = ("anon_inode:", "/dev/", "/anon_hugepage", "/i915", "/dmabuf:")


class Files:
    """One model file for each (device, inode, descriptor): the same descriptor counts as the same open file.

    A recording does not tell opens and closes apart; the pair only decides whether neighbouring mappings merge.
    """

    def __init__(self, model: Model) -> None:
        self._filemap, self._shmem = model.kernel("filemap"), model.kernel("shmem")
        self._files: dict[tuple[int, int, int], Any] = {}
        self._mappings: dict[tuple[int, int], Any] = {}
        self._names: dict[int, str] = {}
        self.none = model.kernel("mm_types").file(0)

    def of(self, row: Event, fd: int) -> Any:
        """The file of an MMAP row, NULL for anonymous memory; `fd` is the descriptor it was mapped through."""
        device, inode, name = row.nr, row.a[5], row.name or ""
        if (device, inode) == (0, 0):
            return self.none
        key = (device, inode, fd)
        file = self._files.get(key)
        if file is None:
            file = self._files[key] = self._filemap.open_file(self._mapping(device, inode, name), FIRST_IDENT + fd)
            self._names[file.addr] = name
        return file

    def unknown(self) -> Any:
        """A file that nothing is known of."""
        mapping = self._filemap.file_mapping()
        file = self._filemap.open_file(mapping, FIRST_IDENT - 1)
        self._names[file.addr] = "unknown file"
        return file

    def name(self, file: Any) -> str:
        """The name of a mapping's file; shared anonymous memory has one that no recording names."""
        return self._names.get(file.addr, "shared memory")

    def _mapping(self, device: int, inode: int, name: str) -> Any:
        mapping = self._mappings.get((device, inode))
        if mapping is None:
            if name.startswith(_SHMEM):
                own = not name.startswith("/dev/shm/")
                huge = self._shmem.SHMEM_HUGE_INTERNAL if own else self._shmem.SHMEM_HUGE_NEVER
                mapping = self._shmem.shmem_mapping(self._filemap.SIZE_UNKNOWN, huge)
            else:
                mapping = self._filemap.file_mapping()
            self._mappings[device, inode] = mapping
        return mapping


def is_driver_memory(name: str) -> bool:
    """Whether a mapping is of something whose driver may fill the tables itself, without faults."""
    return name.startswith(_DRIVER_MEMORY) and not name.startswith((*_SHMEM, "/dev/null", "/dev/full"))

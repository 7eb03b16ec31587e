# SPDX-License-Identifier: GPL-2.0-only
"""Pages that write() and fallocate() put into the cache (mm/filemap.c, mm/shmem.c; 7.2).

What serializes system calls on an inode is left out.  A write is of whole pages, one after the other.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import READ_ONCE, WRITE_ONCE, forget, mutex_unlock
from .filemap import filemap_lock_folio, folio_next_index, page_cache_read
from .mm_types import address_space, folio
from .mmap_lock import NO_VMA
from .not_modelled import NotModelled
from .page_alloc import PG_DIRTY, PG_UPTODATE, folio_put
from .shmem import SHMEM_HUGE_ALWAYS, SHMEM_HUGE_WITHIN_SIZE, shmem_alloc_and_add_folio, shmem_lock_folio


def shmem_get_folio_to_write(mapping: address_space, index: int) -> tuple[folio, bool]:
    """(the folio of the page locked and referenced, whether it is new): SGP_WRITE, SGP_FALLOC.

    Raises NotModelled where the length of a write may choose a large folio.
    """
    while True:
        f = shmem_lock_folio(mapping, index)
        if f:
            return f, False
        if mapping.huge in (SHMEM_HUGE_ALWAYS, SHMEM_HUGE_WITHIN_SIZE):
            raise NotModelled("large folios by the length of a write")
        f = shmem_alloc_and_add_folio(mapping, index, NO_VMA, 0)
        if f:
            return f, True
        forget(())


def write_begin(mapping: address_space, index: int) -> folio:
    """The folio of the page to write to, locked and referenced."""
    if mapping.shmem:
        return shmem_get_folio_to_write(mapping, index)[0]
    while True:
        f = filemap_lock_folio(mapping, index)
        if f:
            return f
        page_cache_read(mapping, index)
        forget(())


def write_end(mapping: address_space, f: folio, end: int) -> None:
    """A page up to byte `end` of the file was written: the file reaches there, the folio is valid, dirty and let go."""
    i_size_extend(mapping, end)
    WRITE_ONCE(f, "flags", f.flags | PG_UPTODATE | PG_DIRTY)
    mutex_unlock(f.lock)
    folio_put(f)


def i_size_extend(mapping: address_space, end: int) -> None:
    """Let the file reach to byte `end` at least."""
    i_size: int = READ_ONCE(mapping, "i_size")
    if i_size < end:
        WRITE_ONCE(mapping, "i_size", end)


def shmem_fallocate_range(mapping: address_space, start: int, end: int, keep_size: bool) -> int:
    """Have pages for bytes [start, end), which are valid once somebody asks for them.  Returns 0."""
    index = start >> arch.page_shift
    last = end + arch.page_size - 1 >> arch.page_shift
    while index < last:
        f, new = shmem_get_folio_to_write(mapping, index)
        flags = f.flags & ~PG_UPTODATE if new else f.flags | PG_UPTODATE
        WRITE_ONCE(f, "flags", flags | PG_DIRTY)
        index = folio_next_index(f)
        mutex_unlock(f.lock)
        folio_put(f)
        forget((index,))
    if not keep_size:
        i_size_extend(mapping, end)
    return 0

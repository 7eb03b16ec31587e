# SPDX-License-Identifier: GPL-2.0-only
"""userfaultfd's contexts, and the events that other system calls cause (mm/userfaultfd.c; 7.2).

Between an event and its being read the context's mmap_changing is up, and what a monitor asks for fails with -EAGAIN.
Here each event is read at the moment when the kernel would begin to wait for that; those of munmap
(UFFD_FEATURE_EVENT_UNMAP) as soon as they happen, so that they are never in a monitor's way.
"""

from __future__ import annotations

from typing import Final

from ..machine import add, add_return, down_write, load, publish, store, up_write
from .mm_init import mmdrop
from .mm_types import mm_struct, userfaultfd_ctx, vm_area_struct
from .mmap_lock import mmap_read_unlock, vma_start_write
from .pgtable import vma_set_page_prot
from .userfaultfd_k import (
    UFFD_FEATURE_EVENT_FORK,
    UFFD_FEATURE_EVENT_REMOVE,
    ctx_has,
    vma_ctx,
)
from .vm_flags import VM_SHARED, VM_UFFD_FLAGS, VM_UFFD_WP
from .vma_change import vm_flags_reset

NO_CTX: Final = userfaultfd_ctx(0)
uffd_forks = tuple[tuple[userfaultfd_ctx, userfaultfd_ctx], ...]  # (old, new) contexts of a fork


def userfaultfd_ctx_alloc(mm: mm_struct, flags: int, features: int) -> userfaultfd_ctx:
    """A new context of the mm with one reference, that of its open file."""
    ctx: userfaultfd_ctx = userfaultfd_ctx.alloc()
    store(ctx.refcount, 1)
    ctx.flags = flags
    store(ctx.features, features)
    ctx.mm = mm
    add(mm.mm_count, 1)
    publish(ctx.addr)
    return ctx


def userfaultfd_ctx_get(ctx: userfaultfd_ctx) -> None:
    """One reference more."""
    add(ctx.refcount, 1)


def userfaultfd_ctx_put(ctx: userfaultfd_ctx) -> None:
    """Drop a reference; the last one frees the context."""
    if add_return(ctx.refcount, -1) == 0:
        mmdrop(ctx.mm)
        ctx.free()


def userfaultfd_set_ctx(vma: vm_area_struct, ctx: userfaultfd_ctx, vm_flags: int) -> None:
    """Register the VMA with the modes in these flags, or (NULL) not at all; mmap_lock is held for writing.

    `vm_flags` are of the VMA that had the range, which may have been merged into `vma`.
    """
    vma_start_write(vma)
    vma.vm_userfaultfd_ctx = ctx.addr
    wp = vma.vm_flags & VM_UFFD_WP
    vm_flags_reset(vma, registered_flags(vma, vm_flags))
    if vma.vm_flags & VM_SHARED and vma.vm_flags & VM_UFFD_WP != wp:
        vma_set_page_prot(vma)


def registered_flags(vma: vm_area_struct, vm_flags: int) -> int:
    """The VMA's own flags with the modes in `vm_flags`."""
    return vma.vm_flags & ~VM_UFFD_FLAGS | vm_flags & VM_UFFD_FLAGS


def userfaultfd_reset_ctx(vma: vm_area_struct) -> None:
    """The VMA is no longer registered."""
    userfaultfd_set_ctx(vma, NO_CTX, vma.vm_flags & ~VM_UFFD_FLAGS)


def event_begins(ctx: userfaultfd_ctx) -> None:
    """Mappings change from now on, until the event has been read."""
    userfaultfd_ctx_get(ctx)
    down_write(ctx.map_changing_lock)
    add(ctx.mmap_changing, 1)
    up_write(ctx.map_changing_lock)


def userfaultfd_event_wait_completion(ctx: userfaultfd_ctx) -> None:
    """The event is read."""
    add(ctx.mmap_changing, -1)
    userfaultfd_ctx_put(ctx)


# --- fork ------------------------------------------------------------------------------------------------


def dup_userfaultfd(vma: vm_area_struct, forks: uffd_forks) -> uffd_forks:
    """The child's VMA, not yet in its tree, gets a context of its own, or none; returns the contexts made so far.

    A new context has one reference: that of the file which the monitor gets by reading the event.
    """
    old = vma_ctx(vma)
    if not old:
        return forks
    if not ctx_has(old, UFFD_FEATURE_EVENT_FORK):
        userfaultfd_reset_ctx(vma)
        return forks
    for seen, new in forks:
        if seen == old:
            vma.vm_userfaultfd_ctx = new.addr
            return forks
    new = userfaultfd_ctx_alloc(vma.vm_mm, old.flags, load(old.features))
    event_begins(old)
    vma.vm_userfaultfd_ctx = new.addr
    return (*forks, (old, new))


def dup_userfaultfd_complete(forks: uffd_forks) -> None:
    """The fork events are read."""
    for old, _ in forks:
        userfaultfd_event_wait_completion(old)


# --- madvise ---------------------------------------------------------------------------------------------


def userfaultfd_remove(vma: vm_area_struct) -> bool:
    """Memory is going to be unmapped: false if mmap_lock, held for reading, was released for the event to be read."""
    ctx = vma_ctx(vma)
    if not ctx_has(ctx, UFFD_FEATURE_EVENT_REMOVE):
        return True
    mm = vma.vm_mm
    event_begins(ctx)
    mmap_read_unlock(mm)
    userfaultfd_event_wait_completion(ctx)
    return False

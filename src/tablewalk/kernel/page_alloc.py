# SPDX-License-Identifier: GPL-2.0-only
"""Folios: allocation, references, the zero page (mm/page_alloc.c, include/linux/mm.h, mm/swap.c; 7.2)."""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    READ_ONCE,
    WRITE_ONCE,
    add,
    add_return,
    inc_not_zero,
    load,
    might_sleep,
    offset_of,
    publish,
    store,
    store_range,
    vec_init,
    xa_init,
)
from .config import config
from .mm_types import folio, mm_struct, swap_info_struct, system
from .pgtable import PRESENT, PROTNONE, page_t, pte_p, pte_page, ptep_get

FOLIO_MAPPING_ANON: Final = 1  # folio.mapping: anon_vma << 2 | 1, address_space << 2
FOLIO_MAPPING_KSM: Final = 3
MAPPING_SHIFT: Final = 2

# folio.flags
PG_UPTODATE: Final = 1
PG_DIRTY: Final = 2
PG_SWAPBACKED: Final = 4
PG_WORKINGSET: Final = 8
PG_MLOCKED: Final = 16
PG_SWAPCACHE: Final = 32
PG_RECLAIM: Final = 64  # to be reclaimed once it is written; PG_readahead is the same bit
PG_HUGETLB: Final = 128  # PGTY_hugetlb

PAGE_ANON_EXCLUSIVE: Final = 1  # flag of a struct page

MMF_HAS_PINNED: Final = 1 << 27  # mm_struct.flags: a page of this mm was pinned once
GUP_PIN_COUNTING_BIAS: Final = 1 << 10  # what a pin adds to _refcount

PAGE_CELLS: Final = 4  # struct page: its folio, its flags, its content, in a large folio its _mapcount
SYSTEM: Final = system(64)
NO_FOLIO: Final = folio(0)
# from the address of a folio to a field, for who reads those of many folios
FOLIO_FLAGS: Final[int] = offset_of("folio", "flags")
FOLIO_MAPPING: Final[int] = offset_of("folio", "mapping")
FOLIO_ORDER: Final[int] = offset_of("folio", "order")
FOLIO_REFCOUNT: Final[int] = offset_of("folio", "_refcount")
FOLIO_MAPCOUNT: Final[int] = offset_of("folio", "_mapcount")
FOLIO_ENTIRE_MAPCOUNT: Final[int] = offset_of("folio", "_entire_mapcount")


def folio_alloc(order: int) -> folio:
    """A new folio of 2^order pages with one reference, its content zero; may sleep.  The model never runs out."""
    might_sleep()
    nr = 1 << order
    new: folio = folio.alloc(nr)
    store(new._refcount, 1)
    if order == 0:
        store(new.page, new.addr)
    else:
        new.order = order
        store_range(new.page, [new.addr, 0, 0, 0] * nr)
    return new


def __folio_mark_uptodate(f: folio) -> None:
    """What a new folio holds is seen before what shows it: its smp_wmb() (include/linux/page-flags.h)."""
    publish(f.addr)


def folio_mark_dirty(f: folio) -> None:
    """It was written; what was to be reclaimed once it is clean no longer is (mm/page-writeback.c)."""
    WRITE_ONCE(f, "flags", (f.flags | PG_DIRTY) & ~PG_RECLAIM)


def folio_free(old: folio) -> None:
    """The last reference is gone."""
    old.free(1 << old.order)


def folio_get(f: folio) -> None:
    """One reference more; the caller has one."""
    add(f._refcount, 1)


def folio_try_get(f: folio) -> bool:
    """One reference more unless the folio is being freed; whether it was taken."""
    return inc_not_zero(f._refcount)


def folio_put(f: folio) -> None:
    """Drop a reference."""
    if add_return(f._refcount, -1) == 0:
        folio_free(f)


def folio_put_refs(f: folio, nr: int) -> None:
    """Drop `nr` references."""
    if add_return(f._refcount, -nr) == 0:
        folio_free(f)


def folio_ref_count(f: folio) -> int:
    """References."""
    return load(f._refcount)


def folio_mapcount(f: folio) -> int:
    """Entries and huge pmds that map the folio or a page of it."""
    return load(f._mapcount) + load(f._entire_mapcount)


def folio_precise_page_mapcount(f: folio, page: page_t) -> int:
    """Entries and huge pmds that map one page of the folio (fs/proc/internal.h)."""
    if f.order == 0:
        return load(f._mapcount)
    return load(page_mapcount(page)) + load(f._entire_mapcount)


def folio_expected_ref_count(f: folio) -> int:
    """References of an anonymous folio that its mappings and the swap cache account for (include/linux/mm.h)."""
    return folio_mapcount(f) + (1 << f.order if READ_ONCE(f, "flags") & PG_SWAPCACHE else 0)


def folio_needs_cow_for_dma(mm: mm_struct, f: folio) -> bool:
    """Whether a page of the folio may be pinned by this mm; under its ptl, inside write_protect_seq."""
    return READ_ONCE(mm, "flags") & MMF_HAS_PINNED != 0 and folio_maybe_dma_pinned(f)


def folio_maybe_dma_pinned(f: folio) -> bool:
    """Whether somebody may have pinned the folio (include/linux/mm.h); of a large one pins are told from mappings."""
    known = folio_expected_ref_count(f) if f.order else 0
    return folio_ref_count(f) - known >= GUP_PIN_COUNTING_BIAS


def folio_nr_pages(f: folio) -> int:
    """Pages."""
    return 1 << f.order


def folio_page(f: folio, i: int) -> page_t:
    """Its i-th struct page."""
    return f.page + PAGE_CELLS * i


def folio_page_idx(f: folio, page: page_t) -> int:
    """Index of a page in its folio."""
    return (page - f.page) // PAGE_CELLS


def folio_test_anon(f: folio) -> bool:
    """Anonymous memory, KSM pages included."""
    mapping: int = READ_ONCE(f, "mapping")
    return mapping & FOLIO_MAPPING_ANON != 0


def folio_test_ksm(f: folio) -> bool:
    """Memory that KSM has merged."""
    mapping: int = READ_ONCE(f, "mapping")
    return mapping & FOLIO_MAPPING_KSM == FOLIO_MAPPING_KSM


def folio_pte_batch(f: folio, ptep: pte_p, entry: int, max_nr: int) -> int:
    """How many entries from this one on map consecutive pages of the folio, at most `max_nr` (mm/internal.h)."""
    if f.order == 0:
        return 1
    page = pte_page(entry)
    nr = 1
    last = folio_page(f, folio_nr_pages(f) - 1)
    while nr < max_nr and page != last:
        entry = ptep_get(ptep + nr)
        if entry & (PRESENT | PROTNONE) == 0 or pte_page(entry) != page + PAGE_CELLS:
            break
        page += PAGE_CELLS
        nr += 1
    return nr


def page_flags(page: page_t) -> int:
    """Address of the flags cell of a struct page."""
    return page + 1


def page_content(page: page_t) -> int:
    """Address of the content cell of a struct page."""
    return page + 2


def page_mapcount(page: page_t) -> int:
    """Address of the _mapcount cell of a large folio's struct page: the entries that map just this page."""
    return page + 3


def copy_page(to: page_t, from_: page_t) -> None:
    """Copy the content of a page."""
    store(to + 2, load(from_ + 2))


def zero_page() -> page_t:
    """struct page of the zero page (ZERO_PAGE)."""
    return SYSTEM.zero_page


def mm_get_huge_zero_folio() -> folio:
    """The huge zero folio, allocated when first asked for (mm/huge_memory.c)."""
    huge = SYSTEM.huge_zero_folio
    if not huge:
        huge = folio_alloc(arch.pte_bits)
        publish(huge.addr)
        SYSTEM.huge_zero_folio = huge
    return huge


def boot() -> None:
    """Allocate what exists once."""
    init: system = system.alloc()
    assert init.addr == SYSTEM.addr, "boot() comes before any other allocation"
    init.zero_page = folio_page(folio_alloc(0), 0)
    vec_init(init.mlock_fbatch)
    if config.swap:
        init.swap_info = swapon()


def swapon() -> swap_info_struct:
    """A swap device (the system call in mm/swapfile.c)."""
    si: swap_info_struct = swap_info_struct.alloc()
    xa_init(si.cluster_info)
    xa_init(si.nonfull_clusters)
    xa_init(si.free_clusters)
    return si

# SPDX-License-Identifier: GPL-2.0-only
"""The rules that a search checks, by id: those at each step (native), and those of the memory left in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tablewalk.machine.drivers import Model

from . import endings
from .loop import V_DEADLOCK


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its id, one line, and where it is from."""

    id: str
    statement: str
    source: str


FREED = Rule("I1", "nothing is accessed after it was freed", "Documentation/mm/process_addrs.rst")
GUARD = Rule("I3", "a field is accessed under its guard", "Documentation/mm/process_addrs.rst; mm_types.py")
DETACHED = Rule("I2", "a detached table is not written any more, and is empty when it is freed", "process_addrs.rst")
ONE_SLOT = Rule("I5", "a table is in one slot at most, and alive", "mm/memory.c pmd_install()")
BALANCE = Rule("I7", "RCU sections, interrupt flags and locks are balanced", "process_addrs.rst")
NR_PTES = Rule("I11", "nr_ptes is the number of tables attached or deposited", "kernel/fork.c check_mm()")
RSS = Rule("I12", "rss is the number of entries of its kind", "kernel/fork.c check_mm()")
MAPCOUNT = Rule("I13", "a folio's mapcount is the number of entries that map it", "include/linux/mm_types.h")
REFCOUNT = Rule("I14", "a folio's references are those of entries, cache and pins", "mm/khugepaged.c")
SLEEP = Rule("I27", "nothing sleeps in atomic context", "Documentation/locking/spinlocks.rst")
DEADLOCK = Rule("I28", "no deadlock, and locks are taken in one order", "mm/rmap.c, mm/filemap.c")
SECONDARY = Rule("I16", "what a secondary MMU maps its process maps too", "Documentation/mm/mmu_notifier.rst")
RMAP = Rule("I25", "the reverse map finds what maps a page: no migration entry is left", "mm/mremap.c, mm/rmap.c")
PROGRESS = Rule("I26", "no loop goes on for ever by itself", "mm/memory.c")
ORDER = Rule("I31", "what a table or page holds is seen before the entry that shows it", "mm/memory.c pmd_install()")
BUG = Rule("BUG", "the kernel's own assertions hold", "the model")
LEAK = Rule("LEAK", "what is allocated is reachable or freed", "the model")
RESULT = Rule("RESULT", "the scenario's own assertion", "the scenario")
MISTAKE = Rule("SCENARIO", "a scenario's own functions raise nothing but AssertionError", "the scenario")  # an error
RULES = (FREED, DETACHED, GUARD, ONE_SLOT, BALANCE, NR_PTES, RSS, MAPCOUNT, REFCOUNT, SECONDARY, RMAP, PROGRESS, SLEEP,
         DEADLOCK, ORDER, BUG, LEAK, RESULT)  # fmt: skip

_NATIVE = {
    endings.V_FREED: (FREED, "accesses {cell}, which was freed"),
    endings.V_GUARD: (GUARD, "accesses {cell} without {guard}"),
    endings.V_BAD_FREE: (FREED, "frees {cell}, which was freed before"),
    endings.V_FREED_LOCKED: (FREED, "frees {cell} while a lock in it is held"),
    endings.V_SLEEP: (SLEEP, "may sleep in atomic context"),
    endings.V_HELD: (BALANCE, "ends holding {cell}"),
    endings.V_RCU: (BALANCE, "ends an RCU section or interrupt-off section that it did not begin"),
    endings.V_LIVELOCK: (PROGRESS, "goes round a loop without anything that others could change"),
    endings.V_IPI_OFF: (DEADLOCK, "waits for other CPUs with interrupts off"),
    endings.V_DETACHED: (DETACHED, "writes {cell} after its table was detached"),
    endings.V_DEAD_TABLE: (ONE_SLOT, "puts what is no live table into {cell}"),
    endings.V_ATTACHED_TWICE: (ONE_SLOT, "puts a table into {cell} that is in another slot"),
    endings.V_NOT_EMPTY: (DETACHED, "frees a table with {cell} in use"),
    endings.V_UNORDERED: (ORDER, "lets {cell} show what it has written to, without smp_wmb() before"),
    V_DEADLOCK: (DEADLOCK, "waits for ever"),
}
BOUNDS = {
    endings.V_POOL: "the number of objects of a kind that a thread may have allocated",
    endings.V_SLOTS: "the number of pending RCU callbacks",
    endings.V_ROUNDS: "the number of rounds of a loop",
}


def native_rule(rule: int, message: str) -> tuple[Rule, str]:
    """(rule, what is said of who broke it) for what the native search reports; `message` of V_MESSAGE."""
    if rule == endings.V_MESSAGE:
        kind, _, text = message.partition(": ")
        named = {"deadlock": DEADLOCK, "unlock": BALANCE, "kunmap": BALANCE}
        named |= {"use-after-free": FREED, "wild access": FREED}
        return named.get(kind, BUG), text if kind in named else message
    return _NATIVE[rule]


def final_rules(model: Model) -> Iterator[tuple[Rule, str]]:
    """What the memory as it is now, with all threads at their end, breaks."""
    yield from _Census(model).broken()


class _Census:
    """Everything alive, counted by walking the tables of each address space."""

    def __init__(self, model: Model) -> None:
        self.machine, self.model = model.machine, model
        self.p = model.kernel("pgtable")
        self.types = model.kernel("mm_types")
        self.pa = model.kernel("page_alloc")
        self.filemap = model.kernel("filemap")
        self.swap = model.kernel("swap_table")
        self.arch = model.arch
        self.ptes: Counter[int] = Counter()  # folio -> entries
        self.huge: Counter[int] = Counter()
        self.cached: Counter[int] = Counter()
        self.tables: set[int] = set()

    def live(self, struct: str) -> list[int]:
        machine = self.machine
        return [
            base
            for base, cls in machine.class_of.items()
            if machine.layouts[cls].name == struct and machine.mem[machine.ghost_of(base)]
        ]

    def broken(self) -> Iterator[tuple[Rule, str]]:
        machine, load = self.machine, self.machine.load
        for address in self.live("mm_struct"):
            yield from self._mm(self.types.mm_struct(address))
        for address in self.live("kvm"):
            yield from self._guest(self.types.kvm(address))
        for address in self.live("address_space"):
            for _, value in machine.xa_range(self.types.address_space(address).i_pages, 0, 1 << 62):
                if value > self.filemap.XA_RETRY_ENTRY:
                    self.cached[value] += 1
        for address in self.live("swap_cluster_info"):
            slots = self.types.swap_cluster_info(address).slot
            found = [load(slots + self.swap.SLOT_CELLS * i) for i in range(machine.nr_of[address])]
            self.cached.update(f for f in found if f)
        zero = {self.types.folio(load(self.pa.zero_page())), self.pa.SYSTEM.huge_zero_folio}
        for address in self.live("folio"):
            f = self.types.folio(address)
            if address in zero:
                continue
            counts = load(f._mapcount), load(f._entire_mapcount)
            if counts != (self.ptes[address], self.huge[address]):
                yield MAPCOUNT, f"{f!r}: mapcount {counts}, mapped {self.ptes[address], self.huge[address]} times"
            references = self.ptes[address] + self.huge[address] + self.cached[address]
            if load(f._refcount) != references:
                yield REFCOUNT, f"folio {address}: {load(f._refcount)} references counted, {references} found"
        for address in {*self.ptes, *self.huge, *self.cached} - set(self.live("folio")):
            yield FREED, f"folio {address} is free and still mapped or cached"
        for address in set(self.live("ptdesc")) - self.tables:
            yield LEAK, f"page table {address} is neither attached nor deposited nor freed"
        for struct in ("mmu_gather", "table_batch"):
            for address in self.live(struct):
                yield LEAK, f"{struct} {address} is left"

    def _mm(self, mm: Any) -> Iterator[tuple[Rule, str]]:
        load = self.machine.load
        found: Counter[str] = Counter()
        a = self.arch
        lower = [1 << bits for bits in (a.pte_bits, a.pmd_bits, a.pud_bits, a.p4d_bits) if bits]
        self._walk(mm.pgd, len(lower), [*lower, a.ptrs_per_pgd], found)
        for name, counted in (("nr_ptes", load(mm.nr_ptes)), ("nr_deposited", load(mm.nr_deposited))):
            if counted != found[name]:
                yield NR_PTES, f"mm {mm.addr}: {name} is {counted}, there are {found[name]}"
        if found["migration"]:
            yield RMAP, f"mm {mm.addr}: {found['migration']} migration entries are left"
        for name in ("anon_rss", "file_rss", "shmem_rss", "swapents"):
            counted = load(getattr(mm, name))
            if counted != found[name]:
                yield RSS, f"mm {mm.addr}: {name} is {counted}, there are {found[name]}"

    def _guest(self, vm: Any) -> Iterator[tuple[Rule, str]]:
        walk, page_size = self.model.kernel("fault").hardware_walk, self.arch.page_size
        for gfn in range(vm.npages):
            spte = self.machine.load(vm.spte + gfn)
            page = self.p.pte_page(spte)
            found = walk(vm.addr, vm.mm, vm.userspace_addr + gfn * page_size, spte & self.p.RW != 0) if spte else 0
            if spte and found != self.pa.page_content(page):
                yield SECONDARY, f"page {gfn} of the guest is struct page {page}, which its process does not map there"

    def _walk(self, table: Any, level: int, sizes: list[int], found: Counter[str]) -> None:
        self.tables.add(table.addr)
        deposited = table.pmd_huge_pte
        while deposited:
            self.tables.add(deposited.addr)
            found["nr_deposited"] += 1
            found["nr_ptes"] += 1
            deposited = deposited.deposit_next
        for i in range(sizes[level]):
            entry = self.machine.load(table.entry + i)
            if level and self.p.pmd_is_table(entry):
                found["nr_ptes"] += level == 1
                self._walk(self.p.pmd_pgtable(entry), level - 1, sizes, found)
            elif entry:
                self._leaf(entry, level, found)

    def _leaf(self, entry: int, level: int, found: Counter[str]) -> None:
        p = self.p
        if not p.pte_present(entry):
            kind = p.swp_type(entry)
            if kind == p.SWP_SWAP:
                found["swapents"] += 1
            if kind != p.SWP_MIGRATION:
                return
            found["migration"] += 1
        elif entry & p.SPECIAL:
            return
        f = p.page_folio(entry >> p.PFN_SHIFT)
        if f == self.pa.SYSTEM.huge_zero_folio:
            return
        if f.flags & self.pa.PG_HUGETLB:  # counted by itself, and mapped once by all its entries
            self.huge[f.addr] += p.pte_present(entry) and entry >> p.PFN_SHIFT == f.page
            return
        if p.pte_present(entry):
            (self.huge if level else self.ptes)[f.addr] += 1
        kind = "shmem_rss" if f.flags & self.pa.PG_SWAPBACKED else "file_rss"
        if self.pa.folio_test_anon(f):
            kind = "anon_rss"
        found[kind] += self.arch.ptrs_per_pte if level else 1

# SPDX-License-Identifier: GPL-2.0-only
"""The verb `guards`: the locking rules of the model's shared memory, as declared in kernel/mm_types.py."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from tablewalk.errors import TablewalkError
from tablewalk.machine import drivers
from tablewalk.machine.layout import Field, Guard

PROCESS_ADDRS: Final = "Documentation/mm/process_addrs.rst"

# Where the kernel says it (7.2).
SOURCES: Final = {
    "ptlock": "Documentation/mm/split_page_table_lock.rst",
    "ptdesc": f"{PROCESS_ADDRS}, Documentation/mm/split_page_table_lock.rst",
    "mm_struct": f"{PROCESS_ADDRS}, include/linux/mm_types.h",
    "vm_area_struct": PROCESS_ADDRS,
    "userfaultfd_ctx": "include/linux/userfaultfd_k.h, fs/userfaultfd.c",
    "anon_vma": "include/linux/rmap.h, mm/rmap.c",
    "anon_vma_chain": "include/linux/rmap.h, mm/rmap.c",
    "address_space": f"{PROCESS_ADDRS}, include/linux/fs.h, mm/filemap.c",
    "file": "include/linux/fs.h",
    "folio": "include/linux/mm_types.h, mm/filemap.c, mm/rmap.c",
    "swap_cluster_info": "mm/swap.h",
    "swap_info_struct": "include/linux/swap.h",
    "ksm_stable_node": "mm/ksm.c",
    "ksm_rmap_item": "mm/ksm.c",
    "ksm_mm_slot": "mm/ksm.c",
    "ksm_scan": "mm/ksm.c",
    "mmu_notifier": "include/linux/mmu_notifier.h",
    "kvm": "include/linux/kvm_host.h, Documentation/virt/kvm/locking.rst",
    "system": "mm/swapfile.c, mm/huge_memory.c, mm/mlock.c",
}

# What may be done without a lock, and what the guards of a field do not say.
LOCKLESS: Final = {
    "const": "reading; it is set before others see it",
    "plain": "nothing",
    "marked": "READ_ONCE",
    "atomic": "atomic operations",
    "counter": "adding",
    "lock": "taking it",
    "entries": "reading once",
    "container": "nothing",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A field: what it is, the locks under which it is read and written, and what needs none."""

    struct: str
    field: str
    kind: str
    read: str
    write: str
    lockless: str
    source: str


def rows() -> list[Row]:
    """The rule of every field that CPUs share, in the order of their declaration."""
    machine = drivers.load("searched").machine
    return [
        _row(layout.name, slot.name, slot.field)
        for layout in machine.layouts
        if layout.name in SOURCES
        for slot in layout.slots
    ]


def _row(struct: str, name: str, field: Field) -> Row:
    kind, read, write = field.cell.value, _locks(field.read), _locks(field.write)
    lockless = LOCKLESS[kind]
    if kind == "lock":
        kind = field.lock
    elif kind == "marked" and not read:
        read = write.replace(":w", "")  # a plain read needs one that shuts writers out
    elif kind in ("plain", "container") and not (read and write):
        lockless = _unguarded(field)
    return Row(struct, name, kind, read, write, lockless, SOURCES[struct])


def _unguarded(field: Field) -> str:
    if not field.read.locks and not field.write.locks:
        return "all, while it is somebody's own"
    return "reading" if not field.read.locks else "writing"


def _locks(guard: Guard) -> str:
    return str(guard) if guard.locks else ""


@click.command()
@click.argument("structs", nargs=-1, metavar="[STRUCT]...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(structs: tuple[str, ...], as_json: bool) -> int:
    """Print the locks that guard each field of the structs that CPUs share.

    A guard is a lock by its path from the struct; `:w` asks for it for writing. `explore` and the driver `checked`
    hold every access to these rules (I3).
    """
    unknown = set(structs) - SOURCES.keys()
    if unknown:
        raise TablewalkError(f"no such struct: {', '.join(sorted(unknown))}; there are {', '.join(SOURCES)}")
    chosen = [row for row in rows() if not structs or row.struct in structs]
    if as_json:
        click.echo(json.dumps({"guards": [asdict(row) for row in chosen]}))
    else:
        _print(chosen)
    return 0


def _print(chosen: list[Row]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("field", "kind", "read under", "written under", "without a lock"):
        table.add_column(column, no_wrap=column == "field")
    for struct in dict.fromkeys(row.struct for row in chosen):
        table.add_row(struct, "", SOURCES[struct], style="bold")
        for row in chosen:
            if row.struct == struct:
                table.add_row(f"  {row.field}", row.kind, row.read, row.write, row.lockless)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(table)

# SPDX-License-Identifier: GPL-2.0-only
"""mm: free retracted page table by RCU (6.6): architectures that ask for the lock of a table themselves."""

from __future__ import annotations

from ..kernel.arch_arm import adjust_pte, do_adjust_pte
from ..kernel.bug import BugOn
from ..kernel.mm_types import mm_struct
from ..kernel.pgtable import mm_find_pmd, pte_p
from ..kernel.pgtable_generic import pte_lockptr, pte_offset_map, pte_unmap
from ..machine import is_locked, load, spin_lock_nested, spin_unlock
from . import Claim, patch
from .rcu_series import SERIES


@patch(
    "C03",
    commit="de2e4626c706",
    title="arm: adjust_pte() use pte_offset_map_nolock()",
    series=SERIES,
    since="6.6",
    site="arch_arm.adjust_pte",
    files=("arch/arm/mm/fault-armv.c",),
    mutant=True,
    claim=Claim("race", "arm-adjust-pte", "I1"),
)
def lock_of_the_live_pmd(mm: mm_struct, addr: int, need_lock: bool) -> bool:
    """The lock is that of the table which the pmd names by then, and which table it is nobody looks again."""
    pmd = mm_find_pmd(mm, addr)
    if not pmd or load(pmd) == 0:
        return False
    pte = pte_offset_map(pmd, addr)
    if not pte:
        return False
    ptl = pte_lockptr(mm, load(pmd))
    if need_lock:
        spin_lock_nested(ptl)
    present = do_adjust_pte(pte)
    if need_lock:
        spin_unlock(ptl)
    pte_unmap(pte)
    return present


@patch(
    "K54",
    commit="a564ccfe300f",
    title="arm: mm: fix NULL pointer in adjust_pte(), which asked a fault that there need not be for the lock it holds",
    since="6.14",
    site="arch_arm.make_coherent",
    files=("arch/arm/mm/fault-armv.c",),
    mutant=True,
    claim=Claim("race", "arm-adjust-pte-near", "I28"),
)
def lock_even_the_same_table(mm: mm_struct, addr: int, pte: pte_p, alias: int) -> bool:
    """The lock of the table that holds both entries is taken a second time."""
    aliased = adjust_pte(mm, alias, True)
    if aliased:
        do_adjust_pte(pte)
    return aliased


@patch(
    "C04",
    commit="3d140215a6ae",
    title="powerpc: assert_pte_locked() use pte_offset_map_nolock()",
    series=SERIES,
    since="6.6",
    site="arch_powerpc.assert_pte_locked",
    files=("arch/powerpc/mm/pgtable.c",),
    mutant=True,
    claim=Claim("cleanup", "powerpc-access-flags"),
)
def assert_lock_of_the_live_pmd(mm: mm_struct, addr: int) -> None:
    """The pmd is read once more for the lock; who holds that keeps it as it is."""
    pmd = mm_find_pmd(mm, addr)
    if load(pmd) and not is_locked(pte_lockptr(mm, load(pmd))):
        raise BugOn("powerpc changes an entry without its table's lock")

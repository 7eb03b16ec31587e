# SPDX-License-Identifier: GPL-2.0-only
"""The rules, as rules.toml has them, and the scenarios of `explore` that show what comes of breaking them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class Rule:
    """The fields are explained at the top of rules.toml."""

    statement: str
    source: str
    unless: str
    bad: str
    good: str
    invariant: str = ""
    scenario: str = ""
    without: str = ""

    def command(self) -> str:
        """The exploration that shows what comes of breaking the rule; empty where there is none."""
        return " --without ".join(filter(None, (self.scenario, self.without)))


def _read() -> dict[str, Rule]:
    text = resources.files("tablewalk.audit").joinpath("rules.toml").read_text()
    return {name: Rule(**{k: v.strip("\n") for k, v in table.items()}) for name, table in tomllib.loads(text).items()}


RULES = _read()

_LIFETIME = frozenset(("unchecked-null", "use-after-unmap", "live-lockptr", "no-recheck", "none-recheck", "user-table"))
SCENARIO_OF = {
    "madvise_free_pte_range": "free-and-dontneed",
    "change_pte_range": "shmem-collapse-mprotect",
    "mlock_pte_range": "shmem-collapse-mlock",
    "move_ptes": "shmem-collapse-mremap-page",
    "filemap_map_pages": "file-read-and-dontneed",
    "userfaultfd_must_wait": "uffd-fault-and-dontneed",
    "mfill_atomic_install_pte": "uffd-copy-and-dontneed",
    "move_pages_ptes": "uffd-move-and-dontneed",
    "copy_pte_range": "fork-and-dontneed",
    "handle_pte_fault": "shmem-collapse-fault",
    "do_anonymous_page": "anon-collapse-fault",
    "do_swap_page": "anon-collapse-fault",
    "retract_page_tables": "shmem-collapse-fault-elsewhere",
    "collapse_pte_mapped_thp": "mapped-huge-collapse-fault",
    "try_collapse_pte_mapped_thp": "mapped-huge-collapse-fault",
    "zap_pte_range": "shmem-collapse-dontneed",
}  # functions of the kernel that the model has, to what runs them against one that takes tables away


def scenario_of(rule: str, function: str) -> str:
    """The scenario that shows what comes of breaking `rule` in `function`, or else anywhere; empty where none does."""
    own = SCENARIO_OF.get(function, "") if rule in _LIFETIME else ""
    return own or RULES[rule].scenario

# SPDX-License-Identifier: GPL-2.0-only
"""An audited tree once more, with some functions otherwise: what the measures of the audit have in common."""

from __future__ import annotations

import collections
import copy

from tablewalk.audit.run import Audit, Entry, judge

Key = tuple[str, str, str]


def again(run: Audit) -> Audit:
    """A run whose entries and contracts may be changed, with those of `run` to begin with."""
    other = Audit(run.names, run.root, run.annotations, sleepers=run.sleepers)
    other.contracts = {name: dict(known) for name, known in run.contracts.items()}
    other.entries = [copy.copy(e) for e in run.entries]
    return other


def keys(run: Audit, entry: Entry) -> collections.Counter[Key]:
    """What is found in an entry, without line numbers, which differ between runs."""
    return collections.Counter((f.rule, f.function, f.message.split(" line")[0]) for f in judge(run, entry))

# SPDX-License-Identifier: GPL-2.0-only
"""Which functions may sleep, by what they call; of the files that have an interest in page tables."""

from __future__ import annotations

import re

from tablewalk.audit.names import ALLOCATES, SLEEPS
from tablewalk.audit.text import Function

_CALL = re.compile(r"\b([A-Za-z_]\w*)\s*\(([^()]*)")
_MAY_WAIT = re.compile(r"\bGFP_(?:KERNEL|USER|HIGHUSER|NOFS|NOIO)")


class Sleepers:
    """Bodies are looked at when they are asked for."""

    def __init__(self) -> None:
        self._functions: dict[str, list[tuple[str, bool, Function]]] = {}  # by name: file, static, text
        self._chains: dict[tuple[str, str], tuple[str, ...]] = {}

    def add(self, file: str, static: bool, function: Function) -> None:
        self._functions.setdefault(function.name, []).append((file, static, function))

    def chain(self, name: str, file: str) -> tuple[str, ...]:
        """From `name`, as `file` sees it, to what sleeps; nothing where it does not."""
        known = self._chains.get((name, file))
        if known is not None:
            return known
        pending: list[tuple[str, str, tuple[str, ...]]] = [(name, file, (name,))]
        seen = {(name, file)}
        for called, where, way in pending:
            if called in SLEEPS or (len(way) > 1 and ALLOCATES.match(called)):
                self._chains[name, file] = way
                return way
            for found, function in self._seen_from(called, where):
                for to in _callees(function):
                    if (to, found) not in seen and self._chains.get((to, found)) != ():
                        seen.add((to, found))
                        pending.append((to, found, (*way, to)))
        for key in seen:
            self._chains[key] = ()
        return ()

    def _seen_from(self, name: str, file: str) -> list[tuple[str, Function]]:
        known = self._functions.get(name, ())
        own = [(at, f) for at, _, f in known if at == file]
        return own or [(at, f) for at, static, f in known if not static][:1]


def _callees(function: Function) -> list[str]:
    """What it calls; an allocation only where its flags, as written there, let it sleep."""
    found: dict[str, None] = {}
    for m in _CALL.finditer(function.body):
        if not ALLOCATES.match(m[1]):
            found[m[1]] = None
        elif _MAY_WAIT.search(m[2]):
            return [m[1]]
    return list(found)

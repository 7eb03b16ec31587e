# SPDX-License-Identifier: GPL-2.0-only
"""#if and #ifdef: a file as it is compiled under several configurations.

A resolution says of each condition's atoms (`CONFIG_SMP`, `PAGE_SHIFT < 14`) whether they hold, the same everywhere
in the file.  All true, all false, and then whatever reaches the branches that are left and hold something of
interest.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tablewalk.audit.text import blank

MAX_RESOLUTIONS = 6
_MAX_ATOMS = 10  # of the conditions around one branch: all combinations are tried
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(\w+)((?:\\\r?\n|[^\n])*)", re.M)
_TOKEN = re.compile(
    r"\s*(&&|\|\||!(?!=)|\(|\)"
    r"|(?:defined\s*\(\s*\w+\s*\)|defined\s+\w+|\w+\s*\([^()]*\)|\w+)"
    r"(?:\s*(?:==|!=|<=|>=|<|>|<<|>>|[-+*/%&^|])\s*(?:\w+\s*\([^()]*\)|\w+))*)"
)
_NEVER = frozenset(("0", "__ASSEMBLY__", "__ASSEMBLER__", "__cplusplus", "LINKER_SCRIPT", "BITS_PER_LONG"))
Formula = Callable[[Callable[[str], bool]], bool]


@dataclass(slots=True)
class Branch:
    """The lines between two directives of one #if."""

    conditions: list[Formula]  # all of them hold where the branch is compiled
    atoms: frozenset[str]
    start: int
    end: int


@dataclass(slots=True)
class Source:
    """A file's directives."""

    code: str
    directives: list[tuple[int, int]] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    unbalanced: int = 0

    @classmethod
    def read(cls, code: str) -> Source:
        source = cls(code)
        source._read()
        return source

    def _read(self) -> None:
        stack: list[tuple[list[Formula], list[Formula], frozenset[str], int]] = []  # around, failed, atoms, start
        open_: list[Branch] = []
        for m in _DIRECTIVE.finditer(self.code):
            word, rest, at = m[1], m[2], m.start()
            self.directives.append((at, m.end()))
            if word in ("if", "ifdef", "ifndef"):
                formula, atoms = _condition(word, rest, self.code, m.end())
                around = open_[-1].conditions if open_ else []
                outer = open_[-1].atoms if open_ else frozenset()
                stack.append((around, [_negate(formula)], outer | atoms, at))
                open_.append(Branch([*around, formula], outer | atoms, m.end(), len(self.code)))
            elif word in ("elif", "else", "elifdef", "elifndef"):
                if not stack:
                    self.unbalanced += 1
                    continue
                around, failed, known, start = stack[-1]
                self._close(open_, at)
                formula, atoms = (_true, frozenset()) if word == "else" else _condition(word[2:], rest, self.code, 0)
                stack[-1] = (around, [*failed, _negate(formula)], known | atoms, start)
                open_.append(Branch([*around, *failed, formula], known | atoms, m.end(), len(self.code)))
            elif word == "endif":
                if not stack:
                    self.unbalanced += 1
                    continue
                stack.pop()
                self._close(open_, at)
        self.unbalanced += len(stack)
        while open_:
            self._close(open_, len(self.code))
        self.branches.sort(key=lambda b: b.start)

    def _close(self, open_: list[Branch], at: int) -> None:
        branch = open_.pop()
        branch.end = at
        self.branches.append(branch)

    def resolutions(self, of_interest: list[int]) -> Iterator[str]:
        """Texts without directives, each as under one configuration; `of_interest` are places to be reached."""
        given: set[str] = set()
        left = {i for i, b in enumerate(self.branches) if any(b.start <= p < b.end for p in of_interest)}
        for assignment in self._assignments(left):
            text = self._resolve(assignment, left)
            if text not in given:
                given.add(text)
                yield text
            if len(given) >= MAX_RESOLUTIONS:
                return

    def _assignments(self, left: set[int]) -> Iterator[Callable[[str], bool]]:
        yield lambda atom: True
        yield lambda atom: False
        hopeless: set[int] = set()
        while left - hopeless:
            i = min(left - hopeless)
            found = _satisfying(self.branches[i])
            hopeless.add(i)
            if found is not None:
                yield lambda atom, found=found: found.get(atom, True)  # type: ignore[misc]

    def _resolve(self, assignment: Callable[[str], bool], left: set[int]) -> str:
        drop = list(self.directives)
        for i, branch in enumerate(self.branches):
            if all(c(assignment) for c in branch.conditions):
                left.discard(i)
            else:
                drop.append((branch.start, branch.end))
        parts = []
        at = 0
        for start, end in sorted(drop):
            if end <= at:
                continue
            start = max(start, at)
            parts += [self.code[at:start], blank(self.code[start:end])]
            at = end
        return "".join((*parts, self.code[at:]))


def _satisfying(branch: Branch) -> dict[str, bool] | None:
    atoms = sorted(branch.atoms)
    if len(atoms) > _MAX_ATOMS:
        return None
    for values in itertools.product((True, False), repeat=len(atoms)):
        assignment = dict(zip(atoms, values, strict=True))
        if all(c(lambda atom: assignment.get(atom, True)) for c in branch.conditions):  # noqa: B023
            return assignment
    return None


def _true(_: Callable[[str], bool]) -> bool:
    return True


def _negate(formula: Formula) -> Formula:
    return lambda value: not formula(value)


def _condition(word: str, rest: str, code: str, end: int) -> tuple[Formula, frozenset[str]]:
    text = " ".join(rest.replace("\\\n", " ").split())
    if word == "if":
        return _parse(text)
    if word == "ifndef" and re.match(rf"\s*#\s*define\s+{re.escape(text)}\b", code[end : end + 200]):
        return _true, frozenset()  # a header's guard
    formula, atoms = _atom(text)
    return (_negate(formula) if word == "ifndef" else formula), atoms


def _atom(text: str) -> tuple[Formula, frozenset[str]]:
    m = re.fullmatch(r"defined\s*\(?\s*(\w+)\s*\)?|IS_(?:ENABLED|BUILTIN|REACHABLE)\s*\(\s*(\w+)\s*\)", text)
    name = next(filter(None, m.groups())) if m else re.sub(r"\s+", "", text)
    if name in _NEVER:
        return lambda value: False, frozenset()
    if name.isdigit():
        return _true, frozenset()
    return lambda value: value(name), frozenset((name,))


def _parse(text: str) -> tuple[Formula, frozenset[str]]:
    """A condition of #if; what is not understood is one atom."""
    tokens: list[str] = []
    at = 0
    while at < len(text) and (m := _TOKEN.match(text, at)):
        tokens.append(m[1])
        at = m.end()
    if text[at:].strip():
        return _atom(text)
    atoms: set[str] = set()
    if len(tokens) > 400:
        return _atom(text)
    try:
        formula = _either(tokens, atoms)
    except (IndexError, RecursionError):
        return _atom(text)
    return (formula, frozenset(atoms)) if not tokens else _atom(text)


def _either(tokens: list[str], atoms: set[str]) -> Formula:
    terms = [_both(tokens, atoms)]
    while tokens and tokens[0] == "||":
        tokens.pop(0)
        terms.append(_both(tokens, atoms))
    return terms[0] if len(terms) == 1 else lambda value: any(t(value) for t in terms)


def _both(tokens: list[str], atoms: set[str]) -> Formula:
    terms = [_one(tokens, atoms)]
    while tokens and tokens[0] == "&&":
        tokens.pop(0)
        terms.append(_one(tokens, atoms))
    return terms[0] if len(terms) == 1 else lambda value: all(t(value) for t in terms)


def _one(tokens: list[str], atoms: set[str]) -> Formula:
    token = tokens.pop(0)
    if token == "!":
        return _negate(_one(tokens, atoms))
    if token == "(":
        inner = _either(tokens, atoms)
        if tokens.pop(0) != ")":
            raise IndexError
        return inner
    if token in ("&&", "||", ")"):
        raise IndexError
    formula, found = _atom(token)
    atoms |= found
    return formula

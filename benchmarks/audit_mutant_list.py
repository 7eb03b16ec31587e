# SPDX-License-Identifier: GPL-2.0-only
"""Errors at every site of the interface in a function, by class: what to put where in its text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tree_sitter import Node

from tablewalk.audit.grammar import offset, parse
from tablewalk.audit.names import KUNMAPS, LOCKS, MAPS, UNLOCKS, UNMAPS
from tablewalk.audit.text import Function

_PTL = re.compile(r"(?:ptl|ptlp|ptl_\w+|\w+_ptl)$")
_SAME = re.compile(r"(?:pte|pmd)_same$|is_pte_pages_stable$|vmf_pte_changed$")
_ENDS = UNMAPS.keys() | KUNMAPS.keys()
Edit = tuple[int, int, str]  # begin and end in the body, what to put there


@dataclass(frozen=True, slots=True)
class Mutant:
    kind: str
    line: int
    edits: tuple[Edit, ...]


class Sites:
    """The sites of one function.  `mapping` are functions that map besides the interface's own."""

    def __init__(self, function: Function, mapping: frozenset[str]) -> None:
        self.body = function.body
        self.line = function.body_line
        self.mapping = mapping | MAPS.keys()
        tree = parse(function.body)
        self.nodes = list(_all(tree)) if tree is not None else []
        self.calls = [n for n in self.nodes if n.type == "call_expression"]
        maps = [c for c in self.calls if self.name(c) in self.mapping]
        self.pointers = {self.target(c) for c in maps} - {""}
        self.locks = {a.lstrip("&") for c in maps for a in self.args(c) if _PTL.search(a)}

    # Text

    def text(self, n: Node) -> str:
        return self.body[offset(n) : self.end(n)]

    def end(self, n: Node) -> int:
        return offset(n) + n.end_byte - n.start_byte

    def name(self, call: Node) -> str:
        function = call.child_by_field_name("function")
        return self.text(function) if function is not None else ""

    def args(self, call: Node) -> list[str]:
        arguments = call.child_by_field_name("arguments")
        return [self.text(c) for c in arguments.named_children] if arguments is not None else []

    def target(self, call: Node) -> str:
        """What a call's value is assigned to."""
        parent = call.parent
        while parent is not None and parent.type in ("parenthesized_expression", "assignment_expression"):
            left = parent.child_by_field_name("left")
            if left is not None:
                return self.text(left)
            parent = parent.parent
        if parent is not None and parent.type == "init_declarator":
            declarator = parent.child_by_field_name("declarator")
            return self.text(declarator).lstrip("* ") if declarator is not None else ""
        return ""

    def make(self, kind: str, n: Node, *edits: Edit) -> Mutant:
        return Mutant(kind, self.line + n.start_point[0], edits)

    def around(self, n: Node, before: str = "", after: str = "") -> tuple[Edit, ...]:
        """Statements put before and after the statement `n`, in a block of their own."""
        at, end = offset(n), self.end(n)
        return (at, at, "{ " + before), (end, end, after + " }")

    def statement(self, call: Node) -> Node | None:
        parent = call.parent
        return parent if parent is not None and parent.type == "expression_statement" else None

    # Classes

    def mutants(self) -> Iterator[Mutant]:
        for call in self.calls:
            name, statement = self.name(call), self.statement(call)
            if statement is not None and name in UNMAPS:
                yield from self.unmap(call, statement)
            elif statement is not None and name in LOCKS | UNLOCKS:
                yield from self.lock(call, statement)
            elif _SAME.search(name):
                yield from self.recheck(call)
            elif name in MAPS:
                yield from self.map(call)
            elif name == "pte_free_defer":
                at = offset(call)
                yield self.make("freed at once", call, (at, at + len(name), "pte_free"))
        yield from self.checks()
        yield from self.orders()

    def unmap(self, call: Node, statement: Node) -> Iterator[Mutant]:
        args, text = self.args(call), self.text(statement)
        at, end = offset(statement), self.end(statement)
        pointer = re.sub(r"\s*-\s*1$", "", args[0])
        yield self.make("dropped unmap", call, (at, end, ";"))
        yield self.make("doubled unmap", call, *self.around(statement, after=" " + text))
        yield self.make("use after unmap", call, *self.around(statement, after=f" seen(ptep_get({pointer}));"))
        yield self.make("sleep while mapped", call, *self.around(statement, before="cond_resched(); "))
        yield self.make("allocation while mapped", call, *self.around(statement, before="p = kmalloc(8, GFP_KERNEL); "))
        yield self.make("local pointer", call, (at, end, text.replace(args[0], "&local_entry", 1)))
        if pointer == args[0]:
            yield self.make("past the table", call, *self.around(statement, before=f"{pointer}++; "))
        else:
            yield self.make("not moved back", call, (at, end, text.replace(args[0], pointer, 1)))
        if self.name(call) == "pte_unmap_unlock":
            yield self.make("unlock forgotten", call, (at, end, f"pte_unmap({args[0]});"))
            yield self.make("unmap forgotten", call, (at, end, f"spin_unlock({args[1]});"))
            write = f"{{ spin_unlock({args[1]}); set_pte_at(mm, addr, {pointer}, entry); pte_unmap({args[0]}); }}"
            yield self.make("write after unlock", call, (at, end, write))
        previous = statement.prev_named_sibling
        if previous is not None and previous.type == "expression_statement" and self.uses(previous, pointer):
            before = self.text(previous)
            yield self.make("unmap too early", call, (offset(previous), end, f"{text} {before}"))

    def uses(self, n: Node, pointer: str) -> bool:
        """Whether `n` follows the pointer, by an access that is the interface's or C's own."""
        p = re.escape(pointer)
        text = self.text(n)
        return re.search(
            rf"(?:pte\w*|set_\w+)\([^;]*(?<![\w>.]){p}(?!\w|->|\.)|\*{p}(?!\w)", text
        ) is not None and not (
            re.search(rf"(?<![\w>.]){p}\s*=[^=]", text) or re.match(r"(?:pte_unmap|spin_unlock|trace_)", text)
        )

    def lock(self, call: Node, statement: Node) -> Iterator[Mutant]:
        args = self.args(call)
        if args and args[0] in self.locks:
            kind = "lock dropped" if self.name(call) in LOCKS else "unlock dropped"
            yield self.make(kind, call, (offset(statement), self.end(statement), ";"))

    def recheck(self, call: Node) -> Iterator[Mutant]:
        """A comparison of what is there with what was, that always says that nothing has changed."""
        if "_same" in self.name(call) and not re.search(r"get|\*", " ".join(self.args(call))):
            return  # of two values that were both read before
        if any(self.name(c) == "pte_offset_map_rw_nolock" for c in self.calls):
            same = "0" if "changed" in self.name(call) else "1"
            yield self.make("dropped recheck", call, (offset(call), self.end(call), same))

    def map(self, call: Node) -> Iterator[Mutant]:
        name, args = self.name(call), self.args(call)
        at, end = offset(call), self.end(call)
        if name == "pte_offset_map_rw_nolock" and len(args) == 5:
            lock = args[4].lstrip("&")
            locks = [c for c in self.calls if self.name(c) in LOCKS and self.args(c) and self.args(c)[0] == lock]
            first = next((s for c in locks if offset(c) > end and (s := self.statement(c)) is not None), None)
            if first is not None and args[3].startswith("&") and args[4].startswith("&"):
                look = f"{{ {lock} = pte_lockptr({args[0]}, {args[1]}); {self.text(first)} }}"
                edits = [(offset(c), self.end(c), "1") for c in self.calls if _SAME.search(self.name(c))]
                plain = (at, end, f"pte_offset_map({args[1]}, {args[2]})")
                yield self.make("lock by a second look", call, plain, (offset(first), self.end(first), look), *edits)
                yield self.make("read-only map", call, (at, end,
                    f"pte_offset_map_ro_nolock({args[0]}, {args[1]}, {args[2]}, {args[4]})"))  # fmt: skip
        if name in ("pte_offset_map_lock", "pte_alloc_map_lock") and len(args) == 4:
            new = f"pte_offset_map_ro_nolock({', '.join(args)})"
            yield self.make("lock not taken", call, (at, end, new))
            yield self.make("kernel lookup", call, (at, end, f"pte_offset_kernel({args[1]}, {args[2]})"))
        if name == "pte_offset_map" and len(args) == 2:
            yield self.make("kernel lookup", call, (at, end, f"pte_offset_kernel({args[0]}, {args[1]})"))
        yield from self.endless(call)

    def checks(self) -> Iterator[Mutant]:
        for n in self.nodes:
            if n.type == "unary_expression" and self.text(n).startswith("!"):
                inner = _bare(n.child_by_field_name("argument"))
                if inner is not None and self.is_map(inner) and _in_condition(n):
                    yield self.make("dropped check", n, *self.constant(n, inner, "0"))
            elif n.type == "if_statement":
                condition = _bare(n.child_by_field_name("condition"))
                inner = self.likely(condition)
                if inner is not None and self.is_map(inner):
                    yield self.make("dropped check", n, *self.constant(inner, inner, "1"))

    def constant(self, n: Node, inner: Node, value: str) -> tuple[Edit, ...]:
        """`value` in the place of `n`; an assignment in it is still made."""
        made = f"(({self.text(inner)}), {value})" if inner.type != "identifier" and "=" in self.text(inner) else value
        return ((offset(n), self.end(n), made),)

    def likely(self, n: Node | None) -> Node | None:
        if n is not None and n.type == "call_expression" and self.name(n) in ("likely", "unlikely"):
            arguments = n.child_by_field_name("arguments")
            return _bare(arguments.named_children[0]) if arguments is not None and arguments.named_children else None
        return n

    def is_map(self, n: Node) -> bool:
        if n.type == "assignment_expression":
            right = _bare(n.child_by_field_name("right"))
            return right is not None and right.type == "call_expression" and self.name(right) in self.mapping
        return n.type in ("identifier", "field_expression") and self.text(n) in self.pointers

    def endless(self, call: Node) -> Iterator[Mutant]:
        """Where the check after a map gives up, it maps again."""
        statement = call
        while statement.parent is not None and not statement.type.endswith(("statement", "declaration")):
            statement = statement.parent
        check = statement.next_named_sibling
        if statement.type != "expression_statement" or check is None or check.type != "if_statement":
            return
        condition = self.likely(_bare(check.child_by_field_name("condition")))
        consequence = check.child_by_field_name("consequence")
        if condition is not None and consequence is not None and self.text(condition) == "!" + self.target(call):
            at = offset(statement)
            yield self.make("endless retry", call, (at, at, "try_once_more: "),
                            (offset(consequence), self.end(consequence), "goto try_once_more;"))  # fmt: skip

    def orders(self) -> Iterator[Mutant]:
        """Two unmaps in a row, swapped."""
        for call in self.calls:
            first = self.statement(call)
            second = first.next_named_sibling if first is not None and self.name(call) in _ENDS else None
            if first is None or second is None or second.type != "expression_statement":
                continue
            other = second.named_children[0]
            if other.type == "call_expression" and self.name(other) in _ENDS and self.args(other) != self.args(call):
                swapped = f"{self.text(second)} {self.text(first)}"
                yield self.make("order swapped", call, (offset(first), self.end(second), swapped))


def _all(node: Node) -> Iterable[Node]:
    pending = [node]
    while pending:
        n = pending.pop()
        yield n
        pending.extend(reversed(n.children))


def _bare(n: Node | None) -> Node | None:
    while n is not None and n.type == "parenthesized_expression" and n.named_children:
        n = n.named_children[0]
    return n


def _in_condition(n: Node) -> bool:
    """Whether the value decides an `if` or a loop."""
    below: Node = n
    above = n.parent
    while above is not None and not above.type.endswith("statement"):
        below, above = above, above.parent
    return above is not None and above.child_by_field_name("condition") == below


def mutants(function: Function, gives: Callable[[str], bool]) -> list[Mutant]:
    """`gives` says whether a function, by its name, returns a table that may not be there."""
    called = set(re.findall(r"\b(\w+)\s*\(", function.body))
    return list(Sites(function, frozenset(filter(gives, called))).mutants())

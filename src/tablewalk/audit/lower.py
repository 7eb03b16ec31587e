# SPDX-License-Identifier: GPL-2.0-only
"""Statements of a syntax tree to a graph; what is inside of expressions is in `expressions`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tree_sitter import Node

from tablewalk.audit.expressions import Ends, Expressions
from tablewalk.audit.flow import Constant, Graph, Nop, Return, Select, Stop, Value
from tablewalk.audit.grammar import parse
from tablewalk.audit.text import Function

_IGNORED = frozenset(("comment", "{", "}", ";", "type_definition", "function_definition", "preproc_call"))
_LOOPS = frozenset(("while_statement", "do_statement", "for_statement"))


@dataclass(slots=True)
class _Exits:
    """Loose ends of a loop or switch: of its breaks and of its continues."""

    breaks: Ends = field(default_factory=list)
    continues: Ends | None = None  # None for a switch


@dataclass(slots=True)
class Lowered:
    graph: Graph
    tree: Node


def lower(function: Function) -> Lowered | None:
    """`function` as a graph, or None where it is too long or too deep."""
    tree = parse(function.body)
    if tree is None:
        return None
    statements = Statements(function)
    statements.block(tree)
    statements.finish()
    return Lowered(statements.graph, tree)


class Statements(Expressions):
    def __init__(self, function: Function) -> None:
        super().__init__(function.body, function.body_line)
        self._last_line = function.body_line + function.body.count("\n")
        self._exits: list[_Exits] = []
        self._labels: dict[str, int] = {}
        self._gotos: list[tuple[Ends, str]] = []
        self.ends = [(self.graph.add(Nop(function.line)), 0)]

    def finish(self) -> None:
        self.emit(Return(self._last_line, None))
        for ends, label in self._gotos:
            self.join(ends, self._labels[label] if label in self._labels else self.graph.add(Stop(self._last_line)))

    def block(self, node: Node) -> None:
        for child in node.children:
            self.statement(child)

    def statement(self, n: Node) -> None:
        kind = n.type
        if kind in _IGNORED:
            return
        if kind in _LOOPS:
            self._loop(n, kind)
        elif kind == "declaration":
            self._declaration(n)
        elif (handler := _STATEMENTS.get(kind)) is not None:
            handler(self, n)
        elif kind in ("compound_statement", "ERROR", "attributed_statement", "else_clause"):
            self.block(n)
        else:
            self.value(n)

    def _expression(self, n: Node) -> None:
        for child in n.named_children:
            self.value(child)

    def _declaration(self, n: Node) -> None:
        for child in n.named_children:
            if child.type == "init_declarator":
                declarator, value = child.child_by_field_name("declarator"), child.child_by_field_name("value")
                if declarator is not None and value is not None:
                    self.assign(self.text(declarator).replace("*", ""), "=", self.value(value), self.line(n))

    def _if(self, n: Node) -> None:
        condition, consequence = n.child_by_field_name("condition"), n.child_by_field_name("consequence")
        if condition is None or consequence is None:
            return self.block(n)
        yes, no = self.branch(condition)
        self.ends = yes
        self.statement(consequence)
        yes = self.ends
        self.ends = no
        alternative = n.child_by_field_name("alternative")
        if alternative is not None:
            self.statement(alternative)
        self.ends = yes + self.ends
        return None

    def _loop(self, n: Node, kind: str) -> None:
        initializer, condition = n.child_by_field_name("initializer"), n.child_by_field_name("condition")
        update, body = n.child_by_field_name("update"), n.child_by_field_name("body")
        if initializer is not None:
            self.statement(initializer)
        head = self.here(self.line(n))
        exits = _Exits(continues=[])
        self._exits.append(exits)
        no: Ends = []
        if kind != "do_statement" and condition is not None:
            self.ends, no = self.branch(condition)
        if body is not None:
            self.statement(body)
        self.ends = self.ends + (exits.continues or [])
        if kind == "do_statement" and condition is not None:
            self.ends, no = self.branch(condition)
        if update is not None:
            self.value(update)
        self.join(self.ends, head)
        self._exits.pop()
        self.ends = no + exits.breaks

    def _switch(self, n: Node) -> None:
        condition, body = n.child_by_field_name("condition"), n.child_by_field_name("body")
        if condition is None or body is None:
            return
        value = self.value(condition)
        line = self.line(n)
        groups = [c for c in body.named_children if c.type == "case_statement"]
        merged: list[tuple[list[Constant], list[Node]]] = []
        default = False
        for case in groups:
            label = case.child_by_field_name("value")
            statements = [c for c in case.named_children if c != label]
            default |= label is None
            constants: list[Constant] = [] if label is None else [self.constant_of(label)]
            if merged and not merged[-1][1] and merged[-1][0] and constants:
                merged[-1][0].extend(constants)
                merged[-1][1].extend(statements)
            else:
                merged.append((constants, statements))
        if not default:
            merged.append(([], []))
        select = self.graph.add(Select(line, value, tuple(tuple(c) for c, _ in merged)), len(merged))
        self.join(self.ends, select)
        self._exits.append(_Exits())
        self.ends = []
        for way, (_, statements) in enumerate(merged):
            if not default and way == len(merged) - 1:
                self.ends.append((select, way))  # no case matches
                break
            self.ends = [*self.ends, (select, way)]
            for statement in statements:
                self.statement(statement)
        self.ends = self.ends + self._exits.pop().breaks

    def _return(self, n: Node) -> None:
        value = self.value(n.named_children[0]) if n.named_children else None
        node = self.graph.add(Return(self.line(n), value), 0)
        self.join(self.ends, node)
        self.ends = []

    def _break(self, n: Node) -> None:
        if self._exits:
            self._exits[-1].breaks += self.ends
        self.ends = []

    def _continue(self, n: Node) -> None:
        for exits in reversed(self._exits):
            if exits.continues is not None:
                exits.continues += self.ends
                break
        self.ends = []

    def _goto(self, n: Node) -> None:
        label = n.child_by_field_name("label")
        self._gotos.append((self.ends, self.text(label) if label is not None else ""))
        self.ends = []

    def _labeled(self, n: Node) -> None:
        label = n.child_by_field_name("label")
        if label is not None:
            self._labels[self.text(label)] = self.here(self.line(n))
        for child in n.named_children:
            if child != label:
                self.statement(child)

    def statement_expression(self, n: Node) -> Value:
        """GNU C's `({ ... })`: its value is that of the last expression."""
        last = Value("")
        for child in n.children:
            if child.type == "expression_statement" and child.named_children:
                last = self.value(child.named_children[0])
            else:
                self.statement(child)
        return last


_STATEMENTS = {
    "expression_statement": Statements._expression,
    "if_statement": Statements._if,
    "switch_statement": Statements._switch,
    "return_statement": Statements._return,
    "break_statement": Statements._break,
    "continue_statement": Statements._continue,
    "goto_statement": Statements._goto,
    "labeled_statement": Statements._labeled,
}

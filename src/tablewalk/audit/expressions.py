# SPDX-License-Identifier: GPL-2.0-only
"""Expressions of a syntax tree to operations, and conditions to two ways on."""

from __future__ import annotations

import re
from dataclasses import replace

from tree_sitter import Node

from tablewalk.audit.flow import Call, Constant, Graph, Nop, Op, Set, Step, Stop, Test, Use, Value, constant
from tablewalk.audit.grammar import offset

Ends = list[tuple[int, int]]  # operations whose way on, the first or the second, is not known yet

_BLANKS = re.compile(r"\s+")
_LEAVES = frozenset(
    ("identifier", "number_literal", "string_literal", "char_literal", "comment", "null", "true", "false",
     "field_identifier", "sizeof_expression", "concatenated_string", "type_descriptor", "offsetof_expression")
)  # fmt: skip
TRANSPARENT = frozenset(
    ("likely", "unlikely", "READ_ONCE", "data_race", "WARN_ON", "WARN_ON_ONCE", "VM_WARN_ON", "VM_WARN_ON_ONCE", "WARN",
     "WARN_ONCE", "VM_WARN_ON_FOLIO", "VM_WARN_ON_ONCE_FOLIO", "VM_WARN_ON_ONCE_PAGE", "VM_WARN_ON_ONCE_VMA",
     "__builtin_expect", "WARN_RATELIMIT")
)  # fmt: skip
_ASSERTIONS = frozenset(
    ("BUG_ON", "VM_BUG_ON", "VM_BUG_ON_PAGE", "VM_BUG_ON_FOLIO", "VM_BUG_ON_VMA", "VM_BUG_ON_MM", "assert")
)
_NO_RETURN = frozenset(
    ("BUG", "panic", "do_exit", "make_task_dead", "unreachable", "__builtin_unreachable", "die", "do_group_exit")
)


class Expressions:
    """Builds a graph; `ends` are the loose ends where the next operation goes."""

    def __init__(self, body: str, line: int) -> None:
        self.graph = Graph()
        self.ends: Ends = []
        self._body = body
        self._line = line

    # Pieces of the graph

    def emit(self, op: Op, ways: int = 1) -> int:
        node = self.graph.add(op, ways)
        self.join(self.ends, node)
        self.ends = [(node, 0)]
        return node

    def here(self, line: int) -> int:
        return self.emit(Nop(line))

    def join(self, ends: Ends, to: int) -> None:
        for node, way in ends:
            self.graph.next[node][way] = to

    def line(self, n: Node) -> int:
        return self._line + n.start_point[0]

    def text(self, n: Node) -> str:
        at = offset(n)
        return _BLANKS.sub("", self._body[at : at + n.end_byte - n.start_byte])

    def constant_of(self, n: Node) -> Constant:
        text = self.text(n)
        found = constant(text)
        return text if found is None else found

    # Values

    def value(self, n: Node) -> Value:
        kind = n.type
        if kind in _LEAVES:
            text = self.text(n)
            return Value(text, text if kind == "identifier" else "", constant=constant(text))
        handler = _VALUES.get(kind)
        if handler is not None:
            return handler(self, n)
        for child in n.named_children:
            self.value(child)
        return Value(self.text(n))

    def statement_expression(self, n: Node) -> Value:
        raise NotImplementedError

    def _inner(self, n: Node) -> Value:
        inner = [c for c in n.named_children if c.type != "comment"]
        if inner and inner[0].type == "compound_statement":
            return self.statement_expression(inner[0])
        return self.value(inner[-1]) if inner else Value("")

    def _compound(self, n: Node) -> Value:
        return self.statement_expression(n)  # of the class that knows statements

    def _comma(self, n: Node) -> Value:
        value = Value("")
        for c in n.named_children:
            if c.type != "comment":
                value = self.value(c)
        return value

    def _cast(self, n: Node) -> Value:
        inner = n.child_by_field_name("value")
        return self.value(inner) if inner is not None else Value("")

    def _call(self, n: Node) -> Value:
        function, arguments = n.child_by_field_name("function"), n.child_by_field_name("arguments")
        if function is None or arguments is None:
            return Value("")
        name = self.text(function)
        nodes = [c for c in arguments.named_children if c.type != "comment"]
        if name in _ASSERTIONS and nodes:
            bad, self.ends = self.branch(nodes[0])
            self.join(bad, self.graph.add(Stop(self.line(n)), 0))
            return Value("")
        if name in TRANSPARENT and nodes:
            values = [self.value(c) for c in nodes]
            return values[0]
        if function.type not in ("identifier", "field_expression"):
            self.value(function)
        args = tuple(self.value(c) for c in nodes)
        result = f"${offset(n)}"
        self.emit(Call(self.line(n), name, args, result))
        if name in _NO_RETURN:
            self.join(self.ends, self.graph.add(Stop(self.line(n)), 0))
            self.ends = []
        return Value(self.text(n), result)

    def _assignment(self, n: Node) -> Value:
        left, right = n.child_by_field_name("left"), n.child_by_field_name("right")
        operator = n.child_by_field_name("operator")
        if left is None or right is None or operator is None:
            return Value("")
        value = self.value(right)
        target = self.value_of_target(left)
        return self.assign(target, self.text(operator), value, self.line(n))

    def assign(self, place: str, operator: str, value: Value, line: int) -> Value:
        self.emit(Set(line, place, value, "=" if operator == "=" else operator.rstrip("=")))
        return Value(place, place, constant=value.constant if operator == "=" else None)

    def value_of_target(self, n: Node) -> str:
        """The place that an assignment changes; what leads there is used."""
        while n.type == "parenthesized_expression" and n.named_children:
            n = n.named_children[0]
        if n.type == "pointer_expression":
            argument = n.child_by_field_name("argument")
            if argument is not None and argument.type == "update_expression":
                return self.value(n).text
        return self.value(n).place or self.text(n)

    def _conditional(self, n: Node) -> Value:
        parts = [n.child_by_field_name(f) for f in ("condition", "consequence", "alternative")]
        if parts[0] is None or parts[2] is None:
            return Value("")
        result = f"?{offset(n)}"
        yes, no = self.branch(parts[0])
        loose: Ends = []
        for ends, part in ((yes, parts[1]), (no, parts[2])):
            self.ends = ends
            value = Value("") if part is None else self.value(part)
            if self.ends:
                self.emit(Set(self.line(n), result, value))
            loose += self.ends
        self.ends = loose
        return Value(self.text(n), result)

    def _truth(self, n: Node) -> Value:
        """The value 1 or 0 of a condition."""
        result = f"?{offset(n)}"
        loose: Ends = []
        for ends, number in zip(self.branch(n), (1, 0), strict=True):
            self.ends = ends
            if self.ends:
                self.emit(Set(self.line(n), result, Value(str(number), constant=number)))
            loose += self.ends
        self.ends = loose
        return Value(self.text(n), result)

    def _binary(self, n: Node) -> Value:
        left, right, operator = self._operands(n)
        if left is None or right is None:
            return Value("")
        if operator in ("&&", "||"):
            return self._truth(n)
        a, b = self.value(left), self.value(right)
        text = self.text(n)
        if operator in ("+", "-") and a.place and not a.address:
            return Value(text, a.place, shift=operator if b.constant != 0 else a.shift)
        if operator == "+" and b.place:
            return Value(text, b.place, shift="+")
        return Value(text, constant=constant(text))

    def _operands(self, n: Node) -> tuple[Node | None, Node | None, str]:
        operator = n.child_by_field_name("operator")
        return n.child_by_field_name("left"), n.child_by_field_name("right"), self.text(operator) if operator else ""

    def _unary(self, n: Node) -> Value:
        if self.text(n).startswith("!"):
            return self._truth(n)
        argument = n.child_by_field_name("argument")
        if argument is not None:
            self.value(argument)
        text = self.text(n)
        return Value(text, constant=constant(text))

    def _pointer(self, n: Node) -> Value:
        argument = n.child_by_field_name("argument")
        if argument is None:
            return Value("")
        if self.text(n).startswith("&"):
            inner = self._target_of_address(argument)
            return Value("&" + inner.text, inner.place or inner.text, address=True)
        inner = self.value(argument)
        if inner.address:
            return Value(inner.place, inner.place)
        if inner.place:
            self.emit(Use(self.line(n), inner.place))
        return Value("*" + inner.text, "*" + inner.text)

    def _target_of_address(self, n: Node) -> Value:
        """`&a->b` and `&a[i]` compute an address and access nothing."""
        while n.type == "parenthesized_expression" and n.named_children:
            n = n.named_children[0]
        if n.type == "field_expression":
            return self._field_place(n)
        if n.type == "subscript_expression":
            argument, index = n.child_by_field_name("argument"), n.child_by_field_name("index")
            if argument is not None and index is not None:
                self.value(index)
                inner = self.value(argument)
                return replace(inner, text=self.text(n))
        return self.value(n)

    def _field_place(self, n: Node) -> Value:
        argument, name = n.child_by_field_name("argument"), n.child_by_field_name("field")
        if argument is None or name is None:
            return Value("")
        inner = self.value(argument)
        base, arrow = (inner.place, ".") if inner.address else (inner.text, "->" if "->" in self._arrow(n) else ".")
        text = f"{base}{arrow}{self.text(name)}"
        return Value(text, text)

    def _arrow(self, n: Node) -> str:
        return "".join(self.text(c) for c in n.children if not c.is_named)

    def _field(self, n: Node) -> Value:
        return self._field_place(n)

    def _subscript(self, n: Node) -> Value:
        argument, index = n.child_by_field_name("argument"), n.child_by_field_name("index")
        if argument is None or index is None:
            return Value("")
        inner = self.value(argument)
        self.value(index)
        if inner.place:
            self.emit(Use(self.line(n), inner.place))
        text = self.text(n)
        return Value(text, text)

    def _update(self, n: Node) -> Value:
        argument = n.child_by_field_name("argument")
        if argument is None:
            return Value("")
        text = self.text(n)
        forward, prefix = "++" in text, text.startswith(("++", "--"))
        if not prefix and argument.type in ("unary_expression", "pointer_expression"):
            # tree-sitter takes `*p++` for `(*p)++`, and `!p++` likewise.
            inner = argument.child_by_field_name("argument")
            if inner is not None and argument.type == "pointer_expression" and self.text(argument).startswith("*"):
                place = self.value(inner).place
                self.emit(Use(self.line(n), place))
                self.emit(Step(self.line(n), place, forward))
                return Value("*" + place)
        place = self.value(argument).place or self.text(argument)
        self.emit(Step(self.line(n), place, forward))
        return Value(text, place)

    # Conditions

    def branch(self, n: Node) -> tuple[Ends, Ends]:
        """The loose ends where the condition `n` holds, and where it does not."""
        if not self.ends:
            return [], []
        kind = n.type
        if kind in ("parenthesized_expression", "cast_expression"):
            inner = n.child_by_field_name("value") if kind == "cast_expression" else _only(n)
            if inner is not None and inner.type != "compound_statement":
                return self.branch(inner)
        if kind == "unary_expression" and self.text(n).startswith("!"):
            argument = n.child_by_field_name("argument")
            if argument is not None:
                yes, no = self.branch(argument)
                return no, yes
        if kind == "call_expression":
            inner = self._transparent(n)
            if inner is not None:
                return self.branch(inner)
        if kind == "comma_expression":
            left, right = n.child_by_field_name("left"), n.child_by_field_name("right")
            if left is not None and right is not None:
                self.value(left)
                return self.branch(right)
        if kind == "update_expression":
            found = self._negated_update(n)
            if found:
                return found
        if kind == "binary_expression":
            return self._branch_binary(n)
        value = self.value(n)
        return self._decide(self.line(n), value)

    def _decide(self, line: int, value: Value) -> tuple[Ends, Ends]:
        if isinstance(value.constant, int):
            return (self.ends, []) if value.constant else ([], self.ends)
        node = self.graph.add(Test(line, value.text, value), 2)
        self.join(self.ends, node)
        return [(node, 0)], [(node, 1)]

    def _transparent(self, n: Node) -> Node | None:
        function, arguments = n.child_by_field_name("function"), n.child_by_field_name("arguments")
        if function is None or arguments is None or self.text(function) not in TRANSPARENT:
            return None
        return arguments.named_children[0] if arguments.named_children else None

    def _negated_update(self, n: Node) -> tuple[Ends, Ends] | None:
        """`!p++`, which tests what p was."""
        argument = n.child_by_field_name("argument")
        if argument is None or argument.type != "unary_expression" or not self.text(argument).startswith("!"):
            return None
        inner = argument.child_by_field_name("argument")
        if inner is None:
            return None
        value = self.value(inner)
        yes, no = self._decide(self.line(n), value)
        after: list[Ends] = []
        for ends in (no, yes):
            self.ends = ends
            if ends:
                self.emit(Step(self.line(n), value.place, self.text(n).endswith("++")))
            after.append(self.ends)
        return after[0], after[1]

    def _branch_binary(self, n: Node) -> tuple[Ends, Ends]:
        left, right, operator = self._operands(n)
        if left is None or right is None:
            return self.ends, list(self.ends)
        if operator in ("&&", "||"):
            yes, no = self.branch(left)
            self.ends = yes if operator == "&&" else no
            yes2, no2 = self.branch(right)
            return (yes2, no + no2) if operator == "&&" else (yes + yes2, no2)
        if operator in ("==", "!=") and constant(self.text(right)) == 0:
            yes, no = self.branch(left)
            return (no, yes) if operator == "==" else (yes, no)
        a, b = self.value(left), self.value(right)
        line = self.line(n)
        if operator not in ("==", "!=", "<", "<=", ">", ">="):
            return self._decide(line, Value(self.text(n), constant=constant(self.text(n))))
        positive, swapped = {"!=": ("==", True), ">": ("<=", True), ">=": ("<", True)}.get(operator, (operator, False))
        node = self.graph.add(Test(line, f"{a.text}{positive}{b.text}", a, positive, b), 2)
        self.join(self.ends, node)
        yes, no = [(node, 0)], [(node, 1)]
        return (no, yes) if swapped else (yes, no)


def _only(n: Node) -> Node | None:
    inner = [c for c in n.named_children if c.type != "comment"]
    return inner[0] if len(inner) == 1 else None


_VALUES = {
    "parenthesized_expression": Expressions._inner,
    "cast_expression": Expressions._cast,
    "call_expression": Expressions._call,
    "assignment_expression": Expressions._assignment,
    "conditional_expression": Expressions._conditional,
    "binary_expression": Expressions._binary,
    "unary_expression": Expressions._unary,
    "pointer_expression": Expressions._pointer,
    "field_expression": Expressions._field,
    "subscript_expression": Expressions._subscript,
    "update_expression": Expressions._update,
    "comma_expression": Expressions._comma,
    "compound_statement": Expressions._compound,
}

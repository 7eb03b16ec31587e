# SPDX-License-Identifier: GPL-2.0-only
"""Function bodies to syntax trees, by tree-sitter, after repairs of what macros do to C's grammar.

Repairs keep every character's place, so that nodes still say where they are.
"""

from __future__ import annotations

import re

import tree_sitter_c
from tree_sitter import Language, Node, Parser

from tablewalk.audit.text import blank, closing

MAX_BODY = 300_000  # characters; the kernel's longest function has a tenth of it
MAX_DEPTH = 150  # of brackets in brackets
_PREFIX = "int f()"
_PARSER = Parser(Language(tree_sitter_c.language()))

_NOISE = re.compile(
    r"(?<![\w.>])(?:__(?:maybe_unused|always_unused|user|iomem|percpu|rcu|force|kernel|used|initdata|read_mostly"
    r"|always_inline|private|packed|unused|ro_after_init)|noinline|register|asmlinkage)\b(?!\s*[=(.])"
    r"|(?<![\w.>])__(?:attribute__|free|cleanup|aligned|section|private|guarded_by)\s*\((?:[^()\n]|\([^()\n]*\))*\)"
)
_ASM = re.compile(r"\b(?:asm|__asm__|asm_inline)\b(?:\s*(?:volatile|__volatile__|goto|inline))*\s*\(")
_BLOCK_MACRO = re.compile(r"\b([a-zA-Z_]\w*)\s*\(")
_OWN_BLOCKS = frozenset(("if", "while", "for", "switch", "sizeof", "typeof", "return"))
_ONCE = re.compile(r"guard|with_|^if_")
_EACH = re.compile(r"for_?each|^list_for|^hlist|_for_|^for_|^loop_")
_TYPE_WORD = r"(?:const\s+|volatile\s+)?(?:struct|union|enum|unsigned|signed|long|short|int|char|void|const)"
_TYPE_ARGUMENT = re.compile(
    rf"(?<=[(,])(\s*)({_TYPE_WORD}\b(?:\s+\w+)*\s*\**)(?=\s*,)|(?<=,)(\s*)({_TYPE_WORD}\b(?:\s+\w+)*\s*\**)(?=\s*\))"
)
_RANGE = re.compile(r"(\bcase\b[^:;{}\n]*?)\.\.\.([^:;{}\n]*)(?=:)")
_AUTO = re.compile(r"(?<![\w.>])(?:__auto_type|auto)(?=\s+\w+\s*=)")
_TYPEOF = re.compile(r"(?<![\w.>])(?:__)?typeof(?:__|_unqual)?\s*\(")


def parse(body: str) -> Node | None:
    """The block of `body` as a tree, or None where it is too long or too deep to be a function of anybody's."""
    if len(body) > MAX_BODY or _depth(body) > MAX_DEPTH:
        return None
    text = repair(body)
    tree = _PARSER.parse((_PREFIX + text).encode("latin-1", "replace").replace(b"\0", b" "))
    for child in tree.root_node.children:
        if child.type == "function_definition":
            block = child.child_by_field_name("body")
            if block is not None:
                return block
    return tree.root_node


def offset(node: Node) -> int:
    """Where `node` begins in the body that was given to `parse`."""
    return node.start_byte - len(_PREFIX)


def _depth(text: str) -> int:
    depth = deepest = 0
    for m in re.finditer(r"[({\[\]})]", text):
        depth += 1 if m[0] in "({[" else -1
        deepest = max(deepest, depth)
    return deepest


def repair(body: str) -> str:
    """`body` in the C that tree-sitter knows, character by character where it was."""
    text = body.encode("ascii", "replace").decode()
    text = _NOISE.sub(lambda m: blank(m[0]), text)
    text = _AUTO.sub(lambda m: "int".ljust(len(m[0])), text)
    text = _RANGE.sub(lambda m: m[1] + blank("..." + m[2]), text)
    text = _parenthesised(text, _TYPEOF, "int")
    text = _parenthesised(text, _ASM, "0")
    text = _TYPE_ARGUMENT.sub(_type_as_name, text)
    return _block_macros(text)


def _parenthesised(text: str, pattern: re.Pattern[str], instead: str) -> str:
    """Each `word(...)` that begins as `pattern` becomes `instead`."""
    parts = []
    at = 0
    for m in pattern.finditer(text):
        if m.start() < at:
            continue
        end = closing(text, m.end() - 1)
        if end is None:
            break
        parts += [text[at : m.start()], _instead(text[m.start() : end + 1], instead)]
        at = end + 1
    return "".join((*parts, text[at:]))


def _instead(text: str, word: str) -> str:
    """`word`, then blanks, in the shape of `text`, whose first line must be long enough."""
    return word + blank(text)[len(word) :]


def _type_as_name(m: re.Match[str]) -> str:
    gap, words = (m[1], m[2]) if m[2] else (m[3], m[4])
    return gap + re.sub(r"[\s*]", "_", words)


def _block_macros(text: str) -> str:
    """`for_each_vma(...)` and the like before a statement become loops, guards become blocks."""
    parts = []
    at = 0
    for m in _BLOCK_MACRO.finditer(text):
        word = m[1]
        if m.start() < at or word in _OWN_BLOCKS:
            continue
        end = _statement_follows(text, m)
        if end is None:
            continue
        once = _ONCE.search(word) is not None
        head = "if(1)" if once else "while(_)"
        span = text[m.start() : end + 1]
        if len(span.split("\n", 1)[0]) < len(head):
            continue
        parts += [text[at : m.start()], _instead(span, head)]
        at = end + 1
    return "".join((*parts, text[at:]))


def _statement_follows(text: str, m: re.Match[str]) -> int | None:
    """Where the parentheses of a macro end that heads a statement."""
    before = text[: m.start()].rstrip()
    if before and before[-1] not in ";{}:)" and not before.endswith("else"):
        return None
    end = closing(text, m.end() - 1)
    if end is None:
        return None
    after = text[end + 1 :].lstrip()
    if after.startswith("{"):
        return end
    if _EACH.search(m[1]) and re.match(r"[\w*(]", after):
        return end
    return None


def errors(node: Node) -> list[int]:
    """Offsets of what the grammar did not understand, the first few."""
    found: list[int] = []
    if not node.has_error:
        return found
    pending = [node]
    while pending and len(found) < 5:
        n = pending.pop()
        if n.type == "ERROR" or n.is_missing:
            found.append(offset(n))
        elif n.has_error:
            pending.extend(reversed(n.children))
    return found

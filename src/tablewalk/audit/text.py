# SPDX-License-Identifier: GPL-2.0-only
"""C source as text: comments blanked, functions found by their braces.

Everything keeps its place: what is taken away becomes blanks, so an offset in any of these texts is an offset in
the file.  Text is the file's bytes as Latin-1, one character a byte.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass

_LITERAL = re.compile(
    r"/\*.*?(?:\*/|\Z)"
    r"|//(?:\\\r?\n|[^\n])*"
    r"|^[ \t]*\#[ \t]*(?:error|warning)\b[^\n]*"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'(?:\\[^\n]{1,10}?|[^'\\\n])'",
    re.S | re.M,
)
_NOT_NEWLINE = re.compile(r"[^\n]")
_BRACE = re.compile(r"[{}]")
_GROUP = re.compile(r"(\w+)\s*\(")
_SYSCALL = re.compile(r"(?:COMPAT_)?SYSCALL_DEFINE(?:\d|_MAXARGS)?$|BPF_CALL_\d$")
ATTRIBUTE = re.compile(
    r"__(?:releases|acquires|must_hold|cond_acquires|releases_shared|acquires_shared|attribute__|attribute|printf|scanf"
    r"|section|aligned|alloc_size|counted_by|no_sanitize\w*|context__|cond_lock|malloc|assume_aligned|diagnose_as)$"
)
_NO_FUNCTION = re.compile(r"\b(?:struct|union|enum)\s+\w*\s*$|=\s*(?:\([^()]*\)\s*)?$|\benum\b[^()]*$|^\s*typedef\b")
_KEYWORDS = frozenset(("if", "while", "for", "switch", "return", "sizeof", "do", "else", "typeof", "defined"))


def blank(text: str) -> str:
    """As many blanks as `text` has characters, in as many lines."""
    return _NOT_NEWLINE.sub(" ", text)


def code_only(text: str) -> str:
    """`text` without comments and without what stands in strings and character constants."""

    def sub(m: re.Match[str]) -> str:
        word = m[0]
        if word[0] == '"':
            return '"' + blank(word[1:-1]) + '"'
        if word[0] == "'":
            return "'" + "0" * (len(word) - 2) + "'"
        return blank(word)

    return _LITERAL.sub(sub, text)


class Lines:
    """Line numbers of offsets."""

    def __init__(self, text: str) -> None:
        self._starts = [m.end() for m in re.finditer("\n", text)]

    def at(self, offset: int) -> int:
        return bisect.bisect_right(self._starts, offset) + 1


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    type: str  # without the name, blanks as one blank


@dataclass(frozen=True, slots=True)
class Function:
    """A function's definition as text."""

    name: str
    returns: str  # the words before the name
    parameters: tuple[Parameter, ...]
    annotations: str  # what stands between the parameters and the body
    start: int  # of the header, in the file
    body_at: int  # of the opening brace
    end: int
    line: int
    body_line: int
    body: str  # with both braces


def functions(code: str) -> Iterator[Function]:
    """The functions defined in `code`, which has neither comments nor preprocessor lines.

    Found by braces, not by grammar: an unknown macro before a function or inside one does not hide it.  A closing
    brace in the first column ends a function, as in all of the kernel, so that unbalanced braces spoil one only.
    """
    lines = Lines(code)
    begin = 0
    while (opening := code.find("{", begin)) >= 0:
        end = _body_end(code, opening)
        header_at = max(begin, code.rfind(";", begin, opening) + 1)
        found = _function(code, header_at, opening, end, lines)
        if found:
            yield found
        begin = end


def _body_end(code: str, opening: int) -> int:
    """Behind the brace that closes the one at `opening`, or that stands in the first column."""
    first_column = code.find("\n}", opening)
    limit = len(code) if first_column < 0 else first_column + 2
    if opening == 0 or code[opening - 1] == "\n":
        return limit
    depth = 0
    for m in _BRACE.finditer(code, opening, limit):
        depth += 1 if m[0] == "{" else -1
        if depth == 0:
            return m.end()
    return limit


def _function(code: str, begin: int, opening: int, end: int, lines: Lines) -> Function | None:
    header = code[begin:opening]
    if ")" not in header or _NO_FUNCTION.search(header.rstrip()):
        return None
    group = _parameters_group(header)
    if group is None:
        return None
    name, at, inner_at, inner_end = group
    inner = header[inner_at:inner_end]
    pairs = split_arguments(inner)
    if _SYSCALL.match(name):
        words = [" ".join(p.split()) for p in pairs]
        name = "sys_" + (words[0] if words else "")
        parameters = tuple(Parameter(n, t) for t, n in zip(words[1::2], words[2::2], strict=False))
    else:
        parameters = tuple(_parameter(p) for p in pairs if p.strip() not in ("", "void"))
    start = begin + len(header) - len(header.lstrip())
    words_before = " ".join(header[:at].split())
    return Function(
        name,
        words_before,
        parameters,
        " ".join(header[inner_end + 1 :].split()),
        start,
        opening,
        end,
        lines.at(start),
        lines.at(opening),
        code[opening:end],
    )


def _parameters_group(header: str) -> tuple[str, int, int, int] | None:
    """The last `name(...)` outside parentheses that is no attribute: name, its place, inside of the parentheses."""
    found = None
    at = 0
    while m := _GROUP.search(header, at):
        end = closing(header, m.end() - 1)
        if end is None:
            return found
        if not ATTRIBUTE.match(m[1]) and m[1] not in _KEYWORDS:
            found = (m[1], m.start(), m.end(), end)
        at = end + 1
    return found


def _parameter(text: str) -> Parameter:
    text = " ".join(text.split())
    pointer = re.search(r"\(\s*\*\s*(?:const\s+)?(\w+)", text)
    if pointer:
        return Parameter(pointer[1], text)
    m = re.search(r"(\w+)\s*(?:\[[^\]]*\]\s*)*$", text)
    return Parameter(m[1], text[: m.start()].strip()) if m else Parameter("", text)


def closing(text: str, opening: int) -> int | None:
    """Where the parenthesis opened at `opening` is closed."""
    depth = 0
    for m in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if m[0] == "(" else -1
        if depth == 0:
            return m.start()
    return None


def split_arguments(text: str) -> list[str]:
    """`text` parted at the commas that are outside of brackets."""
    parts = []
    depth = begin = 0
    for m in re.finditer(r"[()\[\]{},]", text):
        if m[0] == "," and depth == 0:
            parts.append(text[begin : m.start()])
            begin = m.end()
        elif m[0] in "([{":
            depth += 1
        elif m[0] in ")]}":
            depth -= 1
    parts.append(text[begin:])
    return parts


def outside(places: list[int], found: list[Function]) -> list[int]:
    """Those of `places` that are in no function of `found`."""
    starts = [f.start for f in found]
    lost = []
    for place in places:
        i = bisect.bisect_right(starts, place) - 1
        if i < 0 or place >= found[i].end:
            lost.append(place)
    return lost

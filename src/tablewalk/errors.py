# SPDX-License-Identifier: GPL-2.0-only
"""The one exception for wrong use and bad input, and the escaping of text from outside."""

from __future__ import annotations

import unicodedata


class TablewalkError(Exception):
    """Wrong use or bad input: the message is one line that says what, where and what to do.

    The command line prints it as `tablewalk: MESSAGE` on stderr and exits with status 2.
    """


def escape(text: str) -> str:
    """Text from outside (file names, comms) as one harmless line for a terminal.

    Control and format characters (C0, C1, bidirectional overrides), line separators and surrogates come
    out as backslash escapes, a byte that was no UTF-8 as `\\xNN`; the rest stays. Escaping again changes
    nothing.
    """
    return text if text.isprintable() else "".join(map(_escape_char, text))


def _escape_char(c: str) -> str:
    if 0xDC80 <= ord(c) <= 0xDCFF:  # surrogateescape: the original byte
        return f"\\x{ord(c) - 0xDC00:02x}"
    if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return c.encode("unicode_escape").decode()
    return c

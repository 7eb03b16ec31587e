# SPDX-License-Identifier: GPL-2.0-only
"""Damaged C files, which the audit has to survive.

audit_fuzz.py TREE [COUNT] [SEED]    the functions of TREE's users of page tables, damaged; crashes, the slowest
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tablewalk.audit.reader import Reader
from tablewalk.audit.run import audit
from tablewalk.audit.sources import find, has_interest, parse_text

PIECES = (
    b"{", b"}", b"(", b")", b"((((", b";", b"\0", b"\xff\xfe", b"#if 1\n", b"\n#else\n", b"\n#endif\n", b"/*",
    b"*/", b'"', b"'", b"\\\n", b"*" * 50, b"if (", b"do ", b"while (", b"switch (", b"case 1 ... 2:",
    b"goto out;", b"return ", b"->", b"!", b"++", b"pte_unmap(", b"pte_offset_map_lock(", b"\r\n", b"//",
    b"#define X(", b"({", b"})", b" = ", b",",
)  # fmt: skip


def pieces(tree: Path) -> list[bytes]:
    """Files as they are where they are short, and functions by themselves of those that are long."""
    found: list[bytes] = []
    for name in find([tree / d for d in ("mm", "fs", "arch") if (tree / d).exists()]).files:
        data = Path(name).read_bytes()
        if not has_interest(data):
            continue
        if len(data) < 6000:
            found.append(data)
        for function in parse_text(name, data.decode("latin-1"), []).functions:
            text = data[function.start : function.end]
            if has_interest(text) and len(text) < 6000:
                found.append(text)
    return found


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Pieces put in or over, stretches taken out, doubled or moved, and now and then the end cut off."""
    text = bytearray(data)
    for _ in range(rng.randrange(1, 12)):
        a = rng.randrange(len(text) + 1)
        b = min(len(text), a + rng.randrange(60))
        kind = rng.randrange(5)
        if kind < 2:
            text[a : a + rng.randrange(4)] = rng.choice(PIECES)
        elif kind == 2:
            del text[a:b]
        elif kind == 3:
            text[b:b] = text[a:b]
        else:
            piece = bytes(text[a:b])
            del text[a:b]
            c = rng.randrange(len(text) + 1)
            text[c:c] = piece
    return bytes(text[: rng.randrange(len(text) + 1)] if rng.random() < 0.1 else text)


def main(tree: Path, count: int, seed: int) -> int:
    rng = random.Random(seed)
    originals = pieces(tree)
    crashes, slowest, findings = 0, 0.0, 0
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "f.c"
        path.touch()
        for i in range(count):
            reader = Reader()
            data = damaged(rng.choice(originals), rng)
            reader.overlay = {str(path): data}
            begin = time.process_time()
            try:
                findings += len(audit([path], reader=reader).findings)
            except Exception:  # whatever it is: that is what is looked for
                crashes += 1
                print(f"input {i}: {traceback.format_exc()}")
            slowest = max(slowest, time.process_time() - begin)
    said = f"{crashes} crashes, the slowest {slowest:.1f} s, {findings} findings"
    print(f"{count} inputs from {len(originals)} texts: {said}")
    return int(crashes > 0)


if __name__ == "__main__":
    numbers = [int(a) for a in sys.argv[2:]]
    sys.exit(main(Path(sys.argv[1]), *(numbers + [10_000, 1][len(numbers) :])))

# SPDX-License-Identifier: GPL-2.0-only
"""Operations on userfaultfds in C programs: the agent's own text, and calls of it."""

from __future__ import annotations

from .ops import ARGUMENTS
from .run import AGENT

_HEAD = """
/* --- userfaultfds, and a process that resolves their faults ------------------------------------------ */

#include <stdint.h>

enum { MAX_UFFDS = 8 };
typedef unsigned long word;

struct result {
	long ret;
	int error;
};

static struct {
	int uffd[MAX_UFFDS]; /* file descriptors + 1; 0: none */
	int epoll;           /* of all of them */
} *shared;

static struct {
	word start;
} arena;

static long page_size;

static void fail(const char *what)
{
	perror(what);
	_exit(1);
}
"""

_TAIL = """
static long told(struct result r)
{
	errno = r.error;
	return r.ret;
}

static void begin_uffds(void *memory, word start)
{
	shared = memory;
	arena.start = start;
	page_size = sysconf(_SC_PAGESIZE);
	start_monitor();
}
"""

# As C calls, by kind.
CALLS = {
    kind: f"told({kind}({', '.join(f'{{{i}}}' for i in range(len(arguments.split())))}))"
    for kind, arguments in ARGUMENTS.items()
    if kind.startswith("uffd_")
}


def definitions() -> str:
    """What the calls need; to be included once behind the C library's headers."""
    text = (AGENT / "uffd.c").read_text()
    body = text.split('#include "agent.h"\n', 1)[1]
    return _HEAD + body + _TAIL

# SPDX-License-Identifier: GPL-2.0-only
"""A program on which kernel and model differ, as a C program and as a Python test."""

from __future__ import annotations

from collections.abc import Sequence

from . import emit_uffd
from .ops import Geometry, Op, kind_of

_C_HEAD = """\
/* SPDX-License-Identifier: GPL-2.0-only */
/* {title}
 *
{report}
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static volatile int *turn; /* number of the operation that is next, for all processes */
static int me;             /* number of this process */
static pid_t *pid;
static int file[8];
static char page[4096];
static unsigned char core[1 << 17];
static sigjmp_buf killed;

static void on_signal(int sig)
{{
	siglongjmp(killed, sig);
}}

static long touch(unsigned long addr, unsigned long len, unsigned long step, unsigned value)
{{
	volatile unsigned *p;

	for (unsigned long a = addr; a < addr + len; a += step) {{
		if (sigsetjmp(killed, 1))
			return -1;
		p = (volatile unsigned *)a;
		if (value)
			*p = value;
		else
			(void)*p;
	}}
	return 0;
}}

static long clear_refs(int kind)
{{
	int fd = open("/proc/self/clear_refs", O_WRONLY);
	long ret = dprintf(fd, "%d", kind) < 0 ? -1 : 0;

	close(fd);
	return ret;
}}

static int on_tmpfs(const char *option, long size)
{{
	char directory[] = "/tmp/tablewalk-XXXXXX";
	int fd = -1;

	if (mkdtemp(directory) && !unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
		!mount("tablewalk", directory, "tmpfs", 0, option))
		fd = open(directory, O_TMPFILE | O_RDWR, 0600);
	if (fd < 0 || ftruncate(fd, size))
		_exit(1);
	return fd;
}}

static void show(void)
{{
	char command[160];

	snprintf(command, sizeof(command), "cd /proc/%d; grep -E '^(VmPTE|VmLck|Rss)' status; cat smaps", getpid());
	if (system(command))
		perror("grep");
}}

#define STEP(n, process, call)                                        \\
	do {{                                                          \\
		while (*turn < (n))                                   \\
			sched_yield();                                \\
		if (*turn == (n) && me == (process)) {{                \\
			long ret = (long)(call);                      \\
			printf("%d: %s = %#lx%s%m\\n", n, #call, ret, ret == -1 ? " " : " (errno was) "); \\
			fflush(stdout);                               \\
			*turn = (n) + 1;                              \\
		}} else {{                                              \\
			while (*turn == (n))                          \\
				sched_yield();                        \\
		}}                                                     \\
	}} while (0)

/* The child uses the memory of its parent, who waits until it exits, and then passes over what it did. */
#define VFORK(n, process, child)                                      \\
	do {{                                                          \\
		while (*turn < (n))                                   \\
			sched_yield();                                \\
		if (*turn == (n) && me == (process)) {{                \\
			if (vfork() == 0) {{                           \\
				me = (child);                         \\
				pid[child] = getpid();                \\
				*turn = (n) + 1;                      \\
			}} else {{                                      \\
				me = (process);                       \\
			}}                                             \\
		}}                                                     \\
		while (*turn == (n))                                  \\
			sched_yield();                                \\
	}} while (0)

static long do_fork(int child)
{{
	pid_t p = syscall(SYS_clone, SIGCHLD | CLONE_FILES, 0, 0, 0, 0);

	if (p == 0) {{
		me = child;
		pid[child] = getpid();
		return 0;
	}}
	return p;
}}
{definitions}
int main(void)
{{
	void *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char path[] = "/tmp/tablewalk-XXXXXX";

	turn = shared;
	pid = (pid_t *)shared + 16;
	pid[0] = getpid();
	if (prctl(PR_SET_MM, PR_SET_MM_BRK, {heap:#x}UL, 0, 0) || prctl(PR_SET_MM, PR_SET_MM_START_BRK, {heap:#x}UL, 0, 0))
		perror("PR_SET_MM");
	signal(SIGSEGV, on_signal);
	signal(SIGBUS, on_signal);
{files}
"""

_CALLS = {
    "mmap": "mmap((void *){0}, {1}, {2}, {3}, {4}, {5})",
    "munmap": "munmap((void *){0}, {1})",
    "mprotect": "mprotect((void *){0}, {1}, {2})",
    "madvise": "madvise((void *){0}, {1}, {2})",
    "mremap": "mremap((void *){0}, {1}, {2}, {3}, (void *){4})",
    "mlock": "mlock((void *){0}, {1})",
    "mlock2": "syscall(SYS_mlock2, {0}, {1}, {2})",
    "munlock": "munlock((void *){0}, {1})",
    "mlockall": "mlockall({0})",
    "munlockall": "munlockall()",
    "read": "touch({0}, 1, 1, 0)",
    "write": "touch({0}, 1, 1, {1})",
    "fill": "touch({0}, {1}, {2}, {3})",
    "sum": "0",
    "fork": "do_fork({0})",
    "exit": "0",
    "mbind": "syscall(SYS_mbind, {0}, {1}, {2}, {3} ? &(unsigned long){{ {3} }} : NULL, {3} ? 64 : 0, {4})",
    "remap_file_pages": "syscall(SYS_remap_file_pages, {0}, {1}, {2}, {3}, {4})",
    "ftruncate": "ftruncate(file[{0}], {1})",
    "punch": "fallocate(file[{0}], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, {1}, {2})",
    "process_madvise": "syscall(SYS_process_madvise, syscall(SYS_pidfd_open, pid[{0}], 0),"
    " &(struct iovec){{ (void *){1}, {2} }}, 1, {3}, 0)",
    "process_madvise_ranges": "syscall(SYS_process_madvise, syscall(SYS_pidfd_open, pid[{0}], 0),"
    " ((struct iovec[]){{ {{ (void *){1}, {2} }}, {{ (void *){3}, {4} }} }}), 2, {5}, 0)",
    "thp_disable": "prctl(PR_SET_THP_DISABLE, {0}, {1}, 0, 0)",
    "brk": "syscall(SYS_brk, {0})",
    "fallocate": "fallocate(file[{0}], {1}, {2}, {3})",
    "pread": "pread(file[{0}], page, 4, {1})",
    "pwrite": "pwrite(file[{0}], memcpy(page, &(unsigned){{ {2} }}, 4), sizeof(page), {1})",
    "msync": "msync((void *){0}, {1}, {2})",
    "mincore": "mincore((void *){0}, {1}, core)",
    "set_mempolicy": "syscall(SYS_set_mempolicy, {0}, {1} ? &(unsigned long){{ {1} }} : NULL, {1} ? 64 : 0)",
    "get_mempolicy": "syscall(SYS_get_mempolicy, core, NULL, 0, {0}, {1})",
    "pagemap_scan": "0 /* PAGEMAP_SCAN of {1} bytes at {0} with flags {2} */",
    "clear_refs": "clear_refs({0})",
    "mseal": "syscall(462 /* mseal */, {0}, {1}, {2})",
    **emit_uffd.CALLS,
    "ksm": "0 /* {0} whole passes of ksmd */",
}


def c_program(ops: Sequence[Op], geometry: Geometry, title: str, report: Sequence[str]) -> str:
    """A C program that does the same; processes take turns, and in the end the one that differs shows its memory."""
    told = "\n".join(f" * {line}".rstrip() for line in report).replace("*/", "* /")
    with_uffds = any(op.kind in emit_uffd.CALLS for op in ops)
    lines = [
        _C_HEAD.format(
            title=title,
            report=told,
            files=_c_files(geometry),
            heap=geometry.heap,
            definitions=emit_uffd.definitions() if with_uffds else "",
        )
    ]
    if with_uffds:
        lines.append(f"\tbegin_uffds((char *)shared + {geometry.page // 2}, {geometry.start:#x}UL);")
    for i, op in enumerate(ops[1:]):
        if op.kind == "vfork":
            lines.append(f"\tVFORK({i}, {op.process}, {op.args[0]});")
            continue
        thread = f", by thread {op.thread}" if op.thread else ""
        lines.append(f"\tSTEP({i}, {op.process}, {_call(op)}); /* {kind_of(op)}{thread} */")
        if op.kind == "exit":
            lines.append(f"\tif (me == {op.process})\n\t\t_exit(0);")
    lines.append(f"\tif (me == {ops[-1].process})\n\t\tshow();\n\treturn 0;\n}}\n")
    return "\n".join(lines)


def _call(op: Op) -> str:
    args = [f"{a:#x}UL" if a > 9 else str(a) for a in op.args]
    if op.kind == "mmap":
        args[4] = "-1" if op.args[4] > 7 else f"file[{op.args[4]}]"
    return _CALLS[op.kind].format(*args)


def _c_files(geometry: Geometry) -> str:
    page = geometry.page
    lines = []
    for i, spec in enumerate(geometry.files):
        if spec.kind == "memfd":
            lines.append(f'\tfile[{i}] = memfd_create("tablewalk", 0);')
            lines.append(f"\tif (ftruncate(file[{i}], {spec.size}))\n\t\treturn 1;")
        elif spec.kind.startswith("tmpfs-"):
            huge = spec.kind.removeprefix("tmpfs-")
            lines.append(f'\tfile[{i}] = on_tmpfs("huge={huge}", {spec.size});')
        elif spec.kind == "regular":
            lines.append(f"\tfile[{i}] = mkstemp(path);\n\tfor (int k = 0; k < {spec.size // page}; k++)")
            lines.append(f"\t\tif (write(file[{i}], (char[{page}]){{ 0 }}, {page}) < 0)\n\t\t\treturn 1;")
        else:
            lines.append(f"\tfile[{i}] = open(path, O_RDONLY);\n\tunlink(path);")
    return "\n".join(lines)


def python_test(ops: Sequence[Op], name: str, kernel: str, report: Sequence[str]) -> str:
    """A test that compares the model with the running kernel on this program."""
    lines = [
        "# SPDX-License-Identifier: GPL-2.0-only",
        f'"""A disagreement with kernel {kernel}, reduced."""',
        "",
        "from __future__ import annotations",
        "",
        "from tablewalk.validate.compare import host_difference",
        "from tablewalk.validate.ops import Op",
        "",
        *(f"# {line}"[:119].rstrip() for line in report),
        "PROGRAM = [",
        *(f"    {_python_op(op)}," for op in ops),
        "]",
        "",
        "",
        f"def test_{name}() -> None:",
        "    assert host_difference(PROGRAM) == []",
        "",
    ]
    return "\n".join(lines)


def _python_op(op: Op) -> str:
    args = ", ".join(f"{a:#x}" if a > 9 else str(a) for a in op.args)
    thread = f", {op.thread}" if op.thread else ""
    return f'Op({op.process}, "{op.kind}", ({args}{"," if len(op.args) == 1 else ""}){thread})'

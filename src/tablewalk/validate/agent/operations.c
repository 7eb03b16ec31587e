/* SPDX-License-Identifier: GPL-2.0-only */
/* The operations, each in the process that it is for. */

#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static sigjmp_buf killed;

static void on_signal(int sig)
{
	siglongjmp(killed, sig);
}

void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_NODEFER };

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

static struct result returned(long ret)
{
	return (struct result){ ret, ret == -1 ? errno : 0 };
}

/* --- own memory ------------------------------------------------------------------------------------ */

static struct {
	word start, end;
	int write;
} own[32];
static int nr_own;

static char maps[16384];

/* Note which memory is the agent's, so that a child can have it mapped whole again. */
void list_own_memory(void)
{
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	ssize_t len = 0, n;

	if (fd < 0)
		fail("/proc/self/maps cannot be read");
	while ((n = read(fd, maps + len, sizeof(maps) - 1 - len)) > 0)
		len += n;
	close(fd);
	maps[len] = 0;
	nr_own = 0;
	for (char *p = maps; *p && nr_own < 32; p = strchr(p, '\n') + 1) {
		char *rest, *end = strchr(p, '\n');
		word start = strtoul(p, &rest, 16), stop = strtoul(rest + 1, &rest, 16);

		*end = 0;
		if (rest[1] == 'r' && !strstr(rest, "[vvar") && !strstr(rest, "[vsyscall")) {
			own[nr_own].start = start;
			own[nr_own].end = stop;
			own[nr_own++].write = rest[2] == 'w';
		}
		*end = '\n';
	}
}

/* Have every page of the agent's own mapped, so that only the arena's tables come and go. */
void warm_up(void)
{
	for (int i = 0; i < nr_own; i++)
		for (word p = own[i].start; p < own[i].end; p += page_size) {
			volatile char *c = (volatile char *)p;

			if (own[i].write)
				*c = *c;
			else
				(void)*c;
		}
}

/* --- accesses -------------------------------------------------------------------------------------- */

/* Signals leave an access by siglongjmp, which costs no system call. */
#define ACCESS(statement)                                     \
	({                                                    \
		int sig_ = sigsetjmp(killed, 0);              \
		if (!sig_)                                    \
			statement;                            \
		sig_;                                         \
	})

static struct result do_read(word addr)
{
	static volatile uint32_t value;
	int sig = ACCESS(value = *(volatile uint32_t *)addr);

	return sig ? (struct result){ -1, sig } : (struct result){ value, 0 };
}

static struct result do_write(word addr, uint32_t value)
{
	int sig = ACCESS(*(volatile uint32_t *)addr = value);

	return (struct result){ sig ? -1 : 0, sig };
}

/* Read (value 0) or write a page every `step` bytes up to the first that kills; returns how many could be. */
static struct result do_fill(word addr, word len, word step, uint32_t value)
{
	long done = 0;

	for (word p = addr; p < addr + len; p += step, done++) {
		struct result r = value ? do_write(p, value) : do_read(p);

		if (r.error)
			return (struct result){ done, r.error };
	}
	return (struct result){ done, 0 };
}

/* A sum over the first word of each page that is mapped and may be read; nothing is faulted in. */
static struct result do_sum(word addr, word len)
{
	static uint64_t entry[512];
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint32_t sum = 0;

	if (fd < 0)
		return returned(-1);
	for (word p = addr; p < addr + len;) {
		size_t nr = (addr + len - p) / page_size;
		ssize_t n = pread(fd, entry, (nr < 512 ? nr : 512) * 8, p / page_size * 8);

		if (n <= 0)
			break;
		for (int i = 0; i < n / 8; i++, p += page_size)
			if (entry[i] >> 63) {
				struct result r = do_read(p);
				uint32_t seen = r.error ? 0xffffffffu : (uint32_t)r.ret;

				sum = (sum * 31 + (uint32_t)((p - arena.start) / page_size)) * 31 + seen;
			}
	}
	close(fd);
	return (struct result){ (long)(sum & 0x7fffffff), 0 };
}

/* --- system calls ---------------------------------------------------------------------------------- */

static struct result address(void *p)
{
	return p == MAP_FAILED ? (struct result){ -1, errno } : (struct result){ (long)p, 0 };
}

static int fd_of(word n)
{
	return n < (word)nr_files ? file[n].fd : -1;
}

static struct result do_mbind(word addr, word len, int mode, word nodes, unsigned flags)
{
	return returned(syscall(SYS_mbind, addr, len, mode, nodes ? &nodes : NULL, nodes ? 8 * sizeof(nodes) : 0, flags));
}

static struct result do_process_madvise(int process, word addr, word len, int advice)
{
	struct iovec range = { (void *)addr, len };
	int fd = syscall(SYS_pidfd_open, shared->slot[process].pid, 0);
	struct result r;

	if (fd < 0)
		return returned(-1);
	r = returned(syscall(SYS_process_madvise, fd, &range, 1, advice, 0));
	close(fd);
	return r;
}

/* Write where regular files have holes, so that all of their pages stay cached: how the kernel reads is not compared. */
static void fill_holes(void)
{
	static char zero[4096];

	for (int i = 0; i < nr_files; i++) {
		off_t size, at = 0;

		if (!file[i].regular || file[i].readonly)
			continue;
		size = lseek(file[i].fd, 0, SEEK_END);
		while ((at = lseek(file[i].fd, at, SEEK_HOLE)) >= 0 && at < size)
			if (pwrite(file[i].fd, zero, sizeof(zero), at) != sizeof(zero))
				fail("a file cannot be written");
	}
}

static struct result with_holes_filled(int ret)
{
	struct result r = returned(ret);

	fill_holes(); /* a failure may have made some, too */
	return r;
}

static struct result do_madvise(word addr, word len, int advice)
{
	int ret = madvise((void *)addr, len, advice);

	return advice == MADV_REMOVE ? with_holes_filled(ret) : returned(ret);
}

/* Which pages of `shared->span` are in core. */
static struct result do_mincore(void)
{
	unsigned char *vec = shared->vec;

	for (int i = 0; i < shared->nr_spans; i++) {
		struct range r = shared->span[i];

		if (mincore((void *)r.start, r.end - r.start, vec))
			return returned(-1);
		vec += (r.end - r.start) / page_size;
	}
	return returned(0);
}

enum kind {
	MMAP, MUNMAP, MPROTECT, MADVISE, MREMAP, MLOCK, MLOCK2, MUNLOCK, MLOCKALL, MUNLOCKALL, READ, WRITE, FILL, SUM,
	FORK, EXIT, MBIND, REMAP_FILE_PAGES, FTRUNCATE, PUNCH, PROCESS_MADVISE, THP_DISABLE, BRK, MINCORE,
};

static const char *const kinds[] = {
	[MMAP] = "mmap", [MUNMAP] = "munmap", [MPROTECT] = "mprotect", [MADVISE] = "madvise", [MREMAP] = "mremap",
	[MLOCK] = "mlock", [MLOCK2] = "mlock2", [MUNLOCK] = "munlock", [MLOCKALL] = "mlockall",
	[MUNLOCKALL] = "munlockall", [READ] = "read", [WRITE] = "write", [FILL] = "fill", [SUM] = "sum",
	[FORK] = "fork", [EXIT] = "exit", [MBIND] = "mbind", [REMAP_FILE_PAGES] = "remap_file_pages",
	[FTRUNCATE] = "ftruncate", [PUNCH] = "punch", [PROCESS_MADVISE] = "process_madvise",
	[THP_DISABLE] = "thp_disable", [BRK] = "brk", [MINCORE] = "mincore",
};

int find_kind(const char *name, size_t len)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (strlen(kinds[i]) == len && !memcmp(kinds[i], name, len))
			return i;
	return -1;
}

int is_fork(int kind)
{
	return kind == FORK;
}

int is_exit(int kind)
{
	return kind == EXIT;
}

int is_mlockall(int kind)
{
	return kind == MLOCKALL;
}

int mincore_kind(void)
{
	return MINCORE;
}

struct result execute(const struct operation *op, int self)
{
	const word *a = op->arg;

	(void)self;
	switch ((enum kind)op->kind) {
	case MMAP:
		return address(mmap((void *)a[0], a[1], a[2], a[3], fd_of(a[4]), a[5]));
	case MUNMAP:
		return returned(munmap((void *)a[0], a[1]));
	case MPROTECT:
		return returned(mprotect((void *)a[0], a[1], a[2]));
	case MADVISE:
		return do_madvise(a[0], a[1], a[2]);
	case MREMAP:
		return address(mremap((void *)a[0], a[1], a[2], a[3], (void *)a[4]));
	case MLOCK:
		return returned(mlock((void *)a[0], a[1]));
	case MLOCK2:
		return returned(syscall(SYS_mlock2, a[0], a[1], a[2]));
	case MUNLOCK:
		return returned(munlock((void *)a[0], a[1]));
	case MLOCKALL:
		return returned(mlockall(a[0]));
	case MUNLOCKALL:
		return returned(munlockall());
	case READ:
		return do_read(a[0]);
	case WRITE:
		return do_write(a[0], a[1]);
	case FILL:
		return do_fill(a[0], a[1], a[2], a[3]);
	case SUM:
		return do_sum(a[0], a[1]);
	case MBIND:
		return do_mbind(a[0], a[1], a[2], a[3], a[4]);
	case REMAP_FILE_PAGES:
		return returned(syscall(SYS_remap_file_pages, a[0], a[1], a[2], a[3], a[4]));
	case FTRUNCATE:
		return with_holes_filled(ftruncate(fd_of(a[0]), a[1]));
	case PUNCH:
		return with_holes_filled(fallocate(fd_of(a[0]), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, a[1], a[2]));
	case PROCESS_MADVISE:
		return do_process_madvise(a[0], a[1], a[2], a[3]);
	case THP_DISABLE:
		return returned(prctl(PR_SET_THP_DISABLE, a[0], 0, 0, 0));
	case BRK:
		return (struct result){ syscall(SYS_brk, a[0]), 0 };
	case MINCORE:
		return do_mincore();
	case FORK:
	case EXIT:
		break;
	}
	return (struct result){ -1, ENOSYS };
}

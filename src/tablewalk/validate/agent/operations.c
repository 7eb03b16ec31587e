/* SPDX-License-Identifier: GPL-2.0-only */
/* The operations, each in the process that it is for. */

#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static struct result returned(long ret)
{
	return (struct result){ ret, ret == -1 ? errno : 0 };
}

/* --- system calls ---------------------------------------------------------------------------------- */

static struct result address(void *p)
{
	return p == MAP_FAILED ? (struct result){ -1, errno } : (struct result){ (long)p, 0 };
}

static struct result do_mbind(word addr, word len, int mode, word nodes, unsigned flags)
{
	return returned(syscall(SYS_mbind, addr, len, mode, nodes ? &nodes : NULL, nodes ? 8 * sizeof(nodes) : 0, flags));
}

static struct result do_process_madvise(int process, const struct iovec *range, int nr, int advice)
{
	int fd = syscall(SYS_pidfd_open, shared->slot[process].pid, 0);
	struct result r;

	if (fd < 0)
		return returned(-1);
	r = returned(syscall(SYS_process_madvise, fd, range, nr, advice, 0));
	close(fd);
	return r;
}

static sigjmp_buf given_up;
static volatile pid_t patient; /* the thread that waits for a call that may not end */

static void on_alarm(int sig)
{
	if (syscall(SYS_gettid) == patient)
		siglongjmp(given_up, 1);
	syscall(SYS_tgkill, syscall(SYS_getpid), patient, sig);
}

/*
 * Installs guard regions.  Kernels (6.18, 7.2) begin again for ever where shared memory has markers of userfaultfd's
 * write protection, which the zap in between leaves: after 2 s that is given up.
 */
static struct result install_guards(word addr, word len)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_NODEFER };
	struct itimerval none = { 0 }, timeout = { .it_value.tv_sec = 2 };
	struct result r = { -1, EDEADLK };

	patient = syscall(SYS_gettid);
	sigaction(SIGALRM, &action, NULL);
	if (!sigsetjmp(given_up, 1)) {
		setitimer(ITIMER_REAL, &timeout, NULL);
		r = returned(madvise((void *)addr, len, MADV_GUARD_INSTALL));
	}
	setitimer(ITIMER_REAL, &none, NULL);
	return r;
}

static struct result do_madvise(word addr, word len, int advice)
{
	int ret;

	if (advice == MADV_GUARD_INSTALL)
		return install_guards(addr, len);
	ret = madvise((void *)addr, len, advice);
	return advice == MADV_REMOVE ? with_holes_filled(ret) : returned(ret);
}

/* Which pages of `shared->ask` are in core. */
static struct result look_in_core(void)
{
	unsigned char *vec = shared->vec;

	for (int i = 0; i < shared->nr_asks; i++) {
		struct range r = shared->ask[i];

		if (mincore((void *)r.start, r.end - r.start, vec))
			return returned(-1);
		vec += (r.end - r.start) / page_size;
	}
	return returned(0);
}

/* How many pages are in core. */
static struct result do_mincore(word addr, word len)
{
	long pages = 0;

	if (mincore((void *)addr, len, shared->vec))
		return returned(-1);
	for (word i = 0; i < (len + page_size - 1) / page_size; i++)
		pages += shared->vec[i] & 1;
	return (struct result){ pages, 0 };
}

static struct result do_clear_refs(word kind)
{
	char digits[20];
	struct text t = { digits, 0, sizeof(digits) };
	int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		fail("/proc/self/clear_refs cannot be opened");
	put_dec(&t, kind);
	n = write(fd, digits, t.len);
	n = n < 0 ? -errno : 0;
	close(fd);
	return (struct result){ n < 0 ? -1 : 0, -n };
}

static struct result do_brk(word addr)
{
	word is = syscall(SYS_brk, addr);

	return (struct result){ (long)is, is == addr ? 0 : ENOMEM };
}

/* The numbers of /proc/self/stat from field 3 on, but for that, which is a letter. */
static void read_stat(word *field, int nr)
{
	static char line[1024];
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	char *p;

	if (fd < 0 || read(fd, line, sizeof(line) - 1) <= 0 || !(p = strrchr(line, ')')))
		fail("/proc/self/stat cannot be read");
	close(fd);
	p += 3;
	for (int i = 1; i < nr; i++)
		field[i] = strtoul(p, &p, 10);
}

/* Let the heap, empty, begin at `addr`. */
void set_brk(word addr)
{
	word field[52 - 3];
	struct prctl_mm_map map = { .start_brk = addr, .brk = addr, .exe_fd = (uint32_t)-1 };

	read_stat(field, 52 - 3);
	map.start_code = field[26 - 3];
	map.end_code = field[27 - 3];
	map.start_stack = field[28 - 3];
	map.start_data = field[45 - 3];
	map.end_data = field[46 - 3];
	map.arg_start = field[48 - 3];
	map.arg_end = field[49 - 3];
	map.env_start = field[50 - 3];
	map.env_end = field[51 - 3];
	if (addr && prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0))
		fail("the heap cannot be moved");
}

/* The policy in the lower 16 bits, its nodes above; of an address with MPOL_F_NODE the node alone. */
static struct result do_get_mempolicy(word addr, word flags)
{
	int mode = 0;
	word nodes[128] = { 0 };
	int ret = syscall(SYS_get_mempolicy, &mode, flags & MPOL_F_NODE ? NULL : nodes, 8 * sizeof(nodes), addr, flags);

	return ret < 0 ? returned(ret) : (struct result){ mode | (long)(nodes[0] & 0xff) << 16, 0 };
}

struct scan { /* struct pm_scan_arg, which the headers of older releases do not have */
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, mask, anyof, returned;
};

#define PAGEMAP_SCAN _IOWR('f', 16, struct scan)

enum { MAX_RANGES = 64 };

/* A sum of the ranges found, and of where the scan ended. */
static struct result do_pagemap_scan(const word *a)
{
	static struct {
		uint64_t start, end, categories;
	} range[MAX_RANGES + 1];
	struct scan scan = {
		.size = sizeof(scan), .start = a[0], .end = a[0] + a[1], .flags = a[2], .max_pages = a[3],
		.vec = a[4] ? (word)range : 0, .vec_len = a[4], .inverted = a[5], .mask = a[6], .anyof = a[7],
		.returned = a[8],
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int nr = ioctl(fd, PAGEMAP_SCAN, &scan), error = errno;
	uint32_t total = nr;

	close(fd);
	if (nr < 0)
		return (struct result){ -1, error };
	range[nr].start = range[nr].end = scan.walk_end;
	range[nr].categories = 0;
	for (int i = 0; i <= nr; i++) {
		total = total * 31 + (uint32_t)((int64_t)(range[i].start - arena.start) / page_size);
		total = total * 31 + (uint32_t)((int64_t)(range[i].end - arena.start) / page_size);
		total = total * 31 + (uint32_t)range[i].categories;
	}
	return (struct result){ total & 0x7fffffff, 0 };
}

enum kind {
	MMAP, MUNMAP, MPROTECT, MADVISE, MREMAP, MLOCK, MLOCK2, MUNLOCK, MLOCKALL, MUNLOCKALL, READ, WRITE, FILL, SUM,
	FORK, EXIT, MBIND, REMAP_FILE_PAGES, FTRUNCATE, PUNCH, PROCESS_MADVISE, PROCESS_MADVISE_RANGES, THP_DISABLE,
	VFORK, BRK, FALLOCATE, PREAD, PWRITE, MSYNC, MINCORE, SET_MEMPOLICY, GET_MEMPOLICY, LOOK_IN_CORE,
	UFFD_OPEN, UFFD_CLOSE, UFFD_REGISTER, UFFD_UNREGISTER, UFFD_WAKE, UFFD_COPY, UFFD_MOVE, UFFD_ZEROPAGE,
	UFFD_CONTINUE, UFFD_POISON, UFFD_WRITEPROTECT, KSM, MSEAL, CLEAR_REFS, SCAN,
};

static const char *const kinds[] = {
	[MMAP] = "mmap", [MUNMAP] = "munmap", [MPROTECT] = "mprotect", [MADVISE] = "madvise", [MREMAP] = "mremap",
	[MLOCK] = "mlock", [MLOCK2] = "mlock2", [MUNLOCK] = "munlock", [MLOCKALL] = "mlockall",
	[MUNLOCKALL] = "munlockall", [READ] = "read", [WRITE] = "write", [FILL] = "fill", [SUM] = "sum",
	[FORK] = "fork", [EXIT] = "exit", [MBIND] = "mbind", [REMAP_FILE_PAGES] = "remap_file_pages",
	[FTRUNCATE] = "ftruncate", [PUNCH] = "punch", [PROCESS_MADVISE] = "process_madvise",
	[PROCESS_MADVISE_RANGES] = "process_madvise_ranges", [THP_DISABLE] = "thp_disable", [VFORK] = "vfork",
	[BRK] = "brk", [FALLOCATE] = "fallocate", [PREAD] = "pread", [PWRITE] = "pwrite", [MSYNC] = "msync",
	[MINCORE] = "mincore", [SET_MEMPOLICY] = "set_mempolicy", [GET_MEMPOLICY] = "get_mempolicy",
	[LOOK_IN_CORE] = "look_in_core",
	[UFFD_OPEN] = "uffd_open", [UFFD_CLOSE] = "uffd_close", [UFFD_REGISTER] = "uffd_register",
	[UFFD_UNREGISTER] = "uffd_unregister", [UFFD_WAKE] = "uffd_wake", [UFFD_COPY] = "uffd_copy",
	[UFFD_MOVE] = "uffd_move", [UFFD_ZEROPAGE] = "uffd_zeropage", [UFFD_CONTINUE] = "uffd_continue",
	[UFFD_POISON] = "uffd_poison", [UFFD_WRITEPROTECT] = "uffd_writeprotect",
	[KSM] = "ksm", [MSEAL] = "mseal", [CLEAR_REFS] = "clear_refs",
	[SCAN] = "pagemap_scan",
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

int is_vfork(int kind)
{
	return kind == VFORK;
}

int is_exit(int kind)
{
	return kind == EXIT;
}

int is_mlockall(int kind)
{
	return kind == MLOCKALL;
}

/* Whether it may drop pages that files cache. */
int reclaims(const struct operation *op)
{
	return (op->kind == MADVISE || op->kind == PROCESS_MADVISE || op->kind == PROCESS_MADVISE_RANGES) &&
	       op->nr && op->arg[op->nr - 1] == MADV_PAGEOUT;
}

int is_ksm(int kind)
{
	return kind == KSM;
}

int mincore_kind(void)
{
	return LOOK_IN_CORE;
}

/* Programs have the numbers that most architectures have; powerpc and mips have others. */
static int mmap_flags(word flags)
{
	static const struct {
		int usual, here;
	} differ[] = {
		{ 0x20, MAP_ANONYMOUS }, { 0x100, MAP_GROWSDOWN }, { 0x2000, MAP_LOCKED }, { 0x4000, MAP_NORESERVE },
		{ 0x8000, MAP_POPULATE }, { 0x10000, MAP_NONBLOCK }, { 0x20000, MAP_STACK }, { 0x40000, MAP_HUGETLB },
	};
	int here = flags;

	for (unsigned i = 0; i < sizeof(differ) / sizeof(*differ); i++)
		here &= ~differ[i].usual;
	for (unsigned i = 0; i < sizeof(differ) / sizeof(*differ); i++)
		here |= flags & differ[i].usual ? differ[i].here : 0;
	return here;
}

#ifdef __powerpc__
static int mlockall_flags(word flags)
{
	return flags << 13; /* MCL_CURRENT is 0x2000 */
}
#else
static int mlockall_flags(word flags)
{
	return flags;
}
#endif

#ifdef __mips__
/* An error or a signal by the number that most architectures have. */
static int usual(const struct operation *op, int error)
{
	static const struct {
		int usual, here;
	} differ[] = {
		{ 35, EDEADLK }, { 38, ENOSYS }, { 75, EOVERFLOW }, { 95, EOPNOTSUPP }, { 133, EHWPOISON },
	};

	if (op->kind == READ || op->kind == WRITE || op->kind == FILL)
		return error == SIGBUS ? 7 : error;
	for (unsigned i = 0; i < sizeof(differ) / sizeof(*differ); i++)
		if (error == differ[i].here)
			return differ[i].usual;
	return error;
}
#else
static int usual(const struct operation *op, int error)
{
	return (void)op, error;
}
#endif

static struct result done(const struct operation *op)
{
	const word *a = op->arg;

	switch ((enum kind)op->kind) {
	case MMAP:
		return address(mmap((void *)a[0], a[1], a[2], mmap_flags(a[3]), fd_of(a[4]), a[5]));
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
		return returned(mlockall(mlockall_flags(a[0])));
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
		return do_process_madvise(a[0], (struct iovec[]){ { (void *)a[1], a[2] } }, 1, a[3]);
	case PROCESS_MADVISE_RANGES:
		return do_process_madvise(a[0], (struct iovec[]){ { (void *)a[1], a[2] }, { (void *)a[3], a[4] } }, 2, a[5]);
	case THP_DISABLE:
		return returned(prctl(PR_SET_THP_DISABLE, a[0], a[1], 0, 0));
	case BRK:
		return do_brk(a[0]);
	case FALLOCATE:
		return returned(fallocate(fd_of(a[0]), a[1], a[2], a[3]));
	case PREAD:
		return do_pread(a[0], a[1]);
	case PWRITE:
		return do_pwrite(a[0], a[1], a[2]);
	case MSYNC:
		return returned(msync((void *)a[0], a[1], a[2]));
	case CLEAR_REFS:
		return do_clear_refs(a[0]);
	case MINCORE:
		return do_mincore(a[0], a[1]);
	case SET_MEMPOLICY:
		return returned(syscall(SYS_set_mempolicy, a[0], a[1] ? &a[1] : NULL, a[1] ? 8 * sizeof(word) : 0));
	case GET_MEMPOLICY:
		return do_get_mempolicy(a[0], a[1]);
	case LOOK_IN_CORE:
		return look_in_core();
	case MSEAL:
		return returned(syscall(SYS_mseal, a[0], a[1], a[2]));
	case SCAN:
		return do_pagemap_scan(a);
	case UFFD_OPEN:
		return uffd_open(a[0], a[1], a[2]);
	case UFFD_CLOSE:
		return uffd_close(a[0]);
	case UFFD_REGISTER:
		return uffd_register(a[0], a[1], a[2], a[3]);
	case UFFD_UNREGISTER:
		return uffd_unregister(a[0], a[1], a[2]);
	case UFFD_WAKE:
		return uffd_wake(a[0], a[1], a[2]);
	case UFFD_COPY:
		return uffd_copy(a[0], a[1], a[2], a[3], a[4]);
	case UFFD_MOVE:
		return uffd_move(a[0], a[1], a[2], a[3], a[4]);
	case UFFD_ZEROPAGE:
		return uffd_zeropage(a[0], a[1], a[2], a[3]);
	case UFFD_CONTINUE:
		return uffd_continue(a[0], a[1], a[2], a[3]);
	case UFFD_POISON:
		return uffd_poison(a[0], a[1], a[2], a[3]);
	case UFFD_WRITEPROTECT:
		return uffd_writeprotect(a[0], a[1], a[2], a[3]);
	case FORK:
	case EXIT:
	case VFORK:
	case KSM:
		break;
	}
	return (struct result){ -1, ENOSYS };
}

struct result execute(const struct operation *op)
{
	struct result r = done(op);

	r.error = usual(op, r.error);
	return r;
}

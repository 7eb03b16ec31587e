/* SPDX-License-Identifier: GPL-2.0-only */
/* userfaultfds, numbered in a table that all processes share, as they share their file descriptors; and the monitor,
 * a process that reads what they tell and resolves each fault.
 *
 * The monitor runs on the processes' CPU before all of them, so that nothing else happens between a fault, or an
 * event, and its answer.
 */

#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Structures are arrays here: their text is not in the headers of every release. */
#define UFFDIO_API _IOWR(0xAA, 0x3F, uint64_t[3])
#define UFFDIO_REGISTER _IOWR(0xAA, 0x00, uint64_t[4])
#define UFFDIO_UNREGISTER _IOR(0xAA, 0x01, uint64_t[2])
#define UFFDIO_WAKE _IOR(0xAA, 0x02, uint64_t[2])
#define UFFDIO_COPY _IOWR(0xAA, 0x03, uint64_t[5])
#define UFFDIO_ZEROPAGE _IOWR(0xAA, 0x04, uint64_t[4])
#define UFFDIO_MOVE _IOWR(0xAA, 0x05, uint64_t[5])
#define UFFDIO_WRITEPROTECT _IOWR(0xAA, 0x06, uint64_t[3])
#define UFFDIO_CONTINUE _IOWR(0xAA, 0x07, uint64_t[4])
#define UFFDIO_POISON _IOWR(0xAA, 0x08, uint64_t[4])

enum { EVENT_PAGEFAULT = 0x12, EVENT_FORK = 0x13 };
enum { PAGEFAULT_WP = 2, PAGEFAULT_MINOR = 4 };
enum { MODE_WP = 2 }; /* of UFFDIO_COPY and UFFDIO_CONTINUE */
enum { PATIENCE = 1000 };

struct message { /* struct uffd_msg */
	uint8_t event, reserved[7];
	uint64_t arg[3];
};

static int uffd_fd(word n)
{
	return n < MAX_UFFDS ? shared->uffd[n] - 1 : -1;
}

/* The ioctl's output field beside errno. */
static struct result do_ioctl(word n, unsigned long request, uint64_t *arg, int output)
{
	int ret = ioctl(uffd_fd(n), request, arg);

	return (struct result){ output >= 0 ? (long)arg[output] : ret, ret ? errno : 0 };
}

static void install(int n, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = n };

	if (epoll_ctl(shared->epoll, EPOLL_CTL_ADD, fd, &event))
		fail("epoll_ctl");
	shared->uffd[n] = fd + 1;
}

/* Returns the features that there are. */
struct result uffd_open(word flags, word features, word n)
{
	uint64_t arg[3] = { 0xAA, features, 0 };
	int fd, error;

	if (n >= MAX_UFFDS || shared->uffd[n])
		return (struct result){ -1, EBUSY };
	fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
	if (fd < 0 && errno != EINVAL)
		fail("userfaultfd");
	if (fd < 0)
		return (struct result){ -1, errno };
	if (ioctl(fd, UFFDIO_API, arg)) {
		error = errno;
		close(fd);
		return (struct result){ -1, error };
	}
	install(n, fd);
	return (struct result){ (long)arg[1], 0 };
}

struct result uffd_close(word n)
{
	int ret = close(uffd_fd(n));

	if (!ret)
		shared->uffd[n] = 0;
	return (struct result){ ret, ret ? errno : 0 };
}

void uffd_close_all(void)
{
	for (int i = 0; i < MAX_UFFDS; i++)
		if (shared->uffd[i])
			uffd_close(i);
}

struct result uffd_register(word addr, word len, word mode, word n)
{
	return do_ioctl(n, UFFDIO_REGISTER, (uint64_t[]){ addr, len, mode, 0 }, 3);
}

struct result uffd_unregister(word addr, word len, word n)
{
	return do_ioctl(n, UFFDIO_UNREGISTER, (uint64_t[]){ addr, len }, -1);
}

struct result uffd_wake(word addr, word len, word n)
{
	return do_ioctl(n, UFFDIO_WAKE, (uint64_t[]){ addr, len }, -1);
}

struct result uffd_copy(word addr, word src, word len, word mode, word n)
{
	return do_ioctl(n, UFFDIO_COPY, (uint64_t[]){ addr, src, len, mode, 0 }, 4);
}

struct result uffd_move(word addr, word src, word len, word mode, word n)
{
	return do_ioctl(n, UFFDIO_MOVE, (uint64_t[]){ addr, src, len, mode, 0 }, 4);
}

struct result uffd_zeropage(word addr, word len, word mode, word n)
{
	return do_ioctl(n, UFFDIO_ZEROPAGE, (uint64_t[]){ addr, len, mode, 0 }, 3);
}

struct result uffd_continue(word addr, word len, word mode, word n)
{
	return do_ioctl(n, UFFDIO_CONTINUE, (uint64_t[]){ addr, len, mode, 0 }, 3);
}

struct result uffd_poison(word addr, word len, word mode, word n)
{
	return do_ioctl(n, UFFDIO_POISON, (uint64_t[]){ addr, len, mode, 0 }, 3);
}

struct result uffd_writeprotect(word addr, word len, word mode, word n)
{
	return do_ioctl(n, UFFDIO_WRITEPROTECT, (uint64_t[]){ addr, len, mode }, -1);
}

/* --- the monitor ----------------------------------------------------------------------------------- */

/* What is missing: every third page becomes one of zeroes, if no marker is in the way; the others hold their number,
 * some write-protected.
 */
static struct result resolve_missing(word page, word index, int n)
{
	static uint32_t content[1 << 14] __attribute__((aligned(1 << 16)));
	struct result r = { 0, EINVAL };

	if (index % 3 == 0 && !uffd_zeropage(page, page_size, 0, n).error)
		return (struct result){ 0, 0 };
	content[0] = index;
	if (index % 3 == 2)
		r = uffd_copy(page, (word)content, page_size, MODE_WP, n);
	return r.error == EINVAL ? uffd_copy(page, (word)content, page_size, 0, n) : r;
}

static struct result resolve_minor(word page, word index, int n)
{
	struct result r = { 0, EINVAL };

	if (index % 3 == 2)
		r = uffd_continue(page, page_size, MODE_WP, n);
	return r.error == EINVAL ? uffd_continue(page, page_size, 0, n) : r;
}

/* The page is registered no longer; the kernel itself wakes only who waits for a missing one. */
static struct result leave_alone(word page, int n)
{
	struct result r = uffd_unregister(page, page_size, n);

	uffd_wake(page, page_size, n);
	return r;
}

static void resolve(const struct message *m, int n)
{
	word page = m->arg[1] & -page_size, index = (page - arena.start) / page_size;
	static int in_vain;
	struct result r;

	if (m->arg[0] & PAGEFAULT_WP)
		r = uffd_writeprotect(page, page_size, 0, n);
	else if (m->arg[0] & PAGEFAULT_MINOR)
		r = resolve_minor(page, index, n);
	else
		r = resolve_missing(page, index, n);
	if (r.error == EAGAIN) /* mremap: its event, which is to be read first, comes after its faults */
		r = leave_alone(page, n);
	in_vain = r.error ? in_vain + 1 : 0;
	if (in_vain == PATIENCE)
		kill(getppid(), SIGTERM);
	if (r.error)
		uffd_wake(page, page_size, n);
}

/* A child's userfaultfd gets the first free number, or is closed. */
static void adopt(int fd)
{
	for (int i = 0; i < MAX_UFFDS; i++)
		if (!shared->uffd[i]) {
			install(i, fd);
			return;
		}
	close(fd);
}

static void monitor(void)
{
	struct epoll_event event;
	struct message m;

	for (;;) {
		int n;

		if (epoll_wait(shared->epoll, &event, 1, -1) != 1)
			continue;
		n = event.data.u32;
		if (read(uffd_fd(n), &m, sizeof(m)) != sizeof(m))
			continue;
		if (m.event == EVENT_PAGEFAULT)
			resolve(&m, n);
		else if (m.event == EVENT_FORK)
			adopt((uint32_t)m.arg[0]);
	}
}

void start_monitor(void)
{
	struct sched_param first = { .sched_priority = 1 };
	pid_t pid, controller = getpid();

	shared->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (shared->epoll < 0)
		fail("epoll_create1");
	pid = syscall(SYS_clone, SIGCHLD | CLONE_FILES, 0, 0, 0, 0);
	if (pid < 0)
		fail("the monitor cannot be started");
	if (pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != controller) /* it is gone already */
		_exit(1);
	sched_setscheduler(0, SCHED_FIFO, &first);
	monitor();
}

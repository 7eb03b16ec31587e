/* SPDX-License-Identifier: GPL-2.0-only */
/* Passes of ksmd: exactly as many as are asked for, and in between it stands still. */

#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KSM "/sys/kernel/mm/ksm/"

enum { TRIES = 50, LONG_SLEEP = 1000000000 }; /* ms, for ksmd between passes */

static void set(const char *path, long value)
{
	char number[24];
	struct text t = { number, 0, sizeof(number) };
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	put_dec(&t, value);
	if (fd < 0 || write(fd, t.start, t.len) != (ssize_t)t.len)
		fail(path);
	close(fd);
}

static long full_scans(void)
{
	char number[24] = "";
	int fd = open(KSM "full_scans", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, number, sizeof(number) - 1) <= 0)
		fail(KSM "full_scans");
	close(fd);
	return strtol(number, NULL, 10);
}

/* A process of which ksmd knows, without any page: a pass ends only if there is somebody to scan. */
static void keep_ksmd_busy(void)
{
	static int done;
	int ready[2];
	char c;

	if (done++)
		return;
	if (pipe(ready))
		fail("pipe");
	if (!syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)) {
		void *p = mmap(NULL, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (p == MAP_FAILED || madvise(p, page_size, MADV_MERGEABLE) || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1)
		fail("MADV_MERGEABLE");
	close(ready[0]);
	set(KSM "pages_to_scan", 0xffffffff);
	set(KSM "stable_node_chains_prune_millisecs", 0);
}

/* ksmd sleeps for long after each pass.  Writing 0 to `run` waits for a pass under way; only then is it woken again. */
static void one_pass(void)
{
	static long sleep = LONG_SLEEP;
	const struct timespec ms = { 0, 1000000 };
	long before = full_scans();

	for (;;) {
		set(KSM "sleep_millisecs", sleep);
		set(KSM "run", 1);
		for (int i = 0; i < TRIES && full_scans() == before; i++)
			nanosleep(&ms, NULL);
		set(KSM "run", 0);
		if (full_scans() != before)
			break;
		sleep ^= 1;
	}
	sleep ^= 1;
}

struct result ksm_passes(word nr)
{
	keep_ksmd_busy();
	while (nr--)
		one_pass();
	return (struct result){ 0, 0 };
}

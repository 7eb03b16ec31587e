/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A program's own, exact samples of its page tables: sample_vmpte() returns VmPTE in kB and, where
 * TABLEWALK_SAMPLES names a file, appends "begin_ns end_ns pid vmpte_kb" to it (CLOCK_MONOTONIC).
 * Exact only while no other thread of the process faults or makes a system call.
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long read_vmpte(long long *begin, long long *end)
{
	static char status[8192];
	const char *line;
	ssize_t size;
	int fd = open("/proc/self/status", O_RDONLY);

	if (fd < 0)
		err(2, "/proc/self/status");
	*begin = now_ns();
	size = read(fd, status, sizeof(status) - 1);
	*end = now_ns();
	close(fd);
	if (size < 0)
		err(2, "/proc/self/status");
	status[size] = 0;
	line = strstr(status, "\nVmPTE:");
	if (!line)
		errx(2, "/proc/self/status has no VmPTE");
	return atol(line + 7);
}

static long sample_vmpte(void)
{
	static char line[128];
	static int out = -2;
	long long begin = 0, end = 0;
	long kb;
	int size;

	if (out == -2) {
		const char *name = getenv("TABLEWALK_SAMPLES");

		out = name ? open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
		if (name && out < 0)
			err(2, "%s", name);
		/* What sampling itself touches is touched before the first sample counts. */
		snprintf(line, sizeof(line), "%ld %lld %d", read_vmpte(&begin, &end), begin, getpid());
	}
	kb = read_vmpte(&begin, &end);
	if (out >= 0) {
		size = snprintf(line, sizeof(line), "%lld %lld %d %ld\n", begin, end, getpid(), kb);
		if (write(out, line, size) != size)
			err(2, "TABLEWALK_SAMPLES");
	}
	return kb;
}

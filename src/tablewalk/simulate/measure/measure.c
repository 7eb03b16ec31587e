// SPDX-License-Identifier: GPL-2.0-only
/* Measures a kernel from user space: reads names of measurements from stdin, and does them. */
#include "measure.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static double ns_per_tick;
static cpu_set_t usable;

#ifdef __x86_64__
static inline uint64_t ticks(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}
#else
static inline uint64_t ticks(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
#endif

static double monotonic(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void calibrate_ticks(void)
{
	double begun = monotonic(), ended;
	uint64_t first = ticks();

	do
		ended = monotonic();
	while (ended - begun < 5e7);
	ns_per_tick = (ended - begun) / (ticks() - first);
}

double now(void)
{
	return ticks() * ns_per_tick;
}

double overhead(void)
{
	static double least;

	if (least)
		return least;
	for (int i = 0; !least || i < 1000; i++) {
		double begun = now(), ns = now() - begun;

		if (ns > 0 && (!least || ns < least))
			least = ns;
	}
	return least;
}

void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

void tell(const char *name, double value)
{
	printf("%s %.3f\n", name, value);
	fflush(stdout);
}

void reserve(struct series *s, size_t nr)
{
	s->nr = 0;
	s->most = nr;
	s->ns = realloc(s->ns, nr * sizeof(*s->ns));
	if (!s->ns)
		die("memory");
	memset(s->ns, 0, nr * sizeof(*s->ns));	/* no faults later */
}

void add(struct series *s, double ns)
{
	if (s->nr == s->most)
		die("a series is too long");
	ns -= overhead();
	s->ns[s->nr++] = ns > 0 ? ns : 0;
}

static int by_number(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double median(struct series *s)
{
	qsort(s->ns, s->nr, sizeof(*s->ns), by_number);
	return s->ns[(s->nr - 1) / 2];
}

void tell_series(const char *name, const char *what, struct series *s)
{
	double sum = 0;

	if (!s->nr)
		return;
	qsort(s->ns, s->nr, sizeof(*s->ns), by_number);
	for (size_t i = 0; i < s->nr; i++)
		sum += s->ns[i];
	struct { const char *name; double value; } parts[] = {
		{ "n", s->nr },
		{ "mean", sum / s->nr },
		{ "min", s->ns[0] },
		{ "p50", median(s) },
		{ "p99", s->ns[(size_t)((s->nr - 1) * 0.99)] },
		{ "p99.9", s->ns[(size_t)((s->nr - 1) * 0.999)] },
		{ "max", s->ns[s->nr - 1] },
	};
	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		char full[80];

		snprintf(full, sizeof(full), "%s.%s.%s", name, what, parts[i].name);
		tell(full, parts[i].value);
	}
}

void sleep_ns(long ns)
{
	struct timespec t = { .tv_nsec = ns };

	nanosleep(&t, NULL);
}

char *map_huge_aligned(size_t length, int fd)
{
	char *room = mmap(NULL, length + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *at = (char *)(((uintptr_t)room + HUGE - 1) & -HUGE);
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;

	if (room == MAP_FAILED || mmap(at, length, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0) == MAP_FAILED)
		die("mmap");
	return at;
}

int nr_cpus(void)
{
	return CPU_COUNT(&usable);
}

void on_cpu(int cpu)
{
	cpu_set_t one;

	cpu %= nr_cpus();
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, &usable) && !cpu--) {
			CPU_ZERO(&one);
			CPU_SET(i, &one);
			sched_setaffinity(0, sizeof(one), &one);
			return;
		}
	}
}

int main(void)
{
	char what[32];

	if (sched_getaffinity(0, sizeof(usable), &usable))
		die("sched_getaffinity");
	prctl(PR_SET_TIMERSLACK, 1);
	setpriority(PRIO_PROCESS, 0, -20);	/* if it may: other work gets in the way less */
	calibrate_ticks();
	while (scanf("%31s", what) == 1) {
		if (!strcmp(what, "costs"))
			measure_costs();
		else if (!strcmp(what, "collapse"))
			measure_collapse();
		else if (!strcmp(what, "dontneed"))
			measure_dontneed();
		else if (!strcmp(what, "backing"))
			measure_backing();
		else
			die(what);
	}
	return 0;
}

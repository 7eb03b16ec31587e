// SPDX-License-Identifier: GPL-2.0-only
/* The workloads `shmem-collapse` and `dontneed-storm` of the simulation, as they are there, on a real kernel. */
#include "measure.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define EXTENTS 8		/* huge pages that the memory consists of */
#define TOUCHES 64		/* pages of each that are written, but where it is one */
#define REPEATS 40		/* of the collapse of a whole file */
#define ROUNDS 40		/* of the other */
#define THINK 1000		/* ns between two writes, on average */
#define SLEEP 50000		/* ns, where a thread sleeps instead */
#define FRESH 200		/* huge pages that are written to */
#define FREE_SECONDS 8		/* a hypervisor is told of free memory every other second */

/* A thread that writes to memory and gives it back. */
struct toucher {
	char *memory;
	int rounds, sleeps, touches;
	size_t keep;		/* bytes at the end of each huge page's range that it does not give back */
	unsigned int seed;
	struct series faults, gives, loops;	/* a loop: all faults of a range, and giving it back */
};

static void think(double ns)
{
	double until = now() + ns;

	while (now() < until)
		;
}

static long faulted(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

/* Write some pages of a huge page's range, evenly spread, and give it back. */
static void touch(struct toucher *t, char *start)
{
	double sum = 0, begun, ns;
	size_t step = HUGE / t->touches;
	long before = faulted();

	for (size_t at = rand_r(&t->seed) % ((step - t->keep) / PAGE) * PAGE; at < HUGE; at += step) {
		long after;

		begun = now();
		*(volatile char *)(start + at) = 1;
		ns = now() - begun;
		after = faulted();
		if (after != before) {
			add(&t->faults, ns);
			sum += ns;
		}
		before = after;
		if (t->sleeps)
			sleep_ns(SLEEP);
		else
			think(THINK / 2 + rand_r(&t->seed) % THINK);
	}
	begun = now();
	if (madvise(start, HUGE - t->keep, MADV_DONTNEED))
		die("MADV_DONTNEED");
	ns = now() - begun;
	add(&t->gives, ns);
	add(&t->loops, sum + ns);
}

/* Before all else, if this may: whom the scheduler prefers is not the question. */
static void have_priority(int priority)
{
	sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){ .sched_priority = priority });
}

static void reserve_for(struct toucher *t, int times)
{
	reserve(&t->faults, times * EXTENTS * t->touches);
	reserve(&t->gives, times * EXTENTS);
	reserve(&t->loops, times * EXTENTS);
}

/* Go through the memory, huge page by huge page, in any order. */
static void *toucher(void *argument)
{
	struct toucher *t = argument;
	int order[EXTENTS];

	on_cpu(0);
	if (t->sleeps)	/* to run at once when it wakes up */
		have_priority(2);
	for (int round = 0; round < t->rounds; round++) {
		for (int i = 0; i < EXTENTS; i++) {
			int other = rand_r(&t->seed) % (i + 1);

			order[i] = order[other];
			order[other] = i;
		}
		for (int i = 0; i < EXTENTS; i++)
			touch(t, t->memory + order[i] * HUGE);
	}
	return NULL;
}

/* Write to fresh huge pages, and give them back. */
static void write_fresh(int nr, struct series *writes)
{
	char *memory = map_huge_aligned(nr * HUGE, -1);

	madvise(memory, nr * HUGE, MADV_HUGEPAGE);
	for (int i = 0; i < nr; i++) {
		double begun = now();

		*(volatile char *)(memory + i * HUGE) = 1;
		add(writes, now() - begun);
	}
	munmap(memory, nr * HUGE);
}

/* A hypervisor may have taken memory that was free for a while, and be slow to give it again: not while we measure. */
static void have_memory(void)
{
	static struct series unused;

	reserve(&unused, 2 * EXTENTS);
	write_fresh(2 * EXTENTS, &unused);
}

/* Make huge pages of a file's memory, while a thread (unless it is NULL) writes to another mapping of the file. */
static void collapse_once(struct toucher *t, struct series *collapses)
{
	int fd = memfd_create("measure", 0);
	pthread_t thread;
	char *collapsed;

	if (fd < 0 || ftruncate(fd, EXTENTS * HUGE))
		die("memfd");
	have_memory();
	collapsed = map_huge_aligned(EXTENTS * HUGE, fd);
	for (size_t at = 0; at < EXTENTS * HUGE; at += PAGE)
		collapsed[at] = 1;
	on_cpu(1);
	if (t) {
		t->memory = map_huge_aligned(EXTENTS * HUGE, fd);
		if (pthread_create(&thread, NULL, toucher, t))
			die("thread");
	}
	for (int i = 0; i < EXTENTS; i++) {
		double begun, ended;
		int failed;

		do {
			sleep_ns(100 * THINK);
			begun = now();
			failed = madvise(collapsed + i * HUGE, HUGE, MADV_COLLAPSE);
			ended = now();
		} while (failed && errno == EAGAIN);
		if (!failed)
			add(collapses, ended - begun);
	}
	if (t) {
		pthread_join(thread, NULL);
		munmap(t->memory, EXTENTS * HUGE);
	}
	munmap(collapsed, EXTENTS * HUGE);
	close(fd);
}

double usual_collapse(void)
{
	static struct series collapses;

	reserve(&collapses, REPEATS * EXTENTS);
	for (int i = 0; i < REPEATS; i++)
		collapse_once(NULL, &collapses);
	return collapses.nr ? median(&collapses) : 0;
}

void measure_collapse(void)
{
	static struct toucher t = { .rounds = 1, .touches = TOUCHES, .sleeps = 1 };
	static struct series collapses;

	reserve_for(&t, REPEATS);
	reserve(&collapses, REPEATS * EXTENTS);
	have_priority(1);
	for (int i = 0; i < REPEATS; i++)
		collapse_once(&t, &collapses);
	sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){ 0 });
	tell_series("collapse", "fault", &t.faults);
	tell_series("collapse", "dontneed", &t.gives);
	tell_series("collapse", "collapse", &collapses);
}

/* Fresh huge pages: whose memory was in use just before, and whose memory was free for a while. */
void measure_backing(void)
{
	static struct series writes;

	reserve(&writes, FRESH);
	write_fresh(FRESH, &writes);
	reserve(&writes, FRESH);
	write_fresh(FRESH, &writes);
	tell_series("fresh", "again", &writes);
	sleep(FREE_SECONDS);
	reserve(&writes, FRESH);
	write_fresh(FRESH, &writes);
	tell_series("fresh", "later", &writes);
}

static void tell_storm(const char *name, struct toucher *t)
{
	tell_series(name, "fault", &t->faults);
	tell_series(name, "dontneed", &t->gives);
	tell_series(name, "loop", &t->loops);
}

/* Tables are given back with their last page; by turns with others of the same VMA that stay: what else is alike. */
static void storm(const char *name, const char *kept, int touches)
{
	struct toucher all = { .rounds = 1, .touches = touches }, less = { .rounds = 1, .touches = touches, .keep = PAGE };

	reserve_for(&all, ROUNDS);
	reserve_for(&less, ROUNDS);
	all.memory = map_huge_aligned(2 * EXTENTS * HUGE, -1);
	less.memory = all.memory + EXTENTS * HUGE;
	if (madvise(all.memory, 2 * EXTENTS * HUGE, MADV_NOHUGEPAGE))
		die("MADV_NOHUGEPAGE");
	for (int round = 0; round < ROUNDS; round++) {
		toucher(&all);
		toucher(&less);
	}
	tell_storm(name, &all);
	tell_storm(kept, &less);
	munmap(all.memory, 2 * EXTENTS * HUGE);
}

void measure_dontneed(void)
{
	storm("dontneed", "keep", TOUCHES);
	storm("single", "singlekeep", 1);
}

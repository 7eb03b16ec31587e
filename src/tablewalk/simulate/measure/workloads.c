// SPDX-License-Identifier: GPL-2.0-only
/* The workloads `shmem-collapse` and `dontneed-storm` of the simulation, as they are there, on a real kernel. */
#include "measure.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define EXTENTS 8		/* huge pages that the memory consists of */
#define TOUCHES 64		/* pages of each that are written */
#define REPEATS 40		/* of the collapse of a whole file */
#define ROUNDS 40		/* of the other */
#define THINK 1000.0		/* ns between two writes */

struct collapse {
	char *touched, *collapsed;
	struct series faults, gives, collapses;
	atomic_int over;
};

static void think(double ns)
{
	double until = now() + ns;

	while (now() < until)
		;
}

/* Write some pages of a huge page's range, evenly spread, and give it all back. */
static void touch(char *start, struct series *faults, struct series *gives)
{
	double begun;

	for (size_t at = 0; at < HUGE; at += HUGE / TOUCHES) {
		begun = now();
		*(volatile char *)(start + at) = 1;
		add(faults, now() - begun);
		think(THINK);
	}
	begun = now();
	if (madvise(start, HUGE, MADV_DONTNEED))
		die("MADV_DONTNEED");
	add(gives, now() - begun);
}

static void *toucher(void *argument)
{
	struct collapse *c = argument;

	on_cpu(0);
	while (!atomic_load(&c->over))
		for (int i = 0; i < EXTENTS; i++)
			touch(c->touched + i * HUGE, &c->faults, &c->gives);
	return NULL;
}

static void collapse_once(struct collapse *c)
{
	int fd = memfd_create("measure", 0);
	pthread_t thread;

	if (fd < 0 || ftruncate(fd, EXTENTS * HUGE))
		die("memfd");
	c->collapsed = map_huge_aligned(EXTENTS * HUGE, fd);
	c->touched = map_huge_aligned(EXTENTS * HUGE, fd);
	for (size_t at = 0; at < EXTENTS * HUGE; at += PAGE)
		c->collapsed[at] = 1;
	atomic_store(&c->over, 0);
	if (pthread_create(&thread, NULL, toucher, c))
		die("thread");
	on_cpu(1);
	for (int i = 0; i < EXTENTS; i++) {
		double begun;
		int failed;

		usleep(100);
		begun = now();
		failed = madvise(c->collapsed + i * HUGE, HUGE, MADV_COLLAPSE);
		if (!failed)
			add(&c->collapses, now() - begun);
	}
	atomic_store(&c->over, 1);
	pthread_join(thread, NULL);
	munmap(c->collapsed, EXTENTS * HUGE);
	munmap(c->touched, EXTENTS * HUGE);
	close(fd);
}

void measure_collapse(void)
{
	static struct collapse c;

	for (int i = 0; i < REPEATS; i++)
		collapse_once(&c);
	tell_series("collapse.fault", &c.faults);
	tell_series("collapse.dontneed", &c.gives);
	tell_series("collapse.collapse", &c.collapses);
}

void measure_dontneed(void)
{
	static struct series faults, gives;
	char *memory = map_huge_aligned(EXTENTS * HUGE, -1);

	if (madvise(memory, EXTENTS * HUGE, MADV_NOHUGEPAGE))
		die("MADV_NOHUGEPAGE");
	on_cpu(0);
	for (int round = 0; round < ROUNDS; round++)
		for (int i = 0; i < EXTENTS; i++)
			touch(memory + i * HUGE, &faults, &gives);
	tell_series("dontneed.fault", &faults);
	tell_series("dontneed.dontneed", &gives);
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A memfd of 64 MiB mapped twice in one process, both mappings touched, then MADV_COLLAPSE on the first.
 * Collapsing makes the PTE tables of both mappings superfluous. Linux 6.1 takes away only those of the
 * mappings whose mmap_lock it gets, and so keeps those of the caller's own; newer kernels need no mmap_lock.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "samples.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define SIZE (64UL << 20)

static volatile char *map_at(unsigned long address, int fd)
{
	/* Addresses of their own, each in another PMD and PUD table, make the figures comparable. */
	char *map = mmap((void *)address, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);

	if (map == MAP_FAILED)
		err(2, "mmap");
	return map;
}

static void touch(volatile char *map)
{
	unsigned long page = sysconf(_SC_PAGESIZE);

	for (unsigned long i = 0; i < SIZE; i += page)
		map[i]++;
}

int main(void)
{
	long start, once, twice, collapsed, again;
	volatile char *one, *two;
	int error = 0;
	int fd = memfd_create("collapse", 0);

	if (fd < 0 || ftruncate(fd, SIZE))
		err(2, "memfd");
	start = sample_vmpte();
	one = map_at(0x100000000000, fd);
	touch(one);
	once = sample_vmpte();
	two = map_at(0x110000000000, fd);
	touch(two);
	twice = sample_vmpte();
	if (madvise((void *)one, SIZE, MADV_COLLAPSE))
		error = errno;
	collapsed = sample_vmpte();
	touch(one);
	touch(two);
	again = sample_vmpte();

	printf("VmPTE kB: start %ld, mapped once %ld, twice %ld, ", start, once, twice);
	if (error)
		printf("MADV_COLLAPSE failed (%s) %ld, ", strerror(error), collapsed);
	else
		printf("collapsed %ld, ", collapsed);
	printf("both touched again %ld\n", again);
	return 0;
}

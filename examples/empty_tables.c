/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Leave page tables behind that hold nothing: touch N times 2 MiB, each of which needs a PTE table, and give
 * the memory back in a way that keeps the tables. `tablewalk inspect` finds them.
 *
 *   empty_tables [-w] [dontneed|free] [N]
 *
 *   dontneed   MADV_DONTNEED, a page at a time (the default): the kernel frees a table only where one call
 *              covers all of it
 *   free       MADV_FREE, and MADV_PAGEOUT to take the pages as if memory were short
 *   -w         then wait until standard input ends
 *
 * Prints its pid, VmPTE in kB and the addresses. N is 512 unless given.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/mman.h>

#include "samples.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define TABLE (2UL << 20)
#define ADDRESS 0x100000000000UL /* in a PMD and a PUD table of its own */

static void advise(char *at, unsigned long size, int advice, const char *name)
{
	if (madvise(at, size, advice))
		err(2, "%s", name);
}

/* Pages that wait in the batch of another CPU (mm/swap.c) would be passed over by MADV_PAGEOUT. */
static void stay_on_this_cpu(void)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(sched_getcpu(), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		err(2, "sched_setaffinity");
}

int main(int argc, char **argv)
{
	int wait = argc > 1 && !strcmp(argv[1], "-w");
	const char *mode = argc > 1 + wait ? argv[1 + wait] : "dontneed";
	const char *count = argc > 2 + wait ? argv[2 + wait] : "512";
	char *rest, *map;
	unsigned long tables = strtoul(count, &rest, 10), size = tables * TABLE, page = sysconf(_SC_PAGESIZE);
	int free_them = !strcmp(mode, "free");
	long vmpte;

	if (argc > 3 + wait || *rest || !tables || tables > 1 << 20 || (!free_them && strcmp(mode, "dontneed")))
		errx(2, "usage: empty_tables [-w] [dontneed|free] [N]");
	stay_on_this_cpu();
	sample_vmpte();
	map = mmap((void *)ADDRESS, size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (map == MAP_FAILED)
		err(2, "mmap of %lu MiB", size >> 20);
	if (madvise(map, size, MADV_NOHUGEPAGE))
		warn("MADV_NOHUGEPAGE"); /* a kernel without THP */
	for (unsigned long at = 0; at < size; at += TABLE) {
		for (unsigned long i = at; i < at + TABLE; i += page)
			*(volatile char *)(map + i) = 1;
		if (free_them) {
			advise(map + at, TABLE, MADV_FREE, "MADV_FREE");
			advise(map + at, TABLE, MADV_PAGEOUT, "MADV_PAGEOUT");
		} else {
			for (unsigned long i = at; i < at + TABLE; i += page)
				advise(map + i, page, MADV_DONTNEED, "MADV_DONTNEED");
		}
	}
	printf("pid %d: ", getpid()); /* takes the memory that printing needs before the sample */
	vmpte = sample_vmpte();
	printf("VmPTE %ld kB, emptied %p to %p\n", vmpte, (void *)map, (void *)(map + size));
	fflush(stdout);
	while (wait && getchar() != EOF)
		;
	return 0;
}

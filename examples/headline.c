/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The program behind PT_RECLAIM: map 50 GiB, then for each 2 MiB of it touch the pages and give them back
 * by MADV_DONTNEED. No memory is left at the end, but the page tables are, unless the kernel frees those
 * that became empty (CONFIG_PT_RECLAIM, Linux 6.14 and later on x86-64).
 *
 *   headline [-1] [GIB]     -1: touch one page of each 2 MiB instead of all
 */
#include <sys/mman.h>

#include "samples.h"

#define STEP (2UL << 20)

int main(int argc, char **argv)
{
	int one_page = argc > 1 && !strcmp(argv[1], "-1");
	const char *gib_arg = argc > 1 + one_page ? argv[1 + one_page] : "50";
	char *end;
	unsigned long gib = strtoul(gib_arg, &end, 10);
	unsigned long size = gib << 30, page = sysconf(_SC_PAGESIZE), step = one_page ? STEP : page;
	long start, looped, unmapped;
	char *map;

	if (*end || !gib || gib > 65536 || argc > 2 + one_page)
		errx(2, "usage: headline [-1] [GIB]");
	start = sample_vmpte();
	map = mmap(NULL, size + STEP, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		err(2, "mmap of %lu GiB", gib);
	map += -(unsigned long)map % STEP;
	if (madvise(map, size, MADV_NOHUGEPAGE))
		warn("MADV_NOHUGEPAGE"); /* a kernel without THP */
	for (unsigned long at = 0; at < size; at += STEP) {
		for (unsigned long i = 0; i < STEP; i += step)
			*(volatile char *)(map + at + i) = 1;
		if (madvise(map + at, STEP, MADV_DONTNEED))
			err(2, "MADV_DONTNEED");
		if (at % (256 * STEP) == 0)
			sample_vmpte();
	}
	looped = sample_vmpte();
	if (munmap(map, size))
		err(2, "munmap");
	unmapped = sample_vmpte();
	printf("VmPTE kB: start %ld, after the loop %ld, after munmap %ld\n", start, looped, unmapped);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads the hexadecimal numbers ARENA BYTES FIRST SECOND, and prints VmPTE in kB at each step, a line each.
 *
 * In BYTES of private memory at ARENA it touches one page of each 2 MiB and gives the 2 MiB back by MADV_DONTNEED;
 * then it maps a memfd of 64 MiB at FIRST and at SECOND, touches each, calls MADV_COLLAPSE on the first, and touches
 * both again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK (2UL << 20)
#define MEMFD (64UL << 20)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static void die(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

static long vmpte(void)
{
	FILE *status = fopen("/proc/self/status", "r");
	char line[256];
	long kb = -1;

	while (fgets(line, sizeof(line), status))
		sscanf(line, "VmPTE: %ld", &kb);
	fclose(status);
	return kb;
}

static char *map(unsigned long address, unsigned long bytes, int flags, int fd)
{
	char *p = mmap((void *)address, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, fd, 0);

	if (p != (char *)address)
		die("mmap");
	return p;
}

static void touch(char *p)
{
	for (unsigned long i = 0; i < MEMFD; i += sysconf(_SC_PAGESIZE))
		((volatile char *)p)[i] = 1;
}

static void say(void)
{
	printf("%ld\n", vmpte());
	fflush(stdout);
}

int main(void)
{
	unsigned long base, bytes, one, other;
	char *arena, *first, *second;
	int fd;

	if (scanf("%lx %lx %lx %lx", &base, &bytes, &one, &other) != 4)
		die("numbers");
	vmpte();	/* what reading takes is there from now on */
	say();
	arena = map(base, bytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	for (unsigned long i = 0; i < bytes; i += CHUNK) {
		((volatile char *)arena)[i] = 1;
		if (madvise(arena + i, CHUNK, MADV_DONTNEED))
			die("MADV_DONTNEED");
	}
	say();
	munmap(arena, bytes);
	say();
	fd = memfd_create("vmpte", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, MEMFD))
		die("memfd");
	first = map(one, MEMFD, MAP_SHARED, fd);
	touch(first);
	say();
	second = map(other, MEMFD, MAP_SHARED, fd);
	touch(second);
	say();
	if (madvise(first, MEMFD, MADV_COLLAPSE) && errno != EINVAL)
		die("MADV_COLLAPSE");
	say();
	touch(first);
	touch(second);
	say();
	return 0;
}

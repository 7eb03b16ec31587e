/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Random calls on a small piece of address space, VmPTE read exactly after each: what a replay must explain.
 *
 *   random_calls SEED CALLS
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "../../examples/samples.h"

#define BASE 0x100000000000UL /* alone in its 512 GiB */
#define AREA (24UL << 20)
#define PAGE 4096UL
#define TABLE (2UL << 20)
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static unsigned long long state;

static unsigned long any(unsigned long n)
{
	state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (state >> 33) % n;
}

/* An address in the area, most often where a table begins. */
static char *place(void)
{
	unsigned long offset = any(AREA / TABLE) * TABLE;

	switch (any(4)) {
	case 0:
		offset += any(TABLE / PAGE) * PAGE;
		break;
	case 1:
		offset += TABLE / 2;
		break;
	}
	return (char *)BASE + any(3) * (1UL << 30) + offset;
}

static unsigned long length(void)
{
	switch (any(4)) {
	case 0:
		return (1 + any(TABLE / PAGE)) * PAGE;
	case 1:
		return TABLE / 2;
	default:
		return (1 + any(4)) * TABLE;
	}
}

static int protection(void)
{
	static const int some[] = { PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE };

	return some[any(4)];
}

static int fds[3];

static void map(void)
{
	static const int kinds[] = { MAP_PRIVATE | MAP_ANONYMOUS, MAP_PRIVATE | MAP_ANONYMOUS, MAP_PRIVATE | MAP_ANONYMOUS,
				     MAP_SHARED | MAP_ANONYMOUS, MAP_SHARED, MAP_PRIVATE };
	int kind = kinds[any(6)], fd = kind & MAP_ANONYMOUS ? -1 : fds[any(3)];
	int extra = any(6) ? 0 : MAP_POPULATE;
	char *to = place();

	if (any(12) == 0)
		extra |= MAP_NORESERVE;
	mmap(to, length(), protection(), kind | MAP_FIXED | extra, fd, fd < 0 ? 0 : (off_t)(any(8) * TABLE / 2));
}

/* Touches some pages through read() and write(), which fail where a program would be killed. */
static void touch(void)
{
	static int zero = -1, null = -1;
	char *at = place();
	unsigned long size = length(), step = any(2) ? TABLE : PAGE * (1 + any(64));
	int write_it = any(3) != 0;

	if (zero < 0) {
		zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
		null = memfd_create("sink", MFD_CLOEXEC);
	}
	for (unsigned long i = 0; i < size; i += step) {
		if (write_it ? read(zero, at + i, 1) : pwrite(null, at + i, 1, 0))
			continue;
	}
}

static void advise(void)
{
	static const int advice[] = { MADV_DONTNEED, MADV_DONTNEED, MADV_DONTNEED, MADV_FREE, 24 /* DONTNEED_LOCKED */,
				      22 /* POPULATE_READ */, 23 /* POPULATE_WRITE */, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
				      MADV_DONTFORK, MADV_DOFORK, MADV_WIPEONFORK, MADV_KEEPONFORK, MADV_SEQUENTIAL,
				      MADV_NORMAL, MADV_REMOVE, MADV_COLD, 25 /* COLLAPSE */, 102 /* GUARD_INSTALL */,
				      103 /* GUARD_REMOVE */ };

	madvise(place(), length(), advice[any(sizeof(advice) / sizeof(*advice))]);
}

static void move(void)
{
	unsigned long old = length(), new = any(2) ? old : length();
	int flags = any(4) ? MREMAP_MAYMOVE | MREMAP_FIXED : 0;

	if (flags && old == new && any(4) == 0)
		flags |= MREMAP_DONTUNMAP;
	mremap(place(), old, new, flags, place());
}

static void child(void)
{
	pid_t pid = fork();

	if (pid < 0)
		err(2, "fork");
	if (pid == 0) {
		sample_vmpte();
		for (int i = 0; i < 3; i++) {
			touch();
			sample_vmpte();
			if (any(2))
				advise();
			sample_vmpte();
		}
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	long calls = argc > 2 ? atol(argv[2]) : 1000;
	char *heap = sbrk(0);

	state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	for (int i = 0; i < 3; i++) {
		fds[i] = memfd_create("file", MFD_CLOEXEC);
		if (fds[i] < 0 || ftruncate(fds[i], 1L << 30))
			err(2, "memfd_create");
	}
	sample_vmpte();
	for (long i = 0; i < calls; i++) {
		switch (any(20)) {
		case 0 ... 3:
			map();
			break;
		case 4 ... 10:
			touch();
			break;
		case 11 ... 13:
			advise();
			break;
		case 14:
			munmap(place(), length());
			break;
		case 15:
			mprotect(place(), length(), protection());
			break;
		case 16:
			move();
			break;
		case 17:
			if (any(2))
				mlock(place(), any(2) ? TABLE : PAGE);
			else
				munlock(place(), length());
			break;
		case 18:
			if (any(4) == 0)
				child();
			break;
		case 19:
			if (brk(heap + any(8) * TABLE) == 0 && sbrk(0) > (void *)heap)
				memset(heap, 1, PAGE);
			break;
		}
		sample_vmpte();
	}
	return 0;
}

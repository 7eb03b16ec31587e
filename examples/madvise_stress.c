/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Four threads (or as many as asked) fill, check and give back the pages of two shared mappings at random,
 * and verify every byte they read: what was written is there, what was given back by MADV_DONTNEED reads
 * as zero, what was given back by MADV_FREE is either.
 *
 *   striped  the threads own alternate runs of 32 pages, so that every PTE table is contended for and partial
 *            MADV_DONTNEEDs empty tables in pieces
 *   blocks   the threads own 2 MiB blocks, with and without huge pages: whole tables and huge pages go
 *
 * Between rounds all threads wait while one samples VmPTE: exact samples of a program that contends otherwise.
 *
 *   madvise_stress [ROUNDS [THREADS [SEED]]]     default 40 rounds, 4 threads
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

#include "samples.h"

#define PAGE 4096UL
#define BLOCK (2UL << 20)
#define RUN 32UL		/* pages of a striped area that belong together */
#define BLOCKS 24UL		/* of each mapping, for each thread */
#define OPS 48			/* of each thread in a round */

enum state { ZERO, FILLED, FREED };

struct page {
	uint64_t salt;
	enum state state;
};

static unsigned long threads = 4, rounds = 40, seed = 1;
static char *striped, *blocks;
static struct page *striped_pages, *block_pages;
static pthread_barrier_t barrier;

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void check(char *map, unsigned long nr, struct page *page)
{
	uint64_t *word = (uint64_t *)(map + nr * PAGE);
	uint64_t x = page->salt;
	int zero;

	/* Until it is written again the kernel may take the page away, so write; no word of a filled page is 0. */
	if (page->state == FREED)
		page->state = __atomic_fetch_or(word, 0, __ATOMIC_RELAXED) ? FILLED : ZERO;
	zero = page->state == ZERO;
	for (unsigned long i = 0; i < PAGE / 8; i++)
		if (word[i] != (zero ? 0 : next(&x)))
			errx(1, "page %lu of the %s mapping, word %lu: %#lx is not what was written", nr,
			     map == striped ? "striped" : "block", i, word[i]);
}

static void fill(char *map, unsigned long nr, struct page *page, uint64_t *random)
{
	uint64_t *word = (uint64_t *)(map + nr * PAGE);
	uint64_t x = page->salt = next(random);

	for (unsigned long i = 0; i < PAGE / 8; i++)
		word[i] = next(&x);
	page->state = FILLED;
}

static void give_back(char *map, unsigned long nr, unsigned long count, struct page *pages, int advice)
{
	if (madvise(map + nr * PAGE, count * PAGE, advice))
		err(2, "madvise %d", advice);
	for (unsigned long i = nr; i < nr + count; i++)
		if (advice == MADV_DONTNEED)
			pages[i].state = ZERO;
		else if (pages[i].state == FILLED)
			pages[i].state = FREED;
}

/* Something random to pages nr .. nr + count - 1, which are the caller's own. */
static void work(char *map, unsigned long nr, unsigned long count, struct page *pages, uint64_t *random)
{
	unsigned long from = nr + next(random) % count;
	unsigned long to = from + 1 + next(random) % (nr + count - from);

	switch (next(random) % 8) {
	case 0:
		give_back(map, nr, count, pages, MADV_DONTNEED);
		break;
	case 1:
		give_back(map, from, to - from, pages, MADV_DONTNEED);
		break;
	case 2:
		give_back(map, from, to - from, pages, MADV_FREE);
		break;
	case 3:
	case 4:
		for (unsigned long i = from; i < to; i++)
			check(map, i, &pages[i]);
		break;
	default:
		for (unsigned long i = from; i < to; i++) {
			if (pages[i].state != ZERO)
				check(map, i, &pages[i]);
			fill(map, i, &pages[i], random);
		}
	}
}

static void *thread(void *arg)
{
	unsigned long self = (unsigned long)arg, runs = BLOCKS * BLOCK / PAGE / RUN;
	uint64_t random = (seed * 64 + self + 1) * 0x9e3779b97f4a7c15;

	for (unsigned long round = 0; round < rounds; round++) {
		for (int op = 0; op < OPS; op++) {
			unsigned long run = next(&random) % runs * threads + self;
			unsigned long block = next(&random) % BLOCKS * threads + self;

			if (op % 4)
				work(striped, run * RUN, RUN, striped_pages, &random);
			else
				work(blocks, block * (BLOCK / PAGE), BLOCK / PAGE, block_pages, &random);
		}
		pthread_barrier_wait(&barrier);
		if (self == 0)
			sample_vmpte();
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void *reserve(unsigned long size)
{
	char *map = mmap(NULL, size + BLOCK, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		err(2, "mmap");
	return map + -(unsigned long)map % BLOCK;
}

static unsigned long number(const char *arg, unsigned long max)
{
	char *end;
	unsigned long n = strtoul(arg, &end, 10);

	if (*end || !n || n > max)
		errx(2, "usage: madvise_stress [ROUNDS [THREADS [SEED]]]");
	return n;
}

int main(int argc, char **argv)
{
	unsigned long size;
	pthread_t *ids;

	if (argc > 1)
		rounds = number(argv[1], 1000000);
	if (argc > 2)
		threads = number(argv[2], 256);
	if (argc > 3)
		seed = number(argv[3], 1UL << 32);
	if (sysconf(_SC_PAGESIZE) != PAGE)
		errx(2, "made for pages of 4 KiB");
	size = BLOCKS * BLOCK * threads;
	striped = reserve(size);
	blocks = reserve(size);
	striped_pages = calloc(size / PAGE, sizeof(struct page));
	block_pages = calloc(size / PAGE, sizeof(struct page));
	ids = calloc(threads, sizeof(*ids));
	if (!striped_pages || !block_pages || !ids)
		err(2, "calloc");
	/* Huge pages where the system leaves it to madvise, on every other block. */
	for (unsigned long at = 0; at < size; at += 2 * BLOCK)
		if (madvise(blocks + at, BLOCK, MADV_HUGEPAGE))
			warn("MADV_HUGEPAGE");
	sample_vmpte();
	pthread_barrier_init(&barrier, NULL, threads);
	for (unsigned long i = 0; i < threads; i++)
		if ((errno = pthread_create(&ids[i], NULL, thread, (void *)i)))
			err(2, "pthread_create");
	for (unsigned long i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	printf("VmPTE kB after %lu rounds of %lu threads: %ld\n", rounds, threads, sample_vmpte());
	return 0;
}

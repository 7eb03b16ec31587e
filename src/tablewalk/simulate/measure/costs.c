// SPDX-License-Identifier: GPL-2.0-only
/* What single things cost: the least of many tries, so that what else runs on the machine matters little. */
#include "measure.h"

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRIES 20
#define LOOPS 2000
#define FEW 20
#define MOMENT 50000		/* ns */
#define BUFFER (64ul << 20)
#define PIECE (64ul << 10)

static void least(const char *name, double (*once)(void))
{
	double best = once();

	for (int i = 1; i < TRIES; i++) {
		double ns = once();

		best = ns < best ? ns : best;
	}
	tell(name, best);
}

static double one_syscall(void)
{
	double begun = now();

	for (int i = 0; i < LOOPS; i++)
		syscall(SYS_getppid);
	return (now() - begun) / LOOPS;
}

static double one_atomic(void)
{
	static atomic_long cell;
	double begun = now();

	for (int i = 0; i < LOOPS; i++)
		atomic_fetch_add(&cell, 1);
	return (now() - begun) / LOOPS;
}

/* A chain of loads that hit the first-level cache. */
static double one_load(void)
{
	static void *cell = &cell;
	void **at = &cell;
	double begun = now();

	for (int i = 0; i < LOOPS; i++) {
		at = *(void **volatile *)at;
	}
	begun = (now() - begun) / LOOPS;
	return at == &cell ? begun : 0;
}

static char *buffer, *other;

/* As the kernel does it: a compiler's memset may use instructions that the kernel does not. */
static void clear(char *page)
{
#ifdef __x86_64__
	long words = PAGE / 8;

	__asm__ volatile("rep stosq" : "+D"(page), "+c"(words) : "a"(0l) : "memory");
#else
	memset(page, 0, PAGE);
#endif
}

static void copy(char *to, char *from)
{
#ifdef __x86_64__
	long words = PAGE / 8;

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
#else
	memcpy(to, from, PAGE);
#endif
}

/* The least time for a byte of a piece, of a buffer that is larger than caches. */
static double per_byte(int copies)
{
	double best = 1e18;

	for (size_t at = 0; at < BUFFER; at += PIECE) {
		double begun = now();

		for (size_t page = at; page < at + PIECE; page += PAGE) {
			if (copies)
				copy(other + page, buffer + page);
			else
				clear(buffer + page);
		}
		begun = now() - begun;
		best = begun < best ? begun : best;
	}
	return best / PIECE;
}

static double clear_byte(void)
{
	return per_byte(0);
}

static double copy_byte(void)
{
	return per_byte(1);
}

/* Two threads that take turns; what they wait by differs. */
static struct {
	_Alignas(128) atomic_int turn;
	int rounds, cpu, sleeps;
} game;

/* Returns the least time of a turn, on average over a few: others want the CPUs, too. */
static double play(int mine)
{
	double best = 1e18, begun = now();

	for (int i = 1; i <= game.rounds; i++) {
		while (atomic_load(&game.turn) != mine)
			if (game.sleeps)
				syscall(SYS_futex, &game.turn, FUTEX_WAIT_PRIVATE, !mine, NULL, NULL, 0);
		atomic_store(&game.turn, !mine);
		if (game.sleeps)
			syscall(SYS_futex, &game.turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
		if (i % FEW == 0) {
			double ended = now();

			best = ended - begun < best ? ended - begun : best;
			begun = ended;
		}
	}
	return best / FEW / 2;
}

static void *opponent(void *unused)
{
	on_cpu(game.cpu);
	play(1);
	return unused;
}

static double turns(int rounds, int cpu, int sleeps)
{
	pthread_t thread;
	double best;

	game.rounds = rounds;
	game.cpu = cpu;
	game.sleeps = sleeps;
	atomic_store(&game.turn, 0);
	on_cpu(0);
	if (pthread_create(&thread, NULL, opponent, NULL))
		die("thread");
	best = play(0);
	pthread_join(thread, NULL);
	return best;
}

static double one_transfer(void)
{
	return turns(LOOPS, 1, 0);
}

static double one_switch(void)
{
	return turns(LOOPS, 0, 1);
}

/* From a wake-up until a thread runs that slept on another CPU, which has gone idle by then. */
static struct {
	atomic_int word;
	double woken, best;
} bed;

static void *sleeper(void *unused)
{
	on_cpu(1);
	for (int i = 0; i < LOOPS / 4; i++) {
		atomic_store(&bed.word, 1);
		if (!syscall(SYS_futex, &bed.word, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0)) {
			double ns = now() - bed.woken;

			bed.best = ns < bed.best ? ns : bed.best;
		}
	}
	atomic_store(&bed.word, 2);
	return unused;
}

static double measure_wakeup(void)
{
	pthread_t thread;

	bed.best = 1e9;
	on_cpu(0);
	if (pthread_create(&thread, NULL, sleeper, NULL))
		die("thread");
	while (atomic_load(&bed.word) != 2) {
		double until = now() + 50000;

		while (now() < until)
			;
		if (atomic_load(&bed.word) == 1) {
			bed.woken = now();
			atomic_store(&bed.word, 0);
			syscall(SYS_futex, &bed.word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
		}
	}
	pthread_join(thread, NULL);
	return bed.best;
}

/* A page taken away by MADV_DONTNEED, and how much longer that takes with another thread running on another CPU. */
static atomic_int over;
static atomic_ulong progress;

static void *run_on(void *cpu)
{
	on_cpu(*(int *)cpu);
	while (!atomic_load(&over))
		atomic_fetch_add_explicit(&progress, 1, memory_order_relaxed);
	return NULL;
}

/* Another thread that runs on a CPU, until `end_of`. */
static pthread_t begin_on(int *cpu)
{
	pthread_t thread;

	atomic_store(&over, 0);
	atomic_store(&progress, 0);
	on_cpu(0);
	if (pthread_create(&thread, NULL, run_on, cpu))
		die("thread");
	while (!atomic_load(&progress))
		sched_yield();
	return thread;
}

static void end_of(pthread_t thread)
{
	atomic_store(&over, 1);
	pthread_join(thread, NULL);
}

/* The median: a hypervisor spares the interrupt if the other CPU does not run just then. */
static double usual_give(char *page)
{
	static struct series s;

	reserve(&s, TRIES * 100);
	for (int i = 0; i < TRIES * 100; i++) {
		double begun;

		*(volatile char *)page = 1;
		begun = now();
		madvise(page, PAGE, MADV_DONTNEED);
		add(&s, now() - begun);
	}
	return median(&s);
}

static void shootdown(void)
{
	char *page = map_huge_aligned(HUGE, -1);
	pthread_t other;
	double alone;

	madvise(page, HUGE, MADV_NOHUGEPAGE);
	page[PAGE] = 1;
	on_cpu(0);
	alone = usual_give(page);
	tell("dontneed", alone);
	if (nr_cpus() < 2)
		return;
	other = begin_on(&(int){ 1 });
	tell("shootdown", usual_give(page) - alone);
	end_of(other);
}

/* How late a thread that sleeps for a moment gets the CPU that another one runs on. */
static double usual_delay(void)
{
	static struct series s;
	pthread_t other = begin_on(&(int){ 0 });

	reserve(&s, TRIES * FEW);
	for (int i = 0; i < TRIES * FEW; i++) {
		double begun = now();

		sleep_ns(MOMENT);
		add(&s, now() - begun - MOMENT);
	}
	end_of(other);
	return median(&s);
}

static double one_grace_period(void)
{
	double begun = now();

	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
		return 0;
	return now() - begun;
}

void measure_costs(void)
{
	double collapse;

	buffer = map_huge_aligned(BUFFER, -1);
	other = map_huge_aligned(BUFFER, -1);
	memset(buffer, 1, BUFFER);
	memset(other, 1, BUFFER);
	on_cpu(0);
	least("syscall", one_syscall);
	least("atomic", one_atomic);
	least("load", one_load);
	least("clear", clear_byte);
	least("copy", copy_byte);
	collapse = usual_collapse();
	if (collapse)
		tell("collapse", collapse);
	least("switch", one_switch);
	if (nr_cpus() > 1) {
		least("transfer", one_transfer);
		tell("wakeup", measure_wakeup());
	}
	shootdown();
	tell("preempt", usual_delay());
	if (nr_cpus() > 1)	/* a grace period is over at once on one CPU */
		least("grace_period", one_grace_period);
}

// SPDX-License-Identifier: GPL-2.0-only
/* What the measurements share: time in nanoseconds, memory, threads on CPUs, and lines `NAME VALUE` on stdout. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096ul
#define HUGE (2ul << 20)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

struct series {			/* latencies, in the order in which they were measured until it is told */
	double *ns;
	size_t nr, most;
};

double now(void);		/* ns */
double overhead(void);		/* of two calls of now */
void die(const char *what);
void tell(const char *name, double value);
void reserve(struct series *s, size_t nr);	/* empty, with room for so many: adding one is quick */
void add(struct series *s, double ns);
double median(struct series *s);	/* of one that is not empty, and is sorted now */
/* The distribution of a series: NAME.WHAT.n, .mean, .min, .p50, .p99, .p99.9, .max. */
void tell_series(const char *name, const char *what, struct series *s);
void sleep_ns(long ns);
char *map_huge_aligned(size_t length, int fd);
void on_cpu(int cpu);		/* of those that this process may use, counted from 0, or any if there are fewer */
int nr_cpus(void);

void measure_costs(void);
double usual_collapse(void);	/* of a file's memory that nobody else uses; 0 if it fails */
void measure_collapse(void);
void measure_dontneed(void);
void measure_backing(void);

/* SPDX-License-Identifier: GPL-2.0-only */
/* The canonical text of what a process's memory looks like from outside; only the arena counts.
 *
 * Its counters are those of /proc less what the agent itself had at the beginning.
 */

#define _GNU_SOURCE
#include "agent.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { PTE, RSS_ANON, RSS_FILE, RSS_SHMEM, SWAP, LOCKED, NR_COUNTERS };

static const char *const counter_names[NR_COUNTERS] = { "VmPTE:", "RssAnon:", "RssFile:", "RssShmem:", "VmSwap:", "VmLck:" };

static const char *const field_names[] = {
	"Rss:", "Pss:", "Anonymous:", "AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:", "Swap:", "Locked:", "KSM:",
};

enum { NR_FIELDS = sizeof(field_names) / sizeof(*field_names) };

/* VmFlags that the model has */
static const char flags[] = " rd wr ex sh mr mw me ms gd um gu uw lo sr rr dc de lf ac nr wf dd hg nh mg ui sl ";

static struct {
	int status, smaps, pagemap;
	int locked; /* memory outside of the arena may be */
} proc[MAX_PROCESSES];

static long baseline[NR_COUNTERS];
static char text[1 << 20];
static uint64_t entry[4096];

static int open_proc(pid_t pid, const char *name)
{
	char path[64];
	struct text t = { path, 0, sizeof(path) - 1 };
	int fd;

	put_str(&t, "/proc/");
	put_dec(&t, pid);
	put_str(&t, name);
	path[t.len] = 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail(path);
	return fd;
}

void observe_open(int process)
{
	pid_t pid = shared->slot[process].pid;

	proc[process].status = open_proc(pid, "/status");
	proc[process].smaps = open_proc(pid, "/smaps");
	proc[process].pagemap = open_proc(pid, "/pagemap");
	proc[process].locked = 0;
}

/* The process asks for all of its memory to be locked. */
void observe_all_locked(int process)
{
	proc[process].locked = 1;
}

void observe_close(int process)
{
	close(proc[process].status);
	close(proc[process].smaps);
	close(proc[process].pagemap);
}

static char *read_whole(int fd)
{
	size_t len = 0;
	ssize_t n;

	while ((n = pread(fd, text + len, sizeof(text) - 1 - len, len)) > 0)
		len += n;
	text[len] = 0;
	return text;
}

/* What smaps has up to the arena's end, or of all memory where that may be locked.  Each read begins with a mapping. */
static char *read_smaps(int process)
{
	size_t len = 0;
	ssize_t n;

	do {
		n = pread(proc[process].smaps, text + len, sizeof(text) - 1 - len, len);
		text[len + (n > 0 ? n : 0)] = 0;
		if (n > 0 && !proc[process].locked && strtoul(text + len, NULL, 16) >= arena.end)
			break;
		len += n;
	} while (n > 0);
	return text;
}

static char *next_line(char *p)
{
	p = strchr(p, '\n');
	return p ? p + 1 : NULL;
}

/* The number of the name at the line's beginning, or -1. */
static int named(const char *line, const char *const *names, int nr)
{
	for (int i = 0; i < nr; i++)
		if (*line == *names[i] && !strncmp(line, names[i], strlen(names[i])))
			return i;
	return -1;
}

static void read_counters(int process, long *counter)
{
	memset(counter, 0, NR_COUNTERS * sizeof(*counter));
	for (char *p = read_whole(proc[process].status); p && *p; p = next_line(p)) {
		int i = named(p, counter_names, NR_COUNTERS);

		if (i >= 0)
			counter[i] = strtol(p + strlen(counter_names[i]), NULL, 10);
	}
}

/* What the agent has of its own, while the arena is empty. */
void observe_baseline(int process)
{
	read_counters(process, baseline);
}

/* --- VMAs ------------------------------------------------------------------------------------------ */

static void put_file(struct text *t, dev_t device, ino_t inode)
{
	put_str(t, " ");
	if (!inode) {
		put_str(t, "-");
		return;
	}
	for (int i = 0; i < nr_files; i++)
		if (file[i].device == device && file[i].inode == inode) {
			put_str(t, "f");
			put_dec(t, i);
			return;
		}
	put_str(t, "s");
}

static void put_flags(struct text *t, const char *line)
{
	char known[5] = "    ";

	put_str(t, " ");
	for (line += strlen("VmFlags: "); *line && *line != '\n'; line += 3) {
		known[1] = line[0];
		known[2] = line[1];
		known[3] = ' ';
		known[4] = 0;
		if (strstr(flags, known)) {
			known[3] = 0;
			put_str(t, known + 1);
		}
	}
	put_str(t, "\n");
}

/* The line of one VMA from its lines in smaps, and kB locked if it is not in the arena.  Returns what follows. */
static char *put_vma(struct text *t, char *p, long *locked_outside)
{
	char *rest;
	word start = strtoul(p, &rest, 16), end = strtoul(rest + 1, &rest, 16);
	int inside = start >= arena.start && end <= arena.end;
	char *prot = rest + 1;
	word offset = strtoul(prot + 5, &rest, 16);
	unsigned major, minor;
	ino_t inode;
	long value[NR_FIELDS] = { 0 };

	major = strtoul(rest, &rest, 16);
	minor = strtoul(rest + 1, &rest, 16);
	inode = strtoul(rest, &rest, 10);
	if (inside) {
		put_str(t, "v");
		put_hex(t, start);
		put_str(t, "-");
		put_hex(t, end);
		prot[4] = 0;
		put_str(t, " ");
		put_str(t, prot);
		prot[4] = ' ';
		put_str(t, " ");
		put_hex(t, offset);
		put_file(t, makedev(major, minor), inode);
	}
	while ((p = next_line(p)) && *p) {
		int i;

		if (!strncmp(p, "VmFlags:", 8)) {
			if (inside) {
				for (i = 0; i < NR_FIELDS; i++) {
					put_str(t, i ? "," : " ");
					put_dec(t, value[i]);
				}
				put_flags(t, p);
			} else {
				char *end_of_line = strchr(p, '\n');
				char *lo = strstr(p, " lo");

				if (lo && lo < end_of_line)
					*locked_outside += (end - start) >> 10;
			}
			p = next_line(p);
			break;
		}
		i = named(p, field_names, NR_FIELDS);
		if (i >= 0)
			value[i] = strtol(p + strlen(field_names[i]), NULL, 10);
	}
	if (inside && shared->nr_spans && shared->span[shared->nr_spans - 1].end == start) {
		shared->span[shared->nr_spans - 1].end = end;
	} else if (inside) {
		if (shared->nr_spans == MAX_SPANS)
			fail("too many mappings");
		shared->span[shared->nr_spans++] = (struct range){ start, end };
	}
	return p;
}

/* --- pages ----------------------------------------------------------------------------------------- */

/* Pages of the same kind, one after the other; a kind of 0 is not told. */
struct run {
	word start, end;
	unsigned kind;
};

static void put_run(struct text *t, const char *what, const struct run *run, const char *letters)
{
	char kind[2] = "";

	if (!run->kind)
		return;
	put_str(t, what);
	put_hex(t, run->start);
	put_str(t, " ");
	put_dec(t, (run->end - run->start) / page_size);
	put_str(t, *letters ? " " : "");
	for (int i = 0; letters[i]; i++)
		if (run->kind >> i & 1) {
			kind[0] = letters[i];
			put_str(t, kind);
		}
	put_str(t, "\n");
}

static void add_page(struct text *t, const char *what, struct run *run, word page, unsigned kind, const char *letters)
{
	if (kind != run->kind || page != run->end) {
		put_run(t, what, run, letters);
		run->start = page;
		run->kind = kind;
	}
	run->end = page + page_size;
}

static const char pagemap_letters[] = "xwgfsp";

/* exclusive, uffd-wp, guard, file or shared, swapped, present: bits 56, 57, 58, 61, 62, 63 */
static unsigned pagemap_kind(uint64_t e)
{
	return (e >> 56 & 7) | (e >> 61 & 7) << 3;
}

static void put_pagemap(struct text *t, int fd)
{
	struct run run = { 0, 0, 0 };

	for (int i = 0; i < shared->nr_spans; i++)
		for (word p = shared->span[i].start; p < shared->span[i].end;) {
			word nr = (shared->span[i].end - p) / page_size;
			ssize_t n;

			if (nr > sizeof(entry) / sizeof(*entry))
				nr = sizeof(entry) / sizeof(*entry);
			n = pread(fd, entry, nr * 8, (off_t)(p / page_size * 8));
			if (n <= 0)
				fail("pagemap cannot be read");
			for (ssize_t k = 0; k < n / 8; k++, p += page_size)
				if (entry[k])
					add_page(t, "m", &run, p, pagemap_kind(entry[k]), pagemap_letters);
		}
	put_run(t, "m", &run, pagemap_letters);
}

static void put_mincore(struct text *t, int process)
{
	struct run run = { 0, 0, 0 };
	const unsigned char *vec = shared->vec;

	if (ask(process, mincore_kind(), 0, NULL).ret)
		fail("mincore fails");
	for (int i = 0; i < shared->nr_spans; i++)
		for (word p = shared->span[i].start; p < shared->span[i].end; p += page_size, vec++)
			if (*vec & 1)
				add_page(t, "c", &run, p, 1, "");
	put_run(t, "c", &run, "");
}

/* Append the observation of one process. */
void observe(struct text *t, int process)
{
	static const char *const names[NR_COUNTERS] = { " pte=", " anon=", " file=", " shmem=", " swap=", " lck=" };
	long counter[NR_COUNTERS], locked_outside = 0;
	static char vmas[1 << 18];
	struct text v = { vmas, 0, sizeof(vmas) };

	read_counters(process, counter);
	shared->nr_spans = 0;
	for (char *p = read_smaps(process); p && *p;)
		p = put_vma(&v, p, &locked_outside);
	counter[LOCKED] -= locked_outside;
	put_str(t, "p");
	put_dec(t, process);
	for (int i = 0; i < NR_COUNTERS; i++) {
		if (!with_rss && i >= RSS_ANON && i <= SWAP)
			continue;
		put_str(t, names[i]);
		put_dec(t, counter[i] - baseline[i]);
	}
	put_str(t, "\n");
	vmas[v.len] = 0;
	put_str(t, vmas);
	put_pagemap(t, proc[process].pagemap);
	put_mincore(t, process);
}

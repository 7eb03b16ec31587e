/* SPDX-License-Identifier: GPL-2.0-only */
/* The canonical text of what a process's memory looks like from outside; only the arena counts.
 *
 * Its counters are those of /proc less what the agent itself had at the beginning.
 */

#define _GNU_SOURCE
#include "agent.h"

#include <fcntl.h>
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
static const char flags[] = "rd wr ex sh mr mw me ms gd um gu uw lo sr rr dc de lf ac nr wf dd sd hg nh mg ui sl ";

static struct {
	int status, smaps, pagemap;
	int locked; /* memory outside of the arena may be */
} proc[MAX_PROCESSES];

static long baseline[NR_COUNTERS];

/* The controller's alone. */
enum { TEXT = 1 << 20, VMAS = 1 << 18, ENTRIES = 4096 };
static char *text, *vmas;
static uint64_t *entry;
static unsigned char *in_core; /* by page of the arena */

/* Neighbouring mappings, all of files or none. */
static struct span {
	word start, end;
	int of_file;
} span[MAX_SPANS];
static int nr_spans;

void observe_begin(void)
{
	text = alone(TEXT);
	vmas = alone(VMAS);
	entry = alone(ENTRIES * sizeof(*entry));
	in_core = alone(MAX_PAGES);
}

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

/* --- reading text: without the C library, whose vector instructions take long where they are emulated --- */

static char *next_line(char *p)
{
	while (*p && *p != '\n')
		p++;
	return *p ? p + 1 : p;
}

static char *next_hex(char *p, word *n)
{
	for (*n = 0;; p++)
		if (*p >= '0' && *p <= '9')
			*n = *n << 4 | (word)(*p - '0');
		else if (*p >= 'a' && *p <= 'f')
			*n = *n << 4 | (word)(*p - 'a' + 10);
		else
			return p;
}

static char *next_dec(char *p, word *n)
{
	while (*p == ' ' || *p == '\t')
		p++;
	for (*n = 0; *p >= '0' && *p <= '9'; p++)
		*n = *n * 10 + (word)(*p - '0');
	return p;
}

/* What follows if the line begins like this, or NULL. */
static char *after(char *line, const char *name)
{
	while (*name && *line == *name)
		line++, name++;
	return *name ? NULL : line;
}

/* What smaps has up to the arena's end, or of all memory where that may be locked.  Each read begins with a mapping. */
static char *read_smaps(int process)
{
	size_t len = 0;
	ssize_t n;
	word first;

	do {
		n = pread(proc[process].smaps, text + len, TEXT - 1 - len, len);
		text[len + (n > 0 ? n : 0)] = 0;
		next_hex(text + len, &first);
		if (n > 0 && !proc[process].locked && first >= arena.end)
			break;
		len += n;
	} while (n > 0);
	return text;
}

static void read_counters(int process, long *counter)
{
	ssize_t n = pread(proc[process].status, text, TEXT - 1, 0);
	char *rest;

	text[n > 0 ? n : 0] = 0;
	memset(counter, 0, NR_COUNTERS * sizeof(*counter));
	for (char *p = text; *p; p = next_line(p))
		for (int i = 0; i < NR_COUNTERS; i++)
			if ((rest = after(p, counter_names[i]))) {
				next_dec(rest, (word *)&counter[i]);
				break;
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

/* The number of two letters of VmFlags. */
static unsigned letters(const char *p)
{
	return (unsigned char)(p[0] - 'a') % 32 << 5 | (unsigned char)(p[1] - 'a') % 32;
}

static void put_flags(struct text *t, const char *p)
{
	static unsigned char known[32 * 32];

	if (!known[letters("rd")])
		for (const char *f = flags; *f; f += 3)
			known[letters(f)] = 1;
	put_str(t, " ");
	for (; *p && *p != '\n'; p += 3)
		if (known[letters(p)])
			put_chars(t, p, 2);
	put_str(t, "\n");
}

static int has_flag(const char *p, const char *flag)
{
	for (; *p && *p != '\n'; p += 3)
		if (p[0] == flag[0] && p[1] == flag[1])
			return 1;
	return 0;
}

static void add_span(word start, word end, int of_file)
{
	struct span *last = span + nr_spans - 1;

	if (nr_spans && last->end == start && last->of_file == of_file) {
		last->end = end;
		return;
	}
	if (nr_spans == MAX_SPANS)
		fail("too many mappings");
	span[nr_spans++] = (struct span){ start, end, of_file };
}

static char *put_head(struct text *t, char *p, word start, word end)
{
	char *prot = p;
	word offset, major, minor, inode;

	p = next_hex(p + 5, &offset);
	p = next_hex(p + 1, &major);
	p = next_hex(p + 1, &minor);
	p = next_dec(p, &inode);
	put_str(t, "v");
	put_hex(t, start);
	put_str(t, "-");
	put_hex(t, end);
	put_str(t, " ");
	put_chars(t, prot, 4);
	put_str(t, " ");
	put_hex(t, offset);
	put_file(t, makedev(major, minor), inode);
	add_span(start, end, inode != 0);
	return p;
}

/* A line of smaps has at least as many bytes. */
enum { SHORTEST = sizeof("THPeligible:    0") - 1 };

/* The line of one VMA from its lines in smaps, and kB locked if it is not in the arena.  Returns what follows. */
static char *put_vma(struct text *t, char *p, long *locked_outside)
{
	word start, end, value[NR_FIELDS] = { 0 };
	char *rest, *flags_told;
	int inside;

	p = next_hex(p, &start);
	p = next_hex(p + 1, &end) + 1;
	inside = start >= arena.start && end <= arena.end;
	if (inside)
		p = put_head(t, p, start, end);
	for (p = next_line(p); *p && !(flags_told = after(p, "VmFlags: ")); p = next_line(p + SHORTEST))
		for (int i = 0; inside && i < NR_FIELDS; i++)
			if ((rest = after(p, field_names[i]))) {
				next_dec(rest, &value[i]);
				break;
			}
	if (!*p)
		fail("smaps without VmFlags");
	if (inside) {
		for (int i = 0; i < NR_FIELDS; i++) {
			put_str(t, i ? "," : " ");
			put_dec(t, value[i]);
		}
		put_flags(t, flags_told);
	} else if (has_flag(flags_told, "lo")) {
		*locked_outside += (end - start) >> 10;
	}
	return next_line(p);
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

static void add_run(struct text *t, const char *what, struct run *run, struct run more, const char *letters)
{
	if (!more.kind)
		return;
	if (more.kind == run->kind && more.start == run->end) {
		run->end = more.end;
		return;
	}
	put_run(t, what, run, letters);
	*run = more;
}

static const char pagemap_letters[] = "xwgdfsp";

/*
 * exclusive, uffd-wp, guard, soft-dirty, file or shared, swapped, present: bits 56, 57, 58, 55, 61, 62, 63.
 * Where nothing is mapped a page is as soft-dirty as its VMA, of which VmFlags tells.
 */
static unsigned pagemap_kind(uint64_t e)
{
	unsigned kind = (e >> 56 & 7) | (e >> 61 & 7) << 4;

	return kind ? kind | (e >> 55 & 1) << 3 : 0;
}

enum { SWAPPED = 1 << 5, PRESENT = 1 << 6 };

/* Pages that mincore is not asked for although some before and after them are: asking once more would take longer. */
enum { NEAR = 128 };

/* mincore is to be asked for these; for ranges from `first` on the mapping is the same. */
static void ask_for(word start, word end, int first)
{
	struct range *last = shared->ask + shared->nr_asks - 1;

	if (shared->nr_asks > first && start - last->end <= NEAR * (word)page_size) {
		last->end = end;
		return;
	}
	if (shared->nr_asks == MAX_SPANS)
		fail("too many mappings");
	shared->ask[shared->nr_asks++] = (struct range){ start, end };
}

static word page_of(word addr)
{
	return (addr - arena.start) / page_size;
}

/*
 * What is present is in core, whatever it is, and what is not is so only if it is cached: of a file, or in swap
 * (mm/mincore.c of all releases).  Only for those mincore is asked.
 */
static void put_pages(struct text *t, struct run *run, const struct span *s, word start, word nr, int first)
{
	for (word i = 0, from = 0; i < nr; from = i) {
		unsigned kind = pagemap_kind(entry[i]);
		struct run more = { start + from * page_size, 0, kind };

		do
			i++;
		while (i < nr && pagemap_kind(entry[i]) == kind);
		more.end = start + i * page_size;
		add_run(t, "m", run, more, pagemap_letters);
		memset(in_core + page_of(more.start), !!(kind & PRESENT), i - from);
		if (!(kind & PRESENT) && (s->of_file || kind & SWAPPED))
			ask_for(more.start, more.end, first);
	}
}

static void put_pagemap(struct text *t, int fd)
{
	struct run run = { 0, 0, 0 };

	shared->nr_asks = 0;
	for (struct span *s = span; s < span + nr_spans; s++) {
		int first = shared->nr_asks;

		for (word p = s->start; p < s->end;) {
			word nr = (s->end - p) / page_size;
			ssize_t n = pread(fd, entry, (nr < ENTRIES ? nr : ENTRIES) * 8, (off_t)(p / page_size * 8));

			if (n <= 0)
				fail("pagemap cannot be read");
			put_pages(t, &run, s, p, n / 8, first);
			p += n / 8 * page_size;
		}
	}
	put_run(t, "m", &run, pagemap_letters);
}

static void ask_mincore(int process)
{
	const unsigned char *vec = shared->vec;

	if (!shared->nr_asks)
		return;
	if (ask(process, mincore_kind(), 0, NULL).ret)
		fail("mincore fails");
	for (int i = 0; i < shared->nr_asks; i++)
		for (word p = page_of(shared->ask[i].start); p < page_of(shared->ask[i].end); p++)
			in_core[p] = *vec++ & 1;
}

static void put_mincore(struct text *t, int process)
{
	struct run run = { 0, 0, 0 };

	ask_mincore(process);
	for (const struct span *s = span; s < span + nr_spans; s++)
		for (word p = page_of(s->start), from = p, end = page_of(s->end); p < end; from = p) {
			unsigned kind = in_core[p];

			do
				p++;
			while (p < end && in_core[p] == kind);
			add_run(t, "c", &run,
				(struct run){ arena.start + from * page_size, arena.start + p * page_size, kind }, "");
		}
	put_run(t, "c", &run, "");
}

/* Append the observation of one process. */
void observe(struct text *t, int process)
{
	static const char *const names[NR_COUNTERS] = { " pte=", " anon=", " file=", " shmem=", " swap=", " lck=" };
	long counter[NR_COUNTERS], locked_outside = 0;
	struct text v = { vmas, 0, VMAS };

	read_counters(process, counter);
	nr_spans = 0;
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
	put_chars(t, vmas, v.len);
	put_pagemap(t, proc[process].pagemap);
	put_mincore(t, process);
}

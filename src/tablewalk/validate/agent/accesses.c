/* SPDX-License-Identifier: GPL-2.0-only */
/* The agent's own memory, which does not come and go, and accesses to the arena, which may be killed. */

#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static sigjmp_buf killed;
static volatile sig_atomic_t accessing;

/* A signal that is not an access's ends the process, as without a handler. */
static void on_signal(int sig)
{
	if (!accessing) {
		signal(sig, SIG_DFL);
		raise(sig);
	}
	accessing = 0;
	siglongjmp(killed, sig);
}

void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_NODEFER };

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

/* --- own memory ------------------------------------------------------------------------------------ */

static struct {
	word start, end;
	int write;
} own[32];
static int nr_own;

static char maps[16384];

/* Note which memory is the agent's, so that a child can have it mapped whole again. */
void list_own_memory(void)
{
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	ssize_t len = 0, n;

	if (fd < 0)
		fail("/proc/self/maps cannot be read");
	while ((n = read(fd, maps + len, sizeof(maps) - 1 - len)) > 0)
		len += n;
	close(fd);
	maps[len] = 0;
	nr_own = 0;
	for (char *p = maps; *p && nr_own < 32; p = strchr(p, '\n') + 1) {
		char *rest, *end = strchr(p, '\n');
		word start = strtoul(p, &rest, 16), stop = strtoul(rest + 1, &rest, 16);

		*end = 0;
		if (rest[1] == 'r' && !strstr(rest, "[vvar") && !strstr(rest, "[vsyscall")) {
			own[nr_own].start = start;
			own[nr_own].end = stop;
			own[nr_own++].write = rest[2] == 'w';
		}
		*end = '\n';
	}
}

/* Have every page of the agent's own mapped, so that only the arena's tables come and go. */
void warm_up(void)
{
	for (int i = 0; i < nr_own; i++)
		for (word p = own[i].start; p < own[i].end; p += page_size) {
			volatile char *c = (volatile char *)p;

			if (own[i].write)
				*c = *c;
			else
				(void)*c;
		}
}

/* --- accesses -------------------------------------------------------------------------------------- */

/* Signals leave an access by siglongjmp, which costs no system call. */
#define ACCESS(statement)                                     \
	({                                                    \
		int sig_ = sigsetjmp(killed, 0);              \
		if (!sig_) {                                  \
			accessing = 1;                        \
			statement;                            \
			accessing = 0;                        \
		}                                             \
		sig_;                                         \
	})

struct result do_read(word addr)
{
	static volatile uint32_t value;
	int sig = ACCESS(value = *(volatile uint32_t *)addr);

	return sig ? (struct result){ -1, sig } : (struct result){ value, 0 };
}

struct result do_write(word addr, uint32_t value)
{
	int sig = ACCESS(*(volatile uint32_t *)addr = value);

	return (struct result){ sig ? -1 : 0, sig };
}

/* Read (value 0) or write a page every `step` bytes up to the first that kills; returns how many could be. */
struct result do_fill(word addr, word len, word step, uint32_t value)
{
	long done = 0;

	for (word p = addr; p < addr + len; p += step, done++) {
		struct result r = value ? do_write(p, value) : do_read(p);

		if (r.error)
			return (struct result){ done, r.error };
	}
	return (struct result){ done, 0 };
}

/* A sum over the first word of each page that is mapped and may be read; nothing is faulted in. */
struct result do_sum(word addr, word len)
{
	static uint64_t entry[512];
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint32_t sum = 0;

	if (fd < 0)
		return (struct result){ -1, errno };
	for (word p = addr; p < addr + len;) {
		size_t nr = (addr + len - p) / page_size;
		ssize_t n = pread(fd, entry, (nr < 512 ? nr : 512) * 8, p / page_size * 8);

		if (n <= 0)
			break;
		for (int i = 0; i < n / 8; i++, p += page_size)
			if (entry[i] >> 63) {
				struct result r = do_read(p);
				uint32_t seen = r.error ? 0xffffffffu : (uint32_t)r.ret;

				sum = (sum * 31 + (uint32_t)((p - arena.start) / page_size)) * 31 + seen;
			}
	}
	close(fd);
	return (struct result){ (long)(sum & 0x7fffffff), 0 };
}

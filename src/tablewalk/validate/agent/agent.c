/* SPDX-License-Identifier: GPL-2.0-only */
/* Executes a sequence of memory operations in processes of its own and reports what each one did.
 *
 * usage: agent [-v INDEX] [PROGRAM]
 *
 * The program is read from standard input if it is not named; its files are made in the working directory.  With -v,
 * all that is seen is told from operation INDEX on.
 *
 * A program is lines of header, then operations `INDEX PROCESS THREAD KIND ARGUMENT...`:
 *
 *   arena START END       where the operations map memory
 *   rss 0|1               whether the kernel's RSS counters are exact, and so are told
 *   brk ADDRESS           where the heap begins, which is empty
 *   file memfd|regular|readonly|tmpfs-HUGE BYTES
 *
 * `readonly` opens the regular file before it again, `tmpfs-` is on a mount with this huge=.  Each operation is answered by `INDEX RESULT ERRNO DIGEST`,
 * where the digest is that of what is seen of all processes; told, that text is what follows, indented.
 * `INDEX 0 0 reset` starts afresh: one process, empty files.  A line that begins with `!` tells why the agent stops.
 *
 * The controller has no memory in the arena: it passes each operation to the process it is for, and looks at
 * all of them through /proc.  All run on one CPU, so that nothing waits in another's batches.
 */

#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if !defined(SYS_futex) && defined(SYS_futex_time64)
#define SYS_futex SYS_futex_time64
#endif

enum { LINE = 512 };

struct shared *shared;
struct range arena;
struct open_file file[MAX_FILES];
int nr_files;
long page_size;
int with_rss = 1;

static word begin_brk;
static long verbose_from = -1;
static pid_t controller;

/* --- output ---------------------------------------------------------------------------------------- */

static char out_buffer[1 << 14];
static struct text out = { out_buffer, 0, sizeof(out_buffer) };

static void flush(void)
{
	size_t done = 0;

	while (done < out.len) {
		ssize_t n = write(1, out_buffer + done, out.len - done);

		if (n < 0)
			_exit(1);
		done += n;
	}
	out.len = 0;
}

void fail(const char *what)
{
	if (getpid() != controller)
		_exit(1);
	if (out.len > sizeof(out_buffer) - LINE)
		flush();
	put_str(&out, "! ");
	put_str(&out, what);
	if (errno) {
		put_str(&out, ": errno ");
		put_dec(&out, errno);
	}
	put_str(&out, "\n");
	flush();
	for (int i = 0; i < MAX_PROCESSES; i++)
		if (shared && shared->slot[i].pid)
			kill(shared->slot[i].pid, SIGKILL);
	_exit(1);
}

/* Memory of the controller that processes do not have: what they have is walked through whenever they are looked at. */
void *alone(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || madvise(p, size, MADV_DONTFORK))
		fail("no memory");
	return p;
}

/* --- processes ------------------------------------------------------------------------------------- */

static long futex(uint32_t *where, int what, uint32_t value, const struct timespec *timeout)
{
	return syscall(SYS_futex, where, what, value, timeout, NULL, 0);
}

void set_state(uint32_t *state, uint32_t value)
{
	__atomic_store_n(state, value, __ATOMIC_RELEASE);
	futex(state, FUTEX_WAKE, 1, NULL);
}

void wait_state(uint32_t *state, uint32_t value)
{
	uint32_t now;

	while ((now = __atomic_load_n(state, __ATOMIC_ACQUIRE)) != value)
		futex(state, FUTEX_WAIT, now, NULL);
}

/* The controller's wait, which notices if the process dies. */
static void wait_answer(int process)
{
	struct slot *s = &shared->slot[process];
	const struct timespec second = { 1, 0 };
	uint32_t now;
	int status;

	while ((now = __atomic_load_n(&s->state, __ATOMIC_ACQUIRE)) != DONE) {
		futex(&s->state, FUTEX_WAIT, now, &second);
		if (s->pid && __atomic_load_n(&s->state, __ATOMIC_ACQUIRE) != DONE &&
		    waitpid(s->pid, &status, WNOHANG) == s->pid) {
			char what[32];
			struct text died = { what, 0, sizeof(what) };

			s->pid = 0;
			errno = 0;
			put_str(&died, "a process died: ");
			put_str(&died, WIFSIGNALED(status) ? "signal " : "exit ");
			put_dec(&died, WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
			what[died.len] = 0;
			fail(what);
		}
	}
}

/* What a process does: each operation as it is asked. */
void serve(int self)
{
	struct slot *s = &shared->slot[self];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		wait_state(&s->state, ASKED);
		if (is_exit(s->op.kind))
			_exit(0);
		if (s->op.thread)
			act_by_thread(self, s->op.thread);
		else
			s->result = act(self);
		set_state(&s->state, DONE);
	}
}

static void reap(int process)
{
	int status;

	if (waitpid(shared->slot[process].pid, &status, 0) < 0)
		fail("waitpid");
	observe_close(process);
	shared->slot[process].pid = 0;
	shared->slot[process].state = IDLE; /* a lender may have answered once its borrower was killed */
}

/* A process is gone: who lent it memory goes on. */
static void give_back(int process)
{
	int lender = shared->slot[process].borrows_from - 1;

	if (lender < 0)
		return;
	wait_answer(lender);
	shared->slot[lender].state = IDLE;
	shared->slot[lender].lent_to = 0;
}

/* The answer comes from the child: the parent waits until it exits. */
static struct result lend(int process, int child)
{
	wait_answer(child);
	shared->slot[process].lent_to = child + 1;
	shared->slot[child].borrows_from = process + 1;
	shared->slot[child].state = IDLE;
	observe_open(child);
	observe_all_locked(child); /* perhaps: it is the parent's memory */
	return (struct result){ 0, 0 };
}

static struct result run(const struct operation *op)
{
	struct slot *s = &shared->slot[op->process];
	struct result result = { 0, 0 };

	s->op = *op;
	if (is_mlockall(op->kind))
		for (int p = op->process; p >= 0; p = shared->slot[p].borrows_from - 1)
			observe_all_locked(p);
	set_state(&s->state, ASKED);
	if (is_exit(op->kind)) {
		reap(op->process);
		give_back(op->process);
		return result;
	}
	if (is_vfork(op->kind))
		return lend(op->process, op->arg[0]);
	wait_answer(op->process);
	result = s->result;
	s->state = IDLE;
	if (is_fork(op->kind) && !result.error) {
		wait_answer(op->arg[0]);
		shared->slot[op->arg[0]].state = IDLE;
		observe_open(op->arg[0]);
	}
	return result;
}

struct result ask(int process, int kind, int nr, const word *arg)
{
	struct operation op = { .kind = kind, .nr = nr };

	while (shared->slot[process].lent_to) /* its memory is the borrower's, which can be asked */
		process = shared->slot[process].lent_to - 1;
	op.process = process;
	for (int i = 0; i < nr; i++)
		op.arg[i] = arg[i];
	return run(&op);
}

/* --- the beginning ------------------------------------------------------------------------------------ */

static void reset(void)
{
	for (int i = 0; i < MAX_PROCESSES; i++)
		if (shared->slot[i].pid) {
			kill(shared->slot[i].pid, SIGKILL);
			reap(i);
		}
	uffd_close_all();
	close_files();
	open_files();
	if (fork_beside(0, 1) < 0)
		fail("fork");
	wait_answer(0);
	shared->slot[0].state = IDLE;
	observe_open(0);
	observe_baseline(0);
}

/* --- the program ----------------------------------------------------------------------------------- */

static char *word_at(char **p)
{
	char *start;

	while (**p == ' ')
		(*p)++;
	start = *p;
	while (**p && **p != ' ')
		(*p)++;
	if (**p)
		*(*p)++ = 0;
	return *start ? start : NULL;
}

static word number_at(char **p)
{
	char *w = word_at(p);

	errno = 0;
	if (!w)
		fail("a number is missing in the program");
	return *w == '-' ? (word)strtol(w, NULL, 0) : strtoul(w, NULL, 0);
}

static int header(char *p)
{
	char *what = word_at(&p);

	if (!what)
		return 1;
	if (!strcmp(what, "arena")) {
		arena.start = number_at(&p);
		arena.end = number_at(&p);
	} else if (!strcmp(what, "brk")) {
		begin_brk = number_at(&p);
	} else if (!strcmp(what, "rss")) {
		with_rss = number_at(&p);
	} else if (!strcmp(what, "file")) {
		char *kind = word_at(&p);

		if (!kind)
			fail("no such file");
		add_file(kind, number_at(&p));
	} else {
		return 0;
	}
	return 1;
}

static void tell(const struct text *seen)
{
	for (size_t i = 0; i < seen->len;) {
		char *line = seen->start + i, *end = memchr(line, '\n', seen->len - i);

		if (out.len > sizeof(out_buffer) - (end - line) - 2)
			flush();
		put_str(&out, " ");
		*end = 0;
		put_str(&out, line);
		*end = '\n';
		put_str(&out, "\n");
		i = end + 1 - seen->start;
	}
}

enum { SEEN = 1 << 20 };
static char *seen_buffer;

static void operation(char *p)
{
	struct text seen = { seen_buffer, 0, SEEN };
	struct operation op = { .index = number_at(&p), .process = number_at(&p), .thread = number_at(&p) };
	struct result result = { 0, 0 };
	char *kind;

	kind = word_at(&p);
	if (!kind)
		fail("an operation has no kind");
	if (!strcmp(kind, "reset")) {
		reset();
	} else {
		op.kind = find_kind(kind, strlen(kind));
		errno = 0;
		if (op.kind < 0 || op.process < 0 || op.process >= MAX_PROCESSES || !shared->slot[op.process].pid ||
		    shared->slot[op.process].lent_to || op.thread < 0 || op.thread >= MAX_THREADS)
			fail("no such operation or process");
		for (char *save = p; op.nr < MAX_ARGS && (save = p, word_at(&save)); op.nr++) {
			op.arg[op.nr] = strtoul(p, NULL, 0);
			p = save;
		}
		result = is_ksm(op.kind) ? ksm_passes(op.arg[0]) : run(&op);
	}
	for (int i = 0; i < MAX_PROCESSES; i++)
		if (shared->slot[i].pid)
			observe(&seen, i);
	if (reclaims(&op))
		read_back();
	put_dec(&out, op.index);
	put_str(&out, " ");
	put_dec(&out, result.ret);
	put_str(&out, " ");
	put_dec(&out, result.error);
	put_str(&out, " ");
	put_hex(&out, digest(&seen));
	put_str(&out, "\n");
	if (verbose_from >= 0 && op.index >= verbose_from)
		tell(&seen);
	if (out.len > 4096)
		flush();
}

/* How far stacks may grow is not left to whoever begins the agent. */
static void limit_stack(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_STACK, &limit))
		fail("getrlimit");
	limit.rlim_cur = 8 << 20;
	if (setrlimit(RLIMIT_STACK, &limit))
		fail("the stack's limit cannot be 8 MiB");
}

static long tables_kb(void)
{
	static char status[4096];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, status, sizeof(status) - 1);
	char *found;

	close(fd);
	status[n > 0 ? n : 0] = 0;
	found = strstr(status, "VmPTE:");
	if (!found)
		fail("/proc/self/status cannot be read");
	return strtol(found + strlen("VmPTE:"), NULL, 10);
}

/*
 * Tables smaller than 1 kB (powerpc with large pages) are told rounded down: take some more, beside the program, until
 * the agent's own come to whole kB, so that the arena's can be told apart from them.
 */
static void round_own_tables(void)
{
	const word tables = 0x20000000, table = 1 << 21;
	long before;

	if (page_size == 4096)
		return;
	warm_up();
	before = tables_kb();
	for (int i = 0; i < 8 && tables_kb() == before; i++) {
		volatile char *p = mmap((void *)(tables + i * table), page_size, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

		if (p == MAP_FAILED)
			fail("no memory");
		*p = 1;
	}
	list_own_memory();
}

static void on_one_cpu(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu();

	CPU_ZERO(&set);
	CPU_SET(cpu < 0 ? 0 : cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

enum { INPUT = 1 << 16 };
static char *input;
static size_t input_len, input_at;

/* The next line of the program without its end; 0 at the end. */
static int get_line(int fd, char *line)
{
	size_t n = 0;

	for (;;) {
		if (input_at == input_len) {
			ssize_t got = read(fd, input, INPUT);

			if (got <= 0)
				break;
			input_len = got;
			input_at = 0;
		}
		if (input[input_at] == '\n') {
			input_at++;
			line[n] = 0;
			return 1;
		}
		if (n == LINE - 1)
			fail("a line of the program is too long");
		line[n++] = input[input_at++];
	}
	line[n] = 0;
	return n > 0;
}

int main(int argc, char **argv)
{
	static char line[LINE];
	int fd = 0, begun = 0;

	controller = getpid();
	page_size = sysconf(_SC_PAGESIZE);
	if (argc > 2 && !strcmp(argv[1], "-v")) {
		verbose_from = strtol(argv[2], NULL, 10);
		argv += 2;
		argc -= 2;
	}
	if (argc > 1 && (fd = open(argv[1], O_RDONLY | O_CLOEXEC)) < 0)
		fail(argv[1]);
	on_one_cpu();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		fail("no memory");
	catch_signals();
	limit_stack();
	list_own_memory();
	round_own_tables();
	warm_up();
	seen_buffer = alone(SEEN);
	input = alone(INPUT);
	observe_begin();
	while (get_line(fd, line)) {
		if (!begun && line[0] >= '0' && line[0] <= '9') {
			begun = 1;
			if (!arena.start)
				fail("the program has no arena");
			set_brk(begin_brk);
			start_monitor();
			reset();
		}
		if (begun)
			operation(line);
		else if (line[0] != '#' && !header(line))
			fail("a header that is not known");
	}
	flush();
	for (int i = 0; i < MAX_PROCESSES; i++)
		if (shared->slot[i].pid) {
			kill(shared->slot[i].pid, SIGKILL);
			waitpid(shared->slot[i].pid, NULL, 0);
		}
	return 0;
}

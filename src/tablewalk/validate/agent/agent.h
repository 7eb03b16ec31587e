/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts of the agent share: operations, processes, output. */

#ifndef AGENT_H
#define AGENT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	MAX_PROCESSES = 8,
	MAX_THREADS = 4, /* of a process, with the first */
	MAX_FILES = 8,
	MAX_UFFDS = 8,
	MAX_ARGS = 9,
	MAX_SPANS = 256,
	MAX_PAGES = 1 << 17, /* of the arena */
};

typedef unsigned long word;

/* An operation: a system call or an access, by its name's place in `kinds`. */
struct operation {
	long index;
	int process, thread;
	int kind;
	int nr;
	word arg[MAX_ARGS];
};

struct result {
	long ret;
	int error; /* errno, or the signal that an access was killed by */
};

/* Shared by all processes: where the controller leaves an operation for one of them, and it the result. */
struct slot {
	uint32_t state;                      /* a futex: IDLE, ASKED, DONE */
	uint32_t thread_state[MAX_THREADS];  /* the same between the process's first thread and another */
	pid_t pid;                           /* 0: no such process */
	int lent_to, borrows_from;           /* process + 1 between which vfork shares memory, or 0 */
	struct operation op;
	struct result result;
};

enum { IDLE, ASKED, DONE };

struct range {
	word start, end;
};

struct shared {
	struct slot slot[MAX_PROCESSES];
	int uffd[MAX_UFFDS]; /* file descriptors + 1; 0: none */
	int epoll;           /* of all of them */
	int nr_asks;
	struct range ask[MAX_SPANS];  /* what mincore is asked for */
	unsigned char vec[MAX_PAGES]; /* and its answer */
};

struct open_file {
	int fd;
	dev_t device;
	ino_t inode;
	int regular, readonly; /* regular: cached and dirty, as `with_holes_filled` keeps it */
};

extern struct shared *shared;
extern struct range arena;
extern struct open_file file[MAX_FILES];
extern int nr_files;
extern long page_size;
extern int with_rss;

/* agent.c */
void fail(const char *what) __attribute__((noreturn));
void *alone(size_t size);
void serve(int self) __attribute__((noreturn));
void set_state(uint32_t *state, uint32_t value);
void wait_state(uint32_t *state, uint32_t value);

/* processes.c: processes and threads that share memory or copy it */
pid_t fork_beside(int child, int from_controller);
struct result act(int self);
void act_by_thread(int self, int thread);

/* output.c: text that is printed, and text that is only summed */
struct text {
	char *start;
	size_t len, size;
};
void put_str(struct text *t, const char *s);
void put_chars(struct text *t, const char *s, size_t n);
void put_hex(struct text *t, uint64_t n);
void put_dec(struct text *t, long n);
uint64_t digest(const struct text *t);

/* operations.c: what a process does */
int find_kind(const char *name, size_t len);
int is_fork(int kind);
int is_vfork(int kind);
int is_exit(int kind);
int is_ksm(int kind);
int is_mlockall(int kind);
int reclaims(const struct operation *op);
struct result execute(const struct operation *op);
int mincore_kind(void);
void set_brk(word addr);

/* accesses.c: memory of the agent's own, and accesses to the arena */
void catch_signals(void);
void list_own_memory(void);
void warm_up(void);
struct result do_read(word addr);
struct result do_write(word addr, uint32_t value);
struct result do_fill(word addr, word len, word step, uint32_t value);
struct result do_sum(word addr, word len);

/* files.c */
void open_files(void);
void close_files(void);
void add_file(const char *kind, word size);
int fd_of(word n);
void read_back(void);
struct result with_holes_filled(int ret);
struct result do_pread(word n, word offset);
struct result do_pwrite(word n, word offset, uint32_t value);

/* uffd.c: userfaultfds by number, and the monitor that resolves faults */
void start_monitor(void);
void uffd_close_all(void);
struct result uffd_open(word flags, word features, word n);
struct result uffd_close(word n);
struct result uffd_register(word addr, word len, word mode, word n);
struct result uffd_unregister(word addr, word len, word n);
struct result uffd_wake(word addr, word len, word n);
struct result uffd_copy(word addr, word src, word len, word mode, word n);
struct result uffd_move(word addr, word src, word len, word mode, word n);
struct result uffd_zeropage(word addr, word len, word mode, word n);
struct result uffd_continue(word addr, word len, word mode, word n);
struct result uffd_poison(word addr, word len, word mode, word n);
struct result uffd_writeprotect(word addr, word len, word mode, word n);

/* ksm.c: for the controller */
struct result ksm_passes(word nr);

/* observe.c: what /proc says of a process */
void observe_begin(void);
void observe_open(int process);
void observe_close(int process);
void observe_all_locked(int process);
void observe_baseline(int process);
void observe(struct text *t, int process);
struct result ask(int process, int kind, int nr, const word *arg);

#endif

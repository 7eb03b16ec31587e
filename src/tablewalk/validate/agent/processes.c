/* SPDX-License-Identifier: GPL-2.0-only */
/* Processes that copy the memory of another (fork) or borrow it (vfork), and threads.
 *
 * Only one of all of them runs at any time: each waits until it is asked.
 */

#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* glibc has it in its headers only as clone(), and musl's clone() makes no threads. */
extern int __clone(int (*function)(void *), void *stack, int flags, void *argument, ...);

enum { NR_STACKS = 6, STACK = 1 << 15 };

/* Stacks of who shares memory: of threads, and of children by vfork. */
static char stack[NR_STACKS][STACK] __attribute__((aligned(4096)));
static unsigned char in_use[NR_STACKS];
static unsigned char runs[MAX_THREADS]; /* which threads of this process do */

/* The number of the stack that the caller is on, or -1 for that of the process. */
static int own_stack(void)
{
	word here = (word)__builtin_frame_address(0), first = (word)stack;

	return here >= first && here < first + sizeof(stack) ? (int)((here - first) / STACK) : -1;
}

static int take_stack(void)
{
	for (int i = 0; i < NR_STACKS; i++)
		if (!in_use[i]) {
			in_use[i] = 1;
			return i;
		}
	return -1;
}

static pid_t raw_clone(long flags)
{
#ifdef __s390__
	return syscall(SYS_clone, 0, flags, 0, 0, 0); /* the stack comes first there */
#else
	return syscall(SYS_clone, flags, 0, 0, 0, 0);
#endif
}

/* A copy of the caller, of whatever thread; every child is the controller's, wherever it is made. */
pid_t fork_beside(int child, int from_controller)
{
	struct slot *s = &shared->slot[child];
	pid_t pid;

	s->state = IDLE;
	s->lent_to = s->borrows_from = 0;
	pid = raw_clone(SIGCHLD | CLONE_FILES | (from_controller ? 0 : CLONE_PARENT));
	if (pid == 0) {
		int mine = own_stack();

		memset(runs, 0, sizeof(runs));
		memset(in_use, 0, sizeof(in_use));
		memset(s->thread_state, 0, sizeof(s->thread_state));
		if (mine >= 0)
			in_use[mine] = 1;
		warm_up();
		set_state(&s->state, DONE);
		serve(child);
	}
	if (pid > 0)
		s->pid = pid;
	return pid;
}

static int begin_borrower(void *argument)
{
	struct slot *s = argument;

	s->pid = syscall(SYS_getpid);
	set_state(&s->state, DONE);
	serve(s - shared->slot);
}

/* A child that uses the caller's memory until it exits; the caller waits for that. */
static struct result vfork_beside(int child)
{
	struct slot *s = &shared->slot[child];
	int i = take_stack();
	pid_t pid;

	if (i < 0)
		return (struct result){ -1, EAGAIN };
	s->state = IDLE;
	s->lent_to = 0;
	pid = __clone(begin_borrower, stack[i] + STACK, CLONE_VM | CLONE_FILES | CLONE_VFORK | CLONE_PARENT | SIGCHLD, s);
	in_use[i] = 0;
	return (struct result){ pid < 0 ? -1 : 0, pid < 0 ? errno : 0 };
}

/* Do what the process's slot says. */
struct result act(int self)
{
	const struct operation *op = &shared->slot[self].op;

	if (is_vfork(op->kind))
		return vfork_beside(op->arg[0]);
	if (is_fork(op->kind)) {
		pid_t pid = fork_beside(op->arg[0], 0);

		return (struct result){ pid < 0 ? -1 : 0, pid < 0 ? errno : 0 };
	}
	return execute(op);
}

static int begin_thread(void *argument) __attribute__((noreturn));
static int begin_thread(void *argument)
{
	uint32_t *state = argument;
	int self = ((char *)state - (char *)shared->slot) / sizeof(struct slot);

	for (;;) {
		wait_state(state, ASKED);
		shared->slot[self].result = act(self);
		set_state(state, DONE);
	}
}

/* Let another thread of the process do it. */
void act_by_thread(int self, int thread)
{
	uint32_t *state = &shared->slot[self].thread_state[thread];

	if (!runs[thread]) {
		int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
		int i = take_stack();

		*state = IDLE;
		if (i < 0 || __clone(begin_thread, stack[i] + STACK, flags, state) < 0)
			_exit(1);
		runs[thread] = 1;
	}
	set_state(state, ASKED);
	wait_state(state, DONE);
	*state = IDLE;
}

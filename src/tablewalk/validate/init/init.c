// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first process of a guest: prepares the machine, runs /agent (if there is one) on /program, and powers off.
 *
 * The kernel hands over the device for the answers (answers=DEVICE on its command line becomes part of the
 * environment) and, after --, the agent's arguments. On that device there is, besides what the agent prints there,
 * "# ready RELEASE" before it starts and "# exit STATUS" or "# signal NUMBER" after it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/utsname.h>
#include <termios.h>
#include <unistd.h>

#define SWAP_KB "131072"

/* The kernel panics when its first process ends. */
static void die(const char *what)
{
	dprintf(2, "init: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void mount_on(const char *type, const char *where)
{
	mkdir(where, 0755);
	if (mount(type, where, type, 0, NULL))
		die(where);
}

static void write_if_there(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 && errno == ENOENT)
		return;
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

/* The header that mkswap writes: it fills the first page and ends with the signature. */
static int make_swap(const char *device, long kb)
{
	long page = sysconf(_SC_PAGESIZE);
	char *header = calloc(1, page);
	uint32_t *info = (uint32_t *)(header + 1024);
	int fd = open(device, O_WRONLY);
	int done;

	info[0] = 1;			/* version */
	info[1] = kb * 1024 / page - 1;	/* last page */
	memcpy(header + page - 10, "SWAPSPACE2", 10);
	done = fd >= 0 && write(fd, header, page) == page && !fsync(fd);
	close(fd);
	free(header);
	return done ? 0 : -1;
}

/* Swap on a RAM disk, where the kernel has one as a module. */
static void swap_on_ram_disk(void)
{
	int fd = open("/brd.ko", O_RDONLY);

	if (fd < 0)
		return;
	if (syscall(SYS_finit_module, fd, "rd_nr=1 rd_size=" SWAP_KB, 0) || make_swap("/dev/ram0", atol(SWAP_KB)) ||
	    swapon("/dev/ram0", 0))
		die("swap on a RAM disk");
	close(fd);
}

static int open_answers(void)
{
	const char *device = getenv("answers");
	int fd = open(device ? device : "", O_RDWR | O_NOCTTY);
	struct termios t;

	if (fd < 0 || tcgetattr(fd, &t))
		die("the device for the answers");
	cfmakeraw(&t);
	cfsetspeed(&t, B115200);
	tcsetattr(fd, TCSANOW, &t);
	return fd;
}

static void run_agent(char **argv, int answers)
{
	int program = open("/program", O_RDONLY);

	if (access("/agent", F_OK))
		_exit(0);	/* only to see it boot */
	argv[0] = "agent";
	if (chdir("/scratch") || dup2(program, 0) < 0 || dup2(answers, 1) < 0)
		die("files of the agent");
	close(program);
	close(answers);
	execve("/agent", argv, (char *[]){ NULL });
	die("/agent");
}

int main(int argc, char **argv)
{
	struct utsname kernel;
	int answers, status = 0;
	pid_t agent, pid;

	(void)argc;
	mount_on("devtmpfs", "/dev");
	for (int console = open("/dev/console", O_RDWR | O_NOCTTY), fd = 0; fd <= 2; fd++)
		dup2(console, fd);
	mount_on("proc", "/proc");
	mount_on("sysfs", "/sys");
	mount_on("tmpfs", "/tmp");
	mount_on("ramfs", "/scratch");
	swap_on_ram_disk();
	/* What khugepaged did on its own would depend on time. */
	write_if_there("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", "4294967295");

	answers = open_answers();
	uname(&kernel);
	/* The newline ends what the firmware may have printed there. */
	dprintf(answers, "\n# ready %s\n", kernel.release);
	agent = fork();
	if (!agent)
		run_agent(argv, answers);
	do
		pid = wait(&status);
	while (pid != agent && (pid > 0 || errno == EINTR));
	if (WIFSIGNALED(status))
		dprintf(answers, "# signal %d\n", WTERMSIG(status));
	else
		dprintf(answers, "# exit %d\n", WEXITSTATUS(status));
	tcdrain(answers);
	reboot(RB_POWER_OFF);
	die("power off");
}

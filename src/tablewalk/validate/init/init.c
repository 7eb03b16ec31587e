// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first process of a guest: prepares the machine, runs /agent (if there is one) on /program, and powers off.
 *
 * The kernel hands over the device for the answers (answers=DEVICE on its command line becomes part of the
 * environment) and, after --, the agent's arguments. On that device there is, besides what the agent prints there,
 * "# ready RELEASE" before it starts and "# exit STATUS" or "# signal NUMBER" after it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/utsname.h>
#include <termios.h>
#include <unistd.h>

#define DISK_KB "524288"

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

static int is_module(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return n > 3 && !strcmp(e->d_name + n - 3, ".ko");
}

/* Their names begin with their places in the order. */
static void load_modules(void)
{
	struct dirent **found;
	int nr = scandir("/", &found, is_module, alphasort);

	for (int i = 0; i < nr; i++) {
		int fd = open(found[i]->d_name, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || syscall(SYS_finit_module, fd, strstr(found[i]->d_name, "brd") ? "rd_nr=2 rd_size=" DISK_KB : "", 0))
			die(found[i]->d_name);
		close(fd);
	}
}

static void copy(const char *from, const char *to)
{
	static char buffer[1 << 16];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY);
	ssize_t n;

	if (in < 0 || out < 0)
		die(from);
	while ((n = read(in, buffer, sizeof(buffer))) > 0)
		if (write(out, buffer, n) != n)
			die(to);
	close(in);
	close(out);
}

/*
 * Files on a file system as disks have them, on a RAM disk. It writes back only what it is asked to: by itself ext4
 * would, when a file is closed that was truncated to nothing (files.c: QEMU's s390x cannot have blocks allocated).
 */
static void mount_scratch(void)
{
	copy("/ext4", "/dev/ram1");
	mkdir("/scratch", 0755);
	if (mount("/dev/ram1", "/scratch", "ext4", 0, "noauto_da_alloc"))
		die("/scratch");
}

/* A number in a file; -1 if it is not there. */
static long number_in(const char *path)
{
	FILE *file = fopen(path, "r");
	long number = -1;

	if (file && fscanf(file, "%ld", &number) != 1)
		die(path);
	if (file)
		fclose(file);
	return number;
}

/*
 * khugepaged sleeps without end only between two scans, so it gets something to scan that stays: without it, whoever
 * is next to map what may be huge would be scanned at once, however long it is to sleep.
 */
static void quiet_khugepaged(void)
{
	const char *scans = "/sys/kernel/mm/transparent_hugepage/khugepaged/full_scans";
	long huge = number_in("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"), tenths = 0;
	void *mapped;

	if (number_in(scans) < 0)
		return;
	write_if_there("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", "4294967295");
	mapped = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mapped == MAP_FAILED || madvise(mapped, 2 * huge, MADV_HUGEPAGE))
		die("memory to scan");
	/* What has no anon_vma is not scanned. */
	*(volatile char *)(((uintptr_t)mapped + huge - 1) & -huge) = 1;
	for (; number_in(scans) == 0; usleep(100000))
		if (tenths++ == 300)
			die("khugepaged does not scan");
}

/* Swap on a RAM disk, unless the kernel's command line says swap=0. */
static void swap_on_ram_disk(void)
{
	const char *wanted = getenv("swap");

	if (wanted && !strcmp(wanted, "0"))
		return;
	if (make_swap("/dev/ram0", atol(DISK_KB)) || swapon("/dev/ram0", 0))
		die("swap on a RAM disk");
	/* What is read ahead is not modelled. */
	write_if_there("/proc/sys/vm/page-cluster", "0");
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
	load_modules();
	mount_scratch();
	swap_on_ram_disk();
	/* What these did on their own would depend on time. */
	write_if_there("/proc/sys/kernel/randomize_va_space", "0");
	write_if_there("/proc/sys/vm/dirty_writeback_centisecs", "0");
	write_if_there("/proc/sys/vm/compaction_proactiveness", "0");
	write_if_there("/proc/sys/vm/watermark_boost_factor", "0");
	write_if_there("/sys/kernel/mm/ksm/run", "0");
	quiet_khugepaged();

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

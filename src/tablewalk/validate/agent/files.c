/* SPDX-License-Identifier: GPL-2.0-only */
/* The files that operations map: memfds, files on tmpfs, and regular files. */

#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
	char kind[24];
	word size;
} wanted[MAX_FILES];

static const char file_name[] = "tablewalk-validate";
static const char tmpfs[] = "tmpfs-"; /* begins a kind; what follows is the mount's huge= */
static char page[1 << 16];

void add_file(const char *kind, word size)
{
	if (nr_files == MAX_FILES || strlen(kind) >= sizeof(wanted[0].kind))
		fail("no such file");
	strcpy(wanted[nr_files].kind, kind);
	wanted[nr_files++].size = size;
}

/*
 * A new file on a tmpfs of its own with huge=`huge`, if there is such an option. The mount is nowhere in the tree. Nor
 * is a directory made for it: ext4 would allocate blocks, and its access to a static variable of the CPU's is further
 * than QEMU's s390x before 8.0 counts (an LARL of more than 2 GiB), so that Linux 7.x there oopsed.
 */
static int open_on_tmpfs(const char *huge)
{
	int fs = syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC), mount, fd;

	if (fs < 0)
		fail("it mounts file systems of its own, which needs root");
	/* Linux 6.1 refuses huge= where the CPU has no huge pages, and does what it says nevertheless. */
	if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "huge", huge, 0))
		syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "huge", "never", 0);
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		fail("no tmpfs can be made");
	mount = syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
	if (mount < 0)
		fail("no tmpfs can be mounted");
	fd = openat(mount, file_name, O_RDWR | O_CREAT | O_EXCL, 0600);
	unlinkat(mount, file_name, 0);
	close(mount);
	close(fs);
	return fd;
}

static int open_regular(word size)
{
	int fd;

	unlink(file_name);
	fd = open(file_name, O_RDWR | O_CREAT | O_EXCL, 0600);
	memset(page, 0, page_size);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM); /* read_back() */
	for (word done = 0; fd >= 0 && done < size; done += page_size)
		if (write(fd, page, page_size) != page_size)
			fail("a file cannot be written");
	return fd;
}

void open_files(void)
{
	struct stat st;

	for (int i = 0; i < nr_files; i++) {
		struct open_file *f = &file[i];
		const char *kind = wanted[i].kind;
		int shmem = 0;

		f->readonly = !strcmp(kind, "readonly");
		f->regular = f->readonly || !strcmp(kind, "regular");
		if (!strcmp(kind, "memfd")) {
			f->fd = syscall(SYS_memfd_create, "tablewalk", 0);
			shmem = 1;
		} else if (!strncmp(kind, tmpfs, strlen(tmpfs))) {
			f->fd = open_on_tmpfs(kind + strlen(tmpfs));
			shmem = 1;
		} else if (!f->readonly) {
			f->fd = open_regular(wanted[i].size);
		} else {
			f->fd = open(file_name, O_RDONLY);
			unlink(file_name);
		}
		if (f->fd < 0 || fstat(f->fd, &st))
			fail("a file cannot be made");
		if (shmem && ftruncate(f->fd, wanted[i].size))
			fail("a file cannot be sized");
		f->device = st.st_dev;
		f->inode = st.st_ino;
	}
}

void close_files(void)
{
	for (int i = 0; i < nr_files; i++)
		if (file[i].fd > 0)
			close(file[i].fd);
}

int fd_of(word n)
{
	return n < (word)nr_files ? file[n].fd : -1;
}

/* Write where regular files have holes, so that all of their pages stay cached: how the kernel reads is not compared. */
static void fill_holes(void)
{
	memset(page, 0, page_size);
	for (int i = 0; i < nr_files; i++) {
		off_t size, at = 0;

		if (!file[i].regular || file[i].readonly)
			continue;
		size = lseek(file[i].fd, 0, SEEK_END);
		while ((at = lseek(file[i].fd, at, SEEK_HOLE)) >= 0 && at < size)
			if (pwrite(file[i].fd, page, page_size, at) != page_size)
				fail("a file cannot be written");
	}
}

/*
 * Read what was reclaimed of regular files, one page at a time and nothing ahead, for the same reason. What is cached is
 * left alone.
 */
void read_back(void)
{
	static unsigned char cached[1 << 12];

	for (int i = 0; i < nr_files; i++) {
		off_t size;
		void *p;

		if (!file[i].regular || file[i].readonly || !(size = lseek(file[i].fd, 0, SEEK_END)))
			continue;
		p = mmap(NULL, size, PROT_READ, MAP_SHARED, file[i].fd, 0);
		if (p == MAP_FAILED || size / page_size > (off_t)sizeof(cached) || mincore(p, size, cached))
			fail("a file cannot be looked at");
		munmap(p, size);
		for (off_t at = 0; at < size; at += page_size)
			if (!(cached[at / page_size] & 1) && pread(file[i].fd, page, 1, at) != 1)
				fail("a file cannot be read");
	}
}

/* What a system call returned that may have made holes, even if it failed. */
struct result with_holes_filled(int ret)
{
	struct result r = { ret, ret < 0 ? errno : 0 };

	fill_holes();
	return r;
}

/* The first word of a page, 0 behind the end of the file. */
struct result do_pread(word n, word offset)
{
	uint32_t value = 0;
	ssize_t ret = pread(fd_of(n), &value, sizeof(value), offset);

	return ret < 0 ? (struct result){ -1, errno } : (struct result){ value, 0 };
}

/* Write a page that begins with `value`; returns how many bytes could be. */
struct result do_pwrite(word n, word offset, uint32_t value)
{
	ssize_t ret;

	memset(page, 0, page_size);
	memcpy(page, &value, sizeof(value));
	ret = pwrite(fd_of(n), page, page_size, offset);
	return with_holes_filled(ret);
}

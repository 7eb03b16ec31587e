/* SPDX-License-Identifier: GPL-2.0-only
 *
 * init of a user-mode Linux: read() writes into a shared file mapping that another thread unmaps again and again.
 * The limits on dirty pages are as low as they can be, so that a fault often waits for the disk, without mmap_lock.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE (2UL << 20) /* what a page table maps */
#define PAGE 4096UL
#define TRIES 200000

static char *const area = (char *)0x40000000UL;
static int file;

static int must(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		reboot(RB_POWER_OFF);
	}
	return result;
}

static void put(const char *path, const char *text)
{
	int f = must(open(path, O_WRONLY), path);

	must(write(f, text, strlen(text)), path);
	close(f);
}

static void *map_and_unmap(void *unused)
{
	unsigned int seed = 1;

	(void)unused;
	for (;;) {
		munmap(area, SIZE);
		usleep(500 + rand_r(&seed) % 5000);
		mmap(area, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
		usleep(500 + rand_r(&seed) % 5000);
	}
	return NULL;
}

static void *write_elsewhere(void *unused)
{
	static char buffer[1 << 16];
	int f = must(open("/mnt/other", O_RDWR | O_CREAT, 0600), "/mnt/other");

	(void)unused;
	for (unsigned int i = 0;; i++)
		must(pwrite(f, buffer, sizeof(buffer), (off_t)(i % 256) << 16), "pwrite");
	return NULL;
}

int main(void)
{
	unsigned int seed = 2, copied = 0;
	pthread_t thread;
	int console, zero;

	mkdir("/proc", 0700);
	mkdir("/mnt", 0700);
	mkdir("/dev", 0700);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	console = open("/dev/console", O_RDWR);
	dup2(console, 1);
	dup2(console, 2);
	must(mount("/dev/ubda", "/mnt", "ext4", 0, NULL), "mount");
	put("/proc/sys/vm/dirty_background_bytes", "4096");
	put("/proc/sys/vm/dirty_bytes", "8192");
	file = must(open("/mnt/file", O_RDWR | O_CREAT, 0600), "/mnt/file");
	must(posix_fallocate(file, 0, SIZE) ? -1 : 0, "posix_fallocate");
	zero = must(open("/dev/zero", O_RDONLY), "/dev/zero");
	pthread_create(&thread, NULL, map_and_unmap, NULL);
	pthread_create(&thread, NULL, write_elsewhere, NULL);
	for (int i = 0; i < TRIES; i++)
		copied += read(zero, area + rand_r(&seed) % (SIZE / PAGE) * PAGE, 1) == 1;
	printf("no crash: %u of %u pages written\n", copied, TRIES);
	reboot(RB_POWER_OFF);
}

// A caller whose memory never comes: a page of a file of a file system of its own, which does not answer. (By /proc/PID/mem a page of
// userfaultfd fails at once.) Usage: stall DEVICE FILE; the file system is mounted on FILE, in a mount namespace of this process.
// Prints `ready`, then `stalled` when somebody waits for the page, then what its call answered; and then stays.

#define _GNU_SOURCE
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "port.h"

static int fuse;

static void say(const char *text)
{
	puts(text);
	fflush(stdout);
}

static void answer(uint64_t unique, int error, const void *body, size_t len)
{
	char out[256];
	struct fuse_out_header head = {.len = sizeof(head) + len, .error = error, .unique = unique};
	memcpy(out, &head, sizeof(head));
	memcpy(out + sizeof(head), body, len);
	CHECK(write(fuse, out, head.len) == (ssize_t)head.len);
}

static void *serve(void *arg)
{
	static char buf[1 << 18];
	struct fuse_in_header *head = (void *)buf;
	(void)arg;
	while (read(fuse, buf, sizeof(buf)) > 0) {
		struct fuse_init_out init = {.major = 7, .minor = 31, .max_write = 4096};
		struct fuse_attr_out attr = {.attr = {.ino = 1, .size = 4096, .mode = S_IFREG | 0600, .nlink = 1}};
		struct fuse_open_out opened = {0};
		switch (head->opcode) {
		case FUSE_INIT:
			answer(head->unique, 0, &init, sizeof(init));
			break;
		case FUSE_GETATTR:
			answer(head->unique, 0, &attr, sizeof(attr));
			break;
		case FUSE_OPEN:
			answer(head->unique, 0, &opened, sizeof(opened));
			break;
		case FUSE_READ:
			say("stalled");
			break;
		default:
			answer(head->unique, -ENOSYS, NULL, 0);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	char options[64];
	pthread_t thread;
	struct nmreq_header hdr;
	struct nmreq_register reg;

	CHECK(argc == 3);
	device = argv[1];
	CHECK(unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
	fuse = open("/dev/fuse", O_RDWR);
	CHECK(fuse >= 0);
	snprintf(options, sizeof(options), "fd=%d,rootmode=%o,user_id=0,group_id=0", fuse, S_IFREG | 0600);
	CHECK(mount("stall", argv[2], "fuse", MS_NOSUID | MS_NODEV, options) == 0);
	CHECK(pthread_create(&thread, NULL, serve, NULL) == 0);
	int file = open(argv[2], O_RDWR);
	struct stat st;
	CHECK(file >= 0 && fstat(file, &st) == 0 && st.st_size == 4096);
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	CHECK(page != MAP_FAILED);
	// Not at the end of this process: a close asks the file system.
	CHECK(close(file) == 0);

	int fd = dev_open();
	fill(&hdr, &reg, "vale8:stall");
	hdr.nr_body = (uintptr_t)page;
	say("ready");
	CHECK(ioctl(fd, NIOCCTRL, &hdr) == -1);
	say(errno == EFAULT ? "EFAULT" : strerror(errno));
	pthread_join(thread, NULL);
	return 0;
}

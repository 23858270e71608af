/* Programs that have the doors and an open device file all the same: opened by a bare system call, received, inherited. */
#include "doors.h"

#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sched.h>

/* The device file, and the process that serves it. */
static const char *
device(void)
{
	return getenv("RINGWAY_TEST_DEVICE");
}

static pid_t
helper(void)
{
	return (pid_t)atoi(getenv("RINGWAY_TEST_HELPER"));
}

/* While it stands still, whatever asks it hangs: what goes on is done by the doors. */
static void
stop_helper(void)
{
	char path[64], text[512];
	FILE *f;

	CHECK(kill(helper(), SIGSTOP) == 0);
	snprintf(path, sizeof(path), "/proc/%d/stat", helper());
	do {
		f = fopen(path, "r");
		CHECK(f != NULL && fgets(text, sizeof(text), f) != NULL);
		fclose(f);
	} while (strstr(text, ") T ") == NULL);
}

static void
continue_helper(void)
{
	CHECK(kill(helper(), SIGCONT) == 0);
}

static int
file_open(void)
{
	int fd = (int)syscall(SYS_openat, AT_FDCWD, device(), O_RDWR, 0);

	CHECK(fd >= 0);
	return fd;
}

/* Bound through the doors, which hand the request on. */
static struct port
file_port(int fd, const char *name)
{
	struct port p;

	memset(&p, 0, sizeof(p));
	p.fd = fd;
	p.reg.nr_mode = NR_REG_ALL_NIC;
	CHECK(request(fd, NETMAP_REQ_REGISTER, name, &p.reg, NULL) == 0);
	CHECK(map_port(&p) == 0);
	return p;
}

/* Bound past the doors. */
static struct port
bare_port(const char *name)
{
	struct nmreq_header hdr;
	struct port p;

	memset(&p, 0, sizeof(p));
	memset(&hdr, 0, sizeof(hdr));
	p.fd = file_open();
	p.reg.nr_mode = NR_REG_ALL_NIC;
	hdr.nr_version = NETMAP_API;
	hdr.nr_reqtype = NETMAP_REQ_REGISTER;
	hdr.nr_body = (uintptr_t)&p.reg;
	snprintf(hdr.nr_name, sizeof(hdr.nr_name), "%s", name);
	CHECK(syscall(SYS_ioctl, p.fd, NIOCCTRL, &hdr) == 0);
	return p;
}

/* The kernel tells the helper of a close some time after it. */
static void
wait_until_gone(const char *name)
{
	while (listed(name))
		usleep(1000);
}

static void
a_file_gets_the_fast_sync(void)
{
	struct nmreq_port_info_get info;
	struct epoll_event ev, got;
	struct port a, b;
	int i, ep, fd = file_open(), copy;

	CHECK(poll1(fd, POLLIN, 0) == POLLERR);
	CHECK(ioctl(fd, NIOCTXSYNC, NULL) == -1 && errno == ENXIO);
	a = file_port(fd, "vale1:a");
	b = file_port(file_open(), "vale1:b");
	CHECK(request(fd, NETMAP_REQ_REGISTER, "vale1:c", &b.reg, NULL) == -1 && errno == EBUSY);

	stop_helper();
	for (i = 0; i < 1000; i++)
		CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
	exchange(&a, &b);
	exchange(&b, &a);
	CHECK(poll1(b.fd, POLLIN, 10) == 0);
	ep = epoll_create1(0);
	memset(&ev, 0, sizeof(ev));
	continue_helper();
	/* That the kernel's epoll does not have it is asked of the kernel. */
	ev.events = EPOLLIN;
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, b.fd, &ev) == 0);
	stop_helper();
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, b.fd, &ev) == -1 && errno == EEXIST);
	CHECK(epoll_wait(ep, &got, 1, 10) == 0);
	put(&a, 7, 1);
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(epoll_wait(ep, &got, 1, 5000) == 1 && got.events == EPOLLIN);
	CHECK(take(&b, 7) == 1);
	copy = dup(b.fd);
	CHECK(close(b.fd) == 0);
	b.fd = copy;
	exchange(&a, &b);
	/* As of a device: not beyond what REGISTER told. */
	CHECK(mmap(NULL, b.reg.nr_memsize + 1, PROT_READ, MAP_SHARED, b.fd, 0) == MAP_FAILED && errno == EINVAL);
	continue_helper();

	memset(&info, 0, sizeof(info));
	CHECK(request(b.fd, NETMAP_REQ_PORT_INFO_GET, "vale1:b", &info, NULL) == 0);
	CHECK(info.nr_memsize == b.reg.nr_memsize);
	/* A map keeps the port, as it does with a device. */
	CHECK(close(b.fd) == 0);
	for (i = 0; i < 50; i++) {
		CHECK(listed("vale1:b"));
		usleep(1000);
	}
	CHECK(munmap(b.mem, b.reg.nr_memsize) == 0);
	wait_until_gone("vale1:b");
	close_port(&a);
	wait_until_gone("vale1:a");
}

static void
a_file_is_in_the_kernels_epoll_already(void)
{
	int ep = epoll_create1(0), fd = file_open(), i;
	struct epoll_event ev, got;
	struct port a, b;

	memset(&ev, 0, sizeof(ev));
	ev.events = EPOLLIN;
	ev.data.u64 = 1;
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0);
	CHECK(epoll_wait(ep, &got, 1, 0) == 1 && got.events == EPOLLERR);
	b = file_port(fd, "vale1:b");
	a = open_port("vale1:a");
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == -1 && errno == EEXIST);
	ev.data.u64 = 2;
	CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev) == 0);
	for (i = 0; i < 3; i++) {
		CHECK(epoll_wait(ep, &got, 1, 0) == 0);
		put(&a, i, 1);
		CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
		CHECK(epoll_wait(ep, &got, 1, 5000) == 1 && got.events == EPOLLIN && got.data.u64 == 2);
		CHECK(take(&b, i) == 1);
		CHECK(ioctl(fd, NIOCRXSYNC, NULL) == 0);
	}
	CHECK(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL) == 0);
	CHECK(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL) == -1 && errno == ENOENT);
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0);
	stop_helper();
	put(&a, i, 1);
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(epoll_wait(ep, &got, 1, 5000) == 1 && got.events == EPOLLIN && got.data.u64 == 2);
	CHECK(take(&b, i) == 1);
	continue_helper();
}

static void
send_file(void *arg)
{
	struct port p = bare_port("vale1:sent");

	send_fd(*(int *)arg, p.fd, &p.reg, sizeof(p.reg));
}

static void
a_file_arrives(void)
{
	struct port p, other = open_port("vale1:o");
	int socks[2];

	memset(&p, 0, sizeof(p));
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, socks) == 0);
	in_child(send_file, &socks[0]);
	p.fd = recv_fd(socks[1], &p.reg, sizeof(p.reg));
	CHECK(ioctl(p.fd, NIOCTXSYNC, NULL) == 0);
	stop_helper();
	CHECK(map_port(&p) == 0);
	exchange(&p, &other);
	exchange(&other, &p);
	continue_helper();
	close_port(&p);
	wait_until_gone("vale1:sent");
}

static void
a_file_over_exec(void)
{
	struct port p = bare_port("vale1:kept");
	char number[16];

	snprintf(number, sizeof(number), "%d", p.fd);
	setenv("RINGWAY_TEST_FD", number, 1);
	execl("/proc/self/exe", "doors_device", "a_file_was_inherited", NULL);
	CHECK(0);
}

static void
a_file_was_inherited(void)
{
	int fd = atoi(getenv("RINGWAY_TEST_FD")), i;

	CHECK(ioctl(fd, NIOCRXSYNC, NULL) == 0);
	stop_helper();
	for (i = 0; i < 1000; i++)
		CHECK(ioctl(fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll1(fd, POLLIN, 10) == 0 && poll1(fd, POLLOUT, 10) == POLLOUT);
	continue_helper();
}

static void
use_as_nobody(void *arg)
{
	struct port *p = (struct port *)arg;
	int i, copy;

	CHECK(setgid(65534) == 0 && setuid(65534) == 0);
	/* The kernel guards it now, so the helper lends it nothing; the kernel serves the file. */
	CHECK(prctl(PR_GET_DUMPABLE) == 0);
	CHECK(ioctl(p->fd, NIOCTXSYNC, NULL) == 0);
	copy = dup(p->fd);
	/* Not guarded, but another user's: the broker lets it not take part. */
	CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
	for (i = 0; i < 3; i++)
		CHECK(ioctl(copy, NIOCTXSYNC, NULL) == 0 && ioctl(copy, NIOCRXSYNC, NULL) == 0);
	CHECK(poll1(copy, POLLIN, 0) == 0 && poll1(copy, POLLOUT, 0) == POLLOUT);
	CHECK(close(copy) == 0);
}

static void
a_file_of_another_user_is_left_to_the_kernel(void)
{
	struct port p = bare_port("vale1:p");

	in_child(use_as_nobody, &p);
	CHECK(map_port(&p) == 0);
	CHECK(ioctl(p.fd, NIOCTXSYNC, NULL) == 0);
}

static mode_t
kind_of(int fd)
{
	struct stat st;

	memset(&st, 0, sizeof(st));
	CHECK(syscall(SYS_fstat, fd, &st) == 0);
	return st.st_mode & S_IFMT;
}

static void
open_takes_the_library_where_a_file_is(void)
{
	char dir[] = "/tmp/ringway-dev-XXXXXX", link[64];
	struct port a, b;

	/* A /dev of our own, with nothing but the device in it. */
	CHECK(mkdtemp(dir) != NULL);
	snprintf(link, sizeof(link), "%s/netmap", dir);
	CHECK(symlink(device(), link) == 0);
	CHECK(unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
	CHECK(mount(dir, "/dev", NULL, MS_BIND, NULL) == 0);
	a = open_port("vale1:a");
	CHECK(kind_of(a.fd) == S_IFSOCK);
	/* No broker of the library's: the file does it. */
	setenv("RINGWAY_SOCKET", "/nonexistent/sock", 1);
	b = open_port("vale1:b");
	CHECK(kind_of(b.fd) == S_IFREG);
	stop_helper();
	exchange(&a, &b);
	continue_helper();
	/* Numbers are the lowest, as ever. */
	close_port(&a);
	CHECK(open("/dev/netmap", O_RDWR) == a.fd);
	CHECK(unlink(link) == 0 && umount("/dev") == 0 && rmdir(dir) == 0);
}

static const struct test tests[] = {
	{ "a_file_gets_the_fast_sync", a_file_gets_the_fast_sync },
	{ "a_file_is_in_the_kernels_epoll_already", a_file_is_in_the_kernels_epoll_already },
	{ "a_file_arrives", a_file_arrives },
	{ "a_file_over_exec", a_file_over_exec },
	{ "a_file_was_inherited", a_file_was_inherited },
	{ "a_file_of_another_user_is_left_to_the_kernel", a_file_of_another_user_is_left_to_the_kernel },
	{ "open_takes_the_library_where_a_file_is", open_takes_the_library_where_a_file_is },
};
RUN_TESTS(tests)

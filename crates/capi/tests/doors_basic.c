/* The doors one by one: open, ioctl, mmap, poll, close, and what the device refuses. */
#include "doors.h"

#include <sys/stat.h>
#include <sys/uio.h>

static void
two_ports_of_a_switch(void)
{
	struct port a = open_port("vale1:a"), b = open_port("vale1:b");

	CHECK(poll1(b.fd, POLLIN, 0) == 0);
	exchange(&a, &b);
	exchange(&b, &a);
	close_port(&a);
	close_port(&b);
}

static void
two_ends_of_a_pipe(void)
{
	struct port a = open_port("vale1:p{1"), b = open_port("vale1:p}1");

	exchange(&a, &b);
	exchange(&b, &a);
	close_port(&a);
	close_port(&b);
}

static void
other_ways_to_open(void)
{
	int dir = open("/dev", O_RDONLY | O_DIRECTORY), fd;
	struct stat st;
	FILE *file;

	CHECK((fd = openat(dir, "netmap", O_RDWR)) >= 0);
	CHECK(fcntl(fd, F_GETFD) == 0);
	CHECK(fstat(fd, &st) == 0 && S_ISCHR(st.st_mode));
	CHECK(close(fd) == 0);
	CHECK((fd = open("/dev/../dev//netmap", O_RDWR | O_CLOEXEC)) >= 0);
	CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC);
	CHECK(close(fd) == 0);
	CHECK((fd = open64("/dev/netmap", O_RDWR | O_CREAT, 0600)) >= 0);
	CHECK(close(fd) == 0);
	CHECK((fd = creat("/dev/netmap", 0600)) >= 0 && close(fd) == 0);
	CHECK(access("/dev/netmap", F_OK) < 0); /* no file has come to be */
	CHECK(open("/dev/netmap", O_RDWR | O_CREAT | O_EXCL, 0600) < 0 && errno == EEXIST);
	CHECK(open("/dev/netmap", O_RDONLY | O_DIRECTORY) < 0 && errno == ENOTDIR);
	CHECK(open("/dev/netmap2", O_RDWR) < 0 && errno == ENOENT);
	CHECK(open("netmap", O_RDWR) < 0 && errno == ENOENT);
	CHECK(open((char *)16, O_RDWR) < 0 && errno == EFAULT);
	CHECK(open((char *)16, O_RDWR | O_CREAT, 0600) < 0 && errno == EFAULT);
	file = fopen("/dev/netmap", "r+");
	CHECK(file == NULL && errno == EOPNOTSUPP);
	CHECK(fopen("/dev/nothing", "r") == NULL && errno == ENOENT);
	CHECK(chdir("/dev") == 0 && (fd = open("netmap", O_RDWR)) >= 0 && close(fd) == 0);
	CHECK(close(dir) == 0);
}

static void
what_a_device_refuses(void)
{
	int fd = open("/dev/netmap", O_RDWR);
	struct nmreq_register reg;
	struct mmsghdr msg;
	struct iovec iov;
	char buf[16];

	memset(&iov, 0, sizeof(iov));
	CHECK(read(fd, buf, 1) < 0 && errno == EINVAL);
	CHECK(write(fd, "x", 1) < 0 && errno == EINVAL);
	CHECK(readv(fd, &iov, 1) < 0 && errno == EINVAL);
	CHECK(writev(fd, &iov, 1) < 0 && errno == EINVAL);
	CHECK(lseek(fd, 0, SEEK_SET) < 0 && errno == ESPIPE);
	memset(&msg, 0, sizeof(msg));
	CHECK(send(fd, "x", 1, 0) < 0 && errno == ENOTSOCK);
	CHECK(sendto(fd, "x", 1, 0, NULL, 0) < 0 && errno == ENOTSOCK);
	CHECK(sendmsg(fd, &msg.msg_hdr, 0) < 0 && errno == ENOTSOCK);
	CHECK(sendmmsg(fd, &msg, 1, 0) < 0 && errno == ENOTSOCK);
	CHECK(recv(fd, buf, 1, MSG_DONTWAIT) < 0 && errno == ENOTSOCK);
	CHECK(recvmsg(fd, &msg.msg_hdr, MSG_DONTWAIT) < 0 && errno == ENOTSOCK);
	CHECK(recvmmsg(fd, &msg, 1, MSG_DONTWAIT, NULL) < 0 && errno == ENOTSOCK);
	CHECK(shutdown(fd, SHUT_RDWR) < 0 && errno == ENOTSOCK);
	/* It is none the worse for it. */
	memset(&reg, 0, sizeof(reg));
	reg.nr_mode = NR_REG_ALL_NIC;
	CHECK(request(fd, NETMAP_REQ_REGISTER, "vale1:a", &reg, NULL) == 0);
	CHECK(close(fd) == 0);
	CHECK(close(fd) < 0 && errno == EBADF);
}

static void
an_unbound_descriptor(void)
{
	int fd = open("/dev/netmap", O_RDWR);

	CHECK(poll1(fd, POLLIN, -1) == POLLERR);
	CHECK(poll1(fd, POLLOUT, 0) == POLLERR);
	CHECK(ioctl(fd, NIOCTXSYNC, NULL) < 0 && errno == ENXIO);
	CHECK(ioctl(fd, NIOCRXSYNC, NULL) < 0 && errno == ENXIO);
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EINVAL);
	CHECK(close(fd) == 0);
}

static void
maps(void)
{
	struct port a = open_port("vale1:a");
	long page = sysconf(_SC_PAGESIZE);
	char *part, *again;

	CHECK(mmap(NULL, a.reg.nr_memsize + page, PROT_READ, MAP_SHARED, a.fd, 0) == MAP_FAILED && errno == EINVAL);
	CHECK(mmap(NULL, page, PROT_READ, MAP_SHARED, a.fd, (off_t)a.reg.nr_memsize) == MAP_FAILED && errno == EINVAL);
	part = (char *)mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, a.fd, page);
	CHECK(part != MAP_FAILED);
	part[5] = 77;
	CHECK(a.mem[page + 5] == 77);
	again = (char *)mremap(part, page, 2 * page, MREMAP_MAYMOVE);
	CHECK(again != MAP_FAILED && again[5] == 77);
	CHECK(mmap64(again, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == again);
	CHECK(munmap(again, 2 * page) == 0);
	close_port(&a);
	CHECK(!listed("vale1:a"));
}

static const struct test tests[] = {
	{"two_ports_of_a_switch", two_ports_of_a_switch},
	{"two_ends_of_a_pipe", two_ends_of_a_pipe},
	{"other_ways_to_open", other_ways_to_open},
	{"what_a_device_refuses", what_a_device_refuses},
	{"an_unbound_descriptor", an_unbound_descriptor},
	{"maps", maps},
};

RUN_TESTS(tests)

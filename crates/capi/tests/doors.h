/* What the tests of the doors share: programs that take the name of a test as argument and run it. */
#ifndef DOORS_H
#define DOORS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <net/netmap_user.h>

#include "check.h"

/* A port, opened with the plain system calls. */
struct port {
	int fd;
	struct nmreq_register reg;
	char *mem;
	struct netmap_if *nifp;
};

#define TX(p, i) NETMAP_TXRING((p)->nifp, i)
#define RX(p, i) NETMAP_RXRING((p)->nifp, i)

static inline int
request(int fd, uint16_t type, const char *name, void *body, void *options)
{
	struct nmreq_header hdr;

	memset(&hdr, 0, sizeof(hdr));
	hdr.nr_version = NETMAP_API;
	hdr.nr_reqtype = type;
	snprintf(hdr.nr_name, sizeof(hdr.nr_name), "%s", name);
	hdr.nr_body = (uintptr_t)body;
	hdr.nr_options = (uintptr_t)options;
	return ioctl(fd, NIOCCTRL, &hdr);
}

static inline int
map_port(struct port *p)
{
	p->mem = (char *)mmap(NULL, p->reg.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);
	if (p->mem == MAP_FAILED)
		return -1;
	p->nifp = NETMAP_IF(p->mem, p->reg.nr_offset);
	return 0;
}

/* Binds with what is in `reg`; its mode 0 means ALL_NIC. */
static inline int
bind_port(struct port *p, const char *name)
{
	p->fd = open("/dev/netmap", O_RDWR);
	if (p->fd < 0)
		return -1;
	if (p->reg.nr_mode == 0)
		p->reg.nr_mode = NR_REG_ALL_NIC;
	if (request(p->fd, NETMAP_REQ_REGISTER, name, &p->reg, NULL) < 0) {
		int error = errno;

		close(p->fd);
		errno = error;
		return -1;
	}
	return map_port(p);
}

static inline struct port
open_with(const char *name, uint64_t flags, uint32_t slots)
{
	struct port p;

	memset(&p, 0, sizeof(p));
	p.reg.nr_flags = flags;
	p.reg.nr_tx_slots = p.reg.nr_rx_slots = slots;
	if (bind_port(&p, name) < 0) {
		printf("%s: %s\n", name, strerror(errno));
		exit(3);
	}
	return p;
}

static inline struct port
open_port(const char *name)
{
	return open_with(name, 0, 0);
}

/* The errno of an attempt to bind, 0 if it works; nothing stays open. */
static inline int
try_bind(const char *name, uint32_t mode, uint64_t flags)
{
	struct port p;

	memset(&p, 0, sizeof(p));
	p.reg.nr_mode = mode;
	p.reg.nr_flags = flags;
	if (bind_port(&p, name) < 0)
		return errno;
	munmap(p.mem, p.reg.nr_memsize);
	close(p.fd);
	return 0;
}

static inline void
close_port(struct port *p)
{
	CHECK(munmap(p->mem, p->reg.nr_memsize) == 0);
	CHECK(close(p->fd) == 0);
}

/* Puts frames of 60 bytes into TX ring 0, each with a number, as many as fit. No sync. */
static inline uint32_t
put(struct port *p, uint32_t first, uint32_t count)
{
	struct netmap_ring *ring = TX(p, 0);
	uint32_t head = ring->head, n;

	for (n = 0; n < count && head != ring->tail; n++) {
		struct netmap_slot *slot = &ring->slot[head];
		unsigned char *buf = (unsigned char *)NETMAP_BUF(ring, slot->buf_idx);
		uint32_t number = first + n;

		memset(buf, 0xff, 6);
		memset(buf + 6, 2, 6);
		memset(buf + 12, 0x88, 2);
		memcpy(buf + 14, &number, 4);
		slot->len = 60;
		head = nm_ring_next(ring, head);
	}
	ring->head = ring->cur = head;
	return n;
}

/* Takes frames from RX ring 0, which must be numbered from `first`. */
static inline uint32_t
take(struct port *p, uint32_t first)
{
	struct netmap_ring *ring = RX(p, 0);
	uint32_t head = ring->head, n;

	for (n = 0; head != ring->tail; n++) {
		struct netmap_slot *slot = &ring->slot[head];
		uint32_t number;

		memcpy(&number, NETMAP_BUF(ring, slot->buf_idx) + 14, 4);
		CHECK(slot->len == 60 && number == first + n);
		head = nm_ring_next(ring, head);
	}
	ring->head = ring->cur = head;
	return n;
}

static inline int
poll1(int fd, short events, int timeout)
{
	struct pollfd p;

	p.fd = fd;
	p.events = events;
	p.revents = 0;
	return poll(&p, 1, timeout) < 0 ? -1 : p.revents;
}

/* Sends frames from one port and takes them at the other. */
static inline void
exchange(struct port *from, struct port *to)
{
	static uint32_t number;
	uint32_t got = 0;

	CHECK(put(from, number, 5) == 5);
	CHECK(ioctl(from->fd, NIOCTXSYNC, NULL) == 0);
	while (got < 5) {
		if (!(poll1(to->fd, POLLIN, 5000) & POLLIN))
			break;
		got += take(to, number + got);
	}
	CHECK(got == 5);
	number += 5;
}

/* Many descriptors need more files than a user has at first. */
static inline void
many_files(void)
{
	struct rlimit limit;

	CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = limit.rlim_max;
	CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* A descriptor over a socket, with data. */
static inline void
send_fd(int sock, int fd, const void *data, size_t len)
{
	char space[CMSG_SPACE(sizeof(int))];
	struct iovec iov;
	struct msghdr msg;
	struct cmsghdr *head;

	memset(&msg, 0, sizeof(msg));
	memset(space, 0, sizeof(space));
	iov.iov_base = (void *)(uintptr_t)data;
	iov.iov_len = len;
	msg.msg_iov = &iov;
	msg.msg_iovlen = 1;
	msg.msg_control = space;
	msg.msg_controllen = sizeof(space);
	head = CMSG_FIRSTHDR(&msg);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &fd, sizeof(int));
	CHECK(sendmsg(sock, &msg, 0) == (ssize_t)len);
}

static inline int
recv_fd(int sock, void *data, size_t len)
{
	char space[CMSG_SPACE(sizeof(int))];
	struct iovec iov;
	struct msghdr msg;
	int fd = -1;

	memset(&msg, 0, sizeof(msg));
	iov.iov_base = data;
	iov.iov_len = len;
	msg.msg_iov = &iov;
	msg.msg_iovlen = 1;
	msg.msg_control = space;
	msg.msg_controllen = sizeof(space);
	CHECK(recvmsg(sock, &msg, 0) == (ssize_t)len);
	if (CMSG_FIRSTHDR(&msg) != NULL)
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return fd;
}

/* Whether a port is listed on its switch. */
static inline int
listed(const char *name)
{
	struct nmreq_vale_list list;
	int fd = open("/dev/netmap", O_RDWR), found;

	memset(&list, 0, sizeof(list));
	found = request(fd, NETMAP_REQ_VALE_LIST, name, &list, NULL) == 0 && list.nr_port_idx != 255;
	close(fd);
	return found;
}

/* Runs `f` in a child, and checks that its checks hold. */
static inline void
in_child(void (*f)(void *), void *arg)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		failures_ = 0;
		f(arg);
		fflush(stdout);
		_exit(check_result());
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

struct test {
	const char *name;
	void (*f)(void);
};

/* Runs the test that is named, or tells their names. */
#define RUN_TESTS(tests) \
	int main(int argc, char **argv) \
	{ \
		return run_tests(tests, ROWS(tests), argc, argv); \
	}

static inline int
run_tests(const struct test *tests, size_t n, int argc, char **argv)
{
	size_t i;

	alarm(60);
	for (i = 0; i < n; i++)
		if (argc < 2)
			printf("%s\n", tests[i].name);
		else if (strcmp(tests[i].name, argv[1]) == 0) {
			tests[i].f();
			return check_result();
		}
	if (argc < 2)
		return 0;
	printf("no such test\n");
	return 2;
}

#endif

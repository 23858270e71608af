// Every operation on a device file, of a statically linked program. Usage: calls DEVICE COMMAND [SWITCH]

#define _GNU_SOURCE
#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "port.h"

// Until process `pid` waits in epoll_wait or poll.
static void wait_until_asleep(pid_t pid)
{
	char path[64], text[64];
	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	for (;;) {
		int fd = open(path, O_RDONLY);
		CHECK(fd >= 0);
		ssize_t n = read(fd, text, sizeof(text) - 1);
		close(fd);
		CHECK(n >= 0);
		text[n] = 0;
		int nr = atoi(text);
		if (text[0] != 'r' && (nr == SYS_epoll_wait || nr == SYS_epoll_pwait || nr == SYS_poll ||
				       nr == SYS_ppoll))
			return;
		usleep(1000);
	}
}

// A child with a copy of the descriptor sends when the parent sleeps.
static pid_t send_when_asleep(struct port *p, const char *text)
{
	pid_t parent = getpid(), child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		wait_until_asleep(parent);
		put(p, text);
		CHECK(ioctl(p->fd, NIOCTXSYNC, NULL) == 0);
		_exit(0);
	}
	return child;
}

static void reap(pid_t child)
{
	int status;
	CHECK(waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void unbound(void)
{
	struct nmreq_header hdr;
	struct nmreq_register reg;
	struct pollfd pfd = {.fd = dev_open(), .events = POLLIN};
	char byte;
	int fd = pfd.fd;

	CHECK(poll(&pfd, 1, 0) == 1 && pfd.revents == POLLERR);
	FAILS(ioctl(fd, NIOCTXSYNC, NULL), ENXIO);
	FAILS(ioctl(fd, NIOCRXSYNC, NULL), ENXIO);
	FAILS(ioctl(fd, _IOWR('i', 199, int), &hdr), EOPNOTSUPP);
	FAILS(read(fd, &byte, 1), EINVAL);
	FAILS(write(fd, "", 1), EINVAL);
	fill(&hdr, &reg, "vale7:x");
	hdr.nr_version = 1;
	FAILS(ioctl(fd, NIOCCTRL, &hdr), EINVAL);
	fill(&hdr, &reg, "vale7:x");
	hdr.nr_body = 64;
	FAILS(ioctl(fd, NIOCCTRL, &hdr), EFAULT);
	CHECK(hdr.nr_reserved == 0 && hdr.nr_body == 64);
	fill(&hdr, &reg, "no-such-interface");
	FAILS(ioctl(fd, NIOCCTRL, &hdr), ENXIO);
	CHECK(close(fd) == 0);
}

static void options(const char *name)
{
	struct nmreq_header hdr;
	struct port p = {.fd = dev_open()};
	struct nmreq_option unknown = {.nro_reqtype = 77, .nro_status = 5};
	struct nmreq_opt_offsets ofs = {
		.nro_opt = {.nro_next = (uintptr_t)&unknown, .nro_reqtype = NETMAP_REQ_OPT_OFFSETS},
		.nro_max_offset = 128,
		.nro_initial_offset = 64,
	};

	fill(&hdr, &p.reg, name);
	hdr.nr_options = (uintptr_t)&ofs;
	FAILS(ioctl(p.fd, NIOCCTRL, &hdr), EOPNOTSUPP);
	CHECK(unknown.nro_status == EOPNOTSUPP && ofs.nro_opt.nro_status == 0);
	CHECK(hdr.nr_options == (uintptr_t)&ofs && p.reg.nr_memsize == 0);
	ofs.nro_opt.nro_next = 0;
	CHECK(ioctl(p.fd, NIOCCTRL, &hdr) == 0);
	CHECK(ofs.nro_opt.nro_status == 0 && ofs.nro_max_offset == 128);
	map(&p);
	struct netmap_ring *ring = NETMAP_TXRING(p.nifp, 0);
	CHECK(ring->offset_mask != 0 && (ring->slot[0].ptr & ring->offset_mask) == 64);
	FAILS(ioctl(p.fd, NIOCCTRL, &hdr), EBUSY);
	CHECK(munmap(p.mem, p.reg.nr_memsize) == 0 && close(p.fd) == 0);
}

static void older(const char *name)
{
	struct nmreq req = {.nr_version = NETMAP_API};
	int fd = dev_open();
	strncpy(req.nr_name, name, sizeof(req.nr_name) - 1);
	CHECK(ioctl(fd, NIOCREGIF, &req) == 0);
	void *mem = mmap(NULL, req.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(mem != MAP_FAILED);
	struct netmap_if *nifp = NETMAP_IF(mem, req.nr_offset);
	CHECK(strcmp(nifp->ni_name, name) == 0 && nifp->ni_tx_rings == req.nr_tx_rings);
	CHECK(ioctl(fd, NIOCGINFO, &req) == 0);
	CHECK(munmap(mem, req.nr_memsize) == 0 && close(fd) == 0);
}

static void traffic(const char *sw)
{
	char name_a[32], name_b[32];
	snprintf(name_a, sizeof(name_a), "%s:a", sw);
	snprintf(name_b, sizeof(name_b), "%s:b", sw);
	struct port a = bind_port(name_a, 0), b = bind_port(name_b, 0);
	struct pollfd pfd = {.fd = b.fd, .events = POLLIN};

	// What a question says of the region fits what was mapped.
	struct nmreq_pools_info info = {.nr_mem_id = b.reg.nr_mem_id};
	struct nmreq_header hdr = {
		.nr_version = NETMAP_API,
		.nr_reqtype = NETMAP_REQ_POOLS_INFO_GET,
		.nr_body = (uintptr_t)&info,
	};
	snprintf(hdr.nr_name, sizeof(hdr.nr_name), "%s", name_b);
	CHECK(ioctl(b.fd, NIOCCTRL, &hdr) == 0 && info.nr_memsize == b.reg.nr_memsize);
	CHECK(info.nr_if_pool_offset == b.reg.nr_offset);
	struct netmap_ring *rx = NETMAP_RXRING(b.nifp, 0);
	CHECK(NETMAP_BUF(rx, 0) == (char *)b.mem + info.nr_buf_pool_offset);

	CHECK(poll(&pfd, 1, 0) == 0);
	put(&a, "one");
	put(&a, "two");
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
	take(&b, "one");
	CHECK(poll(&pfd, 1, 0) == 1 && pfd.revents == POLLIN);
	take(&b, "two");

	// poll and epoll, asleep; the sender is a forked child.
	pid_t child = send_when_asleep(&a, "three");
	CHECK(poll(&pfd, 1, 20000) == 1 && pfd.revents == POLLIN);
	take(&b, "three");
	reap(child);
	int ep = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLIN}, got;
	CHECK(ep >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, b.fd, &ev) == 0);
	CHECK(epoll_wait(ep, &got, 1, 0) == 0);
	for (int i = 0; i < 3; i++) {
		child = send_when_asleep(&a, "four");
		CHECK(epoll_wait(ep, &got, 1, 20000) == 1 && got.events == EPOLLIN);
		take(&b, "four");
		reap(child);
		CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	}
	close(ep);

	// dup: the binding lives as long as the last copy.
	int copy = dup(b.fd);
	CHECK(copy >= 0 && close(b.fd) == 0);
	put(&a, "five");
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && ioctl(copy, NIOCRXSYNC, NULL) == 0);
	take(&b, "five");
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		// The child's copy is a copy like others.
		CHECK(close(copy) == 0);
		_exit(0);
	}
	reap(child);
	CHECK(ioctl(copy, NIOCRXSYNC, NULL) == 0);

	// After the last close the name is free at once.
	for (int i = 0; i < 20; i++) {
		CHECK(munmap(b.mem, b.reg.nr_memsize) == 0 && close(copy) == 0);
		b = bind_port(name_b, NR_EXCLUSIVE);
		copy = b.fd;
	}
	// An address of our own means nothing to the helper.
	struct netmap_ring *ring = NETMAP_TXRING(a.nifp, 0);
	ring->slot[ring->head].flags |= NS_INDIRECT;
	ring->slot[ring->head].ptr = (uintptr_t)name_a;
	ring->slot[ring->head].len = 60;
	ring->head = ring->cur = nm_ring_next(ring, ring->head);
	put(&a, "six");
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
	take(&b, "six");
	CHECK(nm_ring_empty(NETMAP_RXRING(b.nifp, 0)));
}

// Holds a port; then each line asks for a sync, and is answered with what came of it.
static void hold(const char *name)
{
	struct port p = bind_port(name, 0);
	struct pollfd pfd = {.fd = p.fd, .events = POLLIN};
	char line[16];
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		int failed = ioctl(p.fd, NIOCTXSYNC, NULL) ? errno : 0;
		int events = poll(&pfd, 1, 0) < 0 ? -errno : pfd.revents;
		printf("%d %d\n", failed, events);
		fflush(stdout);
	}
}

// Receives that many frames, asleep in between.
static void receive(const char *name, int count)
{
	struct port p = bind_port(name, 0);
	struct pollfd pfd = {.fd = p.fd, .events = POLLIN};
	struct netmap_ring *ring = NETMAP_RXRING(p.nifp, 0);
	puts("ready");
	fflush(stdout);
	while (count > 0) {
		CHECK(poll(&pfd, 1, 20000) == 1 && pfd.revents == POLLIN);
		for (; !nm_ring_empty(ring) && count > 0; count--)
			ring->head = ring->cur = nm_ring_next(ring, ring->head);
	}
	puts("ok");
}

static void cost(const char *sw)
{
	char name[32];
	enum { ROUNDS = 100000 };
	struct timespec from, to;
	snprintf(name, sizeof(name), "%s:cost", sw);
	struct port p = bind_port(name, 0);
	for (int i = 0; i < 1000; i++)
		CHECK(ioctl(p.fd, NIOCTXSYNC, NULL) == 0);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int i = 0; i < ROUNDS; i++)
		CHECK(ioctl(p.fd, NIOCTXSYNC, NULL) == 0);
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("%.0f\n",
	       ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / (double)ROUNDS);
}

int main(int argc, char **argv)
{
	CHECK(argc >= 3);
	device = argv[1];
	const char *what = argv[2], *name = argc > 3 ? argv[3] : "vale7";
	if (strcmp(what, "all") == 0) {
		char port[32];
		snprintf(port, sizeof(port), "%s:o", name);
		unbound();
		options(port);
		older(port);
		traffic(name);
		puts("ok");
	} else if (strcmp(what, "open") == 0) {
		int fd = open(device, O_RDWR);
		printf("%d\n", fd < 0 ? errno : 0);
	} else if (strcmp(what, "bind") == 0) {
		struct nmreq_header hdr;
		struct nmreq_register reg;
		int fd = dev_open();
		fill(&hdr, &reg, name);
		printf("%d\n", ioctl(fd, NIOCCTRL, &hdr) ? errno : 0);
	} else if (strcmp(what, "hold") == 0) {
		hold(name);
	} else if (strcmp(what, "bind-stdin") == 0) {
		struct nmreq_header hdr;
		struct nmreq_register reg;
		fill(&hdr, &reg, name);
		CHECK(ioctl(0, NIOCCTRL, &hdr) == 0);
	} else if (strcmp(what, "receive") == 0) {
		CHECK(argc == 5);
		receive(name, atoi(argv[4]));
	} else if (strcmp(what, "cost") == 0) {
		cost(name);
	} else {
		return 2;
	}
	return 0;
}

// Requests of other kinds than a plain REGISTER, through a device file. Usage: requests DEVICE COMMAND NAME SWITCH

#define _GNU_SOURCE
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "port.h"

static int ask(int fd, int kind, const char *name, void *body)
{
	struct nmreq_header hdr = {
		.nr_version = NETMAP_API,
		.nr_reqtype = kind,
		.nr_body = (uintptr_t)body,
	};
	snprintf(hdr.nr_name, sizeof(hdr.nr_name), "%s", name);
	return ioctl(fd, NIOCCTRL, &hdr);
}

// A persistent port: made, put on a switch, used by both of its names, and taken away.
static void persistent(const char *name, const char *sw)
{
	char full[64], other[32];
	int fd = dev_open();
	struct nmreq_vale_newif newif = {.nr_tx_slots = 64, .nr_rx_slots = 128};
	struct nmreq_vale_attach attach = {.reg.nr_mode = NR_REG_ALL_NIC, .port_index = 77};
	struct nmreq_vale_detach detach = {.port_index = 77};
	struct nmreq_vale_list list = {0};

	snprintf(full, sizeof(full), "%s:%s", sw, name);
	snprintf(other, sizeof(other), "%s:o", sw);
	CHECK(ask(fd, NETMAP_REQ_VALE_NEWIF, name, &newif) == 0);
	CHECK(newif.nr_tx_slots == 64 && newif.nr_rx_slots == 128 && newif.nr_tx_rings == 1);
	FAILS(ask(fd, NETMAP_REQ_VALE_NEWIF, name, &newif), EEXIST);
	CHECK(ask(fd, NETMAP_REQ_VALE_ATTACH, full, &attach) == 0 && attach.port_index == 0);
	FAILS(ask(fd, NETMAP_REQ_VALE_ATTACH, full, &attach), EBUSY);
	CHECK(ask(fd, NETMAP_REQ_VALE_LIST, full, &list) == 0 && list.nr_port_idx == 0);

	struct port p = bind_port(full, 0), o = bind_port(other, 0);
	CHECK(p.reg.nr_tx_slots == 64 && strcmp(p.nifp->ni_name, full) == 0);
	put(&o, "through the switch");
	CHECK(ioctl(o.fd, NIOCTXSYNC, NULL) == 0 && ioctl(p.fd, NIOCRXSYNC, NULL) == 0);
	take(&p, "through the switch");
	FAILS(ask(fd, NETMAP_REQ_VALE_DELIF, name, NULL), EBUSY);
	CHECK(ask(fd, NETMAP_REQ_VALE_DETACH, full, &detach) == 0 && detach.port_index == 0);
	FAILS(ask(fd, NETMAP_REQ_VALE_DETACH, full, &detach), ENXIO);
	put(&o, "to nobody");
	CHECK(ioctl(o.fd, NIOCTXSYNC, NULL) == 0 && ioctl(p.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(nm_ring_empty(NETMAP_RXRING(p.nifp, 0)));
	CHECK(close(p.fd) == 0 && close(o.fd) == 0);
	CHECK(ask(fd, NETMAP_REQ_VALE_DELIF, name, NULL) == 0);
	FAILS(ask(fd, NETMAP_REQ_VALE_DELIF, name, NULL), ENXIO);
	CHECK(close(fd) == 0);
}

// Monitors of a port: one that copies what it sends, one that swaps buffers with it as it takes what arrived.
static void monitor(const char *name, const char *sw)
{
	char full[64], other[32];
	snprintf(full, sizeof(full), "%s:%s", sw, name);
	snprintf(other, sizeof(other), "%s:o", sw);

	struct nmreq_header hdr;
	struct nmreq_register reg;
	int fd = dev_open();
	fill(&hdr, &reg, full);
	reg.nr_flags = NR_MONITOR_TX;
	FAILS(ioctl(fd, NIOCCTRL, &hdr), EINVAL);

	struct port p = bind_port(full, 0), o = bind_port(other, 0);
	CHECK(ioctl(fd, NIOCCTRL, &hdr) == 0);
	struct port copy = {.fd = fd, .reg = reg};
	map(&copy);
	struct port swap = bind_port(full, NR_ZCOPY_MON);
	CHECK(copy.reg.nr_mem_id != p.reg.nr_mem_id && swap.reg.nr_mem_id == p.reg.nr_mem_id);
	struct pollfd pfd = {.fd = copy.fd, .events = POLLIN};

	CHECK(poll(&pfd, 1, 0) == 0);
	put(&p, "sent");
	CHECK(ioctl(p.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll(&pfd, 1, 20000) == 1 && pfd.revents == POLLIN);
	struct netmap_ring *ring = NETMAP_RXRING(copy.nifp, 0);
	CHECK(ring->slot[ring->head].flags & NS_TXMON);
	take(&copy, "sent");
	CHECK(ioctl(o.fd, NIOCRXSYNC, NULL) == 0);
	take(&o, "sent");

	put(&o, "received");
	CHECK(ioctl(o.fd, NIOCTXSYNC, NULL) == 0 && ioctl(p.fd, NIOCRXSYNC, NULL) == 0);
	ring = NETMAP_RXRING(p.nifp, 0);
	uint32_t buf = ring->slot[ring->head].buf_idx;
	take(&p, "received");
	CHECK(ioctl(p.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(ioctl(swap.fd, NIOCRXSYNC, NULL) == 0);
	ring = NETMAP_RXRING(swap.nifp, 0);
	CHECK(!nm_ring_empty(ring));
	// What was sent comes first, if the parent's sync has seen it leave. Then the very buffer in which the other lay.
	while (ring->slot[ring->head].flags & NS_TXMON && !nm_ring_empty(ring))
		ring->head = ring->cur = nm_ring_next(ring, ring->head);
	CHECK(ring->slot[ring->head].buf_idx == buf);
	take(&swap, "received");
	pfd.events = POLLOUT;
	CHECK(poll(&pfd, 1, 0) == 1 && pfd.revents & POLLERR);
	CHECK(close(copy.fd) == 0 && close(swap.fd) == 0 && close(p.fd) == 0 && close(o.fd) == 0);
}

// What the file cannot do is refused at once, with nothing changed.
static void refused(const char *name, const char *sw)
{
	char full[64];
	snprintf(full, sizeof(full), "%s:%s", sw, name);
	size_t len = 32 << 20;
	struct nmreq_header hdr;
	struct port p = {.fd = dev_open()};
	unsigned char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(mem != MAP_FAILED);
	memset(mem, 0x5a, len);

	struct nmreq_opt_extmem ext = {
		.nro_opt = {.nro_reqtype = NETMAP_REQ_OPT_EXTMEM, .nro_status = 7},
		.nro_usrptr = (uintptr_t)mem,
		.nro_info.nr_memsize = len,
	};
	fill(&hdr, &p.reg, full);
	hdr.nr_options = (uintptr_t)&ext;
	FAILS(ioctl(p.fd, NIOCCTRL, &hdr), EOPNOTSUPP);
	CHECK(ext.nro_opt.nro_status == EOPNOTSUPP && ext.nro_info.nr_buf_pool_objtotal == 0);
	CHECK(p.reg.nr_memsize == 0);
	for (size_t i = 0; i < len; i++)
		CHECK(mem[i] == 0x5a);

	static struct nm_csb_atok atok[2] __attribute__((aligned(64)));
	static struct nm_csb_ktoa ktoa[2] __attribute__((aligned(64)));
	struct nmreq_opt_csb csb = {
		.nro_opt = {.nro_reqtype = NETMAP_REQ_OPT_CSB, .nro_status = 7},
		.csb_atok = (uintptr_t)atok,
		.csb_ktoa = (uintptr_t)ktoa,
	};
	memset(atok, 0x5a, sizeof(atok));
	fill(&hdr, &p.reg, full);
	p.reg.nr_flags = NR_EXCLUSIVE;
	hdr.nr_options = (uintptr_t)&csb;
	FAILS(ioctl(p.fd, NIOCCTRL, &hdr), EOPNOTSUPP);
	CHECK(csb.nro_opt.nro_status == EOPNOTSUPP && atok[0].head == 0x5a5a5a5a);
	// Not bound by any of that.
	FAILS(ioctl(p.fd, NIOCTXSYNC, NULL), ENXIO);

	// Bound or not, a loop is not begun, and nobody waits for one.
	for (int bound = 0; bound < 2; bound++) {
		struct nmreq_sync_kloop_start start = {.sleep_us = 1};
		csb.nro_opt.nro_status = 7;
		memset(&hdr, 0, sizeof(hdr));
		hdr.nr_version = NETMAP_API;
		hdr.nr_reqtype = NETMAP_REQ_CSB_ENABLE;
		hdr.nr_options = (uintptr_t)&csb;
		FAILS(ioctl(p.fd, NIOCCTRL, &hdr), EOPNOTSUPP);
		CHECK(csb.nro_opt.nro_status == EOPNOTSUPP);
		FAILS(ask(p.fd, NETMAP_REQ_SYNC_KLOOP_START, "", &start), EOPNOTSUPP);
		FAILS(ask(p.fd, NETMAP_REQ_SYNC_KLOOP_STOP, "", NULL), EOPNOTSUPP);
		if (bound == 0) {
			fill(&hdr, &p.reg, full);
			p.reg.nr_flags = NR_EXCLUSIVE;
			CHECK(ioctl(p.fd, NIOCCTRL, &hdr) == 0);
		}
		CHECK(ioctl(p.fd, NIOCTXSYNC, NULL) == 0);
	}
	CHECK(close(p.fd) == 0);
}

// A frame through one port and back through another, each by whoever holds it.
static void exchange(struct port *from, struct port *to, const char *text)
{
	struct pollfd pfd = {.fd = to->fd, .events = POLLIN};
	CHECK(poll(&pfd, 1, 0) == 0);
	put(from, text);
	CHECK(ioctl(from->fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll(&pfd, 1, 20000) == 1 && pfd.revents == POLLIN);
	take(to, text);
	CHECK(ioctl(to->fd, NIOCRXSYNC, NULL) == 0);
}

// Descriptors in the hands of another user: one who could not open the file gets them over a socket, and a child changes its user. Both go on
// where the opener stopped; who holds the descriptor holds the port.
static void other_user(const char *name, const char *sw)
{
	char names[2][64];
	snprintf(names[0], sizeof(names[0]), "%s:%s", sw, name);
	snprintf(names[1], sizeof(names[1]), "%s:o", sw);
	int pair[2];
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
	pid_t taker = fork();
	CHECK(taker >= 0);
	if (taker == 0) {
		// What it gets is opened after it has become somebody else.
		CHECK(close(pair[0]) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
		FAILS(open(device, O_RDWR), EACCES);
		struct port got[2];
		for (int i = 0; i < 2; i++) {
			union {
				char space[CMSG_SPACE(sizeof(int))];
				struct cmsghdr align;
			} control;
			struct iovec iov = {&got[i].reg, sizeof(got[i].reg)};
			struct msghdr msg = {
				.msg_iov = &iov,
				.msg_iovlen = 1,
				.msg_control = control.space,
				.msg_controllen = sizeof(control.space),
			};
			CHECK(recvmsg(pair[1], &msg, 0) == sizeof(got[i].reg));
			memcpy(&got[i].fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
			map(&got[i]);
		}
		char go;
		// The opener has closed its own by now.
		CHECK(read(pair[1], &go, 1) == 1);
		take(&got[1], "before");
		CHECK(ioctl(got[1].fd, NIOCRXSYNC, NULL) == 0);
		exchange(&got[0], &got[1], "by the taker");
		exchange(&got[1], &got[0], "and back");
		pid_t child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			exchange(&got[0], &got[1], "by its child");
			_exit(0);
		}
		int status;
		CHECK(waitpid(child, &status, 0) == child && status == 0);
		// A process that changed its user is guarded by the kernel: nobody reads or writes its memory, until it says
		// that it does not mind.
		struct nmreq_vale_list list = {0};
		FAILS(ask(got[0].fd, NETMAP_REQ_VALE_LIST, names[0], &list), EFAULT);
		CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
		CHECK(ask(got[0].fd, NETMAP_REQ_VALE_LIST, names[0], &list) == 0);
		_exit(0);
	}
	CHECK(close(pair[1]) == 0);
	struct port p[2] = {bind_port(names[0], 0), bind_port(names[1], 0)};
	exchange(&p[0], &p[1], "by the opener");
	put(&p[0], "before");
	CHECK(ioctl(p[0].fd, NIOCTXSYNC, NULL) == 0 && ioctl(p[1].fd, NIOCRXSYNC, NULL) == 0);
	// The parent has not met anybody as this child's user.
	for (int i = 0; i < 2; i++) {
		union {
			char space[CMSG_SPACE(sizeof(int))];
			struct cmsghdr align;
		} control = {{0}};
		struct iovec iov = {&p[i].reg, sizeof(p[i].reg)};
		struct msghdr msg = {
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control.space,
			.msg_controllen = sizeof(control.space),
		};
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &p[i].fd, sizeof(int));
		CHECK(sendmsg(pair[0], &msg, 0) == sizeof(p[i].reg));
		CHECK(munmap(p[i].mem, p[i].reg.nr_memsize) == 0 && close(p[i].fd) == 0);
	}
	CHECK(write(pair[0], "", 1) == 1);
	int status;
	CHECK(waitpid(taker, &status, 0) == taker && status == 0);
}

int main(int argc, char **argv)
{
	CHECK(argc == 5);
	device = argv[1];
	if (strcmp(argv[2], "persistent") == 0)
		persistent(argv[3], argv[4]);
	else if (strcmp(argv[2], "monitor") == 0)
		monitor(argv[3], argv[4]);
	else if (strcmp(argv[2], "refused") == 0)
		refused(argv[3], argv[4]);
	else if (strcmp(argv[2], "other-user") == 0)
		other_user(argv[3], argv[4]);
	else
		return 2;
	puts("ok");
	return 0;
}

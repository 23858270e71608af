// Requests of other kinds than a plain REGISTER, through a device file. Usage: requests DEVICE COMMAND NAME SWITCH

#include <poll.h>

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

int main(int argc, char **argv)
{
	CHECK(argc == 5);
	device = argv[1];
	if (strcmp(argv[2], "persistent") == 0)
		persistent(argv[3], argv[4]);
	else if (strcmp(argv[2], "monitor") == 0)
		monitor(argv[3], argv[4]);
	else
		return 2;
	puts("ok");
	return 0;
}

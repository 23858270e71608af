// What the programs of these tests share: a port on the device file, its frames.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <net/netmap.h>
#include <net/netmap_user.h>

// The path of the device.
static const char *device;

#define CHECK(what)                                                                              \
	do {                                                                                     \
		if (!(what)) {                                                                   \
			fprintf(stderr, "line %d: %s: errno %d (%s)\n", __LINE__, #what, errno,  \
				strerror(errno));                                                \
			exit(1);                                                                 \
		}                                                                                \
	} while (0)
#define FAILS(call, want) CHECK((call) == -1 && errno == (want))

struct port {
	int fd;
	struct nmreq_register reg;
	void *mem;
	struct netmap_if *nifp;
};

static inline int dev_open(void)
{
	int fd = open(device, O_RDWR);
	CHECK(fd >= 0);
	return fd;
}

static inline void fill(struct nmreq_header *hdr, struct nmreq_register *reg, const char *name)
{
	memset(hdr, 0, sizeof(*hdr));
	memset(reg, 0, sizeof(*reg));
	hdr->nr_version = NETMAP_API;
	hdr->nr_reqtype = NETMAP_REQ_REGISTER;
	hdr->nr_body = (uintptr_t)reg;
	snprintf(hdr->nr_name, sizeof(hdr->nr_name), "%s", name);
	reg->nr_mode = NR_REG_ALL_NIC;
}

static inline void map(struct port *p)
{
	p->mem = mmap(NULL, p->reg.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);
	CHECK(p->mem != MAP_FAILED);
	p->nifp = NETMAP_IF(p->mem, p->reg.nr_offset);
	CHECK(p->nifp->ni_tx_rings >= 1);
}

static inline struct port bind_port(const char *name, uint64_t flags)
{
	struct nmreq_header hdr;
	struct port p = {.fd = dev_open()};
	fill(&hdr, &p.reg, name);
	p.reg.nr_flags = flags;
	CHECK(ioctl(p.fd, NIOCCTRL, &hdr) == 0);
	map(&p);
	return p;
}

static inline void put(struct port *p, const char *text)
{
	struct netmap_ring *ring = NETMAP_TXRING(p->nifp, 0);
	struct netmap_slot *slot = &ring->slot[ring->head];
	char *buf = NETMAP_BUF(ring, slot->buf_idx);
	memset(buf, 0, 60);
	memset(buf, 0xff, 6);
	memcpy(buf + 6, "\x02\0\0\0\0\x01", 6);
	snprintf(buf + 14, 46, "%s", text);
	slot->len = 60;
	ring->head = ring->cur = nm_ring_next(ring, ring->head);
}

static inline void take(struct port *p, const char *text)
{
	struct netmap_ring *ring = NETMAP_RXRING(p->nifp, 0);
	CHECK(!nm_ring_empty(ring));
	CHECK(strcmp(NETMAP_BUF(ring, ring->slot[ring->head].buf_idx) + 14, text) == 0);
	ring->head = ring->cur = nm_ring_next(ring, ring->head);
}

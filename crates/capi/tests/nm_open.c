/* nm_open(), nm_mmap() and nm_close() on a device that is not one. argv[1]: file for what they print. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define NETMAP_WITH_LIBS
#include "fake_device.h"

/* What was printed since the last call, without time and place of each line. */
static const char *
printed(void)
{
	static char text[2048];
	static long at;
	char line[512];
	size_t n = 0;

	fflush(stderr);
	fseek(stderr, at, SEEK_SET);
	text[0] = '\0';
	while (fgets(line, sizeof(line), stderr) != NULL) {
		const char *words = strstr(line, "] ");

		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", words == NULL ? line : words + 2);
	}
	at = ftell(stderr);
	fseek(stderr, 0, SEEK_END);
	return text;
}

static void
fails(const char *name, uint64_t flags, int error, const char *text)
{
	int closes = fake.closes, opens = fake.opens;

	errno = 0;
	CHECK_ROW(name, nm_open(name, NULL, flags, NULL) == NULL && errno == error);
	CHECK_STR(printed(), text);
	CHECK_ROW(name, fake.closes - closes == fake.opens - opens);
}

static void
failures(void)
{
	fake_reset();
	errno = 5;
	fails("eth0", 0, 0, "");
	fails("netmap", 0, 0, "");
	CHECK(fake.opens == 0);
	fails("netmap:eth0/q", 0, EINVAL, "unrecognized flag: 'q' netmap:eth0/q\n");
	fails("vale0", 0, EINVAL, "missing ':' in vale name vale0\n");
	fake.ioctl_errno = ENXIO;
	fails("netmap:eth0", 0, ENXIO, "NIOCREGIF failed: No such device or address netmap:eth0\n");
	fake_reset();
	fake.mmap_errno = ENOMEM;
	fails("netmap:eth0", 0, ENOMEM, "mmap failed: Cannot allocate memory netmap:eth0\n");
	fake_reset();
	fake.open_errno = EACCES;
	fails("netmap:eth0", 0, EACCES, "cannot open /dev/netmap: Permission denied netmap:eth0\n");
}

static void
opens(void)
{
	struct nmreq req;
	struct nm_desc *d;

	fake_reset();
	memset(&req, 0, sizeof(req));
	req.nr_flags = NR_ACCEPT_VNET_HDR;
	req.nr_arg1 = 3;
	req.nr_arg2 = 9;
	req.nr_arg3 = 17;
	req.nr_ringid = 0xf000;
	d = nm_open("netmap:eth0*/x", &req, NETMAP_NO_TX_POLL, NULL);
	CHECK(d != NULL && IS_NETMAP_DESC(d));
	CHECK_STR(fake.nmreq.nr_name, "eth0");
	CHECK(fake.nmreq.nr_version == NETMAP_API && fake.nmreq.nr_ringid == NETMAP_NO_TX_POLL);
	CHECK(fake.nmreq.nr_flags == (NR_ACCEPT_VNET_HDR | NR_EXCLUSIVE | NR_REG_NIC_SW));
	/* No parent: flags say nothing of these; the name says that there is no memory. */
	CHECK(fake.nmreq.nr_arg1 == 3 && fake.nmreq.nr_arg2 == 0 && fake.nmreq.nr_arg3 == 17);

	CHECK(d->done_mmap == 1 && d->memsize == fake_bytes() && d->nifp == NETMAP_IF(d->mem, NIFP_AT));
	CHECK(d->first_tx_ring == 0 && d->last_tx_ring == TX_RINGS && d->cur_tx_ring == 0);
	CHECK(d->first_rx_ring == 0 && d->last_rx_ring == RX_RINGS && d->cur_rx_ring == 0);
	CHECK(d->some_ring == NETMAP_RXRING(d->nifp, 0));
	CHECK(d->buf_start == NETMAP_BUF(d->some_ring, 0) && d->buf_end == (char *)d->mem + d->memsize);
	CHECK(d->snaplen == 0 && d->hdr.d == NULL);
	CHECK(nm_mmap(d, NULL) == 0 && fake.mmaps == 1);
	CHECK(nm_inject(d, "abc", 3) == 3 && NETMAP_TXRING(d->nifp, 0)->head == 1);
	CHECK(nm_close(d) == 0 && fake.munmaps == 1 && fake.closes == 1);
	CHECK(nm_close(NULL) == EINVAL);
	CHECK_STR(printed(), "");
}

static void
ranges(void)
{
	static const struct {
		const char *name;
		uint16_t first_tx, last_tx, first_rx, last_rx;
	} rows[] = {
		{ "netmap:e", 0, TX_RINGS - 1, 0, RX_RINGS - 1 },
		{ "netmap:e^", TX_RINGS, TX_RINGS, RX_RINGS, RX_RINGS },
		{ "netmap:e*", 0, TX_RINGS, 0, RX_RINGS },
		{ "netmap:e-1", 1, 1, 1, 1 },
		{ "netmap:e{1", 0, 0, 0, 0 },
		{ "netmap:e}1", 0, 0, 0, 0 },
		{ "netmap:e/T", 0, TX_RINGS - 1, 0, RX_RINGS - 1 },
	};
	size_t i;

	for (i = 0; i < ROWS(rows); i++) {
		struct nm_desc *d;

		fake_reset();
		if (strchr(rows[i].name, 'T') != NULL)
			fake.bound[1][0] = 99; /* no ring for reception: the first one for transmission is taken */
		d = nm_open(rows[i].name, NULL, 0, NULL);
		CHECK_ROW(rows[i].name, d != NULL);
		if (d == NULL)
			continue;
		CHECK_ROW(rows[i].name, d->first_tx_ring == rows[i].first_tx && d->last_tx_ring == rows[i].last_tx);
		CHECK_ROW(rows[i].name, d->first_rx_ring == rows[i].first_rx && d->last_rx_ring == rows[i].last_rx);
		CHECK_ROW(rows[i].name, d->cur_tx_ring == d->first_tx_ring && d->cur_rx_ring == d->first_rx_ring);
		if (strchr(rows[i].name, 'T') != NULL)
			CHECK(d->some_ring == NETMAP_TXRING(d->nifp, 0));
		if (strchr(rows[i].name, '^') != NULL) /* no such ring here */
			CHECK((void *)d->some_ring == (void *)d->nifp && d->buf_start == d->mem);
		nm_close(d);
	}
}

static void
parents(void)
{
	struct nm_desc *parent, *child;
	struct nmreq req;

	fake_reset();
	parent = nm_open("netmap:eth0-1/x", NULL, 0, NULL);
	if (parent == NULL) {
		CHECK(parent != NULL);
		return;
	}
	parent->req.nr_arg1 = 11;
	parent->req.nr_arg3 = 13;
	parent->req.nr_tx_slots = 64;
	parent->req.nr_rx_slots = 65;
	printed();

	/* Same memory: shared. Any flag replaces nr_arg1 and nr_arg3. */
	memset(&req, 0, sizeof(req));
	req.nr_arg1 = 7;
	req.nr_arg3 = 8;
	child = nm_open("netmap:eth1", &req, NM_OPEN_NO_MMAP, parent);
	CHECK(child != NULL && child->mem == parent->mem && child->done_mmap == 0 && fake.mmaps == 1);
	CHECK(fake.nmreq.nr_arg1 == 4 && fake.nmreq.nr_arg2 == 0 && fake.nmreq.nr_arg3 == 0);
	CHECK_STR(printed(), "do not mmap, inherit from parent\n");
	CHECK(nm_close(child) == 0 && fake.munmaps == 0);

	/* No flag at all: as the request has it. */
	child = nm_open("netmap:eth1", &req, 0, parent);
	CHECK(fake.nmreq.nr_arg1 == 7 && fake.nmreq.nr_arg3 == 8);
	nm_close(child);
	printed();

	/* Everything from the parent. Other memory: mapped. */
	fake.mem_id = 2;
	child = nm_open("netmap:whatever/q", NULL,
	    NM_OPEN_IFNAME | NM_OPEN_ARG1 | NM_OPEN_ARG2 | NM_OPEN_ARG3 | NM_OPEN_RING_CFG, parent);
	CHECK(child != NULL && child->mem != parent->mem && child->done_mmap == 1);
	CHECK_STR(fake.nmreq.nr_name, "eth0");
	CHECK(fake.nmreq.nr_ringid == 1 && fake.nmreq.nr_flags == (NR_EXCLUSIVE | NR_REG_ONE_NIC));
	CHECK(fake.nmreq.nr_arg1 == 11 && fake.nmreq.nr_arg2 == 1 && fake.nmreq.nr_arg3 == 13);
	CHECK(fake.nmreq.nr_tx_slots == 64 && fake.nmreq.nr_rx_slots == 65);
	CHECK(fake.nmreq.nr_tx_rings == TX_RINGS && fake.nmreq.nr_rx_rings == RX_RINGS);
	CHECK_STR(printed(), "overriding ARG1 11\noverriding ARG2 1\noverriding ARG3 13\noverriding RING_CFG\n"
	    "overriding ifname eth0 ringid 0x1 flags 0x804\n");
	nm_close(child);

	/* Without mapping at all. */
	child = nm_open("netmap:eth1", NULL, NM_OPEN_NO_MMAP, NULL);
	CHECK(child != NULL && child->mem == NULL && child->nifp == NULL);
	nm_close(child);
	nm_close(parent);
	CHECK(fake.munmaps == fake.mmaps && fake.closes == fake.opens);
}

int
main(int argc, char **argv)
{
	if (argc < 2 || freopen(argv[1], "w+", stderr) == NULL)
		return 2;
	failures();
	opens();
	ranges();
	parents();
	return check_result();
}

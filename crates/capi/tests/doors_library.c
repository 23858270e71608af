/* nm_open and nmport_open on ports that are served. */
#define _GNU_SOURCE
#define NETMAP_WITH_LIBS
#include "doors.h"
#include <libnetmap.h>

#define ROUNDS 1000

static unsigned seen;

static void
count(u_char *arg, const struct nm_pkthdr *h, const u_char *d)
{
	(void)arg;
	CHECK(h->len == 100 && d[20] == (u_char)seen);
	seen++;
}

static void
exchange_with_nm_open(const char *from, const char *to)
{
	struct nm_desc *a = nm_open(from, NULL, 0, NULL), *b = nm_open(to, NULL, 0, NULL);
	unsigned char frame[100];
	struct pollfd p;
	unsigned i;

	CHECK(a != NULL && b != NULL);
	if (a == NULL || b == NULL)
		return;
	memset(frame, 0xff, sizeof(frame));
	frame[6] = 2;
	seen = 0;
	p.fd = b->fd;
	p.events = POLLIN;
	for (i = 0; i < ROUNDS; i++) {
		frame[20] = (unsigned char)i;
		CHECK(nm_inject(a, frame, sizeof(frame)) == sizeof(frame));
		if (i % 100 != 99)
			continue;
		CHECK(ioctl(a->fd, NIOCTXSYNC, NULL) == 0);
		while (seen <= i && poll(&p, 1, 5000) == 1)
			nm_dispatch(b, -1, count, NULL);
	}
	CHECK(seen == ROUNDS);
	CHECK(nm_close(a) == 0 && nm_close(b) == 0);
}

static void
exchange_with_nmport(const char *from, const char *to)
{
	struct nmport_d *a = nmport_open(from), *b = nmport_open(to);
	unsigned i;

	CHECK(a != NULL && b != NULL);
	if (a == NULL || b == NULL)
		return;
	for (i = 0; i < ROUNDS; i++) {
		struct netmap_ring *tx = NETMAP_TXRING(a->nifp, a->first_tx_ring);
		struct netmap_ring *rx = NETMAP_RXRING(b->nifp, b->first_rx_ring);

		memset(NETMAP_BUF(tx, tx->slot[tx->head].buf_idx), 0xff, 60);
		NETMAP_BUF(tx, tx->slot[tx->head].buf_idx)[20] = (char)i;
		tx->slot[tx->head].len = 60;
		tx->head = tx->cur = nm_ring_next(tx, tx->head);
		CHECK(poll1(a->fd, POLLOUT, 5000) == POLLOUT);
		CHECK(poll1(b->fd, POLLIN, 5000) == POLLIN && nm_ring_space(rx) == 1);
		CHECK(NETMAP_BUF(rx, rx->slot[rx->head].buf_idx)[20] == (char)i);
		rx->head = rx->cur = nm_ring_next(rx, rx->head);
	}
	nmport_close(a);
	nmport_close(b);
}

static void
nm_open_on_ports(void)
{
	exchange_with_nm_open("vale1:a", "vale1:b");
	exchange_with_nm_open("vale1:p{1", "vale1:p}1");
	CHECK(nm_open("netmap:nowhere", NULL, 0, NULL) == NULL && errno == ENXIO);
}

static void
nmport_on_ports(void)
{
	exchange_with_nmport("vale1:a", "vale1:b");
	exchange_with_nmport("vale1:p{1", "vale1:p}1");
	exchange_with_nmport("vale1:p{x@conf:slots=64", "vale1:p}x");
	CHECK(nmport_open("netmap:nowhere") == NULL && errno == ENXIO);
	CHECK(nmport_open("vale1:a@offset:64") == NULL && errno == EOPNOTSUPP);
}

static void
nmport_shares_memory(void)
{
	struct nmport_d *a = nmport_open("vale1:a"), *b = nmport_open("vale1:b@share=vale1:a");

	CHECK(a != NULL && b != NULL && a->mem == b->mem && a->reg.nr_mem_id == b->reg.nr_mem_id);
	nmport_close(a);
	nmport_close(b);
}

/* Two ports in one file. */
static void
nmport_in_a_file(void)
{
	char path[] = "/tmp/ringway-nmport-XXXXXX", name[100];
	int fd = mkstemp(path);
	struct nmport_d *a, *b;

	CHECK(ftruncate(fd, 20 << 20) == 0 && close(fd) == 0);
	snprintf(name, sizeof(name), "vale1:a@extmem:file=%s,if-num=4,ring-num=8", path);
	a = nmport_open(name);
	snprintf(name, sizeof(name), "vale1:b@extmem=%s", path);
	b = nmport_open(name);
	CHECK(a != NULL && b != NULL);
	if (a == NULL || b == NULL)
		return;
	CHECK(a->reg.nr_mem_id == b->reg.nr_mem_id && a->mem->is_extmem);
	CHECK(nmport_extmem_getinfo(a)->nr_if_pool_objtotal == 4 && nmport_extmem_getinfo(a)->nr_if_pool_objsize == 1024);
	snprintf(name, sizeof(name), "vale1:c@extmem=%s", path);
	exchange_with_nmport("vale1:x", name);
	CHECK(nmport_open("vale1:d@extmem=/tmp/ringway-nowhere") == NULL && errno == ENOENT);
	nmport_close(a);
	nmport_close(b);
	CHECK(unlink(path) == 0);
}

static const struct test tests[] = {
	{"nm_open_on_ports", nm_open_on_ports},
	{"nmport_on_ports", nmport_on_ports},
	{"nmport_shares_memory", nmport_shares_memory},
	{"nmport_in_a_file", nmport_in_a_file},
};

RUN_TESTS(tests)

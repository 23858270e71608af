/* Macros and static functions of the headers on rings in plain memory. */
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

#include "check.h"
#include "region.h"

/* A descriptor for such a region. */
static struct nm_desc *
describe(struct netmap_if *nifp, unsigned tx, unsigned rx)
{
	struct nm_desc *d = (struct nm_desc *)calloc(1, sizeof(*d));

	d->self = d;
	d->last_tx_ring = (uint16_t)(tx - 1);
	d->last_rx_ring = (uint16_t)(rx - 1);
	SET(d->nifp, struct netmap_if *, nifp);
	return d;
}

static void
macros(char *base)
{
	struct netmap_if *nifp = region_fill(base, 2, 2, 64);
	struct netmap_ring *ring = NETMAP_TXRING(nifp, 1);
	struct netmap_slot *slot = &ring->slot[3];
	const struct nm_desc *d;
	struct nm_desc *desc = describe(nifp, 2, 2);

	CHECK(NETMAP_IF(base, 64) == nifp);
	CHECK((char *)NETMAP_TXRING(nifp, 0) == base + RINGS_AT);
	CHECK((char *)NETMAP_RXRING(nifp, 0) == base + RINGS_AT + 2 * RING_SIZE);
	/* Host rings are not bound. */
	CHECK((void *)NETMAP_TXRING(nifp, 2) == (void *)nifp && (void *)NETMAP_RXRING(nifp, 2) == (void *)nifp);
	CHECK(NETMAP_BUF(ring, 0) == base + RINGS_AT + 4 * RING_SIZE);
	CHECK(NETMAP_BUF(ring, 5) == NETMAP_BUF(ring, 0) + 5 * BUF_SIZE);
	CHECK(NETMAP_BUF_IDX(ring, NETMAP_BUF(ring, 5)) == 5 && NETMAP_BUF_IDX(ring, NETMAP_BUF(ring, 5) + 127) == 5);

	SET(ring->offset_mask, uint64_t, 0xff);
	slot->ptr = 0x1234;
	CHECK(NETMAP_ROFFSET(ring, slot) == 0x34);
	NETMAP_WOFFSET(ring, slot, 0x1ab);
	CHECK(slot->ptr == 0x12ab && NETMAP_BUF_OFFSET(ring, slot) == NETMAP_BUF(ring, slot->buf_idx) + 0xab);
	slot->flags = 5 << NS_PORT_SHIFT | NS_MOREFRAG;
	CHECK(NS_RFRAGS(slot) == 5);

	d = desc;
	desc->fd = 7;
	CHECK(IS_NETMAP_DESC(d) && NETMAP_FD(d) == 7 && P2NMD((const void *)d) == d);
	desc->self = NULL;
	CHECK(!IS_NETMAP_DESC(d));
	d = NULL;
	CHECK(!IS_NETMAP_DESC(d));
	CHECK(likely(2) == 1 && unlikely(0) == 0);
	free(desc);
}

static void
ring_functions(char *base)
{
	struct netmap_if *nifp = region_fill(base, 1, 1, 0);
	struct netmap_ring *ring = NETMAP_TXRING(nifp, 0);
	uint32_t head, tail;

	for (head = 0; head < SLOTS; head++) {
		CHECK(nm_ring_next(ring, head) == (head + 1) % SLOTS);
		for (tail = 0; tail < SLOTS; tail++) {
			ring->head = head;
			ring->tail = tail;
			CHECK(nm_ring_space(ring) == (tail + SLOTS - head) % SLOTS);
			CHECK(nm_ring_empty(ring) == (head == tail));
			CHECK(nm_tx_pending(ring) == ((tail + 1) % SLOTS != head));
		}
	}
}

static void
pkt_copy(void)
{
	static unsigned char from[2200], to[2200];
	int len, i;

	for (i = 0; i < (int)sizeof(from); i++)
		from[i] = (unsigned char)(i * 7 + i / 256);
	for (len = 0; len <= 2048; len++) {
		memset(to, 0xee, sizeof(to));
		nm_pkt_copy(from + 1, to + 3, len);
		CHECK(memcmp(from + 1, to + 3, (size_t)len) == 0);
		CHECK(to[2] == 0xee && to[3 + len] == 0xee);
	}
}

static void
inject(char *base)
{
	struct netmap_if *nifp = region_fill(base, 2, 1, 0);
	struct netmap_ring *a = NETMAP_TXRING(nifp, 0), *b = NETMAP_TXRING(nifp, 1);
	static char packet[BUF_SIZE * SLOTS];
	struct nm_desc *d;
	size_t i;

	for (i = 0; i < sizeof(packet); i++)
		packet[i] = (char)(i * 31 + i / 256);
	d = describe(nifp, 2, 1);

	/* One slot; what the slot said before is gone. */
	a->slot[0].flags = NS_REPORT;
	CHECK(nm_inject(d, packet, 100) == 100);
	CHECK(a->head == 1 && a->cur == 1 && a->slot[0].len == 100 && a->slot[0].flags == 0);
	CHECK(memcmp(NETMAP_BUF(a, a->slot[0].buf_idx), packet, 100) == 0);
	/* Exactly full, then one more. */
	CHECK(nm_inject(d, packet, BUF_SIZE) == BUF_SIZE && a->cur == 2 && a->slot[1].flags == 0);
	CHECK(nm_inject(d, packet, BUF_SIZE + 1) == BUF_SIZE + 1 && a->cur == 4);
	CHECK(a->slot[2].len == BUF_SIZE && a->slot[2].flags == NS_MOREFRAG);
	CHECK(a->slot[3].len == 1 && a->slot[3].flags == 0);
	CHECK(*NETMAP_BUF(a, a->slot[3].buf_idx) == packet[BUF_SIZE]);
	/* Three slots are left in the first ring: four go to the second, which is then the current one. */
	CHECK(nm_inject(d, packet, 4 * BUF_SIZE) == 4 * BUF_SIZE);
	CHECK(a->cur == 4 && b->cur == 4 && d->cur_tx_ring == 1);
	CHECK(nm_inject(d, packet, 3 * BUF_SIZE) == 3 * BUF_SIZE && b->cur == 7);
	/* And back again, over the end of the ring. */
	a->tail = 2;
	CHECK(nm_inject(d, packet, 6 * BUF_SIZE) == 6 * BUF_SIZE && a->cur == 2 && d->cur_tx_ring == 0);
	CHECK(a->slot[7].flags == NS_MOREFRAG && a->slot[0].flags == NS_MOREFRAG && a->slot[1].flags == 0);
	CHECK(nm_inject(d, packet, 1) == 0 && a->cur == 2 && b->cur == 7);
	free(d);
}

/* What the callback saw. */
static struct seen {
	struct nm_pkthdr hdr;
	const unsigned char *buf;
} seen[SLOTS * 2];
static int n_seen;

static void
see(unsigned char *arg, const struct nm_pkthdr *hdr, const unsigned char *buf)
{
	CHECK(arg == (unsigned char *)&n_seen && hdr->buf == buf);
	seen[n_seen].hdr = *hdr;
	seen[n_seen++].buf = buf;
}

static void
dispatch(char *base)
{
	struct netmap_if *nifp = region_fill(base, 1, 2, 0);
	struct netmap_ring *a = NETMAP_RXRING(nifp, 0), *b = NETMAP_RXRING(nifp, 1);
	unsigned char *arg = (unsigned char *)&n_seen;
	struct nm_desc *d;
	uint32_t i;

	d = describe(nifp, 1, 2);
	CHECK(nm_dispatch(d, 0, see, arg) == 0 && n_seen == 0);

	/* Buffers of a ring follow each other: 0-2 are one piece, 3-4 not (the first is not full), 5 is alone. */
	a->ts.tv_sec = 42;
	for (i = 0; i < 6; i++)
		a->slot[i].len = BUF_SIZE;
	a->slot[0].flags = a->slot[1].flags = a->slot[3].flags = NS_MOREFRAG;
	a->slot[2].len = 5;
	a->slot[3].len = BUF_SIZE - 1;
	a->tail = 6;
	/* Not in one piece: the second part lies elsewhere; the third is behind the second, but too late. */
	b->slot[0].flags = b->slot[1].flags = NS_MOREFRAG;
	b->slot[0].len = b->slot[1].len = b->slot[2].len = BUF_SIZE;
	b->slot[1].buf_idx = a->slot[6].buf_idx;
	b->slot[2].buf_idx = a->slot[7].buf_idx;
	b->tail = 3;

	CHECK(nm_dispatch(d, -1, see, arg) == 4 && n_seen == 4);
	CHECK(a->head == 6 && a->cur == 6 && b->head == 3 && b->cur == 3 && d->cur_rx_ring == 1);
	CHECK(seen[0].hdr.len == 2 * BUF_SIZE + 5 && seen[0].hdr.caplen == seen[0].hdr.len);
	CHECK(seen[0].hdr.slot == &a->slot[0] && seen[0].hdr.ts.tv_sec == 42 && seen[0].hdr.d == d);
	CHECK((const char *)seen[0].buf == NETMAP_BUF(a, a->slot[0].buf_idx));
	CHECK(seen[1].hdr.len == 2 * BUF_SIZE - 1 && seen[1].hdr.caplen == BUF_SIZE - 1);
	CHECK(seen[2].hdr.len == BUF_SIZE && seen[2].hdr.caplen == BUF_SIZE && seen[2].hdr.slot == &a->slot[5]);
	CHECK(seen[3].hdr.len == 3 * BUF_SIZE && seen[3].hdr.caplen == BUF_SIZE && seen[3].hdr.slot == &b->slot[0]);
	for (i = 0; i < 4; i++)
		CHECK(seen[i].hdr.flags == (i < 3 ? NM_MORE_PKTS : 0));

	/* No more than asked for, beginning with the ring where it stopped. */
	n_seen = 0;
	a->tail = 0;
	b->tail = 5;
	for (i = 3; i < 8; i++)
		a->slot[i].flags = b->slot[i].flags = 0;
	CHECK(nm_dispatch(d, 3, see, arg) == 3 && n_seen == 3);
	CHECK(seen[0].hdr.slot == &b->slot[3] && seen[2].hdr.slot == &a->slot[6] && seen[2].hdr.flags == 0);
	CHECK(a->cur == 7 && d->cur_rx_ring == 0);
	/* A packet whose end has not come ends with the ring. */
	a->slot[7].flags = NS_MOREFRAG;
	CHECK(nm_dispatch(d, 1, see, arg) == 1 && a->cur == 0 && a->head == 0);
	free(d);
}

static void
nextpkt(char *base)
{
	struct netmap_if *nifp = region_fill(base, 1, 2, 0);
	struct netmap_ring *a = NETMAP_RXRING(nifp, 0), *b = NETMAP_RXRING(nifp, 1);
	struct nm_pkthdr hdr;
	struct nm_desc *d;

	d = describe(nifp, 1, 2);
	memset((void *)&hdr, 0, sizeof(hdr));
	hdr.flags = 77;
	CHECK(nm_nextpkt(d, &hdr) == NULL);
	b->ts.tv_usec = 9;
	b->slot[0].len = 60;
	b->slot[0].flags = NS_MOREFRAG;
	b->slot[1].len = 61;
	b->tail = 2;
	CHECK((char *)nm_nextpkt(d, &hdr) == NETMAP_BUF(b, b->slot[0].buf_idx));
	CHECK(hdr.len == 60 && hdr.caplen == 60 && hdr.ts.tv_usec == 9 && hdr.flags == 77 && hdr.buf == NULL);
	CHECK(b->head == 1 && b->cur == 1 && d->cur_rx_ring == 1);
	a->tail = 1;
	CHECK((char *)nm_nextpkt(d, &hdr) == NETMAP_BUF(b, b->slot[1].buf_idx) && hdr.len == 61);
	CHECK((char *)nm_nextpkt(d, &hdr) == NETMAP_BUF(a, a->slot[0].buf_idx) && d->cur_rx_ring == 0);
	CHECK(nm_nextpkt(d, &hdr) == NULL);
	free(d);
}

/* Rings that are not bound are passed over. What lies there instead must not be taken for a ring. */
static void
unbound(char *base)
{
	struct netmap_if *nifp = region_fill(base, 1, 2, 64);
	struct nm_desc *d = describe(nifp, 2, 2);
	struct nm_pkthdr hdr;
	char before[RINGS_AT];

	nifp->ring_ofs[0] = 0;
	CHECK(nm_inject(d, "abc", 3) == 0 && d->cur_tx_ring == 0);
	nifp->ring_ofs[2] = 0;
	NETMAP_RXRING(nifp, 1)->tail = 2;
	memcpy(before, base, RINGS_AT);
	CHECK((char *)nm_nextpkt(d, &hdr) == NETMAP_BUF(NETMAP_RXRING(nifp, 1), 2 + 2 * SLOTS) && d->cur_rx_ring == 1);
	d->cur_rx_ring = 0;
	n_seen = 0;
	CHECK(nm_dispatch(d, 0, see, (unsigned char *)&n_seen) == 1 && d->cur_rx_ring == 1);
	CHECK(memcmp(before, base, RINGS_AT) == 0);
	free(d);
}

static void
csb(void)
{
	struct nm_csb_atok atok;
	struct nm_csb_ktoa ktoa;
	uint32_t hwtail = 0, hwcur = 0;

	memset(&atok, 0, sizeof(atok));
	memset(&ktoa, 0, sizeof(ktoa));
	nm_sync_kloop_appl_write(&atok, 3, 4);
	CHECK(atok.cur == 3 && atok.head == 4);
	ktoa.hwcur = 5;
	ktoa.hwtail = 6;
	nm_sync_kloop_appl_read(&ktoa, &hwtail, &hwcur);
	CHECK(hwtail == 6 && hwcur == 5);
	nm_stst_barrier();
	nm_ldld_barrier();
}

int
main(void)
{
	char *base = region_alloc(region_bytes(8));

	macros(base);
	ring_functions(base);
	pkt_copy();
	inject(base);
	dispatch(base);
	nextpkt(base);
	unbound(base);
	csb();
	free(base);
	return check_result();
}

/* What the contract's test lines say (semantics.md, sections 1-12, 15, 16, 21, 23), through the doors. */
#include "doors.h"

static struct port
open_rings(const char *name, uint16_t rings, uint32_t slots)
{
	struct port p;

	memset(&p, 0, sizeof(p));
	p.reg.nr_tx_rings = p.reg.nr_rx_rings = rings;
	p.reg.nr_tx_slots = p.reg.nr_rx_slots = slots;
	CHECK(bind_port(&p, name) == 0);
	return p;
}

/* 1 */
static void
s1_one_binding_per_descriptor(void)
{
	struct port a = open_with("vale1:a", 0, 64), again;
	struct nmreq_register reg = a.reg;

	CHECK(request(a.fd, NETMAP_REQ_REGISTER, "vale1:b", &reg, NULL) < 0 && errno == EBUSY);
	CHECK(try_bind("netmap-nowhere", NR_REG_ALL_NIC, 0) == ENXIO);
	again = open_with("vale1:a", 0, 512);
	CHECK(a.reg.nr_tx_slots == 64 && again.reg.nr_tx_slots == 64);
	close_port(&again);
	close_port(&a);
}

static void
s1_a_failed_bind_can_be_tried_again(void)
{
	struct port p;

	memset(&p, 0, sizeof(p));
	p.fd = open("/dev/netmap", O_RDWR);
	p.reg.nr_mode = NR_REG_SW;
	CHECK(request(p.fd, NETMAP_REQ_REGISTER, "vale1:a", &p.reg, NULL) < 0 && errno == EINVAL);
	p.reg.nr_mode = NR_REG_ALL_NIC;
	CHECK(request(p.fd, NETMAP_REQ_REGISTER, "vale1:a", &p.reg, NULL) == 0);
	CHECK(close(p.fd) == 0);
}

/* 2 */
static void
s2_slots_of_a_ring(void)
{
	struct port a = open_with("vale1:p{1", 0, 32), b = open_port("vale1:p}1");
	uint32_t tail = TX(&a, 0)->tail;

	CHECK(nm_ring_space(TX(&a, 0)) == 31);
	CHECK(put(&a, 0, 100) == 31);
	CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0 && nm_ring_space(RX(&b, 0)) == 0); /* not synced yet */
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0 && nm_ring_space(RX(&b, 0)) == 31);
	CHECK(TX(&a, 0)->tail == tail);
	CHECK(take(&b, 0) == 31 && ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && TX(&a, 0)->tail != tail && nm_ring_space(TX(&a, 0)) == 31);
	close_port(&a);
	close_port(&b);
}

/* 3 */
static void
s3_bad_rings(void)
{
	struct port a = open_with("vale1:a", 0, 32);
	struct netmap_ring *tx = TX(&a, 0);
	uint32_t hwcur = tx->head, tail;

	tx->head = 32;
	CHECK(poll1(a.fd, POLLOUT, 0) & POLLERR);
	CHECK(tx->head == hwcur && tx->cur == hwcur);
	tx->slot[3].buf_idx = 0xffffffff;
	tx->head = 32;
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(tx->head == hwcur && tx->slot[3].buf_idx == 0);
	tail = tx->tail;
	tx->tail = (tail + 7) % 32;
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && tx->tail == tail);
	close_port(&a);
	/* In range, but backwards: left alone. Nobody takes what is in the pipe, so slot 1 is not ours. */
	a = open_with("vale1:p{1", 0, 32);
	tx = TX(&a, 0);
	CHECK(put(&a, 0, 4) == 4 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	tail = tx->tail;
	tx->head = tx->cur = 1;
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(tx->head == 1 && tx->cur == 1 && tx->tail == tail);
	close_port(&a);
}

/* 5 */
static void
s5_poll_pushes(void)
{
	struct port a = open_port("vale1:p{1"), b = open_port("vale1:p}1"), c, d;

	CHECK(put(&a, 0, 1) == 1 && poll1(a.fd, POLLIN, 0) == 0);
	CHECK(poll1(b.fd, POLLIN, 0) == POLLIN && take(&b, 0) == 1);
	close_port(&a);
	close_port(&b);
	c = open_with("vale1:q{1", NR_NO_TX_POLL, 0);
	d = open_port("vale1:q}1");
	CHECK(put(&c, 0, 1) == 1 && poll1(c.fd, POLLIN, 0) == 0);
	CHECK(poll1(d.fd, POLLIN, 0) == 0);
	CHECK(poll1(c.fd, POLLOUT, 0) == POLLOUT);
	CHECK(poll1(d.fd, POLLIN | POLLRDNORM, 0) == (POLLIN | POLLRDNORM) && take(&d, 0) == 1);
	close_port(&c);
	close_port(&d);
}

static void
s5_a_full_pipe_blocks(void)
{
	struct port a = open_with("vale1:p{1", 0, 32), b = open_port("vale1:p}1");
	int status;
	pid_t pid;

	CHECK(put(&a, 0, 100) == 31 && poll1(a.fd, POLLOUT, 20) == 0);
	pid = fork();
	if (pid == 0) {
		/* It sleeps by now, or will look first: either way it must be woken. */
		usleep(30000);
		CHECK(poll1(b.fd, POLLIN, 0) == POLLIN && take(&b, 0) == 31);
		CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
		_exit(check_result());
	}
	CHECK(poll1(a.fd, POLLOUT, 10000) == POLLOUT);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	close_port(&a);
	close_port(&b);
}

static void
s5_cur_ahead_of_head(void)
{
	struct port a = open_port("vale1:p{1"), b = open_port("vale1:p}1");

	CHECK(put(&a, 0, 2) == 2 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll1(b.fd, POLLIN, 1000) == POLLIN);
	RX(&b, 0)->cur = RX(&b, 0)->tail;
	CHECK(poll1(b.fd, POLLIN, 20) == 0);
	CHECK(put(&a, 2, 1) == 1 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, 0) == 3);
	close_port(&a);
	close_port(&b);
}

static void
s5_any_ring_is_enough(void)
{
	struct port a = open_rings("vale1:p{1", 2, 64), b = open_rings("vale1:p}1", 2, 64);
	struct netmap_ring *tx = TX(&a, 1);

	CHECK(poll1(b.fd, POLLIN, 0) == 0);
	tx->slot[tx->head].len = 60;
	tx->head = tx->cur = nm_ring_next(tx, tx->head);
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN);
	CHECK(nm_ring_empty(RX(&b, 0)) && nm_ring_space(RX(&b, 1)) == 1);
	close_port(&a);
	close_port(&b);
}

/* 7 */
static void
s7_timestamps(void)
{
	struct port a = open_port("vale1:a");
	struct timeval first;

	CHECK(poll1(a.fd, POLLIN, 0) == 0);
	first = RX(&a, 0)->ts;
	CHECK(first.tv_sec > 0);
	usleep(10000);
	CHECK(poll1(a.fd, POLLIN, 0) == 0);
	CHECK(timercmp(&first, &RX(&a, 0)->ts, <));
	CHECK(TX(&a, 0)->ts.tv_sec == 0);
	close_port(&a);
}

/* 8 */
static void
s8_modes(void)
{
	struct port all = open_rings("vale1:a", 2, 64), one;

	CHECK(all.reg.nr_tx_rings == 2 && all.nifp->ni_tx_rings == 2 && all.nifp->ni_host_tx_rings == 1);
	CHECK(all.nifp->ring_ofs[2] == 0); /* no host ring */
	memset(&one, 0, sizeof(one));
	one.reg.nr_mode = NR_REG_ONE_NIC;
	one.reg.nr_ringid = 1;
	CHECK(bind_port(&one, "vale1:a") == 0);
	CHECK(one.nifp->ring_ofs[0] == 0 && one.nifp->ring_ofs[1] != 0);
	close_port(&one);
	one.reg.nr_ringid = 2;
	CHECK(bind_port(&one, "vale1:a") < 0 && errno == EINVAL);
	CHECK(try_bind("vale1:a", NR_REG_NIC_SW, 0) == EINVAL);
	CHECK(try_bind("vale1:a", 99, 0) == EINVAL);
	memset(&one, 0, sizeof(one));
	one.reg.nr_flags = NR_TX_RINGS_ONLY;
	CHECK(bind_port(&one, "vale1:a") == 0 && one.nifp->ring_ofs[0] != 0 && one.nifp->ring_ofs[3] == 0);
	CHECK(poll1(one.fd, POLLIN, 0) == 0);
	close_port(&one);
	close_port(&all);
}

/* 9 */
static void
s9_exclusive(void)
{
	struct port a = open_rings("vale1:a", 2, 64), b;

	CHECK(try_bind("vale1:a", NR_REG_ALL_NIC, NR_EXCLUSIVE) == EBUSY);
	CHECK(try_bind("vale1:a", NR_REG_ALL_NIC, 0) == 0);
	close_port(&a);
	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	a.reg.nr_mode = b.reg.nr_mode = NR_REG_ONE_NIC;
	a.reg.nr_tx_rings = a.reg.nr_rx_rings = 2;
	a.reg.nr_flags = b.reg.nr_flags = NR_EXCLUSIVE;
	b.reg.nr_ringid = 1;
	CHECK(bind_port(&a, "vale1:a") == 0 && bind_port(&b, "vale1:a") == 0);
	CHECK(try_bind("vale1:a", NR_REG_ALL_NIC, 0) == EBUSY);
	close_port(&a);
	close_port(&b);
}

/* 11 */
static void
s11_regions(void)
{
	struct port a = open_port("vale1:a"), b, c = open_port("vale1:c");
	struct netmap_slot *slot;
	uint32_t swap;

	memset(&b, 0, sizeof(b));
	b.reg.nr_mem_id = a.reg.nr_mem_id;
	CHECK(bind_port(&b, "vale1:b") == 0);
	CHECK(a.reg.nr_mem_id == b.reg.nr_mem_id && a.reg.nr_memsize == b.reg.nr_memsize);
	CHECK(c.reg.nr_mem_id != a.reg.nr_mem_id);
	/* One map is enough for both, and buffers may change places. */
	slot = &NETMAP_RXRING(NETMAP_IF(a.mem, b.reg.nr_offset), 0)->slot[0];
	memcpy(NETMAP_BUF(RX(&b, 0), slot->buf_idx), "payload", 8);
	swap = slot->buf_idx;
	slot->buf_idx = TX(&a, 0)->slot[0].buf_idx;
	TX(&a, 0)->slot[0].buf_idx = swap;
	CHECK_STR(NETMAP_BUF(TX(&a, 0), swap), "payload");
	close_port(&a);
	close_port(&b);
	close_port(&c);
}

/* 12 */
static void
s12_extra_buffers(void)
{
	int round;

	for (round = 0; round < 2; round++) {
		struct port a;
		uint32_t idx, count = 0, seen[16], i;

		memset(&a, 0, sizeof(a));
		a.reg.nr_extra_bufs = 16;
		CHECK(bind_port(&a, "vale1:a") == 0 && a.reg.nr_extra_bufs == 16);
		for (idx = a.nifp->ni_bufs_head; idx != 0 && count < 16; count++) {
			for (i = 0; i < count; i++)
				CHECK(seen[i] != idx);
			for (i = 0; i < RX(&a, 0)->num_slots; i++)
				CHECK(RX(&a, 0)->slot[i].buf_idx != idx && TX(&a, 0)->slot[i].buf_idx != idx);
			seen[count] = idx;
			memcpy(&idx, NETMAP_BUF(RX(&a, 0), idx), 4);
		}
		CHECK(count == 16 && idx == 0);
		close_port(&a);
	}
}

/* 15 */
static void
s15_limits_of_a_switch(void)
{
	struct port a = open_rings("vale1:a", 20, 5000), b[8];
	struct nmreq_vale_list list;
	int fd = open("/dev/netmap", O_RDWR), i;

	CHECK(a.reg.nr_tx_rings == 16 && a.reg.nr_rx_rings == 16);
	CHECK(a.reg.nr_tx_slots == 4096 && a.reg.nr_rx_slots == 4096);
	memset(&list, 0, sizeof(list));
	CHECK(listed("vale1:a"));
	close_port(&a);
	CHECK(request(fd, NETMAP_REQ_VALE_LIST, "vale1:a", &list, NULL) < 0 && errno == ENOENT);
	CHECK(close(fd) == 0);
	for (i = 0; i < 8; i++) {
		char name[32];

		snprintf(name, sizeof(name), "vale%d:x", i);
		b[i] = open_port(name);
	}
	CHECK(try_bind("vale8:x", NR_REG_ALL_NIC, 0) == ENOMEM);
	for (i = 0; i < 8; i++)
		close_port(&b[i]);
}

/* Sends one frame of `len` bytes from `from` to the MAC that ends with `to`; its own MAC ends with `me`. */
static void
frame(struct port *from, int to, int me, uint16_t len)
{
	struct netmap_ring *ring = TX(from, 0);
	struct netmap_slot *slot = &ring->slot[ring->head];
	unsigned char *buf = (unsigned char *)NETMAP_BUF(ring, slot->buf_idx);

	memset(buf, to == 0xff ? 0xff : 0, 6);
	memset(buf + 6, 0, 6);
	buf[0] = to == 0xff ? 0xff : 2;
	buf[5] = (unsigned char)to;
	buf[6] = 2;
	buf[11] = (unsigned char)me;
	slot->len = len;
	slot->flags = 0;
	ring->head = ring->cur = nm_ring_next(ring, ring->head);
	CHECK(ioctl(from->fd, NIOCTXSYNC, NULL) == 0);
	CHECK(ring->tail == (ring->head + ring->num_slots - 1) % ring->num_slots);
}

/* Packets that have come, which are released. */
static uint32_t
came(struct port *p)
{
	uint32_t n;

	CHECK(ioctl(p->fd, NIOCRXSYNC, NULL) == 0);
	n = nm_ring_space(RX(p, 0));
	RX(p, 0)->head = RX(p, 0)->cur = RX(p, 0)->tail;
	return n;
}

/* 16 */
static void
s16_learning(void)
{
	struct port a = open_port("vale1:a"), b = open_port("vale1:b"), c = open_port("vale1:c");

	frame(&a, 2, 1, 60); /* nobody knows 2 */
	CHECK(came(&a) == 0 && came(&b) == 1 && came(&c) == 1);
	frame(&b, 1, 2, 60); /* 1 is known */
	CHECK(came(&a) == 1 && came(&b) == 0 && came(&c) == 0);
	frame(&a, 2, 1, 60);
	CHECK(came(&a) == 0 && came(&b) == 1 && came(&c) == 0);
	frame(&a, 0xff, 1, 60);
	CHECK(came(&a) == 0 && came(&b) == 1 && came(&c) == 1);
	frame(&a, 0xff, 1, 13);
	CHECK(came(&b) == 0 && came(&c) == 0);
	close_port(&a);
	close_port(&b);
	close_port(&c);
}

static void
s16_packets_of_several_slots(void)
{
	struct port a = open_port("vale1:a"), b = open_port("vale1:b");
	struct netmap_ring *tx = TX(&a, 0), *rx = RX(&b, 0);
	int i;

	for (i = 0; i < 3; i++) {
		struct netmap_slot *slot = &tx->slot[tx->head];

		memset(NETMAP_BUF(tx, slot->buf_idx), 0xff, 6);
		slot->len = 1500;
		slot->flags = i < 2 ? NS_MOREFRAG : 0;
		tx->head = tx->cur = nm_ring_next(tx, tx->head);
	}
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(nm_ring_space(rx) == 3);
	for (i = 0; i < 3; i++) {
		struct netmap_slot *slot = &rx->slot[(rx->head + i) % rx->num_slots];

		CHECK(slot->len == 1500 && slot->flags >> 8 == 3);
		CHECK(!(slot->flags & NS_MOREFRAG) == (i == 2));
	}
	close_port(&a);
	close_port(&b);
}

static void
s16_a_full_receiver_keeps_the_oldest(void)
{
	struct port a = open_with("vale1:a", 0, 64), b = open_with("vale1:b", 0, 16);
	uint32_t n;

	CHECK(put(&a, 0, 40) == 40 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(nm_ring_space(TX(&a, 0)) == 63);
	n = b.reg.nr_rx_slots - 1;
	CHECK(n < 40 && ioctl(b.fd, NIOCRXSYNC, NULL) == 0 && take(&b, 0) == n);
	close_port(&a);
	close_port(&b);
}

/* 21 */
static void
s21_pipes(void)
{
	struct port a = open_with("vale1:p{1", 0, 32), b = open_port("vale1:p}1");
	uint32_t idx = TX(&a, 0)->slot[0].buf_idx;

	CHECK(put(&a, 0, 100) == 31 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && nm_ring_empty(TX(&a, 0)));
	CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0 && RX(&b, 0)->slot[0].buf_idx == idx);
	RX(&b, 0)->head = RX(&b, 0)->cur = 5;
	CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(nm_ring_space(TX(&a, 0)) == 5);
	/* The reader goes, and comes back. */
	close_port(&b);
	b = open_port("vale1:p}1");
	CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0 && nm_ring_space(RX(&b, 0)) == 26 && take(&b, 5) == 26);
	/* A second master shares the rings. */
	CHECK(try_bind("vale1:p{1", NR_REG_ALL_NIC, 0) == 0);
	CHECK(try_bind("vale1:p{1", NR_REG_ALL_NIC, NR_EXCLUSIVE) == EBUSY);
	close_port(&a);
	close_port(&b);
}

static void
s21_a_partial_packet_is_not_seen(void)
{
	struct port a = open_port("vale1:p{1"), b = open_port("vale1:p}1");
	struct netmap_ring *tx = TX(&a, 0);

	CHECK(put(&a, 0, 2) == 2);
	tx->slot[1].flags = NS_MOREFRAG;
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(nm_ring_space(RX(&b, 0)) == 1);
	CHECK(put(&a, 2, 1) == 1 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(nm_ring_space(RX(&b, 0)) == 3);
	close_port(&a);
	close_port(&b);
}

static void
s21_pipes_of_one_parent(void)
{
	struct port parent = open_rings("vale1:p", 16, 64);
	int fd[65], i, made = 0;

	for (i = 0; i < 65; i++) {
		struct nmreq_register reg;
		char name[32];

		memset(&reg, 0, sizeof(reg));
		reg.nr_mode = NR_REG_ALL_NIC;
		/* The parent's region has not many rings. */
		reg.nr_flags = NR_TX_RINGS_ONLY | NR_RX_RINGS_ONLY;
		reg.nr_tx_slots = reg.nr_rx_slots = 16;
		snprintf(name, sizeof(name), "vale1:p{%d", i);
		fd[i] = open("/dev/netmap", O_RDWR);
		if (request(fd[i], NETMAP_REQ_REGISTER, name, &reg, NULL) == 0)
			made++;
		else
			CHECK_ROW(strerror(errno), i == 64 && errno == EINVAL);
	}
	CHECK(made == 64);
	close_port(&parent);
	for (i = 0; i < 65; i++)
		CHECK(close(fd[i]) == 0);
}

/* 23 */
static void
s23_null_ports(void)
{
	struct port a, b = open_port("vale1:a");

	CHECK(try_bind("null", NR_REG_NULL, 0) == EINVAL); /* no region */
	memset(&a, 0, sizeof(a));
	a.reg.nr_mode = NR_REG_NULL;
	a.reg.nr_mem_id = b.reg.nr_mem_id;
	a.reg.nr_tx_rings = 1;
	a.reg.nr_tx_slots = 64;
	CHECK(bind_port(&a, "null") == 0);
	CHECK(nm_ring_space(TX(&a, 0)) == 63 && poll1(a.fd, POLLOUT, 0) == POLLOUT);
	CHECK(put(&a, 0, 10) == 10 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && nm_ring_space(TX(&a, 0)) == 53);
	close_port(&a);
	close_port(&b);
}

static const struct test tests[] = {
	{"s1_one_binding_per_descriptor", s1_one_binding_per_descriptor},
	{"s1_a_failed_bind_can_be_tried_again", s1_a_failed_bind_can_be_tried_again},
	{"s2_slots_of_a_ring", s2_slots_of_a_ring},
	{"s3_bad_rings", s3_bad_rings},
	{"s5_poll_pushes", s5_poll_pushes},
	{"s5_a_full_pipe_blocks", s5_a_full_pipe_blocks},
	{"s5_cur_ahead_of_head", s5_cur_ahead_of_head},
	{"s5_any_ring_is_enough", s5_any_ring_is_enough},
	{"s7_timestamps", s7_timestamps},
	{"s8_modes", s8_modes},
	{"s9_exclusive", s9_exclusive},
	{"s11_regions", s11_regions},
	{"s12_extra_buffers", s12_extra_buffers},
	{"s15_limits_of_a_switch", s15_limits_of_a_switch},
	{"s16_learning", s16_learning},
	{"s16_packets_of_several_slots", s16_packets_of_several_slots},
	{"s16_a_full_receiver_keeps_the_oldest", s16_a_full_receiver_keeps_the_oldest},
	{"s21_pipes", s21_pipes},
	{"s21_a_partial_packet_is_not_seen", s21_a_partial_packet_is_not_seen},
	{"s21_pipes_of_one_parent", s21_pipes_of_one_parent},
	{"s23_null_ports", s23_null_ports},
};

RUN_TESTS(tests)

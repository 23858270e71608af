/* Monitors (semantics.md 22), one test for each of its test lines. */
#include "doors.h"

static struct port
monitor(const char *name, uint64_t flags)
{
	return open_with(name, flags, 0);
}

/* Frames that a monitor has now, which must be numbered from `first`, and be sent or received. */
static uint32_t
shown(struct port *m, uint32_t first, int sent)
{
	struct netmap_ring *ring = RX(m, 0);
	uint32_t i;

	CHECK(ioctl(m->fd, NIOCRXSYNC, NULL) == 0);
	for (i = ring->head; i != ring->tail; i = nm_ring_next(ring, i))
		CHECK(((ring->slot[i].flags & NS_TXMON) != 0) == sent);
	return take(m, first);
}

static void
s22_a_copy_monitor_sees_what_was_sent(void)
{
	struct port a = open_port("vale1:p{1"), b = open_port("vale1:p}1"), t = monitor("vale1:p{1", NR_MONITOR_TX);

	CHECK(put(&a, 0, 5) == 5 && shown(&t, 0, 1) == 0); /* not synced */
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll1(t.fd, POLLIN, 5000) == POLLIN && shown(&t, 0, 1) == 5);
	/* What the pipe's end receives is not asked for. */
	CHECK(put(&b, 0, 3) == 3 && ioctl(b.fd, NIOCTXSYNC, NULL) == 0 && ioctl(a.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(shown(&t, 5, 1) == 0 && take(&a, 0) == 3);
	/* The receiver gets its frames all the same. */
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, 0) == 5);
	close_port(&t);
	close_port(&a);
	close_port(&b);
}

static void
s22_it_sees_what_arrives_though_nobody_reads(void)
{
	struct port a = open_port("vale1:p{1"), b = open_port("vale1:p}1"), r = monitor("vale1:p}1", NR_MONITOR_RX);
	struct port c = open_port("vale1:c"), d = open_port("vale1:d"), s = monitor("vale1:d", NR_MONITOR_RX);

	CHECK(put(&a, 0, 5) == 5 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll1(r.fd, POLLIN, 5000) == POLLIN && shown(&r, 0, 0) == 5);
	CHECK(put(&c, 0, 7) == 7 && ioctl(c.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll1(s.fd, POLLIN, 5000) == POLLIN && shown(&s, 0, 0) == 7);
	CHECK(RX(&b, 0)->tail == 0 && RX(&d, 0)->tail == 0);
	close_port(&r);
	close_port(&s);
	close_port(&a);
	close_port(&b);
	close_port(&c);
	close_port(&d);
}

static void
s22_a_zero_copy_monitor_sees_what_is_released(void)
{
	struct port a = open_port("vale1:p{1"), b = open_port("vale1:p}1"), z = monitor("vale1:p}1", NR_ZCOPY_MON);

	CHECK(put(&a, 0, 5) == 5 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0 && nm_ring_space(RX(&b, 0)) == 5);
	CHECK(shown(&z, 0, 0) == 0);
	RX(&b, 0)->head = RX(&b, 0)->cur = 2;
	CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0 && shown(&z, 0, 0) == 2);
	RX(&b, 0)->head = RX(&b, 0)->cur = 5;
	CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0 && shown(&z, 2, 0) == 3);
	close_port(&z);
	close_port(&a);
	close_port(&b);
}

static void
s22_it_changes_the_buffer_of_the_slot(void)
{
	struct port a = open_port("vale1:p{1"), b = open_port("vale1:p}1"), z = monitor("vale1:p}1", NR_ZCOPY_MON);
	struct netmap_slot *slot = &RX(&b, 0)->slot[0];
	uint32_t was, given = RX(&z, 0)->slot[0].buf_idx;

	CHECK(z.reg.nr_mem_id == b.reg.nr_mem_id);
	CHECK(put(&a, 0, 1) == 1 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
	was = slot->buf_idx;
	CHECK(was == TX(&a, 0)->slot[0].buf_idx && was != given);
	RX(&b, 0)->head = RX(&b, 0)->cur = 1;
	CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0 && ioctl(z.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(RX(&z, 0)->slot[0].buf_idx == was && RX(&z, 0)->slot[0].len == 60);
	/* The owner of the slot is now the sender: it is told that there is another buffer. */
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(TX(&a, 0)->slot[0].buf_idx == given && TX(&a, 0)->slot[0].flags & NS_BUF_CHANGED);
	close_port(&z);
	close_port(&a);
	close_port(&b);
}

static void
s22_sending_on_a_monitor_fails(void)
{
	struct port a = open_port("vale1:a"), m = monitor("vale1:a", NR_MONITOR_TX | NR_MONITOR_RX);

	CHECK(poll1(m.fd, POLLOUT, 0) & POLLERR);
	CHECK(ioctl(m.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll1(m.fd, POLLIN, 0) == 0);
	close_port(&m);
	close_port(&a);
}

static void
s22_the_port_must_be_open(void)
{
	struct port a;

	CHECK(try_bind("vale1:a", NR_REG_ALL_NIC, NR_MONITOR_TX) == EINVAL);
	CHECK(try_bind("vale1:a", NR_REG_ALL_NIC, NR_ZCOPY_MON) == EINVAL);
	/* One end of a pipe is not the other. */
	a = open_port("vale1:p{1");
	CHECK(try_bind("vale1:p}1", NR_REG_ALL_NIC, NR_MONITOR_RX) == EINVAL);
	CHECK(try_bind("vale1:p{1", NR_REG_ALL_NIC, NR_MONITOR_RX) == 0);
	close_port(&a);
}

static void
s22_a_full_monitor_holds_nobody_up(void)
{
	struct port a = open_with("vale1:p{1", 0, 64), b = open_port("vale1:p}1"), m;
	uint32_t round;

	m = open_with("vale1:p{1", NR_MONITOR_TX, 16);
	for (round = 0; round < 4; round++) {
		CHECK(put(&a, round * 63, 100) == 63 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
		CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, round * 63) == 63);
		CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	}
	/* It kept the newest of the first batch that found room. */
	CHECK(shown(&m, 63 - 15, 1) == 15);
	close_port(&m);
	close_port(&a);
	close_port(&b);
}

static void
s22_a_monitor_without_its_port(void)
{
	struct port a = open_port("vale1:p{1"), b = open_port("vale1:p}1"), m = monitor("vale1:p{1", NR_MONITOR_TX);

	CHECK(put(&a, 0, 5) == 5 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && ioctl(m.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(nm_ring_space(RX(&m, 0)) == 5);
	close_port(&a);
	CHECK(ioctl(m.fd, NIOCRXSYNC, NULL) == 0);
	/* The broker learns of the close when it comes to it. */
	CHECK(poll1(m.fd, 0, 5000) == POLLERR);
	CHECK(poll1(m.fd, POLLIN, 0) & POLLERR);
	CHECK(nm_ring_space(RX(&m, 0)) == 5);
	close_port(&m);
	close_port(&b);
}

/* Whoever has the port for himself is watched all the same; flags of a monitor concern that monitor. */
static void
s22_each_open_is_a_monitor_of_its_own(void)
{
	struct port a = open_with("vale1:a", NR_EXCLUSIVE, 0), b = open_port("vale1:b");
	struct port one = monitor("vale1:a", NR_MONITOR_TX | NR_EXCLUSIVE);
	struct port two = monitor("vale1:a", NR_MONITOR_TX | NR_EXCLUSIVE);
	struct port none = monitor("vale1:a", NR_MONITOR_TX | NR_TX_RINGS_ONLY);
	struct port zero = monitor("vale1:a", NR_ZCOPY_MON);
	uint64_t both = NR_ZCOPY_MON | NR_MONITOR_TX | NR_MONITOR_RX;
	uint32_t seen;

	CHECK_STR(one.nifp->ni_name, "vale1:a/t#0");
	CHECK_STR(two.nifp->ni_name, "vale1:a/t#1");
	CHECK_STR(zero.nifp->ni_name, "vale1:a/zrt#3");
	CHECK(zero.reg.nr_flags == both && one.reg.nr_flags == (NR_MONITOR_TX | NR_EXCLUSIVE));
	CHECK(zero.reg.nr_mem_id == a.reg.nr_mem_id && one.reg.nr_mem_id != two.reg.nr_mem_id);
	CHECK(one.reg.nr_tx_rings == 1 && one.reg.nr_rx_slots == a.reg.nr_tx_slots);
	CHECK(try_bind("vale1:a", NR_REG_ALL_NIC, 0) == EBUSY);
	CHECK(try_bind("vale1:a", NR_REG_SW, NR_MONITOR_TX) == EINVAL);
	CHECK(put(&a, 0, 6) == 6 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll1(one.fd, POLLIN, 5000) == POLLIN && shown(&one, 0, 1) == 6);
	CHECK(poll1(two.fd, POLLIN, 5000) == POLLIN && shown(&two, 0, 1) == 6);
	seen = shown(&zero, 0, 1);
	CHECK(seen == 6 || (ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && seen + shown(&zero, seen, 1) == 6));
	/* It has no ring to see with, and nothing is wrong with that. */
	CHECK(poll1(none.fd, POLLIN, 0) == 0 && ioctl(none.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, 0) == 6);
	close_port(&one);
	close_port(&two);
	close_port(&none);
	close_port(&zero);
	close_port(&a);
	close_port(&b);
}

static const struct test tests[] = {
	{"s22_a_copy_monitor_sees_what_was_sent", s22_a_copy_monitor_sees_what_was_sent},
	{"s22_it_sees_what_arrives_though_nobody_reads", s22_it_sees_what_arrives_though_nobody_reads},
	{"s22_a_zero_copy_monitor_sees_what_is_released", s22_a_zero_copy_monitor_sees_what_is_released},
	{"s22_it_changes_the_buffer_of_the_slot", s22_it_changes_the_buffer_of_the_slot},
	{"s22_sending_on_a_monitor_fails", s22_sending_on_a_monitor_fails},
	{"s22_the_port_must_be_open", s22_the_port_must_be_open},
	{"s22_a_full_monitor_holds_nobody_up", s22_a_full_monitor_holds_nobody_up},
	{"s22_each_open_is_a_monitor_of_its_own", s22_each_open_is_a_monitor_of_its_own},
	{"s22_a_monitor_without_its_port", s22_a_monitor_without_its_port},
};

RUN_TESTS(tests)

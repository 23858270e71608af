/* Network interfaces (semantics.md 24): two ends of a veth pair, va and vb, in the network namespace that this runs in. */
#include "doors.h"

static void
sh(const char *command)
{
	CHECK_ROW(command, system(command) == 0);
}

/* The kernel needs a moment to let go of a queue that was just closed, and a frame one to cross. */
static void
send_and_take(struct port *a, struct port *b, uint32_t first, uint32_t count)
{
	uint32_t got = 0;

	CHECK(put(a, first, count) == count && ioctl(a->fd, NIOCTXSYNC, NULL) == 0);
	while (got < count && poll1(b->fd, POLLIN, 5000) == POLLIN)
		got += take(b, first + got);
	CHECK_ROW("frames that arrived", got == count);
	CHECK(ioctl(b->fd, NIOCRXSYNC, NULL) == 0);
	/* All slots come back. */
	for (got = 0; got < 5000 && nm_tx_pending(TX(a, 0)); got++) {
		poll1(a->fd, POLLOUT, 0);
		usleep(1000);
	}
	CHECK(!nm_tx_pending(TX(a, 0)));
}

static void
s24_frames_pass_both_ways(void)
{
	struct port a = open_port("va"), b = open_port("vb");
	uint32_t i;

	CHECK(a.reg.nr_mem_id == b.reg.nr_mem_id && a.reg.nr_tx_rings == 1 && a.reg.nr_rx_rings == 1);
	for (i = 0; i < 20; i++) {
		send_and_take(&a, &b, i * 100, 50);
		send_and_take(&b, &a, i * 100 + 50, 50);
	}
	close_port(&a);
	close_port(&b);
}

/* Wishes for rings and slots do not count: the device's numbers do. */
static void
s24_the_device_says_how_many(void)
{
	struct port a = open_with("va", 0, 7), b;

	memset(&b, 0, sizeof(b));
	b.reg.nr_tx_rings = b.reg.nr_rx_rings = 5;
	CHECK(a.reg.nr_tx_slots >= 64 && a.reg.nr_tx_slots == TX(&a, 0)->num_slots);
	CHECK(bind_port(&b, "va") == 0 && b.reg.nr_tx_rings == 1 && b.reg.nr_tx_slots == a.reg.nr_tx_slots);
	CHECK(try_bind("va", NR_REG_ALL_NIC, NR_EXCLUSIVE) == EBUSY);
	close_port(&a);
	close_port(&b);
}

static void
s24_an_interface_that_is_down(void)
{
	struct port a, b;
	uint32_t got = 0;

	/* It can be bound before it is up. */
	sh("ip link set va down");
	a = open_port("va");
	b = open_port("vb");
	CHECK(put(&a, 0, 10) == 10 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && ioctl(a.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(!(poll1(a.fd, POLLIN, 10) & POLLIN));
	sh("ip link set va up");
	/* Nothing is lost from the ring: it goes out now. */
	while (got < 10 && poll1(a.fd, POLLOUT, 0) == POLLOUT && poll1(b.fd, POLLIN, 5000) == POLLIN)
		got += take(&b, got);
	CHECK(got == 10);
	send_and_take(&a, &b, 10, 20);
	/* And while it is bound. */
	sh("ip link set va down");
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && ioctl(a.fd, NIOCRXSYNC, NULL) == 0 && poll1(a.fd, POLLIN, 10) == 0);
	sh("ip link set va up");
	send_and_take(&b, &a, 0, 20);
	close_port(&a);
	close_port(&b);
}

static void
s24_an_interface_that_is_removed(void)
{
	struct port a = open_port("va"), b = open_port("vb");
	int i;

	send_and_take(&a, &b, 0, 10);
	sh("ip link del va");
	for (i = 0; i < 5000 && !(poll1(a.fd, POLLIN, 1) & POLLERR); i++)
		usleep(1000);
	CHECK(poll1(a.fd, POLLIN, -1) & POLLERR);
	CHECK(poll1(b.fd, POLLIN, -1) & POLLERR);
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) < 0 && errno == EIO);
	CHECK(ioctl(a.fd, NIOCRXSYNC, NULL) < 0 && errno == EIO);
	/* The memory stays. */
	CHECK(RX(&a, 0)->num_slots == a.reg.nr_rx_slots && a.nifp->ni_tx_rings == 1);
	NETMAP_BUF(RX(&a, 0), RX(&a, 0)->slot[0].buf_idx)[0] = 1;
	close_port(&a);
	CHECK(try_bind("va", NR_REG_ALL_NIC, 0) == ENXIO);
	close_port(&b);
}

static const struct test tests[] = {
	{"s24_frames_pass_both_ways", s24_frames_pass_both_ways},
	{"s24_the_device_says_how_many", s24_the_device_says_how_many},
	{"s24_an_interface_that_is_down", s24_an_interface_that_is_down},
	{"s24_an_interface_that_is_removed", s24_an_interface_that_is_removed},
};

RUN_TESTS(tests)

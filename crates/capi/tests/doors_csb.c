/* CSB mode and the sync loop (abi.md 12), as a program sees them. */
#include "doors.h"

#include <pthread.h>
#include <sys/eventfd.h>

/* Room for two rings each way, and a page that is not there behind it. */
struct csb {
	struct nm_csb_atok *atok;
	struct nm_csb_ktoa *ktoa;
};

#define RINGS 2

static struct csb
make_csb(void)
{
	struct csb c;
	void *mem = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	memset(mem, 0x55, 4096);
	c.atok = (struct nm_csb_atok *)mem;
	c.ktoa = (struct nm_csb_ktoa *)((char *)mem + 2048);
	return c;
}

static struct nmreq_opt_csb
csb_option(void *atok, void *ktoa)
{
	struct nmreq_opt_csb o;

	memset(&o, 0, sizeof(o));
	o.nro_opt.nro_reqtype = NETMAP_REQ_OPT_CSB;
	o.nro_opt.nro_status = 99;
	o.csb_atok = (uintptr_t)atok;
	o.csb_ktoa = (uintptr_t)ktoa;
	return o;
}

/* The errno of CSB_ENABLE, which is also the option's status; 0 for success. */
static int
enable(int fd, void *atok, void *ktoa)
{
	struct nmreq_opt_csb o = csb_option(atok, ktoa);
	int error = request(fd, NETMAP_REQ_CSB_ENABLE, "", NULL, &o) < 0 ? errno : 0;

	CHECK(o.nro_opt.nro_status == (uint32_t)error);
	return error;
}

static int
start_with(int fd, uint32_t sleep_us, void *options)
{
	struct nmreq_sync_kloop_start req;

	memset(&req, 0, sizeof(req));
	req.sleep_us = sleep_us;
	return request(fd, NETMAP_REQ_SYNC_KLOOP_START, "", &req, options) < 0 ? errno : 0;
}

static int
stop(int fd)
{
	return request(fd, NETMAP_REQ_SYNC_KLOOP_STOP, "", NULL, NULL) < 0 ? errno : 0;
}

/* A loop in a thread of its own. */
struct loop {
	struct port *port;
	struct csb csb;
	uint32_t sleep_us;
	void *options;
	pthread_t thread;
	int result;
};

static void *
loop_main(void *arg)
{
	struct loop *l = (struct loop *)arg;

	l->result = start_with(l->port->fd, l->sleep_us, l->options);
	return NULL;
}

static void
start_loop(struct loop *l, struct port *port, struct csb csb, uint32_t sleep_us, void *options)
{
	l->port = port;
	l->csb = csb;
	l->sleep_us = sleep_us;
	l->options = options;
	l->result = -1;
	CHECK(enable(port->fd, csb.atok, csb.ktoa) == 0);
	CHECK(pthread_create(&l->thread, NULL, loop_main, l) == 0);
}

/* Until a loop runs, in whatever process: then CSB mode cannot be entered again. */
static void
await_loop(int fd, struct csb csb)
{
	while (enable(fd, csb.atok, csb.ktoa) != EBUSY)
		usleep(1000);
}

static void
end_loop(struct loop *l, int expected)
{
	CHECK(pthread_join(l->thread, NULL) == 0);
	CHECK(l->result == expected);
}

static void
stop_loop(struct loop *l)
{
	CHECK(stop(l->port->fd) == 0);
	end_loop(l, 0);
}

/* Waits until a word has a value; it must not take longer than a loop's own last resort. */
static int
wait_for(uint32_t *word, uint32_t value)
{
	int i;

	for (i = 0; i < 25000; i++) {
		if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == value)
			return 1;
		usleep(100);
	}
	return 0;
}

/* Frames into the slots from the CSB's head on; then publishes. Returns the new head. */
static uint32_t
csb_put(struct loop *l, uint32_t first, uint32_t count)
{
	struct netmap_ring *ring = TX(l->port, 0);
	uint32_t head = l->csb.atok[0].head, n;

	for (n = 0; n < count; n++) {
		struct netmap_slot *slot = &ring->slot[head];
		unsigned char *buf = (unsigned char *)NETMAP_BUF(ring, slot->buf_idx);
		uint32_t number = first + n;

		memset(buf, 0xff, 6);
		memset(buf + 6, 2, 6);
		memset(buf + 12, 0x88, 2);
		memcpy(buf + 14, &number, 4);
		slot->len = 60;
		head = nm_ring_next(ring, head);
	}
	nm_sync_kloop_appl_write(&l->csb.atok[0], head, head);
	return head;
}

/* Takes frames from the RX ring of a CSB, which must be numbered from `first`. */
static uint32_t
csb_take(struct loop *l, uint32_t first)
{
	struct netmap_ring *ring = RX(l->port, 0);
	struct nm_csb_atok *atok = &l->csb.atok[1];
	uint32_t head = atok->head, hwtail, hwcur, n;

	nm_sync_kloop_appl_read(&l->csb.ktoa[1], &hwtail, &hwcur);
	for (n = 0; head != hwtail; n++) {
		uint32_t number;

		memcpy(&number, NETMAP_BUF(ring, ring->slot[head].buf_idx) + 14, 4);
		CHECK(ring->slot[head].len == 60 && number == first + n);
		head = nm_ring_next(ring, head);
	}
	nm_sync_kloop_appl_write(atok, head, head);
	return n;
}

/* Eventfds for two rings. */
struct events {
	struct nmreq_option opt;
	int32_t fds[RINGS][2];
};

static struct events
make_events(void)
{
	struct events e;
	int i;

	memset(&e, 0, sizeof(e));
	e.opt.nro_reqtype = NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS;
	e.opt.nro_size = sizeof(e.opt) + sizeof(e.fds);
	CHECK(sizeof(e) == e.opt.nro_size);
	for (i = 0; i < RINGS; i++) {
		e.fds[i][0] = eventfd(0, EFD_NONBLOCK);
		e.fds[i][1] = eventfd(0, EFD_NONBLOCK);
	}
	return e;
}

static void
kick(int fd)
{
	uint64_t one = 1;

	CHECK(write(fd, &one, sizeof(one)) == sizeof(one));
}

/* As a program does: only if the loop asks for it. */
static void
kick_if_asked(struct nm_csb_ktoa *ktoa, int fd)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&ktoa->kern_need_kick, __ATOMIC_RELAXED))
		kick(fd);
}

static int
notified(int fd, int timeout)
{
	uint64_t n = 0;

	if (poll1(fd, POLLIN, timeout) != POLLIN)
		return 0;
	CHECK(read(fd, &n, sizeof(n)) == sizeof(n));
	return (int)n;
}

static void
csb_order_of_checks(void)
{
	int fd = open("/dev/netmap", O_RDWR);
	struct csb c = make_csb();
	struct port a, none;
	char *ro = (char *)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* Unbound. */
	CHECK(request(fd, NETMAP_REQ_CSB_ENABLE, "", NULL, NULL) < 0 && errno == EINVAL);
	CHECK(enable(fd, c.atok, c.ktoa) == 0 && enable(fd, (void *)1, (void *)16) == 0);
	CHECK(start_with(fd, 1000001, NULL) == EINVAL && start_with(fd, 0, NULL) == ENXIO && stop(fd) == ENXIO);
	close(fd);
	/* Bound, but not for itself. */
	a = open_port("vale1:a");
	CHECK(enable(a.fd, c.atok, c.ktoa) == EINVAL);
	CHECK(start_with(a.fd, 1000001, NULL) == EINVAL && start_with(a.fd, 0, NULL) == EINVAL);
	close_port(&a);
	a = open_with("vale1:a", NR_EXCLUSIVE, 64);
	CHECK(request(a.fd, NETMAP_REQ_CSB_ENABLE, "", NULL, NULL) < 0 && errno == EINVAL);
	CHECK(enable(a.fd, (char *)c.atok + 8, c.ktoa) == EINVAL);
	CHECK(enable(a.fd, c.atok, (char *)c.ktoa + 32) == EINVAL);
	CHECK(enable(a.fd, (void *)64, (char *)c.ktoa + 32) == EFAULT); /* the first one first */
	CHECK(enable(a.fd, c.atok, (void *)64) == EFAULT);
	CHECK(enable(a.fd, c.atok, ro) == EFAULT);
	CHECK(munmap(ro, 4096) == 0);
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && poll1(a.fd, POLLOUT, 0) == POLLOUT);
	/* Any number of times. */
	CHECK(enable(a.fd, c.atok, c.ktoa) == 0 && enable(a.fd, c.atok, c.ktoa) == 0);
	CHECK(start_with(a.fd, 1000001, NULL) == EINVAL);
	close_port(&a);
	/* No rings: nothing to do. */
	memset(&none, 0, sizeof(none));
	none.reg.nr_flags = NR_TX_RINGS_ONLY | NR_RX_RINGS_ONLY;
	CHECK(bind_port(&none, "vale1:a") == 0);
	CHECK(enable(none.fd, (void *)1, (void *)1) == 0 && ioctl(none.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(start_with(none.fd, 0, NULL) == EINVAL && stop(none.fd) == 0);
	close_port(&none);
}

static void
csb_at_register(void)
{
	struct csb c = make_csb();
	struct nmreq_opt_csb o;
	struct nmreq_option unknown;
	struct port a;

	memset(&a, 0, sizeof(a));
	memset(&unknown, 0, sizeof(unknown));
	unknown.nro_reqtype = 77;
	a.fd = open("/dev/netmap", O_RDWR);
	a.reg.nr_mode = NR_REG_ALL_NIC;
	o = csb_option(c.atok, c.ktoa);
	CHECK(request(a.fd, NETMAP_REQ_REGISTER, "vale1:a", &a.reg, &o) < 0 && errno == EINVAL);
	CHECK(o.nro_opt.nro_status == EINVAL && !listed("vale1:a"));
	a.reg.nr_flags = NR_EXCLUSIVE;
	o = csb_option((char *)c.atok + 4, c.ktoa);
	CHECK(request(a.fd, NETMAP_REQ_REGISTER, "vale1:a", &a.reg, &o) < 0 && errno == EINVAL);
	o = csb_option(c.atok, (char *)c.atok + (1 << 30));
	CHECK(request(a.fd, NETMAP_REQ_REGISTER, "vale1:a", &a.reg, &o) < 0 && errno == EFAULT);
	CHECK(o.nro_opt.nro_status == EFAULT && !listed("vale1:a"));
	/* What fails before has its say first; what is served keeps its status. */
	o = csb_option((char *)c.atok + 4, c.ktoa);
	CHECK(request(a.fd, NETMAP_REQ_REGISTER, "netmap-nowhere", &a.reg, &o) < 0 && errno == ENXIO);
	CHECK(o.nro_opt.nro_status == EOPNOTSUPP);
	o = csb_option(c.atok, c.ktoa);
	o.nro_opt.nro_next = (uintptr_t)&unknown;
	CHECK(request(a.fd, NETMAP_REQ_REGISTER, "vale1:a", &a.reg, &o) < 0 && errno == EOPNOTSUPP);
	CHECK(o.nro_opt.nro_status == 0 && unknown.nro_status == EOPNOTSUPP && !listed("vale1:a"));
	o = csb_option(c.atok, c.ktoa);
	CHECK(request(a.fd, NETMAP_REQ_REGISTER, "vale1:a", &a.reg, &o) == 0 && o.nro_opt.nro_status == 0);
	CHECK(o.csb_atok == (uintptr_t)c.atok && o.csb_ktoa == (uintptr_t)c.ktoa);
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) < 0 && errno == EBUSY);
	CHECK(ioctl(a.fd, NIOCRXSYNC, NULL) < 0 && errno == EBUSY);
	CHECK(poll1(a.fd, POLLIN | POLLOUT, 1000) == POLLERR);
	CHECK(close(a.fd) == 0);
	/* The next one has what it asks for. */
	a = open_with("vale1:a", NR_EXCLUSIVE, 0);
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	close_port(&a);
}

static void
csb_values(void)
{
	struct port a = open_with("vale1:p{1", NR_EXCLUSIVE, 64), b = open_port("vale1:p}1");
	struct csb c = make_csb();
	uint32_t i;

	CHECK(put(&a, 0, 5) == 5 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(put(&a, 5, 1) == 1); /* not synced: the service does not know it */
	CHECK(put(&b, 0, 3) == 3 && ioctl(b.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(ioctl(a.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(enable(a.fd, c.atok, c.ktoa) == 0);
	CHECK(c.atok[0].head == 5 && c.atok[0].cur == 5 && c.ktoa[0].hwcur == 5 && c.ktoa[0].hwtail == 63);
	CHECK(c.atok[1].head == 0 && c.atok[1].cur == 0 && c.ktoa[1].hwcur == 0 && c.ktoa[1].hwtail == 3);
	for (i = 0; i < RINGS; i++) {
		CHECK(c.atok[i].appl_need_kick == 1 && c.atok[i].sync_flags == 1 && c.ktoa[i].kern_need_kick == 1);
		CHECK(c.ktoa[i].pad[0] == 0 && c.ktoa[i].pad[12] == 0);
	}
	CHECK(c.atok[2].head == 0x55555555 && c.ktoa[2].hwcur == 0x55555555);
	close_port(&a);
	close_port(&b);
}

/* Busy with and without sleep: frames go and come, and nobody is asked to kick. */
static void
kloop_busy(void)
{
	uint32_t sleeps[] = {0, 1, 200}, round;

	for (round = 0; round < ROWS(sleeps); round++) {
		struct port a = open_with("vale1:a", NR_EXCLUSIVE, 64), b = open_port("vale1:b");
		struct loop l;
		uint32_t head, got = 0, sent = 0;

		start_loop(&l, &a, make_csb(), sleeps[round], NULL);
		head = csb_put(&l, 0, 10);
		CHECK(wait_for(&l.csb.ktoa[0].hwcur, head));
		CHECK(wait_for(&l.csb.ktoa[0].kern_need_kick, 0));
		CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, 0) == 10);
		/* More than the ring holds, so slots must come back. */
		while (sent < 200) {
			sent += put(&b, sent, 20);
			CHECK(ioctl(b.fd, NIOCTXSYNC, NULL) == 0);
			while (got < sent) {
				uint32_t n = csb_take(&l, got);

				got += n;
				if (n == 0 && l.result != -1)
					break;
			}
		}
		CHECK(got == 200);
		CHECK(l.csb.ktoa[1].kern_need_kick == 0);
		stop_loop(&l);
		close_port(&a);
		close_port(&b);
	}
}

/* With eventfds: the loop sleeps, is kicked only when it asks, and notifies only who asks. */
static void
kloop_events(void)
{
	struct port a = open_with("vale1:p{1", NR_EXCLUSIVE, 64), b = open_port("vale1:p}1");
	struct events e = make_events();
	struct loop l;
	struct timespec cpu[2];
	clockid_t clock;
	uint32_t head, i;

	start_loop(&l, &a, make_csb(), 0, &e);
	CHECK(wait_for(&l.csb.ktoa[0].kern_need_kick, 1));
	/* Asleep: that costs no processor. */
	CHECK(pthread_getcpuclockid(l.thread, &clock) == 0 && clock_gettime(clock, &cpu[0]) == 0);
	usleep(300000);
	CHECK(clock_gettime(clock, &cpu[1]) == 0);
	CHECK((cpu[1].tv_sec - cpu[0].tv_sec) * 1000000000L + cpu[1].tv_nsec - cpu[0].tv_nsec < 20000000L);
	/* Nobody looks before it is kicked. */
	head = csb_put(&l, 0, 4);
	usleep(20000);
	CHECK(l.csb.ktoa[0].hwcur == 0);
	kick(e.fds[0][0]);
	CHECK(wait_for(&l.csb.ktoa[0].hwcur, head));
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, 0) == 4);
	/* The receiver gives slots back: the tail moves, and who wants to know is told. */
	CHECK(!notified(e.fds[0][1], 0));
	CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(notified(e.fds[0][1], 2000));
	CHECK(wait_for(&l.csb.ktoa[0].hwtail, (head + 63) % 64));
	/* Packets come: the port wakes the loop, and the loop the program. */
	CHECK(put(&b, 0, 3) == 3 && ioctl(b.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(notified(e.fds[1][1], 2000) && l.csb.ktoa[1].hwtail == 3 && csb_take(&l, 0) == 3);
	/* Not if it does not ask. */
	l.csb.atok[1].appl_need_kick = 0;
	CHECK(put(&b, 3, 2) == 2 && ioctl(b.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(wait_for(&l.csb.ktoa[1].hwtail, 5) && csb_take(&l, 3) == 2);
	CHECK(!notified(e.fds[1][1], 50));
	/* A ring full of packets: it is the program's turn, so it must kick. */
	for (i = 5; i < 5 + 63;) {
		/* What the program took before may still have to come back. */
		i += put(&b, i, 5 + 63 - i);
		CHECK(ioctl(b.fd, NIOCTXSYNC, NULL) == 0);
	}
	CHECK(wait_for(&l.csb.ktoa[1].hwtail, (5 + 63) % 64));
	CHECK(wait_for(&l.csb.ktoa[1].kern_need_kick, 1));
	CHECK(csb_take(&l, 5) == 63);
	kick_if_asked(&l.csb.ktoa[1], e.fds[1][0]);
	CHECK(wait_for(&l.csb.ktoa[1].hwcur, l.csb.atok[1].head));
	stop_loop(&l);
	CHECK(e.opt.nro_status == 0);
	close_port(&a);
	close_port(&b);
}

/* Negative entries: no notification for that ring; and a ring that cannot be kicked makes the loop busy. */
static void
kloop_negative_eventfds(void)
{
	struct port a = open_with("vale1:p{1", NR_EXCLUSIVE, 64), b = open_port("vale1:p}1");
	struct events e = make_events();
	struct loop l;
	uint32_t head;
	int irq = e.fds[1][1];

	e.fds[0][1] = e.fds[1][1] = -1;
	start_loop(&l, &a, make_csb(), 1000, &e);
	CHECK(wait_for(&l.csb.ktoa[0].kern_need_kick, 1));
	head = csb_put(&l, 0, 1);
	kick_if_asked(&l.csb.ktoa[0], e.fds[0][0]);
	CHECK(wait_for(&l.csb.ktoa[0].hwcur, head));
	CHECK(put(&b, 0, 1) == 1 && ioctl(b.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(wait_for(&l.csb.ktoa[1].hwtail, 1) && csb_take(&l, 0) == 1);
	stop_loop(&l);
	e.fds[0][0] = -7;
	e.fds[1][1] = irq;
	start_loop(&l, &a, l.csb, 500, &e);
	head = csb_put(&l, 1, 1);
	CHECK(wait_for(&l.csb.ktoa[0].hwcur, head) && l.csb.ktoa[0].kern_need_kick == 0);
	/* Notified in busy mode as well. */
	CHECK(put(&b, 1, 1) == 1 && ioctl(b.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(notified(irq, 2000) && l.csb.ktoa[1].hwtail == 2);
	stop_loop(&l);
	close_port(&a);
	close_port(&b);
}

static void
kloop_bad_options(void)
{
	struct port a = open_with("vale1:a", NR_EXCLUSIVE, 64);
	struct csb c = make_csb();
	struct nmreq_opt_sync_kloop_mode mode;
	struct events e = make_events();
	struct nmreq_option unknown;
	int plain = open("/dev/null", O_RDWR), closed = dup(plain);

	close(closed);
	memset(&mode, 0, sizeof(mode));
	memset(&unknown, 0, sizeof(unknown));
	mode.nro_opt.nro_reqtype = NETMAP_REQ_OPT_SYNC_KLOOP_MODE;
	CHECK(enable(a.fd, c.atok, c.ktoa) == 0);
	mode.mode = 4;
	CHECK(start_with(a.fd, 0, &mode) == EINVAL && mode.nro_opt.nro_status == EINVAL);
	e.opt.nro_size -= 8;
	CHECK(start_with(a.fd, 0, &e) == EINVAL && e.opt.nro_status == EINVAL);
	e.opt.nro_size += 16;
	CHECK(start_with(a.fd, 0, &e) == EINVAL && e.opt.nro_status == EINVAL);
	e.opt.nro_size -= 8;
	/* Direct, and a ring without eventfd. */
	mode.mode = NM_OPT_SYNC_KLOOP_DIRECT_RX;
	mode.nro_opt.nro_next = (uintptr_t)&e;
	e.fds[0][0] = -1;
	CHECK(start_with(a.fd, 0, &mode) == EINVAL);
	CHECK(mode.nro_opt.nro_status == 0 && e.opt.nro_status == EINVAL);
	e.fds[0][0] = plain;
	CHECK(start_with(a.fd, 0, &e) == EINVAL);
	e.fds[0][0] = closed;
	CHECK(start_with(a.fd, 0, &e) == EBADF);
	/* It clears a stop that came before: the next one runs. Without that it would return at once. */
	CHECK(stop(a.fd) == 0);
	CHECK(start_with(a.fd, 0, &e) == EBADF);
	e = make_events();
	{
		struct loop l;

		start_loop(&l, &a, c, 0, &e);
		await_loop(a.fd, c);
		kick(e.fds[0][0]);
		usleep(20000);
		CHECK(l.result == -1);
		/* One at a time. */
		CHECK(start_with(a.fd, 0, NULL) == EBUSY);
		CHECK(enable(a.fd, c.atok, c.ktoa) == EBUSY && enable(a.fd, (void *)1, (void *)1) == EBUSY);
		stop_loop(&l);
	}
	/* Options that it does not know stay as they are. */
	unknown.nro_reqtype = 77;
	CHECK(stop(a.fd) == 0 && start_with(a.fd, 0, &unknown) == 0 && unknown.nro_status == EOPNOTSUPP);
	close_port(&a);
}

/* The first one ends at once, the second runs. */
static void
kloop_stop_before_start(void)
{
	struct port a = open_with("vale1:a", NR_EXCLUSIVE, 64);
	struct csb c = make_csb();
	struct loop l;
	int i;

	CHECK(enable(a.fd, c.atok, c.ktoa) == 0);
	CHECK(stop(a.fd) == 0 && stop(a.fd) == 0);
	CHECK(start_with(a.fd, 1000000, NULL) == 0);
	for (i = 0; i < 200; i++) {
		/* Whoever wins the race. */
		start_loop(&l, &a, c, i % 2, NULL);
		CHECK(stop(a.fd) == 0);
		end_loop(&l, 0);
	}
	start_loop(&l, &a, c, 1000, NULL);
	CHECK(wait_for(&l.csb.ktoa[0].kern_need_kick, 0) && l.result == -1);
	stop_loop(&l);
	close_port(&a);
}

/* A head that cannot be moves nothing, is answered by a request to be kicked, and can be put right. */
static void
kloop_bad_ring(void)
{
	struct port a = open_with("vale1:p{1", NR_EXCLUSIVE, 64), b = open_port("vale1:p}1");
	struct events e = make_events();
	struct loop l;
	uint32_t head;

	start_loop(&l, &a, make_csb(), 0, &e);
	CHECK(wait_for(&l.csb.ktoa[0].kern_need_kick, 1));
	nm_sync_kloop_appl_write(&l.csb.atok[0], 1000, 1000);
	kick(e.fds[0][0]);
	usleep(20000);
	CHECK(wait_for(&l.csb.ktoa[0].kern_need_kick, 1) && l.csb.ktoa[0].hwcur == 0);
	nm_sync_kloop_appl_write(&l.csb.atok[0], 0, 0);
	head = csb_put(&l, 0, 2);
	kick(e.fds[0][0]);
	CHECK(wait_for(&l.csb.ktoa[0].hwcur, head));
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, 0) == 2);
	stop_loop(&l);
	close_port(&a);
	close_port(&b);
}

/* Direct: kicked always, told always. Without eventfds nobody would sync such a ring. */
static void
kloop_direct(void)
{
	struct port a = open_with("vale1:p{1", NR_EXCLUSIVE, 64), b = open_port("vale1:p}1");
	struct events e = make_events();
	struct nmreq_opt_sync_kloop_mode mode;
	struct loop l;
	uint32_t head;

	memset(&mode, 0, sizeof(mode));
	mode.nro_opt.nro_reqtype = NETMAP_REQ_OPT_SYNC_KLOOP_MODE;
	mode.nro_opt.nro_next = (uintptr_t)&e;
	mode.mode = NM_OPT_SYNC_KLOOP_DIRECT_TX | NM_OPT_SYNC_KLOOP_DIRECT_RX;
	start_loop(&l, &a, make_csb(), 0, &mode);
	l.csb.atok[0].appl_need_kick = l.csb.atok[1].appl_need_kick = 0;
	head = csb_put(&l, 0, 2);
	CHECK(l.csb.ktoa[0].kern_need_kick == 1);
	kick(e.fds[0][0]);
	CHECK(wait_for(&l.csb.ktoa[0].hwcur, head) && l.csb.ktoa[0].kern_need_kick == 1);
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, 0) == 2);
	CHECK(put(&b, 0, 2) == 2 && ioctl(b.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(notified(e.fds[1][1], 2000) && l.csb.ktoa[1].kern_need_kick == 1);
	CHECK(csb_take(&l, 0) == 2);
	kick(e.fds[1][0]);
	CHECK(wait_for(&l.csb.ktoa[1].hwcur, 2));
	stop_loop(&l);
	CHECK(mode.nro_opt.nro_status == 0 && e.opt.nro_status == 0);
	mode.nro_opt.nro_next = 0;
	mode.mode = NM_OPT_SYNC_KLOOP_DIRECT_TX;
	start_loop(&l, &a, l.csb, 100, &mode);
	csb_put(&l, 2, 1);
	CHECK(put(&b, 2, 1) == 1 && ioctl(b.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(wait_for(&l.csb.ktoa[1].hwtail, 3) && l.csb.ktoa[0].hwcur == head);
	stop_loop(&l);
	close_port(&a);
	close_port(&b);
}

/* Two loops, one at each end of a pipe, and programs that sleep: no wake-up may be lost. */
#define STREAM 20000

static struct events stream_events[2];

static void *
stream_sender(void *arg)
{
	struct loop *l = (struct loop *)arg;
	struct nm_csb_atok *atok = &l->csb.atok[0];
	uint32_t sent = 0, hwtail, hwcur;
	int fd = stream_events[0].fds[0][1];

	while (sent < STREAM) {
		uint32_t room;

		atok->appl_need_kick = 0;
		nm_sync_kloop_appl_read(&l->csb.ktoa[0], &hwtail, &hwcur);
		room = (hwtail + 16 - atok->head) % 16;
		if (room == 0) {
			__atomic_store_n(&atok->appl_need_kick, 1, __ATOMIC_RELAXED);
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
			nm_sync_kloop_appl_read(&l->csb.ktoa[0], &hwtail, &hwcur);
			if (hwtail == atok->head && !notified(fd, 2500)) {
				CHECK(!"a wake-up of the sender is lost");
				return NULL;
			}
			continue;
		}
		if (room > 1 + sent % 5)
			room = 1 + sent % 5;
		if (room > STREAM - sent)
			room = STREAM - sent;
		csb_put(l, sent, room);
		kick_if_asked(&l->csb.ktoa[0], stream_events[0].fds[0][0]);
		sent += room;
	}
	return NULL;
}

static void
kloop_stream(void)
{
	struct port a = open_with("vale1:p{1", NR_EXCLUSIVE, 16), b = open_with("vale1:p}1", NR_EXCLUSIVE, 16);
	struct loop la, lb;
	pthread_t sender;
	uint32_t got = 0;
	int fd;

	stream_events[0] = make_events();
	stream_events[1] = make_events();
	fd = stream_events[1].fds[1][1];
	start_loop(&la, &a, make_csb(), 0, &stream_events[0]);
	start_loop(&lb, &b, make_csb(), 0, &stream_events[1]);
	CHECK(pthread_create(&sender, NULL, stream_sender, &la) == 0);
	while (got < STREAM) {
		uint32_t n = csb_take(&lb, got), hwtail, hwcur;

		got += n;
		kick_if_asked(&lb.csb.ktoa[1], stream_events[1].fds[1][0]);
		if (n > 0)
			continue;
		__atomic_store_n(&lb.csb.atok[1].appl_need_kick, 1, __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		nm_sync_kloop_appl_read(&lb.csb.ktoa[1], &hwtail, &hwcur);
		if (hwtail == lb.csb.atok[1].head && !notified(fd, 2500)) {
			CHECK(!"a wake-up of the receiver is lost");
			break;
		}
		lb.csb.atok[1].appl_need_kick = 0;
	}
	CHECK(got == STREAM);
	CHECK(pthread_join(sender, NULL) == 0);
	stop_loop(&la);
	stop_loop(&lb);
	close_port(&a);
	close_port(&b);
}

/* A monitor makes the rings the broker's: the loop goes on, through the broker. */
static void
kloop_on_rings_of_the_broker(void)
{
	struct port a = open_with("vale1:a", NR_EXCLUSIVE, 64), b = open_port("vale1:b"), m;
	struct events e = make_events();
	struct loop l;
	uint32_t head;

	start_loop(&l, &a, make_csb(), 0, &e);
	head = csb_put(&l, 0, 3);
	kick(e.fds[0][0]);
	CHECK(wait_for(&l.csb.ktoa[0].hwcur, head));
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, 0) == 3);
	m = open_with("vale1:a", NR_MONITOR_TX, 0);
	head = csb_put(&l, 3, 4);
	kick(e.fds[0][0]);
	CHECK(wait_for(&l.csb.ktoa[0].hwcur, head));
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, 3) == 4);
	CHECK(poll1(m.fd, POLLIN, 5000) == POLLIN && take(&m, 3) == 4);
	CHECK(put(&b, 0, 2) == 2 && ioctl(b.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(notified(e.fds[1][1], 2000) && csb_take(&l, 0) == 2);
	close_port(&m);
	head = csb_put(&l, 7, 1);
	kick(e.fds[0][0]);
	CHECK(wait_for(&l.csb.ktoa[0].hwcur, head));
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, 7) == 1);
	stop_loop(&l);
	close_port(&a);
	close_port(&b);
}

static void
child_stops(void *arg)
{
	struct port *p = (struct port *)arg;

	CHECK(ioctl(p->fd, NIOCTXSYNC, NULL) < 0 && errno == EBUSY);
	CHECK(start_with(p->fd, 0, NULL) == EBUSY);
	CHECK(stop(p->fd) == 0);
}

static void
child_closes(void *arg)
{
	CHECK(close(((struct port *)arg)->fd) == 0);
}

static void
kloop_stopped_by_another_process(void)
{
	struct port a = open_with("vale1:a", NR_EXCLUSIVE, 64);
	struct events e = make_events();
	struct loop l;

	start_loop(&l, &a, make_csb(), 0, &e);
	await_loop(a.fd, l.csb);
	/* A child that closes its copy is nobody's business. */
	in_child(child_closes, &a);
	usleep(20000);
	CHECK(l.result == -1);
	in_child(child_stops, &a);
	end_loop(&l, 0);
	close_port(&a);
}

/* kill -9 of the process that runs the loop: whoever has the descriptor can stop what is no more, and run it himself. */
static void
kloop_killed(void)
{
	struct port a = open_with("vale1:a", NR_EXCLUSIVE, 64), b = open_port("vale1:b");
	struct csb c = make_csb();
	struct loop l;
	uint32_t head;
	int round, status;

	CHECK(enable(a.fd, c.atok, c.ktoa) == 0);
	for (round = 0; round < 3; round++) {
		struct events e = make_events();
		pid_t pid = fork();

		if (pid == 0) {
			start_with(a.fd, 0, round == 1 ? &e : NULL);
			_exit(1);
		}
		await_loop(a.fd, c);
		CHECK(kill(pid, SIGKILL) == 0);
		if (round == 2)
			CHECK(waitpid(pid, &status, 0) == pid);
		CHECK(stop(a.fd) == 0);
		if (round < 2)
			CHECK(waitpid(pid, &status, 0) == pid);
		/* Whether the stop was in time for it or not, nothing is left of it but perhaps that. */
		CHECK(stop(a.fd) == 0 && start_with(a.fd, 0, NULL) == 0);
	}
	start_loop(&l, &a, c, 100, NULL);
	head = csb_put(&l, 0, 3);
	CHECK(wait_for(&c.ktoa[0].hwcur, head));
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, 0) == 3);
	stop_loop(&l);
	close_port(&a);
	close_port(&b);
}

/* Nobody could stop it any more. */
static void
kloop_closed(void)
{
	struct port a = open_with("vale1:a", NR_EXCLUSIVE, 64);
	struct events e = make_events();
	struct loop l;
	int copy;

	start_loop(&l, &a, make_csb(), 0, &e);
	await_loop(a.fd, l.csb);
	copy = dup(a.fd);
	CHECK(close(a.fd) == 0);
	usleep(20000);
	CHECK(l.result == -1);
	CHECK(close(copy) == 0);
	end_loop(&l, 0);
	CHECK(munmap(a.mem, a.reg.nr_memsize) == 0);
	CHECK(!listed("vale1:a"));
}

/* The broker is killed after "ready": the loop ends, in whichever way it waits. */
static void
kloop_of_a_broker_that_dies(void)
{
	struct port a = open_with("vale1:a", NR_EXCLUSIVE, 64), b = open_with("vale1:b", NR_EXCLUSIVE, 64);
	struct events e = make_events();
	struct loop la, lb;

	start_loop(&la, &a, make_csb(), 0, &e);
	start_loop(&lb, &b, make_csb(), 100, NULL);
	await_loop(a.fd, la.csb);
	await_loop(b.fd, lb.csb);
	printf("ready\n");
	fflush(stdout);
	end_loop(&la, ENXIO);
	end_loop(&lb, ENXIO);
	CHECK(stop(a.fd) == ENXIO && start_with(a.fd, 0, NULL) == ENXIO);
}

static const struct test tests[] = {
	{"csb_order_of_checks", csb_order_of_checks},
	{"csb_at_register", csb_at_register},
	{"csb_values", csb_values},
	{"kloop_busy", kloop_busy},
	{"kloop_events", kloop_events},
	{"kloop_negative_eventfds", kloop_negative_eventfds},
	{"kloop_bad_options", kloop_bad_options},
	{"kloop_stop_before_start", kloop_stop_before_start},
	{"kloop_bad_ring", kloop_bad_ring},
	{"kloop_direct", kloop_direct},
	{"kloop_stream", kloop_stream},
	{"kloop_on_rings_of_the_broker", kloop_on_rings_of_the_broker},
	{"kloop_stopped_by_another_process", kloop_stopped_by_another_process},
	{"kloop_killed", kloop_killed},
	{"kloop_closed", kloop_closed},
	{"kloop_of_a_broker_that_dies", kloop_of_a_broker_that_dies},
};

RUN_TESTS(tests)

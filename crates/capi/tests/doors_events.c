/* A program of one thread that waits for 64 netmap descriptors, 8 pipes of the kernel and a TCP socket in one epoll, edge-triggered. The peer
   sends one thing at a time to each, and the next one only when that has been taken: so a lost event stops it for good. */
#include "doors.h"

#include <netinet/in.h>
#include <sys/epoll.h>

#define NETMAP_PIPES 32
#define SWITCH_PORTS 32
#define PORTS (NETMAP_PIPES + SWITCH_PORTS)
#define PIPES 8
#define ALL (PORTS + PIPES + 1)

/* What the receiver has taken of each, in shared memory. */
static uint64_t *taken;
static struct port rx[PORTS];
static int readers[PIPES + 1], writers[PIPES + 1];

static uint64_t
events_wanted(void)
{
	const char *text = getenv("EVENTS");

	return text != NULL ? strtoull(text, NULL, 10) : 1000000;
}

static struct port
small_port(const char *format, int i)
{
	struct port p;
	char name[32];

	memset(&p, 0, sizeof(p));
	p.reg.nr_tx_slots = p.reg.nr_rx_slots = 16;
	snprintf(name, sizeof(name), format, i / 4, i);
	CHECK(bind_port(&p, name) == 0);
	return p;
}

static void
open_sockets(void)
{
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM, 0), i, pair[2];

	for (i = 0; i < PIPES; i++) {
		CHECK(pipe2(pair, O_NONBLOCK) == 0);
		readers[i] = pair[0];
		writers[i] = pair[1];
	}
	memset(&addr, 0, sizeof(addr));
	addr.sin_family = AF_INET;
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK(bind(listener, (struct sockaddr *)&addr, len) == 0 && listen(listener, 1) == 0);
	CHECK(getsockname(listener, (struct sockaddr *)&addr, &len) == 0);
	writers[PIPES] = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(connect(writers[PIPES], (struct sockaddr *)&addr, len) == 0);
	readers[PIPES] = accept(listener, NULL, NULL);
	CHECK(fcntl(readers[PIPES], F_SETFL, O_NONBLOCK) == 0);
	CHECK(close(listener) == 0);
}

/* Sends number `number` to receiver `i`. */
static void
feed_one(struct port *tx, struct port *sender, int i, uint32_t number)
{
	char byte = (char)number;
	struct port *port = i < NETMAP_PIPES ? &tx[i] : sender;
	struct netmap_ring *ring;

	if (i >= PORTS) {
		CHECK(write(writers[i - PORTS], &byte, 1) == 1);
		return;
	}
	ring = TX(port, 0);
	if (nm_ring_empty(ring))
		CHECK(ioctl(port->fd, NIOCTXSYNC, NULL) == 0);
	CHECK(put(port, number, 1) == 1);
	if (i >= NETMAP_PIPES) {
		uint32_t last = (ring->head + ring->num_slots - 1) % ring->num_slots;
		unsigned char *buf = (unsigned char *)NETMAP_BUF(ring, ring->slot[last].buf_idx);

		memset(buf, 2, 5);
		buf[5] = (unsigned char)i;
		memset(buf + 6, 4, 6);
	}
	CHECK(ioctl(port->fd, NIOCTXSYNC, NULL) == 0);
}

/* At most `window` things are under way, and now and then another window is taken: with a small one the receiver sleeps each time. */
static void
feed(struct port *sender, uint64_t want)
{
	static struct port tx[NETMAP_PIPES];
	uint64_t sent[ALL], total = 0, seed = 1;
	uint32_t under_way, window = 1, vain = 0;
	int i;

	memset(sent, 0, sizeof(sent));
	for (i = 0; i < NETMAP_PIPES; i++)
		tx[i] = small_port("vale1:p%d{%d", i);
	while (total < want && failures_ == 0) {
		under_way = 0;
		for (i = 0; i < ALL; i++)
			under_way += sent[i] != __atomic_load_n(&taken[i], __ATOMIC_ACQUIRE);
		if (under_way < window)
			vain = 0;
		else if (++vain > 3000)
			usleep(20); /* the other needs this processor */
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		for (i = (int)(seed >> 33) % ALL; i < ALL && under_way < window && total < want; i++) {
			if (sent[i] != __atomic_load_n(&taken[i], __ATOMIC_ACQUIRE))
				continue;
			feed_one(tx, sender, i, (uint32_t)sent[i]);
			sent[i]++;
			under_way++;
			if (++total % 1000 == 0)
				window = 1 + (uint32_t)(seed >> 40) % ((seed >> 60) == 0 ? 2 : ALL);
		}
	}
}

/* Takes all that is there, until there is nothing: that is what an edge asks for. Returns how much it was. */
static uint64_t
drain(int i)
{
	uint64_t n = 0;

	if (i < PORTS) {
		do {
			n += take(&rx[i], (uint32_t)(taken[i] + n));
			CHECK(ioctl(rx[i].fd, NIOCRXSYNC, NULL) == 0);
		} while (!nm_ring_empty(RX(&rx[i], 0)));
	} else {
		char buf[16];
		ssize_t got, k;

		while ((got = read(readers[i - PORTS], buf, sizeof(buf))) > 0)
			for (k = 0; k < got; k++, n++)
				CHECK(buf[k] == (char)(taken[i] + n));
		CHECK(got < 0 && errno == EAGAIN);
	}
	__atomic_store_n(&taken[i], taken[i] + n, __ATOMIC_RELEASE);
	return n;
}

static void
no_edge_is_lost(void)
{
	uint64_t want = events_wanted(), got = 0, waits = 0, vain = 0;
	struct epoll_event e[16];
	int ep = epoll_create1(0), i, status;
	struct port sender;
	pid_t pid;

	many_files();
	alarm(300);
	taken = (uint64_t *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(taken != MAP_FAILED);
	for (i = 0; i < PORTS; i++)
		rx[i] = small_port(i < NETMAP_PIPES ? "vale1:p%d}%d" : "vale2:r%d_%d", i);
	/* The switch learns where everybody is. */
	sender = open_with("vale2:s", 0, 256);
	for (i = NETMAP_PIPES; i < PORTS; i++) {
		unsigned char *buf = (unsigned char *)NETMAP_BUF(TX(&rx[i], 0), TX(&rx[i], 0)->slot[0].buf_idx);

		CHECK(put(&rx[i], 0, 1) == 1);
		memset(buf, 4, 6);
		memset(buf + 6, 2, 5);
		buf[11] = (unsigned char)i;
		CHECK(ioctl(rx[i].fd, NIOCTXSYNC, NULL) == 0);
	}
	for (i = NETMAP_PIPES; i < PORTS; i++) {
		CHECK(ioctl(rx[i].fd, NIOCRXSYNC, NULL) == 0);
		RX(&rx[i], 0)->head = RX(&rx[i], 0)->cur = RX(&rx[i], 0)->tail;
		CHECK(ioctl(rx[i].fd, NIOCRXSYNC, NULL) == 0);
	}
	open_sockets();
	for (i = 0; i < ALL; i++) {
		e[0].events = EPOLLIN | EPOLLET;
		e[0].data.u64 = (uint64_t)i;
		CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, i < PORTS ? rx[i].fd : readers[i - PORTS], &e[0]) == 0);
	}
	pid = fork();
	if (pid == 0) {
		failures_ = 0;
		feed(&sender, want);
		fflush(stdout);
		_exit(check_result());
	}
	while (got < want && failures_ == 0) {
		int n = epoll_wait(ep, e, ROWS(e), 60000), k;

		CHECK(n > 0);
		waits++;
		for (k = 0; k < n; k++) {
			uint64_t more = drain((int)e[k].data.u64);

			vain += more == 0;
			got += more;
		}
	}
	CHECK(got == want);
	if (failures_ > 0)
		kill(pid, SIGKILL);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	printf("%llu events in %llu waits, %llu told in vain\n", (unsigned long long)got, (unsigned long long)waits,
	    (unsigned long long)vain);
}

static const struct test tests[] = {
	{"no_edge_is_lost", no_edge_is_lost},
};

RUN_TESTS(tests)

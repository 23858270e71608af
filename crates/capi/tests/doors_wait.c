/* Waiting on netmap descriptors and other files together: poll, epoll, threads, signals, a broker that dies. */
#include "doors.h"

#include <netinet/in.h>
#include <stddef.h>
#include <pthread.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define PORTS 64
#define PIPES 8

static void
nothing(int sig)
{
	(void)sig;
}

static void
foreign_files_in_one_poll(void)
{
	struct port a = open_port("vale1:a"), b = open_port("vale1:b");
	struct pollfd p[4];
	int pair[2];

	CHECK(pipe(pair) == 0);
	memset(p, 0, sizeof(p));
	p[0].fd = pair[0];
	p[1].fd = b.fd;
	p[2].fd = -1;
	p[3].fd = pair[1];
	p[0].events = p[1].events = p[2].events = POLLIN;
	CHECK(poll(p, 4, 20) == 0);
	p[3].events = POLLOUT;
	CHECK(poll(p, 4, -1) == 1 && p[3].revents == POLLOUT && p[0].revents == 0 && p[1].revents == 0);
	p[3].events = 0;
	CHECK(put(&a, 0, 1) == 1 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll(p, 4, -1) == 1 && p[1].revents == POLLIN);
	CHECK(write(pair[1], "x", 1) == 1);
	CHECK(poll(p, 4, -1) == 2 && p[0].revents == POLLIN && p[1].revents == POLLIN);
	CHECK(take(&b, 0) == 1 && poll(p, 4, -1) == 1 && p[0].revents == POLLIN && p[1].revents == 0);
	p[2].fd = 99;
	CHECK(poll(p, 4, -1) == 2 && p[2].revents == POLLNVAL);
	close_port(&a);
	close_port(&b);
}

static void
signals_end_a_wait(void)
{
	struct port a = open_port("vale1:a");
	struct sigaction act;
	struct pollfd p;
	struct timespec t;
	sigset_t usr1, none;
	int status;
	pid_t pid;

	memset(&act, 0, sizeof(act));
	act.sa_handler = nothing;
	CHECK(sigaction(SIGUSR1, &act, NULL) == 0);
	p.fd = a.fd;
	p.events = POLLIN;
	pid = fork();
	if (pid == 0) {
		/* Until the parent has enough: a signal may come before its wait. */
		while (getppid() != 1 && kill(getppid(), SIGUSR1) == 0)
			usleep(20000);
		_exit(0);
	}
	CHECK(poll(&p, 1, -1) < 0 && errno == EINTR);
	CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
	/* Blocked, pending, and let in by the wait alone. */
	sigemptyset(&none);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	CHECK(sigprocmask(SIG_BLOCK, &usr1, NULL) == 0 && raise(SIGUSR1) == 0);
	CHECK(poll(&p, 1, 20) == 0);
	t.tv_sec = 10;
	t.tv_nsec = 0;
	CHECK(ppoll(&p, 1, &t, &none) < 0 && errno == EINTR);
	close_port(&a);
}

struct work {
	struct port *port;
	uint32_t count, first;
};

static void *
receive(void *arg)
{
	struct work *w = (struct work *)arg;

	while (w->count > 0) {
		uint32_t n;

		if (!(poll1(w->port->fd, POLLIN, 10000) & POLLIN)) {
			CHECK(w->count == 0);
			break;
		}
		n = take(w->port, w->first);
		w->first += n;
		w->count -= n;
	}
	return NULL;
}

static void *
transmit(void *arg)
{
	struct work *w = (struct work *)arg;

	while (w->count > 0) {
		uint32_t n = put(w->port, w->first, w->count);

		w->first += n;
		w->count -= n;
		if (poll1(w->port->fd, POLLOUT, 10000) != POLLOUT) {
			CHECK(w->count == 0);
			break;
		}
	}
	CHECK(ioctl(w->port->fd, NIOCTXSYNC, NULL) == 0);
	return NULL;
}

static void
threads_on_one_descriptor(void)
{
	struct port p[4];
	struct work w[4];
	pthread_t t[4];
	int i;

	p[0] = open_with("vale1:p{1", 0, 64);
	p[1] = open_port("vale1:p}1");
	/* Each end is read by one thread and written by another. */
	for (i = 0; i < 4; i++) {
		w[i].port = &p[i / 2];
		w[i].first = 0;
		w[i].count = 20000;
		CHECK(pthread_create(&t[i], NULL, i % 2 ? receive : transmit, &w[i]) == 0);
	}
	for (i = 0; i < 4; i++)
		CHECK(pthread_join(t[i], NULL) == 0 && w[i].count == 0);
	close_port(&p[0]);
	close_port(&p[1]);
}

/* From some point on the kernel kills who makes any system call but write and exit. */
static void
work_takes_no_system_call(void)
{
	static const char path[] = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
	struct port a = open_port("vale1:p{1"), b = open_port("vale1:p}1");
	struct sock_filter rules[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 2, 0),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {ROWS(rules), rules};
	FILE *file = fopen(path, "r");
	char clock[32] = "";
	uint32_t i, got = 0;

	if (file == NULL || fgets(clock, sizeof(clock), file) == NULL || (strncmp(clock, "tsc", 3) != 0 && strncmp(clock, "kvm", 3) != 0)) {
		printf("SKIP work_takes_no_system_call: reading the clock is a system call here\n");
		return;
	}
	fclose(file);
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
	for (i = 0; i < 5; i++) {
		CHECK(put(&a, got, 100) == 100 && poll1(a.fd, POLLOUT, -1) == POLLOUT);
		CHECK(poll1(b.fd, POLLIN, -1) == POLLIN);
		got += take(&b, got);
	}
	CHECK(got == 500);
	syscall(SYS_exit_group, failures_);
}

static int
watch(int ep, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e;

	e.events = events;
	e.data.u64 = data;
	return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
}

static void
epoll_level(void)
{
	struct port a = open_port("vale1:a"), b = open_port("vale1:b");
	struct epoll_event e[4];
	struct timespec t;
	int ep = epoll_create1(EPOLL_CLOEXEC), pair[2];

	CHECK(pipe(pair) == 0);
	CHECK(watch(ep, b.fd, EPOLLIN, 7) == 0 && watch(ep, b.fd, EPOLLIN, 7) < 0 && errno == EEXIST);
	CHECK(watch(ep, pair[0], EPOLLIN, 8) == 0);
	CHECK(epoll_wait(ep, e, 4, 20) == 0);
	CHECK(put(&a, 0, 1) == 1 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(epoll_wait(ep, e, 4, -1) == 1 && e[0].data.u64 == 7 && e[0].events == EPOLLIN);
	CHECK(epoll_wait(ep, e, 4, -1) == 1 && e[0].data.u64 == 7);
	CHECK(write(pair[1], "x", 1) == 1);
	CHECK(epoll_wait(ep, e, 4, -1) == 2 && e[0].data.u64 + e[1].data.u64 == 15);
	/* One place: they take turns. */
	CHECK(epoll_wait(ep, e, 1, -1) == 1 && epoll_wait(ep, e + 1, 1, -1) == 1 && e[0].data.u64 + e[1].data.u64 == 15);
	CHECK(take(&b, 0) == 1 && epoll_wait(ep, e, 4, 0) == 1 && e[0].data.u64 == 8);
	e[0].events = EPOLLOUT | EPOLLONESHOT;
	e[0].data.u64 = 9;
	CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, b.fd, &e[0]) == 0 && epoll_ctl(ep, EPOLL_CTL_DEL, pair[0], NULL) == 0);
	t.tv_sec = 5;
	t.tv_nsec = 0;
	CHECK(epoll_pwait2(ep, e, 4, &t, NULL) == 1 && e[0].events == EPOLLOUT && e[0].data.u64 == 9);
	CHECK(epoll_pwait(ep, e, 4, 20, NULL) == 0);
	CHECK(epoll_ctl(ep, EPOLL_CTL_DEL, b.fd, NULL) == 0);
	CHECK(epoll_ctl(ep, EPOLL_CTL_DEL, b.fd, NULL) < 0 && errno == ENOENT);
	CHECK(epoll_wait(ep, e, 0, 0) < 0 && errno == EINVAL);
	CHECK(watch(pair[0], b.fd, EPOLLIN, 1) < 0 && errno == EINVAL);
	/* Closing takes it out. */
	CHECK(watch(ep, a.fd, EPOLLOUT, 1) == 0 && epoll_wait(ep, e, 4, 0) == 1);
	close_port(&a);
	CHECK(epoll_wait(ep, e, 4, 0) == 0);
	close_port(&b);
	CHECK(close(ep) == 0);
}

static void
epoll_edge(void)
{
	struct port a = open_port("vale1:a"), b = open_port("vale1:b");
	struct epoll_event e[4];
	int ep = epoll_create1(0);
	uint32_t i, seen = 0;

	CHECK(watch(ep, b.fd, EPOLLIN | EPOLLET, 7) == 0);
	CHECK(put(&a, 0, 1) == 1 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(epoll_wait(ep, e, 4, -1) == 1 && e[0].events == EPOLLIN);
	/* Told, and nothing new. */
	CHECK(epoll_wait(ep, e, 4, 0) == 0 && epoll_wait(ep, e, 4, 30) == 0);
	for (i = 1; i < 20; i++) {
		CHECK(put(&a, i, 1) == 1 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
		CHECK(epoll_wait(ep, e, 4, 5000) == 1);
	}
	CHECK(epoll_wait(ep, e, 4, 0) == 0);
	seen = take(&b, 0);
	CHECK(seen == 20 && epoll_wait(ep, e, 4, 0) == 0);
	CHECK(put(&a, i, 1) == 1 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && epoll_wait(ep, e, 4, 5000) == 1);
	close_port(&a);
	close_port(&b);
	CHECK(close(ep) == 0);
}

static void *
feed_all(void *arg)
{
	struct port *p = (struct port *)arg;
	uint32_t round;
	int i;

	for (round = 0; round < 200; round++)
		for (i = 0; i < PORTS; i++) {
			while (put(&p[i], round, 1) != 1)
				poll1(p[i].fd, POLLOUT, 1000);
			CHECK(ioctl(p[i].fd, NIOCTXSYNC, NULL) == 0);
		}
	return NULL;
}

/* 64 ends of pipes, 8 pipes of the kernel and a TCP socket in one epoll, all edge-triggered: nothing is lost. */
static void
epoll_of_many(void)
{
	static struct port tx[PORTS], rx[PORTS];
	static uint32_t got[PORTS];
	struct epoll_event e[16];
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);
	int ep = epoll_create1(0), pipes[PIPES][2], listener, client, server, i;
	unsigned left = PORTS * 200, bytes = 0, want = 0;
	pthread_t feeder;

	many_files();
	for (i = 0; i < PORTS; i++) {
		char name[32];

		memset(&tx[i], 0, sizeof(tx[i]));
		memset(&rx[i], 0, sizeof(rx[i]));
		tx[i].reg.nr_tx_slots = tx[i].reg.nr_rx_slots = 16;
		snprintf(name, sizeof(name), "vale1:p%d{%d", i / 4, i);
		CHECK(bind_port(&tx[i], name) == 0);
		snprintf(name, sizeof(name), "vale1:p%d}%d", i / 4, i);
		CHECK(bind_port(&rx[i], name) == 0);
		CHECK(watch(ep, rx[i].fd, EPOLLIN | EPOLLET, (uint64_t)i) == 0);
	}
	for (i = 0; i < PIPES; i++)
		CHECK(pipe2(pipes[i], O_NONBLOCK) == 0 && watch(ep, pipes[i][0], EPOLLIN | EPOLLET, 1000 + (uint64_t)i) == 0);
	memset(&addr, 0, sizeof(addr));
	addr.sin_family = AF_INET;
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	client = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(bind(listener, (struct sockaddr *)&addr, len) == 0 && listen(listener, 1) == 0);
	CHECK(getsockname(listener, (struct sockaddr *)&addr, &len) == 0);
	CHECK(connect(client, (struct sockaddr *)&addr, len) == 0);
	server = accept(listener, NULL, NULL);
	CHECK(fcntl(server, F_SETFL, O_NONBLOCK) == 0 && watch(ep, server, EPOLLIN | EPOLLET, 2000) == 0);
	CHECK(pthread_create(&feeder, NULL, feed_all, tx) == 0);
	while (left > 0 || bytes < want) {
		int n = epoll_wait(ep, e, 16, 10000), k;

		CHECK(n > 0);
		if (n <= 0)
			break;
		for (k = 0; k < n; k++) {
			uint64_t who = e[k].data.u64;

			if (who < PORTS) {
				uint32_t more;

				/* Until there is nothing: that is what an edge asks for. */
				do {
					more = take(&rx[who], got[who]);
					got[who] += more;
					left -= more;
					CHECK(ioctl(rx[who].fd, NIOCRXSYNC, NULL) == 0);
				} while (!nm_ring_empty(RX(&rx[who], 0)));
				if (left % 64 == 0) {
					int to = (left / 64) % (PIPES + 1) == PIPES ? client : pipes[(left / 64) % (PIPES + 1)][1];

					want += write(to, "x", 1) == 1;
				}
			} else {
				int from = who == 2000 ? server : pipes[who - 1000][0];
				char buf[64];
				ssize_t r;

				while ((r = read(from, buf, sizeof(buf))) > 0)
					bytes += (unsigned)r;
			}
		}
	}
	CHECK(pthread_join(feeder, NULL) == 0 && left == 0 && bytes == want && want > 0);
}

/* How a thread waits that is cancelled meanwhile. */
struct asleep {
	int fd, ep, how;
};

static void *
asleep(void *arg)
{
	struct asleep *a = arg;
	struct pollfd p[2] = {{.fd = a->fd, .events = POLLIN}, {.fd = -1, .events = 0}};
	struct timespec hour = {.tv_sec = 3600, .tv_nsec = 0};
	struct epoll_event e;
	fd_set set;

	FD_ZERO(&set);
	FD_SET(a->fd, &set);
	switch (a->how) {
	case 0:
		poll(p, 1, -1);
		break;
	case 1:
		poll(p, 2, 3600000);
		break;
	case 2:
		ppoll(p, 2, &hour, NULL);
		break;
	case 3:
		select(a->fd + 1, &set, NULL, NULL, NULL);
		break;
	case 4:
		pselect(a->fd + 1, &set, NULL, NULL, &hour, NULL);
		break;
	case 5:
		epoll_wait(a->ep, &e, 1, -1);
		break;
	case 6:
		while (poll(p, 1, 0) == 0)
			;
		break;
	default:
		/* It does not wait long, but again and again. */
		while (poll(p, 1, 1) == 0)
			;
	}
	return NULL;
}

static void
waits_can_be_cancelled(void)
{
	struct asleep a = {.ep = epoll_create1(0), .how = 0};
	struct port b = open_port("vale1:b");
	fd_set set;
	struct timeval tv = {.tv_sec = 0, .tv_usec = 700000};
	pthread_t thread;
	void *result;

	a.fd = b.fd;
	CHECK(watch(a.ep, b.fd, EPOLLIN, 1) == 0);
	for (; a.how < 8; a.how++) {
		CHECK(pthread_create(&thread, NULL, asleep, &a) == 0);
		poll(NULL, 0, 20);
		CHECK(pthread_cancel(thread) == 0);
		CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
	}
	/* What is longer than a thread may be deaf is waited for to its end, and only then is the set empty. */
	FD_ZERO(&set);
	FD_SET(b.fd, &set);
	CHECK(select(b.fd + 1, &set, NULL, NULL, &tv) == 0 && !FD_ISSET(b.fd, &set));
	CHECK(tv.tv_sec == 0 && tv.tv_usec == 0);
	/* Nothing of the cancelled ones holds it. */
	close_port(&b);
	b = open_port("vale1:b");
	close_port(&b);
}

/* The test kills the broker when this says so. */
static void
a_broker_that_dies(void)
{
	struct port a = open_port("vale1:a");
	struct epoll_event e[2];
	struct pollfd p[2];
	int ep = epoll_create1(0), pair[2];

	CHECK(pipe(pair) == 0 && watch(ep, a.fd, EPOLLIN, 1) == 0);
	CHECK(poll1(a.fd, POLLIN, 10) == 0);
	printf("ready\n");
	fflush(stdout);
	CHECK(poll1(a.fd, POLLIN, 10000) & POLLERR);
	CHECK(poll1(a.fd, POLLIN, -1) & POLLERR);
	p[0].fd = a.fd;
	p[1].fd = pair[0];
	p[0].events = p[1].events = POLLIN;
	CHECK(poll(p, 2, -1) == 1 && p[0].revents & POLLERR);
	CHECK(epoll_wait(ep, e, 2, -1) == 1 && e[0].events & EPOLLERR);
	CHECK(ioctl(a.fd, NIOCTXSYNC, NULL) < 0 && errno == ENXIO);
	CHECK(open("/dev/netmap", O_RDWR) < 0 && errno == ENOENT);
	close_port(&a);
}

static const struct test tests[] = {
	{"foreign_files_in_one_poll", foreign_files_in_one_poll},
	{"signals_end_a_wait", signals_end_a_wait},
	{"threads_on_one_descriptor", threads_on_one_descriptor},
	{"work_takes_no_system_call", work_takes_no_system_call},
	{"epoll_level", epoll_level},
	{"epoll_edge", epoll_edge},
	{"epoll_of_many", epoll_of_many},
	{"waits_can_be_cancelled", waits_can_be_cancelled},
	{"a_broker_that_dies", a_broker_that_dies},
};

RUN_TESTS(tests)

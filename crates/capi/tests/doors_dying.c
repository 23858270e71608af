/* The broker is killed while everything waits: nothing hangs. The test that started this program kills it when this says "ready". */
#include "doors.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>

/* A thread that waits in its own way, on a port of its own. */
struct sleeper {
	const char *name;
	/* 1 if it was told of an error, 0 if not. */
	int (*wait)(struct port *p);
	const char *port;
	struct port p;
	pthread_t thread;
	pid_t tid;
	int result, about_to_wait;
};

static int
by_poll(struct port *p)
{
	return (poll1(p->fd, POLLIN, -1) & POLLERR) != 0;
}

static int
by_poll_with_time(struct port *p)
{
	return (poll1(p->fd, POLLIN, 50000) & POLLERR) != 0;
}

static int
by_poll_out(struct port *p)
{
	return (poll1(p->fd, POLLOUT, -1) & POLLERR) != 0;
}

static int
by_poll_of_nothing(struct port *p)
{
	return (poll1(p->fd, 0, -1) & POLLERR) != 0;
}

static int
by_poll_with_others(struct port *p)
{
	struct pollfd fds[2];
	int pair[2];

	CHECK(pipe(pair) == 0);
	fds[0].fd = pair[0];
	fds[1].fd = p->fd;
	fds[0].events = fds[1].events = POLLIN;
	return poll(fds, 2, -1) == 1 && (fds[1].revents & POLLERR) != 0 && fds[0].revents == 0;
}

static int
by_ppoll(struct port *p)
{
	struct timespec t = {50, 0};
	struct pollfd fd;
	sigset_t none;

	sigemptyset(&none);
	fd.fd = p->fd;
	fd.events = POLLIN;
	return ppoll(&fd, 1, &t, &none) == 1 && (fd.revents & POLLERR) != 0;
}

/* select says of an error that reading would not wait. */
static int
by_select(struct port *p)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(p->fd, &set);
	return select(p->fd + 1, &set, NULL, NULL, NULL) == 1 && FD_ISSET(p->fd, &set);
}

static int
by_pselect(struct port *p)
{
	struct timespec t = {50, 0};
	fd_set set;

	FD_ZERO(&set);
	FD_SET(p->fd, &set);
	return pselect(p->fd + 1, &set, NULL, NULL, &t, NULL) == 1 && FD_ISSET(p->fd, &set);
}

static int
epoll_with(struct port *p, uint32_t events)
{
	int ep = epoll_create1(0);
	struct epoll_event e;

	e.events = events;
	e.data.u64 = 1;
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, p->fd, &e) == 0);
	return ep;
}

static int
by_epoll(struct port *p)
{
	struct epoll_event e;

	return epoll_wait(epoll_with(p, EPOLLIN), &e, 1, -1) == 1 && (e.events & EPOLLERR) != 0;
}

static int
by_epoll_edge(struct port *p)
{
	struct epoll_event e;

	return epoll_wait(epoll_with(p, EPOLLIN | EPOLLET), &e, 1, -1) == 1 && (e.events & EPOLLERR) != 0;
}

static int
by_epoll_pwait(struct port *p)
{
	struct epoll_event e;
	sigset_t none;

	sigemptyset(&none);
	return epoll_pwait(epoll_with(p, EPOLLIN), &e, 1, 50000, &none) == 1 && (e.events & EPOLLERR) != 0;
}

static struct sleeper sleepers[] = {
	{"poll", by_poll, "vale1:a", {0}, 0, 0, 0, 0},
	{"poll with a time", by_poll_with_time, "vale1:b", {0}, 0, 0, 0, 0},
	{"poll of a full pipe", by_poll_out, "vale2:x{1", {0}, 0, 0, 0, 0},
	{"poll of an empty pipe", by_poll, "vale2:y}1", {0}, 0, 0, 0, 0},
	{"poll for no event", by_poll_of_nothing, "vale1:n", {0}, 0, 0, 0, 0},
	{"poll with other files", by_poll_with_others, "vale1:c", {0}, 0, 0, 0, 0},
	{"ppoll", by_ppoll, "vale1:d", {0}, 0, 0, 0, 0},
	{"select", by_select, "vale1:e", {0}, 0, 0, 0, 0},
	{"pselect", by_pselect, "vale1:f", {0}, 0, 0, 0, 0},
	{"epoll_wait", by_epoll, "vale1:g", {0}, 0, 0, 0, 0},
	{"epoll_wait, edges", by_epoll_edge, "vale1:h", {0}, 0, 0, 0, 0},
	{"epoll_pwait", by_epoll_pwait, "vale1:i", {0}, 0, 0, 0, 0},
	{"poll of a monitor", by_poll, "vale1:m", {0}, 0, 0, 0, 0},
};

static void *
sleep_in(void *arg)
{
	struct sleeper *s = (struct sleeper *)arg;

	s->tid = (pid_t)syscall(SYS_gettid);
	__atomic_store_n(&s->about_to_wait, 1, __ATOMIC_RELEASE);
	s->result = s->wait(&s->p);
	__atomic_store_n(&s->about_to_wait, 2, __ATOMIC_RELEASE);
	return NULL;
}

/* Whether a thread sleeps in the kernel, by the kernel's word. */
static int
sleeps(pid_t tid)
{
	char path[64], text[512], *state;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	file = fopen(path, "r");
	if (file == NULL)
		return 0;
	if (fgets(text, sizeof(text), file) == NULL)
		text[0] = '\0';
	fclose(file);
	state = strrchr(text, ')');
	return state != NULL && state[2] == 'S';
}

/* Until a thread has been found asleep several times. */
static void
until_asleep(const int *about_to_wait, const pid_t *tid)
{
	int times = 0;

	while (times < 5) {
		usleep(1000);
		/* A sync by the broker takes short naps: so not in a row. */
		times += __atomic_load_n(about_to_wait, __ATOMIC_ACQUIRE) == 1 && sleeps(*tid);
		if (__atomic_load_n(about_to_wait, __ATOMIC_ACQUIRE) == 2) {
			CHECK(!"it went on at once");
			return;
		}
	}
}

static void
ready(void)
{
	printf("ready\n");
	fflush(stdout);
}

static void
all_waits_end(void)
{
	struct port parent = open_port("vale1:parent");
	size_t i;

	for (i = 0; i < ROWS(sleepers); i++) {
		struct sleeper *s = &sleepers[i];
		uint64_t flags = strcmp(s->port, "vale1:m") == 0 ? NR_MONITOR_RX : 0;

		s->p = open_with(flags ? "vale1:parent" : s->port, flags, 32);
		if (s->wait == by_poll_out)
			CHECK(put(&s->p, 0, 100) == 31);
		CHECK(pthread_create(&s->thread, NULL, sleep_in, s) == 0);
		until_asleep(&s->about_to_wait, &s->tid);
	}
	ready();
	alarm(20);
	for (i = 0; i < ROWS(sleepers); i++) {
		struct sleeper *s = &sleepers[i];

		CHECK(pthread_join(s->thread, NULL) == 0);
		CHECK_ROW(s->name, s->result == 1);
		/* And then it says so at once. */
		CHECK_ROW(s->name, s->wait(&s->p) == 1);
		CHECK_ROW(s->name, ioctl(s->p.fd, NIOCTXSYNC, NULL) < 0 && errno == ENXIO);
		CHECK_ROW(s->name, ioctl(s->p.fd, NIOCRXSYNC, NULL) < 0 && errno == ENXIO);
		/* The memory stays. */
		CHECK_ROW(s->name, RX(&s->p, 0)->num_slots > 0);
		close_port(&s->p);
	}
	close_port(&parent);
}

/* A thread in a call that the broker would have to answer, while the broker is stopped. */
struct caller {
	const char *name;
	int (*call)(struct caller *c); /* 1 if it failed as it must */
	int fd, result, about_to_wait;
	struct port *ports;
	pthread_t thread;
	pid_t tid;
};

static int
call_open(struct caller *c)
{
	(void)c;
	return open("/dev/netmap", O_RDWR) < 0 && errno == ENOENT;
}

static int
call_register(struct caller *c)
{
	struct nmreq_register reg;

	memset(&reg, 0, sizeof(reg));
	reg.nr_mode = NR_REG_ALL_NIC;
	return request(c->fd, NETMAP_REQ_REGISTER, "vale1:z", &reg, NULL) < 0 && errno == ENXIO;
}

static int
call_info(struct caller *c)
{
	struct nmreq_port_info_get info;

	memset(&info, 0, sizeof(info));
	return request(c->fd, NETMAP_REQ_PORT_INFO_GET, "vale1:a", &info, NULL) < 0 && errno == ENXIO;
}

static int
call_regif(struct caller *c)
{
	struct nmreq req;

	memset(&req, 0, sizeof(req));
	req.nr_version = NETMAP_API;
	strcpy(req.nr_name, "vale1:y");
	return ioctl(c->fd, NIOCREGIF, &req) < 0 && errno == ENXIO;
}

static struct caller callers[] = {
	{"REGISTER", call_register, -1, 0, 0, NULL, 0, 0},
	{"PORT_INFO_GET", call_info, -1, 0, 0, NULL, 0, 0},
	{"NIOCREGIF", call_regif, -1, 0, 0, NULL, 0, 0},
	{"open", call_open, -1, 0, 0, NULL, 0, 0},
};

static void *
call_in(void *arg)
{
	struct caller *c = (struct caller *)arg;

	c->tid = (pid_t)syscall(SYS_gettid);
	__atomic_store_n(&c->about_to_wait, 1, __ATOMIC_RELEASE);
	c->result = c->call(c);
	__atomic_store_n(&c->about_to_wait, 2, __ATOMIC_RELEASE);
	return NULL;
}

/* "ready": stop the broker. A line comes. "asked": kill it. */
static void
all_requests_end(void)
{
	struct port a = open_port("vale1:a");
	char line[16];
	size_t i;

	for (i = 0; i < ROWS(callers); i++)
		if (callers[i].call != call_open) {
			callers[i].fd = open("/dev/netmap", O_RDWR);
			CHECK(callers[i].fd >= 0);
		}
	ready();
	CHECK(fgets(line, sizeof(line), stdin) != NULL);
	for (i = 0; i < ROWS(callers); i++) {
		CHECK(pthread_create(&callers[i].thread, NULL, call_in, &callers[i]) == 0);
		until_asleep(&callers[i].about_to_wait, &callers[i].tid);
	}
	printf("asked\n");
	fflush(stdout);
	alarm(20);
	for (i = 0; i < ROWS(callers); i++) {
		CHECK(pthread_join(callers[i].thread, NULL) == 0);
		CHECK_ROW(callers[i].name, callers[i].result == 1);
	}
	CHECK(poll1(a.fd, POLLIN, -1) & POLLERR);
}

static int
call_txsync(struct caller *c)
{
	CHECK(put(&c->ports[0], 0, 5) == 5);
	return ioctl(c->ports[0].fd, NIOCTXSYNC, NULL) < 0 && errno == ENXIO;
}

/* Another user is handed the descriptors, so the broker works for him: the sync itself waits for it. */
static void
a_sync_by_the_broker_ends(void)
{
	struct caller c = {"NIOCTXSYNC", call_txsync, -1, 0, 0, NULL, 0, 0};
	struct port p[2];
	char line[16];
	int pair[2], status, i;
	pid_t pid;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	pid = fork();
	if (pid == 0) {
		failures_ = 0;
		CHECK(setgid(65534) == 0 && setuid(65534) == 0);
		for (i = 0; i < 2; i++) {
			p[i].fd = recv_fd(pair[1], &p[i].reg, sizeof(p[i].reg));
			CHECK(map_port(&p[i]) == 0);
		}
		exchange(&p[0], &p[1]);
		exchange(&p[1], &p[0]);
		ready();
		CHECK(fgets(line, sizeof(line), stdin) != NULL);
		c.ports = p;
		CHECK(pthread_create(&c.thread, NULL, call_in, &c) == 0);
		until_asleep(&c.about_to_wait, &c.tid);
		printf("asked\n");
		fflush(stdout);
		alarm(20);
		CHECK(pthread_join(c.thread, NULL) == 0 && c.result == 1);
		CHECK(poll1(p[1].fd, POLLIN, -1) & POLLERR);
		fflush(stdout);
		_exit(check_result());
	}
	for (i = 0; i < 2; i++) {
		p[i] = open_port(i == 0 ? "vale1:a" : "vale1:b");
		send_fd(pair[0], p[i].fd, &p[i].reg, sizeof(p[i].reg));
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static const struct test tests[] = {
	{"all_waits_end", all_waits_end},
	{"all_requests_end", all_requests_end},
	{"a_sync_by_the_broker_ends", a_sync_by_the_broker_ends},
};

RUN_TESTS(tests)

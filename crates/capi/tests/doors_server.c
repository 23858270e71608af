/* A server that opens ports and hands the descriptors to others over a Unix socket (semantics.md 10): they map, sync, poll and fork, and
   go on when it is gone. */
#include "doors.h"

#include <stddef.h>
#include <sys/epoll.h>
#include <sys/un.h>

#define FRAMES 20000
#define NAMES 4

static struct sockaddr_un address;
static socklen_t address_len;

/* An abstract address, which others inherit. */
static int
listen_somewhere(void)
{
	int sock = socket(AF_UNIX, SOCK_STREAM, 0);

	memset(&address, 0, sizeof(address));
	address.sun_family = AF_UNIX;
	snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "ringway-test-server-%d", (int)getpid());
	address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1));
	CHECK(bind(sock, (struct sockaddr *)&address, address_len) == 0 && listen(sock, 16) == 0);
	return sock;
}

/* Each connection asks for one port by its name. Who asks for a name again gets the same descriptor. */
static void
serve(int listener)
{
	struct port ports[NAMES];
	char names[NAMES][64], name[64];
	int known = 0, i;

	for (;;) {
		int sock = accept(listener, NULL, NULL);

		if (sock < 0 || recv(sock, name, sizeof(name), MSG_WAITALL) != (ssize_t)sizeof(name))
			_exit(2);
		for (i = 0; i < known && strcmp(names[i], name) != 0; i++)
			;
		if (i == known) {
			memcpy(names[known], name, sizeof(name));
			ports[known++] = open_with(name, 0, 256);
			/* It has no use for the memory. */
			munmap(ports[i].mem, ports[i].reg.nr_memsize);
		}
		send_fd(sock, ports[i].fd, &ports[i].reg, sizeof(ports[i].reg));
		if (failures_ > 0)
			_exit(2);
		close(sock);
	}
}

static struct port
ask(const char *port_name)
{
	char name[64];
	struct port p;
	int sock = socket(AF_UNIX, SOCK_STREAM, 0);

	memset(&p, 0, sizeof(p));
	memset(name, 0, sizeof(name));
	snprintf(name, sizeof(name), "%s", port_name);
	CHECK(connect(sock, (struct sockaddr *)&address, address_len) == 0);
	CHECK(send(sock, name, sizeof(name), 0) == (ssize_t)sizeof(name));
	p.fd = recv_fd(sock, &p.reg, sizeof(p.reg));
	close(sock);
	CHECK(map_port(&p) == 0);
	return p;
}

static pid_t
start_server(void)
{
	int listener = listen_somewhere();
	pid_t pid = fork();

	if (pid == 0)
		serve(listener);
	close(listener);
	return pid;
}

static void
stop_server(pid_t pid)
{
	int status;

	CHECK(kill(pid, SIGKILL) == 0);
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
}

static void
send_some(struct port *p, uint32_t first, uint32_t count)
{
	while (count > 0) {
		uint32_t n = put(p, first, count);

		first += n;
		count -= n;
		if (poll1(p->fd, POLLOUT, 10000) != POLLOUT) {
			CHECK(count == 0);
			return;
		}
	}
}

/* Waits by epoll. Tells in `half` when it has passed the middle. */
static void
receive_some(struct port *p, uint32_t first, uint32_t count, int half)
{
	uint32_t end = first + count, middle = first + count / 2;
	struct epoll_event e;
	int ep = epoll_create1(0);

	e.events = EPOLLIN;
	e.data.u64 = 1;
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, p->fd, &e) == 0);
	while (first < end) {
		uint32_t before = first;

		if (epoll_wait(ep, &e, 1, 10000) != 1) {
			CHECK(first == end);
			break;
		}
		first += take(p, first);
		if (half >= 0 && before < middle && first >= middle)
			CHECK(write(half, "x", 1) == 1);
	}
	CHECK(ioctl(p->fd, NIOCRXSYNC, NULL) == 0);
	close(ep);
}

struct part {
	struct port port;
	int receives, half;
};

static void
second_half(void *arg)
{
	struct part *part = (struct part *)arg;

	if (part->receives)
		receive_some(&part->port, FRAMES / 2, FRAMES / 2, -1);
	else
		send_some(&part->port, FRAMES / 2, FRAMES / 2);
}

/* A client that does half of the work itself, and lets its own child do the other half on the same descriptor. */
static pid_t
client(const char *name, int receives, int half)
{
	pid_t pid = fork();

	if (pid == 0) {
		struct part part;

		failures_ = 0;
		part.port = ask(name);
		part.receives = receives;
		part.half = half;
		if (receives)
			receive_some(&part.port, 0, FRAMES / 2, half);
		else
			send_some(&part.port, 0, FRAMES / 2);
		in_child(second_half, &part);
		/* Another one for itself, if the server lives or not. */
		CHECK(ioctl(part.port.fd, receives ? NIOCRXSYNC : NIOCTXSYNC, NULL) == 0);
		close_port(&part.port);
		fflush(stdout);
		_exit(check_result());
	}
	return pid;
}

/* The server is killed while its clients work. */
static void
descriptors_outlive_their_server(void)
{
	pid_t server = start_server(), from, to;
	struct port a, b;
	int half[2], status;
	char byte;

	CHECK(pipe(half) == 0);
	to = client("vale1:p}1", 1, half[1]);
	from = client("vale1:p{1", 0, -1);
	a = ask("vale1:a");
	b = ask("vale1:b");
	exchange(&a, &b);
	CHECK(read(half[0], &byte, 1) == 1);
	stop_server(server);
	exchange(&b, &a);
	CHECK(waitpid(from, &status, 0) == from && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	CHECK(waitpid(to, &status, 0) == to && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	exchange(&a, &b);
	CHECK(listed("vale1:a"));
	close_port(&a);
	CHECK(!listed("vale1:a") && listed("vale1:b"));
	close_port(&b);
}

static void
first_receiver(void *arg)
{
	struct port *b = (struct port *)arg, mine = ask("vale1:q{1");

	send_some(&mine, 0, 100);
	CHECK(poll1(b->fd, POLLIN, 5000) == POLLIN);
	/* Takes 30 of them, and is killed with the rest. */
	RX(b, 0)->head = RX(b, 0)->cur = 30;
	CHECK(ioctl(b->fd, NIOCRXSYNC, NULL) == 0);
	fflush(stdout);
	if (failures_ == 0)
		raise(SIGKILL);
}

/* Later receivers go on from where the rings are. */
static void
later_receivers_go_on(void)
{
	pid_t server = start_server(), pid;
	struct port a, b;
	int status;

	b = ask("vale1:q}1");
	pid = fork();
	if (pid == 0) {
		first_receiver(&b);
		_exit(1);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	close_port(&b);
	a = ask("vale1:q{1");
	b = ask("vale1:q}1");
	CHECK(TX(&a, 0)->head == 100 && RX(&b, 0)->head == 30);
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, 30) == 70);
	send_some(&a, 100, 50);
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN && take(&b, 100) == 50);
	stop_server(server);
	close_port(&a);
	close_port(&b);
}

static const struct test tests[] = {
	{"descriptors_outlive_their_server", descriptors_outlive_their_server},
	{"later_receivers_go_on", later_receivers_go_on},
};

RUN_TESTS(tests)

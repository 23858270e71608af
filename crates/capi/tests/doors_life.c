/* How long a descriptor lives: copies, forks, exec, sockets, maps, and programs that close everything (semantics.md 10). */
#include "doors.h"

#include <dirent.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>

extern char **environ;

static void
close_unbinds_at_once(void)
{
	int i;

	for (i = 0; i < 50; i++) {
		struct port a = open_with("vale1:a", NR_EXCLUSIVE, 0);

		close_port(&a);
		CHECK(!listed("vale1:a"));
	}
}

static void
a_map_keeps_the_port(void)
{
	struct port a = open_port("vale1:a");
	uint64_t half = a.reg.nr_memsize / 2;

	CHECK(close(a.fd) == 0);
	CHECK(listed("vale1:a") && TX(&a, 0)->num_slots == a.reg.nr_tx_slots);
	CHECK(munmap(a.mem, half) == 0);
	CHECK(listed("vale1:a"));
	CHECK(munmap(a.mem + half, a.reg.nr_memsize - half) == 0);
	CHECK(!listed("vale1:a"));
}

static void
copies_keep_the_port(void)
{
	struct port a = open_port("vale1:a"), b = open_port("vale1:b");
	int copy = dup(a.fd), high = fcntl(a.fd, F_DUPFD, 300), on = open("/dev/null", O_RDWR);

	CHECK(copy >= 0 && high >= 300 && dup2(a.fd, on) == on && dup2(on, on) == on);
	CHECK(dup3(a.fd, a.fd, 0) < 0 && errno == EINVAL);
	CHECK(close(a.fd) == 0 && munmap(a.mem, a.reg.nr_memsize) == 0);
	CHECK(close(copy) == 0 && close(on) == 0 && listed("vale1:a"));
	a.fd = high;
	CHECK(map_port(&a) == 0);
	exchange(&a, &b);
	exchange(&b, &a);
	CHECK(munmap(a.mem, a.reg.nr_memsize) == 0);
	/* Another file takes its number. */
	on = open("/dev/null", O_RDWR);
	CHECK(dup2(on, high) == high && !listed("vale1:a"));
	CHECK(poll1(high, POLLIN, 0) == POLLIN && write(high, "x", 1) == 1);
	close_port(&b);
}

static void
child_goes_on(void *arg)
{
	struct port *p = (struct port *)arg;

	exchange(&p[0], &p[1]);
	exchange(&p[1], &p[0]);
	close_port(&p[0]);
	close_port(&p[1]);
}

static void
fork_shares(void)
{
	struct port p[2];

	p[0] = open_port("vale1:a");
	p[1] = open_port("vale1:b");
	exchange(&p[0], &p[1]);
	in_child(child_goes_on, p);
	exchange(&p[0], &p[1]);
	in_child(child_goes_on, p);
	exchange(&p[1], &p[0]);
	close_port(&p[0]);
	CHECK(!listed("vale1:a"));
	close_port(&p[1]);
}

static void
daemons_fork_twice_and_close_all(void)
{
	struct port a, b;
	pid_t pid = fork();
	int fd, status;

	if (pid == 0) {
		pid = fork();
		if (pid == 0) {
			for (fd = 3; fd < 1024; fd++)
				close(fd);
			a = open_port("vale1:a");
			b = open_port("vale1:b");
			exchange(&a, &b);
			fflush(stdout);
			_exit(check_result());
		}
		_exit(waitpid(pid, &status, 0) != pid || status != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

/* Fds of this process that are not in `mine`, counted; each must be close-on-exec and not below `floor`. */
static int
hidden(const int *mine, int n, int floor)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;
	int count = 0, i;

	while ((e = readdir(dir)) != NULL) {
		int fd = atoi(e->d_name), known = fd <= 2 || fd == dirfd(dir) || e->d_name[0] == '.';

		for (i = 0; i < n; i++)
			known |= fd == mine[i];
		if (known)
			continue;
		count++;
		CHECK(fd >= floor);
		CHECK(syscall(SYS_fcntl, fd, F_GETFD) == FD_CLOEXEC);
	}
	closedir(dir);
	return count;
}

/* The lowest fd that the library keeps, by the kernel's list. */
static int
a_hidden_fd(const struct port *p)
{
	int fd;

	for (fd = 3; fd < 70000; fd++)
		if (fd != p->fd && syscall(SYS_fcntl, fd, F_GETFD) >= 0 && fcntl(fd, F_GETFD) < 0)
			return fd;
	return -1;
}

static void
what_the_library_keeps(void)
{
	struct rlimit limit;
	struct port a, b;
	int mine[66], n = 2, fd, null;

	for (fd = 3; fd < 1000 && n < 66; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			mine[n++] = fd; /* inherited */
	getrlimit(RLIMIT_NOFILE, &limit);
	a = open_port("vale1:a");
	b = open_port("vale1:b");
	mine[0] = a.fd;
	mine[1] = b.fd;
	CHECK(a.fd < FD_SETSIZE && b.fd < FD_SETSIZE);
	CHECK(poll1(a.fd, POLLIN, 10) == 0);
	CHECK(hidden(mine, n, limit.rlim_cur > 16384 ? 8192 : (int)limit.rlim_cur / 2) > 0);
	close_port(&b);
	fd = a_hidden_fd(&a);
	CHECK(fd > a.fd);
	null = open("/dev/null", O_RDWR);
	CHECK(dup2(null, fd) < 0 && errno == EBUSY);
	CHECK(dup(fd) < 0 && errno == EBADF);
	CHECK(close(fd) < 0 && errno == EBADF);
	b = open_port("vale1:b");
	exchange(&a, &b);
	exchange(&b, &a);
	close_port(&a);
	close_port(&b);
	CHECK(close(null) == 0);
}

/* Everything that the program does not know is closed: the port, of which it keeps a copy, lives. */
static void
survives(void (*close_all)(int but))
{
	struct port a = open_port("vale1:a"), b = open_port("vale1:b");
	int low;

	CHECK(dup2(a.fd, 200) == 200 && dup2(b.fd, 201) == 201);
	close_all(200);
	low = open("/dev/null", O_RDONLY);
	CHECK(low < 200 && close(low) == 0);
	a.fd = 200;
	b.fd = 201;
	exchange(&a, &b);
	CHECK(poll1(a.fd, POLLIN, 20) == 0);
	exchange(&b, &a);
	close_port(&a);
	CHECK(!listed("vale1:a"));
	close_port(&b);
}

static void
by_loop(int but)
{
	int fd;

	for (fd = 3; fd < 70000; fd++)
		if (fd != but && fd != but + 1)
			close(fd);
}

static void
by_range(int but)
{
	CHECK(close_range(3, but - 1, 0) == 0);
	CHECK(close_range(but + 2, ~0U, 0) == 0);
}

static void
by_closefrom(int but)
{
	CHECK(close_range(3, but - 1, 0) == 0);
	closefrom(but + 2);
}

static void
close_loops(void)
{
	survives(by_loop);
	survives(by_range);
	survives(by_closefrom);
}

static void
closefrom_closes_ports(void)
{
	struct port a = open_port("vale1:a");

	CHECK(munmap(a.mem, a.reg.nr_memsize) == 0);
	closefrom(3);
	CHECK(!listed("vale1:a"));
}

/* Closed past the doors: the number's next file is not taken for the port. */
static void
closed_by_a_bare_system_call(void)
{
	struct port a = open_port("vale1:a");
	struct pollfd p[2];
	int pair[2];

	CHECK(munmap(a.mem, a.reg.nr_memsize) == 0);
	CHECK(syscall(SYS_close, a.fd) == 0 && pipe(pair) == 0 && pair[0] == a.fd);
	CHECK(write(pair[1], "x", 1) == 1);
	CHECK(poll1(pair[0], POLLIN, 10000) == POLLIN);
	CHECK(!listed("vale1:a"));
	a = open_port("vale1:a");
	CHECK(munmap(a.mem, a.reg.nr_memsize) == 0);
	CHECK(syscall(SYS_dup2, pair[1], a.fd) == a.fd);
	p[0].fd = pair[0];
	p[1].fd = a.fd;
	p[0].events = 0;
	p[1].events = 0; /* nothing that is ever ready */
	poll(p, 2, 10);
	p[1].events = POLLOUT;
	CHECK(poll(p, 2, 10000) == 1 && p[1].revents == POLLOUT && write(a.fd, "x", 1) == 1);
	CHECK(!listed("vale1:a"));
}

static void
s10_a_descriptor_arrives(void)
{
	int pair[2], status;
	struct port a, b;
	pid_t pid;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	pid = fork();
	if (pid == 0) {
		/* Opens nothing itself: it gets both ends, and closes its side at the end. */
		a.fd = recv_fd(pair[1], &a.reg, sizeof(a.reg));
		b.fd = recv_fd(pair[1], &b.reg, sizeof(b.reg));
		CHECK(poll1(a.fd, POLLOUT, 0) == POLLOUT); /* before any ioctl or map */
		CHECK(map_port(&a) == 0 && map_port(&b) == 0);
		exchange(&a, &b);
		CHECK(poll1(b.fd, POLLIN, 20) == 0);
		exchange(&b, &a);
		fflush(stdout);
		_exit(check_result());
	}
	a = open_port("vale1:a");
	b = open_port("vale1:b");
	exchange(&a, &b);
	send_fd(pair[0], a.fd, &a.reg, sizeof(a.reg));
	send_fd(pair[0], b.fd, &b.reg, sizeof(b.reg));
	close_port(&a);
	close_port(&b);
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	CHECK(!listed("vale1:a"));
}

/* argv: FD NAME_OF_PEER OFFSET MEMSIZE: goes on with a descriptor that came over exec. */
static void
inherited(char **argv, int by_map)
{
	struct port a, b;

	a.fd = atoi(argv[2]);
	a.reg.nr_offset = strtoull(argv[4], NULL, 10);
	a.reg.nr_memsize = strtoull(argv[5], NULL, 10);
	if (!by_map)
		CHECK(ioctl(a.fd, NIOCRXSYNC, NULL) == 0);
	CHECK(map_port(&a) == 0);
	b = open_port(argv[3]);
	exchange(&b, &a);
	exchange(&a, &b);
}

static void
over_exec(void)
{
	static const char *const roles[] = {"inherited", "inherited_map"};
	struct port a = open_port("vale1:p{1"), shut = open_port("vale1:c");
	char fd[16], offset[32], size[32];
	int status, i;

	snprintf(fd, sizeof(fd), "%d", a.fd);
	snprintf(offset, sizeof(offset), "%llu", (unsigned long long)a.reg.nr_offset);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)a.reg.nr_memsize);
	CHECK(fcntl(shut.fd, F_SETFD, FD_CLOEXEC) == 0);
	for (i = 0; i < 4; i++) {
		char name[16];
		char *args[7];
		pid_t pid;

		snprintf(name, sizeof(name), "vale1:p}1");
		args[0] = (char *)(uintptr_t)"doors_life";
		args[1] = (char *)(uintptr_t)roles[i % 2];
		args[2] = fd;
		args[3] = name;
		args[4] = offset;
		args[5] = size;
		args[6] = NULL;
		if (i < 2) {
			CHECK(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, args, environ) == 0);
		} else {
			pid = vfork();
			if (pid == 0) {
				/* What a child of vfork closes is its own. */
				close(shut.fd);
				execve("/proc/self/exe", args, environ);
				_exit(9);
			}
		}
		CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
		CHECK(ioctl(shut.fd, NIOCTXSYNC, NULL) == 0);
	}
	close_port(&shut);
	close_port(&a);
}

static void
s10_a_killed_process_is_gone(void)
{
	int pair[2], status;
	char byte;
	pid_t pid;

	CHECK(pipe(pair) == 0);
	pid = fork();
	if (pid == 0) {
		struct port a = open_port("vale1:a");

		CHECK(write(pair[1], "x", 1) == 1);
		poll1(a.fd, POLLIN, -1);
		_exit(1);
	}
	CHECK(read(pair[0], &byte, 1) == 1 && listed("vale1:a"));
	CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
	CHECK(!listed("vale1:a"));
}

static void
low_numbers_and_select(void)
{
	struct port a = open_port("vale1:a"), b = open_port("vale1:b");
	int pair[2], n;
	fd_set r, w;
	struct timeval t;
	struct timespec ts;

	CHECK(pipe(pair) == 0 && b.fd < FD_SETSIZE);
	n = (pair[1] > b.fd ? pair[1] : b.fd) + 1;
	FD_ZERO(&r);
	FD_SET(b.fd, &r);
	FD_SET(pair[0], &r);
	t.tv_sec = 0;
	t.tv_usec = 20000;
	CHECK(select(n, &r, NULL, NULL, &t) == 0 && !FD_ISSET(b.fd, &r) && t.tv_sec == 0 && t.tv_usec == 0);
	CHECK(put(&a, 0, 1) == 1 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	FD_SET(b.fd, &r);
	FD_SET(pair[0], &r);
	FD_ZERO(&w);
	FD_SET(pair[1], &w);
	FD_SET(a.fd, &w);
	t.tv_sec = 5;
	CHECK(select(n, &r, &w, NULL, &t) == 3);
	CHECK(FD_ISSET(b.fd, &r) && !FD_ISSET(pair[0], &r) && FD_ISSET(pair[1], &w) && FD_ISSET(a.fd, &w));
	CHECK(take(&b, 0) == 1 && write(pair[1], "x", 1) == 1);
	FD_SET(pair[0], &r);
	memset(&ts, 0, sizeof(ts));
	ts.tv_sec = 5;
	CHECK(pselect(n, &r, NULL, NULL, &ts, NULL) == 1 && !FD_ISSET(b.fd, &r) && FD_ISSET(pair[0], &r));
	close_port(&a);
	close_port(&b);
}

static const struct test tests[] = {
	{"close_unbinds_at_once", close_unbinds_at_once},
	{"a_map_keeps_the_port", a_map_keeps_the_port},
	{"copies_keep_the_port", copies_keep_the_port},
	{"fork_shares", fork_shares},
	{"daemons_fork_twice_and_close_all", daemons_fork_twice_and_close_all},
	{"what_the_library_keeps", what_the_library_keeps},
	{"close_loops", close_loops},
	{"closed_by_a_bare_system_call", closed_by_a_bare_system_call},
	{"closefrom_closes_ports", closefrom_closes_ports},
	{"s10_a_descriptor_arrives", s10_a_descriptor_arrives},
	{"over_exec", over_exec},
	{"s10_a_killed_process_is_gone", s10_a_killed_process_is_gone},
	{"low_numbers_and_select", low_numbers_and_select},
};

int
main(int argc, char **argv)
{
	if (argc == 6 && strncmp(argv[1], "inherited", 9) == 0) {
		alarm(60);
		inherited(argv, argv[1][9] != '\0');
		return check_result();
	}
	return run_tests(tests, ROWS(tests), argc, argv);
}

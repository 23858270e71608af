/* A threaded program that never touches netmap: what it says must not depend on the library. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int pair[2];

#define SAY(call) say(#call, (long)(call))

static void
say(const char *what, long result)
{
	printf("%s: %ld %s\n", what, result, result < 0 ? strerror(errno) : "");
}

static void *
echo(void *arg)
{
	char byte;
	int i;

	for (i = 0; i < 1000; i++)
		if (read(pair[1], &byte, 1) != 1 || write(pair[1], &byte, 1) != 1)
			abort();
	return arg;
}

static void *
asleep(void *arg)
{
	struct pollfd p = {.fd = pair[0], .events = POLLIN};
	struct msghdr msg;

	memset(&msg, 0, sizeof(msg));
	switch (*(char *)arg) {
	case 0:
		return read(pair[0], arg, 1) == 1 ? arg : NULL;
	case 1:
		return poll(&p, 1, -1) == 1 ? arg : NULL;
	default:
		return recvmsg(pair[0], &msg, 0) == 1 ? arg : NULL;
	}
}

int
main(void)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data = {.u32 = 4}};
	struct pollfd p = {.fd = -1, .events = POLLIN};
	struct timespec t = {.tv_sec = 0, .tv_nsec = 2000000000};
	struct timeval tv = {.tv_sec = 0, .tv_usec = 1000};
	struct stat st;
	pthread_t thread;
	void *mem, *result;
	void *volatile bad = (void *)16;
	char byte = 'x', path[] = "/tmp/foreignXXXXXX";
	fd_set set;
	int i, fd, ep, status;

	SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	SAY(pthread_create(&thread, NULL, echo, NULL));
	p.fd = pair[0];
	for (i = 0; i < 1000; i++)
		if (write(pair[0], &byte, 1) != 1 || poll(&p, 1, -1) != 1 || read(pair[0], &byte, 1) != 1)
			abort();
	SAY(pthread_join(thread, NULL));
	/* Threads that are cancelled in a call. */
	for (byte = 0; byte < 3; byte++) {
		SAY(pthread_create(&thread, NULL, asleep, &byte));
		usleep(10000);
		SAY(pthread_cancel(thread));
		SAY(pthread_join(thread, &result));
		SAY(result == PTHREAD_CANCELED);
	}
	fd = mkstemp(path);
	SAY(fd);
	SAY(unlink(path));
	SAY(write(fd, "hello", 5));
	SAY(lseek(fd, 0, SEEK_END));
	SAY(fstat(fd, &st));
	SAY(st.st_size);
	mem = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	SAY(mem != MAP_FAILED && memcmp(mem, "hello", 5) == 0);
	SAY(munmap(mem, 4096));
	SAY(mmap(NULL, 4096, PROT_READ, MAP_SHARED, pair[0], 0) == MAP_FAILED);
	SAY(errno);
	SAY(open("/nonexistent", O_RDONLY));
	SAY(open((char *)bad, O_RDONLY));
	SAY(poll((struct pollfd *)bad, 1, 0));
	SAY(ppoll(&p, 1, &t, NULL));
	SAY(ioctl(pair[0], FIONREAD, &i));
	SAY(ioctl(fd, 0x6994, NULL)); /* netmap's number, on a file */
	SAY(dup2(fd, fd));
	SAY(dup2(fd, 100));
	SAY(dup3(fd, fd, 0));
	SAY(dup2(-1, 5));
	SAY(fcntl(fd, F_DUPFD_CLOEXEC, 200));
	SAY(fcntl(fd, F_GETFD));
	ep = epoll_create1(0);
	SAY(epoll_ctl(ep, EPOLL_CTL_ADD, pair[0], &e));
	SAY(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	SAY(write(pair[1], "x", 1));
	SAY(epoll_wait(ep, &e, 1, -1));
	SAY(epoll_wait(ep, &e, 1, 0));
	FD_ZERO(&set);
	FD_SET(pair[0], &set);
	SAY(select(pair[0] + 1, &set, NULL, NULL, &tv));
	SAY(select(-1, NULL, NULL, NULL, NULL));
	SAY(close_range(150, 250, 0));
	SAY(close(200));
	SAY(close(-1));
	fflush(stdout);
	if (fork() == 0) {
		closefrom(3);
		SAY(read(fd, &byte, 1));
		fflush(stdout);
		_exit(3);
	}
	SAY(wait(&status) > 0);
	SAY(WEXITSTATUS(status));
	return 0;
}

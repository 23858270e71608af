/* What the bench of the doors measures in C. `cost`: nanoseconds of calls on fds that are not netmap's, a line each; with a second argument
   that port is open meanwhile. `rate A B`: lines "packets nanoseconds" of frames from A to B in one thread, for each line read; `rate-slots A B`
   goes slot by slot instead of by straight runs. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <net/netmap_user.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

#define CALLS 20000
#define BATCH 256
#define SLICE_NS 200000000

static uint64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

#define COST(name, call) \
	do { \
		uint64_t best = UINT64_MAX; \
		int round, i; \
		for (round = 0; round < 20; round++) { \
			uint64_t start = now(); \
			for (i = 0; i < CALLS / 20; i++) \
				(void)!(call); \
			start = now() - start; \
			best = start < best ? start : best; \
		} \
		printf("%s %.1f\n", name, (double)best / (CALLS / 20)); \
	} while (0)

static void
cost(void)
{
	int zero = open("/dev/zero", O_RDWR), ep = epoll_create1(0), n, i;
	struct pollfd p[8];
	struct epoll_event e;
	struct timeval t;
	struct stat st;
	fd_set set;
	char byte = 0;
	void *mem;

	for (i = 0; i < 8; i++) {
		p[i].fd = zero;
		p[i].events = POLLIN;
	}
	memset(&t, 0, sizeof(t));
	COST("close", close(-1));
	COST("read", read(zero, &byte, 1));
	COST("write", write(zero, &byte, 1));
	COST("fstat", fstat(zero, &st));
	COST("ioctl", ioctl(zero, FIONREAD, &n));
	COST("fcntl", fcntl(zero, F_GETFD));
	COST("dup2", dup2(zero, 60));
	COST("open+close", close(open("/dev/null", O_RDONLY)));
	COST("mmap+munmap", (mem = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), munmap(mem, 4096)));
	COST("poll", poll(p, 1, 0));
	COST("poll-of-8", poll(p, 8, 0));
	FD_ZERO(&set);
	FD_SET(zero, &set); /* always readable, so the set stays as it is */
	COST("select", select(zero + 1, &set, NULL, NULL, &t));
	COST("epoll_wait", epoll_wait(ep, &e, 1, 0));
}

/* Gives frames to the ring, as many as fit into a batch: to its end in one run, and on from its start. */
static void
fill_runs(struct netmap_ring *tx)
{
	uint32_t left = nm_ring_space(tx), n;

	left = left < BATCH ? left : BATCH;
	while (left > 0) {
		struct netmap_slot *slot = &tx->slot[tx->head];
		uint32_t run = tx->num_slots - tx->head;

		run = run < left ? run : left;
		for (n = 0; n < run; n++) {
			slot[n].len = 60;
			slot[n].flags = 0;
		}
		left -= run;
		tx->head = tx->cur = tx->head + run == tx->num_slots ? 0 : tx->head + run;
	}
}

static uint64_t
drain_runs(struct netmap_ring *rx)
{
	uint64_t packets = 0;
	uint32_t n;

	while (rx->head != rx->tail) {
		const struct netmap_slot *slot = &rx->slot[rx->head];
		uint32_t run = (rx->tail > rx->head ? rx->tail : rx->num_slots) - rx->head;

		for (n = 0; n < run; n++)
			packets += slot[n].len == 60;
		rx->head = rx->cur = rx->head + run == rx->num_slots ? 0 : rx->head + run;
	}
	return packets;
}

/* The same slot by slot, as most programs do it. */
static void
fill_slots(struct netmap_ring *tx)
{
	uint32_t head = tx->head, left = nm_ring_space(tx);

	for (left = left < BATCH ? left : BATCH; left > 0; left--) {
		struct netmap_slot *slot = &tx->slot[head];

		slot->len = 60;
		slot->flags = 0;
		head = nm_ring_next(tx, head);
	}
	tx->head = tx->cur = head;
}

static uint64_t
drain_slots(struct netmap_ring *rx)
{
	uint32_t head = rx->head, left;
	uint64_t packets = 0;

	for (left = nm_ring_space(rx); left > 0; left--) {
		packets += rx->slot[head].len == 60;
		head = nm_ring_next(rx, head);
	}
	rx->head = rx->cur = head;
	return packets;
}

static int
rate(const char *from, const char *to, int slot_by_slot)
{
	struct nm_desc *a = nm_open(from, NULL, 0, NULL), *b = nm_open(to, NULL, 0, NULL);
	struct netmap_ring *tx, *rx;
	struct pollfd pa, pb;
	uint32_t i;
	int c;

	if (a == NULL || b == NULL)
		return 1;
	tx = NETMAP_TXRING(a->nifp, 0);
	rx = NETMAP_RXRING(b->nifp, 0);
	for (i = 0; i < tx->num_slots; i++) {
		char *buf = NETMAP_BUF(tx, tx->slot[i].buf_idx);

		memset(buf, 0, 60);
		buf[0] = 2;
		buf[5] = 2;
		buf[6] = 2;
		buf[11] = 1;
	}
	pa.fd = a->fd;
	pa.events = POLLOUT;
	pb.fd = b->fd;
	pb.events = POLLIN;
	while ((c = getchar()) != EOF) {
		uint64_t start = now(), end = start, packets = 0;

		if (c != '\n')
			continue;
		while (end - start < SLICE_NS) {
			if (slot_by_slot)
				fill_slots(tx);
			else
				fill_runs(tx);
			if (poll(&pa, 1, 0) < 0 || poll(&pb, 1, 0) < 0)
				return 1;
			packets += slot_by_slot ? drain_slots(rx) : drain_runs(rx);
			end = now();
		}
		printf("%llu %llu\n", (unsigned long long)packets, (unsigned long long)(end - start));
		fflush(stdout);
	}
	return 0;
}

int
main(int argc, char **argv)
{
	if (argc > 3 && strncmp(argv[1], "rate", 4) == 0)
		return rate(argv[2], argv[3], strcmp(argv[1], "rate-slots") == 0);
	if (argc > 2 && nm_open(argv[2], NULL, 0, NULL) == NULL)
		return 1;
	cost();
	return 0;
}

/*
 * A device for tests: the program is linked with --wrap for open, ioctl, mmap, munmap and close, so that calls
 * from here and from the static library come by. The device serves one region, a memory file; everything
 * else goes on to the C library.
 */
#ifndef FAKE_DEVICE_H
#define FAKE_DEVICE_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE before all includes, for memfd_create"
#endif

#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
#include <net/netmap_user.h>

#include "check.h"
#include "region.h"

#define TX_RINGS 2
#define RX_RINGS 3
#define NIFP_AT 64

static struct {
	int open_errno; /* 0: as if all were well */
	int ioctl_errno;
	int mmap_errno;
	uint16_t mem_id;
	uint16_t bound[2][2]; /* first and last ring that is bound, TX and RX */
	uint32_t option_status[NETMAP_REQ_OPT_MAX];
	/* What happened. */
	int opens, ioctls, mmaps, munmaps, closes;
	struct nmreq nmreq;
	struct nmreq_header hdr;
	struct nmreq_register reg;
	unsigned options_seen;
} fake;

static inline size_t
fake_bytes(void)
{
	return region_bytes(TX_RINGS + RX_RINGS);
}

#ifdef __cplusplus
extern "C" {
#endif
int __real_open(const char *path, int flags, ...);
int __real_close(int fd);
int __real_munmap(void *mem, size_t len);
void *__real_mmap(void *mem, size_t len, int prot, int flags, int fd, off_t offset);
int __wrap_open(const char *path, int flags, ...);
int __wrap_close(int fd);
int __wrap_munmap(void *mem, size_t len);
void *__wrap_mmap(void *mem, size_t len, int prot, int flags, int fd, off_t offset);
int __wrap_ioctl(int fd, unsigned long request, ...);
#ifdef __cplusplus
}
#endif

static inline int
fake_error(int error)
{
	errno = error;
	return -1;
}

/* A memory file with a region in it. Rings beyond the bound ones get no offset. */
static inline int
fake_region(void)
{
	int fd = memfd_create("region", MFD_CLOEXEC);
	char *mem;
	struct netmap_if *nifp;
	int i;

	if (fd < 0 || ftruncate(fd, (off_t)fake_bytes()) != 0)
		return -1;
	mem = (char *)__real_mmap(NULL, fake_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	nifp = region_fill(mem, TX_RINGS, RX_RINGS, NIFP_AT);
	for (i = 0; i < TX_RINGS; i++)
		if (i < fake.bound[0][0] || i > fake.bound[0][1])
			nifp->ring_ofs[i] = 0;
	for (i = 0; i < RX_RINGS; i++)
		if (i < fake.bound[1][0] || i > fake.bound[1][1])
			nifp->ring_ofs[TX_RINGS + 1 + i] = 0;
	__real_munmap(mem, fake_bytes());
	return fd;
}

int
__wrap_open(const char *path, int flags, ...)
{
	int fd;

	if (strcmp(path, NETMAP_DEVICE_NAME) != 0)
		return __real_open(path, flags);
	CHECK(flags == O_RDWR);
	if (fake.open_errno != 0)
		return fake_error(fake.open_errno);
	fd = fake_region();
	if (fd >= 0)
		fake.opens++;
	return fd;
}

int
__wrap_close(int fd)
{
	fake.closes++;
	return __real_close(fd);
}

void *
__wrap_mmap(void *mem, size_t len, int prot, int flags, int fd, off_t offset)
{
	if (fake.mmap_errno != 0) {
		errno = fake.mmap_errno;
		return MAP_FAILED;
	}
	fake.mmaps++;
	return __real_mmap(mem, len, prot, flags, fd, offset);
}

int
__wrap_munmap(void *mem, size_t len)
{
	fake.munmaps++;
	return __real_munmap(mem, len);
}

static inline int
fake_control(struct nmreq_header *hdr)
{
	struct nmreq_register *reg = (struct nmreq_register *)(uintptr_t)hdr->nr_body;
	struct nmreq_option *opt = (struct nmreq_option *)(uintptr_t)hdr->nr_options;

	fake.hdr = *hdr;
	fake.options_seen = 0;
	for (; opt != NULL; opt = (struct nmreq_option *)(uintptr_t)opt->nro_next) {
		fake.options_seen |= 1U << opt->nro_reqtype;
		opt->nro_status = fake.option_status[opt->nro_reqtype];
	}
	if (fake.ioctl_errno != 0)
		return fake_error(fake.ioctl_errno);
	if (hdr->nr_reqtype == NETMAP_REQ_PORT_INFO_GET) {
		struct nmreq_port_info_get *info = (struct nmreq_port_info_get *)(uintptr_t)hdr->nr_body;

		info->nr_mem_id = fake.mem_id;
		return 0;
	}
	CHECK(hdr->nr_reqtype == NETMAP_REQ_REGISTER && hdr->nr_version == NETMAP_API);
	fake.reg = *reg;
	reg->nr_offset = NIFP_AT;
	reg->nr_memsize = fake_bytes();
	reg->nr_tx_rings = TX_RINGS;
	reg->nr_rx_rings = RX_RINGS;
	reg->nr_tx_slots = reg->nr_rx_slots = SLOTS;
	reg->nr_mem_id = fake.mem_id;
	return 0;
}

int
__wrap_ioctl(int fd, unsigned long request, ...)
{
	struct nmreq *req;
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	fake.ioctls++;
	CHECK(fd >= 0);
	if (request == NIOCCTRL)
		return fake_control((struct nmreq_header *)arg);
	CHECK(request == NIOCREGIF);
	req = (struct nmreq *)arg;
	fake.nmreq = *req;
	if (fake.ioctl_errno != 0)
		return fake_error(fake.ioctl_errno);
	req->nr_offset = NIFP_AT;
	req->nr_memsize = (uint32_t)fake_bytes();
	req->nr_tx_rings = TX_RINGS;
	req->nr_rx_rings = RX_RINGS;
	req->nr_arg2 = fake.mem_id;
	return 0;
}

/* As new: all rings bound, memory 1. */
static inline void
fake_reset(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.mem_id = 1;
	fake.bound[0][1] = TX_RINGS - 1;
	fake.bound[1][1] = RX_RINGS - 1;
}

#endif

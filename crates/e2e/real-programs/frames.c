/*
 * Makes frames that are all different, for real programs to carry. `frames FILE COUNT` writes them to a pcap file,
 * `frames FILE COUNT PORT` sends them through a netmap port as well. Every second one is UDP to port 9.
 */
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>
#include <poll.h>

#define MAX_LEN 1514

static uint16_t
checksum(const unsigned char *p, int len)
{
	uint32_t sum = 0;

	for (; len > 1; len -= 2, p += 2)
		sum += (uint32_t)p[0] << 8 | p[1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void
put16(unsigned char *p, unsigned value)
{
	p[0] = (unsigned char)(value >> 8);
	p[1] = (unsigned char)value;
}

/* Frame number `n`: Ethernet, IPv4, UDP without a checksum, and bytes that depend on n. Returns its length. */
static int
frame(unsigned char *f, unsigned n)
{
	static const unsigned char macs[12] = {2, 0, 0, 0, 0, 0xee, 2, 0, 0, 0, 0, 0xdd};
	int len = 60 + (int)(n * 37 % (MAX_LEN - 59)), i;

	memcpy(f, macs, sizeof(macs));
	put16(f + 12, 0x0800);
	memset(f + 14, 0, 28);
	f[14] = 0x45;
	put16(f + 16, (unsigned)len - 14);
	put16(f + 18, n);
	f[22] = 64;
	f[23] = 17;
	f[26] = f[30] = 10;
	f[29] = 1;
	f[33] = 2;
	put16(f + 24, checksum(f + 14, 20));
	put16(f + 34, 1024 + n);
	put16(f + 36, n % 2 ? 9 : 10);
	put16(f + 38, (unsigned)len - 34);
	for (i = 42; i < len; i++)
		f[i] = (unsigned char)(n + (unsigned)i * 7);
	return len;
}

static int
write_file(const char *path, unsigned count)
{
	const uint32_t head[6] = {0xa1b2c3d4, 2 | 4 << 16, 0, 0, 262144, 1};
	unsigned char f[MAX_LEN];
	FILE *out = fopen(path, "wb");
	unsigned n;

	if (out == NULL || fwrite(head, sizeof(head), 1, out) != 1)
		return 1;
	for (n = 0; n < count; n++) {
		uint32_t len = (uint32_t)frame(f, n), record[4] = {1700000000, n, len, len};

		if (fwrite(record, sizeof(record), 1, out) != 1 || fwrite(f, len, 1, out) != 1)
			return 1;
	}
	return fclose(out) != 0;
}

/* At most 64 at a time: an interface loses what comes faster than its driver takes it. */
static int
send_all(const char *port, unsigned count)
{
	struct nm_desc *d = nm_open(port, NULL, 0, NULL);
	unsigned char f[MAX_LEN];
	struct pollfd p;
	unsigned n, i;

	if (d == NULL)
		return 1;
	p.fd = d->fd;
	p.events = POLLOUT;
	for (n = 0; n < count; n += i) {
		if (poll(&p, 1, 5000) != 1 || (p.revents & POLLERR))
			return 1;
		for (i = 0; i < 64 && n + i < count; i++) {
			int len = frame(f, n + i);

			if (nm_inject(d, f, (size_t)len) != len)
				break;
		}
		ioctl(d->fd, NIOCTXSYNC, NULL);
		usleep(1000);
	}
	/* Until all are gone, or a second is over: on a pipe they stay in the ring until they are read. */
	for (i = 0; i < 1000 && nm_tx_pending(NETMAP_TXRING(d->nifp, d->first_tx_ring)); i++) {
		usleep(1000);
		ioctl(d->fd, NIOCTXSYNC, NULL);
	}
	nm_close(d);
	return 0;
}

int
main(int argc, char **argv)
{
	unsigned count;

	if (argc < 3)
		return 2;
	count = (unsigned)atoi(argv[2]);
	return write_file(argv[1], count) || (argc > 3 && send_all(argv[3], count));
}

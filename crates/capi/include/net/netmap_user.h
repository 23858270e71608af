/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * net/netmap_user.h - how a program finds its way in mapped memory; and, with NETMAP_WITH_LIBS defined,
 * a small library of static functions: nm_open() and its like. Newer programs use libnetmap.h.
 */
#ifndef _NET_NETMAP_USER_H_
#define _NET_NETMAP_USER_H_

#include <stdint.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <net/if.h>
#include <ctype.h>
#include <string.h>

#include <net/netmap.h>

#ifndef likely
#if defined(__GNUC__)
#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#else
#define likely(x)   (x)
#define unlikely(x) (x)
#endif
#endif

/* From one place in the mapping to another, a number of bytes away. */
#define _NETMAP_OFFSET(type, ptr, offset) ((type)(void *)((char *)(ptr) + (offset)))

#define NETMAP_IF(base, ofs) _NETMAP_OFFSET(struct netmap_if *, base, ofs)

/* Ring i of a direction: hardware rings first, then host rings. A ring not bound is at nifp itself. */
#define NETMAP_TXRING(nifp, i) _NETMAP_OFFSET(struct netmap_ring *, nifp, (nifp)->ring_ofs[i])
#define NETMAP_RXRING(nifp, i) \
	_NETMAP_OFFSET(struct netmap_ring *, nifp, \
	    (nifp)->ring_ofs[(i) + (nifp)->ni_tx_rings + (nifp)->ni_host_tx_rings])

/* From an index to its buffer and back. */
#define NETMAP_BUF(ring, idx) \
	((char *)(ring) + (ring)->buf_ofs + (size_t)(idx) * (ring)->nr_buf_size)
#define NETMAP_BUF_IDX(ring, p) \
	(((char *)(p) - ((char *)(ring) + (ring)->buf_ofs)) / (ring)->nr_buf_size)

/* Where in its buffer a packet begins: read it, write it, go there. */
#define NETMAP_ROFFSET(ring, slot) ((slot)->ptr & (ring)->offset_mask)
#define NETMAP_WOFFSET(ring, slot, o) \
	do { \
		(slot)->ptr = ((slot)->ptr & ~(ring)->offset_mask) | ((o) & (ring)->offset_mask); \
	} while (0)
#define NETMAP_BUF_OFFSET(ring, slot) \
	(NETMAP_BUF(ring, (slot)->buf_idx) + NETMAP_ROFFSET(ring, slot))

/*
 * As unlikely(), and so sure that GCC branches: else it selects one of two values, and each slot of a loop waits for the
 * comparison of the one before it, which takes twice as long.
 */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 9
#define NM_SURELY_NOT_(x) __builtin_expect_with_probability(!!(x), 0, 1.0)
#else
#define NM_SURELY_NOT_(x) unlikely(x)
#endif

/* The slot after slot i. */
static inline uint32_t NM_ATTR_UNUSED_
nm_ring_next(struct netmap_ring *ring, uint32_t i)
{
	return NM_SURELY_NOT_(i + 1 == ring->num_slots) ? 0 : i + 1;
}

/* How many slots belong to the program. */
static inline uint32_t NM_ATTR_UNUSED_
nm_ring_space(struct netmap_ring *ring)
{
	uint32_t head = ring->head, tail = ring->tail;

	return tail >= head ? tail - head : tail + ring->num_slots - head;
}

/* Are there slots which the service has not finished sending? */
static inline int NM_ATTR_UNUSED_
nm_tx_pending(struct netmap_ring *ring)
{
	return nm_ring_next(ring, ring->tail) != ring->head;
}

/* Copies a packet. Short ones whose length is a multiple of 64 go in steps that need no call. */
static inline void NM_ATTR_UNUSED_
nm_pkt_copy(const void *src, void *dst, int len)
{
	const char *from = (const char *)src;
	char *to = (char *)dst;

	if (unlikely(len >= 1024 || len % 64 != 0)) {
		memcpy(to, from, (size_t)len);
		return;
	}
	for (; len > 0; len -= 64, from += 64, to += 64)
		memcpy(to, from, 64);
}

/*
 * Messages on standard error, with time and place; <stdio.h> must be included. D("text") and
 * D("number %d", n): the first argument is a literal. An empty string is added as last argument, so
 * that D needs none after the literal. A program that defines ND defines D and RD as well, or does without.
 */
#define NM_D_(fmt_, ...) \
	do { \
		struct timeval nm_d_tv_; \
		gettimeofday(&nm_d_tv_, NULL); \
		fprintf(stderr, "%03d.%06d %s [%d] " fmt_ "%s\n", (int)(nm_d_tv_.tv_sec % 1000), \
		    (int)nm_d_tv_.tv_usec, __func__, __LINE__, __VA_ARGS__); \
	} while (0)
#ifndef ND
#define ND(...) do { } while (0)
#define D(...) NM_D_(__VA_ARGS__, "")
/* The same, at most lps_ times in a second. */
#define RD(lps_, ...) \
	do { \
		static long nm_rd_second_ = -1; \
		static int nm_rd_count_; \
		struct timeval nm_rd_tv_; \
		gettimeofday(&nm_rd_tv_, NULL); \
		if (nm_rd_second_ != (long)nm_rd_tv_.tv_sec) { \
			nm_rd_second_ = (long)nm_rd_tv_.tv_sec; \
			nm_rd_count_ = 0; \
		} \
		if (nm_rd_count_ < (lps_)) { \
			nm_rd_count_++; \
			D(__VA_ARGS__); \
		} \
	} while (0)
#endif /* ND */

#endif /* _NET_NETMAP_USER_H_ */

#if defined(NETMAP_WITH_LIBS) && !defined(HAVE_NETMAP_WITH_LIBS)
#define HAVE_NETMAP_WITH_LIBS

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef D
#define NM_SAY_ D
#else
#define NM_SAY_(...) NM_D_(__VA_ARGS__, "")
#endif

struct nm_desc;

/* A packet for a callback; begins like pcap's header. */
struct nm_pkthdr {
	struct timeval ts;
	uint32_t caplen;          /* bytes at buf in one piece */
	uint32_t len;             /* bytes of the packet */
	uint64_t flags;           /* NM_MORE_PKTS: this is not the last one of this nm_dispatch() */
#define NM_MORE_PKTS 1
	struct nm_desc *d;
	struct netmap_slot *slot; /* its first slot */
	uint8_t *buf;
};

/* Begins like pcap's statistics. */
struct nm_stat {
	uint32_t ps_recv;
	uint32_t ps_drop;
	uint32_t ps_ifdrop;
};

#define NM_ERRBUF_SIZE 512
#define MAXERRMSG 80

/* An open port. */
struct nm_desc {
	struct nm_desc *self; /* == this, in a descriptor that is one */
	int fd;
	void *mem;            /* the mapping */
	size_t memsize;
	int done_mmap;        /* made by this descriptor, which also unmaps it */
	struct netmap_if *const nifp;
	uint16_t first_tx_ring, last_tx_ring, cur_tx_ring;
	uint16_t first_rx_ring, last_rx_ring, cur_rx_ring;
	struct nmreq req;
	struct nm_pkthdr hdr;
	struct netmap_ring *const some_ring; /* any bound ring, for NETMAP_BUF */
	void *const buf_start;
	void *const buf_end;
	/* From here on only for those who make this look like pcap. */
	int snaplen;
	int promisc;
	int to_ms;
	char *errbuf;
	uint32_t if_flags;
	uint32_t if_reqcap;
	uint32_t if_curcap;
	struct nm_stat st;
	char msg[NM_ERRBUF_SIZE];
};

#define P2NMD(p) ((const struct nm_desc *)(p))
#define IS_NETMAP_DESC(d) ((d) != NULL && P2NMD(d)->self == P2NMD(d))
#define NETMAP_FD(d) (P2NMD(d)->fd)

typedef void (*nm_cb_t)(unsigned char *, const struct nm_pkthdr *, const unsigned char *);

/* Flags of nm_open(). The low 16 bits are for NETMAP_NO_TX_POLL and NETMAP_DO_RX_POLL. */
enum {
	NM_OPEN_NO_MMAP = 0x040000,  /* leave the memory unmapped, or take the parent's */
	NM_OPEN_IFNAME = 0x080000,   /* these take things from the parent: */
	NM_OPEN_ARG1 = 0x100000,
	NM_OPEN_ARG2 = 0x200000,
	NM_OPEN_ARG3 = 0x400000,
	NM_OPEN_RING_CFG = 0x800000
};

/* Are all characters from s up to (not including) e letters, digits or '_'? */
static inline int NM_ATTR_UNUSED_
nm_is_identifier(const char *s, const char *e)
{
	for (; s < e; s++) {
		if (!isalnum((unsigned char)*s) && *s != '_')
			return 0;
	}
	return 1;
}

/* nm_parse() failed: the message goes to err, if there is one, and fills it up. */
static inline int NM_ATTR_UNUSED_
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
nm_parse_failed_(char *err, const char *fmt, ...)
{
	va_list args;

	if (err != NULL) {
		memset(err, 0, MAXERRMSG);
		va_start(args, fmt);
		vsnprintf(err, MAXERRMSG, fmt, args);
		va_end(args);
	}
	errno = EINVAL;
	return -1;
}

/*
 * Reads what follows the name of a port: one of ^ * -N {N }N, then groups of flags, then a memory.
 * Adds to *ringid and *flags, and sets *memid.
 */
static inline int NM_ATTR_UNUSED_
nm_parse_suffix_(const char *s, uint16_t *ringid, uint32_t *flags, uint16_t *memid, char *err)
{
	enum { START, SUFFIX, NUMBER, FLAGS, MORE_FLAGS, MEMID } state = START;
	uint32_t mode = NR_REG_ALL_NIC;
	char *end;
	long n;

	*memid = 0;
	while (*s != '\0') {
		switch (state) {
		case START:
			state = SUFFIX;
			switch (*s) {
			case '^':
				mode = NR_REG_SW;
				break;
			case '*':
				mode = NR_REG_NIC_SW;
				break;
			case '-':
				mode = NR_REG_ONE_NIC;
				state = NUMBER;
				break;
			case '{':
				mode = NR_REG_PIPE_MASTER;
				state = NUMBER;
				break;
			case '}':
				mode = NR_REG_PIPE_SLAVE;
				state = NUMBER;
				break;
			case '/':
				state = FLAGS;
				break;
			case '@':
				state = MEMID;
				break;
			default:
				return nm_parse_failed_(err, "unknown modifier: '%c'", *s);
			}
			s++;
			break;
		case SUFFIX:
			if (*s == '/')
				state = FLAGS;
			else if (*s == '@')
				state = MEMID;
			else
				return nm_parse_failed_(err, "unexpected character: '%c'", *s);
			s++;
			break;
		case NUMBER:
			/* Without a digit this is 0, and reads nothing. */
			n = strtol(s, &end, 10);
			if (n < 0 || n >= NETMAP_RING_MASK)
				return nm_parse_failed_(err, "'%ld' out of range [0, %d)", n,
				    NETMAP_RING_MASK);
			*ringid = (uint16_t)(*ringid | n);
			s = end;
			state = SUFFIX;
			break;
		case FLAGS:
		case MORE_FLAGS:
			state = MORE_FLAGS;
			switch (*s) {
			case '@':
				state = MEMID;
				break;
			case 'x':
				*flags |= NR_EXCLUSIVE;
				break;
			case 'z':
				*flags |= NR_ZCOPY_MON;
				break;
			case 't':
				*flags |= NR_MONITOR_TX;
				break;
			case 'r':
				*flags |= NR_MONITOR_RX;
				break;
			case 'R':
				*flags |= NR_RX_RINGS_ONLY;
				break;
			case 'T':
				*flags |= NR_TX_RINGS_ONLY;
				break;
			default:
				return nm_parse_failed_(err, "unrecognized flag: '%c'", *s);
			}
			s++;
			break;
		case MEMID:
			if (*memid != 0)
				return nm_parse_failed_(err, "double setting of memid");
			n = strtol(s, &end, 10);
			if (n <= 0)
				return nm_parse_failed_(err, "invalid memid %ld, must be >0", n);
			*memid = (uint16_t)n;
			s = end;
			state = SUFFIX;
			break;
		}
	}
	if (state == NUMBER || state == FLAGS || state == MEMID)
		return nm_parse_failed_(err, "unexpected end of port name");
	*flags |= mode;
	return 0;
}

/*
 * Reads a name ("netmap:..." or "vale...") into d->req: sets nr_name and nr_arg2, adds to nr_ringid and
 * nr_flags. Returns 0; or -1, with errno and, in err (MAXERRMSG bytes, or NULL), the reason.
 */
static inline int NM_ATTR_UNUSED_
nm_parse(const char *ifname, struct nm_desc *d, char *err)
{
	int is_vale = ifname[0] == 'v';
	const char *name, *port, *end;
	uint32_t flags = d->req.nr_flags;
	uint16_t ringid = d->req.nr_ringid;
	uint16_t memid;

	if (is_vale) {
		name = ifname;
		port = strchr(ifname, ':');
		if (port == NULL)
			return nm_parse_failed_(err, "missing ':' in vale name");
		if (!nm_is_identifier(name, port))
			return nm_parse_failed_(err, "invalid bridge name");
		port++;
	} else {
		port = strchr(ifname, ':');
		port = port == NULL ? ifname : port + 1;
		name = port;
	}
	end = port + strcspn(port, "-*^{}/@");
	if (is_vale && !nm_is_identifier(port, end))
		return nm_parse_failed_(err, "invalid bridge port name");
	if ((size_t)(end - name) >= sizeof(d->req.nr_name))
		return nm_parse_failed_(err, "name too long");
	if (nm_parse_suffix_(end, &ringid, &flags, &memid, err) != 0)
		return -1;

	memset(d->req.nr_name, 0, sizeof(d->req.nr_name));
	memcpy(d->req.nr_name, name, (size_t)(end - name));
	d->req.nr_ringid = ringid;
	d->req.nr_flags = flags;
	d->req.nr_arg2 = memid;
	d->self = d;
	return 0;
}

/*
 * Maps the memory of d, or shares the mapping of parent if that is the same memory. Returns 0 or EINVAL.
 * A descriptor that shares a mapping must be closed before the one that made it.
 */
static inline int NM_ATTR_UNUSED_
nm_mmap(struct nm_desc *d, const struct nm_desc *parent)
{
	struct netmap_if *nifp;
	struct netmap_ring *ring;

	if (d->done_mmap || d->mem != NULL)
		return 0;
	if (IS_NETMAP_DESC(parent) && parent->mem != NULL && parent->req.nr_arg2 == d->req.nr_arg2) {
		NM_SAY_("do not mmap, inherit from parent");
		d->memsize = parent->memsize;
		d->mem = parent->mem;
	} else {
		void *mem;

		d->memsize = d->req.nr_memsize;
		mem = mmap(NULL, d->memsize, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd, 0);
		if (mem == MAP_FAILED)
			return EINVAL;
		d->mem = mem;
		d->done_mmap = 1;
	}

	nifp = NETMAP_IF(d->mem, d->req.nr_offset);
	ring = NETMAP_RXRING(nifp, d->first_rx_ring);
	if ((void *)ring == (void *)nifp)
		ring = NETMAP_TXRING(nifp, d->first_tx_ring);
	/* Constant for everybody else. */
	*(struct netmap_if **)(uintptr_t)&d->nifp = nifp;
	*(struct netmap_ring **)(uintptr_t)&d->some_ring = ring;
	*(void **)(uintptr_t)&d->buf_start =
	    (void *)ring != (void *)nifp ? (void *)NETMAP_BUF(ring, 0) : d->mem; /* no ring, no buffers */
	*(void **)(uintptr_t)&d->buf_end = (char *)d->mem + d->memsize;
	return 0;
}

/* Closes a port. Returns 0, or EINVAL for what is no open port. */
static inline int NM_ATTR_UNUSED_
nm_close(struct nm_desc *d)
{
	if (d == NULL || !IS_NETMAP_DESC(d))
		return EINVAL;
	if (d->done_mmap && d->mem != NULL)
		munmap(d->mem, d->memsize);
	if (d->fd != -1)
		close(d->fd);
	memset((void *)d, 0, sizeof(*d));
	free(d);
	return 0;
}

/* nm_open(): what flags say of the request. */
static inline void NM_ATTR_UNUSED_
nm_open_override_(struct nm_desc *d, uint64_t flags, const struct nm_desc *parent)
{
	if (IS_NETMAP_DESC(parent) && flags != 0) {
		const struct nmreq *from = &parent->req;

		d->req.nr_arg1 = 4;
		if (flags & NM_OPEN_ARG1) {
			NM_SAY_("overriding ARG1 %d", from->nr_arg1);
			d->req.nr_arg1 = from->nr_arg1;
		}
		if (flags & NM_OPEN_ARG2) {
			NM_SAY_("overriding ARG2 %d", from->nr_arg2);
			d->req.nr_arg2 = from->nr_arg2;
		}
		d->req.nr_arg3 = 0;
		if (flags & NM_OPEN_ARG3) {
			NM_SAY_("overriding ARG3 %d", (int)from->nr_arg3);
			d->req.nr_arg3 = from->nr_arg3;
		}
		if (flags & NM_OPEN_RING_CFG) {
			NM_SAY_("overriding RING_CFG");
			d->req.nr_tx_slots = from->nr_tx_slots;
			d->req.nr_rx_slots = from->nr_rx_slots;
			d->req.nr_tx_rings = from->nr_tx_rings;
			d->req.nr_rx_rings = from->nr_rx_rings;
		}
		if (flags & NM_OPEN_IFNAME) {
			NM_SAY_("overriding ifname %.*s ringid 0x%x flags 0x%x", (int)sizeof(from->nr_name),
			    from->nr_name, (unsigned)from->nr_ringid, (unsigned)from->nr_flags);
			memcpy(d->req.nr_name, from->nr_name, sizeof(d->req.nr_name));
			d->req.nr_ringid = from->nr_ringid;
			d->req.nr_flags = from->nr_flags;
		}
	}
	d->req.nr_ringid =
	    (uint16_t)(d->req.nr_ringid | (flags & (NETMAP_NO_TX_POLL | NETMAP_DO_RX_POLL)));
}

/* nm_open(): which of n hardware rings and the host ring after them are bound. */
static inline void NM_ATTR_UNUSED_
nm_open_range_(const struct nmreq *req, uint16_t n, uint16_t *first, uint16_t *last)
{
	*first = *last = 0;
	switch (req->nr_flags & NR_REG_MASK) {
	case NR_REG_SW:
		*first = *last = n;
		break;
	case NR_REG_ALL_NIC:
		*last = (uint16_t)(n - 1);
		break;
	case NR_REG_NIC_SW:
		*last = n;
		break;
	case NR_REG_ONE_NIC:
		*first = *last = req->nr_ringid & NETMAP_RING_MASK;
		break;
	default: /* one end of a pipe */
		break;
	}
}

/*
 * Opens a port by its name. req (or NULL) holds other wishes; arg (or NULL) is a port already open, whose
 * memory, and whatever flags say, is to be shared. Returns NULL with errno; 0 if the name is not one for
 * netmap at all. Other failures are told on standard error as well.
 */
static inline struct nm_desc *NM_ATTR_UNUSED_
nm_open(const char *ifname, const struct nmreq *req, uint64_t flags, const struct nm_desc *arg)
{
	struct nm_desc *d;
	char message[MAXERRMSG];
	int error;

	if (strncmp(ifname, "netmap:", 7) != 0 && strncmp(ifname, NM_BDG_NAME, 4) != 0) {
		errno = 0;
		return NULL;
	}
	d = (struct nm_desc *)calloc(1, sizeof(*d));
	if (d == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	d->self = d;
	d->fd = open(NETMAP_DEVICE_NAME, O_RDWR);
	if (d->fd < 0) {
		error = errno;
		d->fd = -1;
		snprintf(message, sizeof(message), "cannot open " NETMAP_DEVICE_NAME ": %s", strerror(error));
		goto fail;
	}
	if (req != NULL)
		d->req = *req;
	if (!(flags & NM_OPEN_IFNAME) && nm_parse(ifname, d, message) != 0) {
		error = errno;
		goto fail;
	}
	d->req.nr_version = NETMAP_API;
	d->req.nr_ringid &= NETMAP_RING_MASK;
	nm_open_override_(d, flags, arg);

	if (ioctl(d->fd, NIOCREGIF, &d->req) != 0) {
		error = errno;
		snprintf(message, sizeof(message), "NIOCREGIF failed: %s", strerror(error));
		goto fail;
	}
	nm_open_range_(&d->req, d->req.nr_tx_rings, &d->first_tx_ring, &d->last_tx_ring);
	nm_open_range_(&d->req, d->req.nr_rx_rings, &d->first_rx_ring, &d->last_rx_ring);

	if ((!(flags & NM_OPEN_NO_MMAP) || arg != NULL) && nm_mmap(d, arg) != 0) {
		error = errno;
		snprintf(message, sizeof(message), "mmap failed: %s", strerror(error));
		goto fail;
	}
	d->cur_tx_ring = d->first_tx_ring;
	d->cur_rx_ring = d->first_rx_ring;
	return d;

fail:
	nm_close(d);
	NM_SAY_("%s %s", message, ifname);
	errno = error != 0 ? error : EINVAL;
	return NULL;
}

/* The ring after ring i, in a circle. */
static inline uint16_t NM_ATTR_UNUSED_
nm_next_ring_(uint16_t i, uint16_t first, uint16_t last)
{
	return i >= last ? first : (uint16_t)(i + 1);
}

/*
 * Puts a packet into the first ring that has room for it. Returns its size, or 0 if none has.
 * Nothing is sent before the next NIOCTXSYNC or poll().
 */
static inline int NM_ATTR_UNUSED_
nm_inject(struct nm_desc *d, const void *buf, size_t size)
{
	const char *from = (const char *)buf;
	int left = d->last_tx_ring - d->first_tx_ring + 1;
	uint16_t ri = d->cur_tx_ring;

	for (; left > 0; left--, ri = nm_next_ring_(ri, d->first_tx_ring, d->last_tx_ring)) {
		struct netmap_ring *ring = NETMAP_TXRING(d->nifp, ri);
		uint32_t i;
		size_t rest = size;

		if ((void *)ring == (void *)d->nifp)
			continue; /* not bound */
		i = ring->cur;
		while (rest > ring->nr_buf_size && i != ring->tail) {
			rest -= ring->nr_buf_size;
			i = nm_ring_next(ring, i);
		}
		if (i == ring->tail)
			continue; /* not enough slots here */

		for (i = ring->cur, rest = size;; i = nm_ring_next(ring, i)) {
			struct netmap_slot *slot = &ring->slot[i];
			uint32_t part = rest > ring->nr_buf_size ? ring->nr_buf_size : (uint32_t)rest;

			nm_pkt_copy(from, NETMAP_BUF(ring, slot->buf_idx), (int)part);
			slot->len = (uint16_t)part;
			rest -= part;
			from += part;
			if (rest == 0) {
				slot->flags = 0;
				break;
			}
			slot->flags = NS_MOREFRAG;
		}
		ring->head = ring->cur = nm_ring_next(ring, i);
		d->cur_tx_ring = ri;
		return (int)size;
	}
	return 0;
}

/* Describes the next packet of a ring in hdr, and releases its slots. */
static inline void NM_ATTR_UNUSED_
nm_take_packet_(struct netmap_ring *ring, struct nm_pkthdr *hdr)
{
	uint32_t i = ring->cur;
	struct netmap_slot *slot = &ring->slot[i];
	char *buf = NETMAP_BUF(ring, slot->buf_idx);
	int in_one_piece = 1;

	hdr->ts = ring->ts;
	hdr->slot = slot;
	hdr->buf = (uint8_t *)buf;
	hdr->len = hdr->caplen = slot->len;
	i = nm_ring_next(ring, i);
	while ((slot->flags & NS_MOREFRAG) && i != ring->tail) {
		struct netmap_slot *next = &ring->slot[i];
		char *next_buf = NETMAP_BUF(ring, next->buf_idx);

		/* A full buffer, and the one behind it. */
		if (slot->len != ring->nr_buf_size || next_buf != buf + ring->nr_buf_size)
			in_one_piece = 0;
		hdr->len += next->len;
		if (in_one_piece)
			hdr->caplen += next->len;
		slot = next;
		buf = next_buf;
		i = nm_ring_next(ring, i);
	}
	ring->head = ring->cur = i;
}

/*
 * Calls cb(arg, header, buffer) for at most cnt packets (0, -1: for all that are there). Returns how many.
 * Buffers stay as they are until the next NIOCRXSYNC or poll().
 */
static inline int NM_ATTR_UNUSED_
nm_dispatch(struct nm_desc *d, int cnt, nm_cb_t cb, unsigned char *arg)
{
	int left = d->last_rx_ring - d->first_rx_ring + 1;
	uint16_t ri = d->cur_rx_ring;
	int got = 0;

	if (cnt == 0)
		cnt = -1;
	memset((void *)&d->hdr, 0, sizeof(d->hdr));
	d->hdr.d = d;
	d->hdr.flags = NM_MORE_PKTS;
	for (; left > 0 && got != cnt; left--, ri = nm_next_ring_(ri, d->first_rx_ring, d->last_rx_ring)) {
		struct netmap_ring *ring = NETMAP_RXRING(d->nifp, ri);

		if ((void *)ring == (void *)d->nifp)
			continue; /* not bound */
		for (; got != cnt && !nm_ring_empty(ring); got++) {
			/* One packet late: only then is it known that it is not the last. */
			if (got > 0)
				cb(arg, &d->hdr, d->hdr.buf);
			nm_take_packet_(ring, &d->hdr);
			d->cur_rx_ring = ri;
		}
	}
	if (got > 0) {
		d->hdr.flags = 0;
		cb(arg, &d->hdr, d->hdr.buf);
	}
	return got;
}

/*
 * Returns the buffer of the next slot and describes it in hdr (ts, len, caplen); or NULL. It stays as it is
 * until the next NIOCRXSYNC or poll(). Parts of a packet come one by one.
 */
static inline unsigned char *NM_ATTR_UNUSED_
nm_nextpkt(struct nm_desc *d, struct nm_pkthdr *hdr)
{
	int left = d->last_rx_ring - d->first_rx_ring + 1;
	uint16_t ri = d->cur_rx_ring;

	for (; left > 0; left--, ri = nm_next_ring_(ri, d->first_rx_ring, d->last_rx_ring)) {
		struct netmap_ring *ring = NETMAP_RXRING(d->nifp, ri);
		struct netmap_slot *slot;

		if ((void *)ring == (void *)d->nifp || nm_ring_empty(ring))
			continue;
		slot = &ring->slot[ring->cur];
		hdr->ts = ring->ts;
		hdr->len = hdr->caplen = slot->len;
		ring->head = ring->cur = nm_ring_next(ring, ring->cur);
		d->cur_rx_ring = ri;
		return (unsigned char *)NETMAP_BUF(ring, slot->buf_idx);
	}
	return NULL;
}

#endif /* NETMAP_WITH_LIBS */

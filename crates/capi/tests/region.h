/*
 * A region in plain memory, as a service would lay it out: interface record, rings, buffers.
 * Rings hold SLOTS slots; slot s of ring number r (TX first) has buffer 2 + r * SLOTS + s.
 */
#ifndef REGION_H
#define REGION_H

#include <stdlib.h>
#include <string.h>
#include <net/netmap_user.h>

#define SLOTS 8
#define BUF_SIZE 128
#define RING_SIZE 512 /* 256 + SLOTS * 16, on a boundary of 128 */
#define RINGS_AT 1024

/* Constant fields are for the service. */
#define SET(field, type, value) (*(type *)(uintptr_t)&(field) = (type)(value))

static inline size_t
region_bytes(unsigned rings)
{
	return RINGS_AT + rings * RING_SIZE + (2 + rings * SLOTS) * BUF_SIZE;
}

/* Fills memory on a boundary of 128. There is one host ring per direction, not bound, if `bound` says no more. */
static inline struct netmap_if *
region_fill(char *base, unsigned tx, unsigned rx, size_t nifp_at)
{
	struct netmap_if *nifp = NETMAP_IF(base, nifp_at);
	unsigned rings = tx + rx, r, s;

	memset(base, 0, region_bytes(rings));
	SET(nifp->ni_tx_rings, uint32_t, tx);
	SET(nifp->ni_rx_rings, uint32_t, rx);
	SET(nifp->ni_host_tx_rings, uint32_t, 1);
	SET(nifp->ni_host_rx_rings, uint32_t, 1);
	for (r = 0; r < rings; r++) {
		char *at = base + RINGS_AT + r * RING_SIZE;
		struct netmap_ring *ring = (struct netmap_ring *)(void *)at;

		nifp->ring_ofs[r < tx ? r : r + 1] = at - (char *)nifp;
		SET(ring->buf_ofs, int64_t, base + RINGS_AT + rings * RING_SIZE - at);
		SET(ring->num_slots, uint32_t, SLOTS);
		SET(ring->nr_buf_size, uint32_t, BUF_SIZE);
		SET(ring->ringid, uint16_t, r < tx ? r : r - tx);
		SET(ring->dir, uint16_t, r < tx);
		for (s = 0; s < SLOTS; s++)
			ring->slot[s].buf_idx = 2 + r * SLOTS + s;
		ring->tail = r < tx ? SLOTS - 1 : 0;
	}
	return nifp;
}

static inline char *
region_alloc(size_t bytes)
{
	void *mem = NULL;

	return posix_memalign(&mem, 128, bytes) == 0 ? (char *)mem : NULL;
}

#endif

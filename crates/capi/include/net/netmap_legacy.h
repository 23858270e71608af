/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * net/netmap_legacy.h - the older requests, which nm_open() uses: one structure for all of them.
 */
#ifndef _NET_NETMAP_LEGACY_H_
#define _NET_NETMAP_LEGACY_H_

#include <stdint.h>
#include <sys/types.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <net/if.h>

#ifndef IFNAMSIZ /* <net/if.h> leaves it out in strict modes */
#define IFNAMSIZ 16
#endif

struct nmreq {
	char nr_name[IFNAMSIZ];
	uint32_t nr_version;  /* NETMAP_API */
	uint32_t nr_offset;   /* service: from the start of the mapping to the netmap_if */
	uint32_t nr_memsize;  /* service: bytes to map */
	uint32_t nr_tx_slots; /* wanted, then what it came to; so the next three */
	uint32_t nr_rx_slots;
	uint16_t nr_tx_rings;
	uint16_t nr_rx_rings;
	uint16_t nr_ringid;   /* ring or pipe, and the bits below */
#define NETMAP_HW_RING    0x4000 /* one pair of hardware rings */
#define NETMAP_SW_RING    0x2000 /* host rings */
#define NETMAP_RING_MASK  0x0fff /* the number */
#define NETMAP_NO_TX_POLL 0x1000 /* poll sends only when asked for POLLOUT */
#define NETMAP_DO_RX_POLL 0x8000 /* poll receives even when not asked for POLLIN */
	uint16_t nr_cmd;      /* 0: bind the descriptor; else one of these */
#define NETMAP_BDG_ATTACH      1
#define NETMAP_BDG_DETACH      2
#define NETMAP_BDG_REGOPS      3
#define NETMAP_BDG_LIST        4
#define NETMAP_BDG_VNET_HDR    5
#define NETMAP_BDG_NEWIF       6
#define NETMAP_BDG_DELIF       7
#define NETMAP_PT_HOST_CREATE  8
#define NETMAP_PT_HOST_DELETE  9
#define NETMAP_BDG_POLLING_ON  10
#define NETMAP_BDG_POLLING_OFF 11
#define NETMAP_VNET_HDR_GET    12
	uint16_t nr_arg1;     /* header length, or this, as nr_cmd has it */
#define NETMAP_BDG_HOST 1 /* with NETMAP_BDG_ATTACH: the host stack too */
	uint16_t nr_arg2;     /* memory to use or 0, then the one in use */
	uint32_t nr_arg3;     /* extra buffers */
	uint32_t nr_flags;    /* NR_REG_* in the low 4 bits, other NR_* above */
	uint32_t spare2[1];
};

/* For switches that somebody has taught more than forwarding. */
#define NM_IFRDATA_LEN 256
struct nm_ifreq {
	char nifr_name[IFNAMSIZ];
	char data[NM_IFRDATA_LEN];
};

#define NIOCGINFO  _IOWR('i', 145, struct nmreq)    /* describe a port */
#define NIOCREGIF  _IOWR('i', 146, struct nmreq)    /* bind to a port, or nr_cmd */
#define NIOCCONFIG _IOWR('i', 150, struct nm_ifreq)

#endif /* _NET_NETMAP_LEGACY_H_ */

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * net/netmap.h - what a program and a netmap service share: rings in memory, requests by ioctl.
 *
 * Names, numbers and layouts are netmap's. Who writes a field is said beside it: "service" is whatever
 * answers behind NETMAP_DEVICE_NAME, "program" is the user of this header.
 */
#ifndef _NET_NETMAP_H_
#define _NET_NETMAP_H_

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/time.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <net/if.h>

#ifndef IFNAMSIZ /* <net/if.h> leaves it out in strict modes */
#define IFNAMSIZ 16
#endif

#if defined(__GNUC__)
#define NM_ATTR_ALIGNED_(n) __attribute__((aligned(n)))
#define NM_ATTR_UNUSED_ __attribute__((unused))
#define NM_EXT_ __extension__
#else
#define NM_ATTR_ALIGNED_(n)
#define NM_ATTR_UNUSED_
#define NM_EXT_
#endif

#if defined(__clang__) && defined(__cplusplus)
/* Arrays without a length at the end of structures: clang does not let NM_EXT_ speak for them. */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wc99-extensions"
#endif

/* Versions of the interface: the one spoken here, and those that a service accepts. */
#define NETMAP_API 14
#define NETMAP_MIN_API 14
#define NETMAP_MAX_API 15

#define NM_CACHE_ALIGN 128
#define NETMAP_DEVICE_NAME "/dev/netmap"
#define NM_BDG_NAME "vale"        /* switches: names that begin so */
#define NETMAP_MAX_FRAGS 64       /* slots of one packet on a switch, at most */
#define NETMAP_REQ_IFNAMSIZ 64    /* bytes of a port name, NUL included */
#define NETMAP_REQ_MAXSIZE 4096   /* bytes of a request: body and options, at most */

/*
 * Memory. One mapping holds the records of ports, their rings, and all buffers:
 *
 *   base + offset told by the service -> struct netmap_if
 *   netmap_if + ring_ofs[i]           -> struct netmap_ring
 *   netmap_ring + buf_ofs + buf_idx * nr_buf_size -> buffer
 */

struct netmap_slot {
	uint32_t buf_idx; /* which buffer; the program may exchange it for another that it owns */
	uint16_t len;     /* bytes of this slot's part of a packet */
	uint16_t flags;   /* NS_* */
	uint64_t ptr;     /* NS_INDIRECT: address of the data; else: offset of the packet in its buffer */
};

#define NS_BUF_CHANGED 0x0001 /* buf_idx is another one than before */
#define NS_REPORT      0x0002 /* transmission: tell when exactly this slot is done */
#define NS_FORWARD     0x0004 /* released slot goes to the other side, network or host */
#define NS_NO_LEARN    0x0008 /* switch: do not learn the sender's address */
#define NS_INDIRECT    0x0010 /* switch, transmission: the data is at ptr */
#define NS_MOREFRAG    0x0020 /* the packet goes on in the next slot */
#define NS_TXMON       0x0040 /* monitor: seen in transmission */
#define NS_PORT_SHIFT  8
#define NS_PORT_MASK   (0xff << NS_PORT_SHIFT)
/* Slots of a packet that came from a switch. */
#define NS_RFRAGS(slot_) (((slot_)->flags >> NS_PORT_SHIFT) & 0xff)

/*
 * A ring. Slots from head up to (not including) tail belong to the program, the others to the service.
 * The program moves head and cur forward, the service moves tail, only inside a system call of the program.
 */
struct netmap_ring {
	const int64_t buf_ofs;      /* from here to buffer 0 */
	const uint32_t num_slots;
	const uint32_t nr_buf_size; /* bytes of a buffer */
	const uint16_t ringid;      /* number within its direction */
	const uint16_t dir;         /* 1: transmission, 0: reception */
	uint32_t head;              /* program: first slot that it still owns */
	uint32_t cur;               /* program: a poll waits for slots beyond this one */
	uint32_t tail;              /* service: first slot that it owns */
	uint32_t flags;             /* NR_TIMESTAMP, NR_FORWARD */
	struct timeval ts;          /* service: time of the last sync, see NR_TIMESTAMP */
	const uint64_t offset_mask; /* bits of netmap_slot.ptr that hold an offset */
	const uint64_t buf_align;   /* offsets are multiples of this */
	uint8_t sem[128] NM_ATTR_ALIGNED_(NM_CACHE_ALIGN);
	NM_EXT_ struct netmap_slot slot[]; /* num_slots of them */
};

#define NR_TIMESTAMP 0x0002 /* keep ts up to date */
#define NR_FORWARD   0x0004 /* look at NS_FORWARD */

/* The record of one binding of a port. */
struct netmap_if {
	char ni_name[IFNAMSIZ];
	const uint32_t ni_version;
	const uint32_t ni_flags;         /* NI_PRIV_MEM */
	const uint32_t ni_tx_rings;      /* hardware rings */
	const uint32_t ni_rx_rings;
	uint32_t ni_bufs_head;           /* first extra buffer; each begins with the index of the next, 0 ends */
	const uint32_t ni_host_tx_rings; /* host rings; at least 1 even where there are none */
	const uint32_t ni_host_rx_rings;
	uint32_t ni_spare1[3];
	/* From this record to each ring, 0 for those not bound: TX, host TX, RX, host RX. */
	NM_EXT_ ssize_t ring_ofs[];
};

#define NI_PRIV_MEM 0x1 /* the memory belongs to this port alone */

/* Are there no slots for the program? */
static inline int NM_ATTR_UNUSED_
nm_ring_empty(struct netmap_ring *ring)
{
	return ring->head == ring->tail;
}

/*
 * Requests: NIOCCTRL with a header, which points to a body (its kind depends on nr_reqtype) and to a
 * list of options. Pointers are kept in 64 bits.
 */

struct nmreq_option {
	uint64_t nro_next;    /* program: next option, 0 ends the list */
	uint32_t nro_reqtype; /* program: NETMAP_REQ_OPT_* */
	uint32_t nro_status;  /* service: 0 or an errno */
	uint64_t nro_size;    /* program: bytes in all, for options of variable size */
};

enum {
	NETMAP_REQ_OPT_EXTMEM = 1,             /* with REGISTER */
	NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS = 2, /* with SYNC_KLOOP_START */
	NETMAP_REQ_OPT_CSB = 3,                /* with REGISTER, CSB_ENABLE */
	NETMAP_REQ_OPT_SYNC_KLOOP_MODE = 4,    /* with SYNC_KLOOP_START */
	NETMAP_REQ_OPT_OFFSETS = 5,            /* with REGISTER */
	NETMAP_REQ_OPT_MAX = 6                 /* no option: all from here on are unknown */
};

struct nmreq_header {
	uint16_t nr_version;               /* program: NETMAP_API */
	uint16_t nr_reqtype;               /* program: NETMAP_REQ_* */
	uint32_t nr_reserved;              /* 0 */
	char nr_name[NETMAP_REQ_IFNAMSIZ]; /* program; service in VALE_LIST */
	uint64_t nr_options;               /* program: first option */
	uint64_t nr_body;                  /* program: body, 0 where there is none */
};

enum {
	NETMAP_REQ_REGISTER = 1,              /* nmreq_register */
	NETMAP_REQ_PORT_INFO_GET = 2,         /* nmreq_port_info_get */
	NETMAP_REQ_VALE_ATTACH = 3,           /* nmreq_vale_attach */
	NETMAP_REQ_VALE_DETACH = 4,           /* nmreq_vale_detach */
	NETMAP_REQ_VALE_LIST = 5,             /* nmreq_vale_list */
	NETMAP_REQ_PORT_HDR_SET = 6,          /* nmreq_port_hdr */
	NETMAP_REQ_PORT_HDR_GET = 7,          /* nmreq_port_hdr */
	NETMAP_REQ_VALE_NEWIF = 8,            /* nmreq_vale_newif */
	NETMAP_REQ_VALE_DELIF = 9,            /* no body */
	NETMAP_REQ_VALE_POLLING_ENABLE = 10,  /* nmreq_vale_polling */
	NETMAP_REQ_VALE_POLLING_DISABLE = 11, /* nmreq_vale_polling */
	NETMAP_REQ_POOLS_INFO_GET = 12,       /* nmreq_pools_info */
	NETMAP_REQ_SYNC_KLOOP_START = 13,     /* nmreq_sync_kloop_start; returns when stopped */
	NETMAP_REQ_SYNC_KLOOP_STOP = 14,      /* no body */
	NETMAP_REQ_CSB_ENABLE = 15            /* no body, needs NETMAP_REQ_OPT_CSB */
};

/* Bind the descriptor to a port. Counts: wanted (0: as the service likes), then what they came to. */
struct nmreq_register {
	uint64_t nr_offset;         /* service: from the start of the mapping to the netmap_if */
	uint64_t nr_memsize;        /* service: bytes to map */
	uint32_t nr_tx_slots;
	uint32_t nr_rx_slots;
	uint16_t nr_tx_rings;
	uint16_t nr_rx_rings;
	uint16_t nr_host_tx_rings;
	uint16_t nr_host_rx_rings;
	uint16_t nr_mem_id;         /* memory to use or 0, then the one in use */
	uint16_t nr_ringid;         /* program: ring of NR_REG_ONE_NIC, NR_REG_ONE_SW */
	uint32_t nr_mode;           /* program: NR_REG_* */
	uint32_t nr_extra_bufs;     /* buffers wanted beside those of rings, then given */
	uint64_t nr_flags;          /* program: NR_MONITOR_TX and so on */
};

/* Values of nr_mode. */
enum {
	NR_REG_DEFAULT = 0,     /* none: refused */
	NR_REG_ALL_NIC = 1,     /* hardware rings */
	NR_REG_SW = 2,          /* host rings */
	NR_REG_NIC_SW = 3,      /* both */
	NR_REG_ONE_NIC = 4,     /* one pair of hardware rings */
	NR_REG_PIPE_MASTER = 5, /* only in struct nmreq */
	NR_REG_PIPE_SLAVE = 6,  /* only in struct nmreq */
	NR_REG_NULL = 7,        /* no port, only memory */
	NR_REG_ONE_SW = 8       /* one pair of host rings */
};

/* Bits of nr_flags. The mode of a struct nmreq lies in the low 4 bits of its nr_flags. */
#define NR_REG_MASK        0xf
#define NR_MONITOR_TX      0x100
#define NR_MONITOR_RX      0x200
#define NR_ZCOPY_MON       0x400
#define NR_EXCLUSIVE       0x800
#define NR_RX_RINGS_ONLY   0x2000
#define NR_TX_RINGS_ONLY   0x4000
#define NR_ACCEPT_VNET_HDR 0x8000
#define NR_DO_RX_POLL      0x10000
#define NR_NO_TX_POLL      0x20000

/* Describe a port, or (with an empty name) the memory nr_mem_id. */
struct nmreq_port_info_get {
	uint64_t nr_memsize;
	uint32_t nr_tx_slots;
	uint32_t nr_rx_slots;
	uint16_t nr_tx_rings;
	uint16_t nr_rx_rings;
	uint16_t nr_host_tx_rings;
	uint16_t nr_host_rx_rings;
	uint16_t nr_mem_id;
	uint16_t pad[3];
};

/* Put an interface on a switch. */
struct nmreq_vale_attach {
	struct nmreq_register reg;
	uint32_t port_index; /* service */
	uint32_t pad1;
};

/* Take it off again. */
struct nmreq_vale_detach {
	uint32_t port_index; /* service */
	uint32_t pad1;
};

/* Walk over the ports of all switches. */
struct nmreq_vale_list {
	uint16_t nr_bridge_idx; /* from here on, then where it was found */
	uint16_t pad1;
	uint32_t nr_port_idx;
};

/* Length of the virtio-net header before each packet. */
struct nmreq_port_hdr {
	uint32_t nr_hdr_len;
	uint32_t pad1;
};

/* Create a switch port that stays without a program. */
struct nmreq_vale_newif {
	uint32_t nr_tx_slots;
	uint32_t nr_rx_slots;
	uint16_t nr_tx_rings;
	uint16_t nr_rx_rings;
	uint16_t nr_mem_id;
	uint16_t pad1;
};

/* Let processors of the machine serve the rings of an interface on a switch. */
struct nmreq_vale_polling {
	uint32_t nr_mode;
	uint32_t nr_first_cpu_id;
	uint32_t nr_num_polling_cpus;
	uint32_t pad1;
};

#define NETMAP_POLLING_MODE_SINGLE_CPU 1
#define NETMAP_POLLING_MODE_MULTI_CPU  2

/* Where in the mapping the three kinds of objects lie. */
struct nmreq_pools_info {
	uint64_t nr_memsize;
	uint16_t nr_mem_id;
	uint16_t pad1[3];
	uint64_t nr_if_pool_offset;
	uint32_t nr_if_pool_objtotal;
	uint32_t nr_if_pool_objsize;
	uint64_t nr_ring_pool_offset;
	uint32_t nr_ring_pool_objtotal;
	uint32_t nr_ring_pool_objsize;
	uint64_t nr_buf_pool_offset;
	uint32_t nr_buf_pool_objtotal;
	uint32_t nr_buf_pool_objsize;
};

/* Serve the rings in this thread until somebody asks to stop. */
struct nmreq_sync_kloop_start {
	uint32_t sleep_us; /* without eventfds: microseconds between rounds */
	uint32_t pad1;
};

/* One entry per bound ring, transmission first. A negative descriptor: none. */
struct nmreq_opt_sync_kloop_eventfds {
	struct nmreq_option nro_opt;
	NM_EXT_ struct {
		int32_t ioeventfd; /* program wakes the loop */
		int32_t irqfd;     /* loop wakes the program */
	} eventfds[];
};

struct nmreq_opt_sync_kloop_mode {
	struct nmreq_option nro_opt;
#define NM_OPT_SYNC_KLOOP_DIRECT_TX 1
#define NM_OPT_SYNC_KLOOP_DIRECT_RX 2
	uint32_t mode;
};

/* Use memory of the program. */
struct nmreq_opt_extmem {
	struct nmreq_option nro_opt;
	uint64_t nro_usrptr;              /* program: where it is */
	struct nmreq_pools_info nro_info; /* how big it is, and what lies in it */
};

/* Use these two arrays in place of head, cur and tail of rings. */
struct nmreq_opt_csb {
	struct nmreq_option nro_opt;
	uint64_t csb_atok; /* struct nm_csb_atok[], on a 64-byte boundary */
	uint64_t csb_ktoa; /* struct nm_csb_ktoa[], on a 64-byte boundary */
};

/* Packets that do not begin where their buffer begins. */
struct nmreq_opt_offsets {
	struct nmreq_option nro_opt;
	uint64_t nro_max_offset;     /* largest offset wanted, then what it came to */
	uint64_t nro_initial_offset; /* put into fresh slots */
	uint32_t nro_offset_bits;    /* bits of netmap_slot.ptr used for it, 0: all */
	uint32_t nro_tx_align;
	uint64_t nro_min_gap;        /* bytes that stay free behind an offset */
};

/* Program to loop. */
struct nm_csb_atok {
	uint32_t head;
	uint32_t cur;
	uint32_t appl_need_kick;
	uint32_t sync_flags;
	uint32_t pad[12];
};

/* Loop to program. */
struct nm_csb_ktoa {
	uint32_t hwcur;
	uint32_t hwtail;
	uint32_t kern_need_kick;
	uint32_t pad[13];
};

#if defined(__GNUC__)
/* Stores before it are seen before stores after it. */
static inline void NM_ATTR_UNUSED_
nm_stst_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

/* Loads before it are done before loads after it. */
static inline void NM_ATTR_UNUSED_
nm_ldld_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
}

/* Publish a position to a sync loop. The loop reads head first: so cur goes first here. */
static inline void NM_ATTR_UNUSED_
nm_sync_kloop_appl_write(struct nm_csb_atok *atok, uint32_t cur, uint32_t head)
{
	/* What the program wrote into slots comes before the positions that release them. */
	nm_stst_barrier();
	__atomic_store_n(&atok->cur, cur, __ATOMIC_RELAXED);
	nm_stst_barrier();
	__atomic_store_n(&atok->head, head, __ATOMIC_RELAXED);
}

/* Read the positions of a sync loop. The loop writes hwtail last: so it is read first. */
static inline void NM_ATTR_UNUSED_
nm_sync_kloop_appl_read(struct nm_csb_ktoa *ktoa, uint32_t *hwtail, uint32_t *hwcur)
{
	*hwtail = __atomic_load_n(&ktoa->hwtail, __ATOMIC_RELAXED);
	nm_ldld_barrier();
	*hwcur = __atomic_load_n(&ktoa->hwcur, __ATOMIC_RELAXED);
	/* Slots are read only after the positions that give them away. */
	nm_ldld_barrier();
}
#endif /* __GNUC__ */

/* Requests on a descriptor of NETMAP_DEVICE_NAME. Those with struct nmreq are in net/netmap_legacy.h. */
#define NIOCTXSYNC _IO('i', 148)
#define NIOCRXSYNC _IO('i', 149)
#define NIOCCTRL   _IOWR('i', 151, struct nmreq_header)

#if defined(__clang__) && defined(__cplusplus)
#pragma clang diagnostic pop
#endif

#include <net/netmap_legacy.h>

#endif /* _NET_NETMAP_H_ */

//! What lies in shared memory: slot, ring header, interface header, and their flags.
//!
//! The types are plain layouts. Code that works on memory which another process writes must not
//! form references to them; it loads each word once, through the atomics of the `os` crate.
//! "Engine" below is who serves the port (upstream: the kernel module), "client" is who opened it.
//!
//! ```text
//! region base + nr_offset --> netmap_if | ring_ofs[0 ..] : TX hw, TX host, RX hw, RX host
//! netmap_if + ring_ofs[i] --> netmap_ring | slot[0 .. num_slots]
//! netmap_ring + buf_ofs + k * nr_buf_size --> buffer k
//! ```
//!
//! Source: `sys/net/netmap.h`.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// One slot of a ring: names a buffer and describes what is in it.
///
/// A slot belongs to the client from `head` up to `tail`, otherwise to the engine; only the owner
/// writes. Source: `sys/net/netmap.h`, `struct netmap_slot`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct netmap_slot {
    /// Index of the buffer in the region; owner writes.
    pub buf_idx: u32,
    /// Bytes of packet in this slot; TX: client writes, RX: engine writes.
    pub len: u16,
    /// `NS_*` bits; owner writes.
    pub flags: u16,
    /// Address of the payload with [`NS_INDIRECT`], else offset bits (`offset_mask`); owner writes.
    pub ptr: u64,
}

/// Seconds and microseconds, as the 64-bit C library lays them out.
///
/// Source: `sys/time.h`, `struct timeval`, LP64.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct timeval {
    /// Seconds.
    pub tv_sec: i64,
    /// Microseconds, 0..1000000.
    pub tv_usec: i64,
}

/// Header of a ring; the slots follow it at [`RING_SLOT_OFS`].
///
/// Source: `sys/net/netmap.h`, `struct netmap_ring`.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct netmap_ring {
    /// Bytes from this header to buffer 0; engine writes once.
    pub buf_ofs: i64,
    /// Slots in the ring; engine writes once.
    pub num_slots: u32,
    /// Bytes per buffer; engine writes once.
    pub nr_buf_size: u32,
    /// Index within the direction, host rings after the hardware's; engine writes once.
    pub ringid: u16,
    /// [`RING_DIR_TX`] or [`RING_DIR_RX`]; engine writes once.
    pub dir: u16,
    /// First slot the client keeps, slot index; client writes.
    pub head: u32,
    /// Wake-up point, slot index in `[head, tail]`; client writes.
    pub cur: u32,
    /// First slot the engine keeps, slot index; engine writes.
    pub tail: u32,
    /// `NR_TIMESTAMP`, `NR_FORWARD`; client writes.
    pub flags: u32,
    /// Padding, 0.
    pub _pad: u32,
    /// Time of the last receive sync; engine writes.
    pub ts: timeval,
    /// Bits of a slot's `ptr` that hold its offset, 0 without offsets; engine writes at bind.
    pub offset_mask: u64,
    /// Alignment in bytes the device wants of packet starts; engine writes at bind.
    pub buf_align: u64,
    /// Padding, 0.
    pub _pad2: [u8; 56],
    /// Room for a lock of the engine; unused here.
    pub sem: [u8; 128],
}

impl Default for netmap_ring {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

/// Header of a bound port in shared memory; `ring_ofs: [i64]` follows at [`IF_RING_OFS`].
///
/// Source: `sys/net/netmap.h`, `struct netmap_if`.
// The i64 array that follows asks for the alignment.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct netmap_if {
    /// Port name, NUL terminated, cut to fit; engine writes once.
    pub ni_name: [u8; IFNAMSIZ],
    /// Stays 0 (upstream never sets it); engine writes once.
    pub ni_version: u32,
    /// [`NI_PRIV_MEM`] or 0; engine writes once.
    pub ni_flags: u32,
    /// Hardware TX rings; engine writes once.
    pub ni_tx_rings: u32,
    /// Hardware RX rings; engine writes once.
    pub ni_rx_rings: u32,
    /// Buffer index that starts the list of extra buffers, 0 for none; client writes.
    pub ni_bufs_head: u32,
    /// Host TX entries in `ring_ofs`, at least 1; engine writes once.
    pub ni_host_tx_rings: u32,
    /// Host RX entries in `ring_ofs`, at least 1; engine writes once.
    pub ni_host_rx_rings: u32,
    /// Unused, 0.
    pub ni_spare1: [u32; 3],
}

// Offsets and counts (abi.md 14).

/// Bytes from a [`netmap_ring`] to its first slot.
pub const RING_SLOT_OFS: usize = size_of::<netmap_ring>();
/// Bytes from a [`netmap_if`] to its first `ring_ofs` entry.
pub const IF_RING_OFS: usize = size_of::<netmap_if>();
/// First buffer index a client may own: 0 and 1 are reserved. (Not a C name.)
pub const FIRST_BUF_IDX: u32 = 2;
/// `dir` of an RX ring. The comment in netmap's header says the opposite; its code does this.
pub const RING_DIR_RX: u16 = 0;
/// `dir` of a TX ring. See [`RING_DIR_RX`].
pub const RING_DIR_TX: u16 = 1;

/// Bytes of a ring with `num_slots` slots, header included; `None` if that overflows.
pub const fn ring_size_bytes(num_slots: u32) -> Option<usize> {
    match (num_slots as usize).checked_mul(size_of::<netmap_slot>()) {
        Some(slots) => slots.checked_add(RING_SLOT_OFS),
        None => None,
    }
}

/// Bytes of a `netmap_if` with `rings` entries in `ring_ofs` (all four groups together).
pub const fn if_size_bytes(rings: u32) -> Option<usize> {
    match (rings as usize).checked_mul(size_of::<i64>()) {
        Some(table) => table.checked_add(IF_RING_OFS),
        None => None,
    }
}

// Versions and limits (abi.md 6.1).

/// Version that callers put in `nr_version`.
pub const NETMAP_API: u16 = 14;
/// Lowest `nr_version` accepted.
pub const NETMAP_MIN_API: u16 = 14;
/// Highest `nr_version` accepted by NIOCCTRL.
pub const NETMAP_MAX_API: u16 = 15;
/// Alignment in bytes of a ring header and of `sem`.
pub const NM_CACHE_ALIGN: usize = 128;
/// Most slots one packet of a VALE switch may use.
pub const NETMAP_MAX_FRAGS: usize = 64;
/// Most bytes of a request: body, option headers and option bodies together.
pub const NETMAP_REQ_MAXSIZE: usize = 4096;
/// Bytes of `nr_name` in a [`nmreq_header`](crate::nmreq_header), NUL included.
pub const NETMAP_REQ_IFNAMSIZ: usize = 64;
/// Bytes of an interface name, NUL included.
pub const IFNAMSIZ: usize = 16;
/// Bytes of payload in a [`nm_ifreq`](crate::nm_ifreq).
pub const NM_IFRDATA_LEN: usize = 256;
/// Prefix of switch names.
pub const NM_BDG_NAME: &str = "vale";
/// The device programs open.
pub const NETMAP_DEVICE_NAME: &str = "/dev/netmap";
/// Most ports of one switch.
pub const NM_BDG_MAXPORTS: u32 = 254;
/// Destination "all other ports" of a switch's lookup.
pub const NM_BDG_BROADCAST: u32 = NM_BDG_MAXPORTS;
/// Port index that means "no port".
pub const NM_BDG_NOPORT: u32 = 255;

// Slot flags (abi.md 6.2).

/// `buf_idx` was changed; the sync that takes notice clears it.
pub const NS_BUF_CHANGED: u16 = 0x0001;
/// Client asks to hear when this slot was sent (NIC TX only).
pub const NS_REPORT: u16 = 0x0002;
/// On release, hand the packet to the other side (NIC to host or back).
pub const NS_FORWARD: u16 = 0x0004;
/// Documented as "do not learn the source address"; upstream never reads it.
pub const NS_NO_LEARN: u16 = 0x0008;
/// VALE TX: the payload is at the address in `ptr`.
pub const NS_INDIRECT: u16 = 0x0010;
/// The packet goes on in the next slot.
pub const NS_MOREFRAG: u16 = 0x0020;
/// In a copy monitor's RX ring: this frame was seen on transmission.
pub const NS_TXMON: u16 = 0x0040;
/// Position of the port number of [`NS_PORT_MASK`].
pub const NS_PORT_SHIFT: u32 = 8;
/// Documented as explicit destination port; upstream never reads it.
pub const NS_PORT_MASK: u16 = 0xff << NS_PORT_SHIFT;

/// Slots of the packet that starts in `slot`, as a VALE RX ring reports it.
///
/// Source: `sys/net/netmap.h`, macro of the same name.
pub const fn NS_RFRAGS(slot: &netmap_slot) -> u16 {
    slot.flags >> NS_PORT_SHIFT
}

// Ring and interface flags (abi.md 6.3).

/// `netmap_ring::flags`: refresh `ts` at receive syncs even where time stamps are turned off.
pub const NR_TIMESTAMP: u32 = 0x2;
/// `netmap_ring::flags`: obey [`NS_FORWARD`] on this RX ring.
pub const NR_FORWARD: u32 = 0x4;
/// `netmap_if::ni_flags`: the region is not the shared one.
pub const NI_PRIV_MEM: u32 = 0x1;

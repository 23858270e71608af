//! Options of requests, and the communication status blocks (CSB) of sync loops.
//!
//! Options form a list linked by user addresses; each begins with a [`nmreq_option`] and its size
//! follows from its type ([`option_size`]). The service writes a status into each.
//!
//! Source: `sys/net/netmap.h`.

use crate::request::nmreq_pools_info;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Head of every option. Source: `sys/net/netmap.h`, `struct nmreq_option`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_option {
    /// Address of the next option, 0 at the end; client writes.
    pub nro_next: u64,
    /// `NETMAP_REQ_OPT_*`; client writes.
    pub nro_reqtype: u32,
    /// 0 or an errno; service writes.
    pub nro_status: u32,
    /// Bytes of the whole option, read only for those of variable size; client writes.
    pub nro_size: u64,
}

/// Region in memory of the client. Source: `sys/net/netmap.h`, `struct nmreq_opt_extmem`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_opt_extmem {
    /// Type [`NETMAP_REQ_OPT_EXTMEM`].
    pub nro_opt: nmreq_option,
    /// Address of the memory; client writes.
    pub nro_usrptr: u64,
    /// Its bytes, and the pools wanted (0: default); client writes, service fills in the defaults.
    pub nro_info: nmreq_pools_info,
}

/// Head of the option that gives a sync loop its eventfds; entries [`sync_kloop_eventfds`] follow,
/// one per bound ring, TX first. Source: `sys/net/netmap.h`, `struct nmreq_opt_sync_kloop_eventfds`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_opt_sync_kloop_eventfds {
    /// Type [`NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS`].
    pub nro_opt: nmreq_option,
}

/// One entry of [`nmreq_opt_sync_kloop_eventfds`]; in C a struct without a name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct sync_kloop_eventfds {
    /// Client wakes the loop through it; negative: busy mode; client writes.
    pub ioeventfd: i32,
    /// Loop wakes the client through it; negative: never; client writes.
    pub irqfd: i32,
}

/// How a sync loop runs. Source: `sys/net/netmap.h`, `struct nmreq_opt_sync_kloop_mode`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_opt_sync_kloop_mode {
    /// Type [`NETMAP_REQ_OPT_SYNC_KLOOP_MODE`].
    pub nro_opt: nmreq_option,
    /// `NM_OPT_SYNC_KLOOP_DIRECT_*` bits; client writes.
    pub mode: u32,
    /// Padding, 0.
    pub _pad: u32,
}

/// Addresses of the CSB arrays. Source: `sys/net/netmap.h`, `struct nmreq_opt_csb`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_opt_csb {
    /// Type [`NETMAP_REQ_OPT_CSB`].
    pub nro_opt: nmreq_option,
    /// Address of the [`nm_csb_atok`] array, 64-byte aligned; client writes.
    pub csb_atok: u64,
    /// Address of the [`nm_csb_ktoa`] array, 64-byte aligned; client writes.
    pub csb_ktoa: u64,
}

/// Packets that do not begin at the start of their buffer. Source: `sys/net/netmap.h`,
/// `struct nmreq_opt_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_opt_offsets {
    /// Type [`NETMAP_REQ_OPT_OFFSETS`].
    pub nro_opt: nmreq_option,
    /// Largest offset in bytes: wanted, then effective; both write.
    pub nro_max_offset: u64,
    /// Offset in bytes put into fresh slots; client writes.
    pub nro_initial_offset: u64,
    /// Bits of `ptr` that hold an offset, 0 for all 64; client writes.
    pub nro_offset_bits: u32,
    /// Not read; client writes.
    pub nro_tx_align: u32,
    /// Bytes the device must leave free after an offset, 0 for "whatever is left"; client writes.
    pub nro_min_gap: u64,
}

/// CSB entry, client to loop. Source: `sys/net/netmap.h`, `struct nm_csb_atok`.
///
/// The client stores `cur`, then `head`; the loop loads `head`, then `cur`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nm_csb_atok {
    /// As `netmap_ring::head`; client writes.
    pub head: u32,
    /// As `netmap_ring::cur`; client writes.
    pub cur: u32,
    /// Not 0: the client wants to be woken; client writes.
    pub appl_need_kick: u32,
    /// `NAF_*` bits for the next sync; client writes.
    pub sync_flags: u32,
    /// Padding to 64 bytes.
    pub pad: [u32; 12],
}

/// CSB entry, loop to client. Source: `sys/net/netmap.h`, `struct nm_csb_ktoa`.
///
/// The loop stores `hwcur`, then `hwtail`; the client loads `hwtail`, then `hwcur`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nm_csb_ktoa {
    /// Slots before it have been taken over; loop writes.
    pub hwcur: u32,
    /// As `netmap_ring::tail`; loop writes.
    pub hwtail: u32,
    /// Not 0: the loop sleeps and wants to be woken; loop writes.
    pub kern_need_kick: u32,
    /// Padding to 64 bytes.
    pub pad: [u32; 13],
}

// Option types (abi.md 6.5).

/// [`nmreq_opt_extmem`], with REGISTER.
pub const NETMAP_REQ_OPT_EXTMEM: u32 = 1;
/// [`nmreq_opt_sync_kloop_eventfds`], with SYNC_KLOOP_START.
pub const NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS: u32 = 2;
/// [`nmreq_opt_csb`], with REGISTER and CSB_ENABLE.
pub const NETMAP_REQ_OPT_CSB: u32 = 3;
/// [`nmreq_opt_sync_kloop_mode`], with SYNC_KLOOP_START.
pub const NETMAP_REQ_OPT_SYNC_KLOOP_MODE: u32 = 4;
/// [`nmreq_opt_offsets`], with REGISTER.
pub const NETMAP_REQ_OPT_OFFSETS: u32 = 5;
/// From here on types are unknown.
pub const NETMAP_REQ_OPT_MAX: u32 = 6;

/// Bytes of a whole option, its [`nmreq_option`] included, that a service reads.
///
/// `nro_size` counts only where the type has no fixed size; unknown types and type 0 are their head
/// alone. The result is as the client wishes: whoever copies compares it, and `nro_size` of any known
/// type, with [`NETMAP_REQ_MAXSIZE`](crate::NETMAP_REQ_MAXSIZE) first. Source: abi.md 8.
pub const fn option_size(nro_reqtype: u32, nro_size: u64) -> usize {
    let head = size_of::<nmreq_option>();
    match nro_reqtype {
        NETMAP_REQ_OPT_EXTMEM => size_of::<nmreq_opt_extmem>(),
        NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS if nro_size > usize::MAX as u64 => usize::MAX,
        NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS if nro_size > head as u64 => nro_size as usize,
        NETMAP_REQ_OPT_CSB => size_of::<nmreq_opt_csb>(),
        NETMAP_REQ_OPT_SYNC_KLOOP_MODE => size_of::<nmreq_opt_sync_kloop_mode>(),
        NETMAP_REQ_OPT_OFFSETS => size_of::<nmreq_opt_offsets>(),
        _ => head,
    }
}

/// What messages call an option. Source: userapi.md 5, `nmreq_option_name`.
pub const fn option_name(nro_reqtype: u32) -> &'static str {
    match nro_reqtype {
        NETMAP_REQ_OPT_EXTMEM => "extmem",
        NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS => "sync-kloop-eventfds",
        NETMAP_REQ_OPT_CSB => "csb",
        NETMAP_REQ_OPT_SYNC_KLOOP_MODE => "sync-kloop-mode",
        NETMAP_REQ_OPT_OFFSETS => "offsets",
        _ => "unknown",
    }
}

// Sync loops (abi.md 6.8 and 12).

/// TX syncs run in the thread that writes the eventfd.
pub const NM_OPT_SYNC_KLOOP_DIRECT_TX: u32 = 1;
/// RX syncs run in the thread that writes the eventfd.
pub const NM_OPT_SYNC_KLOOP_DIRECT_RX: u32 = 2;
/// `sync_flags`, RX: look for packets even without a sign of any.
pub const NAF_FORCE_READ: u32 = 1;
/// `sync_flags`, TX: take back every slot already sent.
pub const NAF_FORCE_RECLAIM: u32 = 2;
/// Bytes to which both CSB arrays are aligned. (Not a C name.)
pub const CSB_ALIGN: u64 = 64;
/// Largest `sleep_us` of a sync loop, microseconds. (Not a C name.)
pub const SYNC_KLOOP_MAX_SLEEP_US: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_sizes_are_those_of_the_table() {
        for nro_size in [0, 24, 4096, u64::MAX] {
            for (nro_reqtype, size) in [(0, 24), (1, 96), (3, 40), (4, 32), (5, 56), (6, 24), (u32::MAX, 24)]
            {
                assert_eq!(option_size(nro_reqtype, nro_size), size, "type {nro_reqtype}");
            }
        }
        for (nro_size, size) in [(0, 24), (23, 24), (24, 24), (25, 25), (40, 40), (5000, 5000)] {
            assert_eq!(option_size(NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, nro_size), size);
        }
        assert_eq!(option_size(NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, u64::MAX), usize::MAX);
    }
}

//! The older interface: `NIOCREGIF`, `NIOCGINFO`, `NIOCCONFIG`, and the flags of `nm_open`.
//!
//! One structure serves every command; a service turns it into a request of module
//! [`request`](crate::request) (abi.md 11).
//!
//! Source: `sys/net/netmap_legacy.h`; `NM_*`: `sys/net/netmap_user.h`; `NMREQ_OPT*`:
//! `libnetmap/libnetmap.h`.

use crate::ring::{IFNAMSIZ, NM_IFRDATA_LEN};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Argument of NIOCREGIF and NIOCGINFO. Source: `sys/net/netmap_legacy.h`, `struct nmreq`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq {
    /// Port name, NUL terminated; client writes, service too for `NETMAP_BDG_LIST`.
    pub nr_name: [u8; IFNAMSIZ],
    /// At least [`NETMAP_API`](crate::NETMAP_API); client writes.
    pub nr_version: u32,
    /// Bytes from the start of the region to the `netmap_if`, low 32 bits; service writes.
    pub nr_offset: u32,
    /// Bytes of the region, low 32 bits; service writes.
    pub nr_memsize: u32,
    /// Slots per TX ring; both write.
    pub nr_tx_slots: u32,
    /// Slots per RX ring; both write.
    pub nr_rx_slots: u32,
    /// Hardware TX rings; both write.
    pub nr_tx_rings: u16,
    /// Hardware RX rings; both write.
    pub nr_rx_rings: u16,
    /// Ring number and `NETMAP_*` bits; client writes.
    pub nr_ringid: u16,
    /// `NETMAP_BDG_*` and its like, 0 to bind; client writes.
    pub nr_cmd: u16,
    /// Depends on the command; 0 to bind: pipes, not read; both write.
    pub nr_arg1: u16,
    /// Depends on the command; 0 to bind: region; both write.
    pub nr_arg2: u16,
    /// Extra buffers; both write.
    pub nr_arg3: u32,
    /// `NR_REG_*` in the low 4 bits, other `NR_*` flags above; client writes.
    pub nr_flags: u32,
    /// Unused, 0.
    pub spare2: [u32; 1],
}

/// Argument of NIOCCONFIG. Source: `sys/net/netmap_legacy.h`, `struct nm_ifreq`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nm_ifreq {
    /// Switch name, NUL terminated; client writes.
    pub nifr_name: [u8; IFNAMSIZ],
    /// Whatever the hook of the switch understands; both write.
    pub data: [u8; NM_IFRDATA_LEN],
}

impl Default for nm_ifreq {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

// Bits of nmreq::nr_ringid (abi.md 6.7).

/// The ring number in `nr_ringid`.
pub const NETMAP_RING_MASK: u16 = 0x0fff;
/// Poll syncs TX rings only when writing is asked for.
pub const NETMAP_NO_TX_POLL: u16 = 0x1000;
/// Host rings.
pub const NETMAP_SW_RING: u16 = 0x2000;
/// One hardware ring pair.
pub const NETMAP_HW_RING: u16 = 0x4000;
/// Poll for writing syncs RX rings too.
pub const NETMAP_DO_RX_POLL: u16 = 0x8000;

// Values of nmreq::nr_cmd.

/// Attach an interface to a switch.
pub const NETMAP_BDG_ATTACH: u16 = 1;
/// Detach it again.
pub const NETMAP_BDG_DETACH: u16 = 2;
/// Replace the functions of a switch; for modules, refused here.
pub const NETMAP_BDG_REGOPS: u16 = 3;
/// List ports of switches (NIOCGINFO).
pub const NETMAP_BDG_LIST: u16 = 4;
/// Set the header length of a port, in `nr_arg1`.
pub const NETMAP_BDG_VNET_HDR: u16 = 5;
/// Create a persistent port.
pub const NETMAP_BDG_NEWIF: u16 = 6;
/// Delete a persistent port.
pub const NETMAP_BDG_DELIF: u16 = 7;
/// Once: start a guest's port; refused.
pub const NETMAP_PT_HOST_CREATE: u16 = 8;
/// Once: stop a guest's port; refused.
pub const NETMAP_PT_HOST_DELETE: u16 = 9;
/// Poll an attached NIC.
pub const NETMAP_BDG_POLLING_ON: u16 = 10;
/// Stop polling it.
pub const NETMAP_BDG_POLLING_OFF: u16 = 11;
/// Get the header length of a port, in `nr_arg1`.
pub const NETMAP_VNET_HDR_GET: u16 = 12;
/// `nr_arg1` of `NETMAP_BDG_ATTACH`: the host stack becomes a port too.
pub const NETMAP_BDG_HOST: u16 = 1;

// nm_open (abi.md 6.9).

/// Do not map the region.
pub const NM_OPEN_NO_MMAP: u64 = 0x04_0000;
/// Take name, ring number and flags from the parent descriptor.
pub const NM_OPEN_IFNAME: u64 = 0x08_0000;
/// Take `nr_arg1` from the parent.
pub const NM_OPEN_ARG1: u64 = 0x10_0000;
/// Take `nr_arg2` from the parent.
pub const NM_OPEN_ARG2: u64 = 0x20_0000;
/// Take `nr_arg3` from the parent.
pub const NM_OPEN_ARG3: u64 = 0x40_0000;
/// Take ring and slot counts from the parent.
pub const NM_OPEN_RING_CFG: u64 = 0x80_0000;
/// `nm_pkthdr::flags`: this dispatch has more packets.
pub const NM_MORE_PKTS: u64 = 1;
/// Bytes of `nm_desc::msg`.
pub const NM_ERRBUF_SIZE: usize = 512;
/// Bytes of the message buffer of `nm_parse`.
pub const MAXERRMSG: usize = 80;

// libnetmap's option parsers (abi.md 6.9).

/// Most keys of an option.
pub const NMREQ_OPT_MAXKEYS: usize = 16;
/// Key flag: may stand without "=value".
pub const NMREQ_OPTK_ALLOWEMPTY: u32 = 1;
/// Key flag: must be given.
pub const NMREQ_OPTK_MUSTSET: u32 = 2;
/// Key flag: takes the value of "option=value".
pub const NMREQ_OPTK_DEFAULT: u32 = 4;
/// Option flag: refused.
pub const NMREQ_OPTF_DISABLED: u32 = 1;
/// Option flag: may stand alone.
pub const NMREQ_OPTF_ALLOWEMPTY: u32 = 2;

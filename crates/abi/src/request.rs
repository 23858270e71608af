//! Requests of the `NIOCCTRL` ioctl: header, bodies, types, modes, flags; ioctl numbers.
//!
//! A request is a [`nmreq_header`] that points to a body (its type and size follow from `nr_reqtype`,
//! [`body_size`]) and to a list of options (module [`option`](crate::option)). "Client" writes a
//! field before the call, "service" on success. A field both write is a wish going in and the outcome
//! coming out; 0 is "service decides".
//!
//! Source: `sys/net/netmap.h`.

use crate::legacy::{nm_ifreq, nmreq};
use crate::ring::NETMAP_REQ_IFNAMSIZ;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Head of every request. Source: `sys/net/netmap.h`, `struct nmreq_header`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_header {
    /// [`NETMAP_API`](crate::NETMAP_API); client writes.
    pub nr_version: u16,
    /// `NETMAP_REQ_*`; client writes.
    pub nr_reqtype: u16,
    /// 0; client writes.
    pub nr_reserved: u32,
    /// Port name, NUL terminated; client writes, service too for VALE_LIST.
    pub nr_name: [u8; NETMAP_REQ_IFNAMSIZ],
    /// Address of the first option, 0 for none; client writes.
    pub nr_options: u64,
    /// Address of the body, 0 where the type has none; client writes.
    pub nr_body: u64,
}

impl Default for nmreq_header {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

/// Binds a descriptor to a port. Source: `sys/net/netmap.h`, `struct nmreq_register`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_register {
    /// Bytes from the start of the region to the `netmap_if`; service writes.
    pub nr_offset: u64,
    /// Bytes of the region; service writes.
    pub nr_memsize: u64,
    /// Slots per TX ring; both write.
    pub nr_tx_slots: u32,
    /// Slots per RX ring; both write.
    pub nr_rx_slots: u32,
    /// Hardware TX rings; both write.
    pub nr_tx_rings: u16,
    /// Hardware RX rings; both write.
    pub nr_rx_rings: u16,
    /// Host TX rings; both write.
    pub nr_host_tx_rings: u16,
    /// Host RX rings; both write.
    pub nr_host_rx_rings: u16,
    /// Region to use; both write.
    pub nr_mem_id: u16,
    /// Ring of the `ONE` modes; client writes.
    pub nr_ringid: u16,
    /// `NR_REG_*`; client writes.
    pub nr_mode: u32,
    /// Extra buffers: wanted, then given; both write.
    pub nr_extra_bufs: u32,
    /// Padding, 0.
    pub _pad: u32,
    /// `NR_MONITOR_TX` and its like; client writes.
    pub nr_flags: u64,
}

/// Describes a port without binding it. Source: `sys/net/netmap.h`, `struct nmreq_port_info_get`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_port_info_get {
    /// Bytes of the region; service writes.
    pub nr_memsize: u64,
    /// Slots per TX ring; both write.
    pub nr_tx_slots: u32,
    /// Slots per RX ring; both write.
    pub nr_rx_slots: u32,
    /// Hardware TX rings; both write.
    pub nr_tx_rings: u16,
    /// Hardware RX rings; both write.
    pub nr_rx_rings: u16,
    /// Host TX rings; both write.
    pub nr_host_tx_rings: u16,
    /// Host RX rings; both write.
    pub nr_host_rx_rings: u16,
    /// Region; both write.
    pub nr_mem_id: u16,
    /// Padding, 0.
    pub pad: [u16; 3],
}

/// Attaches an interface to a switch. Source: `sys/net/netmap.h`, `struct nmreq_vale_attach`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_vale_attach {
    /// Mode (ALL_NIC or NIC_SW) and region; client writes.
    pub reg: nmreq_register,
    /// Index the port got; service writes.
    pub port_index: u32,
    /// Padding, 0.
    pub pad1: u32,
}

/// Detaches an interface from a switch. Source: `sys/net/netmap.h`, `struct nmreq_vale_detach`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_vale_detach {
    /// Index the port had; service writes.
    pub port_index: u32,
    /// Padding, 0.
    pub pad1: u32,
}

/// Walks the ports of the switches. Source: `sys/net/netmap.h`, `struct nmreq_vale_list`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_vale_list {
    /// Switch index; both write.
    pub nr_bridge_idx: u16,
    /// Padding, 0.
    pub pad1: u16,
    /// Port index, [`NM_BDG_NOPORT`](crate::NM_BDG_NOPORT) if absent; both write.
    pub nr_port_idx: u32,
}

/// Sets or gets the virtio-net header length. Source: `sys/net/netmap.h`, `struct nmreq_port_hdr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_port_hdr {
    /// Bytes before each frame: 0, 10 or 12; client writes (SET), service writes (GET).
    pub nr_hdr_len: u32,
    /// Padding, 0.
    pub pad1: u32,
}

/// Creates a persistent VALE port. Source: `sys/net/netmap.h`, `struct nmreq_vale_newif`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_vale_newif {
    /// Slots per TX ring; both write.
    pub nr_tx_slots: u32,
    /// Slots per RX ring; both write.
    pub nr_rx_slots: u32,
    /// TX rings; both write.
    pub nr_tx_rings: u16,
    /// RX rings; both write.
    pub nr_rx_rings: u16,
    /// Region; both write.
    pub nr_mem_id: u16,
    /// Padding, 0.
    pub pad1: u16,
}

/// Turns polling of an attached NIC on or off. Source: `sys/net/netmap.h`, `struct nmreq_vale_polling`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_vale_polling {
    /// `NETMAP_POLLING_MODE_*`; client writes.
    pub nr_mode: u32,
    /// First CPU, and in multi mode first ring; client writes.
    pub nr_first_cpu_id: u32,
    /// CPUs; client writes.
    pub nr_num_polling_cpus: u32,
    /// Padding, 0.
    pub pad1: u32,
}

/// Where the three pools of a region lie. Source: `sys/net/netmap.h`, `struct nmreq_pools_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_pools_info {
    /// Bytes of the region; service writes (client in an EXTMEM option).
    pub nr_memsize: u64,
    /// Region; both write.
    pub nr_mem_id: u16,
    /// Padding, 0.
    pub pad1: [u16; 3],
    /// Bytes from the start of the region to the pool of `netmap_if`s; service writes.
    pub nr_if_pool_offset: u64,
    /// Objects of that pool; service writes.
    pub nr_if_pool_objtotal: u32,
    /// Bytes of one of them; service writes.
    pub nr_if_pool_objsize: u32,
    /// Bytes from the start of the region to the pool of rings; service writes.
    pub nr_ring_pool_offset: u64,
    /// Objects of that pool; service writes.
    pub nr_ring_pool_objtotal: u32,
    /// Bytes of one of them; service writes.
    pub nr_ring_pool_objsize: u32,
    /// Bytes from the start of the region to buffer 0; service writes.
    pub nr_buf_pool_offset: u64,
    /// Buffers; service writes.
    pub nr_buf_pool_objtotal: u32,
    /// Bytes of one of them; service writes.
    pub nr_buf_pool_objsize: u32,
}

/// Starts a sync loop in the caller's thread. Source: `sys/net/netmap.h`, `struct nmreq_sync_kloop_start`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct nmreq_sync_kloop_start {
    /// Microseconds between passes in busy mode, at most 1000000; client writes.
    pub sleep_us: u32,
    /// Padding, 0.
    pub pad1: u32,
}

// Request types (abi.md 6.4).

/// Bind the descriptor to a port; body [`nmreq_register`].
pub const NETMAP_REQ_REGISTER: u16 = 1;
/// Describe a port or a region; body [`nmreq_port_info_get`].
pub const NETMAP_REQ_PORT_INFO_GET: u16 = 2;
/// Attach an interface to a switch; body [`nmreq_vale_attach`].
pub const NETMAP_REQ_VALE_ATTACH: u16 = 3;
/// Detach it again; body [`nmreq_vale_detach`].
pub const NETMAP_REQ_VALE_DETACH: u16 = 4;
/// List ports of switches; body [`nmreq_vale_list`].
pub const NETMAP_REQ_VALE_LIST: u16 = 5;
/// Set the header length of a port; body [`nmreq_port_hdr`].
pub const NETMAP_REQ_PORT_HDR_SET: u16 = 6;
/// Get the header length of a port; body [`nmreq_port_hdr`].
pub const NETMAP_REQ_PORT_HDR_GET: u16 = 7;
/// Create a persistent port; body [`nmreq_vale_newif`].
pub const NETMAP_REQ_VALE_NEWIF: u16 = 8;
/// Delete a persistent port; no body.
pub const NETMAP_REQ_VALE_DELIF: u16 = 9;
/// Poll an attached NIC; body [`nmreq_vale_polling`].
pub const NETMAP_REQ_VALE_POLLING_ENABLE: u16 = 10;
/// Stop polling it; body [`nmreq_vale_polling`].
pub const NETMAP_REQ_VALE_POLLING_DISABLE: u16 = 11;
/// Describe the pools of a port's region; body [`nmreq_pools_info`].
pub const NETMAP_REQ_POOLS_INFO_GET: u16 = 12;
/// Run a sync loop until stopped; body [`nmreq_sync_kloop_start`].
pub const NETMAP_REQ_SYNC_KLOOP_START: u16 = 13;
/// Stop the sync loop; no body.
pub const NETMAP_REQ_SYNC_KLOOP_STOP: u16 = 14;
/// Enter CSB mode; no body, the arrays are in an option.
pub const NETMAP_REQ_CSB_ENABLE: u16 = 15;

/// Bytes of the body of a request of this type; 0 for those without one and for unknown types.
///
/// Source: abi.md 6.4 and 7, step 3.
pub const fn body_size(nr_reqtype: u16) -> usize {
    match nr_reqtype {
        NETMAP_REQ_REGISTER => size_of::<nmreq_register>(),
        NETMAP_REQ_PORT_INFO_GET => size_of::<nmreq_port_info_get>(),
        NETMAP_REQ_VALE_ATTACH => size_of::<nmreq_vale_attach>(),
        NETMAP_REQ_VALE_DETACH => size_of::<nmreq_vale_detach>(),
        NETMAP_REQ_VALE_LIST => size_of::<nmreq_vale_list>(),
        NETMAP_REQ_PORT_HDR_SET | NETMAP_REQ_PORT_HDR_GET => size_of::<nmreq_port_hdr>(),
        NETMAP_REQ_VALE_NEWIF => size_of::<nmreq_vale_newif>(),
        NETMAP_REQ_VALE_POLLING_ENABLE | NETMAP_REQ_VALE_POLLING_DISABLE => size_of::<nmreq_vale_polling>(),
        NETMAP_REQ_POOLS_INFO_GET => size_of::<nmreq_pools_info>(),
        NETMAP_REQ_SYNC_KLOOP_START => size_of::<nmreq_sync_kloop_start>(),
        _ => 0,
    }
}

// nr_mode and nr_flags (abi.md 6.6).

/// `nr_mode` left out: refused by `NIOCCTRL`.
pub const NR_REG_DEFAULT: u32 = 0;
/// All hardware rings.
pub const NR_REG_ALL_NIC: u32 = 1;
/// All host rings.
pub const NR_REG_SW: u32 = 2;
/// Hardware and host rings.
pub const NR_REG_NIC_SW: u32 = 3;
/// Hardware ring pair `nr_ringid`.
pub const NR_REG_ONE_NIC: u32 = 4;
/// Master end of pipe `nr_ringid`; legacy requests only.
pub const NR_REG_PIPE_MASTER: u32 = 5;
/// Slave end of pipe `nr_ringid`; legacy requests only.
pub const NR_REG_PIPE_SLAVE: u32 = 6;
/// No interface, only a region.
pub const NR_REG_NULL: u32 = 7;
/// Host ring pair `nr_ringid`.
pub const NR_REG_ONE_SW: u32 = 8;
/// Bits of the mode in the `nr_flags` of a legacy request.
pub const NR_REG_MASK: u32 = 0xf;

/// Monitor what the port sends.
pub const NR_MONITOR_TX: u64 = 0x100;
/// Monitor what the port receives.
pub const NR_MONITOR_RX: u64 = 0x200;
/// Monitor without copying.
pub const NR_ZCOPY_MON: u64 = 0x400;
/// Nobody else may bind these rings.
pub const NR_EXCLUSIVE: u64 = 0x800;
/// Bind RX rings only.
pub const NR_RX_RINGS_ONLY: u64 = 0x2000;
/// Bind TX rings only.
pub const NR_TX_RINGS_ONLY: u64 = 0x4000;
/// The client copes with a virtio-net header.
pub const NR_ACCEPT_VNET_HDR: u64 = 0x8000;
/// Poll for writing syncs RX rings too.
pub const NR_DO_RX_POLL: u64 = 0x10000;
/// Poll syncs TX rings only when writing is asked for.
pub const NR_NO_TX_POLL: u64 = 0x20000;

/// One CPU pumps all rings.
pub const NETMAP_POLLING_MODE_SINGLE_CPU: u32 = 1;
/// CPU i pumps ring i.
pub const NETMAP_POLLING_MODE_MULTI_CPU: u32 = 2;

// ioctl numbers (abi.md 5).

/// Encodes an ioctl that reads and writes an argument of `size_bytes`, 14 bits.
///
/// Source: Linux `asm-generic/ioctl.h`: direction in bits 30-31, size 16-29, type 8-15, number 0-7.
pub const fn _IOWR(kind: u8, number: u8, size_bytes: usize) -> u32 {
    assert!(size_bytes < 1 << 14);
    3 << 30 | (size_bytes as u32) << 16 | _IO(kind, number)
}

/// Encodes an ioctl without argument. Source: as [`_IOWR`].
pub const fn _IO(kind: u8, number: u8) -> u32 {
    (kind as u32) << 8 | number as u32
}

/// Legacy: describe a port; argument [`nmreq`].
pub const NIOCGINFO: u32 = _IOWR(b'i', 145, size_of::<nmreq>());
/// Legacy: bind, and whatever `nr_cmd` says; argument [`nmreq`].
pub const NIOCREGIF: u32 = _IOWR(b'i', 146, size_of::<nmreq>());
/// Sync the bound TX rings; no argument.
pub const NIOCTXSYNC: u32 = _IO(b'i', 148);
/// Sync the bound RX rings; no argument.
pub const NIOCRXSYNC: u32 = _IO(b'i', 149);
/// Configure a switch that has a hook for it; argument [`nm_ifreq`].
pub const NIOCCONFIG: u32 = _IOWR(b'i', 150, size_of::<nm_ifreq>());
/// Every other request; argument [`nmreq_header`].
pub const NIOCCTRL: u32 = _IOWR(b'i', 151, size_of::<nmreq_header>());

const _: () = {
    assert!(NIOCGINFO == 0xc03c_6991);
    assert!(NIOCREGIF == 0xc03c_6992);
    assert!(NIOCTXSYNC == 0x0000_6994);
    assert!(NIOCRXSYNC == 0x0000_6995);
    assert!(NIOCCONFIG == 0xc110_6996);
    assert!(NIOCCTRL == 0xc058_6997);
};

/// The bytes of a C name field before its first NUL (all of them if there is none).
pub fn c_name(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Fills a C name field of `N` bytes; `None` if `name` with its NUL does not fit, or has one inside.
pub fn c_name_field<const N: usize>(name: &str) -> Option<[u8; N]> {
    if name.len() >= N || name.as_bytes().contains(&0) {
        return None;
    }
    let mut field = [0; N];
    field[..name.len()].copy_from_slice(name.as_bytes());
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_sizes_are_those_of_the_table() {
        let table = [0, 56, 32, 64, 8, 8, 8, 8, 16, 0, 16, 16, 64, 8, 0, 0, 0];
        for (nr_reqtype, size) in (0..).zip(table) {
            assert_eq!(body_size(nr_reqtype), size, "type {nr_reqtype}");
        }
        assert_eq!(body_size(u16::MAX), 0);
    }

    #[test]
    fn names_go_in_and_out_of_fields() {
        let field: [u8; 4] = c_name_field("abc").unwrap();
        assert_eq!(field, *b"abc\0");
        assert_eq!(c_name(&field), b"abc");
        assert_eq!(c_name(b"full"), b"full");
        assert_eq!(c_name(b""), b"");
        assert_eq!(c_name_field::<4>("abcd"), None);
        assert_eq!(c_name_field::<4>("a\0b"), None);
        assert_eq!(c_name_field::<0>(""), None);
    }
}

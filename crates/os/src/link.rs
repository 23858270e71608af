//! Questions about network interfaces, and news of them.
//!
//! Everything is asked in the network namespace of the **calling thread**; [`with_netns`] asks in another one.
//! This module reads only: it changes no setting of an interface. Facts come from rtnetlink (rtnetlink(7)) and
//! from the ethtool ioctl (linux/ethtool.h), never from sysfs, whose mount shows the namespace of whoever
//! mounted it.
//!
//! ```text
//! netlink   socket, request, answer -> one LinkMsg per interface    (private)
//! ethtool   the SIOCETHTOOL structures                              (private)
//! monitor   LinkMonitor: what changed since the last look
//! netns     with_netns
//! ```
//!
//! Messages are framed by `netlink-packet-core`. The typed attributes of `netlink-packet-route` are not used:
//! one attribute of unexpected length fails its whole message, and Ringway must work with kernels and drivers
//! newer than the crate.

mod ethtool;
mod monitor;
mod netlink;
mod netns;

use std::ffi::CString;
use std::io;

use rustix::io::Errno;

pub use ethtool::{Offloads, RingParams};
pub use monitor::{LinkChange, LinkEvent, LinkMonitor};
pub use netns::{new_netns, with_netns};

/// Longest interface name, without the terminating zero (linux/if.h, `IFNAMSIZ` - 1).
pub const MAX_NAME_LEN: usize = libc::IFNAMSIZ - 1;

/// How an XDP program runs (linux/if_link.h, `XDP_ATTACHED_*` and `IFLA_XDP_*_PROG_ID`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XdpMode {
    /// In the driver, before a packet buffer is made (`XDP_FLAGS_DRV_MODE`).
    Native,
    /// In the stack, on any interface, with a copy (`XDP_FLAGS_SKB_MODE`).
    Generic,
    /// In the network card (`XDP_FLAGS_HW_MODE`).
    Offloaded,
}

impl std::fmt::Display for XdpMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::Offloaded => "offloaded",
        })
    }
}

/// An XDP program that is attached to an interface. `bpf::attached` adds its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpAttached {
    /// The program's id, as `bpftool prog` shows it.
    pub prog_id: u32,
    /// How it runs.
    pub mode: XdpMode,
}

/// What an interface is like at the time of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index, unique in its namespace.
    pub ifindex: u32,
    /// Current name.
    pub name: String,
    /// Ethernet address; `None` if the interface has no address of 6 bytes.
    pub mac: Option<[u8; 6]>,
    /// Largest payload in bytes, Ethernet header not counted.
    pub mtu: u32,
    /// Set up by the administrator (`IFF_UP`).
    pub up: bool,
    /// Up and with carrier (`IFF_RUNNING` and `IFF_LOWER_UP`).
    pub running: bool,
    /// The loopback interface (`IFF_LOOPBACK`).
    pub loopback: bool,
    /// Frames for other addresses are received too (`IFF_PROMISC`).
    pub promiscuous: bool,
    /// Kind of a virtual interface: `veth`, `tun`, `vlan`... `None` for hardware (`IFLA_INFO_KIND`).
    pub kind: Option<String>,
    /// Name of the driver (`ETHTOOL_GDRVINFO`).
    pub driver: Option<String>,
    /// Receive queues in use: channels of ethtool (rx + combined), else those that the device was made with.
    pub num_rx_queues: u32,
    /// Transmit queues in use, counted likewise.
    pub num_tx_queues: u32,
    /// Sizes of the hardware rings, if the device tells; not always powers of two, and zeros occur.
    pub rings: Option<RingParams>,
    /// Offloads that are on.
    pub offloads: Offloads,
    /// XDP programs attached now: at most one per mode.
    pub xdp: Vec<XdpAttached>,
}

impl Link {
    /// Describes the interface of this name, in the namespace of the calling thread.
    ///
    /// # Errors
    /// ENODEV if there is none; EINVAL for a name that is empty, too long or has a zero byte; else what the
    /// sockets answer (EMFILE, ENOBUFS).
    pub fn by_name(name: &str) -> io::Result<Link> {
        let name = check_name(name)?;
        Link::complete(netlink::get(netlink::Which::Name(&name))?)
    }

    /// Describes the interface of this index, in the namespace of the calling thread.
    ///
    /// # Errors
    /// ENODEV if there is none; else what the sockets answer (EMFILE, ENOBUFS).
    pub fn by_index(ifindex: u32) -> io::Result<Link> {
        Link::complete(netlink::get(netlink::Which::Index(ifindex))?)
    }

    /// Describes all interfaces of the namespace of the calling thread.
    ///
    /// # Errors
    /// What the sockets answer (EMFILE, ENOBUFS). Interfaces that go away meanwhile are left out.
    pub fn all() -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        for msg in netlink::dump()? {
            match Link::complete(msg) {
                Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {}
                link => links.push(link?),
            }
        }
        Ok(links)
    }

    /// Adds to the answer of netlink what ethtool knows.
    fn complete(msg: netlink::LinkMsg) -> io::Result<Link> {
        let ethtool = ethtool::Ethtool::open(&msg.name)?;
        // A count of zero means that the driver has only channels of the other kind: then it is not its answer.
        let (rx, tx) = ethtool.channels().unwrap_or((0, 0));
        let flag = |bit: i32| msg.flags & bit as u32 != 0;
        Ok(Link {
            up: flag(libc::IFF_UP),
            running: flag(libc::IFF_UP) && flag(libc::IFF_RUNNING) && flag(libc::IFF_LOWER_UP),
            loopback: flag(libc::IFF_LOOPBACK),
            promiscuous: flag(libc::IFF_PROMISC),
            driver: ethtool.driver(),
            num_rx_queues: if rx > 0 { rx } else { msg.num_rx_queues.max(1) },
            num_tx_queues: if tx > 0 { tx } else { msg.num_tx_queues.max(1) },
            rings: ethtool.rings(),
            offloads: ethtool.offloads(),
            ifindex: msg.ifindex,
            name: msg.name,
            mac: msg.mac,
            mtu: msg.mtu,
            kind: msg.kind,
            xdp: msg.xdp,
        })
    }
}

/// The index of an interface.
///
/// # Errors
/// As [`Link::by_name`].
pub fn index_of(name: &str) -> io::Result<u32> {
    let name = check_name(name)?;
    Ok(netlink::get(netlink::Which::Name(&name))?.ifindex)
}

/// The current name of an interface.
///
/// # Errors
/// As [`Link::by_index`].
pub fn name_of(ifindex: u32) -> io::Result<String> {
    Ok(netlink::get(netlink::Which::Index(ifindex))?.name)
}

/// The XDP programs attached to an interface: at most one per mode. Cheaper than [`Link::by_index`].
///
/// # Errors
/// As [`Link::by_index`].
pub(crate) fn xdp_attached(ifindex: u32) -> io::Result<Vec<XdpAttached>> {
    Ok(netlink::get(netlink::Which::Index(ifindex))?.xdp)
}

fn check_name(name: &str) -> io::Result<CString> {
    if name.is_empty() || name.len() > MAX_NAME_LEN {
        return Err(Errno::INVAL.into());
    }
    CString::new(name).map_err(|_| Errno::INVAL.into())
}

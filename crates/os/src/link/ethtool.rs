//! What the ethtool ioctl tells. All questions are optional: a driver answers EOPNOTSUPP to what it does not
//! know.
//!
//! Source: linux/ethtool.h, linux/sockios.h (SIOCETHTOOL), netdevice(7).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

// linux/ethtool.h
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GRINGPARAM: u32 = 0x10;
const ETHTOOL_GRXCSUM: u32 = 0x14;
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_GTSO: u32 = 0x1e;
const ETHTOOL_GGSO: u32 = 0x23;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_FLAG_TXVLAN: u32 = 1 << 7;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// Sizes of a device's rings in descriptors, as the driver tells them (`struct ethtool_ringparam`). They may be
/// 0 or no power of two; values below 3 mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingParams {
    /// Receive ring, now.
    pub rx: u32,
    /// Transmit ring, now.
    pub tx: u32,
    /// Receive ring, at most.
    pub rx_max: u32,
    /// Transmit ring, at most.
    pub tx_max: u32,
}

bitflags::bitflags! {
    /// Offloads that disturb programs which want frames as they are on the wire. Names as `ethtool -K` takes
    /// them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Offloads: u32 {
        /// The stack merges received segments: frames above the MTU.
        const GRO = 1;
        /// The stack hands over unsegmented packets.
        const GSO = 1 << 1;
        /// The device segments TCP.
        const TSO = 1 << 2;
        /// The device merges received segments.
        const LRO = 1 << 3;
        /// The device takes VLAN tags out of received frames.
        const RX_VLAN = 1 << 4;
        /// The device puts VLAN tags into sent frames.
        const TX_VLAN = 1 << 5;
        /// The device completes checksums of sent frames: those of the host arrive unfinished at a veth peer.
        const TX_CHECKSUM = 1 << 6;
        /// The device checks checksums of received frames.
        const RX_CHECKSUM = 1 << 7;
    }
}

impl Offloads {
    /// The names that `ethtool -K` takes, of those that are on.
    pub fn names(self) -> Vec<&'static str> {
        const NAMES: [(Offloads, &str); 8] = [
            (Offloads::GRO, "gro"),
            (Offloads::GSO, "gso"),
            (Offloads::TSO, "tso"),
            (Offloads::LRO, "lro"),
            (Offloads::RX_VLAN, "rxvlan"),
            (Offloads::TX_VLAN, "txvlan"),
            (Offloads::TX_CHECKSUM, "tx"),
            (Offloads::RX_CHECKSUM, "rx"),
        ];
        NAMES.iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, name)| *name).collect()
    }
}

/// # Safety
/// The type must be `repr(C)` of integers only, start with the command word, and be as large as the structure
/// that the kernel writes for each command that it is used with.
unsafe trait Command {}

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}
// SAFETY: linux/ethtool.h `struct ethtool_value`, used with the commands of `value`.
unsafe impl Command for Value {}

/// `struct ethtool_drvinfo`: 196 bytes.
#[repr(C)]
struct DrvInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    fw_version: [u8; 32],
    bus_info: [u8; 32],
    erom_version: [u8; 32],
    reserved2: [u8; 12],
    counts: [u32; 5],
}
// SAFETY: linux/ethtool.h `struct ethtool_drvinfo`, used with ETHTOOL_GDRVINFO; the size is asserted below.
unsafe impl Command for DrvInfo {}
const _: () = assert!(size_of::<DrvInfo>() == 196);

/// `struct ethtool_ringparam`
#[repr(C)]
#[derive(Default)]
struct RingParam {
    cmd: u32,
    rx_max_pending: u32,
    rx_mini_max_pending: u32,
    rx_jumbo_max_pending: u32,
    tx_max_pending: u32,
    rx_pending: u32,
    rx_mini_pending: u32,
    rx_jumbo_pending: u32,
    tx_pending: u32,
}
// SAFETY: linux/ethtool.h `struct ethtool_ringparam`, used with ETHTOOL_GRINGPARAM.
unsafe impl Command for RingParam {}

/// `struct ethtool_channels`
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}
// SAFETY: linux/ethtool.h `struct ethtool_channels`, used with ETHTOOL_GCHANNELS.
unsafe impl Command for Channels {}

/// A socket to ask about one interface.
pub(super) struct Ethtool {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Ethtool {
    pub fn open(name: &str) -> io::Result<Ethtool> {
        let mut field = [0; libc::IFNAMSIZ];
        for (to, from) in field[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        // Any socket will do: the ioctl belongs to its namespace. AF_UNIX exists in every kernel.
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Ethtool { socket, name: field })
    }

    fn ask<C: Command>(&self, command: &mut C) -> Result<(), Errno> {
        let mut request = libc::ifreq {
            ifr_name: self.name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut *command).cast() },
        };
        // SAFETY: SIOCETHTOOL takes a `struct ifreq` whose data points to the command structure. Both live
        // here, and the kernel writes no more than the structure of the command (contract of `Command`).
        let r = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
        if r < 0 { Err(last_errno()) } else { Ok(()) }
    }

    fn value(&self, cmd: u32) -> u32 {
        let mut value = Value { cmd, data: 0 };
        if self.ask(&mut value).is_ok() { value.data } else { 0 }
    }

    pub fn driver(&self) -> Option<String> {
        let zero = [0; 32];
        let mut info = DrvInfo {
            cmd: ETHTOOL_GDRVINFO,
            driver: zero,
            version: zero,
            fw_version: zero,
            bus_info: zero,
            erom_version: zero,
            reserved2: [0; 12],
            counts: [0; 5],
        };
        self.ask(&mut info).ok()?;
        let name = info.driver.split(|b| *b == 0).next().unwrap_or(&[]);
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }

    /// Receive and transmit queues in use; `None` if the driver has no channels.
    pub fn channels(&self) -> Option<(u32, u32)> {
        let mut c = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
        self.ask(&mut c).ok()?;
        Some((c.rx_count.saturating_add(c.combined_count), c.tx_count.saturating_add(c.combined_count)))
    }

    pub fn rings(&self) -> Option<RingParams> {
        let mut r = RingParam { cmd: ETHTOOL_GRINGPARAM, ..RingParam::default() };
        self.ask(&mut r).ok()?;
        Some(RingParams {
            rx: r.rx_pending,
            tx: r.tx_pending,
            rx_max: r.rx_max_pending,
            tx_max: r.tx_max_pending,
        })
    }

    pub fn offloads(&self) -> Offloads {
        let mut on = Offloads::empty();
        on.set(Offloads::GRO, self.value(ETHTOOL_GGRO) != 0);
        on.set(Offloads::GSO, self.value(ETHTOOL_GGSO) != 0);
        on.set(Offloads::TSO, self.value(ETHTOOL_GTSO) != 0);
        on.set(Offloads::TX_CHECKSUM, self.value(ETHTOOL_GTXCSUM) != 0);
        on.set(Offloads::RX_CHECKSUM, self.value(ETHTOOL_GRXCSUM) != 0);
        let flags = self.value(ETHTOOL_GFLAGS);
        on.set(Offloads::LRO, flags & ETH_FLAG_LRO != 0);
        on.set(Offloads::RX_VLAN, flags & ETH_FLAG_RXVLAN != 0);
        on.set(Offloads::TX_VLAN, flags & ETH_FLAG_TXVLAN != 0);
        on
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

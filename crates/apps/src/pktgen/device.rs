//! What pkt-gen needs of a port: the narrow waist between its loops and the service.
//!
//! Modelled on netmap's rings. All loops are generic over [`Device`], so that the per-slot calls are
//! inlined; nothing here is meant for `dyn`.
//!
//! ```text
//!    head            tail        slots [head, tail) are ours
//!      v               v         cur: where we want to be woken, in [head, tail]
//!   ...|. . . . . . . .|...
//! ```

use std::fmt;
use std::io;
use std::ops::BitOr;
use std::time::Duration;

use crate::addr::Mac;

/// `NS_BUF_CHANGED`: the slot's buffer is another one than before. Source: `net/netmap.h`.
pub const NS_BUF_CHANGED: u16 = 0x0001;
/// `NS_REPORT`: the service is to tell when this slot is done.
pub const NS_REPORT: u16 = 0x0002;
/// `NS_INDIRECT`: the data lie at the slot's `ptr`.
pub const NS_INDIRECT: u16 = 0x0010;
/// `NS_MOREFRAG`: the packet goes on in the next slot.
pub const NS_MOREFRAG: u16 = 0x0020;

/// A slot as it was read, at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Slot {
    /// Index of the slot's buffer.
    pub buf_idx: u32,
    /// Bytes of data in the buffer.
    pub len: u16,
    /// `NS_*` bits.
    pub flags: u16,
}

/// One ring, of either direction. Slot indexes are below [`Ring::num_slots`]; an implementation must not be
/// unsound for others, but may panic.
pub trait Ring {
    /// Number of the ring in its port.
    fn number(&self) -> u32;
    /// Slots in the ring, at least 2.
    fn num_slots(&self) -> u32;
    /// Bytes of one buffer.
    fn buf_size(&self) -> usize;
    /// First slot that is ours.
    fn head(&self) -> u32;
    /// The wake-up point.
    fn cur(&self) -> u32;
    /// First slot that is the service's.
    fn tail(&self) -> u32;
    /// Gives slots up to `head` back; takes effect with the next sync or poll.
    fn set_head(&mut self, head: u32);
    /// Moves the wake-up point; takes effect with the next sync or poll.
    fn set_cur(&mut self, cur: u32);
    /// Reads a slot.
    fn slot(&self, idx: u32) -> Slot;
    /// Stores length and flags of a slot that is ours, not its buffer. An implementation may keep `NS_BUF_CHANGED`.
    fn set_slot(&mut self, idx: u32, len: u16, flags: u16);
    /// Stores the slot's `ptr`, the address of indirect data.
    fn set_ptr(&mut self, idx: u32, ptr: u64);
    /// Copies `data` into the slot's buffer from `offset` on; what does not fit is left out.
    fn write(&mut self, idx: u32, offset: usize, data: &[u8]);
    /// Fills `data` from the slot's buffer, from `offset` on; what lies outside the buffer reads as zeros.
    fn read(&self, idx: u32, offset: usize, data: &mut [u8]);
    /// A number that identifies the ring in dumps, where netmap shows its address.
    fn address(&self) -> usize;

    /// The index behind `idx`. Wraps by comparison: sizes need not be powers of two.
    #[inline]
    fn next(&self, idx: u32) -> u32 {
        if idx + 1 == self.num_slots() { 0 } else { idx + 1 }
    }

    /// Slots that are ours: from head to tail.
    #[inline]
    fn space(&self) -> u32 {
        let (head, tail) = (self.head(), self.tail());
        if tail >= head { tail - head } else { tail + self.num_slots() - head }
    }

    /// True when no slot is ours.
    #[inline]
    fn is_empty(&self) -> bool {
        self.head() == self.tail()
    }

    /// True while slots of a transmit ring wait with the service.
    #[inline]
    fn is_pending(&self) -> bool {
        self.next(self.tail()) != self.head()
    }
}

/// A reference to a ring is a ring, so that devices may lend theirs.
impl<R: Ring> Ring for &mut R {
    #[inline]
    fn number(&self) -> u32 {
        (**self).number()
    }
    #[inline]
    fn num_slots(&self) -> u32 {
        (**self).num_slots()
    }
    #[inline]
    fn buf_size(&self) -> usize {
        (**self).buf_size()
    }
    #[inline]
    fn head(&self) -> u32 {
        (**self).head()
    }
    #[inline]
    fn cur(&self) -> u32 {
        (**self).cur()
    }
    #[inline]
    fn tail(&self) -> u32 {
        (**self).tail()
    }
    #[inline]
    fn set_head(&mut self, head: u32) {
        (**self).set_head(head);
    }
    #[inline]
    fn set_cur(&mut self, cur: u32) {
        (**self).set_cur(cur);
    }
    #[inline]
    fn slot(&self, idx: u32) -> Slot {
        (**self).slot(idx)
    }
    #[inline]
    fn set_slot(&mut self, idx: u32, len: u16, flags: u16) {
        (**self).set_slot(idx, len, flags);
    }
    #[inline]
    fn set_ptr(&mut self, idx: u32, ptr: u64) {
        (**self).set_ptr(idx, ptr);
    }
    #[inline]
    fn write(&mut self, idx: u32, offset: usize, data: &[u8]) {
        (**self).write(idx, offset, data);
    }
    #[inline]
    fn read(&self, idx: u32, offset: usize, data: &mut [u8]) {
        (**self).read(idx, offset, data);
    }
    #[inline]
    fn address(&self) -> usize {
        (**self).address()
    }
}

/// Events of a poll, as bits of `poll(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Events(pub i16);

impl Events {
    /// Nothing: a timeout.
    pub const NONE: Events = Events(0);
    /// `POLLIN`.
    pub const IN: Events = Events(libc::POLLIN);
    /// `POLLOUT`.
    pub const OUT: Events = Events(libc::POLLOUT);
    /// `POLLERR`: a ring was out of order, or the port is gone.
    pub const ERR: Events = Events(libc::POLLERR);

    /// True if one of the bits of `other` is set.
    pub fn has(self, other: Events) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Events {
    type Output = Events;

    fn bitor(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }
}

/// Numbers of a whole port, however few of its rings are open here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PortInfo {
    /// Hardware transmit rings.
    pub tx_rings: u32,
    /// Hardware receive rings.
    pub rx_rings: u32,
    /// Host transmit rings that the binding includes, else 0.
    pub host_tx_rings: u32,
    /// Host receive rings that the binding includes, else 0.
    pub host_rx_rings: u32,
    /// Slots of a transmit ring.
    pub tx_slots: u32,
    /// Slots of a receive ring.
    pub rx_slots: u32,
    /// How an interface is reached; `None` for other ports.
    pub path: Option<&'static str>,
}

/// An open port, or one thread's share of it. Published cursors are what [`Ring::set_head`] and
/// [`Ring::set_cur`] said last; publication happens in the sync or poll.
pub trait Device: Send {
    /// A transmit ring, for as long as it is borrowed.
    type TxRing<'a>: Ring
    where
        Self: 'a;
    /// A receive ring, for as long as it is borrowed.
    type RxRing<'a>: Ring
    where
        Self: 'a;

    /// Numbers of the whole port.
    fn info(&self) -> PortInfo;
    /// Transmit rings that are open here.
    fn tx_rings(&self) -> usize;
    /// Receive rings that are open here.
    fn rx_rings(&self) -> usize;
    /// The `i`th of the open transmit rings.
    fn tx_ring(&mut self, i: usize) -> Self::TxRing<'_>;
    /// The `i`th of the open receive rings.
    fn rx_ring(&mut self, i: usize) -> Self::RxRing<'_>;

    /// `NIOCTXSYNC` on all open rings: pushes, and takes back what is done.
    ///
    /// # Errors
    /// The port is gone.
    fn txsync(&mut self) -> io::Result<()>;

    /// `NIOCRXSYNC` on all open rings.
    ///
    /// # Errors
    /// The port is gone.
    fn rxsync(&mut self) -> io::Result<()>;

    /// `poll(2)` on the port, with its syncs: also pushes pending transmit slots. [`Events::NONE`] after `timeout`.
    /// Both `Ok` with [`Events::ERR`] and `Err` are possible; `Interrupted` only asks to try again.
    ///
    /// # Errors
    /// The poll itself failed.
    fn poll(&mut self, want: Events, timeout: Duration) -> io::Result<Events>;

    /// Why the last poll answered [`Events::ERR`], as text for the user, if that is known.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Bytes of virtio-net header that the port puts before frames (`PORT_HDR_GET`).
    ///
    /// # Errors
    /// The port cannot tell.
    fn header_len(&self) -> io::Result<u32>;

    /// Asks the port for a virtio-net header of `bytes` (`PORT_HDR_SET`).
    ///
    /// # Errors
    /// The port does not take that length.
    fn set_header_len(&mut self, bytes: u32) -> io::Result<()>;

    /// A number that stands for the descriptor in messages.
    fn fd(&self) -> i32;
}

/// What to open.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OpenRequest {
    /// Port as on the command line, with its `netmap:` or `vale`.
    pub name: String,
    /// Wanted slots of a transmit ring; 0: the port's default. So for the next three.
    pub tx_slots: u32,
    /// Wanted slots of a receive ring.
    pub rx_slots: u32,
    /// Wanted transmit rings.
    pub tx_rings: u32,
    /// Wanted receive rings.
    pub rx_rings: u32,
    /// Binds one ring only, for several threads: the first one, or that of [`Backend::open_ring`].
    /// The name's own binding decides between hardware and host rings.
    pub one_ring: bool,
    /// Polls for reception only: polls of it need not push transmit rings (`NETMAP_NO_TX_POLL`).
    pub rx_only: bool,
}

/// Why a port could not be opened, as one line for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError(pub String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

/// Opens devices, and knows the system's interfaces.
pub trait Backend {
    /// What is opened.
    type Device: Device;

    /// Opens a port; it takes virtio-net headers if the port has them (`NR_ACCEPT_VNET_HDR`).
    ///
    /// # Errors
    /// One line for the user: what, why, what to do.
    fn open(&self, request: &OpenRequest) -> Result<Self::Device, OpenError>;

    /// Opens ring `ring` of the port that `first` has open, for another thread. Numbers from
    /// `tx_rings` (`rx_rings`) on are host rings, if the binding has them.
    ///
    /// # Errors
    /// As [`Backend::open`]; also when there is no such ring.
    fn open_ring(
        &self,
        first: &Self::Device,
        request: &OpenRequest,
        ring: u32,
    ) -> Result<Self::Device, OpenError>;

    /// MAC address of a network interface, if there is one of that name.
    fn mac(&self, ifname: &str) -> Option<Mac>;

    /// MTU of a network interface, in bytes.
    ///
    /// # Errors
    /// No such interface, or it does not tell.
    fn mtu(&self, ifname: &str) -> io::Result<u32>;
}

//! The four rings of an AF_XDP socket, mapped.
//!
//! ```text
//!            producer    consumer    holds                          kernel's other end
//! fill       we          kernel      u64 addresses, to receive into     takes buffers
//! completion kernel      we          u64 addresses, sent                gives them back
//! rx         kernel      we          descriptors of received frames
//! tx         we          kernel      descriptors of frames to send
//!
//! counters run free (u32, wrapping); an entry is counter & (size - 1):
//!     consumer <= producer <= consumer + size         entries in use: producer - consumer
//! ```
//!
//! Ordering, the same for all four (kernel net/xdp/xsk_queue.h, comment at its head): the producer stores its
//! counter with *release* after writing entries, the consumer loads it with *acquire* before reading them; the
//! consumer stores its counter with *release* after reading entries, the producer loads that with *acquire*
//! before overwriting them. A side's own counter is loaded with acquire too: it may have been stored by another
//! process, which ran the ring before us.
//!
//! Any process that holds the socket can write the counters and entries. So each count is clamped to the size,
//! each index masked, and what comes out (addresses, lengths) is for the caller to check
//! ([`UmemLayout::locate`](super::UmemLayout::locate)).

use super::map::{RawDesc, Ring};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::net::xdp::{
    XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING,
};

/// Largest ring that we ask for; the kernel's own limit lies higher.
const MAX_ENTRIES: u32 = 1 << 20;

/// Entries of the four rings, each a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSizes {
    /// Fill ring.
    pub fill: u32,
    /// Completion ring.
    pub comp: u32,
    /// Receive ring.
    pub rx: u32,
    /// Transmit ring.
    pub tx: u32,
}

impl RingSizes {
    /// Rings that hold at least so many slots: rounded up to powers of two. The fill ring can take every buffer
    /// that the receive ring can hold, and the completion ring every frame of the transmit ring.
    #[must_use]
    pub fn for_slots(rx_slots: u32, tx_slots: u32) -> RingSizes {
        let round = |n: u32| n.clamp(2, MAX_ENTRIES).next_power_of_two();
        let (rx, tx) = (round(rx_slots), round(tx_slots));
        RingSizes { fill: rx, comp: tx, rx, tx }
    }

    pub(super) fn check(&self) -> io::Result<()> {
        let good = |n: u32| n.is_power_of_two() && n <= MAX_ENTRIES;
        if [self.fill, self.comp, self.rx, self.tx].into_iter().all(good) {
            Ok(())
        } else {
            Err(Errno::INVAL.into())
        }
    }
}

/// One piece of a frame (`struct xdp_desc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpDesc {
    /// Address in the UMEM.
    pub addr: u64,
    /// Bytes. The kernel refuses more than the chunk size on sending, and counts 0 as it pleases (versions
    /// differ): do not send those.
    pub len: u32,
    /// [`XdpDesc::CONTINUED`] or 0. On sending, other bits make the descriptor invalid.
    pub options: u32,
}

impl XdpDesc {
    /// The frame goes on in the next descriptor (`XDP_PKT_CONTD`; needs the multi-buffer option of the socket).
    pub const CONTINUED: u32 = libc::XDP_PKT_CONTD;

    /// True if the frame goes on in the next descriptor.
    #[must_use]
    pub fn is_continued(&self) -> bool {
        self.options & Self::CONTINUED != 0
    }
}

/// Buffers for the kernel to receive into. A starved fill ring stops reception: top it up on every sync.
#[derive(Debug)]
pub struct FillRing(pub(super) Ring<AtomicU64>);

impl FillRing {
    /// Entries.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.0.size
    }

    /// How many addresses it can take now.
    #[inline]
    #[must_use]
    pub fn free(&self) -> u32 {
        self.0.room().0
    }

    /// Puts addresses ([`UmemLayout::fill_addr`](super::UmemLayout::fill_addr)) on the ring, as many as it
    /// takes, and publishes them at once. Says how many: the others are not drawn from the iterator.
    #[inline]
    pub fn push(&mut self, addrs: impl IntoIterator<Item = u64>) -> u32 {
        let (room, producer) = self.0.room();
        let mut n = 0;
        for addr in addrs.into_iter().take(room as usize) {
            self.0.entry(producer.wrapping_add(n)).store(addr, Ordering::Relaxed);
            n += 1;
        }
        self.0.producer().store(producer.wrapping_add(n), Ordering::Release);
        n
    }

    /// The kernel waits for [`kick_rx`](super::kick_rx) (or poll) before it takes more buffers.
    #[inline]
    #[must_use]
    pub fn needs_wakeup(&self) -> bool {
        self.0.needs_wakeup()
    }

    /// Addresses put on the ring so far, wrapping.
    #[inline]
    #[must_use]
    pub fn producer_count(&self) -> u32 {
        self.0.producer().load(Ordering::Acquire)
    }

    /// Addresses that the kernel has not taken yet, oldest first. For collecting the buffers of a socket whose
    /// user died; the socket must be unbound or its ring idle, else the kernel takes some meanwhile.
    pub fn unread(&self) -> impl Iterator<Item = u64> + '_ {
        unread(&self.0)
    }
}

/// Buffers that were sent.
#[derive(Debug)]
pub struct CompRing(pub(super) Ring<AtomicU64>);

impl CompRing {
    /// Entries.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.0.size
    }

    /// Entries given back so far, wrapping.
    #[inline]
    #[must_use]
    pub fn consumer_count(&self) -> u32 {
        self.0.consumer().load(Ordering::Acquire)
    }

    /// How many addresses can be read.
    #[inline]
    #[must_use]
    pub fn available(&self) -> u32 {
        self.0.filled().0
    }

    /// The `i`-th readable address. Meaningless, but harmless, from [`CompRing::available`] on.
    #[inline]
    #[must_use]
    pub fn get(&self, i: u32) -> u64 {
        let counter = self.0.consumer().load(Ordering::Relaxed).wrapping_add(i);
        self.0.entry(counter).load(Ordering::Relaxed)
    }

    /// Gives the first `n` entries back to the kernel; no more than are available.
    #[inline]
    pub fn release(&mut self, n: u32) {
        self.0.give_back(n.min(self.available()));
    }

    /// Reads up to `max` addresses and gives the entries back at once. Says how many. The whole batch with one
    /// look at the counters.
    #[inline]
    pub fn drain(&mut self, max: u32, mut take: impl FnMut(u64)) -> u32 {
        let (filled, consumer) = self.0.filled();
        let n = filled.min(max);
        for i in 0..n {
            take(self.0.entry(consumer.wrapping_add(i)).load(Ordering::Relaxed));
        }
        self.0.consumer().store(consumer.wrapping_add(n), Ordering::Release);
        n
    }
}

/// Received frames.
#[derive(Debug)]
pub struct RxRing(pub(super) Ring<RawDesc>);

impl RxRing {
    /// Entries.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.0.size
    }

    /// Entries given back so far, wrapping.
    #[inline]
    #[must_use]
    pub fn consumer_count(&self) -> u32 {
        self.0.consumer().load(Ordering::Acquire)
    }

    /// How many descriptors can be read.
    #[inline]
    #[must_use]
    pub fn available(&self) -> u32 {
        self.0.filled().0
    }

    /// The `i`-th readable descriptor. Meaningless, but harmless, from [`RxRing::available`] on.
    #[inline]
    #[must_use]
    pub fn get(&self, i: u32) -> XdpDesc {
        load_desc(self.0.entry(self.0.consumer().load(Ordering::Relaxed).wrapping_add(i)))
    }

    /// Gives the first `n` entries back to the kernel; no more than are available. Their buffers are ours now.
    #[inline]
    pub fn release(&mut self, n: u32) {
        self.0.give_back(n.min(self.available()));
    }

    /// The kernel waits for [`kick_rx`](super::kick_rx) (or poll); set together with the flag of the fill ring.
    #[inline]
    #[must_use]
    pub fn needs_wakeup(&self) -> bool {
        self.0.needs_wakeup()
    }
}

/// Frames to send.
#[derive(Debug)]
pub struct TxRing(pub(super) Ring<RawDesc>);

impl TxRing {
    /// Entries.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.0.size
    }

    /// How many descriptors it can take now. The kernel takes an entry when it begins to send it; the buffer is
    /// free only after its completion.
    #[inline]
    #[must_use]
    pub fn free(&self) -> u32 {
        self.0.room().0
    }

    /// Writes the `i`-th free entry; nothing is sent before [`TxRing::submit`]. From [`TxRing::free`] on it
    /// overwrites entries that the kernel has not sent: those frames are lost.
    #[inline]
    pub fn put(&mut self, i: u32, desc: XdpDesc) {
        let entry = self.0.entry(self.0.producer().load(Ordering::Relaxed).wrapping_add(i));
        entry.addr.store(desc.addr, Ordering::Relaxed);
        entry.len.store(desc.len, Ordering::Relaxed);
        entry.options.store(desc.options, Ordering::Relaxed);
    }

    /// Hands the first `n` entries written to the kernel; no more than are free. Then [`kick_tx`](super::kick_tx) if
    /// [`TxRing::needs_wakeup`].
    #[inline]
    pub fn submit(&mut self, n: u32) {
        self.0.publish(n.min(self.free()));
    }

    /// The kernel waits for [`kick_tx`](super::kick_tx). In copy mode always so.
    #[inline]
    #[must_use]
    pub fn needs_wakeup(&self) -> bool {
        self.0.needs_wakeup()
    }

    /// Descriptors submitted so far, wrapping.
    #[inline]
    #[must_use]
    pub fn producer_count(&self) -> u32 {
        self.0.producer().load(Ordering::Acquire)
    }

    /// Descriptors that the kernel has not taken.
    #[inline]
    #[must_use]
    pub fn unsent_count(&self) -> u32 {
        self.0.filled().0
    }

    /// True if the kernel has taken every descriptor. After `kick_tx` a remainder means: kick again, nothing
    /// retries by itself.
    #[inline]
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.0.filled().0 == 0
    }

    /// Descriptors that the kernel has not taken yet, oldest first. For collecting the buffers of a socket
    /// whose user died.
    pub fn unsent(&self) -> impl Iterator<Item = XdpDesc> + '_ {
        let (n, consumer) = self.0.filled();
        (0..n).map(move |i| load_desc(self.0.entry(consumer.wrapping_add(i))))
    }
}

#[inline]
fn load_desc(entry: &RawDesc) -> XdpDesc {
    XdpDesc {
        addr: entry.addr.load(Ordering::Relaxed),
        len: entry.len.load(Ordering::Relaxed),
        options: entry.options.load(Ordering::Relaxed),
    }
}

fn unread(ring: &Ring<AtomicU64>) -> impl Iterator<Item = u64> + '_ {
    let (n, consumer) = ring.filled();
    (0..n).map(move |i| ring.entry(consumer.wrapping_add(i)).load(Ordering::Relaxed))
}

/// The mapped rings of one socket.
///
/// A socket, and with it the queue of the interface, lives as long as any map of its rings, in whatever
/// process: drop this before the fd, and keep it out of children that outlive you.
#[derive(Debug)]
pub struct XskRings {
    /// Buffers to receive into.
    pub fill: FillRing,
    /// Buffers that were sent.
    pub comp: CompRing,
    /// Frames received.
    pub rx: RxRing,
    /// Frames to send.
    pub tx: TxRing,
}

impl XskRings {
    /// Maps the rings of a socket that [`XskSocket`](super::XskSocket) made, in this or in another process.
    /// Needs no privilege.
    ///
    /// `sizes` must be those it was made with: the kernel does not tell them.
    ///
    /// Source: af_xdp, XDP_MMAP_OFFSETS; linux/if_xdp.h, XDP_PGOFF_* and XDP_UMEM_PGOFF_*.
    ///
    /// # Errors
    /// ENOPROTOOPT or EOPNOTSUPP if `fd` is no AF_XDP socket; EINVAL if a size is no power of two, or larger
    /// than the ring; EPROTO if the kernel gives offsets that cannot be; ENOMEM.
    pub fn map(fd: BorrowedFd<'_>, sizes: &RingSizes) -> io::Result<XskRings> {
        sizes.check()?;
        let at = rustix::net::sockopt::xdp_mmap_offsets(fd)?;
        Ok(XskRings {
            fill: FillRing(Ring::map(fd, XDP_UMEM_PGOFF_FILL_RING, &at.fr, sizes.fill)?),
            comp: CompRing(Ring::map(fd, XDP_UMEM_PGOFF_COMPLETION_RING, &at.cr, sizes.comp)?),
            rx: RxRing(Ring::map(fd, XDP_PGOFF_RX_RING, &at.rx, sizes.rx)?),
            tx: TxRing(Ring::map(fd, XDP_PGOFF_TX_RING, &at.tx, sizes.tx)?),
        })
    }
}

#[cfg(test)]
mod tests;

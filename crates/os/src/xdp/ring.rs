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

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Weak};

use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::xdp::{
    XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING,
    XdpRingOffset,
};
use rustix::net::{RecvFlags, SendFlags};

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

/// `struct xdp_desc` in shared memory.
#[repr(C)]
#[derive(Debug)]
struct RawDesc {
    addr: AtomicU64,
    len: AtomicU32,
    options: AtomicU32,
}
const _: () = assert!(size_of::<RawDesc>() == 16);

/// Types that entries may have: atomics, or structures of them without padding, so that any bit pattern is
/// valid and any writer is tolerated.
trait Entry {}
impl Entry for AtomicU64 {}
impl Entry for RawDesc {}

/// The mapping of a ring. Unmapped when dropped.
#[derive(Debug)]
struct RingMap {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: an address and a length; what is behind them is only seen as atomics.
unsafe impl Send for RingMap {}
// SAFETY: as above.
unsafe impl Sync for RingMap {}

impl Drop for RingMap {
    fn drop(&mut self) {
        // SAFETY: those of a mapping that `Ring::map` made; the views into it hold this, and die with it.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

impl RingMap {
    /// Puts zeros where the kernel's ring was. Whoever looks at it meanwhile sees the one or the other.
    fn let_go(&self) -> io::Result<()> {
        // SAFETY: replaces the whole of our own mapping, in one step, by memory that can be read and written
        // in the same way; references into it stay valid, to atomics, of which every value is valid.
        unsafe {
            rustix::mm::mmap_anonymous(
                self.start.as_ptr().cast(),
                self.len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED,
            )
        }?;
        Ok(())
    }
}

/// A mapped ring.
#[derive(Debug)]
struct Ring<T> {
    map: Arc<RingMap>,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
}

// SAFETY: the pointers lead into the map that the ring holds; everything behind them is atomics.
unsafe impl<T: Entry + Send> Send for Ring<T> {}
// SAFETY: as above; a shared reference only loads atomics, and the kernel tolerates any number of readers.
unsafe impl<T: Entry + Sync> Sync for Ring<T> {}

impl<T: Entry> Ring<T> {
    fn map(fd: BorrowedFd<'_>, page_offset: u64, at: &XdpRingOffset, size: u32) -> io::Result<Ring<T>> {
        let bad = || io::Error::from(Errno::PROTO);
        // Kernels before 5.4 have no flags, hence no need-wakeup either.
        let flags_at = at.flags.ok_or_else(|| io::Error::from(Errno::OPNOTSUPP))?;
        let to_usize = |ofs: u64| usize::try_from(ofs).map_err(|_| bad());
        let desc = to_usize(at.desc)?;
        let map_len =
            (size as usize).checked_mul(size_of::<T>()).and_then(|n| n.checked_add(desc)).ok_or_else(bad)?;
        let words = [to_usize(at.producer)?, to_usize(at.consumer)?, to_usize(flags_at)?];
        // At least one entry, so map_len >= 8.
        if words.iter().any(|ofs| ofs % 4 != 0 || *ofs > map_len - 4) || desc % align_of::<T>() != 0 {
            return Err(bad());
        }
        // SAFETY: a new mapping at an address of the kernel's choice. The kernel refuses (EINVAL) one longer
        // than the ring really is, and never shrinks a ring, so the mapping cannot fault.
        let map = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                map_len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                fd,
                page_offset,
            )
        }?;
        let map = NonNull::new(map.cast::<u8>()).ok_or_else(bad)?;
        // SAFETY: each offset was checked above to leave room for its type within the map.
        let (p, c, f, d) =
            unsafe { (map.add(words[0]), map.add(words[1]), map.add(words[2]), map.add(desc)) };
        Ok(Ring {
            map: Arc::new(RingMap { start: map, len: map_len }),
            producer: p.cast(),
            consumer: c.cast(),
            flags: f.cast(),
            entries: d.cast(),
            size,
        })
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: within the map, aligned (checked in `map`), alive as long as `self`; an atomic, whoever
        // writes it.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn flags(&self) -> u32 {
        // SAFETY: as `producer`.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed)
    }

    /// The entry that a counter stands for.
    #[inline]
    fn entry(&self, counter: u32) -> &T {
        let index = (counter & (self.size - 1)) as usize;
        // SAFETY: `size` is a power of two (checked by `RingSizes::check`), so index < size, and the map has
        // room for `size` entries from `entries` on, aligned (checked in `map`). They are atomics, whoever
        // writes them.
        unsafe { self.entries.add(index).as_ref() }
    }

    /// For the producer: entries that may be written, and its counter.
    #[inline]
    fn room(&self) -> (u32, u32) {
        let producer = self.producer().load(Ordering::Acquire);
        // Pairs with the kernel's release store of the consumer: it has read those entries.
        let used = producer.wrapping_sub(self.consumer().load(Ordering::Acquire));
        (self.size.saturating_sub(used), producer)
    }

    /// For the consumer: entries that may be read, and its counter.
    #[inline]
    fn filled(&self) -> (u32, u32) {
        let consumer = self.consumer().load(Ordering::Acquire);
        // Pairs with the kernel's release store of the producer: it has written those entries.
        let used = self.producer().load(Ordering::Acquire).wrapping_sub(consumer);
        (used.min(self.size), consumer)
    }

    /// Publishes `n` entries that the producer wrote. Pairs with the kernel's acquire load.
    #[inline]
    fn publish(&self, n: u32) {
        let producer = self.producer().load(Ordering::Relaxed);
        self.producer().store(producer.wrapping_add(n), Ordering::Release);
    }

    /// Gives back `n` entries that the consumer read. Pairs with the kernel's acquire load.
    #[inline]
    fn give_back(&self, n: u32) {
        let consumer = self.consumer().load(Ordering::Relaxed);
        self.consumer().store(consumer.wrapping_add(n), Ordering::Release);
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        // The store of the producer must be visible before the flag is read, else we and the kernel, which sets
        // the flag and then looks for entries, could miss each other.
        fence(Ordering::SeqCst);
        self.flags() & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// Buffers for the kernel to receive into. A starved fill ring stops reception: top it up on every sync.
#[derive(Debug)]
pub struct FillRing(Ring<AtomicU64>);

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

    /// The kernel waits for [`kick_rx`] (or poll) before it takes more buffers.
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
pub struct CompRing(Ring<AtomicU64>);

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
pub struct RxRing(Ring<RawDesc>);

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

    /// The kernel waits for [`kick_rx`] (or poll); set together with the flag of the fill ring.
    #[inline]
    #[must_use]
    pub fn needs_wakeup(&self) -> bool {
        self.0.needs_wakeup()
    }
}

/// Frames to send.
#[derive(Debug)]
pub struct TxRing(Ring<RawDesc>);

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

    /// Hands the first `n` entries written to the kernel; no more than are free. Then [`kick_tx`] if
    /// [`TxRing::needs_wakeup`].
    #[inline]
    pub fn submit(&mut self, n: u32) {
        self.0.publish(n.min(self.free()));
    }

    /// The kernel waits for [`kick_tx`]. In copy mode always so.
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

    /// What is needed to let go of the rings and of their socket while others hold them.
    #[must_use]
    pub fn hold(&self, socket: &Arc<OwnedFd>) -> XskHold {
        let maps = [&self.fill.0.map, &self.comp.0.map, &self.rx.0.map, &self.tx.0.map];
        XskHold { maps: maps.map(Arc::downgrade), socket: Arc::downgrade(socket) }
    }
}

/// A socket and maps of its rings, which can be let go of from any thread while others work on them: the queue becomes
/// free for somebody else, whoever still holds views here. It keeps nothing alive itself.
#[derive(Debug)]
pub struct XskHold {
    maps: [Weak<RingMap>; 4],
    socket: Weak<OwnedFd>,
}

impl XskHold {
    /// Lets go: rings read as zeros from now on, and the socket's number stands for a file that does nothing.
    ///
    /// # Errors
    /// ENOMEM, EMFILE: some of it is kept.
    pub fn let_go(&self) -> io::Result<()> {
        for map in self.maps.iter().filter_map(Weak::upgrade) {
            map.let_go()?;
        }
        if let Some(socket) = self.socket.upgrade() {
            let nothing = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            // SAFETY: both are open, kept so by their owners. The second number stays theirs, and stays open: it
            // changes its meaning in one step.
            if unsafe { libc::dup3(nothing.as_raw_fd(), socket.as_raw_fd(), libc::O_CLOEXEC) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

/// What became of waking the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kick {
    /// It ran. In copy mode one call sends up to the transmit budget.
    Done,
    /// It did something, or nothing, and must be called again (EAGAIN, EBUSY, ENOBUFS, EINTR): budget used up,
    /// completion ring or device queue full. Nothing retries by itself.
    Again,
    /// The interface is down (ENETDOWN): nothing moves until it is up. Descriptors stay where they are.
    LinkDown,
}

/// Makes the kernel send what is on the transmit ring. Does not wait.
///
/// # Errors
/// ENXIO: the socket lost its interface (removed, or never bound). Others, as EBADF, mean a fault of the
/// caller.
pub fn kick_tx(fd: impl AsFd) -> io::Result<Kick> {
    outcome(rustix::net::send(fd, &[], SendFlags::DONTWAIT).map(drop))
}

/// Makes the kernel take buffers from the fill ring. Does not wait.
///
/// # Errors
/// As [`kick_tx`].
pub fn kick_rx(fd: impl AsFd) -> io::Result<Kick> {
    let mut none: [u8; 0] = [];
    outcome(rustix::net::recv(fd, &mut none[..], RecvFlags::DONTWAIT).map(drop))
}

fn outcome(result: Result<(), Errno>) -> io::Result<Kick> {
    match result {
        Ok(()) => Ok(Kick::Done),
        Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => Ok(Kick::Again),
        Err(Errno::NETDOWN) => Ok(Kick::LinkDown),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring in anonymous memory: this test plays the kernel.
    fn ring<T: Entry>(size: u32) -> Ring<T> {
        let map_len = 64 + size as usize * size_of::<T>();
        // SAFETY: a new anonymous mapping.
        let map = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                map_len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let map = NonNull::new(map.unwrap().cast::<u8>()).unwrap();
        // SAFETY: all within the map.
        let (c, f, d) = unsafe { (map.add(4), map.add(8), map.add(64)) };
        Ring {
            map: Arc::new(RingMap { start: map, len: map_len }),
            producer: map.cast(),
            consumer: c.cast(),
            flags: f.cast(),
            entries: d.cast(),
            size,
        }
    }

    #[test]
    fn fill_ring_keeps_order_over_the_wrap_of_the_counters() {
        let mut fill = FillRing(ring(8));
        for start in [0u32, u32::MAX - 3] {
            fill.0.producer().store(start, Ordering::Relaxed);
            fill.0.consumer().store(start, Ordering::Relaxed);
            assert_eq!(fill.free(), 8);
            let mut addrs = 100u64..;
            assert_eq!(fill.push(&mut addrs), 8);
            assert_eq!(addrs.next(), Some(108), "what did not fit was not drawn");
            assert_eq!((fill.free(), fill.push([1])), (0, 0));
            assert_eq!(fill.unread().collect::<Vec<_>>(), (100..108).collect::<Vec<_>>());
            fill.0.give_back(3);
            assert_eq!(fill.push([1, 2, 3, 4]), 3);
            assert_eq!(fill.unread().collect::<Vec<_>>(), [103, 104, 105, 106, 107, 1, 2, 3]);
        }
    }

    #[test]
    fn scribbled_counters_stay_within_the_ring() {
        let mut rx = RxRing(ring(4));
        let mut tx = TxRing(ring(4));
        let mut comp = CompRing(ring(4));
        let values = [0, 1, 4, 5, 1000, 1 << 31, u32::MAX];
        for p in values {
            for c in values {
                for r in [&rx.0, &tx.0] {
                    r.producer().store(p, Ordering::Relaxed);
                    r.consumer().store(c, Ordering::Relaxed);
                }
                comp.0.producer().store(p, Ordering::Relaxed);
                comp.0.consumer().store(c, Ordering::Relaxed);
                assert!(rx.available() <= 4 && tx.free() <= 4 && comp.available() <= 4);
                for i in [0, 3, 4, u32::MAX] {
                    let _ = rx.get(i);
                    tx.put(i, XdpDesc { addr: 1, len: 2, options: 0 });
                    let _ = comp.get(i);
                }
                rx.release(u32::MAX);
                tx.submit(u32::MAX);
                assert!(comp.drain(u32::MAX, |_| {}) <= 4);
                assert!(rx.available() <= 4 && tx.free() <= 4);
            }
        }
    }

    #[test]
    fn rings_let_go_while_others_look_at_them_read_as_empty() {
        let socket = Arc::new(rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, 0.into()).unwrap());
        let rings = XskRings {
            fill: FillRing(ring(8)),
            comp: CompRing(ring(8)),
            rx: RxRing(ring(8)),
            tx: TxRing(ring(8)),
        };
        let hold = rings.hold(&socket);
        rings.rx.0.publish(5);
        let XskRings { rx, tx, .. } = rings; // Two of the maps are gone already.
        let there = rx.0.producer();
        assert_eq!((rx.available(), there.load(Ordering::Relaxed)), (5, 5));
        let number = socket.as_raw_fd();
        hold.let_go().unwrap();
        assert_eq!((rx.available(), there.load(Ordering::Relaxed), tx.free()), (0, 0, 8));
        let link = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        assert_eq!(link.to_str(), Some("anon_inode:[eventfd]"));
        drop((rx, tx, socket));
        hold.let_go().unwrap(); // Nothing left: nothing done.
    }

    #[test]
    fn another_holder_goes_on_where_the_first_stopped() {
        let mut rx = RxRing(ring(8));
        for i in 0..6 {
            let e = rx.0.entry(i);
            e.addr.store(u64::from(i), Ordering::Relaxed);
            e.len.store(60 + i, Ordering::Relaxed);
        }
        rx.0.publish(6);
        rx.release(2);
        // No state but the shared words: a second view of the same memory sees the rest.
        assert_eq!(rx.available(), 4);
        assert_eq!(rx.get(0), XdpDesc { addr: 2, len: 62, options: 0 });
    }

    #[test]
    fn sizes_are_powers_of_two() {
        let s = RingSizes::for_slots(1000, 0);
        assert_eq!((s.rx, s.fill, s.tx, s.comp), (1024, 1024, 2, 2));
        assert!(s.check().is_ok() && RingSizes { rx: 1000, ..s }.check().is_err());
        assert!(RingSizes { comp: 0, ..s }.check().is_err());
        assert_eq!(RingSizes::for_slots(u32::MAX, 1).rx, MAX_ENTRIES);
    }
}

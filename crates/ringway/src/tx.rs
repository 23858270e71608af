//! Sending.

use crate::error::{SwapError, SyncError};
use crate::extra::{Lender, Place};
use crate::rx::RxRing;
use crate::view::{SlotRef, View};
use ringway_abi::{NS_BUF_CHANGED, NS_MOREFRAG};
use ringway_core::adapter::SyncFlags;
use ringway_core::stats::Counters;
use ringway_os::bytes::{Bufs, Payload};
use ringway_os::ring::SlotWord;

/// Slots of one packet, at most. Source: semantics.md 6.
pub const MAX_PACKET_SLOTS: usize = 64;

/// A TX ring, borrowed from its [`Port`](crate::Port).
///
/// The free slots are `slot(0)` to `slot(space() - 1)`. Fill some, [`advance`](TxRing::advance) over them, then
/// [`sync`](TxRing::sync): that sends, in this thread. What was advanced over is made known on `sync` and when the view is dropped; a
/// later sync of the port sends it then.
#[derive(Debug)]
pub struct TxRing<'p>(pub(crate) View<'p>);

/// A free slot of a TX ring, with its buffer.
///
/// It can be written again and again before the ring is advanced over it. Its length and flags are what they were
/// when it was last sent: set both, or use [`TxSlot::set`].
#[derive(Clone, Copy, Debug)]
pub struct TxSlot<'a>(SlotRef<'a>, NotSend);

/// Slots are lent to one thread at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NotSend(std::marker::PhantomData<*mut ()>);

impl<'a> TxSlot<'a> {
    /// The whole buffer; with offsets, what of it lies behind the slot's.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> Payload<'a> {
        self.0.buffer()
    }

    /// Bytes of the packet in this slot.
    #[inline]
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u16 {
        self.0.slot.load().len()
    }

    /// Sets how many bytes of the buffer are sent. More than the buffer holds makes the packet a counted drop (`bad_slot`).
    #[inline]
    pub fn set_len(&self, len_bytes: u16) {
        self.0.set_len(len_bytes);
    }

    /// `NS_*` flags.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> u16 {
        self.0.slot.load().flags()
    }

    /// Sets the `NS_*` flags, all but `NS_BUF_CHANGED`: that belongs to [`swap`](crate::swap), and stays as it is.
    #[inline]
    pub fn set_flags(&self, flags: u16) {
        self.0.set(self.len(), flags);
    }

    /// Sets length and flags (as [`TxSlot::set_flags`] does) with one store. `set(len, 0)` is a packet of one slot.
    #[inline]
    pub fn set(&self, len_bytes: u16, flags: u16) {
        self.0.set(len_bytes, flags);
    }

    /// Where the packet begins in its buffer, in bytes; 0 unless the port was opened with [`offset`](crate::PortBuilder::offset).
    /// [`payload`](Self::payload) begins there.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> u32 {
        self.0.offset()
    }

    /// Says where the packet begins. False, and nothing changed, if the ring has no such offsets: more than its largest, or any
    /// but 0 without the option.
    #[inline]
    #[must_use = "without offsets the packet begins at the start"]
    pub fn set_offset(&self, ofs_bytes: u32) -> bool {
        self.0.set_offset(ofs_bytes)
    }

    /// Index of the buffer in the region, for messages and comparisons.
    #[inline]
    #[must_use]
    pub fn buf_idx(&self) -> u32 {
        self.0.slot.load().buf_idx()
    }

    /// The slot's `ptr`.
    #[inline]
    #[must_use]
    pub fn ptr(&self) -> u64 {
        self.0.slot.ptr()
    }

    /// Sets the slot's `ptr`: with `NS_INDIRECT`, the address in this process from which a switch port sends. A bad address is a
    /// counted drop, not a fault.
    #[inline]
    pub fn set_ptr(&self, address: u64) {
        self.0.slot.set_ptr(address);
    }
}

impl TxRing<'_> {
    /// Free slots.
    #[inline]
    #[must_use]
    pub fn space(&self) -> u32 {
        self.0.avail()
    }

    /// Free slot `k`, counted from the first; None if there are not so many.
    #[inline]
    #[must_use]
    pub fn slot(&self, k: u32) -> Option<TxSlot<'_>> {
        self.0.slot(k).map(|s| TxSlot(s, NotSend::default()))
    }

    /// Hands the first `k` free slots (at most all) over. They are sent with the next sync. Returns how many.
    #[inline]
    pub fn advance(&mut self, k: u32) -> u32 {
        self.0.advance(k)
    }

    /// A wait for room is over when more than `k` slots are free; 0 at first. Kept when the view is dropped; advancing uses it up.
    #[inline]
    pub fn want(&mut self, k: u32) -> u32 {
        self.0.hold(k)
    }

    /// Slots handed over that have not come back: not yet synced, or not yet sent on.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.0.num_slots() - 1 - self.0.avail()
    }

    /// Copies one packet into as many slots as it needs, and advances over them. False, and nothing done, if it does not fit the
    /// free slots, or needs more than [`MAX_PACKET_SLOTS`].
    #[inline]
    pub fn send(&mut self, packet: &[u8]) -> bool {
        if packet.len() > self.room() {
            return self.send_long(packet);
        }
        let Some(slot) = self.slot(0) else { return false };
        slot.payload().copy_from(packet);
        slot.set(packet.len() as u16, 0);
        self.advance(1);
        true
    }

    /// Bytes that a slot can send, wherever its packet begins: its length has 16 bits, and a buffer may have 65536 bytes.
    #[inline]
    fn room(&self) -> usize {
        (self.buf_size() - self.0.offsets().max as usize).min(usize::from(u16::MAX))
    }

    fn send_long(&mut self, packet: &[u8]) -> bool {
        let chunk = self.room();
        if chunk == 0 {
            return false;
        }
        let slots = packet.len().div_ceil(chunk);
        if slots > MAX_PACKET_SLOTS || slots > self.space() as usize {
            return false;
        }
        for (k, part) in packet.chunks(chunk).enumerate() {
            let Some(slot) = self.slot(k as u32) else { return false };
            slot.payload().copy_from(part);
            slot.set(part.len() as u16, if k + 1 < slots { NS_MOREFRAG } else { 0 });
        }
        self.advance(slots as u32);
        true
    }

    /// Lets `f` fill free slots in place, up to `max` of them, until it answers false; advances over those for which it
    /// answered true. Returns how many. If `f` panics, over none.
    ///
    /// ```
    /// # let mut port = ringway::Netmap::embedded().open("vale0:a")?;
    /// let mut tx = port.tx(0);
    /// let sent = tx.fill(100, |slot| {
    ///     slot.payload().store_u64(0, 0xffff_ffff_ffff_ffff);
    ///     slot.set(60, 0);
    ///     true
    /// });
    /// assert_eq!(sent, 100);
    /// # Ok::<(), ringway::OpenError>(())
    /// ```
    #[inline]
    pub fn fill(&mut self, max: u32, mut f: impl FnMut(&TxSlot<'_>) -> bool) -> u32 {
        let (bufs, offsets) = (self.0.bufs(), self.0.offsets());
        let mut done = 0;
        'full: for run in self.0.runs(max) {
            for slot in run {
                if !f(&TxSlot(SlotRef { slot, bufs, offsets }, NotSend::default())) {
                    break 'full;
                }
                done += 1;
            }
        }
        self.advance(done)
    }

    /// Sends what the first slots of `rx` hold, without copying: buffers change places, slots of `rx` are released, slots of this ring
    /// advanced over. As many as there are packets, free slots, and `max`. Whole packets only.
    /// Returns how many slots.
    ///
    /// # Errors
    /// [`SwapError`]: different regions, a ring that is shared, or a first packet whose offset this ring cannot say. Nothing is moved then.
    pub fn forward(&mut self, rx: &mut RxRing<'_>, max: u32) -> Result<u32, SwapError> {
        check_swap(&self.0, &rx.0)?;
        let mut count = max.min(self.space()).min(rx.len());
        // A packet must begin at the same place on both sides.
        if count > 0 && (self.0.offsets().is_on() || rx.0.offsets().is_on()) {
            let can = |k: u32| rx.0.slot(k).zip(self.0.slot(k)).is_some_and(|(r, t)| t.can_say(r.offset()));
            if let Some(bad) = (0..count).find(|k| !can(*k)) {
                if rx.first_packet().is_none_or(|first| first > bad) {
                    return Err(SwapError::Offset);
                }
                count = bad;
            }
        }
        // Not beyond the end of a packet.
        while count > 0 && rx.0.slot(count - 1).is_some_and(|s| s.slot.load().flags() & NS_MOREFRAG != 0) {
            count -= 1;
        }
        for k in 0..count {
            let (Some(from), Some(to)) = (rx.0.slot(k), self.0.slot(k)) else { break };
            to.set_offset(from.offset());
            let (got, free) = (from.slot.load(), to.slot.load());
            let flags = got.flags() & NS_MOREFRAG | NS_BUF_CHANGED;
            to.slot.store(SlotWord::new(got.buf_idx(), got.len(), flags));
            from.slot.store(SlotWord::new(free.buf_idx(), free.len(), NS_BUF_CHANGED));
        }
        rx.0.advance(count);
        Ok(self.0.advance(count))
    }

    /// Free slot `k` as a party of a [`swap`](crate::swap).
    ///
    /// # Errors
    /// [`SwapError::NoSlot`] if there are not so many, [`SwapError::Shared`].
    pub fn place(&mut self, k: u32) -> Result<Place<'_>, SwapError> {
        Place::slot(&mut self.0, k)
    }

    /// txsync: makes what was advanced over known and sends it, in this thread; takes completed slots back. Never blocks.
    ///
    /// Source: `NIOCTXSYNC`; semantics.md 4.
    ///
    /// # Errors
    /// [`SyncError`].
    #[inline]
    pub fn sync(&mut self) -> Result<(), SyncError> {
        self.0.sync(SyncFlags::empty())
    }

    /// As [`TxRing::sync`], but where a worker of the broker does the work, does not wait until it is done: packets may arrive
    /// later than this returns.
    ///
    /// # Errors
    /// [`SyncError`].
    #[inline]
    pub fn post(&mut self) -> Result<(), SyncError> {
        self.0.sync(SyncFlags::POST)
    }

    common!(TxSlot);
}

/// Whether buffers of two rings may change places.
pub(crate) fn check_swap(a: &View<'_>, b: &View<'_>) -> Result<(), SwapError> {
    if !a.bufs().same_as(b.bufs()) {
        return Err(SwapError::OtherRegion);
    }
    if !a.fixed.exclusive || !b.fixed.exclusive {
        return Err(SwapError::Shared);
    }
    Ok(())
}

impl Lender for TxRing<'_> {}
impl crate::extra::sealed::Lends for TxRing<'_> {
    fn lends(&self) -> (u64, &Bufs) {
        (self.0.fixed.port, self.0.bufs())
    }
}

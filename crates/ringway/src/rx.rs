//! Receiving.

use crate::error::{SwapError, SyncError};
use crate::extra::{Lender, Place};
use crate::tx::NotSend;
use crate::view::{SlotRef, View};
use ringway_abi::{NS_MOREFRAG, NS_PORT_SHIFT};
use ringway_core::adapter::SyncFlags;
use ringway_core::stats::Counters;
use ringway_os::bytes::{Bufs, Payload};
use ringway_os::ring::SlotWord;

/// An RX ring, borrowed from its [`Port`](crate::Port).
///
/// The slots received are `slot(0)` to `slot(len() - 1)`, oldest first. [`release`](RxRing::release) gives the first ones back,
/// [`hold`](RxRing::hold) keeps them but waits for new ones. [`sync`](RxRing::sync) receives, in this thread.
#[derive(Debug)]
pub struct RxRing<'p>(pub(crate) View<'p>);

/// A received slot.
#[derive(Clone, Copy, Debug)]
pub struct RxSlot<'a>(SlotRef<'a>, NotSend);

impl<'a> RxSlot<'a> {
    /// The bytes received.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> Payload<'a> {
        self.0.buffer().slice(0, self.len().into())
    }

    /// The whole buffer, with offsets what of it lies behind the slot's; behind [`RxSlot::len`] it holds what was there before.
    #[inline]
    #[must_use]
    pub fn buffer(&self) -> Payload<'a> {
        self.0.buffer()
    }

    /// Bytes received in this slot.
    #[inline]
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u16 {
        self.0.slot.load().len()
    }

    /// `NS_*` flags.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> u16 {
        self.0.slot.load().flags()
    }

    /// Sets the `NS_*` flags (`NS_FORWARD`), all but `NS_BUF_CHANGED`, which stays as it is.
    #[inline]
    pub fn set_flags(&self, flags: u16) {
        self.0.set(self.len(), flags);
    }

    /// Sets the length: for pipes, whose sender gets the slot back as it is.
    #[inline]
    pub fn set_len(&self, len_bytes: u16) {
        self.0.set_len(len_bytes);
    }

    /// True if the packet goes on in the next slot.
    #[inline]
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.flags() & NS_MOREFRAG != 0
    }

    /// On a switch port: the slots of the packet that this one belongs to. Elsewhere 0.
    #[inline]
    #[must_use]
    pub fn packet_slots(&self) -> u32 {
        u32::from(self.flags() >> NS_PORT_SHIFT)
    }

    /// Where the packet begins in its buffer, in bytes; 0 unless the port was opened with [`offset`](crate::PortBuilder::offset).
    /// [`payload`](Self::payload) begins there.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> u32 {
        self.0.offset()
    }

    /// Says where the next packet in this slot is to begin. False, and nothing changed, if the ring has no such offsets: more than its largest, or any
    /// but 0 without the option.
    #[inline]
    #[must_use = "without offsets packets begin at the start"]
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

    /// Sets the slot's `ptr`.
    #[inline]
    pub fn set_ptr(&self, value: u64) {
        self.0.slot.set_ptr(value);
    }
}

impl RxRing<'_> {
    /// Slots received and not released, held ones included.
    #[inline]
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.avail()
    }

    /// True if nothing is there.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.avail() == 0
    }

    /// Received slot `k`, counted from the oldest; None if there are not so many.
    #[inline]
    #[must_use]
    pub fn slot(&self, k: u32) -> Option<RxSlot<'_>> {
        self.0.slot(k).map(|s| RxSlot(s, NotSend::default()))
    }

    /// The received slots, oldest first.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = RxSlot<'_>> {
        (0..self.len()).map_while(|k| self.slot(k))
    }

    /// Gives the first `k` slots (at most all) back, with the next sync. Returns how many.
    #[inline]
    pub fn release(&mut self, k: u32) -> u32 {
        self.0.advance(k)
    }

    /// Keeps the first `k` slots (at most all): they stay readable, but a wait is over only when there are more than these. Releasing
    /// uses it up.
    #[inline]
    pub fn hold(&mut self, k: u32) -> u32 {
        self.0.hold(k)
    }

    /// Slots held ([`RxRing::hold`]).
    #[inline]
    #[must_use]
    pub fn held(&self) -> u32 {
        self.0.held()
    }

    /// Gives received slots to `f`, up to `max` of them, until it answers false; releases those for which it answered
    /// true. Returns how many. If `f` panics, none is released.
    #[inline]
    pub fn drain(&mut self, max: u32, mut f: impl FnMut(&RxSlot<'_>) -> bool) -> u32 {
        let (bufs, offsets) = (self.0.bufs(), self.0.offsets());
        let mut done = 0;
        'enough: for run in self.0.runs(max) {
            for slot in run {
                if !f(&RxSlot(SlotRef { slot, bufs, offsets }, NotSend::default())) {
                    break 'enough;
                }
                done += 1;
            }
        }
        self.release(done)
    }

    /// Slots of the first packet; None if nothing, or not all of it, is there.
    #[must_use]
    pub fn first_packet(&self) -> Option<u32> {
        let last = self.iter().position(|s| !s.has_more())?;
        Some(last as u32 + 1)
    }

    /// Copies the first packet, all its slots, into `out`, and releases it. Returns its length in bytes, which is more than `out`
    /// has if it was cut; None if no whole packet is there.
    pub fn recv(&mut self, out: &mut [u8]) -> Option<usize> {
        let slots = self.first_packet()?;
        let mut len = 0;
        for slot in self.iter().take(slots as usize) {
            let payload = slot.payload();
            payload.copy_to(out.get_mut(len..).unwrap_or_default());
            len += payload.len();
        }
        self.release(slots);
        Some(len)
    }

    /// Received slot `k` as a party of a [`swap`](crate::swap).
    ///
    /// # Errors
    /// [`SwapError::NoSlot`] if there are not so many, [`SwapError::Shared`].
    pub fn place(&mut self, k: u32) -> Result<Place<'_>, SwapError> {
        Place::slot(&mut self.0, k)
    }

    /// rxsync: gives released slots back and takes in what has arrived, in this thread. Never blocks.
    ///
    /// Source: `NIOCRXSYNC`; semantics.md 4.
    ///
    /// # Errors
    /// [`SyncError`].
    #[inline]
    pub fn sync(&mut self) -> Result<(), SyncError> {
        self.0.sync(SyncFlags::TIMESTAMP)
    }

    /// When the ring was last synced, or waited on: seconds and microseconds of the wall clock. Source: `ring->ts`.
    #[must_use]
    pub fn timestamp(&self) -> (u64, u64) {
        self.0.timestamp()
    }

    common!(RxSlot);
}

impl Lender for RxRing<'_> {}
impl crate::extra::sealed::Lends for RxRing<'_> {
    fn lends(&self) -> (u64, &Bufs) {
        (self.0.fixed.port, self.0.bufs())
    }
}

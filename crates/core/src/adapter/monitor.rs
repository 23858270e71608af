//! Monitors: what passes on a ring, shown to somebody else.
//!
//! A worker serves a monitor's rings and those that it watches; a polling thread may run a watched ring beside it, so a sink is
//! filled under a lock. The drivers of watched rings are wrapped ([`Monitored`]); what they see goes into [`Sink`]s: the receive rings of monitors, filled as a
//! driver would fill them, by copying frames or by swapping buffers. A sink that is full skips frames; nothing in here ever waits.
//!
//! ```text
//!   copy:       TX ring, before its driver runs     -> sink   (NS_TXMON)
//!               RX ring, when frames arrive there   -> sink   (pipe: with the sender's sync; switch: `Arrivals`;
//!                                                              interface: with the driver's)
//!   zero-copy:  TX ring, slots that come back       -> sink   (NS_TXMON)
//!               RX ring, slots about to be released -> sink
//!               a sink's own slots, when released   -> the next sink
//! ```
//!
//! Source: semantics.md 22; `sys/dev/netmap/netmap_monitor.c`. Unlike there, NS_TXMON is kept along a chain, and slots of a packet
//! that a pipe holds back are seen once. A copy begins where the monitor's slot says, wherever the frame began (semantics.md 14).

use super::{RingDriver, SyncError};
use crate::kring::{BROKER, Kring, RingHandle, distance, forward, next};
use crate::layout::{Dir, RingShared};
use crate::offsets::Offsets;
use crate::stats::{Drop, Stat, add, drop_packets};
use ringway_abi::ring::{NS_BUF_CHANGED, NS_MOREFRAG, NS_TXMON};
use ringway_os::bytes::Bufs;
use ringway_os::event::Doorbell;
use ringway_os::ring::SlotWord;
use std::sync::Arc;

/// TX ring of a monitor: monitors send nothing.
#[derive(Debug)]
pub struct MonitorTx;

impl RingDriver for MonitorTx {
    fn sync(&mut self, _kring: &mut Kring<'_>) -> Result<(), SyncError> {
        Err(SyncError::Failed)
    }

    fn moved_since(&self, _handle: &RingHandle, _wanted: u32) -> bool {
        false
    }
}

/// RX ring of a monitor. What sinks put there is in its slots already.
#[derive(Debug)]
pub struct MonitorRx;

impl RingDriver for MonitorRx {
    fn sync(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError> {
        let n = kring.handle.num_slots();
        let state = &*kring.handle.shared.state;
        kring.hwcur = kring.rhead;
        state.owner.hwcur.set(kring.rhead);
        let end = state.producer.hwtail.load();
        if end < n && distance(n, kring.hwcur, end) >= distance(n, kring.hwcur, kring.rtail) {
            kring.hwtail = end;
        }
        Ok(())
    }

    fn moved_since(&self, handle: &RingHandle, wanted: u32) -> bool {
        let n = handle.num_slots();
        let state = &*handle.shared.state;
        let (head, tail) = (state.owner.hwcur.load(), state.producer.hwtail.load_after_announce());
        head >= n || tail >= n || distance(n, head, tail) >= wanted
    }
}

/// In which direction a frame passed the watched port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Sent.
    Tx,
    /// Received.
    Rx,
    /// As the monitor before says: the ring is that of a monitor.
    Kept,
}

impl Seen {
    fn mark(self, flags: u16) -> u16 {
        match self {
            Seen::Tx => flags | NS_TXMON,
            Seen::Rx => flags & !NS_TXMON,
            Seen::Kept => flags,
        }
    }
}

/// Slots `[from, to)` of a watched ring.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Slots of the ring.
    pub num_slots: u32,
    /// First.
    pub from: u32,
    /// Behind the last.
    pub to: u32,
}

/// The receive ring of a monitor, as the worker has it.
#[derive(Clone, Debug)]
pub struct Sink {
    /// The ring with the broker's private state.
    pub ring: RingHandle,
    /// Where its reader looks and sleeps.
    pub public: RingShared,
    /// Wakes the reader.
    pub bell: Arc<Doorbell>,
}

impl Sink {
    /// Keeps other threads of the broker out, until `publish`.
    fn lock(&self) {
        while self.ring.shared.state.senders.lock.try_lock(BROKER).is_err() {
            ringway_os::sys::yield_now();
        }
    }

    /// Where to begin in a span, for the oldest are skipped that find no room; and the first free slot here.
    fn admit(&self, span: Span) -> (u32, u32) {
        let n = self.ring.num_slots();
        let state = &*self.ring.shared.state;
        let (at, head) = (state.producer.hwtail.load(), state.owner.hwcur.load());
        let room = n - 1 - distance(n, head, at);
        let skipped = distance(span.num_slots, span.from, span.to).saturating_sub(room);
        drop_packets(state, Drop::ReceiverFull, skipped.into());
        (forward(span.num_slots, span.from, skipped), at)
    }

    /// Publishes the slots before `at`, and wakes the reader.
    fn publish(&self, at: u32, packets: u64, bytes: u64) {
        let state = &*self.ring.shared.state;
        add(state, Stat::Packets, packets);
        add(state, Stat::Bytes, bytes);
        // The reader's view of the counters; those of the broker stay the ones that count.
        for (ours, theirs) in state.counters.iter().zip(&self.public.state.counters) {
            theirs.set(ours.get());
        }
        if state.producer.hwtail.load() != at {
            state.producer.hwtail.set(at);
            self.public.tell_owner(&self.bell);
        }
        state.senders.lock.unlock(BROKER);
    }

    /// Copies the frames of a span, whose slots `told` tells, with where each begins in its buffer, and whose buffers are `bufs`.
    pub fn copy(&self, bufs: &Bufs, span: Span, seen: Seen, told: impl Fn(u32) -> (SlotWord, u32)) {
        if span.from == span.to {
            return;
        }
        let (n, own) = (self.ring.num_slots(), &self.ring.ring);
        let offsets = self.ring.offsets();
        self.lock();
        let (mut k, mut at) = self.admit(span);
        let (mut packets, mut bytes) = (0, 0);
        while k != span.to {
            let Some(slot) = own.slots.get(at as usize) else { break };
            let (theirs, from) = told(k);
            let (mine, to) = (slot.load(), offsets.of(slot.ptr()));
            let room = bufs.buf_size().saturating_sub(from).min(own.bufs.buf_size() - to);
            let wanted = u32::from(theirs.len()).min(room) as u16;
            let copied = self.ring.valid_buf(mine) != 0
                && if from | to == 0 {
                    bufs.copy_frame(theirs.buf_idx(), &own.bufs, mine.buf_idx(), wanted.into())
                } else {
                    copy_between(bufs, (theirs.buf_idx(), from), &own.bufs, (mine.buf_idx(), to), wanted)
                };
            let len = if copied { wanted } else { 0 };
            slot.store(SlotWord::new(mine.buf_idx(), len, seen.mark(theirs.flags())));
            packets += u64::from(theirs.flags() & NS_MOREFRAG == 0);
            bytes += u64::from(len);
            at = next(n, at);
            k = next(span.num_slots, k);
        }
        self.publish(at, packets, bytes);
    }

    /// Takes the buffers of slots `[from, to)` of `watched`, a ring of the same region, and leaves free ones of its own there.
    pub fn swap(&self, watched: &RingHandle, from: u32, to: u32, seen: Seen) {
        if from == to {
            return;
        }
        let span = Span { num_slots: watched.num_slots(), from, to };
        let n = self.ring.num_slots();
        self.lock();
        let (mut k, mut at) = self.admit(span);
        let (mut packets, mut bytes, mut bad) = (0, 0, 0);
        while k != to {
            let slots = (watched.ring.slots.get(k as usize), self.ring.ring.slots.get(at as usize));
            let (Some(theirs), Some(mine)) = slots else { break };
            k = next(span.num_slots, k);
            let (used, fresh) = (theirs.load(), mine.load());
            if watched.valid_buf(used) == 0 || self.ring.valid_buf(fresh) == 0 {
                // Somebody scribbled: what is no buffer does not change hands.
                bad += 1;
                continue;
            }
            let flags = used.flags() & !NS_BUF_CHANGED;
            mine.store(SlotWord::new(used.buf_idx(), used.len(), seen.mark(flags)));
            theirs.store(SlotWord::new(fresh.buf_idx(), fresh.len(), used.flags() | NS_BUF_CHANGED));
            packets += u64::from(flags & NS_MOREFRAG == 0);
            bytes += u64::from(used.len());
            at = next(n, at);
        }
        drop_packets(&self.ring.shared.state, Drop::BadSlot, bad);
        self.publish(at, packets, bytes);
    }
}

/// Copies `len` bytes, which both buffers have behind where they begin. False if there is no such buffer.
fn copy_between(bufs: &Bufs, from: (u32, u32), own: &Bufs, to: (u32, u32), len: u16) -> bool {
    let (Some(theirs), Some(mine)) = (bufs.payload(from.0), own.payload(to.0)) else { return false };
    let theirs = theirs.slice(from.1 as usize, len.into());
    mine.slice(to.1 as usize, len.into()).copy_payload(&theirs) == usize::from(len)
}

/// Who watches one ring.
#[derive(Clone, Debug, Default)]
pub struct Watchers {
    /// Copy monitors.
    pub copies: Vec<Sink>,
    /// The first zero-copy monitor; the next one watches that.
    pub zcopy: Option<Sink>,
}

impl Watchers {
    /// True if nobody does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty() && self.zcopy.is_none()
    }
}

/// A driver that is watched.
pub struct Monitored {
    inner: Box<dyn RingDriver>,
    watchers: Watchers,
    /// TX ring of a pipe: copy monitors of the RX ring that its frames arrive in.
    arrivals: Vec<Sink>,
    /// The ring is a monitor's own.
    seen_rx: Seen,
    /// TX: first slot that copy monitors have not seen.
    unseen: u32,
    /// RX: what the driver brings has been seen by nobody. Elsewhere senders show it.
    from_device: bool,
}

impl Monitored {
    /// Wraps the driver of `handle`, whose posts have all been served. What was handed over before is not seen.
    #[must_use]
    pub fn new(
        inner: Box<dyn RingDriver>,
        handle: &RingHandle,
        watchers: Watchers,
        arrivals: Vec<Sink>,
    ) -> Self {
        let unseen = handle.load(0).rhead;
        Monitored { inner, watchers, arrivals, seen_rx: Seen::Rx, unseen, from_device: false }
    }

    /// The driver is that of a device.
    #[must_use]
    pub(crate) fn of_device(self) -> Self {
        Monitored { from_device: true, ..self }
    }

    /// Wraps the driver of a monitor's own RX ring, which another watches.
    #[must_use]
    pub fn chained(inner: Box<dyn RingDriver>, next: Sink) -> Self {
        let watchers = Watchers { copies: vec![], zcopy: Some(next) };
        Monitored { inner, watchers, arrivals: vec![], seen_rx: Seen::Kept, unseen: 0, from_device: false }
    }

    fn sync_tx(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError> {
        let handle = kring.handle;
        let num_slots = handle.num_slots();
        let (free_from, sent_from) = (next(num_slots, kring.hwtail), kring.hwcur);
        let span = Span { num_slots, from: self.unseen, to: kring.rhead };
        for sink in &self.watchers.copies {
            copy_slots(sink, handle, span, Seen::Tx);
        }
        self.unseen = kring.rhead;
        let done = self.inner.sync(kring);
        // The receiver of a pipe has not synced yet: it is served by the same worker.
        let span = Span { num_slots, from: sent_from, to: kring.hwcur };
        for sink in &self.arrivals {
            copy_slots(sink, handle, span, Seen::Rx);
        }
        if let Some(sink) = &self.watchers.zcopy {
            sink.swap(handle, free_from, next(num_slots, kring.hwtail), Seen::Tx);
        }
        done
    }
}

/// Copies the slots of a ring as they stand.
pub(crate) fn copy_slots(sink: &Sink, handle: &RingHandle, span: Span, seen: Seen) {
    let (slots, offsets) = (&handle.ring.slots, handle.offsets());
    let told = |k: u32| match slots.get(k as usize) {
        Some(slot) => (slot.load(), offsets.of(slot.ptr())),
        None => (SlotWord::new(0, 0, 0), 0),
    };
    sink.copy(&handle.ring.bufs, span, seen, told);
}

impl RingDriver for Monitored {
    fn sync(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError> {
        if kring.handle.dir == Dir::Tx {
            return self.sync_tx(kring);
        }
        if let Some(sink) = &self.watchers.zcopy {
            sink.swap(kring.handle, kring.hwcur, kring.rhead, self.seen_rx);
        }
        let from = kring.hwtail;
        let done = self.inner.sync(kring);
        if self.from_device {
            let span = Span { num_slots: kring.handle.num_slots(), from, to: kring.hwtail };
            self.watchers.copies.iter().for_each(|sink| copy_slots(sink, kring.handle, span, Seen::Rx));
        }
        done
    }

    fn moved_since(&self, handle: &RingHandle, wanted: u32) -> bool {
        self.inner.moved_since(handle, wanted)
    }
}

/// What the senders to a switch port's receive ring do besides: all of them are run by one worker while it is watched.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// Copy monitors of the ring.
    pub copies: Vec<Sink>,
    /// The ring is served by the worker too: where its owner looks, and what wakes it.
    pub owner: Option<(RingShared, Arc<Doorbell>)>,
}

impl Arrivals {
    /// Before slots `[from, to)` of `ring` are published: nobody else has seen them.
    #[cold]
    pub fn before(&self, ring: &RingShared, bufs: &Bufs, from: u32, to: u32) {
        use std::sync::atomic::Ordering::Relaxed;
        let span = Span { num_slots: ring.num_slots, from, to };
        let offsets = Offsets::load_senders(&ring.state.senders, bufs.buf_size());
        let told = |k: u32| match (ring.mirror.get(k as usize), ring.desc.get(k as usize)) {
            (Some(idx), Some(d)) => {
                // Where the sender has put it. Without offsets nobody writes that.
                let placed = ring.known.get(2 * k as usize).filter(|_| offsets.is_on());
                let ofs = placed.map_or(0, |p| p.load(Relaxed).min(bufs.buf_size().into()) as u32);
                (SlotWord::from_len_flags(idx.load(Relaxed), d.load(Relaxed)), ofs)
            }
            _ => (SlotWord::new(0, 0, 0), 0),
        };
        for sink in &self.copies {
            sink.copy(bufs, span, Seen::Rx, told);
        }
    }

    /// After they are published.
    pub fn after(&self) {
        if let Some((ring, bell)) = &self.owner {
            ring.tell_owner(bell);
        }
    }
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;

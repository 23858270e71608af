//! A receive ring of another port, as a sender has it: locked, filled, published, unlocked.
//!
//! What the order of stores is for: payload and descriptor first, then one note in the journal, then one publishing exchange
//! (`Cursor::publish_from`), then our own position. Whoever dies in between leaves either nothing or a note that tells
//! the broker what became of it.

use super::forward::CHUNK_SLOTS;
use super::{FarRing, Peer, Seat};
use crate::kring::{BROKER, Kring, distance, forward};
use crate::offsets::Offsets;
use crate::stats::{Drop, Stat, add, drop_packets, low};
use ringway_os::state::RingState;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

/// Times a sender gives way to a full receiver, in one sync.
const FULL_YIELDS: u32 = 3;
/// How long a sender waits for others that hold receivers, in one sync: yields first, then naps. With the timer slack that
/// processes have unless they change it, a nap takes twice as long: about a millisecond in all.
const LOCK_YIELDS: u32 = 8;
const LOCK_NAPS: u32 = 10;
const LOCK_NAP: Duration = Duration::from_micros(50);

/// What one sync has waited for others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waited {
    /// Times it gave way to full receivers.
    yields: u32,
    /// Naps behind other senders.
    naps: u32,
}

/// Counts of one sync, committed at each publishing.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub packets: u32,
    pub bytes: u32,
    pub delivered: u32,
}

/// A receive ring of another port, locked.
pub(super) struct Open<'p> {
    pub peer: &'p Peer,
    pub ring: &'p FarRing,
    ring_index: u16,
    pub n: u32,
    start: u32,
    pub tail: u32,
    head: u32,
    locked: bool,
    /// Free slots.
    pub space: u32,
    /// Processor plus 1 of the receiver, 0 if we have not looked.
    pub cpu: u32,
    /// Where packets begin in its buffers.
    pub offsets: Offsets,
}

/// Why a receive ring could not be opened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Closed {
    Need(u8),
    Drop(Drop),
    /// Its frames are not copied as ours are: its virtio-net header has another length, or it has offsets.
    NotPlain,
    /// The broker serves its senders now.
    Brokered,
}

/// Moves our own position on past packets that were dropped, nothing having been published.
pub(super) fn commit_only(kring: &mut Kring<'_>, at: u32, tally: &mut Tally) {
    let state = &*kring.handle.shared.state;
    kring.hwcur = at;
    state.owner.hwcur.set(at);
    count(state, tally);
}

fn count(state: &RingState, tally: &mut Tally) {
    add(state, Stat::Packets, tally.packets.into());
    add(state, Stat::Bytes, tally.bytes.into());
    add(state, Stat::Delivered, tally.delivered.into());
    *tally = Tally::default();
}

impl<'p> Open<'p> {
    /// As [`Open::lock_any`], of a peer whose frames look like ours.
    pub fn lock(
        seat: &Seat,
        peer: &'p Peer,
        ring: u16,
        me: u32,
        waited: &mut Waited,
    ) -> Result<Self, Closed> {
        let open = Self::lock_any(seat, peer, ring, me, waited)?;
        let len = |index: u8| seat.page.hdr_lens[usize::from(index)].load(Relaxed);
        if len(peer.index) == len(seat.index) && !open.offsets.is_on() {
            return Ok(open);
        }
        open.ring.senders.senders.lock.unlock(me);
        Err(Closed::NotPlain)
    }

    /// Locks ring `ring` of `peer` for attachment `me`, waiting for other senders at most about a millisecond in one sync.
    pub fn lock_any(
        seat: &Seat,
        peer: &'p Peer,
        ring: u16,
        me: u32,
        waited: &mut Waited,
    ) -> Result<Self, Closed> {
        let far = peer.rings.get(usize::from(ring)).ok_or(Closed::Drop(Drop::ReceiverGone))?;
        if far.is_busy {
            return Err(Closed::Drop(Drop::ReceiverBusy));
        }
        let line = &far.senders.senders;
        if line.lock.try_lock(me).is_err() {
            wait_for_lock(far, me, waited)?;
        }
        let n = far.shared.num_slots;
        let (tail, head) = (line.tail.load(Relaxed), line.head.load(Relaxed));
        let page = &seat.page;
        let same = page.generations[usize::from(peer.index)].load(Acquire) == peer.generation;
        if !same || line.bound.load(Relaxed) == 0 || tail >= n || head >= n {
            line.lock.unlock(me);
            return Err(Closed::Drop(Drop::ReceiverGone));
        }
        let mut open = Open {
            peer,
            ring: far,
            ring_index: ring,
            n,
            start: tail,
            tail,
            head,
            locked: true,
            space: 0,
            cpu: 0,
            offsets: Offsets::load_senders(line, peer.bufs.buf_size()),
        };
        open.space = n - 1 - distance(n, head, tail);
        if open.space < CHUNK_SLOTS {
            open.look();
        }
        Ok(open)
    }

    /// Looks at how far the receiver has released.
    fn look(&mut self) {
        let owner = &self.ring.shared.state.owner;
        let head = owner.hwcur.load();
        self.cpu = owner.cpu.load(Relaxed);
        if head < self.n {
            self.head = head;
            self.space = self.n - 1 - distance(self.n, head, self.tail);
        }
    }

    /// One slot has been filled.
    #[inline]
    pub fn push(&mut self) {
        self.pushed(1);
    }

    /// `count` slots have been filled.
    #[inline]
    pub fn pushed(&mut self, count: u32) {
        self.tail = forward(self.n, self.tail, count);
        self.space -= count;
    }

    /// The ring is full: tells the receiver what is there, and gives way a few times. True if there is room now.
    #[cold]
    pub fn make_room(
        &mut self,
        kring: &mut Kring<'_>,
        at: u32,
        tally: &mut Tally,
        waited: &mut Waited,
    ) -> bool {
        self.make_room_for(1, kring, at, tally, waited)
    }

    /// As `make_room`, for `slots` slots.
    #[cold]
    pub fn make_room_for(
        &mut self,
        slots: u32,
        kring: &mut Kring<'_>,
        at: u32,
        tally: &mut Tally,
        waited: &mut Waited,
    ) -> bool {
        if !self.locked {
            return false;
        }
        self.look();
        if self.space >= slots {
            return true;
        }
        let line = &self.ring.senders.senders;
        if line.stalled_at.load(Relaxed) == self.head + 1 {
            return false;
        }
        while waited.yields < FULL_YIELDS {
            waited.yields += 1;
            self.publish(kring, at, tally);
            self.locked = false;
            line.lock.unlock(kring.me);
            ringway_os::sys::yield_now();
            if line.lock.try_lock(kring.me).is_err() && wait_for_lock(self.ring, kring.me, waited).is_err() {
                self.space = 0;
                return false;
            }
            self.locked = true;
            let tail = line.tail.load(Relaxed);
            if tail >= self.n {
                self.space = 0;
                return false;
            }
            (self.start, self.tail) = (tail, tail);
            self.look();
            if self.space >= slots {
                return true;
            }
        }
        line.stalled_at.store(self.head + 1, Relaxed);
        false
    }

    /// True if we have lost the ring to the broker, for good.
    pub fn is_brokered(&self) -> bool {
        !self.locked && self.ring.senders.senders.lock.holder() == BROKER
    }

    /// Publishes what was filled, moves our own position to `at`, commits the counts, and wakes who sleeps. False: the
    /// broker took the ring away meanwhile; what we filled is lost, and counted.
    fn publish(&mut self, kring: &mut Kring<'_>, at: u32, tally: &mut Tally) -> bool {
        let state = &*kring.handle.shared.state;
        if !self.locked || self.tail == self.start {
            commit_only(kring, at, tally);
            return true;
        }
        if let Some(arrivals) = &self.ring.arrivals {
            arrivals.before(&self.ring.shared, &self.peer.bufs, self.start, self.tail);
        }
        let line = &self.ring.senders.senders;
        let journal = &state.journal;
        journal.far.store(u32::from(self.peer.index) | u32::from(self.ring_index) << 8, Relaxed);
        journal.far_tail.store(self.tail, Relaxed);
        journal.position.store(at, Relaxed);
        journal.packets.store(low(state, Stat::Packets).wrapping_add(tally.packets), Relaxed);
        journal.bytes.store(low(state, Stat::Bytes).wrapping_add(tally.bytes), Relaxed);
        journal.delivered.store(low(state, Stat::Delivered).wrapping_add(tally.delivered), Relaxed);
        journal.generation.store(self.peer.generation, std::sync::atomic::Ordering::Release);

        let arrived = self.ring.shared.state.producer.hwtail.publish_from(self.start, self.tail);
        kring.hwcur = at;
        state.owner.hwcur.set(at);
        if arrived {
            line.tail.store(self.tail, Relaxed);
            line.head.store(self.head, Relaxed);
            self.ring.shared.state.producer.cpu.store(ringway_os::sys::this_cpu_plus_1(), Relaxed);
        } else {
            drop_packets(state, Drop::Interrupted, tally.delivered.into());
            tally.delivered = 0;
            // A late holder published under us and may have died before it said so: whoever locks next goes on
            // from what the receiver sees.
            let tail = self.ring.shared.state.producer.hwtail.load();
            if tail < self.n {
                line.tail.store(tail, Relaxed);
                self.tail = tail;
            }
        }
        count(state, tally);
        journal.generation.store(0, std::sync::atomic::Ordering::Release);
        self.start = self.tail;
        if arrived && self.ring.shared.state.sleep.owner.take(distance(self.n, self.head, self.tail)) {
            self.peer.bell.ring();
            add(state, Stat::Rings, 1);
        }
        if let Some(arrivals) = &self.ring.arrivals {
            arrivals.after();
        }
        arrived
    }

    /// Publishes and unlocks.
    pub fn finish(mut self, kring: &mut Kring<'_>, at: u32, tally: &mut Tally) {
        self.publish(kring, at, tally);
        if self.locked {
            self.ring.senders.senders.lock.unlock(kring.me);
        }
    }
}

/// Another sender holds the receiver's ring: yields, then naps (the holder, or the broker that must break a dead one's lock, may need
/// this processor), as long as this sync may.
#[cold]
fn wait_for_lock(far: &FarRing, me: u32, waited: &mut Waited) -> Result<(), Closed> {
    let lock = &far.senders.senders.lock;
    for _ in 0..LOCK_YIELDS {
        // Threads of the broker have it by turns; others have it back when they are asked to sync again.
        if lock.holder() == BROKER && me != BROKER {
            return Err(Closed::Brokered);
        }
        ringway_os::sys::yield_now();
        if lock.try_lock(me).is_ok() {
            return Ok(());
        }
    }
    while waited.naps < LOCK_NAPS {
        waited.naps += 1;
        ringway_os::sys::sleep(LOCK_NAP);
        if lock.try_lock(me).is_ok() {
            return Ok(());
        }
    }
    Err(Closed::Drop(Drop::ReceiverBusy))
}

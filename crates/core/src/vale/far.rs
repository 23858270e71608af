//! A receive ring of another port, as a sender has it: locked, filled, published, unlocked.
//!
//! What the order of stores is for: payload and descriptor first, then one note in the journal, then one publishing exchange
//! (`Cursor::publish_from`), then our own position. Whoever dies in between leaves either nothing or a note that tells
//! the broker what became of it.

use super::forward::CHUNK_SLOTS;
use super::{FarRing, Peer, Seat};
use crate::kring::{Kring, distance, forward};
use crate::stats::{Drop, Stat, add, drop_packets};
use ringway_os::state::RingState;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

/// Times a sender gives way to a full receiver, in one sync.
const FULL_YIELDS: u32 = 3;
/// How long a sender waits for another that holds the receiver: yields first, then naps.
const LOCK_YIELDS: u32 = 8;
const LOCK_NAPS: u32 = 20;
const LOCK_NAP: Duration = Duration::from_micros(50);

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
}

/// Why a receive ring could not be opened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Closed {
    Need(u8),
    Drop(Drop),
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
    /// Locks ring `ring` of `peer` for attachment `me`, waiting for another sender at most about a millisecond.
    pub fn lock(seat: &Seat, peer: &'p Peer, ring: u16, me: u32) -> Result<Self, Closed> {
        let far = peer.rings.get(usize::from(ring)).ok_or(Closed::Drop(Drop::ReceiverGone))?;
        let line = &far.senders.senders;
        if line.lock.try_lock(me).is_err() {
            wait_for_lock(far, me)?;
        }
        let n = far.shared.num_slots;
        let (tail, head) = (line.tail.load(Relaxed), line.head.load(Relaxed));
        let page = &seat.page;
        let same = page.generations[usize::from(peer.index)].load(Acquire) == peer.generation;
        let no_match = page.hdr_lens[usize::from(peer.index)].load(Relaxed)
            != page.hdr_lens[usize::from(seat.index)].load(Relaxed);
        let refusal = if !same || line.bound.load(Relaxed) == 0 || tail >= n || head >= n {
            Some(Drop::ReceiverGone)
        } else if no_match {
            Some(Drop::HeaderMismatch)
        } else {
            None
        };
        if let Some(reason) = refusal {
            line.lock.unlock(me);
            return Err(Closed::Drop(reason));
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
    pub fn make_room(&mut self, kring: &mut Kring<'_>, at: u32, tally: &mut Tally, yields: &mut u32) -> bool {
        self.make_room_for(1, kring, at, tally, yields)
    }

    /// As `make_room`, for `slots` slots.
    #[cold]
    pub fn make_room_for(
        &mut self,
        slots: u32,
        kring: &mut Kring<'_>,
        at: u32,
        tally: &mut Tally,
        yields: &mut u32,
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
        while *yields < FULL_YIELDS {
            *yields += 1;
            self.publish(kring, at, tally);
            self.locked = false;
            line.lock.unlock(kring.me);
            ringway_os::sys::yield_now();
            if line.lock.try_lock(kring.me).is_err() && wait_for_lock(self.ring, kring.me).is_err() {
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
        journal.packets.store(tally.packets, Relaxed);
        journal.bytes.store(tally.bytes, Relaxed);
        journal.delivered.store(tally.delivered, Relaxed);
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
/// this processor), for about a millisecond.
#[cold]
fn wait_for_lock(far: &FarRing, me: u32) -> Result<(), Closed> {
    let lock = &far.senders.senders.lock;
    for _ in 0..LOCK_YIELDS {
        ringway_os::sys::yield_now();
        if lock.try_lock(me).is_ok() {
            return Ok(());
        }
    }
    for _ in 0..LOCK_NAPS {
        ringway_os::sys::sleep(LOCK_NAP);
        if lock.try_lock(me).is_ok() {
            return Ok(());
        }
    }
    Err(Closed::Drop(Drop::ReceiverBusy))
}

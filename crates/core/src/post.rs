//! The client's side of a ring that the broker serves: posting the head to a worker, and taking in its answer.
//!
//! The worker never looks at `ring->head` or `cur`. The caller's sync checks them as a direct sync would, posts the
//! accepted head, and (if it is to be synchronous) waits for the acknowledgement, which carries the new tail. The
//! worker checks what was posted again.

use crate::kring::{BROKER, CursorError, RingHandle, SyncOutcome, distance, forward};
use crate::layout::{Dir, RingShared};
use crate::lease::PeerSource;
use ringway_abi::ring::NS_INDIRECT;
use ringway_os::bytes::copy_from_user;
use ringway_os::event::Doorbell;
use ringway_os::ring::SlotWord;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::fence;
use std::time::Duration;

/// Looks at the answer before the processor is given away between looks.
const SPINS: u32 = 2_000;
/// Looks with giving it away, before naps.
const YIELDS: u32 = 50;
const NAP: Duration = Duration::from_micros(20);
/// Naps until the worker counts as stuck: two seconds.
const NAPS: u32 = 40_000;
/// Naps from one look whether the broker lives to the next.
const LOOK_EVERY: u32 = 64;

impl RingShared {
    /// The worker has brought this ring packets or room: its owner looks again, and wakes up if it sleeps.
    pub(crate) fn tell_owner(&self, bell: &Doorbell) {
        let progress = &self.state.ack.progress;
        progress.publish(progress.load().wrapping_add(1));
        if self.state.sleep.owner.take(u32::MAX) {
            bell.ring();
        }
    }
}

impl RingHandle {
    /// One sync by way of the worker. With `wait`, it ends when the worker has done it; without, what the worker has done so far
    /// is taken in. `Brokered`: the ring changed hands meanwhile, so that what was posted may not be done; sync again.
    /// `Skipped`: somebody is stopped in the middle of a post, or the broker is gone, or hangs.
    pub(crate) fn sync_brokered(
        &self,
        me: u32,
        worker: &Doorbell,
        wait: bool,
        source: &mut dyn PeerSource,
    ) -> SyncOutcome {
        let state = &*self.shared.state;
        let hands = match self.lock_posts(me, source) {
            Ok(hands) => hands,
            Err(outcome) => return outcome,
        };
        let posted = self.post(me);
        state.post.lock.unlock(me);
        let ticket = match posted {
            Ok(ticket) => ticket,
            Err(bad) => return SyncOutcome::BadRing(bad),
        };
        let woken = state.ack.sleep.take(u32::MAX);
        if woken {
            worker.ring();
        }
        source.serve();
        if !wait {
            return SyncOutcome::Done;
        }
        if !self.wait_for_ack(ticket, woken, source) {
            return SyncOutcome::Skipped;
        }
        match self.lock_posts(me, source) {
            Ok(now) => {
                self.collect();
                state.post.lock.unlock(me);
                if now == hands { SyncOutcome::Done } else { SyncOutcome::Brokered }
            }
            Err(outcome) => outcome,
        }
    }

    /// Locks the ring for a post, or for taking in an answer, which takes a moment; nobody waits for the worker under this lock.
    /// While it is held the ring does not change hands: the broker needs it for that. Returns `hands`.
    ///
    /// # Errors
    /// `Brokered`: the ring is served directly again. `Skipped`: somebody is stopped in the middle of a post, or the broker in the middle
    /// of a change of hands.
    fn lock_posts(&self, me: u32, source: &mut dyn PeerSource) -> Result<u32, SyncOutcome> {
        let state = &*self.shared.state;
        for i in 0..YIELDS + NAPS {
            let somebody_posts = match state.post.lock.try_lock(me) {
                Ok(()) if !self.is_brokered() => {
                    state.post.lock.unlock(me);
                    return Err(SyncOutcome::Brokered);
                }
                Ok(()) => {
                    let hands = state.ack.hands.load();
                    if hands % 2 == 1 {
                        return Ok(hands);
                    }
                    // Handed over, and not taken yet.
                    state.post.lock.unlock(me);
                    false
                }
                Err(holder) => holder != BROKER,
            };
            source.serve();
            if i < YIELDS {
                ringway_os::sys::yield_now();
            } else if somebody_posts || i % LOOK_EVERY == 0 && !source.is_alive() {
                break;
            } else {
                ringway_os::sys::sleep(NAP);
            }
        }
        Err(SyncOutcome::Skipped)
    }

    /// Under the lock: takes in what the worker has done so far, and posts the head. Returns the post's number.
    fn post(&self, me: u32) -> Result<u32, CursorError> {
        let state = &*self.shared.state;
        // What the worker brings after this look, a sleeper must look for once more.
        state.sync.seen.store(state.ack.progress.load(), Relaxed);
        self.collect();
        let mut kring = self.load(me);
        let from = kring.rhead;
        let head = self.ring.header.head.load(Acquire);
        let cur = self.ring.header.cur.load(Relaxed);
        if let Err(bad) = kring.take(head, cur) {
            self.reinit(&mut kring, head, cur);
            self.save(&kring);
            return Err(bad);
        }
        state.sync.rhead.store(kring.rhead, Relaxed);
        state.sync.rcur.store(kring.rcur, Relaxed);
        if self.dir == Dir::Tx {
            self.resolve_indirect(from, head);
        }
        state.post.head.store(head, Relaxed);
        let ticket = state.post.posted.load().wrapping_add(1);
        state.post.posted.publish(ticket);
        Ok(ticket)
    }

    /// True if the broker serves the ring now.
    #[must_use]
    pub fn is_brokered(&self) -> bool {
        self.shared.state.sync.lock.holder() == BROKER
    }

    /// After the owner announced its sleep: true if the worker may have brought something since the last post, or another process is
    /// in the middle of a sync.
    #[must_use]
    pub(crate) fn worker_moved(&self) -> bool {
        let state = &*self.shared.state;
        let (ack, header) = (&state.ack, &self.ring.header);
        ack.progress.load_after_announce() != state.sync.seen.load(Relaxed)
            || ack.acked.load() != state.post.posted.load()
            || ack.tail.load(Relaxed) != header.tail.load(Relaxed)
    }

    /// True if a sync of the ring, or a post, is under way in some process. If not, what the last one brought is visible.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let state = &*self.shared.state;
        let busy = !matches!(state.sync.lock.holder(), 0 | BROKER) || state.post.lock.holder() != 0;
        // Pairs with the release of the unlocking that we saw.
        fence(Acquire);
        busy
    }

    /// Slots from `head` that the ring's window shows to be the owner's.
    #[must_use]
    pub fn owned(&self) -> u32 {
        let (n, header) = (self.num_slots(), &self.ring.header);
        let (head, tail) = (header.head.load(Relaxed), header.tail.load(Acquire));
        if head < n && tail < n { distance(n, head, tail) } else { 0 }
    }

    /// Until the post counts as acknowledged, or the ring is given back. False if neither happens: soon, if the broker is gone.
    /// `woken`: the worker slept, and has been rung for.
    fn wait_for_ack(&self, ticket: u32, woken: bool, source: &mut dyn PeerSource) -> bool {
        let state = &*self.shared.state;
        // When a ring changes hands, what is posted counts as acknowledged, done or not: `hands` tells.
        let over = || state.ack.acked.load().wrapping_sub(ticket) as i32 >= 0 || !self.is_brokered();
        // A worker that slept the system may have put on our own processor, wherever it was before: there it runs when we let it, and
        // elsewhere it is not awake sooner than a yield is over.
        let here = state.ack.cpu.load(Relaxed) == ringway_os::sys::this_cpu_plus_1();
        let mut yields = if here { YIELDS } else { woken.into() };
        for _ in 0..SPINS {
            if over() {
                return true;
            }
            if yields > 0 {
                yields -= 1;
                ringway_os::sys::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        for i in 0..YIELDS + NAPS {
            if over() {
                return true;
            }
            source.serve();
            if i < YIELDS {
                ringway_os::sys::yield_now();
            } else if i % LOOK_EVERY == 0 && !source.is_alive() {
                return false;
            } else {
                ringway_os::sys::sleep(NAP);
            }
        }
        false
    }

    /// Under the lock: takes in what the worker has done, the tail that it told.
    fn collect(&self) {
        let state = &*self.shared.state;
        let _ = state.ack.acked.load(); // Acquire: the tail is not older than this.
        let tail = state.ack.tail.load(Relaxed);
        if tail < self.num_slots() {
            state.sync.rtail.store(tail, Relaxed);
            self.ring.header.tail.store(tail, Release);
        }
    }

    /// Brings indirect payloads into the slots' own buffers: the worker cannot read our memory. What cannot be read gets length 0.
    fn resolve_indirect(&self, from: u32, to: u32) {
        let n = self.num_slots();
        let mut at = from;
        while at != to {
            let slot = &self.ring.slots[at as usize];
            let word = slot.load();
            if word.flags() & NS_INDIRECT != 0 {
                let payload = self.ring.bufs.payload(self.valid_buf(word));
                let ok = slot.ptr() != 0
                    && payload.is_some_and(|p| copy_from_user(slot.ptr(), &p, usize::from(word.len())));
                if !ok {
                    slot.store(SlotWord::new(word.buf_idx(), 0, word.flags()));
                }
            }
            at = forward(n, at, 1);
        }
    }
}

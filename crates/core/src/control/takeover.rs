//! How the state of a ring changes hands: from the memory that its clients share into that of the broker, and back.

use crate::kring::{BROKER, RingHandle, forget_journal};
use crate::layout::RingShared;
use ringway_os::state::RingState;
use ringway_os::words::LockWord;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long holders may keep locks that are to change hands, all together: others wait meanwhile. What is held longer changes hands later,
/// each ring for itself.
const TAKEOVER_NAPS: u32 = 100;
const TAKEOVER_NAP: Duration = Duration::from_micros(100);
/// How long clients in the middle of a post are waited for, all together.
const POST_NAPS: u32 = 20;
const POST_NAP: Duration = Duration::from_micros(50);

/// Naps taken in one change of hands.
#[derive(Debug, Default)]
pub(super) struct Naps {
    holders: u32,
    posters: u32,
}

/// The ring is served by the broker from now on, or no more. Who posted to the one that served it before must not take an
/// acknowledgement for its work.
pub(super) fn change_hands(ring: &RingShared, served: bool) {
    let hands = &ring.state.ack.hands;
    let now = hands.load();
    let to_next = if now % 2 == u32::from(served) { 2 } else { 1 };
    hands.publish(now.wrapping_add(to_next));
}

/// A lock of clients that the broker has claimed and not got yet: its holder is in the middle of something.
#[derive(Clone, Debug)]
pub(super) struct Late {
    pub ring: RingShared,
    /// The number of the last post before the claim.
    pub posted: u32,
}

/// Claims a lock, and waits a little for its holder, if there is one. True if it is the broker's now.
pub(super) fn claim(lock: &LockWord, naps: &mut Naps) -> bool {
    while !lock.claim() {
        if naps.holders == TAKEOVER_NAPS {
            return false;
        }
        naps.holders += 1;
        ringway_os::sys::sleep(TAKEOVER_NAP);
    }
    true
}

/// Takes a ring over whose lock is ours now. `posted` was the number of the last post before the lock was claimed.
pub(super) fn take_over(public: &RingHandle, private: &RingShared, posted: u32, naps: &mut Naps) {
    let state = &*public.shared.state;
    copy_ring(&public.shared, private);
    let kring = public.load(BROKER);
    state.ack.tail.store(kring.rtail, Relaxed);
    // Before this a client does not believe the tail above, nor, after it, that its old posts were done.
    change_hands(&public.shared, true);
    // A post of earlier times is none. One that came since the claim, from who handed the ring over, or whose poster holds the lock
    // is for the worker.
    loop {
        if state.post.posted.load() != posted || naps.posters >= POST_NAPS {
            break;
        }
        if state.post.lock.try_lock(BROKER).is_ok() {
            if state.post.posted.load() == posted {
                state.ack.acked.set(posted);
            }
            state.post.lock.unlock(BROKER);
            break;
        }
        naps.posters += 1;
        ringway_os::sys::sleep(POST_NAP);
    }
}

/// Positions, counters and arrays of one ring to another of the same size. Values out of range are mended when they are loaded.
pub(super) fn copy_ring(from: &RingShared, to: &RingShared) {
    let (a, b) = (&*from.state, &*to.state);
    b.producer.hwtail.set(a.producer.hwtail.load());
    b.owner.hwcur.set(a.owner.hwcur.load());
    for (x, y) in
        [(&a.sync.rhead, &b.sync.rhead), (&a.sync.rcur, &b.sync.rcur), (&a.sync.rtail, &b.sync.rtail)]
    {
        y.store(x.load(Relaxed), Relaxed);
    }
    for (x, y) in a.counters.iter().zip(&b.counters) {
        y.set(x.get());
    }
    forget_journal(b);
    for (x, y) in [(&from.desc, &to.desc), (&from.mirror, &to.mirror)] {
        x.iter().zip(y.iter()).for_each(|(x, y)| y.store(x.load(Relaxed), Relaxed));
    }
    for (x, y) in [(&from.records, &to.records), (&from.known, &to.known), (&from.bits, &to.bits)] {
        x.iter().zip(y.iter()).for_each(|(x, y)| y.store(x.load(Relaxed), Relaxed));
    }
}

/// The senders' cursors of a receive ring, from what its owner sees.
pub(super) fn take_senders(public: &RingState, private: &RingState, n: u32) {
    let check = |v: u32| if v < n { v } else { 0 };
    private.senders.tail.store(check(public.producer.hwtail.load()), Relaxed);
    private.senders.head.store(check(public.owner.hwcur.load()), Relaxed);
}

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

/// Naps taken in one change of hands.
#[derive(Debug, Default)]
pub(super) struct Naps(u32);

/// The ring is served by the broker from now on, or no more. Who posted to the one that served it before must not take an
/// acknowledgement for its work.
fn change_hands(ring: &RingShared, served: bool) {
    let hands = &ring.state.ack.hands;
    let now = hands.load();
    let to_next = if now % 2 == u32::from(served) { 2 } else { 1 };
    hands.publish(now.wrapping_add(to_next));
}

/// Claims a lock, and waits a little for its holder, if there is one. True if it is the broker's now.
pub(super) fn claim(lock: &LockWord, naps: &mut Naps) -> bool {
    while !lock.claim() {
        if naps.0 == TAKEOVER_NAPS {
            return false;
        }
        naps.0 += 1;
        ringway_os::sys::sleep(TAKEOVER_NAP);
    }
    true
}

/// Takes a ring over whose locks are ours now, and lets clients post. What was posted to whoever served it before counts no more.
pub(super) fn take_over(public: &RingHandle, private: &RingShared) {
    let state = &*public.shared.state;
    copy_ring(&public.shared, private);
    state.ack.tail.store(public.load(BROKER).rtail, Relaxed);
    state.ack.acked.publish(state.post.posted.load());
    change_hands(&public.shared, true);
    state.post.lock.withdraw();
}

/// Gives a ring back, whose state is with its clients again.
pub(super) fn give_back(ring: &RingShared) {
    let state = &*ring.state;
    change_hands(ring, false);
    state.sync.lock.unlock(BROKER);
    // Done or not: `hands` tells.
    state.ack.acked.publish(state.post.posted.load());
    state.post.lock.withdraw();
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

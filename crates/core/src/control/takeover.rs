//! How the state of a ring changes hands: from the memory that its clients share into that of the broker, and back.

use crate::kring::{BROKER, RingHandle, forget_journal};
use crate::layout::RingShared;
use ringway_os::state::RingState;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long holders may keep the locks of rings that are taken over, all together: others wait meanwhile. One that is
/// stopped loses its batch.
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

/// Takes a ring over: its lock, then its state. False if its holder did not let go.
pub(super) fn take_over(public: &RingHandle, private: &RingShared, naps: &mut Naps) -> bool {
    let state = &*public.shared.state;
    let let_go = loop {
        let holder = state.sync.lock.holder();
        let patient = holder != 0 && holder != BROKER && naps.holders < TAKEOVER_NAPS;
        if patient {
            naps.holders += 1;
            ringway_os::sys::sleep(TAKEOVER_NAP);
        } else if holder == BROKER || state.sync.lock.steal(holder, BROKER) {
            break holder == 0 || holder == BROKER;
        }
    };
    copy_ring(&public.shared, private);
    let kring = public.load(BROKER);
    state.ack.tail.store(kring.rtail, Relaxed);
    // Before this a client does not believe the tail above, nor, after it, that its old posts were done.
    change_hands(&public.shared, true);
    // A post that nobody waits for any more is none. One whose poster holds the lock is for the worker.
    let posted = state.post.posted.load();
    loop {
        if state.post.lock.try_lock(BROKER).is_ok() {
            state.ack.acked.set(state.post.posted.load());
            state.post.lock.unlock(BROKER);
            break;
        }
        if state.post.posted.load() != posted || naps.posters >= POST_NAPS {
            break;
        }
        naps.posters += 1;
        ringway_os::sys::sleep(POST_NAP);
    }
    let_go
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

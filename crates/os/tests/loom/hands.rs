//! Rings that change hands: claims of a lock, and syncs and posts while the broker takes a ring over or gives it back.

use super::{BROKER, check};
use loom::sync::Arc;
use loom::sync::atomic::AtomicU32 as LoomU32;
use loom::thread;
use ringway_os::sync::AtomicU32;
use ringway_os::words::{Cursor, LockWord};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// A lock that the broker may claim.
trait Claimed: Default + Send + Sync + 'static {
    fn try_lock(&self, me: u32) -> bool;
    fn unlock(&self, me: u32) -> bool;
    fn claim(&self) -> bool;
    fn withdraw(&self);
    fn is_free(&self) -> bool;
}

impl Claimed for LockWord {
    fn try_lock(&self, me: u32) -> bool {
        LockWord::try_lock(self, me).is_ok()
    }
    fn unlock(&self, me: u32) -> bool {
        LockWord::unlock(self, me)
    }
    fn claim(&self) -> bool {
        LockWord::claim(self)
    }
    fn withdraw(&self) {
        LockWord::withdraw(self);
    }
    fn is_free(&self) -> bool {
        self.holder() == 0 && !self.is_claimed()
    }
}

/// The same, with one thing weakened: 0 none, 1 handing over is relaxed, 2 the claim is, 3 who hands over unlocks instead, 4 a
/// withdrawal that comes in between goes unnoticed.
#[derive(Default)]
struct WeakClaim<const AT: u32>(AtomicU32);

const CLAIM: u32 = 1 << 31;

impl<const AT: u32> Claimed for WeakClaim<AT> {
    fn try_lock(&self, me: u32) -> bool {
        self.0.compare_exchange(0, me, Acquire, Relaxed).is_ok()
    }
    fn unlock(&self, me: u32) -> bool {
        if self.0.compare_exchange(me, 0, Release, Relaxed).is_ok() {
            return true;
        }
        let (next, order) = (if AT == 3 { 0 } else { BROKER }, if AT == 1 { Relaxed } else { Release });
        if self.0.compare_exchange(me | CLAIM, next, order, Relaxed).is_ok() {
            return false;
        }
        AT != 4 && self.0.compare_exchange(me, 0, Release, Relaxed).is_ok()
    }
    fn claim(&self) -> bool {
        let order = if AT == 2 { Relaxed } else { Acquire };
        let mut word = self.0.load(order);
        loop {
            let next = match word {
                0 => BROKER,
                BROKER => return true,
                w if w & CLAIM != 0 => return false,
                w => w | CLAIM,
            };
            match self.0.compare_exchange(word, next, order, order) {
                Ok(_) => return next == BROKER,
                Err(now) => word = now,
            }
        }
    }
    fn withdraw(&self) {
        let mut word = self.0.load(Relaxed);
        while word == BROKER || word & CLAIM != 0 {
            let next = if word == BROKER { 0 } else { word & !CLAIM };
            match self.0.compare_exchange(word, next, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }
    fn is_free(&self) -> bool {
        self.0.load(Relaxed) == 0
    }
}

/// A holder, another client, and the broker, which claims, looks once more, and withdraws.
fn handing_over<L: Claimed>() {
    check(3, || {
        let w = Arc::new((L::default(), LoomU32::new(0)));
        assert!(w.0.try_lock(7));
        let holder = {
            let w = w.clone();
            thread::spawn(move || {
                w.1.store(w.1.load(Relaxed) + 1, Relaxed);
                let freed = w.0.unlock(7);
                // It goes on, where it has not handed over.
                let again = freed && w.0.try_lock(7);
                if again {
                    w.1.store(w.1.load(Relaxed) + 1, Relaxed);
                    w.0.unlock(7);
                }
                1 + u32::from(again)
            })
        };
        let first = w.0.claim();
        if first || w.0.claim() {
            let done = w.1.load(Relaxed);
            assert!(done > 0, "the broker does not see what was done");
            w.1.store(done + 10, Relaxed);
        }
        // Whoever had it when it was claimed hands it over, and nobody had it in between.
        w.0.withdraw();
        let done = holder.join().unwrap();
        assert!(w.0.is_free(), "somebody holds it for ever");
        assert_eq!(w.1.load(Relaxed) % 10, done, "two in the lock");
    });
}

/// After a claim the next who has the lock is the broker.
fn claims_come_next<L: Claimed>() {
    check(3, || {
        let w = Arc::new(L::default());
        assert!(w.try_lock(7));
        let broker = {
            let w = w.clone();
            thread::spawn(move || w.claim())
        };
        let freed = w.unlock(7);
        let taken = w.try_lock(8);
        let at_once = broker.join().unwrap();
        assert!(freed || !taken, "somebody came in between");
        assert!(freed || at_once || w.claim(), "it is nobody's");
    });
}

#[test]
fn a_claimed_lock_is_handed_over_with_what_was_done_under_it() {
    handing_over::<LockWord>();
    claims_come_next::<LockWord>();
}

#[test]
fn the_copy_of_the_claimed_lock_is_right_when_nothing_is_weakened() {
    handing_over::<WeakClaim<0>>();
    claims_come_next::<WeakClaim<0>>();
}

#[test]
#[should_panic(expected = "does not see what was done")]
fn a_claimed_lock_hands_nothing_over_when_that_is_relaxed() {
    handing_over::<WeakClaim<1>>();
}

#[test]
#[should_panic(expected = "does not see what was done")]
fn a_claimed_lock_hands_nothing_over_when_the_claim_is_relaxed() {
    handing_over::<WeakClaim<2>>();
}

#[test]
#[should_panic(expected = "somebody came in between")]
fn a_claim_is_for_nothing_when_the_holder_unlocks() {
    claims_come_next::<WeakClaim<3>>();
}

#[test]
#[should_panic(expected = "somebody holds it for ever")]
fn a_lock_is_held_for_ever_when_a_withdrawal_goes_unnoticed() {
    handing_over::<WeakClaim<4>>();
}

/// A ring that its client syncs, or posts to, and the broker takes over and gives back.
#[derive(Default)]
struct Handed {
    sync: LockWord,
    post: LockWord,
    hands: Cursor,
    head: LoomU32,
    posted: Cursor,
    acked: Cursor,
    /// How far the worker was with the last post that it acknowledged.
    told: LoomU32,
    /// How far the client has handed slots over.
    rhead: LoomU32,
    /// How far the ring is.
    hwcur: LoomU32,
}

impl Handed {
    /// A sync, which must not end before slots up to `head` are handed over.
    fn client(&self, head: u32) {
        loop {
            if self.sync.try_lock(7).is_ok() {
                self.rhead.store(head, Relaxed);
                self.hwcur.store(head, Relaxed);
                self.sync.unlock(7);
                return;
            }
            let Some(hands) = self.lock_posts() else { continue };
            assert!(self.told.load(Relaxed) <= self.rhead.load(Relaxed), "head is outside of its window");
            self.rhead.store(head, Relaxed);
            self.head.store(head, Relaxed);
            let ticket = self.posted.load() + 1;
            self.posted.publish(ticket);
            self.post.unlock(7);
            while self.acked.load() < ticket && self.sync.holder() == BROKER {
                thread::yield_now();
            }
            if let Some(now) = self.lock_posts() {
                self.post.unlock(7);
                if now == hands {
                    return;
                }
            }
        }
    }

    /// None: the ring is served directly.
    fn lock_posts(&self) -> Option<u32> {
        loop {
            if self.post.try_lock(7).is_ok() {
                let hands = self.hands.load();
                let brokered = self.sync.holder() == BROKER;
                if brokered && hands % 2 == 1 {
                    return Some(hands);
                }
                self.post.unlock(7);
                if !brokered {
                    return None;
                }
            }
            thread::yield_now();
        }
    }

    fn claim(lock: &LockWord) {
        while !lock.claim() {
            thread::yield_now();
        }
    }

    /// Takes the ring over, serves what is posted, and gives it back. Without the lock of posts a client may be in the middle of one.
    fn broker(&self, locks_posts: bool) {
        Self::claim(&self.sync);
        if locks_posts {
            Self::claim(&self.post);
        }
        let (mut rhead, mut hwcur) = (self.rhead.load(Relaxed), self.hwcur.load(Relaxed));
        self.told.store(hwcur, Relaxed);
        if locks_posts || self.post.holder() == 0 {
            self.acked.publish(self.posted.load());
        }
        self.hands.publish(self.hands.load() + 1);
        self.post.withdraw();
        let ticket = self.posted.load();
        if ticket != self.acked.load() {
            rhead = self.head.load(Relaxed);
            hwcur = rhead;
            self.told.store(hwcur, Relaxed);
            self.acked.publish(ticket);
        }
        if locks_posts {
            Self::claim(&self.post);
        }
        self.rhead.store(rhead, Relaxed);
        self.hwcur.store(hwcur, Relaxed);
        self.hands.publish(self.hands.load() + 1);
        self.sync.unlock(BROKER);
        self.acked.publish(self.posted.load());
        self.post.withdraw();
    }
}

fn rings_change_hands(preemptions: usize, locks_posts: bool) {
    check(preemptions, move || {
        let w = Arc::new(Handed::default());
        let client = {
            let w = w.clone();
            thread::spawn(move || {
                w.client(1);
                w.client(2);
            })
        };
        w.broker(locks_posts);
        w.broker(locks_posts);
        client.join().unwrap();
        assert_eq!(w.hwcur.load(Relaxed), 2, "a sync ended before its slots were handed over");
        assert!(w.sync.holder() == 0 && w.post.holder() == 0);
    });
}

#[test]
fn nothing_is_lost_or_done_again_when_a_ring_changes_hands() {
    rings_change_hands(2, true);
}

#[test]
#[should_panic(expected = "head is outside of its window")]
fn a_ring_that_changes_hands_in_the_middle_of_a_post_is_found_out() {
    rings_change_hands(3, false);
}

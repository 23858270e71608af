//! Models of the two protocols of `words`, checked over all interleavings and all values that the memory model lets a load
//! return: `RUSTFLAGS="--cfg loom" cargo test -p ringway-os --test loom --release`.
//!
//! Each model also runs on words weakened in one place, and must fail there: so the model sees what the place is for.
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool as LoomBool, AtomicU32 as LoomU32};
use loom::thread;
use ringway_os::sync::{AtomicU32, Ordering};
use ringway_os::words::{Cursor, LockWord, SleepWord};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

fn check(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(f);
}

/// What a pair of words must do.
trait Words: Default + Send + Sync + 'static {
    fn announce(&self, threshold: u32);
    fn look(&self) -> u32;
    fn publish(&self, next: u32);
    fn take(&self, available: u32) -> bool;
}

/// The words as they are.
#[derive(Default)]
struct Real {
    sleep: SleepWord,
    cursor: Cursor,
}

impl Words for Real {
    fn announce(&self, threshold: u32) {
        self.sleep.announce(threshold);
    }
    fn look(&self) -> u32 {
        self.cursor.load_after_announce()
    }
    fn publish(&self, next: u32) {
        self.cursor.publish(next);
    }
    fn take(&self, available: u32) -> bool {
        self.sleep.take(available)
    }
}

/// The words with one access weakened: 0 none, 1 the announcement, 2 the sleeper's look, 3 the publishing, 4 the waker's look.
/// 5: announcements overwrite each other.
#[derive(Default)]
struct Weak<const AT: u32> {
    sleep: AtomicU32,
    cursor: AtomicU32,
}

impl<const AT: u32> Weak<AT> {
    fn order(at: u32, weak: Ordering) -> Ordering {
        if at == AT { weak } else { SeqCst }
    }
}

impl<const AT: u32> Words for Weak<AT> {
    fn announce(&self, threshold: u32) {
        if AT == 5 {
            self.sleep.swap(threshold, SeqCst);
            return;
        }
        let mut seen = self.sleep.load(Relaxed);
        loop {
            let next = if seen == 0 { threshold } else { seen.min(threshold) };
            match self.sleep.compare_exchange(seen, next, Self::order(1, AcqRel), Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
    fn look(&self) -> u32 {
        self.cursor.load(Self::order(2, Acquire))
    }
    fn publish(&self, next: u32) {
        self.cursor.swap(next, Self::order(3, AcqRel));
    }
    fn take(&self, available: u32) -> bool {
        let wanted = self.sleep.load(Self::order(4, Relaxed));
        if wanted == 0 || wanted > available {
            return false;
        }
        self.sleep.swap(0, SeqCst) != 0
    }
}

/// One sleeper, one waker, one packet: whoever goes to sleep is rung for.
fn one_sleeper<W: Words>() {
    check(4, || {
        let w = Arc::new(W::default());
        let waker = {
            let w = w.clone();
            thread::spawn(move || {
                w.publish(1);
                w.take(1)
            })
        };
        w.announce(1);
        let sleeps = w.look() < 1;
        let rung = waker.join().unwrap();
        assert!(!sleeps || rung, "lost wake-up");
    });
}

#[test]
fn a_wake_up_is_not_lost() {
    one_sleeper::<Real>();
}

#[test]
fn the_copy_of_the_words_is_right_when_nothing_is_weakened() {
    one_sleeper::<Weak<0>>();
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn a_wake_up_is_lost_when_the_announcement_is_weaker() {
    one_sleeper::<Weak<1>>();
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn a_wake_up_is_lost_when_the_sleepers_look_is_weaker() {
    one_sleeper::<Weak<2>>();
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn a_wake_up_is_lost_when_the_publishing_is_weaker() {
    one_sleeper::<Weak<3>>();
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn a_wake_up_is_lost_when_the_wakers_look_is_weaker() {
    one_sleeper::<Weak<4>>();
}

/// Two sleepers with different thresholds on one word, and a waker that publishes `slots` slots one by one. Each ring wakes both, who
/// look and announce anew. Nobody may sleep in the end on what is there.
fn two_sleepers<W: Words>(slots: u32) {
    check(3, move || {
        let w = Arc::new((W::default(), LoomU32::new(0)));
        let sleepers: Vec<_> = [1, 2]
            .map(|threshold| {
                let w = w.clone();
                thread::spawn(move || {
                    // Sleeps until a ring later than the one that it knows: at most two come.
                    for _ in 0..3 {
                        let rings = w.1.load(SeqCst);
                        w.0.announce(threshold);
                        if w.0.look() >= threshold {
                            return None;
                        }
                        if w.1.load(SeqCst) == rings {
                            return Some((threshold, rings));
                        }
                    }
                    None
                })
            })
            .into();
        for next in 1..=slots {
            w.0.publish(next);
            if w.0.take(next) {
                w.1.fetch_add(1, SeqCst);
            }
        }
        for s in sleepers {
            if let Some((threshold, rings)) = s.join().unwrap() {
                // Asleep, having heard `rings` rings. If there was one since, it is awake again, and looks.
                let woken = w.1.load(SeqCst) > rings;
                assert!(woken || slots < threshold, "the sleeper for {threshold} lost its wake-up");
            }
        }
    });
}

#[test]
fn two_sleepers_with_different_thresholds_are_both_woken() {
    two_sleepers::<Real>(1);
    two_sleepers::<Real>(2);
}

#[test]
#[should_panic(expected = "lost its wake-up")]
fn two_sleepers_lose_a_wake_up_when_announcements_overwrite_each_other() {
    two_sleepers::<Weak<5>>(1);
}

/// What is written before a publishing is seen after a load of the cursor.
fn payload(publish: fn(&AtomicU32, u32)) {
    check(3, move || {
        let w = Arc::new((LoomU32::new(0), AtomicU32::new(0)));
        let producer = {
            let w = w.clone();
            thread::spawn(move || {
                w.0.store(42, Relaxed);
                publish(&w.1, 1);
            })
        };
        if w.1.load(Acquire) == 1 {
            assert_eq!(w.0.load(Relaxed), 42, "stale payload");
        }
        producer.join().unwrap();
    });
}

#[test]
fn a_payload_is_visible_behind_its_cursor() {
    check(3, || {
        let w = Arc::new((LoomU32::new(0), Cursor::new(0)));
        let producer = {
            let w = w.clone();
            thread::spawn(move || {
                w.0.store(42, Relaxed);
                assert!(w.1.publish_from(0, 1));
                w.0.store(43, Relaxed);
                w.1.publish(2);
            })
        };
        match w.1.load() {
            0 => {}
            1 => assert!(w.0.load(Relaxed) >= 42),
            _ => assert_eq!(w.0.load(Relaxed), 43),
        }
        producer.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "stale payload")]
fn a_payload_is_stale_behind_a_relaxed_cursor() {
    payload(|c, v| c.store(v, Relaxed));
}

const SLOTS: usize = 4;
const BROKER: u32 = 1;

/// The senders' side of a receive ring, as `vale` uses it: slots, the published tail, the lock, and the copy of the tail under it.
struct Ring {
    slots: [LoomU32; SLOTS],
    hwtail: Cursor,
    lock: LockWord,
    tail: LoomU32,
}

impl Ring {
    fn new() -> Self {
        Ring {
            slots: std::array::from_fn(|_| LoomU32::new(0)),
            hwtail: Cursor::new(0),
            lock: LockWord::new(),
            tail: LoomU32::new(0),
        }
    }

    /// Sends one packet as `me`, dying before step `death`. True if it arrived.
    fn send(&self, me: u32, death: u32) -> bool {
        let mut step = 0;
        let mut dies = || {
            step += 1;
            step > death
        };
        if dies() || self.lock.try_lock(me).is_err() || dies() {
            return false;
        }
        let at = self.tail.load(Relaxed);
        self.slots[at as usize].store(me, Relaxed);
        if dies() {
            return false;
        }
        let arrived = self.hwtail.publish_from(at, at + 1);
        if dies() {
            return arrived;
        }
        if arrived {
            self.tail.store(at + 1, Relaxed);
        }
        if !dies() {
            self.lock.unlock(me);
        }
        arrived
    }

    /// The broker takes the lock of `dead`, if it holds it, and mends what lies under it.
    fn repair(&self, dead: u32, repair: Repair) {
        let victim = if repair == Repair::Blind { self.lock.holder() } else { dead };
        if self.lock.steal(victim, BROKER) {
            if repair != Repair::StealOnly {
                self.tail.store(self.hwtail.load(), Relaxed);
            }
            assert!(self.lock.unlock(BROKER));
        }
    }
}

/// How the broker repairs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repair {
    Right,
    /// It takes the lock from whoever has it.
    Blind,
    /// It leaves what lies under the lock as it is.
    StealOnly,
}

fn death_and_repair(repair: Repair) {
    for death in 0..=6 {
        check(3, move || {
            let ring = Arc::new(Ring::new());
            let dying = {
                let ring = ring.clone();
                thread::spawn(move || ring.send(7, death))
            };
            let other = {
                let ring = ring.clone();
                thread::spawn(move || u32::from(ring.send(8, u32::MAX)))
            };
            // The death is known when the process is gone.
            let mut sent = u32::from(dying.join().unwrap());
            ring.repair(7, repair);
            sent += u32::from(ring.send(9, u32::MAX));
            sent += other.join().unwrap();
            assert!(ring.lock.holder() == 0, "nobody holds it");
            sent += u32::from(ring.send(9, u32::MAX));
            let tail = ring.hwtail.load();
            assert_eq!(tail, sent, "every publishing counts once");
            assert_eq!(ring.tail.load(Relaxed), tail);
            for slot in &ring.slots[..tail as usize] {
                assert!(slot.load(Relaxed) >= 7, "a published slot is written");
            }
        });
    }
}

#[test]
fn a_sender_may_die_at_any_point_and_the_ring_goes_on() {
    death_and_repair(Repair::Right);
}

#[test]
#[should_panic]
fn a_repair_that_robs_the_living_is_found_out() {
    death_and_repair(Repair::Blind);
}

#[test]
#[should_panic]
fn a_repair_that_mends_nothing_is_found_out() {
    death_and_repair(Repair::StealOnly);
}

/// Senders that exclude each other by the word `lock`; both must get their packet in unless the lock is taken.
fn two_senders(lock: fn(&AtomicU32, u32) -> bool, unlock: fn(&AtomicU32)) {
    check(3, move || {
        let w = Arc::new((AtomicU32::new(0), LoomU32::new(0)));
        let send = move |w: &(AtomicU32, LoomU32), me| {
            if !lock(&w.0, me) {
                return 0;
            }
            let at = w.1.load(Relaxed);
            w.1.store(at + 1, Relaxed);
            unlock(&w.0);
            1
        };
        let other = {
            let w = w.clone();
            thread::spawn(move || send(&w, 8))
        };
        let sent = send(&w, 7) + other.join().unwrap();
        assert_eq!(w.1.load(Relaxed), sent, "two in the lock at once");
    });
}

#[test]
fn the_lock_excludes_and_hands_over_what_was_written() {
    check(3, || {
        let w = Arc::new((LockWord::new(), LoomU32::new(0)));
        let send = |w: &(LockWord, LoomU32), me| {
            if w.0.try_lock(me).is_err() {
                return 0;
            }
            let at = w.1.load(Relaxed);
            w.1.store(at + 1, Relaxed);
            assert!(w.0.unlock(me));
            1
        };
        let other = {
            let w = w.clone();
            thread::spawn(move || send(&w, 8))
        };
        let sent = send(&w, 7) + other.join().unwrap();
        assert_eq!(w.1.load(Relaxed), sent);
    });
}

#[test]
fn the_copy_of_the_lock_is_right_when_nothing_is_weakened() {
    two_senders(|l, me| l.compare_exchange(0, me, Acquire, Relaxed).is_ok(), |l| l.store(0, Release));
}

#[test]
#[should_panic(expected = "two in the lock")]
fn the_lock_hands_nothing_over_when_unlocking_is_relaxed() {
    two_senders(|l, me| l.compare_exchange(0, me, Acquire, Relaxed).is_ok(), |l| l.store(0, Relaxed));
}

#[test]
#[should_panic(expected = "two in the lock")]
fn the_lock_hands_nothing_over_when_locking_is_relaxed() {
    two_senders(|l, me| l.compare_exchange(0, me, Relaxed, Relaxed).is_ok(), |l| l.store(0, Release));
}

#[test]
#[should_panic(expected = "two in the lock")]
fn the_lock_excludes_nobody_when_it_looks_before_it_stores() {
    two_senders(
        |l, me| {
            let free = l.load(Acquire) == 0;
            if free {
                l.store(me, Relaxed);
            }
            free
        },
        |l| l.store(0, Release),
    );
}

/// A holder that was only stopped, and goes on after the broker took its lock and another sender used the ring.
fn late_holder(publish: fn(&Cursor, u32) -> bool) {
    check(3, move || {
        let ring = Arc::new(Ring::new());
        assert!(ring.lock.try_lock(7).is_ok());
        let at = ring.tail.load(Relaxed);
        let late = {
            let ring = ring.clone();
            thread::spawn(move || {
                let arrived = publish(&ring.hwtail, at);
                (arrived, ring.lock.unlock(7))
            })
        };
        let robbed = ring.lock.steal(7, BROKER);
        let mut sent = 0;
        if robbed {
            ring.tail.store(ring.hwtail.load(), Relaxed);
            assert!(ring.lock.unlock(BROKER));
            sent += u32::from(ring.send(8, u32::MAX));
        }
        let (arrived, unlocked) = late.join().unwrap();
        assert_eq!(unlocked, !robbed, "who lost the lock learns it");
        sent += u32::from(arrived);
        assert_eq!(ring.hwtail.load(), sent, "every publishing counts once");
        assert_eq!(ring.lock.holder(), 0);
    });
}

#[test]
fn a_late_holder_publishes_nothing_over_what_others_published() {
    late_holder(|c, at| c.publish_from(at, at + 1));
}

#[test]
#[should_panic(expected = "counts once")]
fn a_late_holder_overwrites_others_when_it_does_not_compare() {
    late_holder(|c, at| {
        c.publish(at + 1);
        true
    });
}

#[test]
fn a_lock_is_not_stolen_from_who_took_it_meanwhile() {
    check(3, || {
        let w = Arc::new((LockWord::new(), LoomBool::new(false)));
        assert!(w.0.try_lock(7).is_ok());
        let other = {
            let w = w.clone();
            thread::spawn(move || {
                w.0.unlock(7);
                let mine = w.0.try_lock(8).is_ok();
                if mine {
                    assert!(!w.1.swap(true, Relaxed), "two hold it");
                    w.1.store(false, Relaxed);
                    assert!(w.0.unlock(8));
                }
                mine
            })
        };
        let robbed = w.0.steal(7, BROKER);
        if robbed {
            assert!(!w.1.swap(true, Relaxed), "two hold it");
            w.1.store(false, Relaxed);
            assert!(w.0.unlock(BROKER));
        }
        let theirs = other.join().unwrap();
        assert!(robbed || theirs);
        assert_eq!(w.0.holder(), 0);
    });
}

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

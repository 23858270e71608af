//! The lock of a ring: exclusion, death under it and the broker's repair, holders that come back late.

use super::{BROKER, check};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool as LoomBool, AtomicU32 as LoomU32};
use loom::thread;
use ringway_os::sync::AtomicU32;
use ringway_os::words::{Cursor, LockWord};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const SLOTS: usize = 4;

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

//! Sleeping and waking: the announcement of a sleeper, the cursor of a waker, and the payload behind it.

use super::check;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU32 as LoomU32;
use loom::thread;
use ringway_os::sync::{AtomicU32, Ordering};
use ringway_os::words::{Cursor, SleepWord};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};

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

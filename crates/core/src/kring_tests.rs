//! Tests of the prologue, the re-initialisation and finalize. The numbers in names are sections of semantics.md.

use super::*;
use crate::adapter::null::Null;
use crate::sim::{Rng, SimRing};
use std::sync::{Arc, Mutex};

/// What a driver was shown: `(hwcur, rhead, rcur)`, and what it does.
#[derive(Clone, Default)]
struct Spy {
    seen: Arc<Mutex<Vec<(u32, u32, u32)>>>,
    /// RX: this tail is reported.
    tail: Option<u32>,
    fails: Option<SyncError>,
    /// Somebody else takes the lock during the sync.
    robbed: bool,
}

impl RingDriver for Spy {
    fn sync(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError> {
        self.seen.lock().unwrap().push((kring.hwcur, kring.rhead, kring.rcur));
        let state = &kring.handle.shared.state;
        if self.robbed {
            assert!(state.sync.lock.steal(kring.me, BROKER));
        }
        if let Some(tail) = self.tail {
            kring.hwtail = tail;
        }
        self.fails.map_or(Ok(()), Err)
    }

    fn moved_since(&self, _handle: &RingHandle, _wanted: u32) -> bool {
        false
    }
}

impl Spy {
    fn on(dir: Dir, slots: u32) -> (SimRing, Spy) {
        let spy = Spy::default();
        let mut ring = SimRing::lone(dir, slots, 64);
        ring.driver = Box::new(spy.clone());
        (ring, spy)
    }

    fn calls(&self) -> Vec<(u32, u32, u32)> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// The engine's copies: `hwcur = rhead = rcur = head`, and the tail that the client was told.
fn engine_at(ring: &SimRing, head: u32, tail: u32) {
    let state = &ring.handle.shared.state;
    state.owner.hwcur.set(head);
    state.sync.rhead.store(head, Ordering::Relaxed);
    state.sync.rcur.store(head, Ordering::Relaxed);
    state.sync.rtail.store(tail, Ordering::Relaxed);
    ring.handle.ring.header.tail.store(tail, Ordering::Relaxed);
}

fn cursors(ring: &SimRing) -> [u32; 3] {
    [ring.head(), ring.cur(), ring.tail()]
}

/// Oracle: walks slot by slot. Steps from `from` to `to`, if met no later than `end`.
fn walk(n: u32, from: u32, to: u32, end: u32) -> Option<u32> {
    let mut at = from;
    for steps in 0..n {
        if at == to {
            return Some(steps);
        }
        if at == end {
            return None;
        }
        at = (at + 1) % n;
    }
    None
}

#[test]
fn ring_arithmetic_agrees_with_a_walk() {
    for n in 2..9 {
        for at in 0..n {
            assert_eq!((next(n, at), prev(n, at)), ((at + 1) % n, (at + n - 1) % n));
            for to in 0..n {
                assert_eq!(Some(distance(n, at, to)), walk(n, at, to, to), "{at} to {to} of {n}");
            }
            for steps in 0..=n {
                assert_eq!(forward(n, at, steps), (at + steps) % n);
            }
        }
    }
}

#[test]
fn prologue_agrees_with_a_slot_by_slot_walk() {
    for (dir, n) in [Dir::Tx, Dir::Rx].into_iter().flat_map(|d| [2, 3, 5].map(|n| (d, n))) {
        let (mut ring, spy) = Spy::on(dir, n);
        for (old, tail) in (0..n * n).map(|x| (x / n, x % n)) {
            for (head, cur) in (0..(n + 2) * (n + 2)).map(|x| (x / (n + 2), x % (n + 2))) {
                engine_at(&ring, old, tail);
                ring.set(head, cur);
                let want = if walk(n, old, head, tail).is_none() {
                    SyncOutcome::BadRing(CursorError::Head(head))
                } else if walk(n, head, cur, tail).is_none() {
                    SyncOutcome::BadRing(CursorError::Cur(cur))
                } else {
                    SyncOutcome::Done
                };
                let at = format!("{dir:?} {n}: old {old} tail {tail} head {head} cur {cur}");
                assert_eq!(ring.sync(), want, "{at}");
                let calls = match (want, dir) {
                    (SyncOutcome::Done, _) => vec![(old, head, cur)],
                    (_, Dir::Tx) => vec![],
                    // An RX ring is synced all the same, as if the client had done nothing.
                    (_, Dir::Rx) => vec![(old, old, old)],
                };
                assert_eq!(spy.calls(), calls, "{at}");
                let out = head >= n || cur >= n;
                let kept = if out { [old, old, tail] } else { [head, cur, tail] };
                assert_eq!(cursors(&ring), kept, "{at}");
            }
        }
    }
}

#[test]
fn s2_a_new_ring_is_all_free_or_empty() {
    for n in [2, 3, 1023, 1024] {
        let (mut tx, mut rx) = (SimRing::lone(Dir::Tx, n, 64), SimRing::lone(Dir::Rx, n, 64));
        assert_eq!((cursors(&tx), cursors(&rx)), ([0, 0, n - 1], [0, 0, 0]));
        assert_eq!((tx.sync(), rx.sync()), (SyncOutcome::Done, SyncOutcome::Done));
        assert_eq!((tx.avail(), rx.avail()), (n - 1, 0));
        assert_eq!(tx.slot(n - 1), SlotWord::new(n + 1, 64, 0));
    }
}

#[test]
fn s2_a_ring_that_was_used_is_new_again_after_reset() {
    let mut rng = Rng::new(1);
    for dir in [Dir::Tx, Dir::Rx] {
        let mut ring = SimRing::lone(dir, 5, 64);
        scribble(&ring, &mut rng);
        ring.set(4, 7);
        ring.handle.reset();
        let tail = if dir == Dir::Tx { 4 } else { 0 };
        assert_eq!(cursors(&ring), [0, 0, tail]);
        let state = &ring.handle.shared.state;
        assert_eq!((state.owner.hwcur.load(), state.producer.hwtail.load()), (0, 0));
        state.sync.lock.steal(state.sync.lock.holder(), 0);
        assert_eq!(ring.sync(), SyncOutcome::Done);
    }
}

#[test]
fn s3_head_out_of_range_puts_the_cursors_back() {
    for dir in [Dir::Tx, Dir::Rx] {
        for bad in [8, 9, 0x8000_0000, u32::MAX] {
            let (mut ring, _) = Spy::on(dir, 8);
            engine_at(&ring, 5, 3);
            ring.set(bad, 6);
            assert_eq!(ring.sync(), SyncOutcome::BadRing(CursorError::Head(bad)));
            assert_eq!(cursors(&ring), [5, 5, 3]);
            assert_eq!(ring.sync(), SyncOutcome::Done);
            assert_eq!(ring.counters().bad_rings, 1);
        }
    }
}

#[test]
fn s3_cur_out_of_range_is_refused_also_where_the_window_wraps() {
    for dir in [Dir::Tx, Dir::Rx] {
        let (mut ring, spy) = Spy::on(dir, 8);
        engine_at(&ring, 5, 3);
        ring.set(6, 8);
        assert_eq!(ring.sync(), SyncOutcome::BadRing(CursorError::Cur(8)));
        assert_eq!(cursors(&ring), [5, 5, 3]);
        assert!(spy.calls().iter().all(|c| *c == (5, 5, 5)));
    }
}

#[test]
fn s3_reinit_goes_back_to_hwcur_when_slots_are_held() {
    // A pipe holds the start of an unfinished packet: rhead is ahead of hwcur.
    let (mut ring, _) = Spy::on(Dir::Tx, 8);
    engine_at(&ring, 5, 3);
    ring.handle.shared.state.owner.hwcur.set(4);
    ring.set(8, 8);
    assert_eq!(ring.sync(), SyncOutcome::BadRing(CursorError::Head(8)));
    assert_eq!(cursors(&ring), [4, 4, 3]);
    assert_eq!(ring.sync(), SyncOutcome::Done);
}

#[test]
fn s3_an_illegal_head_within_the_ring_is_refused_until_it_is_put_right() {
    for dir in [Dir::Tx, Dir::Rx] {
        let (mut ring, spy) = Spy::on(dir, 8);
        engine_at(&ring, 3, 6);
        for bad in [2, 7, 2, 1] {
            ring.set(bad, bad);
            for _ in 0..3 {
                assert_eq!(ring.sync(), SyncOutcome::BadRing(CursorError::Head(bad)));
                assert_eq!(cursors(&ring), [bad, bad, 6]);
            }
        }
        assert!(spy.calls().iter().all(|c| *c == (3, 3, 3)), "it never reached the data path");
        ring.set(4, 5);
        assert_eq!((ring.sync(), cursors(&ring)), (SyncOutcome::Done, [4, 5, 6]));
        assert_eq!(spy.calls(), [(3, 4, 5)]);
    }
}

#[test]
fn s3_an_overwritten_tail_is_restored_and_is_no_error() {
    for dir in [Dir::Tx, Dir::Rx] {
        let (mut ring, _) = Spy::on(dir, 8);
        for scribbled in [0, 4, 8, u32::MAX] {
            engine_at(&ring, 3, 6);
            ring.set(4, 4);
            ring.handle.ring.header.tail.store(scribbled, Ordering::Relaxed);
            assert_eq!((ring.sync(), cursors(&ring)), (SyncOutcome::Done, [4, 4, 6]));
        }
        assert_eq!(ring.counters().bad_rings, 0);
    }
}

#[test]
fn s3_a_tail_out_of_range_counts_as_out_of_range_altogether() {
    let (mut ring, _) = Spy::on(Dir::Tx, 8);
    engine_at(&ring, 3, 6);
    ring.set(2, 2);
    ring.handle.ring.header.tail.store(8, Ordering::Relaxed);
    assert_eq!(ring.sync(), SyncOutcome::BadRing(CursorError::Head(2)));
    assert_eq!(cursors(&ring), [3, 3, 6]);
}

#[test]
fn s3_reinit_mends_slots_and_a_good_sync_does_not() {
    let mut ring = SimRing::lone(Dir::Tx, 6, 64);
    let count = ring.handle.ring.bufs.count();
    let words = [(0, 60), (1, 60), (u32::MAX, 60), (count, 60), (5, 65), (6, 64)];
    let store = || {
        for (slot, (idx, len)) in ring.handle.ring.slots.iter().zip(words) {
            slot.store(SlotWord::new(idx, len, 0x21));
        }
    };
    store();
    ring.driver = Box::new(Null);
    let all = |ring: &SimRing| (0..6).map(|k| ring.slot(k)).collect::<Vec<_>>();
    ring.set(2, 2);
    assert_eq!(ring.sync(), SyncOutcome::Done);
    assert_eq!(all(&ring), words.map(|(idx, len)| SlotWord::new(idx, len, 0x21)));
    ring.set(1, 1);
    assert_eq!(ring.sync(), SyncOutcome::BadRing(CursorError::Head(1)));
    let mended = [(0, 0), (0, 0), (0, 0), (0, 0), (5, 0), (6, 64)];
    assert_eq!(all(&ring), mended.map(|(idx, len)| SlotWord::new(idx, len, 0x21)));
}

#[test]
fn s4_a_ring_that_somebody_syncs_is_skipped() {
    for dir in [Dir::Tx, Dir::Rx] {
        let (mut ring, spy) = Spy::on(dir, 8);
        let lock = ring.handle.shared.state.clone();
        lock.sync.lock.try_lock(7).unwrap();
        ring.set(u32::MAX, 0);
        assert_eq!(ring.sync(), SyncOutcome::Skipped);
        lock.sync.lock.unlock(7);
        lock.sync.lock.try_lock(BROKER).unwrap();
        assert_eq!(ring.sync(), SyncOutcome::Brokered);
        assert_eq!((ring.head(), lock.sync.lock.holder(), spy.calls()), (u32::MAX, BROKER, vec![]));
        assert_eq!(ring.counters().syncs, 0);
    }
}

#[test]
fn a_sync_that_lost_its_lock_says_so_and_leaves_the_lock_alone() {
    let (mut ring, spy) = Spy::on(Dir::Rx, 8);
    ring.driver = Box::new(Spy { robbed: true, ..spy });
    assert_eq!(ring.sync(), SyncOutcome::Brokered);
    assert_eq!(ring.handle.shared.state.sync.lock.holder(), BROKER);
}

#[test]
fn a_driver_that_fails_leaves_the_tail_alone_but_keeps_what_came_before_a_missing_peer() {
    let cases = [
        (None, SyncOutcome::Done, 2),
        (Some(SyncError::NeedPeer(9)), SyncOutcome::NeedPeer(9), 2),
        (Some(SyncError::Stopped), SyncOutcome::Stopped, 0),
        (Some(SyncError::Failed), SyncOutcome::Failed, 0),
    ];
    for (fails, outcome, tail) in cases {
        let (mut ring, spy) = Spy::on(Dir::Rx, 8);
        ring.driver = Box::new(Spy { tail: Some(2), fails, ..spy.clone() });
        assert_eq!((ring.sync(), ring.tail()), (outcome, tail));
        // The lock is free again, and a head up to the tail that was told is legal.
        ring.set(tail, tail);
        assert_eq!(ring.sync(), outcome);
        assert_eq!(spy.calls(), [(0, 0, 0), (0, tail, tail)]);
    }
}

#[test]
fn s7_only_rx_rings_are_stamped_and_only_when_asked() {
    for (dir, flags, stamped) in [
        (Dir::Rx, SyncFlags::TIMESTAMP, true),
        (Dir::Rx, SyncFlags::POST, false),
        (Dir::Tx, SyncFlags::all(), false),
    ] {
        let ring = SimRing::lone(dir, 8, 64);
        assert_eq!(ring.handle.sync(&mut Null, 9, flags), SyncOutcome::Done);
        assert_eq!(ring.handle.ring.header.ts_sec.load(Ordering::Relaxed) > 0, stamped);
    }
}

/// Random words, often near the ring size, into everything that another process may write.
pub(crate) fn scribble(ring: &SimRing, rng: &mut Rng) {
    let n = ring.num_slots();
    let mut word = || match rng.below(4) {
        0 => rng.next_u64() as u32,
        1 => n,
        _ => rng.below(n),
    };
    let state = &ring.handle.shared.state;
    state.producer.hwtail.set(word());
    state.owner.hwcur.set(word());
    for w in [&state.senders.tail, &state.senders.head, &state.senders.stalled_at] {
        w.store(word(), Ordering::Relaxed);
    }
    for w in [&state.sync.rhead, &state.sync.rcur, &state.sync.rtail] {
        w.store(word(), Ordering::Relaxed);
    }
    for w in ring.handle.shared.desc.iter().chain(ring.handle.shared.mirror.iter()) {
        w.store(word(), Ordering::Relaxed);
    }
    ring.set(word(), word());
    ring.handle.ring.header.tail.store(word(), Ordering::Relaxed);
    for words in [&ring.handle.shared.records, &ring.handle.shared.known, &ring.handle.shared.bits] {
        words.iter().for_each(|w| w.store(rng.next_u64(), Ordering::Relaxed));
    }
    for slot in ring.handle.ring.slots.iter() {
        let idx = if rng.one_in(2) { rng.next_u64() as u32 } else { rng.below(n + 2) };
        slot.store(SlotWord::new(idx, rng.next_u64() as u16, rng.next_u64() as u16 & !0x10));
        slot.set_ptr(rng.next_u64());
    }
}

#[test]
fn whatever_state_words_say_positions_stay_in_the_ring() {
    let mut rng = Rng::new(3);
    for dir in [Dir::Tx, Dir::Rx] {
        let mut ring = SimRing::lone(dir, 7, 64);
        for _ in 0..20_000 {
            scribble(&ring, &mut rng);
            let k = ring.handle.load(9);
            for v in [k.hwcur, k.hwtail, k.rhead, k.rcur, k.rtail] {
                assert!(v < 7);
            }
            let outcome = ring.sync();
            assert!(matches!(outcome, SyncOutcome::Done | SyncOutcome::BadRing(_)));
            let in_ring = ring.head() < 7 && ring.cur() < 7;
            assert!(in_ring, "{ring:?}");
            assert!(ring.tail() < 7, "{ring:?}");
        }
    }
}

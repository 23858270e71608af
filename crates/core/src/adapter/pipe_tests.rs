//! Tests of pipes. The numbers in names are sections of semantics.md.

use super::*;
use crate::kring::SyncOutcome;
use crate::layout::Geometry;
use crate::sim::{Frame, Rng, SimPipe, SimRing, packets};
use ringway_abi::ring::{NS_INDIRECT, NS_REPORT};
use ringway_os::event::{Epoll, EventBuf, EventFlags};
use std::collections::VecDeque;
use std::time::Duration;

const BUF_SIZE: u32 = 128;

fn pipe(slots: u32, extra: u32) -> SimPipe {
    let geometry = Geometry { tx_rings: 1, rx_rings: 1, tx_slots: slots, rx_slots: slots };
    SimPipe::new(&geometry, BUF_SIZE, extra)
}

/// The master's TX ring and the slave's RX ring.
fn rings(pipe: &mut SimPipe) -> (&mut SimRing, &mut SimRing) {
    let [a, b] = &mut pipe.ends;
    (&mut a.tx[0], &mut b.rx[0])
}

fn bytes(frames: &[Frame]) -> Vec<Vec<u8>> {
    frames.iter().map(|f| f.bytes.clone()).collect()
}

#[test]
fn s21_the_two_ends_name_the_same_buffers_and_nothing_is_copied() {
    let mut p = pipe(8, 0);
    p.check_owners(&[]);
    let (tx, rx) = rings(&mut p);
    let sent: Vec<u32> = (0..3).map(|k| tx.slot(k).buf_idx()).collect();
    (0..3u8).for_each(|i| assert!(tx.put(&[i; 60], 0)));
    tx.sync();
    rx.sync();
    let got = rx.peek();
    assert_eq!(got.iter().map(|f| f.buf_idx).collect::<Vec<_>>(), sent);
    assert_eq!(bytes(&got), [[0; 60], [1; 60], [2; 60]]);
    // Even what is written after the hand-over is seen: it is one memory.
    tx.handle.ring.bufs.payload(sent[1]).unwrap().store_u8(0, 99);
    assert_eq!(rx.peek()[1].bytes[0], 99);
    p.check_owners(&[]);
}

#[test]
fn s2_the_peer_sees_nothing_before_both_have_synced() {
    let mut p = pipe(8, 0);
    let (tx, rx) = rings(&mut p);
    tx.put(b"x", 0);
    rx.sync();
    assert_eq!(rx.avail(), 0);
    tx.sync();
    assert_eq!(rx.avail(), 0);
    rx.sync();
    assert_eq!(rx.avail(), 1);
}

#[test]
fn s21_a_full_pipe_stops_and_the_space_comes_back_by_what_was_released() {
    for n in [2, 3, 5, 8, 65, 130, 1023] {
        let mut p = pipe(n, 0);
        let (tx, rx) = rings(&mut p);
        for i in 0..n - 1 {
            assert!(tx.put(&i.to_le_bytes(), 0));
        }
        assert!(!tx.put(b"", 0));
        for _ in 0..3 {
            assert_eq!((tx.sync(), tx.avail(), tx.head()), (SyncOutcome::Done, 0, tx.tail()));
        }
        rx.sync();
        assert_eq!(rx.avail(), n - 1);
        let k = (n - 1).div_ceil(2);
        assert_eq!(rx.take(k).len() as u32, k);
        tx.sync();
        assert_eq!(tx.avail(), 0, "released, but not synced");
        rx.sync();
        assert_eq!(tx.avail(), 0, "the sender has not synced");
        tx.sync();
        assert_eq!(tx.avail(), k);
        let rest = rx.receive(n);
        assert_eq!(rest.len() as u32, n - 1 - k);
        tx.sync();
        assert_eq!(tx.avail(), n - 1);
        p.check_owners(&[]);
    }
}

#[test]
fn s21_order_and_content_hold_over_many_laps_of_odd_rings() {
    for n in [2, 3, 7, 63, 64, 65, 129] {
        let mut p = pipe(n, 0);
        let mut rng = Rng::new(u64::from(n));
        let (mut sent, mut got) = (0u32, 0u32);
        while got < 20 * n {
            let (tx, rx) = rings(&mut p);
            for _ in 0..rng.below(n + 1) {
                let len = 4 + rng.below(BUF_SIZE - 4) as usize;
                let mut frame = vec![sent as u8; len];
                frame[..4].copy_from_slice(&sent.to_le_bytes());
                sent += u32::from(tx.put(&frame, 0));
            }
            tx.sync();
            for frame in rx.receive(rng.below(n + 1)) {
                assert_eq!(frame.bytes[..4], got.to_le_bytes());
                assert!(frame.bytes[4..].iter().all(|b| *b == got as u8));
                got += 1;
            }
            p.check_owners(&[]);
        }
        let (tx, rx) = rings(&mut p);
        rx.sync();
        assert_eq!((tx.counters().packets, rx.counters().packets), (sent.into(), sent.into()));
        assert_eq!(tx.counters().all_drops(), 0);
    }
}

#[test]
fn s21_buffers_swapped_by_the_receiver_circulate_back() {
    let n = 5;
    let mut p = pipe(n, n - 1);
    let mut spare: VecDeque<u32> = (0..n - 1).map(|_| p.memory.take_buf()).collect();
    for lap in 0..4 * n {
        let (tx, rx) = rings(&mut p);
        tx.put(&lap.to_le_bytes(), 0);
        tx.sync();
        rx.sync();
        let k = rx.head();
        let word = rx.slot(k);
        let mine = spare.pop_front().unwrap();
        rx.handle.ring.slots[k as usize].store(SlotWord::new(mine, word.len(), NS_BUF_CHANGED));
        spare.push_back(word.buf_idx());
        p.check_owners(spare.make_contiguous());
        let rx = rings(&mut p).1;
        rx.set((k + 1) % n, (k + 1) % n);
        rx.sync();
        assert_eq!(rx.slot(k).flags(), 0, "cleared in the receiver's own slot");
        p.check_owners(spare.make_contiguous());
        let tx = rings(&mut p).0;
        tx.sync();
        assert_eq!(tx.slot(k), SlotWord::new(mine, 4, NS_BUF_CHANGED), "as the receiver left it");
        assert_eq!(tx.avail(), n - 1);
        p.check_owners(spare.make_contiguous());
    }
}

#[test]
fn s21_what_a_slot_says_travels_and_buf_changed_is_kept_in_the_copy_only() {
    let mut p = pipe(8, 2);
    let (fresh, spare) = (p.memory.take_buf(), p.memory.take_buf());
    let (tx, rx) = rings(&mut p);
    let old = tx.slot(0).buf_idx();
    let cases = [
        (SlotWord::new(fresh, 11, NS_BUF_CHANGED | NS_REPORT), 0x1234_5678_9abc_def0),
        (SlotWord::new(tx.slot(1).buf_idx(), 12, NS_INDIRECT), 7),
        (SlotWord::new(tx.slot(2).buf_idx(), 13, 0x0080), 0),
        (SlotWord::new(tx.slot(3).buf_idx(), 65535, 0xff00), 0),
        (SlotWord::new(spare, 0, 0), u64::MAX),
    ];
    let displaced = tx.slot(4).buf_idx();
    for (word, ptr) in cases {
        assert!(tx.put_word(word, ptr));
    }
    tx.sync();
    assert_eq!(tx.slot(0), SlotWord::new(fresh, 11, NS_REPORT));
    rx.sync();
    for (k, (word, ptr)) in cases.into_iter().enumerate() {
        let slot = &rx.handle.ring.slots[k];
        assert_eq!((slot.load(), slot.ptr()), (word, ptr), "slot {k}");
    }
    p.check_owners(&[old, displaced]);
    // What the receiver says in ptr and len travels back as well.
    let (tx, rx) = rings(&mut p);
    rx.handle.ring.slots[1].set_ptr(42);
    rx.handle.ring.slots[2].store(SlotWord::new(rx.slot(2).buf_idx(), 1, 0));
    rx.set(5, 5);
    rx.sync();
    assert_eq!(rx.slot(0).flags() & NS_BUF_CHANGED, 0);
    tx.sync();
    let back: Vec<_> = (0..5).map(|k| (tx.slot(k), tx.handle.ring.slots[k as usize].ptr())).collect();
    assert_eq!(back[0], cases[0], "the flag that the receiver left set is propagated");
    assert_eq!(back[1], (cases[1].0, 42));
    assert_eq!(back[2], (SlotWord::new(cases[2].0.buf_idx(), 1, 0), 0));
    assert_eq!(back[3..], cases[3..]);
}

#[test]
fn s21_indexes_are_passed_through_unchecked() {
    let mut p = pipe(4, 0);
    let (tx, rx) = rings(&mut p);
    for idx in [0, 1, u32::MAX] {
        assert!(tx.put_word(SlotWord::new(idx, 60, 0), 0));
    }
    tx.sync();
    rx.sync();
    assert_eq!(rx.peek().iter().map(|f| f.buf_idx).collect::<Vec<_>>(), [0, 1, u32::MAX]);
}

#[test]
fn s21_a_partial_packet_is_consumed_but_invisible_until_its_end_arrives() {
    let mut p = pipe(8, 0);
    let (tx, rx) = rings(&mut p);
    tx.put(b"whole", 0);
    tx.put(b"a", NS_MOREFRAG);
    tx.put(b"b", NS_MOREFRAG);
    for _ in 0..2 {
        tx.sync();
        rx.sync();
        assert_eq!((rx.avail(), tx.avail()), (1, 4));
    }
    assert_eq!(tx.counters().packets, 1);
    p.check_owners(&[]);
    let (tx, rx) = rings(&mut p);
    tx.put(b"c", NS_MOREFRAG);
    tx.sync();
    rx.sync();
    assert_eq!(rx.avail(), 1);
    tx.put(b"d", 0);
    tx.put(b"next", NS_MOREFRAG);
    tx.sync();
    rx.sync();
    let got: Vec<_> = packets(&rx.take(9)).iter().map(|p| bytes(p).concat()).collect();
    assert_eq!(got, [&b"whole"[..], b"abcd"]);
    p.check_owners(&[]);
}

#[test]
fn a_bad_head_after_a_partial_packet_takes_the_partial_packet_back() {
    let mut p = pipe(8, 0);
    let (tx, rx) = rings(&mut p);
    tx.put(b"whole", 0);
    tx.put(b"held", NS_MOREFRAG);
    tx.sync();
    tx.set(8, 8);
    assert!(matches!(tx.sync(), SyncOutcome::BadRing(_)));
    assert_eq!((tx.head(), tx.tail()), (1, 7));
    tx.put(b"other", 0);
    assert_eq!(tx.sync(), SyncOutcome::Done);
    assert_eq!(bytes(&rx.receive(9)), [&b"whole"[..], b"other"]);
    p.check_owners(&[]);
}

#[test]
fn s2_a_reader_may_keep_slots_by_moving_cur_ahead_of_head() {
    let mut p = pipe(5, 0);
    let (tx, rx) = rings(&mut p);
    (0..4u8).for_each(|i| assert!(tx.put(&[i], 0)));
    tx.sync();
    rx.sync();
    rx.set(0, 4);
    assert_eq!(rx.sync(), SyncOutcome::Done);
    tx.sync();
    assert_eq!((rx.cur(), rx.tail(), tx.avail()), (4, 4, 0));
    rx.set(2, 4);
    rx.sync();
    tx.sync();
    assert_eq!((bytes(&rx.peek()), tx.avail()), (vec![vec![2], vec![3]], 2));
}

#[test]
fn s21_rings_of_several_directions_do_not_meet() {
    let geometry = Geometry { tx_rings: 3, rx_rings: 2, tx_slots: 7, rx_slots: 16 };
    let mut p = SimPipe::new(&geometry, BUF_SIZE, 0);
    assert_eq!((p.ends[1].tx.len(), p.ends[1].rx.len()), (2, 3));
    for end in 0..2 {
        for i in 0..p.ends[end].tx.len() {
            assert!(p.ends[end].tx[i].put(&[end as u8, i as u8], 0));
            p.ends[end].tx[i].sync();
        }
    }
    for end in 0..2 {
        for i in 0..p.ends[end].rx.len() {
            let got = p.ends[end].rx[i].receive(9);
            assert_eq!(bytes(&got), [[1 - end as u8, i as u8]]);
            assert_eq!(p.ends[end].rx[i].num_slots(), if end == 0 { 16 } else { 7 });
        }
    }
    p.check_owners(&[]);
}

/// Edges of a doorbell since the last question.
struct Ear(Epoll);

impl Ear {
    fn new(bell: &Doorbell) -> Self {
        let ear = Epoll::new().unwrap();
        ear.add(bell, 0, EventFlags::IN | EventFlags::ET).unwrap();
        Ear(ear)
    }

    fn rung(&self) -> bool {
        !self.0.wait(&mut EventBuf::default(), Some(Duration::ZERO)).unwrap().is_empty()
    }
}

#[test]
fn s5_a_reader_is_woken_once_when_what_it_waits_for_is_there() {
    let mut p = pipe(8, 0);
    let ear = Ear::new(&p.ends[1].bell);
    let (tx, rx) = rings(&mut p);
    let send = |tx: &mut SimRing, flags| {
        assert!(tx.put(b"x", flags));
        tx.sync();
    };
    send(tx, 0);
    assert!(!ear.rung(), "nobody sleeps");
    rx.receive(9);
    rx.handle.shared.state.sleep.owner.announce(2);
    assert!(!rx.driver.moved_since(&rx.handle, 1));
    send(tx, 0);
    assert!(!ear.rung(), "one is not two");
    assert!(rx.driver.moved_since(&rx.handle, 1) && !rx.driver.moved_since(&rx.handle, 2));
    send(tx, NS_MOREFRAG);
    assert!(!ear.rung(), "half a packet does not count");
    send(tx, 0);
    assert!(ear.rung() && rx.driver.moved_since(&rx.handle, 3));
    send(tx, 0);
    assert!(!ear.rung(), "the announcement was consumed");
    assert_eq!(tx.counters().rings, 1);
}

#[test]
fn s5_a_writer_is_woken_when_there_is_the_room_it_waits_for() {
    let mut p = pipe(8, 0);
    let ear = Ear::new(&p.ends[0].bell);
    let (tx, rx) = rings(&mut p);
    while tx.put(b"x", 0) {}
    tx.sync();
    rx.sync();
    tx.handle.shared.state.sleep.owner.announce(2);
    rx.receive(1);
    assert!(!ear.rung() && !tx.driver.moved_since(&tx.handle, 2));
    rx.receive(1);
    assert!(ear.rung() && tx.driver.moved_since(&tx.handle, 2));
    rx.receive(1);
    assert!(!ear.rung());
}

/// Sleeps until `wanted` slots are the ring's owner's, as a client does: announce, look, wait for the bell, look again.
fn sleep_for(ring: &mut SimRing, ear: &Ear, wanted: u32) {
    loop {
        ring.sync();
        if ring.avail() >= wanted {
            return;
        }
        ring.handle.shared.state.sleep.owner.announce(wanted);
        if !ring.driver.moved_since(&ring.handle, wanted) {
            let rung =
                !ear.0.wait(&mut EventBuf::default(), Some(Duration::from_secs(10))).unwrap().is_empty();
            assert!(rung, "a lost wake-up: {ring:?}");
        }
    }
}

#[test]
fn two_ends_in_two_threads_sleep_and_wake_and_lose_nothing() {
    const PACKETS: u32 = 200_000;
    for (n, batch) in [(2, 1), (16, 3), (256, 64)] {
        let mut p = pipe(n, 0);
        let ears = [0, 1].map(|i| Ear::new(&p.ends[i].bell));
        let (tx, rx) = rings(&mut p);
        std::thread::scope(|s| {
            s.spawn(|| {
                let mut number = 0;
                while number < PACKETS {
                    sleep_for(tx, &ears[0], batch);
                    while number < PACKETS && tx.put(&number.to_le_bytes(), 0) {
                        number += 1;
                    }
                    tx.sync();
                }
            });
            let mut number = 0;
            while number < PACKETS {
                sleep_for(rx, &ears[1], batch.min(PACKETS - number));
                for f in rx.take(u32::MAX) {
                    assert_eq!(f.bytes, number.to_le_bytes());
                    number += 1;
                }
                rx.sync();
            }
        });
        let (tx, rx) = rings(&mut p);
        let expected = u64::from(PACKETS);
        assert_eq!((tx.counters().packets, rx.counters().packets), (expected, expected));
        p.check_owners(&[]);
    }
}

#[test]
fn a_writer_of_an_unfinished_packet_that_fills_the_ring_has_nothing_to_wake_for() {
    let mut p = pipe(8, 0);
    let (tx, rx) = rings(&mut p);
    while tx.put(b"x", NS_MOREFRAG) {}
    tx.sync();
    rx.sync();
    assert_eq!(tx.avail(), 0);
    assert!(!tx.driver.moved_since(&tx.handle, 1), "else poll would spin");
}

#[test]
fn a_hostile_other_end_can_only_spoil_contents() {
    let mut rng = Rng::new(9);
    let mut p = pipe(7, 0);
    for _ in 0..20_000 {
        let (tx, rx) = rings(&mut p);
        let victim = if rng.one_in(2) { &*tx } else { &*rx };
        crate::kring::tests::scribble(victim, &mut rng);
        for ring in [tx, rx] {
            if rng.one_in(2) {
                let head = rng.below(8);
                ring.set(head, head);
            }
            ring.sync();
            assert!(ring.tail() < 7 && ring.handle.load(1).hwcur < 7);
        }
    }
}

mod model {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        /// The sender fills slots: number of slots of a packet, or unfinished ones if `partial`.
        Put {
            slots: u32,
            partial: bool,
            swap: bool,
            told: bool,
        },
        SyncTx,
        SyncRx,
        /// The receiver releases some slots, having swapped buffers of those for which a bit is set.
        Take {
            max: u32,
            swaps: u32,
        },
        /// Illegal cursors.
        Bad {
            tx: bool,
            head: u32,
        },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (1..4u32, any::<bool>(), any::<bool>(), any::<bool>())
                .prop_map(|(slots, partial, swap, told)| Op::Put { slots, partial: partial && slots == 3, swap, told }),
            3 => Just(Op::SyncTx),
            3 => Just(Op::SyncRx),
            3 => (0..6u32, any::<u32>()).prop_map(|(max, swaps)| Op::Take { max, swaps }),
            1 => (any::<bool>(), 0..20u32).prop_map(|(tx, head)| Op::Bad { tx, head }),
        ]
    }

    /// What is in a slot that travels: a number in its buffer, its buffer, its flags.
    type Item = (u32, u32, u16);

    /// The oracle: four queues of slots, in the order in which a slot goes round.
    #[derive(Default)]
    struct Model {
        /// Filled, not synced by the sender (or held: the tail of an unfinished packet).
        filled: VecDeque<Item>,
        /// Handed over, not synced by the receiver.
        on_the_way: VecDeque<Item>,
        /// The receiver's.
        received: VecDeque<Item>,
        /// Given back by the receiver, not synced by it.
        taken: VecDeque<u32>,
        /// Given back and synced, not synced by the sender.
        released: usize,
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn random_operations_agree_with_queues(n in 2..10u32, ops in prop::collection::vec(op(), 1..120)) {
            let mut p = pipe(n, 4);
            let mut spare: VecDeque<u32> = (0..4).map(|_| p.memory.take_buf()).collect();
            let mut m = Model::default();
            let mut number = 0u32;
            for op in ops {
                let (tx, rx) = rings(&mut p);
                match op {
                    Op::Put { slots, partial, swap, told } => {
                        let parts = slots.min(tx.avail());
                        for i in 0..parts {
                            let more = if partial || i + 1 < parts { NS_MOREFRAG } else { 0 };
                            let mut idx = tx.slot(tx.head()).buf_idx();
                            let mut flags = more;
                            if swap {
                                let mine = spare.pop_front().unwrap();
                                spare.push_back(std::mem::replace(&mut idx, mine));
                                // A careless client does not say so.
                                flags |= if told { NS_BUF_CHANGED } else { 0 };
                            }
                            number += 1;
                            tx.handle.ring.bufs.payload(idx).unwrap().store_u32(0, number);
                            assert!(tx.put_word(SlotWord::new(idx, 4, flags), number.into()));
                            m.filled.push_back((number, idx, flags));
                        }
                    }
                    Op::SyncTx => {
                        let before = tx.avail() as usize;
                        assert_eq!(tx.sync(), SyncOutcome::Done);
                        let whole = m.filled.iter().rposition(|i| i.2 & NS_MOREFRAG == 0).map_or(0, |i| i + 1);
                        m.on_the_way.extend(m.filled.drain(..whole));
                        let used = m.filled.len() + m.on_the_way.len() + m.received.len() + m.taken.len();
                        assert_eq!(tx.avail(), n - 1 - used as u32);
                        assert_eq!(tx.avail() as usize, before + m.released);
                        m.released = 0;
                    }
                    Op::SyncRx => {
                        assert_eq!(rx.sync(), SyncOutcome::Done);
                        m.released += m.taken.len();
                        m.taken.clear();
                        m.received.append(&mut m.on_the_way);
                    }
                    Op::Take { max, swaps } => {
                        let frames = rx.peek();
                        let got: Vec<Item> = frames
                            .iter()
                            .map(|f| (u32::from_le_bytes(f.bytes[..4].try_into().unwrap()), f.buf_idx, f.flags))
                            .collect();
                        assert_eq!(got, m.received.iter().copied().collect::<Vec<_>>());
                        for (i, frame) in frames.iter().enumerate().take(max as usize) {
                            assert_eq!(frame.ptr, u64::from(got[i].0));
                            let k = rx.head();
                            let mut word = SlotWord::new(frame.buf_idx, 4, frame.flags);
                            if swaps >> i & 5 == 5 {
                                let mine = spare.pop_front().unwrap();
                                spare.push_back(word.buf_idx());
                                word = SlotWord::new(mine, 4, NS_BUF_CHANGED);
                            }
                            rx.handle.ring.slots[k as usize].store(word);
                            rx.set((k + 1) % n, (k + 1) % n);
                            m.received.pop_front();
                            m.taken.push_back(word.buf_idx());
                        }
                    }
                    Op::Bad { tx: on_tx, head } => {
                        let ring = if on_tx { tx } else { rx };
                        let (good, cur) = (ring.head(), ring.cur());
                        // Beyond the tail: illegal wherever the engine's own position is.
                        let bad = if head < n { (ring.tail() + 1) % n } else { head };
                        let window = distance(n, ring.handle.load(1).rhead, ring.tail());
                        if head < n && window == n - 1 {
                            continue; // Every position of the ring is the client's.
                        }
                        ring.set(bad, bad);
                        assert!(matches!(ring.sync(), SyncOutcome::BadRing(_)));
                        if bad < n {
                            ring.set(good, cur);
                        } else if on_tx {
                            // What was not handed over goes back to the client; and it must be told in order.
                            assert_eq!(distance(n, ring.head(), good) as usize, m.filled.len());
                            ring.set(good, cur);
                        } else {
                            assert_eq!(distance(n, ring.head(), good) as usize, m.taken.len());
                            ring.set(good, cur);
                        }
                        if !on_tx {
                            m.received.append(&mut m.on_the_way);
                        }
                    }
                }
                p.check_owners(spare.make_contiguous());
            }
            let (tx, rx) = rings(&mut p);
            assert_eq!(tx.counters().packets, {
                rx.sync();
                rx.counters().packets
            });
        }
    }
}

/// What a sync had noted, but not published, when it died.
#[test]
fn an_exchange_that_died_before_it_was_published_is_told_by_whoever_goes_on() {
    use crate::repair::{SyncKind, repair_sync};
    let mut p = pipe(8, 2);
    let extra = [p.memory.take_buf(), p.memory.take_buf()];
    let (tx, rx) = rings(&mut p);

    // The sender puts another buffer in, and dies between the notes and the publishing.
    let was = tx.slot(0).buf_idx();
    assert!(tx.put_word(SlotWord::new(extra[0], 60, NS_BUF_CHANGED), 0));
    tx.sync();
    let state = tx.handle.shared.state.clone();
    state.owner.hwcur.set(0);
    state.sync.rhead.store(0, Relaxed);
    state.sync.rcur.store(0, Relaxed);
    repair_sync(SyncKind::PipeTx, &tx.handle.shared, None);
    tx.sync();
    rx.sync();
    assert_eq!(rx.slot(0).buf_idx(), extra[0], "the receiver must hear of it");

    // The receiver puts another in, and dies in the same place.
    let slot = rx.slot(0);
    rx.handle.ring.slots[0].store(SlotWord::new(extra[1], slot.len(), slot.flags() | NS_BUF_CHANGED));
    rx.set(1, 1);
    rx.sync();
    let state = rx.handle.shared.state.clone();
    state.owner.hwcur.set(0);
    state.sync.rhead.store(0, Relaxed);
    state.sync.rcur.store(0, Relaxed);
    repair_sync(SyncKind::PipeRx, &rx.handle.shared, None);
    rx.sync();
    tx.sync();
    assert_eq!(tx.slot(0).buf_idx(), extra[1], "the sender must hear of it");
    // What had not been taken in when they died arrives as it was sent.
    let next = tx.slot(1).buf_idx();
    assert!(tx.put(b"next", 0));
    tx.sync();
    repair_sync(SyncKind::PipeRx, &rx.handle.shared, None);
    rx.sync();
    assert_eq!(rx.slot(1).buf_idx(), next);
    p.check_owners(&[was, extra[0]]);
}

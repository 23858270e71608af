//! Bad slots, hostile members, the dead.

use super::*;
use crate::repair::repair_receiver;

#[test]
fn a_port_whose_memory_cannot_be_had_costs_its_own_packets_only() {
    let mut m = members::<3>(64);
    introduce(&mut m);
    let [a, b, c] = &mut m;
    a.table.set(2, Known::Unreachable(c.generation));
    b.table.set(2, Known::Unreachable(c.generation));
    // A fresh driver: nothing is cached.
    let seat = Seat { page: a.switch.page.clone(), index: 0, generation: a.generation };
    a.port.tx[0].driver = Box::new(ValeTx::new(seat, 0, a.table.clone()));
    for (i, dst) in [2, 1, BROADCAST].into_iter().enumerate() {
        a.send(&frame(dst, 0, i as u32));
    }
    assert_eq!((numbers(&b.receive(0)), c.receive(0)), (vec![1, 2], vec![]));
    assert_eq!(drops(a).dropped(Drop::ReceiverGone), 2);
    check(&m);
}

#[test]
fn s16_bad_slots_are_dropped_or_delivered_empty() {
    let mut m = members::<3>(64);
    introduce(&mut m);
    let tx = &m[0].port.tx[0];
    let count = tx.handle.ring.bufs.count();
    let original: Vec<_> = (0..64).map(|k| tx.slot(k)).collect();
    for (first, single) in [(true, false), (true, true), (false, false)] {
        for (idx, len) in [(0, 60), (1, 60), (count, 60), (u32::MAX, 60), (2, 257), (3, 65535)] {
            let bad = SlotWord::new(idx, len, 0);
            if single {
                tx.put_word(bad, 0);
            } else if first {
                tx.put_word(SlotWord::new(idx, len, NS_MOREFRAG), 0);
                tx.put(&frame(1, 0, 1), 0);
            } else {
                tx.put(&frame(1, 0, 2), NS_MOREFRAG);
                tx.put_word(bad, 0);
            }
        }
    }
    m[0].txsync(0);
    assert_eq!(drops(&m[0]).dropped(Drop::BadSlot), 12);
    let got = packets(&m[1].receive(0));
    assert_eq!(got.len(), 6);
    assert!(got.iter().all(|p| numbers(&p[..1]) == [2] && p.len() == 2 && p[1].bytes.is_empty()));
    let tx = &m[0].port.tx[0];
    tx.handle.ring.slots.iter().zip(original).for_each(|(s, w)| s.store(w));
    check(&m);
}

#[test]
fn s3_a_bad_index_in_a_free_receive_slot_takes_the_data_to_the_dummy_buffer() {
    for bad in [0, 1, u32::MAX] {
        let mut m = members::<2>(4);
        introduce(&mut m);
        m[0].send(&frame(1, 0, 1));
        let rx = &mut m[1].port.rx[0];
        rx.sync();
        let k = rx.head();
        rx.handle.ring.slots[k as usize].store(SlotWord::new(bad, 0, 0));
        rx.take(1);
        rx.sync();
        for number in 2..6 {
            m[0].send(&frame(1, 0, number));
            let got = m[1].receive(0);
            assert_eq!((got.len(), numbers(&got)), (1, vec![number]));
            assert_eq!(got[0].buf_idx == 0, number == 5, "after one lap");
        }
        conserved(&[&m[0], &m[1]]);
    }
}

#[test]
fn a_hostile_member_can_only_spoil_its_own_traffic() {
    let mut rng = Rng::new(11);
    let switch = SimSwitch::default();
    let mut m = [0, 1, 2].map(|i| switch.attach(i, &geometry(1, 7), 64));
    for round in 0..10_000 {
        let [a, b, c] = &mut m;
        crate::kring::tests::scribble(&b.port.rx[0], &mut rng);
        crate::kring::tests::scribble(&b.port.tx[0], &mut rng);
        b.port.rx[0].handle.shared.state.senders.bound.store(rng.below(3), Relaxed);
        if rng.one_in(8) {
            let at = rng.below(switch.page.macs.len() as u32) as usize;
            switch.page.macs[at].store(rng.next_u64(), Relaxed);
        }
        b.port.rx[0].sync();
        b.txsync(0);
        for dst in [1, 2, BROADCAST] {
            a.port.tx[0].put(&frame(dst, 0, round), 0);
        }
        a.port.tx[0].put_packet(&long_packet(BROADCAST, 0, round, 3), 0);
        assert_eq!(a.txsync(0), SyncOutcome::Done);
        for member in [&*a, &*b] {
            let t = drops(member);
            assert_eq!(t.packets + t.extra_copies, t.delivered + t.all_drops());
        }

        a.check_owners();
        c.check_owners();
        let got = numbers(&m[2].receive(0).into_iter().filter(|f| f.bytes.len() == 18).collect::<Vec<_>>());
        assert!(got.iter().filter(|n| **n == round).count() >= 3, "round {round}: {got:?}");
    }
}

#[test]
fn a_receiver_whose_lock_nobody_gives_back_costs_counted_drops() {
    let mut m = members::<3>(64);
    introduce(&mut m);
    let state = m[1].port.rx[0].handle.shared.state.clone();
    state.senders.lock.try_lock(7).unwrap();
    m[0].send(&frame(1, 0, 1));
    m[0].send(&frame(BROADCAST, 0, 2));
    assert_eq!(received(&mut m), [vec![], vec![], vec![2]]);
    assert_eq!(drops(&m[0]).dropped(Drop::ReceiverBusy), 2);
    // The broker breaks it.
    assert!(state.senders.lock.steal(7, crate::kring::BROKER));
    state.senders.tail.store(13, Relaxed);
    repair_receiver(&state, 64);
    assert!(state.senders.lock.unlock(crate::kring::BROKER));
    m[0].send(&frame(1, 0, 3));
    assert_eq!(received(&mut m)[1], [3]);
    check(&m);
}

/// Four chunks, two destinations, both behind somebody who stands still: one wait, not eight.
#[test]
fn a_sync_waits_once_for_those_who_stand_still() {
    let mut m = members::<3>(1024);
    introduce(&mut m);
    for to in [1, 2] {
        m[to].port.rx[0].handle.shared.state.senders.lock.try_lock(7).unwrap();
    }
    let wait = |m: &mut [Member; 3], packets: u32| {
        for i in 0..packets {
            assert!(m[0].port.tx[0].put(&frame(1 + (i % 2) as u8, 0, i), 0));
        }
        let began = std::time::Instant::now();
        m[0].txsync(0);
        began.elapsed()
    };
    // The shortest of some, and of more as long as they say nothing: others run on this machine.
    let (mut one, mut many, mut rounds) = (Duration::MAX, Duration::MAX, 0);
    while rounds < 10 || (many >= 3 * one && rounds < 200) {
        one = one.min(wait(&mut m, 1));
        many = many.min(wait(&mut m, 1000));
        rounds += 1;
    }
    assert_eq!(drops(&m[0]).dropped(Drop::ReceiverBusy), rounds * 1001);
    assert!(one >= Duration::from_micros(500) && many < 3 * one, "one packet {one:?}, a thousand {many:?}");
}

//! What arrives where: order, room, rings, wake-ups.

use super::*;

#[test]
fn s16_the_sender_has_all_its_ring_after_every_sync() {
    let mut m = members::<2>(8);
    for i in 0..50 {
        for _ in 0..=i % 7 {
            assert!(m[0].port.tx[0].put(&frame(1, 0, i), 0));
        }
        assert_eq!(m[0].txsync(0), SyncOutcome::Done);
        assert_eq!(m[0].port.tx[0].avail(), 7);
    }
    check(&m);
}

#[test]
fn s16_a_full_receiver_keeps_exactly_the_oldest() {
    for n in [3, 8, 300, 700] {
        let switch = SimSwitch::default();
        let mut m = [(0, 1024), (1, n)].map(|(i, slots)| switch.attach(i, &geometry(1, slots), BUF_SIZE));
        for round in 0..3 {
            for i in 0..1000 {
                assert!(m[0].port.tx[0].put(&frame(1, 0, i), 0));
            }
            m[0].txsync(0);
            check(&m);
            let late = drops(&m[0]).dropped(Drop::ReceiverFull);
            assert_eq!(late, u64::from(1001 - n) * (round + 1));
            assert_eq!(numbers(&m[1].receive(0)), (0..n - 1).collect::<Vec<_>>());
        }
        check(&m);
    }
}

#[test]
fn s16_space_is_what_was_released_and_synced() {
    let mut m = members::<2>(5);
    let send = |m: &mut [Member; 2], from: u32| {
        (from..from + 4).for_each(|i| assert!(m[0].port.tx[0].put(&frame(1, 0, i), 0)));
        m[0].txsync(0);
    };
    send(&mut m, 0);
    m[1].port.rx[0].sync();
    assert_eq!(numbers(&m[1].port.rx[0].take(2)), [0, 1]);
    send(&mut m, 4);
    m[1].port.rx[0].sync();
    assert_eq!(numbers(&m[1].port.rx[0].peek()), [2, 3], "released, but not synced when they came");
    send(&mut m, 8);
    assert_eq!(numbers(&m[1].receive(0)), [2, 3, 8, 9]);
    check(&m);
}

#[test]
fn s16_alone_on_a_switch_everything_is_dropped() {
    let mut m = members::<1>(8);
    m[0].send(&frame(1, 0, 1));
    m[0].send(&frame(BROADCAST, 0, 1));
    m[0].port.tx[0].put_packet(&[frame(1, 0, 1), vec![0; 9]], 0);
    m[0].txsync(0);
    assert_eq!(drops(&m[0]).dropped(Drop::NoReceiver), 3);
    check(&m);
}

#[test]
fn s16_floods_and_unicast_arrive_in_the_order_in_which_they_were_sent() {
    let mut m = members::<4>(512);
    introduce(&mut m);
    let mut rng = Rng::new(4);
    let mut want = [const { Vec::new() }; 4];
    for number in 0..400 {
        let dst = [1, 2, 3, BROADCAST, 77][rng.below(5) as usize];
        m[0].port.tx[0].put(&frame(dst, 0, number), 0);
        for (k, w) in want.iter_mut().enumerate().skip(1) {
            if dst == BROADCAST || dst == 77 || usize::from(dst) == k {
                w.push(number);
            }
        }
    }
    m[0].txsync(0);
    assert_eq!(received(&mut m), want);
    check(&m);
}

#[test]
fn s16_a_packet_that_does_not_fit_takes_those_behind_it_along() {
    let switch = SimSwitch::default();
    let mut m = [(0, 64), (1, 6), (2, 64)].map(|(i, n)| switch.attach(i, &geometry(1, n), BUF_SIZE));
    introduce(&mut m);
    let tx = &m[0].port.tx[0];
    tx.put(&frame(1, 0, 1), 0);
    tx.put(&frame(BROADCAST, 0, 2), 0);
    tx.put_packet(&long_packet(1, 0, 3, 4), 0); // Three slots are left.
    tx.put(&frame(1, 0, 4), 0);
    tx.put(&frame(BROADCAST, 0, 5), 0);
    m[0].txsync(0);
    assert_eq!(received(&mut m), [vec![], vec![1, 2], vec![2, 5]]);
    assert_eq!(drops(&m[0]).dropped(Drop::ReceiverFull), 3);
    m[0].send(&frame(1, 0, 6));
    assert_eq!(received(&mut m)[1], [6]);
    check(&m);
}

#[test]
fn s16_unicast_keeps_its_ring_index_and_floods_go_to_ring_0() {
    for warm in [false, true] {
        let switch = SimSwitch::default();
        let mut m = [(0, 4), (1, 3), (2, 1)].map(|(i, r)| switch.attach(i, &geometry(r, 32), BUF_SIZE));
        introduce(&mut m);
        for ring in 0..4 {
            if !warm {
                // Fresh drivers, whose table knows the peers already: another ring brought them.
                let seat = Seat { page: switch.page.clone(), index: 0, generation: m[0].generation };
                m[0].port.tx[ring].driver = Box::new(ValeTx::new(seat, ring as u16, m[0].table.clone()));
            }
            let tx = &m[0].port.tx[ring];
            tx.put(&frame(2, 0, 1), 0);
            tx.put(&frame(1, 0, 2), 0);
            tx.put(&frame(BROADCAST, 0, 3), 0);
            tx.put(&frame(1, 0, 4), 0);
            m[0].txsync(ring);
            let mut want = vec![vec![]; 3];
            want[ring % 3] = vec![2, 4];
            if ring % 3 == 0 {
                want[0] = vec![2, 3, 4];
            } else {
                want[0].push(3);
            }
            let got: Vec<_> = (0..3).map(|r| numbers(&m[1].receive(r))).collect();
            assert_eq!(got, want, "TX ring {ring}, warm {warm}");
            assert_eq!(numbers(&m[2].receive(0)), [1, 3]);
        }
        check(&m);
    }
}

#[test]
fn s16_with_two_ports_floods_still_go_to_ring_0_and_unicast_to_its_own() {
    let switch = SimSwitch::default();
    let mut m = [0, 1].map(|i| switch.attach(i, &geometry(2, 32), BUF_SIZE));
    introduce(&mut m);
    for order in [[1, BROADCAST, 1], [BROADCAST, 1, BROADCAST]] {
        for (number, dst) in order.into_iter().enumerate() {
            m[0].port.tx[1].put(&frame(dst, 0, number as u32), 0);
        }
        m[0].txsync(1);
        let of = |dst: u8| (0..3).filter(|i| order[*i as usize] == dst).collect::<Vec<u32>>();
        assert_eq!(numbers(&m[1].receive(0)), of(BROADCAST));
        assert_eq!(numbers(&m[1].receive(1)), of(1));
    }
    check(&m);
}

#[test]
fn s16_a_ring_that_is_not_bound_loses_what_is_for_it() {
    let switch = SimSwitch::default();
    let mut m = [0, 1, 2].map(|i| switch.attach(i, &geometry(2, 32), BUF_SIZE));
    introduce(&mut m);
    m[1].port.rx[1].handle.shared.state.senders.bound.store(0, Relaxed);
    for ring in 0..2 {
        m[0].port.tx[ring].put(&frame(1, 0, ring as u32), 0);
        m[0].port.tx[ring].put(&frame(BROADCAST, 0, 10 + ring as u32), 0);
        m[0].txsync(ring);
    }
    assert_eq!(numbers(&m[1].receive(0)), [0, 10, 11]);
    assert!(m[1].receive(1).is_empty());
    assert_eq!(drops(&m[0]).dropped(Drop::ReceiverGone), 1);
    check(&m);
}

#[test]
fn s16_the_receivers_swapped_buffers_are_used_and_buf_changed_is_cleared() {
    let mut m = members::<2>(4);
    introduce(&mut m);
    let mut spare = m[1].memory.take_buf();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..20 {
        m[0].send(&frame(1, 0, number));
        let rx = &mut m[1].port.rx[0];
        rx.sync();
        let k = rx.head();
        assert_eq!(numbers(&rx.peek()), [number]);
        let word = rx.slot(k);
        seen.insert(word.buf_idx());
        rx.handle.ring.slots[k as usize].store(SlotWord::new(spare, word.len(), NS_BUF_CHANGED));
        spare = word.buf_idx();
        rx.set(next(k), next(k));
        rx.sync();
        assert_eq!((rx.slot(k).flags() & NS_BUF_CHANGED, rx.slot(k).len()), (0, 18));
    }
    assert_eq!(seen.len(), 5, "four slots and one spare");
    fn next(k: u32) -> u32 {
        (k + 1) % 4
    }
}

#[test]
fn s5_a_receiver_is_woken_when_what_it_waits_for_is_there() {
    let mut m = members::<2>(64);
    introduce(&mut m);
    let ear = Epoll::new().unwrap();
    ear.add(&*m[1].port.bell, 0, EventFlags::IN | EventFlags::ET).unwrap();
    let rung = || !ear.wait(&mut EventBuf::default(), Some(Duration::ZERO)).unwrap().is_empty();
    m[0].send(&frame(1, 0, 1));
    assert!(!rung(), "nobody sleeps");
    m[1].receive(0);
    let sleep = m[1].port.rx[0].handle.shared.state.clone();
    sleep.sleep.owner.announce(3);
    m[0].send(&frame(1, 0, 1));
    m[0].send(&frame(BROADCAST, 0, 1));
    assert!(!rung());
    m[0].port.tx[0].put_packet(&long_packet(1, 0, 1, 2), 0);
    m[0].txsync(0);
    assert!(rung());
    m[0].send(&frame(1, 0, 1));
    assert!(!rung(), "the announcement was consumed");
    let rx = &m[1].port.rx[0];
    assert!(rx.driver.moved_since(&rx.handle, 5) && !rx.driver.moved_since(&rx.handle, 6));
    assert_eq!(drops(&m[0]).rings, 1);
}

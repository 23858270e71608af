//! Tests of the switch. The numbers in names are sections of semantics.md.

use super::*;
use crate::kring::SyncOutcome;
use crate::sim::{Frame, Member, Rng, SimSwitch, conserved, packets};
use crate::stats::{Counters, Drop};
use ringway_abi::ring::{NS_BUF_CHANGED, NS_INDIRECT, NS_MOREFRAG, NS_NO_LEARN, NS_REPORT};
use ringway_os::event::{Epoll, EventBuf, EventFlags};
use ringway_os::ring::SlotWord;
use std::time::Duration;

mod model;
mod threads;

const BUF_SIZE: u32 = 256;
const BROADCAST: u8 = 0xff;

fn geometry(rings: u16, slots: u32) -> Geometry {
    Geometry { tx_rings: rings, rx_rings: rings, tx_slots: slots, rx_slots: slots }
}

/// The address of host `x`.
fn mac(x: u8) -> [u8; 6] {
    if x == BROADCAST { [0xff; 6] } else { [2, 0, 0, 0, 0, x] }
}

/// A frame from host `src` to host `dst` that carries `number`.
fn frame(dst: u8, src: u8, number: u32) -> Vec<u8> {
    let mut f = [mac(dst), mac(src)].concat();
    f.extend([0x88, 0xb5]);
    f.extend(number.to_le_bytes());
    f
}

fn numbers(frames: &[Frame]) -> Vec<u32> {
    frames.iter().map(|f| u32::from_le_bytes(f.bytes[14..18].try_into().unwrap())).collect()
}

/// A switch with `N` ports at indexes from 0, of one ring each.
fn members<const N: usize>(slots: u32) -> [Member; N] {
    let switch = SimSwitch::default();
    std::array::from_fn(|i| switch.attach(i as u8, &geometry(1, slots), BUF_SIZE))
}

/// Every port sends one frame from the host with its number: the switch knows them. What that flooded is thrown away.
fn introduce(members: &mut [Member]) {
    for m in &mut *members {
        let index = m.index;
        m.send(&frame(BROADCAST, index, 0));
    }
    for m in &mut *members {
        m.receive(0);
    }
}

fn drops(m: &Member) -> Counters {
    m.counters(Dir::Tx)
}

fn check(members: &[Member]) {
    conserved(&members.iter().collect::<Vec<_>>());
    members.iter().for_each(Member::check_owners);
}

fn received(members: &mut [Member]) -> Vec<Vec<u32>> {
    members.iter_mut().map(|m| numbers(&m.receive(0))).collect()
}

#[test]
fn s16_unknown_unicast_floods_and_after_a_reply_goes_to_one() {
    let mut m = members::<3>(8);
    m[0].send(&frame(2, 0, 1));
    assert_eq!(received(&mut m), [vec![], vec![1], vec![1]]);
    m[2].send(&frame(0, 2, 2));
    assert_eq!(received(&mut m), [vec![2], vec![], vec![]], "0 was learned when it sent");
    m[0].send(&frame(2, 0, 3));
    assert_eq!(received(&mut m), [vec![], vec![], vec![3]]);
    check(&m);
    assert_eq!((drops(&m[0]).packets, drops(&m[0]).extra_copies, drops(&m[0]).delivered), (2, 1, 3));
}

#[test]
fn s16_broadcast_and_multicast_go_to_all_but_the_sender() {
    let mut m = members::<4>(8);
    introduce(&mut m);
    for i in 0..4 {
        m[i].send(&frame(BROADCAST, i as u8, 7));
        let mut multicast = frame(9, i as u8, 8);
        multicast[0] = 1;
        m[i].send(&multicast);
        for (k, got) in received(&mut m).into_iter().enumerate() {
            assert_eq!(got, if k == i { vec![] } else { vec![7, 8] });
        }
    }
    check(&m);
}

#[test]
fn s16_a_multicast_source_is_not_learned() {
    let mut m = members::<3>(8);
    let mut bad = frame(BROADCAST, 1, 1);
    bad[6] = 3;
    m[1].send(&bad);
    assert_eq!(mac_table::count(&m[0].switch.page, 1), 0);
}

#[test]
fn s16_a_frame_to_its_own_port_is_dropped() {
    let mut m = members::<3>(8);
    m[0].send(&frame(BROADCAST, 10, 0));
    received(&mut m);
    m[0].send(&frame(10, 0, 1));
    // Both in one batch, and the source learned by the frame itself.
    m[0].port.tx[0].put(&frame(BROADCAST, 0, 2), 0);
    m[0].port.tx[0].put(&frame(20, 20, 3), 0);
    m[0].txsync(0);
    assert_eq!(received(&mut m), [vec![], vec![2], vec![2]]);
    assert_eq!(drops(&m[0]).dropped(Drop::ToSelf), 2);
    check(&m);
}

#[test]
fn a_frame_to_an_address_learned_within_the_batch_is_not_sent_on() {
    let mut m = members::<2>(8);
    for f in [frame(5, 0, 1), frame(5, 5, 2), frame(5, 0, 3)] {
        m[0].port.tx[0].put(&f, 0);
    }
    m[0].txsync(0);
    assert_eq!(received(&mut m), [vec![], vec![1]]);
    assert_eq!(drops(&m[0]).dropped(Drop::ToSelf), 2);
    check(&m);
}

#[test]
fn s16_fourteen_bytes_are_a_frame_and_thirteen_are_not() {
    let mut m = members::<2>(8);
    for len in [0, 1, 13, 14, 15] {
        m[0].port.tx[0].put(&frame(1, 0, 0)[..len], 0);
    }
    m[0].txsync(0);
    assert_eq!(m[1].receive(0).iter().map(|f| f.bytes.len()).collect::<Vec<_>>(), [14, 15]);
    assert_eq!(drops(&m[0]).dropped(Drop::Short), 3);
    check(&m);
}

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

/// A packet of `slots` slots, each of another length.
fn long_packet(dst: u8, src: u8, number: u32, slots: usize) -> Vec<Vec<u8>> {
    (0..slots).map(|i| if i == 0 { frame(dst, src, number) } else { vec![i as u8; i % 200] }).collect()
}

#[test]
fn s6_packets_of_up_to_64_slots_keep_their_slots_and_carry_their_number() {
    for to in [1, BROADCAST] {
        let mut m = members::<3>(256);
        introduce(&mut m);
        for slots in [1, 2, 3, 63, 64] {
            let parts = long_packet(to, 0, 5, slots);
            m[0].port.tx[0].put_packet(&parts, NS_REPORT | NS_BUF_CHANGED | 0x4000);
            m[0].txsync(0);
            for (k, member) in m.iter_mut().enumerate().skip(1) {
                let got = member.receive(0);
                if k != usize::from(to) && to != BROADCAST {
                    assert_eq!(got, []);
                    continue;
                }
                assert_eq!(got.iter().map(|f| f.bytes.clone()).collect::<Vec<_>>(), parts);
                for (i, f) in got.iter().enumerate() {
                    let more = if i + 1 < slots { NS_MOREFRAG } else { 0 };
                    assert_eq!(f.flags, (slots as u16) << 8 | more, "slot {i} of {slots}");
                }
            }
        }
        assert_eq!((m[1].counters(Dir::Rx).packets, drops(&m[0]).all_drops()), (7, 0));
        check(&m);
    }
}

#[test]
fn s6_a_packet_of_more_than_64_slots_is_one_drop_and_its_slots_are_consumed() {
    for slots in [65, 255, 256, 257, 258, 511, 512, 513, 700] {
        for before in [0, 1, 200, 255] {
            let mut m = members::<3>(1024);
            introduce(&mut m);
            let tx = &m[0].port.tx[0];
            (0..before).for_each(|i| assert!(tx.put(&frame(1, 0, i), 0)));
            assert!(tx.put_packet(&long_packet(1, 0, 1000, slots), 0));
            assert!(tx.put(&frame(1, 0, 2000), 0));
            assert!(tx.put_packet(&long_packet(1, 0, 3000, 2), 0));
            m[0].txsync(0);
            assert_eq!(m[0].port.tx[0].avail(), 1023);
            let got: Vec<_> = packets(&m[1].receive(0)).iter().map(|p| numbers(&p[..1])[0]).collect();
            let want: Vec<u32> = (0..before).chain([2000, 3000]).collect();
            assert_eq!(got, want, "{slots} slots after {before}");
            assert_eq!(drops(&m[0]).dropped(Drop::TooManySlots), 1);
            assert_eq!(u64::from(before) + 4, drops(&m[0]).packets);
            check(&m);
        }
    }
}

#[test]
fn a_packet_at_the_end_of_a_chunk_is_not_cut() {
    for before in [180, 193, 250, 255, 256, 257, 505, 511] {
        for slots in [2, 10, 64] {
            let mut m = members::<3>(1024);
            introduce(&mut m);
            let tx = &m[0].port.tx[0];
            (0..before).for_each(|i| assert!(tx.put(&frame(1, 0, i), 0)));
            let parts = long_packet(1, 0, 1000, slots);
            assert!(tx.put_packet(&parts, 0));
            assert!(tx.put(&frame(1, 0, 2000), 0));
            m[0].txsync(0);
            let got = packets(&m[1].receive(0));
            assert_eq!(got.len(), before as usize + 2, "{slots} slots after {before}");
            let whole: Vec<_> = got[before as usize].iter().map(|f| f.bytes.clone()).collect();
            assert_eq!(whole, parts, "{slots} slots after {before}");
            check(&m);
        }
    }
}

#[test]
fn a_tail_of_a_dropped_packet_stays_dropped_when_a_peer_must_be_mapped_in_between() {
    let mut m = members::<3>(1024);
    let tx = &m[0].port.tx[0];
    assert!(tx.put_packet(&long_packet(1, 0, 1000, 258), 0));
    assert!(tx.put(&frame(BROADCAST, 0, 2000), 0));
    m[0].txsync(0);
    assert_eq!(received(&mut m), [vec![], vec![2000], vec![2000]]);
    assert_eq!((drops(&m[0]).packets, drops(&m[0]).dropped(Drop::TooManySlots)), (2, 1));
    check(&m);
}

#[test]
fn s16_an_incomplete_last_packet_is_treated_as_complete() {
    let mut m = members::<2>(512);
    for slots in [1, 2, 64] {
        for part in &long_packet(1, 0, 5, slots) {
            m[0].port.tx[0].put(part, NS_MOREFRAG);
        }
        m[0].txsync(0);
        assert_eq!(m[0].port.tx[0].avail(), 511);
        let got = m[1].receive(0);
        assert_eq!(got.len(), slots);
        assert_eq!(got.last().unwrap().flags, (slots as u16) << 8);
        // The next packet is a packet of its own.
        m[0].send(&frame(1, 0, 6));
        assert_eq!(numbers(&m[1].receive(0)), [6]);
    }
    for part in &long_packet(1, 0, 5, 300) {
        m[0].port.tx[0].put(part, NS_MOREFRAG);
    }
    m[0].txsync(0);
    m[0].send(&frame(1, 0, 7));
    assert_eq!(numbers(&m[1].receive(0)), [7]);
    assert_eq!(drops(&m[0]).dropped(Drop::TooManySlots), 1);
    check(&m);
}

#[test]
fn s16_an_empty_first_slot_leaves_the_addresses_to_the_second() {
    let mut m = members::<3>(8);
    introduce(&mut m);
    m[0].port.tx[0].put_packet(&[vec![], frame(1, 0, 1)], 0);
    m[0].txsync(0);
    let got = m[1].receive(0);
    assert_eq!(got.iter().map(|f| f.bytes.len()).collect::<Vec<_>>(), [0, 18]);
    assert!(m[2].receive(0).is_empty());
    // One slot alone, and a first slot between empty and whole, are too short.
    m[0].port.tx[0].put_packet(&[vec![0; 13], frame(1, 0, 1)], 0);
    m[0].port.tx[0].put(&[], 0);
    m[0].port.tx[0].put_packet(&[vec![], vec![0; 13]], 0);
    m[0].txsync(0);
    assert_eq!(drops(&m[0]).dropped(Drop::Short), 3);
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
fn s6_no_learn_is_obeyed() {
    for long in [false, true] {
        let mut m = members::<3>(8);
        let parts = if long { vec![frame(BROADCAST, 1, 0), vec![1]] } else { vec![frame(BROADCAST, 1, 0)] };
        m[1].port.tx[0].put_packet(&parts, NS_NO_LEARN);
        m[1].txsync(0);
        m.iter_mut().for_each(|m| drop(m.receive(0)));
        m[0].send(&frame(1, 0, 1));
        assert_eq!(received(&mut m), [vec![], vec![1], vec![1]]);
    }
}

#[test]
fn s16_an_address_that_moves_there_and_back_is_followed() {
    let mut m = members::<4>(64);
    introduce(&mut m);
    for (number, at) in [1, 2, 1, 3, 1].into_iter().enumerate() {
        // The mover sends nothing else.
        m[at].send(&frame(0, 50, 0));
        m[0].receive(0);
        m[0].send(&frame(50, 0, number as u32));
        for (k, got) in received(&mut m).into_iter().enumerate() {
            assert_eq!(got, if k == at { vec![number as u32] } else { vec![] });
        }
    }
    check(&m);
}

#[test]
fn s16_address_zero_is_no_bodys_until_somebody_uses_it() {
    let mut m = members::<3>(8);
    let mut f = frame(1, 2, 1);
    f[..6].fill(0);
    m[2].send(&f);
    assert_eq!(received(&mut m), [vec![1], vec![1], vec![]]);
}

#[test]
fn s16_a_frame_of_zeros_behind_others_does_not_go_where_they_go() {
    let mut m = members::<3>(64);
    introduce(&mut m);
    m[0].port.tx[0].put(&frame(1, 0, 1), 0);
    m[0].port.tx[0].put(&[&[0; 14][..], &2u32.to_le_bytes()].concat(), 0);
    m[0].txsync(0);
    // Its source, learned first, is its destination.
    assert_eq!(received(&mut m), [vec![], vec![1], vec![]]);
    assert_eq!(drops(&m[0]).dropped(Drop::ToSelf), 1);
}

#[test]
fn s16_a_port_that_left_swallows_nothing_and_its_successor_inherits_nothing() {
    let mut m = members::<3>(64);
    introduce(&mut m);
    let switch = m[0].switch.clone();
    m[0].send(&frame(2, 0, 1));
    assert_eq!(received(&mut m), [vec![], vec![], vec![1]]);
    switch.detach(&m[2]);
    m[0].send(&frame(2, 0, 2));
    assert_eq!(received(&mut m), [vec![], vec![2], vec![]], "to who is left");
    let mut late = switch.attach(2, &geometry(1, 64), BUF_SIZE);
    assert_eq!(mac_table::count(&switch.page, 2), 0);
    m[0].send(&frame(2, 0, 3));
    assert_eq!(received(&mut m), [vec![], vec![3], vec![]]);
    assert_eq!(numbers(&late.receive(0)), [3]);
    // A sender that was stopped writes an entry of the port that left: nobody minds.
    let stale = mac_table::Place { port: 2, tag: mac_table::tag_of(m[2].generation) };
    let addr = |x: u8| {
        let m = mac(x);
        u64::from_le_bytes([m[0], m[1], m[2], m[3], m[4], m[5], 0, 0])
    };
    mac_table::learn(&switch.page, addr(60), stale, |_| true);
    m[0].send(&frame(60, 0, 4));
    assert_eq!(received(&mut m), [vec![], vec![4], vec![]]);
    assert_eq!(numbers(&late.receive(0)), [4]);
    // And it is replaced as soon as somebody has the address.
    late.send(&frame(0, 60, 0));
    m[0].receive(0);
    m[0].send(&frame(60, 0, 5));
    assert_eq!((received(&mut m), numbers(&late.receive(0))), (vec![vec![]; 3], vec![5]));
    let [a, b, c] = &m;
    conserved(&[a, b, c, &late]);
}

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
fn s17_the_same_header_on_both_ends_travels_as_it_is() {
    for hdr in [10, 12] {
        let mut m = members::<3>(64);
        m.iter().for_each(|m| m.set_hdr_len(hdr));
        let with = |f: Vec<u8>| [(0..hdr as u8).collect(), f].concat();
        m[1].send(&with(frame(BROADCAST, 1, 0)));
        m.iter_mut().for_each(|m| drop(m.receive(0)));
        // The header in the first slot with the frame, and alone in it.
        m[0].port.tx[0].put(&with(frame(1, 0, 1)), 0);
        m[0].port.tx[0].put_packet(&[with(vec![]), frame(1, 0, 2)], 0);
        m[0].txsync(0);
        let got: Vec<_> = m[1].receive(0).into_iter().map(|f| f.bytes).collect();
        assert_eq!(got, [with(frame(1, 0, 1)), with(vec![]), frame(1, 0, 2)]);
        assert!(m[2].receive(0).is_empty(), "the address was found behind the header");
        // Too short: the header alone, less than it, 13 bytes behind it.
        for bytes in [with(vec![]), vec![0; 9], vec![], with(vec![0; 13])] {
            m[0].send(&bytes);
        }
        m[0].port.tx[0].put_packet(&[vec![0; 9], frame(1, 0, 2)], 0);
        m[0].port.tx[0].put_packet(&[with(vec![]), vec![0; 13]], 0);
        m[0].txsync(0);
        assert_eq!((drops(&m[0]).dropped(Drop::Short), m[1].receive(0)), (6, vec![]));
        check(&m);
    }
}

#[test]
fn another_header_length_is_a_counted_drop_of_that_copy() {
    for (own, other) in [(0, 10), (0, 12), (10, 0), (12, 10)] {
        let mut m = members::<3>(64);
        introduce(&mut m);
        m[0].set_hdr_len(own);
        m[2].set_hdr_len(own);
        m[1].set_hdr_len(other);
        let f = |dst| [vec![0; own as usize], frame(dst, 0, 1)].concat();
        m[0].send(&f(BROADCAST));
        m[0].send(&f(1));
        assert_eq!((m[1].receive(0).len(), m[2].receive(0).len()), (0, 1));
        assert_eq!(drops(&m[0]).dropped(Drop::HeaderMismatch), 2);
        check(&m);
    }
}

#[test]
fn s6_indirect_payloads_are_fetched_or_dropped() {
    let mut m = members::<3>(64);
    introduce(&mut m);
    let data = frame(1, 0, 42);
    let tx = &m[0].port.tx[0];
    let put = |ptr: u64, len: usize, more: u16| {
        let idx = tx.slot(tx.head()).buf_idx();
        assert!(tx.put_word(SlotWord::new(idx, len as u16, NS_INDIRECT | more), ptr));
    };
    put(data.as_ptr() as u64, data.len(), 0);
    put(0, 60, 0);
    put(8, 60, 0);
    put(data.as_ptr() as u64, data.len(), NS_MOREFRAG);
    put(8, 60, 0);
    put(data.as_ptr() as u64, BUF_SIZE as usize + 1, 0);
    tx.put(&frame(1, 0, 43), 0);
    m[0].txsync(0);
    let got = packets(&m[1].receive(0));
    assert_eq!(got.len(), 3);
    assert_eq!(got[0][0].bytes, data);
    assert_eq!(got[0][0].flags, 0x0100, "the receiver sees a slot like others");
    assert_eq!((&got[1][0].bytes, got[1][1].bytes.len()), (&data, 0), "a later slot is delivered empty");
    assert_eq!(numbers(&got[2]), [43]);
    assert_eq!(drops(&m[0]).dropped(Drop::Indirect) + drops(&m[0]).dropped(Drop::BadSlot), 3);
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
fn s16_a_frame_above_the_receivers_buffer_is_dropped_for_it_alone() {
    let switch = SimSwitch::default();
    let mut m = [(0, 256), (1, 64), (2, 256)].map(|(i, size)| switch.attach(i, &geometry(1, 32), size));
    introduce(&mut m);
    for len in [64, 65, 256] {
        let mut f = frame(BROADCAST, 0, len);
        f.resize(len as usize, 7);
        m[0].send(&f);
        f[..6].copy_from_slice(&mac(1));
        m[0].send(&f);
    }
    assert_eq!(received(&mut m), [vec![], vec![64, 64], vec![64, 65, 256]]);
    assert_eq!(drops(&m[0]).dropped(Drop::BadSlot), 4);
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
            let at = rng.below(1024) as usize;
            switch.page.macs[at].0[rng.below(8) as usize].store(rng.next_u64(), Relaxed);
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

#[test]
fn a_sync_that_died_is_finished_if_its_publishing_arrived_and_forgotten_if_not() {
    for arrived in [false, true] {
        let mut m = members::<2>(16);
        introduce(&mut m);
        let (tx, rx) = (&m[0].port.tx[0], &m[1].port.rx[0]);
        let before = tx.counters();
        tx.put(&frame(1, 0, 1), 0);
        // As far as the journal; then, or not, the exchange.
        let (state, far) = (&tx.handle.shared.state, &rx.handle.shared.state);
        let start = far.producer.hwtail.load();
        let mirror = rx.handle.shared.mirror[start as usize].load(Relaxed);
        rx.handle.ring.bufs.payload(mirror).unwrap().copy_from(&frame(1, 0, 1));
        rx.handle.shared.desc[start as usize].store(18 | 0x0100_0000, Relaxed);
        for (word, v) in [
            (&state.journal.far_tail, start + 1),
            (&state.journal.position, tx.head()),
            (&state.journal.packets, 1),
            (&state.journal.bytes, 18),
            (&state.journal.delivered, 1),
            (&state.journal.generation, m[1].generation),
        ] {
            word.store(v, Relaxed);
        }
        if arrived {
            assert!(far.producer.hwtail.publish_from(start, start + 1));
        }
        repair_sender(state, 16, Some(far));
        repair_receiver(far, 16);
        let after = m[0].port.tx[0].counters();
        assert_eq!(after.packets - before.packets, u64::from(arrived));
        m[0].port.tx[0].set(m[0].port.tx[0].head(), m[0].port.tx[0].head());
        m[0].txsync(0);
        m[0].send(&frame(1, 0, 2));
        assert_eq!(numbers(&m[1].receive(0)), [1, 2], "once, either way");
        check(&m);
    }
}

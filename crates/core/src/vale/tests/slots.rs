//! What is in slots: lengths, packets of several slots, headers, indirect payloads.

use super::*;

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

//! Who is where: addresses learned, forgotten, and what they do to a frame.

use super::*;

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
    m[2].set_hdr_len(12);
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

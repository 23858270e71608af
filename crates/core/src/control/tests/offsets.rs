//! The OFFSETS option (abi.md 8, 9.13), and what it does to traffic (semantics.md 14).

use super::world::{End, World};
use super::*;
use crate::kring::SyncOutcome;
use crate::layout::Dir;
use crate::offsets::{Offsets, aligned};
use crate::stats::{Counters, Drop};
use ringway_abi::ring::NS_INDIRECT;
use ringway_os::ring::SlotWord;
use std::sync::atomic::Ordering::Relaxed;

const BUF: u64 = 2112;
const EOPNOTSUPP: u32 = Errno::EOPNOTSUPP.0 as u32;
const EINVAL: u32 = Errno::EINVAL.0 as u32;

fn wish(initial: u64, max: u64, bits: u32) -> ReqOption {
    ReqOption::offsets(&nmreq_opt_offsets {
        nro_initial_offset: initial,
        nro_max_offset: max,
        nro_offset_bits: bits,
        ..Default::default()
    })
}

fn max_of(option: &ReqOption) -> u64 {
    u64::from_ne_bytes(option.body[..8].try_into().unwrap())
}

fn unknown(nro_reqtype: u32) -> ReqOption {
    ReqOption { nro_reqtype, ..ReqOption::default() }
}

fn open(w: &mut World, who: Asker, name: &str, option: Option<ReqOption>) -> End {
    let mut options: Vec<ReqOption> = option.into_iter().collect();
    w.open_with(who, name, &all(), &mut options)
}

#[test]
fn abi_9_13_wishes_are_checked_in_order() {
    let mut r = registry();
    for (initial, max, bits, errno) in [
        (0, 0, 65, Errno::EINVAL),
        (0, BUF + 1, 0, Errno::EINVAL),
        (0, u64::MAX, 0, Errno::EINVAL),
        (0, 64, 4, Errno::EINVAL),
        (0, 16, 4, Errno::EINVAL),
        (65, 64, 0, Errno::EINVAL),
    ] {
        for name in ["vale0:a", "x{1", "x}1"] {
            let mut options = [wish(initial, max, bits)];
            let e = r.register_with(ME, name, &all(), &mut options).unwrap_err();
            assert_eq!((e.errno, options[0].nro_status), (errno, errno.0 as u32), "{initial} {max} {bits}");
            assert!(r.is_empty(), "{name} left {r:?}");
        }
    }
    for (initial, max, bits, mask) in
        [(0, BUF, 0, u64::MAX), (15, 15, 4, 15), (64, 2000, 16, 0xffff), (0, 0, 64, u64::MAX), (0, 1, 1, 1)]
    {
        let mut options = [wish(initial, max, bits)];
        let b = r.register_with(ME, "vale0:a", &all(), &mut options).unwrap();
        assert_eq!((options[0].nro_status, max_of(&options[0])), (0, max));
        let port = *r.names.get("vale0:a").unwrap();
        for dir in [Dir::Tx, Dir::Rx] {
            let h = r.handle(port, dir, 0).unwrap();
            assert_eq!(h.ring.header.offset_mask.load(Relaxed), mask);
            assert!(h.ring.slots.iter().all(|s| s.ptr() == initial));
            assert_eq!(h.offsets(), Offsets { mask, max: max as u32, gap: (BUF - max) as u32 });
        }
        r.unbind(b);
        assert!(r.is_empty());
    }
}

#[test]
fn abi_9_13_a_ring_that_has_offsets_keeps_them() {
    let mut r = registry();
    let one = |r: &mut Registry, option: ReqOption| {
        let mut options = [option];
        let b = r.register_with(ME, "vale0:a", &all(), &mut options).map_err(|e| e.errno);
        (b, options[0].nro_status, max_of(&options[0]))
    };
    let plain = r.register(ME, "vale0:a", &all()).unwrap();
    let port = *r.names.get("vale0:a").unwrap();
    let mask = |r: &Registry| r.handle(port, Dir::Rx, 0).unwrap().ring.header.offset_mask.load(Relaxed);
    assert_eq!(mask(&r), 0);
    // A second opener brings them, but no initial offset: the slots are in use.
    let (a, status, _) = one(&mut r, wish(100, 200, 12));
    assert_eq!((status, mask(&r)), (0, 0xfff));
    assert!(r.handle(port, Dir::Tx, 0).unwrap().ring.slots.iter().all(|s| s.ptr() == 0));
    assert_eq!(one(&mut r, wish(0, 201, 12)), (Err(Errno::EBUSY), Errno::EBUSY.0 as u32, 201));
    assert_eq!(one(&mut r, wish(0, 100, 13)), (Err(Errno::EBUSY), Errno::EBUSY.0 as u32, 100));
    let (b, status, max) = one(&mut r, wish(0, 100, 8));
    assert_eq!((status, max, mask(&r)), (0, 200, 0xfff), "what is in force");
    [plain, a.unwrap(), b.unwrap()].into_iter().for_each(|b| r.unbind(b));
    let again = r.register(ME, "vale0:a", &all()).unwrap();
    let port = *r.names.get("vale0:a").unwrap();
    assert_eq!(r.handle(port, Dir::Rx, 0).unwrap().ring.header.offset_mask.load(Relaxed), 0);
    r.unbind(again);
    assert!(r.is_empty());
}

#[test]
fn abi_8_every_option_gets_its_status() {
    let mut r = registry();
    let ask = |r: &mut Registry, name: &str, mut options: Vec<ReqOption>| {
        let errno = r.register_with(ME, name, &all(), &mut options).err().map(|e| e.errno);
        (errno, options.iter().map(|o| o.nro_status).collect::<Vec<_>>())
    };
    let offsets = || wish(0, 0, 0);
    // What nobody serves undoes the registration; what was served keeps its own status.
    for other in [NETMAP_REQ_OPT_MAX, 77, u32::MAX] {
        let got = ask(&mut r, "vale0:a", vec![offsets(), unknown(other), unknown(other)]);
        assert_eq!(got, (Some(Errno::EOPNOTSUPP), vec![0, EOPNOTSUPP, EOPNOTSUPP]));
        assert!(r.is_empty());
    }
    let sized = |nro_reqtype: u32| ReqOption {
        nro_reqtype,
        nro_status: 0,
        body: vec![0; option_size(nro_reqtype, 0) - 24],
    };
    for known in [NETMAP_REQ_OPT_EXTMEM, NETMAP_REQ_OPT_CSB, NETMAP_REQ_OPT_SYNC_KLOOP_MODE] {
        assert_eq!(ask(&mut r, "vale0:a", vec![sized(known)]), (Some(Errno::EOPNOTSUPP), vec![EOPNOTSUPP]));
    }
    // Early failures: the statuses of the culprits, 0 elsewhere.
    let twice = vec![unknown(99), offsets(), sized(NETMAP_REQ_OPT_CSB), offsets()];
    assert_eq!(ask(&mut r, "vale0:a", twice), (Some(Errno::EINVAL), vec![0, EINVAL, 0, EINVAL]));
    assert_eq!(ask(&mut r, "vale0:a", vec![offsets(), unknown(0)]), (Some(Errno::EINVAL), vec![0, EINVAL]));
    let mut short = offsets();
    short.body.pop();
    assert_eq!(ask(&mut r, "vale0:a", vec![short]), (Some(Errno::EINVAL), vec![EINVAL]));
    // A request that fails before their turn leaves them as nobody's.
    assert_eq!(ask(&mut r, "eth99", vec![offsets()]), (Some(Errno::ENXIO), vec![EOPNOTSUPP]));
    assert!(r.is_empty());
}

#[test]
fn s14_zero_copy_monitors_take_none() {
    let mut r = registry();
    r.register(ME, "x{1", &all()).unwrap();
    for (flags, outcome) in [(NR_ZCOPY_MON, Some(Errno::EOPNOTSUPP)), (NR_MONITOR_TX, None)] {
        let req = nmreq_register { nr_flags: flags, ..all() };
        let mut options = [wish(0, 64, 0)];
        let got = r.register_with(ME, "x{1", &req, &mut options).err().map(|e| e.errno);
        assert_eq!(got, outcome);
        assert_eq!(options[0].nro_status, outcome.map_or(0, |e| e.0 as u32));
    }
}

#[test]
fn s14_null_ports_show_offsets() {
    let mut w = World::new();
    let a = open(&mut w, ME, "vale0:a", None);
    let mem_id = w.registry().grant(a.id).unwrap().mem_id;
    let null = nmreq_register {
        nr_mode: NR_REG_NULL,
        nr_mem_id: mem_id,
        nr_tx_rings: 1,
        nr_rx_rings: 1,
        nr_tx_slots: 8,
        nr_rx_slots: 8,
        ..Default::default()
    };
    let n = w.open_with(ME, "n", &null, &mut [wish(128, 256, 16)]);
    let ring = &n.ring(Dir::Tx).handle().ring;
    assert_eq!(ring.header.offset_mask.load(Relaxed), 0xffff);
    assert!(ring.slots.iter().all(|s| s.ptr() == 128));
}

fn frame(n: usize) -> Vec<u8> {
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &(0..n).map(|i| i as u8).collect::<Vec<_>>()[..]].concat()
}

/// Sends a packet whose slots begin at `ofs`.
fn send(end: &mut End, parts: &[Vec<u8>], ofs: u32) {
    let h = end.ring(Dir::Tx).handle();
    let (n, head) = (h.num_slots(), h.ring.header.head.load(Relaxed));
    for i in 0..parts.len() as u32 {
        let slot = &h.ring.slots[crate::kring::forward(n, head, i) as usize];
        slot.set_ptr(0xabcd_0000_0000 | u64::from(ofs));
    }
    end.put_at(parts, ofs as usize);
    assert_eq!(end.sync(Dir::Tx), SyncOutcome::Done);
}

#[test]
fn s14_a_switch_places_packets_by_the_receivers_offset_and_the_senders_alignment() {
    for strangers in [false, true] {
        let other = if strangers { Asker { uid: 2000 } } else { ME };
        let mut w = World::new();
        let mut a = open(&mut w, ME, "vale0:a", Some(wish(0, 2000, 16)));
        let mut b = open(&mut w, other, "vale0:b", Some(wish(130, 1024, 16)));
        let mut plain = open(&mut w, ME, "vale0:c", None);
        for (i, from) in [0u32, 2, 64, 100, 128, 191, 1500].into_iter().enumerate() {
            let parts = [frame(300 + i), vec![i as u8; 5]];
            send(&mut a, &parts, from);
            // In the first lap every slot says 130.
            let want = aligned(from, 130);
            let got = b.receive_at(|ptr| (ptr & 0xffff) as usize);
            let sent: Vec<(Vec<u8>, u64)> = parts.iter().map(|p| (p.clone(), want.into())).collect();
            assert_eq!(got, sent, "from {from}, strangers {strangers}");
            // Without a mask a slot cannot say anything but the start.
            let got = plain.receive_at(|_| 0);
            assert_eq!(got, parts.map(|p| (p, 0)));
        }
        // The other way: a sender without offsets begins at 0.
        plain.send(&[frame(99)]);
        assert_eq!(b.receive_at(|p| (p & 0xffff) as usize), [(frame(99), 128)]);
        assert_eq!(a.receive_at(|p| (p & 0xffff) as usize), [(frame(99), 0)]);
        let counters = Counters::read(&a.ring(Dir::Tx).handle().shared.state);
        assert_eq!((counters.packets, counters.all_drops()), (7, 0));
        [&a, &b, &plain].into_iter().for_each(|e| w.close(e));
        assert!(w.registry().is_empty());
    }
}

#[test]
fn s14_what_a_receiver_writes_into_a_slot_counts_for_the_next_packet_there_and_is_cropped() {
    let mut w = World::new();
    let mut a = open(&mut w, ME, "vale0:a", None);
    let req = nmreq_register { nr_rx_slots: 4, ..all() };
    let mut b = w.open_with(ME, "vale0:b", &req, &mut [wish(64, 640, 12)]);
    let mut said = [64u64; 4];
    for (i, next) in [320, 0, 0xfff, 640, 64, 1].into_iter().cycle().take(40).enumerate() {
        a.send(&[frame(50)]);
        assert_eq!(b.sync(Dir::Rx), SyncOutcome::Done);
        assert_eq!(b.avail(Dir::Rx), 1);
        let ring = &b.ring(Dir::Rx).handle().ring;
        let k = ring.header.head.load(Relaxed) as usize;
        let slot = &ring.slots[k];
        // Bits outside the mask are the receiver's own.
        let want = aligned(0, (said[k] & 0xfff).min(640) as u32);
        assert_eq!(slot.ptr(), said[k] & !0xfff | u64::from(want), "packet {i}");
        let payload = ring.bufs.payload(slot.load().buf_idx()).unwrap();
        assert_eq!(payload.slice(want as usize, 62).to_vec(), frame(50), "packet {i}");
        said[k] = (i as u64) << 12 | next;
        slot.set_ptr(said[k]);
        let next = (k as u32 + 1) % 4;
        ring.header.cur.store(next, Relaxed);
        ring.header.head.store(next, std::sync::atomic::Ordering::Release);
        assert_eq!(b.sync(Dir::Rx), SyncOutcome::Done);
    }
}

#[test]
fn s14_what_does_not_fit_behind_the_offset_is_delivered_empty() {
    let mut w = World::new();
    let mut a = open(&mut w, ME, "vale0:a", Some(wish(0, 2112, 16)));
    let mut b = open(&mut w, ME, "vale0:b", Some(wish(1024, 1024, 16)));
    let ofs = |p: u64| (p & 0xffff) as usize;
    for (len, whole) in [(1088, true), (1089, false), (2112, false)] {
        send(&mut a, &[frame(len - 12)], 0);
        let got = b.receive_at(ofs);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].0.len(), if whole { len } else { 0 }, "{len}");
    }
    // The sender's own slots: length and offset together must fit its buffer.
    let put = |a: &mut End, len: u16, at: u64| {
        let h = a.ring(Dir::Tx).handle();
        let head = h.ring.header.head.load(Relaxed);
        let slot = &h.ring.slots[head as usize];
        slot.store(SlotWord::new(slot.load().buf_idx(), len, 0));
        slot.set_ptr(at);
        let next = crate::kring::next(h.num_slots(), head);
        h.ring.header.cur.store(next, Relaxed);
        h.ring.header.head.store(next, std::sync::atomic::Ordering::Release);
        assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
    };
    for (len, at, bad) in [(112, 2000, 0), (113, 2000, 1), (14, 2098, 1), (14, 2099, 2), (14, 0xffff, 3)] {
        put(&mut a, len, at);
        let state = a.ring(Dir::Tx).handle().shared.state.clone();
        assert_eq!(Counters::read(&state).dropped(Drop::BadSlot), bad, "{len} bytes at {at}");
        b.receive();
    }
}

#[test]
fn s14_indirect_payload_goes_to_the_receivers_own_offset() {
    let mut w = World::new();
    let mut a = open(&mut w, ME, "vale0:a", Some(wish(0, 2112, 16)));
    let mut b = open(&mut w, ME, "vale0:b", Some(wish(70, 1024, 16)));
    let data = [vec![0; 3], frame(500)].concat();
    let h = a.ring(Dir::Tx).handle();
    let slot = &h.ring.slots[0];
    slot.store(SlotWord::new(slot.load().buf_idx(), 512, NS_INDIRECT));
    slot.set_ptr(data[3..].as_ptr() as u64);
    h.ring.header.cur.store(1, Relaxed);
    h.ring.header.head.store(1, std::sync::atomic::Ordering::Release);
    assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
    assert_eq!(b.receive_at(|p| (p & 0xffff) as usize), [(frame(500), 70)]);
}

#[test]
fn s17_converted_packets_begin_at_the_start_and_the_receivers_slots_say_so() {
    let mut w = World::new();
    let mut a = open(&mut w, ME, "vale0:a", Some(wish(0, 1000, 16)));
    let mut b = open(&mut w, ME, "vale0:b", Some(wish(256, 1000, 16)));
    w.registry().port_hdr_set(ME, "vale0:a", 12).unwrap();
    send(&mut a, &[[vec![0; 12], frame(100)].concat()], 77);
    assert_eq!(b.receive_at(|p| (p & 0xffff) as usize), [(frame(100), 0)]);
    send(&mut b, &[frame(200)], 333);
    assert_eq!(a.receive_at(|p| (p & 0xffff) as usize), [([vec![0; 12], frame(200)].concat(), 0)]);
}

#[test]
fn s14_pipes_carry_offsets_and_keep_the_larger() {
    for strangers in [false, true] {
        let mut w = World::new();
        let root = Asker { uid: 0 };
        let req = nmreq_register { nr_tx_slots: 8, nr_rx_slots: 8, ..all() };
        let mut a = w.open_with(ME, "x{1", &req, &mut [wish(128, 1024, 16)]);
        // The first opener's mask and slots are seen at the other end, too.
        let mut b = open(&mut w, if strangers { root } else { ME }, "x}1", None);
        for dir in [Dir::Tx, Dir::Rx] {
            for end in [&a, &b] {
                let ring = &end.ring(dir).handle().ring;
                assert_eq!(ring.header.offset_mask.load(Relaxed), 0xffff);
                assert!(ring.slots.iter().all(|s| s.ptr() == 128));
            }
        }
        send(&mut a, &[frame(40)], 200);
        let ptr = 0xabcd_0000_0000;
        assert_eq!(b.receive_at(|p| (p & 0xffff) as usize), [(frame(40), ptr | 200)]);
        w.close(&b);
        // Now the receiver has offsets of its own: the larger one stays.
        let who = if strangers { root } else { ME };
        let mut b = open(&mut w, who, "x}1", Some(wish(0, 1024, 16)));
        for (k, own, sent) in [(1, 300, 100), (2, 100, 300), (3, 5000, 20)] {
            b.ring(Dir::Rx).handle().ring.slots[k].set_ptr(own);
            send(&mut a, &[frame(40)], sent);
            let want = u64::from(sent).max(own.min(1024));
            let got = b.receive_at(|_| sent as usize);
            assert_eq!(got, [(frame(40), ptr | want)], "slot {k}");
        }
        [&a, &b].into_iter().for_each(|e| w.close(e));
        assert!(w.registry().is_empty());
    }
}

/// The first bytes of a copy are those of the frame, wherever it begins, and lie where the monitor's own slots say.
#[test]
fn s14_copy_monitors_go_by_their_own_offsets_and_those_of_what_they_watch() {
    let watch = |flags| nmreq_register { nr_flags: flags, ..all() };
    let ofs = |ptr: u64| (ptr & 0xffff) as usize;
    for (a_name, b_name) in [("x{1", "x}1"), ("vale0:a", "vale0:b")] {
        let mut w = World::new();
        let mut a = open(&mut w, ME, a_name, Some(wish(64, 1000, 16)));
        let mut b = open(&mut w, ME, b_name, Some(wish(130, 1000, 16)));
        let mut plain = w.open_with(ME, a_name, &watch(NR_MONITOR_TX), &mut []);
        let mut own = w.open_with(ME, a_name, &watch(NR_MONITOR_TX), &mut [wish(77, 300, 16)]);
        let mut rx = w.open_with(ME, b_name, &watch(NR_MONITOR_RX), &mut [wish(3, 2112, 16)]);
        let mut first = 0;
        for (i, from) in [0u32, 64, 130, 131, 500, 1000].into_iter().enumerate() {
            let parts = [frame(100 + i), vec![i as u8; 9]];
            send(&mut a, &parts, from);
            let at = |ptr: u64| parts.clone().map(|p| (p, ptr)).to_vec();
            assert_eq!(plain.receive_at(|_| 0), at(0), "{a_name} from {from}");
            assert_eq!(own.receive_at(ofs), at(77), "{a_name} from {from}");
            let h = rx.ring(Dir::Rx).handle();
            assert!(h.ring.slots.iter().take(first + 2).all(|s| s.ptr() == 3), "ptr is not copied");
            assert_eq!(rx.receive_at(ofs), at(3), "{b_name} from {from}");
            first += 2;
            b.receive();
        }
        // What the monitor writes into its slots counts for what comes there, and what does not fit is cut.
        let slots = &rx.ring(Dir::Rx).handle().ring.slots;
        slots.iter().skip(first).take(2).zip([2100, 2112]).for_each(|(slot, at)| slot.set_ptr(at));
        send(&mut a, &[frame(100), vec![9; 9]], 64);
        let got = rx.receive_at(ofs);
        assert_eq!(got, [(frame(100)[..12].to_vec(), 2100), (vec![], 2112)]);
        [&a, &b, &plain, &own, &rx].into_iter().for_each(|e| w.close(e));
        assert!(w.registry().is_empty());
    }
}

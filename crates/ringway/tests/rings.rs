//! Views of rings, over the embedded engine.

use ringway::{
    Dir, Errno, NS_BUF_CHANGED, NS_MOREFRAG, Netmap, OpenError, Port, PortBuilder, SwapError, swap,
};
use std::collections::BTreeSet;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn pipe(netmap: &Netmap, with: impl Fn(PortBuilder) -> PortBuilder) -> Result<(Port, Port), OpenError> {
    Ok((with(netmap.builder("netmap:x{1")).open()?, with(netmap.builder("netmap:x}1")).open()?))
}

fn send(port: &mut Port, packet: &[u8]) -> Outcome {
    let mut tx = port.tx(0);
    assert!(tx.send(packet));
    Ok(tx.sync()?)
}

/// All buffers in the slots of a port's rings that are ours.
fn owned(port: &mut Port) -> Vec<u32> {
    let (tx, rx) = port.rings();
    let tx = tx.iter().flat_map(|r| (0..r.space()).map(|k| r.slot(k).unwrap().buf_idx()).collect::<Vec<_>>());
    let rx = rx.iter().flat_map(|r| r.iter().map(|s| s.buf_idx()).collect::<Vec<_>>());
    tx.chain(rx).collect()
}

#[test]
fn a_packet_is_there_when_the_senders_sync_and_the_receivers_sync_are_done() -> Outcome {
    let netmap = Netmap::embedded();
    let (mut a, mut b) = (netmap.open("vale0:a")?, netmap.open("vale0:b")?);
    for round in 0..5000u32 {
        let mut frame = [0xff; 60];
        frame[14..18].copy_from_slice(&round.to_ne_bytes());
        send(&mut a, &frame)?;
        let mut rx = b.rx(0);
        rx.sync()?;
        assert_eq!(rx.len(), 1);
        assert_eq!(rx.slot(0).unwrap().payload().to_vec(), frame);
        rx.release(1);
    }
    assert_eq!((a.counters().tx.delivered, b.counters().rx.packets), (5000, 5000));
    Ok(())
}

#[test]
fn counts_are_clamped_to_the_window_and_published_on_drop() -> Outcome {
    let netmap = Netmap::embedded();
    let mut port = netmap.builder("netmap:x{1").slots(16).open()?;
    let mut tx = port.tx(0);
    assert_eq!((tx.space(), tx.num_slots(), tx.pending()), (15, 16, 0));
    assert_eq!((tx.head(), tx.cur(), tx.tail()), (0, 0, 15));
    assert!(tx.slot(15).is_none() && tx.slot(u32::MAX).is_none() && tx.slot(14).is_some());
    assert_eq!(tx.want(100), 15);
    assert_eq!(tx.cur(), 15);
    assert_eq!(tx.want(3), 3);
    assert_eq!(tx.advance(5), 5);
    assert_eq!((tx.head(), tx.cur(), tx.space(), tx.pending()), (5, 5, 10, 5));
    drop(tx);
    let mut tx = port.tx(0);
    assert_eq!((tx.head(), tx.cur(), tx.space()), (5, 5, 10));
    assert_eq!(tx.advance(u32::MAX), 10);
    assert_eq!((tx.head(), tx.space(), tx.advance(1)), (15, 0, 0));
    // A pipe takes them all, and nobody has given one back.
    tx.sync()?;
    assert_eq!((tx.space(), tx.pending()), (0, 15));
    Ok(())
}

#[test]
fn netmap_shaped_cursors_stay_between_head_and_tail() -> Outcome {
    let netmap = Netmap::embedded();
    let mut port = netmap.builder("vale0:a").slots(16).open()?;
    let mut tx = port.tx(0);
    tx.advance(10);
    tx.sync()?;
    assert_eq!((tx.head(), tx.tail()), (10, 9));
    assert!(!tx.set_head(16) && !tx.set_cur(u32::MAX));
    assert!(tx.set_cur(3));
    assert!(tx.set_head(15));
    assert_eq!((tx.head(), tx.cur(), tx.space()), (15, 3, 10));
    assert!(!tx.set_head(14) && !tx.set_cur(14) && !tx.set_head(10));
    assert!(tx.slot_at(14).is_none() && tx.slot_at(9).is_none() && tx.slot_at(16).is_none());
    assert_eq!(tx.slot_at(0).unwrap().buf_idx(), tx.slot(1).unwrap().buf_idx());
    assert_eq!(tx.peek(0).unwrap().buf_idx(), tx.slot(1).unwrap().buf_idx());
    assert!(tx.peek(16).is_none());
    assert!(tx.set_head(9));
    assert_eq!((tx.head(), tx.cur(), tx.space()), (9, 9, 0));
    Ok(())
}

#[test]
fn packets_of_every_length_arrive_whole() -> Outcome {
    let netmap = Netmap::embedded();
    let (mut a, mut b) = (netmap.open("vale0:a")?, netmap.open("vale0:b")?);
    let size = a.buf_size();
    let mut out = vec![0; 64 * size];
    for len in [14, 60, size - 1, size, size + 1, 2 * size, 5 * size + 7, 64 * size] {
        let mut packet: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        packet[..6].fill(0xff);
        send(&mut a, &packet)?;
        b.rxsync()?;
        let mut rx = b.rx(0);
        assert_eq!(rx.first_packet(), Some(len.div_ceil(size) as u32));
        assert_eq!(rx.recv(&mut out), Some(len));
        assert_eq!(out[..len], packet);
        assert_eq!(rx.recv(&mut out), None);
    }
    let mut tx = a.tx(0);
    assert!(!tx.send(&vec![0; 64 * size + 1]), "more than 64 slots");
    tx.advance(tx.space() - 1);
    assert!(!tx.send(&vec![0; size + 1]) && tx.send(&vec![0; size]));
    drop(tx);
    // What does not fit the caller's buffer is cut, and said.
    send(&mut b, &[0xff; 60])?;
    a.rxsync()?;
    assert_eq!(a.rx(0).recv(&mut out[..10]), Some(60));
    Ok(())
}

#[test]
fn held_packets_stay_readable_and_slots_go_back_when_released() -> Outcome {
    let netmap = Netmap::embedded();
    let (mut a, mut b) = pipe(&netmap, |p| p.slots(8))?;
    for i in 0..7 {
        send(&mut a, &[i; 20])?;
    }
    let mut rx = b.rx(0);
    rx.sync()?;
    assert_eq!((rx.len(), rx.hold(7), rx.held()), (7, 7, 7));
    rx.sync()?;
    assert_eq!(rx.iter().map(|s| s.payload().load_u8(0).unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!((rx.release(3), rx.held()), (3, 4));
    rx.sync()?;
    a.txsync()?;
    assert_eq!(a.tx(0).space(), 3);
    Ok(())
}

#[test]
fn ports_are_exclusive_unless_they_say_otherwise() -> Outcome {
    let netmap = Netmap::embedded();
    let first = netmap.open("vale0:a")?;
    assert!(first.is_exclusive());
    assert_eq!(netmap.builder("vale0:a").shared().open().unwrap_err().errno(), Errno::EBUSY);
    drop(first);
    let shared = netmap.builder("vale0:a").shared().open()?;
    assert_eq!(netmap.open("vale0:a").unwrap_err().errno(), Errno::EBUSY);
    let other = netmap.builder("vale0:a").shared().open()?;
    assert_eq!((shared.mem_id(), shared.name()), (other.mem_id(), "vale0:a"));
    assert_eq!(netmap.ports()?.len(), 1);
    drop((shared, other));
    assert!(netmap.ports()?.is_empty());
    Ok(())
}

#[test]
fn the_builder_says_what_names_say_and_more() -> Outcome {
    let netmap = Netmap::embedded();
    let mut port = netmap.builder("vale0:a@conf:slots=64").rings(4).rx_slots(128).ring(2).open()?;
    let g = port.geometry();
    assert_eq!((g.tx_rings, g.rx_rings, g.tx_slots, g.rx_slots), (4, 4, 64, 128));
    assert_eq!((port.tx_rings(), port.rx_rings(), port.bound_rings(Dir::Tx)), (1, 1, 2..3));
    assert_eq!(port.tx(0).index(), 2);
    assert!(port.get_tx(1).is_none());
    let rest = netmap.builder("vale0:a-3").tx_only().open()?;
    assert_eq!((rest.tx_rings(), rest.rx_rings()), (1, 0));
    let shared = netmap.open("vale1:s@share=vale0:a")?;
    assert_eq!(shared.mem_id(), port.mem_id());

    let error = netmap.open("eth0").unwrap_err();
    assert_eq!(error.to_string(), "eth0: invalid request, prefix unknown or missing");
    assert_eq!(error.errno(), Errno::EINVAL);
    assert_eq!(netmap.open("netmap:nosuch").unwrap_err().errno(), Errno::ENXIO);
    let error = netmap.open("vale0:z@extmem=/nonexistent/z").unwrap_err();
    assert_eq!(error.errno(), Errno::ENOENT);
    assert!(error.to_string().starts_with("cannot open '/nonexistent/z': "), "{error}");
    Ok(())
}

#[test]
fn ports_that_name_one_file_have_one_region() -> Outcome {
    let path = std::env::temp_dir().join(format!("ringway-extmem-{}", std::process::id()));
    let name = |port: &str, more: &str| format!("{port}@extmem:file={}{more}", path.display());
    let file = std::fs::File::create(&path)?;
    file.set_len(12 << 20)?;
    let netmap = Netmap::embedded();
    let mut a = netmap.open(&name("vale0:a", ",if-num=4,ring-num=8,buf-size=1536"))?;
    let mut b = netmap.open(&name("vale0:b", ""))?;
    assert_eq!((a.mem_id(), a.buf_size()), (b.mem_id(), 1536));
    send(&mut a, &[0xff; 60])?;
    b.rxsync()?;
    assert_eq!(b.rx(0).len(), 1);
    let (mut tx, mut rx) = (a.tx(0), b.rx(0));
    swap(tx.place(0)?, rx.place(0)?)?;
    drop((tx, rx));
    file.set_len(1 << 20)?;
    let small = netmap.open(&name("vale0:c", "")).unwrap_err();
    assert_eq!(small.errno(), Errno::ENOMEM);
    // The file can go away; the region does not.
    std::fs::remove_file(&path)?;
    send(&mut b, &[0xff; 60])?;
    a.rxsync()?;
    assert_eq!(a.rx(0).len(), 1);
    Ok(())
}

#[test]
fn header_lengths_are_asked_and_set_by_name() -> Outcome {
    let netmap = Netmap::embedded();
    let _port = netmap.builder("vale0:a").accept_vnet_hdr().open()?;
    netmap.set_header_len("vale0:a", 12)?;
    assert_eq!(netmap.header_len("vale0:a")?, 12);
    assert_eq!(netmap.set_header_len("vale0:a", 11).unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(netmap.builder("vale0:a").shared().open().unwrap_err().errno(), Errno::EIO);
    Ok(())
}

#[test]
fn swaps_move_buffers_and_never_lose_one() -> Outcome {
    let netmap = Netmap::embedded();
    let (mut a, mut b) = (netmap.open("netmap:x{1")?, netmap.open("netmap:x{2")?);
    let before: BTreeSet<u32> = owned(&mut a).into_iter().chain(owned(&mut b)).collect();
    let (mut one, mut two) = (a.tx(0), b.tx(0));
    let (first, second) = (one.slot(3).unwrap().buf_idx(), two.slot(5).unwrap().buf_idx());
    swap(one.place(3)?, two.place(5)?)?;
    assert_eq!((one.slot(3).unwrap().buf_idx(), two.slot(5).unwrap().buf_idx()), (second, first));
    assert_eq!(one.slot(3).unwrap().flags(), NS_BUF_CHANGED);
    // Flags cannot take the mark away.
    one.slot(3).unwrap().set(60, NS_MOREFRAG);
    assert_eq!(one.slot(3).unwrap().flags(), NS_BUF_CHANGED | NS_MOREFRAG);
    assert_eq!(one.place(5000).unwrap_err(), SwapError::NoSlot);
    drop((one, two));
    let after: BTreeSet<u32> = owned(&mut a).into_iter().chain(owned(&mut b)).collect();
    assert_eq!(before, after);
    Ok(())
}

#[test]
fn swaps_are_refused_between_regions_and_on_shared_rings() -> Outcome {
    let netmap = Netmap::embedded();
    let (mut a, mut b) = (netmap.open("vale0:a")?, netmap.open("vale0:b")?);
    assert_eq!(swap(a.tx(0).place(0)?, b.tx(0).place(0)?), Err(SwapError::OtherRegion));
    assert_eq!(a.tx(0).forward(&mut b.rx(0), 1), Err(SwapError::OtherRegion));
    let mut c = netmap.builder("vale0:c").share_memory_with(&a).shared().open()?;
    assert_eq!(c.tx(0).place(0).unwrap_err(), SwapError::Shared);
    assert_eq!(a.tx(0).forward(&mut c.rx(0), 1), Err(SwapError::Shared));
    Ok(())
}

#[test]
fn forwarding_moves_whole_packets_without_copying() -> Outcome {
    let netmap = Netmap::embedded();
    let (mut source, mut left) = (netmap.open("netmap:x{1")?, netmap.open("netmap:x}1")?);
    let (mut right, mut sink) = (netmap.open("netmap:x{2")?, netmap.open("netmap:x}2")?);
    let size = source.buf_size();
    let long: Vec<u8> = (0..3 * size).map(|i| i as u8).collect();
    let idx = source.tx(0).slot(0).unwrap().buf_idx();
    send(&mut source, &[7; 60])?;
    send(&mut source, &long)?;
    left.rxsync()?;
    assert_eq!(right.tx(0).forward(&mut left.rx(0), 3)?, 1, "the second packet does not fit whole");
    assert_eq!(right.tx(0).forward(&mut left.rx(0), u32::MAX)?, 3);
    right.txsync()?;
    left.rxsync()?;
    sink.rxsync()?;
    let mut rx = sink.rx(0);
    assert_eq!(rx.slot(0).unwrap().buf_idx(), idx);
    let mut out = vec![0; 4 * size];
    assert_eq!((rx.recv(&mut out), out[59]), (Some(60), 7));
    assert_eq!(rx.recv(&mut out), Some(3 * size));
    assert_eq!(out[..3 * size], long);
    drop(rx);
    // Round and round, more packets than slots, each with its number; no buffer comes twice.
    for round in 0..5000u32 {
        send(&mut source, &round.to_ne_bytes())?;
        left.rxsync()?;
        right.tx(0).forward(&mut left.rx(0), u32::MAX)?;
        right.txsync()?;
        left.rxsync()?;
        sink.rxsync()?;
        sink.rx(0).drain(9, |s| {
            assert_eq!(s.payload().load_u32(0), Some(round));
            true
        });
        sink.rxsync()?;
    }
    for port in [&mut source, &mut left, &mut right, &mut sink] {
        port.txsync()?;
    }
    let mut all: Vec<u32> = [source, left, right, sink].iter_mut().flat_map(owned).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
    Ok(())
}

#[test]
fn extra_buffers_are_exchanged_and_all_come_back() -> Outcome {
    let netmap = Netmap::embedded();
    let open = || netmap.builder("netmap:x{1").extra_buffers(512).open();
    // Keeps the region, which could not bear the loss of 512 buffers a round.
    let mut other = netmap.open("netmap:x}1")?;
    for round in 0..200 {
        let mut port = open()?;
        assert_eq!(port.extra_left(), 512, "round {round}");
        let mut extra = port.take_extra().unwrap();
        let leaked = port.take_extra().unwrap();
        let before = extra.buf_idx().unwrap();
        extra.payload(&port).unwrap().store_u32(0, 0xdead_beef);
        assert!(extra.payload(&other).is_none());
        {
            let mut tx = port.tx(0);
            let in_slot = tx.slot(0).unwrap().buf_idx();
            swap(tx.place(0)?, extra.place())?;
            assert_eq!((tx.slot(0).unwrap().buf_idx(), extra.buf_idx()), (before, Some(in_slot)));
            assert!(extra.payload(&tx).is_some());
            swap(extra.place(), other.tx(0).place(round % 4)?)?;
        }
        std::mem::forget(leaked);
        drop(port);
        assert!(extra.buf_idx().is_none());
        assert_eq!(swap(other.tx(0).place(0)?, extra.place()), Err(SwapError::NoSlot));
    }
    Ok(())
}

#[test]
fn rings_of_a_port_work_on_threads_of_their_own() -> Outcome {
    let netmap = Netmap::embedded();
    let (mut a, mut b) = pipe(&netmap, |p| p.rings(3).slots(64))?;
    const PACKETS: u32 = 20_000;
    let (tx, _) = a.rings();
    let (_, rx) = b.rings();
    std::thread::scope(|scope| {
        for (mut tx, mut rx) in tx.into_iter().zip(rx) {
            let ring = u32::from(tx.index());
            scope.spawn(move || {
                let mut next = 0;
                while next < PACKETS {
                    tx.fill(PACKETS - next, |slot| {
                        slot.payload().store_u32(0, next << 2 | ring);
                        slot.set(60, 0);
                        next += 1;
                        true
                    });
                    tx.sync().unwrap();
                    std::thread::yield_now();
                }
            });
            scope.spawn(move || {
                let mut next = 0;
                while next < PACKETS {
                    rx.sync().unwrap();
                    rx.drain(u32::MAX, |slot| {
                        assert_eq!(slot.payload().load_u32(0), Some(next << 2 | ring));
                        next += 1;
                        true
                    });
                    std::thread::yield_now();
                }
            });
        }
    });
    assert_eq!(b.counters().rx.packets, 3 * u64::from(PACKETS));
    Ok(())
}

#[test]
fn packets_begin_where_their_slots_say() {
    let netmap = Netmap::embedded();
    let mut a = netmap.builder("vale0:a").offset(64).max_offset(256).open().unwrap();
    let mut b = netmap.open("vale0:b@offset=128").unwrap();
    let mut plain = netmap.open("vale0:c").unwrap();
    let mut tx = a.tx(0);
    let slot = tx.slot(0).unwrap();
    assert_eq!((slot.offset(), slot.payload().len()), (64, tx.buf_size() - 64));
    assert!(slot.set_offset(192) && !slot.set_offset(257));
    slot.payload().copy_from(&[0xff; 100]);
    slot.set(100, 0);
    tx.advance(1);
    // `send` leaves room for the largest offset, whatever the slot says.
    assert!(tx.send(&vec![0xff; tx.buf_size() - 256]));
    assert!(tx.send(&vec![0xff; tx.buf_size() - 255]));
    assert_eq!(tx.pending(), 4, "the last one took two slots");
    tx.sync().unwrap();
    drop(tx);
    b.rxsync().unwrap();
    let rx = b.rx(0);
    let got = rx.slot(0).unwrap();
    assert_eq!((got.offset(), got.len(), got.ptr()), (128, 100, 128));
    assert_eq!(got.payload().to_vec(), [0xff; 100]);
    plain.rxsync().unwrap();
    let mut rx = plain.rx(0);
    assert_eq!((rx.slot(0).unwrap().offset(), rx.slot(0).unwrap().payload().to_vec()), (0, vec![0xff; 100]));
    assert!(!rx.slot(0).unwrap().set_offset(1) && rx.slot(0).unwrap().set_offset(0));
    rx.release(1);

    let refused = netmap.builder("vale0:d").offset(10).max_offset(5).open().unwrap_err();
    assert_eq!(refused.errno(), Errno::EINVAL);
    assert!(netmap.ports().unwrap().iter().all(|p| p.name != "vale0:d"));
}

#[test]
fn forwarding_keeps_offsets_or_says_that_it_cannot() {
    let netmap = Netmap::embedded();
    let mut from = netmap.builder("netmap:x{1").offset(200).open().unwrap();
    let mut here = netmap.builder("netmap:x}1").offset(0).max_offset(256).open().unwrap();
    let mut onward = netmap.builder("netmap:x{2").offset(0).max_offset(256).open().unwrap();
    let mut end = netmap.builder("netmap:x}2").offset(0).max_offset(256).open().unwrap();
    let mut plain = netmap.open("netmap:x{3").unwrap();
    from.tx(0).send(&[7; 60]);
    from.txsync().unwrap();
    here.rxsync().unwrap();
    assert_eq!(plain.tx(0).forward(&mut here.rx(0), 9), Err(SwapError::Offset));
    assert_eq!(onward.tx(0).forward(&mut here.rx(0), 9), Ok(1));
    onward.txsync().unwrap();
    end.rxsync().unwrap();
    let rx = end.rx(0);
    let slot = rx.slot(0).unwrap();
    assert_eq!((slot.offset(), slot.payload().to_vec()), (200, vec![7; 60]));
}

//! What others write into shared memory must not make a view panic or reach out of its ring.

use crate::{Interest, Netmap, Port, SyncError};
use ringway_core::layout::Dir;
use ringway_os::ring::{RingHeader, SlotWord};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Every word that a hostile neighbour may put anywhere.
const WORDS: [u32; 9] = [0, 1, 14, 15, 16, 17, 1 << 20, u32::MAX - 1, u32::MAX];

fn header(port: &Port, dir: Dir) -> &RingHeader {
    &port.bound.end.bound(dir)[0].handle().ring.header
}

/// Uses all that a view offers.
fn exercise(port: &mut Port) {
    let (mut tx, mut rx) = port.rings();
    let (tx, rx) = (&mut tx[0], &mut rx[0]);
    assert!(tx.space() < tx.num_slots() && rx.len() < rx.num_slots());
    for k in 0..20 {
        if let Some(slot) = tx.slot(k) {
            slot.payload().copy_from(&[1; 60]);
            slot.set(60, 0);
        }
        let _ = (tx.slot_at(k), rx.slot_at(k), tx.peek(k));
    }
    rx.iter().for_each(|s| drop(s.payload().to_vec()));
    let _ = (tx.forward(rx, 3), rx.recv(&mut [0; 100]), tx.send(&[0; 60]), tx.set_cur(3), rx.set_head(5));
    let _ = (tx.sync(), rx.sync());
}

#[test]
fn scribbled_cursors_are_refused_never_followed() {
    let netmap = Netmap::embedded();
    let mut port = netmap.builder("vale0:a").slots(16).open().unwrap();
    for dir in [Dir::Tx, Dir::Rx] {
        for which in 0..3 {
            for word in WORDS {
                let h = header(&port, dir);
                [&h.head, &h.cur, &h.tail][which].store(word, Relaxed);
                exercise(&mut port);
                let _ = port.wait(Interest::BOTH, Some(Duration::from_micros(100)));
                let _ = (port.arm(Interest::BOTH), port.txsync(), port.rxsync());
            }
        }
    }
}

#[test]
fn scribbled_slots_lend_the_dummy_buffer() {
    let netmap = Netmap::embedded();
    let mut port = netmap.builder("vale0:a").slots(16).open().unwrap();
    for idx in WORDS {
        for dir in [Dir::Tx, Dir::Rx] {
            for slot in port.bound.end.bound(dir)[0].handle().ring.slots.iter() {
                slot.store(SlotWord::new(idx, u16::MAX, u16::MAX));
            }
        }
        exercise(&mut port);
    }
}

#[test]
fn a_cursor_out_of_the_ring_is_reported_once_and_put_back() {
    let netmap = Netmap::embedded();
    let mut port = netmap.builder("vale0:a").slots(16).open().unwrap();
    header(&port, Dir::Tx).head.store(99, Relaxed);
    assert!(matches!(port.txsync(), Err(SyncError::BadRing { dir: Dir::Tx, ring: 0, .. })));
    assert_eq!(port.txsync(), Ok(()));
    let mut tx = port.tx(0);
    assert_eq!((tx.space(), tx.send(&[0xff; 60]), tx.sync()), (15, true, Ok(())));
}

use super::*;
use crate::adapter::SyncFlags;
use crate::kring::{SyncOutcome, note_counts};
use crate::layout::{Dir, Geometry};
use crate::sim::{SimPipe, SimPort, SimSwitch, conserved};

const SLOTS: u32 = 16;

fn geometry() -> Geometry {
    Geometry { tx_rings: 1, rx_rings: 1, tx_slots: SLOTS, rx_slots: SLOTS }
}

fn counts(port: &SimPort, dir: Dir) -> (u64, u64) {
    let ring = if dir == Dir::Tx { &port.tx[0] } else { &port.rx[0] };
    (ring.counters().packets, ring.counters().bytes)
}

/// A sync dies at any of the steps that `RingHandle::save` and the drivers take: note, position, first counter, second counter.
#[test]
fn whatever_was_published_is_counted_once_wherever_the_sync_died() {
    for step in 0..=4 {
        for kind in [SyncKind::PipeTx, SyncKind::PipeRx] {
            let mut p = SimPipe::new(&geometry(), 2048, 0);
            for i in 0..5u8 {
                assert!(p.ends[0].tx[0].put(&[i; 60], 0));
            }
            p.ends[0].tx[0].sync();
            p.ends[1].rx[0].sync();
            // A second batch of 3 with 60 bytes each is under way.
            let ring = match kind {
                SyncKind::PipeTx => &p.ends[0].tx[0].handle.shared,
                _ => &p.ends[1].rx[0].handle.shared,
            };
            let state = &*ring.state;
            let to = 8;
            if step > 0 {
                note_counts(state, to, 3, 180);
            }
            if step > 1 {
                match kind {
                    SyncKind::PipeTx => state.owner.hwcur.set(to),
                    _ => state.sync.rtail.store(to, Relaxed),
                }
            }
            if step > 2 {
                add(state, Stat::Packets, 3);
            }
            if step > 3 {
                add(state, Stat::Bytes, 180);
            }
            let dir = if kind == SyncKind::PipeTx { Dir::Tx } else { Dir::Rx };
            let end = usize::from(kind == SyncKind::PipeRx);
            for _ in 0..2 {
                repair_sync(kind, ring, None); // A second time changes nothing.
                let want = if step > 1 { (8, 480) } else { (5, 300) };
                assert_eq!(counts(&p.ends[end], dir), want, "{kind:?} dead after step {step}");
            }
        }
    }
}

/// A txsync of a switch port dies at any step of a publishing, with drops counted in between; a successor goes on.
#[test]
fn a_sender_that_died_anywhere_loses_and_doubles_nothing() {
    for step in 0..=7 {
        let switch = SimSwitch::default();
        let mut m = [0, 1].map(|i| switch.attach(i, &geometry(), 2112));
        for (a, b) in [(0, 1), (1, 0)] {
            m[a].bring(b);
        }
        let frame = |n: u8| [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[n; 6]].concat();
        m[0].send(&frame(0));
        m[1].receive(0);
        // One packet is copied and dropped two others: then the steps of `Open::publish`.
        let (tx, rx) = (&m[0].port.tx[0].handle, &m[1].port.rx[0].handle);
        for n in 1..=3 {
            assert!(m[0].port.tx[0].put(&frame(n), 0));
        }
        let (state, far) = (&*tx.shared.state, &*rx.shared.state);
        let me = m[0].port.tx[0].me;
        state.sync.lock.try_lock(me).unwrap();
        far.senders.lock.try_lock(me).unwrap();
        let start = far.producer.hwtail.load();
        let mirror = rx.shared.mirror[start as usize].load(Relaxed);
        rx.ring.bufs.payload(mirror).unwrap().copy_from(&frame(1));
        rx.shared.desc[start as usize].store(18 | 0x0100_0000, Relaxed);
        crate::stats::drop_packets(state, crate::stats::Drop::ReceiverFull, 2);
        let at = m[0].port.tx[0].head();
        let journal = &state.journal;
        if step > 0 {
            journal.far_tail.store(start + 1, Relaxed);
            journal.position.store(at, Relaxed);
            journal.packets.store(low(state, Stat::Packets) + 3, Relaxed);
            journal.bytes.store(low(state, Stat::Bytes) + 54, Relaxed);
            journal.delivered.store(low(state, Stat::Delivered) + 1, Relaxed);
        }
        if step > 1 {
            journal.generation.store(m[1].generation, Relaxed);
        }
        if step > 2 {
            assert!(far.producer.hwtail.publish_from(start, start + 1));
        }
        if step > 3 {
            state.owner.hwcur.set(at);
        }
        if step > 4 {
            add(state, Stat::Packets, 3);
        }
        if step > 5 {
            add(state, Stat::Bytes, 54);
        }
        if step > 6 {
            add(state, Stat::Delivered, 1);
        }
        // What `Registry::break_locks` does.
        repair_sync(SyncKind::SwitchTx, &tx.shared, Some(far));
        assert!(state.sync.lock.unlock(me));
        repair_receiver(far, SLOTS);
        assert!(far.senders.lock.unlock(me));
        conserved(&[&m[0], &m[1]]);
        assert_eq!(m[0].txsync(0), SyncOutcome::Done);
        let got: Vec<u8> = m[1].receive(0).iter().map(|f| f.bytes[12]).collect();
        // Published: one of three, the others dropped. Not published: all of it is sent again.
        assert_eq!(got, if step > 2 { vec![1] } else { vec![1, 2, 3] }, "dead after step {step}");
        assert_eq!(m[0].counters(Dir::Tx).packets, 4);
        conserved(&[&m[0], &m[1]]);
        m.iter().for_each(crate::sim::Member::check_owners);
    }
}

#[test]
fn an_rxsync_that_died_after_releasing_does_not_release_again() {
    let mut p = SimPipe::new(&geometry(), 2048, 0);
    for i in 0..5u8 {
        p.ends[0].tx[0].put(&[i; 60], 0);
    }
    p.ends[0].tx[0].sync();
    let rx = &mut p.ends[1].rx[0];
    rx.sync();
    assert_eq!(rx.take(3).len(), 3);
    // Dead between publishing `hwcur` and storing the accepted head.
    let state = rx.handle.shared.state.clone();
    state.owner.hwcur.publish(3);
    repair_sync(SyncKind::PipeRx, &rx.handle.shared, None);
    assert_eq!(state.sync.rhead.load(Relaxed), 3);
    // Whoever shares the ring puts an illegal head: nothing moves.
    rx.set(9, 9);
    assert!(matches!(rx.handle.sync(rx.driver.as_mut(), rx.me, SyncFlags::empty()), SyncOutcome::BadRing(_)));
    assert_eq!(state.owner.hwcur.load(), 3);
    rx.set(3, 3);
    rx.sync();
    p.check_owners(&[]);
}

#[test]
fn scribbled_counters_and_journals_are_repaired_without_a_panic() {
    let mut rng = crate::sim::Rng::new(9);
    let switch = SimSwitch::default();
    let m = switch.attach(0, &geometry(), 2112);
    let ring = &m.port.tx[0].handle.shared;
    for _ in 0..2000 {
        ring.state.counters.iter().for_each(|c| c.set(rng.next_u64()));
        let j = &ring.state.journal;
        for word in [&j.generation, &j.far_tail, &j.position, &j.packets, &j.bytes, &j.delivered] {
            word.store(rng.next_u64() as u32 >> rng.below(32), Relaxed);
        }
        ring.state.owner.hwcur.set(rng.next_u64() as u32 >> rng.below(32));
        for word in [&ring.state.sync.rhead, &ring.state.sync.rtail] {
            word.store(rng.below(SLOTS + 2), Relaxed);
        }
        for kind in [SyncKind::SwitchTx, SyncKind::PipeTx, SyncKind::SwitchRx, SyncKind::PipeRx] {
            repair_sync(kind, ring, Some(&m.port.rx[0].handle.shared.state));
        }
    }
}

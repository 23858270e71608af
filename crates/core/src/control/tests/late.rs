//! Rings that are to change hands while somebody is in the middle of their sync: nothing is lost or doubled.

use super::world::{End, Pause, World};
use super::*;
use crate::kring::SyncOutcome;
use crate::layout::Dir;
use crate::stats::{Counters, Stat, add};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

fn monitor(flags: u64) -> nmreq_register {
    nmreq_register { nr_flags: flags, ..all() }
}

/// From port number `from` to port number `to`.
fn frame(to: u8, from: u8, number: u8) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, to][..], &[2, 0, 0, 0, 0, from], &[number; 50]].concat()
}

fn numbers(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().map(|f| f[12]).collect()
}

/// What arrives until `count` frames are there, and a moment after.
fn receive(end: &mut End, count: usize) -> Vec<u8> {
    let until = Instant::now() + Duration::from_secs(5);
    let mut got = vec![];
    while got.len() < count {
        assert!(Instant::now() < until, "{got:?} of {count} came");
        got.extend(numbers(&end.receive()));
    }
    got.extend(numbers(&end.receive()));
    got
}

fn counters(end: &End, dir: Dir) -> Counters {
    Counters::read(&end.ring(dir).handle().shared.state)
}

fn put(end: &End, to: u8, from: u8, range: std::ops::Range<u8>) {
    range.for_each(|i| end.put_at(&[frame(to, from, i)], 0));
}

const WATCHES: [(&str, u64); 3] = [("b", NR_MONITOR_RX), ("b", NR_ZCOPY_MON), ("a", NR_MONITOR_TX)];

/// Ports a, b and c on one switch, who know each other.
fn three() -> (World, [End; 3]) {
    let mut w = World::new();
    let mut ends = ["vale0:a", "vale0:b", "vale0:c"].map(|name| w.open(ME, name, &all()));
    for (end, from) in ends.iter_mut().zip(1..) {
        end.send(&[frame(9, from, 0)]);
    }
    for end in &mut ends {
        assert_eq!(receive(end, 2), [0, 0]);
    }
    (w, ends)
}

#[test]
fn a_sender_that_pauses_when_a_switch_is_watched() {
    for at in [Pause::Before, Pause::After] {
        for (port, flags) in WATCHES {
            for others in [0, 3] {
                let (mut w, [mut a, mut b, mut c]) = three();
                put(&a, 2, 1, 0..5);
                put(&c, 2, 3, 10..10 + others);
                let mut watcher = None;
                let done = a.sync_with_pause(Dir::Tx, at, || {
                    watcher = Some(w.open(ME, &format!("vale0:{port}"), &monitor(flags)));
                    // The other one does not wait for it.
                    assert_eq!(c.sync(Dir::Tx), SyncOutcome::Done);
                });
                assert_eq!(done, SyncOutcome::Done);
                let mut got = receive(&mut b, 5 + usize::from(others));
                got.sort_unstable();
                let want: Vec<u8> = (0..5).chain(10..10 + others).collect();
                assert_eq!(got, want, "{at:?} {port} {flags:x}");
                let (of_a, of_c, of_b) =
                    (counters(&a, Dir::Tx), counters(&c, Dir::Tx), counters(&b, Dir::Rx));
                // The broker has learned nothing yet: the third gets a copy.
                assert_eq!((of_a.packets, of_a.delivered - of_a.extra_copies, of_a.all_drops()), (6, 6, 0));
                assert_eq!(
                    (of_c.delivered - of_c.extra_copies, of_c.all_drops()),
                    (u64::from(others) + 1, 0)
                );
                assert_eq!(of_b.packets, u64::from(7 + others));
                // And back.
                put(&a, 2, 1, 20..25);
                assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
                w.close(&watcher.expect("opened"));
                put(&a, 2, 1, 25..30);
                assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
                assert_eq!(receive(&mut b, 10), (20..30).collect::<Vec<u8>>());
                let of_a = counters(&a, Dir::Tx);
                assert_eq!((of_a.packets, of_a.delivered - of_a.extra_copies), (16, 16));
                assert!(w.registry().held_locks(ME).is_empty());
            }
        }
    }
}

/// It has filled a slot of the receiver and not published it yet.
#[test]
fn a_sender_that_pauses_inside_the_receivers_lock() {
    for (port, flags) in WATCHES {
        let (mut w, [a, mut b, mut c]) = three();
        let (me, tx, rx) = (77, a.ring(Dir::Tx).handle().clone(), b.ring(Dir::Rx).handle().clone());
        let (own, far) = (&tx.shared.state, &rx.shared.state);
        own.sync.lock.try_lock(me).unwrap();
        far.senders.lock.try_lock(me).unwrap();
        let at = far.senders.tail.load(Relaxed);
        let payload = rx.ring.bufs.payload(rx.shared.mirror[at as usize].load(Relaxed)).unwrap();
        payload.copy_from(&frame(2, 1, 1));
        rx.shared.desc[at as usize].store(62 | 0x0100 << 16, Relaxed);

        let watcher = w.open(ME, &format!("vale0:{port}"), &monitor(flags));
        // Nobody else may write there meanwhile. That is counted.
        c.send(&[frame(2, 3, 10)]);
        assert_eq!(counters(&c, Dir::Tx).drops_by_name().collect::<Vec<_>>(), [("receiver_busy", 1)]);
        assert!(b.receive().is_empty());

        assert!(far.producer.hwtail.publish_from(at, at + 1));
        far.senders.tail.store(at + 1, Relaxed);
        add(own, Stat::Packets, 1);
        add(own, Stat::Delivered, 1);
        assert!(!far.senders.lock.unlock(me), "it is the broker's");
        assert!(!own.sync.lock.unlock(me), "it is the broker's");
        assert_eq!(receive(&mut b, 1), [1]);
        let until = Instant::now() + Duration::from_secs(5);
        while !w.has_all() {
            assert!(Instant::now() < until);
        }
        c.send(&[frame(2, 3, 11)]);
        assert_eq!(receive(&mut b, 1), [11]);
        w.close(&watcher);
        c.send(&[frame(2, 3, 12)]);
        assert_eq!(receive(&mut b, 1), [12]);
        let of_a = counters(&a, Dir::Tx);
        assert_eq!((of_a.delivered - of_a.extra_copies, counters(&b, Dir::Rx).packets), (2, 5));
    }
}

#[test]
fn a_receiver_that_pauses_when_it_is_watched() {
    for at in [Pause::Before, Pause::After] {
        let (mut w, [mut a, mut b, _c]) = three();
        put(&a, 2, 1, 0..5);
        assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
        let mut watcher = None;
        let done = b.sync_with_pause(Dir::Rx, at, || {
            watcher = Some(w.open(ME, "vale0:b", &monitor(NR_ZCOPY_MON)));
            put(&a, 2, 1, 5..10);
            assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
        });
        assert_eq!(done, SyncOutcome::Done);
        assert_eq!(receive(&mut b, 10), (0..10).collect::<Vec<u8>>(), "{at:?}");
        put(&a, 2, 1, 10..15);
        assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
        w.close(&watcher.expect("opened"));
        assert_eq!(receive(&mut b, 5), (10..15).collect::<Vec<u8>>(), "{at:?}");
        let of_a = counters(&a, Dir::Tx);
        assert_eq!((of_a.delivered - of_a.extra_copies, counters(&b, Dir::Rx).packets), (16, 17));
    }
}

#[test]
fn an_end_of_a_pipe_that_pauses_when_it_is_watched() {
    for at in [Pause::Before, Pause::After] {
        for (port, flags) in
            [("x{1", NR_MONITOR_TX), ("x}1", NR_MONITOR_RX), ("x}1", NR_ZCOPY_MON), ("x{1", NR_ZCOPY_MON)]
        {
            for dir in [Dir::Tx, Dir::Rx] {
                let mut w = World::new();
                let [mut a, mut b] = ["x{1", "x}1"].map(|name| w.open(ME, name, &all()));
                put(&a, 2, 1, 0..5);
                let mut watcher = None;
                let done = match dir {
                    Dir::Tx => a.sync_with_pause(Dir::Tx, at, || {
                        watcher = Some(w.open(ME, port, &monitor(flags)));
                        // What it has published arrives, also while it stands.
                        assert_eq!(receive(&mut b, 0).len(), if at == Pause::After { 5 } else { 0 });
                    }),
                    Dir::Rx => {
                        assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
                        b.sync_with_pause(Dir::Rx, at, || {
                            watcher = Some(w.open(ME, port, &monitor(flags)));
                        })
                    }
                };
                assert_eq!(done, SyncOutcome::Done);
                put(&a, 2, 1, 5..10);
                assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
                w.close(&watcher.expect("opened"));
                put(&a, 2, 1, 10..15);
                assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
                let first = if (dir, at) == (Dir::Tx, Pause::After) { 5 } else { 0 };
                let case = format!("{at:?} {port} {flags:x} {dir:?}");
                assert_eq!(
                    receive(&mut b, 15 - usize::from(first)),
                    (first..15).collect::<Vec<u8>>(),
                    "{case}"
                );
                assert_eq!(
                    (counters(&a, Dir::Tx).packets, counters(&b, Dir::Rx).packets),
                    (15, 15),
                    "{case}"
                );
            }
        }
    }
}

fn until(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < until);
        ringway_os::sys::yield_now();
    }
}

/// Who sends, who receives, and on which ring somebody pauses.
const POSTS: [([&str; 2], Dir); 4] = [
    (["vale0:a", "vale0:b"], Dir::Tx),
    (["vale0:a", "vale0:b"], Dir::Rx),
    (["x{1", "x}1"], Dir::Tx),
    (["x{1", "x}1"], Dir::Rx),
];

/// Opens both ports, which know each other.
fn two(w: &mut World, ports: [&str; 2]) -> [End; 2] {
    let [mut a, mut b] = ports.map(|name| w.open(ME, name, &all()));
    b.send(&[frame(9, 2, 0)]);
    receive(&mut a, 1);
    [a, b]
}

/// Takes buffers from the second port's RX ring: all rings that frames pass are the broker's.
fn watch(w: &mut World, ports: [&str; 2]) -> End {
    w.open(ME, ports[1], &monitor(NR_ZCOPY_MON))
}

#[test]
fn who_pauses_in_the_middle_of_a_post_keeps_what_he_posts_to() {
    for (ports, dir) in POSTS {
        let mut w = World::new();
        let [mut a, mut b] = two(&mut w, ports);
        let watcher = watch(&mut w, ports);
        put(&a, 2, 1, 0..5);
        assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
        let of = if dir == Dir::Tx { &a } else { &b };
        let ring = of.ring(dir).handle().clone();
        let (me, state) = (of.endpoint.attachment(), &ring.shared.state);
        state.post.lock.try_lock(me).unwrap();

        w.close(&watcher);
        assert!(ring.is_brokered() && !w.has_all(), "{ports:?} {dir:?}");
        // Others go on, and a new monitor is as good as the old one.
        let watcher = watch(&mut w, ports);
        assert!(w.has_all());
        w.close(&watcher);
        assert!(ring.is_brokered() && !w.has_all(), "{ports:?} {dir:?}");

        state.post.lock.unlock(me);
        until(|| !ring.is_brokered() && w.has_all());
        put(&a, 2, 1, 5..10);
        assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
        assert_eq!(receive(&mut b, 10), (0..10).collect::<Vec<u8>>(), "{ports:?} {dir:?}");
        assert!(w.registry().held_locks(ME).is_empty());
    }
}

/// He read that a ring is brokered, and comes to post when it is not any more, or not yet again.
#[test]
fn who_comes_late_to_post_is_sent_away_or_waits() {
    for (ports, dir) in POSTS {
        let mut w = World::new();
        let [mut a, mut b] = two(&mut w, ports);
        let watcher = watch(&mut w, ports);
        put(&a, 2, 1, 0..5);
        assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
        w.close(&watcher);
        put(&a, 2, 1, 5..10);
        let of = if dir == Dir::Tx { &mut a } else { &mut b };
        let ring = of.ring(dir).handle().clone();
        let (me, state) = (of.endpoint.attachment(), &ring.shared.state);
        let posted = state.post.posted.load();
        assert_eq!(of.sync_brokered(dir), SyncOutcome::Brokered, "{ports:?} {dir:?}");
        assert_eq!(state.post.posted.load(), posted);

        // He has the lock when the broker comes again.
        state.post.lock.try_lock(me).unwrap();
        let _watcher = watch(&mut w, ports);
        assert!(ring.is_brokered() && !w.has_all(), "{ports:?} {dir:?}");
        assert!(!state.post.lock.unlock(me), "it is the broker's");
        until(|| w.has_all());
        assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
        assert_eq!(receive(&mut b, 10), (0..10).collect::<Vec<u8>>(), "{ports:?} {dir:?}");
    }
}

#[test]
fn a_ring_that_nobody_wants_any_more_is_not_waited_for() {
    for (ports, dir) in POSTS {
        let mut w = World::new();
        let [mut a, mut b] = two(&mut w, ports);
        put(&a, 2, 1, 0..5);
        let end = if dir == Dir::Tx { &mut a } else { &mut b };
        let done = end.sync_with_pause(dir, Pause::Before, || {
            let watcher = watch(&mut w, ports);
            assert!(!w.has_all());
            w.close(&watcher);
            assert!(w.has_all());
        });
        assert_eq!(done, SyncOutcome::Done);
        assert!(!end.ring(dir).handle().is_brokered(), "{ports:?} {dir:?}");
        assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
        assert_eq!(receive(&mut b, 5), (0..5).collect::<Vec<u8>>(), "{ports:?} {dir:?}");
    }
}

/// A post that was not served when its ring was given back is none for who serves it next.
#[test]
fn a_post_of_earlier_times_is_not_served() {
    for (ports, _) in POSTS.into_iter().step_by(2) {
        let mut w = World::new();
        let [mut a, mut b] = two(&mut w, ports);
        let watcher = watch(&mut w, ports);
        put(&a, 2, 1, 0..5);
        assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
        w.close(&watcher);
        put(&a, 2, 1, 5..10);
        assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
        let state = a.ring(Dir::Tx).handle().shared.state.clone();
        state.post.posted.publish(state.post.posted.load() + 1);
        let _watcher = watch(&mut w, ports);
        until(|| state.ack.acked.load() == state.post.posted.load());
        put(&a, 2, 1, 10..15);
        assert_eq!(a.sync(Dir::Tx), SyncOutcome::Done);
        assert_eq!(receive(&mut b, 15), (0..15).collect::<Vec<u8>>(), "{ports:?}");
        assert_eq!(counters(&a, Dir::Tx).packets, 15);
    }
}

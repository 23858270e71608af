//! Waiting, between threads over the embedded engine. No test sleeps: each waits for the other side.

use ringway::{Interest, Netmap, Port, PortBuilder};
use ringway_os::event::{Epoll, EventBuf, EventFlags};
use std::sync::Barrier;
use std::thread::scope;
use std::time::{Duration, Instant};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Far more than any wait here takes; only a lost wake-up lets it pass.
const LONG: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(20);

fn pipe(with: impl Fn(PortBuilder) -> PortBuilder) -> (Port, Port) {
    let netmap = Netmap::embedded();
    let open = |name| with(netmap.builder(name)).open().unwrap();
    (open("netmap:x{1"), open("netmap:x}1"))
}

fn send(port: &mut Port, packets: u32) {
    let mut tx = port.tx(0);
    let sent = tx.fill(packets, |slot| {
        slot.set(60, 0);
        true
    });
    assert_eq!(sent, packets);
    tx.sync().unwrap();
}

#[test]
fn a_packet_wakes_the_receiver_each_time() {
    let (mut a, mut b) = pipe(|p| p);
    let echoes = 3000;
    scope(|s| {
        s.spawn(|| {
            for _ in 0..echoes {
                assert!(a.wait(Interest::RX, Some(LONG)).unwrap().rx);
                a.rx(0).release(1);
                send(&mut a, 1);
            }
        });
        for _ in 0..echoes {
            send(&mut b, 1);
            assert!(b.wait(Interest::RX, Some(LONG)).unwrap().rx);
            b.rx(0).release(1);
        }
    });
}

#[test]
fn a_packet_over_a_switch_wakes_the_receiver_each_time() {
    let netmap = Netmap::embedded();
    let (mut a, mut b) = (netmap.open("vale0:a").unwrap(), netmap.open("vale0:b").unwrap());
    let frame = [0xff; 60];
    scope(|s| {
        s.spawn(|| {
            for _ in 0..3000 {
                assert!(a.wait(Interest::RX, None).unwrap().rx);
                a.rx(0).release(1);
                a.tx(0).send(&frame);
                a.txsync().unwrap();
            }
        });
        for _ in 0..3000 {
            b.tx(0).send(&frame);
            // Waiting sends what is pending.
            assert!(b.wait(Interest::RX, Some(LONG)).unwrap().rx);
            b.rx(0).release(1);
        }
    });
}

#[test]
fn room_wakes_the_sender() {
    let (mut a, mut b) = pipe(|p| p.slots(8));
    let packets = 20_000;
    scope(|s| {
        s.spawn(|| {
            let mut left = packets;
            while left > 0 {
                assert!(a.wait(Interest::TX, Some(LONG)).unwrap().tx);
                let room = a.tx(0).space().min(left);
                send(&mut a, room);
                left -= room;
            }
        });
        let mut got = 0;
        while got < packets {
            assert!(b.wait(Interest::RX, Some(LONG)).unwrap().rx);
            got += b.rx(0).release(u32::MAX);
            b.rxsync().unwrap();
        }
    });
}

#[test]
fn a_wait_ends_when_its_time_is_over() -> Outcome {
    let (mut a, _b) = pipe(|p| p);
    assert!(a.wait(Interest::RX, Some(Duration::ZERO))?.is_empty());
    for timeout in [Duration::from_nanos(1), Duration::from_micros(100), MOMENT] {
        let start = Instant::now();
        assert!(a.wait(Interest::RX, Some(timeout))?.is_empty());
        assert!(start.elapsed() >= timeout);
    }
    let ready = a.wait(Interest::BOTH, Some(LONG))?;
    assert!(ready.tx && !ready.rx);
    let ready = a.wait(Interest::RX | Interest::TX, Some(LONG))?;
    assert!(ready.tx && !ready.rx);
    Ok(())
}

#[test]
fn held_slots_do_not_end_a_wait_and_new_ones_do() -> Outcome {
    let (mut a, mut b) = pipe(|p| p.slots(8));
    send(&mut a, 3);
    assert!(b.wait(Interest::RX, Some(LONG))?.rx);
    b.rx(0).hold(3);
    assert!(b.wait(Interest::RX, Some(MOMENT))?.is_empty());
    scope(|s| {
        s.spawn(|| send(&mut a, 1));
        assert!(b.wait(Interest::RX, Some(LONG)).unwrap().rx);
    });
    assert_eq!(b.rx(0).len(), 4);
    send(&mut a, 3);
    b.rxsync()?;
    b.rx(0).hold(7);
    // All held: nothing more can come, and the wait ends with its time, not at once and not never.
    let start = Instant::now();
    assert!(b.wait(Interest::RX, Some(MOMENT))?.is_empty());
    assert!(start.elapsed() >= MOMENT);
    Ok(())
}

#[test]
fn a_threshold_waits_for_a_batch_or_for_its_time() -> Outcome {
    let (mut a, mut b) = pipe(|p| p.slots(64));
    send(&mut a, 5);
    let start = Instant::now();
    assert!(b.wait_for(Interest::RX, 10, MOMENT)?.rx, "five are there when the time is over");
    assert!(start.elapsed() >= MOMENT);
    scope(|s| {
        s.spawn(|| {
            for _ in 0..5 {
                send(&mut a, 1);
            }
        });
        assert!(b.wait_for(Interest::RX, 10, LONG).unwrap().rx);
    });
    assert_eq!(b.rx(0).len(), 10);
    // More than the ring can hold is as many as it can.
    send(&mut a, 53);
    assert!(b.wait_for(Interest::RX, 1000, LONG)?.rx);
    Ok(())
}

#[test]
fn waiting_for_packets_sends_unless_told_not_to() -> Outcome {
    for (no_tx_poll, arrived) in [(false, 1), (true, 0)] {
        let (mut a, mut b) = pipe(|p| if no_tx_poll { p.no_tx_poll() } else { p });
        a.tx(0).send(&[0; 60]);
        a.wait(Interest::RX, Some(Duration::ZERO))?;
        b.rxsync()?;
        assert_eq!(b.rx(0).len(), arrived);
        a.wait(Interest::TX, Some(Duration::ZERO))?;
        b.rxsync()?;
        assert_eq!(b.rx(0).len(), 1);
    }
    let (mut a, mut b) = pipe(PortBuilder::do_rx_poll);
    send(&mut b, 1);
    a.wait(Interest::TX, Some(Duration::ZERO))?;
    assert_eq!(a.rx(0).len(), 1);
    Ok(())
}

#[test]
fn any_ring_of_a_port_ends_a_wait() -> Outcome {
    let (mut a, mut b) = pipe(|p| p.rings(4).slots(16));
    for i in 0..4 {
        scope(|s| {
            s.spawn(|| {
                let mut tx = a.tx(i);
                tx.send(&[0; 60]);
                tx.sync().unwrap();
            });
            assert!(b.wait(Interest::RX, Some(LONG)).unwrap().rx);
        });
        assert_eq!(b.rx(i).release(9), 1);
    }
    Ok(())
}

#[test]
fn the_lent_fd_is_readable_after_a_ring_and_not_before() -> Outcome {
    let (mut a, mut b) = pipe(|p| p);
    let outer = Epoll::new()?;
    outer.add(&b, 1, EventFlags::IN | EventFlags::ET)?;
    let mut events = EventBuf::default();
    for _ in 0..1000 {
        assert!(!b.arm(Interest::RX)?);
        outer.wait(&mut events, Some(Duration::ZERO))?;
        assert!(!b.arm(Interest::RX)?, "arming again is harmless");
        scope(|s| {
            s.spawn(|| send(&mut a, 1));
            assert_eq!(outer.wait(&mut events, Some(LONG)).unwrap().len(), 1);
        });
        assert!(b.arm(Interest::RX)?);
        assert!(b.arm(Interest::RX)?, "until it is taken");
        assert_eq!(b.rx(0).release(9), 1);
    }
    Ok(())
}

#[test]
fn two_threads_wait_on_shared_rings_of_one_port_and_both_wake() {
    let netmap = Netmap::embedded();
    let open = |name: &str| netmap.builder(name).shared().open().unwrap();
    let mut a = open("netmap:x{1");
    let mut readers = [open("netmap:x}1"), open("netmap:x}1")];
    let start = Barrier::new(3);
    scope(|s| {
        for reader in &mut readers {
            s.spawn(|| {
                start.wait();
                assert!(reader.wait(Interest::RX, Some(LONG)).unwrap().rx);
            });
        }
        start.wait();
        send(&mut a, 1);
    });
}

//! The sync loop, as a Rust program has it: an engine of this process, and a "guest" that writes into CSB and slots as it likes.

use ringway::{Csb, Errno, Interest, LoopConfig, LoopError, MAX_SLEEP, Netmap, Port, RingEvents, SyncError};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, fence};
use std::time::{Duration, Instant};

/// Less than what a loop sleeps at most: a wake-up that comes so late was lost.
const LATE: Duration = Duration::from_millis(2500);

fn csb_of(port: &Port) -> Csb {
    Csb::create(port.tx_rings() + port.rx_rings()).unwrap().0
}

/// Runs a loop in a thread while `work` does its part.
fn with_loop<T>(port: &mut Port, csb: &Csb, config: LoopConfig, work: impl FnOnce() -> T) -> T {
    let stopper = port.loop_stopper();
    std::thread::scope(|s| {
        let running = s.spawn(|| port.run_csb_loop(csb, config));
        // Also in a panic: the scope waits.
        struct Finally<F: Fn()>(F);
        impl<F: Fn()> Drop for Finally<F> {
            fn drop(&mut self) {
                (self.0)();
            }
        }
        let done = {
            let _stop = Finally(|| stopper.stop());
            work()
        };
        assert_eq!(running.join().unwrap(), Ok(()));
        done
    })
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + LATE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: waited in vain");
        std::thread::yield_now();
    }
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK).unwrap()
}

/// Eventfds for so many rings: the loop's ends, and ours.
fn events(rings: usize) -> (Vec<RingEvents>, Vec<[OwnedFd; 2]>) {
    let ours: Vec<_> = (0..rings).map(|_| [event(), event()]).collect();
    let copy = |fd: &OwnedFd| Some(fd.try_clone().unwrap());
    let theirs = ours.iter().map(|[kick, notify]| RingEvents { kick: copy(kick), notify: copy(notify) });
    (theirs.collect(), ours)
}

fn kick(fd: &OwnedFd) {
    rustix::io::write(fd, &1_u64.to_ne_bytes()).unwrap();
}

/// Waits for a notification.
fn told(fd: &OwnedFd) -> bool {
    let came = ringway_os::sys::wait_readable(fd.as_fd(), LATE).unwrap();
    if came {
        rustix::io::read(fd, &mut [0; 8]).unwrap();
    }
    came
}

#[test]
fn a_loop_needs_exclusive_rings_a_csb_and_sane_wishes() {
    let netmap = Netmap::embedded();
    let mut shared = netmap.builder("vale0:s").shared().open().unwrap();
    let csb = csb_of(&shared);
    assert_eq!(shared.enter_csb(&csb), Err(LoopError::NotExclusive));
    assert_eq!(shared.run_csb_loop(&csb, LoopConfig::default()), Err(LoopError::NoCsb));
    let mut port = netmap.open("vale0:a").unwrap();
    assert_eq!(port.enter_csb(&Csb::create(1).unwrap().0), Err(LoopError::TooFewEntries));
    port.enter_csb(&csb).unwrap();
    let few = Csb::create(1).unwrap().0;
    assert_eq!(port.run_csb_loop(&few, LoopConfig::default()), Err(LoopError::TooFewEntries));
    let sleep = MAX_SLEEP + Duration::from_nanos(1);
    let long = LoopConfig { sleep, ..LoopConfig::default() };
    assert_eq!(port.run_csb_loop(&csb, long), Err(LoopError::Sleep));
    let bad = |events, direct_rx| LoopConfig { events, direct_rx, ..LoopConfig::default() };
    let one = bad(events(1).0, false);
    assert_eq!(port.run_csb_loop(&csb, one), Err(LoopError::Events(Errno::EINVAL)));
    let (mut some, _) = events(2);
    some[1].kick = None;
    assert_eq!(port.run_csb_loop(&csb, bad(some, true)), Err(LoopError::Events(Errno::EINVAL)));
    let (mut wrong, _) = events(2);
    wrong[1].notify = Some(std::fs::File::open("/dev/null").unwrap().into());
    let e = port.run_csb_loop(&csb, bad(wrong, false)).unwrap_err();
    assert_eq!((e, e.errno()), (LoopError::Events(Errno::EINVAL), Errno::EINVAL));
    // A stop that came first ends the next one, once.
    port.loop_stopper().stop();
    assert_eq!(port.run_csb_loop(&csb, LoopConfig::default()), Ok(()));
    with_loop(&mut port, &csb, LoopConfig::default(), || {
        wait_until("it runs", || csb.kern()[0].need_kick.load(Relaxed) == 0);
    });
    // The port is as any other again.
    port.tx(0).send(&[0xff; 60]);
    port.txsync().unwrap();
}

/// Frames of a guest, numbered, into the port's TX slots. The guest maps the region; here another port of the region stands for
/// that.
struct Guest<'a> {
    csb: &'a Csb,
    n: u32,
    sent: u32,
    got: u32,
}

impl Guest<'_> {
    /// Hands up to `max` slots over. How many.
    fn send(&mut self, max: u32) -> u32 {
        let (app, kern) = (&self.csb.app()[0], &self.csb.kern()[0]);
        let (_, hwtail) = kern.positions();
        let head = app.head.load(Relaxed);
        let room = ((hwtail + self.n - head) % self.n).min(max);
        let head = (head + room) % self.n;
        app.publish(head, head);
        self.sent += room;
        room
    }

    /// Gives all that came back. How many.
    fn take(&mut self) -> u32 {
        let (app, kern) = (&self.csb.app()[1], &self.csb.kern()[1]);
        let (_, hwtail) = kern.positions();
        let got = (hwtail + self.n - app.head.load(Relaxed)) % self.n;
        app.publish(hwtail, hwtail);
        self.got += got;
        got
    }
}

#[test]
fn packets_pass_both_ways_in_every_way_of_waiting() {
    for (sleep, with_events) in [(0, false), (50, false), (0, true)] {
        let netmap = Netmap::embedded();
        let mut a = netmap.builder("netmap:x{1").slots(32).open().unwrap();
        let mut b = netmap.open("netmap:x}1").unwrap();
        let csb = csb_of(&a);
        a.enter_csb(&csb).unwrap();
        let (theirs, ours) = if with_events { events(2) } else { (vec![], vec![]) };
        let config =
            LoopConfig { sleep: Duration::from_micros(sleep), events: theirs, ..LoopConfig::default() };
        let mut guest = Guest { csb: &csb, n: 32, sent: 0, got: 0 };
        with_loop(&mut a, &csb, config, || {
            let mut seen = 0;
            let kick_if_asked = |ring: usize| {
                fence(SeqCst);
                if with_events && csb.kern()[ring].need_kick.load(Relaxed) != 0 {
                    kick(&ours[ring][0]);
                }
            };
            while seen < 5000 {
                if guest.sent < 5000 && guest.send(5) > 0 {
                    kick_if_asked(0);
                }
                if b.wait(Interest::RX, Some(LATE)).unwrap().rx {
                    seen += b.rx(0).drain(u32::MAX, |_| true);
                    b.rxsync().unwrap();
                } else {
                    panic!("{seen} of {}: a packet is stuck", guest.sent);
                }
            }
            assert_eq!(seen, guest.sent);
            let mut left = 5000;
            while guest.got < 5000 {
                left -= b.tx(0).fill(left.min(7), |slot| {
                    slot.set(60, 0);
                    true
                });
                b.txsync().unwrap();
                let before = guest.got;
                wait_until("a packet for the guest", || {
                    let (_, hwtail) = csb.kern()[1].positions();
                    hwtail != csb.app()[1].head.load(Relaxed)
                });
                guest.take();
                assert!(guest.got > before);
                kick_if_asked(1);
            }
        });
    }
}

/// A guest that sleeps until it is told, against a peer that sleeps until it is woken: nothing may be lost on the way.
#[test]
fn no_wake_up_is_lost_when_both_sides_sleep() {
    let netmap = Netmap::embedded();
    let mut a = netmap.builder("netmap:x{1").slots(8).open().unwrap();
    let mut b = netmap.open("netmap:x}1").unwrap();
    let csb = csb_of(&a);
    a.enter_csb(&csb).unwrap();
    let (theirs, ours) = events(2);
    let config = LoopConfig { events: theirs, ..LoopConfig::default() };
    let mut guest = Guest { csb: &csb, n: 8, sent: 0, got: 0 };
    const ROUNDS: u32 = 20_000;
    std::thread::scope(|s| {
        let echo = s.spawn(move || {
            let mut seen = 0;
            while seen < ROUNDS {
                assert!(b.wait(Interest::RX, Some(LATE)).unwrap().rx, "lost on the way to the peer, {seen}");
                let n = b.rx(0).drain(u32::MAX, |_| true);
                seen += n;
                for _ in 0..n {
                    while !b.tx(0).send(&[0; 60]) {
                        assert!(b.wait(Interest::TX, Some(LATE)).unwrap().tx, "no room for the peer");
                    }
                }
                b.txsync().unwrap();
            }
        });
        with_loop(&mut a, &csb, config, || {
            while guest.got < ROUNDS {
                if guest.sent < ROUNDS && guest.send(1 + guest.sent % 3) > 0 {
                    fence(SeqCst);
                    if csb.kern()[0].need_kick.load(Relaxed) != 0 {
                        kick(&ours[0][0]);
                    }
                }
                if guest.take() > 0 {
                    fence(SeqCst);
                    if csb.kern()[1].need_kick.load(Relaxed) != 0 {
                        kick(&ours[1][0]);
                    }
                    continue;
                }
                fence(SeqCst);
                // It has asked to be told all the time.
                if guest.sent - guest.got > 0 {
                    assert!(told(&ours[1][1]), "lost on the way to the guest, {}", guest.got);
                }
            }
        });
        echo.join().unwrap();
    });
}

/// Whatever a guest writes, wherever it writes, the loop moves no illegal slot, and ends when it is told to.
#[test]
fn a_hostile_guest_cannot_break_the_loop() {
    let netmap = Netmap::embedded();
    for with_events in [false, true] {
        let mut a = netmap.builder("vale0:a").slots(16).open().unwrap();
        let mut b = netmap.open("vale0:b").unwrap();
        let csb = csb_of(&a);
        a.enter_csb(&csb).unwrap();
        let (theirs, ours) = if with_events { events(2) } else { (vec![], vec![]) };
        let config = LoopConfig { events: theirs, ..LoopConfig::default() };
        let stop = AtomicBool::new(false);
        let before = b.counters().rx.packets;
        std::thread::scope(|s| {
            let peer = s.spawn(|| {
                while !stop.load(Relaxed) {
                    b.tx(0).send(&[0xff; 60]);
                    b.txsync().unwrap();
                    b.rxsync().unwrap();
                    b.rx(0).drain(u32::MAX, |_| true);
                }
            });
            with_loop(&mut a, &csb, config, || {
                let mut x = 0x1234_5678_9abc_def1_u64;
                for round in 0..200_000_u32 {
                    x ^= x << 13;
                    x ^= x >> 7;
                    x ^= x << 17;
                    let value = match x >> 60 {
                        0 => u32::MAX,
                        1 => 16,
                        2 => x as u32,
                        _ => x as u32 % 16,
                    };
                    let ring = (x >> 40) as usize % 2;
                    match (x >> 48) % 8 {
                        0 => csb.app()[ring].cur.store(value, Relaxed),
                        1 => csb.app()[ring].sync_flags.store(value, Relaxed),
                        2 => csb.app()[ring].need_kick.store(value, Relaxed),
                        3 => csb.kern()[ring].hwtail.store(value, Relaxed),
                        4 => csb.kern()[ring].need_kick.store(value, Relaxed),
                        5 => csb.app()[ring].publish(value, value),
                        _ => csb.app()[ring].head.store(value, Relaxed),
                    }
                    if with_events && round % 64 == 0 {
                        kick(&ours[ring][0]);
                    }
                }
            });
            stop.store(true, Relaxed);
            peer.join().unwrap();
        });
        // What arrived was sent: no more packets than heads that were legal.
        assert!(b.counters().rx.packets - before <= a.counters().tx.packets);
        let tx = a.tx(0);
        assert!(tx.head() < 16 && tx.tail() < 16);
    }
}

#[test]
fn errors_tell_what_to_do() {
    for (e, errno) in [
        (LoopError::NotExclusive, Errno::EINVAL),
        (LoopError::Running, Errno::EBUSY),
        (LoopError::Events(Errno::EBADF), Errno::EBADF),
        (LoopError::Sync(SyncError::BrokerGone), Errno::ENXIO),
    ] {
        assert_eq!(e.errno(), errno);
        assert!(e.to_string().len() > 10);
    }
}

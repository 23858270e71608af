//! Senders and receivers in threads of their own: nothing is lost that is not counted, nothing hangs.

use super::*;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;

const PACKETS: u32 = 200_000;

/// Counts a sender out when it is done, also by a panic: nobody waits for it in vain.
struct Out<'a>(&'a AtomicUsize);

impl std::ops::Drop for Out<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Release);
    }
}

/// The same for a flag.
struct Flag<'a>(&'a AtomicBool);

impl std::ops::Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.store(true, Release);
    }
}

/// Sends `PACKETS` numbered frames in batches of changing size, then counts itself out.
fn send_all(m: &mut Member, ring: usize, dst: u8, src: u8, running: &AtomicUsize) {
    let _out = Out(running);
    let mut rng = Rng::new(src.into());
    let mut number = 0;
    while number < PACKETS {
        for _ in 0..=rng.below(48) {
            if number < PACKETS && m.port.tx[ring].put(&frame(dst, src, number), 0) {
                number += 1;
            }
        }
        assert_eq!(m.txsync(ring), SyncOutcome::Done);
    }
}

/// Receives until all senders have stopped and nothing is left; checks that each sender's numbers ascend. Returns how many came.
fn receive_all(m: &mut Member, ring: usize, running: &AtomicUsize) -> u64 {
    let mut last = [None; 256];
    let mut count = 0;
    loop {
        let done = running.load(Acquire) == 0;
        let got = m.receive(ring);
        for f in &got {
            let src = usize::from(f.bytes[11]);
            let number = Some(numbers(std::slice::from_ref(f))[0]);
            assert!(number > last[src], "{number:?} after {:?} from {src}", last[src]);
            last[src] = number;
        }
        count += got.len() as u64;
        if done && got.is_empty() {
            return count;
        }
        if got.is_empty() {
            thread::yield_now();
        }
    }
}

fn all_counted(m: &Member, packets: u32) {
    let c = drops(m);
    assert_eq!(c.packets, u64::from(packets));
    let expected = c.dropped(Drop::ReceiverFull) + c.dropped(Drop::ReceiverBusy);
    assert_eq!(c.all_drops(), expected, "{c:?}");
}

#[test]
fn two_senders_to_one_receiver_lose_nothing_uncounted() {
    let mut m = members::<3>(256);
    introduce(&mut m);
    let before = drops(&m[0]).packets as u32;
    let running = AtomicUsize::new(2);
    let [a, b, c] = &mut m;
    let came = thread::scope(|s| {
        s.spawn(|| send_all(a, 0, 2, 100, &running));
        s.spawn(|| send_all(b, 0, 2, 101, &running));
        s.spawn(|| receive_all(c, 0, &running)).join().unwrap()
    });
    assert!(came > 0);
    for m in &m[..2] {
        all_counted(m, PACKETS + before);
    }
    let sent: u64 = m[..2].iter().map(|m| drops(m).packets - u64::from(before)).sum();
    let lost: u64 = m[..2].iter().map(|m| drops(m).all_drops()).sum();
    assert_eq!(sent, came + lost);
    check(&m);
}

#[test]
fn two_rings_of_one_port_in_two_threads_keep_their_order_each() {
    let switch = SimSwitch::default();
    let mut m = [(0, 2), (1, 1)].map(|(i, rings)| switch.attach(i, &geometry(rings, 256), BUF_SIZE));
    introduce(&mut m);
    let running = AtomicUsize::new(2);
    let [a, b] = &mut m;
    let mut rings: Vec<_> = a.port.tx.drain(..).collect();
    a.bring(1);
    thread::scope(|s| {
        for (i, tx) in rings.iter_mut().enumerate() {
            let running = &running;
            s.spawn(move || {
                let _out = Out(running);
                let mut rng = Rng::new(i as u64);
                let mut number = 0;
                while number < PACKETS / 2 {
                    for _ in 0..=rng.below(48) {
                        number += u32::from(tx.put(&frame(1, 100 + i as u8, number), 0));
                    }
                    assert_eq!(tx.sync(), SyncOutcome::Done);
                }
            });
        }
        s.spawn(|| receive_all(b, 0, &running)).join().unwrap()
    });
    a.port.tx = rings;
    check(&m);
}

#[test]
fn two_ports_that_send_to_each_other_do_not_lock_each_other_out() {
    let mut m = members::<2>(256);
    introduce(&mut m);
    let running = AtomicUsize::new(2);
    let [a, b] = &mut m;
    // Each port sends and receives in one thread, as a program would.
    let both = |m: &mut Member, dst: u8, src: u8| {
        let out = Out(&running);
        let mut rng = Rng::new(src.into());
        let (mut number, mut came) = (0, 0u64);
        while number < PACKETS {
            for _ in 0..=rng.below(48) {
                if number < PACKETS && m.port.tx[0].put(&frame(dst, src, number), 0) {
                    number += 1;
                }
            }
            assert_eq!(m.txsync(0), SyncOutcome::Done);
            came += m.receive(0).len() as u64;
        }
        drop(out);
        came + receive_all(m, 0, &running)
    };
    let came = thread::scope(|s| {
        let other = s.spawn(|| both(b, 0, 101));
        [both(a, 1, 100), other.join().unwrap()]
    });
    for (i, m) in m.iter().enumerate() {
        all_counted(m, PACKETS + 1);
        assert_eq!(drops(m).packets - 1 - drops(m).all_drops(), came[1 - i]);
    }
    check(&m);
}

#[test]
fn floods_and_unicast_of_three_ports_at_once_lose_nothing_uncounted() {
    let mut m = members::<3>(128);
    introduce(&mut m);
    let running = AtomicUsize::new(3);
    thread::scope(|s| {
        for m in &mut m {
            let running = &running;
            s.spawn(move || {
                let out = Out(running);
                let index = m.index;
                let mut rng = Rng::new(index.into());
                for _ in 0..4000 {
                    for _ in 0..=rng.below(9) {
                        let dst = [BROADCAST, 0, 1, 2][rng.below(4) as usize];
                        if rng.one_in(4) {
                            m.port.tx[0].put_packet(&long_packet(dst, index, 1, 3), 0);
                        } else {
                            m.port.tx[0].put(&frame(dst, index, 1), 0);
                        }
                    }
                    assert_eq!(m.txsync(0), SyncOutcome::Done);
                    for p in packets(&m.receive(0)) {
                        assert_eq!(u32::from(p[0].flags >> 8) as usize, p.len(), "packets are not torn");
                        assert_eq!(numbers(&p[..1]), [1]);
                    }
                }
                drop(out);
                while running.load(Acquire) > 0 {
                    m.receive(0);
                    thread::yield_now();
                }
                m.receive(0);
            });
        }
    });
    for m in &m {
        let c = drops(m);
        let expected = [Drop::ReceiverFull, Drop::ReceiverBusy, Drop::ToSelf].map(|d| c.dropped(d));
        assert_eq!(c.all_drops(), expected.iter().sum::<u64>());
    }
    check(&m);
}

#[test]
fn a_port_that_comes_and_goes_under_fire_costs_only_its_own_packets() {
    let switch = SimSwitch::default();
    let mut m = [0, 1].map(|i| switch.attach(i, &geometry(1, 64), BUF_SIZE));
    introduce(&mut m);
    let running = AtomicUsize::new(1);
    let stop = AtomicBool::new(false);
    let [a, b] = &mut m;
    let (came, gone) = thread::scope(|s| {
        let out = (Out(&running), Flag(&stop));
        let receiver = s.spawn(|| receive_all(b, 0, &running));
        let comer = s.spawn(|| {
            let mut gone = vec![];
            // Each keeps a file open.
            while !stop.load(Acquire) && gone.len() < 200 {
                let mut m = switch.attach(2, &geometry(1, 64), BUF_SIZE);
                m.send(&frame(0, 2, 0));
                for _ in 0..20 {
                    m.receive(0);
                }
                switch.detach(&m);
                // The memory stays until the last sender is out of it, as between processes.
                gone.push(m);
            }
            gone
        });
        for number in 0..60_000u32 {
            let dst = [1, 2, BROADCAST][(number % 3) as usize];
            a.port.tx[0].put(&frame(dst, 0, number + 1), 0);
            if number % 16 == 15 {
                assert_eq!(a.txsync(0), SyncOutcome::Done);
            }
        }
        a.txsync(0);
        drop(out);
        (receiver.join().unwrap(), comer.join().unwrap())
    });
    assert!(came > 0 && !gone.is_empty());
    for m in gone.iter().chain([&m[0], &m[1]]) {
        let c = drops(m);
        assert_eq!(c.packets + c.extra_copies, c.delivered + c.all_drops());
        m.check_owners();
    }
    let mut all: Vec<&Member> = gone.iter().collect();
    all.extend(m.iter());
    conserved(&all);
}

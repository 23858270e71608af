//! What the machine itself gives, measured in the same run: no port of Ringway is involved.

use crate::cases::Place;
use crate::run::wake_ups;
use crate::stats::{Spread, spread};
use ringway_os::bytes::Bufs;
use ringway_os::mem::Map;
use ringway_os::sys::{monotonic_nanos, pin_to_cpu, thread_cpu_nanos, yield_now};
use std::hint::{black_box, spin_loop};
use std::sync::Barrier;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

/// How long each single measurement takes.
const MOMENT: u64 = 4_000_000;
const ROUNDS: usize = 5;
/// Entries of the bare ring, buffers of each pool, slots of a port's ring: the same number.
const SLOTS: usize = 1024;
/// Distance of buffers in private regions.
const STRIDE: usize = 2112;

/// The first two processors that this process may use; the second is None if there is only one.
pub fn processors() -> (usize, Option<usize>) {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    let mut all = (0..rustix::thread::CpuSet::MAX_CPU).filter(|c| set.is_set(*c));
    (all.next().unwrap_or(0), all.next())
}

/// Pins this thread as the sender, or as the receiver, of a place.
pub fn pin(place: Place, receiver: bool) {
    let (first, second) = processors();
    let cpu = match place {
        Place::Free => return,
        Place::Two if receiver => second.unwrap_or(first),
        _ => first,
    };
    pin_to_cpu(cpu).expect("a processor that we may use");
}

#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

/// Nanoseconds that a cache line takes from one processor to the other: half of a round trip.
pub fn line() -> f64 {
    let (there, back) = (Line::default(), Line::default());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(Place::Two, true);
            let mut n = 0;
            while !over.load(Relaxed) {
                let seen = there.0.load(Acquire);
                if seen != n {
                    n = seen;
                    back.0.store(n, Release);
                }
            }
        });
        let here = scope.spawn(|| {
            pin(Place::Two, false);
            let mut n = 0;
            let mut rounds: Vec<f64> = (0..ROUNDS)
                .map(|_| {
                    let (begin, first) = (monotonic_nanos(), n);
                    loop {
                        for _ in 0..64 {
                            n += 1;
                            there.0.store(n, Release);
                            while back.0.load(Acquire) != n {}
                        }
                        let time = monotonic_nanos() - begin;
                        if time > MOMENT / 2 {
                            return time as f64 / (n - first) as f64 / 2.0;
                        }
                    }
                })
                .collect();
            over.store(true, Relaxed);
            spread(&mut rounds).median
        });
        here.join().expect("it measures")
    })
}

/// Copying frames of `len` bytes from one pool of buffers to another, in one thread: nanoseconds per frame.
pub fn copy(len: usize) -> f64 {
    let pool = || {
        let map = Map::anonymous(SLOTS * STRIDE).expect("memory");
        Bufs::new(&map, 0, STRIDE, SLOTS as u32).expect("it fits")
    };
    let (from, to) = (pool(), pool());
    for i in 0..SLOTS as u32 {
        from.payload(i).expect("a buffer").copy_from(&[7; STRIDE]);
        to.payload(i).expect("a buffer").copy_from(&[8; STRIDE]);
    }
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (begin, mut frames) = (monotonic_nanos(), 0u64);
            loop {
                for i in 0..SLOTS as u32 {
                    black_box(from.copy_frame(i, &to, i, len));
                }
                frames += SLOTS as u64;
                let time = monotonic_nanos() - begin;
                if time > MOMENT / 2 {
                    return time as f64 / frames as f64;
                }
            }
        })
        .collect();
    spread(&mut rounds).median
}

/// Handing descriptors of 16 bytes over a bare ring, `batch` at a time: nanoseconds of CPU per descriptor, both sides together.
pub fn bare_ring(place: Place, batch: usize) -> f64 {
    let batch = batch.clamp(1, SLOTS / 2);
    let ring: Vec<AtomicU64> = (0..2 * SLOTS).map(|_| AtomicU64::new(0)).collect();
    let (head, tail) = (Line::default(), Line::default());
    let over = AtomicBool::new(false);
    let start = Barrier::new(2);
    let wait = || if place == Place::One { yield_now() } else { spin_loop() };
    let (cpu, count) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            pin(place, true);
            start.wait();
            let (mut at, mut sum, cpu) = (0u64, 0u64, thread_cpu_nanos());
            while !over.load(Relaxed) {
                let there = tail.0.load(Acquire);
                if there == at {
                    wait();
                    continue;
                }
                for i in at..there {
                    let k = i as usize % SLOTS * 2;
                    sum = sum.wrapping_add(ring[k].load(Relaxed) + ring[k + 1].load(Relaxed));
                }
                at = there;
                head.0.store(at, Release);
            }
            black_box(sum);
            (thread_cpu_nanos() - cpu, at)
        });
        let sender = scope.spawn(|| {
            pin(place, false);
            start.wait();
            let (mut at, mut seen, cpu) = (0u64, 0u64, thread_cpu_nanos());
            let end = monotonic_nanos() + 3 * MOMENT;
            while monotonic_nanos() < end {
                for _ in 0..64 {
                    if SLOTS as u64 - (at - seen) < batch as u64 {
                        seen = head.0.load(Acquire);
                        if SLOTS as u64 - (at - seen) < batch as u64 {
                            wait();
                            continue;
                        }
                    }
                    for i in at..at + batch as u64 {
                        let k = i as usize % SLOTS * 2;
                        ring[k].store(i, Relaxed);
                        ring[k + 1].store(i, Relaxed);
                    }
                    at += batch as u64;
                    tail.0.store(at, Release);
                }
            }
            over.store(true, Relaxed);
            thread_cpu_nanos() - cpu
        });
        let sent = sender.join().expect("it sends");
        let (received, count) = receiver.join().expect("it receives");
        (sent + received, count)
    });
    cpu as f64 / count.max(1) as f64
}

/// A system call that does nothing: nanoseconds.
pub fn null_call() -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            const CALLS: u32 = 20_000;
            let begin = monotonic_nanos();
            for _ in 0..CALLS {
                black_box(rustix::process::getppid());
            }
            (monotonic_nanos() - begin) as f64 / f64::from(CALLS)
        })
        .collect();
    spread(&mut rounds).median
}

/// How long a sender of single frames sleeps between two: the receiver is asleep again then.
pub const PAUSE: Duration = Duration::from_micros(250);

/// The yardsticks that concern no single row.
pub fn print_all() {
    let median = |place| -> Spread {
        let mut values: Vec<f64> =
            wake_ups(place, 500).expect("processes start").into_iter().map(|n| n as f64 / 1e3).collect();
        spread(&mut values)
    };
    println!(
        "null system call {:.0} ns; copy of a frame, 60 bytes {:.1} ns, 1514 bytes {:.1} ns",
        null_call(),
        copy(60),
        copy(1514)
    );
    if processors().1.is_none() {
        println!("SKIP all with two processors: there is one");
        return;
    }
    println!("cache line to the other processor {:.0} ns", line());
    for place in [Place::Two, Place::One] {
        let ring = [1, 8, 64, 256].map(|batch| format!("{:.1}", bare_ring(place, batch)));
        println!(
            "{}: bare ring of 16-byte descriptors, batch 1, 8, 64, 256: {} ns of CPU each; eventfd wake-up {:.1} us",
            format!("{place:?}").to_lowercase(),
            ring.join(", "),
            median(place).median
        );
    }
}

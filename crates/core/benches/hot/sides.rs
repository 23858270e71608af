//! What the two sides of each case do.

use super::bed::{Bed, SLOTS};
use super::case::{Case, Kind, Where};
use super::client::{Client, RX_BURST};
use super::laps::{AREA, Control, Laps, Part, lead, wait};
use ringway_core::layout::Dir;
use std::hint::black_box;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

pub fn first_side(case: &Case, bed: &Bed, control: &Control) -> Vec<Part> {
    let words = bed.scratch();
    let area = &words[AREA..];
    match case.kind {
        Kind::Latency => {
            let mut n = 0;
            lead(control, || {
                n += 1;
                area[0].store(n, Release);
                while area[8].load(Acquire) != n {}
                n
            })
        }
        Kind::Spsc => {
            let ring = &area[..2 * SLOTS as usize];
            let (mut tail, mut head) = (0u64, 0u64);
            let (head_word, tail_word) = (&words[128], &words[144]);
            let n = u64::from(SLOTS);
            lead(control, || {
                let batch = u64::from(case.batch).min(n);
                if n - (tail - head) < batch {
                    head = head_word.load(Acquire);
                    if n - (tail - head) < batch {
                        wait(case.place);
                        return tail;
                    }
                }
                for i in tail..tail + batch {
                    let k = (i % n) as usize * 2;
                    ring[k].store(i, Relaxed);
                    ring[k + 1].store(i, Relaxed);
                }
                tail += batch;
                tail_word.store(tail, Release);
                tail
            })
        }
        Kind::Copy => {
            let (a, b) = (bed.ring(case, 0, Dir::Tx), bed.ring(case, 1, Dir::Rx));
            let mut n = 0;
            lead(control, || {
                for k in 2..2 + SLOTS {
                    black_box(a.ring.bufs.copy_frame(k, &b.ring.bufs, k + SLOTS, case.len as usize));
                }
                n += u64::from(SLOTS);
                n
            })
        }
        Kind::Vale | Kind::Pipe => {
            let mut tx = Client::new(bed.ring(case, 0, Dir::Tx), bed.sender(case));
            if case.place == Where::Thread {
                let mut rx = Client::new(bed.ring(case, 1, Dir::Rx), bed.receiver(case));
                return lead(control, || {
                    tx.send(case);
                    while rx.receive(case) == RX_BURST {}
                    rx.packets
                });
            }
            lead(control, || {
                if tx.send(case) == 0 {
                    wait(case.place);
                }
                tx.packets
            })
        }
    }
}

pub fn second_side(case: &Case, bed: &Bed, control: &Control) -> Vec<Part> {
    let words = bed.scratch();
    let area = &words[AREA..];
    let mut laps = Laps::new(control);
    match case.kind {
        Kind::Latency => {
            let mut n = 0;
            while !laps.follow(n) {
                let seen = area[0].load(Acquire);
                if seen == n {
                    continue;
                }
                n = seen;
                area[8].store(n, Release);
            }
        }
        Kind::Spsc => {
            let n = u64::from(SLOTS);
            let ring = &area[..2 * SLOTS as usize];
            let (mut head, mut sum) = (0u64, 0u64);
            let (head_word, tail_word) = (&words[128], &words[144]);
            while !laps.follow(head) {
                let tail = tail_word.load(Acquire);
                if tail == head {
                    wait(case.place);
                    continue;
                }
                for i in head..tail {
                    let k = (i % n) as usize * 2;
                    sum += ring[k].load(Relaxed) + ring[k + 1].load(Relaxed);
                }
                head = tail;
                head_word.store(head, Release);
            }
            black_box(sum);
        }
        Kind::Copy => unreachable!(),
        Kind::Vale | Kind::Pipe => {
            let mut rx = Client::new(bed.ring(case, 1, Dir::Rx), bed.receiver(case));
            while !laps.follow(rx.packets) {
                if rx.receive(case) == 0 {
                    wait(case.place);
                }
            }
        }
    }
    laps.parts
}

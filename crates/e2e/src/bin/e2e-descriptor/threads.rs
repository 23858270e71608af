//! Threads that share one bound descriptor, as netmap programs do: each polls it, and takes packets from the mapped ring.

use crate::LONG;
use ringway::NicMode;
use ringway::raw::{self, Bound, POLLIN, POLLOUT};
use ringway_abi::{NR_REG_ALL_NIC, nmreq_register};
use ringway_e2e::role::{Outcome, say};
use ringway_os::mem::{Memfd, SharedRef, SharedSlice};
use ringway_os::ring::{RING_HEADER_BYTES, RingHeader, Slot, SlotWord};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::{Barrier, Mutex};
use std::thread::scope;
use std::time::Duration;

/// Bytes before the list of ring offsets in an interface record.
const IF_BYTES: usize = 56;

/// Headers of TX ring 0 and RX ring 0, found as a C program finds them. Each slot of the TX ring has a frame to everybody.
fn rings(bound: &Bound) -> Outcome<[SharedRef<RingHeader>; 2]> {
    let file = bound.region().try_clone_to_owned()?;
    let (ofs, len) = (usize::try_from(bound.region_ofs())?, usize::try_from(bound.memsize())?);
    let map = Memfd::adopt_window(file, ofs, len)?.map()?;
    let record = usize::try_from(bound.nr_offset())?;
    // TX, host TX, RX.
    let offsets = SharedSlice::<AtomicU64>::new(&map, record + IF_BYTES, 3).ok_or("no interface record")?;
    let at = |i: usize| record + offsets[i].load(Relaxed) as usize;
    let ring = |i: usize| SharedRef::<RingHeader>::new(&map, at(i)).ok_or("no ring");
    let tx = ring(0)?;
    let n = tx.num_slots.load(Relaxed) as usize;
    let slots = SharedSlice::<Slot>::new(&map, at(0) + RING_HEADER_BYTES, n).ok_or("no slots")?;
    for slot in slots.iter() {
        let idx = slot.load().buf_idx();
        slot.store(SlotWord::new(idx, 60, 0));
        let size = tx.nr_buf_size.load(Relaxed) as usize;
        let buf = at(0) + tx.buf_ofs.load(Relaxed) as usize + idx as usize * size;
        let words = SharedSlice::<AtomicU64>::new(&map, buf, 2).ok_or("no buffer")?;
        // To ff:ff:ff:ff:ff:ff from 02:00:00:00:00:01.
        words[0].store(0x0002_ffff_ffff_ffff, Relaxed);
        words[1].store(0x0000_0000_0100_0000, Relaxed);
    }
    Ok([tx, ring(2)?])
}

/// Moves head and cur over up to `max` slots. Returns how many.
fn advance(ring: &RingHeader, max: u32) -> u32 {
    let n = ring.num_slots.load(Relaxed);
    let (head, tail) = (ring.head.load(Relaxed), ring.tail.load(Acquire));
    let k = ((tail + n - head) % n).min(max);
    ring.cur.store((head + k) % n, Relaxed);
    ring.head.store((head + k) % n, Release);
    k
}

/// Waits until something is readable, over the descriptor and an fd of another kind, as the C library's poll will.
fn poll_among(bound: &Bound, other: impl AsFd) -> Outcome<i16> {
    let mut got = bound.look_at(POLLIN);
    if got != 0 {
        return Ok(got);
    }
    let mut sleeper = bound.sleeper(POLLIN)?;
    loop {
        got = sleeper.look();
        if got != 0 {
            return Ok(got);
        }
        if sleeper.announce() {
            std::thread::yield_now();
            continue;
        }
        let mut fds = [PollFd::new(&sleeper, PollFlags::IN), PollFd::new(&other, PollFlags::IN)];
        let limit = Timespec { tv_sec: LONG.as_secs() as i64, tv_nsec: 0 };
        if poll(&mut fds, Some(&limit))? == 0 {
            return Ok(0);
        }
    }
}

/// `count` packets from `a` to `b`, some at a time; two threads poll `b` for them, one alone and one among other files. Then rounds in which both
/// must wake for one packet. Nobody is woken by a clock.
pub fn run(a: &str, b: &str, count: u64) -> Outcome {
    let req = nmreq_register { nr_mode: NR_REG_ALL_NIC, ..Default::default() };
    let open = |name: &str| -> Outcome<Bound> {
        let fd = raw::open()?;
        Ok(raw::register(fd.as_fd(), name, &req, NicMode::default())?.1)
    };
    let (a, b) = (open(a)?, open(b)?);
    let ([tx, _], [_, rx]) = (rings(&a)?, rings(&b)?);
    let taken = AtomicU64::new(0);
    let turn = Mutex::new(());
    let (quiet, _far) = ringway_os::sock::Conn::pair()?;
    let wait = |alone: bool| -> Outcome<i16> {
        if alone {
            Ok(b.poll(POLLIN, Some(LONG)).map_err(|e| format!("{e:?}"))?)
        } else {
            poll_among(&b, &quiet)
        }
    };
    let receiver = |alone: bool| -> Result<u64, String> {
        let mut mine = 0;
        while taken.load(SeqCst) < count {
            let got = wait(alone).map_err(|e| e.to_string())?;
            if got != POLLIN {
                return Err(format!("poll says {got:#x} after {} packets", taken.load(SeqCst)));
            }
            let _turn = turn.lock();
            let left = count - taken.load(SeqCst);
            // The last packet stays, so that the other thread ends as well.
            let max = if left > 1 { (left - 1).min(3) as u32 } else { 0 };
            let k = u64::from(advance(&rx, max));
            mine += k;
            taken.fetch_add(if left == 1 { 1 } else { k }, SeqCst);
        }
        Ok(mine)
    };
    let shares = scope(|s| -> Outcome<[u64; 2]> {
        let threads = [true, false].map(|alone| s.spawn(move || receiver(alone)));
        let mut sent = 0;
        while sent < count && !threads.iter().any(|t| t.is_finished() && sent < count) {
            sent += u64::from(advance(&tx, (1 + sent % 5).min(count - sent) as u32));
            a.txsync()?;
            // They sleep, or are about to, when the next ones come.
            while taken.load(SeqCst) + 1 < sent && !threads.iter().any(|t| t.is_finished()) {
                a.poll(POLLOUT, Some(Duration::ZERO)).map_err(|e| format!("{e:?}"))?;
                std::thread::yield_now();
            }
        }
        let [x, y] = threads.map(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".into())));
        Ok([x?, y?])
    })?;
    advance(&rx, 8);
    b.rxsync()?;
    both_wake(&a, &b, [&tx, &rx], &wait)?;
    say(&format!("{} {}", shares[0], shares[1]));
    Ok(())
}

fn both_wake(
    a: &Bound,
    b: &Bound,
    [tx, rx]: [&RingHeader; 2],
    wait: &(impl Fn(bool) -> Outcome<i16> + Sync),
) -> Outcome {
    const ROUNDS: usize = 3000;
    let round = Barrier::new(3);
    scope(|s| -> Outcome {
        let threads = [true, false].map(|alone| {
            let round = &round;
            s.spawn(move || {
                let mut missed = 0;
                for _ in 0..ROUNDS {
                    round.wait();
                    missed += usize::from(wait(alone).ok() != Some(POLLIN));
                    round.wait();
                }
                missed
            })
        });
        for _ in 0..ROUNDS {
            round.wait();
            advance(tx, 1);
            let sent = a.txsync();
            round.wait();
            sent?;
            advance(rx, 1);
            b.rxsync()?;
        }
        let missed: usize = threads.into_iter().map(|t| t.join().unwrap_or(ROUNDS)).sum();
        if missed == 0 { Ok(()) } else { Err(format!("{missed} wake-ups were missed").into()) }
    })
}

//! The sending half.

use super::child::{in_threads, open, stop_with_parent};
use super::report::{Final, Message};
use super::{GenArgs, STAMP_OFS};
use crate::Failure;
use ringway::{Counters, Interest, Netmap, Port, SyncError, TxRing};
use ringway_os::link::Link;
use ringway_os::sys::{monotonic_nanos, process_cpu_nanos};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How a thread sends.
pub struct Sender {
    frames: Vec<Vec<u8>>,
    /// Bytes of the longest frame.
    longest: usize,
    batch: u32,
    /// Nanoseconds between packets of this thread; 0: as fast as possible.
    gap_ns: f64,
    due_ns: f64,
    next_frame: usize,
    /// Slots that hold their frame already; those of a ring are filled once and sent again and again.
    filled: u32,
    rewrite: bool,
    stamp: bool,
}

impl Sender {
    /// What the options ask of one thread.
    pub fn new(args: &GenArgs) -> Result<Self, Failure> {
        let frames = args.frames()?;
        let gap_ns = args.rate.map_or(0.0, |r| 1e9 * f64::from(args.threads) / r);
        Ok(Sender {
            // Slots keep their frames only if every lap around the ring brings the same ones.
            rewrite: args.touch || args.latency || frames.len() > 1,
            longest: frames.iter().map(Vec::len).max().unwrap_or(0),
            frames,
            batch: args.batch,
            gap_ns,
            due_ns: 0.0,
            next_frame: 0,
            filled: 0,
            stamp: args.latency,
        })
    }

    /// Packets that may be sent now.
    fn allowed(&mut self) -> u32 {
        if self.gap_ns == 0.0 {
            return self.batch;
        }
        let now = monotonic_nanos() as f64;
        if self.due_ns == 0.0 {
            self.due_ns = now;
        }
        let due = ((now - self.due_ns) / self.gap_ns).min(f64::from(self.batch)) as u32;
        // Who falls behind by more than a batch does not catch up in a burst.
        self.due_ns =
            (self.due_ns + f64::from(due) * self.gap_ns).max(now - f64::from(self.batch) * self.gap_ns);
        due
    }

    /// Fills free slots and hands them over, without a sync. Returns packets.
    #[inline]
    pub fn fill(&mut self, tx: &mut TxRing<'_>, max: u32) -> u32 {
        if self.longest > tx.buf_size() {
            return self.fill_long(tx, max);
        }
        if !self.rewrite && self.filled >= tx.num_slots() {
            let len = self.frames[0].len() as u16;
            return tx.fill(max, |slot| {
                slot.set_len(len);
                true
            });
        }
        let mut next = self.next_frame;
        let stamp = if self.stamp { monotonic_nanos() } else { 0 };
        let sent = tx.fill(max, |slot| {
            let frame = &self.frames[next];
            let payload = slot.payload();
            payload.copy_from(frame);
            if self.stamp {
                payload.store_u64(STAMP_OFS, stamp);
            }
            slot.set(frame.len() as u16, 0);
            next = if next + 1 == self.frames.len() { 0 } else { next + 1 };
            true
        });
        self.next_frame = next;
        self.filled = self.filled.saturating_add(sent);
        sent
    }

    /// Frames longer than a buffer: several slots each.
    fn fill_long(&mut self, tx: &mut TxRing<'_>, max: u32) -> u32 {
        let mut sent = 0;
        while sent < max && tx.send(&self.frames[self.next_frame]) {
            self.next_frame = (self.next_frame + 1) % self.frames.len();
            sent += 1;
        }
        sent
    }

    /// Sends until `stop`. `count` has the packets handed over.
    fn send(&mut self, port: &mut Port, stop: &AtomicBool, count: &AtomicU64) -> Result<(), SyncError> {
        let mut total = 0;
        while !stop.load(Relaxed) {
            let allowed = self.allowed();
            if allowed == 0 {
                let wait = (self.due_ns + self.gap_ns - monotonic_nanos() as f64).max(0.0);
                if wait > 60_000.0 {
                    std::thread::sleep(Duration::from_nanos((wait - 50_000.0).min(1e7) as u64));
                } else {
                    std::hint::spin_loop();
                }
                continue;
            }
            // Whole batches: where the receiver gives slots back a few at a time, smaller ones cost both sides more.
            if port.tx(0).space() < allowed {
                port.wait_for(Interest::TX, allowed, Duration::from_millis(10))?;
            }
            let mut tx = port.tx(0);
            let sent = self.fill(&mut tx, allowed);
            if sent > 0 {
                tx.sync()?;
                total += u64::from(sent);
                count.store(total, Relaxed);
            }
        }
        Ok(())
    }
}

/// Slots of one frame, at most: a receiver of a switch counts them in 8 bits, and netmap takes no more.
const MAX_FRAGS: usize = 64;

/// Bytes of a frame that the MTU of an interface does not count.
const ETHERNET_BYTES: usize = 14;

/// Refuses frames that this port can never send.
pub fn fits(frames: &[Vec<u8>], port: &mut Port) -> Result<(), Failure> {
    let tx = port.get_tx(0).ok_or_else(|| Failure::new("the port has no ring to send with"))?;
    let longest = frames.iter().map(Vec::len).max().unwrap_or(0);
    let slots = MAX_FRAGS.min(tx.num_slots().saturating_sub(1) as usize);
    let most = slots * tx.buf_size();
    if longest > most {
        let bytes = tx.buf_size();
        let text = format!("a frame of {longest} bytes does not fit: {slots} slots of {bytes} bytes at most");
        return Err(Failure::new(text));
    }
    drop(tx);
    // The kernel drops those without a word. An interface that does not tell its MTU may take them.
    let link = port.nic_path().and_then(|_| Link::by_name(port.name()).ok());
    match link.map(|link| link.mtu as usize) {
        Some(mtu) if longest > mtu + ETHERNET_BYTES => Err(Failure::new(format!(
            "a frame of {longest} bytes does not fit the MTU of {mtu} bytes (and {ETHERNET_BYTES} of header)"
        ))),
        _ => Ok(()),
    }
}

/// What a ring dropped since its counters were `old`.
pub fn add_drops(end: &mut Final, now: &Counters, old: &Counters) {
    let before: BTreeMap<_, _> = old.drops_by_name().collect();
    for (name, n) in now.drops_by_name() {
        let new = n.saturating_sub(before.get(name).copied().unwrap_or(0));
        if new > 0 {
            *end.drops.entry(name.to_owned()).or_default() += new;
        }
    }
}

/// The child that sends.
pub fn run(args: &GenArgs) -> Result<(), Failure> {
    static STOP: AtomicBool = AtomicBool::new(false);
    let netmap = Netmap::broker();
    let mut parts = vec![];
    for i in 0..args.threads {
        parts.push((open(&netmap, &args.a, i, args)?, Sender::new(args)?, AtomicU64::new(0)));
    }
    let frames = args.frames()?;
    for (port, ..) in &mut parts {
        fits(&frames, port).map_err(|e| Failure::new(format!("{}: {}", args.a, e.text)))?;
    }
    let path = parts.first().and_then(|(port, ..)| port.nic_path());
    let before: Vec<_> = parts.iter().map(|(port, ..)| port.counters().tx).collect();
    Message::Ready.say();
    stop_with_parent(&STOP)?;
    let (cpu, wall) = (process_cpu_nanos(), monotonic_nanos());
    in_threads(&mut parts, &args.a, &STOP, Sender::send)?;
    let mut end = Final {
        packets: parts.iter().map(|(.., count)| count.load(Relaxed)).sum(),
        wall_ns: monotonic_nanos() - wall,
        cpu_ns: process_cpu_nanos() - cpu,
        path: path.map(str::to_owned),
        ..Final::default()
    };
    for ((port, ..), old) in parts.iter().zip(before) {
        let now = port.counters().tx;
        end.bytes += now.bytes - old.bytes;
        end.syncs += now.syncs - old.syncs;
        add_drops(&mut end, &now, &old);
    }
    Message::Final(Box::new(end)).say();
    Ok(())
}

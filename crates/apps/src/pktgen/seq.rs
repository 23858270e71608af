//! Functions `txseq` and `rxseq`: numbered packets, and their check.
//!
//! The number is a big-endian `u32` at the start of the UDP payload; each slot has one of its own, also inside a
//! packet of several slots. So both functions count slots.

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::config::mask;
use super::device::{Device, Events, NS_MOREFRAG, NS_REPORT, Ring};
use super::rx::{IDLE, Next, give_back, service_slots, wait_first, wait_next};
use super::tx::{Pace, flush};
use super::worker::{Failed, Worker};
use crate::traffic::{Frame, Stepper};
use crate::{dline, rdline};

const POLL_TIMEOUT: Duration = Duration::from_millis(2000);
/// Slots that are shown of a packet with an unexpected number of them.
const MAX_SHOWN: usize = 64;

/// The body of the `txseq` thread.
pub(super) fn txseq_body<D: Device>(worker: &Worker<'_>, device: &mut D) -> Result<(), Failed> {
    let config = worker.config;
    if config.threads > 1 {
        dline!(worker.log, "txseq_body", "can only txseq ping with 1 thread");
        return Err(Failed);
    }
    if config.npackets > 0 {
        dline!(worker.log, "txseq_body", "Ignoring -n argument");
    }
    dline!(worker.log, "txseq_body", "start, fd {} main_fd {}", device.fd(), worker.main_fd);
    if device.tx_rings() == 0 {
        dline!(worker.log, "txseq_body", "no transmit ring");
        return Err(Failed);
    }
    let (mut frame, mut stepper) = config.frame(worker.id, worker.src_mac, worker.vnet_bytes);
    let ring = device.tx_ring(0);
    let (buf_size, slots) = (ring.buf_size().min(usize::from(u16::MAX)), ring.num_slots());
    drop(ring);
    if frame.wire_len() > buf_size || config.frags >= slots {
        let (len, frags) = (frame.wire_len(), config.frags);
        dline!(
            worker.log,
            "txseq_body",
            "{frags} frags of {len} bytes do not fit {slots} slots of {buf_size}"
        );
        return Err(Failed);
    }
    let mut pace = Pace::new(worker);
    worker.start();
    let (mut sequence, mut sent, mut events) = (0u32, 0u64, 0);
    while !worker.cancelled() {
        pace.wait(worker);
        if worker.poll_or_say(device, Events::OUT, POLL_TIMEOUT)? == Events::NONE {
            continue;
        }
        let mut ring = device.tx_ring(0);
        // Whole packets, at least one: a burst below the number of fragments would never move.
        let budget = pace.budget(config.burst).max(config.frags);
        let count = budget.min(ring.space()) / config.frags * config.frags;
        send_numbered(worker, &mut ring, &mut frame, &mut stepper, &mut sequence, count);
        if count < budget {
            let tail = ring.tail();
            ring.set_cur(tail);
        }
        drop(ring);
        pace.spend(count.into());
        sent += u64::from(count);
        events += u64::from(count > 0);
        worker.progress(sent, sent * frame.wire_len() as u64, events);
    }
    flush(worker, device)?;
    worker.end(Duration::ZERO);
    Ok(())
}

/// Sends `count` slots, a multiple of the fragments of a packet.
fn send_numbered<R: Ring>(
    worker: &Worker<'_>,
    ring: &mut R,
    frame: &mut Frame,
    stepper: &mut Stepper,
    sequence: &mut u32,
    count: u32,
) {
    let config = worker.config;
    let mut idx = ring.head();
    for i in 1..=count {
        frame.set_sequence(*sequence);
        *sequence = sequence.wrapping_add(1);
        ring.write(idx, 0, frame.bytes());
        let ends_packet = i % config.frags == 0;
        let mut flags = if ends_packet { 0 } else { NS_MOREFRAG };
        if i == count {
            flags |= NS_REPORT;
        }
        ring.set_slot(idx, frame.wire_len() as u16, flags);
        if config.has(mask::DUMP) {
            worker.dump(ring, idx);
        }
        if ends_packet {
            stepper.step(frame);
        }
        idx = ring.next(idx);
    }
    ring.set_head(idx);
    ring.set_cur(idx);
}

/// What `rxseq` expects of one ring.
#[derive(Debug, Default)]
struct Expected {
    sequence: u32,
    /// Slots of the packet before; 0 before the first one.
    frags: u32,
    /// Lengths and flags of the first slots of the packet that is coming in.
    shown: Vec<(u16, u16)>,
    slots: u32,
}

impl Expected {
    /// Takes one slot: checks its number, and at the end of a packet the number of slots.
    fn take<R: Ring>(&mut self, worker: &Worker<'_>, ring: &R, idx: u32, offset: usize) {
        let slot = ring.slot(idx);
        if usize::from(slot.len) < offset + 4 {
            rdline!(worker.log, 1, "rxseq_body", "rxseq_body: packet too small (len={})", slot.len);
        } else {
            let mut number = [0; 4];
            ring.read(idx, offset, &mut number);
            let (found, expected) = (u32::from_be_bytes(number), self.sequence);
            // Differences are signed: numbers wrap.
            match found.wrapping_sub(expected).cast_signed() {
                0 => {}
                1.. => {
                    rdline!(worker.log, 1, "rxseq_body", "Sequence GAP: exp {expected} found {found}");
                }
                _ => {
                    rdline!(
                        worker.log,
                        1,
                        "rxseq_body",
                        "Sequence OUT OF ORDER: exp {expected} found {found}"
                    );
                }
            }
            self.sequence = found.wrapping_add(1);
        }
        self.slots += 1;
        if self.shown.len() < MAX_SHOWN {
            self.shown.push((slot.len, slot.flags));
        }
        if slot.flags & NS_MOREFRAG == 0 {
            self.end_packet(worker);
        }
    }

    fn end_packet(&mut self, worker: &Worker<'_>) {
        let expected = if self.frags == 0 { worker.config.frags } else { self.frags };
        if self.slots != expected {
            let slots = self.slots;
            let mut shown = String::new();
            for (len, flags) in &self.shown {
                let _ = write!(shown, "|{len},{flags:x}");
            }
            rdline!(
                worker.log,
                1,
                "rxseq_body",
                "Received packets with {slots} frags, expected {expected}, '{shown}|'"
            );
        }
        self.frags = self.slots;
        self.slots = 0;
        self.shown.clear();
    }
}

/// The body of an `rxseq` thread.
pub(super) fn rxseq_body<D: Device>(worker: &Worker<'_>, device: &mut D) -> Result<(), Failed> {
    let config = worker.config;
    let (name, fd, main_fd) = (&config.ifname, device.fd(), worker.main_fd);
    dline!(worker.log, "rxseq_body", "reading from {name} fd {fd} main_fd {main_fd}");
    let offset = worker.vnet_bytes + if config.ipv6 { 62 } else { 42 };
    let mut expected: Vec<Expected> = (0..device.rx_rings()).map(|_| Expected::default()).collect();
    if !wait_first(worker, device)? {
        return Ok(());
    }
    worker.start();
    let (mut pkts, mut bytes, mut events) = (0u64, 0u64, 0);
    let mut early = Duration::ZERO;
    while !worker.cancelled() {
        match wait_next(worker, device)? {
            Next::Receive => {}
            Next::Again => continue,
            Next::Stop => {
                early = IDLE;
                break;
            }
        }
        let mut space = 0;
        for (i, expected) in expected.iter_mut().enumerate() {
            let mut ring = device.rx_ring(i);
            space += u64::from(service_slots(&ring));
            let count = ring.space().min(config.burst);
            let mut idx = ring.head();
            for _ in 0..count {
                if config.has(mask::DUMP) {
                    worker.dump(&ring, idx);
                }
                expected.take(worker, &ring, idx, offset);
                bytes += u64::from(ring.slot(idx).len);
                idx = ring.next(idx);
            }
            ring.set_head(idx);
            ring.set_cur(idx);
            pkts += u64::from(count);
            events += u64::from(count > 0);
        }
        worker.counters.min_space.fetch_min(space, Ordering::Relaxed);
        worker.progress(pkts, bytes, events);
    }
    worker.end(early);
    give_back(worker, device);
    Ok(())
}

//! Function `rx`: counts what arrives.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::config::mask;
use super::device::{Device, Events, NS_MOREFRAG, Ring};
use super::worker::{Failed, Worker};
use crate::{dline, rdline};

/// How long a poll waits, and what counts as silence for `-W`.
pub(super) const IDLE: Duration = Duration::from_secs(1);

/// Waits for the first packet, however long it takes. False after control-C.
pub(super) fn wait_first<D: Device>(worker: &Worker<'_>, device: &mut D) -> Result<bool, Failed> {
    loop {
        let (result, events) = match worker.poll(device, Events::IN, IDLE) {
            Ok(events) if events.has(Events::ERR) => {
                worker.say_trouble(device);
                dline!(worker.log, "receiver_body", "fd error");
                return Err(Failed);
            }
            Ok(events) if events.has(Events::IN) => return Ok(true),
            Ok(events) => (i32::from(events != Events::NONE), events),
            Err(error) => return Err(poll_failed(worker, &error)),
        };
        if worker.cancelled() {
            return Ok(false);
        }
        rdline!(
            worker.log,
            1,
            "receiver_body",
            "waiting for initial packets, poll returns {result} {}",
            events.0
        );
    }
}

fn poll_failed(worker: &Worker<'_>, error: &io::Error) -> Failed {
    dline!(worker.log, "receiver_body", "poll() error: {error}");
    Failed
}

/// What a receiver does after a poll.
pub(super) enum Next {
    /// Look at the rings.
    Receive,
    /// Poll again.
    Again,
    /// Silence, and `-W` was given.
    Stop,
}

/// Polls for packets, once the first one was there.
pub(super) fn wait_next<D: Device>(worker: &Worker<'_>, device: &mut D) -> Result<Next, Failed> {
    match worker.poll(device, Events::IN, IDLE) {
        Ok(Events::NONE) if worker.config.exit_if_idle && !worker.cancelled() => Ok(Next::Stop),
        Ok(Events::NONE) => Ok(Next::Again),
        Ok(events) if events.has(Events::ERR) => {
            worker.say_trouble(device);
            dline!(worker.log, "receiver_body", "poll err");
            Err(Failed)
        }
        Ok(_) => Ok(Next::Receive),
        Err(error) => Err(poll_failed(worker, &error)),
    }
}

/// Slots of a receive ring that are with the service; for an empty ring, where all are, 0 as in netmap.
pub(super) fn service_slots<R: Ring>(ring: &R) -> u32 {
    if ring.is_empty() { 0 } else { ring.num_slots() - ring.space() }
}

/// Complete packets, bytes and slots of one round in one ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Got {
    pkts: u64,
    bytes: u64,
    slots: u32,
}

/// Takes up to `limit` slots, and at most `left` packets.
fn receive<R: Ring>(worker: &Worker<'_>, ring: &mut R, limit: u32, left: u64) -> Got {
    let dump = worker.config.has(mask::DUMP);
    let slots = ring.space().min(limit);
    let mut got = Got::default();
    let mut idx = ring.head();
    while got.slots < slots && got.pkts < left {
        let slot = ring.slot(idx);
        if dump {
            worker.dump(ring, idx);
        }
        got.bytes += u64::from(slot.len);
        got.pkts += u64::from(slot.flags & NS_MOREFRAG == 0);
        got.slots += 1;
        idx = ring.next(idx);
    }
    ring.set_head(idx);
    ring.set_cur(idx);
    got
}

/// Releases what was received last: the sender at the other end of a pipe waits for it.
pub(super) fn give_back<D: Device>(worker: &Worker<'_>, device: &mut D) {
    if let Err(error) = device.rxsync() {
        dline!(worker.log, "receiver_body", "cannot sync: {error}");
    }
}

/// The body of an `rx` thread.
pub(super) fn receiver_body<D: Device>(worker: &Worker<'_>, device: &mut D) -> Result<(), Failed> {
    let config = worker.config;
    let (name, fd, main_fd) = (&config.ifname, device.fd(), worker.main_fd);
    dline!(worker.log, "receiver_body", "reading from {name} fd {fd} main_fd {main_fd}");
    if !wait_first(worker, device)? {
        return Ok(());
    }
    worker.start();
    let (mut pkts, mut bytes, mut events) = (0, 0, 0);
    let left = |pkts: u64| worker.share.map_or(u64::MAX, |share| share.saturating_sub(pkts));
    let mut early = Duration::ZERO;
    while !worker.cancelled() && left(pkts) > 0 {
        match wait_next(worker, device)? {
            Next::Receive => {}
            Next::Again => continue,
            Next::Stop => {
                // The second of silence does not count.
                early = IDLE;
                break;
            }
        }
        let mut space = 0;
        for i in 0..device.rx_rings() {
            let mut ring = device.rx_ring(i);
            space += u64::from(service_slots(&ring));
            if ring.is_empty() {
                continue;
            }
            let got = receive(worker, &mut ring, config.burst, left(pkts));
            pkts += got.pkts;
            bytes += got.bytes;
            events += u64::from(got.slots > 0);
        }
        worker.counters.min_space.fetch_min(space, Ordering::Relaxed);
        worker.progress(pkts, bytes, events);
    }
    worker.end(early);
    give_back(worker, device);
    Ok(())
}

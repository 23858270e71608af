//! Functions `ping` and `pong`: round-trip times.
//!
//! A ping carries, in native byte order from offset 42 on, a sequence number and the time it left (seconds,
//! nanoseconds), 32 bits each. Any frame that comes in counts as an answer.

use std::fmt::Write;
use std::time::Duration;

use super::config::mask;
use super::device::{Device, Events, Ring};
use super::worker::{Failed, Worker};
use crate::dline;
use crate::traffic::Frame;

/// Where the numbers of a ping start, behind Ethernet, IPv4 and UDP headers.
const PING_OFFSET: usize = 42;
const PING_TIMEOUT: Duration = Duration::from_secs(3);
const PONG_TIMEOUT: Duration = Duration::from_secs(1);

/// Round-trip times, in nanoseconds.
#[derive(Clone, Debug)]
struct Times {
    count: u64,
    min: u64,
    sum: u64,
    /// Bucket `k` counts times of `[2^k, 2^(k+1))`.
    buckets: [u64; 64],
}

impl Times {
    const NONE: Times = Times { count: 0, min: u64::MAX, sum: 0, buckets: [0; 64] };

    fn add(&mut self, nanos: u64) {
        self.count += 1;
        self.min = self.min.min(nanos);
        self.sum = self.sum.saturating_add(nanos);
        self.buckets[nanos.max(1).ilog2() as usize] += 1;
    }

    /// Smallest and mean; zeros when there are no times.
    fn min_av(&self) -> (u64, u64) {
        self.sum.checked_div(self.count).map_or((0, 0), |mean| (self.min, mean))
    }

    /// `k: lo .. hi` and the buckets between, `None` when there are no times.
    fn histogram(&self) -> Option<String> {
        let low = self.buckets.iter().position(|n| *n > 0)?;
        let high = self.buckets.iter().rposition(|n| *n > 0)?;
        let mut text = format!("k: {} .. {}\n\t", 1u64 << low, 1u64 << high);
        for n in &self.buckets[low..=high] {
            let _ = write!(text, " {n:5}");
        }
        Some(text)
    }
}

/// True, with a message, when there are too many threads.
fn many_threads(worker: &Worker<'_>, what: &str) -> bool {
    if worker.config.threads > 1 {
        dline!(worker.log, "ping_body", "can only {what} with 1 thread");
    }
    if worker.config.ipv6 {
        dline!(worker.log, "ping_body", "Warning: ping-pong with IPv6 not supported");
    }
    worker.config.threads > 1
}

/// The body of the `ping` thread.
pub(super) fn ping_body<D: Device>(worker: &Worker<'_>, device: &mut D) -> Result<(), Failed> {
    const REPORT: Duration = Duration::from_secs(1);
    if many_threads(worker, "ping") || device.tx_rings() == 0 {
        return Err(Failed);
    }
    let (mut frame, _) = worker.config.frame(worker.id, worker.src_mac, worker.vnet_bytes);
    let (mut total, mut recent) = (Times::NONE, Times::NONE);
    let mut next_report = worker.clock.now() + REPORT;
    let (mut sent, mut bytes, mut events) = (0, 0, 0);
    worker.start();
    while !worker.cancelled() && worker.share.is_none_or(|share| sent < share) {
        let left = worker.share.map_or(u64::MAX, |share| share - sent);
        let count = left.min(worker.config.burst.into());
        let before = sent;
        for _ in 0..count {
            if !send_ping(worker, &mut device.tx_ring(0), &mut frame, sent as u32) {
                dline!(worker.log, "ping_body", "-- ouch, cannot send");
                break;
            }
            sent += 1;
            bytes += frame.wire_len() as u64;
        }
        events += u64::from(sent > before);
        worker.progress(sent, bytes, events);
        // The poll pushes what was sent.
        if worker.poll_or_say(device, Events::IN, PING_TIMEOUT)?.has(Events::IN) {
            for i in 0..device.rx_rings() {
                collect(worker, &mut device.rx_ring(i), |nanos| {
                    total.add(nanos);
                    recent.add(nanos);
                });
            }
        }
        let now = worker.clock.now();
        if now >= next_report {
            let (min, av) = recent.min_av();
            dline!(worker.log, "ping_body", "count {} RTT: min {min} av {av} ns", recent.count);
            if let Some(histogram) = recent.histogram() {
                dline!(worker.log, "ping_body", "{histogram}");
            }
            recent = Times::NONE;
            next_report = now + REPORT;
        }
    }
    let (min, av) = total.min_av();
    dline!(worker.log, "ping_body", "RTT over {sent} packets: min {min} av {av} ns");
    worker.end(Duration::ZERO);
    Ok(())
}

/// Puts one ping into the ring; false when it is full, or the frame too long for it.
fn send_ping<R: Ring>(worker: &Worker<'_>, ring: &mut R, frame: &mut Frame, sequence: u32) -> bool {
    if ring.is_empty() || frame.wire_len() > ring.buf_size().min(usize::from(u16::MAX)) {
        return false;
    }
    let now = worker.clock.wall();
    let mut data = [0; 12];
    data[0..4].copy_from_slice(&sequence.to_ne_bytes());
    data[4..8].copy_from_slice(&(now.as_secs() as u32).to_ne_bytes());
    data[8..12].copy_from_slice(&now.subsec_nanos().to_ne_bytes());
    // In an IPv6 frame this lies elsewhere, hence the warning.
    frame.patch_payload(&data);
    put_frame(worker, ring, frame.bytes())
}

/// Takes all frames of a ring and tells `add` the age of the stamp in each.
fn collect<R: Ring>(worker: &Worker<'_>, ring: &mut R, mut add: impl FnMut(u64)) {
    let mut idx = ring.head();
    for _ in 0..ring.space() {
        let mut data = [0; 8];
        ring.read(idx, worker.vnet_bytes + PING_OFFSET + 4, &mut data);
        let [a, b, c, d, e, f, g, h] = data;
        let (secs, nanos) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        let left = Duration::from_secs(secs.into()) + Duration::from_nanos(nanos.into());
        let now = worker.clock.wall();
        // The seconds have 32 bits; whatever else a foreign frame holds there gives no negative times.
        let now = Duration::new(now.as_secs() & 0xffff_ffff, now.subsec_nanos());
        add(u64::try_from(now.saturating_sub(left).as_nanos()).unwrap_or(u64::MAX));
        if worker.config.has(mask::DUMP) {
            worker.dump(ring, idx);
        }
        idx = ring.next(idx);
    }
    ring.set_head(idx);
    ring.set_cur(idx);
}

/// The body of the `pong` thread.
pub(super) fn pong_body<D: Device>(worker: &Worker<'_>, device: &mut D) -> Result<(), Failed> {
    if many_threads(worker, "reply ping") || device.tx_rings() == 0 {
        return Err(Failed);
    }
    let wanted = worker.config.npackets;
    if wanted > 0 {
        dline!(worker.log, "pong_body", "understood ponger {wanted} but don't know how to do it");
    }
    worker.start();
    let (mut sent, mut bytes, mut events) = (0, 0, 0);
    let mut frame = Vec::new();
    while !worker.cancelled() && (wanted == 0 || sent < wanted) {
        if !worker.poll_or_say(device, Events::IN, PONG_TIMEOUT)?.has(Events::IN) {
            continue;
        }
        let before = sent;
        for i in 0..device.rx_rings() {
            while wanted == 0 || sent < wanted {
                if !take_frame(&mut device.rx_ring(i), &mut frame) {
                    break;
                }
                swap_ends(&mut frame, worker.vnet_bytes);
                if put_frame(worker, &mut device.tx_ring(0), &frame) {
                    sent += 1;
                    bytes += frame.len() as u64;
                }
            }
        }
        if let Err(error) = device.txsync() {
            dline!(worker.log, "pong_body", "cannot sync: {error}");
            return Err(Failed);
        }
        events += u64::from(sent > before);
        worker.progress(sent, bytes, events);
    }
    worker.end(Duration::ZERO);
    Ok(())
}

/// Takes the next slot of a ring into `frame`; false when there is none.
fn take_frame<R: Ring>(ring: &mut R, frame: &mut Vec<u8>) -> bool {
    if ring.is_empty() {
        return false;
    }
    let idx = ring.head();
    let len = usize::from(ring.slot(idx).len).min(ring.buf_size());
    frame.resize(len, 0);
    ring.read(idx, 0, frame);
    let next = ring.next(idx);
    ring.set_head(next);
    ring.set_cur(next);
    true
}

/// Puts `frame` into the next slot; false when the ring is full.
fn put_frame<R: Ring>(worker: &Worker<'_>, ring: &mut R, frame: &[u8]) -> bool {
    if ring.is_empty() {
        return false;
    }
    let idx = ring.head();
    let data = &frame[..frame.len().min(ring.buf_size())];
    ring.write(idx, 0, data);
    ring.set_slot(idx, data.len() as u16, 0);
    if worker.config.has(mask::DUMP) {
        worker.dump(ring, idx);
    }
    let next = ring.next(idx);
    ring.set_head(next);
    ring.set_cur(next);
    true
}

/// Exchanges source and destination: the MAC addresses and, in IPv4, the addresses. Checksums stay right, since
/// sums do not depend on the order.
fn swap_ends(frame: &mut [u8], vnet_bytes: usize) {
    let Some(eth) = frame.get_mut(vnet_bytes..).filter(|eth| eth.len() >= 14) else { return };
    let (dst, rest) = eth.split_at_mut(6);
    dst.swap_with_slice(&mut rest[..6]);
    if eth[12..14] == [0x08, 0x00] && eth.len() >= 34 {
        let (src, dst) = eth[26..34].split_at_mut(4);
        src.swap_with_slice(dst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_span_the_used_buckets() {
        let mut times = Times::NONE;
        assert_eq!((times.min_av(), times.histogram()), ((0, 0), None));
        [0, 1, 5, 6, 9].into_iter().for_each(|nanos| times.add(nanos));
        assert_eq!(times.min_av(), (0, 4));
        assert_eq!(times.histogram().unwrap(), "k: 1 .. 8\n\t     2     0     2     1");
        times.add(u64::MAX);
        assert!(times.histogram().unwrap().starts_with("k: 1 .. 9223372036854775808\n\t "));
    }

    #[test]
    fn ends_are_swapped_behind_the_header() {
        let mut frame: Vec<u8> = (0..50).collect();
        frame[10 + 12..10 + 14].copy_from_slice(&[8, 0]);
        swap_ends(&mut frame, 10);
        assert_eq!(frame[10..22], [16, 17, 18, 19, 20, 21, 10, 11, 12, 13, 14, 15]);
        assert_eq!(frame[36..44], [40, 41, 42, 43, 36, 37, 38, 39]);
        let mut short = vec![1, 2, 3];
        swap_ends(&mut short, 0);
        swap_ends(&mut short, 10);
        assert_eq!(short, [1, 2, 3]);
    }
}

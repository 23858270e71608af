//! The receiving half.

use super::child::{in_threads, open, stop_with_parent};
use super::report::{Final, Message};
use super::sender::add_drops;
use super::{GenArgs, RECEIVER_MAC, STAMP_OFS};
use crate::Failure;
use hdrhistogram::Histogram;
use ringway::{Interest, Netmap, Port, RxRing, SyncError};
use ringway_apps::addr::Mac;
use ringway_os::sys::{monotonic_nanos, process_cpu_nanos, thread_cpu_nanos};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Ethernet type of the frame by which a receiver announces itself: for experiments (RFC 5342, section 2.3.3).
const HELLO_TYPE: [u8; 2] = [0x88, 0xb5];

/// From a nanosecond to a minute, three digits.
fn histogram() -> Result<Histogram<u64>, Failure> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// What a thread has received.
pub struct Got {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    touch: bool,
    stamps: Option<Histogram<u64>>,
    /// What the payloads add up to: reading that nobody uses would not be done.
    pub sum: u64,
}

impl Got {
    /// Nothing yet.
    pub fn new(args: &GenArgs) -> Result<Self, Failure> {
        let stamps = if args.latency { Some(histogram()?) } else { None };
        Ok(Got { packets: 0, bytes: 0, touch: args.touch, stamps, sum: 0 })
    }

    /// Takes what a ring holds, without a sync.
    #[inline]
    pub fn take(&mut self, rx: &mut RxRing<'_>) {
        let now = if self.stamps.is_some() && !rx.is_empty() { monotonic_nanos() } else { 0 };
        let (mut packets, mut bytes, mut sum) = (0u64, 0u64, 0u64);
        let touch = self.touch;
        let stamps = &mut self.stamps;
        rx.drain(u32::MAX, |slot| {
            packets += u64::from(!slot.has_more());
            bytes += u64::from(slot.len());
            if touch {
                let payload = slot.payload();
                let mut ofs = 0;
                while let Some(word) = payload.load_u64(ofs) {
                    sum = sum.wrapping_add(word);
                    ofs += 8;
                }
            }
            if let Some(h) = stamps
                && let Some(sent) = slot.payload().load_u64(STAMP_OFS).filter(|s| *s != 0)
            {
                h.saturating_record(now.saturating_sub(sent));
            }
            true
        });
        self.packets += packets;
        self.bytes += bytes;
        self.sum = self.sum.wrapping_add(sum);
    }

    /// The percentiles, if asked for.
    pub fn percentiles(all: &[Got]) -> Result<BTreeMap<String, u64>, Failure> {
        let mut sum = histogram()?;
        for h in all.iter().filter_map(|g| g.stamps.as_ref()) {
            sum.add(h)?;
        }
        if sum.is_empty() {
            return Ok(BTreeMap::new());
        }
        let at = |name: &str, q: f64| (name.to_owned(), sum.value_at_quantile(q));
        let mut out: BTreeMap<String, u64> =
            [at("50 %", 0.5), at("90 %", 0.9), at("99 %", 0.99), at("99.9 %", 0.999)].into();
        out.insert("max".into(), sum.max());
        Ok(out)
    }
}

/// Times of the first and the last packet: wall clock and CPU of the thread.
#[derive(Clone, Copy, Default)]
struct Span {
    first: Option<(u64, u64)>,
    last: (u64, u64),
}

fn receive(got: &mut Got, port: &mut Port, stop: &AtomicBool, count: &AtomicU64) -> Result<Span, SyncError> {
    let mut span = Span::default();
    let mut rounds = 0u32;
    while !stop.load(Relaxed) {
        if !port.wait(Interest::RX, Some(Duration::from_millis(20)))?.rx {
            continue;
        }
        if span.first.is_none() {
            span.first = Some((monotonic_nanos(), thread_cpu_nanos()));
        }
        for i in 0..port.rx_rings() {
            got.take(&mut port.rx(i));
        }
        count.store(got.packets, Relaxed);
        rounds += 1;
        if rounds.is_multiple_of(64) || stop.load(Relaxed) {
            span.last = (monotonic_nanos(), thread_cpu_nanos());
        }
    }
    if rounds < 64 {
        span.last = (monotonic_nanos(), thread_cpu_nanos());
    }
    Ok(span)
}

/// One broadcast frame, so that a switch learns where we are.
fn announce(port: &mut Port) -> Result<(), Failure> {
    let mut frame = [0u8; 60];
    frame[..6].copy_from_slice(&Mac::BROADCAST.0);
    frame[6..12].copy_from_slice(&RECEIVER_MAC.0);
    frame[12..14].copy_from_slice(&HELLO_TYPE);
    if let Some(mut tx) = port.get_tx(0)
        && tx.send(&frame)
    {
        tx.sync()?;
    }
    Ok(())
}

/// The child that receives.
pub fn run(args: &GenArgs) -> Result<(), Failure> {
    static STOP: AtomicBool = AtomicBool::new(false);
    let netmap = Netmap::broker();
    let mut parts = vec![];
    for i in 0..args.threads {
        let mut port = open(&netmap, &args.b, i, args)?;
        if i == 0 && port.name().starts_with("vale") {
            announce(&mut port)?;
        }
        parts.push((port, Got::new(args)?, AtomicU64::new(0)));
    }
    let before: Vec<_> = parts.iter().map(|(port, ..)| port.counters().rx).collect();
    Message::Ready.say();
    stop_with_parent(&STOP)?;
    let spans = in_threads(&mut parts, &args.b, &STOP, receive)?;
    let path = parts.first().and_then(|(port, ..)| port.nic_path());
    let mut end = Final { path: path.map(str::to_owned), ..Final::default() };
    let first = spans.iter().filter_map(|s| s.first).map(|(wall, _)| wall).min();
    let last = spans.iter().map(|s| s.last.0).max().unwrap_or(0);
    end.wall_ns = first.map_or(0, |f| last.saturating_sub(f));
    end.cpu_ns = spans.iter().filter_map(|s| Some(s.last.1.saturating_sub(s.first?.1))).sum();
    for ((port, got, _), old) in parts.iter().zip(before) {
        let c = port.counters().rx;
        end.packets += got.packets;
        end.bytes += got.bytes;
        end.syncs += c.syncs - old.syncs;
        add_drops(&mut end, &c, &old);
    }
    std::hint::black_box(parts.iter().fold(process_cpu_nanos(), |s, (_, got, _)| s.wrapping_add(got.sum)));
    let got: Vec<Got> = parts.into_iter().map(|(_, got, _)| got).collect();
    end.latency_ns = Got::percentiles(&got)?;
    Message::Final(Box::new(end)).say();
    Ok(())
}

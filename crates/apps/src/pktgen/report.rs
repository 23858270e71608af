//! What the main thread prints: a line each interval, and the summary.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::config::{Config, Direction, mask};
use super::worker::{Counters, NO_SPACE_SEEN};
use crate::units::{norm, per_second};

/// Rates that `-A` looks back on.
const SAMPLES: usize = 15;

/// Sums over all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets.
    pub pkts: u64,
    /// Bytes.
    pub bytes: u64,
    /// Rounds that moved something.
    pub events: u64,
}

impl Totals {
    /// Adds up the counters.
    pub fn of(counters: &[Counters]) -> Totals {
        counters.iter().fold(Totals::default(), |sum, counter| Totals {
            pkts: sum.pkts + counter.pkts.load(Ordering::Relaxed),
            bytes: sum.bytes + counter.bytes.load(Ordering::Relaxed),
            events: sum.events + counter.events.load(Ordering::Relaxed),
        })
    }
}

/// Makes the lines of the intervals.
#[derive(Debug)]
pub struct Reporter<'a> {
    config: &'a Config,
    last: Totals,
    last_time: Duration,
    rates: VecDeque<f64>,
}

impl<'a> Reporter<'a> {
    /// A reporter whose first interval starts now.
    pub fn new(config: &'a Config, now: Duration) -> Reporter<'a> {
        Reporter { config, last: Totals::default(), last_time: now, rates: VecDeque::new() }
    }

    /// True if something moved since the last line.
    pub fn has_news(&self, counters: &[Counters]) -> bool {
        Totals::of(counters) != self.last
    }

    /// The line of the interval that ends now.
    pub fn line(&mut self, now: Duration, counters: &[Counters]) -> String {
        let plain = self.config.plain;
        let totals = Totals::of(counters);
        let min_space: u64 =
            counters.iter().map(|c| c.min_space.swap(NO_SPACE_SEEN, Ordering::Relaxed)).sum();
        let pkts = totals.pkts - self.last.pkts;
        let bytes = totals.bytes - self.last.bytes;
        let events = totals.events - self.last.events;
        let time = now.saturating_sub(self.last_time);
        (self.last, self.last_time) = (totals, now);

        let bits = (bytes * 8 + pkts * self.config.framing_bits) as f64;
        let (pps, bps) = (per_second(pkts as f64, time), per_second(bits, time));
        let batch = if events > 0 { pkts as f64 / events as f64 } else { 0.0 };
        let stats = self.stats(pps);
        format!(
            "{}pps {stats}({}pkts {}bps in {} usec) {batch:.2} avg_batch {min_space} min_space",
            norm(pps, plain),
            norm(pkts as f64, plain),
            norm(bps, plain),
            time.as_micros()
        )
    }

    /// Mean and deviation of the last rates that are not zero, with `-A`.
    fn stats(&mut self, pps: f64) -> String {
        if !self.config.has(mask::STATS) {
            return String::new();
        }
        if self.rates.len() == SAMPLES {
            self.rates.pop_front();
        }
        self.rates.push_back(pps);
        let rates: Vec<f64> = self.rates.iter().copied().filter(|rate| *rate > 0.0).collect();
        let count = rates.len().max(1) as f64;
        // From 0: the sum of no numbers is -0.
        let mean = rates.iter().fold(0.0, |sum, rate| sum + rate) / count;
        let variance = rates.iter().fold(0.0, |sum, rate| sum + (rate - mean).powi(2)) / count;
        let plain = self.config.plain;
        format!("[avg/std {}/{} pps]", norm(mean, plain), norm(variance.sqrt(), plain))
    }
}

/// The summary: from the largest start to the largest end of all threads.
pub fn summary(config: &Config, counters: &[Counters]) -> Option<String> {
    let verb = match config.function.direction() {
        Direction::Sender => "Sent",
        Direction::Receiver => "Received",
        Direction::Other => return None,
    };
    let totals = Totals::of(counters);
    if totals.pkts == 0 {
        return Some(format!("{verb} nothing.\n"));
    }
    let largest = |pick: fn(&Counters) -> u64| counters.iter().map(pick).max().unwrap_or(0);
    let start = largest(|counter| counter.start_ns.load(Ordering::Relaxed));
    let end = largest(|counter| counter.end_ns.load(Ordering::Relaxed));
    let time = Duration::from_nanos(end.saturating_sub(start));
    let Totals { pkts, bytes, events } = totals;
    let bits = (bytes * 8) as f64;
    let raw_bits = (bytes * 8 + pkts * config.framing_bits) as f64;
    let plain = config.plain;
    Some(format!(
        "{verb} {pkts} packets {bytes} bytes {events} events {} bytes each in {:.2} seconds.\n\
         Speed: {}pps Bandwidth: {}bps (raw {}bps). Average batch: {:.2} pkts\n",
        bytes / pkts,
        time.as_secs_f64(),
        norm(per_second(pkts as f64, time), plain),
        norm(per_second(bits, time), plain),
        norm(per_second(raw_bits, time), plain),
        pkts as f64 / events.max(1) as f64,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pktgen::config::read;
    use crate::pktgen::options::split;
    use crate::units::DLog;

    fn config(line: &str) -> Config {
        let given = split(line.split_whitespace().map(Into::into)).unwrap();
        read(&given, 1, &DLog::new(std::io::sink(), || Duration::ZERO)).unwrap()
    }

    fn set(counters: &[Counters], pkts: u64, size: u64, events: u64) {
        counters[0].pkts.store(pkts, Ordering::Relaxed);
        counters[0].bytes.store(pkts * size, Ordering::Relaxed);
        counters[0].events.store(events, Ordering::Relaxed);
    }

    #[test]
    fn interval_lines_are_as_in_the_contract() {
        let config = config("pkt-gen -i x -f tx");
        let counters = [Counters::default()];
        let mut reporter = Reporter::new(&config, Duration::from_secs(5));
        set(&counters, 0, 60, 0);
        assert_eq!(
            reporter.line(Duration::from_secs(6), &counters),
            "0.000 pps (0.000 pkts 0.000 bps in 1000000 usec) 0.00 avg_batch 0 min_space"
        );
        set(&counters, 14_894_880, 60, 29_100);
        assert_eq!(
            reporter.line(Duration::from_millis(7001), &counters),
            "14.880 Mpps (14.895 Mpkts 7.142 Gbps in 1001000 usec) 511.85 avg_batch 99999 min_space"
        );
    }

    #[test]
    fn means_leave_out_silent_intervals_and_old_ones() {
        let config = config("pkt-gen -i x -f tx -A -N -B");
        let counters = [Counters::default()];
        let mut reporter = Reporter::new(&config, Duration::ZERO);
        let mut line = reporter.line(Duration::ZERO, &counters);
        assert!(line.starts_with("0 pps [avg/std 0 /0  pps](0 pkts"), "{line}");
        let mut total = 0;
        // The first of these is the 16th from the end.
        for (second, pkts) in (1..).zip([9999].into_iter().chain([0; 13]).chain([2000, 4000])) {
            total += pkts;
            set(&counters, total, 60, 1);
            line = reporter.line(Duration::from_secs(second), &counters);
        }
        assert_eq!(
            line,
            "4000 pps [avg/std 3000 /1000  pps](4000 pkts 2688000 bps in 1000000 usec) \
             0.00 avg_batch 99999 min_space"
        );
    }

    #[test]
    fn summaries_are_as_in_the_contract() {
        let counters = [Counters::default(), Counters::default()];
        assert_eq!(summary(&config("pkt-gen -i x"), &counters).unwrap(), "Received nothing.\n");
        assert_eq!(summary(&config("pkt-gen -i x -f ping"), &counters), None);
        set(&counters, 1000, 60, 2);
        for (at, (start, end)) in [(1, 11_000_000), (1_000_000, 5)].into_iter().enumerate() {
            counters[at].start_ns.store(start, Ordering::Relaxed);
            counters[at].end_ns.store(end, Ordering::Relaxed);
        }
        assert_eq!(
            summary(&config("pkt-gen -i x -f tx"), &counters).unwrap(),
            "Sent 1000 packets 60000 bytes 2 events 60 bytes each in 0.01 seconds.\n\
             Speed: 100.000 Kpps Bandwidth: 48.000 Mbps (raw 48.000 Mbps). Average batch: 500.00 pkts\n"
        );
        assert!(summary(&config("pkt-gen -i x -f tx -B"), &counters).unwrap().contains("(raw 67.200 Mbps)"));
    }
}

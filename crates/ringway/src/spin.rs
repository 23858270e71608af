//! Looking on for a while before sleeping: only while that pays, and not where others want the processor.

use crate::wait::{Interest, enough};
use ringway_core::layout::Dir;
use ringway_core::lease::{EndRing, Endpoint};
use ringway_os::sys::{involuntary_switches, monotonic_nanos, this_cpu_plus_1, yield_now};
use std::sync::OnceLock;

/// About what a sleep and a wake-up cost.
const SPIN_NANOS: u64 = 10_000;
/// Looks between two looks at the clock.
const LOOKS: u32 = 32;
/// Yields to a peer on the same processor.
const YIELDS: u32 = 4;
/// Credit for spins that paid off, at most.
const MAX_CREDIT: u32 = 8;
/// Without credit, one wait in so many tries to spin.
const PROBE: u32 = 16;
/// Waits without spin after the processor was taken from us during one.
const CROWDED: u32 = 64;

/// Whether, and how, to look on for a while before sleeping.
#[derive(Debug)]
pub(crate) struct Spinner {
    /// Spins that paid off, less those that did not.
    credit: u32,
    /// Waits since the last spin, or to be waited without one.
    skipped: u32,
    crowded: u32,
    switches: u64,
}

impl Default for Spinner {
    fn default() -> Self {
        Spinner { credit: MAX_CREDIT / 2, skipped: 0, crowded: 0, switches: u64::MAX }
    }
}

fn has_several_cpus() -> bool {
    static SEVERAL: OnceLock<bool> = OnceLock::new();
    *SEVERAL.get_or_init(|| std::thread::available_parallelism().is_ok_and(|n| n.get() > 1))
}

impl Spinner {
    /// True if a ring of interest moved.
    pub fn spin(&mut self, end: &Endpoint, interest: Interest, min: u32, now: u64, deadline: u64) -> bool {
        let rings = |dir| end.bound(dir).iter().filter(move |_| interest.has(dir));
        let all = || rings(Dir::Rx).chain(rings(Dir::Tx));
        let moved = || all().any(|r| enough(r, min).is_some_and(|wanted| r.has_moved(wanted)));

        let peer = all().map(EndRing::peer_cpu).find(|cpu| *cpu != 0).unwrap_or(0);
        if peer == this_cpu_plus_1() || !has_several_cpus() {
            return (0..YIELDS).any(|_| {
                yield_now();
                moved()
            });
        }
        if !self.may_spin() {
            return moved();
        }
        let end_of_spin = deadline.min(now.saturating_add(SPIN_NANOS));
        loop {
            for _ in 0..LOOKS {
                if moved() {
                    self.credit = (self.credit + 1).min(MAX_CREDIT);
                    return true;
                }
                std::hint::spin_loop();
            }
            if monotonic_nanos() >= end_of_spin {
                self.failed();
                return false;
            }
        }
    }

    fn may_spin(&mut self) -> bool {
        if self.crowded > 0 {
            self.crowded -= 1;
            return false;
        }
        if self.credit > 0 {
            return true;
        }
        self.skipped = (self.skipped + 1) % PROBE;
        self.skipped == 0
    }

    /// Was it because others want the processor?
    #[cold]
    fn failed(&mut self) {
        self.credit = self.credit.saturating_sub(1);
        let switches = involuntary_switches();
        if switches > self.switches {
            self.crowded = CROWDED;
        }
        self.switches = switches;
    }
}

//! Time cut into slices, by the sender, for both sides.

use super::case::Where;
use ringway_os::mem::SharedSlice;
use ringway_os::sys::{monotonic_nanos, thread_cpu_nanos, yield_now};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

/// What one side did in one slice.
#[derive(Clone, Copy, Default)]
pub struct Part {
    pub packets: u64,
    pub cpu: u64,
    pub wall: u64,
}

/// Words of the bench in shared memory, a line each: phase, ready, and the results of the second process.
pub struct Control(pub SharedSlice<AtomicU64>);

const PHASE: usize = 0;
pub const READY: usize = 8;
pub const RESULTS: usize = 24;
pub const AREA: usize = 512;

/// The clock of one side: cut into slices by the sender.
pub struct Laps<'c> {
    control: &'c Control,
    phase: u64,
    from: Part,
    pub parts: Vec<Part>,
}

impl<'c> Laps<'c> {
    pub fn new(control: &'c Control) -> Self {
        Laps { control, phase: 0, from: Part::default(), parts: vec![] }
    }

    /// Sender: sets the phase.
    fn turn(&mut self, packets: u64) {
        self.control.0[PHASE].store(self.phase + 1, Release);
        self.follow(packets);
    }

    /// Looks at the phase; true when all is over.
    #[inline]
    pub fn follow(&mut self, packets: u64) -> bool {
        let phase = self.control.0[PHASE].load(Acquire);
        phase != self.phase && self.cut(phase, packets)
    }

    #[cold]
    fn cut(&mut self, phase: u64, packets: u64) -> bool {
        let now = Part { packets, cpu: thread_cpu_nanos(), wall: monotonic_nanos() };
        if self.phase > 0 {
            // Slices that this side slept through are empty, and the next one has what was done in them.
            self.parts.resize(phase.saturating_sub(2) as usize, Part::default());
            self.parts.push(Part {
                packets: packets - self.from.packets,
                cpu: now.cpu - self.from.cpu,
                wall: now.wall - self.from.wall,
            });
        }
        self.parts.resize(phase.saturating_sub(1) as usize, Part::default());
        self.from = now;
        self.phase = phase;
        self.parts.len() >= slices()
    }
}

pub fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

pub fn slices() -> usize {
    env("HOT_SLICES", 9).min(24) as usize
}

#[inline]
pub fn wait(place: Where) {
    if place == Where::Two {
        std::hint::spin_loop();
    } else {
        yield_now();
    }
}

/// Calls `step` until all slices are over; it returns the packets so far.
pub fn lead(control: &Control, mut step: impl FnMut() -> u64) -> Vec<Part> {
    let slice = env("HOT_SLICE_MS", 30) * 1_000_000;
    let mut laps = Laps::new(control);
    let mut next = monotonic_nanos() + slice;
    loop {
        let mut packets = 0;
        for _ in 0..32 {
            packets = step();
        }
        if monotonic_nanos() >= next {
            laps.turn(packets);
            if laps.parts.len() >= slices() {
                return laps.parts;
            }
            next = laps.from.wall + slice;
        }
    }
}

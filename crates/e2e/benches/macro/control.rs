//! Memory that all processes of a case share: the number of the slice, and what each process had done when it began.

use ringway_os::mem::{Memfd, SharedSlice};
use ringway_os::sys::{monotonic_nanos, process_cpu_nanos};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Slices of a case, at most.
pub const MAX_SLICES: usize = 32;
/// Processes of a case that are measured, at most.
const MAX_PEERS: usize = 4;
/// Single measurements that a process may leave, at most.
pub const MAX_SAMPLES: usize = 8192;

// Words that several processes look at have a line each.
const PHASE: usize = 0;
const LAST: usize = 8;
const STATE: usize = 16;
const SNAPSHOTS: usize = 64;
const WORDS: usize = 4;
const SAMPLES: usize = SNAPSHOTS + MAX_PEERS * (MAX_SLICES + 2) * WORDS;

const READY: u64 = 1;
const DONE: u64 = 2;

/// What a process has done since it began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    /// Packets.
    pub packets: u64,
    /// Packets that it knows to be lost.
    pub lost: u64,
    /// Nanoseconds of CPU.
    pub cpu: u64,
    /// When: nanoseconds.
    pub wall: u64,
}

/// The memory.
pub struct Control {
    words: SharedSlice<AtomicU64>,
    memfd: Memfd,
}

impl Control {
    /// New memory.
    pub fn create() -> io::Result<Self> {
        Self::of(Memfd::create("macro", 8 * (SAMPLES + 1 + MAX_SAMPLES))?)
    }

    /// The memory that a process finds as its standard input.
    pub fn from_stdin() -> io::Result<Self> {
        Self::of(Memfd::adopt(io::stdin().as_fd().try_clone_to_owned()?)?)
    }

    fn of(memfd: Memfd) -> io::Result<Self> {
        let words = SharedSlice::new(&memfd.map()?, 0, SAMPLES + 1 + MAX_SAMPLES)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Control { words, memfd })
    }

    /// For a process to be started.
    pub fn fd(&self) -> io::Result<OwnedFd> {
        self.memfd.as_fd().try_clone_to_owned()
    }

    /// Begins slice `phase`, counted from 1. At `last` all is over.
    pub fn begin(&self, phase: u64, last: u64) {
        self.words[LAST].store(last, Relaxed);
        self.words[PHASE].store(phase, Release);
    }

    /// Process `peer` says that it is ready.
    pub fn say_ready(&self, peer: usize) {
        self.words[STATE + 8 * peer].store(READY, Release);
    }

    /// Process `peer` says that it has left all its results.
    pub fn say_done(&self, peer: usize) {
        self.words[STATE + 8 * peer].store(DONE, Release);
    }

    /// Whether it is ready.
    pub fn is_ready(&self, peer: usize) -> bool {
        self.words[STATE + 8 * peer].load(Acquire) >= READY
    }

    /// Whether its results are there.
    pub fn is_done(&self, peer: usize) -> bool {
        self.words[STATE + 8 * peer].load(Acquire) == DONE
    }

    /// True once all is over.
    pub fn is_over(&self) -> bool {
        let phase = self.words[PHASE].load(Acquire);
        phase > 0 && phase >= self.words[LAST].load(Relaxed)
    }

    fn place(peer: usize, phase: usize) -> usize {
        SNAPSHOTS + (peer * (MAX_SLICES + 2) + phase.min(MAX_SLICES + 1)) * WORDS
    }

    /// What a process had done at the beginning of slice `phase`.
    pub fn snapshot(&self, peer: usize, phase: usize) -> Snapshot {
        let at = Self::place(peer, phase);
        let [packets, lost, cpu, wall] = [0, 1, 2, 3].map(|i| self.words[at + i].load(Relaxed));
        Snapshot { packets, lost, cpu, wall }
    }

    /// Leaves single measurements.
    pub fn put_samples(&self, samples: &[u64]) {
        let count = samples.len().min(MAX_SAMPLES);
        for (word, value) in self.words[SAMPLES + 1..].iter().zip(samples) {
            word.store(*value, Relaxed);
        }
        self.words[SAMPLES].store(count as u64, Release);
    }

    /// The single measurements left.
    pub fn samples(&self) -> Vec<u64> {
        let count = self.words[SAMPLES].load(Acquire) as usize;
        self.words[SAMPLES + 1..].iter().take(count).map(|w| w.load(Relaxed)).collect()
    }
}

/// How a process follows the slices.
pub struct Laps<'c> {
    control: &'c Control,
    peer: usize,
    phase: u64,
}

impl<'c> Laps<'c> {
    /// For process `peer`, which is ready now.
    pub fn ready(control: &'c Control, peer: usize) -> Self {
        control.say_ready(peer);
        Laps { control, peer, phase: 0 }
    }

    /// To be called once a batch. True when all is over.
    #[inline]
    pub fn follow(&mut self, packets: u64, lost: impl FnOnce() -> u64) -> bool {
        let phase = self.control.words[PHASE].load(Acquire);
        phase != self.phase && self.cut(phase, packets, lost())
    }

    #[cold]
    fn cut(&mut self, phase: u64, packets: u64, lost: u64) -> bool {
        let at = Control::place(self.peer, phase as usize);
        let values = [packets, lost, process_cpu_nanos(), monotonic_nanos()];
        for (i, value) in values.into_iter().enumerate() {
            self.control.words[at + i].store(value, Relaxed);
        }
        self.phase = phase;
        let over = self.control.is_over();
        if over {
            self.control.say_done(self.peer);
        }
        over
    }
}

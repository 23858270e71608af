//! Whether to look on for a while before sleeping, and how long.
//!
//! A wake-up across processors costs the waker microseconds, and the sleeper runs some 10 to 30 of them later; a program that sleeps
//! for a shorter time than that would have done better to look on. Two that exchange packets can even keep each other asleep: each
//! wakes the other too late to find it still looking. So the time to look on follows the sleeps: it grows while they turn out short, and
//! shrinks to nothing while they are long. (The rule is that of halt polling in KVM.)

use ringway_os::sys::{monotonic_nanos, run_delay_nanos, yield_now};

/// Longest time to look on: until a peer that sleeps on another processor is awake and has worked, where processors are virtual.
const MAX_SPIN_NANOS: u64 = 50_000;
/// Time to look on at first, and again after the first short sleep.
const FIRST_SPIN_NANOS: u64 = 10_000;
/// A sleep that is over sooner, and brings a batch, is one of two who keep each other asleep.
const MAX_BATCH_SLEEP_NANOS: u64 = 200_000;
/// Less is not worth the while.
const MIN_SPIN_NANOS: u64 = 2_000;
/// Looks between two looks at the clock.
const LOOKS: u32 = 32;
/// Yields to a peer on the same processor that change nothing, before we sleep.
const YIELDS: u32 = 4;
/// The same, where yields take so long that somebody seems to run each time.
const MAX_YIELDS: u32 = 64;
/// A yield that is over sooner has let nobody run.
const IDLE_YIELD_NANOS: u64 = 1_000;
/// One that takes longer has let a stranger run, who keeps the processor for a whole slice; a wake-up would have preempted him.
const STRANGER_NANOS: u64 = 300_000;
/// Looking on for longer costs more than both sides pay for a sleep and a wake-up.
const DEAR_NANOS: u64 = 20_000;
/// So many in turn are packets that come one by one, at a pace for which to sleep.
const MAX_DEAR: u32 = 8;
/// Waits without looking on after that, or after a stranger had the processor.
const REST: u32 = 64;

/// How long the waits of one port look on before they sleep.
#[derive(Debug)]
pub(crate) struct Spinner {
    spin_nanos: u64,
    /// Looks in turn that found something late.
    dear: u32,
    /// Waits that must not look on.
    resting: u32,
    /// Time that this thread has waited for a processor, when we last asked.
    delay: u64,
    /// The last sleep, to be learned from: nanoseconds, and whether it brought a batch. The question to the system takes as long as a
    /// wake-up, so it is asked before the next wait, not when a packet has just come.
    slept: Option<(u64, bool)>,
}

impl Default for Spinner {
    fn default() -> Self {
        Spinner { spin_nanos: FIRST_SPIN_NANOS, dear: 0, resting: 0, delay: 0, slept: None }
    }
}

impl Spinner {
    /// Looks on until `moved`, but not past `deadline`; `now` is the time. `together`: the far side last ran on our own processor. Returns
    /// what `moved` said last.
    pub fn spin(&mut self, together: bool, moved: impl Fn() -> bool, mut now: u64, deadline: u64) -> bool {
        if let Some((nanos, batch)) = self.slept.take()
            && self.learn(nanos, batch)
        {
            now = monotonic_nanos();
        }
        if self.resting > 0 {
            self.resting -= 1;
            return moved();
        }
        if together {
            // Packets at long intervals: no yields, which would put us behind the sender when it wakes us.
            return if self.spin_nanos == 0 { moved() } else { self.take_turns(moved, now, deadline) };
        }
        let end = deadline.min(now.saturating_add(self.spin_nanos));
        let mut clock = now;
        loop {
            for _ in 0..LOOKS {
                if moved() {
                    self.found(clock - now);
                    return true;
                }
                std::hint::spin_loop();
            }
            if clock >= end {
                break;
            }
            clock = monotonic_nanos();
        }
        false
    }

    fn found(&mut self, after_nanos: u64) {
        if after_nanos < DEAR_NANOS {
            self.dear = 0;
            return;
        }
        self.dear += 1;
        if self.dear == MAX_DEAR {
            *self = Spinner { resting: REST, delay: self.delay, ..Spinner::default() };
        }
    }

    /// The last look brought a batch: that pays for any look, and for a wake-up less.
    pub fn brought_batch(&mut self) {
        self.dear = 0;
    }

    /// A wait that slept is over, `nanos` after it began. `batch`: it brought a batch. Two who exchange batches and both sleep in between
    /// wait for two wake-ups.
    pub fn slept(&mut self, nanos: u64, batch: bool) {
        self.slept = Some((nanos, batch));
    }

    /// True if that took its time, since the system had to be asked.
    fn learn(&mut self, nanos: u64, batch: bool) -> bool {
        if nanos <= MAX_SPIN_NANOS || batch && nanos <= MAX_BATCH_SLEEP_NANOS {
            self.spin_nanos = (2 * self.spin_nanos).clamp(FIRST_SPIN_NANOS, MAX_SPIN_NANOS);
            return false;
        }
        let asks = self.spin_nanos > 0;
        if asks && !self.was_late(nanos) {
            self.spin_nanos = if self.spin_nanos < 2 * MIN_SPIN_NANOS { 0 } else { self.spin_nanos / 2 };
        }
        asks
    }

    /// True if a sleep was long because others had the processor when it was over, not because nothing came.
    fn was_late(&mut self, nanos: u64) -> bool {
        let Some(delay) = run_delay_nanos() else { return false };
        let late = delay.saturating_sub(self.delay);
        self.delay = delay;
        late > nanos / 2 && late < 2 * nanos
    }

    /// Lets a peer on our own processor run, as long as that runs. Sleeping instead would cost a wake-up a turn, which is more than
    /// a batch.
    fn take_turns(&mut self, moved: impl Fn() -> bool, now: u64, deadline: u64) -> bool {
        let (mut last, mut idle) = (now, 0);
        for _ in 0..MAX_YIELDS {
            if idle >= YIELDS || last >= deadline {
                break;
            }
            yield_now();
            let found = moved();
            let now = monotonic_nanos();
            if now > last + STRANGER_NANOS {
                self.resting = REST;
                return found;
            }
            if found {
                return true;
            }
            idle += u32::from(now < last + IDLE_YIELD_NANOS);
            last = now;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sleeps_lengthen_the_look_and_long_ones_end_it() {
        let mut s = Spinner::default();
        for _ in 0..10 {
            s.learn(MAX_SPIN_NANOS / 2, false);
        }
        assert_eq!(s.spin_nanos, MAX_SPIN_NANOS);
        for _ in 0..10 {
            s.learn(1_000_000, true);
        }
        assert_eq!(s.spin_nanos, 0);
        s.learn(1_000, false);
        assert_eq!(s.spin_nanos, FIRST_SPIN_NANOS);
    }

    #[test]
    fn packets_at_a_pace_are_slept_for() {
        let mut s = Spinner::default();
        (1..MAX_DEAR).for_each(|_| s.found(DEAR_NANOS));
        s.found(1_000);
        (1..MAX_DEAR).for_each(|_| s.found(DEAR_NANOS));
        assert_eq!(s.resting, 0);
        s.found(DEAR_NANOS);
        assert_eq!(s.resting, REST);
    }

    #[test]
    fn batches_are_looked_for() {
        let mut s = Spinner::default();
        for _ in 0..2 * MAX_DEAR {
            s.found(DEAR_NANOS);
            s.brought_batch();
        }
        assert_eq!(s.resting, 0);
        for _ in 0..10 {
            s.learn(2 * MAX_SPIN_NANOS, true);
        }
        assert_eq!(s.spin_nanos, MAX_SPIN_NANOS);
    }

    #[test]
    fn yields_end_also_where_each_takes_long() {
        let slow = || {
            let end = monotonic_nanos() + 2 * IDLE_YIELD_NANOS;
            while monotonic_nanos() < end {}
            false
        };
        assert!(!Spinner::default().spin(true, slow, monotonic_nanos(), u64::MAX));
    }

    #[test]
    fn a_look_ends_at_the_deadline_or_when_something_moved() {
        let mut s = Spinner::default();
        let now = monotonic_nanos();
        for together in [false, true] {
            assert!(!s.spin(together, || false, now, now));
            assert!(s.spin(together, || true, now, u64::MAX));
        }
    }
}

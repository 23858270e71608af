//! Time, behind a trait so that tests run in their own time.

use std::fmt;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A clock, and the ways to wait on it.
pub trait Clock: Sync + fmt::Debug {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;
    /// Time since the epoch, for the stamps of ping.
    fn wall(&self) -> Duration;
    /// Sleeps.
    fn sleep(&self, time: Duration);
    /// One turn of a busy wait.
    fn pause(&self);
    /// Waits until all parties of `latch` are done, at most for `timeout`. True when they are.
    fn wait(&self, latch: &Latch, timeout: Duration) -> bool;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts at 0.
    #[expect(clippy::new_without_default, reason = "a clock that starts by default would hide when")]
    pub fn new() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> Duration {
        crate::units::wall_clock()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn pause(&self) {
        std::hint::spin_loop();
    }

    fn wait(&self, latch: &Latch, timeout: Duration) -> bool {
        latch.wait(Some(timeout))
    }
}

/// Counts parties (the worker threads) down to the last.
#[derive(Debug)]
pub struct Latch {
    left: Mutex<usize>,
    done: Condvar,
}

impl Latch {
    /// A latch for `parties`.
    pub fn new(parties: usize) -> Latch {
        Latch { left: Mutex::new(parties), done: Condvar::new() }
    }

    /// One party is done.
    pub fn count_down(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.done.notify_all();
        }
    }

    /// Waits for all parties; without a timeout for as long as it takes. True when all are done.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        match timeout {
            Some(timeout) => {
                let waited = self.done.wait_timeout_while(left, timeout, |left| *left > 0);
                *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
            }
            None => {
                *self.done.wait_while(left, |left| *left > 0).unwrap_or_else(PoisonError::into_inner) == 0
            }
        }
    }
}

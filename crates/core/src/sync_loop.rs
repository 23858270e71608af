//! The word that all holders of a descriptor share about its CSB mode and its sync loop: it lies in the state of the first ring that the
//! descriptor has bound. Such a ring has no other user (CSB mode asks for NR_EXCLUSIVE), so the word is the descriptor's.
//!
//! The loop itself is the library's: it runs in the thread that asked for it, with the syncs that any caller runs.
//!
//! Source: abi.md 12.

use ringway_os::state::RingState;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

/// The attachment whose process runs the loop; 0: none runs.
const RUNNER: u64 = 0xffff_ffff;
/// CSB mode.
const ON: u64 = 1 << 32;
/// The loop shall end; with none running: the next one shall end at once.
const STOP: u64 = 1 << 33;

/// Why a loop cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopError {
    /// The descriptor is not in CSB mode.
    NoCsb,
    /// One runs.
    Running,
}

/// The word of a descriptor.
#[derive(Clone, Copy, Debug)]
pub struct LoopWord<'a>(&'a AtomicU64);

impl<'a> LoopWord<'a> {
    /// That in the state of a ring.
    #[must_use]
    pub fn of(state: &'a RingState) -> Self {
        LoopWord(&state.sync_loop.word)
    }

    /// Nobody has the ring, or somebody new.
    pub fn clear(self) {
        self.0.store(0, Release);
    }

    /// True in CSB mode.
    #[inline]
    #[must_use]
    pub fn is_on(self) -> bool {
        self.0.load(Acquire) & ON != 0
    }

    /// Enters CSB mode.
    ///
    /// # Errors
    /// Running.
    pub fn turn_on(self) -> Result<(), LoopError> {
        let on = |word| (word & RUNNER == 0).then_some(word | ON);
        self.0.fetch_update(AcqRel, Acquire, on).map(|_| ()).map_err(|_| LoopError::Running)
    }

    /// A loop begins in the process of attachment `me`. A stop that was asked for before stays asked for.
    ///
    /// # Errors
    /// [`LoopError`].
    pub fn begin(self, me: u32) -> Result<(), LoopError> {
        let begin = |word| (word & ON != 0 && word & RUNNER == 0).then_some(word | u64::from(me));
        let done = self.0.fetch_update(AcqRel, Acquire, begin);
        done.map(|_| ()).map_err(|word| if word & ON == 0 { LoopError::NoCsb } else { LoopError::Running })
    }

    /// True if the loop shall end.
    #[inline]
    #[must_use]
    pub fn wants_stop(self) -> bool {
        self.0.load(Acquire) & STOP != 0
    }

    /// The loop of `runner` has ended, and with it what was asked of it. False if it is not the one that runs.
    pub fn end(self, runner: u32) -> bool {
        let end = |word| (word & RUNNER == u64::from(runner)).then_some(word & ON);
        self.0.fetch_update(AcqRel, Acquire, end).is_ok()
    }

    /// Asks the loop to end. Returns who runs it; 0: nobody, the next one will end at once.
    #[must_use]
    pub fn ask_stop(self) -> u32 {
        (self.0.fetch_or(STOP, AcqRel) & RUNNER) as u32
    }

    /// Whose process runs a loop; 0: nobody's.
    #[must_use]
    pub fn runner(self) -> u32 {
        (self.0.load(Acquire) & RUNNER) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loop_at_a_time_and_a_stop_that_came_first_is_kept() {
        let state = RingState::default();
        let word = LoopWord::of(&state);
        assert_eq!(word.begin(7), Err(LoopError::NoCsb));
        assert_eq!(word.turn_on(), Ok(()));
        assert_eq!((word.is_on(), word.turn_on()), (true, Ok(())));
        assert_eq!(word.ask_stop(), 0);
        assert_eq!(word.begin(7), Ok(()));
        assert_eq!((word.wants_stop(), word.runner()), (true, 7));
        assert_eq!((word.begin(8), word.turn_on()), (Err(LoopError::Running), Err(LoopError::Running)));
        assert!(!word.end(8) && word.end(7));
        assert_eq!((word.is_on(), word.wants_stop(), word.runner()), (true, false, 0));
        assert_eq!(word.begin(8), Ok(()));
        assert!(!word.wants_stop());
        assert_eq!(word.ask_stop(), 8);
        assert!(word.end(8));
        word.clear();
        assert!(!word.is_on());
    }
}

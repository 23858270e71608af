//! How a sync loop is to run, and why one cannot.

use crate::error::SyncError;
use ringway_abi::Errno;
use ringway_core::sync_loop::LoopError as Refusal;
use ringway_os::event::check_eventfd;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Longest sleep between two passes. Source: abi.md 12.
pub const MAX_SLEEP: Duration = Duration::from_micros(ringway_abi::SYNC_KLOOP_MAX_SLEEP_US as u64);

/// A loop cannot be, or ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoopError {
    /// Others may bind the rings too: open the port exclusively.
    NotExclusive,
    /// The CSB has fewer entries than rings are bound.
    TooFewEntries,
    /// [`Port::enter_csb`](crate::Port::enter_csb) comes first.
    NoCsb,
    /// A loop runs already, here or in another process that has the descriptor.
    Running,
    /// The sleep is longer than [`MAX_SLEEP`].
    Sleep,
    /// There is not one pair of eventfds for each bound ring, or one is no eventfd; or a direct mode lacks one.
    Events(Errno),
    /// The broker is gone; or the system refused what waiting needs.
    Sync(SyncError),
}

impl LoopError {
    /// The errno of a C program.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            LoopError::NotExclusive | LoopError::TooFewEntries | LoopError::NoCsb | LoopError::Sleep => {
                Errno::EINVAL
            }
            LoopError::Running => Errno::EBUSY,
            LoopError::Events(e) => *e,
            LoopError::Sync(e) => e.errno(),
        }
    }
}

impl fmt::Display for LoopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LoopError::NotExclusive => {
                "a sync loop needs rings that nobody else has; open the port exclusively"
            }
            LoopError::TooFewEntries => "the CSB has fewer entries than the port has bound rings",
            LoopError::NoCsb => "the port is not in CSB mode; call enter_csb first",
            LoopError::Running => "a sync loop runs already",
            LoopError::Sleep => "a sync loop sleeps a second at most between two passes",
            LoopError::Events(_) => "a sync loop needs one pair of eventfds per bound ring",
            LoopError::Sync(e) => return e.fmt(f),
        })
    }
}

impl std::error::Error for LoopError {}

impl From<SyncError> for LoopError {
    fn from(e: SyncError) -> Self {
        LoopError::Sync(e)
    }
}

impl From<Refusal> for LoopError {
    fn from(e: Refusal) -> Self {
        match e {
            Refusal::NoCsb => LoopError::NoCsb,
            Refusal::Running => LoopError::Running,
        }
    }
}

/// The eventfds of one ring. Nobody need drain them.
#[derive(Debug, Default)]
pub struct RingEvents {
    /// The program wakes the loop.
    pub kick: Option<OwnedFd>,
    /// The loop tells the program.
    pub notify: Option<OwnedFd>,
}

/// How a sync loop is to run.
#[derive(Debug, Default)]
pub struct LoopConfig {
    /// Without a `kick` for every ring: the time between two passes, up to [`MAX_SLEEP`]; zero: none, and the loop keeps a processor busy.
    pub sleep: Duration,
    /// One per bound ring, TX rings first; empty: none. If each has a `kick`, the loop sleeps while there is nothing to do.
    pub events: Vec<RingEvents>,
    /// The program always kicks, and is told of every change, on TX rings. (netmap would sync in the context of whoever kicks; here the loop
    /// does it.) Needs events; without any, such rings are not synced.
    pub direct_tx: bool,
    /// The same on RX rings.
    pub direct_rx: bool,
}

impl LoopConfig {
    pub(super) fn check(&self, rings: usize) -> Result<(), LoopError> {
        if self.sleep > MAX_SLEEP {
            return Err(LoopError::Sleep);
        }
        if self.events.is_empty() {
            return Ok(());
        }
        if self.events.len() != rings || ((self.direct_tx || self.direct_rx) && !self.kicks_all()) {
            return Err(LoopError::Events(Errno::EINVAL));
        }
        let bad = |e: io::Error| LoopError::Events(Errno(e.raw_os_error().unwrap_or(Errno::EINVAL.0)));
        let mut all = self.events.iter().flat_map(|e| e.kick.iter().chain(&e.notify));
        all.try_for_each(|fd| check_eventfd(fd.as_fd())).map_err(bad)
    }

    pub(super) fn kicks_all(&self) -> bool {
        !self.events.is_empty() && self.events.iter().all(|e| e.kick.is_some())
    }
}

//! What serves a ring: the drivers, and the trait that they share.
//!
//! The engine alone runs prologue and finalize (`crate::kring`): no driver can forget them.

use crate::kring::{Kring, RingHandle};
use std::os::fd::BorrowedFd;

pub mod monitor;
pub mod null;
pub mod packet;
pub mod pipe;
pub mod xdp;

bitflags::bitflags! {
    /// What a sync is asked to do beyond moving what is ready. Completed buffers are always reclaimed, and devices always asked, so
    /// drivers are not told.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SyncFlags: u32 {
        /// `ring->ts` is wanted.
        const TIMESTAMP = 1;
        /// On a ring that the broker serves: do not wait for its worker.
        const POST = 2;
    }
}

/// Why a driver did not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncError {
    /// The memory of the port at this index of the switch must be mapped first.
    NeedPeer(u8),
    /// The other side is gone for good: interface deleted, device unbound.
    Stopped,
    /// It failed this time.
    Failed,
}

/// Data plane of one ring: hot; one runner at a time; no allocation, only bounded waiting.
pub trait RingDriver: Send {
    /// txsync or rxsync. Moves as many slots as possible between `kring` and the far side: TX `[hwcur, rhead)` out,
    /// RX `[hwcur, rhead)` back and new packets in, up to `hwtail`.
    ///
    /// # Errors
    /// [`SyncError`]; the kring then says how far it came.
    fn sync(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError>;

    /// After the owner announced its sleep: true if the far side has moved so far that `wanted` slots are the owner's, or would be
    /// after a sync. The look that closes the race with a waker that looked before the announcement.
    fn moved_since(&self, handle: &RingHandle, wanted: u32) -> bool;

    /// Processor, plus 1, on which the far side last worked on this ring; 0 when not known. A hint for waiting.
    fn peer_cpu(&self, _handle: &RingHandle) -> u32 {
        0
    }

    /// What to wait on, besides the port's doorbell, before another `sync` can make progress.
    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

//! A bound descriptor in this process, as several threads may use it at once. A [`Port`](crate::Port) is one of these that nobody
//! else uses.
//!
//! **Per process**: the grant with its maps, the drivers (each behind a lock that is tried, never waited for, by a sync), the knowledge whether the
//! broker lives. **Per thread**: a private epoll, since a doorbell's edge goes to every epoll once; it comes from a pool. **In shared
//! memory**: all positions, so that it does not matter which process goes on.

use crate::conn::Session;
use crate::error::{OpenError, SyncError};
use crate::session::{Backend, Link, one_map};
use crate::view::settle;
use crate::wait::{Interest, Kit, Looked, Ready, is_ready};
use ringway_abi::{Errno, NR_DO_RX_POLL, NR_NO_TX_POLL};
use ringway_core::adapter::SyncFlags;
use ringway_core::kring::SyncOutcome;
use ringway_core::layout::{Dir, region_bufs};
use ringway_core::lease::{EndContext, EndRing, Endpoint, Grant, RingParts};
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

/// Kits kept for later waits, at most.
const MAX_IDLE: usize = 16;

/// A bound descriptor in this process. All methods take `&self`: several threads may sync, poll and sleep on it, as on a
/// netmap descriptor. A ring that another thread syncs is skipped.
///
/// It holds a copy of the descriptor (close-on-exec): the binding ends when this and all other copies, in whatever process, are closed.
pub struct Bound {
    pub(crate) end: Endpoint,
    pub(crate) link: Link,
    idle: Mutex<Vec<Kit>>,
}

impl Bound {
    pub(crate) fn new(backend: Box<dyn Backend>, grant: Grant) -> Result<Self, OpenError> {
        let bad = || OpenError::refused(Errno::EPROTO, "the memory granted does not hold the rings granted");
        // Slots with an illegal index lend buffer 0: there must be one.
        region_bufs(&grant.region.map, &grant.layout).filter(|b| b.payload(0).is_some()).ok_or_else(bad)?;
        let me = backend.attachment().unwrap_or_default();
        let end = Endpoint::new(grant, me).map_err(|_| bad())?;
        let holds = end.holds().clone();
        Ok(Bound { end, link: Link::new(backend, holds), idle: Mutex::default() })
    }

    /// What a broker granted. Ports of one region see one map.
    pub(crate) fn of_session(session: Session, mut grant: Grant) -> Result<Self, OpenError> {
        one_map(&mut grant.region);
        Self::new(Box::new(session), grant)
    }

    pub(crate) fn grant(&self) -> &Grant {
        self.end.grant()
    }

    /// Looks whether the broker is there. If not, the next one must find the queues of our interface free.
    pub(crate) fn check(&self) -> Result<(), SyncError> {
        self.link.check().inspect_err(|_| self.end.release_devices())
    }

    pub(crate) fn pass(&self) -> Result<Pass<'_>, SyncError> {
        match self.link.enter() {
            Ok(me) => Ok(Pass { context: self.end.context(), link: &self.link, me }),
            Err(e) => {
                if self.link.is_dead() {
                    self.end.release_devices();
                }
                Err(e)
            }
        }
    }

    /// One evaluation, as poll makes it: pushes, syncs what is asked for, looks.
    pub(crate) fn look(&self, interest: Interest, min: u32) -> Looked {
        match self.pass() {
            Ok(pass) => {
                pass.look(self.end.bound(Dir::Tx).iter(), self.end.bound(Dir::Rx).iter(), interest, min)
            }
            Err(e) => Looked::failed(e),
        }
    }

    /// Syncs all bound rings of a direction; the first error of those that `tells` picks.
    pub(crate) fn sync_all(
        &self,
        dir: Dir,
        flags: SyncFlags,
        tells: impl Fn(&SyncError) -> bool,
    ) -> Result<(), SyncError> {
        self.pass()?.sync_all(self.end.bound(dir).iter(), flags, tells)
    }

    /// What a thread needs to wait, as it left it or another did.
    pub(crate) fn kit(&self, interest: Interest) -> Kit {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let me = self.link.present_attachment();
        let found = idle.iter().position(|kit| kit.fits(me, interest));
        found.map(|i| idle.swap_remove(i)).unwrap_or_default()
    }

    pub(crate) fn keep(&self, kit: Kit) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= MAX_IDLE {
            idle.swap_remove(0);
        }
        idle.push(kit);
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let g = self.grant();
        write!(f, "Bound({}, tx {:?}, rx {:?}, region {})", g.name, g.tx.range(), g.rx.range(), g.mem_id)
    }
}

/// A ring whose turn it is: had for oneself, or shared with other threads.
pub(crate) trait Turn {
    fn ring(&self) -> &EndRing;

    /// Calls `with` on the ring and its driver; None if another thread has them.
    fn with<T>(&mut self, with: impl FnOnce(RingParts<'_>) -> T) -> Option<T>;
}

impl Turn for &mut EndRing {
    fn ring(&self) -> &EndRing {
        self
    }

    #[inline]
    fn with<T>(&mut self, with: impl FnOnce(RingParts<'_>) -> T) -> Option<T> {
        Some(with(self.parts()))
    }
}

impl Turn for &EndRing {
    fn ring(&self) -> &EndRing {
        self
    }

    #[inline]
    fn with<T>(&mut self, with: impl FnOnce(RingParts<'_>) -> T) -> Option<T> {
        self.try_with(with)
    }
}

/// One pass over the rings of a port: what all syncs of it have in common.
pub(crate) struct Pass<'a> {
    pub context: EndContext<'a>,
    pub link: &'a Link,
    /// The attachment.
    pub me: u32,
}

impl Pass<'_> {
    #[inline]
    fn sync(&self, ring: &mut impl Turn, flags: SyncFlags) -> Result<(), SyncError> {
        let outcome = self.outcome(ring, flags);
        // It may have waited for a broker that is gone.
        if outcome == SyncOutcome::Skipped && self.link.is_dead() {
            return Err(SyncError::BrokerGone);
        }
        settle(outcome, ring.ring().handle(), ring.ring().index())
    }

    /// One sync of one ring.
    #[inline]
    pub fn outcome(&self, ring: &mut impl Turn, flags: SyncFlags) -> SyncOutcome {
        let done = ring.with(|RingParts { handle, driver, .. }| {
            let mut source = self.link;
            self.context.sync(handle, driver, self.me, flags, &mut source)
        });
        // Another thread is at it: skipped, as netmap does.
        done.unwrap_or(SyncOutcome::Skipped)
    }

    /// Syncs them all; the first error of those that `tells` picks.
    #[inline]
    pub fn sync_all<T: Turn>(
        &self,
        rings: impl Iterator<Item = T>,
        flags: SyncFlags,
        tells: impl Fn(&SyncError) -> bool,
    ) -> Result<(), SyncError> {
        let mut result = Ok(());
        for mut ring in rings {
            let outcome = self.sync(&mut ring, flags);
            if outcome.as_ref().is_err_and(&tells) {
                result = result.and(outcome);
            }
        }
        result
    }

    /// Source: semantics.md 5.
    #[inline]
    pub fn look<T: Turn>(
        &self,
        tx: impl Iterator<Item = T>,
        rx: impl Iterator<Item = T>,
        interest: Interest,
        min: u32,
    ) -> Looked {
        let nr_flags = self.context.grant.nr_flags;
        let pushes = interest.tx || nr_flags & NR_NO_TX_POLL == 0;
        let takes = interest.rx || nr_flags & NR_DO_RX_POLL != 0;
        // Who asks for nothing is told what is over all the same.
        let is_over = |ring: &EndRing| !interest.tx && !interest.rx && ring.handle().is_stopped();
        let mut result = Ok(());
        let mut ready = Ready::default();
        for mut turn in tx {
            let wanted = interest.tx && !ready.tx;
            let handle = turn.ring().handle();
            let hwcur = handle.shared.state.owner.hwcur.load();
            if pushes && (wanted || handle.ring.header.head.load(Relaxed) != hwcur) {
                result = result.and(self.sync(&mut turn, SyncFlags::empty()));
            } else if is_over(turn.ring()) {
                result = result.and(Err(SyncError::Stopped));
            }
            ready.tx |= wanted && is_ready(turn.ring(), min);
        }
        for mut turn in rx {
            if takes {
                result = result.and(self.sync(&mut turn, SyncFlags::TIMESTAMP));
                ready.rx |= interest.rx && is_ready(turn.ring(), min);
            } else if is_over(turn.ring()) {
                result = result.and(Err(SyncError::Stopped));
            }
        }
        Looked { ready, error: result.err() }
    }
}

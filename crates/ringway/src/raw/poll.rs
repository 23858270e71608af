//! poll on descriptors: one alone, or several together with other files.

use crate::bound::Bound;
use crate::error::SyncError;
use crate::wait::{Interest, Kit, Looked, Waited, Watch, Wish};
use ringway_abi::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// Packets can be received. Source: poll(2); the numbers are Linux's.
pub const POLLIN: i16 = 0x001;
/// Packets can be sent.
pub const POLLOUT: i16 = 0x004;
/// Something is wrong with a ring, or the broker is gone.
pub const POLLERR: i16 = 0x008;
/// As [`POLLIN`].
pub const POLLRDNORM: i16 = 0x040;
/// As [`POLLOUT`].
pub const POLLWRNORM: i16 = 0x100;

const READ: i16 = POLLIN | POLLRDNORM;
const WRITE: i16 = POLLOUT | POLLWRNORM;

fn interest(events: i16) -> Interest {
    Interest { rx: events & READ != 0, tx: events & WRITE != 0 }
}

/// The bits asked for of those directions that are ready, and POLLERR.
fn revents(events: i16, looked: &Looked) -> i16 {
    let part = |ready: bool, bits: i16| if ready { events & bits } else { 0 };
    let error = if looked.error.is_some() { POLLERR } else { 0 };
    part(looked.ready.rx, READ) | part(looked.ready.tx, WRITE) | error
}

impl Bound {
    /// One evaluation without waiting, as poll with timeout 0 makes it: sends what is pending (unless the port was opened with
    /// `NR_NO_TX_POLL`), syncs what `events` asks for, and says what of it is ready.
    ///
    /// In CSB mode: [`POLLERR`].
    ///
    /// Source: semantics.md 5.
    #[must_use]
    pub fn look_at(&self, events: i16) -> i16 {
        if self.in_csb_mode() {
            return POLLERR;
        }
        revents(events, &self.look(interest(events), 1))
    }

    /// poll on this descriptor alone: looks, spins while that pays, sleeps. Returns 0 when `timeout` (None: for ever) is over.
    ///
    /// # Errors
    /// EINTR if a signal came; what epoll answers (EMFILE, ENOMEM).
    pub fn poll(&self, events: i16, timeout: Option<Duration>) -> Result<i16, Errno> {
        if self.in_csb_mode() {
            return Ok(POLLERR);
        }
        let looked = self.look(interest(events), 1);
        if !looked.is_empty() || timeout == Some(Duration::ZERO) {
            return Ok(revents(events, &looked));
        }
        let directions = interest(events);
        let mut kit = self.kit(directions);
        let wish = Wish { interest: directions, watch: directions, min: 1, timeout, on_signal: true };
        let waited = self.wait_slow(&mut kit, wish);
        self.keep(kit);
        match waited {
            Waited::Signal => Err(Errno::EINTR),
            Waited::Over(Looked { error: Some(SyncError::Os(e)), .. }) => Err(e),
            Waited::Over(looked) => Ok(revents(events, &looked)),
        }
    }

    /// A number that changes whenever a ring that `events` asks about has been given more slots by a sync, whoever made it. (After a multiple of
    /// the ring's size it may be an old one again.) For edge-triggered waits.
    #[must_use]
    pub fn positions(&self, events: i16) -> u64 {
        self.tails(interest(events))
    }

    /// What this thread needs to sleep on the descriptor until `events`, among others.
    ///
    /// # Errors
    /// ENXIO (BrokerGone): report POLLERR. What epoll answers.
    pub fn sleeper(&self, events: i16) -> Result<Sleeper<'_>, SyncError> {
        let mut kit = self.kit(interest(events));
        let watch = kit.watch(self, interest(events))?.clone();
        watch.watch_device(self)?;
        Ok(Sleeper { bound: self, events, watch, kit })
    }
}

/// One thread's wait on one descriptor, for a poll over several and over other files:
///
/// 1. [`Bound::look_at`] each. If any is ready, or there is no time: done.
/// 2. Make a sleeper of each.
/// 3. [`Sleeper::look`] with each. If any is ready: done.
/// 4. [`Sleeper::announce`] with each. If any says true: 3.
/// 5. `ppoll` or `epoll_wait` over the sleepers' fds (readable) and the other files. Then 3, and look at the other files; if the time was over, or a
///    signal came: done.
///
/// No wake-up can be lost: whoever brings something after 4 makes the fd readable. It may be readable for nothing; then 3 finds nothing.
#[derive(Debug)]
pub struct Sleeper<'b> {
    bound: &'b Bound,
    events: i16,
    watch: Arc<Watch>,
    kit: Kit,
}

impl Sleeper<'_> {
    /// Takes old wake-ups away, then evaluates as [`Bound::look_at`].
    #[must_use]
    pub fn look(&mut self) -> i16 {
        let taken = self.watch.take(self.bound, &mut self.kit.events, Some(Duration::ZERO));
        if self.bound.in_csb_mode() {
            return POLLERR;
        }
        let looked = self.bound.look(interest(self.events), 1);
        revents(self.events, &looked) | if taken.is_err() { POLLERR } else { 0 }
    }

    /// As [`Sleeper::look`], for who has just found its fd not to be readable, so that there are no old wake-ups: no system call.
    #[must_use]
    pub fn look_unwoken(&self) -> i16 {
        revents(self.events, &self.bound.look(interest(self.events), 1))
    }

    /// Asks for a wake-up, after [`Sleeper::look`] found nothing. True if something has moved meanwhile: look again instead of
    /// sleeping (not for ever without giving way: another thread may have to finish first).
    #[must_use]
    pub fn announce(&self) -> bool {
        self.bound.announce(interest(self.events), 1)
    }

    /// As [`Sleeper::announce`], for who knows what is ready: asks for a wake-up when there is more. For edge-triggered waits.
    #[must_use]
    pub fn announce_more(&self) -> bool {
        self.bound.announce_more(interest(self.events))
    }
}

/// Readable when something may be ready, after [`Sleeper::announce`] answered false.
impl AsFd for Sleeper<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.watch.leave_device(self.bound);
        self.bound.keep(std::mem::take(&mut self.kit));
    }
}

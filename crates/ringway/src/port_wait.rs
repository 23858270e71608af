//! Waiting for one port, which nobody else uses meanwhile.

use crate::bound::Pass;
use crate::error::SyncError;
use crate::port::Port;
use crate::wait::{Interest, Kit, Looked, Ready, Waited, Watch, Wish};
use ringway_os::event::EventBuf;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// What a port needs for waiting.
#[derive(Debug)]
pub(crate) struct Waiter {
    own: Kit,
    /// What `AsFd` lends.
    lent: Watch,
    events: EventBuf,
}

impl Waiter {
    pub fn new(bound: &crate::bound::Bound, me: u32) -> io::Result<Self> {
        let lent = Watch::new(bound, me, Interest::BOTH)?;
        Ok(Waiter { own: Kit::default(), lent, events: EventBuf::default() })
    }
}

impl Port {
    /// Waits until a packet can be received, or sent, as `interest` says, or `timeout` (None: for ever) is over; then [`Ready`] is
    /// empty. Syncs the rings before and after sleeping: what it finds can be used at once.
    ///
    /// Pending packets are sent in any case, unless the port was opened with [`no_tx_poll`](crate::PortBuilder::no_tx_poll). A ring is ready if slots beyond its `cur` are ours ([`hold`](crate::RxRing::hold),
    /// [`want`](crate::TxRing::want)). With a zero timeout it does not sleep: one sync and one look.
    ///
    /// Source: `poll` on a netmap descriptor; semantics.md 5.
    ///
    /// # Errors
    /// [`SyncError`], where poll would report POLLERR.
    #[inline]
    pub fn wait(&mut self, interest: Interest, timeout: Option<Duration>) -> Result<Ready, SyncError> {
        let ready = self.look(interest, 1).result()?;
        if !ready.is_empty() {
            return Ok(ready);
        }
        self.wait_slow(interest, 1, timeout)
    }

    /// As [`Port::wait`], until some ring has `min_slots` slots beyond its `cur` (as many as it can have, if that is less), for programs that work in batches.
    /// When `timeout` is over, rings with one slot are ready too.
    ///
    /// # Errors
    /// As [`Port::wait`].
    pub fn wait_for(
        &mut self,
        interest: Interest,
        min_slots: u32,
        timeout: Duration,
    ) -> Result<Ready, SyncError> {
        let ready = self.look(interest, min_slots).result()?;
        if !ready.is_empty() {
            return Ok(ready);
        }
        self.wait_slow(interest, min_slots, Some(timeout))
    }

    fn wait_slow(
        &mut self,
        interest: Interest,
        min: u32,
        timeout: Option<Duration>,
    ) -> Result<Ready, SyncError> {
        let wish = Wish { interest, watch: Interest::BOTH, min, timeout, on_signal: false };
        match self.bound.wait_slow(&mut self.waiter.own, wish) {
            Waited::Over(looked) => looked.result(),
            // Not asked for; nothing is ready then.
            Waited::Signal => Ok(Ready::default()),
        }
    }

    /// One evaluation, as poll makes it: pushes, syncs what is asked for, looks.
    #[inline]
    fn look(&mut self, interest: Interest, min: u32) -> Looked {
        let me = match self.bound.link.enter() {
            Ok(me) => me,
            Err(e) => return Looked::failed(e),
        };
        let (context, tx, rx) = self.bound.end.split();
        let pass = Pass { context, link: &self.bound.link, me };
        pass.look(tx.iter_mut(), rx.iter_mut(), interest, min)
    }

    /// Prepares the fd that [`AsFd`] lends for a wait by other means (epoll, mio, tokio): sends what is pending, receives, and asks for a
    /// wake-up. True if something is ready already: handle it instead of waiting. False: the fd becomes readable when
    /// something may be ready, or the broker is gone.
    ///
    /// ```no_run
    /// # use ringway::{Interest, Port};
    /// # fn wait_until_readable(fd: impl std::os::fd::AsFd) {}
    /// # let mut port = Port::open("vale0:a")?;
    /// loop {
    ///     while !port.arm(Interest::RX)? {
    ///         // mio: poll with `SourceFd(&port.as_fd().as_raw_fd())` registered for READABLE;
    ///         // tokio: `async_fd.readable().await?.clear_ready()` with `AsyncFd::new(port.as_fd()...)`.
    ///         wait_until_readable(&port);
    ///     }
    ///     port.rx(0).drain(u32::MAX, |slot| { println!("{} bytes", slot.len()); true });
    /// }
    /// # #[allow(unreachable_code)]
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Call it before each wait, not once: an announcement is used up by the first wake-up. In a forked child call it before
    /// `as_fd`: the child gets an fd of its own.
    ///
    /// # Errors
    /// As [`Port::wait`].
    pub fn arm(&mut self, interest: Interest) -> Result<bool, SyncError> {
        let me = self.bound.link.enter()?;
        if !self.waiter.lent.is_for(me, Interest::BOTH) {
            self.waiter.lent = Watch::new(&self.bound, me, Interest::BOTH)?;
        }
        self.waiter.lent.leave_device(&self.bound);
        if self.waiter.lent.has_device() && !self.look(interest, 1).result()?.is_empty() {
            return Ok(true);
        }
        // First the old edges, so that later ones show.
        self.waiter.lent.watch_device(&self.bound)?;
        self.waiter.lent.take(&self.bound, &mut self.waiter.events, Some(Duration::ZERO))?;
        if !self.look(interest, 1).result()?.is_empty() {
            return Ok(true);
        }
        if !self.bound.announce(interest, 1) {
            return Ok(false);
        }
        // Moved in between. Should the sync find nothing after all, the caller comes back.
        self.look(interest, 1).result()?;
        Ok(true)
    }
}

/// An fd that becomes readable when the port may be ready, after [`Port::arm`] answered false. Only the port reads it.
impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waiter.lent.as_fd()
    }
}

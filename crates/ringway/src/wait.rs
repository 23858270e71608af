//! Waiting: sync, spin while that pays, announce, look once more, sleep.
//!
//! Nobody rings who has not seen an announcement, and whoever announces looks again afterwards; so a wake-up cannot be lost
//! (`ringway_os::words`). Doorbells are never drained: each sleeper watches them, edge-triggered, through an epoll of its own.

use crate::error::SyncError;
use crate::port::Port;
use crate::session::Link;
use crate::spin::{Spinner, has_several_cpus};
use crate::view::settle;
use ringway_abi::{NR_DO_RX_POLL, NR_NO_TX_POLL};
use ringway_core::adapter::SyncFlags;
use ringway_core::kring::distance;
use ringway_core::layout::Dir;
use ringway_core::lease::{EndRing, Endpoint};
use ringway_os::event::{Epoll, EventBuf, EventFlags};
use ringway_os::sys::{monotonic_nanos, sleep, this_cpu_plus_1, yield_now};
use std::io;
use std::ops::BitOr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Directions to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    rx: bool,
    tx: bool,
}

impl Interest {
    /// Packets to receive.
    pub const RX: Interest = Interest { rx: true, tx: false };
    /// Room to send.
    pub const TX: Interest = Interest { rx: false, tx: true };
    /// Either.
    pub const BOTH: Interest = Interest { rx: true, tx: true };

    fn has(self, dir: Dir) -> bool {
        if dir == Dir::Tx { self.tx } else { self.rx }
    }
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest { rx: self.rx | other.rx, tx: self.tx | other.tx }
    }
}

/// What a wait found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// A ring has packets beyond `cur`.
    pub rx: bool,
    /// A ring has free slots beyond `cur`.
    pub tx: bool,
}

impl Ready {
    /// True if the wait timed out.
    #[must_use]
    pub fn is_empty(self) -> bool {
        !self.rx && !self.tx
    }
}

/// Syncs in vain, with the far side saying that it moved, before we give way; and before we sleep.
const FUTILE_YIELD: u32 = 4;
const FUTILE_SLEEP: u32 = 256;

const RX_BELL: u64 = 0;
const TX_BELL: u64 = 1;
const HANGUP: u64 = 2;
const DEVICE: u64 = 3;
const NOTICE: u64 = 4;

/// What a port needs for waiting.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// For `wait`; made at the first sleep, with the attachment that it was made for.
    own: Option<(u32, Epoll)>,
    /// What `AsFd` lends.
    lent: (u32, Epoll),
    events: EventBuf,
    spinner: Spinner,
}

impl Waiter {
    pub fn new(end: &Endpoint, link: &Link, me: u32) -> io::Result<Self> {
        let lent = (me, watch(end, link)?);
        Ok(Waiter { own: None, lent, events: EventBuf::default(), spinner: Spinner::default() })
    }
}

/// An epoll over all that may wake a sleeper of this port.
fn watch(end: &Endpoint, link: &Link) -> io::Result<Epoll> {
    let epoll = Epoll::new()?;
    let edge = EventFlags::IN | EventFlags::ET;
    epoll.add(&*end.grant().rx_bell, RX_BELL, edge)?;
    epoll.add(&*end.grant().tx_bell, TX_BELL, edge)?;
    epoll.add(&*end.grant().notice, NOTICE, edge)?;
    if let Some(fd) = link.hangup_fd() {
        epoll.add(fd, HANGUP, edge | EventFlags::RDHUP)?;
    }
    for (dir, events) in [(Dir::Rx, edge), (Dir::Tx, EventFlags::OUT | EventFlags::ET)] {
        for fd in end.bound(dir).iter().filter_map(EndRing::wake_fd) {
            // Both rings of a pair may name one socket.
            match epoll.add(fd, DEVICE, events) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    epoll.modify(fd, DEVICE, edge | EventFlags::OUT)?;
                }
                other => other?,
            }
        }
    }
    Ok(epoll)
}

/// Slots beyond `cur` that are enough for `min`; None if there can never be one more, since all are held.
fn enough(ring: &EndRing, min: u32) -> Option<u32> {
    let handle = ring.handle();
    let (n, header) = (handle.num_slots(), &handle.ring.header);
    let (head, cur) = (header.head.load(Relaxed), header.cur.load(Relaxed));
    let held = if head < n && cur < n { distance(n, head, cur) } else { 0 };
    (held < n - 1).then(|| min.clamp(1, n - 1 - held))
}

fn is_ready(ring: &EndRing, min: u32) -> bool {
    enough(ring, min).is_some_and(|wanted| ring.ready() >= wanted)
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
        let ready = self.look(interest, 1)?;
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
        let ready = self.look(interest, min_slots)?;
        if !ready.is_empty() {
            return Ok(ready);
        }
        self.wait_slow(interest, min_slots, Some(timeout))
    }

    #[cold]
    fn wait_slow(
        &mut self,
        interest: Interest,
        min: u32,
        timeout: Option<Duration>,
    ) -> Result<Ready, SyncError> {
        if timeout == Some(Duration::ZERO) {
            return Ok(self.readiness(interest, 1));
        }
        let start = monotonic_nanos();
        let nanos = timeout.map_or(u64::MAX, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        let deadline = start.saturating_add(nanos);
        let mut now = start;
        let mut futile = 0;
        loop {
            if self.look_on(interest, min, now, deadline) || self.announce(interest, min) {
                // The far side moved; but another thread of ours may be syncing, or a hostile one may lie.
                futile += 1;
                if futile > FUTILE_SLEEP {
                    sleep(Duration::from_micros(50));
                } else if futile > FUTILE_YIELD {
                    yield_now();
                }
            } else {
                futile = 0;
                let left = (deadline != u64::MAX).then(|| Duration::from_nanos(deadline.saturating_sub(now)));
                self.sleep(left)?;
                self.waiter.spinner.slept(monotonic_nanos() - now);
            }
            let ready = self.look(interest, min)?;
            if !ready.is_empty() {
                return Ok(ready);
            }
            now = monotonic_nanos();
            if now >= deadline {
                return Ok(self.readiness(interest, 1));
            }
        }
    }

    /// One evaluation, as poll makes it: pushes, syncs what is asked for, looks.
    #[inline]
    fn look(&mut self, interest: Interest, min: u32) -> Result<Ready, SyncError> {
        let nr_flags = self.end.grant().nr_flags;
        let me = self.link.enter()?;
        let (context, tx, rx) = self.end.split();
        let mut result = Ok(());
        let mut ready = Ready::default();
        if interest.tx || nr_flags & NR_NO_TX_POLL == 0 {
            for ring in tx {
                let wanted = interest.tx && !ready.tx;
                let state = &ring.handle().shared.state;
                if wanted || ring.handle().ring.header.head.load(Relaxed) != state.owner.hwcur.load() {
                    let parts = ring.parts();
                    let flags = SyncFlags::empty();
                    let outcome = context.sync(parts.handle, parts.driver, me, flags, &mut &self.link);
                    result = result.and(settle(outcome, parts.handle, parts.index));
                }
                ready.tx |= wanted && is_ready(ring, min);
            }
        }
        if interest.rx || nr_flags & NR_DO_RX_POLL != 0 {
            for ring in rx {
                let parts = ring.parts();
                let flags = SyncFlags::TIMESTAMP;
                let outcome = context.sync(parts.handle, parts.driver, me, flags, &mut &self.link);
                result = result.and(settle(outcome, parts.handle, parts.index));
                ready.rx |= interest.rx && is_ready(ring, min);
            }
        }
        result.map(|()| ready)
    }

    /// What is ready without a sync.
    fn readiness(&self, interest: Interest, min: u32) -> Ready {
        let any = |dir| interest.has(dir) && self.end.bound(dir).iter().any(|r| is_ready(r, min));
        Ready { rx: any(Dir::Rx), tx: any(Dir::Tx) }
    }

    /// Waits a little without sleeping. True if a ring of interest moved.
    fn look_on(&mut self, interest: Interest, min: u32, now: u64, deadline: u64) -> bool {
        let Port { end, waiter, .. } = self;
        let rings = |dir| end.bound(dir).iter().filter(move |_| interest.has(dir));
        let all = || rings(Dir::Rx).chain(rings(Dir::Tx));
        let moved = || all().any(|r| enough(r, min).is_some_and(|wanted| r.has_moved(wanted)));
        let peer = all().map(EndRing::peer_cpu).find(|cpu| *cpu != 0).unwrap_or(0);
        let together = peer == this_cpu_plus_1() || !has_several_cpus();
        waiter.spinner.spin(together, moved, now, deadline)
    }

    /// Announces the sleep on every ring of interest. True if one has moved meanwhile.
    fn announce(&self, interest: Interest, min: u32) -> bool {
        let rings = |dir| self.end.bound(dir).iter().filter(move |_| interest.has(dir));
        rings(Dir::Rx)
            .chain(rings(Dir::Tx))
            .any(|ring| enough(ring, min).is_some_and(|wanted| ring.announce(wanted)))
    }

    fn sleep(&mut self, timeout: Option<Duration>) -> Result<(), SyncError> {
        let me = self.link.enter()?;
        // After fork the epoll is our parent's too: whoever looked first would take the other's edges.
        if self.waiter.own.as_ref().is_none_or(|(of, _)| *of != me) {
            self.waiter.own = Some((me, watch(&self.end, &self.link)?));
        }
        let Some((_, epoll)) = &self.waiter.own else { return Ok(()) };
        let events = epoll.wait(&mut self.waiter.events, timeout)?;
        if events.iter().any(|(token, _)| *token == HANGUP) {
            self.link.check()?;
        }
        Ok(())
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
        let me = self.link.enter()?;
        if self.waiter.lent.0 != me {
            self.waiter.lent = (me, watch(&self.end, &self.link)?);
        }
        // First the old edges, so that later ones show.
        let events = self.waiter.lent.1.wait(&mut self.waiter.events, Some(Duration::ZERO))?;
        if events.iter().any(|(token, _)| *token == HANGUP) {
            self.link.check()?;
        }
        if !self.look(interest, 1)?.is_empty() {
            return Ok(true);
        }
        if !self.announce(interest, 1) {
            return Ok(false);
        }
        // Moved in between. Should the sync find nothing after all, the caller comes back.
        self.look(interest, 1)?;
        Ok(true)
    }
}

/// An fd that becomes readable when the port may be ready, after [`Port::arm`] answered false. Only the port reads it.
impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waiter.lent.1.as_fd()
    }
}

//! Waiting: sync, spin while that pays, announce, look once more, sleep.
//!
//! Nobody rings who has not seen an announcement, and whoever announces looks again afterwards; so a wake-up cannot be lost
//! (`ringway_os::words`). Doorbells are never drained: each sleeper watches them, edge-triggered, through an epoll of its own.

use crate::bound::Bound;
use crate::error::SyncError;
use crate::spin::Spinner;
use ringway_core::kring::distance;
use ringway_core::layout::Dir;
use ringway_core::lease::EndRing;
use ringway_os::event::{Epoll, EventBuf, EventFlags};
use ringway_os::sys::{monotonic_nanos, sleep, this_cpu_plus_1, yield_now};
use std::io;
use std::ops::BitOr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Directions to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub(crate) rx: bool,
    pub(crate) tx: bool,
}

impl Interest {
    /// Packets to receive.
    pub const RX: Interest = Interest { rx: true, tx: false };
    /// Room to send.
    pub const TX: Interest = Interest { rx: false, tx: true };
    /// Either.
    pub const BOTH: Interest = Interest { rx: true, tx: true };

    pub(crate) fn has(self, dir: Dir) -> bool {
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

/// So many slots in one wait are worth more than what it cost.
const BATCH: u32 = 64;
/// Syncs in vain, with the far side saying that it moved, before we give way; and before we sleep.
pub(crate) const FUTILE_YIELD: u32 = 4;
pub(crate) const FUTILE_SLEEP: u32 = 256;

const RX_BELL: u64 = 0;
const TX_BELL: u64 = 1;
const HANGUP: u64 = 2;
const DEVICE: u64 = 3;
const NOTICE: u64 = 4;
const KICK: u64 = 5;

/// One evaluation: what is ready, and what went wrong beside it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looked {
    pub ready: Ready,
    pub error: Option<SyncError>,
}

impl Looked {
    pub fn failed(error: SyncError) -> Self {
        Looked { ready: Ready::default(), error: Some(error) }
    }

    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.error.is_none()
    }

    /// What a Rust program is told: the error goes first.
    #[inline]
    pub fn result(self) -> Result<Ready, SyncError> {
        self.error.map_or(Ok(self.ready), Err)
    }
}

/// A private epoll over all that may wake a sleeper: of one process, one thread at a time, for some directions.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The attachment that it was made for. After fork it is our parent's too: whoever looked first would take the other's edges.
    of: u32,
    interest: Interest,
    epoll: Epoll,
    /// Whether it watches the sockets of interfaces, if there are any. The kernel calls a watcher for each frame that it has sent, which
    /// costs a tenth of a microsecond, so only those who sleep watch.
    device: Option<AtomicBool>,
}

impl Watch {
    pub fn new(bound: &Bound, of: u32, interest: Interest) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let edge = EventFlags::IN | EventFlags::ET;
        let grant = bound.end.grant();
        for (dir, bell, token) in [(Dir::Rx, &grant.rx_bell, RX_BELL), (Dir::Tx, &grant.tx_bell, TX_BELL)] {
            if interest.has(dir) {
                epoll.add(&**bell, token, edge)?;
            }
        }
        epoll.add(&*grant.notice, NOTICE, edge)?;
        if let Some(fd) = bound.link.hangup_fd() {
            epoll.add(fd, HANGUP, edge | EventFlags::RDHUP)?;
        }
        let has_device = rings_of(bound, interest).any(|(_, ring)| ring.with_wake_fd(|_| ()).is_some());
        Ok(Watch { of, interest, epoll, device: has_device.then(AtomicBool::default) })
    }

    /// Whether there are sockets of interfaces.
    pub fn has_device(&self) -> bool {
        self.device.is_some()
    }

    /// From now on sockets of interfaces wake us, too. True if that is new: what they say at first are old edges, to be taken away before a look.
    pub fn watch_device(&self, bound: &Bound) -> io::Result<bool> {
        if self.device.as_ref().is_none_or(|on| on.swap(true, Relaxed)) {
            return Ok(false);
        }
        for (dir, ring) in rings_of(bound, self.interest) {
            let events = if dir == Dir::Rx { EventFlags::IN } else { EventFlags::OUT };
            ring.with_wake_fd(|fd| add_device(&self.epoll, fd, events | EventFlags::ET)).transpose()?;
        }
        Ok(true)
    }

    /// The other way.
    pub fn leave_device(&self, bound: &Bound) {
        if self.device.as_ref().is_some_and(|on| on.swap(false, Relaxed)) {
            for (_, ring) in rings_of(bound, self.interest) {
                // Both rings of a pair may name one socket: it is gone the second time.
                ring.with_wake_fd(|fd| self.epoll.remove(fd).ok());
            }
        }
    }

    /// Watches an eventfd too, which nobody need drain.
    pub fn add_kick(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.epoll.add(fd, KICK, EventFlags::IN | EventFlags::ET)
    }

    pub fn is_for(&self, me: u32, interest: Interest) -> bool {
        self.of == me && self.interest == interest
    }

    /// Sleeps until something happens, or for a zero time takes old edges away, so that later ones show. False if nothing did.
    pub fn take(
        &self,
        bound: &Bound,
        events: &mut EventBuf,
        timeout: Option<Duration>,
    ) -> Result<bool, SyncError> {
        let events = self.epoll.wait(events, timeout)?;
        if events.iter().any(|(token, _)| *token == HANGUP) {
            bound.check()?;
        }
        Ok(!events.is_empty())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Bound rings of interest.
fn rings_of(bound: &Bound, interest: Interest) -> impl Iterator<Item = (Dir, &EndRing)> {
    let of = |dir| bound.end.bound(dir).iter().map(move |ring| (dir, ring));
    of(Dir::Rx).chain(of(Dir::Tx)).filter(move |(dir, _)| interest.has(*dir))
}

/// Watches the socket of a queue. Both rings of a pair may name one.
fn add_device(epoll: &Epoll, fd: BorrowedFd<'_>, events: EventFlags) -> io::Result<()> {
    match epoll.add(fd, DEVICE, events) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            epoll.modify(fd, DEVICE, EventFlags::IN | EventFlags::OUT | EventFlags::ET)
        }
        other => other,
    }
}

/// What a waiting thread keeps from one wait to the next.
#[derive(Debug, Default)]
pub(crate) struct Kit {
    watch: Option<Arc<Watch>>,
    pub events: EventBuf,
    pub spinner: Spinner,
}

impl Kit {
    /// The epoll of this process for `interest`, made anew after fork.
    pub fn watch(&mut self, bound: &Bound, interest: Interest) -> Result<&Arc<Watch>, SyncError> {
        let me = bound.link.enter()?;
        if !self.fits(me, interest) {
            self.watch = None;
        }
        match &mut self.watch {
            Some(watch) => Ok(watch),
            empty => Ok(empty.insert(Arc::new(Watch::new(bound, me, interest)?))),
        }
    }

    pub fn fits(&self, me: u32, interest: Interest) -> bool {
        self.watch.as_ref().is_some_and(|w| w.is_for(me, interest))
    }
}

/// Slots beyond `cur` that are enough for `min`; None if there can never be one more, since all are held.
pub(crate) fn enough(ring: &EndRing, min: u32) -> Option<u32> {
    let handle = ring.handle();
    let (n, header) = (handle.num_slots(), &handle.ring.header);
    let (head, cur) = (header.head.load(Relaxed), header.cur.load(Relaxed));
    let held = if head < n && cur < n { distance(n, head, cur) } else { 0 };
    (held < n - 1).then(|| min.clamp(1, n - 1 - held))
}

pub(crate) fn is_ready(ring: &EndRing, min: u32) -> bool {
    enough(ring, min).is_some_and(|wanted| ring.ready() >= wanted)
}

/// How a wait is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub interest: Interest,
    pub watch: Interest,
    pub min: u32,
    pub timeout: Option<Duration>,
    /// A signal ends it.
    pub on_signal: bool,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waited {
    /// Something is ready, or went wrong, or the time is over.
    Over(Looked),
    /// A signal came.
    Signal,
}

impl Bound {
    /// Waits after a first look in vain.
    #[cold]
    pub(crate) fn wait_slow(&self, kit: &mut Kit, wish: Wish) -> Waited {
        let waited = self.wait_until_ready(kit, wish);
        if let Some(watch) = &kit.watch {
            watch.leave_device(self);
        }
        waited
    }

    fn wait_until_ready(&self, kit: &mut Kit, wish: Wish) -> Waited {
        let Wish { interest, min, timeout, .. } = wish;
        if timeout == Some(Duration::ZERO) {
            return Waited::Over(Looked { ready: self.readiness(interest, 1), error: None });
        }
        let start = monotonic_nanos();
        let nanos = timeout.map_or(u64::MAX, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        let deadline = start.saturating_add(nanos);
        let mut now = start;
        let mut futile = 0;
        loop {
            let mut slept_nanos = None;
            let found = self.look_on(&mut kit.spinner, interest, min, now, deadline);
            if !found {
                let looked = self.watch_device(kit, wish).unwrap_or_else(Looked::failed);
                if !looked.is_empty() {
                    return Waited::Over(looked);
                }
            }
            if found || self.announce(interest, min) {
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
                let watch = kit.watch(self, wish.watch).cloned();
                let slept = watch.and_then(|w| w.take(self, &mut kit.events, left));
                let awake = monotonic_nanos();
                slept_nanos = Some(awake - now);
                match slept {
                    Ok(true) => self.link.seen_alive(awake),
                    Ok(false) if wish.on_signal && monotonic_nanos() < deadline => return Waited::Signal,
                    Ok(false) => {}
                    Err(e) => return Waited::Over(Looked::failed(e)),
                }
            }
            let looked = self.look(interest, min);
            let batch = rings_of(self, interest).any(|(_, ring)| is_ready(ring, BATCH));
            match slept_nanos {
                Some(nanos) => kit.spinner.slept(nanos, batch),
                None if batch => kit.spinner.brought_batch(),
                None => {}
            }
            if !looked.is_empty() {
                return Waited::Over(looked);
            }
            now = monotonic_nanos();
            if now >= deadline {
                return Waited::Over(Looked { ready: self.readiness(interest, 1), error: None });
            }
        }
    }

    /// Before a sleep. What is ready, if it had to look again.
    fn watch_device(&self, kit: &mut Kit, wish: Wish) -> Result<Looked, SyncError> {
        let watch = kit.watch(self, wish.watch)?.clone();
        if !watch.watch_device(self)? {
            return Ok(Looked::default());
        }
        watch.take(self, &mut kit.events, Some(Duration::ZERO))?;
        Ok(self.look(wish.interest, wish.min))
    }

    /// Waits a little without sleeping. True if a ring of interest moved.
    fn look_on(&self, spinner: &mut Spinner, interest: Interest, min: u32, now: u64, deadline: u64) -> bool {
        let rings = |dir| self.end.bound(dir).iter().filter(move |_| interest.has(dir));
        let all = || rings(Dir::Rx).chain(rings(Dir::Tx));
        let moved = || all().any(|r| enough(r, min).is_some_and(|wanted| r.has_moved(wanted)));
        spinner.spin(self.shares_cpu(interest), moved, now, deadline)
    }

    /// True if the far side of a ring of interest last ran on the very processor that we run on.
    pub(crate) fn shares_cpu(&self, interest: Interest) -> bool {
        let rings = |dir| self.end.bound(dir).iter().filter(move |_| interest.has(dir));
        let all = rings(Dir::Rx).chain(rings(Dir::Tx));
        let peer = all.map(EndRing::peer_cpu).find(|cpu| *cpu != 0).unwrap_or(0);
        peer == this_cpu_plus_1()
    }

    /// What is ready without a sync.
    fn readiness(&self, interest: Interest, min: u32) -> Ready {
        let any = |dir| interest.has(dir) && self.end.bound(dir).iter().any(|r| is_ready(r, min));
        Ready { rx: any(Dir::Rx), tx: any(Dir::Tx) }
    }

    /// Announces the sleep on every ring of interest. True if one has moved meanwhile.
    pub(crate) fn announce(&self, interest: Interest, min: u32) -> bool {
        let rings = |dir| self.end.bound(dir).iter().filter(move |_| interest.has(dir));
        rings(Dir::Rx)
            .chain(rings(Dir::Tx))
            .any(|ring| enough(ring, min).is_some_and(|wanted| ring.announce(wanted)))
    }

    /// As [`Bound::announce`], for one slot more than are ready; a ring that can have no more is left out.
    pub(crate) fn announce_more(&self, interest: Interest) -> bool {
        let rings = |dir| self.end.bound(dir).iter().filter(move |_| interest.has(dir));
        rings(Dir::Rx).chain(rings(Dir::Tx)).any(|ring| {
            let more = ring.ready() + 1;
            enough(ring, more).is_some_and(|wanted| wanted == more && ring.announce(wanted))
        })
    }

    /// As [`Bound::announce_more`], without announcing.
    pub(crate) fn has_more(&self, interest: Interest) -> bool {
        let rings = |dir| self.end.bound(dir).iter().filter(move |_| interest.has(dir));
        rings(Dir::Rx).chain(rings(Dir::Tx)).any(|ring| {
            let more = ring.ready() + 1;
            enough(ring, more).is_some_and(|wanted| wanted == more && ring.has_moved(wanted))
        })
    }

    /// The tails of all rings of interest, as one number.
    pub(crate) fn tails(&self, interest: Interest) -> u64 {
        let rings = |dir| self.end.bound(dir).iter().filter(move |_| interest.has(dir));
        let tail = |ring: &EndRing| u64::from(ring.handle().ring.header.tail.load(Relaxed));
        rings(Dir::Rx)
            .chain(rings(Dir::Tx))
            .fold(0, |all, ring| all.wrapping_mul(1_000_003).wrapping_add(tail(ring)))
    }
}

//! The sync loop: a thread that syncs on behalf of a program (a virtual machine, most likely) which publishes its positions in a
//! communication status block (CSB) instead of the rings.
//!
//! It runs in the thread that asks for it, with the syncs that any other caller runs: direct where the rings are, by way of the broker's
//! worker where those serve. What the program publishes is checked by those syncs as a ring's head and cur are.
//!
//! One pass over a ring: take the program's head and cur, put them into the ring, sync, publish how far that came, notify; and
//! again, until one side has nothing more. With eventfds the loop then asks the program to be notified (`need_kick`), looks once more, and
//! sleeps until the program or the port has something. It takes no system call while there is work, unless a side asked to be notified.
//!
//! Source: abi.md 12.

use crate::bound::{Bound, Pass};
use crate::error::SyncError;
use crate::port::Port;
use crate::wait::{FUTILE_SLEEP, FUTILE_YIELD, Interest, Kit, Watch};
use ringway_abi::{Errno, NAF_FORCE_READ, NAF_FORCE_RECLAIM, NR_EXCLUSIVE};
use ringway_core::adapter::SyncFlags;
use ringway_core::control::{CsbArray, check_csb};
use ringway_core::kring::{SyncOutcome, distance, prev};
use ringway_core::layout::Dir;
use ringway_core::lease::EndRing;
use ringway_core::sync_loop::{LoopError as Refusal, LoopWord};
use ringway_os::csb::{AppEntry, Csb, LoopEntry};
use ringway_os::event::{Doorbell, check_eventfd};
use ringway_os::mem::SharedRef;
use ringway_os::state::RingState;
use ringway_os::sys::{ExactSleeps, monotonic_nanos, sleep, yield_now};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::Duration;

/// Longest sleep between two passes. Source: abi.md 12.
pub const MAX_SLEEP: Duration = Duration::from_micros(ringway_abi::SYNC_KLOOP_MAX_SLEEP_US as u64);
/// With eventfds, a look at everything at least so often.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// Rounds on one ring before the others have their turn.
const MAX_ROUNDS: u32 = 64;
/// Syncs of a receive ring in turn that bring nothing, before we leave it.
const MAX_DRY: u32 = 2;
/// Passes in vain without sleeping, between two yields.
const IDLE_PASSES: u32 = 64;
/// Looks between two looks whether the broker lives, of who waits for the loop to end.
const STOP_NAP: Duration = Duration::from_micros(100);

/// A loop cannot be, or ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoopError {
    /// Others may bind the rings too: open the port exclusively.
    NotExclusive,
    /// The CSB has fewer entries than rings are bound.
    TooFewEntries,
    /// [`Port::enter_csb`] comes first.
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
    fn check(&self, rings: usize) -> Result<(), LoopError> {
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

    fn kicks_all(&self) -> bool {
        !self.events.is_empty() && self.events.iter().all(|e| e.kick.is_some())
    }
}

impl Bound {
    /// The word of this descriptor's loop; None if no ring is bound.
    fn loop_state(&self) -> Option<&SharedRef<RingState>> {
        let first = self.end.bound(Dir::Tx).first().or(self.end.bound(Dir::Rx).first())?;
        Some(&first.handle().shared.state)
    }

    fn loop_word(&self) -> Option<LoopWord<'_>> {
        self.loop_state().map(|state| LoopWord::of(state))
    }

    /// Bound rings: entries of a CSB.
    #[must_use]
    pub fn csb_rings(&self) -> usize {
        self.end.bound(Dir::Tx).len() + self.end.bound(Dir::Rx).len()
    }

    /// True in CSB mode: the program must not sync, nor poll; a loop does.
    #[inline]
    #[must_use]
    pub fn in_csb_mode(&self) -> bool {
        self.loop_word().is_some_and(LoopWord::is_on)
    }

    /// Whether CSB mode can be entered with such arrays. Source: abi.md 12.
    ///
    /// # Errors
    /// EBUSY while a loop runs, EINVAL, EFAULT.
    pub fn check_csb(&self, app: CsbArray, kern: CsbArray) -> Result<(), Errno> {
        if self.loop_word().is_some_and(|w| w.runner() != 0) {
            return Err(Errno::EBUSY);
        }
        check_csb(self.csb_rings(), self.nr_flags() & NR_EXCLUSIVE != 0, app, kern)
    }

    /// Enters CSB mode, and fills the arrays as the rings are. May be done again while no loop runs. With no ring bound, nothing happens.
    ///
    /// # Errors
    /// [`LoopError`].
    pub fn enter_csb(&self, csb: &Csb) -> Result<(), LoopError> {
        let Some(word) = self.loop_word() else { return Ok(()) };
        if word.runner() != 0 {
            return Err(LoopError::Running);
        }
        if self.nr_flags() & NR_EXCLUSIVE == 0 {
            return Err(LoopError::NotExclusive);
        }
        if csb.app().len() < self.csb_rings() {
            return Err(LoopError::TooFewEntries);
        }
        for ((ring, app), kern) in self.loop_rings().zip(csb.app()).zip(csb.kern()) {
            let state = &ring.handle().shared.state;
            kern.reset(hwcur(ring), ring.handle().ring.header.tail.load(Relaxed));
            app.publish(state.sync.rhead.load(Relaxed), state.sync.rcur.load(Relaxed));
            app.need_kick.store(1, Relaxed);
            app.sync_flags.store(1, Relaxed);
        }
        Ok(word.turn_on()?)
    }

    fn loop_rings(&self) -> impl Iterator<Item = &EndRing> {
        self.end.bound(Dir::Tx).iter().chain(self.end.bound(Dir::Rx))
    }

    /// Becomes the one that runs the descriptor's loop.
    ///
    /// # Errors
    /// [`LoopError`]: no CSB, or one runs.
    pub fn begin_loop(&self) -> Result<RunningLoop<'_>, LoopError> {
        let me = self.pass()?.me;
        let Some(word) = self.loop_word() else { return Err(LoopError::NoCsb) };
        word.begin(me)?;
        Ok(RunningLoop { bound: self, word, me })
    }

    /// Asks the descriptor's loop to end, in whatever process it runs, and waits until it has. If none runs, the next one ends at once.
    ///
    /// # Errors
    /// BrokerGone.
    pub fn stop_loop(&self) -> Result<(), SyncError> {
        self.check()?;
        let Some(word) = self.loop_word() else { return Ok(()) };
        let runner = word.ask_stop();
        if runner == 0 {
            return Ok(());
        }
        // It may have run out of its sleep already, and be about to sleep again: the edge stays.
        self.grant().rx_bell.ring();
        let mut naps = 0_u32;
        while word.runner() == runner {
            naps += 1;
            if naps <= IDLE_PASSES {
                yield_now();
                continue;
            }
            // The process of the loop may be dead: then the broker ends it. The broker may be: then it is over as well.
            self.check()?;
            sleep(STOP_NAP);
        }
        Ok(())
    }

    /// Asks for the end of a loop that runs in this very process, without waiting.
    pub fn end_own_loop(&self) {
        let me = self.link.present_attachment();
        if let Some(word) = self.loop_word().filter(|w| me != 0 && w.runner() == me) {
            let _ = word.ask_stop();
            self.grant().rx_bell.ring();
        }
    }
}

/// First slot of a ring that was not taken in.
fn hwcur(ring: &EndRing) -> u32 {
    let state = &ring.handle().shared.state;
    // The broker keeps its own, and takes in all that is posted.
    if ring.handle().is_brokered() { state.sync.rhead.load(Relaxed) } else { state.owner.hwcur.load() }
}

/// The right to run a descriptor's loop; gone when dropped, and with it a stop that was asked for.
#[derive(Debug)]
pub struct RunningLoop<'b> {
    bound: &'b Bound,
    word: LoopWord<'b>,
    me: u32,
}

impl Drop for RunningLoop<'_> {
    fn drop(&mut self) {
        // False if the broker took this process for dead; then it is somebody else's.
        let _ = self.word.end(self.me);
    }
}

/// Whose turn it is on a ring that was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// The program's: there is nothing more to take, or the ring is bad.
    Program,
    /// The port's: its own notification will tell.
    Port,
    /// Another thread's, for a moment; or there may be more.
    Busy,
}

/// A ring, as the loop has it.
struct Line<'a> {
    ring: &'a EndRing,
    app: &'a AppEntry,
    kern: &'a LoopEntry,
    notify: Option<Doorbell>,
    dir: Dir,
    n: u32,
    /// Nobody asks for kicks; all are told.
    direct: bool,
    is_event: bool,
    left: Left,
    /// Head that was last seen, and what was last published.
    head: u32,
    published: (u32, u32),
}

impl Line<'_> {
    fn ask_kick(&self, want: bool) {
        if !self.direct && (self.kern.need_kick.load(Relaxed) != 0) != want {
            self.kern.need_kick.store(want.into(), Relaxed);
        }
    }

    fn flags(&self, head: u32) -> SyncFlags {
        let asked = self.app.sync_flags.load(Relaxed);
        let force = match self.dir {
            Dir::Rx => asked & NAF_FORCE_READ != 0,
            Dir::Tx => {
                let (_, tail) = self.published;
                asked & NAF_FORCE_RECLAIM != 0
                    || (head < self.n && tail < self.n && distance(self.n, head, tail) <= self.n / 2)
            }
        };
        if force { SyncFlags::FORCE } else { SyncFlags::empty() }
    }

    /// Publishes how far the ring is. True if the tail moved.
    fn publish(&mut self) -> bool {
        let now = (hwcur(self.ring), self.ring.handle().ring.header.tail.load(Relaxed));
        if now == self.published {
            return false;
        }
        let news = now.1 != self.published.1;
        self.kern.publish(now.0, now.1);
        self.published = now;
        if news && let Some(notify) = &self.notify {
            // Pairs with the program's barrier between asking to be notified and its last look.
            fence(SeqCst);
            if self.direct || self.app.need_kick.load(Relaxed) != 0 {
                notify.ring();
            }
        }
        news
    }

    /// One turn on the ring. True if something moved.
    fn turn(&mut self, pass: &Pass<'_>) -> bool {
        self.ask_kick(false);
        let (mut head, mut cur) = self.app.positions();
        let (mut moved, mut dry) = (false, 0);
        for _ in 0..MAX_ROUNDS {
            self.head = head;
            let header = &self.ring.handle().ring.header;
            header.cur.store(cur, Relaxed);
            header.head.store(head, Relaxed);
            let before = self.published;
            match pass.outcome(&mut &*self.ring, self.flags(head)) {
                SyncOutcome::Done => {}
                SyncOutcome::Skipped | SyncOutcome::Brokered => {
                    self.left = Left::Busy;
                    return moved;
                }
                SyncOutcome::BadRing(_)
                | SyncOutcome::NeedPeer(_)
                | SyncOutcome::Stopped
                | SyncOutcome::Failed => {
                    // Until the program puts it right, or asks again.
                    self.left = Left::Program;
                    if self.is_event {
                        self.ask_kick(true);
                    }
                    return moved;
                }
            }
            let news = self.publish();
            moved |= self.published != before;
            let tail = self.published.1;
            let accepted = head;
            (head, cur) = self.app.positions();
            let left = match self.dir {
                Dir::Tx if head == accepted => Some(Left::Program),
                Dir::Tx if tail == accepted => Some(Left::Port),
                Dir::Tx => None,
                // All slots are the program's.
                Dir::Rx if head < self.n && tail == prev(self.n, head) => Some(Left::Program),
                Dir::Rx if tail == accepted => Some(Left::Port),
                Dir::Rx => {
                    dry = if news { 0 } else { dry + 1 };
                    (dry >= MAX_DRY).then_some(Left::Port)
                }
            };
            if let Some(left) = left {
                self.left = left;
                return moved;
            }
        }
        self.left = Left::Busy;
        true
    }

    /// Before the loop sleeps: asks to be kicked, if it is the program's turn.
    fn arm(&self) {
        if self.left == Left::Program {
            self.ask_kick(true);
        }
    }

    /// True if the program did something since the last turn, on a ring where it is its turn.
    fn has_news(&self) -> bool {
        self.left == Left::Program && self.app.head.load(Relaxed) != self.head
    }
}

impl RunningLoop<'_> {
    /// Runs it, until somebody stops it. `csb` is what CSB mode was entered with.
    ///
    /// # Errors
    /// [`LoopError`].
    pub fn run(self, csb: &Csb, config: LoopConfig) -> Result<(), LoopError> {
        let rings = self.bound.csb_rings();
        config.check(rings)?;
        if csb.app().len() < rings {
            return Err(LoopError::TooFewEntries);
        }
        let watch = config.kicks_all().then(|| self.watch(&config)).transpose()?;
        let nap = config.sleep;
        // Kicks are watched as long as they are open.
        let (mut lines, _kicks) = self.lines(csb, config);
        match watch {
            Some(watch) => self.run_with_events(&mut lines, &watch),
            None => self.run_busy(&mut lines, nap),
        }
    }

    /// What wakes a loop that sleeps: the port, and the program.
    fn watch(&self, config: &LoopConfig) -> Result<Watch, SyncError> {
        let watch = Watch::new(self.bound, self.me, Interest::BOTH)?;
        config.events.iter().filter_map(|e| e.kick.as_ref()).try_for_each(|k| watch.add_kick(k.as_fd()))?;
        Ok(watch)
    }

    /// The rings that are to be synced, and the eventfds that the program kicks.
    fn lines<'a>(&'a self, csb: &'a Csb, config: LoopConfig) -> (Vec<Line<'a>>, Vec<OwnedFd>) {
        let is_event = config.kicks_all();
        let mut events = config.events;
        events.resize_with(self.bound.csb_rings(), RingEvents::default);
        let (mut lines, mut kicks) = (vec![], vec![]);
        for (((ring, app), kern), own) in self.bound.loop_rings().zip(csb.app()).zip(csb.kern()).zip(events) {
            let dir = ring.handle().dir;
            let direct = if dir == Dir::Tx { config.direct_tx } else { config.direct_rx };
            kicks.extend(own.kick);
            if direct && !is_event {
                // Nobody can ask for it.
                continue;
            }
            lines.push(Line {
                ring,
                app,
                kern,
                notify: own.notify.map(Doorbell::adopt),
                dir,
                n: ring.handle().num_slots(),
                direct,
                is_event,
                left: Left::Busy,
                head: app.head.load(Relaxed),
                published: kern.positions(),
            });
        }
        (lines, kicks)
    }

    fn pass(&self, lines: &mut [Line<'_>]) -> Result<bool, SyncError> {
        let pass = self.bound.pass()?;
        Ok(lines.iter_mut().fold(false, |moved, line| line.turn(&pass) | moved))
    }

    fn run_busy(&self, lines: &mut [Line<'_>], nap: Duration) -> Result<(), LoopError> {
        let _exact = (!nap.is_zero()).then(ExactSleeps::begin);
        let mut idle = 0_u32;
        while !self.word.wants_stop() {
            let moved = self.pass(lines)?;
            if !nap.is_zero() {
                sleep(nap);
                continue;
            }
            idle = if moved { 0 } else { idle + 1 };
            if idle >= IDLE_PASSES {
                idle = 0;
                yield_now();
            } else if idle > 0 {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }

    fn run_with_events(&self, lines: &mut [Line<'_>], watch: &Watch) -> Result<(), LoopError> {
        let mut kit = Kit::default();
        let mut futile = 0;
        while !self.word.wants_stop() {
            if self.pass(lines)? {
                futile = 0;
                continue;
            }
            let now = monotonic_nanos();
            let together = self.bound.shares_cpu(Interest::BOTH);
            let busy = lines.iter().any(|l| l.left == Left::Busy);
            let found = busy || {
                let more = || {
                    lines.iter().any(Line::has_news)
                        || self.bound.has_more(Interest::BOTH)
                        || self.word.wants_stop()
                };
                kit.spinner.spin(together, more, now, u64::MAX)
            };
            if found || !self.may_sleep(lines) {
                // Somebody says that there is more; but another thread may be at it, or a hostile one lie.
                futile += 1;
                if futile > FUTILE_SLEEP {
                    sleep(Duration::from_micros(50));
                } else if futile > FUTILE_YIELD {
                    yield_now();
                }
                continue;
            }
            futile = 0;
            watch.take(self.bound, &mut kit.events, Some(LONGEST_WAIT))?;
            kit.spinner.slept(monotonic_nanos() - now);
        }
        Ok(())
    }

    /// Announces the sleep to the program and to the port. False if one of them has moved meanwhile.
    fn may_sleep(&self, lines: &[Line<'_>]) -> bool {
        lines.iter().for_each(Line::arm);
        // Pairs with the program's barrier between publishing its head and looking whether to kick.
        fence(SeqCst);
        !lines.iter().any(Line::has_news)
            && !self.bound.announce_more(Interest::BOTH)
            && !self.word.wants_stop()
    }
}

/// Ends the sync loop of a port, from any thread.
#[derive(Clone, Debug)]
pub struct LoopStopper {
    state: Option<SharedRef<RingState>>,
    bell: Arc<Doorbell>,
}

impl LoopStopper {
    /// Asks for the end of the loop, without waiting. If none runs, the next one ends at once.
    pub fn stop(&self) {
        if let Some(state) = &self.state {
            let _ = LoopWord::of(state).ask_stop();
            self.bell.ring();
        }
    }
}

impl Port {
    /// Enters CSB mode: from now on [`Port::run_csb_loop`] syncs, on behalf of whoever writes into `csb`, and into the slots of the bound
    /// rings. Fills `csb` as the rings are. May be done again while no loop runs.
    ///
    /// # Errors
    /// [`LoopError`]: NotExclusive, TooFewEntries, Running.
    pub fn enter_csb(&mut self, csb: &Csb) -> Result<(), LoopError> {
        self.bound.enter_csb(csb)
    }

    /// Syncs in this thread, until a [`LoopStopper`] ends it: what netmap's SYNC_KLOOP_START does. The one whom it serves, most likely a
    /// virtual machine that maps the port's region, is not trusted with anything but the port's packets: positions that are illegal are refused.
    ///
    /// ```
    /// use ringway::{Csb, LoopConfig, Netmap};
    ///
    /// let netmap = Netmap::embedded();
    /// let (mut port, mut peer) = (netmap.open("vale0:vm")?, netmap.open("vale0:b")?);
    /// let (csb, memfd) = Csb::create(port.tx_rings() + port.rx_rings())?; // the guest maps `memfd`
    /// # let _ = memfd;
    /// port.enter_csb(&csb)?;
    /// let stopper = port.loop_stopper();
    /// std::thread::scope(|s| {
    ///     let running = s.spawn(|| port.run_csb_loop(&csb, LoopConfig::default()));
    ///     csb.app()[0].publish(1, 1); // the guest has filled slot 0
    ///     while csb.kern()[0].positions().0 != 1 {}
    ///     stopper.stop();
    ///     running.join().unwrap()
    /// })?;
    /// # peer.rxsync()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`LoopError`].
    pub fn run_csb_loop(&mut self, csb: &Csb, config: LoopConfig) -> Result<(), LoopError> {
        self.bound.begin_loop()?.run(csb, config)
    }

    /// What ends [`Port::run_csb_loop`].
    #[must_use]
    pub fn loop_stopper(&self) -> LoopStopper {
        LoopStopper { state: self.bound.loop_state().cloned(), bell: self.bound.grant().rx_bell.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Netmap;

    #[test]
    fn nobody_sleeps_while_one_side_has_something() {
        let netmap = Netmap::embedded();
        let mut a = netmap.open("netmap:x{1").unwrap();
        let mut b = netmap.open("netmap:x}1").unwrap();
        let (csb, _) = Csb::create(2).unwrap();
        a.enter_csb(&csb).unwrap();
        let running = a.bound.begin_loop().unwrap();
        let kick = || Some(rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap());
        let events = (0..2).map(|_| RingEvents { kick: kick(), notify: None }).collect();
        let (mut lines, _kicks) = running.lines(&csb, LoopConfig { events, ..LoopConfig::default() });
        let asks = || csb.kern()[0].need_kick.load(Relaxed);
        let rest = |lines: &mut [Line<'_>]| while running.pass(lines).unwrap() {};
        rest(&mut lines);
        assert_eq!(asks(), 0, "not before it sleeps");
        assert!(running.may_sleep(&lines));
        assert_eq!(asks(), 1);
        // The program published, and looked, before the loop asked to be kicked.
        rest(&mut lines);
        csb.app()[0].publish(1, 1);
        assert_eq!(asks(), 0);
        assert!(!running.may_sleep(&lines));
        rest(&mut lines);
        assert!(running.may_sleep(&lines));
        // The peer sent, and looked, before the loop announced that it sleeps.
        rest(&mut lines);
        b.tx(0).send(&[0; 60]);
        b.txsync().unwrap();
        assert!(!running.may_sleep(&lines));
        rest(&mut lines);
        assert!(running.may_sleep(&lines));
        let _ = running.word.ask_stop();
        assert!(!running.may_sleep(&lines));
    }
}

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

use crate::bound::Bound;
use crate::error::SyncError;
use crate::wait::{FUTILE_SLEEP, FUTILE_YIELD, Interest, Kit, Watch};
use ringway_abi::{Errno, NR_EXCLUSIVE};
use ringway_core::control::{CsbArray, check_csb};
use ringway_core::layout::Dir;
use ringway_core::lease::EndRing;
use ringway_core::sync_loop::LoopWord;
use ringway_os::csb::Csb;
use ringway_os::event::Doorbell;
use ringway_os::mem::SharedRef;
use ringway_os::state::RingState;
use ringway_os::sys::{ExactSleeps, monotonic_nanos, sleep, yield_now};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::Duration;

mod config;
mod line;
mod port;

use self::line::{Left, Line, hwcur};
pub use config::{LoopConfig, LoopError, MAX_SLEEP, RingEvents};
pub use port::LoopStopper;

/// With eventfds, a look at everything at least so often.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// Passes in vain without sleeping, between two yields.
const IDLE_PASSES: u32 = 64;
/// Looks between two looks whether the broker lives, of who waits for the loop to end.
const STOP_NAP: Duration = Duration::from_micros(100);

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
                watch.leave_device(self.bound);
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
            if watch.watch_device(self.bound).map_err(SyncError::from)? {
                // What sockets say at first are old edges.
                watch.take(self.bound, &mut kit.events, Some(Duration::ZERO))?;
                continue;
            }
            watch.take(self.bound, &mut kit.events, Some(LONGEST_WAIT))?;
            kit.spinner.slept(monotonic_nanos() - now, false);
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

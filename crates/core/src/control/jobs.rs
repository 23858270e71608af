//! Rings that the broker serves, as its worker has them: one job each.

use super::LockKind;
use super::PortId;
use crate::adapter::RingDriver;
use crate::kring::{BROKER, RingHandle, distance};
use crate::layout::{Dir, RingShared};
use crate::pump::Pump;
use crate::stats::{Stat, add};
use ringway_os::event::Doorbell;
use ringway_os::mem::{Map, SharedRef};
use ringway_os::state::SwitchPage;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A ring at one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RingKey {
    pub port: PortId,
    pub is_tx: bool,
    pub index: u16,
    pub epoch: u64,
}

/// The device behind a ring: it has work also when no client posts.
#[derive(Clone, Debug)]
pub(super) struct Device {
    /// Readable when frames are there.
    pub socket: Arc<OwnedFd>,
    /// Wakes the ring's owner.
    pub bell: Arc<Doorbell>,
}

/// A brokered ring with its driver.
pub struct Job {
    /// Where the client posts, and sleeps.
    pub(super) public: RingShared,
    /// The ring with the broker's private state.
    pub(super) handle: RingHandle,
    pub(super) driver: Box<dyn RingDriver>,
    /// Rings whose owners may have got packets or room, with the bells that wake them.
    pub(super) wakes: Vec<(RingShared, Arc<Doorbell>)>,
    /// Rung by clients that post.
    pub(super) bell: Arc<Doorbell>,
    pub(super) device: Option<Device>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job({:?})", self.handle.dir)
    }
}

impl Job {
    /// True if there is something to do: a client has posted, or its device has frames or room.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.is_pending() || self.device.is_some() && has_news(&self.handle, &*self.driver)
    }

    /// True if a client has posted.
    fn is_pending(&self) -> bool {
        let state = &*self.public.state;
        state.post.posted.load() != state.ack.acked.load()
    }

    /// The bell that a client rings after posting, if the job was announced as asleep.
    #[must_use]
    pub fn bell(&self) -> &Arc<Doorbell> {
        &self.bell
    }

    /// What becomes readable when the ring's device has frames.
    #[must_use]
    pub fn device(&self) -> Option<&Arc<OwnedFd>> {
        self.device.as_ref().map(|d| &d.socket)
    }

    /// Before the worker sleeps. True if there is something to do after all.
    #[must_use]
    pub fn announce_sleep(&self) -> bool {
        let state = &*self.public.state;
        state.ack.sleep.announce(1);
        state.post.posted.load_after_announce() != state.ack.acked.load() || self.is_due()
    }

    /// Serves what was posted, and takes in what the device has. What a client posts is checked again here; illegal heads move
    /// nothing.
    pub fn run(&mut self) {
        let public = &*self.public.state;
        let ticket = public.post.posted.load();
        let posted = ticket != public.ack.acked.load();
        let mut kring = self.handle.load(BROKER);
        // What was posted to whoever served the ring before counts no more.
        let head = if posted { public.post.head.load(Relaxed) } else { kring.rhead };
        add(&self.handle.shared.state, Stat::Syncs, posted.into());
        let told = kring.rtail;
        if kring.take(head, head).is_ok() {
            // Errors of a driver leave packets where they are; the client's next post tries again.
            let _ = self.driver.sync(&mut kring);
            kring.rtail = kring.hwtail;
        }
        self.handle.save(&kring);
        tell_counters(&self.handle.shared, &self.public);
        public.ack.tail.store(kring.rtail, Relaxed);
        public.ack.cpu.store(ringway_os::sys::this_cpu_plus_1(), Relaxed);
        public.ack.acked.publish(ticket);
        for (ring, bell) in &self.wakes {
            ring.tell_owner(bell);
        }
        if let Some(device) = self.device.as_ref().filter(|_| kring.rtail != told) {
            self.public.tell_owner(&device.bell);
        }
    }
}

/// True if the far side of a ring has moved since its last sync, and there is room for what it brings.
pub(crate) fn has_news(handle: &RingHandle, driver: &dyn RingDriver) -> bool {
    let kring = handle.load(BROKER);
    let n = handle.num_slots();
    let owned = distance(n, kring.hwcur, kring.rtail);
    owned + 1 < n && driver.moved_since(handle, owned + 1)
}

/// The counters that clients and listings see; those of the broker stay the ones that count.
pub(crate) fn tell_counters(private: &RingShared, public: &RingShared) {
    for (ours, theirs) in private.state.counters.iter().zip(&public.state.counters) {
        theirs.set(ours.get());
    }
}

/// The lock that keeps other senders away from a receive ring.
#[derive(Clone, Debug)]
pub(super) struct SendersLock {
    pub ring: RingShared,
    /// Else some sender is writing to the ring.
    pub is_ours: bool,
}

/// Rings that processes have not handed over yet.
#[derive(Clone, Debug, Default)]
pub struct LateRings(Vec<(RingShared, LockKind)>);

impl LateRings {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if nothing is waited for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if somebody has let go of one.
    #[must_use]
    pub fn have_some_come(&self) -> bool {
        let is_claimed = |(ring, kind): &(RingShared, LockKind)| match kind {
            LockKind::Sync => ring.state.sync.lock.is_claimed(),
            LockKind::Senders => ring.state.senders.lock.is_claimed(),
            LockKind::Post => ring.state.post.lock.is_claimed(),
        };
        !self.0.iter().all(is_claimed)
    }
}

/// What the broker keeps for itself of brokered rings, and what is made of it for its workers.
#[derive(Debug, Default)]
pub struct Jobs {
    /// To be run by a worker.
    pub list: Vec<Job>,
    /// What carries frames between ports that the broker itself has bound. Each is run by one thread at a time.
    pub pumps: Vec<Pump>,
    pub(super) private: HashMap<PortId, Arc<Map>>,
    pub(super) held: BTreeMap<RingKey, RingHandle>,
    /// Rings that are to be held, in whose sync somebody is. They stay direct until he hands them over.
    pub(super) late: BTreeMap<RingKey, RingShared>,
    /// Rings that are held still, because somebody is in the middle of a post. They go back, and all that they have to do with, when he
    /// has finished it.
    pub(super) staying: BTreeMap<RingKey, RingShared>,
    /// The senders' locks of the receive rings of mixed switches, by port and ring.
    pub(super) senders: BTreeMap<(PortId, u16), SendersLock>,
    pub(super) pages: HashMap<usize, SharedRef<SwitchPage>>,
}

impl Jobs {
    /// Does what is to be done now. True if there was something. Pumps of other threads are left alone.
    pub fn run(&mut self) -> bool {
        let mut busy = false;
        for job in self.list.iter_mut().filter(|j| j.is_due()) {
            job.run();
            busy = true;
        }
        for pump in &mut self.pumps {
            busy |= pump.run();
        }
        busy
    }

    /// Before the worker sleeps. True if there is something to do after all.
    #[must_use]
    pub fn announce_sleep(&self) -> bool {
        let due = self.list.iter().fold(false, |due, j| j.announce_sleep() | due);
        self.pumps.iter().fold(due, |due, p| p.announce_sleep() | due)
    }

    /// True if there is nothing to run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.pumps.is_empty()
    }

    /// A ring that is brokered now, with the state that is in force.
    pub(super) fn held_ring(&self, port: PortId, dir: Dir, index: u16) -> Option<&RingHandle> {
        let is_it = |k: &RingKey| k.port == port && k.is_tx == (dir == Dir::Tx) && k.index == index;
        self.held.iter().find(|(k, _)| is_it(k)).map(|(_, handle)| handle)
    }

    /// True if the ring is to be held, and somebody is in the middle of its sync.
    pub(super) fn is_late(&self, port: PortId, dir: Dir, index: u16) -> bool {
        self.late.keys().any(|k| k.port == port && k.is_tx == (dir == Dir::Tx) && k.index == index)
    }

    /// What the broker still waits for. To be looked at now and then: when one of them has come, the jobs are to be refreshed.
    #[must_use]
    pub fn late(&self) -> LateRings {
        let late = self.late.values().map(|ring| {
            let is_synced = ring.state.sync.lock.holder() == BROKER;
            (ring.clone(), if is_synced { LockKind::Post } else { LockKind::Sync })
        });
        let staying = self.staying.values().map(|ring| (ring.clone(), LockKind::Post));
        let senders = self.senders.values().filter(|s| !s.is_ours);
        let senders = senders.map(|s| (s.ring.clone(), LockKind::Senders));
        LateRings(late.chain(staying).chain(senders).collect())
    }

    /// True if senders to the ring, which is of a mixed switch, are the broker's.
    pub(super) fn has_senders(&self, port: PortId, index: u16) -> bool {
        self.senders.get(&(port, index)).is_some_and(|s| s.is_ours)
    }

    pub(super) fn held(&self, key: &RingKey) -> Option<&RingHandle> {
        self.held.get(key)
    }
}

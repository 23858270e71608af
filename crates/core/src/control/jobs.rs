//! Rings that the broker serves, as its worker has them: one job each.

use super::PortId;
use crate::adapter::{RingDriver, SyncFlags};
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
    /// Number of the last post of a holder that did not let go: until it posts again it may be in the middle of a sync, which
    /// moves the kernel's rings as we would.
    pub seized_at: Option<u32>,
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
        let is_ours = |d: &Device| d.seized_at.is_none_or(|at| at != self.public.state.post.posted.load());
        self.is_pending()
            || self.device.as_ref().is_some_and(is_ours) && has_news(&self.handle, &*self.driver)
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
            let _ = self.driver.sync(&mut kring, SyncFlags::empty());
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

/// What the broker keeps for itself of brokered rings, and what is made of it for its workers.
#[derive(Debug, Default)]
pub struct Jobs {
    /// To be run by a worker.
    pub list: Vec<Job>,
    /// What carries frames between ports that the broker itself has bound. Each is run by one thread at a time.
    pub pumps: Vec<Pump>,
    pub(super) private: HashMap<PortId, Arc<Map>>,
    pub(super) held: BTreeMap<RingKey, RingHandle>,
    /// Rings whose holder did not let go when they were taken over, with the number of its last post. Until it posts again it may
    /// still write into its state: so long they are not given back.
    pub(super) seized: BTreeMap<RingKey, u32>,
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

    /// Rings whose holder did not let go when they were taken over.
    #[must_use]
    pub fn seized(&self) -> usize {
        self.seized.len()
    }

    pub(super) fn held(&self, key: &RingKey) -> Option<&RingHandle> {
        self.held.get(key)
    }
}

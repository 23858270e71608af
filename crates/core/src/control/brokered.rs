//! Rings that the broker serves: which they are, taking them over, running them, giving them back.
//!
//! A ring is brokered while processes of several users have to do with it: members of a public switch, the ends of a pipe
//! between root and a user, a descriptor that was handed to another user; and while a monitor watches it. Its sync lock then
//! holds the broker's number, its state is private to the broker, and clients post. The receive ring of a switch port needs no
//! worker, unless a zero-copy monitor takes buffers from it: its owner reads what the senders, now the worker alone, leave in
//! its own state.
//!
//! The worker runs the very drivers that clients run, with other handles.

use super::{Kind, PortId, Registry};
use crate::adapter::monitor::{Arrivals, MonitorRx, Monitored};
use crate::adapter::pipe::{PipeRx, PipeTx};
use crate::adapter::{RingDriver, SyncFlags};
use crate::kring::{BROKER, RingHandle, forget_journal};
use crate::layout::{Dir, RingShared, region_bufs, state_memfd_bytes};
use crate::stats::{Stat, add};
use crate::vale::{FarRing, Known, Peer, PeerTable, Seat, ValeRx, ValeTx, seat_port, set_header};
use ringway_os::event::Doorbell;
use ringway_os::mem::{Map, SharedRef};
use ringway_os::state::{RingState, SwitchPage};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

/// How long holders may keep the locks of rings that are taken over, all together: others wait meanwhile. One that is
/// stopped loses its batch.
const TAKEOVER_NAPS: u32 = 100;
const TAKEOVER_NAP: Duration = Duration::from_micros(100);
/// How long clients in the middle of a post are waited for, all together.
const POST_NAPS: u32 = 20;
const POST_NAP: Duration = Duration::from_micros(50);

/// Naps taken in one change of hands.
#[derive(Debug, Default)]
struct Naps {
    holders: u32,
    posters: u32,
}

/// A ring at one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RingKey {
    pub port: PortId,
    pub is_tx: bool,
    pub index: u16,
    pub epoch: u64,
}

/// A brokered ring with its driver.
pub struct Job {
    /// Where the client posts, and sleeps.
    public: RingShared,
    /// The ring with the broker's private state.
    handle: RingHandle,
    driver: Box<dyn RingDriver>,
    /// Rings whose owners may have got packets or room, with the bells that wake them.
    wakes: Vec<(RingShared, Arc<Doorbell>)>,
    /// Rung by clients that post.
    bell: Arc<Doorbell>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job({:?})", self.handle.dir)
    }
}

impl Job {
    /// True if a client has posted.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let state = &*self.public.state;
        state.post.posted.load() != state.ack.acked.load()
    }

    /// The bell that a client rings after posting, if the job was announced as asleep.
    #[must_use]
    pub fn bell(&self) -> &Arc<Doorbell> {
        &self.bell
    }

    /// Before the worker sleeps. True if somebody posted meanwhile.
    #[must_use]
    pub fn announce_sleep(&self) -> bool {
        let state = &*self.public.state;
        state.ack.sleep.announce(1);
        state.post.posted.load_after_announce() != state.ack.acked.load()
    }

    /// Serves what was posted. What a client posts is checked again here; illegal heads move nothing.
    pub fn run(&mut self) {
        let public = &*self.public.state;
        let ticket = public.post.posted.load();
        let head = public.post.head.load(Relaxed);
        let mut kring = self.handle.load(BROKER);
        add(&self.handle.shared.state, Stat::Syncs, 1);
        if kring.take(head, head).is_ok() {
            // Errors of a driver leave packets where they are; the client's next post tries again.
            let _ = self.driver.sync(&mut kring, SyncFlags::empty());
            kring.rtail = kring.hwtail;
        }
        self.handle.save(&kring);
        // The client's view of its counters; ours stay the ones that count.
        for (ours, theirs) in self.handle.shared.state.counters.iter().zip(&public.counters) {
            theirs.set(ours.get());
        }
        public.ack.tail.store(kring.rtail, Relaxed);
        public.ack.acked.publish(ticket);
        for (ring, bell) in &self.wakes {
            ring.tell_owner(bell);
        }
    }
}

/// What the broker keeps for itself of brokered rings, and the jobs made of it.
#[derive(Debug, Default)]
pub struct Jobs {
    /// To be run by a worker.
    pub list: Vec<Job>,
    private: HashMap<PortId, Arc<Map>>,
    held: BTreeMap<RingKey, RingHandle>,
    /// Rings whose holder did not let go when they were taken over, with the number of its last post. Until it posts again it may
    /// still write into its state: so long they are not given back.
    seized: BTreeMap<RingKey, u32>,
    pages: HashMap<usize, SharedRef<SwitchPage>>,
}

impl Jobs {
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

/// The switches and pipes that several users, or monitors, have to do with.
#[derive(Debug, Default)]
struct Mixed {
    switches: BTreeSet<usize>,
    pipes: BTreeSet<(PortId, PortId)>,
}

impl Registry {
    fn mixed(&self) -> Mixed {
        let mut users: HashMap<PortId, BTreeSet<u32>> = HashMap::new();
        for b in self.bindings.values() {
            users.entry(b.port).or_default().insert(b.uid);
        }
        for guest in &self.guests {
            if let Some(b) = self.bindings.get(&guest.binding) {
                users.entry(b.port).or_default().insert(guest.uid);
            }
        }
        let of = |ids: &[PortId]| -> BTreeSet<u32> {
            ids.iter().filter_map(|i| users.get(i)).flatten().copied().collect()
        };
        let mut mixed = Mixed::default();
        for (i, switch) in self.switches.iter().enumerate() {
            let ports: Vec<PortId> = switch.iter().flat_map(|s| s.ports.values().copied()).collect();
            if of(&ports).len() > 1 {
                mixed.switches.insert(i);
            }
        }
        for (id, port) in &self.ports {
            if let Kind::Pipe { peer, .. } = port.kind
                && *id < peer
                && of(&[*id, peer]).len() > 1
            {
                mixed.pipes.insert((*id, peer));
            }
        }
        for id in self.watched_ports() {
            self.mix(&mut mixed, id);
        }
        mixed
    }

    fn mix(&self, mixed: &mut Mixed, id: PortId) {
        match self.ports.get(&id).map(|p| &p.kind) {
            Some(Kind::Vale { switch: Some(i), .. }) => {
                mixed.switches.insert(*i);
            }
            Some(Kind::Pipe { peer, .. }) => {
                mixed.pipes.insert((id.min(*peer), id.max(*peer)));
            }
            _ => {}
        }
    }

    /// True if rings of the port are brokered now.
    #[must_use]
    pub(super) fn is_brokered(&self, id: PortId) -> bool {
        let Some(port) = self.ports.get(&id) else { return false };
        [Dir::Tx, Dir::Rx].into_iter().any(|dir| {
            let rings = if dir == Dir::Tx { &port.tx } else { &port.rx };
            (0..rings.len()).any(|i| self.handle(id, dir, i as u16).is_some_and(|r| r.is_brokered()))
        })
    }

    /// The rings that must be brokered now: all of such a pipe, the TX rings of such a switch, those of monitors.
    fn wanted(&self, mixed: &Mixed) -> BTreeSet<RingKey> {
        let mut out = BTreeSet::new();
        for (id, port) in &self.ports {
            let (tx, rx) = match port.kind {
                Kind::Vale { switch: Some(i), .. } => (mixed.switches.contains(&i), false),
                Kind::Pipe { peer, .. } => {
                    let both = mixed.pipes.contains(&((*id).min(peer), (*id).max(peer)));
                    (both, both)
                }
                _ => (false, false),
            };
            for (is_tx, wanted, rings) in [(true, tx, &port.tx), (false, rx, &port.rx)] {
                for (i, ring) in rings.iter().enumerate().filter(|(_, r)| wanted && r.offset.is_some()) {
                    out.insert(RingKey { port: *id, is_tx, index: i as u16, epoch: ring.epoch });
                }
            }
        }
        out.extend(self.monitor_rings());
        out
    }

    fn private_ring(&self, jobs: &mut Jobs, id: PortId, dir: Dir, index: u16) -> Option<RingShared> {
        let port = self.ports.get(&id)?;
        let map = match jobs.private.get(&id) {
            Some(map) => map.clone(),
            None => {
                let map = Map::anonymous(state_memfd_bytes(&port.geometry)).ok()?;
                jobs.private.insert(id, map.clone());
                map
            }
        };
        RingShared::new(&map, &port.geometry, dir, index)
    }

    /// Before a change that may take rings away, with the worker at rest until `refresh_jobs`: clients' state says how far their
    /// pipes are, since that decides whose the buffers in the slots are.
    pub fn settle_jobs(&self, jobs: &mut Jobs) {
        jobs.list.iter_mut().filter(|j| j.is_pending()).for_each(Job::run);
        // No job may run between the change and the refresh: it could put buffers into a ring that is gone.
        jobs.list.clear();
        for (key, handle) in &jobs.held {
            // What tells where buffers are. Not the accepted head: the client may be about to post another.
            let Some(public) = self.current(key) else { continue };
            let (from, to) = (&handle.shared, &public.shared);
            to.state.sync.rtail.store(from.state.sync.rtail.load(Relaxed), Relaxed);
            let is_pipe = self.ports.get(&key.port).is_some_and(|p| matches!(p.kind, Kind::Pipe { .. }));
            if is_pipe {
                to.state.owner.hwcur.set(from.state.owner.hwcur.load());
                from.known.iter().zip(to.known.iter()).for_each(|(x, y)| y.store(x.load(Relaxed), Relaxed));
            } else if !key.is_tx {
                to.state.owner.hwcur.set(from.state.owner.hwcur.load());
                from.mirror.iter().zip(to.mirror.iter()).for_each(|(x, y)| y.store(x.load(Relaxed), Relaxed));
            }
        }
    }

    /// Brings `jobs` up to date with who has what: takes rings over, gives rings back. Called after every change, with the worker at rest.
    pub fn refresh_jobs(&self, jobs: &mut Jobs) {
        let mut mixed = self.mixed();
        jobs.seized.retain(|key, posted| {
            self.current(key).is_some_and(|ring| ring.shared.state.post.posted.load() == *posted)
        });
        for key in jobs.seized.keys() {
            self.mix(&mut mixed, key.port);
        }
        let mut wanted = self.wanted(&mixed);
        wanted.extend(jobs.seized.keys());
        let held: BTreeSet<RingKey> = jobs.held.keys().copied().collect();
        let is_complete = held.is_empty() || !jobs.list.is_empty();
        if wanted == held && is_complete && mixed.switches.is_empty() && jobs.pages.is_empty() {
            return;
        }
        // What is posted is done before anything changes hands.
        jobs.list.iter_mut().filter(|j| j.is_pending()).for_each(Job::run);
        jobs.list.clear();
        // All states first, then all locks: whoever gets his ring back looks at those of others.
        for key in held.difference(&wanted) {
            if let (Some(handle), Some(public)) = (jobs.held.remove(key), self.current(key)) {
                copy_ring(&handle.shared, &public.shared);
                public.ring.header.tail.store(handle.load(BROKER).rtail, Release);
            }
        }
        for i in jobs.pages.keys().filter(|i| !mixed.switches.contains(i)) {
            self.give_senders_back(*i);
        }
        held.difference(&wanted).for_each(|key| self.let_go(key));
        jobs.private.retain(|id, _| self.ports.contains_key(id));
        let mut naps = Naps::default();
        // Senders first: a receive ring is at rest when all who write to it are.
        let fresh = wanted.iter().filter(|k| !held.contains(k));
        let (fresh_tx, fresh_rx): (Vec<&RingKey>, Vec<_>) = fresh.partition(|k| k.is_tx);
        for key in fresh_tx.iter().chain(&fresh_rx) {
            let dir = if key.is_tx { Dir::Tx } else { Dir::Rx };
            let Some(public) = self.handle(key.port, dir, key.index) else { continue };
            let Some(private) = self.private_ring(jobs, key.port, dir, key.index) else { continue };
            if !take_over(&public, &private, &mut naps) {
                jobs.seized.insert(**key, public.shared.state.post.posted.load());
            }
            jobs.held.insert(**key, RingHandle { ring: public.ring.clone(), shared: private, dir });
        }
        for (key, handle) in &jobs.held {
            if let Some(ring) = self.ring_use(key.port, handle.dir, key.index) {
                ring.offsets.store(&handle.shared.state);
            }
        }
        jobs.pages.retain(|i, _| mixed.switches.contains(i));
        let mut tables: HashMap<usize, Arc<PeerTable>> = HashMap::new();
        for i in &mixed.switches {
            if let Some(table) = self.private_switch(jobs, *i) {
                tables.insert(*i, table);
            }
        }
        fresh_rx.iter().for_each(|key| self.show_what_waits(jobs, key));
        let keys: Vec<RingKey> = jobs.held.keys().copied().collect();
        for key in keys {
            if let Some(job) = self.job(jobs, &key, &tables) {
                jobs.list.push(job);
            }
        }
    }

    /// A switch is direct again: senders go on from what the worker published last.
    fn give_senders_back(&self, i: usize) {
        let Some(switch) = self.switches.get(i).and_then(Option::as_ref) else { return };
        for port in switch.ports.values().filter_map(|id| self.ports.get(id)) {
            for r in 0..port.geometry.rx_rings {
                if let Some(ring) = RingShared::new(&port.state.map, &port.geometry, Dir::Rx, r) {
                    crate::repair::repair_receiver(&ring.state, ring.num_slots);
                }
            }
        }
    }

    /// Gives the lock of a ring back. It must not outlive the ring either: one that was taken away and made anew, to be brokered
    /// too, is taken over once more.
    fn let_go(&self, key: &RingKey) {
        let dir = if key.is_tx { Dir::Tx } else { Dir::Rx };
        let Some(port) = self.ports.get(&key.port) else { return };
        if let Some(ring) = RingShared::new(&port.state.map, &port.geometry, dir, key.index) {
            change_hands(&ring, false);
            ring.state.sync.lock.unlock(BROKER);
            ring.state.ack.acked.publish(ring.state.post.posted.load());
        }
    }

    /// The ring as it is now, if it is still in that life.
    fn current(&self, key: &RingKey) -> Option<RingHandle> {
        let dir = if key.is_tx { Dir::Tx } else { Dir::Rx };
        let port = self.ports.get(&key.port)?;
        let ring = if key.is_tx { &port.tx } else { &port.rx }.get(usize::from(key.index))?;
        (ring.epoch == key.epoch).then(|| self.handle(key.port, dir, key.index)).flatten()
    }

    /// The broker's own page and peers of a mixed switch, with the senders' cursors of every receive ring.
    fn private_switch(&self, jobs: &mut Jobs, i: usize) -> Option<Arc<PeerTable>> {
        let switch = self.switches.get(i)?.as_ref()?;
        let page = match jobs.pages.get(&i) {
            Some(page) => page.clone(),
            None => {
                let page = SharedRef::<SwitchPage>::new(&Map::anonymous(size_of::<SwitchPage>()).ok()?, 0)?;
                jobs.pages.insert(i, page.clone());
                page
            }
        };
        let table = Arc::new(PeerTable::default());
        let mut seen = [0u64; 4];
        for (index, id) in &switch.ports {
            let port = self.ports.get(id)?;
            let Kind::Vale { generation, .. } = port.kind else { continue };
            seen[usize::from(*index) / 64] |= 1 << (index % 64);
            if page.generations[usize::from(*index)].load(Relaxed) != generation {
                seat_port(&page, *index, generation);
            }
            set_header(&page, *index, port.hdr_len, port.mfs);
            let entry = self.regions.get(&port.region)?;
            let rings = (0..port.geometry.rx_rings)
                .map(|r| {
                    let public = RingShared::new(&port.state.map, &port.geometry, Dir::Rx, r)?;
                    let private = self.private_ring(jobs, *id, Dir::Rx, r)?;
                    let senders = private.state.clone();
                    let epoch = port.rx.get(usize::from(r))?.epoch;
                    let is_held =
                        jobs.held.contains_key(&RingKey { port: *id, is_tx: false, index: r, epoch });
                    senders.senders.bound.store(public.state.senders.bound.load(Relaxed), Relaxed);
                    let shared = if is_held { private } else { public.clone() };
                    take_senders(&shared.state, &senders, shared.num_slots);
                    let ring = port.rx.get(usize::from(r))?;
                    ring.offsets.store_senders(&senders);
                    let copies = self.watchers(jobs, *id, Dir::Rx, r).copies;
                    let owner = is_held.then(|| (public, port.notice.bell().clone()));
                    let watched = !copies.is_empty() || owner.is_some();
                    let arrivals = watched.then(|| Arc::new(Arrivals { copies, owner }));
                    Some(FarRing { shared, senders, arrivals })
                })
                .collect::<Option<Vec<_>>>()?;
            let bufs = region_bufs(&entry.region.shm.map, &entry.region.layout)?;
            let peer = Peer { index: *index, generation, rings, bufs, bell: port.notice.bell().clone() };
            table.set(*index, Known::Peer(Arc::new(peer)));
        }
        for index in 0..=u8::MAX {
            let gone = seen[usize::from(index) / 64] >> (index % 64) & 1 == 0;
            if gone && page.generations[usize::from(index)].load(Relaxed) != 0 {
                crate::vale::unseat_port(&page, index);
            }
        }
        Some(table)
    }

    fn job(&self, jobs: &Jobs, key: &RingKey, tables: &HashMap<usize, Arc<PeerTable>>) -> Option<Job> {
        let port = self.ports.get(&key.port)?;
        let dir = if key.is_tx { Dir::Tx } else { Dir::Rx };
        let handle = jobs.held.get(key)?.clone();
        let public = RingShared::new(&port.state.map, &port.geometry, dir, key.index)?;
        let (driver, wakes): (Box<dyn RingDriver>, _) = match &port.kind {
            Kind::Vale { .. } if !key.is_tx => (Box::new(ValeRx), vec![]),
            Kind::Monitor(_) => {
                let driver: Box<dyn RingDriver> = match self.next_in_chain(jobs, key.port, key.index) {
                    Some(next) => Box::new(Monitored::chained(Box::new(MonitorRx), next)),
                    None => Box::new(MonitorRx),
                };
                (driver, vec![])
            }
            Kind::Vale { switch: Some(i), index, generation, .. } => {
                let seat = Seat { page: jobs.pages.get(i)?.clone(), index: *index, generation: *generation };
                (Box::new(ValeTx::for_broker(seat, key.index, tables.get(i)?.clone())), vec![])
            }
            Kind::Pipe { peer, .. } => {
                let far = self.ports.get(peer)?;
                let far_dir = if key.is_tx { Dir::Rx } else { Dir::Tx };
                let private = RingShared::new(jobs.private.get(peer)?, &far.geometry, far_dir, key.index)?;
                let theirs = RingShared::new(&far.state.map, &far.geometry, far_dir, key.index)?;
                let bell = far.notice.bell().clone();
                let driver: Box<dyn RingDriver> = if key.is_tx {
                    Box::new(PipeTx { peer: private, bell: bell.clone() })
                } else {
                    Box::new(PipeRx { peer: private, bell: bell.clone() })
                };
                (driver, vec![(theirs, bell)])
            }
            _ => return None,
        };
        let watchers = self.watchers(jobs, key.port, dir, key.index);
        let arrivals = match port.kind {
            Kind::Pipe { peer, .. } if key.is_tx => self.watchers(jobs, peer, Dir::Rx, key.index).copies,
            _ => vec![],
        };
        let driver = if watchers.is_empty() && arrivals.is_empty() {
            driver
        } else {
            Box::new(Monitored::new(driver, &handle, watchers, arrivals))
        };
        Some(Job { public, handle, driver, wakes, bell: port.worker_bell.clone() })
    }
}

/// The ring is served by the broker from now on, or no more. Who posted to the one that served it before must not take an
/// acknowledgement for its work.
fn change_hands(ring: &RingShared, served: bool) {
    let hands = &ring.state.ack.hands;
    let now = hands.load();
    let to_next = if now % 2 == u32::from(served) { 2 } else { 1 };
    hands.publish(now.wrapping_add(to_next));
}

/// Takes a ring over: its lock, then its state. False if its holder did not let go.
fn take_over(public: &RingHandle, private: &RingShared, naps: &mut Naps) -> bool {
    let state = &*public.shared.state;
    let let_go = loop {
        let holder = state.sync.lock.holder();
        let patient = holder != 0 && holder != BROKER && naps.holders < TAKEOVER_NAPS;
        if patient {
            naps.holders += 1;
            ringway_os::sys::sleep(TAKEOVER_NAP);
        } else if holder == BROKER || state.sync.lock.steal(holder, BROKER) {
            break holder == 0 || holder == BROKER;
        }
    };
    copy_ring(&public.shared, private);
    let kring = public.load(BROKER);
    state.ack.tail.store(kring.rtail, Relaxed);
    // Before this a client does not believe the tail above, nor, after it, that its old posts were done.
    change_hands(&public.shared, true);
    // A post that nobody waits for any more is none. One whose poster holds the lock is for the worker.
    let posted = state.post.posted.load();
    loop {
        if state.post.lock.try_lock(BROKER).is_ok() {
            state.ack.acked.set(state.post.posted.load());
            state.post.lock.unlock(BROKER);
            break;
        }
        if state.post.posted.load() != posted || naps.posters >= POST_NAPS {
            break;
        }
        naps.posters += 1;
        ringway_os::sys::sleep(POST_NAP);
    }
    let_go
}

/// Positions, counters and arrays of one ring to another of the same size. Values out of range are mended when they are loaded.
fn copy_ring(from: &RingShared, to: &RingShared) {
    let (a, b) = (&*from.state, &*to.state);
    b.producer.hwtail.set(a.producer.hwtail.load());
    b.owner.hwcur.set(a.owner.hwcur.load());
    for (x, y) in
        [(&a.sync.rhead, &b.sync.rhead), (&a.sync.rcur, &b.sync.rcur), (&a.sync.rtail, &b.sync.rtail)]
    {
        y.store(x.load(Relaxed), Relaxed);
    }
    for (x, y) in a.counters.iter().zip(&b.counters) {
        y.set(x.get());
    }
    forget_journal(b);
    for (x, y) in [(&from.desc, &to.desc), (&from.mirror, &to.mirror)] {
        x.iter().zip(y.iter()).for_each(|(x, y)| y.store(x.load(Relaxed), Relaxed));
    }
    for (x, y) in [(&from.records, &to.records), (&from.known, &to.known), (&from.bits, &to.bits)] {
        x.iter().zip(y.iter()).for_each(|(x, y)| y.store(x.load(Relaxed), Relaxed));
    }
}

/// The senders' cursors of a receive ring, from what its owner sees.
fn take_senders(public: &RingState, private: &RingState, n: u32) {
    let check = |v: u32| if v < n { v } else { 0 };
    private.senders.tail.store(check(public.producer.hwtail.load()), Relaxed);
    private.senders.head.store(check(public.owner.hwcur.load()), Relaxed);
}

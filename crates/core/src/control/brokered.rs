//! Rings that the broker serves: which they are, taking them over, running them, giving them back.
//!
//! A ring is brokered while processes of several users have to do with it: members of a public switch, the ends of a pipe
//! between root and a user, a descriptor that was handed to another user; while a monitor watches it; and while the broker itself
//! has it bound, to carry frames between an interface and a switch ([`crate::pump`]). Its sync lock then
//! holds the broker's number, its state is private to the broker, and clients post. The receive ring of a switch port needs no
//! worker, unless a zero-copy monitor takes buffers from it: its owner reads what the senders, now the worker alone, leave in
//! its own state.
//!
//! The worker runs the very drivers that clients run, with other handles.

use super::jobs::{Device, Job, Jobs, RingKey, SendersLock};
use super::takeover::{Naps, claim, copy_ring, give_back, take_over, take_senders};
use super::{Kind, PortId, Registry};
use crate::adapter::RingDriver;
use crate::adapter::monitor::{Arrivals, MonitorRx, Monitored};
use crate::adapter::pipe::{PipeRx, PipeTx};
use crate::kring::{BROKER, RingHandle};
use crate::layout::{Dir, RingShared, region_bufs, state_memfd_bytes};
use crate::lease::nic_driver;
use crate::vale::{FarRing, Known, Peer, PeerTable, Seat, ValeRx, ValeTx, seat_port, set_header};
use ringway_os::mem::{Map, SharedRef};
use ringway_os::state::SwitchPage;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// The switches, pipes and interfaces that several users, monitors, or the broker itself have to do with.
#[derive(Debug, Default)]
struct Mixed {
    switches: BTreeSet<usize>,
    pipes: BTreeSet<(PortId, PortId)>,
    nics: BTreeSet<PortId>,
    /// Switch ports that sit on no switch.
    alone: BTreeSet<PortId>,
}

/// The peers on each mixed switch.
pub(super) type Tables = HashMap<usize, Arc<PeerTable>>;

impl Registry {
    fn mixed(&self) -> Mixed {
        let mut users: HashMap<PortId, BTreeSet<u32>> = HashMap::new();
        for b in self.bindings.values() {
            users.entry(b.port).or_default().insert(b.uid);
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
        let others = self.wrapped_ports().into_iter().chain(self.guested_ports());
        for id in self.watched_ports().into_iter().chain(others) {
            self.mix(&mut mixed, id);
        }
        mixed
    }

    fn mix(&self, mixed: &mut Mixed, id: PortId) {
        match self.ports.get(&id).map(|p| &p.kind) {
            Some(Kind::Vale { switch: Some(i), .. }) => {
                mixed.switches.insert(*i);
            }
            Some(Kind::Vale { switch: None, .. }) => {
                mixed.alone.insert(id);
            }
            Some(Kind::Pipe { peer, .. }) => {
                mixed.pipes.insert((id.min(*peer), id.max(*peer)));
            }
            Some(Kind::Nic(_)) => {
                mixed.nics.insert(id);
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

    /// The rings that must be brokered now: all of such a pipe or interface, the TX rings of such a switch, those of monitors, all that the
    /// broker itself has bound.
    fn wanted(&self, mixed: &Mixed) -> BTreeSet<RingKey> {
        let mut out = BTreeSet::new();
        for (id, port) in &self.ports {
            let (tx, rx) = match port.kind {
                _ if port.is_wrapped() => (true, true),
                Kind::Vale { switch: Some(i), .. } => (mixed.switches.contains(&i), false),
                Kind::Vale { switch: None, .. } => (mixed.alone.contains(id), false),
                Kind::Nic(_) => (mixed.nics.contains(id), mixed.nics.contains(id)),
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
        jobs.list.iter_mut().filter(|j| j.is_due()).for_each(Job::run);
        // No job may run between the change and the refresh: it could put buffers into a ring that is gone.
        jobs.list.clear();
        jobs.pumps.clear();
        for (key, handle) in &jobs.held {
            // What tells where buffers are. Not the accepted head: the client may be about to post another.
            let Some(public) = self.current(key) else { continue };
            let (from, to) = (&handle.shared, &public.shared);
            to.state.sync.rtail.store(from.state.sync.rtail.load(Relaxed), Relaxed);
            let kind = self.ports.get(&key.port).map(|p| &p.kind);
            if let Some(Kind::Nic(_)) = kind {
                to.state.owner.hwcur.set(from.state.owner.hwcur.load());
                for (x, y) in [(&from.records, &to.records), (&from.known, &to.known)] {
                    x.iter().zip(y.iter()).take(1).for_each(|(x, y)| y.store(x.load(Relaxed), Relaxed));
                }
            } else if let Some(Kind::Pipe { .. }) = kind {
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
        let mut wanted = self.wanted(&mixed);
        let held: BTreeSet<RingKey> = jobs.held.keys().copied().collect();
        let is_complete = (held.is_empty() || !jobs.is_empty()) && jobs.late().is_empty();
        if wanted == held && is_complete && mixed.switches.is_empty() && jobs.pages.is_empty() {
            return;
        }
        let mut naps = Naps::default();
        self.keep_posted(jobs, &mut mixed, &mut wanted, &mut naps);
        // What is posted is done before anything changes hands.
        jobs.list.iter_mut().filter(|j| j.is_due()).for_each(Job::run);
        jobs.list.clear();
        jobs.pumps.clear();
        // All states first, then all locks: whoever gets his ring back looks at those of others.
        for key in held.difference(&wanted) {
            if let (Some(handle), Some(public)) = (jobs.held.remove(key), self.current(key)) {
                copy_ring(&handle.shared, &public.shared);
                public.ring.header.tail.store(handle.load(BROKER).rtail, Release);
            }
        }
        self.give_senders_back(jobs, &mixed);
        held.difference(&wanted).for_each(|key| self.let_go(key));
        jobs.late.retain(|key, ring| {
            let stays = wanted.contains(key);
            if !stays {
                ring.state.sync.lock.withdraw();
                ring.state.post.lock.withdraw();
            }
            stays
        });
        jobs.private.retain(|id, _| self.ports.contains_key(id));
        // Senders first: a receive ring is at rest when all who write to it are.
        let fresh = wanted.iter().filter(|k| !held.contains(k));
        let (fresh_tx, fresh_rx): (Vec<&RingKey>, Vec<_>) = fresh.partition(|k| k.is_tx);
        fresh_tx.iter().for_each(|key| self.take(jobs, key, &mut naps));
        self.take_senders_locks(jobs, &mixed, &mut naps);
        for key in &fresh_rx {
            let is_switch = matches!(self.ports.get(&key.port).map(|p| &p.kind), Some(Kind::Vale { .. }));
            // Who still writes to it has its present state. It is taken when he hands that over.
            if !is_switch || jobs.has_senders(key.port, key.index) {
                self.take(jobs, key, &mut naps);
            }
        }
        for (key, handle) in &jobs.held {
            if let Some(ring) = self.ring_use(key.port, handle.dir, key.index) {
                ring.offsets.store(&handle.shared.state);
            }
        }
        jobs.pages.retain(|i, _| mixed.switches.contains(i));
        let mut tables = Tables::new();
        for i in &mixed.switches {
            if let Some(table) = self.private_switch(jobs, *i) {
                tables.insert(*i, table);
            }
        }
        fresh_rx.iter().for_each(|key| self.show_what_waits(jobs, key));
        let keys: Vec<RingKey> = jobs.held.keys().copied().collect();
        for key in keys {
            // Nobody posts to those that the broker itself has bound.
            if !self.ports.get(&key.port).is_some_and(super::PortEntry::is_wrapped)
                && let Some(job) = self.job(jobs, &key, &tables)
            {
                jobs.list.push(job);
            }
        }
        jobs.pumps = self.make_pumps(jobs, &tables);
    }

    /// A ring goes back when nobody is in the middle of a post. Until then it stays, with the switch, pipe or interface that it belongs to.
    fn keep_posted(
        &self,
        jobs: &mut Jobs,
        mixed: &mut Mixed,
        wanted: &mut BTreeSet<RingKey>,
        naps: &mut Naps,
    ) {
        let mut staying = BTreeMap::new();
        for key in jobs.held.keys() {
            let Some(public) = self.current(key).filter(|_| !wanted.contains(key)) else { continue };
            let lock = &public.shared.state.post.lock;
            let is_late = jobs.staying.contains_key(key);
            if !if is_late { lock.claim() } else { claim(lock, naps) } {
                staying.insert(*key, public.shared);
                self.mix(mixed, key.port);
                *wanted = self.wanted(mixed);
                wanted.extend(staying.keys());
            }
        }
        // Wanted again meanwhile, or kept by others.
        let goes_on = |key: &&RingKey| wanted.contains(key) && !staying.contains_key(key);
        for ring in jobs.held.keys().filter(goes_on).filter_map(|key| self.current(key)) {
            ring.shared.state.post.lock.withdraw();
        }
        jobs.staying = staying;
    }

    /// Takes a ring over. If somebody is in the middle of its sync, that is for later: he does not lose what he is doing, nor
    /// does the worker do it once more.
    fn take(&self, jobs: &mut Jobs, key: &RingKey, naps: &mut Naps) {
        let dir = if key.is_tx { Dir::Tx } else { Dir::Rx };
        let Some(public) = self.handle(key.port, dir, key.index) else { return };
        let state = public.shared.state.clone();
        let is_late = jobs.late.remove(key).is_some();
        // Who read that the ring is brokered when it was so before may be about to post.
        let mut locks = [&state.sync.lock, &state.post.lock].into_iter();
        if !locks.all(|lock| if is_late { lock.claim() } else { claim(lock, naps) }) {
            jobs.late.insert(*key, public.shared);
        } else if let Some(private) = self.private_ring(jobs, key.port, dir, key.index) {
            take_over(&public, &private);
            jobs.held.insert(*key, RingHandle { ring: public.ring, shared: private, dir });
        } else {
            state.sync.lock.withdraw();
            state.post.lock.withdraw();
            jobs.late.insert(*key, public.shared);
        }
    }

    /// Keeps senders that are late away from the receive rings of mixed switches: the worker has the senders' lock of each, or waits
    /// until it does.
    fn take_senders_locks(&self, jobs: &mut Jobs, mixed: &Mixed, naps: &mut Naps) {
        let switches = mixed.switches.iter().filter_map(|i| self.switches.get(*i)?.as_ref());
        for id in switches.flat_map(|s| s.ports.values()) {
            let Some(port) = self.ports.get(id) else { continue };
            for r in 0..port.geometry.rx_rings {
                let Some(ring) = RingShared::new(&port.state.map, &port.geometry, Dir::Rx, r) else {
                    continue;
                };
                let lock = &ring.state.senders.lock;
                let is_late = jobs.senders.get(&(*id, r)).is_some_and(|s| !s.is_ours);
                let is_ours = if is_late { lock.claim() } else { claim(lock, naps) };
                jobs.senders.insert((*id, r), SendersLock { ring, is_ours });
            }
        }
    }

    /// Of switches that are direct again: senders go on from what the worker published last.
    fn give_senders_back(&self, jobs: &mut Jobs, mixed: &Mixed) {
        jobs.senders.retain(|(id, _), senders| {
            let switch = self.ports.get(id).and_then(|p| match p.kind {
                Kind::Vale { switch, .. } => switch,
                _ => None,
            });
            let stays = switch.is_some_and(|i| mixed.switches.contains(&i));
            let state = &senders.ring.state;
            if !stays && senders.is_ours {
                crate::repair::repair_receiver(state, senders.ring.num_slots);
            }
            if !stays {
                state.senders.lock.withdraw();
            }
            stays
        });
    }

    /// Gives the lock of a ring back. It must not outlive the ring either: one that was taken away and made anew, to be brokered
    /// too, is taken over once more.
    fn let_go(&self, key: &RingKey) {
        let dir = if key.is_tx { Dir::Tx } else { Dir::Rx };
        let Some(port) = self.ports.get(&key.port) else { return };
        if let Some(ring) = RingShared::new(&port.state.map, &port.geometry, dir, key.index) {
            give_back(&ring);
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
                    let is_busy = !jobs.has_senders(*id, r);
                    Some(FarRing { shared, senders, arrivals, is_busy })
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

    /// A ring that the broker serves, with its driver: how to wake others, and what lies behind it.
    fn job(&self, jobs: &Jobs, key: &RingKey, tables: &Tables) -> Option<Job> {
        let port = self.ports.get(&key.port)?;
        let dir = if key.is_tx { Dir::Tx } else { Dir::Rx };
        let handle = jobs.held.get(key)?.clone();
        let public = RingShared::new(&port.state.map, &port.geometry, dir, key.index)?;
        let driver = self.broker_driver(jobs, key, tables)?;
        let wakes = match &port.kind {
            Kind::Pipe { peer, .. } => {
                let far = self.ports.get(peer)?;
                let far_dir = if key.is_tx { Dir::Rx } else { Dir::Tx };
                let theirs = RingShared::new(&far.state.map, &far.geometry, far_dir, key.index)?;
                vec![(theirs, far.notice.bell().clone())]
            }
            _ => vec![],
        };
        let device = match &port.kind {
            Kind::Nic(nic) => {
                Some(Device { socket: nic.socket(key.index)?, bell: port.notice.bell().clone() })
            }
            _ => None,
        };
        Some(Job { public, handle, driver, wakes, bell: port.worker_bell.clone(), device })
    }

    /// The driver of a brokered ring, with what its monitors see of it.
    pub(super) fn broker_driver(
        &self,
        jobs: &Jobs,
        key: &RingKey,
        tables: &Tables,
    ) -> Option<Box<dyn RingDriver>> {
        let port = self.ports.get(&key.port)?;
        let dir = if key.is_tx { Dir::Tx } else { Dir::Rx };
        let driver: Box<dyn RingDriver> = match &port.kind {
            Kind::Vale { .. } if !key.is_tx => Box::new(ValeRx),
            Kind::Monitor(_) => match self.next_in_chain(jobs, key.port, key.index) {
                Some(next) => Box::new(Monitored::chained(Box::new(MonitorRx), next)),
                None => Box::new(MonitorRx),
            },
            Kind::Vale { switch: Some(i), index, generation, .. } => {
                let seat = Seat { page: jobs.pages.get(i)?.clone(), index: *index, generation: *generation };
                Box::new(ValeTx::for_broker(seat, key.index, tables.get(i)?.clone()))
            }
            Kind::Vale { switch: None, index, generation, .. } => {
                // What it sends goes nowhere, and is counted and seen. Its page is its clients'; this one nobody else has.
                let page = SharedRef::<SwitchPage>::new(&Map::anonymous(size_of::<SwitchPage>()).ok()?, 0)?;
                seat_port(&page, *index, *generation);
                let seat = Seat { page, index: *index, generation: *generation };
                Box::new(ValeTx::for_broker(seat, key.index, Arc::default()))
            }
            Kind::Pipe { peer, .. } => {
                let far = self.ports.get(peer)?;
                let far_dir = if key.is_tx { Dir::Rx } else { Dir::Tx };
                let epoch = self.ring_use(*peer, far_dir, key.index)?.epoch;
                let far_key = RingKey { port: *peer, is_tx: !key.is_tx, index: key.index, epoch };
                // Who is in the middle of its sync has its present state still.
                let is_late = jobs.late.contains_key(&far_key);
                let map = if is_late { &far.state.map } else { jobs.private.get(peer)? };
                let peer = RingShared::new(map, &far.geometry, far_dir, key.index)?;
                let bell = far.notice.bell().clone();
                if key.is_tx { Box::new(PipeTx { peer, bell }) } else { Box::new(PipeRx { peer, bell }) }
            }
            Kind::Nic(nic) => {
                let grant = nic.grant(std::iter::once(key.index))?;
                let layout = self.regions.get(&port.region)?.region.layout;
                nic_driver(&grant, &layout, dir, key.index, &mut vec![]).ok()?
            }
            _ => return None,
        };
        let watchers = self.watchers(jobs, key.port, dir, key.index);
        let arrivals = match port.kind {
            Kind::Pipe { peer, .. } if key.is_tx => self.watchers(jobs, peer, Dir::Rx, key.index).copies,
            _ => vec![],
        };
        if watchers.is_empty() && arrivals.is_empty() {
            return Some(driver);
        }
        let monitored = Monitored::new(driver, jobs.held.get(key)?, watchers, arrivals);
        let of_device = matches!(port.kind, Kind::Nic(_));
        Some(Box::new(if of_device { monitored.of_device() } else { monitored }))
    }
}

//! The end of a bound port that runs its syncs: its rings, each with the driver that the grant calls for.

use super::{BadGrant, Grant, GrantKind, GuestOf, PeerSource};
use crate::adapter::monitor::{MonitorRx, MonitorTx};
use crate::adapter::null::Null;
use crate::adapter::packet::{BATCH, PacketRx, PacketTx};
use crate::adapter::pipe::{PipeRx, PipeTx};
use crate::adapter::xdp::{XdpRx, XdpTx};
use crate::adapter::{RingDriver, SyncError, SyncFlags};
use crate::kring::{Kring, RingHandle, SyncOutcome, distance};
use crate::layout::{Dir, RegionLayout, RingShared, RingView};
use crate::nic::{NicGrant, NicPath};
use crate::vale::{Known, Peer, PeerTable, Seat, ValeRx, ValeTx};
use ringway_os::mem::SharedRef;
use ringway_os::packet::PacketSocket;
use ringway_os::xdp::{XskHold, XskRings};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// One bound ring with its driver. Threads that share it take the driver in turn; who has it for himself ([`EndRing::parts`])
/// takes no lock.
pub struct EndRing {
    handle: RingHandle,
    /// Held for one sync, or one look. Nothing else is locked meanwhile.
    driver: Mutex<Box<dyn RingDriver>>,
    index: u16,
}

impl fmt::Debug for EndRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ring {}", self.handle.dir, self.index)
    }
}

impl EndRing {
    /// The ring and its state.
    #[must_use]
    pub fn handle(&self) -> &RingHandle {
        &self.handle
    }

    /// Its index among the port's rings of that direction.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Slots beyond `cur` that the client owns: it is ready if there is one.
    #[must_use]
    pub fn ready(&self) -> u32 {
        let n = self.handle.num_slots();
        let cur = self.handle.ring.header.cur.load(Relaxed);
        let tail = self.handle.ring.header.tail.load(Relaxed);
        if cur < n && tail < n { distance(n, cur, tail) } else { 0 }
    }

    /// Slots beyond `head` that must be the owner's for `more` of them to lie beyond `cur`.
    fn wanted(&self, more: u32) -> u32 {
        let n = self.handle.num_slots();
        let header = &self.handle.ring.header;
        let held = distance(n, header.head.load(Relaxed) % n, header.cur.load(Relaxed) % n);
        held.saturating_add(more).min(n - 1)
    }

    /// Announces that the owner of this ring sleeps until `more` slots beyond `cur` are there, and looks once more. True if
    /// they are there already, or may be: sync again instead of sleeping.
    #[must_use]
    pub fn announce(&self, more: u32) -> bool {
        let wanted = self.wanted(more);
        self.handle.shared.state.sleep.owner.announce(wanted);
        self.moved(wanted)
    }

    /// As [`EndRing::announce`], without announcing: for who spins before it sleeps.
    #[must_use]
    pub fn has_moved(&self, more: u32) -> bool {
        self.moved(self.wanted(more))
    }

    fn moved(&self, wanted: u32) -> bool {
        // A thread that syncs the ring now is waited for: what it brings is seen below.
        let driver = self.driver();
        let moved = if self.handle.is_stopped() {
            // The next sync says so.
            true
        } else if self.handle.is_brokered() {
            self.handle.worker_moved()
        } else {
            driver.moved_since(&self.handle, wanted)
        };
        // Another process may be syncing it, or have done so since our last sync: it took what the driver would have shown us.
        moved || self.handle.is_busy() || self.handle.owned() >= wanted
    }

    /// Adds what the kernel dropped before it reached this RX ring of an interface that is reached so. Nothing once its sockets are
    /// let go.
    pub fn add_kernel_drops(&self, path: NicPath, counters: &mut crate::stats::Counters) {
        if let Some(socket) = self.driver().wake_fd() {
            path.add_kernel_drops(socket, counters);
        }
    }

    fn driver(&self) -> MutexGuard<'_, Box<dyn RingDriver>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Processor, plus 1, on which the far side last worked on this ring; 0 when not known.
    #[must_use]
    pub fn peer_cpu(&self) -> u32 {
        if self.handle.is_brokered() {
            return self.handle.shared.state.ack.cpu.load(Relaxed);
        }
        self.driver().peer_cpu(&self.handle)
    }

    /// Calls `with` on what to wait on besides the port's doorbell, if there is such a thing.
    pub fn with_wake_fd<T>(&self, with: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        self.driver().wake_fd().map(with)
    }

    /// The ring and what syncs it, apart.
    #[inline]
    pub fn parts(&mut self) -> RingParts<'_> {
        let driver = self.driver.get_mut().unwrap_or_else(PoisonError::into_inner);
        RingParts { handle: &self.handle, driver: &mut **driver, index: self.index }
    }

    /// Calls `with` on the ring and what syncs it; None if another thread has it.
    pub fn try_with<T>(&self, with: impl FnOnce(RingParts<'_>) -> T) -> Option<T> {
        let mut driver = match self.driver.try_lock() {
            Ok(driver) => driver,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(with(RingParts { handle: &self.handle, driver: &mut **driver, index: self.index }))
    }
}

/// One bound ring taken apart, so that slots can be lent while the driver waits for its next sync.
pub struct RingParts<'a> {
    /// The ring and its state.
    pub handle: &'a RingHandle,
    /// What syncs it.
    pub driver: &'a mut dyn RingDriver,
    /// Its index among the port's rings of that direction.
    pub index: u16,
}

impl fmt::Debug for RingParts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ring {}", self.handle.dir, self.index)
    }
}

/// What all rings of an end share.
#[derive(Clone, Copy, Debug)]
pub struct EndContext<'a> {
    /// What was granted.
    pub grant: &'a Grant,
    peers: &'a PeerTable,
}

impl EndContext<'_> {
    /// Syncs a ring of this end for attachment `me`. Peers that the driver lacks are asked of `source`.
    #[inline]
    pub fn sync(
        &self,
        handle: &RingHandle,
        driver: &mut dyn RingDriver,
        me: u32,
        flags: SyncFlags,
        source: &mut dyn PeerSource,
    ) -> SyncOutcome {
        // Each round brings one peer; a switch has 256 at most.
        for _ in 0..=ringway_os::state::SWITCH_PORTS {
            match handle.sync(driver, me, flags) {
                SyncOutcome::NeedPeer(index) => fetch_peer(self.grant, self.peers, index, source),
                SyncOutcome::Brokered => {
                    let wait = !flags.contains(SyncFlags::POST);
                    let outcome = handle.sync_brokered(me, &self.grant.worker_bell, wait, source);
                    // Changed hands while we waited: what was posted and not done is for whoever serves it now.
                    if outcome != SyncOutcome::Brokered {
                        handle.stamp(flags);
                        return outcome;
                    }
                }
                other => return other,
            }
        }
        SyncOutcome::Failed
    }
}

/// The end of a bound port that runs its syncs.
#[derive(Debug)]
pub struct Endpoint {
    grant: Grant,
    me: u32,
    tx: Vec<EndRing>,
    rx: Vec<EndRing>,
    peers: Arc<PeerTable>,
    holds: Arc<Vec<XskHold>>,
}

impl Endpoint {
    /// An end for attachment `me` (not 0).
    ///
    /// # Errors
    /// [`BadGrant`] if the maps do not hold what is granted.
    pub fn new(grant: Grant, me: u32) -> Result<Self, BadGrant> {
        let peers = Arc::new(PeerTable::default());
        let mut end = Endpoint { me, tx: vec![], rx: vec![], peers, grant, holds: Arc::default() };
        let mut holds = vec![];
        end.tx = end.rings(Dir::Tx, &mut holds)?;
        end.rx = end.rings(Dir::Rx, &mut holds)?;
        end.holds = Arc::new(holds);
        // The drivers alone have the sockets from now on.
        if let GrantKind::Nic(nic) = &mut end.grant.kind {
            nic.queues.clear();
        }
        Ok(end)
    }

    fn rings(&self, dir: Dir, holds: &mut Vec<XskHold>) -> Result<Vec<EndRing>, BadGrant> {
        let g = &self.grant;
        let bound = if dir == Dir::Tx { &g.tx } else { &g.rx };
        let mut out = Vec::with_capacity(bound.offsets.len());
        for (index, ofs) in bound.range().zip(&bound.offsets) {
            let shared = RingShared::new(&g.state.map, &g.geometry, dir, index).ok_or(BadGrant)?;
            let ring = RingView::new(&g.region.map, &g.layout, *ofs, shared.num_slots).ok_or(BadGrant)?;
            let driver = self.driver(dir, index, holds)?;
            out.push(EndRing { handle: RingHandle { ring, shared, dir }, driver: Mutex::new(driver), index });
        }
        Ok(out)
    }

    fn driver(
        &self,
        dir: Dir,
        index: u16,
        holds: &mut Vec<XskHold>,
    ) -> Result<Box<dyn RingDriver>, BadGrant> {
        let g = &self.grant;
        Ok(match (&g.kind, dir) {
            (GrantKind::Null, _) => Box::new(Null),
            (GrantKind::Monitor, Dir::Tx) => Box::new(MonitorTx),
            (GrantKind::Monitor, Dir::Rx) => Box::new(MonitorRx),
            (GrantKind::Vale { index: port, generation, page }, Dir::Tx) => {
                let page = SharedRef::new(&page.map, 0).ok_or(BadGrant)?;
                let seat = Seat { page, index: *port, generation: *generation };
                Box::new(ValeTx::new(seat, index, self.peers.clone()))
            }
            (GrantKind::Vale { .. }, Dir::Rx) => Box::new(ValeRx),
            (GrantKind::Pipe { peer_state, peer_rx_bell, .. }, Dir::Tx) => {
                let peer = RingShared::new(&peer_state.map, &g.geometry.swapped(), Dir::Rx, index);
                Box::new(PipeTx { peer: peer.ok_or(BadGrant)?, bell: peer_rx_bell.clone() })
            }
            (GrantKind::Pipe { peer_state, peer_tx_bell, .. }, Dir::Rx) => {
                let peer = RingShared::new(&peer_state.map, &g.geometry.swapped(), Dir::Tx, index);
                Box::new(PipeRx { peer: peer.ok_or(BadGrant)?, bell: peer_tx_bell.clone() })
            }
            (GrantKind::Nic(nic), _) => nic_driver(nic, &g.layout, dir, index, holds)?,
            (GrantKind::Guest(GuestOf::Switch), Dir::Rx) => Box::new(ValeRx),
            (GrantKind::Guest(_), _) => Box::new(Elsewhere),
        })
    }

    /// Lets go of the sockets of an interface: the registry's keeper is gone, and the next one must find the queues free. The rings
    /// stay readable; their syncs fail.
    pub fn release_devices(&self) {
        if matches!(self.grant.kind, GrantKind::Nic(_)) {
            for ring in self.tx.iter().chain(&self.rx) {
                *ring.driver() = Box::new(Unplugged);
            }
        }
    }

    /// What lets go of the kernel's rings and sockets while rings of this end are lent out.
    #[must_use]
    pub fn holds(&self) -> &Arc<Vec<XskHold>> {
        &self.holds
    }

    /// What was granted.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The number under which this end holds locks.
    #[must_use]
    pub fn attachment(&self) -> u32 {
        self.me
    }

    /// Bound rings of one direction.
    #[must_use]
    pub fn bound(&self, dir: Dir) -> &[EndRing] {
        match dir {
            Dir::Tx => &self.tx,
            Dir::Rx => &self.rx,
        }
    }

    /// Syncs bound ring number `i` (0: the first bound one) of a direction. Peers that the driver lacks are asked of `source`.
    pub fn sync(&mut self, dir: Dir, i: usize, flags: SyncFlags, source: &mut dyn PeerSource) -> SyncOutcome {
        let ring = match dir {
            Dir::Tx => self.tx.get_mut(i),
            Dir::Rx => self.rx.get_mut(i),
        };
        let Some(RingParts { handle, driver, .. }) = ring.map(EndRing::parts) else {
            return SyncOutcome::Failed;
        };
        let context = EndContext { grant: &self.grant, peers: &self.peers };
        context.sync(handle, driver, self.me, flags, source)
    }

    /// What all rings share.
    #[must_use]
    pub fn context(&self) -> EndContext<'_> {
        EndContext { grant: &self.grant, peers: &self.peers }
    }

    /// The end taken apart: what all rings share, TX rings, RX rings. So several can be worked on at a time.
    pub fn split(&mut self) -> (EndContext<'_>, &mut [EndRing], &mut [EndRing]) {
        (EndContext { grant: &self.grant, peers: &self.peers }, &mut self.tx, &mut self.rx)
    }
}

/// The driver of one ring of an interface.
pub(crate) fn nic_driver(
    nic: &NicGrant,
    layout: &RegionLayout,
    dir: Dir,
    index: u16,
    holds: &mut Vec<XskHold>,
) -> Result<Box<dyn RingDriver>, BadGrant> {
    let queue = nic.queues.iter().find(|q| q.index == index).ok_or(BadGrant)?;
    let socket = queue.socket.clone();
    if nic.path == NicPath::Packet {
        let own = PacketSocket::adopt(socket.as_fd().try_clone_to_owned().map_err(|_| BadGrant)?, BATCH);
        return Ok(match dir {
            Dir::Rx => Box::new(PacketRx { socket: own, shared: socket }),
            Dir::Tx => Box::new(PacketTx { socket: own, shared: socket }),
        });
    }
    let layout = nic.path.umem(layout).map_err(|_| BadGrant)?;
    let rings = XskRings::map(socket.as_fd(), &queue.sizes).map_err(|_| BadGrant)?;
    holds.push(rings.hold(&socket));
    let XskRings { fill, comp, rx, tx } = rings;
    Ok(match dir {
        Dir::Rx => Box::new(XdpRx { fill, rx, socket, layout }),
        Dir::Tx => Box::new(XdpTx { tx, comp, socket, layout, multi_slot: nic.multi_slot }),
    })
}

/// What is left of a driver whose device was let go.
struct Unplugged;

impl RingDriver for Unplugged {
    fn sync(&mut self, _kring: &mut Kring<'_>) -> Result<(), SyncError> {
        Err(SyncError::Stopped)
    }

    fn moved_since(&self, _handle: &RingHandle, _wanted: u32) -> bool {
        true
    }
}

/// A ring that the broker serves for us. Asked itself, after the broker has given the ring back to others, it does nothing.
struct Elsewhere;

impl RingDriver for Elsewhere {
    fn sync(&mut self, _kring: &mut Kring<'_>) -> Result<(), SyncError> {
        Err(SyncError::Failed)
    }

    fn moved_since(&self, _handle: &RingHandle, _wanted: u32) -> bool {
        true
    }
}

/// Brings the memory of the port at `index`, or the knowledge that it cannot be had.
#[cold]
fn fetch_peer(grant: &Grant, peers: &PeerTable, index: u8, source: &mut dyn PeerSource) {
    let GrantKind::Vale { page, .. } = &grant.kind else { return };
    let generation = SharedRef::<ringway_os::state::SwitchPage>::new(&page.map, 0)
        .map_or(0, |p| p.generations[usize::from(index)].load(Relaxed));
    let known = source.peer(index).and_then(|p| {
        let id = (p.index, p.generation);
        Peer::new(id, &p.geometry, &p.layout, &p.region.map, &p.state.map, p.rx_bell)
    });
    peers.set(index, known.map_or(Known::Unreachable(generation), |p| Known::Peer(Arc::new(p))));
}

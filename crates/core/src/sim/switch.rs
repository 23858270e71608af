//! Switches, and the conservation of packets on them.

use super::{FIRST_ATTACHMENT, Frame, Memory, Owners, SimPort, SimRing, new_state};
use crate::adapter::RingDriver;
use crate::kring::{RingHandle, SyncOutcome, distance, forward};
use crate::layout::{Dir, Geometry, RingShared};
use crate::stats::Counters;
use crate::vale::{Known, Peer, PeerTable, Seat, ValeRx, ValeTx, seat_port, set_header, unseat_port};
use ringway_abi::ring::NS_MOREFRAG;
use ringway_os::mem::{Map, SharedRef};
use ringway_os::state::{SWITCH_PORTS, SwitchPage};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// A switch, and who sits on it. Clones are the same switch.
#[derive(Clone, Debug)]
pub struct SimSwitch {
    /// What members share.
    pub page: SharedRef<SwitchPage>,
    peers: Arc<Mutex<Vec<Option<Arc<Peer>>>>>,
    generations: Arc<AtomicU32>,
}

impl Default for SimSwitch {
    fn default() -> Self {
        let map = Map::anonymous(size_of::<SwitchPage>()).expect("memory");
        SimSwitch {
            page: SharedRef::new(&map, 0).expect("the page fits"),
            peers: Arc::new(Mutex::new(vec![None; SWITCH_PORTS])),
            generations: Arc::new(AtomicU32::new(1)),
        }
    }
}

impl SimSwitch {
    /// Seats a new port, all rings bound.
    #[must_use]
    pub fn attach(&self, index: u8, geometry: &Geometry, buf_size: u32) -> Member {
        let generation = self.generations.fetch_add(1, Relaxed);
        let rings = u32::from(geometry.tx_rings + geometry.rx_rings);
        let mut memory = Memory::new(rings, geometry.tx_slots.max(geometry.rx_slots), buf_size, 8);
        let (state, bell) = new_state(geometry);
        let seat = Seat { page: self.page.clone(), index, generation };
        let table = Arc::new(PeerTable::default());
        let me = FIRST_ATTACHMENT + generation;
        let mut ring = |dir, i| {
            let shared = RingShared::new(&state, geometry, dir, i).expect("the state fits");
            let driver: Box<dyn RingDriver> = match dir {
                Dir::Tx => Box::new(ValeTx::new(seat.clone(), i, table.clone())),
                Dir::Rx => Box::new(ValeRx),
            };
            let handle = memory.ring(shared, dir, i, None);
            handle.shared.state.senders.bound.store(u32::from(dir == Dir::Rx), Relaxed);
            SimRing { handle, driver, me }
        };
        let tx = (0..geometry.tx_rings).map(|i| ring(Dir::Tx, i)).collect();
        let rx = (0..geometry.rx_rings).map(|i| ring(Dir::Rx, i)).collect();
        let peer =
            Peer::new((index, generation), geometry, &memory.layout, &memory.map, &state, bell.clone())
                .expect("the maps fit");
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(index)] = Some(Arc::new(peer));
        seat_port(&self.page, index, generation);
        let port = SimPort { geometry: *geometry, state, tx, rx, bell };
        Member { port, memory, index, generation, table, switch: self.clone() }
    }

    /// The port at `index` leaves; its memory stays as long as anybody has it.
    pub fn detach(&self, member: &Member) {
        for rx in &member.port.rx {
            rx.handle.shared.state.senders.bound.store(0, Relaxed);
        }
        unseat_port(&self.page, member.index);
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(member.index)] = None;
    }

    fn peer(&self, index: u8) -> Option<Arc<Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(index)].clone()
    }
}

/// A port of a simulated switch.
#[derive(Debug)]
pub struct Member {
    /// Its rings.
    pub port: SimPort,
    /// Its region.
    pub memory: Memory,
    /// Its index.
    pub index: u8,
    /// Its generation.
    pub generation: u32,
    /// The peers that it has mapped.
    pub table: Arc<PeerTable>,
    /// Where it sits.
    pub switch: SimSwitch,
}

impl Member {
    /// Syncs TX ring `ring`, bringing the peers that the driver asks for.
    pub fn txsync(&mut self, ring: usize) -> SyncOutcome {
        loop {
            let index = match self.port.tx[ring].sync() {
                SyncOutcome::NeedPeer(index) => index,
                other => return other,
            };
            self.bring(index);
        }
    }

    /// Maps the port at `index`, or notes that it cannot be had.
    pub fn bring(&self, index: u8) {
        let generation = self.switch.page.generations[usize::from(index)].load(Acquire);
        let known = self.switch.peer(index).map_or(Known::Unreachable(generation), Known::Peer);
        self.table.set(index, known);
    }

    /// Sends one frame on ring 0, and syncs.
    pub fn send(&mut self, frame: &[u8]) -> SyncOutcome {
        assert!(self.port.tx[0].put(frame, 0), "a switch leaves room after every sync");
        self.txsync(0)
    }

    /// Receives all that is there on ring `ring`.
    pub fn receive(&mut self, ring: usize) -> Vec<Frame> {
        self.port.rx[ring].receive(u32::MAX)
    }

    /// Sets the length of its virtio-net header, as PORT_HDR_SET does.
    pub fn set_hdr_len(&self, hdr_len: u32) {
        let mfs = if hdr_len > 0 {
            self.memory.layout.bufs.objsize
        } else {
            self.switch.page.mfs[usize::from(self.index)].load(Relaxed)
        };
        set_header(&self.switch.page, self.index, hdr_len, mfs);
    }

    /// Counters of all TX rings, or of all RX rings.
    #[must_use]
    pub fn counters(&self, dir: Dir) -> Counters {
        let mut sum = Counters::default();
        let rings = if dir == Dir::Tx { &self.port.tx } else { &self.port.rx };
        rings.iter().for_each(|r| sum.merge(&r.counters()));
        sum
    }

    /// Checks that every buffer of its region has exactly one owner.
    pub fn check_owners(&self) {
        self.check_owners_with(&[]);
    }

    /// The same, with buffers that the test holds.
    pub fn check_owners_with(&self, extra: &[u32]) {
        let mut owners = Owners::default();
        self.port.tx.iter().chain(&self.port.rx).for_each(|r| owners.ring(&r.handle));
        owners.extra(extra);
        owners.check(self.memory.given());
    }
}

/// Packets delivered to a receive ring that its owner has not synced.
#[must_use]
pub fn pending_packets(rx: &RingHandle) -> u64 {
    let n = rx.num_slots();
    let (from, to) = (rx.shared.state.sync.rtail.load(Relaxed), rx.shared.state.producer.hwtail.load());
    (0..distance(n, from, to))
        .filter(|i| {
            let flags = rx.shared.desc[forward(n, from, *i) as usize].load(Relaxed) >> 16;
            flags & u32::from(NS_MOREFRAG) == 0
        })
        .count() as u64
}

/// Checks that no packet was lost without being counted: on each TX ring, and between all of them and the receivers. Every
/// member that ever was must be there.
pub fn conserved(members: &[&Member]) {
    let (mut sent, mut received) = (0, 0);
    for (i, m) in members.iter().enumerate() {
        for tx in &m.port.tx {
            let c = tx.counters();
            assert_eq!(c.packets + c.extra_copies, c.delivered + c.all_drops(), "member {i}: {c:?}");
            sent += c.delivered;
        }
        for rx in &m.port.rx {
            received += rx.counters().packets + pending_packets(&rx.handle);
        }
    }
    assert_eq!(sent, received, "what was delivered is what came");
}

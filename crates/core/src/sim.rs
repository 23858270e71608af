//! Simulation: ports without a broker, in one process.
//!
//! It lays out private regions and states, binds all rings, seats ports on a switch page, answers a driver that asks
//! for a peer, and plays the client: fills slots, moves `head` and `cur`, syncs, reads what came. [`Owners`]
//! and [`conserved`] are the checks that every test of traffic ends with. For tests, benches and fuzzers: it
//! panics on misuse.

use crate::adapter::null::Null;
use crate::adapter::pipe::{PipeRx, PipeTx};
use crate::adapter::{RingDriver, SyncFlags};
use crate::kring::{RingHandle, SyncOutcome, distance, forward, next};
use crate::layout::{
    Dir, Geometry, PoolWish, RegionLayout, RegionWish, RingShared, RingView, region_bufs, state_memfd_bytes,
};
use crate::stats::Counters;
use crate::vale::{Known, Peer, PeerTable, Seat, ValeRx, ValeTx, seat_port, set_header, unseat_port};
use ringway_abi::ring::{FIRST_BUF_IDX, NS_MOREFRAG};
use ringway_os::bytes::Bufs;
use ringway_os::event::Doorbell;
use ringway_os::mem::{Map, SharedRef};
use ringway_os::ring::SlotWord;
use ringway_os::state::{SWITCH_PORTS, SwitchPage};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, PoisonError};

/// The number of the first attachment; those below are the broker's.
const FIRST_ATTACHMENT: u32 = 100;

/// A small generator of random numbers (splitmix64): the same seed, the same numbers.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `bound` (at least 1).
    pub fn below(&mut self, bound: u32) -> u32 {
        (self.next_u64() % u64::from(bound)) as u32
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

/// A private region from which rings and buffers are given out in order, and never taken back.
#[derive(Debug)]
pub struct Memory {
    /// Its layout.
    pub layout: RegionLayout,
    /// Its bytes.
    pub map: Arc<Map>,
    rings: u32,
    next_buf: u32,
}

impl Memory {
    /// A region for `rings` rings of up to `slots` slots, whose buffers have `buf_size` bytes, with `extra` buffers besides.
    #[must_use]
    pub fn new(rings: u32, slots: u32, buf_size: u32, extra: u32) -> Self {
        let wish = RegionWish {
            ifs: PoolWish { objsize: 1024, objtotal: 1 },
            rings: PoolWish { objsize: 256 + 16 * slots, objtotal: rings.max(2) },
            bufs: PoolWish { objsize: buf_size, objtotal: (rings * slots + extra + FIRST_BUF_IDX).max(4) },
        };
        let layout = wish.lay_out(true).expect("sizes within the permitted ranges");
        let map = Map::anonymous(layout.memsize as usize).expect("memory");
        Memory { layout, map, rings: 0, next_buf: FIRST_BUF_IDX }
    }

    /// The buffers.
    #[must_use]
    pub fn bufs(&self) -> Bufs {
        region_bufs(&self.map, &self.layout).expect("the layout is that of the map")
    }

    /// The indexes given out so far.
    #[must_use]
    pub fn given(&self) -> std::ops::Range<u32> {
        FIRST_BUF_IDX..self.next_buf
    }

    /// Gives out one buffer.
    pub fn take_buf(&mut self) -> u32 {
        assert!(self.next_buf < self.layout.bufs.objtotal, "the region has no more buffers");
        self.next_buf += 1;
        self.next_buf - 1
    }

    /// Makes a ring with a buffer in every slot: fresh ones, or those of `like`'s slots. It is reset.
    pub fn ring(
        &mut self,
        shared: RingShared,
        dir: Dir,
        index: u16,
        like: Option<&RingHandle>,
    ) -> RingHandle {
        let at = self.layout.rings;
        assert!(self.rings < at.objtotal, "the region has no more rings");
        let ofs = at.offset + u64::from(self.rings) * u64::from(at.objsize);
        self.rings += 1;
        let ring = RingView::new(&self.map, &self.layout, ofs, shared.num_slots).expect("the ring fits");
        let buf_size = self.layout.bufs.objsize;
        ring.header.buf_ofs.store(self.layout.bufs.offset.wrapping_sub(ofs), Relaxed);
        ring.header.num_slots.store(shared.num_slots, Relaxed);
        ring.header.nr_buf_size.store(buf_size, Relaxed);
        ring.header.ringid_dir.store(u32::from(index) | u32::from(dir == Dir::Tx) << 16, Relaxed);
        let len = u16::try_from(buf_size).unwrap_or(u16::MAX);
        for (k, slot) in ring.slots.iter().enumerate() {
            let idx = like.map_or_else(|| self.take_buf(), |l| l.ring.slots[k].load().buf_idx());
            slot.store(SlotWord::new(idx, len, 0));
        }
        let handle = RingHandle { ring, shared, dir };
        handle.reset();
        handle
    }
}

/// What was in one received slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// `len` bytes of its buffer.
    pub bytes: Vec<u8>,
    /// `NS_*` flags.
    pub flags: u16,
    /// Its buffer.
    pub buf_idx: u32,
    /// The `ptr` field.
    pub ptr: u64,
}

/// Received slots, grouped into packets by NS_MOREFRAG.
#[must_use]
pub fn packets(frames: &[Frame]) -> Vec<Vec<Frame>> {
    frames.split_inclusive(|f| f.flags & NS_MOREFRAG == 0).map(<[Frame]>::to_vec).collect()
}

/// A bound ring with its driver, and the client that works on it.
pub struct SimRing {
    /// The ring.
    pub handle: RingHandle,
    /// What serves it.
    pub driver: Box<dyn RingDriver>,
    /// The attachment's number.
    pub me: u32,
}

impl std::fmt::Debug for SimRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (dir, head, cur, tail) = (self.handle.dir, self.head(), self.cur(), self.tail());
        write!(f, "SimRing({dir:?} of {}, head {head} cur {cur} tail {tail})", self.num_slots())
    }
}

impl SimRing {
    /// A lone ring of `slots` slots served by a null driver, for tests of the ring itself.
    #[must_use]
    pub fn lone(dir: Dir, slots: u32, buf_size: u32) -> Self {
        let geometry = Geometry { tx_rings: 1, rx_rings: 1, tx_slots: slots, rx_slots: slots };
        let state = Map::anonymous(state_memfd_bytes(&geometry)).expect("memory");
        let shared = RingShared::new(&state, &geometry, dir, 0).expect("the state fits");
        let handle = Memory::new(1, slots, buf_size, 0).ring(shared, dir, 0, None);
        SimRing { handle, driver: Box::new(Null), me: FIRST_ATTACHMENT }
    }

    /// Slots.
    #[must_use]
    pub fn num_slots(&self) -> u32 {
        self.handle.num_slots()
    }

    /// `ring->head`.
    #[must_use]
    pub fn head(&self) -> u32 {
        self.handle.ring.header.head.load(Relaxed)
    }

    /// `ring->cur`.
    #[must_use]
    pub fn cur(&self) -> u32 {
        self.handle.ring.header.cur.load(Relaxed)
    }

    /// `ring->tail`.
    #[must_use]
    pub fn tail(&self) -> u32 {
        self.handle.ring.header.tail.load(Acquire)
    }

    /// Sets `head` and `cur`, whatever they are.
    pub fn set(&self, head: u32, cur: u32) {
        self.handle.ring.header.cur.store(cur, Relaxed);
        self.handle.ring.header.head.store(head, Release);
    }

    /// Slots that the client may use: free ones of a TX ring, received ones of an RX ring.
    #[must_use]
    pub fn avail(&self) -> u32 {
        distance(self.num_slots(), self.head(), self.tail())
    }

    /// The slot `k`.
    #[must_use]
    pub fn slot(&self, k: u32) -> SlotWord {
        self.handle.ring.slots[k as usize].load()
    }

    /// Sends `word` and `ptr` in the next slot. False if there is none.
    pub fn put_word(&self, word: SlotWord, ptr: u64) -> bool {
        if self.avail() == 0 {
            return false;
        }
        let head = self.head();
        let slot = &self.handle.ring.slots[head as usize];
        slot.store(word);
        slot.set_ptr(ptr);
        let head = next(self.num_slots(), head);
        self.set(head, head);
        true
    }

    /// Sends `bytes` in the next slot, in the buffer that is there. False if there is none.
    pub fn put(&self, bytes: &[u8], flags: u16) -> bool {
        if self.avail() == 0 {
            return false;
        }
        let idx = self.slot(self.head()).buf_idx();
        let copied = self.handle.ring.bufs.payload(idx).expect("a buffer").copy_from(bytes);
        assert_eq!(copied, bytes.len(), "a frame above the buffer size");
        self.put_word(SlotWord::new(idx, bytes.len() as u16, flags), 0)
    }

    /// Sends one packet of several slots, all or nothing.
    pub fn put_packet(&self, parts: &[Vec<u8>], flags: u16) -> bool {
        if (self.avail() as usize) < parts.len() {
            return false;
        }
        for (i, part) in parts.iter().enumerate() {
            let more = if i + 1 < parts.len() { NS_MOREFRAG } else { 0 };
            self.put(part, flags | more);
        }
        true
    }

    /// Looks at what was received, releasing nothing.
    #[must_use]
    pub fn peek(&self) -> Vec<Frame> {
        let n = self.num_slots();
        let head = self.head();
        (0..self.avail())
            .map(|i| {
                let slot = &self.handle.ring.slots[forward(n, head, i) as usize];
                let word = slot.load();
                let payload = self.handle.ring.bufs.payload(word.buf_idx());
                let bytes = payload.map_or_else(Vec::new, |p| p.slice(0, word.len().into()).to_vec());
                Frame { bytes, flags: word.flags(), buf_idx: word.buf_idx(), ptr: slot.ptr() }
            })
            .collect()
    }

    /// Takes up to `max` received slots; the next sync gives them back.
    pub fn take(&self, max: u32) -> Vec<Frame> {
        let mut frames = self.peek();
        frames.truncate(max as usize);
        let head = forward(self.num_slots(), self.head(), frames.len() as u32);
        self.set(head, head);
        frames
    }

    /// txsync or rxsync, once.
    pub fn sync(&mut self) -> SyncOutcome {
        self.handle.sync(self.driver.as_mut(), self.me, SyncFlags::empty())
    }

    /// Syncs, takes up to `max` received slots, and syncs again.
    pub fn receive(&mut self, max: u32) -> Vec<Frame> {
        self.sync();
        let frames = self.take(max);
        self.sync();
        frames
    }

    /// Its counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::read(&self.handle.shared.state)
    }
}

/// The rings of a bound port.
#[derive(Debug)]
pub struct SimPort {
    /// Rings and slots.
    pub geometry: Geometry,
    /// Where the states of its rings lie.
    pub state: Arc<Map>,
    /// TX rings.
    pub tx: Vec<SimRing>,
    /// RX rings.
    pub rx: Vec<SimRing>,
    /// Rung for whoever sleeps on it.
    pub bell: Arc<Doorbell>,
}

fn new_state(geometry: &Geometry) -> (Arc<Map>, Arc<Doorbell>) {
    let state = Map::anonymous(state_memfd_bytes(geometry)).expect("memory");
    (state, Arc::new(Doorbell::new().expect("an eventfd")))
}

/// Both ends of a pipe, in one region.
#[derive(Debug)]
pub struct SimPipe {
    /// The region.
    pub memory: Memory,
    /// Master and slave.
    pub ends: [SimPort; 2],
}

impl SimPipe {
    /// A pipe whose master has that geometry, with `extra` buffers in no slot.
    #[must_use]
    pub fn new(geometry: &Geometry, buf_size: u32, extra: u32) -> Self {
        let rings = 2 * u32::from(geometry.tx_rings + geometry.rx_rings);
        let slots = geometry.tx_slots.max(geometry.rx_slots);
        let mut memory = Memory::new(rings, slots, buf_size, extra);
        let geometries = [*geometry, geometry.swapped()];
        let (states, bells): (Vec<_>, Vec<_>) = geometries.iter().map(new_state).unzip();
        let shared = |end: usize, dir, i| {
            RingShared::new(&states[end], &geometries[end], dir, i).expect("the state fits")
        };
        let mut rings = [const { (Vec::new(), Vec::new()) }; 2];
        for end in 0..2 {
            for i in 0..geometries[end].tx_rings {
                let (here, there) = (shared(end, Dir::Tx, i), shared(1 - end, Dir::Rx, i));
                let tx = memory.ring(here.clone(), Dir::Tx, i, None);
                let rx = memory.ring(there.clone(), Dir::Rx, i, Some(&tx));
                let me = FIRST_ATTACHMENT + end as u32;
                let driver = Box::new(PipeTx { peer: there, bell: bells[1 - end].clone() });
                rings[end].0.push(SimRing { handle: tx, driver, me });
                let driver = Box::new(PipeRx { peer: here, bell: bells[end].clone() });
                rings[1 - end].1.push(SimRing { handle: rx, driver, me: FIRST_ATTACHMENT + 1 - end as u32 });
            }
        }
        let mut parts = rings
            .into_iter()
            .zip(geometries)
            .zip(states.into_iter().zip(bells))
            .map(|(((tx, rx), geometry), (state, bell))| SimPort { geometry, state, tx, rx, bell });
        let ends = [parts.next().expect("two ends"), parts.next().expect("two ends")];
        SimPipe { memory, ends }
    }

    /// Checks that every buffer of the region has exactly one owner; `extra` are those that the test holds.
    pub fn check_owners(&self, extra: &[u32]) {
        let mut owners = Owners::default();
        for (a, b) in [(0, 1), (1, 0)] {
            for (tx, rx) in self.ends[a].tx.iter().zip(&self.ends[b].rx) {
                owners.pipe(&tx.handle, &rx.handle);
            }
        }
        owners.extra(extra);
        owners.check(self.memory.given());
    }
}

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

/// Who owns each buffer of a region.
#[derive(Debug, Default)]
pub struct Owners(BTreeMap<u32, (&'static str, usize)>);

impl Owners {
    fn add(&mut self, buf: u32, who: &'static str, slot: usize) {
        if let Some((other, k)) = self.0.insert(buf, (who, slot)) {
            panic!("buffer {buf} belongs to {who} (slot {slot}) and to {other} (slot {k})");
        }
    }

    /// A ring of its own: a NIC's, a switch port's. Free slots of a receive ring are as the senders see them.
    pub fn ring(&mut self, ring: &RingHandle) {
        let n = ring.num_slots();
        let state = &ring.shared.state;
        let (from, to) = (state.owner.hwcur.load(), state.sync.rtail.load(Relaxed));
        for k in 0..n {
            let of_client = ring.dir == Dir::Tx || distance(n, from, k) < distance(n, from, to);
            let buf = if of_client {
                ring.ring.slots[k as usize].load().buf_idx()
            } else {
                ring.shared.mirror[k as usize].load(Relaxed)
            };
            let who = match (ring.dir, of_client) {
                (Dir::Tx, _) => "a TX ring",
                (Dir::Rx, true) => "the client of an RX ring",
                (Dir::Rx, false) => "the senders to an RX ring",
            };
            self.add(buf, who, k as usize);
        }
    }

    /// A TX ring of a pipe end and the RX ring of the other end: only the slot of who owns it counts.
    ///
    /// ```text
    ///     rtail+1     rx.hwcur      rx.rtail      tx.hwcur     rtail+1
    ///        | on the way back | receiver | on the way | sender   |
    /// ```
    pub fn pipe(&mut self, tx: &RingHandle, rx: &RingHandle) {
        let n = tx.num_slots();
        let base = next(n, tx.shared.state.sync.rtail.load(Relaxed));
        let at = |cursor: u32| distance(n, base, cursor);
        let back = at(rx.shared.state.owner.hwcur.load());
        let receiver = at(rx.shared.state.sync.rtail.load(Relaxed));
        let forth = at(tx.shared.state.owner.hwcur.load());
        assert!(back <= receiver && receiver <= forth, "cursors of a pipe: {back} {receiver} {forth}");
        for i in 0..n {
            let k = forward(n, base, i) as usize;
            let known = |r: &RingHandle| r.shared.known[2 * k].load(Relaxed) as u32;
            let (buf, side) = if i < back {
                (known(rx), "a pipe, on the way back")
            } else if i < receiver {
                (rx.ring.slots[k].load().buf_idx(), "a pipe's receiver")
            } else if i < forth {
                (known(tx), "a pipe, on the way")
            } else {
                (tx.ring.slots[k].load().buf_idx(), "a pipe's sender")
            };
            self.add(buf, side, k);
        }
    }

    /// Buffers in no slot.
    pub fn extra(&mut self, bufs: &[u32]) {
        bufs.iter().enumerate().for_each(|(i, b)| self.add(*b, "extra buffers", i));
    }

    /// Checks that these, and no others, have owners.
    pub fn check(&self, given: impl IntoIterator<Item = u32>) {
        let given: Vec<u32> = given.into_iter().collect();
        let owned: Vec<u32> = self.0.keys().copied().collect();
        assert_eq!(owned, given, "every buffer has one owner");
    }
}

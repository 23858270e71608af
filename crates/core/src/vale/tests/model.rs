//! Random operations on a switch against a model: a map of addresses, and queues.

use super::*;
use crate::sim::pending_packets;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

const PORTS: usize = 4;
/// More slots than one chunk of the fast path.
const TX_SLOTS: u32 = 600;

/// One packet to be sent.
#[derive(Clone, Debug)]
struct Sent {
    dst: u8,
    src: u8,
    slots: usize,
    no_learn: bool,
    short: bool,
}

#[derive(Clone, Debug)]
enum Op {
    /// A batch on a TX ring of a port, `times` times over.
    Send { port: usize, ring: usize, packets: Vec<Sent>, times: usize },
    /// A port takes some slots of a ring, swapping the buffer of the first.
    Receive { port: usize, ring: usize, max: u32, swap: bool },
    /// A port leaves and another comes to its place.
    Replace { port: usize, rings: u16, slots: u32 },
}

fn sent() -> impl Strategy<Value = Sent> {
    let host = prop_oneof![8 => 0..6u8, 1 => Just(BROADCAST)];
    let slots = prop_oneof![12 => Just(1usize), 3 => 2..5usize, 1 => 62..67usize];
    (host, 0..6u8, slots, prop::bool::weighted(0.1), prop::bool::weighted(0.05))
        .prop_map(|(dst, src, slots, no_learn, short)| Sent { dst, src, slots, no_learn, short })
}

fn op() -> impl Strategy<Value = Op> {
    let batch = prop::collection::vec(sent(), 1..12);
    let times = prop_oneof![4 => Just(1usize), 1 => 2..30usize];
    prop_oneof![
        6 => (0..PORTS, 0..3usize, batch, times)
            .prop_map(|(port, ring, packets, times)| Op::Send { port, ring, packets, times }),
        6 => (0..PORTS, 0..3usize, prop_oneof![0..6u32, Just(u32::MAX)], any::<bool>())
            .prop_map(|(port, ring, max, swap)| Op::Receive { port, ring, max, swap }),
        1 => (0..PORTS, 1..4u16, rx_slots()).prop_map(|(port, rings, slots)| Op::Replace { port, rings, slots }),
    ]
}

fn rx_slots() -> impl Strategy<Value = u32> {
    prop_oneof![2..12u32, 60..80u32]
}

/// A packet as it travels: number and slots.
type Packet = (u32, usize);

/// The oracle.
#[derive(Clone, Default)]
struct Model {
    /// Who has an address.
    hosts: HashMap<u8, usize>,
    /// Slots delivered to each ring of each port and not released: the number of the packet each.
    queues: BTreeMap<(usize, usize), VecDeque<Packet>>,
    drops: BTreeMap<&'static str, u64>,
}

impl Model {
    fn dropped(&mut self, reason: Drop) {
        *self.drops.entry(reason.name()).or_default() += 1;
    }

    fn used(&self, at: (usize, usize)) -> usize {
        self.queues.get(&at).map_or(0, |q| q.iter().map(|p| p.1).sum())
    }

    /// One txsync. True if a packet did not fit although there was room: those behind it go down with it, but how
    /// far, the size of the engine's chunks decides.
    fn forward(&mut self, from: usize, ring: usize, batch: &[(Sent, u32)], geometries: &[Geometry]) -> bool {
        let mut cut = false;
        let mut closed = BTreeSet::new();
        for (packet, number) in batch {
            if packet.slots > 64 {
                self.dropped(Drop::TooManySlots);
                continue;
            }
            if packet.short {
                self.dropped(Drop::Short);
                continue;
            }
            if !packet.no_learn {
                self.hosts.insert(packet.src, from);
            }
            let targets: Vec<(usize, usize)> = match self.hosts.get(&packet.dst) {
                Some(to) if *to == from => {
                    self.dropped(Drop::ToSelf);
                    continue;
                }
                Some(to) => vec![(*to, ring % usize::from(geometries[*to].rx_rings))],
                None => (0..PORTS).filter(|p| *p != from).map(|p| (p, 0)).collect(),
            };
            for at in targets {
                let n = geometries[at.0].rx_slots as usize;
                if closed.contains(&at) || self.used(at) + packet.slots > n - 1 {
                    cut |= self.used(at) < n - 1;
                    closed.insert(at);
                    self.dropped(Drop::ReceiverFull);
                } else {
                    self.queues.entry(at).or_default().push_back((*number, packet.slots));
                }
            }
        }
        cut
    }
}

struct World {
    switch: SimSwitch,
    members: Vec<Member>,
    gone: Vec<Member>,
    spare: Vec<u32>,
    number: u32,
}

fn geometry_of(rings: u16, slots: u32) -> Geometry {
    Geometry { tx_rings: 3, rx_rings: rings, tx_slots: TX_SLOTS, rx_slots: slots }
}

impl World {
    fn new(shapes: &[(u16, u32)]) -> Self {
        let mut w =
            World { switch: SimSwitch::default(), members: vec![], gone: vec![], spare: vec![], number: 0 };
        for (i, (rings, slots)) in shapes.iter().enumerate() {
            let mut m = w.switch.attach(i as u8, &geometry_of(*rings, *slots), BUF_SIZE);
            w.spare.push(m.memory.take_buf());
            w.members.push(m);
        }
        w.acquaint();
        w
    }

    /// Everybody maps everybody: what was learned by a sync that had to begin anew is not modelled.
    fn acquaint(&mut self) {
        for m in &self.members {
            for i in 0..PORTS as u8 {
                m.bring(i);
            }
        }
    }

    fn send(&mut self, model: &mut Model, port: usize, ring: usize, packets: &[Sent]) {
        let geometries: Vec<Geometry> = self.members.iter().map(|m| m.port.geometry).collect();
        let mut batch = vec![];
        let numbered: Vec<_> = packets.iter().cloned().zip(self.number + 1..).collect();
        let slots: usize = packets.iter().map(|p| p.slots).sum();
        let cut = slots > 256 && model.clone().forward(port, ring, &numbered, &geometries);
        for (mut p, number) in numbered {
            self.number = number;
            if cut {
                p.slots = 1;
            }
            let mut parts: Vec<Vec<u8>> =
                (0..p.slots).map(|i| [&self.number.to_le_bytes()[..], &[i as u8; 20]].concat()).collect();
            parts[0] = frame(p.dst, p.src, self.number);
            if p.short {
                parts[0].truncate(13);
            }
            let flags = if p.no_learn { NS_NO_LEARN } else { 0 };
            if self.members[port].port.tx[ring].put_packet(&parts, flags) {
                batch.push((p, number));
            }
        }
        assert_eq!(self.members[port].txsync(ring), SyncOutcome::Done);
        assert_eq!(self.members[port].port.tx[ring].avail(), TX_SLOTS - 1);
        model.forward(port, ring, &batch, &geometries);
    }

    fn receive(&mut self, model: &mut Model, port: usize, ring: usize, max: u32, swap: bool) {
        let m = &mut self.members[port];
        let rings = m.port.rx.len();
        let rx = &mut m.port.rx[ring % rings];
        rx.sync();
        let got = packets(&rx.peek());
        let queue = model.queues.entry((port, ring % rings)).or_default();
        let shown: Vec<Packet> = got.iter().map(|p| (number_of(p), p.len())).collect();
        assert_eq!(shown, queue.iter().copied().collect::<Vec<_>>());
        // Whole packets only, so that the model's queue stays one of packets.
        let mut taken = 0;
        for p in &got {
            if taken + p.len() > max as usize {
                break;
            }
            taken += p.len();
            queue.pop_front();
        }
        if swap && taken > 0 {
            let slot = &rx.handle.ring.slots[rx.head() as usize];
            let word = slot.load();
            slot.store(SlotWord::new(self.spare[port], word.len(), NS_BUF_CHANGED));
            self.spare[port] = word.buf_idx();
        }
        rx.take(taken as u32);
        rx.sync();
    }

    fn check(&self, model: &Model) {
        let all: Vec<&Member> = self.members.iter().chain(&self.gone).collect();
        conserved(&all);
        for (m, spare) in self.members.iter().zip(&self.spare) {
            m.check_owners_with(&[*spare]);
        }
        let mut drops = BTreeMap::new();
        for m in all {
            for (name, count) in m.counters(Dir::Tx).drops_by_name() {
                *drops.entry(name).or_default() += count;
            }
        }
        assert_eq!(drops, model.drops);
    }
}

/// The number that every slot of the packet carries.
fn number_of(packet: &[Frame]) -> u32 {
    let number = numbers(&packet[..1])[0];
    for (i, f) in packet.iter().enumerate().skip(1) {
        assert_eq!(f.bytes, [&number.to_le_bytes()[..], &[i as u8; 20]].concat());
    }
    for (i, f) in packet.iter().enumerate() {
        let more = if i + 1 < packet.len() { NS_MOREFRAG } else { 0 };
        assert_eq!(f.flags, (packet.len() as u16) << 8 | more);
    }
    number
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_operations_agree_with_a_map_and_queues(
        shapes in prop::collection::vec((1..4u16, rx_slots()), PORTS),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut w = World::new(&shapes);
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Send { port, ring, packets, times } => {
                    let all: Vec<Sent> =
                        std::iter::repeat_n(packets, times).flatten().collect();
                    w.send(&mut model, port, ring, &all);
                }
                Op::Receive { port, ring, max, swap } => w.receive(&mut model, port, ring, max, swap),
                Op::Replace { port, rings, slots } => {
                    w.switch.detach(&w.members[port]);
                    let mut m = w.switch.attach(port as u8, &geometry_of(rings, slots), BUF_SIZE);
                    w.spare[port] = m.memory.take_buf();
                    w.gone.push(std::mem::replace(&mut w.members[port], m));
                    w.acquaint();
                    model.hosts.retain(|_, p| *p != port);
                    model.queues.retain(|at, _| at.0 != port);
                }
            }
            w.check(&model);
        }
        for (at, queue) in &model.queues {
            let pending = pending_packets(&w.members[at.0].port.rx[at.1].handle);
            prop_assert!(pending <= queue.len() as u64);
        }
    }
}

//! txsync of a switch port, the fast path: validate, learn, look up and copy in one pass, with the receiver's ring kept
//! locked while the destination stays the same. The innermost loop is in `lane`.
//!
//! A chunk of up to 256 slots at a time. When the destination changes, a packet floods to several ports, spans slots or is indirect, the
//! rest of the chunk goes through `lists`.

use super::far::{Closed, Open, Tally, Waited, commit_only};
use super::lane::{ETH_HEADER_BYTES, Lane, Learner, NO_DST, ONE_SLOT, Seen};
use super::lists::{Scratch, drop_unattached};
use super::mac_table::{self, MAC_GROUP, MAC_MASK, Place, is_alive, tag_of};
use super::{Known, Peer, PeerTable, Seat, others};
use crate::adapter::{RingDriver, SyncError};
use crate::kring::{Kring, RingHandle, distance, forward, prev};
use crate::stats::{Drop, drop_packets};
use ringway_abi::ring::{FIRST_BUF_IDX, NS_INDIRECT, NS_MOREFRAG};
use ringway_os::state::{SWITCH_PORTS, SwitchPage};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// Slots forwarded before the receivers are told.
pub(super) const CHUNK_SLOTS: u32 = 256;
/// What no entry of the MAC table says: tags are never 0.
const NO_PLACE: u64 = 0xff;

/// TX ring of a switch port.
#[derive(Debug)]
pub struct ValeTx {
    seat: Seat,
    ring_index: u16,
    table: Arc<PeerTable>,
    cache: Vec<Option<Arc<Peer>>>,
    scratch: Box<Scratch>,
    /// What this sync has waited for others.
    pub(super) waited: Waited,
    /// Processors plus 1: ours in the last sync, and that of the receiver when we last looked at its position.
    cpus: (u32, u32),
    /// Indirect payloads are addresses of another process, which has brought them into its buffers already.
    in_broker: bool,
}

/// Where one packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To one ring of one port.
    One { port: u8, ring: u16 },
    /// To ring 0 of all others.
    Flood,
    /// Nowhere.
    Drop(Drop),
}

/// Where the fast path stopped.
enum Stop {
    /// At the end of the chunk.
    End,
    /// At `hwcur`: a slot that it does not handle.
    Rest,
    /// At `hwcur`: the broker has the receiver, and goes on from here.
    Brokered,
}

impl ValeTx {
    /// The driver of TX ring `ring_index` of the port that sits at `seat`.
    #[must_use]
    pub fn new(seat: Seat, ring_index: u16, table: Arc<PeerTable>) -> Self {
        ValeTx {
            seat,
            ring_index,
            table,
            cache: vec![None; SWITCH_PORTS],
            scratch: Box::default(),
            waited: Waited::default(),
            cpus: (0, 0),
            in_broker: false,
        }
    }

    /// As `new`, for a worker of the broker.
    #[must_use]
    pub fn for_broker(seat: Seat, ring_index: u16, table: Arc<PeerTable>) -> Self {
        ValeTx { in_broker: true, ..Self::new(seat, ring_index, table) }
    }

    pub(super) fn in_broker(&self) -> bool {
        self.in_broker
    }

    /// Makes sure that the peer at `port` is in the cache.
    pub(super) fn ensure(&mut self, port: u8) -> Result<(), Closed> {
        ensure(&self.seat, &self.table, &mut self.cache, port)
    }

    fn fused(&mut self, kring: &mut Kring<'_>, end: u32) -> Result<Stop, SyncError> {
        let n = kring.handle.num_slots();
        let handle = kring.handle;
        let state = &*handle.shared.state;
        let (slots, bufs) = (&handle.ring.slots[..], &handle.ring.bufs);
        let buf_size = bufs.buf_size();
        let mut learner = Learner::new(&self.seat);
        let mut at = kring.hwcur;
        let mut tally = Tally::default();

        // The first packets, until one names a destination that we can open.
        let (port, last_dst) = loop {
            if at == end {
                commit_only(kring, at, &mut tally);
                return Ok(Stop::End);
            }
            let Some(slot) = slots.get(at as usize) else { return Err(SyncError::Failed) };
            let word = slot.load();
            if word.flags() & (NS_MOREFRAG | NS_INDIRECT) != 0 {
                commit_only(kring, at, &mut tally);
                return Ok(Stop::Rest);
            }
            let target = if u32::from(word.len()) > buf_size || word.buf_idx() < FIRST_BUF_IDX {
                Target::Drop(Drop::BadSlot)
            } else if word.len() < ETH_HEADER_BYTES {
                Target::Drop(Drop::Short)
            } else if let Some((w0, w1)) = bufs.first_words(word.buf_idx()) {
                learner.see(w0, w1, word.flags());
                match resolve(&self.seat, self.ring_index, w0 & MAC_MASK, &self.cache) {
                    Target::One { port, .. } => break (port, w0 & MAC_MASK),
                    other => other,
                }
            } else {
                Target::Drop(Drop::BadSlot)
            };
            match target {
                Target::Drop(reason) => {
                    tally.packets += 1;
                    tally.bytes += u32::from(word.len());
                    drop_packets(state, reason, 1);
                }
                _ => {
                    commit_only(kring, at, &mut tally);
                    return Ok(Stop::Rest);
                }
            }
            at = forward(n, at, 1);
        };

        if let Err(Closed::Need(i)) = ensure(&self.seat, &self.table, &mut self.cache, port) {
            commit_only(kring, at, &mut tally);
            return Err(SyncError::NeedPeer(i));
        }
        let seat = &self.seat;
        let Target::One { ring, .. } = resolve(seat, self.ring_index, last_dst, &self.cache) else {
            commit_only(kring, at, &mut tally);
            return Ok(Stop::Rest);
        };
        let Some(peer) = &self.cache[usize::from(port)] else {
            commit_only(kring, at, &mut tally);
            return Ok(Stop::Rest);
        };
        let mut open = match Open::lock(seat, peer, ring, kring.me, &mut self.waited) {
            Ok(open) => open,
            Err(Closed::Brokered) => {
                commit_only(kring, at, &mut tally);
                return Ok(Stop::Brokered);
            }
            Err(_) => {
                commit_only(kring, at, &mut tally);
                return Ok(Stop::Rest);
            }
        };
        let (desc, mirror) = (&open.ring.shared.desc[..], &open.ring.shared.mirror[..]);
        let mut waited = self.waited;
        let mut stop = Stop::End;
        let mut lane = Lane {
            src: bufs.view(),
            far: peer.bufs.view(),
            max_extra: buf_size.min(peer.bufs.buf_size()) - u32::from(ETH_HEADER_BYTES),
            apart: self.cpus.0 != self.cpus.1,
            last_dst,
            place: place_of(peer, ring, self.ring_index),
            learner,
        };

        while at != end {
            // As many as can be forwarded in one go, then one that needs a closer look.
            let straight = if end > at { end } else { n } - at;
            let count = straight.min(n - open.tail).min(open.space);
            if count > 0 {
                let (from, to) = (at as usize, open.tail as usize);
                let runs = (slots.get(from..), desc.get(to..), mirror.get(to..));
                let (Some(slots), Some(desc), Some(mirror)) = runs else { break };
                let (done, bytes) = lane.forward(slots, desc, mirror, count);
                at = forward(n, at, done);
                open.pushed(done);
                tally.packets += done;
                tally.delivered += done;
                tally.bytes += bytes;
                if done == count {
                    continue;
                }
            }
            let Some(slot) = slots.get(at as usize) else { break };
            let word = slot.load();
            if word.flags() & (NS_MOREFRAG | NS_INDIRECT) != 0 {
                stop = Stop::Rest;
                break;
            }
            let len = word.len();
            let mut verdict = if word.buf_idx() < FIRST_BUF_IDX || u32::from(len) > buf_size {
                Some(Drop::BadSlot)
            } else if let Some((w0, w1)) = bufs.first_words(word.buf_idx()) {
                if len < ETH_HEADER_BYTES {
                    Some(Drop::Short)
                } else {
                    if lane.learner.see(w0, w1, word.flags()) == Seen::New {
                        lane.last_dst = NO_DST;
                    }
                    let dst = w0 & MAC_MASK;
                    match resolve(seat, self.ring_index, dst, &self.cache) {
                        Target::One { port: p, ring: r } if p == port && r == ring => {
                            lane.last_dst = dst;
                            None
                        }
                        Target::Drop(reason) => Some(reason),
                        _ => {
                            stop = Stop::Rest;
                            break;
                        }
                    }
                }
            } else {
                Some(Drop::BadSlot)
            };
            if verdict.is_none() && open.space == 0 && !open.make_room(kring, at, &mut tally, &mut waited) {
                if open.is_brokered() {
                    stop = Stop::Brokered;
                    break;
                }
                verdict = Some(Drop::ReceiverFull);
            }
            let verdict = verdict.or_else(|| {
                let to = open.tail as usize;
                let (Some(d), Some(m)) = (desc.get(to), mirror.get(to)) else { return Some(Drop::BadSlot) };
                if !bufs.copy_frame(word.buf_idx(), &peer.bufs, m.load(Relaxed), usize::from(len)) {
                    return Some(Drop::BadSlot);
                }
                d.store(u32::from(len) | ONE_SLOT, Relaxed);
                open.push();
                None
            });
            tally.packets += 1;
            tally.bytes += u32::from(len);
            match verdict {
                None => tally.delivered += 1,
                Some(reason) => drop_packets(state, reason, 1),
            }
            at = forward(n, at, 1);
        }
        if open.cpu != 0 {
            self.cpus.1 = open.cpu;
        }
        open.finish(kring, at, &mut tally);
        self.waited = waited;
        Ok(stop)
    }
}

impl RingDriver for ValeTx {
    fn sync(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError> {
        let n = kring.handle.num_slots();
        self.waited = Waited::default();
        let plain = self.seat.page.hdr_lens[usize::from(self.seat.index)].load(Relaxed) == 0;
        while kring.hwcur != kring.rhead {
            // The broker waits for the ring: the rest is for its worker.
            if kring.handle.shared.state.sync.lock.is_claimed() && !self.scratch.skipping {
                break;
            }
            if self.seat.page.generations[usize::from(self.seat.index)].load(Relaxed) != self.seat.generation
            {
                drop_unattached(kring);
                break;
            }
            let chunk = distance(n, kring.hwcur, kring.rhead).min(CHUNK_SLOTS);
            let end = forward(n, kring.hwcur, chunk);
            let rest = if plain && !kring.offsets.is_on() && !self.scratch.skipping {
                self.fused(kring, end)?
            } else {
                Stop::Rest
            };
            if let Stop::Brokered = rest {
                break;
            }
            if let Stop::Rest = rest {
                // A whole chunk again, so that a packet is only cut if it has too many slots.
                let chunk = distance(n, kring.hwcur, kring.rhead).min(CHUNK_SLOTS);
                let end = forward(n, kring.hwcur, chunk);
                let mut scratch = std::mem::take(&mut self.scratch);
                let done = self.listed(&mut scratch, kring, end);
                self.scratch = scratch;
                done?;
            }
        }
        // A switch takes everything: the ring is free again.
        kring.hwtail = prev(n, kring.hwcur);
        self.cpus.0 = ringway_os::sys::this_cpu_plus_1();
        kring.handle.shared.state.owner.cpu.store(self.cpus.0, Relaxed);
        Ok(())
    }

    /// A switch takes everything at once: there is nothing to wait for.
    fn moved_since(&self, _handle: &RingHandle, _wanted: u32) -> bool {
        true
    }
}

impl ValeTx {
    pub(super) fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Where a frame for `dst` goes, for lists: a flood stays one, also if there is only one other port.
    pub(super) fn target_of(&self, dst: u64) -> Target {
        learned(&self.seat, self.ring_index, dst, &self.cache).unwrap_or(Target::Flood)
    }

    /// The ring that unicast for `port`, which has been made sure of, goes to.
    pub(super) fn ring_at(&self, port: u8) -> u16 {
        self.cached(port).map_or(0, |peer| ring_of(self.ring_index, peer.rings.len() as u16))
    }

    pub(super) fn cached(&self, port: u8) -> Option<&Arc<Peer>> {
        self.cache[usize::from(port)].as_ref()
    }
}

/// Makes sure that the peer at `port` is in the cache, as it is now.
fn ensure(seat: &Seat, table: &PeerTable, cache: &mut [Option<Arc<Peer>>], port: u8) -> Result<(), Closed> {
    let generation = seat.page.generations[usize::from(port)].load(Acquire);
    if generation == 0 {
        return Err(Closed::Drop(Drop::ReceiverGone));
    }
    let slot = &mut cache[usize::from(port)];
    match slot {
        Some(peer) if peer.generation == generation => Ok(()),
        _ => refresh(slot, table, port, generation),
    }
}

/// Brings one place of the cache up to date.
#[cold]
fn refresh(slot: &mut Option<Arc<Peer>>, table: &PeerTable, port: u8, generation: u32) -> Result<(), Closed> {
    *slot = None; // Unmaps what has left.
    match table.get(port) {
        Some(Known::Peer(peer)) if peer.generation == generation => {
            *slot = Some(peer);
            Ok(())
        }
        Some(Known::Unreachable(g)) if g == generation => Err(Closed::Drop(Drop::ReceiverGone)),
        _ => Err(Closed::Need(port)),
    }
}

/// Where a frame for `dst` goes, if the table knows.
#[inline]
fn learned(seat: &Seat, ring_index: u16, dst: u64, cache: &[Option<Arc<Peer>>]) -> Option<Target> {
    let page: &SwitchPage = &seat.page;
    if dst & MAC_GROUP == 0
        && let Some(place) = mac_table::lookup(page, dst)
        && is_alive(page, place)
    {
        if place.port == seat.index {
            return Some(Target::Drop(Drop::ToSelf));
        }
        // Not known before the peer is mapped: then the ring index does not matter yet, for the sync begins anew.
        let rings = cache[usize::from(place.port)].as_ref().map_or(1, |p| p.rings.len() as u16);
        return Some(Target::One { port: place.port, ring: ring_of(ring_index, rings) });
    }
    None
}

/// Where a frame for `dst` goes.
#[inline]
fn resolve(seat: &Seat, ring_index: u16, dst: u64, cache: &[Option<Arc<Peer>>]) -> Target {
    if let Some(target) = learned(seat, ring_index, dst, cache) {
        return target;
    }
    let mut others = others(&seat.page, seat.index);
    match (others.next(), others.next()) {
        (None, _) => Target::Drop(Drop::NoReceiver),
        (Some(port), None) => Target::One { port, ring: 0 },
        _ => Target::Flood,
    }
}

/// What an entry of the MAC table says (`Place::bits`) of addresses that go to ring `ring` of `peer`; [`NO_PLACE`] if those go
/// to another ring.
fn place_of(peer: &Peer, ring: u16, ring_index: u16) -> u64 {
    let rings = peer.rings.len() as u16;
    if ring_of(ring_index, rings) == ring {
        Place { port: peer.index, tag: tag_of(peer.generation) }.bits()
    } else {
        NO_PLACE
    }
}

/// The same ring index at the receiver, modulo its number of rings.
#[inline]
fn ring_of(ring_index: u16, rings: u16) -> u16 {
    if rings < 2 { 0 } else { ring_index % rings }
}

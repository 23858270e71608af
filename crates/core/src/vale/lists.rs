//! txsync of a switch port, the general path: a chunk of slots becomes packets, packets become one list per destination, and
//! each list is delivered under that destination's own lock. Packets of several slots, floods, several
//! destinations in turn, indirect payloads and virtio-net headers all come here.

use super::far::{Closed, Open, Tally, commit_only};
use super::forward::{CHUNK_SLOTS, Target, ValeTx};
use super::lane::{ETH_HEADER_BYTES, Learner};
use super::mac_table::MAC_MASK;
use super::others;
use super::vnet::{self, Parts, Plan, Start, Vnet};
use crate::adapter::SyncError;
use crate::kring::{Kring, forward};
use crate::offsets::aligned;
use crate::stats::{Drop, Stat, add, drop_packets};
use ringway_abi::ring::{NETMAP_MAX_FRAGS, NS_INDIRECT, NS_MOREFRAG};
use ringway_os::bytes::copy_from_user;
use ringway_os::ring::{Slot, SlotWord};
use ringway_os::state::SWITCH_PORTS;
use std::sync::atomic::Ordering::Relaxed;

const NONE: u16 = u16::MAX;

/// A packet of the chunk.
#[derive(Clone, Copy, Debug, Default)]
struct Packet {
    /// Its first slot, counted from the start of the chunk.
    first: u16,
    /// Its slots.
    slots: u16,
    /// The next packet on the same list.
    next: u16,
}

/// A list of packets.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u16,
    last: u16,
    ring: u16,
}

const EMPTY: List = List { first: NONE, last: NONE, ring: 0 };

/// Working memory of a driver.
#[derive(Debug)]
pub struct Scratch {
    words: Vec<SlotWord>,
    /// Where the bytes of each word begin; empty if all do at the start of their buffers.
    starts: Vec<Start>,
    packets: Vec<Packet>,
    lists: Vec<List>,
    touched: Vec<u8>,
    flood: List,
    /// Bytes of our own virtio-net header.
    hdr_len: u16,
    /// The packet that the last chunk ended in has too many slots: its rest goes the same way.
    pub(super) skipping: bool,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch {
            words: Vec::with_capacity(CHUNK_SLOTS as usize),
            starts: Vec::with_capacity(CHUNK_SLOTS as usize),
            packets: Vec::with_capacity(CHUNK_SLOTS as usize),
            lists: vec![EMPTY; SWITCH_PORTS],
            touched: Vec::with_capacity(SWITCH_PORTS),
            flood: EMPTY,
            hdr_len: 0,
            skipping: false,
        }
    }
}

impl Scratch {
    fn clear(&mut self) {
        for port in self.touched.drain(..) {
            self.lists[usize::from(port)] = EMPTY;
        }
        self.words.clear();
        self.starts.clear();
        self.packets.clear();
        self.flood = EMPTY;
    }

    fn append(list: &mut List, packets: &mut [Packet], id: u16) {
        if list.last == NONE {
            list.first = id;
        } else {
            packets[usize::from(list.last)].next = id;
        }
        list.last = id;
    }
}

impl ValeTx {
    /// Forwards `[hwcur, end)`, or less if a packet would be cut; moves `hwcur` past it.
    pub(super) fn listed(
        &mut self,
        scratch: &mut Scratch,
        kring: &mut Kring<'_>,
        end: u32,
    ) -> Result<(), SyncError> {
        scratch.clear();
        let end = self.load_words(scratch, kring, end);
        let state = &*kring.handle.shared.state;
        let mut tally = Tally::default();
        let mut drops = Vec::new();
        let skipping = scratch.skipping;
        self.sort(scratch, kring, &mut tally, &mut drops);
        let flooding = scratch.flood.first != NONE;
        // Everybody's memory first: nothing has been delivered yet, so the sync can simply begin anew.
        let targets: Vec<u8> = if flooding {
            others(&self.seat().page, self.seat().index).collect()
        } else {
            scratch.touched.clone()
        };
        for &port in targets.iter().chain(&scratch.touched) {
            if let Err(Closed::Need(i)) = self.ensure(port) {
                scratch.skipping = skipping;
                return Err(SyncError::NeedPeer(i));
            }
        }
        // Now that all are mapped, so that their rings can be counted.
        for &port in &scratch.touched {
            scratch.lists[usize::from(port)].ring = self.ring_at(port);
        }
        for reason in drops {
            drop_packets(state, reason, 1);
        }
        if flooding {
            let mut floods = 0;
            let mut id = scratch.flood.first;
            while id != NONE {
                floods += 1;
                id = scratch.packets[usize::from(id)].next;
            }
            if targets.is_empty() {
                drop_packets(state, Drop::NoReceiver, floods);
            }
            add(state, Stat::ExtraCopies, floods * targets.len().saturating_sub(1) as u64);
        }
        // Own rings of a port that got unicast and was not in the flood set (it left meanwhile) are visited too.
        for &port in &targets {
            let own = scratch.lists[usize::from(port)];
            if own.ring == 0 {
                self.deliver(scratch, kring, port, 0, own.first, scratch.flood.first);
            } else {
                self.deliver(scratch, kring, port, own.ring, own.first, NONE);
                self.deliver(scratch, kring, port, 0, NONE, scratch.flood.first);
            }
        }
        if flooding {
            for &port in scratch.touched.iter().filter(|p| !targets.contains(p)) {
                let own = scratch.lists[usize::from(port)];
                self.deliver(scratch, kring, port, own.ring, own.first, NONE);
            }
        }
        commit_only(kring, end, &mut tally);
        Ok(())
    }

    /// Takes the chunk's slots in, each with one load, made harmless: a bad slot gets length 0. Returns the chunk's
    /// end, moved back if a packet would be cut.
    fn load_words(&self, scratch: &mut Scratch, kring: &Kring<'_>, end: u32) -> u32 {
        let handle = kring.handle;
        let n = handle.num_slots();
        let bufs = &handle.ring.bufs;
        let mut at = kring.hwcur;
        while at != end {
            let Some(slot) = handle.ring.slots.get(at as usize) else { break };
            let mut word = slot.load();
            let (mut idx, mut len) = (word.buf_idx(), word.len());
            // The `ptr` of an indirect slot is an address: it says nothing of an offset.
            let exact = word.flags() & NS_INDIRECT != 0;
            let ofs = if exact { 0 } else { kring.offsets.of(slot.ptr()) };
            if handle.valid_buf(word) == 0 || u32::from(len) > bufs.buf_size() - ofs {
                (idx, len) = (0, 0);
            } else if word.flags() & NS_INDIRECT != 0 && len > 0 && !self.in_broker() {
                // The payload is brought into the slot's own buffer: from there on it is a frame like others.
                let ptr = slot.ptr();
                let payload = bufs.payload(word.buf_idx());
                if ptr == 0 || !payload.is_some_and(|p| copy_from_user(ptr, &p, usize::from(len))) {
                    len = 0;
                }
            }
            word = SlotWord::new(idx, len, word.flags());
            scratch.words.push(word);
            if kring.offsets.is_on() || exact {
                scratch.starts.resize(scratch.words.len() - 1, Start::default());
                scratch.starts.push(Start { ofs, exact });
            }
            at = forward(n, at, 1);
        }
        if end == kring.rhead {
            return end;
        }
        // More slots follow: a packet that goes on in them waits for the next chunk, unless it fills this one.
        let complete = scratch.words.iter().rposition(|w| w.flags() & NS_MOREFRAG == 0).map_or(0, |i| i + 1);
        if complete > 0 {
            scratch.words.truncate(complete);
            scratch.starts.truncate(complete);
        }
        forward(n, kring.hwcur, scratch.words.len() as u32)
    }

    /// Groups slots into packets, learns their sources, and puts each on the list of its destination.
    fn sort(&self, scratch: &mut Scratch, kring: &Kring<'_>, tally: &mut Tally, drops: &mut Vec<Drop>) {
        let seat = self.seat();
        let hdr_len = seat.page.hdr_lens[usize::from(seat.index)].load(Relaxed) as u16;
        scratch.hdr_len = hdr_len;
        let mut learner = Learner::new(seat);
        let cut = kring.rhead != forward(kring.handle.num_slots(), kring.hwcur, scratch.words.len() as u32);
        let mut first = 0;
        while first < scratch.words.len() {
            let rest = &scratch.words[first..];
            let ends = rest.iter().position(|w| w.flags() & NS_MOREFRAG == 0);
            let slots = ends.map_or(rest.len(), |i| i + 1);
            let packet = &rest[..slots];
            let skip = std::mem::replace(&mut scratch.skipping, cut && ends.is_none());
            let bytes: u32 = packet.iter().map(|w| u32::from(w.len())).sum();
            let target = if skip {
                None // The tail of a packet that was counted before.
            } else if slots > NETMAP_MAX_FRAGS {
                Some(Target::Drop(Drop::TooManySlots))
            } else {
                let starts = scratch.starts.get(first..).unwrap_or_default();
                let parts = Parts { bufs: &kring.handle.ring.bufs, words: packet, starts };
                Some(match ethernet(parts, hdr_len, kring) {
                    Ok((w0, w1)) => {
                        learner.see(w0, w1, packet[0].flags());
                        self.target_of(w0 & MAC_MASK)
                    }
                    Err(reason) => Target::Drop(reason),
                })
            };
            if let Some(target) = target {
                tally.packets += 1;
                tally.bytes += bytes;
                let id = scratch.packets.len() as u16;
                scratch.packets.push(Packet { first: first as u16, slots: slots as u16, next: NONE });
                match target {
                    Target::Drop(reason) => drops.push(reason),
                    Target::Flood => Scratch::append(&mut scratch.flood, &mut scratch.packets, id),
                    Target::One { port, .. } => {
                        let list = &mut scratch.lists[usize::from(port)];
                        if list.first == NONE {
                            scratch.touched.push(port);
                        }
                        Scratch::append(list, &mut scratch.packets, id);
                    }
                }
            }
            first += slots;
        }
    }

    /// Delivers two lists, merged in the order of the packets, to one ring of one port.
    fn deliver(
        &mut self,
        scratch: &Scratch,
        kring: &mut Kring<'_>,
        port: u8,
        ring: u16,
        mut a: u16,
        mut b: u16,
    ) {
        if a == NONE && b == NONE {
            return;
        }
        let state = &*kring.handle.shared.state;
        let mut tally = Tally::default();
        let mut waited = self.waited;
        let mut dropping = None;
        let mut open = match self.cached(port).ok_or(Closed::Drop(Drop::ReceiverGone)) {
            Ok(peer) => match Open::lock_any(self.seat(), peer, ring, kring.me, &mut waited) {
                Ok(open) => Some(open),
                Err(Closed::Drop(reason)) => {
                    dropping = Some(reason);
                    None
                }
                // The list goes to other receivers, too: it cannot be left to the broker.
                Err(Closed::Brokered) => {
                    dropping = Some(Drop::ReceiverBusy);
                    None
                }
                Err(Closed::Need(_) | Closed::NotPlain) => {
                    dropping = Some(Drop::ReceiverGone);
                    None
                }
            },
            Err(_) => {
                dropping = Some(Drop::ReceiverGone);
                None
            }
        };
        let vnet = self.conversion(scratch, port);
        let mut headers = Vec::new();
        let at = kring.hwcur; // The own position moves when all lists are done.
        while a != NONE || b != NONE {
            let id = a.min(b); // NONE is the largest.
            let packet = scratch.packets[usize::from(id)];
            if id == a {
                a = packet.next;
            } else {
                b = packet.next;
            }
            let words = &scratch.words[usize::from(packet.first)..usize::from(packet.first + packet.slots)];
            let starts = scratch.starts.get(usize::from(packet.first)..).unwrap_or_default();
            let parts = Parts { bufs: &kring.handle.ring.bufs, words, starts };
            let plan = match (&open, vnet) {
                (Some(open), Some(vnet)) if dropping.is_none() => {
                    match vnet::plan(vnet, parts, open.peer.bufs.buf_size(), &mut headers) {
                        Ok(plan) => Some(plan),
                        Err(reason) => {
                            drop_packets(state, reason, 1);
                            continue;
                        }
                    }
                }
                _ => None,
            };
            let slots = plan.as_ref().map_or(u32::from(packet.slots), Plan::slots);
            if let (Some(open), None) = (&mut open, dropping)
                && open.space < slots
                && (slots >= open.n || !open.make_room_for(slots, kring, at, &mut tally, &mut waited))
            {
                dropping = Some(Drop::ReceiverFull);
            }
            let Some(open) = open.as_mut().filter(|_| dropping.is_none()) else {
                drop_packets(state, dropping.unwrap_or(Drop::ReceiverGone), 1);
                continue;
            };
            if let Some(plan) = plan {
                plan.write(parts, &mut headers, open);
                // Each frame beyond the first is one more copy.
                add(state, Stat::ExtraCopies, u64::from(plan.packets() - 1));
                tally.delivered += plan.packets();
                continue;
            }
            if words.iter().any(|w| u32::from(w.len()) > open.peer.bufs.buf_size()) {
                drop_packets(state, Drop::BadSlot, 1);
                continue;
            }
            if !kring.offsets.is_on() && !open.offsets.is_on() {
                copy_packet(kring, open, words);
            } else {
                copy_placed(parts, open);
            }
            tally.delivered += 1;
        }
        if let Some(open) = open {
            open.finish(kring, at, &mut tally);
        }
        self.waited = waited;
    }
}

/// As `copy_packet`, for a sender or a receiver whose packets do not begin at the start of their buffers. A slot that does not
/// fit behind the receiver's offset is delivered empty. Source: semantics.md 14.
fn copy_placed(parts: Parts<'_>, open: &mut Open<'_>) {
    let count = (parts.words.len() as u32) << 8;
    let (peer, shared, offsets) = (open.peer, &open.ring.shared, open.offsets);
    for i in 0..parts.words.len() {
        let tail = open.tail as usize;
        let (Some(d), Some(m)) = (shared.desc.get(tail), shared.mirror.get(tail)) else { return };
        let (Some(told), Some(placed)) = (shared.records.get(2 * tail), shared.known.get(2 * tail)) else {
            return;
        };
        let more = if i + 1 < parts.words.len() { u32::from(NS_MOREFRAG) } else { 0 };
        let start = parts.start(i);
        let own = offsets.of(told.load(Relaxed));
        // Where the receiver cannot say where its packet begins, it begins at the start.
        let ofs = if start.exact || !offsets.is_on() { own } else { aligned(start.ofs, own) };
        let to = peer.bufs.payload(m.load(Relaxed)).map(|p| p.slice(ofs as usize, usize::MAX));
        let from = parts.get(i);
        let copied = match (from, to) {
            (Some(from), Some(to)) if from.len() <= to.len() && u64::from(ofs) & !offsets.mask == 0 => {
                to.copy_payload(&from)
            }
            _ => 0,
        };
        placed.store(ofs.into(), Relaxed);
        d.store(copied as u32 | (count | more) << 16, Relaxed);
        open.push();
    }
}

/// The first 16 bytes of a packet's Ethernet header.
fn ethernet(packet: Parts<'_>, hdr_len: u16, kring: &Kring<'_>) -> Result<(u64, u64), Drop> {
    let first = packet.words[0];
    if first.is_empty() && first.flags() & NS_INDIRECT != 0 {
        return Err(Drop::Indirect);
    }
    if kring.handle.valid_buf(first) == 0 {
        return Err(Drop::BadSlot);
    }
    let (i, ofs) = if first.len() == hdr_len && packet.words.len() > 1 { (1, 0) } else { (0, hdr_len) };
    let word = packet.words[i];
    if word.len() < ofs.saturating_add(ETH_HEADER_BYTES) {
        return Err(Drop::Short);
    }
    let payload = packet.bufs.payload(word.buf_idx()).ok_or(Drop::BadSlot)?;
    let ofs = usize::from(ofs) + packet.start(i).ofs as usize;
    // The last two are not there if the frame ends with its header at the end of the buffer.
    let mut header = [0; 16];
    payload.slice(ofs, 16).copy_to(&mut header);
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|k| header[at + k]));
    Ok((word(0), word(8)))
}

/// The port was detached from its switch: everything is taken, and nothing sent. Source: semantics.md 16, 18.
#[cold]
pub(super) fn drop_unattached(kring: &mut Kring<'_>) {
    let (handle, n) = (kring.handle, kring.handle.num_slots());
    let mut tally = Tally::default();
    let (mut at, mut open) = (kring.hwcur, false);
    while at != kring.rhead {
        let word = handle.ring.slots.get(at as usize).map(Slot::load).unwrap_or_default();
        open = word.flags() & NS_MOREFRAG != 0;
        tally.packets += u32::from(!open);
        tally.bytes += u32::from(word.len());
        at = forward(n, at, 1);
    }
    tally.packets += u32::from(open);
    drop_packets(&handle.shared.state, Drop::NoReceiver, tally.packets.into());
    commit_only(kring, at, &mut tally);
}

impl ValeTx {
    /// What is to be done to packets for `port`, if its virtio-net header has another length than ours.
    fn conversion(&self, scratch: &Scratch, port: u8) -> Option<Vnet> {
        let (page, i) = (&self.seat().page, usize::from(port));
        let theirs = page.hdr_lens[i].load(Relaxed) as u16;
        let vnet = Vnet { own: scratch.hdr_len, theirs, mfs: page.mfs[i].load(Relaxed) };
        (vnet.own != theirs).then_some(vnet)
    }
}

/// Copies one packet into the open ring, which has room for it.
fn copy_packet(kring: &Kring<'_>, open: &mut Open<'_>, words: &[SlotWord]) {
    let bufs = &kring.handle.ring.bufs;
    let count = (words.len() as u32) << 8;
    for (i, word) in words.iter().enumerate() {
        let tail = open.tail as usize;
        let (Some(d), Some(m)) = (open.ring.shared.desc.get(tail), open.ring.shared.mirror.get(tail)) else {
            return;
        };
        let more = if i + 1 < words.len() { u32::from(NS_MOREFRAG) } else { 0 };
        let copied = word.is_empty()
            || bufs.copy_frame(word.buf_idx(), &open.peer.bufs, m.load(Relaxed), usize::from(word.len()));
        let len = if copied { u32::from(word.len()) } else { 0 };
        d.store(len | (count | more) << 16, Relaxed);
        open.push();
    }
}

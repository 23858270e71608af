//! Interfaces through AF_XDP: the rings of a queue's socket on one side, netmap rings on the other; no byte copied here.
//!
//! A slot that the kernel owns names no buffer: buffers come back in any order, so the index is written when one does.
//!
//! ```text
//!          the kernel's             the client's                    the kernel's
//! RX    ....fill, rx ring....|hwcur   packets    hwtail|....fill, rx ring....
//! TX    ...tx, completion....|hwtail  free       hwcur |....tx, completion...    (slot hwtail holds a buffer, nobody uses it)
//! ```
//!
//! Positions are derived from the kernel's counters: the ring's state keeps, in one word each, a counter and the slot that it stood at.
//! Entries are written before the counter moves, so a process killed anywhere leaves nothing half done, and the next one, or the broker,
//! goes on from there.
//!
//! | word | RX | TX |
//! |---|---|---|
//! | `records[0]` | producer of the fill ring, `hwcur` | producer of the TX ring, `hwcur` |
//! | `known[0]` | consumer of the RX ring, `hwtail` | consumer of the completion ring, `hwtail` |
//!
//! Source: semantics.md 24; kernel document networking/af_xdp.

use super::{RingDriver, SyncError};
use crate::kring::{Kring, RingHandle, distance, forward, next, prev};
use crate::layout::RingShared;
use crate::stats::{Drop, Stat, add, drop_packets};
use ringway_abi::ring::NS_MOREFRAG;
use ringway_os::ring::SlotWord;
use ringway_os::xdp::{CompRing, FillRing, Kick, RxRing, TxRing, UmemLayout, XdpDesc, kick_rx, kick_tx};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Descriptors of one frame that the kernel sends in copy mode (its MAX_SKB_FRAGS and one).
const MAX_TX_SLOTS: u32 = 17;
/// Slots of a frame without an end before it is no frame any more. Source: `NETMAP_MAX_FRAGS`.
const MAX_OPEN_SLOTS: u32 = 64;
/// Shortest frame: an Ethernet header.
const MIN_FRAME_BYTES: u32 = 14;
/// Times that one sync asks the kernel to go on sending, as long as it makes progress. 32 descriptors a call before Linux 6.17.
const MAX_KICKS: u32 = 64;

/// Slots that one sync moves, for each slot of the ring, to keep what the kernel has in order: a program that sends nothing but junk
/// between its frames must not hold up a worker.
const STEPS_PER_SLOT: u32 = 4;

/// A counter of a kernel ring, and the slot that it stands at.
fn pack(counter: u32, slot: u32) -> u64 {
    u64::from(counter) << 32 | u64::from(slot)
}

/// Where the position is now that the counter is `counter`. A value out of range (a hostile neighbour wrote it) becomes 0.
fn position(word: &AtomicU64, n: u32, counter: u32) -> u32 {
    // Pairs with the release store by the process that synced before us.
    let word = word.load(Ordering::Acquire);
    let (then, slot) = ((word >> 32) as u32, word as u32);
    let steps = counter.wrapping_sub(then);
    if slot < n && steps <= n { forward(n, slot, steps) } else { 0 }
}

/// Where a ring's positions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Positions {
    pub hwcur: u32,
    pub hwtail: u32,
}

/// Notes both positions. `first` and `second` are the counters of `records[0]` and `known[0]`.
pub(crate) fn note(shared: &RingShared, (first, hwcur): (u32, u32), (second, hwtail): (u32, u32)) {
    if let (Some(a), Some(b)) = (shared.records.first(), shared.known.first()) {
        a.store(pack(first, hwcur), Ordering::Release);
        b.store(pack(second, hwtail), Ordering::Release);
    }
}

/// Positions, given the counters.
pub(crate) fn positions(shared: &RingShared, first: u32, second: u32) -> Positions {
    let n = shared.num_slots;
    let at = |words: &[AtomicU64], counter| words.first().map_or(0, |w| position(w, n, counter));
    Positions { hwcur: at(&shared.records, first), hwtail: at(&shared.known, second) }
}

/// The kernel's outcome of a kick, as the sync sees it.
fn kicked(result: io::Result<Kick>) -> Result<Kick, SyncError> {
    // ENXIO: the socket lost its interface. Nothing else is known to happen.
    result.map_err(|e| if e.raw_os_error() == Some(ENXIO) { SyncError::Stopped } else { SyncError::Failed })
}

const ENXIO: i32 = ringway_abi::Errno::ENXIO.0;

/// RX ring of an interface's queue.
#[derive(Debug)]
pub struct XdpRx {
    /// Buffers to receive into. Before the socket: maps go first.
    pub fill: FillRing,
    /// Frames received.
    pub rx: RxRing,
    /// The socket.
    pub socket: Arc<OwnedFd>,
    /// Addresses of buffers.
    pub layout: UmemLayout,
}

impl XdpRx {
    /// Gives the buffers of `[hwcur, rhead)` to the kernel.
    fn release(&mut self, kring: &mut Kring<'_>) {
        let n = kring.handle.num_slots();
        if distance(n, kring.hwcur, kring.rhead) > distance(n, kring.hwcur, kring.hwtail) {
            return;
        }
        let (handle, layout, end) = (kring.handle, self.layout, kring.rhead);
        let mut at = kring.hwcur;
        let mut bad = 0;
        // Not an address: the client gave an index that is none. Its slot goes without a buffer from now on.
        let addrs = std::iter::from_fn(|| {
            while at != end {
                let word = handle.ring.slots[at as usize].load();
                at = next(n, at);
                match layout.fill_addr(handle.valid_buf(word)).filter(|_| handle.valid_buf(word) != 0) {
                    Some(addr) => return Some(addr),
                    None => bad += 1,
                }
            }
            None
        });
        self.fill.push(addrs);
        if bad > 0 {
            drop_packets(&handle.shared.state, Drop::BadSlot, bad);
        }
        kring.hwcur = at;
    }

    /// How many of the `max` next descriptors are whole frames. A frame longer than the ring comes in parts.
    fn whole_frames(&self, available: u32, room: u32, n: u32) -> u32 {
        let max = available.min(room);
        if max == 0 || !self.rx.get(max - 1).is_continued() {
            return max;
        }
        let whole = (0..max).rev().find(|i| !self.rx.get(*i).is_continued()).map_or(0, |i| i + 1);
        if whole == 0 && max == n - 1 { max } else { whole }
    }
}

impl RingDriver for XdpRx {
    fn sync(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError> {
        let n = kring.handle.num_slots();
        let own = &kring.handle.shared;
        let state = &*own.state;
        let at = positions(own, self.fill.producer_count(), self.rx.consumer_count());
        (kring.hwcur, kring.hwtail) = (at.hwcur, at.hwtail);
        if kring.hwcur != kring.rhead {
            self.release(kring);
        }
        let room = n - 1 - distance(n, kring.hwcur, kring.hwtail);
        let count = self.whole_frames(self.rx.available(), room, n);
        let (slots, bufs) = (&kring.handle.ring.slots[..], &kring.handle.ring.bufs);
        let (mut packets, mut bytes, mut bad) = (0u64, 0u64, 0u64);
        let mut to = kring.hwtail;
        for i in 0..count {
            let desc = self.rx.get(i);
            let word = match self.layout.locate(desc.addr) {
                Some((idx, ofs)) => {
                    let own = kring.offsets.of(slots[to as usize].ptr());
                    let more = if desc.is_continued() { NS_MOREFRAG } else { 0 };
                    if kring.offsets.is_on() && desc.len > kring.offsets.gap {
                        // It does not fit behind the offset, and cannot be cut in two without another buffer.
                        bad += 1;
                        SlotWord::new(idx, 0, more)
                    } else {
                        if ofs != own {
                            move_to(bufs, idx, (ofs, own), desc.len);
                        }
                        SlotWord::new(idx, desc.len.min(bufs.buf_size()) as u16, more)
                    }
                }
                None => {
                    bad += 1;
                    SlotWord::new(0, 0, 0)
                }
            };
            slots[to as usize].store(word);
            packets += u64::from(!desc.is_continued());
            bytes += u64::from(desc.len);
            to = next(n, to);
        }
        if count > 0 {
            self.rx.release(count);
            kring.hwtail = to;
            add(state, Stat::Packets, packets);
            add(state, Stat::Bytes, bytes);
            drop_packets(state, Drop::BadSlot, bad);
        }
        note(own, (self.fill.producer_count(), kring.hwcur), (self.rx.consumer_count(), kring.hwtail));
        state.owner.hwcur.publish(kring.hwcur);
        if self.fill.needs_wakeup() {
            kicked(kick_rx(&*self.socket))?;
        }
        Ok(())
    }

    fn moved_since(&self, handle: &RingHandle, wanted: u32) -> bool {
        let n = handle.num_slots();
        let at = positions(&handle.shared, self.fill.producer_count(), self.rx.consumer_count());
        let held = distance(n, at.hwcur, at.hwtail);
        // Slots that the client has released since its last sync are no reason to wake.
        held + self.rx.available().min(n - 1 - held) >= wanted
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}

/// A frame that the driver put elsewhere (zero-copy leaves room before it), or that is to begin further into its buffer, moves to where
/// netmap has it.
#[cold]
fn move_to(bufs: &ringway_os::bytes::Bufs, idx: u32, (from, to): (u32, u32), len: u32) {
    if let Some(payload) = bufs.payload(idx) {
        payload.slice(to as usize, len as usize).copy_payload(&payload.slice(from as usize, len as usize));
    }
}

/// TX ring of an interface's queue.
#[derive(Debug)]
pub struct XdpTx {
    /// Frames to send. Before the socket: maps go first.
    pub tx: TxRing,
    /// Buffers that were sent.
    pub comp: CompRing,
    /// The socket.
    pub socket: Arc<OwnedFd>,
    /// Addresses of buffers.
    pub layout: UmemLayout,
    /// The socket takes frames of several slots.
    pub multi_slot: bool,
}

impl XdpTx {
    /// Takes back the buffers that were sent.
    fn reclaim(&mut self, kring: &mut Kring<'_>) {
        let n = kring.handle.num_slots();
        let slots = &kring.handle.ring.slots[..];
        let outstanding = distance(n, next(n, kring.hwtail), kring.hwcur);
        let (mut tail, layout) = (kring.hwtail, self.layout);
        self.comp.drain(outstanding, |addr| {
            tail = next(n, tail);
            let idx = layout.buf_of_addr(addr).unwrap_or(0);
            // Frames come back in the order of their slots, which say what was sent: programs and monitors read it there.
            let sent = slots[tail as usize].load();
            slots[tail as usize].store(SlotWord::new(idx, sent.len(), sent.flags() & NS_MOREFRAG));
        });
        kring.hwtail = tail;
    }

    /// What is wrong with the frame in the `count` slots from `first` on, if anything.
    fn fault(&self, kring: &Kring<'_>, first: u32, count: u32) -> Option<Drop> {
        let (n, handle) = (kring.handle.num_slots(), kring.handle);
        if count > MAX_TX_SLOTS {
            return Some(Drop::TooManySlots);
        }
        let max = self.layout.chunk_size().min(handle.ring.bufs.buf_size());
        let mut len = 0;
        for i in 0..count {
            let slot = &handle.ring.slots[forward(n, first, i) as usize];
            let word = slot.load();
            let max = max.min(handle.ring.bufs.buf_size() - kring.offsets.of(slot.ptr()));
            if handle.valid_buf(word) == 0 || u32::from(word.len()) > max || (count > 1 && word.is_empty()) {
                return Some(Drop::BadSlot);
            }
            len += u32::from(word.len());
        }
        (len < MIN_FRAME_BYTES).then_some(Drop::Short)
    }

    /// Hands the frames of `[hwcur, rhead)` to the kernel. Those that cannot be sent come back at once.
    fn submit(&mut self, kring: &mut Kring<'_>) {
        let n = kring.handle.num_slots();
        let (own, slots) = (&kring.handle.shared, &kring.handle.ring.slots[..]);
        let state = &*own.state;
        let mut free = self.tx.free();
        let (mut put, mut packets, mut bytes) = (0, 0u64, 0u64);
        let mut steps = STEPS_PER_SLOT * n;
        while kring.hwcur != kring.rhead {
            let there = distance(n, kring.hwcur, kring.rhead);
            let more = |i: u32| slots[forward(n, kring.hwcur, i) as usize].load().flags() & NS_MOREFRAG != 0;
            let count = if self.multi_slot { (0..there).find(|i| !more(*i)).map(|i| i + 1) } else { Some(1) };
            let count = match count {
                Some(count) => count,
                // The rest of the frame may come with the next sync.
                None if there <= MAX_OPEN_SLOTS && there < n - 1 => break,
                None => there,
            };
            if let Some(fault) = self.fault(kring, kring.hwcur, count) {
                // What was put so far must be counted before positions move without the kernel's counters.
                self.tx.submit(put);
                put = 0;
                let counters = (self.tx.producer_count(), self.comp.consumer_count());
                (0..count).for_each(|_| give_back(kring, counters, &mut steps));
                free = self.tx.free();
                drop_packets(state, fault, 1);
                packets += 1;
                continue;
            }
            if count > free - put {
                break;
            }
            for i in 0..count {
                let slot = &slots[kring.hwcur as usize];
                let word = slot.load();
                let options = if i + 1 < count { XdpDesc::CONTINUED } else { 0 };
                // `fault` looked at an earlier state of the slot; a client that changes it meanwhile sends what it likes of the region.
                let ofs = kring.offsets.of(slot.ptr());
                let addr = self.layout.tx_addr(kring.handle.valid_buf(word)).unwrap_or(0) + u64::from(ofs);
                let len = u32::from(word.len()).min(self.layout.chunk_size());
                self.tx.put(put, XdpDesc { addr, len, options });
                put += 1;
                bytes += u64::from(word.len());
                kring.hwcur = next(n, kring.hwcur);
            }
            packets += 1;
        }
        self.tx.submit(put);
        note(own, (self.tx.producer_count(), kring.hwcur), (self.comp.consumer_count(), kring.hwtail));
        add(state, Stat::Packets, packets);
        add(state, Stat::Bytes, bytes);
    }

    /// Makes the kernel send, as long as it takes something.
    fn kick(&mut self) -> Result<(), SyncError> {
        let mut left = self.tx.unsent_count();
        for _ in 0..MAX_KICKS {
            if left == 0 || !self.tx.needs_wakeup() {
                break;
            }
            let kick = kicked(kick_tx(&*self.socket))?;
            let now = self.tx.unsent_count();
            if kick != Kick::Again || now >= left {
                break;
            }
            left = now;
        }
        Ok(())
    }
}

/// The slot at `hwcur` is not sent, and free again at once: it goes before those that the kernel has, which keep their order.
///
/// ```text
///   |hwtail |kernel: A B C |hwcur: F       becomes        |F hwtail |kernel: A B C |hwcur
/// ```
#[cold]
fn give_back(kring: &mut Kring<'_>, counters: (u32, u32), steps: &mut u32) {
    let (n, slots) = (kring.handle.num_slots(), &kring.handle.ring.slots[..]);
    let (from, to) = (next(n, kring.hwtail), kring.hwcur);
    let word = slots[to as usize].load();
    let mut held = SlotWord::new(word.buf_idx(), word.len(), word.flags() & NS_MOREFRAG);
    let count = distance(n, from, to);
    // Without steps left, one frame of the kernel's jumps to the end: lengths may be told of the wrong frame, buffers never.
    let moved = if count <= *steps { count } else { 1 };
    *steps = steps.saturating_sub(count);
    for i in 0..moved {
        let slot = &slots[forward(n, from, i) as usize];
        let next = slot.load();
        slot.store(held);
        held = next;
    }
    (kring.hwcur, kring.hwtail) = (next(n, to), from);
    note(&kring.handle.shared, (counters.0, kring.hwcur), (counters.1, kring.hwtail));
    // Only now: until then this slot, and no other of the client's, names the buffer.
    slots[to as usize].store(held);
}

impl RingDriver for XdpTx {
    fn sync(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError> {
        let own = &kring.handle.shared;
        let at = positions(own, self.tx.producer_count(), self.comp.consumer_count());
        (kring.hwcur, kring.hwtail) = (at.hwcur, at.hwtail);
        self.reclaim(kring);
        let n = kring.handle.num_slots();
        // `rhead` lies among the client's slots, unless somebody wrote over the state.
        if distance(n, kring.hwcur, kring.rhead) <= distance(n, kring.hwcur, kring.hwtail) {
            self.submit(kring);
        }
        let kicked = self.kick();
        // In copy mode most are sent by now.
        self.reclaim(kring);
        note(own, (self.tx.producer_count(), kring.hwcur), (self.comp.consumer_count(), kring.hwtail));
        own.state.owner.hwcur.publish(kring.hwcur);
        kicked
    }

    fn moved_since(&self, handle: &RingHandle, wanted: u32) -> bool {
        let n = handle.num_slots();
        let at = positions(&handle.shared, self.tx.producer_count(), self.comp.consumer_count());
        let free = distance(n, at.hwcur, at.hwtail);
        free + self.comp.available().min(n - 1 - free) >= wanted
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}

/// The buffers in the slots of a ring that the client, not the kernel, has. `dir` is in the handle; `counters` are those of the fill
/// and RX rings, or of the TX and completion rings.
pub(crate) fn held_buffers(handle: &RingHandle, counters: (u32, u32)) -> Vec<u32> {
    let n = handle.num_slots();
    let at = positions(&handle.shared, counters.0, counters.1);
    let count = match handle.dir {
        crate::layout::Dir::Rx => distance(n, at.hwcur, at.hwtail),
        crate::layout::Dir::Tx => distance(n, at.hwcur, at.hwtail) + 1,
    };
    (0..count).map(|i| handle.ring.slots[forward(n, at.hwcur, i) as usize].load().buf_idx()).collect()
}

/// Notes the positions of a ring that nobody has used. RX: the fill ring has had `filled` buffers.
pub(crate) fn note_fresh(handle: &RingHandle, filled: u32) {
    match handle.dir {
        crate::layout::Dir::Rx => note(&handle.shared, (filled, 0), (0, 0)),
        crate::layout::Dir::Tx => note(&handle.shared, (0, 0), (0, prev(handle.num_slots(), 0))),
    }
}

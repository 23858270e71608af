//! Pipes: slots exchanged between the two ends, no byte copied.
//!
//! TX ring i of one end meets RX ring i of the other; slot k of both name the same buffer, and only the slot of the
//! side that owns k is valid. Each end writes only words of its own (`RingShared` has the table), so a pipe needs no
//! lock across the ends, and nothing needs repair when one is killed: what it had not published never
//! happened.
//!
//! What crosses per packet is one word, length and flags (16 packets to a cache line), as long as buffer index and `ptr` of
//! the slot are what the other side last saw there. Otherwise the word is a mark, and the whole slot lies in the
//! records. On the way back nothing crosses but the position, unless the receiver changed slots.
//!
//! Source: semantics.md 21; `sys/dev/netmap/netmap_pipe.c`.

use super::{RingDriver, SyncError};
use crate::kring::{Kring, RingHandle, distance, next, note_counts, prev};
use crate::layout::RingShared;
use crate::stats::{Stat, add};
use ringway_abi::ring::{NS_BUF_CHANGED, NS_MOREFRAG};
use ringway_os::bytes::{prefetch_read, prefetch_write};
use ringway_os::event::Doorbell;
use ringway_os::ring::{Slot, SlotWord};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// In a descriptor: the slot lies in the records. It is a bit that no NS flag uses.
const IN_RECORDS: u32 = 0x0080_0000;
const BUF_CHANGED: u16 = NS_BUF_CHANGED;

/// Descriptors to a cache line. All lines of a batch are asked for before its first slot is looked at.
const DESC_PER_LINE: usize = 16;

/// TX ring of a pipe end.
#[derive(Debug)]
pub struct PipeTx {
    /// The other end's RX ring of the same index.
    pub peer: RingShared,
    /// Rung when packets were published to somebody who sleeps.
    pub bell: Arc<Doorbell>,
}

/// RX ring of a pipe end.
#[derive(Debug)]
pub struct PipeRx {
    /// The other end's TX ring of the same index.
    pub peer: RingShared,
    /// Rung when slots were given back to somebody who sleeps.
    pub bell: Arc<Doorbell>,
}

impl PipeTx {
    /// Takes over the slots that the receiver released since the last sync.
    fn reclaim(&self, kring: &mut Kring<'_>) {
        let n = kring.handle.num_slots();
        let from = next(n, kring.rtail);
        let to = self.peer.state.owner.hwcur.load();
        // The receiver cannot have released what was never sent.
        if to >= n || distance(n, from, to) > distance(n, from, kring.hwcur) {
            return;
        }
        let own = &kring.handle.shared;
        for_each_set(&self.peer.bits, n, from, to, |k| {
            let (word, ptr) =
                (self.peer.records[2 * k].load(Relaxed), self.peer.records[2 * k + 1].load(Relaxed));
            let slot = &kring.handle.ring.slots[k];
            slot.store(SlotWord(word));
            slot.set_ptr(ptr);
            own.known[2 * k].store(word, Relaxed);
            own.known[2 * k + 1].store(ptr, Relaxed);
        });
        kring.hwtail = prev(n, to);
    }

    /// The end of the last complete packet in `[hwcur, rhead)`.
    fn complete_until(kring: &Kring<'_>) -> u32 {
        let n = kring.handle.num_slots();
        let mut end = kring.rhead;
        while end != kring.hwcur {
            let last = prev(n, end);
            if kring.handle.ring.slots[last as usize].load().flags() & NS_MOREFRAG == 0 {
                return end;
            }
            end = last;
        }
        end
    }
}

impl RingDriver for PipeTx {
    fn sync(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError> {
        self.reclaim(kring);
        let end = Self::complete_until(kring);
        if end == kring.hwcur {
            return Ok(());
        }
        let n = kring.handle.num_slots();
        let own = &kring.handle.shared;
        let (slots, desc, known) = (&kring.handle.ring.slots[..], &own.desc[..], &own.known[..]);
        let (mut packets, mut bytes) = (0u64, 0u64);
        let mut at = kring.hwcur;
        // At most two straight runs: up to the end of the ring, and from its start.
        while at != end {
            let stop = if end > at { end } else { n };
            let range = at as usize..stop as usize;
            let Some(run) = slots.get(range.clone()) else { break };
            let Some(run_desc) = desc.get(range.clone()) else { break };
            let Some((run_known, [])) = known.get(2 * range.start..2 * range.end).map(<[_]>::as_chunks::<2>)
            else {
                break;
            };
            for line in run_desc.iter().step_by(DESC_PER_LINE) {
                prefetch_write(line);
            }
            for (i, ((slot, desc_word), [known_word, known_ptr])) in
                run.iter().zip(run_desc).zip(run_known).enumerate()
            {
                let word = slot.load();
                let ptr = slot.ptr();
                let same =
                    known_word.load(Relaxed) as u32 == word.buf_idx() && known_ptr.load(Relaxed) == ptr;
                if same && word.len_flags() & (IN_RECORDS | u32::from(BUF_CHANGED) << 16) == 0 {
                    desc_word.store(word.len_flags(), Relaxed);
                } else {
                    send_record(own, range.start + i, word, ptr);
                    if word.flags() & BUF_CHANGED != 0 {
                        slot.store(SlotWord::new(word.buf_idx(), word.len(), word.flags() & !BUF_CHANGED));
                    }
                }
                packets += u64::from(word.flags() & NS_MOREFRAG == 0);
                bytes += u64::from(word.len());
            }
            at = if stop == n { 0 } else { stop };
        }
        let state = &*own.state;
        state.owner.cpu.store(ringway_os::sys::this_cpu_plus_1(), Relaxed);
        kring.hwcur = end;
        note_counts(state, end, packets, bytes);
        state.owner.hwcur.publish(end);
        add(state, Stat::Packets, packets);
        add(state, Stat::Bytes, bytes);
        let filled = distance(n, next(n, kring.hwtail), end);
        if self.peer.state.sleep.owner.take(filled) {
            self.bell.ring();
            add(state, Stat::Rings, 1);
        }
        Ok(())
    }

    fn moved_since(&self, handle: &RingHandle, wanted: u32) -> bool {
        let n = handle.num_slots();
        // Slots of an unfinished packet are filled, too, though not sent: `rhead`, not `hwcur`.
        let (filled, released) =
            (handle.shared.state.sync.rhead.load(Relaxed), self.peer.state.owner.hwcur.load_after_announce());
        filled >= n || released >= n || n - 1 - distance(n, released, filled) >= wanted
    }

    fn peer_cpu(&self, _handle: &RingHandle) -> u32 {
        self.peer.state.owner.cpu.load(Relaxed)
    }
}

/// Sends slot `k` through the records.
#[cold]
fn send_record(own: &RingShared, k: usize, word: SlotWord, ptr: u64) {
    own.records[2 * k].store(word.0, Relaxed);
    own.records[2 * k + 1].store(ptr, Relaxed);
    own.known[2 * k].store(word.0, Relaxed);
    own.known[2 * k + 1].store(ptr, Relaxed);
    own.desc[k].store(IN_RECORDS, Relaxed);
}

impl PipeRx {
    /// Gives `[hwcur, rhead)` back to the sender.
    fn release(&self, kring: &mut Kring<'_>) {
        let n = kring.handle.num_slots();
        let own = &kring.handle.shared;
        let (slots, known) = (&kring.handle.ring.slots[..], &own.known[..]);
        let mut at = kring.hwcur;
        while at != kring.rhead {
            let stop = if kring.rhead > at { kring.rhead } else { n };
            let range = at as usize..stop as usize;
            let Some(run) = slots.get(range.clone()) else { break };
            let Some((run_known, [])) = known.get(2 * range.start..2 * range.end).map(<[_]>::as_chunks::<2>)
            else {
                break;
            };
            let words = own.bits.get(range.start / 64..range.end.div_ceil(64)).unwrap_or_default();
            let marked = words.iter().any(|w| w.load(Relaxed) != 0);
            for (i, (slot, [known_word, known_ptr])) in run.iter().zip(run_known).enumerate() {
                let word = slot.load();
                let changed = word.0 != known_word.load(Relaxed)
                    || slot.ptr() != known_ptr.load(Relaxed)
                    || word.flags() & BUF_CHANGED != 0;
                if changed {
                    release_record(own, range.start + i, slot, word);
                } else if marked {
                    unmark(own, range.start + i);
                }
            }
            at = if stop == n { 0 } else { stop };
        }
        kring.hwcur = kring.rhead;
        own.state.owner.hwcur.publish(kring.rhead);
    }
}

impl RingDriver for PipeRx {
    fn sync(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError> {
        let n = kring.handle.num_slots();
        let state = &*kring.handle.shared.state;
        let released = kring.hwcur != kring.rhead;
        if released {
            self.release(kring);
        }
        let end = self.peer.state.owner.hwcur.load();
        if released {
            let free = if end < n { n - 1 - distance(n, kring.hwcur, end) } else { 0 };
            if self.peer.state.sleep.owner.take(free) {
                self.bell.ring();
                add(state, Stat::Rings, 1);
            }
        }
        // The sender cannot take back what it published.
        if end == kring.rtail
            || end >= n
            || distance(n, kring.hwcur, end) < distance(n, kring.hwcur, kring.rtail)
        {
            return Ok(());
        }
        let own = &kring.handle.shared;
        let (slots, desc, known) = (&kring.handle.ring.slots[..], &self.peer.desc[..], &own.known[..]);
        let (mut packets, mut bytes) = (0u64, 0u64);
        let mut at = kring.rtail;
        while at != end {
            let stop = if end > at { end } else { n };
            let range = at as usize..stop as usize;
            let Some(run) = slots.get(range.clone()) else { break };
            let Some(run_desc) = desc.get(range.clone()) else { break };
            let Some((run_known, [])) = known.get(2 * range.start..2 * range.end).map(<[_]>::as_chunks::<2>)
            else {
                break;
            };
            for line in run_desc.iter().step_by(DESC_PER_LINE) {
                prefetch_read(line);
            }
            for (i, ((slot, desc_word), [known_word, known_ptr])) in
                run.iter().zip(run_desc).zip(run_known).enumerate()
            {
                let d = desc_word.load(Relaxed);
                let before = known_word.load(Relaxed);
                let word = if d & IN_RECORDS == 0 {
                    SlotWord::from_len_flags(before as u32, d)
                } else {
                    take_record(&self.peer, range.start + i, known_ptr)
                };
                if before != word.0 {
                    known_word.store(word.0, Relaxed);
                }
                slot.store(word);
                let ptr = known_ptr.load(Relaxed);
                let own = slot.ptr();
                if own != ptr {
                    slot.set_ptr(kring.offsets.keep_larger(own, ptr));
                }
                packets += u64::from(word.flags() & NS_MOREFRAG == 0);
                bytes += u64::from(word.len());
            }
            at = if stop == n { 0 } else { stop };
        }
        kring.hwtail = end;
        (kring.packets, kring.bytes) = (packets, bytes);
        state.owner.cpu.store(ringway_os::sys::this_cpu_plus_1(), Relaxed);
        Ok(())
    }

    fn moved_since(&self, handle: &RingHandle, wanted: u32) -> bool {
        let n = handle.num_slots();
        let (head, sent) =
            (handle.shared.state.owner.hwcur.load(), self.peer.state.owner.hwcur.load_after_announce());
        head >= n || sent >= n || distance(n, head, sent) >= wanted
    }

    fn peer_cpu(&self, _handle: &RingHandle) -> u32 {
        self.peer.state.owner.cpu.load(Relaxed)
    }
}

/// Gives slot `k` back through the records.
#[cold]
fn release_record(own: &RingShared, k: usize, slot: &Slot, word: SlotWord) {
    let ptr = slot.ptr();
    own.records[2 * k].store(word.0, Relaxed);
    own.records[2 * k + 1].store(ptr, Relaxed);
    own.bits[k / 64].store(own.bits[k / 64].load(Relaxed) | 1 << (k % 64), Relaxed);
    slot.store(SlotWord::new(word.buf_idx(), word.len(), word.flags() & !BUF_CHANGED));
    own.known[2 * k].store(word.0, Relaxed);
    own.known[2 * k + 1].store(ptr, Relaxed);
}

/// Slot `k` is given back as it came.
#[cold]
fn unmark(own: &RingShared, k: usize) {
    let marks = own.bits[k / 64].load(Relaxed);
    if marks & 1 << (k % 64) != 0 {
        own.bits[k / 64].store(marks & !(1 << (k % 64)), Relaxed);
    }
}

/// Slot `k` from the sender's records.
#[cold]
fn take_record(peer: &RingShared, k: usize, known_ptr: &std::sync::atomic::AtomicU64) -> SlotWord {
    known_ptr.store(peer.records[2 * k + 1].load(Relaxed), Relaxed);
    SlotWord(peer.records[2 * k].load(Relaxed))
}

/// Calls `f` for every slot in `[from, to)` of a ring of `n` whose bit is set. Words without a bit cost one load for 64 slots.
fn for_each_set(bits: &[std::sync::atomic::AtomicU64], n: u32, from: u32, to: u32, mut f: impl FnMut(usize)) {
    let mut at = from;
    while at != to {
        let stop = if to > at { to } else { n };
        let (mut k, stop_at) = (at as usize, stop as usize);
        while k < stop_at {
            let end = ((k / 64 + 1) * 64).min(stop_at);
            let Some(word) = bits.get(k / 64) else { return };
            let mut word = word.load(Relaxed) >> (k % 64);
            if end - k < 64 {
                word &= (1 << (end - k)) - 1;
            }
            while word != 0 {
                f(k + word.trailing_zeros() as usize);
                word &= word - 1;
            }
            k = end;
        }
        at = if stop == n { 0 } else { stop };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn set_bits_are_found_in_every_range_of_a_ring() {
        const N: u32 = 130;
        let bits: Vec<AtomicU64> =
            (0..3).map(|i| AtomicU64::new(0x9249_2492_4924_9249_u64.rotate_left(i))).collect();
        let is_set = |k: u32| bits[k as usize / 64].load(Relaxed) >> (k % 64) & 1 == 1;
        for from in 0..N {
            for to in 0..N {
                let mut want = vec![];
                let mut k = from;
                while k != to {
                    if is_set(k) {
                        want.push(k as usize);
                    }
                    k = next(N, k);
                }
                let mut got = vec![];
                for_each_set(&bits, N, from, to, |k| got.push(k));
                assert_eq!(got, want, "{from}..{to}");
            }
        }
    }
}

#[cfg(test)]
#[path = "pipe_tests.rs"]
mod pipe_tests;

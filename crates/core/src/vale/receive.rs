//! rxsync of a switch port: what the senders left becomes slots.

use crate::adapter::{RingDriver, SyncError};
use crate::kring::{Kring, RingHandle, distance, next};
use ringway_abi::ring::{NS_BUF_CHANGED, NS_MOREFRAG};
use ringway_os::bytes::prefetch_read;
use ringway_os::ring::{Slot, SlotWord};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Descriptors to a cache line. All lines of a batch are asked for before its first slot is looked at.
const DESC_PER_LINE: usize = 16;

/// RX ring of a switch port. It takes no lock of the senders.
#[derive(Debug)]
pub struct ValeRx;

impl ValeRx {
    fn receive(kring: &mut Kring<'_>) -> Result<(), SyncError> {
        let n = kring.handle.num_slots();
        let shared = &kring.handle.shared;
        let slots = &kring.handle.ring.slots[..];
        let (mirror, desc) = (&shared.mirror[..], &shared.desc[..]);

        // First the released slots, so that senders have room before we look for what they brought.
        if kring.hwcur != kring.rhead {
            let mut at = kring.hwcur;
            while at != kring.rhead {
                let stop = if kring.rhead > at { kring.rhead } else { n };
                let range = at as usize..stop as usize;
                let (Some(run), Some(run_mirror)) = (slots.get(range.clone()), mirror.get(range)) else {
                    break;
                };
                for (slot, idx) in run.iter().zip(run_mirror) {
                    let word = slot.load();
                    if idx.load(Relaxed) != word.buf_idx() || word.flags() & NS_BUF_CHANGED != 0 {
                        take_buffer(kring.handle, slot, word, idx);
                    }
                }
                at = if stop == n { 0 } else { stop };
            }
            kring.hwcur = kring.rhead;
            // Release: the mirror is visible to whoever sees the room. Nobody sleeps on it: a switch never blocks senders.
            shared.state.owner.hwcur.set(kring.rhead);
        }

        let end = shared.state.producer.hwtail.load();
        if end == kring.rtail
            || end >= n
            || distance(n, kring.hwcur, end) < distance(n, kring.hwcur, kring.rtail)
        {
            return Ok(());
        }
        let (mut packets, mut bytes) = (0u64, 0u64);
        let mut at = kring.rtail;
        while at != end {
            let stop = if end > at { end } else { n };
            let range = at as usize..stop as usize;
            let (Some(run), Some(run_desc), Some(run_mirror)) =
                (slots.get(range.clone()), desc.get(range.clone()), mirror.get(range))
            else {
                break;
            };
            for line in run_desc.iter().step_by(DESC_PER_LINE) {
                prefetch_read(line);
            }
            for ((slot, d), idx) in run.iter().zip(run_desc).zip(run_mirror) {
                let word = SlotWord::from_len_flags(idx.load(Relaxed), d.load(Relaxed));
                slot.store(word);
                packets += u64::from(word.flags() & NS_MOREFRAG == 0);
                bytes += u64::from(word.len());
            }
            at = if stop == n { 0 } else { stop };
        }
        kring.hwtail = end;
        (kring.packets, kring.bytes) = (packets, bytes);
        shared.state.owner.cpu.store(ringway_os::sys::this_cpu_plus_1(), Relaxed);
        Ok(())
    }
}

impl RingDriver for ValeRx {
    fn sync(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError> {
        if !kring.offsets.is_on() {
            return Self::receive(kring);
        }
        tell_offsets(kring);
        Self::receive(kring)?;
        take_offsets(kring);
        Ok(())
    }

    fn moved_since(&self, handle: &RingHandle, wanted: u32) -> bool {
        let state = &*handle.shared.state;
        let n = handle.num_slots();
        let (head, tail) = (state.owner.hwcur.load(), state.producer.hwtail.load_after_announce());
        head >= n || tail >= n || distance(n, head, tail) >= wanted
    }

    fn peer_cpu(&self, handle: &RingHandle) -> u32 {
        handle.shared.state.producer.cpu.load(Relaxed)
    }
}

/// Tells senders where the packets of released slots are to begin: before the slots are made known.
fn tell_offsets(kring: &Kring<'_>) {
    let (handle, n) = (kring.handle, kring.handle.num_slots());
    let mut at = kring.hwcur;
    while at != kring.rhead {
        let k = at as usize;
        if let (Some(slot), Some(told)) = (handle.ring.slots.get(k), handle.shared.records.get(2 * k)) {
            told.store(kring.offsets.of(slot.ptr()).into(), Relaxed);
        }
        at = next(n, at);
    }
}

/// Writes into the slots received where their packets begin: before the client sees them.
fn take_offsets(kring: &Kring<'_>) {
    let (handle, n) = (kring.handle, kring.handle.num_slots());
    let mut at = kring.rtail;
    while at != kring.hwtail {
        let k = at as usize;
        if let (Some(slot), Some(placed)) = (handle.ring.slots.get(k), handle.shared.known.get(2 * k)) {
            slot.set_ptr(kring.offsets.put(slot.ptr(), placed.load(Relaxed) as u32));
        }
        at = next(n, at);
    }
}

/// The client has put another buffer into a slot that it released. What is no buffer becomes the dummy, in the mirror.
#[cold]
fn take_buffer(handle: &RingHandle, slot: &Slot, word: SlotWord, idx: &AtomicU32) {
    idx.store(handle.valid_buf(word), Relaxed);
    if word.flags() & NS_BUF_CHANGED != 0 {
        slot.store(SlotWord::new(word.buf_idx(), word.len(), word.flags() & !NS_BUF_CHANGED));
    }
}

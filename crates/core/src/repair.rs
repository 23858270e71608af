//! What the broker finds of a sync that died, and makes of it: what was published is counted, what was not has not happened.
//!
//! A dead process did everything up to some instruction, and nothing after it. Each sync notes in the journal of its own ring what
//! position and counters will be before it publishes, and counts after it; so here the counters are brought to what
//! the note says if the position arrived, however far the counting had come. Nothing is counted twice or never.
//!
//! A lock is broken only when its holder is dead (`Registry::break_locks`), so nobody writes here meanwhile.

use crate::kring::{distance, forget_journal, forward};
use crate::layout::RingShared;
use crate::stats::{Counters, Stat, add, low};
use ringway_os::state::RingState;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Which sync it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncKind {
    /// txsync of a switch port: it publishes in a far ring, then in its own.
    SwitchTx,
    /// txsync of a pipe end.
    PipeTx,
    /// rxsync of a switch port.
    SwitchRx,
    /// rxsync of a pipe end.
    PipeRx,
    /// Of anything else: its state is the kernel's, or there is none.
    Other,
}

/// Finishes or forgets the sync of a dead process. The caller holds the ring's sync lock; `far` is the ring that the
/// journal of a switch port names, if it is still there, whose senders' lock has not been broken yet.
pub(crate) fn repair_sync(kind: SyncKind, ring: &RingShared, far: Option<&RingState>) {
    let state = &*ring.state;
    match kind {
        SyncKind::SwitchTx => repair_sender(state, ring.num_slots, far),
        SyncKind::PipeTx => {
            repair_counts(state, state.owner.hwcur.load());
            // The slot at the tail is the sender's last one.
            forget_unpublished(ring, 1);
        }
        SyncKind::SwitchRx => repair_counts(state, state.sync.rtail.load(Relaxed)),
        SyncKind::PipeRx => {
            repair_counts(state, state.sync.rtail.load(Relaxed));
            // That at the tail is the first that has not been taken in: what is known of it counts.
            forget_unpublished(ring, 0);
        }
        SyncKind::Other => return,
    }
    repair_accepted(state, ring.num_slots);
}

/// Adds to a counter what is missing from what the journal noted of it.
fn catch_up(state: &RingState, stat: Stat, noted: &AtomicU32) {
    add(state, stat, noted.load(Relaxed).wrapping_sub(low(state, stat)).into());
}

/// Counts what was published, if the ring has come to the position that was noted.
fn repair_counts(state: &RingState, position: u32) {
    if state.journal.position.load(Relaxed) == position {
        catch_up(state, Stat::Packets, &state.journal.packets);
        catch_up(state, Stat::Bytes, &state.journal.bytes);
    }
}

/// A pipe end may have noted that the other side knows slots that it had not published yet. It knows nothing of them: all that
/// this end may publish next, the slots from `hwcur` to the tail and `more`, goes through the records.
fn forget_unpublished(ring: &RingShared, more: u32) {
    let n = ring.num_slots;
    let (from, to) = (ring.state.owner.hwcur.load(), ring.state.sync.rtail.load(Relaxed));
    if from >= n || to >= n {
        return;
    }
    for i in 0..distance(n, from, to) + more {
        ring.known[2 * forward(n, from, i) as usize].store(u64::MAX, Relaxed);
    }
}

/// The same for a switch port: the far ring tells whether the last publishing arrived.
pub(crate) fn repair_sender(state: &RingState, num_slots: u32, far: Option<&RingState>) {
    let journal = &state.journal;
    if journal.generation.load(Relaxed) != 0 {
        let arrived = far.is_some_and(|f| f.producer.hwtail.load() == journal.far_tail.load(Relaxed));
        let position = journal.position.load(Relaxed);
        if arrived && position < num_slots {
            state.owner.hwcur.set(position);
            catch_up(state, Stat::Packets, &journal.packets);
            catch_up(state, Stat::Bytes, &journal.bytes);
            catch_up(state, Stat::Delivered, &journal.delivered);
        }
        forget_journal(state);
        add(state, Stat::Repaired, 1);
    }
    // Drops and copies of floods are counted before the position moves. What is sent again was not one packet more, but a copy more.
    let c = Counters::read(state);
    let copies = c.delivered.wrapping_add(c.all_drops()).saturating_sub(c.packets);
    state.counters[Stat::ExtraCopies as usize].set(copies);
}

/// `hwcur` is published before the accepted head is stored: then it has overtaken it.
fn repair_accepted(state: &RingState, n: u32) {
    let (hwcur, rhead, rtail) =
        (state.owner.hwcur.load(), state.sync.rhead.load(Relaxed), state.sync.rtail.load(Relaxed));
    if hwcur >= n || rhead >= n || rtail >= n {
        return; // `RingHandle::load` mends those.
    }
    let ahead = distance(n, rhead, hwcur);
    if ahead > 0 && ahead <= distance(n, rhead, rtail) {
        state.sync.rhead.store(hwcur, Relaxed);
        state.sync.rcur.store(hwcur, Relaxed);
    }
}

/// Mends the senders' side of a receive ring whose lock a dead sender held: its cursors become what was published.
pub(crate) fn repair_receiver(state: &RingState, num_slots: u32) {
    let tail = state.producer.hwtail.load();
    let head = state.owner.hwcur.load();
    let check = |v: u32| if v < num_slots { v } else { 0 };
    state.senders.tail.store(check(tail), Relaxed);
    state.senders.head.store(check(head), Relaxed);
    debug_assert!(distance(num_slots, check(head), check(tail)) < num_slots);
}

#[cfg(test)]
mod tests;

//! The state of rings, and of switches, outside netmap's own structures: what a sync needs and where two sides meet.
//!
//! It lies in shared memory, never in the private memory of one process, so that a descriptor handed to another
//! process goes on where the first stopped. Words of different writers lie on lines of their own (one shared
//! line costs 15 to 20 % at small batches).

use crate::mem::Shared;
use crate::words::{Counter, Cursor, LockWord, SleepWord};
use core::sync::atomic::{AtomicU32, AtomicU64};

/// Counters of a ring; `ringway_core::stats` names them.
pub const RING_COUNTERS: usize = 32;

/// Published by the producer of a receive ring.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct ProducerLine {
    /// First slot that holds nothing yet (producer writes, consumer reads).
    pub hwtail: Cursor,
    /// Processor on which the producer last published (a hint for waiting).
    pub cpu: AtomicU32,
}

/// Published by the owner of a ring.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct OwnerLine {
    /// RX: first slot not released. TX: first slot not handed over (owner writes, far side reads).
    pub hwcur: Cursor,
    /// Processor on which the owner last synced (a hint for waiting).
    pub cpu: AtomicU32,
}

/// The senders' side of a switch port's receive ring.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct SendersLine {
    /// Held by the sender that is writing.
    pub lock: LockWord,
    /// Copy of `hwtail` for the next sender (under `lock`).
    pub tail: AtomicU32,
    /// Last seen `hwcur` (under `lock`).
    pub head: AtomicU32,
    /// `hwcur` at which a sender last waited in vain plus 1: no use to yield again before it moves (under `lock`).
    pub stalled_at: AtomicU32,
    /// 1 while somebody has the ring bound (broker writes, under `lock`).
    pub bound: AtomicU32,
    /// Largest offset of the ring, in bytes (broker writes).
    pub offset_max: AtomicU32,
    /// Bits of a slot's `ptr` that are an offset, 0 if the ring has none (broker writes).
    pub offset_mask: AtomicU64,
}

/// Who sleeps on a ring.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct SleepLine {
    /// The owner's announcement.
    pub owner: SleepWord,
}

/// Under the sync lock: the engine's own copies.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct SyncLine {
    /// Held by the attachment whose sync runs.
    pub lock: LockWord,
    /// Last accepted head.
    pub rhead: AtomicU32,
    /// Last accepted cur.
    pub rcur: AtomicU32,
    /// Last published tail.
    pub rtail: AtomicU32,
    /// Of a ring that the broker serves: `AckLine::progress` before the last post (client writes).
    pub seen: AtomicU32,
    /// Source address last learned, low half; see `learned_hi`.
    pub learned_lo: AtomicU32,
    /// Its high half.
    pub learned_hi: AtomicU32,
    /// 1: the other side is gone for good, syncs fail (broker writes).
    pub stopped: AtomicU32,
    /// Bits of a slot's `ptr` that are an offset, 0 if the ring has none (broker writes).
    pub offset_mask: AtomicU64,
    /// Largest offset, in bytes (broker writes).
    pub offset_max: AtomicU32,
    /// Bytes that a device may write behind an offset (broker writes).
    pub offset_gap: AtomicU32,
}

/// What a sync is about to publish, for the repair of the dead.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct JournalLine {
    /// Generation of the far port; 0: nothing under way.
    pub generation: AtomicU32,
    /// Index of the far port in the low 8 bits, of its ring above them.
    pub far: AtomicU32,
    /// Its `hwtail` afterwards.
    pub far_tail: AtomicU32,
    /// Own position afterwards. TX on a switch and on a pipe: `hwcur`. RX: the tail told to the client.
    pub position: AtomicU32,
    /// Counter of packets afterwards, its low half.
    pub packets: AtomicU32,
    /// Counter of bytes afterwards, its low half.
    pub bytes: AtomicU32,
    /// Counter of delivered packets afterwards, its low half.
    pub delivered: AtomicU32,
}

/// Where a client posts to a worker of the broker.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct PostLine {
    /// Held by the attachment that posts.
    pub lock: LockWord,
    /// Head posted (client writes).
    pub head: AtomicU32,
    /// Number of posts so far (client writes after `head`).
    pub posted: Cursor,
}

/// Where a worker of the broker answers.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct AckLine {
    /// Number of posts that the worker has finished (broker writes).
    pub acked: Cursor,
    /// The ring's tail after them (broker writes before `acked`).
    pub tail: AtomicU32,
    /// Changes whenever the worker may have brought this ring packets or room (broker writes).
    pub progress: Cursor,
    /// Set while the worker sleeps (broker writes; client takes).
    pub sleep: SleepWord,
    /// Changes whenever the ring is taken over, to an odd number, or given back, to an even one; before `acked` does (broker writes).
    pub hands: Cursor,
    /// Processor on which the worker last served this ring, plus 1; 0: not known (broker writes before `acked`).
    pub cpu: AtomicU32,
}

/// Of the first bound ring of a descriptor in CSB mode: its sync loop.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct LoopLine {
    /// `ringway_core::sync_loop` says what is in it (clients write; the broker breaks it like a lock).
    pub word: AtomicU64,
}

/// The whole state of one ring.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct RingState {
    /// Producer of a receive ring.
    pub producer: ProducerLine,
    /// Owner.
    pub owner: OwnerLine,
    /// Senders to a receive ring of a switch port.
    pub senders: SendersLine,
    /// Sleepers.
    pub sleep: SleepLine,
    /// The running sync.
    pub sync: SyncLine,
    /// The publishing under way.
    pub journal: JournalLine,
    /// Posts to a worker.
    pub post: PostLine,
    /// Answers of a worker.
    pub ack: AckLine,
    /// A sync loop.
    pub sync_loop: LoopLine,
    /// Counters: written under the sync lock (or the senders' lock where `stats` says so).
    pub counters: [Counter; RING_COUNTERS],
}

// SAFETY: atomics and wrappers of atomics only; padding between lines is never read.
unsafe impl Shared for RingState {}
// SAFETY: repr(transparent) over an atomic.
unsafe impl Shared for Counter {}

/// Ports of a switch, at most.
pub const SWITCH_PORTS: usize = 256;
/// Entries of the MAC table.
pub const MACS: usize = 8192;
/// Entries of a set of the MAC table: those of one cache line.
pub const MAC_WAYS: usize = 8;

/// What the members of a switch share.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SwitchPage {
    /// One bit per port index in use (broker writes).
    pub present: [AtomicU64; SWITCH_PORTS / 64],
    /// Changes whenever a port comes or goes (broker writes).
    pub epoch: AtomicU32,
    _pad: [AtomicU32; 7],
    /// Generation of the port at each index, 0 when there is none (broker writes).
    pub generations: [AtomicU32; SWITCH_PORTS],
    /// Virtio-net header length of the port at each index, in bytes (broker writes).
    pub hdr_lens: [AtomicU32; SWITCH_PORTS],
    /// Bytes of the longest frame that each port takes of a segmented packet (broker writes).
    pub mfs: [AtomicU32; SWITCH_PORTS],
    /// The MAC table (members write); sets follow one another.
    pub macs: [AtomicU64; MACS],
}

const _: () = assert!(std::mem::offset_of!(SwitchPage, macs).is_multiple_of(64));

// SAFETY: atomics only.
unsafe impl Shared for SwitchPage {}

//! The engine's end of a ring: prologue, driver, finalize.
//!
//! A client may write anything into the ring at any moment. So each shared word is loaded **once** per sync,
//! checked against the engine's own copies, and not read again.
//!
//! Source: `sys/net/netmap.h`, `struct netmap_ring`; the window tests follow `nm_txsync_prologue()`,
//! `nm_rxsync_prologue()` and `netmap_ring_reinit()` in `sys/dev/netmap/netmap.c`. Unlike netmap, an illegal head within
//! the ring stays refused until the client puts it right, and `cur` past the end is never let through.

use crate::adapter::{RingDriver, SyncError, SyncFlags};
use crate::layout::{Dir, RingShared, RingView};
use crate::offsets::Offsets;
use crate::stats::{Stat, add, low};
use ringway_abi::ring::FIRST_BUF_IDX;
use ringway_os::ring::SlotWord;
use ringway_os::state::RingState;
use std::sync::atomic::{Ordering, compiler_fence};

pub use ringway_os::words::BROKER;
/// The number under which the broker holds the lock of a dead process for a moment, to repair what is behind it.
pub const REPAIR: u32 = u32::MAX >> 1;

/// Steps from `from` forward to `to` in a ring of `n` slots; both in range. Wraps by comparison, not by mask: a netmap ring
/// size need not be a power of two.
#[inline]
#[must_use]
pub fn distance(n: u32, from: u32, to: u32) -> u32 {
    if to >= from { to - from } else { n - from + to }
}

/// The slot after `at`.
#[inline]
#[must_use]
pub fn next(n: u32, at: u32) -> u32 {
    if at + 1 >= n { 0 } else { at + 1 }
}

/// The slot before `at`.
#[inline]
#[must_use]
pub fn prev(n: u32, at: u32) -> u32 {
    if at == 0 { n - 1 } else { at - 1 }
}

/// The slot `steps` (at most `n`) after `at`.
#[inline]
#[must_use]
pub fn forward(n: u32, at: u32, steps: u32) -> u32 {
    let to = at + steps;
    if to >= n { to - n } else { to }
}

/// Notes what the counters of packets and bytes will be when the ring's position is `position`: the position is stored after this, the
/// counters after that. Whoever is killed in between has the rest done by [`crate::repair`]. What a dead process did is in
/// memory up to some instruction, so only the compiler's order counts.
#[inline]
pub(crate) fn note_counts(state: &RingState, position: u32, packets: u64, bytes: u64) {
    let journal = &state.journal;
    journal.packets.store(low(state, Stat::Packets).wrapping_add(packets as u32), Ordering::Relaxed);
    journal.bytes.store(low(state, Stat::Bytes).wrapping_add(bytes as u32), Ordering::Relaxed);
    journal.position.store(position, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
}

/// Positions or counters were set from outside: what the journal says of them is not true any more.
pub(crate) fn forget_journal(state: &RingState) {
    state.journal.generation.store(0, Ordering::Relaxed);
    state.journal.position.store(u32::MAX, Ordering::Relaxed);
}

/// A cursor outside the client's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorError {
    /// `head`, of this value, is outside `[old head, tail]`.
    Head(u32),
    /// `cur`, of this value, is outside `[head, tail]`.
    Cur(u32),
}

/// One ring of a bound port: what the client sees, and the engine's state of it.
#[derive(Clone, Debug)]
pub struct RingHandle {
    /// The ring in the region.
    pub ring: RingView,
    /// The state beside it.
    pub shared: RingShared,
    /// Direction.
    pub dir: Dir,
}

/// A ring while its sync runs: private copies of the cursors, so trusted. All are below the ring size.
#[derive(Debug)]
pub struct Kring<'r> {
    /// The ring and its state.
    pub handle: &'r RingHandle,
    /// The attachment that syncs.
    pub me: u32,
    /// TX: first slot not handed over. RX: first slot not released.
    pub hwcur: u32,
    /// First slot that the client does not own after this sync.
    pub hwtail: u32,
    /// Accepted head.
    pub rhead: u32,
    /// Accepted cur.
    pub rcur: u32,
    /// Tail that the client was last told.
    pub rtail: u32,
    /// Where packets begin in their buffers.
    pub offsets: Offsets,
    /// RX: packets received by this sync, which are counted when it ends.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How a sync ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncOutcome {
    /// It ran.
    Done,
    /// It ran, and the client's cursors were illegal: nothing was taken from the client.
    BadRing(CursorError),
    /// Another thread is syncing the ring; nothing is lost.
    Skipped,
    /// The ring is served by the broker: post to its worker.
    Brokered,
    /// The driver cannot go on before this peer's memory is mapped. Nothing is lost.
    NeedPeer(u8),
    /// The port's other side is gone for good.
    Stopped,
    /// The driver failed this time.
    Failed,
}

impl RingHandle {
    /// Slots.
    #[inline]
    #[must_use]
    pub fn num_slots(&self) -> u32 {
        self.shared.num_slots
    }

    /// True if the port's other side is gone for good.
    #[inline]
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.shared.state.sync.stopped.load(Ordering::Relaxed) != 0
    }

    /// Runs one txsync or rxsync: prologue, driver, finalize, under the ring's lock, for attachment `me`.
    pub fn sync(&self, driver: &mut dyn RingDriver, me: u32, flags: SyncFlags) -> SyncOutcome {
        let state = &*self.shared.state;
        if self.is_stopped() {
            return SyncOutcome::Stopped;
        }
        if let Err(holder) = state.sync.lock.try_lock(me) {
            return if holder == BROKER { SyncOutcome::Brokered } else { SyncOutcome::Skipped };
        }
        let outcome = self.sync_locked(driver, me, flags);
        if !state.sync.lock.unlock(me) {
            // The broker has taken the ring over from us.
            return SyncOutcome::Brokered;
        }
        outcome
    }

    fn sync_locked(&self, driver: &mut dyn RingDriver, me: u32, flags: SyncFlags) -> SyncOutcome {
        let state = &*self.shared.state;
        add(state, Stat::Syncs, 1);
        let mut kring = self.load(me);
        let head = self.ring.header.head.load(Ordering::Acquire);
        let cur = self.ring.header.cur.load(Ordering::Relaxed);
        let bad = kring.take(head, cur).err();
        if bad.is_some() {
            add(state, Stat::BadRing, 1);
            self.reinit(&mut kring, head, cur);
            if self.dir == Dir::Tx {
                self.save(&kring);
                return bad.map_or(SyncOutcome::Done, SyncOutcome::BadRing);
            }
        }
        let result = driver.sync(&mut kring);
        // Finalize: what the driver moved is the client's now. Release pairs with the client's load of tail.
        if result.is_ok() || matches!(result, Err(SyncError::NeedPeer(_))) {
            kring.rtail = kring.hwtail;
        }
        // First the state: if we die in between, whoever shares the ring has not seen slots that it would be given again.
        self.save(&kring);
        self.ring.header.tail.store(kring.rtail, Ordering::Release);
        self.stamp(flags);
        match (result, bad) {
            (Ok(()), None) => SyncOutcome::Done,
            (Ok(()), Some(e)) => SyncOutcome::BadRing(e),
            (Err(SyncError::NeedPeer(i)), _) => SyncOutcome::NeedPeer(i),
            (Err(SyncError::Stopped), _) => SyncOutcome::Stopped,
            (Err(SyncError::Failed), _) => SyncOutcome::Failed,
        }
    }

    /// Writes the time of an rxsync into the ring, if that was asked for.
    #[inline]
    pub(crate) fn stamp(&self, flags: SyncFlags) {
        if self.dir == Dir::Rx && flags.contains(SyncFlags::TIMESTAMP) {
            let (sec, usec) = ringway_os::sys::wall_clock();
            self.ring.header.ts_sec.store(sec, Ordering::Relaxed);
            self.ring.header.ts_usec.store(usec, Ordering::Relaxed);
        }
    }

    /// Copies the state into a local ring. A value out of range (a hostile neighbour wrote it) becomes the start of an empty ring.
    #[must_use]
    pub fn load(&self, me: u32) -> Kring<'_> {
        let n = self.num_slots();
        let state = &*self.shared.state;
        let check = |v: u32| if v < n { v } else { 0 };
        let rtail = check(state.sync.rtail.load(Ordering::Relaxed));
        Kring {
            handle: self,
            me,
            hwcur: check(state.owner.hwcur.load()),
            hwtail: rtail,
            rhead: check(state.sync.rhead.load(Ordering::Relaxed)),
            rcur: check(state.sync.rcur.load(Ordering::Relaxed)),
            rtail,
            offsets: self.offsets(),
            packets: 0,
            bytes: 0,
        }
    }

    /// Where packets begin in their buffers.
    #[inline]
    #[must_use]
    pub fn offsets(&self) -> Offsets {
        Offsets::load(&self.shared.state, self.ring.bufs.buf_size())
    }

    /// Stores the engine's copies back, and counts what was received. The driver has published `hwcur` itself.
    #[inline]
    pub(crate) fn save(&self, kring: &Kring<'_>) {
        let state = &*self.shared.state;
        let received = kring.packets | kring.bytes != 0;
        if received {
            note_counts(state, kring.rtail, kring.packets, kring.bytes);
        }
        let sync = &state.sync;
        sync.rhead.store(kring.rhead, Ordering::Relaxed);
        sync.rcur.store(kring.rcur, Ordering::Relaxed);
        sync.rtail.store(kring.rtail, Ordering::Relaxed);
        if received {
            compiler_fence(Ordering::SeqCst);
            add(state, Stat::Packets, kring.packets);
            add(state, Stat::Bytes, kring.bytes);
        }
    }

    /// Sets ring and state to those of a ring that nobody has used: TX all free, RX empty.
    pub fn reset(&self) {
        let n = self.num_slots();
        let tail = if self.dir == Dir::Tx { n - 1 } else { 0 };
        let header = &self.ring.header;
        for word in [&header.head, &header.cur] {
            word.store(0, Ordering::Relaxed);
        }
        header.tail.store(tail, Ordering::Relaxed);
        let state = &self.shared.state;
        state.producer.hwtail.set(0);
        state.owner.hwcur.set(0);
        state.senders.tail.store(0, Ordering::Relaxed);
        state.senders.head.store(0, Ordering::Relaxed);
        state.senders.stalled_at.store(0, Ordering::Relaxed);
        state.sync.rhead.store(0, Ordering::Relaxed);
        state.sync.rcur.store(0, Ordering::Relaxed);
        state.sync.rtail.store(tail, Ordering::Relaxed);
        forget_journal(state);
        Offsets::default().store(state);
        Offsets::default().store_senders(state);
        for (k, slot) in self.ring.slots.iter().enumerate() {
            let word = slot.load();
            self.shared.mirror[k].store(self.valid_buf(word), Ordering::Relaxed);
            self.shared.known[2 * k].store(word.0, Ordering::Relaxed);
            self.shared.known[2 * k + 1].store(slot.ptr(), Ordering::Relaxed);
        }
    }

    /// The slot's buffer if it is one, else 0: the dummy that nobody owns.
    #[inline]
    #[must_use]
    pub(crate) fn valid_buf(&self, word: SlotWord) -> u32 {
        let idx = word.buf_idx();
        if idx >= FIRST_BUF_IDX && idx < self.ring.bufs.count() { idx } else { 0 }
    }

    /// After illegal cursors: bad slots are mended; cursors outside the ring are put back, those inside it stay as
    /// the client left them, to be refused again.
    #[cold]
    pub(crate) fn reinit(&self, kring: &mut Kring<'_>, head: u32, cur: u32) {
        let n = self.num_slots();
        let buf_size = self.ring.bufs.buf_size();
        for slot in self.ring.slots.iter() {
            let word = slot.load();
            if self.valid_buf(word) == 0 {
                slot.store(SlotWord::new(0, 0, word.flags()));
            } else if u32::from(word.len()) > buf_size {
                slot.store(SlotWord::new(word.buf_idx(), 0, word.flags()));
            }
        }
        let header = &self.ring.header;
        let tail = header.tail.load(Ordering::Relaxed);
        if head >= n || cur >= n || tail >= n {
            header.head.store(kring.hwcur, Ordering::Relaxed);
            header.cur.store(kring.hwcur, Ordering::Relaxed);
            header.tail.store(kring.rtail, Ordering::Release);
            kring.rhead = kring.hwcur;
            kring.rcur = kring.hwcur;
        }
    }
}

impl Kring<'_> {
    /// Takes in the client's `head` and `cur`. Returns how many slots it released.
    ///
    /// # Errors
    /// [`CursorError`] if an index leaves the client's window; `self` is then unchanged.
    #[inline]
    pub fn take(&mut self, head: u32, cur: u32) -> Result<u32, CursorError> {
        let n = self.handle.num_slots();
        let window = distance(n, self.rhead, self.rtail);
        if head >= n || distance(n, self.rhead, head) > window {
            return Err(CursorError::Head(head));
        }
        let released = distance(n, self.rhead, head);
        if cur >= n || distance(n, head, cur) > window - released {
            return Err(CursorError::Cur(cur));
        }
        self.rhead = head;
        self.rcur = cur;
        Ok(released)
    }
}

#[cfg(test)]
#[path = "kring_tests.rs"]
pub(crate) mod tests;

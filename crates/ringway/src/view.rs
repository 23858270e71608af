//! What TX and RX views have in common: a window of slots that are ours, and private cursors over it.
//!
//! ```text
//!        head        cur                tail = head + avail
//!          v          v                  v
//!   ...|...|. . . . . |. . . . . . . . . |...     [head, tail) is ours
//!          |-- held --|
//! ```
//!
//! `tail` is loaded once per sync; nothing that another process writes later can move our window or make an index go wrong.

use crate::error::SyncError;
use crate::session::Link;
use ringway_abi::NS_BUF_CHANGED;
use ringway_core::adapter::{RingDriver, SyncFlags};
use ringway_core::kring::{RingHandle, SyncOutcome, distance, forward};
use ringway_core::lease::{EndContext, RingParts};
use ringway_core::offsets::Offsets;
use ringway_core::stats::Counters;
use ringway_os::bytes::{Bufs, Payload};
use ringway_os::ring::{Slot, SlotWord};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Methods of both views that speak of the ring as netmap's structures do.
macro_rules! common {
    ($slot:ident) => {
        /// Its number in the port.
        #[inline]
        #[must_use]
        pub fn index(&self) -> u16 {
            self.0.index()
        }

        /// Slots in the ring. At most one less can be ours.
        #[inline]
        #[must_use]
        pub fn num_slots(&self) -> u32 {
            self.0.num_slots()
        }

        /// Bytes in a buffer.
        #[inline]
        #[must_use]
        pub fn buf_size(&self) -> usize {
            self.0.bufs().buf_size() as usize
        }

        /// Index of the first slot that is ours.
        #[inline]
        #[must_use]
        pub fn head(&self) -> u32 {
            self.0.head()
        }

        /// Index of the wake-up point: a wait is over when slots beyond it are ours.
        #[inline]
        #[must_use]
        pub fn cur(&self) -> u32 {
            self.0.cur()
        }

        /// Index of the first slot that is not ours.
        #[inline]
        #[must_use]
        pub fn tail(&self) -> u32 {
            self.0.tail()
        }

        /// Moves head forward to slot `idx`. `cur` moves along if it would fall behind. False, and nothing moved, if `idx` is
        /// not in `[head, tail]`.
        #[inline]
        pub fn set_head(&mut self, idx: u32) -> bool {
            let to = if idx == self.0.tail() { Some(self.0.avail()) } else { self.0.offset_of(idx) };
            to.map(|k| self.0.advance(k)).is_some()
        }

        /// Moves `cur` to slot `idx`. False, and nothing moved, if `idx` is not in `[head, tail]`.
        #[inline]
        pub fn set_cur(&mut self, idx: u32) -> bool {
            let to = if idx == self.0.tail() { Some(self.0.avail()) } else { self.0.offset_of(idx) };
            to.map(|k| self.0.hold(k)).is_some()
        }

        /// Slot of index `idx`, for programs that count as netmap's rings do; None unless it is ours.
        #[inline]
        #[must_use]
        pub fn slot_at(&self, idx: u32) -> Option<$slot<'_>> {
            self.slot(self.0.offset_of(idx)?)
        }

        /// Buffer index, length and flags of any slot. Outside our window they may mean nothing.
        #[inline]
        #[must_use]
        pub fn peek(&self, idx: u32) -> Option<SlotWord> {
            self.0.peek(idx)
        }

        /// What was counted on this ring, by whoever synced it.
        #[must_use]
        pub fn counters(&self) -> Counters {
            self.0.counters()
        }
    };
}

/// What does not change while a port is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixed {
    /// Tells ports of this process apart.
    pub port: u64,
    /// Nobody else has bound these rings.
    pub exclusive: bool,
}

/// What a slot needs to lend its buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotRef<'a> {
    pub slot: &'a Slot,
    pub bufs: &'a Bufs,
    pub offsets: &'a Offsets,
}

impl<'a> SlotRef<'a> {
    /// The buffer, from the slot's offset on.
    #[inline]
    pub fn buffer(&self) -> Payload<'a> {
        let payload = match self.bufs.payload(self.slot.load().buf_idx()) {
            Some(payload) => payload,
            None => dummy(self.bufs),
        };
        if self.offsets.is_on() { payload.slice(self.offset() as usize, usize::MAX) } else { payload }
    }

    /// Where the packet begins in its buffer.
    #[inline]
    pub fn offset(&self) -> u32 {
        if self.offsets.is_on() { self.offsets.of(self.slot.ptr()) } else { 0 }
    }

    /// True if the slot can say that the packet begins there.
    #[inline]
    pub fn can_say(&self, ofs: u32) -> bool {
        ofs <= self.offsets.max
    }

    /// Says where it begins. False if it cannot.
    #[inline]
    pub fn set_offset(&self, ofs: u32) -> bool {
        if !self.can_say(ofs) {
            return false;
        }
        if self.offsets.is_on() {
            self.slot.set_ptr(self.offsets.put(self.slot.ptr(), ofs));
        }
        true
    }

    /// Stores length and flags, keeping the buffer and the mark that says whether it is another one than before.
    #[inline]
    pub fn set(&self, len: u16, flags: u16) {
        let word = self.slot.load();
        let changed = word.flags() & NS_BUF_CHANGED;
        self.slot.store(SlotWord::new(word.buf_idx(), len, flags & !NS_BUF_CHANGED | changed));
    }

    /// Stores the length.
    #[inline]
    pub fn set_len(&self, len: u16) {
        let word = self.slot.load();
        self.slot.store(SlotWord::new(word.buf_idx(), len, word.flags()));
    }
}

/// Buffer 0, which nobody owns: what a slot with an illegal index (somebody else's scribble) lends.
#[cold]
pub(crate) fn dummy(bufs: &Bufs) -> Payload<'_> {
    // Port::new refuses a region without buffers.
    bufs.payload(0).expect("a region has buffers")
}

/// One ring, borrowed from its port.
pub(crate) struct View<'p> {
    handle: &'p RingHandle,
    driver: &'p mut dyn RingDriver,
    context: EndContext<'p>,
    link: &'p Link,
    slots: &'p [Slot],
    pub fixed: Fixed,
    offsets: Offsets,
    index: u16,
    n: u32,
    head: u32,
    /// Slots that are ours.
    avail: u32,
    /// Of these, slots before `cur`.
    held: u32,
    /// Head or cur moved since they were last published.
    moved: bool,
}

impl<'p> View<'p> {
    pub fn new(parts: RingParts<'p>, context: EndContext<'p>, link: &'p Link, fixed: Fixed) -> Self {
        let RingParts { handle, driver, index } = parts;
        let slots = &handle.ring.slots[..];
        let n = handle.num_slots();
        let mut view = View {
            handle,
            driver,
            context,
            link,
            slots,
            fixed,
            offsets: handle.offsets(),
            index,
            n,
            head: 0,
            avail: 0,
            held: 0,
            moved: false,
        };
        view.reload();
        view
    }

    /// Takes the cursors from shared memory. If they are illegal, nothing is ours until a sync has put them right.
    fn reload(&mut self) {
        let header = &self.handle.ring.header;
        let (head, cur) = (header.head.load(Relaxed), header.cur.load(Relaxed));
        // Acquire: pairs with the engine's release of tail, so that slots before it are visible.
        let tail = header.tail.load(Acquire);
        self.moved = false;
        if head >= self.n || cur >= self.n || tail >= self.n {
            (self.head, self.avail, self.held) = (0, 0, 0);
            return;
        }
        self.head = head;
        self.avail = distance(self.n, head, tail);
        self.held = distance(self.n, head, cur).min(self.avail);
    }

    #[inline]
    pub fn index(&self) -> u16 {
        self.index
    }

    #[inline]
    pub fn num_slots(&self) -> u32 {
        self.n
    }

    #[inline]
    pub fn bufs(&self) -> &'p Bufs {
        &self.handle.ring.bufs
    }

    #[inline]
    pub fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    #[inline]
    pub fn avail(&self) -> u32 {
        self.avail
    }

    #[inline]
    pub fn held(&self) -> u32 {
        self.held
    }

    #[inline]
    pub fn head(&self) -> u32 {
        self.head
    }

    #[inline]
    pub fn cur(&self) -> u32 {
        forward(self.n, self.head, self.held)
    }

    #[inline]
    pub fn tail(&self) -> u32 {
        forward(self.n, self.head, self.avail)
    }

    /// Slot `k` of the window.
    #[inline]
    pub fn slot(&self, k: u32) -> Option<SlotRef<'_>> {
        if k >= self.avail {
            return None;
        }
        let slot = self.slots.get(forward(self.n, self.head, k) as usize)?;
        Some(SlotRef { slot, bufs: self.bufs(), offsets: &self.offsets })
    }

    /// The first `k` slots of the window (at most all) in order, as two straight runs: up to the end of the ring, and from its start.
    #[inline]
    pub fn runs(&self, k: u32) -> [&[Slot]; 2] {
        let k = k.min(self.avail);
        let first = k.min(self.n - self.head);
        // head < n and k < n, so neither is out of range; empty would be harmless.
        let run =
            |from: u32, len: u32| self.slots.get(from as usize..(from + len) as usize).unwrap_or_default();
        [run(self.head, first), run(0, k - first)]
    }

    /// How far slot `idx` of the ring lies in the window, if it does.
    #[inline]
    pub fn offset_of(&self, idx: u32) -> Option<u32> {
        if idx >= self.n {
            return None;
        }
        let k = distance(self.n, self.head, idx);
        (k < self.avail).then_some(k)
    }

    /// Any slot of the ring, to look at.
    #[inline]
    pub fn peek(&self, idx: u32) -> Option<SlotWord> {
        self.slots.get(idx as usize).map(Slot::load)
    }

    /// Gives `k` slots, at most all, to the engine (with the next sync). Returns how many.
    #[inline]
    pub fn advance(&mut self, k: u32) -> u32 {
        let k = k.min(self.avail);
        self.head = forward(self.n, self.head, k);
        self.avail -= k;
        self.held = self.held.saturating_sub(k);
        self.moved = true;
        k
    }

    /// Sets `cur` to `k` slots beyond `head`, at most all.
    #[inline]
    pub fn hold(&mut self, k: u32) -> u32 {
        self.held = k.min(self.avail);
        self.moved = true;
        self.held
    }

    /// Makes our cursors visible to the engine.
    #[inline]
    pub fn publish(&mut self) {
        if self.moved {
            let header = &self.handle.ring.header;
            header.cur.store(self.cur(), Relaxed);
            // Release: the slots before head are visible to whoever loads it.
            header.head.store(self.head, Release);
            self.moved = false;
        }
    }

    #[inline]
    pub fn sync(&mut self, flags: SyncFlags) -> Result<(), SyncError> {
        self.publish();
        let (me, is_due) = self.link.enter_now()?;
        let mut source = self.link;
        let outcome = self.context.sync(self.handle, self.driver, me, flags, &mut source);
        self.reload();
        if is_due {
            self.link.look_at_clock()?;
        }
        settle(outcome, self.handle, self.index)
    }

    pub fn counters(&self) -> Counters {
        Counters::read(&self.handle.shared.state)
    }

    /// Seconds and microseconds of the wall clock at the last receive sync.
    pub fn timestamp(&self) -> (u64, u64) {
        let header = &self.handle.ring.header;
        (header.ts_sec.load(Relaxed), header.ts_usec.load(Relaxed))
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        self.publish();
    }
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} ring {}: {} slots, head {}, cur {}, tail {}",
            self.handle.dir,
            self.index,
            self.n,
            self.head,
            self.cur(),
            self.tail()
        )
    }
}

/// What a sync's outcome means to the caller. Skipped: another thread is at it. Brokered: the broker has the ring for a moment (it
/// repairs what a dead process left).
#[inline]
pub(crate) fn settle(outcome: SyncOutcome, handle: &RingHandle, ring: u16) -> Result<(), SyncError> {
    match outcome {
        SyncOutcome::Done | SyncOutcome::Skipped | SyncOutcome::Brokered => Ok(()),
        SyncOutcome::BadRing(cursor) => Err(SyncError::BadRing { dir: handle.dir, ring, cursor }),
        SyncOutcome::Stopped => Err(SyncError::Stopped),
        SyncOutcome::Failed | SyncOutcome::NeedPeer(_) => Err(SyncError::Failed),
    }
}

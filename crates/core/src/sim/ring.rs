//! A bound ring, and the client that works on it.

use super::{FIRST_ATTACHMENT, Memory};
use crate::adapter::null::Null;
use crate::adapter::{RingDriver, SyncFlags};
use crate::kring::{RingHandle, SyncOutcome, distance, forward, next};
use crate::layout::{Dir, Geometry, RingShared, state_memfd_bytes};
use crate::stats::Counters;
use ringway_abi::ring::NS_MOREFRAG;
use ringway_os::mem::Map;
use ringway_os::ring::SlotWord;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// What was in one received slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// `len` bytes of its buffer.
    pub bytes: Vec<u8>,
    /// `NS_*` flags.
    pub flags: u16,
    /// Its buffer.
    pub buf_idx: u32,
    /// The `ptr` field.
    pub ptr: u64,
}

/// Received slots, grouped into packets by NS_MOREFRAG.
#[must_use]
pub fn packets(frames: &[Frame]) -> Vec<Vec<Frame>> {
    frames.split_inclusive(|f| f.flags & NS_MOREFRAG == 0).map(<[Frame]>::to_vec).collect()
}

/// A bound ring with its driver, and the client that works on it.
pub struct SimRing {
    /// The ring.
    pub handle: RingHandle,
    /// What serves it.
    pub driver: Box<dyn RingDriver>,
    /// The attachment's number.
    pub me: u32,
}

impl std::fmt::Debug for SimRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (dir, head, cur, tail) = (self.handle.dir, self.head(), self.cur(), self.tail());
        write!(f, "SimRing({dir:?} of {}, head {head} cur {cur} tail {tail})", self.num_slots())
    }
}

impl SimRing {
    /// A lone ring of `slots` slots served by a null driver, for tests of the ring itself.
    #[must_use]
    pub fn lone(dir: Dir, slots: u32, buf_size: u32) -> Self {
        let geometry = Geometry { tx_rings: 1, rx_rings: 1, tx_slots: slots, rx_slots: slots };
        let state = Map::anonymous(state_memfd_bytes(&geometry)).expect("memory");
        let shared = RingShared::new(&state, &geometry, dir, 0).expect("the state fits");
        let handle = Memory::new(1, slots, buf_size, 0).ring(shared, dir, 0, None);
        SimRing { handle, driver: Box::new(Null), me: FIRST_ATTACHMENT }
    }

    /// Slots.
    #[must_use]
    pub fn num_slots(&self) -> u32 {
        self.handle.num_slots()
    }

    /// `ring->head`.
    #[must_use]
    pub fn head(&self) -> u32 {
        self.handle.ring.header.head.load(Relaxed)
    }

    /// `ring->cur`.
    #[must_use]
    pub fn cur(&self) -> u32 {
        self.handle.ring.header.cur.load(Relaxed)
    }

    /// `ring->tail`.
    #[must_use]
    pub fn tail(&self) -> u32 {
        self.handle.ring.header.tail.load(Acquire)
    }

    /// Sets `head` and `cur`, whatever they are.
    pub fn set(&self, head: u32, cur: u32) {
        self.handle.ring.header.cur.store(cur, Relaxed);
        self.handle.ring.header.head.store(head, Release);
    }

    /// Slots that the client may use: free ones of a TX ring, received ones of an RX ring.
    #[must_use]
    pub fn avail(&self) -> u32 {
        distance(self.num_slots(), self.head(), self.tail())
    }

    /// The slot `k`.
    #[must_use]
    pub fn slot(&self, k: u32) -> SlotWord {
        self.handle.ring.slots[k as usize].load()
    }

    /// Sends `word` and `ptr` in the next slot. False if there is none.
    pub fn put_word(&self, word: SlotWord, ptr: u64) -> bool {
        if self.avail() == 0 {
            return false;
        }
        let head = self.head();
        let slot = &self.handle.ring.slots[head as usize];
        slot.store(word);
        slot.set_ptr(ptr);
        let head = next(self.num_slots(), head);
        self.set(head, head);
        true
    }

    /// Sends `bytes` in the next slot, in the buffer that is there. False if there is none.
    pub fn put(&self, bytes: &[u8], flags: u16) -> bool {
        if self.avail() == 0 {
            return false;
        }
        let idx = self.slot(self.head()).buf_idx();
        let copied = self.handle.ring.bufs.payload(idx).expect("a buffer").copy_from(bytes);
        assert_eq!(copied, bytes.len(), "a frame above the buffer size");
        self.put_word(SlotWord::new(idx, bytes.len() as u16, flags), 0)
    }

    /// Sends one packet of several slots, all or nothing.
    pub fn put_packet(&self, parts: &[Vec<u8>], flags: u16) -> bool {
        if (self.avail() as usize) < parts.len() {
            return false;
        }
        for (i, part) in parts.iter().enumerate() {
            let more = if i + 1 < parts.len() { NS_MOREFRAG } else { 0 };
            self.put(part, flags | more);
        }
        true
    }

    /// Looks at what was received, releasing nothing.
    #[must_use]
    pub fn peek(&self) -> Vec<Frame> {
        let n = self.num_slots();
        let head = self.head();
        (0..self.avail())
            .map(|i| {
                let slot = &self.handle.ring.slots[forward(n, head, i) as usize];
                let word = slot.load();
                let payload = self.handle.ring.bufs.payload(word.buf_idx());
                let bytes = payload.map_or_else(Vec::new, |p| p.slice(0, word.len().into()).to_vec());
                Frame { bytes, flags: word.flags(), buf_idx: word.buf_idx(), ptr: slot.ptr() }
            })
            .collect()
    }

    /// Takes up to `max` received slots; the next sync gives them back.
    pub fn take(&self, max: u32) -> Vec<Frame> {
        let mut frames = self.peek();
        frames.truncate(max as usize);
        let head = forward(self.num_slots(), self.head(), frames.len() as u32);
        self.set(head, head);
        frames
    }

    /// txsync or rxsync, once.
    pub fn sync(&mut self) -> SyncOutcome {
        self.handle.sync(self.driver.as_mut(), self.me, SyncFlags::empty())
    }

    /// Syncs, takes up to `max` received slots, and syncs again.
    pub fn receive(&mut self, max: u32) -> Vec<Frame> {
        self.sync();
        let frames = self.take(max);
        self.sync();
        frames
    }

    /// Its counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::read(&self.handle.shared.state)
    }
}

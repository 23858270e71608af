//! A program's side of a ring, on the engine's types.

use super::bed::{SLOTS, mac};
use super::case::Case;
use ringway_core::adapter::{RingDriver, SyncFlags};
use ringway_core::kring::{RingHandle, distance};
use ringway_os::ring::SlotWord;
use std::hint::black_box;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Most slots that a receiver releases at once.
pub const RX_BURST: u32 = 256;
/// A sender waits for room for its batch, but never for more than this.
const TX_ROOM: u32 = 512;

/// A client's side of a ring.
pub struct Client {
    handle: RingHandle,
    driver: Box<dyn RingDriver>,
    head: u32,
    pub packets: u64,
    dst: u32,
    src: u32,
}

impl Client {
    pub fn new(handle: RingHandle, driver: Box<dyn RingDriver>) -> Self {
        Client { handle, driver, head: 0, packets: 0, dst: 0, src: 0 }
    }

    fn space(&self) -> u32 {
        distance(SLOTS, self.head, self.handle.ring.header.tail.load(Acquire))
    }

    fn sync(&mut self) {
        let header = &self.handle.ring.header;
        header.cur.store(self.head, Relaxed);
        header.head.store(self.head, Release);
        black_box(self.handle.sync(&mut *self.driver, 2, SyncFlags::empty()));
    }

    /// Fills a batch and sends it; returns how many slots.
    pub fn send(&mut self, case: &Case) -> u32 {
        let want = case.batch.min(TX_ROOM);
        if self.space() < want {
            self.sync();
            if self.space() < want {
                return 0;
            }
        }
        let count = case.batch.min(self.space());
        let (slots, bufs) = (&self.handle.ring.slots[..], &self.handle.ring.bufs);
        let mut at = self.head;
        for _ in 0..count {
            let slot = &slots[at as usize];
            let idx = slot.load().buf_idx();
            slot.store(SlotWord::new(idx, case.len as u16, 0));
            if (case.touch || case.dsts > 0)
                && let Some(p) = bufs.payload(idx)
            {
                let (mut d, mut s) = (mac(1, 0), mac(0, 0));
                if case.dsts > 0 {
                    (d, s) = (mac(1, self.dst), mac(0, self.src));
                    self.dst = if self.dst + 1 >= case.dsts { 0 } else { self.dst + 1 };
                    self.src = if self.src + 1 >= case.srcs { 0 } else { self.src + 1 };
                }
                p.store_u64(0, d | s << 48);
                p.store_u64(8, s >> 16 | 0x0008 << 32);
                if case.touch {
                    for word in 2..case.len as usize / 8 {
                        p.store_u64(8 * word, u64::from(at));
                    }
                }
            }
            at = if at + 1 == SLOTS { 0 } else { at + 1 };
        }
        self.head = at;
        self.sync();
        self.packets += u64::from(count);
        count
    }

    /// Syncs and takes what is there; returns how many slots.
    pub fn receive(&mut self, case: &Case) -> u32 {
        self.sync();
        let count = self.space().min(RX_BURST);
        if count == 0 {
            return 0;
        }
        let (slots, bufs) = (&self.handle.ring.slots[..], &self.handle.ring.bufs);
        let mut sum = 0;
        let mut at = self.head;
        for _ in 0..count {
            let word = slots[at as usize].load();
            sum += u64::from(word.len());
            if case.touch
                && let Some(p) = bufs.payload(word.buf_idx())
            {
                for i in 0..word.len() as usize / 8 {
                    sum = sum.wrapping_add(p.load_u64(8 * i).unwrap_or(0));
                }
            }
            at = if at + 1 == SLOTS { 0 } else { at + 1 };
        }
        black_box(sum);
        self.head = at;
        self.packets += u64::from(count);
        count
    }
}

//! Memory for ports.

use crate::kring::RingHandle;
use crate::layout::{Dir, PoolWish, RegionLayout, RegionWish, RingShared, RingView, region_bufs};
use ringway_abi::ring::FIRST_BUF_IDX;
use ringway_os::bytes::Bufs;
use ringway_os::mem::Map;
use ringway_os::ring::SlotWord;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A private region from which rings and buffers are given out in order, and never taken back.
#[derive(Debug)]
pub struct Memory {
    /// Its layout.
    pub layout: RegionLayout,
    /// Its bytes.
    pub map: Arc<Map>,
    rings: u32,
    next_buf: u32,
}

impl Memory {
    /// A region for `rings` rings of up to `slots` slots, whose buffers have `buf_size` bytes, with `extra` buffers besides.
    #[must_use]
    pub fn new(rings: u32, slots: u32, buf_size: u32, extra: u32) -> Self {
        let wish = RegionWish {
            ifs: PoolWish { objsize: 1024, objtotal: 1 },
            rings: PoolWish { objsize: 256 + 16 * slots, objtotal: rings.max(2) },
            bufs: PoolWish { objsize: buf_size, objtotal: (rings * slots + extra + FIRST_BUF_IDX).max(4) },
        };
        let layout = wish.lay_out(true).expect("sizes within the permitted ranges");
        let map = Map::anonymous(layout.memsize as usize).expect("memory");
        Memory { layout, map, rings: 0, next_buf: FIRST_BUF_IDX }
    }

    /// The buffers.
    #[must_use]
    pub fn bufs(&self) -> Bufs {
        region_bufs(&self.map, &self.layout).expect("the layout is that of the map")
    }

    /// The indexes given out so far.
    #[must_use]
    pub fn given(&self) -> std::ops::Range<u32> {
        FIRST_BUF_IDX..self.next_buf
    }

    /// Gives out one buffer.
    pub fn take_buf(&mut self) -> u32 {
        assert!(self.next_buf < self.layout.bufs.objtotal, "the region has no more buffers");
        self.next_buf += 1;
        self.next_buf - 1
    }

    /// Makes a ring with a buffer in every slot: fresh ones, or those of `like`'s slots. It is reset.
    pub fn ring(
        &mut self,
        shared: RingShared,
        dir: Dir,
        index: u16,
        like: Option<&RingHandle>,
    ) -> RingHandle {
        let at = self.layout.rings;
        assert!(self.rings < at.objtotal, "the region has no more rings");
        let ofs = at.offset + u64::from(self.rings) * u64::from(at.objsize);
        self.rings += 1;
        let ring = RingView::new(&self.map, &self.layout, ofs, shared.num_slots).expect("the ring fits");
        let buf_size = self.layout.bufs.objsize;
        ring.header.buf_ofs.store(self.layout.bufs.offset.wrapping_sub(ofs), Relaxed);
        ring.header.num_slots.store(shared.num_slots, Relaxed);
        ring.header.nr_buf_size.store(buf_size, Relaxed);
        ring.header.ringid_dir.store(u32::from(index) | u32::from(dir == Dir::Tx) << 16, Relaxed);
        let len = u16::try_from(buf_size).unwrap_or(u16::MAX);
        for (k, slot) in ring.slots.iter().enumerate() {
            let idx = like.map_or_else(|| self.take_buf(), |l| l.ring.slots[k].load().buf_idx());
            slot.store(SlotWord::new(idx, len, 0));
        }
        let handle = RingHandle { ring, shared, dir };
        handle.reset();
        handle
    }
}

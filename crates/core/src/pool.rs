//! A region: three pools of objects, who has which, and the shared structures written into them.
//!
//! The books (which object is free) are private to whoever keeps the registry; clients see only the memory.
//!
//! Source: abi.md 14, semantics.md 11 and 12; `sys/dev/netmap/netmap_mem2.c`.

use crate::layout::{Dir, RegionLayout, RingView, region_bufs};
use ringway_abi::ring::{FIRST_BUF_IDX, NI_PRIV_MEM};
use ringway_os::bytes::Bufs;
use ringway_os::mem::{Map, Memfd, SharedRef, SharedSlice};
use ringway_os::ring::{IfHeader, RING_HEADER_BYTES, SlotWord};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Shared memory with the file behind it, so that it can be handed on.
#[derive(Clone, Debug)]
pub struct Shm {
    /// The file.
    pub memfd: Arc<Memfd>,
    /// This process's map of it.
    pub map: Arc<Map>,
}

impl Shm {
    /// Makes and maps a sealed memfd.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn create(name: &str, len_bytes: usize) -> io::Result<Self> {
        Self::from_memfd(Memfd::create(name, len_bytes)?)
    }

    /// Maps a memfd.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn from_memfd(memfd: Memfd) -> io::Result<Self> {
        let map = memfd.map()?;
        Ok(Shm { memfd: Arc::new(memfd), map })
    }
}

/// Which objects of a pool are taken; the lowest free one is given first.
#[derive(Clone, Debug)]
struct Books {
    words: Vec<u64>,
    total: u32,
    free: u32,
    /// No free object lies in a word before this one.
    hint: usize,
}

impl Books {
    fn new(total: u32, reserved: u32) -> Self {
        let mut books = Books { words: vec![0; (total as usize).div_ceil(64)], total, free: total, hint: 0 };
        for i in 0..reserved.min(total) {
            books.words[i as usize / 64] |= 1 << (i % 64);
            books.free -= 1;
        }
        books
    }

    fn is_taken(&self, i: u32) -> bool {
        i < self.total && self.words[i as usize / 64] >> (i % 64) & 1 == 1
    }

    fn take(&mut self) -> Option<u32> {
        while let Some(word) = self.words.get_mut(self.hint) {
            let bit = word.trailing_ones();
            let i = self.hint as u32 * 64 + bit;
            if bit < 64 && i < self.total {
                *word |= 1 << bit;
                self.free -= 1;
                return Some(i);
            }
            self.hint += 1;
        }
        None
    }

    /// Frees object `i`; false if it was free or does not exist.
    fn give(&mut self, i: u32) -> bool {
        if !self.is_taken(i) {
            return false;
        }
        self.words[i as usize / 64] &= !(1 << (i % 64));
        self.free += 1;
        self.hint = self.hint.min(i as usize / 64);
        true
    }
}

/// A set of buffers of one region.
#[derive(Clone, Debug)]
pub struct BufSet {
    words: Vec<u64>,
    total: u32,
}

impl BufSet {
    /// An empty one, for a region of `total` buffers.
    #[must_use]
    pub fn new(total: u32) -> Self {
        BufSet { words: vec![0; (total as usize).div_ceil(64)], total }
    }

    /// Puts buffer `idx` in; false if it is in already, or there is none.
    pub fn insert(&mut self, idx: u32) -> bool {
        let new = idx < self.total && !self.contains(idx);
        if new {
            self.words[idx as usize / 64] |= 1 << (idx % 64);
        }
        new
    }

    /// True if it is in.
    #[must_use]
    pub fn contains(&self, idx: u32) -> bool {
        idx < self.total && self.words[idx as usize / 64] >> (idx % 64) & 1 == 1
    }
}

/// A region.
#[derive(Debug)]
pub struct Region {
    /// Its memory.
    pub shm: Shm,
    /// Its pools.
    pub layout: RegionLayout,
    /// Not the global one.
    pub private: bool,
    bufs: Bufs,
    if_books: Books,
    ring_books: Books,
    buf_books: Books,
}

/// No object of this kind is left in the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// Interface records.
    Interfaces,
    /// The list of rings does not fit an interface record.
    InterfaceSize,
    /// Rings.
    Rings,
    /// A ring of that many slots does not fit its object.
    RingSize,
    /// Buffers.
    Buffers,
}

impl Exhausted {
    /// The tunable that raises the limit, without its prefix.
    #[must_use]
    pub fn tunable(self) -> &'static str {
        match self {
            Exhausted::Interfaces => "if_num",
            Exhausted::InterfaceSize => "if_size",
            Exhausted::Rings => "ring_num",
            Exhausted::RingSize => "ring_size",
            Exhausted::Buffers => "buf_num",
        }
    }
}

impl Region {
    /// Makes one. Nothing of it is touched yet.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn create(name: &str, layout: RegionLayout, private: bool) -> io::Result<Self> {
        Self::over(Shm::create(name, layout.memsize as usize)?, layout, private)
    }

    /// As [`Region::create`], in memory that is there, which is left as it is.
    ///
    /// # Errors
    /// EINVAL if the layout does not fit it.
    pub fn over(shm: Shm, layout: RegionLayout, private: bool) -> io::Result<Self> {
        if layout.memsize > shm.map.len_bytes() as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let bufs = region_bufs(&shm.map, &layout).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Region {
            if_books: Books::new(layout.ifs.objtotal, 0),
            ring_books: Books::new(layout.rings.objtotal, 0),
            buf_books: Books::new(layout.bufs.objtotal, FIRST_BUF_IDX),
            shm,
            layout,
            private,
            bufs,
        })
    }

    /// Its buffers.
    #[must_use]
    pub fn bufs(&self) -> &Bufs {
        &self.bufs
    }

    /// Buffers that nobody has.
    #[must_use]
    pub(crate) fn free_bufs(&self) -> u32 {
        self.buf_books.free
    }

    /// True if somebody has buffer `idx`.
    #[must_use]
    pub(crate) fn is_buf_taken(&self, idx: u32) -> bool {
        self.buf_books.is_taken(idx)
    }

    /// Takes a buffer.
    pub(crate) fn take_buf(&mut self) -> Option<u32> {
        self.buf_books.take()
    }

    /// Gives a buffer back; false if `idx` is none, or nobody had it.
    pub(crate) fn give_buf(&mut self, idx: u32) -> bool {
        idx >= FIRST_BUF_IDX && self.buf_books.give(idx)
    }

    /// Takes a ring object for `num_slots` slots, fills its header and gives each slot a buffer if `with_bufs`. Returns its
    /// offset in the region.
    ///
    /// # Errors
    /// [`Exhausted`]; nothing is taken then.
    pub(crate) fn make_ring(
        &mut self,
        dir: Dir,
        ringid: u16,
        num_slots: u32,
        with_bufs: bool,
    ) -> Result<u64, Exhausted> {
        if RING_HEADER_BYTES as u64 + 16 * u64::from(num_slots) > u64::from(self.layout.rings.objsize) {
            return Err(Exhausted::RingSize);
        }
        if with_bufs && self.buf_books.free < num_slots {
            return Err(Exhausted::Buffers);
        }
        let obj = self.ring_books.take().ok_or(Exhausted::Rings)?;
        let ofs = self.layout.rings.offset + u64::from(obj) * u64::from(self.layout.rings.objsize);
        let Some(ring) = RingView::new(&self.shm.map, &self.layout, ofs, num_slots) else {
            self.ring_books.give(obj);
            return Err(Exhausted::Rings);
        };
        let h = &ring.header;
        h.buf_ofs.store(self.layout.bufs.offset.wrapping_sub(ofs), Relaxed);
        h.num_slots.store(num_slots, Relaxed);
        h.nr_buf_size.store(self.layout.bufs.objsize, Relaxed);
        h.ringid_dir.store(u32::from(ringid) | u32::from(dir == Dir::Tx) << 16, Relaxed);
        for word in [&h.head, &h.cur, &h.tail, &h.flags] {
            word.store(0, Relaxed);
        }
        for word in [&h.ts_sec, &h.ts_usec, &h.offset_mask, &h.buf_align] {
            word.store(0, Relaxed);
        }
        let len = u16::try_from(self.layout.bufs.objsize).unwrap_or(u16::MAX);
        for slot in ring.slots.iter() {
            let idx = if with_bufs { self.buf_books.take().unwrap_or(0) } else { 0 };
            slot.store(SlotWord::new(idx, len, 0));
            slot.set_ptr(0);
        }
        Ok(ofs)
    }

    /// The view of a ring made by `make_ring`.
    #[must_use]
    pub fn ring(&self, ofs: u64, num_slots: u32) -> Option<RingView> {
        RingView::new(&self.shm.map, &self.layout, ofs, num_slots)
    }

    /// Gives a ring object back, not its buffers.
    pub(crate) fn drop_ring(&mut self, ofs: u64) {
        let obj = (ofs - self.layout.rings.offset) / u64::from(self.layout.rings.objsize);
        self.ring_books.give(obj as u32);
    }

    /// Takes an interface record and fills it. `ring_ofs`: TX then RX, each followed by one host entry, offsets in the region,
    /// 0 where not bound. Returns its offset.
    ///
    /// # Errors
    /// [`Exhausted::Interfaces`], [`Exhausted::InterfaceSize`].
    pub(crate) fn make_if(&mut self, name: &str, tx: &[u64], rx: &[u64]) -> Result<u64, Exhausted> {
        let entries = tx.len() + 1 + rx.len() + 1;
        if size_of::<IfHeader>() + 8 * entries > self.layout.ifs.objsize as usize {
            return Err(Exhausted::InterfaceSize);
        }
        let obj = self.if_books.take().ok_or(Exhausted::Interfaces)?;
        let ofs = self.layout.ifs.offset + u64::from(obj) * u64::from(self.layout.ifs.objsize);
        let at = ofs as usize;
        let views = SharedRef::<IfHeader>::new(&self.shm.map, at).zip(SharedSlice::<AtomicU64>::new(
            &self.shm.map,
            at + size_of::<IfHeader>(),
            entries,
        ));
        let Some((header, offsets)) = views else {
            self.if_books.give(obj);
            return Err(Exhausted::Interfaces);
        };
        let mut bytes = [0u8; 16];
        for (b, c) in bytes.iter_mut().zip(name.bytes().take(15)) {
            *b = c;
        }
        for (word, chunk) in header.ni_name.iter().zip(bytes.as_chunks::<4>().0) {
            word.store(u32::from_ne_bytes(*chunk), Relaxed);
        }
        header.ni_version.store(0, Relaxed);
        header.ni_flags.store(if self.private { NI_PRIV_MEM } else { 0 }, Relaxed);
        header.ni_tx_rings.store(tx.len() as u32, Relaxed);
        header.ni_rx_rings.store(rx.len() as u32, Relaxed);
        header.ni_bufs_head.store(0, Relaxed);
        header.ni_host_tx_rings.store(1, Relaxed);
        header.ni_host_rx_rings.store(1, Relaxed);
        let list = tx.iter().chain([&0]).chain(rx).chain([&0]);
        for (entry, ring) in offsets.iter().zip(list) {
            entry.store(if *ring == 0 { 0 } else { ring.wrapping_sub(ofs) }, Relaxed);
        }
        Ok(ofs)
    }

    /// Gives an interface record back.
    pub(crate) fn drop_if(&mut self, ofs: u64) {
        self.if_books.give(((ofs - self.layout.ifs.offset) / u64::from(self.layout.ifs.objsize)) as u32);
    }

    fn bufs_head(&self, if_ofs: u64) -> Option<SharedRef<IfHeader>> {
        SharedRef::new(&self.shm.map, if_ofs as usize)
    }

    /// Takes up to `wanted` buffers and links them at the record's `ni_bufs_head`: the first word of each names the next, 0
    /// ends. Returns how many.
    pub fn take_extra(&mut self, if_ofs: u64, wanted: u32) -> u32 {
        let mut head = 0;
        let mut got = 0;
        while got < wanted {
            let Some(idx) = self.buf_books.take() else { break };
            if let Some(payload) = self.bufs.payload(idx) {
                payload.store_u32(0, head);
            }
            head = idx;
            got += 1;
        }
        if let Some(header) = self.bufs_head(if_ofs) {
            header.ni_bufs_head.store(head, Relaxed);
        }
        got
    }

    /// Takes the buffers on the record's list off it, whatever the application put there; they stay taken.
    pub(crate) fn take_list(&self, if_ofs: u64) -> Vec<u32> {
        let list = self.list_extra(if_ofs);
        if let Some(header) = self.bufs_head(if_ofs) {
            header.ni_bufs_head.store(0, Relaxed);
        }
        list
    }

    /// The buffers on the record's list, up to the first that is no buffer, nobody's, or on it already.
    #[must_use]
    pub(crate) fn list_extra(&self, if_ofs: u64) -> Vec<u32> {
        let mut out = vec![];
        let mut idx = self.bufs_head(if_ofs).map_or(0, |h| h.ni_bufs_head.load(Relaxed));
        if idx < FIRST_BUF_IDX {
            return out;
        }
        let mut seen = BufSet::new(self.layout.bufs.objtotal);
        while idx >= FIRST_BUF_IDX && self.is_buf_taken(idx) && seen.insert(idx) {
            out.push(idx);
            idx = self.bufs.payload(idx).and_then(|p| p.load_u32(0)).unwrap_or(0);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{PoolWish, RegionWish};

    fn region(bufs: u32) -> Region {
        let layout = RegionWish {
            ifs: PoolWish { objsize: 1024, objtotal: 2 },
            rings: PoolWish { objsize: 4096, objtotal: 4 },
            bufs: PoolWish { objsize: 2112, objtotal: bufs },
        }
        .lay_out(true)
        .unwrap();
        Region::create("test", layout, true).unwrap()
    }

    #[test]
    fn a_fresh_region_gives_buffers_from_two_upwards_in_slot_order() {
        let mut r = region(200);
        let ofs = r.make_ring(Dir::Rx, 0, 64, true).unwrap();
        let ring = r.ring(ofs, 64).unwrap();
        let got: Vec<u32> = ring.slots.iter().map(|s| s.load().buf_idx()).collect();
        assert_eq!(got, (2..66).collect::<Vec<_>>());
        assert_eq!(ring.slots[0].load().len(), 2112);
        let tx = r.make_ring(Dir::Tx, 0, 64, true).unwrap();
        assert_eq!(r.ring(tx, 64).unwrap().slots[0].load().buf_idx(), 66);
        assert_eq!(r.ring(tx, 64).unwrap().header.ringid_dir.load(Relaxed), 1 << 16);
    }

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let mut r = region(64);
        assert_eq!(r.make_ring(Dir::Rx, 0, 241, true), Err(Exhausted::RingSize));
        let free = r.free_bufs();
        assert_eq!(r.make_ring(Dir::Rx, 0, free + 1, true), Err(Exhausted::Buffers));
        assert_eq!(r.free_bufs(), free);
        r.make_ring(Dir::Rx, 0, free, true).unwrap();
        assert_eq!(r.free_bufs(), 0);
        assert_eq!(r.make_if("vale0:a", &[0; 500], &[0]), Err(Exhausted::InterfaceSize));
    }

    #[test]
    fn extra_buffers_come_linked_and_go_back_whatever_the_list_says() {
        let mut r = region(64);
        let free = r.free_bufs();
        let ifp = r.make_if("vale0:a", &[0], &[0]).unwrap();
        assert_eq!(r.take_extra(ifp, 16), 16);
        let list = r.list_extra(ifp);
        assert_eq!(list.len(), 16);
        assert!(list.windows(2).all(|w| w[0] > w[1]), "last taken first: {list:?}");
        // A hostile list: a loop. Each buffer goes back once.
        r.bufs().payload(*list.last().unwrap()).unwrap().store_u32(0, list[0]);
        let back = r.take_list(ifp);
        assert_eq!(back, list);
        assert!(r.take_list(ifp).is_empty());
        assert!(back.into_iter().all(|idx| r.give_buf(idx)));
        assert_eq!(r.free_bufs(), free);
        assert_eq!(r.take_extra(ifp, 1000), free);
    }
}

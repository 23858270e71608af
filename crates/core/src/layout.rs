//! Where things lie: pools in a region, rings in a state memfd.
//!
//! Both are computed from a few numbers, the same way by whoever maps the memory: nothing about a layout is ever read from
//! memory that another process may write.
//!
//! Source: sizes and rounding of pools as in `sys/dev/netmap/netmap_mem2.c` (`netmap_config_obj_allocator`).

use ringway_abi::ring::FIRST_BUF_IDX;
use ringway_os::bytes::Bufs;
use ringway_os::mem::{Map, SharedRef, SharedSlice, page_size};
use ringway_os::ring::{RING_HEADER_BYTES, RingHeader, Slot};
use ringway_os::state::RingState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// A cluster of objects has at most this many bytes.
const CLUSTER_MAX_BYTES: usize = 4 << 20;

/// What is asked of a pool: object size in bytes, number of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolWish {
    /// Bytes in an object.
    pub objsize: u32,
    /// Objects.
    pub objtotal: u32,
}

/// Permitted values of a pool's wish.
#[derive(Clone, Debug)]
struct Range {
    size: std::ops::RangeInclusive<u32>,
    total: std::ops::RangeInclusive<u32>,
}

/// One pool as laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolLayout {
    /// Bytes from the start of the region.
    pub offset: u64,
    /// Bytes in an object.
    pub objsize: u32,
    /// Objects.
    pub objtotal: u32,
}

/// The three pools of a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionLayout {
    /// Interface records.
    pub ifs: PoolLayout,
    /// Rings.
    pub rings: PoolLayout,
    /// Buffers.
    pub bufs: PoolLayout,
    /// Bytes in all.
    pub memsize: u64,
}

/// A pool size that cannot be used; the name is that of the tunable without its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPool {
    /// `if_size`, `ring_num` and so on.
    pub name: &'static str,
    /// The value refused.
    pub value: u32,
}

/// What is asked of the three pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionWish {
    /// Interface records.
    pub ifs: PoolWish,
    /// Rings.
    pub rings: PoolWish,
    /// Buffers.
    pub bufs: PoolWish,
}

impl RegionWish {
    /// The wish for the private region of one port, never less than `floor` (the `priv_*` tunables).
    ///
    /// Source: `netmap_mem_private_new`; formula in tunables.md 5.
    #[must_use]
    pub fn for_port(floor: &RegionWish, geometry: &Geometry, pipes: u32, extra_bufs: u32) -> Self {
        let (txr, rxr) = (u32::from(geometry.tx_rings), u32::from(geometry.rx_rings));
        let slots = geometry.tx_slots.max(geometry.rx_slots);
        let bufs = (4 * pipes + rxr + 1) * geometry.rx_slots + (4 * pipes + txr + 1) * geometry.tx_slots;
        RegionWish {
            ifs: PoolWish { objsize: floor.ifs.objsize, objtotal: floor.ifs.objtotal.max(2 + 4 * pipes) },
            rings: PoolWish {
                objsize: floor.rings.objsize.max(RING_HEADER_BYTES as u32 + 16 * slots),
                objtotal: floor.rings.objtotal.max(txr + 1 + rxr + 1 + 8 * pipes),
            },
            bufs: PoolWish {
                objsize: floor.bufs.objsize,
                objtotal: floor.bufs.objtotal.max(bufs + 2 + extra_bufs),
            },
        }
    }

    /// Lays the pools out one behind the other. `private` selects the permitted ranges.
    ///
    /// # Errors
    /// [`BadPool`] for a value out of range.
    pub fn lay_out(&self, private: bool) -> Result<RegionLayout, BadPool> {
        let num_if = if private { 1..=100 } else { 10..=10_000 };
        let ifs = pool(self.ifs, ["if_size", "if_num"], &Range { size: 56..=4096, total: num_if })?;
        let rings =
            pool(self.rings, ["ring_size", "ring_num"], &Range { size: 256..=131_072, total: 2..=1024 })?;
        let bufs =
            pool(self.bufs, ["buf_size", "buf_num"], &Range { size: 64..=65_536, total: 4..=1_000_000 })?;
        let mut ofs = 0;
        let mut place = |p: PoolWish| {
            let at = PoolLayout { offset: ofs, objsize: p.objsize, objtotal: p.objtotal };
            ofs += u64::from(p.objsize) * u64::from(p.objtotal);
            at
        };
        let (ifs, rings, bufs) = (place(ifs), place(rings), place(bufs));
        Ok(RegionLayout { ifs, rings, bufs, memsize: ofs })
    }
}

/// Objects in a pool of a client's memory, at most: the keeper's books take memory for each.
const MAX_OBJECTS: u64 = 1 << 24;

impl RegionWish {
    /// Lays the pools out in `memsize` bytes of a client: sizes and numbers as they are, each pool on a page of its own, the rest of the
    /// memory for more buffers. None if that is too little, or an object has a size that our views cannot have.
    ///
    /// Source: abi.md 9.12.
    #[must_use]
    pub(crate) fn lay_out_in(&self, memsize: u64) -> Option<RegionLayout> {
        let bytes = |p: PoolWish| u64::from(p.objsize) * u64::from(p.objtotal);
        let wanted = bytes(self.ifs).checked_add(bytes(self.rings))?.checked_add(bytes(self.bufs))?;
        let sizes = [(self.ifs, align_of::<u64>()), (self.rings, align_of::<RingHeader>()), (self.bufs, 64)];
        let fits =
            |(p, align): (PoolWish, usize)| p.objsize > 0 && (p.objsize as usize).is_multiple_of(align);
        if wanted > memsize || !sizes.into_iter().all(fits) {
            return None;
        }
        let mut ofs = 0_u64;
        let mut place = |p: PoolWish, wanted: u64| {
            let room = memsize.saturating_sub(ofs) / u64::from(p.objsize);
            let objtotal = wanted.min(room).min(MAX_OBJECTS) as u32;
            let at = PoolLayout { offset: ofs, objsize: p.objsize, objtotal };
            ofs = (ofs + u64::from(p.objsize) * u64::from(objtotal)).next_multiple_of(page_size() as u64);
            at
        };
        let ifs = place(self.ifs, self.ifs.objtotal.into());
        let rings = place(self.rings, self.rings.objtotal.into());
        let bufs = place(self.bufs, u64::MAX);
        let is_enough = |l: &RegionLayout| l.bufs.objtotal >= FIRST_BUF_IDX;
        Some(RegionLayout { ifs, rings, bufs, memsize }).filter(is_enough)
    }
}

/// Rounds a wish: size to 64, number to whole clusters.
fn pool(wish: PoolWish, names: [&'static str; 2], range: &Range) -> Result<PoolWish, BadPool> {
    let bad = |i: usize, value| BadPool { name: names[i], value };
    let objsize = wish.objsize.checked_next_multiple_of(64).ok_or(bad(0, wish.objsize))?;
    if wish.objsize == 0 || !range.size.contains(&objsize) {
        return Err(bad(0, wish.objsize));
    }
    if !range.total.contains(&wish.objtotal) {
        return Err(bad(1, wish.objtotal));
    }
    let size = objsize as usize;
    let mut cluster = size;
    while !cluster.is_multiple_of(page_size()) && cluster + size <= CLUSTER_MAX_BYTES {
        cluster += size;
    }
    let objtotal = wish.objtotal.next_multiple_of((cluster / size) as u32);
    Ok(PoolWish { objsize, objtotal })
}

/// Rings and slots of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// TX rings.
    pub tx_rings: u16,
    /// RX rings.
    pub rx_rings: u16,
    /// Slots in a TX ring.
    pub tx_slots: u32,
    /// Slots in an RX ring.
    pub rx_slots: u32,
}

impl Geometry {
    /// As seen from the other end of a pipe.
    #[must_use]
    pub fn swapped(&self) -> Self {
        Geometry {
            tx_rings: self.rx_rings,
            rx_rings: self.tx_rings,
            tx_slots: self.rx_slots,
            rx_slots: self.tx_slots,
        }
    }

    /// Slots in the rings of one direction.
    #[must_use]
    pub fn slots(&self, dir: Dir) -> u32 {
        match dir {
            Dir::Tx => self.tx_slots,
            Dir::Rx => self.rx_slots,
        }
    }

    /// Rings of one direction.
    #[must_use]
    pub fn rings(&self, dir: Dir) -> u16 {
        match dir {
            Dir::Tx => self.tx_rings,
            Dir::Rx => self.rx_rings,
        }
    }
}

/// Direction of a ring, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dir {
    /// The client sends.
    Tx,
    /// The client receives.
    Rx,
}

/// Bytes of a `RingState` with what follows it on its page lines.
const STATE_BYTES: usize = size_of::<RingState>().next_multiple_of(1024);

/// Bytes that the state of one ring of `slots` slots takes in a state memfd.
fn ring_state_bytes(slots: u32) -> usize {
    let n = slots as usize;
    // descriptors, mirror; two arrays of records; one bit a slot
    (STATE_BYTES
        + 2 * n.next_multiple_of(16) * 4
        + 2 * n.next_multiple_of(4) * 16
        + n.div_ceil(64).next_multiple_of(8) * 8)
        .next_multiple_of(4096)
}

/// Bytes of the state memfd of a port.
#[must_use]
pub fn state_memfd_bytes(g: &Geometry) -> usize {
    usize::from(g.tx_rings) * ring_state_bytes(g.tx_slots)
        + usize::from(g.rx_rings) * ring_state_bytes(g.rx_slots)
}

/// The state of one ring, with the arrays beside it. Who writes what:
///
/// | array | switch port, RX | pipe, TX | pipe, RX |
/// |---|---|---|---|
/// | `desc` | length and flags (senders) | length and flags (owner) | |
/// | `mirror` | `buf_idx` of free slots (owner) | | |
/// | `records` | offsets of free slots (owner) | slots whose index or `ptr` changed (owner) | slots given back changed (owner) |
/// | `known` | offsets of packets (senders) | what the far side knows of each slot (owner) | each slot as delivered (owner) |
/// | `bits` | | | which of `records` count (owner) |
#[derive(Clone, Debug)]
pub struct RingShared {
    /// Cursors, locks, counters.
    pub state: SharedRef<RingState>,
    /// One word a slot.
    pub desc: SharedSlice<AtomicU32>,
    /// One word a slot.
    pub mirror: SharedSlice<AtomicU32>,
    /// Two words a slot.
    pub records: SharedSlice<AtomicU64>,
    /// Two words a slot.
    pub known: SharedSlice<AtomicU64>,
    /// One bit a slot.
    pub bits: SharedSlice<AtomicU64>,
    /// Slots.
    pub num_slots: u32,
}

impl RingShared {
    /// The view of ring `index` in a state memfd's map. None if the map is too small for that geometry.
    #[must_use]
    pub fn new(map: &Arc<Map>, g: &Geometry, dir: Dir, index: u16) -> Option<Self> {
        if index >= g.rings(dir) {
            return None;
        }
        let first = match dir {
            Dir::Tx => 0,
            Dir::Rx => usize::from(g.tx_rings) * ring_state_bytes(g.tx_slots),
        };
        let num_slots = g.slots(dir);
        let n = num_slots as usize;
        let at = first + usize::from(index) * ring_state_bytes(num_slots);
        let desc_at = at + STATE_BYTES;
        let mirror_at = desc_at + n.next_multiple_of(16) * 4;
        let records_at = mirror_at + n.next_multiple_of(16) * 4;
        let known_at = records_at + n.next_multiple_of(4) * 16;
        let bits_at = known_at + n.next_multiple_of(4) * 16;
        Some(RingShared {
            state: SharedRef::new(map, at)?,
            desc: SharedSlice::new(map, desc_at, n)?,
            mirror: SharedSlice::new(map, mirror_at, n)?,
            records: SharedSlice::new(map, records_at, 2 * n)?,
            known: SharedSlice::new(map, known_at, 2 * n)?,
            bits: SharedSlice::new(map, bits_at, n.div_ceil(64))?,
            num_slots,
        })
    }
}

/// A netmap ring in a region: header, slots, and the buffers that its slots name.
#[derive(Clone, Debug)]
pub struct RingView {
    /// Header.
    pub header: SharedRef<RingHeader>,
    /// Slots.
    pub slots: SharedSlice<Slot>,
    /// Buffers of the region.
    pub bufs: Bufs,
}

impl RingView {
    /// The ring of `num_slots` slots at byte `ofs` of a region's map. None if it does not fit.
    #[must_use]
    pub fn new(map: &Arc<Map>, layout: &RegionLayout, ofs: u64, num_slots: u32) -> Option<Self> {
        let ofs = usize::try_from(ofs).ok()?;
        if num_slots < 2 {
            return None;
        }
        Some(RingView {
            header: SharedRef::new(map, ofs)?,
            slots: SharedSlice::new(map, ofs.checked_add(RING_HEADER_BYTES)?, num_slots as usize)?,
            bufs: region_bufs(map, layout)?,
        })
    }

    /// Slots.
    #[inline]
    #[must_use]
    pub fn num_slots(&self) -> u32 {
        self.slots.len() as u32
    }
}

/// The buffers of a region. None if the map is too small.
#[must_use]
pub fn region_bufs(map: &Arc<Map>, layout: &RegionLayout) -> Option<Bufs> {
    let ofs = usize::try_from(layout.bufs.offset).ok()?;
    Bufs::new(map, ofs, layout.bufs.objsize as usize, layout.bufs.objtotal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: RegionWish = RegionWish {
        ifs: PoolWish { objsize: 1024, objtotal: 2 },
        rings: PoolWish { objsize: 20480, objtotal: 4 },
        bufs: PoolWish { objsize: 2048, objtotal: 4098 },
    };
    const ONE: Geometry = Geometry { tx_rings: 1, rx_rings: 1, tx_slots: 1024, rx_slots: 1024 };

    #[test]
    fn a_default_port_is_laid_out_as_recorded_on_netmap() {
        let l = RegionWish::for_port(&FLOOR, &ONE, 2, 0).lay_out(true).unwrap();
        assert_eq!((l.ifs.objtotal, l.rings.objtotal, l.bufs.objtotal), (12, 20, 20482));
        assert_eq!((l.ifs.offset, l.rings.offset, l.bufs.offset), (0, 12288, 421_888));
        assert_eq!(l.memsize, 42_369_024);
    }

    #[test]
    fn the_default_global_region_is_laid_out_as_recorded_on_netmap() {
        let wish = RegionWish {
            ifs: PoolWish { objsize: 1024, objtotal: 100 },
            rings: PoolWish { objsize: 36864, objtotal: 200 },
            bufs: PoolWish { objsize: 2048, objtotal: 163_840 },
        };
        assert_eq!(wish.lay_out(false).unwrap().memsize, 343_019_520);
    }

    #[test]
    fn sizes_are_rounded_before_they_are_judged() {
        let mut wish = FLOOR;
        wish.bufs.objsize = 1;
        assert_eq!(wish.lay_out(true).unwrap().bufs.objsize, 64);
        for bad in [0, 65_537, u32::MAX] {
            wish.bufs.objsize = bad;
            assert_eq!(wish.lay_out(true), Err(BadPool { name: "buf_size", value: bad }));
        }
    }

    #[test]
    fn memory_of_a_client_is_used_to_its_end_and_never_beyond() {
        let odd = RegionWish { ifs: PoolWish { objsize: 1000, objtotal: 5 }, ..FLOOR };
        for memsize in [9_000_000_u64, 8_600_000, 8_479_744, 9_437_184 + 17] {
            let l = odd.lay_out_in(memsize).unwrap();
            assert_eq!((l.memsize, l.ifs.objsize, l.ifs.objtotal, l.rings.objtotal), (memsize, 1000, 5, 4));
            assert_eq!([l.ifs, l.rings, l.bufs].map(|p| p.offset), [0, 8192, 8192 + 81920]);
            let end = l.bufs.offset + 2048 * u64::from(l.bufs.objtotal);
            assert!(end <= memsize && memsize - end < 2048, "{l:?}");
        }
        let wanted = 5000 + 4 * 20480 + 4098 * 2048;
        assert!(odd.lay_out_in(wanted).is_some_and(|l| l.bufs.objtotal < 4098), "pages run out");
        assert_eq!(odd.lay_out_in(wanted - 1), None);
        assert_eq!(odd.lay_out_in(0), None);
        for (size, total) in [(0, 4), (2049, 4), (u32::MAX, u32::MAX), (1 << 20, 1)] {
            let wish = RegionWish { bufs: PoolWish { objsize: size, objtotal: total }, ..FLOOR };
            assert_eq!(wish.lay_out_in(1_200_000), None, "{size} {total}");
        }
        let tiny = RegionWish { bufs: PoolWish { objsize: 64, objtotal: 4 }, ..FLOOR };
        assert_eq!(tiny.lay_out_in(1 << 40).unwrap().bufs.objtotal, 1 << 24);
    }

    #[test]
    fn ring_states_do_not_overlap_and_fill_the_memfd() {
        let g = Geometry { tx_rings: 3, rx_rings: 2, tx_slots: 100, rx_slots: 1023 };
        let map = Map::anonymous(state_memfd_bytes(&g)).unwrap();
        let all: Vec<_> = (0..3)
            .map(|i| RingShared::new(&map, &g, Dir::Tx, i).unwrap())
            .chain((0..2).map(|i| RingShared::new(&map, &g, Dir::Rx, i).unwrap()))
            .collect();
        assert!(RingShared::new(&map, &g, Dir::Rx, 2).is_none());
        for (i, r) in all.iter().enumerate() {
            let i = i as u64 + 1;
            r.state.producer.hwtail.set(i as u32);
            r.desc
                .iter()
                .chain(r.mirror.iter())
                .for_each(|w| w.store(i as u32, std::sync::atomic::Ordering::Relaxed));
            for words in [&r.records, &r.known, &r.bits] {
                words.iter().for_each(|w| w.store(i, std::sync::atomic::Ordering::Relaxed));
            }
        }
        for (i, r) in all.iter().enumerate() {
            let i = i as u64 + 1;
            assert_eq!(u64::from(r.state.producer.hwtail.load()), i);
            assert!(
                r.desc
                    .iter()
                    .chain(r.mirror.iter())
                    .all(|w| u64::from(w.load(std::sync::atomic::Ordering::Relaxed)) == i)
            );
            for words in [&r.records, &r.known, &r.bits] {
                assert!(words.iter().all(|w| w.load(std::sync::atomic::Ordering::Relaxed) == i));
            }
        }
    }
}

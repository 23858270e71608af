//! Two ports without a broker: their memory, which two processes may map, their rings and drivers.

use super::case::{Case, Kind};
use ringway_core::adapter::RingDriver;
use ringway_core::adapter::pipe::{PipeRx, PipeTx};
use ringway_core::kring::RingHandle;
use ringway_core::layout::{
    Dir, Geometry, PoolWish, RegionLayout, RegionWish, RingShared, RingView, state_memfd_bytes,
};
use ringway_core::vale::{Known, Peer, PeerTable, Seat, ValeRx, ValeTx, mac_table, seat_port};
use ringway_os::event::Doorbell;
use ringway_os::mem::{Map, Memfd, SharedRef, SharedSlice, page_size};
use ringway_os::ring::SlotWord;
use ringway_os::state::SwitchPage;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

pub const SLOTS: u32 = 1024;
pub const GEOMETRY: Geometry = Geometry { tx_rings: 1, rx_rings: 1, tx_slots: SLOTS, rx_slots: SLOTS };

/// Memory that both processes map: regions, states, the switch with what the bench itself needs behind it.
pub struct Bed {
    layout: RegionLayout,
    region: [Arc<Map>; 2],
    state: [Arc<Map>; 2],
    extra: Arc<Map>,
}

pub const SCRATCH_AT: usize = size_of::<SwitchPage>().next_multiple_of(4096);
pub const SCRATCH_WORDS: usize = 2 * SLOTS as usize + 512;

impl Bed {
    fn layout(stride: u32) -> RegionLayout {
        let floor = RegionWish {
            ifs: PoolWish { objsize: 1024, objtotal: 2 },
            rings: PoolWish { objsize: 20480, objtotal: 4 },
            bufs: PoolWish { objsize: stride, objtotal: 4098 },
        };
        RegionWish::for_port(&floor, &GEOMETRY, 0, 0).lay_out(true).unwrap()
    }

    pub fn create(stride: u32) -> (Self, Vec<Memfd>) {
        let layout = Self::layout(stride);
        let make = |len: usize| Memfd::create("hot", len).unwrap();
        let region = layout.memsize as usize + page_size();
        let state = state_memfd_bytes(&GEOMETRY);
        let fds =
            vec![make(region), make(region), make(state), make(state), make(SCRATCH_AT + SCRATCH_WORDS * 8)];
        (Self::of(&fds, stride), fds)
    }

    pub fn of(fds: &[Memfd], stride: u32) -> Self {
        let m: Vec<_> = fds.iter().map(|f| f.map().unwrap()).collect();
        Bed {
            layout: Self::layout(stride),
            region: [m[0].clone(), m[1].clone()],
            state: [m[2].clone(), m[3].clone()],
            extra: m[4].clone(),
        }
    }

    pub fn page(&self) -> SharedRef<SwitchPage> {
        SharedRef::new(&self.extra, 0).unwrap()
    }

    pub fn scratch(&self) -> SharedSlice<AtomicU64> {
        SharedSlice::new(&self.extra, SCRATCH_AT, SCRATCH_WORDS).unwrap()
    }

    /// The ring of one port. The ends of a pipe lie in one region.
    pub fn ring(&self, case: &Case, port: usize, dir: Dir) -> RingHandle {
        let object = 2 * port + usize::from(dir == Dir::Rx);
        let ofs = self.layout.rings.offset + object as u64 * u64::from(self.layout.rings.objsize);
        let region = &self.region[if case.kind == Kind::Pipe { 0 } else { port }];
        RingHandle {
            ring: RingView::new(region, &self.layout, ofs, SLOTS).unwrap(),
            shared: RingShared::new(&self.state[port], &GEOMETRY, dir, 0).unwrap(),
            dir,
        }
    }

    /// Port 0 sends to port 1.
    pub fn set_up(&self, case: &Case) {
        for (port, dir) in [(0, Dir::Tx), (1, Dir::Rx)] {
            let handle = self.ring(case, port, dir);
            let first = if case.kind == Kind::Pipe || dir == Dir::Tx { 2 } else { 2 + SLOTS };
            for (k, slot) in handle.ring.slots.iter().enumerate() {
                let idx = first + k as u32;
                slot.store(SlotWord::new(idx, 0, 0));
                let payload = handle.ring.bufs.payload(idx).unwrap();
                payload.copy_from(&[7; 2048]);
                payload.store_u64(0, mac(1, 0) | mac(0, 0) << 48);
                payload.store_u64(8, mac(0, 0) >> 16 | 0x0008 << 32);
            }
            handle.reset();
        }
        let page = self.page();
        for (port, count) in [(0, case.srcs.max(1)), (1, case.dsts.max(1))] {
            seat_port(&page, port, 1 + u32::from(port));
            let place = mac_table::Place { port, tag: mac_table::tag_of(1 + u32::from(port)) };
            for i in 0..count {
                mac_table::learn(&page, mac(port, i), place, |_| true);
            }
        }
        self.ring(case, 1, Dir::Rx).shared.state.senders.bound.store(1, Relaxed);
    }

    pub fn sender(&self, case: &Case) -> Box<dyn RingDriver> {
        let bell = Arc::new(Doorbell::new().unwrap());
        if case.kind == Kind::Pipe {
            return Box::new(PipeTx { peer: self.ring(case, 1, Dir::Rx).shared, bell });
        }
        let table = Arc::new(PeerTable::default());
        let peer = Peer::new((1, 2), &GEOMETRY, &self.layout, &self.region[1], &self.state[1], bell).unwrap();
        table.set(1, Known::Peer(Arc::new(peer)));
        Box::new(ValeTx::new(Seat { page: self.page(), index: 0, generation: 1 }, 0, table))
    }

    pub fn receiver(&self, case: &Case) -> Box<dyn RingDriver> {
        let bell = Arc::new(Doorbell::new().unwrap());
        match case.kind {
            Kind::Pipe => Box::new(PipeRx { peer: self.ring(case, 0, Dir::Tx).shared, bell }),
            _ => Box::new(ValeRx),
        }
    }
}

/// Address `i` of a port, in memory order.
pub fn mac(port: u8, i: u32) -> u64 {
    0x02 | u64::from(port) << 8 | u64::from(i.swap_bytes()) << 16
}

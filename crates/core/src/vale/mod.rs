//! The VALE switch: what its members share, and who they are to each other.
//!
//! A sender forwards in its own context: it maps the receive rings of the other members and copies frames into their buffers. What it
//! needs of another port is a [`Peer`]; where its memory comes from (an fd from the broker, the same process) is not known
//! here: a driver that lacks a peer says so, and the engine brings it.
//!
//! Source: semantics.md 15 and 16; docs/DESIGN.md, "A switch, direct, step by step".

use crate::adapter::monitor::Arrivals;
use crate::layout::{Dir, Geometry, RegionLayout, RingShared, region_bufs};
use ringway_os::bytes::Bufs;
use ringway_os::event::Doorbell;
use ringway_os::mem::{Map, SharedRef};
use ringway_os::state::{RingState, SWITCH_PORTS, SwitchPage};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, PoisonError};

mod far;
mod forward;
mod lane;
mod lists;
pub mod mac_table;
mod receive;
mod sum;
mod vnet;

pub use forward::ValeTx;
pub use receive::ValeRx;

/// A receive ring of another port, as its senders see it.
#[derive(Clone, Debug)]
pub struct FarRing {
    /// Descriptors, mirror, and the words that its owner sees.
    pub shared: RingShared,
    /// Where the senders' lock and their cursors are: the same state, or private memory of the broker.
    pub senders: SharedRef<RingState>,
    /// In the broker: monitors that watch the ring, and its owner, if the broker serves that too.
    pub arrivals: Option<Arc<Arrivals>>,
    /// In the broker: a sender that has not handed the ring over yet is writing to it.
    pub is_busy: bool,
}

/// Another port of the switch.
#[derive(Debug)]
pub struct Peer {
    /// Index on the switch.
    pub index: u8,
    /// Generation that this is the memory of.
    pub generation: u32,
    /// Its receive rings.
    pub rings: Vec<FarRing>,
    /// Its buffers.
    pub bufs: Bufs,
    /// Rung when packets were published to somebody who sleeps.
    pub bell: Arc<Doorbell>,
}

impl Peer {
    /// A peer from its maps. None if they are too small for what is said of them.
    #[must_use]
    pub fn new(
        id: (u8, u32),
        geometry: &Geometry,
        layout: &RegionLayout,
        region: &Arc<Map>,
        state: &Arc<Map>,
        bell: Arc<Doorbell>,
    ) -> Option<Self> {
        let rings = (0..geometry.rx_rings)
            .map(|i| {
                let shared = RingShared::new(state, geometry, Dir::Rx, i)?;
                let senders = shared.state.clone();
                Some(FarRing { shared, senders, arrivals: None, is_busy: false })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Peer { index: id.0, generation: id.1, rings, bufs: region_bufs(region, layout)?, bell })
    }
}

/// What is known of the port at one index.
#[derive(Clone, Debug)]
pub enum Known {
    /// Its memory is mapped.
    Peer(Arc<Peer>),
    /// It was asked for and could not be had, at this generation: packets for it are dropped.
    Unreachable(u32),
}

/// The peers that a process has mapped, shared by the TX rings of a port.
#[derive(Debug)]
pub struct PeerTable(Mutex<Vec<Option<Known>>>);

impl Default for PeerTable {
    fn default() -> Self {
        PeerTable(Mutex::new(vec![None; SWITCH_PORTS]))
    }
}

impl PeerTable {
    /// Remembers what was found out of the port at `index`.
    pub fn set(&self, index: u8, known: Known) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(index)] = Some(known);
    }

    /// What is known of the port at `index`.
    #[must_use]
    pub fn get(&self, index: u8) -> Option<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(index)].clone()
    }
}

/// Where a port sits.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The switch.
    pub page: SharedRef<SwitchPage>,
    /// The port's index.
    pub index: u8,
    /// The port's generation.
    pub generation: u32,
}

/// Bytes of the longest frame that a port takes of a segmented packet, unless it takes virtio-net headers. Source: semantics.md 17.
pub const DEFAULT_MFS_BYTES: u32 = 1514;

/// A port's frames begin with a virtio-net header of `hdr_len` bytes from now on, and packets that are segmented for it are
/// cut at `mfs` bytes. Only the keeper of the registry calls this.
pub fn set_header(page: &SwitchPage, index: u8, hdr_len: u32, mfs: u32) {
    let i = usize::from(index);
    page.mfs[i].store(mfs, Relaxed);
    page.hdr_lens[i].store(hdr_len, Relaxed);
}

/// A port comes to the switch. Only the keeper of the registry calls this.
pub fn seat_port(page: &SwitchPage, index: u8, generation: u32) {
    let i = usize::from(index);
    mac_table::forget(page, index);
    set_header(page, index, 0, DEFAULT_MFS_BYTES);
    page.generations[i].store(generation, Release);
    page.present[i / 64].fetch_or(1 << (i % 64), Release);
    page.epoch.fetch_add(1, Release);
}

/// A port leaves the switch. A late writer finds a generation that is not his.
pub fn unseat_port(page: &SwitchPage, index: u8) {
    let i = usize::from(index);
    page.present[i / 64].fetch_and(!(1 << (i % 64)), Release);
    page.generations[i].store(0, Release);
    mac_table::forget(page, index);
    page.epoch.fetch_add(1, Release);
}

/// Indexes of the ports on a switch, without `me`.
pub(crate) fn others(page: &SwitchPage, me: u8) -> impl Iterator<Item = u8> + '_ {
    (0..SWITCH_PORTS / 64).flat_map(move |w| {
        let mut bits = page.present[w].load(Acquire);
        if usize::from(me) / 64 == w {
            bits &= !(1 << (me % 64));
        }
        std::iter::from_fn(move || {
            (bits != 0).then(|| {
                let i = bits.trailing_zeros();
                bits &= bits - 1;
                (w as u32 * 64 + i) as u8
            })
        })
    })
}

#[cfg(test)]
mod tests;

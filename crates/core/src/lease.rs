//! What a binding hands out, and the end that syncs with it.
//!
//! A [`Grant`] says everything that the sync of a bound port needs: which rings, where they lie, the memory, the doorbells. It
//! comes from the registry, in the same process or by way of the broker's socket; an [`Endpoint`] made of
//! it does not know which.

use crate::layout::{Geometry, RegionLayout};
use crate::nic::NicGrant;
use crate::pool::Shm;
use ringway_os::event::{Doorbell, LentBell};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

mod end;

pub(crate) use end::nic_driver;
pub use end::{EndContext, EndRing, Endpoint, RingParts};

/// What serves a granted port.
#[derive(Clone, Debug)]
pub enum GrantKind {
    /// Nothing moves.
    Null,
    /// A port of a switch: its index and generation, and the switch's page.
    Vale {
        /// Index on the switch.
        index: u8,
        /// Generation of this opening.
        generation: u32,
        /// The page that all members share.
        page: Shm,
    },
    /// One end of a pipe: the state of the other, and its doorbells.
    Pipe {
        /// State memfd of the other end.
        peer_state: Shm,
        /// Rung when packets were published to the other end.
        peer_rx_bell: Arc<Doorbell>,
        /// Rung when slots were given back to it.
        peer_tx_bell: Arc<Doorbell>,
    },
    /// An interface: how it is reached, and the sockets of its bound queues.
    Nic(NicGrant),
    /// The port of another user, who handed its descriptor over: the broker serves its rings, and nothing but the port's own
    /// memory is lent.
    Guest(GuestOf),
    /// A monitor: the broker fills its receive rings.
    Monitor,
}

/// What a guest takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestOf {
    /// A port of a switch. Its RX rings are for whoever has bound them: what the senders left lies in the port's own state.
    Switch,
    /// A pipe, an interface, a monitor: the broker serves all rings.
    Other,
}

/// What the processes of a binding's user know, and those forked from them, whoever they are by then: a number that nobody can guess.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct BindingKey(pub [u8; 16]);

impl BindingKey {
    /// What those get who must not have one. It opens nothing.
    pub const NONE: BindingKey = BindingKey([0; 16]);
}

impl fmt::Debug for BindingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::NONE { "no key" } else { "a key" })
    }
}

/// A bound port.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Full name of the port.
    pub name: String,
    /// What serves it.
    pub kind: GrantKind,
    /// All rings of the port.
    pub geometry: Geometry,
    /// TX rings bound here, and where they lie in the region.
    pub tx: BoundRings,
    /// RX rings bound here.
    pub rx: BoundRings,
    /// Id of the region.
    pub mem_id: u16,
    /// Its pools.
    pub layout: RegionLayout,
    /// Offset of this binding's interface record.
    pub if_ofs: u64,
    /// Extra buffers granted.
    pub extra_bufs: u32,
    /// `NR_*` of the request.
    pub nr_flags: u64,
    /// Shown to the keeper of the registry when more memory is asked for.
    pub key: BindingKey,
    /// The region.
    pub region: Shm,
    /// The state of the port's rings.
    pub state: Shm,
    /// Rung when packets arrive.
    pub rx_bell: Arc<Doorbell>,
    /// Rung when room appears.
    pub tx_bell: Arc<Doorbell>,
    /// Rung by the broker: packets, room, or a change that every sleeper must hear of.
    pub notice: Arc<LentBell>,
    /// Rung after posting to the broker's worker, if that sleeps.
    pub worker_bell: Arc<Doorbell>,
}

/// Consecutive rings of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoundRings {
    /// Index of the first.
    pub first: u16,
    /// Offset of each in the region.
    pub offsets: Vec<u64>,
}

impl BoundRings {
    /// Their indexes.
    #[must_use]
    pub fn range(&self) -> Range<u16> {
        self.first..self.first + self.offsets.len() as u16
    }
}

/// A member of the switch, as granted to another.
#[derive(Clone, Debug)]
pub struct PeerGrant {
    /// Index on the switch.
    pub index: u8,
    /// Generation of this opening.
    pub generation: u32,
    /// Its rings.
    pub geometry: Geometry,
    /// Pools of its region.
    pub layout: RegionLayout,
    /// Its region.
    pub region: Shm,
    /// State of its rings.
    pub state: Shm,
    /// Its doorbell for packets.
    pub rx_bell: Arc<Doorbell>,
}

/// Where the memory of other ports comes from.
pub trait PeerSource {
    /// The port at `index` of the switch that this binding's port sits on. None if it cannot be had.
    fn peer(&mut self, index: u8) -> Option<PeerGrant>;

    /// Serves what was posted, where no worker does: in an engine without threads.
    fn serve(&mut self) {}

    /// False once whoever would serve it is gone for good.
    fn is_alive(&mut self) -> bool {
        true
    }
}

/// A grant does not fit its memory: the keeper of the registry and we disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadGrant;

impl fmt::Display for BadGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the granted memory does not hold the granted rings")
    }
}

impl std::error::Error for BadGrant {}

//! The registry: ports, regions and switches by name, who owns them, who has bound what.
//!
//! It is one object without threads or sockets. The broker keeps one for all its clients; an embedded engine keeps
//! its own. Everything here is cold: it may allocate, and fails with words that help.
//!
//! Source: abi.md 9, semantics.md 8 to 12, 15, 21, 23.

use self::persistent::Persistent;
use self::wrapped::Wrap;
use crate::layout::Geometry;
use crate::lease::BindingKey;
use crate::nic::{NicDevice, NicRequest};
use crate::offsets::Offsets;
use crate::pool::{Region, Shm};
use ringway_abi::Errno;
use ringway_os::event::{Doorbell, PrivateBell};
use ringway_os::link::LinkMonitor;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

mod attach;
mod audit;
mod bind;
mod brokered;
mod domain;
mod extmem;
mod guests;
mod info;
mod jobs;
mod locks;
mod monitors;
mod nic;
mod options;
mod persistent;
mod polling;
mod ports;
mod regions;
mod retired;
mod rings;
mod switches;
mod takeover;
mod tunables;
mod wrapped;

pub use audit::RegionAudit;
pub use extmem::{Offer, PagesKey};
pub use info::{HolderInfo, PortInfo, RingInfo};
pub use jobs::{Job, Jobs, LateRings};
pub(crate) use jobs::{has_news, tell_counters};
pub use locks::{HeldLock, LockKind};
pub use nic::InterfaceUsers;
pub use options::{CsbArray, ReqOption, check_csb, check_options};
pub use retired::Retired;
pub use tunables::Tunables;

/// A request that could not be served: the number for programs, and the words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlError {
    /// As netmap's request would fail.
    pub errno: Errno,
    /// What failed, why, what to do.
    pub message: String,
}

impl ControlError {
    /// An error.
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        ControlError { errno, message: message.into() }
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ControlError {}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// User.
    pub uid: u32,
}

impl Asker {
    /// True for the owner and for root.
    #[must_use]
    pub fn may(self, owner: u32) -> bool {
        self.uid == owner || self.uid == 0
    }
}

/// A port in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(u64);

/// A bound descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BindingId(u64);

/// A region in the registry. `mem_id` is what clients call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionId(u64);

#[derive(Debug)]
struct RegionEntry {
    mem_id: u16,
    owner: u32,
    region: Region,
    /// Ports that use it.
    ports: u32,
    /// Of a client's own memory: which pages that is.
    pages: Option<PagesKey>,
}

/// What kind of port it is.
#[derive(Debug)]
enum Kind {
    /// On a switch, or a switch port on none: a persistent one that is not attached.
    Vale { switch: Option<usize>, index: u8, generation: u32, page: Shm },
    /// One end of a pipe.
    Pipe { parent: PortId, peer: PortId },
    /// Holds a region.
    Null,
    /// An interface.
    Nic(Box<NicDevice>),
    /// Watches another port.
    Monitor(monitors::Watch),
}

/// One ring of a port: who has it.
#[derive(Clone, Debug, Default)]
struct RingUse {
    users: u32,
    exclusive: bool,
    /// Where it lies in the region, while it exists.
    offset: Option<u64>,
    /// Changes each time the ring is made.
    epoch: u64,
    /// RX of an interface: the kernel was given the ring's buffers.
    filled: bool,
    /// Where packets begin in its buffers.
    offsets: Offsets,
}

#[derive(Debug)]
struct PortEntry {
    name: String,
    owner: u32,
    kind: Kind,
    region: RegionId,
    geometry: Geometry,
    state: Shm,
    tx: Vec<RingUse>,
    rx: Vec<RingUse>,
    /// Descriptors bound.
    bindings: u32,
    /// Pipes on it.
    pipes: u32,
    /// Monitors of it, and the number of the next.
    monitors: u32,
    next_monitor: u32,
    hdr_len: u32,
    mfs: u32,
    /// A switch port with a name of its own.
    persistent: Option<Persistent>,
    /// The broker itself has it bound, to carry frames between two ports.
    wrap: Wrap,
    rx_bell: Arc<Doorbell>,
    tx_bell: Arc<Doorbell>,
    /// Rung by the keeper of the registry alone.
    notice: Arc<PrivateBell>,
    /// Rung by the port's clients when they post to the broker's worker.
    worker_bell: Arc<Doorbell>,
}

#[derive(Debug)]
struct Switch {
    name: String,
    owner: u32,
    page: Shm,
    ports: BTreeMap<u8, PortId>,
    /// Indexes given back, the last first.
    freed: Vec<u8>,
    next_index: u8,
    /// Newcomers of other users are welcome.
    public: bool,
}

#[derive(Debug)]
struct Binding {
    port: PortId,
    uid: u32,
    /// Told to processes of that user.
    key: BindingKey,
    tx: std::ops::Range<u16>,
    rx: std::ops::Range<u16>,
    exclusive: bool,
    if_ofs: u64,
    extra_bufs: u32,
    nr_flags: u64,
}

/// All ports, regions, switches and bindings of a broker or an embedded engine.
#[derive(Debug, Default)]
pub struct Registry {
    /// Parameters in force.
    pub tunables: Tunables,
    /// Names of switches that all users may join.
    pub public_switches: Vec<String>,
    /// Who may open interfaces.
    pub interface_users: InterfaceUsers,
    /// All regions of a user lie in one file, at different offsets: what a file system that must know the memory when the device file is
    /// opened can show. To be set before the first region is made.
    pub one_file_per_user: bool,
    domains: HashMap<u32, domain::Domain>,
    /// Where the request under way comes from.
    nic_request: NicRequest,
    /// Memory that came with it.
    offer: Option<Offer>,
    /// One per network namespace of which a port's interface is.
    monitors: Vec<(u64, LinkMonitor)>,
    regions: BTreeMap<RegionId, RegionEntry>,
    globals: HashMap<u32, RegionId>,
    last_mem_id: u16,
    ports: HashMap<PortId, PortEntry>,
    names: HashMap<String, PortId>,
    switches: Vec<Option<Switch>>,
    bindings: HashMap<BindingId, Binding>,
    guests: Vec<guests::Guest>,
    guest_bells: HashMap<(BindingId, u32), guests::GuestBells>,
    /// Files of ports that are gone, for the keeper to close.
    retired: Vec<Retired>,
    next_id: u64,
    next_generation: u32,
}

impl Registry {
    /// An empty one.
    #[must_use]
    pub fn new(tunables: Tunables) -> Self {
        Registry { tunables, last_mem_id: 1, ..Registry::default() }
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn port(&self, id: PortId) -> Result<&PortEntry, ControlError> {
        self.ports.get(&id).ok_or_else(|| ControlError::new(Errno::ENXIO, "the port is gone"))
    }

    fn region_of(&self, port: &PortEntry) -> Result<&RegionEntry, ControlError> {
        self.regions.get(&port.region).ok_or_else(|| ControlError::new(Errno::ENXIO, "the region is gone"))
    }

    /// Descriptors bound now.
    #[must_use]
    pub fn bindings(&self) -> usize {
        self.bindings.len()
    }

    /// Ports that `uid` owns.
    #[must_use]
    pub fn count_ports(&self, uid: u32) -> usize {
        self.ports.values().filter(|p| p.owner == uid).count()
    }

    /// All ports.
    #[must_use]
    pub fn port_count(&self) -> usize {
        self.ports.len()
    }

    /// True if nothing is left: no port, region, switch or binding.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
            && self.ports.is_empty()
            && self.regions.is_empty()
            && self.switches.iter().all(Option::is_none)
    }

    /// Name of the port of a binding.
    #[must_use]
    pub fn binding_name(&self, id: BindingId) -> Option<&str> {
        Some(self.ports.get(&self.bindings.get(&id)?.port)?.full_name())
    }

    /// Bytes of regions and of ring states that belong to `uid`, as far as they could ever be touched.
    #[must_use]
    pub fn region_bytes(&self, uid: u32) -> u64 {
        let regions = self.regions.values().filter(|r| r.owner == uid).map(|r| r.region.layout.memsize);
        let states = self.ports.values().filter(|p| p.owner == uid).map(|p| p.state.map.len_bytes() as u64);
        regions.sum::<u64>() + states.sum::<u64>()
    }
}

#[cfg(test)]
mod tests;

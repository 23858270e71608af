//! What there is, as data: ports and the broker itself. The same structures in the broker's JSON and in the programs that show it.

use ringway_core::control::{BindingId, PortInfo};
use ringway_core::layout::Dir;
use ringway_core::stats::Counters;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counters of a direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets taken from TX rings, or received.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Syncs.
    pub syncs: u64,
    /// Dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

impl From<&Counters> for Traffic {
    fn from(c: &Counters) -> Self {
        let drops = c.drops_by_name().map(|(n, v)| (n.to_owned(), v)).collect();
        Traffic { packets: c.packets, bytes: c.bytes, syncs: c.syncs, drops }
    }
}

/// A descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process that opened it.
    pub pid: u32,
    /// User.
    pub uid: u32,
    /// Rings bound.
    pub rings: String,
}

/// One ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// `tx` or `rx`.
    pub dir: String,
    /// Index.
    pub index: u16,
    /// Descriptors that have it bound.
    pub users: u32,
    /// Packets that wait to be received.
    pub waiting: u32,
    /// Counters.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name.
    pub name: String,
    /// `vale`, `persistent`, `parent` (made by a pipe for itself), `pipe`, `null`, `nic`.
    pub kind: String,
    /// Who runs its syncs.
    pub lease: String,
    /// How an interface is reached (`xdp native copy`, `af_packet` ...); empty for other ports.
    #[serde(default)]
    pub mode: String,
    /// Owner's user number.
    pub owner: u32,
    /// False: it belongs to somebody else, and only the name is shown.
    pub visible: bool,
    /// Index on its switch.
    pub index: Option<u8>,
    /// Region.
    pub mem_id: u16,
    /// Slots of TX and RX rings.
    pub slots: (u32, u32),
    /// Addresses learned on it.
    pub macs: usize,
    /// Sum over TX rings.
    pub tx: Traffic,
    /// Sum over RX rings.
    pub rx: Traffic,
    /// Rings.
    pub rings: Vec<Ring>,
    /// Descriptors.
    pub holders: Vec<Holder>,
}

/// The broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Process.
    pub pid: u32,
    /// User.
    pub uid: u32,
    /// Socket.
    pub socket: String,
    /// Seconds since it began.
    pub uptime_s: u64,
    /// Connections.
    pub sessions: usize,
    /// Bound descriptors.
    pub bindings: usize,
    /// Processes attached.
    pub attachments: usize,
    /// Ports.
    pub ports: usize,
    /// Locks of dead processes broken since it began.
    pub locks_broken: u64,
    /// The device file: its path, or why there is none.
    #[serde(default)]
    pub device: String,
    /// CPU time that it has used, in nanoseconds.
    pub cpu_ns: u64,
}

/// A port for people and scripts.
#[must_use]
pub fn port(info: &PortInfo, pid_of: impl Fn(BindingId) -> u32) -> Port {
    let sum = |dir: Dir| {
        let mut total = Counters::default();
        info.rings.iter().filter(|r| r.dir == dir).for_each(|r| total.merge(&r.counters));
        Traffic::from(&total)
    };
    Port {
        name: info.name.clone(),
        kind: info.kind.to_owned(),
        lease: info.lease.to_owned(),
        mode: info.mode.to_owned(),
        owner: info.owner,
        visible: info.visible,
        index: info.index,
        mem_id: info.mem_id,
        slots: info.slots,
        macs: info.macs,
        tx: sum(Dir::Tx),
        rx: sum(Dir::Rx),
        rings: info
            .rings
            .iter()
            .map(|r| Ring {
                dir: if r.dir == Dir::Tx { "tx" } else { "rx" }.to_owned(),
                index: r.index,
                users: r.users,
                waiting: r.waiting,
                traffic: Traffic::from(&r.counters),
            })
            .collect(),
        holders: info
            .holders
            .iter()
            .map(|h| Holder { pid: pid_of(h.binding), uid: h.uid, rings: h.rings.clone() })
            .collect(),
    }
}
